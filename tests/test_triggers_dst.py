"""Cron expressions over changes of clocks: cronsim's answers, and the cases worth naming.

cronsim is an independent implementation of Debian's rules. It is not believed where it breaks them
itself, which is where a job that follows the clock meets a change that it steps over in whole
hours; there a plain walk, minute by minute, is the judge instead.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptyoself.errors import PromptyoselfError
from promptyoself.triggers import (
    Trigger,
    count_slots,
    in_zone,
    last_slot,
    next_fire_time,
    parse_cron,
    slots,
)

END = datetime(2100, 1, 1, tzinfo=UTC)
ZONES = [
    "UTC",
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",  # half an hour
    "Asia/Kathmandu",  # none, and 45 minutes off the hour
    "Europe/Dublin",  # winter time is the exception
    "Africa/Casablanca",  # back for Ramadan
    "Antarctica/Troll",  # two hours
    "America/Sao_Paulo",  # at midnight, until 2019
    "Asia/Beirut",  # at midnight
    "America/St_Johns",  # at one minute past midnight, until 2011
    "America/Havana",  # midnight there, one o'clock back
    "Pacific/Apia",  # skipped 30 December 2011
    "America/Nuuk",  # at 22:00 and 23:00
    "Asia/Gaza",
]


@lru_cache
def changes(zone: str) -> list[datetime]:
    """Every change of the zone's offset between 2000 and 2037, to the minute."""
    info, found = ZoneInfo(zone), []
    at = datetime(2000, 1, 1, tzinfo=UTC)
    while at.year < 2038:
        after = at + timedelta(days=1)
        if at.astimezone(info).utcoffset() != after.astimezone(info).utcoffset():
            low, high = at, after
            while high - low > timedelta(minutes=1):
                middle = low + timedelta(minutes=(high - low) // timedelta(minutes=1) // 2)
                same = middle.astimezone(info).utcoffset() == low.astimezone(info).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(high)
        at = after
    return found


def numbers(low: int, high: int, starred: bool) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    ordered = st.tuples(value, value).map(sorted)
    plain = st.one_of(
        value.map(str),
        ordered.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        st.tuples(ordered, st.integers(1, 7)).map(lambda x: f"{x[0][0]}-{x[0][1]}/{x[1]}"),
    )
    listed = st.lists(plain, min_size=1, max_size=3).map(",".join)
    stars = st.one_of(st.just("*"), st.integers(1, min(high, 20)).map(lambda step: f"*/{step}"))
    return st.one_of(stars, listed) if starred else listed


DAYS = st.one_of(st.just("*"), st.just("*"), numbers(1, 31, starred=True))
MONTHS = st.one_of(st.just("*"), st.just("*"), numbers(1, 12, True), st.just("MAR-NOV,jan"))
WEEKDAYS = st.one_of(
    st.just("*"),
    st.just("*"),
    st.integers(0, 7).map(str),
    st.sampled_from(["MON-FRI", "sun", "SAT,SUN", "0-3", "5-7", "*/2", "mon,3,5", "*/7"]),
)
MINUTES = st.one_of(st.sampled_from(["0", "30", "0,30", "15,45", "59"]), numbers(0, 59, True))
HOURS = st.one_of(st.sampled_from(["1", "2", "0", "23", "0-3", "*/2", "3"]), numbers(0, 23, True))
EXPRESSIONS = st.tuples(MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS).map(" ".join)


@st.composite
def starts(draw: st.DrawFn, zone: str) -> datetime:
    """Any time between 2000 and 2037, every other one within three days before a change."""
    if changes(zone) and draw(st.booleans()):
        near = draw(st.sampled_from(changes(zone)))
        return near - timedelta(minutes=draw(st.integers(-180, 3 * 1440)))
    minutes = draw(st.integers(0, 37 * 365 * 1440))
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


def fires(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    return list(islice(slots(Trigger("cron", parse_cron(expression), zone), after, END), count))


def is_fixed(expression: str) -> bool:
    minute, hour = expression.split()[:2]
    return not minute.startswith("*") and not hour.startswith("*")


def local(trigger: Trigger, after: str, count: int) -> list[str]:
    """The next fires after a local or UTC time, as local times with their offsets."""
    start = datetime.fromisoformat(after)
    if start.tzinfo is None:
        start = start.replace(tzinfo=ZoneInfo(trigger.zone))
    return [in_zone(fire, trigger.zone) for fire in islice(slots(trigger, start, END), count)]


@lru_cache(maxsize=4)
def walls(zone: str, start: datetime, hours: int) -> list[tuple[datetime, datetime]]:
    """Each minute of a stretch of real time, with what the clock on the wall shows."""
    info = ZoneInfo(zone)
    minutes = (start + timedelta(minutes=m) for m in range(1, hours * 60 + 1))
    return [(at, at.astimezone(info).replace(tzinfo=None)) for at in minutes]


def walk(expression: str, zone: str, start: datetime, hours: int) -> list[datetime]:
    """Debian's rules said again without any arithmetic on offsets: look at each minute's clock.

    A job that follows the clock fires where the clock shows it. A fixed-time job fires where the
    clock first comes to a time, or first passes it by jumping.
    """
    before = timedelta(days=2)  # what the clock has shown before `start` counts too
    named = CronSim(expression, datetime(2000, 1, 1))
    found, furthest = [], None
    for at, wall in walls(zone, start - before, hours + 48):
        if is_fixed(expression):
            passed = [wall] if furthest is None else []
            while furthest is not None and furthest < wall:
                furthest += timedelta(minutes=1)
                passed.append(furthest)
            furthest = wall if furthest is None else furthest
        else:
            passed = [wall]
        if at > start and any(
            w.minute in named.minutes
            and w.hour in named.hours
            and w.month in named.months
            and named.match_day(w.date())
            for w in passed
        ):
            found.append(at)
    return found


@settings(max_examples=600, deadline=None)
@given(data=st.data(), expression=EXPRESSIONS, zone=st.sampled_from(ZONES))
def test_fixed_times_agree_with_cronsim(data: st.DataObject, expression: str, zone: str) -> None:
    """A fixed-time job fires when cronsim says so, near changes of clocks and far from them."""
    assume(is_fixed(expression))
    try:
        parse_cron(expression)
    except PromptyoselfError as error:
        assert error.code == "cron_never_fires"  # noqa: PT017
        return
    start = data.draw(starts(zone))
    here = start.astimezone(ZoneInfo(zone))
    assume(not here.fold)  # cronsim doesn't know which pass it is in, and can answer with the past
    oracle = CronSim(expression, here)
    assert fires(expression, zone, start, 12) == [
        at.astimezone(UTC) for at in islice(oracle, 12) if at.astimezone(UTC) < END
    ]


@settings(max_examples=500, deadline=None)
@given(data=st.data(), expression=EXPRESSIONS, zone=st.sampled_from(["UTC", "Asia/Kathmandu"]))
def test_without_changes_every_job_agrees_with_cronsim(
    data: st.DataObject, expression: str, zone: str
) -> None:
    """Where clocks never change, all expressions fire when cronsim says so."""
    try:
        parse_cron(expression)
    except PromptyoselfError as error:
        assert error.code == "cron_never_fires"  # noqa: PT017
        return
    start = data.draw(starts(zone))
    oracle = CronSim(expression, start.astimezone(ZoneInfo(zone)))
    expected = [at.astimezone(UTC) for at in islice(oracle, 15)]
    assert fires(expression, zone, start, 15) == [at for at in expected if at < END]
