"""What others wrote has no effect where it is quoted, and is bounded, whatever it is."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.text_limits import MAX_REPLY_BYTES
from promptyoself.core.visible import unseen
from promptyoself.service.notices.quotes import as_data, on_a_line, quoted

ACTIVE = st.sampled_from(
    [
        *(
            "@everyone",
            "@here",
            "<!channel>",
            "<@U024BE7LH>",
            "https://x.example/a?b",
            "tg://u?i=1",
        ),
        *("www.example.org", "[look](https://x.example)", "![p](https://x.example/p.png)", "a.py"),
        *(
            "mailto:me@x.example",
            "TEL:112",
            "\u202e",
            "\u200b",
            "\x1b[2J",
            "\r\n",
            "\n",
            "\t",
            "> ",
        ),
        *("\ud800", "<img src=x>", "&lt;!channel&gt;", "data:text/html,x", "..", "://", "]("),
    ]
)
TEXTS = st.lists(ACTIVE | st.text(max_size=8), max_size=12).map("".join)


def harmful(text: str) -> list[str]:
    """What would have an effect in some chat or another."""
    patterns = (
        r"@(?!\]|…$)", r"<", r"(?m)(?<!^)>", r"://", r"\]\(",
        r"(?i)\b(mailto|tel|sms|data|javascript):", r"(?<=\w)\.(?=[a-zA-Z]{2})",
    )  # fmt: skip
    return [match[0] for pattern in patterns for match in re.finditer(pattern, text)]


@given(TEXTS, st.integers(0, 60))
def test_nothing_in_a_quotation_acts(text: str, most: int) -> None:
    quotation = quoted(text, most)
    assert len(quotation) <= most
    assert not harmful(quotation)
    assert unseen(quotation) == 0
    assert "\t" not in quotation
    if most >= 2:
        assert all(line.startswith(">") for line in quotation.split("\n") if line)


@given(TEXTS, st.integers(0, 60))
def test_nothing_in_a_line_acts(text: str, most: int) -> None:
    line = on_a_line(text, most)
    assert len(line) <= most
    assert not harmful(line)
    assert "\n" not in line
    assert unseen(line) == 0


@given(TEXTS)
def test_what_has_no_effect_any_more_stays_as_it_is(text: str) -> None:
    """A title has words of others in it that were made harmless before, and is so again as a
    whole."""
    line = on_a_line(text, 1000)
    assert on_a_line(line, 1000) == line


@given(st.text("abc xyz,;!?()-", max_size=40))
def test_plain_prose_stays_as_it_is(text: str) -> None:
    quotation = quoted(text, 1000)
    assert [line.removeprefix("> ") for line in quotation.split("\n")] == [text.rstrip() or ">"]


@pytest.mark.parametrize(
    ("text", "quotation"),
    [
        ("one\n\ntwo", "> one\n>\n> two"),
        ("\n\nhi\n", "> hi"),
        ("", ">"),
        ("@everyone: see https://example.org/x", "> [@]everyone: see https[:]//example[.]org/x"),
        ("<!channel> <b>hi</b>", "> ‹!channel› ‹b›hi‹/b›"),
        ("[look](https://example.org)", "> [look] (https[:]//example[.]org)"),
        ("e.g. 3.14 on 1.2.3, i.e. done.", "> e.g. 3.14 on 1.2.3, i.e. done."),
        ("a\tb\r\nc\u202ed", "> a    b\n> c\\u202ed"),
        ("> I quote", "> › I quote"),
    ],
)
def test_quotations(text: str, quotation: str) -> None:
    assert quoted(text, 1000) == quotation


def test_what_is_left_out_is_marked() -> None:
    assert quoted("x" * 50, 10) == "> xxxxxxx…"
    assert quoted("x" * 1_000_000, 1000)[-1] == "…"
    assert quoted("@" * 8, 12) == "> [@][@][@]…"
    assert quoted("x" * 8, 10) == "> xxxxxxxx"
    assert quoted("x\nyyyy", 5) == "> x…"
    assert on_a_line("x" * 50, 10) == "xxxxxxxxx…"


@given(
    st.recursive(
        TEXTS | st.none() | st.integers() | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=8,
    )
)
def test_data_is_json_without_control_characters(value: object) -> None:
    import json

    text = json.dumps(as_data(value), ensure_ascii=False)
    assert not re.search(r"[\ud800-\udfff\x00-\x08\x0b-\x1f\x7f-\x9f]", text)


def test_data_is_bounded() -> None:
    """It has room for the longest answer that is kept."""
    assert len(as_data({"reply": "x" * 2_000_000})["reply"]) == MAX_REPLY_BYTES
