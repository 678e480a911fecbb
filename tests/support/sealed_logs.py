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
from chains import NOW, PowerDisk, die, draft, ledger_in
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


class Platter(PowerDisk):
    """Keeps what is renamed over, so that no inode's number is used again."""

    def __init__(self, root: Path, **more: Any) -> None:
        super().__init__(root, **more)
        self.kept: list[int] = []

    def rename(self, source: Path, target: Path) -> None:
        if target.exists():
            self.kept.append(os.open(target, os.O_RDONLY))
        super().rename(source, target)

    def forget(self) -> None:
        for descriptor in self.kept:
            os.close(descriptor)


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
    """Appends, each time a ``step`` later; fails where it must wait for more than five seconds."""
    store = store_in(folder, Unsynced())
    ids, number = [], 0
    while time.monotonic() < until:
        number += 1
        new = draft(100_000 * who + number)
        with store.exclusive(timeout=5.0):
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
