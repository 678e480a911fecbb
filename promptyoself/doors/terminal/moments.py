"""Instants, lengths of time and recurrences as people say them. Pure."""

from __future__ import annotations

import re
from calendar import day_name
from datetime import datetime, timedelta

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import DAY, wall_time, zone_named

_LENGTHS = (
    (timedelta(days=365), "y"),
    (DAY, "d"),
    (timedelta(hours=1), "h"),
    (timedelta(minutes=1), "min"),
    (timedelta(seconds=1), "s"),
)
_FEW = 3  # of a unit; below it the next smaller unit is said too


def moment(instant: str, zone: str, now: datetime | None) -> str:
    """An instant as ``Mon 30 Nov 09:00``, by the clocks of ``zone``; as ``today 09:00``, where
    ``now`` is that day; in another year than ``now``, with the year instead of the weekday.
    Seconds are said only if there are any."""
    there = wall_time(parse_utc(instant), zone_named(zone))
    here = None if now is None else wall_time(now, zone_named(zone))
    clock = f"{there:%H:%M:%S}" if there.second else f"{there:%H:%M}"
    if here is not None and there.date() == here.date():
        return f"today {clock}"
    if here is not None and there.year == here.year:
        return f"{there:%a} {there.day} {there:%b} {clock}"
    return f"{there.day} {there:%b} {there.year} {clock}"


def distance(instant: str, now: datetime, *, rounded: bool = False) -> str:
    """How far an instant is from ``now``: ``in 2 d 3 h``, ``3 h ago``, ``now``. ``rounded`` gives
    the nearest whole number of a single unit."""
    ahead = parse_utc(instant) - now
    length = _rounded(abs(ahead)) if rounded else length_of(abs(ahead))
    if not length:
        return "now"
    return f"in {length}" if ahead > timedelta(0) else f"{length} ago"


def _rounded(length: timedelta) -> str:
    for unit, name in _LENGTHS:
        if count := round(length / unit) if length >= unit else 0:
            return f"{count} {name}"
    return ""


def length_of(length: timedelta) -> str:
    """A length of time in its largest unit, or in two while there are few of the first, as in
    ``1 d 4 h``. Empty below a second."""
    for index, (unit, name) in enumerate(_LENGTHS):
        count = length // unit
        if count == 0:
            continue
        words = f"{count} {name}"
        if count < _FEW and index + 1 < len(_LENGTHS):
            smaller, smaller_name = _LENGTHS[index + 1]
            rest = (length - count * unit) // smaller
            words += f" {rest} {smaller_name}" if rest else ""
        return words
    return ""


def recurrence(kind: str, value: str, zone: str, home: str) -> str:
    """How a schedule recurs, in words. The zone of the clocks that it goes by is named where it
    isn't ``home``, the reader's own."""
    if kind == "once":
        return "once"
    if kind == "interval":
        return f"every {value}"
    words = in_words(value) if kind == "cron" else value
    return words + ("" if zone == home else f" ({zone})")


def in_words(expression: str) -> str:
    """A cron expression in words: ``weekdays at 09:00``. It stays as it is where words would
    mislead: cron-descriptor joins a day of the month and a weekday by "and", but cron fires on
    either."""
    from cron_descriptor import (
        FormatError,
        MissingFieldError,
        Options,
        WrongArgumentError,
        get_description,
    )

    fields = expression.split()
    if len(fields) != 5 or not (fields[2].startswith("*") or fields[4].startswith("*")):
        return expression
    options = Options()
    options.use_24hour_time_format = True
    options.locale_code = "en_US"
    try:
        words: str = get_description(expression, options)
    except (FormatError, MissingFieldError, WrongArgumentError, ValueError, IndexError):
        return expression
    for day in day_name[:7]:
        words = words.replace(day, day[:3])
    for long, short in _SHORTER:
        words = words.replace(long, short)
    if match := re.fullmatch(r"At ([0-9:]{5}(?:(?:,| and|, and) [0-9:]{5})*)(?:, (.*))?", words):
        words = f"{match[2] or 'daily'} at {match[1]}"
    return words[:1].lower() + words[1:] if words.startswith(("Every", "At", "On")) else words


_SHORTER = (
    (", and ", " and "),
    (" through ", " to "),
    ("Mon to Fri", "weekdays"),
    (", only on ", ", "),
    (", only in ", " in "),
    (", on the ", ", "),
    (", on day ", ", day "),
    (", between ", " between "),
    (" minutes", " min"),
)
