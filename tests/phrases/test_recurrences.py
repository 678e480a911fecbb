"""Recurrences in words: what is understood fires when RFC 5545 says so, or it is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from dateutil.rrule import rrulestr
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.phrases import words
from promptyoself.phrases.recurrences import Recurrence, read_recurrence
from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError
from promptyoself.rules.calendar import parse_rule
from promptyoself.rules.cron_expressions import parse_cron
from promptyoself.rules.triggers import Trigger, slots

# The rules are written by hand, and expanded by dateutil.
CRON = """
every weekday at 9                        | 0 9 * * MON-FRI | WORKDAYS;BYHOUR=9
weekdays at 9                             | 0 9 * * MON-FRI | WORKDAYS;BYHOUR=9
at 9 on weekdays                          | 0 9 * * MON-FRI | WORKDAYS;BYHOUR=9
monday to friday at 9                     | 0 9 * * MON-FRI | WORKDAYS;BYHOUR=9
every monday through thursday at 9        | 0 9 * * MON-THU | DAILY;BYDAY=MO,TU,WE,TH;BYHOUR=9
every weekday morning at 8:30 | 30 8 * * MON-FRI | WORKDAYS;BYHOUR=8;BYMINUTE=30
every monday at 9:30                      | 30 9 * * MON    | WEEKLY;BYDAY=MO;BYHOUR=9;BYMINUTE=30
every week on monday at 9                 | 0 9 * * MON     | WEEKLY;BYDAY=MO;BYHOUR=9
weekly on mondays at 9                    | 0 9 * * MON     | WEEKLY;BYDAY=MO;BYHOUR=9
every monday and thursday at 8            | 0 8 * * MON,THU | WEEKLY;BYDAY=MO,TH;BYHOUR=8
mondays and thursdays at 8am              | 0 8 * * MON,THU | WEEKLY;BYDAY=MO,TH;BYHOUR=8
every mon, wed, and fri at 7:30  | 30 7 * * MON,WED,FRI | WEEKLY;BYDAY=MO,WE,FR;BYHOUR=7;BYMINUTE=30
every thursday at 4 in the afternoon      | 0 16 * * THU    | WEEKLY;BYDAY=TH;BYHOUR=16
every sunday at 10                        | 0 10 * * SUN    | WEEKLY;BYDAY=SU;BYHOUR=10
every weekend at 10                       | 0 10 * * SAT,SUN | WEEKEND;BYHOUR=10
weekends at noon                          | 0 12 * * SAT,SUN | WEEKEND;BYHOUR=12
every day at noon                         | 0 12 * * *      | DAILY;BYHOUR=12
every day at midnight                     | 0 0 * * *       | DAILY;BYHOUR=0
daily at 5pm                              | 0 17 * * *      | DAILY;BYHOUR=17
each day at 9                             | 0 9 * * *       | DAILY;BYHOUR=9
every morning at 8                        | 0 8 * * *       | DAILY;BYHOUR=8
every evening at 8                        | 0 20 * * *      | DAILY;BYHOUR=20
every night at 11                         | 0 23 * * *      | DAILY;BYHOUR=23
every day at 9 and 17                     | 0 9,17 * * *    | DAILY;BYHOUR=9,17
every day at 9am and 5pm                  | 0 9,17 * * *    | DAILY;BYHOUR=9,17
every day at 9:30, 13:30 and 18:30 | 30 9,13,18 * * * | DAILY;BYHOUR=9,13,18;BYMINUTE=30
the 1st of every month at 9               | 0 9 1 * *       | MONTHLY;BYMONTHDAY=1;BYHOUR=9
on the first of every month at 8          | 0 8 1 * *       | MONTHLY;BYMONTHDAY=1;BYHOUR=8
every month on the 1st at 9               | 0 9 1 * *       | MONTHLY;BYMONTHDAY=1;BYHOUR=9
monthly on the 15th at noon               | 0 12 15 * *     | MONTHLY;BYMONTHDAY=15;BYHOUR=12
1st and 15th of the month at 9            | 0 9 1,15 * *    | MONTHLY;BYMONTHDAY=1,15;BYHOUR=9
last day of the month at 18:00            | 0 18 L * *      | MONTHLY;BYMONTHDAY=-1;BYHOUR=18
last day of every month at 18:00          | 0 18 L * *      | MONTHLY;BYMONTHDAY=-1;BYHOUR=18
every month on the last day at 18:00      | 0 18 L * *      | MONTHLY;BYMONTHDAY=-1;BYHOUR=18
first monday of the month at 9            | 0 9 * * MON#1   | MONTHLY;BYDAY=1MO;BYHOUR=9
every first monday of the month at 9      | 0 9 * * MON#1   | MONTHLY;BYDAY=1MO;BYHOUR=9
second tuesday of every month at 10       | 0 10 * * TUE#2  | MONTHLY;BYDAY=2TU;BYHOUR=10
last friday of the month at 16:00         | 0 16 * * L5     | MONTHLY;BYDAY=-1FR;BYHOUR=16
last sunday of each month at 10           | 0 10 * * L0     | MONTHLY;BYDAY=-1SU;BYHOUR=10
every 5 march at 9                        | 0 9 5 3 *       | YEARLY;BYMONTH=3;BYMONTHDAY=5;BYHOUR=9
every year on march 5th at 9              | 0 9 5 3 *       | YEARLY;BYMONTH=3;BYMONTHDAY=5;BYHOUR=9
every 24th of december at 18:00 | 0 18 24 12 * | YEARLY;BYMONTH=12;BYMONTHDAY=24;BYHOUR=18
every monday in june and july at 9 | 0 9 * 6,7 MON | WEEKLY;BYDAY=MO;BYMONTH=6,7;BYHOUR=9
every day in december at 8                | 0 8 * 12 *      | DAILY;BYMONTH=12;BYHOUR=8
every 2 hours between 9 and 17 on weekdays | 0 9-17/2 * * MON-FRI | WORKDAYS;BYHOUR=9,11,13,15,17
every hour between 9 and 12               | 0 9-12 * * *    | DAILY;BYHOUR=9,10,11,12
every hour from 9 to noon on weekends     | 0 9-12 * * SAT,SUN | WEEKEND;BYHOUR=9,10,11,12
every 30 minutes between 9:00 and 10:30   | 0,30 9,10 * * * | DAILY;BYHOUR=9,10;BYMINUTE=0,30
every 15 minutes on mondays               | */15 * * * MON  | MINUTELY;INTERVAL=15;BYDAY=MO
every 2 hours between 22:00 and 02:00     | 0 0,2,22 * * *  | DAILY;BYHOUR=0,2,22
"""

INTERVALS = """
every 15 minutes | 15m
every 90 minutes | 90m
every minute     | 1m
every hour       | 1h
hourly           | 1h
every 2 hours    | 2h
every other hour | 2h
every half hour  | 30m
every 2 days     | 2d
every two weeks  | 2w
every 2 months   | 2mo
every other year | 2y
"""

RULES = """
every other friday at 16:00                | WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16
every other monday and thursday at 8am     | WEEKLY;INTERVAL=2;BYDAY=MO,TH;BYHOUR=8
every 2 weeks on friday at 16:00           | WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16
every 3 weeks on weekdays at 9             | WEEKLY;INTERVAL=3;BYDAY=MO,TU,WE,TH,FR;BYHOUR=9
every 2 days at 9                          | DAILY;INTERVAL=2;BYHOUR=9
every other day at 9 and 17                | DAILY;INTERVAL=2;BYHOUR=9,17
every 3 months on the 1st at 9             | MONTHLY;INTERVAL=3;BYMONTHDAY=1;BYHOUR=9
every other month on the last day at 18:00 | MONTHLY;INTERVAL=2;BYMONTHDAY=-1;BYHOUR=18
every 2 months on the first monday at 9    | MONTHLY;INTERVAL=2;BYDAY=1MO;BYHOUR=9
every 2 months on the last friday at 9     | MONTHLY;INTERVAL=2;BYDAY=-1FR;BYHOUR=9
"""

AMBIGUOUS = """
every day at 5                             | 5am | 5pm
every 2 hours between 9 and 5              | 5am | 5pm
every second friday at 16:00 | every other friday | the second friday of every month
every 2nd tuesday at 9 | every other tuesday | the second tuesday of every month
every third tuesday at 9 | every 3 weeks on tuesday | the third tuesday of every month
every month on the 31st at 9 | the last day of the month | a --cron that skips shorter months
"""

OUTSIDE = """
monday at 9
every weekday
every day at 9 and 17:30
every 30 minutes between 9 and 17
every 7 hours on mondays
every 2 hours between 22:00 and 02:00 on mondays
every 2 weeks at 9
every 2 months at 9
every 2 days on friday at 9
every 2 weeks on the 1st at 9
every 2 years at 9
every other friday
every other weekday at 9
every 61st of the month at 9
every 1st at 9
every 30 february at 9
sixth monday of the month at 9
twice a day
every
every 0 minutes
every quarter at 9
every day at 25
tomorrow at 9
"""

ADVICE = """
every day                 | every day at 9
daily                     | daily at 9
every week                | every week on monday at 9
weekly                    | weekly on monday at 9
every month               | every month on the 1st at 9
monthly                   | monthly on the 1st at 9
every year                | every year on january 1st at 9
every weekday             | every weekday at 9
every other friday        | every other friday at 9
monday and thursday at 9  | every monday and thursday at 9
mon-fri 9                 | mon-fri at 9
every monday 9            | every monday at 9
biweekly on monday        | every other monday at 9
bi-weekly on monday at 10 | every other monday at 10
every third day at 9      | every 3 days at 9
every 3rd day at 9        | every 3 days at 9
every second day at 9     | every 2 days at 9
every second hour         | every 2 hours
"""


def rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in table.strip().splitlines()]


@pytest.mark.parametrize("nothing", ["", "  ", "\t"])
def test_nothing_is_near_to_no_words(nothing: str) -> None:
    with pytest.raises(OutsideGrammarError) as outside:
        read_recurrence(nothing)
    assert outside.value.hint == ""


@pytest.mark.parametrize(("phrase", "cron", "rule"), rows(CRON))
def test_a_phrase_is_a_cron_expression(phrase: str, cron: str, rule: str) -> None:
    """It fires when the rule says so, for a year and a month."""
    assert read_recurrence(phrase) == Recurrence(cron=cron)
    start, end = datetime(2026, 11, 25, tzinfo=UTC), datetime(2027, 12, 31, 12, 45, tzinfo=UTC)
    rule = rule.replace("WORKDAYS", "DAILY;BYDAY=MO,TU,WE,TH,FR")
    rule = rule.replace("WEEKEND", "WEEKLY;BYDAY=SA,SU")
    whole = f"FREQ={rule}" + ("" if "BYMINUTE" in rule or "MINUTELY" in rule else ";BYMINUTE=0")
    expected = rrulestr(f"RRULE:{whole};BYSECOND=0", dtstart=start).between(start, end)
    assert list(slots(Trigger("cron", parse_cron(cron), "UTC"), start, end)) == [
        fire for fire in expected if fire > start
    ]


@pytest.mark.parametrize(("phrase", "every"), rows(INTERVALS))
def test_a_length_alone_is_an_interval(phrase: str, every: str) -> None:
    assert read_recurrence(phrase) == Recurrence(every=every)


@pytest.mark.parametrize(("phrase", "rule"), rows(RULES))
def test_every_so_many_days_weeks_or_months_are_a_rule(phrase: str, rule: str) -> None:
    assert read_recurrence(phrase) == Recurrence(rrule=f"FREQ={rule};BYMINUTE=0")


@pytest.mark.parametrize(("phrase", "first", "second"), rows(AMBIGUOUS))
def test_two_readings_are_refused_with_both(phrase: str, first: str, second: str) -> None:
    with pytest.raises(AmbiguousError) as refusal:
        read_recurrence(phrase)
    assert refusal.value.readings == (first, second)


@pytest.mark.parametrize("phrase", OUTSIDE.strip().splitlines())
def test_what_is_outside_the_grammar_is_refused(phrase: str) -> None:
    with pytest.raises(OutsideGrammarError):
        read_recurrence(phrase)


@pytest.mark.parametrize(("phrase", "advised"), rows(ADVICE))
def test_what_leaves_something_out_is_told_a_phrase_that_is_taken(
    phrase: str, advised: str
) -> None:
    with pytest.raises(OutsideGrammarError) as refusal:
        read_recurrence(phrase)
    assert refusal.value.hint == f"Write {advised!r}."
    read_recurrence(advised)


@pytest.mark.parametrize(
    ("phrase", "reason"),
    [
        ("every 0 minutes", "0 isn't taken"),
        ("every 30th of february", "no such day"),
        ("every 30 february at 9", "no such day"),
        ("every second", "every 2 hours"),
    ],
)
def test_what_is_wrong_with_a_phrase_is_said(phrase: str, reason: str) -> None:
    with pytest.raises(OutsideGrammarError, match=reason):
        read_recurrence(phrase)


VOCABULARY = sorted(
    {*words.WEEKDAYS, *words.MONTHS, *words.ORDINALS, *words.UNITS, *words.DAY_PARTS}
    | {"every", "each", "other", "weekdays", "daily", "monthly", "of", "the", "month", "last"}
    | {"between", "and", "from", "to", "at", "on", "in", ",", "9", "17", "5pm", "9:30", "1st"}
    | {"31st", "15", "0", "noon", "-", "year"}
)


@given(st.lists(st.sampled_from(VOCABULARY), max_size=9).map(" ".join))
def test_any_words_are_read_or_refused(phrase: str) -> None:
    """Whatever is understood is an expression or a rule that fires, or an interval."""
    try:
        understood = read_recurrence(phrase)
    except (OutsideGrammarError, AmbiguousError):
        return
    assert sum(map(bool, understood)) == 1
    start = datetime(2026, 11, 25, tzinfo=UTC)
    if understood.cron:
        trigger = Trigger("cron", parse_cron(understood.cron), "UTC")
        assert next(iter(slots(trigger, start, start + timedelta(days=366 * 8))))
    if understood.rrule:
        trigger = Trigger("rrule", parse_rule(understood.rrule), "UTC", start)
        assert next(iter(slots(trigger, start, datetime(9000, 1, 1, tzinfo=UTC))))
