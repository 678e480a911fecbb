"""Sealing: the same lines in fewer bytes, under readers that hold no lock, and what `verify` makes
of it."""

import ast
import gzip
import hashlib
import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest
from calling import call, run_at_a_terminal
from chains import (
    ACTOR,
    NOW,
    StepDisk,
    append,
    draft,
    flip,
    ledger_in,
    refused,
    replayed,
    snapshot_of,
    three_months,
)
from checker import check_chain, lines, members
from crashes import Unsynced
from damage import DECEMBER, store_in
from sealed_logs import MONTHS, TORN, meanwhile, records, replay_starts, seqs, tear

import promptyoself
from promptyoself.core.errors import ChainError
from promptyoself.events.draft import Draft
from promptyoself.events.records import SegmentSealed, WorkerStarted
from promptyoself.ledger import START, FileLedger, Position, segments
from promptyoself.ledger import sealing as sealing_module
from promptyoself.ledger.sealing import MEMBER_BYTES
from promptyoself.service.proof.verify import verify
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.upkeep.seal import has_unsealed, seal

# --- readers that hold no lock --------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Seven events in six members in three months."""
    folder = tmp_path / "var" / "schedules"
    three_months(folder)
    return folder


def swap_by_hand(folder: Path, month: str, size: int = 0) -> None:
    """Put a file with the same lines in a single member in place of a month's, as sealing does;
    with a comment in its header, to be ``size`` bytes long."""
    path = folder / f"{month}.ndjson.gz"
    content = b"".join(members(path.read_bytes()))
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(content) + squeeze.flush()
    trailer = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    short = 10 + len(body) + 8
    comment = b"x" * (size - short - 1) + b"\0" if size > short else b""
    header = b"\x1f\x8b\x08" + (b"\x10" if comment else b"\0") + b"\0\0\0\0\0\xff" + comment
    path.with_name("beside").write_bytes(header + body + trailer)
    os.rename(path.with_name("beside"), path)
    assert not size or path.stat().st_size == max(size, short)


@pytest.mark.parametrize("months", [*[(month,) for month in MONTHS], MONTHS])
@pytest.mark.parametrize("later", [False, True])
def test_a_place_from_before_a_month_was_replaced(
    folder: Path, months: tuple[str, ...], later: bool
) -> None:
    """P1, P5: a replay that was begun before months were replaced gives each event once, whichever
    month it had come to, and also what was appended since. From a position taken before, a replay
    gives exactly what comes after it, the head is the chain's, and nothing is called a torn end."""
    ledger = ledger_in(folder, Unsynced())
    positions = [START, *(batch.position for batch in ledger.replay())]
    replays = [ledger.replay() for _ in positions]
    begun = [seqs(list(islice(replay, taken))) for taken, replay in enumerate(replays)]
    for month in months:
        swap_by_hand(folder, month)
    if later:
        append(ledger, 77)
    head = ledger.head()
    assert head.seq == 7 + later
    assert ledger.holds(head)
    for position, had, replay in zip(positions, begun, replays, strict=True):
        assert had + seqs(replay) == list(range(1, head.seq + 1))
        assert seqs(ledger.replay(position)) == list(range(position.seq + 1, head.seq + 1))
        assert ledger.head(position) == head
        assert ledger.torn(position) is None
    check_chain(folder)


def test_a_month_replaced_by_one_that_ends_where_the_reader_stood(folder: Path) -> None:
    """P1, P5: a file that ends at the very byte up to which a reader had read the old one isn't
    taken for one that has nothing more."""
    ledger = ledger_in(folder, Unsynced())
    for number in range(20):
        append(ledger, 100 + number)
    content = {path.name: path.read_bytes() for path in folder.glob("*.gz")}
    tried = 0
    for batch in list(ledger.replay()):
        position = batch.position
        if position.month == MONTHS[-1]:
            swap_by_hand(folder, position.month, position.offset)
            tried += (folder / f"{position.month}.ndjson.gz").stat().st_size == position.offset
            assert seqs(ledger.replay(position)) == list(range(position.seq + 1, 28))
            for name, data in content.items():
                (folder / name).write_bytes(data)
    assert tried > 10


def test_a_torn_end_behind_a_month_that_was_replaced(folder: Path) -> None:
    """P1: a torn end is found also from positions of before the month was replaced."""
    ledger = ledger_in(folder)
    positions = [START, *(batch.position for batch in ledger.replay())]
    swap_by_hand(folder, MONTHS[-1])
    size = (folder / f"{MONTHS[-1]}.ndjson.gz").stat().st_size
    tear(folder)
    for position in positions:
        torn = ledger.torn(position)
        assert torn is not None
        assert (torn.month, torn.offset, torn.size) == (MONTHS[-1], size, 7)
        assert seqs(ledger.replay(position)) == list(range(position.seq + 1, 8))


def test_a_month_replaced_between_two_looks(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: a month replaced after its listing, and again while it is read, is read all the same."""
    ledger = ledger_in(folder)
    positions = [batch.position for batch in ledger.replay()]
    real = segments.ends_at
    for position in positions:

        def meddling(*arguments: Any) -> bool:
            answer = real(*arguments)
            monkeypatch.setattr(segments, "ends_at", real)
            for month in MONTHS:
                swap_by_hand(folder, month)
            return answer

        monkeypatch.setattr(segments, "ends_at", meddling)
        assert seqs(ledger.replay(position)) == list(range(position.seq + 1, 8))


def test_a_position_that_is_gone(folder: Path, tmp_path: Path) -> None:
    """A position of another chain, or one that was cut off, is refused; it isn't read past."""
    ledger = ledger_in(folder)
    gone = append(ledger, 9)
    (folder / "2026-11.ndjson.gz").write_bytes(
        (folder / "2026-11.ndjson.gz").read_bytes()[: gone.member]
    )
    foreign = append(ledger_in(tmp_path / "other"), 1)
    for position in (gone, foreign, gone._replace(month="2027-01")):
        for read in (ledger.head, ledger.torn, lambda p: list(ledger.replay(p))):
            with refused("head_moved"):
                read(position)


# --- sealing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_the_same_lines(folder: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: a sealed month has the same lines in the same order, and its record the number and the
    hash that zcat and sha256sum show, whichever library has compressed it."""
    if library == "zlib":
        monkeypatch.setattr(segments, "_isal", lambda: None)
    append(ledger_in(folder), *range(100, 140), now=NOW)  # enough for a large member
    before = lines(folder)
    answer = seal(store_in(folder), DECEMBER)
    assert [line["month"] for line in answer["sealed"]] == list(MONTHS)
    assert lines(folder)[: len(before)] == before
    for line, record in zip(answer["sealed"], records(folder), strict=True):
        path = folder / f"{line['month']}.ndjson.gz"
        content = gzip.decompress(path.read_bytes())
        assert record == {
            "month": line["month"],
            "events": content.count(b"\n"),
            "content_sha256": hashlib.sha256(content).hexdigest(),
        }
        assert line["bytes_after"] == path.stat().st_size < line["bytes_before"]
    event = check_chain(folder)[-1]
    assert event["actor"] == {"via": "test", "who": "tester"}
    assert event["ts"] == "2026-12-01T00:00:00.000000Z"
    assert verify(store_in(folder))["sealed"] == 3


def test_members_are_large(tmp_path: Path) -> None:
    """A sealed month consists of members of about 128 KiB, but for a longer line, which has one of
    its own."""
    folder = tmp_path / "var" / "schedules"
    ledger, position = ledger_in(folder, Unsynced()), START
    for number in range(800):
        text = "x" * 300_000 if number in (300, 799) else f"{number} " * 20
        position = ledger.append([draft(number, text)], NOW, position).position
    before = lines(folder)
    seal(store_in(folder), DECEMBER)
    found = members((folder / "2026-11.ndjson.gz").read_bytes())
    assert b"".join(found).split(b"\n")[:-1] == before
    long = [content for content in found if len(content) > MEMBER_BYTES]
    assert [content.count(b"\n") for content in long] == [1, 1]
    rest = [len(content) for content in found if len(content) <= MEMBER_BYTES]
    assert len(found) < 10
    assert sum(size > MEMBER_BYTES * 0.9 for size in rest) >= len(rest) - 2


def test_what_is_sealed_is_left_alone(folder: Path) -> None:
    """Sealing again does nothing; a month that ends later is sealed by itself; one event each."""
    store = store_in(folder)
    seal(store, DECEMBER)
    files = snapshot_of(folder)
    assert seal(store, DECEMBER) == {"sealed": [], "message": "There is no month to seal."}
    again = seal(store, DECEMBER, "2026-10")
    assert again == {"sealed": [], "message": "2026-10 is sealed already."}
    assert snapshot_of(folder) == files
    answer = seal(store_in(folder), DECEMBER + timedelta(days=31))
    assert [line["month"] for line in answer["sealed"]] == ["2026-12"]
    assert [record["month"] for record in records(folder)] == [*MONTHS, "2026-12"]


def test_the_command(var: Path, clock: Any) -> None:
    """`seal` answers with what it sealed, and refuses what is no month, has no event, or isn't over
    (P7: nothing is made or changed then)."""
    assert call("seal").success()["sealed"] == []
    call("seal", "--month", "2026-11").error("unknown_month")
    call("register", "--agent-id", "a", "--prompt", "p", "--every", "1h").success()
    before = lines(var / "schedules")
    for text in ("2026-13", "2026-1", "2026", "", "november", "2026-11-01", "２０２６-11"):
        call("seal", "--month", text).error("invalid_month")
    call("seal", "--month", "2026-10").error("unknown_month")
    call("seal", "--month", "2026-12").error("unknown_month")
    call("seal", "--month", "2026-11").error("month_not_over")
    assert call("seal").success()["sealed"] == []
    assert lines(var / "schedules") == before
    clock.set("2026-12-01T00:00:00")
    answer = call("seal").success()
    assert list(answer["sealed"][0]) == [
        "month", "events", "content_sha256", "bytes_before", "bytes_after",
    ]  # fmt: skip
    assert answer["message"] == "1 month sealed."
    assert call("verify").success()["sealed"] == 1


def test_the_month_of_a_chain_whose_clock_ran_back(folder: Path) -> None:
    """A month that has events after it is over, whatever the clock says; the chain's last isn't."""
    answer = seal(store_in(folder), datetime(2026, 9, 1, tzinfo=UTC))
    assert [line["month"] for line in answer["sealed"]] == ["2026-09", "2026-10"]
    check_chain(folder)


def test_a_torn_end_of_the_last_month(folder: Path) -> None:
    """P1: a torn end behind the month that is sealed is moved aside and recorded, not dropped."""
    path = folder / "2026-11.ndjson.gz"
    before = b"".join(members(path.read_bytes()))
    tear(folder)
    seal(store_in(folder), DECEMBER, "2026-11")
    assert gzip.decompress(path.read_bytes()) == before
    kinds = [event["type"] for event in check_chain(folder)]
    assert kinds[7:] == ["tail.quarantined", "segment.sealed"]
    assert [kept.read_bytes() for kept in (folder / "quarantine").iterdir()] == [TORN]


def test_nothing_but_a_torn_end(folder: Path) -> None:
    """A month that has no event but the torn end of one isn't sealed, and hinders no other."""
    tear(folder, "2026-12")
    january = DECEMBER + timedelta(days=40)
    answer = seal(store_in(folder), january)
    assert [line["month"] for line in answer["sealed"]] == list(MONTHS)
    with ledger_in(folder).sealing() as sealing, refused("unknown_month"):
        sealing.prepare("2026-12", january)
    assert (folder / "2026-12.ndjson.gz").stat().st_size == 0
    check_chain(folder)
    assert verify(store_in(folder))["sealed"] == 3


def test_an_append_between_preparing_and_swapping(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P5: where an event still went into the last month, since its writer's clock was behind,
    the month is prepared again, with it."""
    store, other = store_in(folder), ledger_in(folder)
    late = iter([50, 51])

    def act() -> None:
        if number := next(late, None):
            append(other, number)

    meanwhile(monkeypatch, "prepare", act)
    answer = seal(store, DECEMBER, "2026-11")
    assert answer["sealed"][0]["events"] == 4
    events = check_chain(folder)
    assert [event["type"] for event in events[7:]] == [
        "schedule.registered", "schedule.registered", "segment.sealed",
    ]  # fmt: skip
    assert verify(store_in(folder))["sealed"] == 1


def test_a_month_that_keeps_growing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: where the month grows each time, sealing gives up, and nothing was changed by it."""
    other, numbers = ledger_in(folder), iter(range(50, 90))
    meanwhile(monkeypatch, "prepare", lambda: append(other, next(numbers)))
    with refused("head_moved"):
        seal(store_in(folder), DECEMBER, "2026-11")
    assert records(folder) == []
    assert len(check_chain(folder)) == 10


@pytest.mark.parametrize(
    ("month", "damage"),
    [*product(MONTHS, ["bit", "line"]), *product(MONTHS[1:], ["month before"])],
)
def test_a_damaged_month_is_not_sealed(folder: Path, month: str, damage: str) -> None:
    """P4: a month with anything wrong, or that doesn't follow from the one before, is left as it
    is, and the error names the first bad event."""
    path = folder / f"{month}.ndjson.gz"
    if damage == "month before":
        before = folder / f"{MONTHS[MONTHS.index(month) - 1]}.ndjson.gz"
        first = next(ledger_in(folder).replay()).position
        os.truncate(before, first.offset if month == "2026-10" else before.stat().st_size // 2)
    elif damage == "bit":
        flip(path, 60)
    else:
        kept = members(path.read_bytes())
        path.write_bytes(b"".join(gzip.compress(content) for content in kept[:1] + kept[:1]))
    files = snapshot_of(folder)
    with ledger_in(folder).sealing() as sealing, refused("corrupt_chain") as caught:
        sealing.prepare(month, DECEMBER)
    assert caught.value.details["seq"] > 0
    assert snapshot_of(folder) == files
    assert not list(folder.glob(".*"))


def test_those_who_append_hardly_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: a month is prepared without the lock: others append meanwhile."""
    real = sealing_module.packed

    def slow(each: Any) -> Iterator[bytes]:
        for content in real(each):
            append(ledger_in(folder, lock_timeout=0.05), 60, now=DECEMBER)
            yield content

    monkeypatch.setattr(sealing_module, "packed", slow)
    assert len(seal(store_in(folder), DECEMBER)["sealed"]) == 3
    assert verify(store_in(folder))["sealed"] == 3


def test_syscalls(folder: Path) -> None:
    """P1: the new file is synced before it gets its name, that before the record, and the record
    before it is acknowledged."""
    disk = StepDisk()
    store = store_in(folder, disk)
    store.read()
    disk.log.clear()
    seal(store, DECEMBER, "2026-10")
    start = disk.log.index("write")
    assert disk.log[start - 1 :] == [
        "open", "write", "fsync",  # beside
        "open", "fsync",  # what is there is made durable
        "open",  # .unsettled, for the next append if this process dies
        "open", "write", "rename",  # an index that will fit
        "rename", "open", "fsync",
        "open", "fsync", "open", "open", "fsync", "write", "fsync",  # the record, in a new month
        "open", "write", "rename",  # the index
    ]  # fmt: skip


def test_the_index_fits_afterwards(folder: Path) -> None:
    """P4, P8: sealing leaves an index that fits: nobody replays the log, nobody is warned."""
    warnings: list[str] = []
    store_in(folder, warnings=warnings).read()
    warnings.clear()
    running = store_in(folder, warnings=warnings)
    running.read()
    seal(store_in(folder, warnings=warnings), DECEMBER)
    for store in (running, store_in(folder, warnings=warnings)):
        starts = replay_starts(store)
        assert store.read() == replayed(ledger_in(folder))
        assert [position.seq for position in starts] == [10]
    assert warnings == []


def test_a_large_index_fits_afterwards(tmp_path: Path) -> None:
    """P8: also where the index is so large that it isn't written for every event."""
    folder = tmp_path / "var" / "schedules"
    warnings: list[str] = []
    store = store_in(folder, Unsynced())
    store.transact(NOW, lambda _: ([draft(number) for number in range(3000)], None))
    store.transact(NOW, lambda _: ([draft(-1)], None))
    seal(store_in(folder, Unsynced(), warnings), DECEMBER)
    assert store_in(folder, warnings=warnings).read().position.seq == 3003
    assert warnings == []


def test_an_index_replaced_while_it_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P4: a reader that has read the index of before sealing looks again before it makes a new
    one."""
    warnings: list[str] = []
    store_in(folder).read()
    store = store_in(folder, warnings=warnings)
    real = type(store._ledger).holds

    def late(self: FileLedger, position: Position) -> bool:
        monkeypatch.setattr(type(store._ledger), "holds", real)
        seal(store_in(folder), DECEMBER)
        return real(self, position)

    monkeypatch.setattr(type(store._ledger), "holds", late)
    assert store.read().position.seq == 10
    assert warnings == []


def test_whether_there_is_something_to_seal(folder: Path) -> None:
    """The loop's question is answered by the index and the names of the files."""
    store = store_in(folder)
    assert has_unsealed(store, store.read(), DECEMBER)
    seal(store, DECEMBER)
    assert not has_unsealed(store, store.read(), DECEMBER)
    assert has_unsealed(store, store.read(), DECEMBER + timedelta(days=31))


def test_work_goes_on_in_a_sealed_month_without_a_record(folder: Path) -> None:
    """P1: a month that was rewritten, and not recorded because its sealer died, may still grow; the
    next one seals it as it is then."""
    ledger = ledger_in(folder)
    with ledger.sealing() as sealing:
        prepared = sealing.prepare("2026-11", DECEMBER)
        with ledger.exclusive():
            told: list[Position] = []
            moved = sealing.put_in_place(prepared, ledger.head(), told.append)
    assert told == [moved]
    assert moved == ledger_in(folder).head()
    position = ledger.append([draft(40)], NOW, moved).position
    assert position.member == moved.offset
    answer = seal(store_in(folder), DECEMBER)
    assert answer["sealed"][-1]["events"] == 3
    assert verify(store_in(folder))["sealed"] == 3
    check_chain(folder)


# --- verify ---------------------------------------------------------------------------------------


def forge(folder: Path, record: SegmentSealed) -> None:
    """Append a record of sealing that isn't true."""
    ledger = ledger_in(folder)
    with ledger.exclusive():
        ledger.append([Draft(record, None, ACTOR)], DECEMBER, ledger.head())


@pytest.mark.parametrize("wrong", ["events", "content_sha256", "month", "its own month"])
def test_a_record_that_is_not_true(folder: Path, wrong: str) -> None:
    """P3: `verify` checks each record against the month's content, and names both."""
    content = gzip.decompress((folder / "2026-10.ndjson.gz").read_bytes())
    record = SegmentSealed("2026-10", content.count(b"\n"), hashlib.sha256(content).hexdigest())
    forge(folder, record)
    assert verify(store_in(folder))["sealed"] == 1
    changed: dict[str, Any] = {
        "events": {"events": record.events + 1},
        "content_sha256": {"content_sha256": "0" * 64},
        "month": {"month": "2026-08"},
        "its own month": {"month": "2026-12"},
    }[wrong]
    bad = record._replace(**changed)
    forge(folder, bad)
    with pytest.raises(ChainError) as caught:
        verify(store_in(folder))
    error = caught.value
    assert error.code == "corrupt_chain"
    assert (error.details["month"], error.details["seq"]) == (bad.month, 9)
    assert error.details["expected"] == {
        "events": bad.events, "content_sha256": bad.content_sha256,
    }  # fmt: skip
    assert error.details["found"] != error.details["expected"]


def long_chain(var: Path, events: int) -> None:
    """A chain of few schedules and many events, in two months, the first of them sealed."""
    store = store_in(var / "schedules", Unsynced())
    for number in range(3):
        register(store, Request(agent_id="a", prompt=f"p {number}", every="1h"), NOW)
    record = WorkerStarted("wrk_0123456789abcdef", 1, "host", "promptyoself", "loop", 32)
    drafts = [Draft(record, None, ACTOR)] * 500
    position = store._ledger.head()
    for at in range(events // 500):
        when = NOW if at < events // 1000 else DECEMBER
        position = store._ledger.append(drafts, when, position).position
    seal(store_in(var / "schedules", Unsynced()), DECEMBER)


def test_verify_streams(var: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """P8: the memory that `verify` takes doesn't grow with the number of events."""
    script = (
        "import resource, sys; from promptyoself.cli import main\n"
        "try: main(['verify', '--var', sys.argv[1]])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    peak = {}
    for events in (10_000, 100_000):
        long_chain(tmp_path / str(events), events)
        command = [sys.executable, "-c", script, str(tmp_path / str(events))]
        done = subprocess.run(command, env=environ, capture_output=True, check=True)
        answer = json.loads(done.stdout)
        assert answer["events"] == events + 5
        assert answer["sealed"] == 1
        peak[events] = int(done.stderr.split()[-1])
    assert peak[100_000] - peak[10_000] < 4096, "KiB"


def test_verify_on_a_terminal(var: Path, environ: dict[str, str]) -> None:
    """On a terminal `verify` shows how far it is, on stderr, and answers as it does elsewhere."""
    long_chain(var, 60_000)
    answer = run_at_a_terminal("verify", environ=environ)
    document = answer.success()
    assert (document["valid"], document["events"]) == (True, 60_005)
    assert "events" in answer.err
    assert re.search(r"\d+%", answer.err)
    assert "\x1b[" in answer.err


def test_looking_on_a_terminal_takes_no_witness_away(var: Path, environ: dict[str, str]) -> None:
    """P3: on a terminal, too, `verify` hears the index, and doesn't rebuild it before."""
    store = store_in(var / "schedules")
    for number in range(3):
        register(store, Request(agent_id="a", prompt=f"p {number}", every="1h"), NOW)
    path = var / "schedules" / "2026-11.ndjson.gz"
    path.write_bytes(path.read_bytes()[: store.read().position.member])
    for _ in range(2):
        run_at_a_terminal("verify", environ=environ).error("events_missing")


def test_the_sound_events_of_a_damaged_log(var: Path, clock: Any) -> None:
    """P4: the hint of a damaged log names a command that prints the events before the damage."""
    for number in range(3):
        call("register", "--agent-id", "a", "--prompt", f"p{number}", "--every", "1h").success()
        clock.advance(days=20)
    flip(var / "schedules" / "2026-12.ndjson.gz", 40)
    document = call("verify").error("corrupt_chain")
    assert document["seq"] == 3
    assert "`promptyoself history --ndjson`" in document["hint"]
    shown = [json.loads(line) for line in call("history", "--ndjson").out.splitlines()]
    assert [event["seq"] for event in shown[:-1]] == [1, 2]
    assert shown[-1]["code"] == "corrupt_chain"


def test_every_error_of_the_log_says_what_to_run() -> None:
    """The hint of each error about the log names a command to run next."""
    root = Path(promptyoself.__file__).parent
    seen = 0
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            if not named or node.func.id != "ChainError":  # type: ignore[attr-defined]
                continue
            seen += 1
            hint = ast.unparse(node.args[2])  # type: ignore[attr-defined]
            assert re.search(r"`promptyoself [a-z]+", hint), f"{path.name}: {hint}"
    assert seen >= 7
