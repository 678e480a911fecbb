"""What the tests of the ledger and the index share: drafts, small chains, and disks that fail."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import desire_id, schedule_id
from promptyoself.events.draft import Draft
from promptyoself.events.records import DesireRecorded, ScheduleRegistered
from promptyoself.events.schedule_fields import content_of
from promptyoself.index.desire_schema import DESIRE_SCHEMA
from promptyoself.index.index import Index, Snapshot
from promptyoself.index.schedule_schema import SCHEDULE_SCHEMA
from promptyoself.index.schema import StateSchema
from promptyoself.ledger import START, FileLedger, Position

NOW = datetime(2026, 11, 20, 20, 30, tzinfo=UTC)
ACTOR = {"via": "test", "who": "tester"}
_chain = "schedules"


def use_chain(name: str) -> None:
    """From here on, what is below makes ledgers of that chain, with its events and its index."""
    global _chain  # noqa: PLW0603
    _chain = name


def chain() -> str:
    """The chain in use."""
    return _chain


def schema() -> StateSchema[Any]:
    """The schema of its index."""
    return DESIRE_SCHEMA if _chain == "desires" else SCHEDULE_SCHEMA


def first_type() -> str:
    """The type of what :func:`draft` makes."""
    return "desire.recorded" if _chain == "desires" else "schedule.registered"


def draft(number: int, prompt: str = "Water the plants") -> Draft:
    """A registration, or a desire, unlike that of any other number."""
    if _chain == "desires":
        at = "2026-11-20T20:30:00.000000Z"
        desire = DesireRecorded(f"agent-{number % 3}", f"{prompt} {number}", 0.5, at)
        names = ("agent_id", "text", "recorded_at")
        return Draft(desire, desire_id({name: getattr(desire, name) for name in names}), ACTOR)
    record = ScheduleRegistered(
        agent_id=f"agent-{number % 3}",
        prompt=f"{prompt} {number}",
        schedule_type="cron",
        schedule_value="0 9 * * *",
        timezone="UTC",
        next_run="2026-12-01T09:00:00.000000Z",
        anchor="2026-11-20T20:30:00.000000Z",
        tier=0,
        misfire="coalesce",
        grace=86400,
    )
    return Draft(record, schedule_id(content_of(record)), ACTOR)


def prompts(events: list[dict[str, Any]]) -> list[str]:
    """The prompts registered, or the texts of the desires, in order."""
    name = "text" if _chain == "desires" else "prompt"
    return [event["data"][name] for event in events if event["type"] == first_type()]


def ledger_in(folder: Path, disk: Disk | None = None, lock_timeout: float = 10.0) -> FileLedger:
    """A ledger in a folder."""
    return FileLedger(folder, _chain, lock_timeout=lock_timeout, disk=disk)


def index_in(
    path: Path, ledger: FileLedger, warn: Callable[[str], None], disk: Disk | None = None
) -> Index[Any]:
    """The index of such a ledger."""
    return Index(path, schema(), ledger, warn, disk)


def replayed(ledger: FileLedger) -> Snapshot[Any]:
    """What the whole log says, without an index."""
    return index_in(ledger._folder / "none", ledger, lambda _: None).load()


def append(ledger: FileLedger, *numbers: int, now: datetime = NOW) -> Position:
    """Append a draft per number at the end, as one group."""
    with ledger.exclusive():
        return ledger.append([draft(number) for number in numbers], now, ledger.head()).position


def three_months(folder: Path, per_month: int = 2) -> FileLedger:
    """A small chain over three months: ledger.created, then ``per_month`` appends in each."""
    ledger = ledger_in(folder)
    position, number = START, 0
    for month in (9, 10, 11):
        for day in range(per_month):
            number += 1
            now = datetime(2026, month, 3 + day, tzinfo=UTC)
            position = ledger.append([draft(number)], now, position).position
    return ledger


def snapshot_of(folder: Path) -> dict[str, bytes]:
    """Every segment's bytes."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.ndjson.gz"))}


def flip(path: Path, at: int) -> bytes:
    """Flip the lowest bit of a file's byte; returns what the file holds now."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    return bytes(content)


def later(count: int) -> datetime:
    """Some moments after NOW."""
    return NOW + timedelta(microseconds=count)


@contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo[PromptyoselfError]]:
    """Fails where what is done within isn't refused with that code."""
    with pytest.raises(PromptyoselfError) as caught:
        yield caught
    assert caught.value.code == code


class Killed(BaseException):
    """Stands for the death of the process: no handler of ours may catch it."""


def kill() -> None:
    """SIGKILL to oneself."""
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


def die() -> None:
    """The same within this process."""
    raise Killed


class StepDisk(Disk):
    """A disk on which something happens before, after, or in the middle of the n-th syscall."""

    def __init__(
        self,
        at: int = 0,
        when: str = "before",
        act: Callable[[], None] = kill,
        only: str | None = None,
    ) -> None:
        self.count = 0
        self.log: list[str] = []
        self._at, self._when, self._act, self._only = at, when, act, only

    def _step(self, name: str, run: Callable[[], Any]) -> Any:
        if self._only not in (None, name):
            return run()
        self.count += 1
        self.log.append(name)
        mine = self.count == self._at
        if mine and self._when == "before":
            self._act()
        result = run()
        if mine and self._when == "after":
            self._act()
        return result

    def open(self, path: Path, flags: int) -> int:
        return self._step("open", lambda: super(StepDisk, self).open(path, flags))

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        def run() -> int:
            if self.count == self._at and self._when == "half":
                super(StepDisk, self).write(descriptor, data[: len(data) // 2])
                self._act()
                return len(data) // 2
            return super(StepDisk, self).write(descriptor, data)

        return self._step("write", run)

    def fsync(self, descriptor: int) -> None:  # noqa: ARG002
        self._step("fsync", lambda: None)  # a process's death loses nothing that was written

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._step("ftruncate", lambda: super(StepDisk, self).ftruncate(descriptor, size))

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename", lambda: super(StepDisk, self).rename(source, target))

    def mkdir(self, path: Path) -> None:
        self._step("mkdir", lambda: super(StepDisk, self).mkdir(path))


def failing_disk(at: int, when: str, number: int) -> StepDisk:
    """A disk whose n-th syscall fails with that error."""

    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return StepDisk(at, when, fail)
