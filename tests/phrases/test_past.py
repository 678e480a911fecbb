"""Times that have passed, in words: each phrase has its one right instant, or is refused."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import in_zone, parse_moment, parse_time
from promptyoself.phrases import words
from promptyoself.phrases.moments import read_bound, read_moment

ZONE = "Europe/Berlin"
# 25 November 2026 is a Wednesday.
NOW = "2026-11-25 11:30"

# A phrase, what it means as a beginning, and what it means as an end. An end that isn't there is
# the same instant.
RIGHT = """
yesterday                  | 2026-11-24 00:00 | 2026-11-25 00:00
today                      | 2026-11-25 00:00 | 2026-11-26 00:00
the day before yesterday   | 2026-11-23 00:00 | 2026-11-24 00:00
last night                 | 2026-11-24 18:00 | 2026-11-25 06:00
Last Night                 | 2026-11-24 18:00 | 2026-11-25 06:00
yesterday night            | 2026-11-24 18:00 | 2026-11-25 06:00
yesterday morning          | 2026-11-24 06:00 | 2026-11-24 12:00
yesterday evening          | 2026-11-24 18:00 | 2026-11-25 00:00
this morning               | 2026-11-25 06:00 | 2026-11-25 12:00
yesterday at 17:00         | 2026-11-24 17:00
yesterday 9am              | 2026-11-24 09:00
yesterday at noon          | 2026-11-24 12:00
9am yesterday              | 2026-11-24 09:00
yesterday evening at 8     | 2026-11-24 20:00
last night at 11           | 2026-11-24 23:00
this morning at 8          | 2026-11-25 08:00
today at 9:30              | 2026-11-25 09:30
9am                        | 2026-11-25 09:00
5pm                        | 2026-11-24 17:00
at 9                       | 2026-11-25 09:00
noon                       | 2026-11-24 12:00
midnight                   | 2026-11-25 00:00
2 hours ago                | 2026-11-25 09:30
an hour ago                | 2026-11-25 10:30
one hour ago               | 2026-11-25 10:30
half an hour ago           | 2026-11-25 11:00
a quarter of an hour ago   | 2026-11-25 11:15
an hour and a half ago     | 2026-11-25 10:00
1h30 ago                   | 2026-11-25 10:00
1 hour and 20 minutes ago  | 2026-11-25 10:10
10 minutes ago             | 2026-11-25 11:20
90 seconds ago             | 2026-11-25 11:28:30
3 days ago                 | 2026-11-22 11:30
2 weeks ago                | 2026-11-11 11:30
a month ago                | 2026-10-25 11:30
2 days ago at 17:00        | 2026-11-23 17:00
a year ago                 | 2025-11-25 11:30
last 24 hours              | 2026-11-24 11:30 | 2026-11-25 11:30
the last 3 days            | 2026-11-22 11:30 | 2026-11-25 11:30
past hour                  | 2026-11-25 10:30 | 2026-11-25 11:30
the past week              | 2026-11-18 11:30 | 2026-11-25 11:30
monday                     | 2026-11-23 00:00 | 2026-11-24 00:00
on monday                  | 2026-11-23 00:00 | 2026-11-24 00:00
last monday                | 2026-11-23 00:00 | 2026-11-24 00:00
last wednesday             | 2026-11-18 00:00 | 2026-11-19 00:00
friday                     | 2026-11-20 00:00 | 2026-11-21 00:00
friday at 17:00            | 2026-11-20 17:00
last friday 9am            | 2026-11-20 09:00
on monday morning          | 2026-11-23 06:00 | 2026-11-23 12:00
last weekend               | 2026-11-21 00:00 | 2026-11-23 00:00
this week                  | 2026-11-23 00:00 | 2026-11-30 00:00
last week                  | 2026-11-16 00:00 | 2026-11-23 00:00
this month                 | 2026-11-01 00:00 | 2026-12-01 00:00
last month                 | 2026-10-01 00:00 | 2026-11-01 00:00
this year                  | 2026-01-01 00:00 | 2027-01-01 00:00
last year                  | 2025-01-01 00:00 | 2026-01-01 00:00
5 november                 | 2026-11-05 00:00 | 2026-11-06 00:00
november 5th               | 2026-11-05 00:00 | 2026-11-06 00:00
the 5th of november        | 2026-11-05 00:00 | 2026-11-06 00:00
5 nov 2025                 | 2025-11-05 00:00 | 2025-11-06 00:00
24 december                | 2025-12-24 00:00 | 2025-12-25 00:00
29 february                | 2024-02-29 00:00 | 2024-03-01 00:00
march 5 at 9am             | 2026-03-05 09:00
the 1st                    | 2026-11-01 00:00 | 2026-11-02 00:00
the 30th                   | 2026-10-30 00:00 | 2026-10-31 00:00
on the 1st at 8am          | 2026-11-01 08:00
2026-11-21 9am             | 2026-11-21 09:00
2026-11-21 at noon         | 2026-11-21 12:00
"""

# The clocks of Berlin go from 2:00 to 3:00 on 28 March 2027, and from 3:00 to 2:00 on 25 October
# 2026.
CHANGES = """
2027-03-28 12:00 | yesterday      | 2027-03-27T00:00:00+01:00
2027-03-28 12:00 | today          | 2027-03-28T00:00:00+01:00
2027-03-28 12:00 | 12 hours ago   | 2027-03-27T23:00:00+01:00
2027-03-28 12:00 | 1 day ago      | 2027-03-27T11:00:00+01:00
2027-03-28 12:00 | a month ago    | 2027-02-28T12:00:00+01:00
2027-03-31 12:00 | a month ago    | 2027-02-28T12:00:00+01:00
2026-10-26 12:00 | last night     | 2026-10-25T18:00:00+01:00
2026-10-25 12:00 | last night     | 2026-10-24T18:00:00+02:00
2026-10-25 12:00 | 9am            | 2026-10-25T09:00:00+01:00
2026-10-25 12:00 | at 2:30am      | 2026-10-25T02:30:00+01:00
2026-10-26 01:00 | last night     | 2026-10-25T18:00:00+01:00
2027-01-01 09:00 | last month     | 2026-12-01T00:00:00+01:00
2027-01-01 09:00 | yesterday      | 2026-12-31T00:00:00+01:00
"""

TWO_READINGS = """
wednesday         | today, or 2026-11-18
yesterday at 5    | 5am, or 5pm
yesterday midnight | 2026-11-24 00:00, or 2026-11-25 00:00
"""

OUTSIDE = """
tomorrow
tonight
next week
last
last night night
yesterday yesterday
yesterday at 25
soon
2 hours
ago
hours ago
0 hours ago
2 hours ago at 9
this sunday
5/3
9am UTC
day before
the 32nd
2026-13-01 9am
999999 years ago
9999 years ago
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def instant(text: str) -> datetime:
    return parse_time(text.replace(" ", "T"), ZONE, datetime.min.replace(tzinfo=UTC))


def read(phrase: str, now: str = NOW, *, end: bool = False) -> datetime:
    return read_moment(phrase, ZONE, instant(now), end=end)


@pytest.mark.parametrize("row", rows(RIGHT), ids=lambda row: row[0])
def test_a_phrase_has_its_instant(row: list[str]) -> None:
    """As a beginning it is its first instant. As an end it is its last one, a microsecond before
    what follows it."""
    phrase, first, *after = row
    assert in_zone(read(phrase), ZONE) == in_zone(instant(first), ZONE)
    last = read(phrase, end=True)
    if not after:
        assert last == read(phrase)
    elif instant(after[0]) == instant(NOW):
        assert last == instant(NOW)
    else:
        assert (instant(after[0]) - last).total_seconds() == 1e-6


@pytest.mark.parametrize(("now", "phrase", "right"), rows(CHANGES))
def test_a_phrase_has_its_instant_around_changes_of_clocks(
    now: str, phrase: str, right: str
) -> None:
    assert in_zone(read(phrase, now), ZONE) == right


@pytest.mark.parametrize(("phrase", "readings"), rows(TWO_READINGS))
def test_two_readings_are_refused_with_both(phrase: str, readings: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read(phrase)
    assert refusal.value.code == "invalid_time"
    assert refusal.value.message == f"{phrase!r} can mean two things: {readings}."


@pytest.mark.parametrize("phrase", OUTSIDE.strip().splitlines())
def test_what_is_outside_the_grammar_is_refused(phrase: str) -> None:
    """The refusal is that of the strict forms."""
    with pytest.raises(PromptyoselfError) as refusal:
        read(phrase)
    assert refusal.value.code == "invalid_time"
    assert refusal.value.message.startswith(ascii(phrase))


@pytest.mark.parametrize(
    ("phrase", "near"),
    [("las night", "last night"), ("yesteday", "yesterday"), ("Friday  17", "friday at 17")],
)
def test_a_typo_is_told_the_nearest_phrase(phrase: str, near: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read(phrase)
    assert refusal.value.hint.startswith(f"Did you mean '{near}'? ")


@pytest.mark.parametrize("phrase", ["tomorrow", "tomorrow at 9", "tonight", "next friday"])
def test_what_is_to_come_is_said_to_lie_in_the_future(phrase: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read(phrase)
    assert refusal.value.message == f"{phrase!r} lies in the future."
    assert "yesterday" in refusal.value.hint


@pytest.mark.parametrize("phrase", ["yesterday", "last night", "2 weeks ago", "last week"])
def test_a_bound_that_is_over_is_said_to_lie_in_the_past(phrase: str) -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read_bound(phrase, ZONE, instant(NOW), end=False)
    assert refusal.value.message == f"{phrase!r} lies in the past."


@pytest.mark.parametrize("text", ["now", "2h", "2h ago", "9:00", "2026-11-21", "2026-11-21T09:00Z"])
def test_strict_forms_mean_what_they_meant(text: str) -> None:
    for end in (False, True):
        assert read(text, end=end) == parse_moment(text, ZONE, instant(NOW), end=end)


def test_a_time_that_clocks_jumped_over_is_refused() -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read("yesterday at 2:30am", "2027-03-29 12:00")
    assert refusal.value.code == "nonexistent_time"


_VOCABULARY = sorted(
    {*words.WEEKDAYS, *words.MONTHS, *words.UNITS, *words.NUMBERS, *words.DAY_PARTS}
    | {"yesterday", "last", "this", "ago", "the", "at", "on", "of", "5", "9am", "17:30", "1st", ","}
)


@given(st.lists(st.sampled_from(_VOCABULARY), min_size=1, max_size=6))
def test_any_row_of_words_is_an_instant_or_refused(row: list[str]) -> None:
    """Whatever is taken has a beginning that isn't after its end. Nothing ends in another way."""
    with suppress(PromptyoselfError):
        assert read(" ".join(row)) <= read(" ".join(row), end=True)
