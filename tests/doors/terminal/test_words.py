"""Times as people say them: instants, distances, recurrences."""

from datetime import UTC, datetime, timedelta

import pytest

from promptyoself.core.instants import format_utc
from promptyoself.doors.terminal.moments import distance, moment
from promptyoself.doors.terminal.recurrences import in_words, recurrence, rule_in_words

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("0 9 * * *", "daily at 09:00"),
        ("0 9 * * MON-FRI", "weekdays at 09:00"),
        ("30 7 * * 1", "Mon at 07:30"),
        ("0 8,12,18 * * 6,0", "Sat and Sun at 08:00, 12:00 and 18:00"),
        ("0 18 1 * *", "day 1 of the month at 18:00"),
        ("0 18 L * *", "last day of the month at 18:00"),
        ("0 9 * * 1#1", "first Mon of the month at 09:00"),
        ("*/15 * * * *", "every 15 min"),
        ("0 */2 * * *", "every 2 hours"),
        ("0 9 * 1-3 *", "January to March at 09:00"),
        # cron fires on either of the two, which "and" would deny.
        ("0 9 1-7 * MON", "0 9 1-7 * MON"),
        ("of another version", "of another version"),
        ("", ""),
    ],
)
def test_cron_expressions_in_words(expression: str, words: str) -> None:
    assert in_words(expression) == words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("FREQ=DAILY;BYHOUR=9;BYMINUTE=30", "daily at 09:30"),
        ("FREQ=DAILY;INTERVAL=2;BYHOUR=7;BYMINUTE=0", "every other day at 07:00"),
        ("FREQ=WEEKLY;BYDAY=MO,WE;BYHOUR=9;BYMINUTE=0", "Mon and Wed at 09:00"),
        ("FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16;BYMINUTE=0", "every other Fri at 16:00"),
        ("FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9;BYMINUTE=0", "every month, first Mon at 09:00"),
        ("FREQ=MONTHLY;BYMONTHDAY=-1;BYHOUR=18;BYMINUTE=0", "every month, last day at 18:00"),
        (
            "FREQ=MONTHLY;INTERVAL=3;BYMONTHDAY=1;BYHOUR=8;BYMINUTE=0",
            "every 3 months, day 1 at 08:00",
        ),
        ("FREQ=DAILY", "daily"),
        ("FREQ=WEEKLY;INTERVAL=2", "every other week"),
        ("FREQ=WEEKLY", "every week"),
        ("FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9", "every month, first Mon at 09:00"),
        ("FREQ=MONTHLY;BYDAY=MO;BYHOUR=9;BYMINUTE=0;BYSETPOS=-1",) * 2,
        ("FREQ=MONTHLY;BYDAY=6XX;BYHOUR=9;BYMINUTE=0",) * 2,
        ("FREQ=DAILY;BYHOUR=x",) * 2,
        ("",) * 2,
    ],
)
def test_rules_in_words(rule: str, words: str) -> None:
    assert rule_in_words(rule) == words


def test_a_zone_is_named_where_it_is_not_the_readers() -> None:
    asked = ("cron", "0 9 * * *")
    assert recurrence(*asked, "Europe/London", "Europe/London") == "daily at 09:00"
    assert recurrence(*asked, "Europe/London", "UTC") == "daily at 09:00 (Europe/London)"
    assert recurrence("interval", "2h30m", "Europe/London", "UTC") == "every 2h30m"
    assert recurrence("once", "2027-01-01T00:00:00.000000Z", "UTC", "Asia/Tokyo") == "once"


@pytest.mark.parametrize(
    ("ahead", "whole", "rounded"),
    [
        ({"seconds": 0}, "now", "now"),
        ({"seconds": 59}, "in 59 s", "in 59 s"),
        ({"minutes": 90}, "in 1 h 30 min", "in 1 h"),
        ({"hours": 47}, "in 1 d 23 h", "in 1 d"),
        ({"minutes": 59, "seconds": 59}, "in 59 min", "in 59 min"),
        ({"hours": 23, "minutes": 59}, "in 23 h", "in 23 h"),
        ({"days": 3, "hours": 20}, "in 3 d", "in 3 d"),
        ({"days": 25, "hours": 22}, "in 25 d", "in 25 d"),
        ({"days": 400}, "in 1 y 35 d", "in 1 y"),
        ({"minutes": -5}, "5 min ago", "5 min ago"),
    ],
)
def test_distances(ahead: dict[str, int], whole: str, rounded: str) -> None:
    instant = format_utc(NOW + timedelta(**ahead))
    assert (distance(instant, NOW), distance(instant, NOW, rounded=True)) == (whole, rounded)


@pytest.mark.parametrize(
    ("instant", "zone", "said"),
    [
        ("2026-11-28T09:00:00.000000Z", "UTC", "today 09:00"),
        ("2026-11-28T09:00:07.000000Z", "UTC", "today 09:00:07"),
        ("2026-11-28T23:30:00.000000Z", "Europe/Berlin", "Sun 29 Nov 00:30"),
        ("2026-03-01T08:00:00.000000Z", "UTC", "Sun 1 Mar 08:00"),
        ("2027-03-01T08:00:00.000000Z", "UTC", "1 Mar 2027 08:00"),
        ("0001-01-01T00:00:00.000000Z", "America/New_York", "1 Jan 1 00:00"),
        ("9999-12-31T23:59:00.000000Z", "Asia/Tokyo", "31 Dec 9999 23:59"),
    ],
)
def test_instants(instant: str, zone: str, said: str) -> None:
    """By the reader's clocks; at the calendar's ends too."""
    assert moment(instant, zone, NOW) == said
