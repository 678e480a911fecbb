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
from promptyoself.rules.calendar import completed_rule, parse_rule
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, slots, times_a_day

ZONE = "Europe/Berlin"
BERLIN = zone_named(ZONE)


END = datetime(9999, 1, 1, tzinfo=UTC)


def trigger(rule: str, first: datetime, zone: str = ZONE) -> Trigger:
    return Trigger("rrule", parse_rule(rule), zone, first)


def fires(rule: str, first: str, count: int = 4, after: str = "") -> list[str]:
    """The fires of a rule in Berlin, after the instant before the first or after a wall time."""
    wall = datetime.fromisoformat(first)
    begin = to_instant(wall, BERLIN)
    low = to_instant(datetime.fromisoformat(after), BERLIN) if after else begin - timedelta(days=1)
    return [in_zone(fire, ZONE) for fire in islice(slots(trigger(rule, begin), low, END), count)]


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
        day_parts += ["BYDAY=2TU"]
        if "BYMONTH" not in rule:  # dateutil looks through 8,000 years where no day is in both
            day_parts += ["BYYEARDAY=1,-1", "BYWEEKNO=1;BYDAY=MO", "BYWEEKNO=-1;BYDAY=TH"]
    if frequency == "WEEKLY":
        day_parts = ["", "BYDAY=MO", "BYDAY=SA,SU", "BYDAY=TU,SU;WKST=SU", "BYDAY=SU;WKST=WE"]
    rule += f";{draw(st.sampled_from(day_parts))}".removesuffix(";")
    times = [";BYHOUR=9", ";BYHOUR=2", ";BYHOUR=1,2;BYMINUTE=0,30"]
    return rule + draw(st.sampled_from(times[: 2 if "BYSETPOS" in rule else 3]))


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
    found = islice(slots(trigger(rule, begin, "UTC"), low - timedelta.resolution, END), 5)
    walls = [wall_time(fire, UTC) for fire in found]
    assert walls == list(islice(expected.xafter(wall_time(low, UTC), inc=True), 5))


ZONES = st.sampled_from(
    [
        "Europe/London",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Casablanca",
    ]
)


@settings(deadline=None)  # a rule with rare fires is looked through for decades
@given(RULES, WALLS, ZONES)
def test_fires_ascend_and_keep_the_wall_time(rule: str, first: datetime, zone: str) -> None:
    local = zone_named(zone)
    begin = to_instant(first, local)
    found = list(islice(slots(trigger(rule, begin, zone), begin - timedelta(days=1), END), 20))
    assert all(one < other for one, other in pairwise(found))
    hours = {int(hour) for hour in rule.partition("BYHOUR=")[2].partition(";")[0].split(",")}
    shown = {(wall_time(fire, local).hour, fire) for fire in found}
    moved = [fire for hour, fire in shown if hour not in hours]
    # What clocks jump over comes at the end of the jump.
    for fire in moved:
        before = wall_time(fire - timedelta(seconds=1), local) + timedelta(seconds=1)
        assert before != wall_time(fire, local)


@settings(deadline=None)
@given(RULES, WALLS, ZONES, st.integers(0, 3000), st.integers(0, 800))
def test_slots_their_count_and_the_last_one_agree(
    rule: str, first: datetime, zone: str, after: int, length: int
) -> None:
    begin = to_instant(first, zone_named(zone))
    low = begin + timedelta(days=after, hours=after % 24)
    high = low + timedelta(days=length, minutes=length)
    series = trigger(rule, begin, zone)
    found = list(slots(series, low, high))
    assert count_slots(series, low, high) == len(found)
    assert last_slot(series, low, high) == (found[-1] if found else None)


@given(RULES, WALLS)
def test_a_completed_rule_is_complete(rule: str, first: datetime) -> None:
    """It says the same of any other first instant in the same period."""
    completed = completed_rule(rule, first)
    assert completed_rule(completed, first + timedelta(days=400)) == completed
    assert completed_rule(f"rrule:{completed.lower()}", first) == completed


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
    assert fires("FREQ=DAILY;BYMONTH=1;BYYEARDAY=366", "2024-03-01 00:00") == []
    assert fires(
        "FREQ=YEARLY;INTERVAL=100;BYMONTH=6;BYMONTHDAY=1;BYHOUR=9", "2024-07-01 00:00", 2
    ) == [
        "2124-06-01T09:00:00+02:00",
        "2224-06-01T09:00:00+02:00",
    ]


def test_nothing_is_searched_without_end() -> None:
    """Neither for an impossible rule, nor back from the end of the calendar."""
    never = trigger("FREQ=DAILY;BYMONTH=1;BYYEARDAY=366", datetime(2024, 1, 1, tzinfo=UTC))
    assert last_slot(never, datetime(1, 1, 1, tzinfo=UTC), END) is None
    assert count_slots(never, datetime(1, 1, 1, tzinfo=UTC), END) == 0
    yearly = trigger("FREQ=YEARLY", datetime(2024, 1, 1, tzinfo=UTC))
    latest = last_slot(yearly, datetime(1, 1, 1, tzinfo=UTC), END)
    assert latest is not None
    assert latest.year >= 9980


def test_weeks_are_numbered_as_in_iso_8601() -> None:
    """dateutil isn't asked here: it takes 1 January 2022 for a day of a week 53."""
    begin = datetime(2020, 1, 1, tzinfo=UTC)
    for number in (1, 52, 53):
        found = slots(trigger(f"FREQ=YEARLY;BYWEEKNO={number};BYHOUR=0", begin, "UTC"), begin, END)
        for fire in islice(found, 60):
            assert fire.isocalendar().week == number
    weeks = trigger("FREQ=YEARLY;BYWEEKNO=53;BYHOUR=0", begin, "UTC")
    assert count_slots(weeks, begin, datetime(2040, 1, 1, tzinfo=UTC)) == 4 * 7


def test_the_31st_skips_shorter_months() -> None:
    """RFC 5545 has it so. A rule for the last day of each month says BYMONTHDAY=-1."""
    assert [fire[:10] for fire in fires("FREQ=MONTHLY", "2027-01-31 09:00", 3)] == [
        "2027-01-31", "2027-03-31", "2027-05-31",
    ]  # fmt: skip


def test_a_rule_keeps_the_seconds_it_counts_from() -> None:
    assert fires("FREQ=DAILY", "2027-03-27 09:10:30", 2) == [
        "2027-03-27T09:10:30+01:00",
        "2027-03-28T09:10:30+02:00",
    ]


def test_a_day_of_a_rule_has_as_many_fires_as_it_names_times() -> None:
    assert times_a_day("rrule", "FREQ=WEEKLY;BYHOUR=9,17;BYMINUTE=0,30") == 4
    assert times_a_day("rrule", "FREQ=DAILY") == 1


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
    assert completed_rule(rule, datetime.fromisoformat(first)) == canonical


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
FREQ=DAILY;BYSECOND=60
FREQ=DAILY;BYSECOND=0,30
FREQ=WEEKLY;BYDAY=1MO
FREQ=YEARLY;BYWEEKNO=1;BYDAY=1MO
FREQ=MONTHLY;BYDAY=MO;BYHOUR=9,17;BYSETPOS=1
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
        parse_rule(rule)
    assert refusal.value.code == "invalid_rrule"
    assert refusal.value.hint


def test_a_long_rule_is_refused() -> None:
    with pytest.raises(PromptyoselfError, match="longer than"):
        parse_rule("FREQ=DAILY" + ";BYHOUR=9" * 100_000)
