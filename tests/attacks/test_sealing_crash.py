"""P1, P3, P5: sealing, killed at every syscall, with power lost, on disks that fail, with every bit
of its result flipped, and with everybody at once."""

import errno
import signal
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import chains
import pytest
from checker import check_chain, lines, members
from crashes import Unsynced, in_child, ways
from damage import DECEMBER, borders, flips, store_in
from sealed_logs import (  # noqa: F401 (a fixture too)
    MONTHS,
    TORN,
    Slow,
    copies,
    losing_power,
    race,
    records,
    seal_on,
    tear,
    whole,
)
from tally import chance, count, rounds

from promptyoself.core.disk import Disk
from promptyoself.core.errors import ChainError
from promptyoself.ledger import sealing as sealing_module
from promptyoself.ledger import segments
from promptyoself.service.proof.verify import verify
from promptyoself.service.upkeep.seal import seal

AFTER = DECEMBER + timedelta(hours=1)


def build(folder: Path, disk: Disk) -> None:
    """Three months, with an index, and a torn end behind the last one."""
    store = store_in(folder, disk)
    for number in range(6):
        when = chains.NOW + timedelta(days=-75 + 12 * number)
        store.transact(when, lambda _, n=number: ([chains.draft(n)], None))  # type: ignore[misc]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "schedules"
    build(folder, Unsynced())
    assert [path.name[:7] for path in sorted(folder.glob("*.gz"))] == list(MONTHS)
    tear(folder)
    return folder


def assert_recovers(folder: Path, before: list[bytes], torn: bytes = TORN) -> None:
    """Every line is as it was, what was added is about sealing, a reader changes nothing, and
    sealing again leaves every month sealed once and an index that fits."""
    found = whole(folder)
    assert found[: len(before)] == before
    assert all(b'"segment.sealed"' in x or b'"tail.quar' in x for x in found[len(before) :])
    files = chains.snapshot_of(folder)
    assert store_in(folder).snapshot() == chains.replayed(chains.ledger_in(folder))
    assert chains.snapshot_of(folder) == files
    seal(store_in(folder, Unsynced()), AFTER)
    chains.append(chains.ledger_in(folder, Unsynced()), 90, now=AFTER)
    events = check_chain(folder)
    assert lines(folder)[: len(before)] == before
    assert sorted(record["month"] for record in records(folder)) == list(MONTHS)
    kept = [path.read_bytes() for path in (folder / "quarantine").iterdir()]
    assert kept.count(torn) == 1
    assert verify(store_in(folder))["sealed"] == 3
    warnings: list[str] = []
    assert store_in(folder, warnings=warnings).read().position.seq == len(events)
    assert warnings == []
    for month in MONTHS:
        assert len(members((folder / f"{month}.ndjson.gz").read_bytes())) == 1


def steps_of(folder: Path) -> list[str]:
    """The syscalls of sealing."""
    disk = chains.StepDisk()
    assert len(seal(store_in(folder, disk), DECEMBER)["sealed"]) == 3
    return disk.log


def killed(folder: Path, at: int, when: str) -> bool:
    """Seal, and be killed at a syscall; whether it came so far."""
    disk = chains.StepDisk(at, when, chains.kill)
    _, ended_by = in_child(lambda _: seal(store_in(folder, disk), DECEMBER))
    count("kills by SIGKILL", ended_by == signal.SIGKILL)
    return ended_by == signal.SIGKILL


def test_killed_at_every_syscall(base: Path, copies: Callable[[], Path]) -> None:
    """P1: SIGKILL before, after and in the middle of every syscall of sealing changes no line and
    loses none, and sealing again does the rest."""
    before = whole(base)
    for at, when in ways(steps_of(copies())):
        folder = copies()
        assert killed(folder, at, when), (at, when)
        assert_recovers(folder, before)


def test_killed_twice(base: Path, copies: Callable[[], Path]) -> None:
    """P1: the same where the one who seals again is killed as well, at any step."""
    before = whole(base)
    kinds = list(ways(steps_of(copies())))
    choose = chance("sealing killed twice")
    for _ in range(rounds(60)):
        folder = copies()
        for at, when in (choose.choice(kinds), choose.choice(kinds)):
            killed(folder, at, when)
        assert_recovers(folder, before)


def test_killed_at_random(base: Path, copies: Callable[[], Path]) -> None:
    """P1: killed at any instant, between syscalls too."""
    before = whole(base)
    choose = chance("sealing killed at random")
    for _ in range(rounds(40)):
        folder = copies()
        in_child(lambda _, f=folder: seal(store_in(f), DECEMBER), choose.random() * 0.03)
        count("kills by SIGKILL")
        assert_recovers(folder, before)


def test_power_loss_at_every_syscall(tmp_path: Path) -> None:
    """P1: a loss of power at any syscall of sealing, on a disk that keeps only what was synced,
    changes no line, loses none, and takes no record back that was acknowledged."""
    at = steps = 0
    while at <= steps:
        at += 1
        with losing_power(tmp_path / f"{at}", at, build) as (folder, disk):
            before, acknowledged = whole(folder), 0
            with suppress(chains.Killed):
                for month in MONTHS:
                    seal(store_in(folder, disk), DECEMBER, month)
                    acknowledged += 1
            steps = max(steps, disk.count if acknowledged == 3 else at)
            lost = disk.after_power_loss(tmp_path / f"{at}-after") / "var" / "schedules"
            count("losses of power")
            left = whole(lost)
            assert left[: len(before)] == before, at
            assert sum(b'"segment.sealed"' in line for line in left) >= acknowledged
            assert_recovers(lost, before)
    assert steps > 60


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_errors_at_every_syscall(base: Path, copies: Callable[[], Path], number: int) -> None:
    """P1: a syscall of sealing that fails, having done nothing, half or all of its work, raises or
    is made good; no line changes, and nothing half-written stays beside."""
    before = whole(base)
    raised = 0
    for at, when in ways(steps_of(copies())):
        folder = copies()
        disk = chains.failing_disk(at, when, number)
        try:
            seal(store_in(folder, disk), DECEMBER)
        except OSError as error:
            assert error.errno == number  # noqa: PT017
            raised += 1
        count("disk errors")
        beside = [path.name for path in folder.iterdir() if path.name.endswith(".gz.tmp")]
        assert not beside, (at, when)
        assert_recovers(folder, before)
    assert raised > 60


def test_short_writes(base: Path, copies: Callable[[], Path]) -> None:
    """P1: a disk that takes a few bytes at a time gets the same bytes in the end."""
    results = []
    for disk in (Slow(), Unsynced()):
        folder = copies()
        seal(store_in(folder, disk), DECEMBER)
        results.append(chains.snapshot_of(folder))
        assert_recovers(folder, whole(base))
    assert results[0] == results[1]


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture(params=["isal", "zlib"])
def sealed(
    base: Path, quick_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Path:
    """A chain whose first two months are sealed by either library, the second in several
    members."""
    if request.param == "isal":
        pytest.importorskip("isal.isal_zlib")
        monkeypatch.setattr(segments, "_LARGE_BYTES", 0)
    else:
        monkeypatch.setattr(segments, "_isal", lambda: None)
    folder = quick_path / "sealed" / "schedules"
    store = store_in(folder, Unsynced())
    for number in range(11):
        when = chains.NOW + timedelta(days=(-60, -30)[number > 0], minutes=number)
        store.transact(when, lambda _, n=number: ([chains.draft(n)], None))  # type: ignore[misc]
    monkeypatch.setattr(sealing_module, "MEMBER_BYTES", 2000)
    seal(store_in(folder, Unsynced()), chains.NOW)
    assert len(members((folder / "2026-10.ndjson.gz").read_bytes())) > 2
    (folder / "index.json").unlink()
    return folder


def test_every_bit_of_a_sealed_month(sealed: Path) -> None:
    """P3: whichever bit of a sealed month is flipped, `verify` names the first event that can't be
    read, or every line is as it was."""
    good, path = lines(sealed), sealed / "2026-10.ndjson.gz"
    unchanged = noticed = 0
    for start, end, seq in borders(path):
        for _ in flips(path, start, end):
            where = verdict(sealed)
            if where is None:
                unchanged += 1
                assert lines(sealed) == good
            else:
                noticed += 1
                assert where == ("corrupt_chain", "2026-10", start, seq)
    count("bits flipped", unchanged + noticed)
    assert noticed > 6000
    assert unchanged < 60 * len(borders(path))
    assert verify(store_in(sealed))["sealed"] == 2


def verdict(folder: Path) -> tuple[Any, ...] | None:
    """What `verify` finds, and where."""
    try:
        verify(store_in(folder))
    except ChainError as error:
        return error.code, *(error.details[key] for key in ("month", "offset", "seq"))
    return None


def test_a_sealed_month_cut_or_gone(sealed: Path) -> None:
    """P3: a sealed month that lost a member or a part of one, at its end, at its beginning or in
    the middle, or that is gone, is found."""
    for month in ("2026-09", "2026-10"):
        path = sealed / f"{month}.ndjson.gz"
        content = path.read_bytes()
        bad = [content[:start] + content[end:] for start, end, _ in borders(path)]
        bad += [content[:start] for start, _, _ in borders(path)]
        bad += [content[:cut] for cut in range(1, len(content), 7)]
        bad += [content[cut:] for cut in range(1, len(content), 97)]
        bad += [content + content, content + b"\0", content[:-8] + bytes(8)]
        for damaged in bad:
            path.write_bytes(damaged)
            with pytest.raises(ChainError) as caught:
                verify(store_in(sealed))
            assert caught.value.code == "corrupt_chain"
            assert caught.value.details["seq"] > 0
            count("writes cut")
        path.unlink()
        with pytest.raises(ChainError):
            verify(store_in(sealed))
        path.write_bytes(content)
    assert verify(store_in(sealed))["sealed"] == 2


# --- everybody at once ----------------------------------------------------------------------------


def test_everybody_at_once(quick_path: Path) -> None:
    """P1, P5: two who append, two who seal closed months and the last one, and three who replay,
    all at once: the log is whole."""
    folder = quick_path / "schedules"
    sealed, events = race(folder, rounds(4), timedelta(days=1), [seal_on, seal_on])
    months = [event["data"]["month"] for event in events if event["type"] == "segment.sealed"]
    assert len(set(months)) == len(months)
    assert sorted(months) == sorted(sealed[0] + sealed[1])
    assert len(months) > 1
    assert verify(store_in(folder))["sealed"] == len(months)
