"""Rules of RFC 5545 by the clock on the wall: dateutil is the oracle for the days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given, settings
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import in_zone, to_instant, wall_time, zone_named
from promptyoself.rules.calendar import canonical_rule, rule_fires

ZONE = "Europe/Berlin"
BERLIN = zone_named(ZONE)


def fires(rule: str, first: str, count: int = 4, after: str = "") -> list[str]:
    """The fires of a rule in Berlin, after the instant before the first or after a wall time."""
    wall = datetime.fromisoformat(first)
    begin = to_instant(wall, BERLIN)
    low = to_instant(datetime.fromisoformat(after), BERLIN) if after else begin - timedelta(days=1)
    found = rule_fires(canonical_rule(rule, wall), begin, BERLIN, low)
    return [in_zone(fire, ZONE) for fire in islice(found, count)]


@st.composite
def rules(draw: st.DrawFn) -> str:
    frequency = draw(st.sampled_from(["DAILY", "WEEKLY", "MONTHLY", "YEARLY"]))
    rule = f"FREQ={frequency};INTERVAL={draw(st.integers(1, 5))}"
    if frequency != "DAILY" and draw(st.booleans()):
        rule += f";BYMONTH={draw(st.sampled_from(['2', '1,7', '12', '3,4,5']))}"
    day_parts = ["", "BYMONTHDAY=1,15", "BYMONTHDAY=-1", "BYDAY=MO", "BYDAY=SA,SU"]
    if frequency == "MONTHLY":
        day_parts += ["BYDAY=1MO", "BYDAY=-1FR", "BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1"]
    if frequency == "YEARLY":
        day_parts += ["BYYEARDAY=1,-1", "BYWEEKNO=1;BYDAY=MO", "BYWEEKNO=53", "BYDAY=2TU"]
    if frequency == "WEEKLY":
        day_parts = ["", "BYDAY=MO", "BYDAY=SA,SU", "BYDAY=TU,SU;WKST=SU", "BYDAY=SU;WKST=WE"]
    rule += f";{draw(st.sampled_from(day_parts))}".removesuffix(";")
    return rule + draw(st.sampled_from([";BYHOUR=9", ";BYHOUR=0,12;BYMINUTE=0,30", ";BYHOUR=2"]))


RULES = rules()
WALLS = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)).map(  # noqa: DTZ001
    lambda wall: wall.replace(second=0, microsecond=0)
)


@settings(deadline=None)
@given(RULES, WALLS, st.integers(0, 4000))
def test_the_fires_are_those_of_dateutil(rule: str, first: datetime, days: int) -> None:
    """From any instant on, not only from the first, though dateutil walks there from the first."""
    begin, low = first.replace(tzinfo=UTC), first.replace(tzinfo=UTC) + timedelta(days=days)
    expected = rrulestr(f"RRULE:{rule};BYSECOND=0", dtstart=first)
    if "BYMINUTE" not in rule:
        expected = rrulestr(f"RRULE:{rule};BYMINUTE=0;BYSECOND=0", dtstart=first)
    fires_ = rule_fires(canonical_rule(rule, first), begin, UTC, low)
    walls = [wall_time(fire, UTC) for fire in islice(fires_, 5)]
    assert walls == list(islice(expected.xafter(wall_time(low, UTC)), 5))


ZONES = st.sampled_from([ZONE, "America/New_York", "Pacific/Apia", "Africa/Casablanca"])


@settings(deadline=None)  # a rule with rare fires is looked through for decades
@given(RULES, WALLS, ZONES)
def test_fires_ascend_and_keep_the_wall_time(rule: str, first: datetime, zone: str) -> None:
    local = zone_named(zone)
    begin = to_instant(first, local)
    canonical = canonical_rule(rule, first)
    found = list(islice(rule_fires(canonical, begin, local, begin - timedelta(days=1)), 20))
    assert all(one < other for one, other in pairwise(found))
    hours = {int(hour) for hour in rule.partition("BYHOUR=")[2].partition(";")[0].split(",")}
    shown = {(wall_time(fire, local).hour, fire) for fire in found}
    moved = [fire for hour, fire in shown if hour not in hours]
    # What clocks jump over comes at the end of the jump.
    for fire in moved:
        before = wall_time(fire - timedelta(seconds=1), local) + timedelta(seconds=1)
        assert before != wall_time(fire, local)


@given(RULES, WALLS)
def test_a_canonical_rule_is_canonical(rule: str, first: datetime) -> None:
    """It says the same of any other first instant in the same period."""
    canonical = canonical_rule(rule, first)
    assert canonical_rule(canonical, first + timedelta(days=400)) == canonical
    assert canonical_rule(f"rrule:{canonical.lower()}", first) == canonical


def test_every_other_friday_keeps_its_time_over_changes_of_clocks() -> None:
    assert fires("FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16", "2027-03-19 16:00") == [
        "2027-03-19T16:00:00+01:00",
        "2027-04-02T16:00:00+02:00",
        "2027-04-16T16:00:00+02:00",
        "2027-04-30T16:00:00+02:00",
    ]


def test_a_time_that_clocks_jump_over_comes_at_the_end_of_the_jump() -> None:
    assert fires("FREQ=DAILY", "2027-03-27 02:30", 3) == [
        "2027-03-27T02:30:00+01:00",
        "2027-03-28T03:00:00+02:00",
        "2027-03-29T02:30:00+02:00",
    ]


def test_a_time_that_clocks_show_twice_comes_once() -> None:
    assert fires("FREQ=DAILY", "2026-10-24 02:30", 3) == [
        "2026-10-24T02:30:00+02:00",
        "2026-10-25T02:30:00+02:00",
        "2026-10-26T02:30:00+01:00",
    ]


def test_two_times_that_meet_in_a_jump_are_one_fire() -> None:
    assert fires("FREQ=DAILY;BYHOUR=2;BYMINUTE=15,45", "2027-03-28 00:00", 3) == [
        "2027-03-28T03:00:00+02:00",
        "2027-03-29T02:15:00+02:00",
        "2027-03-29T02:45:00+02:00",
    ]


def test_the_rarest_rule_has_fires_and_an_impossible_one_has_none() -> None:
    rare = "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29;BYDAY=MO;BYHOUR=9"
    assert fires(rare, "2024-03-01 00:00", 2) == [
        "2044-02-29T09:00:00+01:00",
        "2072-02-29T09:00:00+01:00",
    ]
    assert fires("FREQ=YEARLY;BYMONTH=2;BYWEEKNO=40", "2024-03-01 00:00") == []


@pytest.mark.parametrize(
    ("rule", "first", "canonical"),
    [
        ("FREQ=DAILY", "2026-11-25 10:17", "FREQ=DAILY;BYHOUR=10;BYMINUTE=17"),
        ("freq=daily; interval=1", "2026-11-25 10:17", "FREQ=DAILY;BYHOUR=10;BYMINUTE=17"),
        ("FREQ=DAILY;BYHOUR=9", "2026-11-25 10:17", "FREQ=DAILY;BYHOUR=9;BYMINUTE=0"),
        ("FREQ=WEEKLY", "2026-11-25 10:17", "FREQ=WEEKLY;BYDAY=WE;BYHOUR=10;BYMINUTE=17"),
        ("FREQ=MONTHLY", "2026-11-25 10:17", "FREQ=MONTHLY;BYMONTHDAY=25;BYHOUR=10;BYMINUTE=17"),
        (
            "BYDAY=+1MO;FREQ=MONTHLY;BYHOUR=17,9,9",
            "2026-11-25 10:17",
            "FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9,17;BYMINUTE=0",
        ),
        (
            "FREQ=YEARLY",
            "2026-11-25 10:17",
            "FREQ=YEARLY;BYMONTH=11;BYMONTHDAY=25;BYHOUR=10;BYMINUTE=17",
        ),
    ],
)
def test_a_rule_is_completed_from_its_first_instant(rule: str, first: str, canonical: str) -> None:
    assert canonical_rule(rule, datetime.fromisoformat(first)) == canonical


NO_RULES = """
FREQ
BYDAY=MO
FREQ=HOURLY
FREQ=SECONDLY
FREQ=DAILY;FREQ=WEEKLY
FREQ=DAILY;COUNT=3
FREQ=DAILY;UNTIL=20270101T000000Z
FREQ=DAILY;DTSTART=20270101T000000Z
FREQ=DAILY;INTERVAL=0
FREQ=DAILY;INTERVAL=-1
FREQ=DAILY;INTERVAL=1001
FREQ=DAILY;BYSECOND=30
FREQ=DAILY;BYEASTER=1
FREQ=DAILY;BYHOUR=24
FREQ=DAILY;BYHOUR=-1
FREQ=DAILY;BYMINUTE=60
FREQ=MONTHLY;BYMONTHDAY=0
FREQ=MONTHLY;BYMONTHDAY=32
FREQ=MONTHLY;BYDAY=0MO
FREQ=MONTHLY;BYDAY=MONDAY
FREQ=MONTHLY;BYMONTH=13
FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30
FREQ=YEARLY;BYMONTH=2,4;BYMONTHDAY=31
FREQ=WEEKLY;WKST=1
FREQ=DAILY;BYHOUR=٣
0 9 * * *
"""


@pytest.mark.parametrize("rule", ["", *NO_RULES.strip().splitlines()])
def test_what_is_no_rule_is_refused(rule: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        canonical_rule(rule, datetime(2026, 11, 25))  # noqa: DTZ001
    assert refusal.value.code == "invalid_rrule"
    assert refusal.value.hint


def test_a_long_rule_is_refused() -> None:
    with pytest.raises(PromptyoselfError, match="longer than"):
        canonical_rule("FREQ=DAILY" + ";BYHOUR=9" * 100_000, datetime(2026, 11, 25))  # noqa: DTZ001
