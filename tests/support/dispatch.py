"""A data directory with a dispatcher, a clock turned by hand, and a Letta that fails on demand."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from checker import check_chain
from world import check_deliveries, check_log

from promptyoself.core.disk import Disk
from promptyoself.core.settings import load_settings
from promptyoself.events.target_names import TargetName
from promptyoself.service.delivery import dispatcher as dispatching
from promptyoself.service.delivery import in_flight
from promptyoself.service.delivery.dispatcher import Dispatcher, new_worker_name
from promptyoself.service.delivery.report import Report
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.store.store import Store
from promptyoself.targets.api import (
    DeliveryError,
    Found,
    Message,
    Reply,
    Run,
    RunFailure,
    Sent,
    Target,
    Traits,
)

if TYPE_CHECKING:
    import pytest

DOWN = DeliveryError("retry", "letta_unreachable", "Cannot reach Letta.")


class FakeLetta(Target):
    """A Letta in memory: runs end at once, unless told otherwise; one thing can be put in the way
    of each call. It fails the test where an agent gets a message while it is busy."""

    traits = Traits("letta", True, True, "letta_busy", timedelta(hours=1))

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.runs: dict[str, Run] = {}
        self.sends: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.at_once = self.most_at_once = 0
        self.before: Callable[[str, str], None] = lambda *_: None
        self.ending = True

    def _enter(self, call: str, agent: str) -> None:
        with self.lock:
            self.calls[call] += 1
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.before(call, agent)
        finally:
            with self.lock:
                self.at_once -= 1

    def active_runs(self, message: Message) -> list[Run]:
        self._enter("runs", message.agent_id)
        with self.lock:
            return [r for r in self.runs.values() if r.agent_id == message.agent_id and r.active]

    def all_active_runs(self) -> list[Run]:
        self._enter("look", "")
        with self.lock:
            return [r for r in self.runs.values() if r.active]

    def ended_runs(self, most: int) -> list[Run]:
        self._enter("ended", "")
        with self.lock:
            return [r for r in reversed(self.runs.values()) if not r.active][:most]

    def send(self, message: Message) -> Sent:
        self._enter("send", message.agent_id)
        with self.lock:
            busy = [r for r in self.runs.values() if r.agent_id == message.agent_id and r.active]
            assert not busy, "two messages at once"
            run_id = f"run-{len(self.runs)}"
            self.sends[message.otid] += 1
            self.runs[run_id] = Run(
                run_id, message.agent_id, "created", message.otid, datetime.now(UTC), None
            )
            if self.ending:
                self._end(run_id)
            return Sent(run_id)

    def _end(self, run_id: str) -> None:
        self.runs[run_id] = replace(self.runs[run_id], status="completed")

    def end_all(self) -> None:
        with self.lock:
            for run_id in self.runs:
                self._end(run_id)

    def run(self, run_id: str) -> Run:
        self._enter("run", "")
        with self.lock:
            return self.runs[run_id]

    def failure(self, run: Run) -> RunFailure:
        return RunFailure("run_failed", run.error or "")

    def find(self, message: Message, since: datetime) -> Found | None:
        del since
        self._enter("find", message.agent_id)
        with self.lock:
            for run in self.runs.values():
                if (run.otid, run.agent_id) == (message.otid, message.agent_id) and not run.active:
                    return Found("message-1", run.run_id, run.created_at)
        return None

    def reply(self, message: Message, since: datetime, run_id: str | None) -> Reply | None:
        del since
        self._enter("reply", message.agent_id)
        return Reply(f"Answer to {message.otid} in {run_id}.")

    def agents(self) -> list[Any]:
        return []

    def agent(self, agent_id: str) -> None:
        del agent_id

    def check(self) -> None:
        self.ended_runs(1)

    def health(self) -> str:
        return "0"

    def close(self) -> None:
        pass


class RefusingDisk(Disk):
    """A disk that is full while it is told to be."""

    full = False

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(descriptor, data)


class Place:
    """A data directory, with workers in it."""

    def __init__(self, var: Path, letta: Any = None, **settings: str) -> None:
        self.var = var
        self.letta = letta or FakeLetta()
        self.targets: dict[TargetName, Any] = {"letta": self.letta}
        self.settings = load_settings(
            {
                "PROMPTYOSELF_VAR": str(var),
                "PROMPTYOSELF_RECONCILE_GRACE": "0.2",
                "PROMPTYOSELF_CALL_TIMEOUT": "1",
                "PROMPTYOSELF_KEEP_REPLY": "none",  # a test of answers says otherwise
                **settings,
            }
        )
        self.warnings: list[str] = []
        self.disk = RefusingDisk()
        self.store = self.another_store(self.disk)
        self.ahead = timedelta(0)
        self.open: list[Any] = []
        self.sound = True  # no test has broken the product

    def another_store(self, disk: Disk | None = None) -> Store:
        return Store(
            self.settings, {"via": "test", "who": "t"}, warn=self.warnings.append, disk=disk
        )

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def add(
        self, agent_id: str, prompt: str = "p", *, store: Store | None = None, **asked: Any
    ) -> str:
        """Register a prompt, by default one that is due in a second; returns its id."""
        request = Request(agent_id=agent_id, prompt=prompt, **(asked or {"time": "in 1s"}))
        return register(store or self.store, request, self.now())["id"]

    def register(
        self, agents: int, each: int = 1, prompt_of: str = "prompt", **asked: Any
    ) -> list[str]:
        """Register this number of prompts to each agent, all due by the time this returns."""
        ids = [
            self.add(f"agent-{agent}", f"{prompt_of} {number}", **asked)
            for number in range(each)
            for agent in range(agents)
        ]
        self.ahead += timedelta(seconds=2)
        return ids

    def worker(self, concurrency: int = 8, store: Store | None = None) -> Dispatcher:
        store = store or self.store
        store.prepare_workers()
        name = new_worker_name()
        alive = store.workers.alive(name)
        alive.__enter__()
        dispatcher = Dispatcher(
            store, self.targets, self.now, worker=name, mode="loop", concurrency=concurrency
        )
        self.open.append((dispatcher, alive))
        return dispatcher

    def begun(self, concurrency: int = 8) -> Dispatcher:
        """A worker that has made its first pass."""
        worker = self.worker(concurrency)
        worker.tick(self.now())
        return worker

    def die(self, dispatcher: Dispatcher) -> None:
        """End a worker as SIGKILL does: nothing is recorded, and its lock is free."""
        (pair,) = [pair for pair in self.open if pair[0] is dispatcher]
        self.open.remove(pair)
        dispatcher.close()
        pair[1].__exit__(None, None, None)

    def run(
        self, *dispatchers: Dispatcher, until: Callable[[], bool] | None = None, timeout: float = 60
    ) -> list[Report]:
        """Let workers work until there is nothing to do, or until something holds."""
        reports: list[Report] = []
        end = time.monotonic() + timeout
        while True:
            assert time.monotonic() < end, self.warnings
            for dispatcher in dispatchers:
                reports.append(dispatcher.tick(self.now()))
            if until() if until else all(d.idle for d in dispatchers):
                return reports
            for dispatcher in dispatchers:
                dispatcher.wait(0.05)

    def wait(self, worker: Dispatcher, holds: Callable[[], object]) -> None:
        """Let a worker's deliveries go on, without a pass, until something holds."""
        end = time.monotonic() + 60
        while not holds():
            assert time.monotonic() < end, self.warnings
            worker.wait(0.05)

    def check_delivered(self, prompts: int) -> None:
        """That this number of prompts was delivered, each sent once, and no other sent."""
        assert self.types()["delivery.delivered"] == len(self.letta.sends) == prompts
        assert set(self.letta.sends.values()) == {1}

    def events(self) -> list[dict[str, Any]]:
        folder = self.var / "schedules"
        if self.sound:
            return check_log(folder, self.now(), settled=False)
        events = check_chain(folder, settled=False)
        check_deliveries(SimpleNamespace(**event) for event in events)
        return events

    def types(self) -> Counter[str]:
        return Counter(event["type"] for event in self.events())

    def close(self) -> None:
        for dispatcher, _ in self.open[:]:
            self.die(dispatcher)


class Timewarp:
    """Both clocks of a dispatcher, turned by hand."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.place, self.monotonic = place, 0.0
        for module in (dispatching, in_flight):
            monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.monotonic))

    def work(self, worker: Dispatcher, seconds: float) -> None:
        """Let a worker's loop run for so long."""
        end = self.monotonic + seconds
        while self.monotonic < end:
            place = self.place
            worker.tick(place.now())
            snapshots = worker._in_flight._route("letta").snapshots
            while worker._in_flight._stepping or snapshots.under_way:
                answer = worker._in_flight._pool.next_result(5)
                assert answer is not None
                worker._in_flight._handle_result(*answer)
            if worker._in_flight.outcomes:
                continue
            now = place.now()
            wake = worker.next_wake(now)
            steps = [due - self.monotonic for due in worker._in_flight._timers.values()]
            steps.append(snapshots.wake() - self.monotonic)
            if wake is not None:
                steps.append((wake - now).total_seconds())
            step = min([60.0, *(s for s in steps if s > 0)])
            self.monotonic += step
            place.ahead += timedelta(seconds=step)
