"""The documentation lists exactly the words that fields of events and answers can have."""

import re
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from promptyoself.events import kinds, records
from promptyoself.events.versions import VERSIONS

ROOT = Path(__file__).resolve().parents[2]
DOCS = "\n\n".join(
    path.read_text()
    for path in sorted((ROOT / "docs").rglob("*.md"))
    if path.parent.name != "decisions"
)
CODE = re.compile(r"`(\w+)`")


def cells(header: str) -> str:
    """The text of the first column of the only table of the docs in which it has this header."""
    table = rf"^\| {re.escape(header)} \|.*\n\|[-|]+\n((?:\|.*\n)+)"
    tables = re.findall(table, DOCS, re.MULTILINE)
    assert len(tables) == 1, f"{len(tables)} tables have the header {header}"
    return "\n".join(row.split(" | ")[0] for row in tables[0].splitlines())


def sentence(beginning: str, end: str) -> str:
    """What the docs say between two texts, of which the first is there once, on one line or two."""
    parts = re.split(re.escape(beginning).replace(r"\ ", r"\s"), DOCS)
    assert len(parts) == 2, f"{len(parts) - 1} times: {beginning}"
    return parts[1].split(end)[0]


@pytest.mark.parametrize(
    ("words", "listed"),
    [
        (kinds.SKIP_REASONS, cells("reason")),
        (kinds.SKIP_REASONS, sentence("`why` is the reason:", "|")),
        (kinds.OUTCOMES, cells("outcome")),
        (kinds.MISFIRE_POLICIES, cells("`--misfire`")),
        (get_args(kinds.ApprovalProblem), cells("detail")),
        (get_args(kinds.PendingReason), cells("`why`")),
    ],
    ids=["skips", "audited skips", "outcomes", "misfire policies", "approvals", "pending"],
)
def test_a_list_of_the_docs_is_whole(words: tuple[str, ...], listed: str) -> None:
    """Each word is listed once, and no other."""
    assert sorted(CODE.findall(listed)) == sorted(words)


def test_the_statuses_are_those_that_the_index_counts() -> None:
    """The format names the statuses in the order in which the index counts them."""
    listed = sentence("each status (", ")")
    assert tuple(listed.split(", ")) == kinds.STATUSES


def literals(record: Any) -> dict[str, tuple[str, ...]]:
    """The fields of a record that hold one of some words, each with these words."""
    return {
        name: get_args(annotation)
        for name, annotation in record.__annotations__.items()
        if get_origin(annotation) is Literal
    }


@pytest.mark.parametrize("type_", VERSIONS)
def test_the_format_lists_the_words_of_a_field(type_: str) -> None:
    """Where a field's row in the format names words, it names all that are written there."""
    section = sentence(f"### `{type_}`\n", "\n#")
    for field, words in literals(records.CLASSES[type_]).items():
        row = re.search(rf"^\| `{field}` \|[^|]*\|(.*)\|$", section, re.MULTILINE)
        assert row, field
        if listed := CODE.findall(row[1]):
            assert set(listed) == set(words), field
        else:
            assert "](" in row[1], f"{field}: neither words nor a link"


@pytest.mark.parametrize("type_", VERSIONS)
def test_the_format_says_which_fields_are_instants(type_: str) -> None:
    """Reading an event checks exactly the fields that the format calls instants."""
    section = sentence(f"### `{type_}`\n", "\n#")
    described = re.findall(r"^\| `(\w+)` \| instant\b", section, re.MULTILINE)
    annotations = records.CLASSES[type_].__annotations__
    checked = [name for name, kind in annotations.items() if "instant" in repr(kind)]
    assert checked == described
