"""Cron expressions: how they are written, and which times they name."""

import gzip
from datetime import UTC, date, timedelta
from itertools import islice, pairwise
from pathlib import Path

import orjson
import pytest
from croniter import croniter
from hypothesis import given, settings
from typed_texts import HOSTILE, NOW, refusal, utc

from promptyoself.core.errors import PromptyoselfError
from promptyoself.rules.cron_expressions import canonical_cron, parse_cron, read_cron
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time, slots

DAY = timedelta(days=1)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("  0   9 * *  mon-Fri ", "0 9 * * MON-FRI"),
        ("05 09 1,15 jan */2", "5 9 1,15 JAN */2"),
        ("*/15 0/2 1-7/2 * 7", "*/15 0/2 1-7/2 * 7"),
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 31 2 1", "0 0 31 2 1"),
        ("0 0 l,15 * *", "0 0 L,15 * *"),
        ("0 0 025-l * *", "0 0 25-L * *"),
        ("00 09 * * mon#1,04#2", "0 9 * * MON#1,4#2"),
        ("0 0 * * mon-fri#1,l5", "0 0 * * MON-FRI#1,L5"),
        ("0 022-02/03 * nov-feb fri-mon", "0 22-2/3 * NOV-FEB FRI-MON"),
    ],
)
def test_cron_is_canonical(text: str, canonical: str) -> None:
    """Cron expressions come back with single spaces, capitals and no leading zeros, for good."""
    assert parse_cron(text) == canonical
    assert parse_cron(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no fields"),
        ("* * * *", "4 fields"),
        ("0 0 9 * * *", "seconds and years aren't supported"),
        ("60 * * * *", "60 in its minute field"),
        ("* 24 * * *", "24 in its hour field"),
        ("0 0 0 * *", "0 in its day of the month field"),
        ("0 0 * 13 *", "13 in its month field"),
        ("0 0 * * 8", "8 in its day of the week field"),
        ("0 0 * * MOO", "MOO"),
        ("0 0 MON * *", "MON"),
        ("*/0 * * * *", "step 0"),
        ("*/90 * * * *", "step 90"),
        ("*/9999999999 * * * *", "*/9999999999"),
        ("0 0 * * 1/2", "open range"),
        ("1,,2 * * * *", "an empty item"),
        ("*-5 * * * *", "*-5"),
        ("0 0 ? * *", "?"),
        ("0 0 15W * *", "15W"),
        ("H * * * *", "H"),
        ("R * * * *", "R"),
        ("H(0-29)/10 * * * *", "H(0-29)/10"),
        ("0 L * * *", "L"),
        ("0 0 * * L", "L"),
        ("0 0 * * 5L", "5L"),
        ("0 0 * * LFRI", "LFRI"),
        ("0 0 * * L8", "L8"),
        ("0 0 L5 * *", "L5"),
        ("0 0 L-3 * *", "L-3"),
        ("0 0 LW * *", "LW"),
        ("0 0 * * FRI-L", "FRI-L"),
        ("0 0 * * 1#0", "1#0"),
        ("0 0 * * 1#6", "1#6"),
        ("0 0 * * 9#1", "9#1"),
        ("0 0 * * 1-5#1", "1-5#1"),
        ("0 0 * * JAN#1", "JAN#1"),
        ("0 0 1#1 * *", "1#1"),
        ("0 0 * * MON#1,TUE", "MON#1 beside other days"),
        ("0 0 * * *,L5", "L5 beside other days"),
        ("0 0 * * 0-6,MON#1", "MON#1 beside other days"),
        ("0 0 28-0 * *", "0 in its day of the month field"),
        ("@reboot", "known macro"),
        ("\u0663 * * * *", "\\u0663"),
        ("1," * 5000 + "1 * * * *", "longer than"),
    ],
)
def test_bad_cron_is_refused(text: str, says: str) -> None:
    """A field that Debian's cron hasn't, or that crons read differently, is named and refused."""
    error = refusal("invalid_cron", parse_cron, text)
    assert says in error.message
    assert error.hint
    assert len(error.message) < 400


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CRON_TZ=Europe/London 0 9 * * *", "--tz Europe/London --cron '0 9 * * *'"),
        ("TZ=Asia/Tokyo 0 9 * * *", "--tz Asia/Tokyo --cron '0 9 * * *'"),
        (" cron_tz='Asia/Tokyo'  @daily", "--tz Asia/Tokyo --cron '@daily'"),
        ("TZ=", "--tz ZONE"),
        ("@every 5m", "--every 5m"),
        ("@every 1h 30m", "--every 1h30m"),
        ("@EVERY10s", "--every 10s"),
        ("@every", "--every 5m"),
    ],
)
def test_what_other_schedulers_put_into_a_cron_expression_has_an_option_here(
    text: str, hint: str
) -> None:
    """A zone or an interval in a cron expression is refused, with the option that says it."""
    error = refusal("invalid_cron", parse_cron, text)
    assert hint in error.hint
    assert "fields" not in error.message


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0 0 30 2 *", "a day 30"),
        ("0 0 31 4,6,9,11 *", "a day 31"),
        ("0 0 30-31 FEB */2", "a day 30"),
        ("0 0 */30 2 MON#5", "such a day"),
        ("0 0 */15 * MON#2", "such a day"),
        ("0 0 */31 * L5", "such a day"),
    ],
)
def test_cron_that_never_fires_is_refused(text: str, says: str) -> None:
    """A day that none of its months has is refused at once."""
    assert says in refusal("cron_never_fires", parse_cron, text).message


@settings(max_examples=600, deadline=None)
@given(text=HOSTILE)
def test_any_text_is_a_cron_expression_or_refused(text: str) -> None:
    """Whatever is typed, it comes back canonical or is refused by an error of ours."""
    try:
        expression = parse_cron(text)
    except PromptyoselfError as error:
        assert error.code in {"invalid_cron", "cron_never_fires"}  # noqa: PT017
    else:
        assert canonical_cron(text) == expression == parse_cron(expression)


# --- what the fields name ------------------------------------------------------------------------


def fires(expression: str, after: str, count: int, zone: str = "UTC") -> list[str]:
    trigger = Trigger("cron", parse_cron(expression), zone)
    instants = islice(slots(trigger, utc(after), utc("2200-01-01")), count)
    return [f"{fire:%Y-%m-%dT%H:%M}" for fire in instants]


def test_expressions_mean_what_they_meant() -> None:
    """3,000 expressions are refused in the same words, or have the same canonical text and name the
    same times, as by the parser that promptyoself had before croniter. Their schedules keep their
    ids and their slots."""
    rows = gzip.decompress((Path(__file__).parent / "former_cron.jsonl.gz").read_bytes())
    for row in map(orjson.loads, rows.splitlines()):
        text, *expected = row
        try:
            canonical = parse_cron(text)
        except PromptyoselfError as error:
            assert [error.code, error.message] == expected, text  # noqa: PT017
            continue
        expression = read_cron(canonical)
        minutes = sorted({at.seconds // 60 % 60 for at in expression.times})
        hours = sorted({at.seconds // 3600 for at in expression.times})
        assert len(expression.times) == len(minutes) * len(hours)
        days = expression.days
        named = (
            [list(range(1, 32)), list(range(1, 13)), list(range(7))]
            if days is None
            else [list(days.days), list(days.months), list(days.weekdays)]
        )
        assert [canonical, expression.is_fixed, minutes, hours, *named] == expected, text
        _, _, day, _, weekday = canonical.split()
        if days is not None:
            assert days.both == (day[0] == "*" or weekday[0] == "*")
            assert not days.nth
            assert not days.last_day


def test_ranges_that_croniter_reads_otherwise() -> None:
    """``5-5`` is minute 5 only and ``59/5`` minute 59, ``5-7`` ends on Sunday, and a step goes on
    evenly over the end of a field. croniter reads the first as the whole field, the second too
    before version 6.1, and the last one late by one."""
    assert croniter.expand("5-5 * * * *")[0][0] == ["*"]
    assert croniter.expand("* 22-4/3 * * *")[0][1] == [2, 22]
    assert fires("5-5 * * * *", "2026-11-21T00:05", 1) == ["2026-11-21T01:05"]
    assert fires("59/5 * * * *", "2026-11-21T00:05", 2) == ["2026-11-21T00:59", "2026-11-21T01:59"]
    assert read_cron("0 0 * * 5-7") == read_cron("0 0 * * 5-7")._replace(
        days=read_cron("0 0 * * FRI-SUN").days
    )
    assert [at.seconds // 3600 for at in read_cron("0 22-4/3 * * *").times] == [1, 4, 22]
    weekdays = read_cron("0 0 * * SAT-WED/2").days
    assert weekdays is not None
    assert weekdays.weekdays == (1, 3, 6)


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 9 L * *", "2028-01-31T12:00", ["2028-02-29T09:00", "2028-03-31T09:00"]),
        ("0 9 L 2 *", "2026-11-21T00:00", ["2027-02-28T09:00", "2028-02-29T09:00"]),
        ("0 9 1,L 11 *", "2026-11-21T00:00", ["2026-11-30T09:00", "2027-11-01T09:00"]),
        ("0 9 30-L 1-3 *", "2026-11-21T00:00", ["2027-01-30T09:00", "2027-01-31T09:00",
                                                "2027-03-30T09:00"]),
        ("0 9 * * MON#1", "2026-11-21T00:00", ["2026-12-07T09:00", "2027-01-04T09:00"]),
        ("0 9 * * MON#5", "2026-11-21T00:00", ["2026-11-30T09:00", "2027-03-29T09:00"]),
        ("0 9 * * 0#1,7#3", "2026-11-21T00:00", ["2026-12-06T09:00", "2026-12-20T09:00"]),
        ("0 9 * * L5", "2026-11-21T00:00", ["2026-11-27T09:00", "2026-12-25T09:00"]),
        ("0 9 * * L7", "2026-11-29T09:00", ["2026-12-27T09:00", "2027-01-31T09:00"]),
        ("0 9 * * SAT-MON#1", "2026-11-21T00:00", ["2026-12-05T09:00", "2026-12-06T09:00",
                                                  "2026-12-07T09:00", "2027-01-02T09:00"]),
        # either, where both fields are restricted; both, where one starts with a star
        ("0 9 L * FRI#1", "2026-11-21T00:00", ["2026-11-30T09:00", "2026-12-04T09:00"]),
        ("0 9 */2 * FRI#1", "2026-11-21T00:00", ["2027-01-01T09:00", "2027-02-05T09:00"]),
        ("0 9 L * */2", "2026-11-21T00:00", ["2026-12-31T09:00", "2027-01-31T09:00"]),
        ("0 9 * * FRI-MON", "2026-11-23T09:00", ["2026-11-27T09:00", "2026-11-28T09:00"]),
        ("0 22-2 * * *", "2026-11-21T22:30", ["2026-11-21T23:00", "2026-11-22T00:00"]),
        ("0 22-6/2 * * *", "2026-11-21T22:30", ["2026-11-22T00:00", "2026-11-22T02:00"]),
        ("0 9 30-2 11 *", "2026-11-21T00:00", ["2026-11-30T09:00", "2027-11-01T09:00"]),
        ("0 9 1 NOV-FEB *", "2026-11-21T00:00", ["2026-12-01T09:00", "2027-01-01T09:00",
                                                "2027-02-01T09:00", "2027-11-01T09:00"]),
    ],
)  # fmt: skip
def test_signs_of_the_month_and_ranges_that_wrap(
    expression: str, after: str, expected: list[str]
) -> None:
    assert fires(expression, after, len(expected)) == expected


def day_of_last_week(day: date) -> bool:
    return (day + timedelta(days=7)).month != day.month


FOUR_CENTURIES = {
    # Not in 1900, 2100, 2200 and 2300.
    "0 0 29 2 *": lambda day: (day.month, day.day) == (2, 29),
    # A Sunday: up to 40 years apart.
    "0 0 29 2 */7": lambda day: (day.month, day.day, day.weekday()) == (2, 29, 6),
    "0 0 */28 2 3": lambda day: day.month == 2 and day.day in (1, 29) and day.weekday() == 2,
    # Or every Thursday of February.
    "0 0 29 2 4": lambda day: day.month == 2 and (day.day == 29 or day.weekday() == 3),
    "0 0 31 * *": lambda day: day.day == 31,
    "0 0 13 * 5": lambda day: day.day == 13 or day.weekday() == 4,
    "0 0 * 3,11 0": lambda day: day.month in (3, 11) and day.weekday() == 6,
    "0 0 1,30 2,4 *": lambda day: day.month in (2, 4) and day.day in (1, 30),
    "0 0 L * *": lambda day: (day + DAY).day == 1,
    "0 0 L 2 MON": lambda day: day.month == 2 and ((day + DAY).day == 1 or day.weekday() == 0),
    "0 0 * 2 MON#5": lambda day: (day.month, day.day, day.weekday()) == (2, 29, 0),
    "0 0 * * TUE#2,L4": lambda day: (
        (day.weekday() == 1 and 8 <= day.day <= 14)
        or (day.weekday() == 3 and day_of_last_week(day))
    ),
    "0 0 */28 * SUN#5": lambda day: day.day == 29 and day.weekday() == 6,
    "0 0 13 * FRI#2": lambda day: day.day == 13 or (day.weekday() == 4 and 8 <= day.day <= 14),
    "0 0 30-1 DEC-FEB *": lambda day: day.day in (30, 31, 1) and day.month in (12, 1, 2),
}
"""Expressions, and which days they name, said in Python."""


@pytest.mark.parametrize("expression", FOUR_CENTURIES)
def test_four_centuries_of_days(expression: str) -> None:
    """Just the days that are named in 400 years are found, forward and back, and counted."""
    first, last = utc("1890-01-01"), utc("2310-01-01")
    days = [first + timedelta(days=number) for number in range((last - first).days)]
    expected = [day for day in days if FOUR_CENTURIES[expression](day)]
    trigger = Trigger("cron", parse_cron(expression))
    before, end = first - timedelta(seconds=1), last - timedelta(seconds=1)
    assert list(slots(trigger, before, end)) == expected
    assert count_slots(trigger, before, end) == len(expected)
    for earlier, day in pairwise(expected):
        assert last_slot(trigger, before, day - timedelta(seconds=1)) == earlier


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        # 31 March 2024: clocks in London jump from 01:00 to 02:00
        ("30 1 L * *", "2024-03-30T12:00", ["2024-03-31T01:00", "2024-04-30T00:30"]),
        ("*/30 1 L * *", "2024-03-30T12:00", ["2024-04-30T00:00"]),
        # the last Sunday of October: they show 01:00 to 02:00 twice
        ("30 1 * 10 L7", "2026-10-01T00:00", ["2026-10-25T00:30", "2027-10-31T00:30"]),
        ("30 * * 10 L7", "2026-10-25T00:00",
         ["2026-10-25T00:30", "2026-10-25T01:30", "2026-10-25T02:30"]),
        # the night that wraps
        ("30 22-2 * * *", "2026-10-24T22:00",
         ["2026-10-24T22:30", "2026-10-24T23:30", "2026-10-25T00:30", "2026-10-25T02:30"]),
    ],
)  # fmt: skip
def test_signs_over_changes_of_clocks(expression: str, after: str, expected: list[str]) -> None:
    """Days that are found by a sign follow the same rules, in Europe/London."""
    assert fires(expression, after, len(expected), "Europe/London") == expected


def test_what_can_never_be_has_an_answer() -> None:
    """An hour that clocks jump over, on the one day that is named, comes to nothing in no time."""
    trigger = Trigger("cron", parse_cron("*/30 1 * 3 L7"), "Europe/London")
    assert next_fire_time(trigger, NOW.astimezone(UTC)) is None
