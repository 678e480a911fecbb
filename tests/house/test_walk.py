"""The script for auditors finds what the package finds, without any of its code."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chains import ledger_in, snapshot_of, three_months
from checker import check_chain, lines
from damage import ANSWERS, DAMAGED, DECEMBER, broken, store_in, verdict
from gaps import drop, false_statements, hidden_alteration, restate

from promptyoself.service.upkeep.recover import recover

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "walk_chain.py"


def walk(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-O", str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_good_chain(tmp_path: Path) -> None:
    """P3: on a good chain of three months it prints the head that the package has."""
    head = three_months(tmp_path / "s").head()
    assert walk(tmp_path / "s") == (0, f"ok {head.seq} {head.hash}")


def test_no_chain(tmp_path: Path) -> None:
    """An empty folder is a chain of no events."""
    assert walk(tmp_path) == (0, "ok 0 " + "0" * 64)


def test_needs_nothing_of_ours() -> None:
    """It is short, and imports only what every Python has."""
    text = SCRIPT.read_text()
    assert "promptyoself" not in text.replace("promptyoself/", "")
    assert len(text.splitlines()) <= 52


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_named_damage(tmp_path: Path, name: str) -> None:
    """P3: on every damaged file it names the event that the package names; a torn end, which the
    package reads up to, is bad to it as well."""
    for path in (DAMAGED / name).glob("*.ndjson.gz"):
        shutil.copy(path, tmp_path)
    position, error = verdict(tmp_path)
    code, said = walk(tmp_path)
    torn = None if error else ledger_in(tmp_path).torn()
    if error:
        seq, month = error.details["seq"], error.details["month"]
    elif torn:
        seq, month = position.seq + 1, torn.month
    else:
        assert (code, said) == (0, f"ok {position.seq} {position.hash}")
        return
    assert code == 1
    assert said.startswith(f"bad event {seq} in {month}.ndjson.gz: ")


def test_month_removed(tmp_path: Path) -> None:
    """P3: a missing month is named at the first event after it."""
    three_months(tmp_path)
    (tmp_path / "2026-10.ndjson.gz").unlink()
    assert walk(tmp_path) == (1, "bad event 4 in 2026-11.ndjson.gz: its number is 6")


def recovered(folder: Path, *numbers: int, index: bool = False) -> None:
    """A log of 13 events in three months that has lost these, and says so; ``index`` is for one
    that had an index."""
    three_months(folder, 4)
    if index:
        store_in(folder).read()
    drop(folder, *numbers)
    recover(store_in(folder), DECEMBER, agree=lambda _: True)


@pytest.mark.parametrize("numbers", [(1, 2), (4,), (5,), (6,), (6, 7, 8, 9), (4, 8, 9), (10, 13)])
def test_a_stated_gap(quick_path: Path, numbers: tuple[int, ...]) -> None:
    """P3: over gaps that the log states it goes on, and says how many events are lost: at the
    beginning, within a month, at its borders, or a whole month, and more than one."""
    folder = quick_path / "schedules"
    recovered(folder, *numbers)
    position, error = verdict(folder)
    assert error is None
    gone = len(set(numbers) - {13})  # nothing knew of the last one
    assert walk(folder) == (0, f"ok {position.seq} {position.hash} lost {gone}")


def test_a_lost_end(quick_path: Path) -> None:
    """P3: events that were cut off, and of which an index had seen, are counted, too."""
    folder = quick_path / "schedules"
    recovered(folder, 12, 13, index=True)
    position = store_in(folder).read().position
    assert walk(folder) == (0, f"ok {position.seq} {position.hash} lost 2")


def test_another_gap_than_is_stated(quick_path: Path) -> None:
    """P3: a gap for which the statement is false in anything is bad, to the package as well; the
    event named is the first one that is missing."""
    folder = quick_path / "schedules"
    recovered(folder, 6, 7)
    good = snapshot_of(folder)
    statement = check_chain(folder, settled=False)[-1]["data"]
    for change in false_statements(statement):
        restate(folder, lambda event, change=change: event["data"].update(change))
        broken(folder)
        assert walk(folder) == (1, "bad event 6 in 2026-10.ndjson.gz: its number is 8"), change
        for name, content in good.items():
            (folder / name).write_bytes(content)
    drop(folder, 14)  # the statement itself
    assert walk(folder)[1] == "bad event 6 in 2026-10.ndjson.gz: its number is 8"


def test_no_alteration_hides_behind_a_statement(quick_path: Path) -> None:
    """P3: where no event is missing, a statement doesn't excuse that a link is broken."""
    folder = quick_path / "schedules"
    three_months(folder, 4)
    hidden_alteration(folder, 7)
    assert broken(folder).details["seq"] == 8
    code, said = walk(folder)
    assert code == 1
    assert said.startswith("bad event 8 in 2026-10.ndjson.gz: it doesn't follow")


def test_a_statement_says_nothing_of_its_own_place(quick_path: Path) -> None:
    """P3: the first event after a gap can't be the statement of that gap."""
    folder = quick_path / "schedules"
    recovered(folder, 6)
    drop(folder, *range(8, 14))
    restate(folder, lambda event: event["data"].update(after=7, first=14, lost=6))
    last = [json.loads(line) for line in lines(folder)][-2]
    digest = hashlib.sha256(lines(folder)[-2]).hexdigest()
    assert last["seq"] == 7

    def own(event: dict[str, Any]) -> None:
        event["data"].update(after_hash=digest, first_prev=event["prev"])

    restate(folder, own)
    broken(folder)
    assert walk(folder)[0] == 1
