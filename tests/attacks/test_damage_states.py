"""P4, P9: what works in which state of damage is what the table in docs/howto/operating.md
says, cell by cell; and `doctor` is green in no state in which something is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, Answer, call
from chains import snapshot_of

if TYPE_CHECKING:
    from conftest import Clock

DOCS = Path(__file__).resolve().parents[2] / "docs" / "howto" / "operating.md"
MAGIC = b"\x1f\x8b\x08"


def _without_the_last(content: bytes) -> bytes:
    return content[: content.rindex(MAGIC)]


def _flipped(content: bytes) -> bytes:
    """A bit of the second member."""
    second = [match.start() for match in re.finditer(MAGIC, content)][1]
    return content[: second + 150] + bytes([content[second + 150] ^ 1]) + content[second + 151 :]


# What the only month becomes, in the order of the table's rows.
STATES: dict[str, Callable[[bytes], bytes]] = {
    "sound": lambda content: content,
    "the beginning of an append at the end": lambda content: content + content[:40],
    "other bytes at the end": lambda content: content + b"\xa5" * 40,
    "the last append is gone": _without_the_last,
    "a bit flipped": _flipped,
    "a bit flipped, without an index": _flipped,
    "no month is left": lambda _: b"",
    "a bit flipped, and recovered": _flipped,
}


def spoil(segment: Path, state: str) -> None:
    """Bring a log that is sound into a state."""
    segment.write_bytes(STATES[state](segment.read_bytes()))
    if state == "no month is left":
        segment.unlink()
    elif state == "a bit flipped, without an index":
        (segment.parent / "index.json").unlink()
    elif state == "a bit flipped, and recovered":
        call("recover", "--yes").success()


REREAD = [["verify"], ["audit"], ["history"], ["pack", "--out", "OUT"], ["rebuild"]]
READ = [["list"], ["show", "--id", "ID"], ["stats"], ["head"], ["export"]]
WRITE = [
    ["register", "--agent-id", AGENT, "--prompt", "New", "--every", "1h"],
    ["pause", "--id", "ID"],
    ["seal"],
    ["execute"],
]


def rows() -> list[list[str]]:
    """The table's rows, each cell without the text around its marks."""
    text = DOCS.read_text().partition("### A damaged log")[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:10]]


def test_the_table_has_a_row_for_each_state() -> None:
    """No state is told without being tried, nor tried without being told."""
    assert len(rows()) == len(STATES)
    assert all(len(row) == 5 for row in rows())


def _expected(cell: str, command: str) -> set[str | None]:
    """The codes that a cell allows a command: ``None`` is a success."""
    failing = {
        name: code
        for names, code in re.findall(r"((?:`[a-z]+`(?:, | and )?)+) fail: `([a-z_]+)`", cell)
        for name in re.findall(r"`([a-z]+)`", names)
    }
    if command in failing:
        return {failing[command]}
    if cell.startswith(("yes", "they answer")) or "The others answer" in cell:
        return {None}
    rest = re.search(r"(?:they|The others) fail(?: at the damage)?: `([a-z_]+)`", cell)
    assert rest is not None, cell
    return {rest[1]}


@pytest.mark.parametrize("state", STATES)
def test_each_cell_is_true(var: Path, clock: Clock, tmp_path: Path, state: str) -> None:
    """Each command answers in each state as the table says, and changes nothing of a log that it
    refuses."""
    asked: dict[str, set[str | None]] = {}
    cells = rows()[list(STATES).index(state)]
    for commands, cell in zip([REREAD, READ, WRITE], cells[1:4], strict=True):
        for arguments in commands:
            for path in sorted(var.rglob("*"), reverse=True) if var.exists() else ():
                path.unlink() if path.is_file() else path.rmdir()
            clock.set("2026-11-20T12:00")
            register = ("register", "--agent-id", AGENT, "--every", "1h", "--prompt")
            ids = [call(*register, f"Hi {number}").success()["id"] for number in range(4)]
            (segment,) = (var / "schedules").glob("*.ndjson.gz")
            spoil(segment, state)
            before = snapshot_of(var / "schedules")
            # Of what is cut, there is no schedule; and the one that is flipped is the first.
            known_id = ids[1] if state == "the last append is gone" else ids[3]
            places = {"ID": known_id, "OUT": str(tmp_path / "pack.zip")}
            answer = call(*(places.get(word, word) for word in arguments))
            code = answer.document.get("code") if answer.code else None
            assert code in _expected(cell, arguments[0]), (arguments, cell, answer)
            if code is not None:
                assert snapshot_of(var / "schedules") == before, arguments
            asked.setdefault(arguments[0], set()).add(code)
            _doctor(state)
    assert len(asked) == len(REREAD) + len(READ) + len(WRITE)


def _doctor(state: str) -> None:
    answer: Answer = call("doctor", "--skip-letta", "--allow-no-loop", "--allow-failed")
    checks = {check["name"]: check["ok"] for check in answer.document["checks"]}
    if state in ("sound", "the beginning of an append at the end", "a bit flipped, and recovered"):
        assert checks["log"], answer.document
    elif state != "other bytes at the end":  # which a writer may have mended
        assert not checks["log"], answer.document
