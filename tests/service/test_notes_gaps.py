"""P3: signed heads of a log that has lost events and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from calling import call
from gaps import drop
from packs import note_of, register


@pytest.fixture
def notes(var: Path, clock: Any) -> list[bytes]:
    """The note of each event of a log from its second on, of nine in three months."""
    call("keygen").success()
    found = []
    for month in (9, 10, 11):
        for day in (3, 4, 5) if month > 9 else (3, 4):
            clock.set(f"2026-{month:02}-{day:02}T12:00:00")
            register(f"{month * 10 + day}h")
            found.append(note_of())
    return found


def verify(var: Path, *lines: bytes) -> Any:
    key = str(var / "keys" / "head.pub")
    return call("verify", "--note", "-", "--key", key, stdin=b"".join(lines))


def test_notes_over_a_gap(var: Path, notes: list[bytes]) -> None:
    """P3: a note of what is left is proved, before a gap and after it; one of a lost event is told
    to be lost, with the number of the event that says so, whatever stands beside it."""
    drop(var / "schedules", 5, 6)
    call("recover", "--yes").success()
    kept = [line for line in notes if line.split()[2].split(b":")[0] not in (b"5", b"6")]
    assert len(kept) == len(notes) - 2
    assert verify(var, *kept).success()["notes"] == len(kept)
    for line in kept:
        verify(var, line).success()
    for line in (line for line in notes if line not in kept):
        head = line.split()[2].decode()
        seq, told_as_lost = head.partition(":")[0], "was lost, as event 10 says"
        alone = verify(var, line).error("head_not_on_chain")
        assert told_as_lost in alone["message"]
        assert alone["seq"] == int(seq)
        both = verify(var, *kept, line).error("head_not_on_chain")
        about = f"line {len(kept) + 1} is about event {seq}, which"
        assert f"{about} {told_as_lost}" in both["message"]
        by_head = call("verify", "--head", head).error("head_not_on_chain")
        assert f"it {told_as_lost}" in by_head["message"]


def test_notes_of_a_lost_end(var: Path, notes: list[bytes], clock: Any) -> None:
    """P3: where the end was lost, its numbers are taken by other events. A note of the lost ones is
    told to be lost; one that was signed since is proved."""
    drop(var / "schedules", 8, 9)
    call("recover", "--yes").success()
    clock.set("2026-11-20T12:00:00")
    register("900h", "901h")
    since = note_of()
    *kept, one, other = notes
    assert verify(var, *kept, since).success()["notes"] == len(kept) + 1
    for line in (one, other):
        both = verify(var, *kept, since, line).error("head_not_on_chain")
        assert "which was lost, as event 8 says" in both["message"]
        assert "it was lost, as event 8 says" in verify(var, line).document["message"]
