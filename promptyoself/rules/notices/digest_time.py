"""When a destination gets its digest, and which time that tells of. Pure.

A digest comes once a day, at a time of the clock on the wall. A time that clocks jump over comes
right after the jump, and one that they show twice comes the first time, as for schedules.
"""

from datetime import datetime, time, timedelta, tzinfo

from promptyoself.core.times import DAY, midnight, to_instant, wall_time

_LATEST_FIRST = timedelta(hours=1)
"""How late the first digest may come. A destination that was defined later in the day gets its
first one on the next."""

_AHEAD = DAY
"""A digest that ends later than this from now was sent by a clock that was ahead."""


def due_digest(
    at: time,
    zone: tzinfo,
    last_until: datetime | None,
    now: datetime,
    *,
    late_first: bool = False,
) -> tuple[datetime, datetime] | None:
    """The time that a digest is to tell of, without its beginning and with its end; ``None`` where
    none is due. ``last_until`` is the end of the time that the digest before told of. With
    ``late_first`` the first digest may come at any time: it was tried when it was due.

    However many were missed, there is one that tells of the whole time. If the one before was sent
    by a clock that was ahead, nobody knows what it left out, so the next tells of a day.
    """
    before, latest = [instant for instant in _around(at, zone, now) if instant <= now][-2:]
    if last_until is not None and is_of_clock_ahead(last_until, now):
        return before, latest
    if last_until is None:
        return (before, latest) if late_first or now - latest <= _LATEST_FIRST else None
    return (last_until, latest) if last_until < latest else None


def is_of_clock_ahead(until: datetime, now: datetime) -> bool:
    """Whether a digest of the time ``until`` then was sent by a clock that was days ahead."""
    return until > now + _AHEAD


def next_digest(at: time, zone: tzinfo, now: datetime) -> datetime:
    """When the next digest becomes due, after ``now``."""
    return next(instant for instant in _around(at, zone, now) if instant > now)


def _around(at: time, zone: tzinfo, now: datetime) -> list[datetime]:
    """The times of digests from some days before to some days after an instant. Where a zone has
    left out a day, two of them are one."""
    today = midnight(wall_time(now, zone))
    wall = timedelta(hours=at.hour, minutes=at.minute)
    return sorted({to_instant(today + day * DAY + wall, zone) for day in range(-4, 4)})
