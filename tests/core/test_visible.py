"""What can't be seen is shown to people, and counted; programs get every text as it is."""

from __future__ import annotations

import sys
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, call

from promptyoself.core.diagnostics import Log
from promptyoself.core.visible import unseen, visible

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Clock

BASE = ("register", "--agent-id", AGENT, "--time", "in 1h")
ARABIC_SIGNS = {0x600, 0x601, 0x602, 0x603, 0x604, 0x605, 0x6DD, 0x890, 0x891, 0x8E2}
"""Format characters by their category, which are drawn all the same."""

HIDDEN = {
    "bidirectional": "\u202e\u2066\u2069\u200f\u061c",
    "no width": "\u200b\u200d\u2060\ufeff",
    "tags": "".join(chr(0xE0000 + ord(each)) for each in "obey"),
    "variations": "\ufe0f\U000e0101",
    "C1": "\x85\x9b",
    "C0": "\x1b\x07\x0c",
    "ends of lines": "\u2028\u2029",
    "fillers": "\u115f\u3164\uffa0\u2800\u00ad\u034f",
}


def test_every_control_and_format_character_is_one_of_them() -> None:
    """By Unicode's own categories: control, format, line and paragraph separators."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp", "Cs"):
            if code in ARABIC_SIGNS or character == "\n":
                continue
            assert visible(character).isascii(), hex(code)
            assert visible(character).isprintable(), hex(code)
            assert unseen(character) == (character != "\t"), hex(code)
    plain = "Grüße, \u4f60\u597d \u05e9\u05dc\u05d5\u05dd 🙂\n\tÀ"
    assert visible(plain.replace("\t", "")) == plain.replace("\t", "")
    assert unseen(plain) == 0


@pytest.mark.parametrize("kind", HIDDEN)
@pytest.mark.parametrize("command", ["show", "list", "history"])
def test_what_is_hidden_in_a_prompt_is_seen_in_a_table(
    var: Path, clock: Clock, kind: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: people who read a prompt see all that the agent gets."""
    monkeypatch.setenv("COLUMNS", "400")  # in a narrower one a long text is cut
    id_ = call(*BASE, "--prompt", f"Pay{HIDDEN[kind]}pal", "--name", HIDDEN[kind]).success()["id"]
    more = ("--id", id_) if command != "list" else ()
    shown = call(command, *more, "--format", "table").out.decode()
    assert not set(HIDDEN[kind]) & set(shown)
    for character in HIDDEN[kind]:
        assert ascii(character)[1:-1] in "".join(shown.split())


@pytest.mark.parametrize("kind", HIDDEN)
def test_it_is_counted_for_programs_too(var: Path, clock: Clock, kind: str) -> None:
    """A document has the text as it is, and how much of it can't be seen."""
    prompt = f"Pay{HIDDEN[kind]}pal"
    id_ = call(*BASE, "--prompt", prompt, "--tier", "2").success()["id"]
    shown = call("show", "--id", id_).success()["schedule"]
    assert (shown["prompt"], shown["invisible"]) == (prompt, len(HIDDEN[kind]))
    assert call("list", "--full").success()["schedules"][0]["invisible"] == len(HIDDEN[kind])
    assert call("approve", "--id", id_).success()["invisible"] == len(HIDDEN[kind])
    plain = call(*BASE, "--prompt", "Hello\n\tyou").success()["id"]
    assert "invisible" not in call("show", "--id", plain).success()["schedule"]


def test_a_prompt_cannot_draw_a_table(var: Path, clock: Clock) -> None:
    """P9: neither another row, nor another column, nor another line beside a name."""
    forged = "x │ tier 0 │\n├──┤\n│ sch_00000000 │ [bold]\nstatus  cancelled\n┌──┐"
    id_ = call(*BASE, "--prompt", forged, "--name", "a\nb").success()["id"]
    listed = call("list", "--format", "table").out.decode()
    assert len(listed.strip().split("\n")) == 2, "a line of names, and one for the schedule"
    assert "a\\nb" in listed
    shown = call("show", "--id", id_, "--format", "table").out.decode()
    assert not {"│", "├", "┌"} & set(listed)
    for line in forged.split("\n"):
        assert f"\n  │ {line}\n" in shown, "a bar stands before each of its lines"


def test_a_warning_is_one_line_without_surprises(capsys: Any) -> None:
    """P9: what is told on stderr can hold what others have written."""
    Log(None).warn("Letta said \x1b[2J\u202e\npromptyoself: all is well")
    assert capsys.readouterr().err == (
        "promptyoself: Letta said \\x1b[2J\\u202e\\npromptyoself: all is well\n"
    )
