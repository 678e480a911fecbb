"""How times are written and read: durations, time zones, wall clocks and instants.

Pure: ``now`` is always an argument, and nothing is read but the time zone data. Every instant that
goes in or out is an aware datetime, and every one that comes out is in UTC. zoneinfo is imported
only where a zone other than UTC is named.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND, format_utc

DAY = timedelta(days=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NAIVE_EPOCH = _EPOCH.replace(tzinfo=None)

# --- wall clocks and instants -------------------------------------------------------------------


def utc(instant: datetime) -> datetime:
    """The same instant in UTC. Raises ``ValueError`` for a naive datetime."""
    if instant.tzinfo is None:
        raise ValueError(f"a datetime without a zone: {instant!r}")
    return instant.astimezone(UTC)


def wall_time(instant: datetime, zone: tzinfo) -> datetime:
    """Say what a clock on the wall shows, as a naive datetime."""
    return instant.astimezone(zone).replace(tzinfo=None)


def midnight(wall: datetime) -> datetime:
    """The beginning of a naive time's day."""
    return datetime(wall.year, wall.month, wall.day)  # noqa: DTZ001


def offset_of(when: datetime, zone: tzinfo) -> timedelta:
    """Give the offset from UTC at an aware instant or a naive wall time (which has a fold)."""
    local = when if when.tzinfo is None else when.astimezone(zone)
    return zone.utcoffset(local) or timedelta(0)


def instant_at(wall: datetime, offset: timedelta) -> datetime:
    """The instant of a naive wall time where clocks are ``offset`` from UTC."""
    # This sum takes a seventh of the time of `replace(tzinfo=UTC)`, and cron needs it for each day.
    return _EPOCH + (wall - offset - _NAIVE_EPOCH)


def next_change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """Find the first instant in (before, after] with another offset than ``before``, if any."""
    start, offset = before.replace(microsecond=0), offset_of(before, zone)
    seconds = range((after - start) // timedelta(seconds=1))  # zones change on whole seconds

    def is_changed(second: int) -> bool:
        return offset_of(start + timedelta(seconds=second), zone) != offset

    return start + timedelta(seconds=bisect_left(seconds, True, key=is_changed))


def exists(wall: datetime, zone: tzinfo) -> bool:
    """Say whether clocks in the zone ever show this naive time, or jump over it."""
    return wall_time(wall.replace(tzinfo=zone).astimezone(UTC), zone) == wall


def to_instant(wall: datetime, zone: tzinfo) -> datetime:
    """Turn a naive wall time into UTC: in an overlap the first pass, in a gap the gap's end."""
    if exists(wall, zone):
        return wall.replace(tzinfo=zone).astimezone(UTC)
    # Read with the offset after the gap, it is an instant before the gap's end, and vice versa.
    early, late = (instant_at(wall, offset_of(wall.replace(fold=f), zone)) for f in (1, 0))
    return next_change(zone, early, late)


# --- reading durations, zones and times --------------------------------------------------------

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_LONGEST = 36500 * 86400  # seconds: a hundred years
_DURATION_HINT = (
    "Write 90s, 5m, 2h30m, 1d or 1w: whole numbers, no spaces, the largest unit first; a number"
    " alone is seconds."
)
# Patterns are compiled where they are used first: most commands use none of them.
_ZONE = r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*"
# Names that depend on the machine, that count leap seconds, or that are no place at all.
_NO_ZONES = r"(?:posix|right)(?:/.*)?|localtime|posixrules|Factory"
_DATE_TIME = (
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?)"
    r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_DATE = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
_CLOCK = r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?"
_DAY_END = r"24:00(?::00(?:[.,]0{1,9})?)?"  # another name of the next day's 00:00
_TIME_HINT = (
    "Write 2026-11-21T09:00, 2026-11-21T09:00:00+01:00 or 2026-11-21T08:00:00Z; or 'in 45m';"
    " or 09:00 for the next time the clock shows it."
)


def parse_duration(text: str) -> int:
    """Read ``90s``, ``5m``, ``2h30m``, ``1d`` or ``1w`` as seconds, from 1 s to a hundred years.

    A whole number without a unit is seconds.

    Raises:
        PromptyoselfError: ``invalid_duration``.
    """

    def fault(problem: str) -> PromptyoselfError:
        message = f"The duration {shown(text)} {problem}."
        meant = _in_units(text)
        hint = f"Did you mean {meant}? {_DURATION_HINT}" if meant else _DURATION_HINT
        return PromptyoselfError("invalid_duration", message, hint, value=text[:200])

    stripped = text.strip()
    seconds = _sum_of(stripped)
    if seconds is None and stripped.isascii() and stripped.isdigit() and len(stripped) <= 12:
        seconds = int(stripped)
    if seconds is None:
        if re.fullmatch(r"-[0-9a-z.]+", stripped):
            raise fault("must be more than zero")
        raise fault("isn't a duration")
    if seconds == 0:
        raise fault("must be more than zero")
    if seconds > _LONGEST:
        raise fault("is more than a hundred years")
    return seconds


def _in_units(text: str) -> str:
    """A duration in words, such as ``5 minutes``, as one that is taken; empty for other texts."""
    parts = re.findall(r"([0-9]+) *(w|d|h|m|s)(?:eek|ay|our|in|inute|ec|econd|r)?s?(?![a-z])", text)
    rest = re.sub(r"[0-9]+ *[a-z]+|,|\band\b|\s", "", text)
    spelled = "".join(number + unit for number, unit in parts)
    return spelled if parts and not rest and _sum_of(spelled) else ""


def number_of_seconds(text: str) -> float | None:
    """Read seconds that may have decimals: ``0.5`` or ``1e3``, with or without an ``s``, or a
    duration. ``None`` if the text is neither."""
    words = text.strip()
    if not words.isascii():
        return None
    try:
        return float(words.removesuffix("s"))
    except ValueError:
        seconds = _sum_of(words)
        return None if seconds is None else float(seconds)


def _sum_of(text: str) -> int | None:
    """The seconds of ``1w2d3h4m5s``, with all its parts or some; ``None`` for other texts."""
    # Without a pattern: compiling one takes longer than all the rest of `--every 5m`.
    seconds, rest = 0, text
    for unit, length in _UNITS.items():
        count, unit_there, after = rest.partition(unit)
        if unit_there:
            if not (count.isascii() and count.isdigit() and len(count) <= 12):
                return None
            seconds += int(count) * length
            rest = after
    return seconds if text and not rest else None


def format_duration(seconds: int) -> str:
    """Spell seconds canonically, ``1d2h30m``: largest unit first, days the largest.

    Raises:
        PromptyoselfError: ``invalid_duration`` if it isn't more than zero.
    """
    if seconds <= 0:
        message = f"A duration of {seconds} seconds must be more than zero."
        raise PromptyoselfError("invalid_duration", message, _DURATION_HINT, value=str(seconds))
    text = ""
    for unit in "dhms":
        count, seconds = divmod(seconds, _UNITS[unit])
        text += f"{count}{unit}" if count else ""
    return text


seconds_of = lru_cache(maxsize=256)(parse_duration)
"""As :func:`parse_duration`, once for each text."""


def parse_zone(text: str) -> str:
    """Check the IANA name of a time zone that somebody chose, and return it.

    ``EST``, ``MST`` and ``HST`` are refused, though the time zone data has them. They have no
    summer time, and people who write them rarely mean that. Older logs have them all the same.

    Raises:
        PromptyoselfError: ``unknown_zone``.
    """
    name = text.strip()
    if name in ("EST", "MST", "HST"):
        message = f"{name} is an offset without summer time, not the clocks of a place."
        raise _unknown_zone(name, message)
    zone_named(name)
    return name


@lru_cache(maxsize=64)
def zone_named(name: str) -> tzinfo:
    """The time zone of that IANA name. Raises ``unknown_zone``."""
    zone = _zone_of(name)
    if zone is None:
        raise _unknown_zone(name, f"There is no time zone {shown(name)}.")
    return zone


def is_zone(name: str) -> bool:
    """Whether this machine knows a time zone of that IANA name."""
    return _zone_of(name) is not None


def _zone_of(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    if len(name) <= 64 and re.fullmatch(_ZONE, name) and not re.fullmatch(_NO_ZONES, name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # not there; not a zone's file; a directory
            pass
    return None


def _unknown_zone(name: str, message: str) -> PromptyoselfError:
    from promptyoself.core.zones import zone_hint

    return PromptyoselfError("unknown_zone", message, zone_hint(name), value=name[:200])


def parse_time(text: str, zone: str, now: datetime) -> datetime:
    """Read a time as an aware UTC datetime, which may be in the past (see ``require_future``).

    * A date and time in ISO 8601. Without an offset it is read in ``zone``.
    * ``in`` and a duration, counted from ``now`` and rounded up to a whole second.
    * ``HH:MM`` or ``HH:MM:SS``: the next instant after ``now`` at which clocks in the zone show it.

    An autumn overlap shows a time twice. A date and time means the first of the two, and ``HH:MM``
    the first that is still to come. ``24:00`` is the next day's 00:00. Decimals of a second below
    the microsecond are dropped.

    Raises:
        PromptyoselfError: ``invalid_time``; ``nonexistent_time`` for a local time that clocks jump
            over, also if it is the next one that ``HH:MM`` names; ``unknown_zone``.
    """
    words = text.strip()
    with _refusing_what_is_no_time(text):
        if match := re.fullmatch(_DATE_TIME, words):
            day, clock, offset = match.groups()
            ends = re.fullmatch(_DAY_END, clock) is not None
            clock = "00:00" if ends else clock
            instant = datetime.fromisoformat(f"{day}T{clock}{(offset or '').upper()}")
            instant += DAY * ends
            if instant.tzinfo is not None:
                return instant.astimezone(UTC)
            local = zone_named(zone)
            if not exists(instant, local):
                raise _nonexistent(instant, zone)
            return to_instant(instant, local)
        if match := re.fullmatch(_CLOCK, words):
            showings = _showings(_clock_of(match), zone, now)
            instant, wall = min(showing for showing in showings if showing[0] > now)
            if not exists(wall, zone_named(zone)):
                raise _nonexistent(wall, zone)
            return instant
        if match := re.fullmatch(r"[Ii][Nn]\s+(.*)", words, re.DOTALL):
            instant = utc(now) + timedelta(seconds=parse_duration(match.group(1)))
            return instant + timedelta(microseconds=-instant.microsecond % 1_000_000)
    if re.fullmatch(_DATE, words):
        raise _no_time(text, "is a date without a time", f"Add the time of day: {words}T09:00.")
    meant = f"Did you mean 'in {words}'? " if _sum_of(words) is not None else ""
    raise _no_time(text, "isn't a time", meant + _TIME_HINT)


@contextmanager
def _refusing_what_is_no_time(text: str) -> Iterator[None]:
    """Turn what is wrong with a part of a time into the error for all of it."""
    try:
        yield
    except (ValueError, OverflowError):
        problem = "is out of range: there is no such date or time"
        raise _no_time(text, problem, _TIME_HINT) from None
    except PromptyoselfError as error:
        if error.code != "invalid_duration":
            raise
        problem = f"isn't a time: {error.message.removesuffix('.')}"
        raise _no_time(text, problem, error.hint) from None


def _no_time(text: str, problem: str, hint: str) -> PromptyoselfError:
    return PromptyoselfError("invalid_time", f"{shown(text)} {problem}.", hint, value=text[:200])


def parse_moment(text: str, zone: str, now: datetime, *, end: bool = False) -> datetime:
    """Read a time in the past, as :func:`parse_time` does, with these differences:

    * ``HH:MM`` is the last instant up to ``now`` at which clocks showed it.
    * ``now`` is taken, and a duration, with or without ``ago``: it is counted back from ``now``.
    * A date alone is its first instant in ``zone``, or its last instant if ``end`` is true.

    Raises:
        PromptyoselfError: as :func:`parse_time`.
    """
    words = text.strip()
    with _refusing_what_is_no_time(text):
        if words.lower() == "now":
            return utc(now)
        if match := re.fullmatch(r"(.*\S)\s+[Aa][Gg][Oo]", words, re.DOTALL):
            return utc(now) - timedelta(seconds=parse_duration(match.group(1)))
        if _sum_of(words) is not None:
            return utc(now) - timedelta(seconds=parse_duration(words))
        if match := re.fullmatch(_CLOCK, words):
            clock = _clock_of(match)
            return max(shown_at for shown_at, _ in _showings(clock, zone, now) if shown_at <= now)
    return parse_bound(text, zone, now, end=end)


def parse_bound(text: str, zone: str, now: datetime, *, end: bool) -> datetime:
    """Read a bound of a schedule, as :func:`parse_time` does, or a date alone: its first instant in
    ``zone``, or its last instant if ``end`` is true.

    Raises:
        PromptyoselfError: as :func:`parse_time`.
    """
    words = text.strip()
    if not re.fullmatch(_DATE, words):
        return parse_time(text, zone, now)
    with _refusing_what_is_no_time(text):
        local, day = zone_named(zone), datetime.fromisoformat(words)
        if not end:
            return to_instant(day, local)
        if day.date() == date.max:  # which no day follows
            return day.replace(tzinfo=local).astimezone(UTC) + (DAY - MICROSECOND)
        return to_instant(day + DAY, local) - MICROSECOND


def _clock_of(match: re.Match[str]) -> time:
    hour, minute, second = (int(part or 0) for part in match.groups())
    return time(0 if (hour, minute, second) == (24, 0, 0) else hour, minute, second)


def _showings(clock: time, zone: str, now: datetime) -> list[tuple[datetime, datetime]]:
    """The instants around ``now`` at which clocks show the time, each with its wall time. Where
    clocks jump over the time, the instant is that of the jump."""
    local, today = zone_named(zone), midnight(wall_time(utc(now), zone_named(zone)))
    showings = []
    for days in (-1, 0, 1):  # yesterday too: an overlap across midnight brings its evening back
        wall = datetime.combine(today + days * DAY, clock)
        showings.append((to_instant(wall, local), wall))
        if exists(wall, local):
            showings.append((wall.replace(tzinfo=local, fold=1).astimezone(UTC), wall))
    return showings


def _nonexistent(wall: datetime, zone: str) -> PromptyoselfError:
    local = zone_named(zone)
    end = to_instant(wall, local)
    before, after = in_zone(end - timedelta(seconds=1), zone), in_zone(end, zone)
    left = (end + offset_of(end - timedelta(seconds=1), local)).replace(tzinfo=None)
    return PromptyoselfError(
        "nonexistent_time",
        f"The time {wall.isoformat()} doesn't exist in {zone}: clocks there jump from"
        f" {left.isoformat()} to {wall_time(end, local).isoformat()}.",
        f"The nearest times are {before} and {after}; give one of them, or another offset or zone.",
        value=wall.isoformat(),
        zone=zone,
        before=before,
        after=after,
    )


def require_future(instant: datetime, now: datetime, zone: str) -> None:
    """Refuse an instant that isn't later than ``now``.

    Raises:
        PromptyoselfError: ``past_time``, with both times as understood, in ``zone`` and in UTC.
    """
    if instant > now:
        return
    raise PromptyoselfError(
        "past_time",
        f"The time {in_zone(instant, zone)} ({format_utc(instant)}) isn't in the future:"
        f" it is {in_zone(now, zone)} ({format_utc(now)}) now.",
        "Give a later time; check the year and the zone, or write 'in 45m'.",
        time=format_utc(instant),
        now=format_utc(now),
        zone=zone,
    )


def in_zone(instant: datetime, zone: str) -> str:
    """Spell an instant as local time with its offset, ``2026-11-21T09:00:00+01:00``.

    Raises:
        PromptyoselfError: ``unknown_zone``.
    """
    try:
        return instant.astimezone(zone_named(zone)).isoformat()
    except OverflowError:  # within hours of year 1 or 9999, where local time has no name
        return utc(instant).isoformat()


def local_time(instant: datetime, zone: str) -> str | None:
    """As :func:`in_zone`; ``None`` where this machine doesn't know the zone."""
    return in_zone(instant, zone) if is_zone(zone) else None


def shown(text: str) -> str:
    """Quote what the user wrote, so that nothing in it can break a line or flood the answer."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
