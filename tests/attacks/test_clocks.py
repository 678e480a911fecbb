"""P2 under attack: clocks that jump, drift and differ, months and years that end meanwhile, and
every change of the clocks in every zone."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from actors import Actor
from calling import call, clean_environ
from checker import check_chain
from clock_changes import changes, is_fixed, walk
from conftest import Clock  # noqa: TC002
from cronsim import CronSim
from dispatch import DOWN, FakeLetta, Place
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loops import Here, wait_for
from stories import AGENTS, OUTCOMES, WHENS, change
from tally import SCALE, chance, count, rounds
from typed_texts import utc
from world import check_deliveries, check_log

from promptyoself.core.clocks import TrustedClock
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import load_settings
from promptyoself.doors.monitor import Monitor
from promptyoself.events.records import WorkerStarted, WorkerStopped
from promptyoself.rules.claim import Claim, claim, orphans
from promptyoself.rules.due import due
from promptyoself.rules.outcome import Abandoned, Delivered, Outcome
from promptyoself.rules.outcome import outcome_events as settle_claim
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time, slots
from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.report import audit
from promptyoself.service.delivery import dispatcher, loop, target_trouble
from promptyoself.service.delivery.dispatcher import Dispatcher, new_worker_name
from promptyoself.service.delivery.loop import Heartbeat
from promptyoself.service.proof.verify import verify
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.upkeep.clock_trust import held_loops
from promptyoself.service.upkeep.seal import seal
from promptyoself.state.schedules import State
from promptyoself.store.store import Store
from promptyoself.targets.api import Run
from promptyoself.targets.letta import LettaClient

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


# --- machines with clocks -------------------------------------------------------------------------


class World:
    """The true time, which the test turns, one log, and a Letta whose clock is right."""

    def __init__(self, var: Path, now: datetime) -> None:
        self.var, self.now = var, now
        self.machines: list[Machine] = []
        environ = {
            "PROMPTYOSELF_VAR": str(var),
            "PROMPTYOSELF_RECONCILE_GRACE": "0.2",
            "PROMPTYOSELF_CALL_TIMEOUT": "2",
            "PROMPTYOSELF_MIN_INTERVAL": "1",
        }
        self.settings = load_settings(environ)
        self.fake = FakeLetta()
        self.sandbox: Sandbox | None = None  # in the fake one's place

    def machine(self, ahead: timedelta = timedelta(0)) -> Machine:
        """One more, whose clock is that much ahead."""
        self.machines.append(Machine(self, ahead))
        return self.machines[-1]

    def letta(self) -> Any:
        if self.sandbox is None:
            return self.fake
        return LettaClient(self.sandbox.url, None, call_timeout=2)

    @property
    def latest(self) -> datetime:
        """The time by the clock that is furthest ahead, or was when it last wrote."""
        clocks = [machine.now() for machine in self.machines]
        written = self.machines[0].store.read().position.ts
        return max([*clocks, parse_utc(written)] if written else clocks)

    def sends(self) -> Counter[str]:
        """How often each slot's prompt is in its agent's history."""
        if self.sandbox is None:
            return self.fake.sends
        return Counter(
            str(message.otid)
            for agent in self.sandbox.agents
            for message in self.sandbox.messages(agent)
            if message.kind == "user_message"
        )

    def check_slots(self) -> list[dict[str, Any]]:
        """P2: no slot is forgotten, doubled or invented; returns the events."""
        events = check_log(self.var / "schedules", self.latest)
        audit(self.machines[0].store, now=self.latest)
        return events

    def check(self) -> list[dict[str, Any]]:
        """What must hold once nothing is under way, whatever clocks did; returns the events."""
        events = self.check_slots()
        assert set(self.sends().values()) <= {1}, "sent twice"
        delivered = {e["data"]["otid"] for e in events if e["type"] == "delivery.delivered"}
        assert delivered == set(self.sends()), "the log and the history disagree"
        return events

    def close(self) -> None:
        for machine in self.machines:
            machine.die()


class Machine:
    """A machine with a clock of its own, on a log that it shares with others."""

    def __init__(self, world: World, ahead: timedelta) -> None:
        self.world, self.ahead = world, ahead
        self.drift = 0.0  # seconds per second
        self.since = world.now
        self.store = Store(world.settings, {"via": "test", "who": "t"}, warn=lambda _: None)
        self.dispatcher: Dispatcher | None = None
        self.worker = ""
        self.alive: Any = None

    def now(self) -> datetime:
        return self.world.now + self.ahead + self.drift * (self.world.now - self.since)

    def register(self, agent: str, prompt: str = "p", **asked: Any) -> str:
        request = Request(agent_id=agent, prompt=prompt, **asked)
        return str(register(self.store, request, self.now())["id"])

    def begin(self) -> None:
        """Be alive, as a worker."""
        self.store.prepare_workers()
        self.worker = new_worker_name()
        self.alive = self.store.workers.alive(self.worker)
        self.alive.__enter__()

    def loop(self) -> Dispatcher:
        """Its loop, which is started where there is none."""
        if self.dispatcher is None:
            self.begin()
            letta, name = self.world.letta(), self.worker
            self.dispatcher = Dispatcher(
                self.store, {"letta": letta}, self.now, worker=name, mode="loop", concurrency=8
            )
        return self.dispatcher

    def work(self) -> None:
        """Passes, until there is nothing left to do at this time."""
        end = time.monotonic() + 60
        while True:
            assert time.monotonic() < end, "it never comes to rest"
            did = self.loop().tick(self.now())
            if self.loop().idle and not did:
                return
            self.loop().wait(0.02)

    def die(self) -> None:
        """End its loop as SIGKILL does."""
        if self.dispatcher is not None:
            self.dispatcher.close()
            self.dispatcher = None
        if self.worker:
            self.alive.__exit__(None, None, None)
            self.worker = ""


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a loop waits for by the monotonic clock, which the tests don't turn."""
    monkeypatch.setattr(dispatcher, "_ADOPT_EVERY", 0.0)
    monkeypatch.setattr(target_trouble, "_LONGEST_HOLD", 0.0)
    monkeypatch.setattr(loop, "_POLL_SECONDS", 0.02)


@pytest.fixture
def worlds(quick_path: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds, and ends them with the test."""
    worlds_made: list[World] = []

    def make(now: str) -> World:
        worlds_made.append(World(quick_path / f"var{len(worlds_made)}", utc(now)))
        return worlds_made[-1]

    yield make
    for world in worlds_made:
        world.close()


@pytest.fixture
def place(quick_path: Path) -> Iterator[Place]:
    """A data directory with a loop's clock, and a Letta that is there."""
    with closing(Place(quick_path / "var")) as place:
        yield place


def names_of(world: World) -> list[str]:
    """The files of the log."""
    return sorted(path.name[:7] for path in (world.var / "schedules").glob("*.ndjson.gz"))


# --- one clock that is set ------------------------------------------------------------------------


def test_the_clock_is_set_while_a_loop_runs(place: Place) -> None:
    """P2: hours forward and back, again and again, with a loop running: each slot one outcome,
    nothing sent twice."""
    jumps, looks = chance("jumps of a loop's clock"), 0

    def now() -> datetime:
        nonlocal looks
        looks += 1
        return datetime.now(UTC) + place.ahead

    place.now = now  # type: ignore[method-assign]
    place.register(3, each=2, every="1h")
    place.register(3, cron="*/20 * * * *", jitter="5m")
    with Here(place, accept_clock=True) as here:
        for _ in range(rounds(12)):
            place.ahead += timedelta(seconds=jumps.randint(-6 * 3600, 8 * 3600))
            seen = looks
            # Only what was due at the clock's latest can be waited for.
            wait_for(lambda seen=seen: here.error or looks > seen + 3)
            wait_for(lambda: here.error or _all_claimed(place))
            count("clock jumps")
        assert here.error is None
        place.ahead += timedelta(days=2)
        wait_for(lambda: here.error or _all_claimed(place))
    place.events()
    audit(place.store, now=place.now())
    assert set(place.letta.sends.values()) == {1}
    assert len(place.letta.sends) > 9


def _all_claimed(place: Place) -> bool:
    state = place.store.read().state
    ready = format_utc(place.now() - timedelta(minutes=5))  # the longest jitter
    return not state.open and not list(due(state, ready))


@pytest.mark.parametrize("phase", ["waits for its agent", "is with its agent", "is to be retried"])
def test_a_night_in_which_the_machine_sleeps(worlds: Callable[..., World], phase: str) -> None:
    """P2: a machine suspended for a night (its wall clock leaps, the monotonic one doesn't), in any
    phase of a delivery: it ends as it should, once, and what was due in the night is decided."""
    world = worlds("2026-11-20T22:00")
    machine = world.machine()
    machine.register("agent-a", every="1h")
    machine.register("agent-a", "other", time="in 90m")
    letta = world.fake
    letta.ending = phase == "is to be retried"
    if phase == "waits for its agent":
        letta.runs["theirs"] = Run("theirs", "agent-a", "running", "x", datetime.now(UTC), None)
    elif phase == "is to be retried":
        letta.before = _refusing
    world.now += HOUR
    machine.loop().tick(machine.now())
    machine.loop().wait(0.2)
    world.now += 9 * HOUR
    count("clock jumps")
    letta.before = lambda *_: None
    machine.loop().tick(machine.now())
    machine.loop().wait(0.3)  # it is looked at before the agent has come round
    letta.ending = True
    letta.end_all()
    machine.work()
    for _ in range(20):  # until retries are over
        world.now += timedelta(minutes=3)
        machine.work()
    world.check()
    # Of the evening, the one-off, the morning's latest, and the one that came due since.
    assert len(world.sends()) == 4


def _refusing(what: str, _agent: str) -> None:
    if what == "send":
        raise DOWN


@pytest.mark.parametrize(
    ("start", "leaps", "files"),
    [
        ("2026-11-30T23:30", [1], ["2026-11", "2026-12"]),
        ("2026-12-31T23:30", [1], ["2026-12", "2027-01"]),
        ("2027-02-28T23:30", [1, 24 * 31], ["2027-02", "2027-03"]),
        ("2028-02-28T23:30", [1, 24, 1], ["2028-02", "2028-03"]),
        ("2026-11-30T23:30", [1, -3, 3, -24 * 40, 24 * 41], ["2026-11", "2026-12"]),
        ("2026-12-31T23:59", [24 * 365, -24 * 365, 1], ["2026-12", "2028-01"]),
        ("2026-11-30T23:30", [24 * 100, -24 * 90, 24 * 200], ["2026-11", "2027-03", "2027-06"]),
    ],
)
def test_leaps_over_the_end_of_a_month(
    worlds: Callable[..., World], start: str, leaps: list[int], files: list[str]
) -> None:
    """P2: leaps over the end of months and years, forward and back, between a claim and its
    outcome: every event is in the month of its time, which never runs back."""
    world = worlds(start)
    machine = world.machine()
    for agent in ("a", "b"):
        machine.register(agent, every="1h")
    machine.register("c", cron="*/15 * * * *", misfire="all", grace="2h")
    machine.work()
    for number, leap in enumerate(leaps):
        world.now += HOUR / 4
        machine.loop().tick(machine.now())
        world.now += leap * HOUR
        machine.register("d", f"{number}", time="in 1h")
        machine.work()
        world.check()
        count("clock jumps")
    world.now = world.latest + 2 * HOUR
    machine.work()
    world.check()
    assert set(files) <= set(names_of(world))
    assert seal(machine.store, machine.now())["sealed"]
    assert verify(machine.store)["valid"]
    world.check()


def test_an_append_at_the_first_instant_of_a_month(worlds: Callable[..., World]) -> None:
    """An event of midnight UTC, on the microsecond, is the new month's first, and one of the
    microsecond before the old one's last; so is the slot of that instant."""
    world = worlds("2026-11-30T23:59:59.999999")
    machine = world.machine()
    machine.register("a", cron="0 0 * * *")
    assert names_of(world) == ["2026-11"]
    world.now += timedelta(microseconds=1)
    machine.register("b", every="1h")
    machine.work()
    events = world.check()
    assert names_of(world) == ["2026-11", "2026-12"]
    first = next(event for event in events if event["ts"].startswith("2026-12"))
    assert first["ts"] == "2026-12-01T00:00:00.000000Z"
    (slot,) = [e["data"]["slot"] for e in events if e["type"] == "delivery.delivered"]
    assert slot == first["ts"]


def _back_by(how: str, machine: Machine, id_: str, asked: dict[str, Any]) -> None:
    """Have a schedule count from now, in one of the ways that there are."""
    if how == "resumed":
        resume(machine.store, id_, None, machine.now())
    elif how == "paused and resumed":
        pause(machine.store, id_, None, machine.now())
        resume(machine.store, id_, None, machine.now())
    elif how == "modified":
        modify(machine.store, id_, Request(**asked), machine.now())
    elif how == "modified to other times":
        modify(machine.store, id_, Request(every="30m"), machine.now())
    else:
        cancel(machine.store, id_, None, machine.now())
        assert machine.register("a", **asked) == id_


@pytest.mark.parametrize("how", ["registered again", "paused and resumed", "modified"])
def test_a_clock_set_back_brings_no_slot_back(worlds: Callable[..., World], how: str) -> None:
    """P2: a schedule changed after the clock was set back fires no slot again that it had."""
    world = worlds("2026-11-30T20:30")
    machine = world.machine()
    asked: dict[str, Any] = {"cron": "0 * * * *"}
    id_ = machine.register("a", **asked)
    for _ in range(2):
        world.now += HOUR
        machine.work()
    world.now -= 2 * HOUR
    count("clock jumps")
    if how == "modified":
        pause(machine.store, id_, None, machine.now())
        modify(machine.store, id_, Request(cron="*/30 * * * *"), machine.now())
        resume(machine.store, id_, None, machine.now())
    else:
        _back_by(how, machine, id_, asked)
    for _ in range(5):
        world.now += HOUR / 2
        machine.work()
        world.check()
    # What was claimed by the clock that was ahead doesn't come again; the half hours were not.
    assert len(world.sends()) == (5 if how == "modified" else 3)


_SKIPPED: dict[str, Any] = {"cron": "0 * * * *", "misfire": "skip", "grace": "1m"}


def _skipped_by_a_clock_ahead(worlds: Callable[..., World]) -> tuple[World, Machine, str]:
    """A schedule with two deliveries, and then only with slots that a clock 40 days ahead has
    skipped. The clock is right again."""
    world = worlds("2026-11-30T20:30")
    machine = world.machine()
    id_ = machine.register("a", **_SKIPPED)
    for _ in range(3):
        world.now += HOUR / 2
        machine.work()
    machine.ahead = timedelta(days=40) + HOUR / 2
    machine.work()
    assert len(world.sends()) == 2
    machine.ahead = timedelta(0)
    count("clock jumps")
    return world, machine, id_


def _check_the_next_hours(world: World, machine: Machine) -> None:
    for _ in range(8):
        world.now += HOUR / 2
        machine.work()
        world.check()
    slots = _delivered_slots(world)
    assert len(set(slots)) == len(slots) == len(world.sends()) >= 4


@pytest.mark.parametrize(
    "second", ["paused and resumed", "modified to other times", "registered again"]
)
@pytest.mark.parametrize("first", ["paused and resumed", "modified", "registered again"])
def test_a_clock_set_back_twice_brings_no_slot_back(
    worlds: Callable[..., World], first: str, second: str
) -> None:
    """P2: after a schedule counted from now again, with nothing claimed by the clock that was
    ahead, the clock is set back once more, behind what was delivered in time: none of that comes
    again, however the schedule is changed."""
    world, machine, id_ = _skipped_by_a_clock_ahead(worlds)
    _back_by(first, machine, id_, _SKIPPED)
    world.now -= 2 * HOUR
    _back_by(second, machine, id_, _SKIPPED)
    _check_the_next_hours(world, machine)


def test_a_new_life_between_two_steps_back_forgets_nothing(worlds: Callable[..., World]) -> None:
    """P2: registered again between the two steps, when it isn't ahead any more, the schedule still
    knows what was claimed last."""
    world, machine, id_ = _skipped_by_a_clock_ahead(worlds)
    for how in ("paused and resumed", "registered again"):
        world.now += timedelta(minutes=20)
        _back_by(how, machine, id_, _SKIPPED)
    world.now -= 2 * HOUR + timedelta(minutes=10)
    _back_by("paused and resumed", machine, id_, _SKIPPED)
    _check_the_next_hours(world, machine)


@pytest.mark.parametrize(
    "how",
    ["resumed", "paused and resumed", "modified", "modified to other times", "registered again"],
)
@pytest.mark.parametrize(
    "asked",
    [
        {"cron": "0 * * * *"},
        {"every": "1h"},
        {"every": "1h", "misfire": "all", "grace": "3h"},
        {"cron": "*/20 * * * *", "misfire": "skip"},
    ],
    ids=str,
)
def test_what_a_clock_that_was_ahead_has_passed_counts_again(
    worlds: Callable[..., World], how: str, asked: dict[str, Any]
) -> None:
    """P2: a clock that was ahead by 40 days for three hours leaves a schedule there; each change of
    it counts from the real now. What was skipped then comes again, what was claimed then doesn't,
    each slot has its one outcome, and the audit says so all the way."""
    world = worlds("2026-11-30T20:30")
    machine = world.machine()
    id_ = machine.register("a", **asked)
    world.now += HOUR
    machine.work()
    machine.ahead = timedelta(days=40)
    for _ in range(7):
        world.now += HOUR / 2
        machine.work()
    count("clock jumps")
    machine.ahead = timedelta(0)
    early = {slot for slot in _delivered_slots(world) if slot > format_utc(world.now)}
    assert early
    before = world.now
    machine.work()
    state = machine.store.read().state
    assert str(state.schedules[id_].next_run) > format_utc(world.now + timedelta(days=30))
    _back_by(how, machine, id_, asked)
    following = parse_utc(str(machine.store.read().state.schedules[id_].next_run))
    assert world.now < following <= world.now + HOUR
    for _ in range(4):
        world.now += HOUR
        machine.work()
        world.check()
    assert any(before < parse_utc(slot) <= world.now for slot in _delivered_slots(world))
    done = len(world.sends())
    assert done >= len(early) + 4
    # The days pass, and with them the slots that were claimed too early.
    for _ in range(84):
        world.now += HOUR * 12
        machine.work()
    world.check()
    machine.ahead = timedelta(0)
    answer = audit(machine.store, now=world.now)
    assert answer["totals"]["delivered"] == len(world.sends())
    known = machine.store.read().state.schedules[id_]
    (world.var / "schedules" / "index.json").unlink()
    assert machine.store.read().state.schedules[id_] == known


def _delivered_slots(world: World) -> list[str]:
    events = check_chain(world.var / "schedules")
    return [event["data"]["slot"] for event in events if event["type"] == "delivery.delivered"]


def test_a_slot_that_was_begun_by_a_clock_that_was_ahead_is_given_up(
    worlds: Callable[..., World],
) -> None:
    """P2: what failed then is to be tried again only when that time comes; it doesn't stand in the
    way of what is due until then, and a trigger doesn't wait for the one of that time."""
    world = worlds("2026-11-30T20:30")
    machine = world.machine()
    id_ = machine.register("a", every="1h")
    machine.ahead = timedelta(days=40)
    world.fake.before = _refusing
    world.now += HOUR
    run_now(machine.store, id_, None, machine.now())
    machine.loop().tick(machine.now())
    machine.loop().wait(0.3)
    machine.loop().tick(machine.now())
    machine.ahead = timedelta(0)
    world.fake.before = lambda *_: None
    resume(machine.store, id_, None, machine.now())
    slot = run_now(machine.store, id_, None, machine.now())["slot"]
    assert slot < format_utc(world.now + SECOND)
    events = [event for _, event in machine.store.events()]
    given_up = [event for event in events if event.data.get("why") == "clock"]
    assert given_up
    assert {event.actor["for_agent"] for event in given_up} == {"a"}
    machine.work()
    world.now += HOUR
    machine.work()
    assert len(world.sends()) == 2
    world.check_slots()


@pytest.mark.parametrize(
    "without", [[], [("02:00", "02:00")], [("01:00", "03:00"), ("05:30", "06:00")]]
)
@pytest.mark.parametrize("value", ["0 * * * *", "1h"])
def test_ranges_without_fires(value: str, without: list[tuple[str, str]]) -> None:
    """A trigger has no fires in what is left out, whichever way it is asked."""
    day = utc("2026-11-30T00:00")
    ranges = tuple((utc(f"2026-11-30T{a}"), utc(f"2026-11-30T{b}")) for a, b in without)
    kind = "interval" if value == "1h" else "cron"
    plain = Trigger(kind, value, "UTC", day)
    trigger = plain._replace(without=ranges)
    expected = [
        fire
        for fire in slots(plain, day, day + 10 * HOUR)
        if not any(first <= fire <= last for first, last in ranges)
    ]
    assert list(slots(trigger, day, day + 10 * HOUR)) == expected
    for half in range(-1, 22):
        moment = day + half * HOUR / 2
        up_to = [fire for fire in expected if fire <= moment]
        assert count_slots(trigger, day, moment) == len(up_to)
        assert last_slot(trigger, day, moment) == (up_to[-1] if up_to else None)
        after = [fire for fire in expected if fire > moment]
        if after and moment >= day:
            assert next_fire_time(trigger, moment) == after[0]


def test_a_change_by_a_process_that_was_held_up(worlds: Callable[..., World]) -> None:
    """P2: one that looks at its clock, then waits while a slot passes and another process changes
    the same schedule: its event bears the other's time, and no slot is thought forgotten."""
    changes = [
        pause,
        cancel,
        lambda store, id_, _, now: modify(store, id_, Request(every="2m"), now),
    ]
    for make_change in changes:
        world = worlds("2026-11-30T23:58:30")
        slow, quick = world.machine(), world.machine()
        id_ = slow.register("a", every="1m")
        looked = slow.now()
        world.now += timedelta(minutes=3)
        run_now(quick.store, id_, None, quick.now())
        make_change(slow.store, id_, None, looked)
        world.check_slots()
        slow.work()
        world.now += timedelta(minutes=5)
        quick.work()
        world.check()
        count("clock jumps")


def test_a_second_that_comes_twice(worlds: Callable[..., World]) -> None:
    """P2: a clock that repeats the last second of a year, as many do for a leap second, fires
    midnight's slot once, and slots of that second too."""
    world = worlds("2026-12-31T23:59:58")
    machine = world.machine()
    machine.register("a", cron="0 0 1 1 *")
    machine.register("b", time="2026-12-31T23:59:59.500")
    machine.register("c", every="1s", misfire="all")
    for _ in range(4):
        world.now += SECOND / 2
        machine.work()
    world.now -= SECOND
    count("clock jumps")
    for _ in range(4):
        world.now += SECOND / 2
        machine.work()
    events = world.check()
    delivered = Counter(e["id"] for e in events if e["type"] == "delivery.delivered")
    assert sorted(delivered.values()) == [1, 1, 3]


def test_the_rarest_day(worlds: Callable[..., World]) -> None:
    """`0 9 29 2 *` fires on each 29 February and on no other day, wherever the clock leaps; one
    that falls into a leap and is past its grace is skipped."""
    world = worlds("2026-11-20T12:00")
    machine = world.machine()
    id_ = machine.register("a", cron="0 9 29 2 *")

    def next_run() -> str:
        return str(machine.store.read().state.schedules[id_].next_run)[:16]

    assert next_run() == "2028-02-29T09:00"
    for day in ("2027-02-28T23:00", "2027-03-01T12:00", "2028-02-28T23:00"):
        world.now = utc(day)
        machine.work()
        assert not world.sends()
    world.now = utc("2028-03-01T08:59")  # within its grace of 24 h
    machine.work()
    assert len(world.sends()) == 1
    assert next_run() == "2032-02-29T09:00"
    world.now = utc("2040-02-29T09:00")
    machine.work()
    assert next_run() == "2044-02-29T09:00"
    events = world.check()
    (skip,) = [event["data"] for event in events if event["type"] == "delivery.skipped"]
    assert (skip["slot"][:10], skip["last"][:10], skip["slots"]) == ("2032-02-29", "2036-02-29", 2)
    world.now = utc("2096-03-01T12:00")
    machine.work()
    assert next_run() == "2104-02-29T09:00"
    world.check()


@pytest.mark.parametrize("now", ["1970-01-01T00:00", "1970-01-01T00:00:00.000001", "9999-12-20"])
def test_clocks_at_the_ends_of_time(worlds: Callable[..., World], now: str) -> None:
    """P2: a clock without a battery (1970), and one near the end of the calendar: it works, and
    goes on when the clock is set right, or as right as a log lets it that has seen the future."""
    world = worlds(now)
    machine = world.machine()
    machine.register("a", every="1h")
    machine.register("b", cron="30 0,1 * * *", timezone="Europe/London")
    world.now += HOUR + SECOND
    machine.work()
    world.now = utc("2026-11-20T12:00")
    count("clock jumps")
    machine.register("c", every="1h")
    world.now += HOUR
    machine.work()
    world.check()
    assert len(world.sends()) == (5 if now < "2026" else 3)


@pytest.mark.parametrize("now", ["9999-12-31T22:00", "9999-12-31T23:59:59"])
@pytest.mark.parametrize("fault", [None, "server_error"])
@pytest.mark.parametrize("when", [["--every", "1h"], ["--time", "9999-12-31T23:30"],
    ["--time", "in 1h"], ["--cron", "* * * * *"], ["--time", "23:45"]])  # fmt: skip
def test_the_last_day_of_the_calendar(
    var: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    now: str,
    when: list[str],
    fault: str | None,
) -> None:
    """P7: on the last day that a datetime has, a command works or gives a clear error."""
    clock.set(now)
    with Sandbox(["echo"]) as sandbox:
        if fault is not None:
            monkeypatch.setenv("PROMPTYOSELF_RECONCILE_GRACE", "0.1")
            sandbox.fault(fault, times=1)
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        asked = ("--agent-id", sandbox.agents[0], "--prompt", "p", *when)
        answer = call("register", *asked)
        if answer.code:
            assert answer.document["code"] in ("invalid_time", "never_fires", "past_time"), answer
            return
        clock.set("9999-12-31T23:59")
        call("execute").success()
        call("list").success()
        call("audit").success()
        assert set(sandbox.deliveries.values()) <= {1}
        check_chain(var / "schedules")


# --- a loop that doesn't trust its clock ----------------------------------------------------------


def test_a_leap_is_told_from_time_that_passes() -> None:
    """What a clock shows is followed, over corrections and a night's sleep; after a leap the time
    goes on from where it was, until the clock is back."""
    now, up = utc("2026-11-20T12:00"), 1000.0
    clock = TrustedClock(lambda: now, lambda: up)
    for passed, corrected in ((8 * HOUR, 0.0), (SECOND, 3000.0), (SECOND, -3000.0)):
        now += passed + timedelta(seconds=corrected)
        up += passed.total_seconds()
        assert (clock(), clock.leap) == (now, timedelta(0))
    right = now
    for leap in (timedelta(days=40), -2 * HOUR):
        now = right + leap
        assert (clock(), clock.leap) == (right, leap)
        now, up, right = now + SECOND, up + 1, right + SECOND
        assert (clock(), clock.leap) == (right, leap)
    now = right + HOUR / 2
    assert (clock(), clock.leap) == (now, timedelta(0))


@pytest.mark.parametrize("days", [40, -40])
def test_a_loop_whose_clock_leaps_claims_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    """P2: six seconds in which a loop's clock is weeks off silence no schedule: nothing is claimed,
    nothing is written of that time; stderr, /healthz and doctor say so, once; and it goes on by
    itself when the clock is back."""
    heartbeat, warned = Heartbeat(), list[str]()
    monkeypatch.setattr(place.store, "warn", warned.append)
    (id_,) = place.register(1, every="1h")
    with Here(place, heartbeat=heartbeat, interval=0.05, elapsed=time.monotonic) as here:
        place.ahead += timedelta(days=days)
        wait_for(lambda: here.error or heartbeat.clock)
        passes = heartbeat.passes
        wait_for(lambda: here.error or heartbeat.passes > passes + 3)
        assert "leapt" in heartbeat.clock
        monitor = Monitor(lambda: place.store, heartbeat, place.targets, place.now)
        (check,) = [check for check in monitor.health() if check.name == "clock"]
        assert (check.ok, check.code) == (False, "clock_distrusted")
        warning = held_loops(place.store, place.store.workers.living())
        assert "Nothing is claimed" in warning
        assert not place.letta.sends
        place.ahead -= timedelta(days=days)
        wait_for(lambda: here.error or not heartbeat.clock)
        assert not held_loops(place.store, place.store.workers.living())
    assert here.error is None
    assert [text for text in warned if "clock" in text.lower()] == [
        warning,
        "The clock is right again; deliveries go on.",
    ]
    written = place.store.read().position.ts
    assert abs(parse_utc(written) - datetime.now(UTC)) < HOUR
    state = place.store.read().state
    assert parse_utc(str(state.schedules[id_].next_run)) < datetime.now(UTC) + 2 * HOUR


def test_a_loop_far_behind_its_log_waits_to_be_told(place: Place) -> None:
    """P2: a loop that finds the log weeks ahead claims nothing, unless it is told that its clock is
    right; then it does."""
    heartbeat = Heartbeat()
    place.ahead = timedelta(days=40)
    place.register(1, every="1h")
    place.ahead = timedelta(0)
    place.register(1, prompt_of="now")
    with Here(place, heartbeat=heartbeat, interval=0.05, elapsed=time.monotonic) as here:
        wait_for(lambda: here.error or "behind" in heartbeat.clock)
        time.sleep(1.2)
        assert not place.letta.sends
    with Here(place, accept_clock=True, interval=0.05) as here:
        wait_for(lambda: here.error or place.letta.sends)
    assert here.error is None


# --- clocks that differ ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ahead", "drift"), [((1, 0), 0), ((-1, 0), 0), ((0, 1), 0), ((0, 0), 0.1), ((0, 0), -0.1)]
)
def test_machines_whose_clocks_differ(
    worlds: Callable[..., World],
    ahead: tuple[int, int],
    drift: float,
) -> None:
    """P2: two loops on one log, their clocks an hour apart or drifting apart, that die in the
    middle of deliveries and meet a Letta that loses answers: each slot has one outcome, none is
    sent twice, or before its time by the clock of its sender; and all ends."""
    story = chance(f"clocks {ahead} {drift}")
    now = utc("2026-11-30T20:00")
    world = worlds("2026-11-30T20:00")
    with Sandbox(["a", "b", "c", "d"], clock=lambda: world.now, seed=1) as sandbox:
        world.sandbox = sandbox
        pair = [world.machine(hours * HOUR) for hours in ahead]
        pair[0].drift, pair[1].drift = drift, -drift
        for kind in ("server_error", "lost_reply", "garbage", "rate_limit"):
            sandbox.fault(kind, probability=0.1)
        sandbox.fault("server_error", probability=0.1, stored=True)
        a, b, c, d = sandbox.agents
        pair[0].register(a, every="10m")
        pair[1].register(b, cron="*/15 * * * *", jitter="5m")
        pair[0].register(c, every="20m", misfire="all", grace="1h")
        ids = [pair[1].register(d, str(hours), time=f"in {hours}h") for hours in (1, 2, 3)]
        for _ in range(rounds(8)):
            world.now += timedelta(minutes=story.randint(1, 40))
            machine = story.choice(pair)
            if story.random() < 0.4:
                machine.loop().tick(machine.now())
                machine.loop().wait(story.random() * 0.1)
                machine.die()
                machine = story.choice(pair)
            machine.work()
        sandbox.clear_faults()
        latest = world.latest
        for machine in pair:  # somebody has set the clocks
            machine.drift, machine.ahead = 0.0, timedelta(0)
        world.now = max(latest, now + timedelta(hours=4))
        for _ in range(30):
            world.now += timedelta(minutes=1)
            for machine in pair:
                machine.work()
        state = pair[0].store.read().state
        assert not state.open
        assert not list(due(state, format_utc(world.now - timedelta(minutes=5))))
        assert all(state.schedules[id_].status == "completed" for id_ in ids)
        world.check()
        world.close()


@pytest.mark.parametrize("hours", [1, -1])
def test_nothing_is_sent_before_its_time(worlds: Callable[..., World], hours: int) -> None:
    """P2: of two loops whose clocks differ, each begins a slot when its own clock has come to it,
    and not before; the first of them does."""
    world = worlds("2026-11-30T22:10")
    pair = [world.machine(), world.machine(hours * HOUR)]
    pair[0].register("agent-a", every="30m", jitter="10m")
    begun: list[tuple[datetime, datetime]] = []
    for machine in pair:
        tick = machine.loop().tick

        def ticked(now: datetime, tick: Any = tick) -> Any:
            before = set(world.fake.sends)
            report = tick(now)
            for id_, slot in _claimed(world) - {tuple(x) for x in before}:
                begun.append((jittered(id_, parse_utc(slot), 600), now))
            return report

        machine.loop().tick = ticked  # type: ignore[method-assign]
    for _ in range(60):
        world.now += timedelta(minutes=2)
        for machine in pair:
            machine.work()
    assert len(begun) >= 4
    assert all(ready <= now for ready, now in begun)
    world.check()


def _claimed(world: World) -> set[tuple[str, str]]:
    state = world.machines[0].store.read().state
    return {(slot.id, slot.slot) for slot in state.open.values() if slot.worker}


def test_processes_whose_clocks_differ(tmp_path: Path) -> None:
    """P2, P5: processes an hour apart that register and deliver on one log at the same instant,
    over a month's end that comes to them an hour apart."""
    start = utc("2026-11-30T22:55")
    began = time.monotonic()
    sandbox = Sandbox(["a", "b"], clock=lambda: start + timedelta(seconds=time.monotonic() - began))
    var = tmp_path / "var"
    with sandbox:
        environ = {
            **clean_environ(var),
            "LETTA_BASE_URL": sandbox.url,
            "PROMPTYOSELF_RECONCILE_GRACE": "1",
        }
        with Actor(environ) as early, Actor(environ) as late:
            for turn in range(max(8, rounds(8))):
                ahead = start + timedelta(minutes=20 * turn) - datetime.now(UTC)
                early.set_ahead(ahead)
                late.set_ahead(ahead + HOUR)
                for actor, agent in zip((early, late), sandbox.agents, strict=True):
                    asked = ("--agent-id", agent, "--prompt", f"p{turn}", "--every", "30m")
                    actor.begin("register", *asked)
                for actor in (early, late):
                    actor.end().success()
                for actor in (early, late):
                    actor.begin("execute", "--deadline", "30")
                for actor in (early, late):
                    actor.end().success()
            late.call("audit").success()
            late.call("verify").success()
    events = check_chain(var / "schedules")
    check_deliveries(SimpleNamespace(**event) for event in events)
    assert len(list((var / "schedules").glob("*.ndjson.gz"))) >= 2
    assert set(sandbox.deliveries.values()) == {1}
    assert len(sandbox.deliveries) >= 6


# --- any story ------------------------------------------------------------------------------------

MORE_WHENS = st.sampled_from(
    [
        {"every": "25m", "jitter": "20m", "grace": "1h"},
        {"cron": "*/10 * * * *", "misfire": "all", "grace": "40m", "jitter": "5m"},
        {"cron": "0 0 1 * *", "misfire": "skip"},
        {"cron": "*/30 23,0 * * *", "timezone": "Africa/Casablanca"},
        {"time": "in 3h", "grace": "30m"},
        {"every": "1h", "until": "2026-12-01T06:00Z"},
        {"every": "20m", "start_at": "2026-11-30T23:30Z", "max_repetitions": 4},
    ]
)
MACHINES = st.integers(0, 1)
NUMBERS = st.integers(0, 9)
ANY_WHEN = st.one_of(WHENS, MORE_WHENS)
STEPS = st.one_of(
    st.tuples(st.just("register"), MACHINES, st.tuples(AGENTS, ANY_WHEN)),
    st.tuples(st.just("wait"), MACHINES, st.integers(0, 7200)),
    st.tuples(st.just("wait"), MACHINES, st.integers(0, 3 * 86400)),
    st.tuples(st.just("end of the month"), MACHINES, st.integers(-2, 2)),
    st.tuples(st.just("jump"), MACHINES, st.integers(-6 * 3600, 6 * 3600)),
    st.tuples(st.just("look at the clock"), MACHINES, st.none()),
    st.tuples(st.just("pass"), MACHINES, st.none()),
    st.tuples(st.just("pass"), MACHINES, st.none()),
    st.tuples(st.just("land"), MACHINES, OUTCOMES),
    st.tuples(st.just("land"), MACHINES, OUTCOMES),
    st.tuples(st.just("arrive and die"), MACHINES, st.none()),
    st.tuples(st.sampled_from(["die", "stop", "seal", "lose the index"]), MACHINES, st.none()),
    st.tuples(
        st.sampled_from(["pause", "resume", "cancel", "trigger", "revive"]), MACHINES, NUMBERS
    ),
    st.tuples(st.just("modify"), MACHINES, st.tuples(NUMBERS, ANY_WHEN)),
)
NO_TRACE = Abandoned("no_trace", "No trace of it.", at_once=True)


class Side(Machine):
    """A machine in a story: its clock, and a loop that comes and goes."""

    def __init__(self, world: World) -> None:
        super().__init__(world, timedelta(0))
        self.noted: datetime | None = None
        self.flying: list[Claim] = []

    def start(self, now: datetime) -> None:
        if self.worker:
            return
        self.begin()
        record = WorkerStarted(self.worker, 1, "here", "promptyoself 0", "loop", 32)
        self.store.transact(now, lambda _: ([self.store.draft(record, None)], None))


class Story:
    """Two machines, each with a clock that runs both ways, one log in files, and what arrived."""

    def __init__(self, var: Path) -> None:
        self.world = World(var, utc("2026-11-30T18:00"))
        self.sides = [Side(self.world), Side(self.world)]
        self.world.machines += self.sides
        self.requests: list[Request] = []
        self.ids: list[str] = []
        self.arrived = self.world.fake.sends

    def step(self, what: str, number: int, detail: Any) -> None:
        side = self.sides[number]
        if what == "wait":
            self.world.now += timedelta(seconds=detail)
        elif what == "end of the month":
            following = (self.world.now.replace(day=1) + timedelta(days=32)).replace(
                day=1, hour=0, minute=0, second=0, microsecond=0
            )
            self.world.now = max(self.world.now, following + detail * SECOND)
        elif what == "jump":
            side.ahead += timedelta(seconds=detail)
            count("clock jumps")
        elif what == "look at the clock":
            side.noted = side.now()
        elif what == "register":
            agent, when = detail
            request = Request(agent_id=f"agent-{agent}", prompt=f"{len(self.requests)}", **when)
            with suppress(PromptyoselfError):
                self.ids.append(str(register(side.store, request, self.clock(side))["id"]))
                self.requests.append(request)
        elif what == "pass":
            self.pass_(side)
        elif what == "land":
            self.land(side, detail)
        elif what in ("arrive and die", "die", "stop"):
            self.end(side, what)
        elif what == "seal":
            seal(side.store, self.clock(side))
        elif what == "lose the index":
            (self.world.var / "schedules" / "index.json").unlink(missing_ok=True)
        elif self.ids:
            change(side.store, what, detail, self.ids, self.requests, self.clock(side))

    def clock(self, side: Side) -> datetime:
        """What it shows; or showed when it was last looked at, and the process was then held up."""
        now, side.noted = side.noted or side.now(), None
        return now

    def pass_(self, side: Side) -> None:
        now, store = self.clock(side), side.store
        side.start(now)
        state = store.read().state
        claimed = {slot.worker for slot in state.open.values() if slot.worker}
        dead = {name for name in claimed if not store.workers.is_alive(name)}
        known = {(flight.id, flight.slot, flight.attempt) for flight in side.flying}
        for orphan in orphans(store.read().state, dead, now):
            if (orphan.id, orphan.slot, orphan.attempt) not in known:
                side.flying.append(orphan)

        def decide(state: State) -> tuple[Any, list[Claim]]:
            decision = claim(state, now, side.worker, store.settings.caps, 32)
            assert not decision.broken
            return [store.draft(*pair) for pair in decision.records], decision.claims

        for flight in store.transact(now, decide):
            assert flight.kind == "trigger" or parse_utc(flight.slot) <= now, "before its time"
            side.flying.append(flight)

    def land(self, side: Side, outcome: Outcome) -> None:
        """What became of the oldest delivery under way, found out as a real one would."""
        if not side.flying:
            return
        flight = side.flying.pop(0)
        if (flight.in_doubt or flight.attempt > 1) and self.arrived[flight.otid]:
            outcome = Delivered("history")
        elif flight.in_doubt:
            outcome = NO_TRACE
        elif isinstance(outcome, Delivered):
            self.arrived[flight.otid] += 1
        now, store = self.clock(side), side.store

        def decide(state: State) -> tuple[Any, None]:
            records, _ = settle_claim(state, flight, side.worker, outcome, now)
            return [store.draft(record, flight.id) for record in records], None

        store.transact(now, decide)

    def end(self, side: Side, how: str) -> None:
        if how == "arrive and die":
            for flight in side.flying:
                if not flight.in_doubt and not (flight.attempt > 1 and self.arrived[flight.otid]):
                    self.arrived[flight.otid] += 1
        elif how == "stop" and side.worker:
            record = WorkerStopped(side.worker, "SIGTERM")
            store = side.store
            store.transact(self.clock(side), lambda _: ([store.draft(record, None)], None))
        side.die()
        side.flying.clear()

    def settle(self) -> None:
        """Set the clocks right, and let everything be settled."""
        for side in self.sides:
            side.noted, side.ahead = None, timedelta(0)
        self.world.now = self.world.latest
        for _ in range(400):
            for side in self.sides:
                self.pass_(side)
                while side.flying:
                    self.land(side, Delivered("run"))
            state = self.sides[0].store.read().state
            waiting = [slot for slot in state.open.values() if slot.retry_at]
            if not waiting and not _ready(state, self.world.now):
                return
            self.world.now += timedelta(minutes=1)
        raise AssertionError("it never comes to rest")

    def check(self) -> None:
        events = self.world.check()
        assert verify(self.sides[0].store)["events"] == len(events)


def _ready(state: State, now: datetime) -> bool:
    """Whether anything could be claimed by now, its jitter over."""
    return any(
        key or jittered(id_, parse_utc(instant), state.schedules[id_].jitter) <= now
        for instant, id_, key in due(state, format_utc(now))
    )


@settings(max_examples=rounds(50), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(STEPS, max_size=40))
def test_the_audit_of_any_story_on_two_machines_is_clean(steps: list[tuple[str, int, Any]]) -> None:
    """P2: whatever is asked on two machines whose clocks jump, also between a look at the clock and
    the append, while months end and are sealed and loops die: each slot has its one outcome, and
    what arrived did so once."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        story = Story(Path(folder) / "var")
        try:
            for step in steps:
                story.step(*step)
            story.settle()
            story.check()
        finally:
            story.world.close()


# --- every zone -----------------------------------------------------------------------------------

AROUND = timedelta(days=2)


def expressions_at(instant: datetime, before: timedelta, after: timedelta) -> list[str]:
    """Such as the change could make fire wrong: in the gap or overlap, at its ends, across it."""
    walls = sorted(
        ((instant + before).replace(tzinfo=None), (instant + after).replace(tzinfo=None))
    )
    low, high = walls
    middle = low + (high - low) / 2
    weekday = low.isoweekday() % 7
    return [
        f"{middle.minute} {middle.hour} * * *",
        f"{low.minute} {low.hour} * * *",
        f"{high.minute} {high.hour} * * *",
        f"{middle.minute} {middle.hour} {middle.day} * *",
        f"0,30 {min(low.hour, high.hour)},{max(low.hour, high.hour)} * * {weekday}",
        "*/30 * * * *",
        "0 */2 * * *",
        f"{middle.minute} * * * *",
        f"*/20 {low.hour} * * {weekday}",
    ]


def by_cronsim(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    fires = CronSim(expression, start.astimezone(ZoneInfo(zone)))
    return list(takewhile(lambda fire: fire <= end, (fire.astimezone(UTC) for fire in fires)))


def by_us(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    trigger, fires = Trigger("cron", expression, zone), []
    fire = next_fire_time(trigger, start)
    while fire is not None and fire <= end:
        fires.append(fire)
        fire = next_fire_time(trigger, fire)
    assert fires == list(slots(trigger, start, end))
    return fires


@pytest.mark.timeout(300)
def test_every_change_of_clocks_in_every_zone() -> None:
    """P2: around each change of the clocks from 2026 to 2036, in every zone there is, jobs of each
    kind fire when cronsim says so; where the two differ, when a walk by the minute does.

    cronsim isn't asked where a job follows the clock and the change touches midnight: it may never
    return there.
    """
    zones, story = sorted(available_timezones()), chance("zones")
    if SCALE < 20:
        zones = story.sample(zones, min(len(zones), rounds(60)))
    seen: set[Any] = set()
    differing = 0
    for zone in zones:
        changed = changes(zone, 2026, 2037)
        if tuple(changed) in seen:
            continue
        seen.add(tuple(changed))
        chosen = changed if SCALE >= 20 else story.sample(changed, min(len(changed), rounds(4)))
        for instant, before, after in chosen:
            start, end = instant - AROUND, instant + AROUND
            walls = [(instant + offset).replace(tzinfo=None) for offset in (before, after)]
            near = timedelta(minutes=1)
            touches = (min(walls) - near).date() != (max(walls) + near).date()
            for expression in expressions_at(instant, before, after):
                ours = by_us(expression, zone, start, end)
                if is_fixed(expression) or not touches:
                    if ours == by_cronsim(expression, zone, start, end):
                        continue
                    differing += 1
                expected = walk(expression, zone, start, 2 * AROUND // HOUR)
                assert ours == expected, f"{expression} in {zone} around {instant}"
            count("changes of clocks checked")
    assert seen
    print(f"cronsim differed {differing} times, and was wrong")
