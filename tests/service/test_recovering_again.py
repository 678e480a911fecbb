"""P3, P4: `recover` of a log that was recovered before, of what was made to be slow, and beside
others."""

from __future__ import annotations

import json
import shutil
import time
import zlib
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from chains import append, draft, snapshot_of
from checker import check_chain, lines
from crashes import Unsynced
from damage import ALTERATIONS, lay, nine_events, raw_members, store_in
from recoveries import NOW, SOUND, found_lines, recovered
from tally import SCALE, chance, count, rounds

from promptyoself.events.records import ScheduleModified
from promptyoself.ledger.segments import compress
from promptyoself.service.proof.verify import verify


def said(folder: Path) -> list[dict[str, Any]]:
    events = map(json.loads, lines(folder))
    return [event["data"] for event in events if event["type"] == "ledger.recovered"]


def drop(folder: Path, month: str, *numbers: int) -> None:
    """Some members of a month are lost."""
    path = folder / f"{month}.ndjson.gz"
    pieces = raw_members(path.read_bytes())
    gone = [number % len(pieces) for number in numbers]
    path.write_bytes(b"".join(each for at, each in enumerate(pieces) if at not in gone))


def test_a_second_gap_stays_lenient_until_its_own_statement(quick_path: Path) -> None:
    """What was decided between two recoveries may rest on what the second one finds lost."""
    folder = quick_path / "var" / "schedules"
    nine_events(folder, sealed=False)
    drop(folder, "2026-10", 1)
    assert recovered(folder)["lost_events"] == 1
    store = store_in(folder, Unsynced())
    changed = draft(3)
    new = store.draft(ScheduleModified({"prompt": "New"}), changed.id)
    store.transact(NOW, lambda _: ([new], None))
    assert store.read().state.schedules[changed.id].prompt == "New"
    drop(folder, "2026-09", 2)
    answer = recovered(folder)
    assert changed.id in answer["unknown"]
    assert verify(store_in(folder))["valid"]
    assert sum(each["lost"] for each in said(folder)) == 2
    assert recovered(folder) == SOUND


def test_a_gap_that_grows_is_stated_again(quick_path: Path) -> None:
    """Where the events beside a gap are lost too, all that is lost is stated as one."""
    folder = quick_path / "var" / "schedules"
    nine_events(folder, sealed=False)
    drop(folder, "2026-10", 1)
    recovered(folder)
    drop(folder, "2026-10", 0)
    assert [gap["lost"] for gap in recovered(folder)["gaps"]] == [2]
    assert verify(store_in(folder))["valid"]
    assert recovered(folder) == SOUND


def test_the_statement_itself_is_lost(quick_path: Path) -> None:
    """The gap is stated again, with the copies that lie in the quarantine since the first time."""
    folder = quick_path / "var" / "schedules"
    log = nine_events(folder, sealed=True)
    content = log["2026-10.ndjson.gz"]
    lay(folder, {**log, "2026-10.ndjson.gz": content[:200] + b"\0" + content[201:]})
    first = recovered(folder)
    assert len(first["gaps"]) == 1
    pieces = first["gaps"][0]["quarantined"]
    (last,) = folder.glob("2026-12*")
    last.unlink()
    again = recovered(folder)
    middle = [gap for gap in again["gaps"] if gap.get("first")]
    assert [(gap["after"], gap["first"]) for gap in middle] == [
        (first["gaps"][0]["after"], first["gaps"][0]["first"])
    ]
    assert pieces[0] in [piece for gap in again["gaps"] for piece in gap.get("quarantined", ())]
    check_chain(folder)
    assert recovered(folder) == SOUND


@pytest.mark.parametrize("state", ["open", "sealed"])
def test_damaged_again_and_again(quick_path: Path, state: str) -> None:
    """P3: alteration upon alteration, each recovered from: what is sound stays, and each loss is
    stated as it is."""
    folder = quick_path / "var" / "schedules"
    log = nine_events(folder, sealed=state == "sealed")
    stranger = nine_events(quick_path / "other" / "schedules", sealed=state == "sealed", first=77)
    choose = chance(f"damaged again {state}")
    for number in range(rounds(12)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        lay(folder, log)
        for turn in range(3):
            now = snapshot_of(folder)
            kind = choose.choice(("members", "bits", "lines"))
            _, altered = choose.choice(list(ALTERATIONS[kind][1](now, stranger)))
            good = lines(folder)
            lay(folder, altered)
            before = found_lines(folder)
            recovered(folder)
            count("logs recovered")
            left, where = lines(folder), (number, turn, kind)
            rivals = {json.loads(line)["seq"] for line in before - set(good) if line}
            # A forged line and a single one after it: nothing tells which of them is ours.
            rivals |= {seq + 1 for seq in rivals}
            lost = [line for line in good if line in before and line not in left]
            assert {json.loads(line)["seq"] for line in lost} <= rivals | {len(good)}, where
            assert verify(store_in(folder))["valid"], where
            ledger = store_in(folder, Unsynced())._ledger
            append(ledger, 500 + turn, now=NOW + timedelta(hours=turn))
            assert store_in(folder).read()
            assert recovered(folder) == SOUND, where


# --- made to be slow ------------------------------------------------------------------------------


def slow(folder: Path, seconds: float) -> dict[str, Any]:
    """Recover it within these seconds of this process's time, and 1.5 GB of memory."""
    # A process that has run other tests has a peak of its own: it's counted from now (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    began, held = time.process_time(), _peak()
    answer = recovered(folder)
    assert time.process_time() - began < seconds
    assert _peak() - held < 1500 * 1024
    assert verify(store_in(folder))["valid"]
    count("crafted logs recovered")
    return answer


def _peak() -> int:
    """The most memory that this process has held since its peak was reset, in KiB."""
    told = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in told if line.startswith("VmHWM:"))


def event(seq: int, prev: str) -> bytes:
    envelope = {
        "v": 1, "seq": seq, "ts": "2026-10-15T00:00:00.000000Z", "type": "schedule.paused",
        "id": "sch_00000000", "actor": {"via": "t", "who": "t"}, "data": {"next_run": None},
        "prev": prev,
    }  # fmt: skip
    return json.dumps(envelope, separators=(",", ":")).encode() + b"\n"


CRAFTED = {
    "thousands of islands": lambda: b"".join(
        compress(event(1000 + 2 * number, f"{number:064x}")) for number in range(5000)
    ),
    "thousands of rivals": lambda: compress(
        b"".join(event(6, f"{number:064x}") for number in range(20000))
    ),
    "newlines": lambda: zlib.compress(b"\n" * (64 << 20), 6, 31),
    "newlines that are broken": lambda: zlib.compress(b"\n" * (64 << 20), 6, 31)[:-8] + b"12345678",
    "a bomb": lambda: zlib.compress(b"\0" * (200 << 20), 6, 31),
    "many bombs": lambda: 6 * (
        zlib.compress(b'{"v":' + b"\0" * (60 << 20), 6, 31)[:-8] + b"87654321"
    ),
    "a long line": lambda: compress(b'{"v":1,' + b"x" * (16 << 20) + b"}\n"),
    "many headers": lambda: b"\x1f\x8b\x08" * 300_000,
    "noise": lambda: chance("noise").randbytes((100 if SCALE > 1 else 10) << 20),
    "text that looks like lines": lambda: b'{"v":' * 400_000 + b"\n",
    "lines that are none": lambda: b'{"v":1}\n' * 200_000,
}  # fmt: skip


@pytest.mark.parametrize("what", CRAFTED)
@pytest.mark.parametrize("where", ["behind", "between"])
def test_crafted(quick_path: Path, what: str, where: str) -> None:
    """P7: what was made to be slow, or large, is recovered from in bounded time and memory."""
    folder = quick_path / "var" / "schedules"
    nine_events(folder, sealed=False)
    good = lines(folder)
    path, crafted = folder / "2026-10.ndjson.gz", CRAFTED[what]()
    pieces = raw_members(path.read_bytes())
    at = len(pieces) if where == "behind" else 1
    path.write_bytes(b"".join([*pieces[:at], crafted, *pieces[at:]]))
    slow(folder, 40)
    assert [line for line in lines(folder) if line in good] == good
