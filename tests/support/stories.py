"""Random histories of schedules, and what the audit has to say of them."""

from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from hypothesis import strategies as st
from world import DELIVERED, NOON, World

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.records import WorkerStarted, WorkerStopped
from promptyoself.rules.claim import orphans
from promptyoself.rules.due import due
from promptyoself.rules.outcome import Abandoned, Failed
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request

PERMANENT = Failed("agent_not_found", "There is no such agent.", permanent=True)
UNREACHABLE = Abandoned("letta_unreachable", "Nobody answers.")


def started(world: World, worker: str = "wrk_1", mode: str = "loop") -> None:
    world.add([(WorkerStarted(worker, 1, "here", "promptyoself 0", mode, 32), None)])


def stopped(world: World, worker: str = "wrk_1") -> None:
    world.add([(WorkerStopped(worker, "SIGTERM"), None)])


WHENS = st.sampled_from(
    [
        {"every": "7m"},
        {"every": "1h"},
        {"every": "45m", "until": "2026-11-20T18:00Z"},
        {"cron": "*/20 * * * *"},
        {"cron": "0 9,17 * * *", "timezone": "Europe/London"},
        {"time": "in 90m"},
        {"every": "30m", "max_repetitions": 3},
        {"every": "20m", "misfire": "all", "grace": "2h"},
        {"every": "1h", "misfire": "skip", "jitter": "5m"},
        {"every": "10m", "daily_budget": 3},
        {"every": "15m", "tier": 2, "on_failure": "agent-1"},
        {"time": "in 3h", "tier": 2, "on_failure": "agent-0"},
    ]
)

OUTCOMES = st.sampled_from(
    [DELIVERED, DELIVERED, PERMANENT, UNREACHABLE, Abandoned("letta_busy", "Busy.", at_once=True)]
)

AGENTS = st.integers(0, 2)


def change(
    store: Any, what: str, detail: Any, ids: list[str], requests: list[Request], now: datetime
) -> None:
    """Change one of the schedules, if it isn't refused. ``detail`` says which; of a modification,
    to what times too."""
    number, when = detail if what == "modify" else (detail, None)
    id_, request = ids[number % len(ids)], requests[number % len(ids)]
    functions = {"pause": pause, "resume": resume, "cancel": cancel, "trigger": run_now}
    with suppress(PromptyoselfError):
        if what == "modify":
            modify(store, id_, Request(**when), now)
        elif what == "revive":
            register(store, request, now)
        else:
            functions[what](store, id_, None, now)


class Story:
    """A few agents, two loops that come and go, people, and a clock that runs both ways."""

    def __init__(self) -> None:
        self.world = World()
        self.requests: list[Request] = []
        self.ids: list[str] = []
        self.flying: list[tuple[Any, str]] = []
        self.names = {0: "wrk_0", 1: "wrk_1"}
        self.alive: set[int] = set()

    def step(self, what: str, detail: Any) -> None:
        world = self.world
        if what in ("wait", "jump"):
            world.advance(seconds=detail)
        elif what == "register":
            agent, when = detail
            prompt = f"{len(self.requests)}"
            request = Request(agent_id=f"agent-{agent}", prompt=prompt, **when)
            with suppress(PromptyoselfError):  # refused, so nothing has changed
                self._register(request)
        elif what == "pass":
            self._pass(detail)
        elif what == "land":
            if self.flying:
                made, worker = self.flying.pop(0)
                world.settle(made, detail, worker)
        elif what in ("crash", "stop"):
            self._end(detail, what)
        elif what == "approve" and self.ids:
            world.approve(self.ids[detail % len(self.ids)], 1 + detail % 3, hours=detail)
        elif self.ids:
            change(world, what, detail, self.ids, self.requests, world.now)

    def _register(self, request: Request) -> None:
        id_ = str(register(self.world, request, self.world.now)["id"])  # type: ignore[arg-type]
        self.requests.append(request)
        self.ids.append(id_)

    def _pass(self, number: int) -> None:
        if number not in self.alive:
            self.alive.add(number)
            self.names[number] += "x"
            started(self.world, self.names[number])
        worker = self.names[number]
        living = {self.names[other] for other in self.alive}
        claimed = {slot.worker for slot in self.world.state.open.values() if slot.worker}
        for orphan in list(orphans(self.world.state, claimed - living, self.world.now)):
            if (orphan.id, orphan.slot) not in {(m.id, m.slot) for m, _ in self.flying}:
                self.flying.append((orphan, worker))
        self.flying += [(made, worker) for made in self.world.claim(worker=worker).claims]

    def _end(self, number: int, how: str) -> None:
        if number in self.alive:
            self.alive.remove(number)
            worker = self.names[number]
            self.flying = [(made, by) for made, by in self.flying if by != worker]
            if how == "stop":
                stopped(self.world, worker)

    def record_outcomes(self) -> None:
        """Let the clock come to its right time, and everything be settled."""
        latest = parse_utc(self.world.events[-1].ts) if self.world.events else NOON
        self.world.now = max(self.world.now, latest)
        for _ in range(400):
            self._pass(0)
            while self.flying:
                made, worker = self.flying.pop(0)
                self.world.settle(made, DELIVERED, worker)
            state = self.world.state
            waiting = [slot.retry_at for slot in state.open.values() if slot.retry_at]
            if not waiting and not list(due(state, format_utc(self.world.now))):
                return
            self.world.now += timedelta(seconds=60)
        raise AssertionError("it never comes to rest")
