"""repacking: the running month in large members, the same lines, while everybody goes on with it;
killed at every syscall, with power lost, and on disks that fail."""

import errno
import gzip
import signal
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from calling import append_foreign
from chains import (
    NOW,
    Killed,
    StepDisk,
    append,
    draft,
    failing_disk,
    kill,
    ledger_in,
    refused,
    replayed,
    snapshot_of,
)
from checker import check_chain, lines, members
from crashes import Unsynced, in_child, ways
from damage import DECEMBER, store_in
from dispatch import Place
from loops import Here, wait_for
from sealed_logs import (  # noqa: F401 (a fixture too)
    TORN,
    Forgetful,
    Platter,
    Slow,
    copies,
    losing_power,
    meanwhile,
    race,
    records,
    replay_starts,
    seal_on,
    seqs,
    tear,
    whole,
)
from tally import chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.index.index import Snapshot
from promptyoself.ledger import START
from promptyoself.ledger import sealing as sealing_module
from promptyoself.ledger.sealing import MEMBER_BYTES
from promptyoself.ledger.segments import compress
from promptyoself.service.delivery import sealer as sealer_module
from promptyoself.service.delivery.sealer import Sealer
from promptyoself.service.proof import pack
from promptyoself.service.proof.verify import verify
from promptyoself.service.upkeep import seal as service
from promptyoself.service.upkeep.seal import repack, seal

MONTH = "2026-11"
SMALL = 4
LARGE = 4000


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few events are worth it, and make more than one member."""
    monkeypatch.setattr(service, "REPACK_FROM_MEMBERS", SMALL)
    monkeypatch.setattr(sealing_module, "MEMBER_BYTES", LARGE)
    monkeypatch.setattr(sealing_module, "_SMALL_MEMBER_BYTES", LARGE // 4)


def build(folder: Path, disk: Disk, events: int = 10) -> None:
    """A month that is over, and one that runs, of small members, with an index."""
    store = store_in(folder, disk)
    for number in range(2 + events):
        when = NOW + timedelta(days=-30 if number < 2 else 0, minutes=number)
        store.transact(when, lambda _, n=number: ([draft(n)], None))  # type: ignore[misc]


@pytest.fixture
def folder(quick_path: Path) -> Path:
    """Thirteen events in twelve members in two months."""
    folder = quick_path / "var" / "schedules"
    build(folder, Unsynced())
    return folder


def month_in(folder: Path, month: str = MONTH) -> list[bytes]:
    """The contents of a month's members."""
    return members((folder / f"{month}.ndjson.gz").read_bytes())


def assert_index_fits(folder: Path) -> None:
    """A new process takes the index as it is: it replays nothing but what came after it."""
    warnings: list[str] = []
    store = store_in(folder, warnings=warnings)
    starts = replay_starts(store)
    found, right = store.read(), replayed(ledger_in(folder))
    assert (found.position, found.state.counts) == (right.position, right.state.counts)
    assert dict(found.state.schedules.items()) == dict(right.state.schedules.items())
    assert START not in starts
    assert warnings == []


# --- the same lines -------------------------------------------------------------------------------


@pytest.mark.parametrize("many", [0, 1500])
def test_the_same_lines(quick_path: Path, monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    """P3: a repacked month has the same lines, hashes and head, in large members and far fewer
    bytes; nothing is recorded, and the index, in parts or not, fits at once, also for those who
    have it loaded."""
    monkeypatch.setattr(sealing_module, "MEMBER_BYTES", MEMBER_BYTES)
    monkeypatch.setattr(sealing_module, "_SMALL_MEMBER_BYTES", MEMBER_BYTES // 8)
    folder, warnings = quick_path / "var" / "schedules", list[str]()
    build(folder, Unsynced(), 500)
    store = store_in(folder, Unsynced(), warnings)
    if many:
        group = [draft(number) for number in range(10_000, 10_000 + many)]
        store.transact(NOW + timedelta(days=1), lambda _: (group, None))
        append(ledger_in(folder, Unsynced()), 9_000, now=NOW + timedelta(days=2))
        store.read()
    path = folder / f"{MONTH}.ndjson.gz"
    before, right, size = lines(folder), replayed(ledger_in(folder)), path.stat().st_size
    assert repack(store_in(folder, Unsynced(), warnings), NOW) == 500 + bool(many)
    assert lines(folder) == before
    found = month_in(folder)
    assert sum(len(each) > MEMBER_BYTES * 0.9 for each in found) == len(found) - 1
    assert all(len(each) <= MEMBER_BYTES for each in found)
    assert path.stat().st_size < size / 2
    assert not list(folder.glob(".*"))
    assert records(folder) == []
    assert_index_fits(folder)
    snapshot = store.read()
    assert snapshot == store_in(folder).read()
    assert (snapshot.position.seq, snapshot.position.hash) == right.position[:2]
    assert warnings == []
    answer = verify(store_in(folder))
    assert (answer["valid"], answer["events"], answer.get("sealed")) == (True, len(before), None)
    append(ledger_in(folder, Unsynced()), 9_001, now=NOW + timedelta(days=3))
    assert_index_fits(folder)
    assert len(check_chain(folder)) == len(before) + 1


@pytest.mark.parametrize("later", [False, True])
def test_positions_taken_before(folder: Path, later: bool) -> None:
    """P1, P5: from each position taken before, a replay gives exactly what comes after it, and the
    head is the chain's; so does a replay that was under way."""
    ledger = ledger_in(folder, Unsynced())
    positions = [START, *(batch.position for batch in ledger.replay())]
    replays = [ledger.replay() for _ in positions]
    begun = [seqs([next(each) for _ in range(n)]) for n, each in enumerate(replays)]
    assert repack(store_in(folder, Unsynced()), NOW)
    if later:
        append(ledger, 77)
    head = ledger_in(folder).head()
    for position, had, replay in zip(positions, begun, replays, strict=True):
        assert seqs(ledger.replay(position)) == list(range(position.seq + 1, head.seq + 1))
        assert had + seqs(replay) == list(range(1, head.seq + 1))
        assert ledger.head(position) == head
        assert ledger.torn(position) is None


def test_again(folder: Path) -> None:
    """P8: what was repacked isn't worth it again, until there are as many small members again;
    those are put together with the rest."""
    assert repack(store_in(folder), NOW) == 10
    files = {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.glob("*.gz")}
    assert repack(store_in(folder), NOW) == 0
    again = {path.name: (path.read_bytes(), path.stat().st_ino) for path in folder.glob("*.gz")}
    assert again == files
    repacked = len(month_in(folder))
    for number in range(SMALL):
        append(ledger_in(folder, Unsynced()), 50 + number)
    before = lines(folder)
    assert repack(store_in(folder), NOW) >= SMALL
    assert len(month_in(folder)) <= repacked + 1
    assert lines(folder) == before
    assert_index_fits(folder)


def test_what_is_over_or_not_there(folder: Path, tmp_path: Path) -> None:
    """A month that is over is left to sealing, and an empty log alone."""
    files = snapshot_of(folder)
    assert repack(store_in(folder), DECEMBER) == 0
    assert repack(store_in(tmp_path / "schedules"), NOW) == 0
    assert snapshot_of(folder) == files


def test_a_clock_that_ran_back(folder: Path) -> None:
    """P1: where the clock is behind the log's last month, that one is the running one."""
    for number in range(SMALL):
        append(ledger_in(folder, Unsynced()), 60 + number, now=DECEMBER)
    before, files = lines(folder), snapshot_of(folder)
    assert repack(store_in(folder), NOW - timedelta(days=100)) == SMALL
    assert len(month_in(folder, "2026-12")) == 1
    assert snapshot_of(folder)[f"{MONTH}.ndjson.gz"] == files[f"{MONTH}.ndjson.gz"]
    assert lines(folder) == before
    append(ledger_in(folder, Unsynced()), 80, now=NOW - timedelta(days=100))
    assert_index_fits(folder)
    assert check_chain(folder)[-1]["ts"] == "2026-12-01T00:00:00.000000Z"


def test_a_pack_begun_before(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: a pack whose log is repacked before its files are copied has every line."""
    real, before = pack.verify, lines(folder)

    def checked(*arguments: Any) -> dict[str, Any]:
        answer = real(*arguments)
        assert repack(store_in(folder, Unsynced()), NOW) == 10
        return answer

    monkeypatch.setattr(pack, "verify", checked)
    out = tmp_path / "pack.zip"
    answer = pack.pack(store_in(folder), out, now=NOW, disk=Unsynced())
    assert (answer["events"], answer["head"]) == (len(before), verify(store_in(folder))["head"])
    with zipfile.ZipFile(out) as archive:
        content = [archive.read(each) for each in archive.namelist() if each.endswith(".gz")]
    assert b"".join(b"".join(members(each)) for each in content).split(b"\n")[:-1] == before


# --- between preparing and swapping ---------------------------------------------------------------


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("groups", [0, 1, 3])
@pytest.mark.parametrize("behind", [False, True])
def test_appended_meanwhile(
    folder: Path, monkeypatch: pytest.MonkeyPatch, groups: int, torn: bool, behind: bool
) -> None:
    """P1, P5: what others append while the month is repacked, whatever their clocks say, stays
    as it is behind it; a torn end behind that is moved aside, and recorded by the next append."""
    other = ledger_in(folder, Unsynced())
    when = NOW - timedelta(days=40 * behind)

    def act() -> None:
        for number in range(groups):
            append(other, *range(50 + 5 * number, 52 + 6 * number), now=when)
        if torn:
            tear(folder)

    meanwhile(monkeypatch, "repack", act)
    before = lines(folder)
    remembered = store_in(folder)
    remembered.read()
    assert repack(store_in(folder, Unsynced()), NOW) == 10
    assert lines(folder)[: len(before)] == before
    found = [each.count(b"\n") for each in month_in(folder)]
    assert found[len(found) - groups :] == [2, 3, 4][:groups]
    assert len(found) < 5 + groups
    assert_index_fits(folder)
    assert remembered.read() == replayed(ledger_in(folder))
    append(other, 90, now=when)
    kinds = [event["type"] for event in check_chain(folder)]
    assert kinds.count("tail.quarantined") == torn
    assert kinds[13:].count("schedule.registered") == 1 + sum([2, 3, 4][:groups])
    assert verify(store_in(folder))["valid"] is True
    assert len(seal(store_in(folder, Unsynced()), DECEMBER)["sealed"]) == 2
    assert verify(store_in(folder))["sealed"] == 2


def test_those_who_append_hardly_wait(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: a month is repacked without the lock, up to the end that it had: what others append
    meanwhile, again and again, keeps nobody busy."""
    real, numbers = sealing_module.packed, iter(range(50, 90))

    def packed(each: Iterable[bytes]) -> Iterator[bytes]:
        for content in real(each):
            append(ledger_in(folder, Unsynced(), lock_timeout=0.0), next(numbers))
            yield content

    monkeypatch.setattr(sealing_module, "packed", packed)
    assert repack(store_in(folder, Unsynced()), NOW) == 10
    added = next(numbers) - 50
    found = month_in(folder)
    assert added > 1
    assert len(b"".join(found[:-added]).split(b"\n")) - 1 == 10
    assert [each.count(b"\n") for each in found[-added:]] == [1] * added
    assert len(check_chain(folder)) == 13 + added
    assert_index_fits(folder)


@pytest.mark.parametrize("more", [0, 1])
def test_the_month_ends_meanwhile(folder: Path, monkeypatch: pytest.MonkeyPatch, more: int) -> None:
    """P1: where the month ends while it is repacked, it is put in place if nothing was added to
    it, and left if something was; either way nothing is lost, and it is sealed."""

    def act() -> None:
        for number in range(more):
            append(ledger_in(folder, Unsynced()), 50 + number)
        append(ledger_in(folder, Unsynced()), 70, now=DECEMBER)
        tear(folder, "2026-12")

    meanwhile(monkeypatch, "repack", act)
    before = lines(folder)
    if more:
        with refused("head_moved"):
            repack(store_in(folder, Unsynced()), NOW)
        assert len(month_in(folder)) == 11
    else:
        assert repack(store_in(folder, Unsynced()), NOW) == 10
        assert len(month_in(folder)) < 5
        assert_index_fits(folder)
    assert not list(folder.glob(".*"))
    append(ledger_in(folder, Unsynced()), 71, now=DECEMBER)
    assert lines(folder)[: len(before)] == before
    kinds = [event["type"] for event in check_chain(folder)]
    assert kinds[13 + more :] == ["schedule.registered", "tail.quarantined", "schedule.registered"]
    assert len(seal(store_in(folder, Unsynced()), DECEMBER)["sealed"]) == 2
    assert verify(store_in(folder))["sealed"] == 2


@pytest.mark.parametrize("again", ["same size", "none", "larger"])
@pytest.mark.parametrize("way", ["repack", "seal"])
def test_an_append_that_was_taken_back(
    folder: Path, monkeypatch: pytest.MonkeyPatch, again: str, way: str
) -> None:
    """P1: where an append that was read was taken back, since its disk had failed, what was
    appended instead stays, be it of the very same size."""
    path, end = folder / f"{MONTH}.ndjson.gz", ledger_in(folder).head()
    small = path.read_bytes()

    def with_more(*numbers: int) -> bytes:
        path.write_bytes(small)
        ledger_in(folder, Unsynced()).append([draft(each) for each in numbers], NOW, end)
        return path.read_bytes()

    read = with_more(500)
    same = next(found for n in range(501, 900) if len(found := with_more(n)) == len(read))
    instead = {"same size": same, "none": small, "larger": with_more(501, 502)}[again]
    path.write_bytes(read)
    changes = iter([instead])

    def act() -> None:
        path.write_bytes(next(changes, path.read_bytes()))

    if way == "repack":
        meanwhile(monkeypatch, "repack", act)
        with refused("head_moved"):
            repack(store_in(folder, Unsynced()), NOW)
        assert path.read_bytes() == instead
    else:
        meanwhile(monkeypatch, "prepare", act)
        assert seal(store_in(folder, Unsynced()), DECEMBER, MONTH)["sealed"]
    assert b"".join(month_in(folder)) == b"".join(members(instead))
    check_chain(folder)
    assert verify(store_in(folder))["valid"] is True


# --- what refuses ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bit", "line"])
def test_a_damaged_month(folder: Path, kind: str) -> None:
    """P4: a month with anything wrong is left as it is, and where it would be worth it, the error
    names the first bad event."""
    path = folder / f"{MONTH}.ndjson.gz"
    good = path.read_bytes()
    contents = members(good)
    for at in range(len(contents) - 1):
        parts = [compress(content) for content in contents]
        if kind == "bit":
            broken = bytearray(parts[at])
            broken[-6] ^= 1
            parts[at] = bytes(broken)
        else:
            parts[at] = gzip.compress(contents[at].replace(b"Water", b"Drown"), mtime=0)
        path.write_bytes(b"".join(parts))
        files = snapshot_of(folder)
        if kind == "line" or at >= SMALL:
            with refused("corrupt_chain") as caught:
                repack(store_in(folder, Unsynced()), NOW)
            assert caught.value.details["month"] == MONTH
            assert caught.value.details["seq"] == 4 + at + (kind == "line")
        else:
            assert repack(store_in(folder, Unsynced()), NOW) == 0
        assert snapshot_of(folder) == files
        assert not list(folder.glob(".*"))
        count("members and months altered")
        path.write_bytes(good)
    assert repack(store_in(folder, Unsynced()), NOW) == 10


either = pytest.mark.parametrize("work", [repack, seal])


@either
@pytest.mark.parametrize("late", [False, True])
def test_newer_events(
    folder: Path, monkeypatch: pytest.MonkeyPatch, work: Callable[..., object], late: bool
) -> None:
    """A log that a newer version has written to is neither repacked nor sealed, though it wrote
    only meanwhile."""

    def write() -> None:
        append_foreign(folder.parent, type="schedule.invented", data={})

    if late:
        meanwhile(monkeypatch, "repack" if work is repack else "prepare", write)
    else:
        write()
    with refused("newer_events"):
        work(store_in(folder, Unsynced()), NOW)
    assert len(month_in(folder)) == 11
    assert records(folder) == []
    assert not list(folder.glob(".*"))


def test_while_another_seals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: while one process seals or repacks, another says that it won't; those who append don't
    wait."""
    refusals: list[str] = []

    def act() -> None:
        append(ledger_in(folder, Unsynced(), lock_timeout=0.0), 30)
        for work in (repack, seal):
            with refused("lock_timeout") as caught:
                work(store_in(folder), DECEMBER, timeout=0.0)
            refusals.append(caught.value.message)

    for sealing, work in (("repack", repack), ("prepare", seal)):
        meanwhile(monkeypatch, sealing, act)
        assert work(store_in(folder, Unsynced()), NOW)
    assert len(refusals) == 4
    assert all("being sealed by process" in message for message in refusals)


@either
def test_a_failing_disk_is_noticed(folder: Path, work: Callable[..., object]) -> None:
    """P1: where what was written reads back otherwise, the month stays as it was."""
    files = snapshot_of(folder)
    with pytest.raises(OSError, match="doesn't read as it was written"):
        work(store_in(folder, Forgetful()), NOW)
    assert snapshot_of(folder) == files
    assert not list(folder.glob(".*"))


# --- killed, without power, without room ----------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a log with a torn end."""
    folder = tmp_path_factory.mktemp("base") / "schedules"
    build(folder, Unsynced())
    tear(folder)
    return folder


def repack_growing(folder: Path, disk: Disk) -> int:
    """Compact, while another process appends, and dies in the middle of its next append."""

    def act() -> None:
        append(ledger_in(folder, _plain(disk)), 60)
        tear(folder)
        if isinstance(disk, Platter):
            disk.keep(folder / f"{MONTH}.ndjson.gz")

    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, "repack", act)
        return repack(store_in(folder, disk), NOW)


def _plain(disk: Disk) -> Disk:
    """The other process's: on the same platter, and nothing happens to it."""
    return Platter(disk.root).share(disk) if isinstance(disk, Platter) else Unsynced()


def assert_recovers(folder: Path, before: list[bytes]) -> None:
    """Every line is as it was, none came but of the torn ends and the append meanwhile, a reader
    changes nothing and gets the same answers, and work goes on: the next repacking, the next
    append, sealing."""
    found = whole(folder)
    assert found[: len(before)] == before
    assert all(b'"tail.quar' in x or b"plants 60" in x for x in found[len(before) :])
    files = snapshot_of(folder)
    right = replayed(ledger_in(folder))
    assert store_in(folder).snapshot() == right
    assert right.state.counts["schedule.registered"] in (12, 13)
    assert snapshot_of(folder) == files
    repack(store_in(folder, Unsynced()), NOW)
    assert not list(folder.glob(".*.gz.tmp"))
    assert len(month_in(folder)) <= len(b"".join(month_in(folder))) // 2000 + SMALL
    assert [line for line in whole(folder) if line not in found] == []
    append(ledger_in(folder, Unsynced()), 90)
    assert lines(folder)[: len(before)] == before
    answer = seal(store_in(folder, Unsynced()), DECEMBER)
    assert [line["month"] for line in answer["sealed"]] == ["2026-10", MONTH]
    events = check_chain(folder)
    assert lines(folder)[: len(before)] == before
    assert {path.read_bytes() for path in (folder / "quarantine").iterdir()} == {TORN}
    assert verify(store_in(folder))["sealed"] == 2
    assert_index_fits(folder)
    assert store_in(folder).read().position.seq == len(events)


Work = Callable[[Path, Disk], int]


def repack_alone(folder: Path, disk: Disk) -> int:
    """Compact."""
    return repack(store_in(folder, disk), NOW)


WAYS: list[Work] = [repack_alone, repack_growing]
both = pytest.mark.parametrize("work", WAYS)


def steps_of(folder: Path, work: Work) -> list[str]:
    """The syscalls of repacking."""
    disk = StepDisk()
    assert work(folder, disk) == 10
    return disk.log


@both
def test_killed_at_every_syscall(base: Path, copies: Callable[[], Path], work: Work) -> None:
    """P1: SIGKILL before, after and in the middle of every syscall of a repacking changes no line
    and loses none, and what comes then works."""
    before = whole(base)
    for at, when in ways(steps_of(copies(), work)):
        folder = copies()
        disk = StepDisk(at, when, kill)
        _, ended_by = in_child(lambda _, f=folder, d=disk: work(f, d))  # type: ignore[misc]
        assert ended_by == signal.SIGKILL, (at, when)
        count("kills by SIGKILL")
        assert_recovers(folder, before)


def test_killed_at_random(base: Path, copies: Callable[[], Path]) -> None:
    """P1: killed at any instant, between syscalls too."""
    before, choose = whole(base), chance("repacking killed at random")
    for _ in range(rounds(20)):
        folder, work = copies(), choose.choice(WAYS)
        in_child(lambda _, f=folder, w=work: w(f, Unsynced()), choose.random() * 0.03)  # type: ignore[misc]
        count("kills by SIGKILL")
        assert_recovers(folder, before)


@both
def test_power_loss_at_every_syscall(tmp_path: Path, work: Work) -> None:
    """P1: a loss of power at any syscall of a repacking, on a disk that keeps only what was
    synced, changes no line and loses none that was acknowledged, also while others append."""
    at, steps = 0, 0
    while at <= steps:
        at += 1
        with losing_power(tmp_path / f"{at}", at, build) as (folder, disk):
            before = whole(folder)
            try:
                work(folder, disk)
                steps = max(steps, disk.count)
            except Killed:
                steps = max(steps, at)
            acknowledged = whole(folder)
            lost = disk.after_power_loss(tmp_path / f"{at}-after") / "var" / "schedules"
            count("losses of power")
            assert whole(lost) == acknowledged, at
            assert_recovers(lost, before)
    assert steps > 20


@both
def test_power_lost_after_a_kill(tmp_path: Path, work: Work) -> None:
    """P1: where a repacking was killed at any syscall, and its power is lost only after another
    process has appended, what that one acknowledged is there."""
    at, steps = 0, 1
    while at < steps:
        at += 1
        with losing_power(tmp_path / f"{at}", at, build, torn=False) as (folder, disk):
            with suppress(Killed):
                work(folder, disk)
            steps = max(steps, disk.count + 1)
            other = Platter(disk.root).share(disk)
            append(ledger_in(folder, other), 70)
            appended = whole(folder)
            lost = disk.after_power_loss(tmp_path / f"{at}-after") / "var" / "schedules"
            count("losses of power")
            assert whole(lost) == appended, at
            assert store_in(lost).read().position.seq == len(appended)
            other.forget()
    assert steps > 15


@pytest.mark.parametrize(
    ("number", "work"), [(errno.ENOSPC, repack_growing), (errno.EIO, repack_alone)]
)
def test_errors_at_every_syscall(
    base: Path, copies: Callable[[], Path], number: int, work: Work
) -> None:
    """P1: a syscall of a repacking that fails, having done nothing, half or all of its work,
    raises or is made good; no line changes, and nothing half-written stays beside."""
    before, raised = whole(base), 0
    for at, when in ways(steps_of(copies(), work)):
        folder = copies()
        try:
            work(folder, failing_disk(at, when, number))
        except OSError as error:
            assert error.errno == number  # noqa: PT017
            raised += 1
        count("disk errors")
        assert not list(folder.glob(".*.gz.tmp")), (at, when)
        assert_recovers(folder, before)
    assert raised > 20


@both
def test_short_writes(base: Path, copies: Callable[[], Path], work: Work) -> None:
    """P1: a disk that takes a few bytes at a time gets the same bytes in the end."""
    found = []
    for disk in (Slow(), Unsynced()):
        folder = copies()
        assert work(folder, disk) == 10
        found.append(month_in(folder))
        assert_recovers(folder, whole(base))
    assert found[0] == found[1]


# --- everybody at once ----------------------------------------------------------------------------


def _repacker(folder: Path, until: float, report: Any) -> None:
    """Compacts again and again."""
    done = 0
    while time.monotonic() < until:
        store = store_in(folder, Unsynced())
        ts = store.read().position.ts
        try:
            done += bool(ts and repack(store, parse_utc(ts)))
        except PromptyoselfError as error:
            assert error.code == "head_moved", error.code  # noqa: PT017
        time.sleep(0.002)
    report.send(done)


def test_everybody_at_once(quick_path: Path) -> None:
    """P1, P5: two who append, two who repack, one who seals, and three who replay, all at once:
    nobody waits for long, and the log is whole."""
    folder = quick_path / "schedules"
    sealers = [_repacker, _repacker, seal_on]
    (*repacked, sealed), _ = race(folder, rounds(3), timedelta(hours=2), sealers)
    months = [record["month"] for record in records(folder)]
    assert sorted(months) == sorted(sealed)
    assert len(set(months)) == len(months)
    assert sum(repacked) > 1
    assert verify(store_in(folder))["sealed"] == len(months)
    assert_index_fits(folder)


# --- the loop -------------------------------------------------------------------------------------


class Watched:
    """A repacking that says when it is called, and waits until it may go on. The loop looks at each
    pass whether it is worth it, and any size is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.calls, self.at_once, self.most = 0, 0, 0
        self.go_on = threading.Event()
        self._real, self._error = sealer_module.repack, error
        monkeypatch.setattr(sealer_module, "repack", self)
        monkeypatch.setattr(sealer_module, "_CHECK_SIZE_SECONDS", 0.0)
        monkeypatch.setattr(sealer_module, "_COUNT_FROM_BYTES", 1)

    def __call__(self, *arguments: Any, **more: Any) -> int:
        self.calls += 1
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            self.go_on.wait(60)
            if self._error:
                raise self._error
            return self._real(*arguments, **more)
        finally:
            self.at_once -= 1


def looked(sealer: Sealer, now: datetime = NOW) -> None:
    """Look, and let what it began come to its end."""
    sealer.seal_if_due(now)
    if sealer._thread is not None:
        sealer._thread.join(60)


def test_the_loop_begins_it_when_the_month_has_grown(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the loop counts a month's members when it has grown by enough since it last did, not
    before; and again after it was repacked."""
    watched = Watched(monkeypatch)
    watched.go_on.set()
    seal(store_in(folder, Unsynced()), NOW)
    size = (folder / f"{MONTH}.ndjson.gz").stat().st_size
    monkeypatch.setattr(sealer_module, "_COUNT_FROM_BYTES", size + 1)
    warnings: list[str] = []
    sealer = Sealer(store_in(folder, Unsynced(), warnings))
    for _ in range(3):
        looked(sealer)
    assert watched.calls == 0
    append(ledger_in(folder, Unsynced()), 70)
    before = lines(folder)
    looked(sealer)
    assert watched.calls == 1
    assert len(month_in(folder)) < 6
    assert lines(folder) == before
    assert_index_fits(folder)
    looked(sealer)  # it is smaller: counted once more, from which the next growth counts
    assert watched.calls == 2
    for number in range(5):
        looked(sealer)
        append(ledger_in(folder, Unsynced()), 71 + number)
    assert watched.calls == 2
    assert warnings == []


def test_the_loop_looks_seldom(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: between two looks at how much the month has grown, the loop's passes read nothing."""
    store, loads = store_in(folder, Unsynced()), list[int]()
    real = store._index.load

    def load(stamp: object = None) -> Snapshot:
        loads.append(1)
        return real(stamp)

    monkeypatch.setattr(store._index, "load", load)
    sealer = Sealer(store)
    for _ in range(100):
        looked(sealer)
    assert len(loads) == 1


def test_the_loop_does_it_once_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P5: while a month is being repacked, the loop begins neither that nor sealing, however much
    it grows; afterwards it does."""
    watched = Watched(monkeypatch)
    sealer = Sealer(store_in(folder, Unsynced()))
    sealer.seal_if_due(NOW)
    first = sealer._thread
    assert first is not None
    wait_for(lambda: watched.calls == 1)
    for number in range(20):
        append(ledger_in(folder, Unsynced()), 100 + number)
        sealer.seal_if_due(NOW)
        sealer.seal_if_due(DECEMBER)
        assert sealer._thread is first
    watched.go_on.set()
    first.join(60)
    assert (watched.calls, watched.most) == (1, 1)
    looked(sealer)
    assert (watched.calls, watched.most) == (2, 1)
    assert len(check_chain(folder)) == 13 + 20 + len(records(folder))


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left"), "No space left."),
        (ValueError("a bug"), "ValueError: a bug."),
    ],
)
def test_a_failure_in_the_loop_is_a_warning(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    """What goes wrong with repacking is said once, and tried again when the month has grown; that
    somebody else seals isn't even said."""
    watched = Watched(monkeypatch, error)
    watched.go_on.set()
    seal(store_in(folder, Unsynced()), NOW)
    warnings: list[str] = []
    sealer = Sealer(store_in(folder, Unsynced(), warnings))
    for _ in range(3):
        looked(sealer)
    assert watched.calls == 1
    assert warnings == [f"The log could not be sealed or compacted: {told}"]
    append(ledger_in(folder, Unsynced()), 100)
    watched._error = None
    with ledger_in(folder).sealing():
        looked(sealer)
    assert watched.calls == 2
    assert len(warnings) == 1
    append(ledger_in(folder, Unsynced()), 101)
    looked(sealer)
    assert len(month_in(folder)) < 6
    assert len(warnings) == 1


def test_deliveries_go_on_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P2: while the running month is repacked, what is due is delivered."""
    watched = Watched(monkeypatch)
    place = Place(tmp_path / "var")
    try:
        place.register(5, time="in 200d")
        with Here(place):
            wait_for(lambda: watched.calls == 1)
            place.register(5)
            wait_for(lambda: place.types()["delivery.delivered"] == 5)
            small = len(month_in(place.var / "schedules", f"{datetime.now(UTC):%Y-%m}"))
            watched.go_on.set()
            wait_for(
                lambda: len(month_in(place.var / "schedules", f"{datetime.now(UTC):%Y-%m}")) < small
            )
        assert place.warnings == []
        assert verify(place.store)["valid"] is True
    finally:
        place.close()
