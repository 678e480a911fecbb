"""Zones whose clocks change, walked minute by minute without the software."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim


@lru_cache
def changes(zone: str, first: int, last: int) -> list[tuple[datetime, timedelta, timedelta]]:
    """Each change of the zone's offset between the beginnings of two years: when, to the second,
    from what, and to what."""
    info, second, changed = ZoneInfo(zone), timedelta(seconds=1), []

    def offset(instant: datetime) -> timedelta:
        return instant.astimezone(info).utcoffset() or timedelta(0)

    begin, end = datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC)
    for days in range((end - begin).days):
        low, high = begin + timedelta(days=days), begin + timedelta(days=days + 1)
        before, after = offset(low), offset(high)
        while before != after and high - low > second:
            middle = low + (high - low) // second // 2 * second
            low, high = (middle, high) if offset(middle) == before else (low, middle)
        if before != after:
            changed.append((high, before, offset(high)))
    return changed


def is_fixed(expression: str) -> bool:
    minute, hour = expression.split()[:2]
    return not minute.startswith("*") and not hour.startswith("*")


@lru_cache(maxsize=4)
def walls(zone: str, start: datetime, hours: int) -> list[tuple[datetime, datetime]]:
    """Each minute of a stretch of real time, with what the clock on the wall shows."""
    info = ZoneInfo(zone)
    minutes = (start + timedelta(minutes=m) for m in range(1, hours * 60 + 1))
    return [(at, at.astimezone(info).replace(tzinfo=None)) for at in minutes]


def walk(expression: str, zone: str, start: datetime, hours: int) -> list[datetime]:
    """Debian's rules said again without any arithmetic on offsets: look at each minute's clock.

    A job that follows the clock fires where the clock shows it. A fixed-time job fires where the
    clock first comes to a time, or first passes it by jumping.
    """
    before = timedelta(days=2)  # what the clock has shown before `start` counts too
    named = CronSim(expression, start)
    found, furthest = [], None
    for at, wall in walls(zone, start - before, hours + 48):
        if is_fixed(expression):
            passed = [wall] if furthest is None else []
            while furthest is not None and furthest < wall:
                furthest += timedelta(minutes=1)
                passed.append(furthest)
            furthest = wall if furthest is None else furthest
        else:
            passed = [wall]
        if at > start and any(
            w.minute in named.minutes
            and w.hour in named.hours
            and w.month in named.months
            and named.match_day(w.date())
            for w in passed
        ):
            found.append(at)
    return found
