"""Logs of three months to be sealed, read on and torn meanwhile."""

from __future__ import annotations

import gzip
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from chains import NOW, StepDisk, append, die, draft, kill, ledger_in
from checker import check_chain
from crashes import FORK, Unsynced
from damage import store_in
from tally import chance, count

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.ledger import START, Batch, Position
from promptyoself.ledger.sealing import Prepared, Sealing
from promptyoself.ledger.segments import compress
from promptyoself.service.upkeep.seal import seal
from promptyoself.store.store import Store

TORN = b"\x1f\x8b\x08torn"


def tear(folder: Path, month: str = "2026-11") -> None:
    """A torn end behind a month."""
    with (folder / f"{month}.ndjson.gz").open("ab") as file:
        file.write(TORN)


def meanwhile(monkeypatch: pytest.MonkeyPatch, way: str, act: Callable[[], object]) -> None:
    """Let something happen once a month was read: to ``prepare`` it, or to ``repack`` it."""
    real = getattr(Sealing, way)

    def reading(self: Sealing, *arguments: Any) -> Prepared:
        prepared: Prepared = real(self, *arguments)
        act()
        return prepared

    monkeypatch.setattr(Sealing, way, reading)


def replay_starts(store: Store) -> list[Position]:
    """From where a store replays its log from now on."""
    starts: list[Position] = []
    real = store._ledger.replay

    def replay(after: Position = START) -> Iterator[Batch]:
        starts.append(after)
        return real(after)

    store._ledger.replay = replay  # type: ignore[method-assign]
    return starts


class Slow(Unsynced):
    """Takes a few bytes at a time."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        count("writes cut")
        return super().write(descriptor, data[:97])


class Forgetful(Unsynced):
    """Writes something else beside a month than it is told to."""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(".gz.tmp"):
            other = gzip.decompress(bytes(data)).replace(b"Water", b"Drown")
            super().write(descriptor, compress(other))
            return len(data)
        return super().write(descriptor, data)


def whole(folder: Path) -> list[bytes]:
    """The lines of a chain whose end may be torn."""
    ledger = ledger_in(folder)
    return [line for batch in ledger.replay() for line in batch.content.split(b"\n")[:-1]]


class Platter(StepDisk):
    """Remembers what the platter holds: what was synced, and nothing else.

    A file's content is there as of its last fsync, a name as of its directory's last fsync. That
    is the worst that a file system may do; real ones mostly do better. What is renamed over is kept
    until :meth:`forget`, so that no inode's number is used again.
    """

    def __init__(self, root: Path, *, at: int = 0, when: str = "before", act: Any = None) -> None:
        super().__init__(at, when, act or kill)
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[int, dict[str, tuple[int, bool]]] = {}
        self.platter_of(root)
        self.kept: list[int] = []

    def share(self, other: Platter) -> Platter:
        """Another process on the same platter."""
        self.contents, self.names = other.contents, other.names
        return self

    def keep(self, path: Path) -> None:
        """What a file has is durable."""
        self.contents[path.stat().st_ino] = path.read_bytes()

    def platter_of(self, folder: Path) -> None:
        """The names in a folder are durable."""
        entries = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(folder)}
        self.names[folder.stat().st_ino] = entries

    def fsync(self, descriptor: int) -> None:
        super().fsync(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.platter_of(path)
        else:
            self.keep(path)

    def rename(self, source: Path, target: Path) -> None:
        if target.exists():
            self.kept.append(os.open(target, os.O_RDONLY))
        super().rename(source, target)

    def forget(self) -> None:
        for descriptor in self.kept:
            os.close(descriptor)

    def after_power_loss(self, target: Path) -> Path:
        """Write what survives into ``target``."""

        def restore(inode: int, folder: Path) -> None:
            folder.mkdir(parents=True, exist_ok=True)
            for name, (child, is_folder) in self.names.get(inode, {}).items():
                if is_folder:
                    restore(child, folder / name)
                else:
                    (folder / name).write_bytes(self.contents.get(child, b""))

        restore(self.root.stat().st_ino, target)
        return target


@contextmanager
def losing_power(
    root: Path, at: int, build: Callable[[Path, Disk], None], *, torn: bool = True
) -> Iterator[tuple[Path, Platter]]:
    """What ``build`` makes of a chain's folder, with a torn end, on a platter; and the disk of a
    process there that dies at that syscall."""
    folder = root / "var" / "schedules"
    root.mkdir()
    first = Platter(root)
    build(folder, first)
    disk = Platter(root, at=at, act=die).share(first)
    if torn:
        tear(folder)
        disk.keep(folder / "2026-11.ndjson.gz")
    yield folder, disk
    first.forget()
    disk.forget()


def seal_on(folder: Path, until: float, report: Any) -> None:
    choose, done = chance(f"sealer {os.getpid() % 2}"), []
    while time.monotonic() < until:
        store = store_in(folder, Unsynced())
        ts = store.read().position.ts
        if ts:
            ahead = choose.choice((0, 0, 0, 25))
            try:
                answer = seal(store, parse_utc(ts) + timedelta(days=ahead))
            except PromptyoselfError as error:
                assert error.code == "head_moved", error.code  # noqa: PT017
                continue
            done += [line["month"] for line in answer["sealed"]]
        time.sleep(0.005)
    report.send(done)


def read_on(folder: Path, seed: int, until: float, acknowledged: Any, report: Any) -> None:
    """Replays from places remembered long ago, in its own process."""
    ledger, choose = ledger_in(folder), chance(f"reader {seed}")
    known: list[Position] = [START]
    replays = 0
    while time.monotonic() < until:
        position = choose.choice(known[-40:] if replays % 3 else known)
        at_least = acknowledged.value
        seq, head = position.seq, position.hash
        for batch in ledger.replay(position):
            for event in batch.envelopes:
                assert event.seq == seq + 1, "an event is missing, or given twice"
                seq += 1
            assert batch.envelopes[0].prev == head
            head = batch.position.hash
            if choose.random() < 0.05:
                known.append(batch.position)
        assert seq >= at_least, "an acknowledged event was not seen"
        end = ledger.head(position)
        assert end.seq >= seq
        known.append(end)
        ledger.torn(position)
        ledger.holds(position)
        replays += 1
    report.send(replays)


MONTHS = ("2026-09", "2026-10", "2026-11")


def records(folder: Path) -> list[dict[str, Any]]:
    """What sealing has recorded."""
    return [e["data"] for e in check_chain(folder) if e["type"] == "segment.sealed"]


def seqs(batches: Iterator[Batch] | list[Batch]) -> list[int]:
    """The numbers of their events."""
    return [event.seq for batch in batches for event in batch.envelopes]


def append_on(
    folder: Path, who: int, until: float, step: timedelta, acknowledged: Any, report: Any
) -> None:
    """Appends, each time a ``step`` later; fails where it must wait for more than half a minute."""
    store = store_in(folder, Unsynced())
    ids, number = [], 0
    while time.monotonic() < until:
        number += 1
        new = draft(100_000 * who + number)
        with store.exclusive(timeout=30.0):
            when = NOW + step * store.read().position.seq
            store.transact(when, lambda _, one=new: ([one], None))  # type: ignore[misc]
            acknowledged.value = max(acknowledged.value, store.read().position.seq)
        ids.append(new.id)
        time.sleep(0.002)
    report.send(ids)


def side_by_side(jobs: list[tuple[Any, tuple[Any, ...]]]) -> list[Any]:
    """What each job reports; each runs in a process of its own, all at once, and none fails."""
    pipes, children = [], []
    for job, arguments in jobs:
        ours, theirs = FORK.Pipe()
        child = FORK.Process(target=job, args=(*arguments, theirs))
        child.start()
        theirs.close()
        pipes.append(ours)
        children.append(child)
    answers = []
    for pipe, child in zip(pipes, children, strict=True):
        try:
            answers.append(pipe.recv())
        except EOFError:
            answers.append(None)
        child.join()
    assert [child.exitcode for child in children] == [0] * len(children)
    return answers


def race(
    folder: Path, seconds: float, step: timedelta, sealers: list[Any]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Two who append, each time a ``step`` later, those who seal or repack, and three who replay
    from remembered places, each in a process of its own: nobody misses an event, gets one twice,
    or meets damage. What the sealers report, and the log's events."""
    append(ledger_in(folder), 0)
    until, acknowledged = time.monotonic() + seconds, FORK.Value("q", 0)
    jobs: list[tuple[Any, tuple[Any, ...]]] = [
        *((append_on, (folder, who, until, step, acknowledged)) for who in (1, 2)),
        *((sealer, (folder, until)) for sealer in sealers),
        *((read_on, (folder, seed, until, acknowledged)) for seed in range(3)),
    ]
    ours, theirs, *sealed, first, second, third = side_by_side(jobs)
    events = check_chain(folder)
    ids = [event["id"] for event in events if event["type"] == "schedule.registered"]
    assert len(set(ids)) == len(ids)
    assert {*ours, *theirs} <= set(ids)
    assert min(first, second, third) > 3
    count("processes racing", len(jobs))
    count("replays beside sealing", first + second + third)
    return sealed, events


@pytest.fixture
def copies(base: Path, quick_path: Path) -> Callable[[], Path]:
    """Makes copies of the folder ``base``, a fixture of the test's own."""
    made: list[Path] = []

    def copy() -> Path:
        made.append(quick_path / f"{len(made)}" / "schedules")
        shutil.copytree(base, made[-1])
        if len(made) > 3:
            shutil.rmtree(made[-3].parent, ignore_errors=True)
        return made[-1]

    return copy
