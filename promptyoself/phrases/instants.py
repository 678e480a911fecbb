"""One time in words: ``tomorrow 9am``, ``friday at 17:00``, ``the 1st at 8``, ``in 2 hours``.

Pure: ``now`` is an argument. A phrase that can mean two instants is refused with both.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from promptyoself.core.times import (
    DAY,
    in_zone,
    parse_time,
    to_instant,
    utc,
    wall_time,
    zone_named,
)
from promptyoself.phrases.clock import SpokenClock, read_clock
from promptyoself.phrases.words import (
    DAY_PARTS,
    FULL_WEEKDAYS,
    MONTHS,
    UNITS,
    WEEKDAYS,
    AmbiguousError,
    OutsideGrammarError,
    Words,
    is_number,
)

MORNING = time(9)
"""The time of a day that is named without one, as snooze buttons have it."""

EXAMPLES = (
    *("tomorrow", "tomorrow 9am", "tomorrow at 9", "day after tomorrow at noon", "today at 17:00"),
    *("noon", "midnight", "tonight at 9", "in 2 hours", "in an hour", "in half an hour"),
    *("in 45 minutes", "in 3 days", "in a week", "the 1st at 8", "last day of the month at 18:00"),
    *(f"{which}{day}{clock}" for which in ("", "next ", "this ") for day in FULL_WEEKDAYS
      for clock in ("", " 9am", " at 17:00")),
)  # fmt: skip
"""Phrases that people write often, with which others are compared that aren't taken."""

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_DAYS = {"d": 1, "w": 7}
_MONTHS = {"mo": 1, "y": 12}
_YEARS_AHEAD = 9  # a 29 February can be eight years away


class _Day(NamedTuple):
    """A day as it was said."""

    dates: tuple[date, ...]  # which days it can be, ascending; the first that is to come is meant
    part: str = ""  # of the day, where one was said
    is_weekday: bool = False  # whether it can be today or in a week


def read_instant(text: str, zone: str, now: datetime) -> datetime:
    """The instant in UTC that a phrase names, read by the clocks of ``zone``. It may be past.

    Raises:
        OutsideGrammarError: the text isn't a phrase of this grammar.
        AmbiguousError: it can mean two things.
        PromptyoselfError: ``nonexistent_time``, where clocks jump over it; ``unknown_zone``.
    """
    words = Words(text)
    if span := words.attempt(_span):
        return _instant_after(span, words, zone, now)
    day, clock = _day_and_clock(words, wall_time(utc(now), zone_named(zone)).date())
    if day is None:
        if clock is None:
            raise OutsideGrammarError
        return _instant(None, clock.time(), zone, now)
    if clock is None:
        if day.part not in ("", "morning"):
            hour = {"afternoon": "3pm", "evening": "7pm", "night": "8pm"}[day.part]
            said = " ".join(text.split())
            raise OutsideGrammarError(f"Say at what time, too: {said} at {hour}.")
        return _first_to_come(day, MORNING, zone, now)
    time_of_day = clock.time(day.part)
    if time_of_day == time(0) and not clock.surely_24:
        day = _at_midnight(day)
    return _first_to_come(day, time_of_day, zone, now)


def read_day(text: str, zone: str, now: datetime) -> date | None:
    """The day that a phrase names without a time, the next one that is to come by the clocks of
    ``zone``; ``None`` where it names a time.

    Raises:
        OutsideGrammarError: the text isn't a phrase of this grammar.
        AmbiguousError: it can mean two days.
        PromptyoselfError: ``unknown_zone``.
    """
    words = Words(text)
    if words.attempt(_span):
        return None
    today = wall_time(utc(now), zone_named(zone)).date()
    day, clock = _day_and_clock(words, today)
    if day is None or clock is not None or day.part:
        return None
    if day.is_weekday and day.dates[0] == today:
        raise AmbiguousError(*(f"{one:%A} {one}" for one in day.dates))
    if len(day.dates) == 1:
        return day.dates[0]
    return next((one for one in day.dates if one >= today), None)


def _day_and_clock(words: Words, today: date) -> tuple[_Day | None, SpokenClock | None]:
    """Read a day, a time of day or both, in whichever order."""
    day: _Day | None = None
    clock: SpokenClock | None = None
    while not words.over:
        words.take(",")
        words.take("on")
        if day is None and (day := words.attempt(_day, today)):
            continue
        if clock is not None or (clock := read_clock(words)) is None:
            raise OutsideGrammarError
    return day, clock


def _instant(day: date | None, clock: time, zone: str, now: datetime) -> datetime:
    """The instant of a time on a day, or of the next such time."""
    when = f"{day.isoformat()}T" if day else ""
    return parse_time(f"{when}{clock.isoformat()}", zone, now)


def _first_to_come(day: _Day, clock: time, zone: str, now: datetime) -> datetime:
    if len(day.dates) == 1:
        return _instant(day.dates[0], clock, zone, now)
    wall = wall_time(utc(now), zone_named(zone))
    to_come = [one for one in day.dates if datetime.combine(one, clock) > wall]
    if day.is_weekday and to_come[:1] == [wall.date()]:
        raise AmbiguousError(*(f"{one} {clock:%H:%M}" for one in day.dates))
    if not to_come:
        raise OutsideGrammarError
    return _instant(to_come[0], clock, zone, now)


def _at_midnight(day: _Day) -> _Day:
    """Midnight of tonight is the end of today; of another day it is its beginning or its end."""
    if day.part == "night":
        return _Day(tuple(one + DAY for one in day.dates))
    first = day.dates[0]
    raise AmbiguousError(f"{first} 00:00", f"{first + DAY} 00:00")


# --- spans: in 2 hours --------------------------------------------------------------------------


class _Span(NamedTuple):
    months: int
    days: int
    seconds: int


def _span(words: Words) -> _Span | None:
    """Read ``in`` and amounts of time, or amounts and ``from now``."""
    begins = words.take("in")
    totals: dict[str, int] = {}
    joined = True
    while joined:
        amount = words.attempt(read_amount)
        if amount is None or amount.keys() & totals.keys():
            return None
        totals |= amount
        words.take(",")
        joined = bool(words.take("and")) or is_number(words.peek())
    if not (begins or words.take_all("from now")):
        return None
    return _Span(
        sum(number * _MONTHS[unit] for unit, number in totals.items() if unit in _MONTHS),
        sum(number * _DAYS[unit] for unit, number in totals.items() if unit in _DAYS),
        sum(number * _SECONDS[unit] for unit, number in totals.items() if unit in _SECONDS),
    )


def read_amount(words: Words) -> dict[str, int] | None:
    """Read ``2 hours``, ``an hour and a half``, ``half an hour``, ``1h30``; as units' numbers."""
    if words.take_all("half an hour"):
        return {"m": 30}
    if words.take_all("a quarter of an hour"):
        return {"m": 15}
    if amount := words.attempt(_decimal):
        return amount
    number = words.number()
    if number and words.take("fortnight", "fortnights"):
        return {"w": 2 * number}
    unit = UNITS.get(words.take_from(UNITS), "")
    if not number or not unit:
        return None
    if unit == "h":
        if words.take_all("and a half"):
            return {"h": number, "m": 30}
        minutes = words.peek()
        if is_number(minutes) and len(minutes) == 2 and words.peek(1) not in UNITS:
            words.take(minutes)
            return {"h": number, "m": int(minutes)}
    return {unit: number}


def _decimal(words: Words) -> dict[str, int] | None:
    """Read ``1.5 hours``, where that is a whole number of seconds."""
    whole = words.number() if is_number(words.peek()) else None
    decimals = words.peek(1)
    if whole is None or not is_number(decimals) or len(decimals) > 2 or not words.take("."):
        return None
    words.take(decimals)
    unit = UNITS.get(words.take_from(UNITS), "")
    if unit not in ("h", "m"):
        return None
    scale = 10 ** len(decimals)
    seconds, rest = divmod((whole * scale + int(decimals)) * _SECONDS[unit], scale)
    return {"s": seconds} if seconds and not rest else None


def _instant_after(span: _Span, words: Words, zone: str, now: datetime) -> datetime:
    """The instant of a span after ``now``, rounded up to a whole second.

    Days and months keep the time on the wall, hours and minutes count what passes. Where a change
    of clocks makes days of 24 hours another instant, the phrase can mean two things.
    """
    local, wall = zone_named(zone), wall_time(utc(now), zone_named(zone))
    if span.months:
        year, month = divmod(wall.year * 12 + wall.month - 1 + span.months, 12)
        month += 1
        if year > 9999:
            raise OutsideGrammarError
        length = monthrange(year, month)[1]
        if wall.day > length:
            last = date(year, month, length)
            raise AmbiguousError(f"{last} {wall:%H:%M}", f"{last + DAY} {wall:%H:%M}")
        wall = wall.replace(year=year, month=month)
    try:
        wall += timedelta(days=span.days)
        if clock := read_clock(words):
            if not words.over or span.seconds or not (span.days or span.months):
                raise OutsideGrammarError
            return _instant(wall.date(), clock.time(), zone, now)
        if not words.over:
            raise OutsideGrammarError
        passed = timedelta(seconds=span.seconds)
        instant = utc(now) + timedelta(days=span.days) + passed
        if span.days or span.months:
            by_the_wall = to_instant(wall, local) + passed
            if not span.months and by_the_wall != instant:
                raise AmbiguousError(*_both(by_the_wall, instant, zone))
            instant = by_the_wall
    except OverflowError:
        raise OutsideGrammarError from None
    return instant + timedelta(microseconds=-instant.microsecond % 1_000_000)


def _both(first: datetime, second: datetime, zone: str) -> list[str]:
    return [in_zone(instant, zone) for instant in (first, second)]


# --- days ---------------------------------------------------------------------------------------


def _day(words: Words, today: date) -> _Day | None:
    """Read a day; ``None`` where none comes next."""
    for read in (_near_day, _weekday, _day_in_month, _date):
        if day := words.attempt(read, today):
            return day
    return None


def _near_day(words: Words, today: date) -> _Day | None:
    if words.take_all("the day after tomorrow") or words.take_all("day after tomorrow"):
        return _Day((today + 2 * DAY,), _part(words))
    if words.take("tonight"):
        return _Day((today,), "night")
    if words.take("this"):
        part = words.take(*DAY_PARTS)
        return _Day((today,), part) if part else None
    for word, days in (("today", 0), ("tomorrow", 1)):
        if words.take(word):
            return _Day((today + days * DAY,), _part(words))
    return None


def _part(words: Words) -> str:
    """The part of a day that is said after it: ``tomorrow morning``."""
    return words.take(*DAY_PARTS)


def _weekday(words: Words, today: date) -> _Day | None:
    which = words.take("this", "next", "coming")
    name = words.take_from(WEEKDAYS)
    if not name:
        return None
    part = _part(words)
    words.take(",")
    if of_date := words.attempt(_day_in_month, today):  # friday the 13th
        return _days(one for one in of_date.dates if one.weekday() == WEEKDAYS[name])
    if of_date := words.attempt(_date, today):
        return _days(one for one in of_date.dates[:2] if one.weekday() == WEEKDAYS[name])
    ahead = (WEEKDAYS[name] - today.weekday()) % 7
    monday = today - today.weekday() * DAY
    if which == "this":
        # On a Sunday, "this friday" is the coming one: nobody schedules for the past.
        return _Day((today + ahead * DAY, today + (ahead + 7) * DAY), part)
    if not which:
        return _Day((today + ahead * DAY, today + (ahead + 7) * DAY), part, is_weekday=True)
    soonest = today + (ahead or 7) * DAY
    if which == "next" and soonest != (of_next_week := monday + (7 + WEEKDAYS[name]) * DAY):
        raise AmbiguousError(*(f"{one:%A} {one}" for one in (soonest, of_next_week)))
    return _Day((soonest,), part)


def _day_in_month(words: Words, today: date) -> _Day | None:
    """Read ``the 1st``, ``last day of the month``, ``first monday of december 2027``."""
    words.take("the")
    last = words.take("last")
    number = -1 if last else words.ordinal()
    if not number:
        return None
    weekday = words.take_from(WEEKDAYS)
    if last and not weekday and not words.take("day"):
        return None
    months = _months_said(words, today)
    if months is None:
        if last or weekday:
            return None  # of which month?
        months = _from(today)
    named = (nth_day(year, month, number, weekday) for year, month in months)
    return _days(one for one in named if one)


def _months_said(words: Words, today: date) -> list[tuple[int, int]] | None:
    """Read ``of the month``, ``of next month``, ``of march 2027`` as years and months."""
    words.take("of", "in")
    for phrase in ("the month", "this month", "next month"):
        if words.take_all(phrase):
            months = _from(today)
            return {"the": months, "this": months[:1], "next": months[1:2]}[phrase.split()[0]]
    name = words.take_from(MONTHS)
    if not name:
        return None
    return [(year, MONTHS[name]) for year in _years(words, today)]


def _date(words: Words, today: date) -> _Day | None:
    """Read ``5 march``, ``march 5th 2027`` or ``2027-03-05``."""
    if words.peek().count("-") == 2:
        try:
            return _Day((date.fromisoformat(words.take(words.peek())),))
        except ValueError:
            raise OutsideGrammarError from None
    name = words.take_from(MONTHS)
    words.take("the")
    number = words.ordinal() or (words.number() if is_number(words.peek()) else None)
    name = name or words.take_from(MONTHS)
    if not name or not number:
        return None
    named = (nth_day(year, MONTHS[name], number) for year in _years(words, today))
    return _days(one for one in named if one)


def _years(words: Words, today: date) -> list[int]:
    """The year that is said, or those from this year on."""
    words.take(",")
    if is_number(words.peek()) and len(words.peek()) == 4:
        return [int(words.take(words.peek()))]
    return list(range(today.year, min(today.year + _YEARS_AHEAD, 10000)))


def _from(today: date) -> list[tuple[int, int]]:
    """This month and those of a year after it."""
    first = today.year * 12 + today.month - 1
    return [(number // 12, number % 12 + 1) for number in range(first, first + 14)]


def _days(dates: Iterator[date]) -> _Day:
    named = tuple(dates)
    if not named:
        raise OutsideGrammarError
    return _Day(named)


def nth_day(year: int, month: int, number: int, weekday: str = "") -> date | None:
    """The ``number``-th day of a month, or of its days of one weekday; -1 is the last. ``None``
    where the month hasn't that many."""
    length = monthrange(year, month)[1]
    days = [
        day
        for day in range(1, length + 1)
        if not weekday or date(year, month, day).weekday() == WEEKDAYS[weekday]
    ]
    if number > len(days):
        return None
    return date(year, month, days[number - 1 if number > 0 else -1])
