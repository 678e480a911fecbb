"""P4, P9: what works in which state of damage is what the table in docs/howto/operating.md
says, cell by cell; and `doctor` is green in no state in which something is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, Answer, call

if TYPE_CHECKING:
    from conftest import Clock

DOCS = Path(__file__).resolve().parents[2] / "docs" / "howto" / "operating.md"
MAGIC = b"\x1f\x8b\x08"


def _cut(content: bytes) -> bytes:
    return content[: content.rindex(MAGIC)]


def _flip(content: bytes, member: int) -> bytes:
    starts = [found.start() for found in re.finditer(MAGIC, content)]
    at = starts[member] + 150
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def sound(segment: Path) -> None:
    """As it is."""


def torn(segment: Path) -> None:
    """The beginning of an append at the end."""
    segment.write_bytes(segment.read_bytes() + segment.read_bytes()[:40])


def noise(segment: Path) -> None:
    """Other bytes at the end."""
    segment.write_bytes(segment.read_bytes() + b"\xa5" * 40)


def known(segment: Path) -> None:
    """The last append is gone, and the index knows it."""
    segment.write_bytes(_cut(segment.read_bytes()))


def middle(segment: Path) -> None:
    """A bit flipped in the middle."""
    segment.write_bytes(_flip(segment.read_bytes(), 1))


def middle_without_index(segment: Path) -> None:
    """The same, and no index."""
    middle(segment)
    (segment.parent / "index.json").unlink()


def gone(segment: Path) -> None:
    """No month is left."""
    segment.unlink()


def recovered(segment: Path) -> None:
    """A bit flipped in the middle, and recovered."""
    middle(segment)
    call("recover", "--yes").success()


STATES: list[Callable[[Path], None]] = [
    sound, torn, noise, known, middle, middle_without_index, gone, recovered,
]  # fmt: skip

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
    told = {
        name: code
        for names, code in re.findall(r"((?:`[a-z]+`(?:, | and )?)+) fail: `([a-z_]+)`", cell)
        for name in re.findall(r"`([a-z]+)`", names)
    }
    if command in told:
        return {told[command]}
    if cell.startswith(("yes", "they answer")) or "The others answer" in cell:
        return {None}
    rest = re.search(r"(?:they|The others) fail(?: at the damage)?: `([a-z_]+)`", cell)
    assert rest is not None, cell
    return {rest[1]}


@pytest.mark.parametrize("number", range(len(STATES)), ids=[each.__name__ for each in STATES])
def test_each_cell_is_true(var: Path, clock: Clock, tmp_path: Path, number: int) -> None:
    """Each command answers in each state as the table says, and changes nothing of a log that it
    refuses."""
    asked: dict[str, set[str | None]] = {}
    cells = rows()[number]
    for commands, cell in zip([REREAD, READ, WRITE], cells[1:4], strict=True):
        for arguments in commands:
            for path in sorted(var.rglob("*"), reverse=True) if var.exists() else ():
                path.unlink() if path.is_file() else path.rmdir()
            clock.set("2026-11-20T12:00")
            ids = [
                call(
                    "register", "--agent-id", AGENT, "--prompt", f"Hi {each}", "--every", "1h"
                ).success()["id"]
                for each in range(4)
            ]
            (segment,) = (var / "schedules").glob("*.ndjson.gz")
            STATES[number](segment)
            before = {path: path.read_bytes() for path in (var / "schedules").glob("*.gz")}
            # Of what is cut, there is no schedule; and the one that is flipped is the first.
            known_id = ids[1] if STATES[number] is known else ids[3]
            places = {"ID": known_id, "OUT": str(tmp_path / f"{number}.zip")}
            answer = call(*(places.get(each, each) for each in arguments))
            code = answer.document.get("code") if answer.code else None
            assert code in _expected(cell, arguments[0]), (arguments, cell, answer)
            after = {path: path.read_bytes() for path in (var / "schedules").glob("*.gz")}
            if code is not None:
                assert after == before, arguments
            asked.setdefault(arguments[0], set()).add(code)
            _doctor(number)
    assert len(asked) == len(REREAD) + len(READ) + len(WRITE)


def _doctor(number: int) -> None:
    answer: Answer = call("doctor", "--skip-letta", "--allow-no-loop", "--allow-failed")
    checks = {check["name"]: check["ok"] for check in answer.document["checks"]}
    if number in (0, 1, 7):
        assert checks["log"], answer.document
    elif number != 2:  # which a writer may have mended
        assert not checks["log"], answer.document
