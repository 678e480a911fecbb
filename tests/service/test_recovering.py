"""P3, P4, P9: a known loss is never written over. `recover` brings a damaged or cut log back into
service, with everything sound in force and everything lost named; also a log that was recovered
before, and one that was made to be slow."""

import gzip
import hashlib
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
from gaps import drop
from recoveries import NOW, SOUND, found_lines, recovered, statements
from tally import SCALE, chance, count, rounds

from promptyoself.core.errors import ChainError
from promptyoself.events.records import ScheduleModified
from promptyoself.ledger.segments import compress
from promptyoself.service.proof.verify import verify


@pytest.fixture
def folder(quick_path: Path) -> Path:
    """Where a log is to be."""
    return quick_path / "var" / "schedules"


def assert_sound(
    folder: Path, good: list[bytes], before: set[bytes], answer: dict[str, Any], *, index: bool
) -> None:
    """Every sound line is in force, nothing was invented, and every loss is named: at the end of
    the log, as far as an index has seen it."""
    left = lines(folder)
    rivals = {json.loads(line)["seq"] for line in left if line in before and line not in good}
    found = [line for line in good if line in before]
    if rivals and not index:  # a changed line in the last place but one, or the last: who can tell?
        found = [line for line in found if json.loads(line)["seq"] < min(rivals)]
        left = [line for line in left if json.loads(line)["seq"] < min(rivals)]
        assert min(rivals) >= len(good) - 1
        rivals.add(len(good))
    elif rivals:  # a changed line in the very last place: only a head tells
        assert rivals == {len(good)}
        found = found[: len(good) - 1]
    assert found == [line for line in left if line in good and line in before], "a loss"
    new = {json.loads(line)["type"] for line in left if line not in good and line not in before}
    assert new <= {"ledger.recovered", "ledger.created", "tail.quarantined"}, "it was invented"
    gaps = answer.get("gaps", [])
    for seq in (json.loads(line)["seq"] for line in good if line not in left):
        named = any(gap["after"] < seq < gap.get("first", gap.get("known", 0) + 1) for gap in gaps)
        at_end = seq in rivals or (not index and seq > answer.get("sound_events", 0))
        assert named or at_end, f"the loss of event {seq} isn't named"
    stated = verify(store_in(folder)).get("recovered", [])
    places = [(gap["after"], gap["lost"]) for gap in gaps]
    assert [(gap["after"], gap["lost"]) for gap in stated] == places
    _check_quarantine(folder)


def _check_quarantine(folder: Path) -> None:
    """Each piece that is recorded lies there, and nothing else does."""
    events = [json.loads(line) for line in lines(folder)]
    recorded = [piece for data in statements(folder) for piece in data.get("quarantined", ())]
    torn = [event["data"] for event in events if event["type"].startswith("tail.")]
    there = {path.name for path in (folder / "quarantine").glob("*") if path.is_file()}
    assert there == {piece["file"] for piece in recorded + torn}
    for piece in recorded:
        content = (folder / "quarantine" / piece["file"]).read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        assert (len(content), digest) == (piece["bytes"], piece["sha256"])


@pytest.mark.parametrize("index", ["with", "without"])
@pytest.mark.parametrize("state", ["open", "sealed"])
@pytest.mark.parametrize("what", sorted(ALTERATIONS))
def test_every_alteration_is_recovered_from(
    folder: Path, what: str, state: str, index: str
) -> None:
    """Whatever is altered in a log of three months: after `recover` no sound event is lost, what is
    lost is named, old heads up to the gap still verify, and every command works."""
    log = nine_events(folder, sealed=state == "sealed")
    other = folder.parents[1] / "other" / "schedules"
    stranger = nine_events(other, sealed=state == "sealed", first=77)
    foreign = {line for text in stranger.values() for line in gzip.decompress(text).split(b"\n")}
    good, kept = lines(folder), (folder / "index.json").read_bytes()
    tried = 0
    _, alterations = ALTERATIONS[what]
    pick = chance(f"recover {what} {state} {index}")
    share = 1.0 if SCALE > 1 else 0.06 if "bit" in what or "cut" in what else 0.5
    for name, altered in alterations(log, stranger):
        if pick.random() > share:
            continue
        shutil.rmtree(folder / "quarantine", ignore_errors=True)
        (folder / "index.json").unlink(missing_ok=True)
        lay(folder, altered)
        if index == "with":
            (folder / "index.json").write_bytes(kept)
        before = found_lines(folder)
        answer = recovered(folder)
        tried += 1
        left = lines(folder)
        if not foreign & set(left) - set(good):  # in whose place ours can't be told from theirs
            assert_sound(folder, good, before, answer, index=index == "with")
        store = store_in(folder, Unsynced())
        assert verify(store)["valid"], name
        first_gap = min((gap["after"] for gap in answer.get("gaps", ())), default=len(good))
        for seq, line in list(enumerate(good, 1))[:first_gap]:
            if left[seq - 1 : seq] == [line]:
                verify(store, f"{seq}:{hashlib.sha256(line).hexdigest()}")
        append(store._ledger, 500, now=NOW + timedelta(hours=1))
        assert store_in(folder, Unsynced()).read().position.seq >= len(left)
        assert recovered(folder) == SOUND
    count("logs recovered", tried)
    assert tried


def test_a_loss_after_a_recovered_end_is_noticed(folder: Path) -> None:
    """The numbers of a lost end are used again. An event that is lost among those is missed, though
    a statement has its number: another event had it then."""
    nine_events(folder, sealed=False)
    store_in(folder, Unsynced()).read()
    drop(folder, 9, 10)  # two events of the end
    assert recovered(folder)["gaps"][-1]["lost"] == 2
    store = store_in(folder, Unsynced())
    for number in (50, 51):
        later = NOW + timedelta(minutes=number)
        store.transact(later, lambda _, number=number: ([draft(number)], None))
    drop(folder, 11)
    for check in (verify, lambda chain: chain.require_whole()):
        with pytest.raises(ChainError) as caught:
            check(store_in(folder, Unsynced()))
        assert caught.value.code == "events_missing"
    assert recovered(folder)["gaps"][-1]["lost"] == 1
    assert verify(store_in(folder, Unsynced()))["valid"]


# --- recovered before -----------------------------------------------------------------------------


def test_a_second_gap_stays_lenient_until_its_own_statement(folder: Path) -> None:
    """What was decided between two recoveries may rest on what the second one finds lost."""
    nine_events(folder, sealed=False)
    drop(folder, 6)
    assert recovered(folder)["lost_events"] == 1
    store = store_in(folder, Unsynced())
    changed = draft(3)
    new = store.draft(ScheduleModified({"prompt": "New"}), changed.id)
    store.transact(NOW, lambda _: ([new], None))
    assert store.read().state.schedules[changed.id].prompt == "New"
    drop(folder, 4)
    answer = recovered(folder)
    assert changed.id in answer["unknown"]
    assert verify(store_in(folder))["valid"]
    assert sum(each["lost"] for each in statements(folder)) == 2
    assert recovered(folder) == SOUND


def test_a_gap_that_grows_is_stated_again(folder: Path) -> None:
    """Where the events beside a gap are lost too, all that is lost is stated as one."""
    nine_events(folder, sealed=False)
    drop(folder, 6)
    recovered(folder)
    drop(folder, 5)
    assert [gap["lost"] for gap in recovered(folder)["gaps"]] == [2]
    assert verify(store_in(folder))["valid"]
    assert recovered(folder) == SOUND


def test_the_statement_itself_is_lost(folder: Path) -> None:
    """The gap is stated again, with the copies that lie in the quarantine since the first time."""
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
def test_damaged_again_and_again(folder: Path, state: str) -> None:
    """P3: alteration upon alteration, each recovered from: what is sound stays, and each loss is
    stated as it is."""
    log = nine_events(folder, sealed=state == "sealed")
    other = folder.parents[1] / "other" / "schedules"
    stranger = nine_events(other, sealed=state == "sealed", first=77)
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
def test_crafted(folder: Path, what: str, where: str) -> None:
    """P7: what was made to be slow, or large, is recovered from in bounded time and memory."""
    nine_events(folder, sealed=False)
    good = lines(folder)
    path, crafted = folder / "2026-10.ndjson.gz", CRAFTED[what]()
    pieces = raw_members(path.read_bytes())
    at = len(pieces) if where == "behind" else 1
    path.write_bytes(b"".join([*pieces[:at], crafted, *pieces[at:]]))
    # A process that has run other tests has a peak of its own: it's counted from now (proc(5)).
    Path("/proc/self/clear_refs").write_text("5")
    began, held = time.thread_time(), _peak()
    recovered(folder)
    assert time.thread_time() - began < 40
    assert _peak() - held < 1500 * 1024  # KiB
    assert verify(store_in(folder))["valid"]
    count("crafted logs recovered")
    assert [line for line in lines(folder) if line in good] == good
