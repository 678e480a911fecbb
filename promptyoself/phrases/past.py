"""A time that has passed, in words: ``yesterday``, ``last night``, ``2 hours ago``. Pure.

Looking back does no harm where it looks back too far. So a day, a part of a day, a week or a month
is taken without a time, and means all of it. Like elsewhere, what can mean two things is refused.
"""

from __future__ import annotations

from calendar import monthrange
from datetime import date, datetime, time, timedelta
from typing import NamedTuple

from promptyoself.core.instants import MICROSECOND
from promptyoself.core.times import (
    DAY,
    parse_moment,
    parse_time,
    to_instant,
    utc,
    wall_time,
    zone_named,
)
from promptyoself.phrases.clock import SpokenClock, read_clock
from promptyoself.phrases.instants import nth_day, read_amount
from promptyoself.phrases.words import (
    DAY_PARTS,
    FULL_WEEKDAYS,
    MONTHS,
    WEEKDAYS,
    AmbiguousError,
    OutsideGrammarError,
    Words,
    is_number,
)

_HOURS = {"morning": (6, 12), "afternoon": (12, 18), "evening": (18, 24), "night": (18, 30)}
"""From which hour to which each part of a day lasts; a night lasts into the next day."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_MONTHS = {"mo": 1, "y": 12}
_YEARS_BACK = 9  # the last 29 February can be eight years ago

EXAMPLES = (
    *("yesterday", "last night", "this morning", "yesterday morning", "yesterday evening"),
    *("today", "last week", "last month", "this week", "2 hours ago", "an hour ago", "3 days ago"),
    *(f"last {day}" for day in FULL_WEEKDAYS),
)
"""Phrases that people write often, with which others are compared that aren't taken."""


class _Days(NamedTuple):
    """Days that follow one another, as they were said."""

    first: date
    after: date  # the day after the last of them
    part: str = ""  # of the day, where one was said
    other: date | None = None  # the day that can be meant as well


def read_past(text: str, zone: str, now: datetime) -> tuple[datetime, datetime]:
    """The first and the last instant in UTC of what a phrase names, by the clocks of ``zone``.

    Raises:
        OutsideGrammarError: the text isn't a phrase of this grammar.
        AmbiguousError: it can mean two things.
        PromptyoselfError: ``nonexistent_time``, where clocks jumped over it; ``unknown_zone``.
    """
    words = Words(text)
    now = utc(now)
    try:
        span = words.attempt(_last_span, zone, now) or words.attempt(_ago, zone, now)
        first, last = span or _day_and_clock(words, zone, now)
    except (OverflowError, ValueError):
        raise OutsideGrammarError from None
    if not words.over:
        raise OutsideGrammarError
    return first, last


# --- spans --------------------------------------------------------------------------------------


def _last_span(words: Words, zone: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Read ``last 24 hours``, ``the past week``: what ends now."""
    words.take("the")
    which = words.take("last", "past")
    if not which:
        return None
    counted = is_number(words.peek()) or which == "past" or words.peek() in ("hour", "minute")
    if not counted:
        return None
    amount = words.attempt(read_amount) or words.attempt(_unit)
    return (_before(amount, zone, now), now) if amount else None


def _unit(words: Words) -> dict[str, int] | None:
    return read_amount(Words(f"1 {words.take(words.peek())}"))


def _ago(words: Words, zone: str, now: datetime) -> tuple[datetime, datetime] | None:
    """Read ``2 hours ago``, ``an hour and 20 minutes ago``, ``2 days ago at 17:00``."""
    total: dict[str, int] = {}
    while not words.take("ago"):
        amount = words.attempt(read_amount)
        if amount is None or amount.keys() & total.keys():
            return None
        total |= amount
        words.take(",")
        words.take("and")
    if not total:
        return None
    instant = _before(total, zone, now)
    if not words.over:
        clock = read_clock(words)
        if clock is None or total.keys() & {"h", "m", "s"}:
            raise OutsideGrammarError
        day = wall_time(instant, zone_named(zone)).date()
        instant = _at(day, clock.time(), zone, now)
    return instant, instant


def _before(amount: dict[str, int], zone: str, now: datetime) -> datetime:
    """The instant that lies so far before ``now``. Months keep the time on the wall, and end on the
    last day of a shorter month. Days have 24 hours, as in ``1d ago``."""
    seconds = sum(number * _SECONDS[unit] for unit, number in amount.items() if unit in _SECONDS)
    months = sum(number * _MONTHS[unit] for unit, number in amount.items() if unit in _MONTHS)
    instant = now
    if months:
        wall = wall_time(now, zone_named(zone))
        year, month = divmod(wall.year * 12 + wall.month - 1 - months, 12)
        day = min(wall.day, monthrange(year, month + 1)[1])
        instant = to_instant(wall.replace(year=year, month=month + 1, day=day), zone_named(zone))
    return instant - timedelta(seconds=seconds)


# --- days ---------------------------------------------------------------------------------------


def _day_and_clock(words: Words, zone: str, now: datetime) -> tuple[datetime, datetime]:
    """Read a day, or days, with a part of it or a time; or a time alone."""
    today = wall_time(now, zone_named(zone)).date()
    days: _Days | None = None
    clock: SpokenClock | None = None
    while not words.over:
        words.take(",")
        words.take("on")
        if days is None and (days := words.attempt(_days, today)):
            continue
        if clock is not None or (clock := read_clock(words)) is None:
            raise OutsideGrammarError
    if days is None:
        if clock is None:
            raise OutsideGrammarError
        instant = parse_moment(clock.time().isoformat(), zone, now)
        return instant, instant
    if days.other is not None:
        raise AmbiguousError("today", days.other.isoformat())
    if clock is None:
        return _all_of(days, zone)
    if days.after != days.first + DAY:
        raise OutsideGrammarError
    time_of_day = clock.time(days.part)
    if clock.mark == "midnight":
        raise AmbiguousError(*(f"{day} 00:00" for day in (days.first, days.after)))
    instant = _at(days.first, time_of_day, zone, now)
    return instant, instant


def _at(day: date, clock: time, zone: str, now: datetime) -> datetime:
    return parse_time(f"{day.isoformat()}T{clock.isoformat()}", zone, now)


def _all_of(days: _Days, zone: str) -> tuple[datetime, datetime]:
    """The first and the last instant of days, or of the part of a day."""
    first, after = (datetime.combine(day, time()) for day in (days.first, days.after))
    if days.part:
        begin, end = (timedelta(hours=hours) for hours in _HOURS[days.part])
        first, after = first + begin, first + end
    local = zone_named(zone)
    return to_instant(first, local), to_instant(after, local) - MICROSECOND


def _days(words: Words, today: date) -> _Days | None:
    """Read a day, a weekend, a week, a month or a year; ``None`` where none comes next."""
    for read in (_near_days, _weekday, _date):
        if days := words.attempt(read, today):
            return days
    return None


def _near_days(words: Words, today: date) -> _Days | None:
    for phrase in ("the day before yesterday", "day before yesterday"):
        if words.take_all(phrase):
            return _day(today - 2 * DAY, words)
    for word, days in (("today", 0), ("yesterday", 1)):
        if words.take(word):
            return _day(today - days * DAY, words)
    words.take("the")
    which = words.take("this", "last")
    if not which:
        return None
    back = int(which == "last")
    if part := words.take(*DAY_PARTS):
        if (part == "night") != bool(back) and part != "evening":
            return None
        return _Days(today - back * DAY, today - back * DAY + DAY, part)
    monday = today - today.weekday() * DAY
    if words.take("week"):
        return _Days(monday - 7 * back * DAY, monday - 7 * (back - 1) * DAY)
    if words.take("weekend"):
        if not back or today.weekday() >= WEEKDAYS["saturday"]:
            return None
        return _Days(monday - 2 * DAY, monday)
    if words.take("month"):
        number = today.year * 12 + today.month - 1 - back
        return _Days(_first_of(number), _first_of(number + 1))
    if words.take("year"):
        return _Days(date(today.year - back, 1, 1), date(today.year - back + 1, 1, 1))
    return None


def _first_of(month: int) -> date:
    """The first day of a month that is counted from the beginning of year 0."""
    return date(month // 12, month % 12 + 1, 1)


def _day(day: date, words: Words) -> _Days:
    """A day, and the part of it that is said next."""
    return _Days(day, day + DAY, words.take(*DAY_PARTS))


def _weekday(words: Words, today: date) -> _Days | None:
    which = words.take("this", "last")
    name = words.take_from(WEEKDAYS)
    if not name:
        return None
    back = (today.weekday() - WEEKDAYS[name]) % 7
    if which == "this" and back > today.weekday():
        return None  # it is to come
    if which == "last":
        back = back or 7
    day = _day(today - back * DAY, words)
    return day if back or which else day._replace(other=today - 7 * DAY)


def _date(words: Words, today: date) -> _Days | None:
    """Read ``5 march``, ``march 5th 2026``, ``the 5th of march``, ``the 1st`` or ``2026-03-05``."""
    if words.peek().count("-") == 2:
        return _day(date.fromisoformat(words.take(words.peek())), words)
    name = words.take_from(MONTHS)
    begins = words.take("the")
    number = words.ordinal() or (words.number() if is_number(words.peek()) else None)
    words.take("of")
    name = name or words.take_from(MONTHS)
    if not number or not (name or begins):
        return None
    words.take(",")
    if name and is_number(words.peek()) and len(words.peek()) == 4:
        months = [(int(words.take(words.peek())), MONTHS[name])]
    elif name:
        months = [(today.year - years, MONTHS[name]) for years in range(_YEARS_BACK)]
    else:
        newest = today.year * 12 + today.month - 1
        months = [divmod(newest - back, 12) for back in range(4)]
        months = [(year, month + 1) for year, month in months]
    for year, month in months:
        day = nth_day(year, month, number)
        if day is not None and day <= today:
            return _day(day, words)
    return None
