"""Instants and lengths of time as people say them. Pure."""

from __future__ import annotations

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
    try:
        there = wall_time(parse_utc(instant), zone_named(zone))
    except OverflowError:  # at an end of the calendar
        there = parse_utc(instant)
    here = None if now is None else wall_time(now, zone_named(zone))
    clock = f"{there:%H:%M:%S}" if there.second else f"{there:%H:%M}"
    if here is not None and there.date() == here.date():
        return f"today {clock}"
    if here is not None and there.year == here.year:
        return f"{there:%a} {there.day} {there:%b} {clock}"
    return f"{there.day} {there:%b} {there.year} {clock}"


def distance(instant: str, now: datetime, *, rounded: bool = False) -> str:
    """How far an instant is from ``now``: ``in 2 d 3 h``, ``3 h ago``, ``now``. ``rounded`` says
    the largest unit alone. What is left below the last unit is never rounded up, so that both ways
    agree about one instant."""
    ahead = parse_utc(instant) - now
    length = _rounded(abs(ahead)) if rounded else length_of(abs(ahead))
    if not length:
        return "now"
    return f"in {length}" if ahead > timedelta(0) else f"{length} ago"


def _rounded(length: timedelta) -> str:
    for unit, name in _LENGTHS:
        if count := length // unit:
            return f"{count} {name}"
    return ""


def length_of_seconds(seconds: float) -> str:
    """As :func:`length_of`. A number that no calendar has is said as it is."""
    try:
        return length_of(timedelta(seconds=seconds))
    except OverflowError:  # no writer of ours has put it there
        return f"{seconds} s"


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
