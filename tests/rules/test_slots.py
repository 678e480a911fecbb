"""P2, the pure part: which slots are due, which of them fires, and what becomes of the others."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import HOUR, NOON, schedule
from world import World, check_slots

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.ledger import Envelope
from promptyoself.rules.claim import Claim
from promptyoself.rules.due import due
from promptyoself.rules.outcome import Abandoned, Delivered, Failed
from promptyoself.rules.retry import retry_delay
from promptyoself.rules.slots import (
    MISFIRE_TOLERANCE,
    DueSlots,
    due_slots,
    missed_slots,
    next_wake,
    schedule_trigger,
    skip_event,
)
from promptyoself.rules.triggers import slots
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY, OpenSlot, Schedule, State, schedule_table


def told(made: DueSlots) -> tuple[list[tuple[str, str, int, str]], str | None, str | None]:
    """A plan as hours and minutes."""

    def at(instant: datetime | None) -> str | None:
        return None if instant is None else f"{instant:%H:%M}"

    skipped = [(str(at(s.first)), str(at(s.last)), s.slots, s.why) for s in made.skipped]
    return skipped, at(made.fire), at(made.next_run)


@pytest.mark.parametrize(
    ("hours", "changes", "expected"),
    [
        (0.99, {}, ([], None, "13:00")),
        (1, {}, ([], "13:00", "14:00")),
        (1.99, {}, ([], "13:00", "14:00")),
        (2, {}, ([("13:00", "13:00", 1, "misfire")], "14:00", "15:00")),
        (5.5, {}, ([("13:00", "16:00", 4, "misfire")], "17:00", "18:00")),
        (1.02, {"misfire": "skip"}, ([], "13:00", "14:00")),
        (1.1, {"misfire": "skip"}, ([("13:00", "13:00", 1, "misfire")], None, "14:00")),
        (5.5, {"misfire": "skip"}, ([("13:00", "17:00", 5, "misfire")], None, "18:00")),
        (5, {"misfire": "skip"}, ([("13:00", "16:00", 4, "misfire")], "17:00", "18:00")),
        (5.5, {"misfire": "all"}, ([], "13:00", "14:00")),
        (5.5, {"misfire": "all", "grace": 7200},
         ([("13:00", "15:00", 3, "grace")], "16:00", "17:00")),
        (5.5, {"misfire": "all", "grace": 5400},
         ([("13:00", "15:00", 3, "grace")], "16:00", "17:00")),
        (5.5, {"misfire": "all", "grace": 60}, ([("13:00", "17:00", 5, "grace")], None, "18:00")),
        (5.5, {"grace": 1800}, ([("13:00", "16:00", 4, "misfire")], "17:00", "18:00")),
        (5.5, {"grace": 1799}, ([("13:00", "17:00", 5, "grace")], None, "18:00")),
        (
            5.5,
            {"settled_at": format_utc(NOON + 3.2 * HOUR)},
            ([("13:00", "15:00", 3, "overlap"),
              ("16:00", "16:00", 1, "misfire")], "17:00", "18:00"),
        ),
        (5.5, {"settled_at": format_utc(NOON)},
         ([("13:00", "16:00", 4, "misfire")], "17:00", "18:00")),
        (
            5.5,
            {"settled_at": format_utc(NOON + 5.4 * HOUR)},
            ([("13:00", "16:00", 4, "overlap")], "17:00", "18:00"),
        ),
        (
            5.5,
            {"until": format_utc(NOON + 3 * HOUR)},
            ([("13:00", "14:00", 2, "misfire")], "15:00", None),
        ),
        (
            5.5,
            {"until": format_utc(NOON + 3 * HOUR), "misfire": "skip"},
            ([("13:00", "15:00", 3, "misfire")], None, None),
        ),
        (5.5, {"next_run": None}, ([], None, None)),
    ],
)  # fmt: skip
def test_a_plan_decides_about_every_slot_that_is_due(
    hours: float, changes: dict[str, Any], expected: object
) -> None:
    """P2: coalesce fires the latest, skip only one that is on time, all the oldest within the
    grace; every other slot is skipped, with the reason why."""
    assert told(due_slots(schedule(**changes), NOON + hours * HOUR)) == expected


def test_all_catches_up_one_by_one() -> None:
    """P2: with misfire=all every missed slot fires, in order."""
    each, fired = schedule(misfire="all"), []
    while (made := due_slots(each, NOON + 4.5 * HOUR)).fire is not None:
        fired.append(made.fire.hour)
        assert made.next_run is not None
        each = each._replace(next_run=format_utc(made.next_run))
    assert fired == [13, 14, 15, 16]


@pytest.mark.parametrize("misfire", ["coalesce", "skip", "all"])
def test_jitter_delays_a_slot_and_no_more(misfire: str) -> None:
    """A slot with jitter waits for its own instant, then fires: being late by its jitter is no
    misfire, however long that is."""
    for number in range(20):
        each = schedule(id=f"sch_{number:08}", jitter=3000, misfire=misfire)
        ready = jittered(each.id, NOON + HOUR, 3000)
        assert NOON + HOUR <= ready < NOON + HOUR + timedelta(seconds=3000)
        assert told(due_slots(each, ready - timedelta(microseconds=1))) == ([], None, "13:00")
        assert told(due_slots(each, ready)) == ([], "13:00", "14:00")
        assert told(due_slots(each, ready + MISFIRE_TOLERANCE))[1] == "13:00"


def test_jitter_is_the_same_for_everyone() -> None:
    """Two loops agree when a slot is due, and slots differ."""
    assert jittered("a", NOON, 60) == jittered("a", NOON, 60)
    assert len({jittered("a", NOON + n * HOUR, 60) - n * HOUR for n in range(50)}) == 50
    assert jittered("a", NOON, None) == NOON == jittered("a", NOON, 0)


@pytest.mark.parametrize("misfire", ["coalesce", "skip", "all"])
def test_a_promised_slot_is_one_whatever_the_zone_data_say(misfire: str) -> None:
    """P2: a next_run that today's time zone data have elsewhere gets its outcome all the same."""
    moved = schedule(next_run=format_utc(NOON + 0.5 * HOUR), misfire=misfire)
    for hours in (0.5, 0.9, 5.5, 40):
        made = due_slots(moved, NOON + hours * HOUR)
        count = sum(skipped.slots for skipped in made.skipped) + (made.fire is not None)
        if misfire == "all" and hours < 24:
            assert (count, made.fire) == (1, NOON + 0.5 * HOUR)
        else:
            assert count >= 1
            first = made.skipped[0].first if made.skipped else made.fire
            assert first == NOON + 0.5 * HOUR
        assert made.next_run is not None
        assert made.next_run > NOON + 0.5 * HOUR


def test_what_passed_is_a_range() -> None:
    """The slots that came and went are named by their first, their last and their number."""
    assert missed_slots(schedule(), NOON + 0.9 * HOUR, "paused") == []
    assert missed_slots(schedule(next_run=None), NOON + 9 * HOUR, "paused") == []
    (skipped,) = missed_slots(schedule(), NOON + 3.5 * HOUR, "paused")
    assert skipped == (NOON + HOUR, NOON + 3 * HOUR, 3, "misfire")
    (skipped,) = missed_slots(schedule(status="paused"), NOON + 3.5 * HOUR, "paused")
    assert skipped == (NOON + HOUR, NOON + 3 * HOUR, 3, "paused")
    ranges = missed_slots(schedule(), NOON + 3 * HOUR + timedelta(seconds=60), "paused")
    assert ranges == [
        (NOON + HOUR, NOON + 2 * HOUR, 2, "misfire"),
        (NOON + 3 * HOUR, NOON + 3 * HOUR, 1, "paused"),
    ]
    record = skip_event(skipped, None)
    assert (record.slot, record.last, record.slots, record.why, record.next_run) == (
        "2026-11-20T13:00:00.000000Z", "2026-11-20T15:00:00.000000Z", 3, "paused", None,
    )  # fmt: skip


def test_the_loop_wakes_for_the_next_thing_that_can_be_claimed() -> None:
    """The first slot or retry ahead. What is due, paused, over or being delivered wakes nobody."""

    def with_slot(hours: float, worker: str | None = None) -> State:
        at = format_utc(NOON + hours * HOUR)
        slot = OpenSlot("sch_00000001", "agent", at, "trigger", 1, worker, retry_at=at)
        return of(later)._replace(open={"sch_00000001|" + at: slot})

    def of(*schedules: Schedule) -> State:
        return EMPTY._replace(schedules=schedule_table(schedules))

    later = schedule(id="sch_2", next_run=format_utc(NOON + 3 * HOUR))
    assert next_wake(EMPTY, NOON) is None
    assert next_wake(of(later, schedule()), NOON) == NOON + HOUR
    assert next_wake(of(later, schedule()), NOON + HOUR) == NOON + 3 * HOUR
    for status in ("paused", "cancelled", "failed", "completed"):
        assert next_wake(of(schedule(status=status)), NOON) is None
    assert next_wake(with_slot(2), NOON) == NOON + 2 * HOUR
    assert next_wake(with_slot(2, "w"), NOON) == NOON + 3 * HOUR
    assert next_wake(with_slot(-2), NOON) == NOON + 3 * HOUR
    spread = schedule(jitter=600)
    ready = jittered(spread.id, NOON + HOUR, 600)
    for now in (NOON, NOON + HOUR):
        assert next_wake(of(spread), now) == ready
    assert next_wake(of(spread), ready) is None


def test_retries_wait_longer_each_time() -> None:
    """5 s, doubled each time up to 10 minutes, give or take a fifth; a server's Retry-After
    prevails where it is longer, up to an hour; and the same slot always waits the same."""
    for attempt in range(1, 60):
        for otid in ("a", "b", "c"):
            delay = retry_delay(otid, attempt, None).total_seconds()
            middle = min(600.0, 5.0 * 2 ** (attempt - 1))
            assert 0.8 * middle <= delay <= min(600.0, 1.2 * middle)
            assert retry_delay(otid, attempt, None).total_seconds() == delay
    assert len({retry_delay(str(n), 1, None) for n in range(50)}) > 40
    assert retry_delay("a", 1, 90.0) == timedelta(seconds=90)
    assert retry_delay("a", 1, 1e9) == timedelta(hours=1)
    assert retry_delay("a", 9, 1.0) == retry_delay("a", 9, None)


# The property.


class Lifetime:
    """One schedule, a clock, a loop that runs now and then, and people who change their minds."""

    def __init__(self, request: Request) -> None:
        self.world: Any = World(min_interval=10)
        self.flying: list[Claim] = []
        self.eras: list[tuple[datetime, int, Schedule | None]] = []
        self.request = request
        self.id = register(self.world, request, self.world.now)["id"]
        self._note()

    def schedule(self) -> Schedule:
        schedule: Schedule = self.world.state.schedules[self.id]
        return schedule

    def _note(self) -> None:
        """From now on its slots are those of the trigger that it has, if it has one to come."""
        current = self.schedule()
        lives = current.next_run is not None
        self.eras.append((self.world.now, len(self.world.events), current if lives else None))

    def change(self, what: Callable[[], Any]) -> None:
        try:
            what()
        except PromptyoselfError:
            return  # refused, so nothing has changed
        self._note()

    def loop(self) -> None:
        self.flying += self.world.claim().claims

    def land(self, outcome: Any) -> None:
        if self.flying:
            self.world.settle(self.flying.pop(0), outcome)

    def drain(self) -> None:
        """Run the loop until nothing is due and nothing flies."""
        for _ in range(500):
            self.loop()
            while self.flying:
                self.land(Delivered("run"))
            world = self.world
            waiting = [slot.retry_at for slot in world.state.open.values() if slot.retry_at]
            if waiting:
                world.now = max([world.now, *(parse_utc(at) for at in waiting)])
            elif self._is_owed() or list(due(world.state, format_utc(world.now))):
                world.advance(seconds=30)  # its jitter, or the pause of a catch-up
            elif self.schedule().status in ("paused", "failed"):
                # What passes meanwhile is accounted for when that ends.
                self.change(lambda: cancel(self.world, self.id, None, self.world.now))
            else:
                return
        raise AssertionError("it never comes to rest")

    def _is_owed(self) -> bool:
        current = self.schedule()
        passed = current.next_run is not None and current.next_run <= format_utc(self.world.now)
        return passed and current.status == "active"

    def audit(self) -> None:
        """Every slot between the registration and now has exactly one outcome, in order."""
        outcomes: list[str] = []
        decided: list[datetime] = []
        opened: set[str] = set()
        triggers: set[str] = set()
        state = EMPTY
        events, now = self.world.events, self.world.now
        for event in events:
            data = event.data
            current = state.schedules.get(self.id)
            if event.type == "delivery.attempted" and data["attempt"] == 1:
                opened.add(data["slot"])
                if data["kind"] == "scheduled":
                    decided.append(parse_utc(data["slot"]))
            elif event.type in ("delivery.delivered", "delivery.failed"):
                opened.remove(data["slot"])
                outcomes.append(data["slot"])
            elif event.type == "delivery.skipped":
                if data["slot"] in opened or data["kind"] == "trigger":
                    opened.discard(data["slot"])
                    outcomes.append(data["slot"])
                else:
                    assert current is not None
                    first, last = parse_utc(data["slot"]), parse_utc(data["last"])
                    tick = timedelta(microseconds=1)
                    skipped = list(slots(schedule_trigger(current), first - tick, last))
                    assert (skipped[0], skipped[-1], len(skipped)) == (first, last, data["slots"])
                    outcomes += [format_utc(slot) for slot in skipped]
                    decided += skipped
            elif event.type == "schedule.triggered":
                triggers.add(data["slot"])
            state = fold(state, [event])
        assert state == self.world.state
        assert not self.world.warned
        assert not opened
        assert decided == sorted(set(decided))
        expected: set[str] = set()
        ends = [*self.eras[1:], (now, len(events), None)]
        for (since, first, era), (until, last, _) in zip(self.eras, ends, strict=True):
            if era is not None:
                expected |= {
                    format_utc(slot) for slot in slots(schedule_trigger(era), since, until)
                }
            for spent in _spent(events[first:last]):
                expected = {slot for slot in expected if slot <= spent}
        assert sorted(outcomes) == sorted(expected | triggers)
        # The audit, which doesn't list slots but steps from one to the next, says the same.
        audited = check_slots(events, now)
        assert audited.total() == len(outcomes)
        assert set(audited) <= {"delivered", "failed", "skipped"}


def _spent(events: Sequence[Envelope]) -> Iterator[str]:
    """The slot with which a schedule had fired as often as it may, among some events."""
    for event in events:
        begun = event.type == "delivery.attempted" and event.data["attempt"] == 1
        if begun and event.data["kind"] == "scheduled" and "next_run" not in event.data:
            yield event.data["slot"]


REQUESTS = st.fixed_dictionaries(
    {
        "agent_id": st.just("agent"),
        "prompt": st.just("Hello"),
        "misfire": st.sampled_from(["coalesce", "skip", "all"]),
        "grace": st.sampled_from(["1m", "1h", "24h"]),
        "jitter": st.sampled_from([None, None, "30s"]),
        "timezone": st.sampled_from(["UTC", "Europe/London", "Australia/Lord_Howe"]),
        "max_repetitions": st.sampled_from([None, None, 1, 3]),
        "daily_budget": st.sampled_from([None, None, 0, 2]),
        "tier": st.sampled_from([None, None, None, 2]),
    }
).map(lambda fields: Request(**fields))
WHENS = st.sampled_from(
    [
        {"every": "7m"},
        {"every": "1h"},
        {"every": "1d"},
        {"every": "45m", "start_at": "2026-11-20T14:10Z"},
        {"every": "45m", "until": "2026-11-20T18:00Z"},
        {"cron": "*/20 * * * *"},
        {"cron": "0 9,17 * * *"},
        {"cron": "30 1 * * SUN"},
        {"time": "2026-11-20T13:30Z"},
        {"time": "2026-11-21T08:00Z"},
    ]
)
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.integers(0, 3600)),
    st.tuples(st.just("wait"), st.integers(0, 3 * 86400)),
    st.tuples(st.just("loop"), st.just(0)),
    st.tuples(st.just("loop"), st.just(0)),
    st.tuples(
        st.just("land"),
        st.sampled_from(
            [
                Delivered("run"),
                Failed("agent_not_found", "x", permanent=True),
                Abandoned("busy", "x"),
            ]
        ),
    ),
    st.tuples(st.sampled_from(["pause", "resume", "cancel", "register", "trigger"]), st.just(0)),
    st.tuples(st.just("modify"), WHENS),
    st.tuples(st.just("modify"), st.just({"misfire": "all"})),
    st.tuples(st.just("modify"), st.just({"timezone": "Asia/Kathmandu"})),
)


@settings(max_examples=250, deadline=None)
@given(REQUESTS, WHENS, st.lists(STEPS, max_size=25))
def test_every_slot_is_accounted_for(
    request: Request, when: dict[str, str], steps: list[tuple[str, Any]]
) -> None:
    """P2: whatever is registered, however the clock goes and the loop runs, and if people pause,
    resume, modify, cancel, revive and trigger it meanwhile: every slot that has passed gets
    exactly one outcome, none twice, none missing, none out of order."""
    life = Lifetime(request._replace(**when))
    world = life.world
    changes: dict[str, Callable[..., Any]] = {
        "pause": pause, "resume": resume, "cancel": cancel, "trigger": run_now,
    }  # fmt: skip
    for what, detail in steps:
        if what == "wait":
            world.advance(seconds=detail)
        elif what == "loop":
            life.loop()
        elif what == "land":
            life.land(detail)
        elif what == "modify":
            life.change(partial(modify, world, life.id, Request(**detail), world.now))
        elif what == "register":
            life.change(partial(register, world, life.request, world.now))
        else:
            life.change(partial(changes[what], world, life.id, None, world.now))
    life.drain()
    life.audit()
