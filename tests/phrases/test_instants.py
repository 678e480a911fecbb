"""Times in words: each phrase has its one right instant, or is refused."""

from __future__ import annotations

import warnings
from datetime import UTC, datetime

import dateparser
import parsedatetime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import in_zone, parse_time
from promptyoself.phrases import words
from promptyoself.phrases.instants import read_instant
from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError

ZONE = "Europe/Berlin"
# 25 November 2026 is a Wednesday.
NOW = "2026-11-25 11:30"

RIGHT = """
tomorrow 9am                       | 2026-11-26 09:00
tomorrow at 9am                    | 2026-11-26 09:00
tomorrow at 9:30 am                | 2026-11-26 09:30
Tomorrow, 9 AM                     | 2026-11-26 09:00
tomorrow at 17                     | 2026-11-26 17:00
tomorrow at 17:45                  | 2026-11-26 17:45
tomorrow at 05:30                  | 2026-11-26 05:30
tomorrow at 5pm                    | 2026-11-26 17:00
tomorrow at noon                   | 2026-11-26 12:00
noon tomorrow                      | 2026-11-26 12:00
tomorrow 00:00                     | 2026-11-26 00:00
tomorrow                           | 2026-11-26 09:00
tomorrow morning at 8              | 2026-11-26 08:00
tomorrow evening at 8              | 2026-11-26 20:00
tomorrow afternoon at 3            | 2026-11-26 15:00
9am tomorrow                       | 2026-11-26 09:00
at 9 tomorrow                      | 2026-11-26 09:00
8 in the evening tomorrow          | 2026-11-26 20:00
day after tomorrow at noon         | 2026-11-27 12:00
the day after tomorrow at 8        | 2026-11-27 08:00
today at 17:00                     | 2026-11-25 17:00
today 5pm                          | 2026-11-25 17:00
this evening at 8                  | 2026-11-25 20:00
this afternoon at 4                | 2026-11-25 16:00
tonight at 9                       | 2026-11-25 21:00
9 tomorrow                         | refused
tomorrow morning                   | 2026-11-26 09:00
monday morning                     | 2026-11-30 09:00
this monday at 9                   | 2026-11-30 09:00
this wednesday at 9                | 2026-12-02 09:00
this wednesday at 17:00            | 2026-11-25 17:00
tonight                            | refused
next week                          | refused
midnight tonight                   | 2026-11-26 00:00
noon                               | 2026-11-25 12:00
midday                             | 2026-11-25 12:00
midnight                           | 2026-11-26 00:00
9am                                | 2026-11-26 09:00
5pm                                | 2026-11-25 17:00
9 a.m.                             | 2026-11-26 09:00
12am                               | 2026-11-26 00:00
12pm                               | 2026-11-25 12:00
12:30pm                            | 2026-11-25 12:30
at 9                               | 2026-11-26 09:00
at 12                              | 2026-11-25 12:00
at 23:59                           | 2026-11-25 23:59
9 o'clock                          | 2026-11-26 09:00
8 in the morning                   | 2026-11-26 08:00
4 in the afternoon                 | 2026-11-25 16:00
11 at night                        | 2026-11-25 23:00
next monday                        | 2026-11-30 09:00
next monday 9am                    | 2026-11-30 09:00
next monday at 14:00               | 2026-11-30 14:00
next wednesday at 9                | 2026-12-02 09:00
next tuesday at noon               | 2026-12-01 12:00
monday                             | 2026-11-30 09:00
monday 9am                         | 2026-11-30 09:00
mon at 10                          | 2026-11-30 10:00
monday morning at 8                | 2026-11-30 08:00
friday at 17:00                    | 2026-11-27 17:00
on friday at 17:00                 | 2026-11-27 17:00
fri 5pm                            | 2026-11-27 17:00
5pm on friday                      | 2026-11-27 17:00
at 17:00 on friday                 | 2026-11-27 17:00
friday evening at 7                | 2026-11-27 19:00
this friday at 9                   | 2026-11-27 09:00
coming friday at 9                 | 2026-11-27 09:00
saturday at noon                   | 2026-11-28 12:00
sunday at 10                       | 2026-11-29 10:00
wednesday at 9                     | 2026-12-02 09:00
thurs at 9                         | 2026-11-26 09:00
on friday at 9 o'clock             | 2026-11-27 09:00
friday 4 december at 9             | 2026-12-04 09:00
friday, december 4th at 9          | 2026-12-04 09:00
friday the 13th at 9               | 2027-08-13 09:00
the 1st at 8                       | 2026-12-01 08:00
the 1st                            | 2026-12-01 09:00
on the 1st at 8                    | 2026-12-01 08:00
the 28th at 18:00                  | 2026-11-28 18:00
the 25th at 18:00                  | 2026-11-25 18:00
the 25th at 9                      | 2026-12-25 09:00
the 31st at noon                   | 2026-12-31 12:00
8am on the 2nd                     | 2026-12-02 08:00
1st of the month at 9              | 2026-12-01 09:00
the 3rd of next month at 9         | 2026-12-03 09:00
5 march 9am                        | 2027-03-05 09:00
5 march at 9                       | 2027-03-05 09:00
5th of march at 9                  | 2027-03-05 09:00
the 5th of march at 9              | 2027-03-05 09:00
march 5 at 9                       | 2027-03-05 09:00
march 5th at 9am                   | 2027-03-05 09:00
march 5 2028 at 9                  | 2028-03-05 09:00
march 5th, 2028 at noon            | 2028-03-05 12:00
5 mar 2027 17:00                   | 2027-03-05 17:00
24 december at 18:00               | 2026-12-24 18:00
dec 24 at 6pm                      | 2026-12-24 18:00
1 november at 9                    | 2027-11-01 09:00
29 february at 9                   | 2028-02-29 09:00
2026-12-24 at 18:00                | 2026-12-24 18:00
2026-12-24 6pm                     | 2026-12-24 18:00
last day of the month at 18:00     | 2026-11-30 18:00
the last day of the month at noon  | 2026-11-30 12:00
last day of next month at 18:00    | 2026-12-31 18:00
last day of february at 9          | 2027-02-28 09:00
first monday of december at 9      | 2026-12-07 09:00
first monday of the month at 9     | 2026-12-07 09:00
first monday of next month at 9    | 2026-12-07 09:00
second tuesday of january 2027 at 9 | 2027-01-12 09:00
last friday of the month at 4pm    | 2026-11-27 16:00
last friday of next month at 4pm   | 2026-12-25 16:00
fifth monday of the month at 9     | 2026-11-30 09:00
in 2 hours                         | 2026-11-25 13:30
in two hours                       | 2026-11-25 13:30
in an hour                         | 2026-11-25 12:30
in 1 hour and 30 minutes           | 2026-11-25 13:00
in 1h30                            | 2026-11-25 13:00
in 1h 30m                          | 2026-11-25 13:00
in an hour and a half              | 2026-11-25 13:00
in half an hour                    | 2026-11-25 12:00
in a quarter of an hour            | 2026-11-25 11:45
in 45 minutes                      | 2026-11-25 12:15
in 90 mins                         | 2026-11-25 13:00
in 1.5 hours                       | 2026-11-25 13:00
in 0.25 hours                      | 2026-11-25 11:45
in a fortnight                     | 2026-12-09 11:30
in 3 fortnights at noon            | 2027-01-06 12:00
in 10 seconds                      | 2026-11-25 11:30:10
2 hours from now                   | 2026-11-25 13:30
a week from now                    | 2026-12-02 11:30
in 3 days                          | 2026-11-28 11:30
in 3 days at 9am                   | 2026-11-28 09:00
in a week                          | 2026-12-02 11:30
in 2 weeks                         | 2026-12-09 11:30
in two weeks at 9                  | 2026-12-09 09:00
in a week and 2 days               | 2026-12-04 11:30
in a month                         | 2026-12-25 11:30
in 3 months at noon                | 2027-02-25 12:00
in a year                          | 2027-11-25 11:30
in 2 days and 3 hours              | 2026-11-27 14:30
"""

# The clocks of Berlin go from 2:00 to 3:00 on 28 March 2027, and from 3:00 to 2:00 on 25 October
# 2026 and 31 October 2027. What follows "now" and a phrase is the instant with its offset.
CHANGES = """
2027-03-27 12:00 | tomorrow at 9                  | 2027-03-28T09:00:00+02:00
2027-03-27 12:00 | sunday at 3am                  | 2027-03-28T03:00:00+02:00
2027-03-27 12:00 | sunday at 1:59am               | 2027-03-28T01:59:00+01:00
2027-03-27 12:00 | in 24 hours                    | 2027-03-28T13:00:00+02:00
2027-03-27 12:00 | in a month                     | 2027-04-27T12:00:00+02:00
2027-03-27 12:00 | in 2 days at noon              | 2027-03-29T12:00:00+02:00
2027-03-28 01:30 | in an hour                     | 2027-03-28T03:30:00+02:00
2027-03-28 01:30 | in half an hour                | 2027-03-28T03:00:00+02:00
2027-03-20 12:00 | last sunday of the month at 9  | 2027-03-28T09:00:00+02:00
2026-10-24 12:00 | tomorrow at 2:30am             | 2026-10-25T02:30:00+02:00
2026-10-24 12:00 | tomorrow at 3am                | 2026-10-25T03:00:00+01:00
2026-10-24 12:00 | in 24 hours                    | 2026-10-25T11:00:00+01:00
2026-10-24 12:00 | sunday at 9                    | 2026-10-25T09:00:00+01:00
2026-10-24 12:00 | in 2 months                    | 2026-12-24T12:00:00+01:00
2026-10-25 01:30 | in 1 hour                      | 2026-10-25T02:30:00+02:00
2026-10-25 01:30 | in 2 hours                     | 2026-10-25T02:30:00+01:00
2027-10-30 23:30 | midnight                       | 2027-10-31T00:00:00+02:00
"""

AMBIGUOUS = """
next friday                 | Friday 2026-11-27 | Friday 2026-12-04
next thursday at 9          | Thursday 2026-11-26 | Thursday 2026-12-03
wednesday at 17:00          | 2026-11-25 17:00 | 2026-12-02 17:00
tomorrow at 5               | 5am | 5pm
at 6:30                     | 6:30am | 6:30pm
tomorrow at midnight        | 2026-11-26 00:00 | 2026-11-27 00:00
friday midnight             | 2026-11-27 00:00 | 2026-11-28 00:00
"""

OUTSIDE = """
9 tomorrow
tonight
tomorrow evening
tomorrow night at 2
next week
next month
yesterday
yesterday at 9
every day at 9
soon
now
in
in 2
in 1:30
in hours
in 2 hours and
in 2 hours and 2 hours
in 0 hours
in 2 hours at 9
in 1.333 hours
in 1.5 weeks
in 0.0 hours
tomorrow tomorrow
tomorrow at 9 at 10
9am 10am
tomorrow at 25
tomorrow at 9:75
13pm
0am
8 in the afternoon
13 in the morning
feb 30 at 9
the 32nd at 9
the 0th at 9
first monday at 9
thursday 4 december at 9
5/3 at 9
9am UTC
tomorrow 9am Berlin
in 999999 years
in 9999 years
٣ march at 9
"""


BOTH_WRONG = ("in two weeks at 9",)  # both libraries drop what begins with "at"


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


def instant(text: str, zone: str = ZONE) -> datetime:
    return parse_time(text.replace(" ", "T"), zone, datetime.min.replace(tzinfo=UTC))


def read(phrase: str, now: str = NOW) -> datetime:
    return read_instant(phrase, ZONE, instant(now))


@pytest.mark.parametrize(
    ("phrase", "right"), [row for row in rows(RIGHT) if row[1] != "refused"], ids=lambda text: text
)
def test_a_phrase_has_its_instant(phrase: str, right: str) -> None:
    assert in_zone(read(phrase), ZONE) == in_zone(instant(right), ZONE)


@pytest.mark.parametrize(("now", "phrase", "right"), rows(CHANGES))
def test_a_phrase_has_its_instant_around_changes_of_clocks(
    now: str, phrase: str, right: str
) -> None:
    assert in_zone(read(phrase, now), ZONE) == right


def test_most_phrases_are_taken() -> None:
    """At most 5 of 100 phrases that mean one thing are refused."""
    refused = [row for row in rows(RIGHT) if row[1] == "refused"]
    assert len(rows(RIGHT)) + len(rows(CHANGES)) >= 145
    assert len(refused) * 20 <= len(rows(RIGHT))
    for phrase, _ in refused:
        with pytest.raises(OutsideGrammarError):
            read(phrase)


@pytest.mark.parametrize(("phrase", "first", "second"), rows(AMBIGUOUS))
def test_two_readings_are_refused_with_both(phrase: str, first: str, second: str) -> None:
    with pytest.raises(AmbiguousError) as refusal:
        read(phrase)
    assert refusal.value.readings == (first, second)


@pytest.mark.parametrize(
    ("now", "phrase"),
    [("2027-03-27 12:00", "in 1 day"), ("2027-03-26 12:00", "in 2 days and 3 hours"),
     ("2026-10-24 12:00", "in a week"), ("2026-10-31 12:00", "in a month"),
     ("2027-01-30 12:00", "in a month")],
)  # fmt: skip
def test_days_that_are_not_24_hours_and_short_months_can_mean_two_things(
    now: str, phrase: str
) -> None:
    with pytest.raises(AmbiguousError):
        read(phrase, now)


@pytest.mark.parametrize("weekday", ["monday", "friday", "sunday"])
@pytest.mark.parametrize("day", range(23, 30))
def test_this_weekday_is_never_past(weekday: str, day: int) -> None:
    now = f"2026-11-{day} 11:30"
    assert read(f"this {weekday} at 9", now) > instant(now)


@pytest.mark.parametrize("phrase", ["tonight", "tomorrow evening", "monday afternoon"])
def test_a_part_of_a_day_is_told_to_name_a_time_that_is_taken(phrase: str) -> None:
    with pytest.raises(OutsideGrammarError) as refusal:
        read(phrase)
    advised = refusal.value.hint.removeprefix("Say at what time, too: ").removesuffix(".")
    assert advised.startswith(phrase)
    assert read(advised) > instant(NOW)


def test_a_time_that_clocks_jump_over_is_refused() -> None:
    with pytest.raises(PromptyoselfError) as refusal:
        read("tomorrow at 2:30am", "2027-03-27 12:00")
    assert refusal.value.code == "nonexistent_time"


@pytest.mark.parametrize("phrase", OUTSIDE.strip().splitlines())
def test_what_is_outside_the_grammar_is_refused(phrase: str) -> None:
    with pytest.raises(OutsideGrammarError):
        read(phrase)


def test_a_long_text_is_refused_at_once() -> None:
    with pytest.raises(OutsideGrammarError):
        read("tomorrow at 9am " * 100_000)


def test_where_two_libraries_agree_the_grammar_does() -> None:
    """Each of them is wrong about some phrases, but seldom both in the same way."""
    now, agreed = datetime.fromisoformat(NOW), 0
    calendar = parsedatetime.Calendar()
    settings = {"RELATIVE_BASE": now, "PREFER_DATES_FROM": "future"}
    for phrase, right in rows(RIGHT):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            first = dateparser.parse(phrase, languages=["en"], settings=settings)
            second, status = calendar.parseDT(phrase, sourceTime=now)
        if status and first == second and phrase not in BOTH_WRONG:
            assert first == datetime.fromisoformat(right), phrase
            agreed += 1
    assert agreed >= 40


VOCABULARY = sorted(
    {*words.WEEKDAYS, *words.MONTHS, *words.ORDINALS, *words.NUMBERS, *words.UNITS}
    | {*words.DAY_PARTS, "at", "on", "in", "the", "of", "next", "this", "last", "tonight", "from"}
    | {"tomorrow", "today", "noon", "midnight", "am", "pm", ",", "0", "1", "5", "9", "12", "17"}
    | {"31", "1st", "31st", "9:00", "25:00", "2027", "2026-02-30", "now", "and", "half"}
)


@given(st.lists(st.sampled_from(VOCABULARY), max_size=8).map(" ".join), st.datetimes())
def test_any_words_are_read_or_refused(phrase: str, now: datetime) -> None:
    """There is no other exception, and neither spaces nor capitals change what is understood."""
    now = now.replace(tzinfo=UTC)
    try:
        understood = read_instant(phrase, ZONE, now)
    except (OutsideGrammarError, AmbiguousError):
        return
    except PromptyoselfError as error:
        if error.code not in ("nonexistent_time", "invalid_time"):
            raise
        return
    assert understood.tzinfo is UTC
    assert read_instant(f"  {phrase.upper()}  ", ZONE, now) == understood
