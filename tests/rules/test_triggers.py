"""Triggers (cron expressions: ``test_cron.py``; changes of clocks: ``test_triggers_dst.py``)."""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from timing import cpu_seconds
from typed_texts import INSTANTS, NOW, utc

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.core.times import format_duration
from promptyoself.rules.cron_expressions import parse_cron
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time, slots

EPOCH = datetime(1990, 1, 1, tzinfo=UTC)


def cron(expression: str, zone: str = "UTC", **bounds: datetime) -> Trigger:
    return Trigger("cron", parse_cron(expression), zone, **bounds)


def every(seconds: int, anchor: datetime = NOW, **bounds: datetime) -> Trigger:
    return Trigger("interval", format_duration(seconds), anchor=anchor, **bounds)


def once(instant: datetime, **bounds: datetime) -> Trigger:
    return Trigger("once", format_utc(instant), **bounds)


@st.composite
def triggers(draw: st.DrawFn) -> Trigger:
    bounds = {}
    if draw(st.booleans()):
        bounds["start_at"] = draw(INSTANTS)
    if draw(st.booleans()):
        bounds["until"] = draw(INSTANTS)
    expressions = ["0 9 * * MON-FRI", "*/20 */3 * * *", "0 0 1 */5 *", "30 1 13 * 5", "0 0 29 2 *"]
    expressions += ["0 9 L * *", "30 1 * * MON#5,L7", "*/30 22-2 28-3 * *", "0 0 13 NOV-FEB FRI#2"]
    return draw(
        st.one_of(
            INSTANTS.map(lambda at: once(at, **bounds)),
            st.builds(
                every, st.integers(1, 10**8), INSTANTS, **{k: st.just(v) for k, v in bounds.items()}
            ),
            st.builds(
                lambda e, z: cron(e, z, **bounds),
                st.sampled_from(expressions),
                st.sampled_from(["UTC", "Europe/London", "America/Havana"]),
            ),
        )
    )


@settings(max_examples=300, deadline=None)
@given(trigger=triggers(), after=INSTANTS, length=st.integers(0, 40 * 86400))
def test_the_answers_agree(trigger: Trigger, after: datetime, length: int) -> None:
    """Slots ascend strictly within their bounds; next, last and count say the same as they do."""
    until = after + timedelta(seconds=length)
    fires = list(islice(slots(trigger, after, until), 5000))
    assert fires == sorted(set(fires))
    assert all(after < at <= until and at.tzinfo is UTC for at in fires)
    assert all(trigger.start_at is None or at >= trigger.start_at for at in fires)
    assert all(trigger.until is None or at <= trigger.until for at in fires)
    following = next_fire_time(trigger, after)
    assert following is None or following > after
    if fires:
        assert following == fires[0]
    else:
        assert following is None or following > until
    if len(fires) < 5000:
        assert count_slots(trigger, after, until) == len(fires)
        assert last_slot(trigger, after, until) == (fires[-1] if fires else None)


@settings(max_examples=200, deadline=None)
@given(seconds=st.integers(1, 10**8), anchor=INSTANTS, after=INSTANTS)
def test_an_interval_never_drifts(seconds: int, anchor: datetime, after: datetime) -> None:
    """A fire is a whole number of lengths from the anchor, and at most one length away."""
    fire = next_fire_time(every(seconds, anchor), after)
    assert fire is not None
    assert (fire - anchor) % timedelta(seconds=seconds) == timedelta(0)
    assert fire >= anchor
    assert fire == anchor or fire - after <= timedelta(seconds=seconds)


def test_an_interval_first_fires_one_length_after_its_anchor() -> None:
    """Registered now, an interval waits its length; with a start, it fires at the start itself."""
    assert next_fire_time(every(300), NOW) == NOW + timedelta(seconds=300)
    start = NOW + timedelta(hours=1)
    assert next_fire_time(every(300, start, start_at=start), NOW) == start


def test_bounds_are_inclusive() -> None:
    """A fire exactly at ``start_at`` or ``until`` counts, for every kind."""
    at = utc("2026-11-21T09:00")
    for trigger in (cron("0 9 * * *", start_at=at, until=at), once(at, start_at=at, until=at)):
        assert list(slots(trigger, NOW, at + timedelta(days=3))) == [at]
    assert next_fire_time(cron("0 9 * * *", start_at=at), NOW - timedelta(days=9)) == at


def test_a_time_fires_once() -> None:
    """A once trigger fires at its instant and never after."""
    assert next_fire_time(once(NOW), NOW - timedelta(microseconds=1)) == NOW
    assert next_fire_time(once(NOW), NOW) is None


def test_an_interval_is_counted_without_walking_it() -> None:
    """Counting and finding the last of billions of slots is immediate."""
    until = NOW + timedelta(days=36500)
    counting, number = cpu_seconds(lambda: count_slots(every(1), NOW, until))
    assert number == 36500 * 86400
    finding, last = cpu_seconds(lambda: last_slot(every(1), NOW, until))
    assert last == until
    assert counting + finding < 0.5


@pytest.mark.parametrize("trigger", [cron("* * * * *"), cron("0 0 29 2 *", "Asia/Tokyo"), every(7)])
def test_the_end_of_the_calendar_is_no_crash(trigger: Trigger) -> None:
    """At the last instant there is, and at the first, every question has an answer."""
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    assert next_fire_time(trigger, last) is None
    for days in range(15):
        at = last - timedelta(days=days)
        slots_left = count_slots(trigger, at, last) > 0
        assert slots_left == (next_fire_time(trigger, at) is not None)
        assert slots_left == (last_slot(trigger, at, last) is not None)
    assert next_fire_time(trigger, first) is not None


NUMBERS = {"day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


@st.composite
def day_fields(draw: st.DrawFn) -> str:
    """The last three fields of an expression, as croniter reads them too."""
    fields = []
    for low, high in NUMBERS.values():
        numbers = st.lists(st.integers(low, high), min_size=1, max_size=4).map(
            lambda values: ",".join(map(str, values))
        )
        ranges = st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda ends: f"{min(ends)}-{max(ends)}" if ends[0] != ends[1] else str(ends[0])
        )
        steps = st.integers(1, high).map(lambda step: f"*/{step}")
        fields.append(draw(st.one_of(st.just("*"), numbers, ranges, steps)))
    return " ".join(fields)


DAY_FIELDS = day_fields() | st.one_of(
    st.tuples(
        st.sampled_from(["*", "L", "1,15,L", "29-L", "25-3", "31"]),
        st.sampled_from(["*", "2", "OCT-FEB", "10-3", "*/5"]),
        st.just("*"),
    ),
    st.tuples(
        st.just("*"),
        st.sampled_from(["*", "OCT-FEB", "1-6"]),
        st.sampled_from(["*", "MON#1", "FRI#5", "SAT-MON#2,L3", "L0,L6", "FRI-MON", "5-2"]),
    ),
).map(" ".join)
"""Also with signs of the month and ranges that wrap. Where both fields of the day are restricted,
croniter reads these otherwise."""


def is_refused(expression: str) -> bool:
    """Whether it names no day that exists, or what Debian's cron hasn't."""
    try:
        parse_cron(expression)
    except PromptyoselfError:
        return True
    return False


@settings(max_examples=700, deadline=None)
@given(days=DAY_FIELDS, start=INSTANTS, minute=st.integers(0, 59), hour=st.integers(0, 23))
def test_days_agree_with_croniter(days: str, start: datetime, minute: int, hour: int) -> None:
    """Which days match, forward and back, is what an independent implementation says."""
    expression = f"{minute} {hour} {days}"
    assume(not is_refused(expression))
    trigger, at = cron(expression), start.replace(second=0, microsecond=0)
    # The "bug" is Vixie cron's: where one of the two fields starts with `*`, both must match.
    oracle = croniter(expression, at, ret_type=datetime, implement_cron_bug=True)
    ahead = [oracle.get_next() for _ in range(12)]
    assert list(slots(trigger, at, ahead[-1])) == ahead
    assert count_slots(trigger, at, ahead[-1]) == 12
    oracle.set_current(at, force=True)
    for _ in range(12):
        previous = last_slot(trigger, EPOCH - timedelta(days=36500), at - timedelta(seconds=1))
        at = oracle.get_prev()
        assert previous == at


def test_what_never_fires_has_an_answer() -> None:
    """A day that no month has, which only a forged log can hold, comes to nothing at once."""
    never = Trigger("cron", "0 0 30 2 *")
    assert next_fire_time(never, NOW) is None
    assert last_slot(never, EPOCH, NOW) is None
    assert count_slots(never, EPOCH, NOW) == 0


def test_the_rarest_fires_are_found() -> None:
    """A Sunday the 29th of February comes up to 40 years later, and is found at once."""
    start = time.thread_time()
    assert next_fire_time(cron("0 0 29 2 */7"), utc("2088-02-29")) == utc("2128-02-29")
    assert last_slot(cron("0 0 29 2 */7"), NOW, utc("2128-02-28")) == utc("2088-02-29")
    assert time.thread_time() - start < 2


def test_a_year_of_minutes_is_quick() -> None:
    """Walking 525,600 slots takes a second or two, finding the last of them no time."""
    trigger, until = cron("* * * * *", "Europe/London"), utc("2027-01-01")
    start = time.thread_time()
    assert count_slots(trigger, utc("2026-01-01"), until) == 525_600
    assert time.thread_time() - start < 20
    took, last = cpu_seconds(lambda: last_slot(trigger, utc("2026-01-01"), until))
    assert last == until
    assert took < 0.2


def test_mistakes_of_the_caller_are_not_the_users() -> None:
    """An unknown kind, a missing anchor and a naive datetime raise ValueError."""
    for trigger in (Trigger("hourly", "1h", anchor=NOW), Trigger("interval", "1h")):  # type: ignore
        with pytest.raises(ValueError, match="kind of trigger"):
            next_fire_time(trigger, NOW)
    with pytest.raises(ValueError, match="without a zone"):
        next_fire_time(every(60), NOW.replace(tzinfo=None))


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Neither intervals nor durations load anything of others, or zones; nor does the spelling of a
    cron expression, which is all that a list needs."""
    script = """if True:
        import sys, datetime
        from promptyoself.core import times
        from promptyoself.rules import triggers as t
        now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        zone = times.parse_zone("UTC")
        times.parse_time("in 5m", zone, now), times.in_zone(now, zone)
        t.next_fire_time(t.Trigger("interval", "5m", zone, anchor=now), now)
        assert "promptyoself.rules.cron_expressions" not in sys.modules
        from promptyoself.rules import cron_expressions
        cron_expressions.canonical_cron("0 9 * * 1")
        assert not {"croniter", "zoneinfo", "dateutil", "calendar"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_zone_that_the_time_zone_data_fixes_still_computes() -> None:
    """A log may have EST from before it was refused: its schedules go on as they were."""
    trigger = Trigger("cron", "0 9 * * *", "EST")
    assert next_fire_time(trigger, utc("2026-07-01T00:00")) == utc("2026-07-01T14:00")
