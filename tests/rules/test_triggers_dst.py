"""Cron expressions over changes of clocks: cronsim's answers, and the cases worth naming.

cronsim is an independent implementation of Debian's rules. It is not believed where it breaks them
itself, which is where a job that follows the clock meets a change that it steps over in whole
hours; there a plain walk, minute by minute, is the judge instead.
"""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from clock_changes import changes, is_fixed, walk
from cronsim import CronSim
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import in_zone
from promptyoself.rules.cron_expressions import parse_cron
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time, slots

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


def changes_of(zone: str) -> list[datetime]:
    """When its clocks changed, between 2000 and 2037."""
    return [instant for instant, _, _ in changes(zone, 2000, 2038)]


def numbers(low: int, high: int, starred: bool) -> st.SearchStrategy[str]:
    value = st.integers(low, high)
    ordered = st.tuples(value, value).map(sorted)
    plain = st.one_of(
        value.map(str),
        ordered.map(lambda ends: f"{ends[0]}-{ends[1]}"),
        # not 5-5/2: cronsim reads that as 5/2, all the way up
        st.tuples(ordered.filter(lambda ends: ends[0] < ends[1]), st.integers(1, 7)).map(
            lambda x: f"{x[0][0]}-{x[0][1]}/{x[1]}"
        ),
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
    if changes_of(zone) and draw(st.booleans()):
        near = draw(st.sampled_from(changes_of(zone)))
        return near - timedelta(minutes=draw(st.integers(-180, 3 * 1440)))
    minutes = draw(st.integers(0, 37 * 365 * 1440))
    return datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)


def never_fires(expression: str) -> bool:
    """Whether it is refused, which may be only because no month has its days."""
    try:
        parse_cron(expression)
    except PromptyoselfError as error:
        assert error.code == "cron_never_fires"  # noqa: PT017
        return True
    return False


def fires(expression: str, zone: str, after: datetime, count: int) -> list[datetime]:
    return list(islice(slots(Trigger("cron", parse_cron(expression), zone), after, END), count))


def local(trigger: Trigger, after: str, count: int) -> list[str]:
    """The next fires after a local or UTC time, as local times with their offsets."""
    start = datetime.fromisoformat(after)
    if start.tzinfo is None:
        start = start.replace(tzinfo=ZoneInfo(trigger.zone))
    return [in_zone(fire, trigger.zone) for fire in islice(slots(trigger, start, END), count)]


@settings(max_examples=400, deadline=None)
@given(data=st.data(), expression=EXPRESSIONS, zone=st.sampled_from(ZONES))
def test_fixed_times_agree_with_cronsim(data: st.DataObject, expression: str, zone: str) -> None:
    """A fixed-time job fires when cronsim says so, near changes of clocks and far from them."""
    assume(is_fixed(expression) and not never_fires(expression))
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
    assume(not never_fires(expression))
    start = data.draw(starts(zone))
    oracle = CronSim(expression, start.astimezone(ZoneInfo(zone)))
    expected = [at.astimezone(UTC) for at in islice(oracle, 15)]
    assert fires(expression, zone, start, 15) == [at for at in expected if at < END]


# Not here: zones whose changes touch midnight (Casablanca's did until 2011). There cronsim adds a
# fire at the gap's end, loses the second pass of an overlap, or never returns (`1 */3 * * */2` from
# 2003-10-25T22:08Z in St_Johns).
NEVER_AT_MIDNIGHT = ["Europe/London", "America/New_York", "Europe/Dublin"]
NEVER_AT_MIDNIGHT += ["Antarctica/Troll", "Australia/Lord_Howe"]
CLOCK_MINUTES = st.sampled_from(["*", "*/5", "*/15", "0", "30", "0,30", "1", "15-45/10", "59"])
CLOCK_HOURS = st.sampled_from(["*", "*/2", "*/3", "*/5", "1", "2", "0", "0-3", "23", "22-23"])
CLOCK_DAYS = st.sampled_from(["*", "*", "*/2", "25-31"])
CLOCK_WEEKDAYS = st.sampled_from(["*", "*", "SUN", "*/2", "SAT"])
CLOCK = st.tuples(CLOCK_MINUTES, CLOCK_HOURS, CLOCK_DAYS, st.just("*"), CLOCK_WEEKDAYS)


@settings(max_examples=500, deadline=None)
@given(data=st.data(), fields=CLOCK, zone=st.sampled_from(NEVER_AT_MIDNIGHT))
def test_jobs_that_follow_the_clock_agree_with_cronsim(
    data: st.DataObject, fields: tuple[str, ...], zone: str
) -> None:
    """A job with a starred minute or hour fires when cronsim says so, in both passes of an overlap.

    Only in Lord Howe, and only where a change of half an hour lies in between or in the hour of the
    start, cronsim may be wrong (it goes back to the full hour, then on in steps of 60 minutes);
    there the walk decides.
    """
    expression = " ".join(fields)
    assume(not is_fixed(expression))
    at = data.draw(starts(zone))
    for fire in fires(expression, zone, at, 8):
        oracle = next(CronSim(expression, at.astimezone(ZoneInfo(zone)))).astimezone(UTC)
        if oracle != fire:
            assert zone == "Australia/Lord_Howe"
            hour_before = at - timedelta(hours=1)
            assert any(hour_before < change <= max(fire, oracle) for change in changes_of(zone))
            assert fire - at <= timedelta(days=16)
            assert walk(expression, zone, at, (fire - at) // timedelta(hours=1) + 1)[0] == fire
        at = fire


@settings(max_examples=150, deadline=None)
@given(data=st.data(), zone=st.sampled_from(sorted(set(ZONES) - {"UTC", "Asia/Kathmandu"})))
def test_near_changes_every_job_agrees_with_a_walk_by_the_minute(
    data: st.DataObject, zone: str
) -> None:
    """Around any change, midnight and half-hour ones too, fires are where wall clocks have them."""
    expression = data.draw(st.one_of(CLOCK.map(" ".join), EXPRESSIONS))
    assume(not never_fires(expression))
    near = data.draw(st.sampled_from(changes_of(zone)))
    start = near - timedelta(hours=data.draw(st.integers(-4, 26)))
    trigger, end = Trigger("cron", parse_cron(expression), zone), start + timedelta(hours=50)
    expected = walk(expression, zone, start, 50)
    assert list(slots(trigger, start, end)) == expected
    assert next_fire_time(trigger, start) == next(slots(trigger, start, END), None)
    middle = start + timedelta(minutes=data.draw(st.integers(0, 50 * 60)))
    until_then = [at for at in expected if at <= middle]
    assert last_slot(trigger, start, middle) == (until_then[-1] if until_then else None)
    assert count_slots(trigger, start, middle) == len(until_then)


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # spring: once, right after the gap
        ("30 1 * * *", "Europe/London", "2026-03-28T12:00", "2026-03-29T02:00:00+01:00"),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00", "2026-03-08T03:00:00-04:00"),
        ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T12:00", "2026-10-04T02:30:00+11:00"),
        ("0 2 * * *", "Antarctica/Troll", "2026-03-28T12:00", "2026-03-29T03:00:00+02:00"),
        ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00", "2018-11-04T01:00:00-02:00"),
        ("30 0 * * *", "Asia/Beirut", "2022-03-26T12:00", "2022-03-27T01:00:00+03:00"),
        ("0 9 30 12 *", "Pacific/Apia", "2011-12-29T12:00", "2011-12-31T00:00:00+14:00"),
        # autumn: the first pass
        ("30 1 * * *", "Europe/London", "2026-10-24T12:00", "2026-10-25T01:30:00+01:00"),
        ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T12:00", "2026-04-05T01:45:00+11:00"),
        ("30 1 * * *", "Europe/Dublin", "2026-10-24T12:00", "2026-10-25T01:30:00+01:00"),
        ("30 2 * * *", "Africa/Casablanca", "2026-02-14T12:00", "2026-02-15T02:30:00+01:00"),
        # none
        ("0 9 * * *", "Asia/Kathmandu", "2026-03-28T12:00", "2026-03-29T09:00:00+05:45"),
    ],
)
def test_a_fixed_time_runs_once(expression: str, zone: str, after: str, expected: str) -> None:
    """A fixed-time job in a gap runs right after it, in an overlap the first time, not twice."""
    first, second = local(Trigger("cron", expression, zone), after, 2)
    assert first == expected
    assert second[:10] > first[:10]


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        # Times in one gap, and one at the very moment it ends, make a single slot.
        ("0,30 2,3 * * *", "America/New_York", "2026-03-07T23:00",
         ["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00", "2026-03-09T02:00:00-04:00"]),
        # From within the second pass of an overlap, the next fixed time is tomorrow's.
        ("45 1 * * *", "Europe/London", "2026-10-25T01:15:00+00:00",
         ["2026-10-26T01:45:00+00:00"]),
        # In Toronto in 1919, where 23:30 was followed by 00:30, a job of 23:45 runs at 00:30.
        ("45 23 30 * *", "America/Toronto", "1919-03-29T12:00", ["1919-03-31T00:30:00-04:00"]),
        # A job that follows the clock skips the gap: no clock in New York showed 02:00.
        ("0 */2 * * *", "America/New_York", "2026-03-07T23:00",
         ["2026-03-08T00:00:00-05:00", "2026-03-08T04:00:00-04:00"]),
        # It fires in both passes, an hour apart.
        ("30 * * * *", "Europe/London", "2026-10-25T00:45",
         ["2026-10-25T01:30:00+01:00", "2026-10-25T01:30:00+00:00", "2026-10-25T02:30:00+00:00"]),
        # In Lord Howe cronsim passes over 02:00+10:30 on the autumn day.
        ("0 */2 * * *", "Australia/Lord_Howe", "2026-04-05T00:00",
         ["2026-04-05T02:00:00+10:30", "2026-04-05T04:00:00+10:30"]),
        # Apia had no 30 December 2011.
        ("0 */12 * * *", "Pacific/Apia", "2011-12-29T06:00",
         ["2011-12-29T12:00:00-10:00", "2011-12-31T00:00:00+14:00"]),
        # In St John's, where 00:01 was followed by 23:01, the evening before fires again, in order,
        ("*/30 23,0 * * *", "America/St_Johns", "2006-10-28T23:15",
         ["2006-10-28T23:30:00-02:30", "2006-10-29T00:00:00-02:30", "2006-10-28T23:30:00-03:30",
          "2006-10-29T00:00:00-03:30"]),
        # although the next day doesn't match, and also when asked after the first pass is over.
        ("*/30 23 28 * *", "America/St_Johns", "2006-10-28T23:15",
         ["2006-10-28T23:30:00-02:30", "2006-10-28T23:30:00-03:30"]),
        ("*/30 23 28 * *", "America/St_Johns", "2006-10-28T23:45:00-02:30",
         ["2006-10-28T23:30:00-03:30"]),
    ],
    ids=["one slot after a gap", "from the second pass", "midnight in a gap", "skipped gap",
         "both passes", "Lord Howe", "skipped day", "evening comes back",
         "evening comes back alone", "evening comes back, asked late"],
)  # fmt: skip
def test_the_fires_after_a_change(
    expression: str, zone: str, after: str, expected: list[str]
) -> None:
    """The next fires over the changes worth naming, as clocks show them."""
    assert local(Trigger("cron", expression, zone), after, len(expected)) == expected
