"""The ledger's files, syscalls, locks and races."""

import gzip
import os
import shutil
import stat
import subprocess
import threading
from collections.abc import Callable
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from chains import (
    ACTOR,
    NOW,
    StepDisk,
    append,
    draft,
    index_in,
    ledger_in,
    prompts,
    replayed,
    schema,
)
from checker import check_chain, lines
from crashes import FORK, in_threads, locked_elsewhere
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sealed_logs import side_by_side
from tally import rounds

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.index.index import Snapshot
from promptyoself.ledger import START, FileLedger, HeadMoved, folder_cache, segments
from promptyoself.ledger.envelope import Envelope, decode_line, encode_line
from promptyoself.ledger.segments import compress, list_segments


def test_syscalls_of_an_append(folder: Path) -> None:
    """P1: data is synced before it is acknowledged, and a new file's name before its first byte. An
    append of nothing syncs what another writer may have left unsynced."""
    disk = StepDisk()
    ledger = ledger_in(folder, disk)
    position = append(ledger, 1)
    assert disk.log[-5:] == ["open", "open", "fsync", "write", "fsync"]
    disk.log.clear()
    position = ledger.append([draft(2)], NOW, position).position
    assert disk.log == ["write", "fsync"]
    disk.log.clear()
    ledger.append([], NOW, position)
    assert disk.log == ["open", "fsync"]
    disk.log.clear()
    ledger.append([draft(3)], NOW + timedelta(days=30), position)
    assert disk.log == ["open", "open", "fsync", "write", "fsync"]
    check_chain(folder)


def test_private_files(tmp_path: Path) -> None:
    """Files are made 0600 and folders 0700, whatever the umask."""
    before = os.umask(0)
    try:
        append(ledger_in(tmp_path / "var" / "s"), 1)
    finally:
        os.umask(before)
    for path in (tmp_path / "var").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_first_lock_of_many_threads(tmp_path: Path) -> None:
    """P5: threads that all use a new ledger for the first time at once don't block each other."""
    for attempt in range(rounds(10)):
        ledger = ledger_in(tmp_path / str(attempt), lock_timeout=5)
        barrier = threading.Barrier(4)

        def work(ledger: FileLedger = ledger, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            with ledger.exclusive(), ledger.exclusive():
                pass

        in_threads(*[work] * 4)


def test_lock_note_with_odd_arguments(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments that aren't UTF-8 don't keep anyone from taking the lock."""
    monkeypatch.setattr("sys.argv", ["/x/promptyo\udcffself", "list\udce9" * 300])
    append(ledger_in(folder), 1)
    check_chain(folder)


def test_holder_after_others(folder: Path) -> None:
    """P5: a process that waits in vain is told who holds the lock, however often it changed hands;
    only a change of hands is written down."""
    ledger = ledger_in(folder, lock_timeout=0.02)
    holder = folder / "lock.holder"
    position = append(ledger, 1)
    holder.unlink()
    position = ledger.append([draft(2)], NOW, position).position
    assert not holder.exists()  # nobody else has signed since
    for _ in range(2):
        with (
            locked_elsewhere(lambda: ledger_in(folder).exclusive()) as child,
            pytest.raises(PromptyoselfError, match=f"process {child.pid} "),
        ):
            append(ledger, 3)
        with (
            ledger.exclusive(),
            pytest.raises(PromptyoselfError, match=f"process {os.getpid()} "),
            ledger_in(folder).exclusive(timeout=0),
        ):
            pass


def test_a_child_holds_nothing(folder: Path) -> None:
    """P5: a process forked while the lock is held neither holds it nor keeps it from anyone."""
    ledger = ledger_in(folder, lock_timeout=0.02)
    ours, theirs = FORK.Pipe()

    def work() -> None:
        try:
            append(ledger, 1)
        except PromptyoselfError as error:
            theirs.send(error.code)
        theirs.recv()

    with ledger.exclusive():
        child = FORK.Process(target=work)
        child.start()
        assert ours.recv() == "lock_timeout"
    append(ledger_in(folder, lock_timeout=0), 2)
    ours.send("go")
    child.join()
    assert child.exitcode == 0


def test_lock_removed(tmp_path: Path) -> None:
    """A lock's file that somebody removed is made again."""
    folder = tmp_path / "s"
    ledger = ledger_in(folder)
    append(ledger, 1)
    (folder / "lock").unlink()
    append(ledger, 2)
    assert (folder / "lock").exists()
    (folder / "lock").unlink()
    (folder / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        append(ledger, 3)


def test_work_of_an_append(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: an append lists the folder once; it reads the last member only where the file isn't as
    this process left it, and the quarantine only where there is one."""
    ledger, other = ledger_in(folder), ledger_in(folder)
    position = append(ledger, 1)
    work: list[str] = []
    listed, ends_at = os.listdir, segments.ends_at

    def listing(place: Any) -> list[str]:
        work.append("list")
        return listed(place)

    def reading(*args: Any) -> bool:
        work.append("read")
        return ends_at(*args)

    monkeypatch.setattr(os, "listdir", listing)
    monkeypatch.setattr(segments, "ends_at", reading)
    for number in range(3):
        position = ledger.append([draft(number)], NOW, position).position
        assert ledger.holds(position)
    assert work == ["list", "list"] * 3
    work.clear()
    position = other.append([draft(7)], NOW, position).position
    assert work == ["list", "read"]
    work.clear()
    assert ledger.holds(position)
    assert ledger.holds(position)
    ledger.append([draft(8)], NOW, position)
    assert work == ["list", "read", "list", "list"]
    (folder / "quarantine").mkdir()
    work.clear()
    append(ledger, 9)
    assert work.count("list") == 3  # one by finding the end


def test_a_folder_that_rests_is_not_listed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: once the folder has been the same for a while, an append doesn't list it, so that its
    cost doesn't grow with the months; whatever another process changes there is seen all the
    same."""
    monkeypatch.setattr(folder_cache, "_TRUSTED_AFTER_SECONDS", -1.0)
    ledger, other = ledger_in(folder), ledger_in(folder)
    position = append(ledger, 1)
    ledger.stamp()
    ledger.stamp()
    listed, lists = os.listdir, []
    monkeypatch.setattr(os, "listdir", lambda place: lists.append(place) or listed(place))
    for number in range(3):
        position = ledger.append([draft(number)], NOW, position).position
    assert not lists
    other.append([draft(4)], NOW + timedelta(days=30), position)
    with pytest.raises(HeadMoved):
        ledger.append([draft(5)], NOW, position)
    (folder / "2026-12.ndjson.gz").write_bytes((folder / "2026-12.ndjson.gz").read_bytes() + b"x")
    append(ledger, 6)
    assert [path.suffix for path in (folder / "quarantine").iterdir()] == [".torn"]
    check_chain(folder)


MEDDLING: dict[str, Callable[[Path, Path], object]] = {
    "the month is gone": lambda _, month: month.unlink(),
    "the month was put there again": lambda _, month: (
        shutil.copy2(month, month.with_name("copy")),
        os.rename(month.with_name("copy"), month),
    ),
    "the month was cut": lambda _, month: os.truncate(month, month.stat().st_size - 1),
    "the month was cut to nothing": lambda _, month: os.truncate(month, 0),
    "the month grew": lambda _, month: month.write_bytes(month.read_bytes() + b"torn"),
    "the month differs": lambda _, month: (
        month.write_bytes(month.read_bytes()[:-20] + b"\0" * 20),
        os.utime(month, ns=(0, month.stat().st_mtime_ns + 1)),  # as if a tick had passed
    ),
    "a later month came": lambda folder, month: shutil.copy2(month, folder / "2026-12.ndjson.gz"),
    "the lock's file is gone": lambda folder, _: (folder / "lock").unlink(),
    "the folder is gone": lambda folder, _: shutil.rmtree(folder),
    "another folder is there": lambda folder, _: (
        shutil.copytree(folder, folder.with_name("copy")),
        shutil.rmtree(folder),
        os.rename(folder.with_name("copy"), folder),
    ),
    "a month's new name may not be durable": lambda folder, _: (folder / ".unsettled").touch(),
    "another process appended": lambda folder, _: append(ledger_in(folder), 9),
    "another process appended in the next month": lambda folder, _: append(
        ledger_in(folder), 9, now=NOW + timedelta(days=20)
    ),
    "another process found a torn end": lambda folder, month: (
        month.write_bytes(month.read_bytes() + b"torn"),
        append(ledger_in(folder), 9),
    ),
}


@pytest.mark.parametrize("what", MEDDLING)
def test_a_log_at_rest_that_is_meddled_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """P1, P5: a ledger that last left all in order, and looks only whether anything has changed,
    sees whatever has: it appends to what is there now, or not at all."""
    monkeypatch.setattr(folder_cache, "_TRUSTED_AFTER_SECONDS", -1.0)
    disk = StepDisk()
    ledger = ledger_in(folder, disk)
    append(ledger, 1)
    month = folder / "2026-11.ndjson.gz"
    position = ledger.head()
    for number in range(4):  # until it has seen the folder unchanged
        position = ledger.append([draft(number)], NOW, position).position
    with monkeypatch.context() as patch:
        patch.setattr(
            folder_cache.FolderCache, "listing", lambda _: pytest.fail("it listed everything")
        )
        disk.log.clear()
        position = ledger.append([draft(5)], NOW, position).position
    assert disk.log == ["write", "fsync"]
    MEDDLING[what](folder, month)
    before = {path: path.read_bytes() for path in folder.glob("*.gz")}
    try:
        end = ledger.append([draft(6)], NOW, position).position
    except (HeadMoved, ChainError):
        after = {path: path.read_bytes() for path in folder.glob("*.gz")}
        assert after == before
    else:
        assert ledger_in(folder).head() == end
        assert prompts(check_chain(folder))[-2:] == ["Water the plants 5", "Water the plants 6"]
        assert not (folder / ".unsettled").exists()


def test_a_ledger_that_was_overtaken_is_refused_as_often_as_it_tries(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: a position behind which another process has appended is refused again by the ledger that
    has just looked at it, though that is where its own last append ended."""
    monkeypatch.setattr(folder_cache, "_TRUSTED_AFTER_SECONDS", -1.0)
    ledger, other = ledger_in(folder), ledger_in(folder)
    position = append(ledger, 1)
    for number in range(2, 5):  # until it has seen the folder unchanged
        position = ledger.append([draft(number)], NOW, position).position
    append(other, 5)
    for _ in range(3):
        with pytest.raises(HeadMoved):
            ledger.append([draft(6)], NOW, position)
    assert len(check_chain(folder)) == 6


def test_an_empty_month_may_become_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: what a crash leaves between making a month's file and its first byte is filled by the
    next writer without a change to the folder: a process that watches for news hears of it."""
    monkeypatch.setattr(folder_cache, "_TRUSTED_AFTER_SECONDS", -1.0)
    ledger, other = ledger_in(folder), ledger_in(folder)
    position = append(ledger, 1)
    (folder / "2026-12.ndjson.gz").touch(0o600)
    before = [ledger.stamp() for _ in range(3)][-1]
    other.append([draft(2)], NOW + timedelta(days=30), position)
    assert ledger.stamp() != before
    with pytest.raises(HeadMoved):
        ledger.append([draft(3)], NOW, position)


def test_a_month_put_in_place_is_what_grows(folder: Path) -> None:
    """P1: a ledger that has a month's file open appends to the one of that name, though another
    with the same lines has taken its place since: a sealed one, or a backup."""
    ledger = ledger_in(folder)
    append(ledger, 1)
    path = folder / "2026-11.ndjson.gz"
    (folder / "copy").write_bytes(path.read_bytes())
    os.rename(folder / "copy", path)
    append(ledger, 2)
    assert len(check_chain(folder)) == 3


@pytest.mark.parametrize("how", ["changed", "replaced", "restored"])
def test_a_file_that_changed_is_read_again(folder: Path, how: str) -> None:
    """P4: what stood where it stands is looked at again once anybody has changed
    the file, though it is as long as it was."""
    ledger = ledger_in(folder)
    position = append(ledger, 1)
    path = folder / "2026-11.ndjson.gz"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    found = path.stat()
    if how == "changed":
        path.write_bytes(content)
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 1))  # as if a tick had passed
    else:
        (folder / "other").write_bytes(content)
        if how == "restored":
            os.utime(folder / "other", ns=(found.st_atime_ns, found.st_mtime_ns))
        os.rename(folder / "other", path)
    assert not ledger.holds(position)
    with pytest.raises(HeadMoved):
        ledger.append([draft(2)], NOW, position)
    assert path.read_bytes() == content


@pytest.mark.parametrize("library", ["isal", "zlib"])
def test_members_of_either_library(
    folder: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    """P3: whichever library compresses, plain gzip reads it, equal content gives equal bytes, and
    what reads doesn't ask which it was."""
    if library == "isal":
        assert segments._isal() is pytest.importorskip("isal.isal_zlib")
    else:
        monkeypatch.setattr(segments, "_isal", lambda: None)
    append(ledger_in(folder), *range(300))
    content = b"".join(line + b"\n" for line in lines(folder))
    path = folder / "2026-11.ndjson.gz"
    assert gzip.decompress(path.read_bytes()) == content
    assert subprocess.check_output(["gzip", "-dc", path]) == content
    assert compress(content) == compress(content) == path.read_bytes()
    assert path.stat().st_size < 0.36 * len(content)
    for size in (0, 1, 4095, 4096, 1 << 20):
        assert gzip.decompress(compress(content[:1] * size)) == content[:1] * size

    def unwanted() -> None:
        raise AssertionError

    monkeypatch.setattr(segments, "_isal", unwanted)
    assert ledger_in(folder).head().seq == 301
    append(ledger_in(folder), 301)
    check_chain(folder)


def test_an_event_alone_is_stored(folder: Path) -> None:
    """P8: a short line isn't deflated, which would take longer than all else but the sync; any gzip
    reads it, and a search finds it in the bytes."""
    append(ledger_in(folder), 1)
    append(ledger_in(folder), 2)
    path = folder / "2026-11.ndjson.gz"
    assert b"Water the plants 2" in path.read_bytes()
    content = b"".join(line + b"\n" for line in lines(folder))
    assert subprocess.check_output(["gzip", "-dc", path]) == content
    assert gzip.decompress(path.read_bytes()) == content
    for size in (0, 1, 1023, 1024):
        member = compress(b"x" * size)
        assert gzip.decompress(member) == b"x" * size
        assert (len(member) < size) == (size == 1024)


def test_empty_segment_is_none(folder: Path) -> None:
    """P1: an empty file, left by a crash before the first byte, is no obstacle in any month."""
    folder.mkdir()
    for month in ("2026-11", "2026-12"):
        (folder / f"{month}.ndjson.gz").touch()
    ledger = ledger_in(folder)
    for number, days in enumerate((0, 1, 20, 50)):
        append(ledger, number, now=NOW + timedelta(days=days))
    assert len(check_chain(folder)) == 5


def test_torn_before_an_empty_segment(folder: Path) -> None:
    """P1: a torn end is one also where an empty file of a later month lies beside it."""
    append(ledger_in(folder), 1)
    (folder / "2026-12.ndjson.gz").touch()
    with (folder / "2026-11.ndjson.gz").open("ab") as file:
        file.write(b"\x1f\x8b\x08torn")
    append(ledger_in(folder), 2)
    assert len(check_chain(folder)) == 4


def test_changed_under_the_lock(folder: Path) -> None:
    """A file that grows from outside between the check and the write is refused."""

    class Meddling(StepDisk):
        def open(self, path: Path, flags: int) -> int:
            if path.name.endswith(".gz"):
                with path.open("ab") as file:
                    file.write(b"x")
            return super().open(path, flags)

    position = append(ledger_in(folder), 1)
    with pytest.raises(OSError, match="changed from outside"):
        ledger_in(folder, Meddling()).append([draft(2)], NOW, position)
    append(ledger_in(folder), 3)
    assert prompts(check_chain(folder)) == ["Water the plants 1", "Water the plants 3"]


def test_big_members(folder: Path) -> None:
    """A member larger than any buffer, followed by small ones, is read whole."""
    ledger = ledger_in(folder)
    noise = "".join(chr(0x4E00 + (n * 7919) % 20000) for n in range(300_000))
    position = ledger.append([draft(1, noise)], NOW, START).position
    for number in range(2, 40):
        position = ledger.append([draft(number)], NOW, position).position
    assert ledger.head() == position
    assert len(check_chain(folder)) == 40


@given(
    st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers(-(2**63), 2**63)
            | st.text(st.characters(exclude_categories=["Cs"])),
            lambda inner: (
                st.lists(inner)
                | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
            ),
            max_leaves=8,
        ),
    )
)
def test_lines_round_trip(data: dict[str, Any]) -> None:
    """Whatever JSON an event holds, its line is one line, and reads back as the same event."""
    event = Envelope(1, 7, "2026-11-20T20:30:00.000000Z", "x.y", None, ACTOR, data, "0" * 64)
    line = encode_line(event)
    assert b"\n" not in line
    assert decode_line(line) == event
    assert encode_line(decode_line(line)) == line


def _contend(folder: Path, who: int, count: int, report: Any) -> None:
    ledger = ledger_in(folder, lock_timeout=60)
    warnings: list[str] = []
    index = index_in(folder / "index.json", ledger, warnings.append)
    acknowledged = []
    for number in range(1000 * who, 1000 * who + count):
        with ledger.exclusive():
            snapshot = index.load()
            when = NOW + timedelta(days=snapshot.position.seq / 6)
            batch = ledger.append([draft(number), draft(-number - 1)], when, snapshot.position)
            index.save(Snapshot(schema().fold(snapshot.state, batch.envelopes), batch.position))
        acknowledged.append(batch.position.seq)
    report.send((acknowledged, warnings))


def _follow(folder: Path, last: int, report: Any) -> None:
    """Reads without the lock, until the last event is there."""
    ledger, seen, known = ledger_in(folder), 0, START
    index = index_in(folder / "index.json", ledger, lambda _: None)
    while seen < last:
        snapshot = index.load()
        assert snapshot.position.seq >= seen
        seen = snapshot.position.seq
        known = ledger.head(known)
        assert ledger.holds(known)
    report.send(index.load() == replayed(ledger))


@pytest.mark.usefixtures("both_chains")
def test_many_processes(folder: Path) -> None:
    """P5: five writers and a lock-free reader in between: nothing lost, doubled, torn or
    refused."""
    count = rounds(20)
    last = 10 * count + 1
    writers = [(_contend, (folder, who, count)) for who in range(5)]
    *reports, is_right = side_by_side([*writers, (_follow, (folder, last))])
    assert is_right
    events = check_chain(folder)
    assert len(set(prompts(events))) == len(events) - 1 == 10 * count
    assert sorted(chain(*(acknowledged for acknowledged, _ in reports))) == [*range(3, last + 1, 2)]
    assert [warnings for _, warnings in reports] == [[]] * 5


class _Halves(StepDisk):
    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return super().write(descriptor, data[: max(1, len(data) // 2)])

    def fsync(self, descriptor: int) -> None:
        pass  # so that many appends happen while one reader looks


def _hammer_in_halves(folder: Path, stop: Any) -> None:
    ledger = ledger_in(folder, _Halves())
    position, number = ledger.head(), 0
    while not stop.is_set():
        number += 1
        position = ledger.append([draft(number)], NOW, position).position


def test_readers_beside_a_writer(folder: Path) -> None:
    """P5: a reader without the lock never takes an append under way for damage."""
    stop = FORK.Event()
    append(ledger_in(folder), 0)
    child = FORK.Process(target=_hammer_in_halves, args=(folder, stop))
    child.start()
    try:
        ledger, position = ledger_in(folder), START
        for _ in range(rounds(3000)):
            position = ledger.head(position)
            ledger.torn(position)
    finally:
        stop.set()
        child.join()
    assert child.exitcode == 0
    assert ledger.head() == ledger.head(position)
    check_chain(folder)


def test_reader_caught_between_reads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: an append that is half-written when a reader meets it, and followed by another before
    the reader looks again, isn't damage."""
    ledger = ledger_in(folder)
    append(ledger, 1)
    path = folder / "2026-11.ndjson.gz"
    size = path.stat().st_size
    append(ledger, 2)
    append(ledger, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[: size + 50])
    looked = segments.has_member_after

    def slow(*args: Any) -> bool:
        path.write_bytes(whole)
        return looked(*args)

    monkeypatch.setattr(segments, "has_member_after", slow)
    assert ledger.head().seq == 4


def test_month_that_opens_while_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: a reader that listed the segments before the month changed gives positions that hold."""
    ledger = ledger_in(folder)
    append(ledger, 1)
    listed = list_segments(folder)
    append(ledger, 2)
    append(ledger, 3, now=NOW + timedelta(days=20))
    # A listing isn't atomic: the old size of the old month, and the new month already.
    mixed = [listed[0], list_segments(folder)[1]]
    with monkeypatch.context() as patch:
        patch.setattr(segments, "list_segments", lambda _: mixed)
        position = ledger.head()
    assert position == ledger.head()
    assert ledger.holds(position)


@settings(max_examples=rounds(60), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.integers(0, 2), st.integers(-40, 80), st.sampled_from(["ok", "ok", "torn", "stale"])
        ),
        max_size=12,
    )
)
def test_any_history(tmp_path_factory: pytest.TempPathFactory, steps: list[Any]) -> None:
    """P1, P5: after any mixture of appends, torn ends, stale writers and jumping clocks the chain
    is whole and has exactly what was acknowledged."""
    folder = tmp_path_factory.mktemp("any") / "s"
    ledgers = [ledger_in(folder) for _ in range(3)]
    positions = [START] * 3
    wanted = []
    for number, (who, days, how) in enumerate(steps):
        ledger = ledgers[who]
        if how == "torn" and wanted:
            paths = sorted(path for path in folder.glob("*.gz") if path.stat().st_size)
            with paths[-1].open("ab") as file:
                file.write(compress(b"never acknowledged\n")[: 3 + number])
        if how != "stale":
            positions[who] = ledger.head(positions[who])
        try:
            batch = ledger.append([draft(number)], NOW + timedelta(days=days), positions[who])
        except HeadMoved:
            assert positions[who] != ledger.head()
            continue
        positions[who] = batch.position
        wanted.append(f"Water the plants {number}")
        assert prompts(check_chain(folder)) == wanted


def test_a_month_is_named_in_ascii_digits_only(tmp_path: Path) -> None:
    (tmp_path / "\u0662\u0660\u0662\u0666-11.ndjson.gz").write_bytes(b"no segment of ours")
    assert FileLedger(tmp_path, "schedules").months() == []
    assert list_segments(tmp_path) == []


@settings(max_examples=rounds(25), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9000)), min_size=1, max_size=12))
def test_one_event_is_found_among_members_of_any_size(
    quick_path: Path, groups: list[tuple[int, int]]
) -> None:
    """P8: wherever it lies, in few reads, and by a ledger that has looked for others before."""
    shutil.rmtree(quick_path / "log", ignore_errors=True)
    ledger, position, number = ledger_in(quick_path / "log"), START, 0
    for count, size in groups:
        for _ in range(count):
            number += 1
            text = os.urandom(size // 2).hex() if number % 5 == 0 else "x"
            position = ledger.append([draft(number, text)], NOW, position).position
    reads = 0
    for batch in ledger.replay():
        for event in batch.envelopes:
            assert ledger.event(event.seq, "2026-11") == event
            reads += 1
    assert ledger.event(reads + 1, "2026-11") is None
    fresh = ledger_in(quick_path / "log")
    assert fresh.event(reads // 2 + 1, "2026-11") == ledger.event(reads // 2 + 1, "2026-11")
