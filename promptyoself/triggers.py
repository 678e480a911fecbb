"""When a schedule fires: once, on a cron expression, or at an interval; and how times are read.

Pure: nothing here reads a clock or a file other than the time zone data, and ``now`` is always an
argument. Every instant that goes in or out is an aware datetime, and every one that comes out is in
UTC. croniter (0.1 s to import) and zoneinfo are imported only where one is really needed.

How a cron expression meets a change of clocks is Debian's (Vixie) rule:

* A *fixed-time* job, whose minute and hour fields both start with something else than ``*``, runs
  once for every wall time it names. A time inside a spring gap runs right after the gap, and times
  that meet there are one slot; a time that an autumn overlap repeats runs the first time only.
* Any other job follows the clock on the wall: nothing in the gap, both passes of the overlap.

Debian's cron gives up this rule for changes of 3 hours or more; here it holds for all of them, so
that no slot vanishes where a zone skips a whole day.

croniter is asked one thing only, which calendar days match, on naive dates. Given an aware datetime
it has other rules, and it reads some fields as no cron does (``5-5`` as every minute, ``sat-sun``
as a range that wraps), so the syntax is checked here, more strictly, and the times of the day and
their mapping to instants are ours. Days are looked for up to 50 years ahead, which misses nothing:
what recurs most rarely, a 29 February on one weekday, never waits longer than 40.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile
from typing import Any

from promptyoself.errors import PromptyoselfError
from promptyoself.instants import format_utc, parse_utc

__all__ = [
    "Trigger",
    "count_slots",
    "format_duration",
    "in_zone",
    "last_slot",
    "next_fire_time",
    "parse_cron",
    "parse_duration",
    "parse_time",
    "parse_zone",
    "require_future",
    "slots",
]

_DAY = timedelta(days=1)
_TICK = timedelta(
    microseconds=1
)  # what datetime can tell apart: "at or after t" is "after t - _TICK"
_END = datetime.max.replace(tzinfo=UTC)
# Cron is computed between these, so that no step of the arithmetic leaves datetime's range.
_FIRST = datetime(1, 1, 8, tzinfo=UTC)
_LAST = datetime(9999, 12, 24, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Trigger:
    """When to fire. ``value`` is canonical text, as the functions below return it.

    ``kind`` is ``once`` (value: an instant as ``format_utc`` spells it), ``cron`` (five fields,
    read in ``zone``) or ``interval`` (a duration). An interval fires at ``anchor`` + k times its
    length for k = 0, 1, 2, …, so it never drifts. Since the answer to "what comes next" is always
    strictly later than the question, a schedule anchored at its registration first fires one length
    after it; one with ``start_at`` is anchored there, and first fires at ``start_at`` itself.
    ``start_at`` and ``until`` bound the fires of every kind, both inclusive.

    Raises:
        ValueError: the kind is unknown or an interval has no anchor (the caller's mistake, not the
            user's).
    """

    kind: str
    value: str
    zone: str = "UTC"
    anchor: datetime | None = None
    start_at: datetime | None = None
    until: datetime | None = None

    def __post_init__(self) -> None:
        if self.kind not in ("once", "cron", "interval"):
            raise ValueError(f"no such kind of trigger: {self.kind!r}")
        if self.kind == "interval" and self.anchor is None:
            raise ValueError("an interval needs an anchor")


# --- the fires of a trigger --------------------------------------------------------------------


def next_fire_time(trigger: Trigger, after: datetime) -> datetime | None:
    """Say when ``trigger`` first fires strictly after ``after`` (aware); None if it never will."""
    return next(slots(trigger, after, _END), None)


def slots(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield every fire in (``after``, ``until``], ascending, each computed when it is asked for.

    Raises:
        PromptyoselfError: the trigger's own text or zone is invalid (see ``parse_cron``,
            ``parse_duration`` and ``parse_zone``). Likewise for the three functions beside this.
        ValueError: a datetime is naive.
    """
    low, high = _window(trigger, after, until)
    if low >= high:
        return iter(())
    if trigger.kind == "cron":
        return takewhile(lambda fire: fire <= high, _cron_fires(trigger, low))
    start, step, indices = _arithmetic(trigger, low, high)
    return (start + k * step for k in indices)


def count_slots(trigger: Trigger, after: datetime, until: datetime) -> int:
    """Count the fires in (``after``, ``until``]: at once, except for cron, which walks them."""
    if trigger.kind == "cron":
        return sum(1 for _ in slots(trigger, after, until))
    return len(_arithmetic(trigger, *_window(trigger, after, until))[2])


def last_slot(trigger: Trigger, after: datetime, until: datetime) -> datetime | None:
    """Find the latest fire in (``after``, ``until``]; for cron, by walking no more than its day."""
    low, high = _window(trigger, after, until)
    if low >= high:
        return None
    if trigger.kind != "cron":
        start, step, indices = _arithmetic(trigger, low, high)
        return start + indices[-1] * step if indices else None
    low, high = max(low, _FIRST), min(high, _LAST)
    zone = _zone(trigger.zone)
    # No fire up to `high` is later than the first one found forward from the last matching day, and
    # going forward keeps the two passes of an overlap, even one across midnight, in their order.
    for day in _days(_plan(trigger.value), _midnight(_wall(high, zone)), back=True):
        begin = max(low, _instant(day, zone) - _TICK)
        last = None
        for last in takewhile(lambda fire: fire <= high, _cron_fires(trigger, begin)):  # noqa: B007
            pass
        if last is not None or begin == low:
            return last
    return None


def _window(trigger: Trigger, after: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Narrow (after, until] by the trigger's own bounds."""
    low, high = _utc(after), _utc(until)
    if trigger.start_at is not None and trigger.start_at > low:
        low = _utc(trigger.start_at) - _TICK
    if trigger.until is not None and trigger.until < high:
        high = _utc(trigger.until)
    return low, high


def _arithmetic(
    trigger: Trigger, low: datetime, high: datetime
) -> tuple[datetime, timedelta, range]:
    """Give a start, a step, and the k for which start + k * step is a fire in (low, high]."""
    if trigger.anchor is None or trigger.kind == "once":
        instant = parse_utc(trigger.value)
        return instant, timedelta(0), range(1 if low < instant <= high else 0)
    anchor, step = _utc(trigger.anchor), timedelta(seconds=_seconds(trigger.value))
    # `high` is itself a datetime, so no fire up to it can overflow.
    return anchor, step, range(max(0, (low - anchor) // step + 1), (high - anchor) // step + 1)


# --- cron: days, times of the day, and the instants they come to -------------------------------


@dataclass(frozen=True, slots=True)
class _Plan:
    """A cron expression taken apart once."""

    fixed: bool  # a fixed-time job, in the sense of the module's docstring
    times: tuple[timedelta, ...]  # the times of a matching day, ascending
    search: Any  # a croniter, copied for each use since it has a position; None: every day matches


@lru_cache(maxsize=256)
def _plan(expression: str) -> _Plan:
    minute, hour, day, month, weekday = _cron_fields(expression)
    times = tuple(timedelta(hours=h, minutes=m) for h in hour.values for m in minute.values)
    days = f"0 0 {day.for_croniter()} {month.for_croniter()} {weekday.for_croniter()}"
    search = None
    if days != "0 0 * * *":
        from croniter import croniter

        # The "bug" is Vixie cron's: where the day of the month or of the week starts with `*`, both
        # must match (`0 9 */2 * 1`); only where neither does is it either of them.
        search = croniter(days, 0, ret_type=datetime, implement_cron_bug=True)
    return _Plan(not (minute.starred or hour.starred), times, search)


def _days(plan: _Plan, day: datetime, back: bool = False) -> Iterator[datetime]:
    """Yield the matching days from ``day`` (a naive midnight) on, or back, itself included."""
    step = -_DAY if back else _DAY
    if plan.search is None:
        while _FIRST.year <= day.year and day < _LAST.replace(tzinfo=None):
            yield day
            day += step
        return
    search = copy(plan.search)
    search.set_current(day - step / 1440)  # a minute aside: croniter's answer is never its start
    while True:
        try:
            day = search.get_prev() if back else search.get_next()
        except (ValueError, OverflowError):  # none in 50 years, or the calendar's end is nearer
            return
        if day >= _LAST.replace(tzinfo=None):
            return
        yield day


def _cron_fires(trigger: Trigger, low: datetime) -> Iterator[datetime]:
    """Yield every fire of a cron trigger after ``low``, ascending, without end."""
    plan, zone = _plan(trigger.value), _zone(trigger.zone)
    low = max(low, _FIRST)
    if low >= _LAST:
        return iter(())
    return _fixed_fires(plan, zone, low) if plan.fixed else _clock_fires(plan, zone, low)


def _fixed_fires(plan: _Plan, zone: tzinfo, low: datetime) -> Iterator[datetime]:
    """Each named wall time once. Wall times in order are instants in order, equal ones merged."""
    wall, last = _wall(low, zone), low
    today = _midnight(wall)
    if wall - today >= plan.times[-1]:
        today += _DAY  # asking for a day is what costs, and today has nothing left
    for day in _days(plan, today):
        offset = _offset(day, zone)
        # Looking from the early side of one midnight to the late side of the next also sees a
        # change that has a midnight inside its gap or overlap.
        steady = offset == _offset((day + _DAY).replace(fold=1), zone)
        base = (day - offset).replace(tzinfo=UTC)
        for moment in plan.times[bisect_right(plan.times, wall - day) :]:
            fire = base + moment if steady else _instant(day + moment, zone)
            if fire > last:
                yield fire
                last = fire


def _clock_fires(plan: _Plan, zone: tzinfo, low: datetime) -> Iterator[datetime]:
    """Each instant at which the clock on the wall shows a named time.

    It goes from one change of the offset to the next; between them the wall clock just runs. A
    change is noticed two days ahead of need, because an overlap (24 h at most, ever) brings back
    wall times of the day before. No zone has changed twice within four days since there are zones
    (within six, since 1945), so that comparing the two ends of at most three days cannot miss one.
    """
    start = low + _TICK
    while True:
        wall, offset = _wall(start, zone), _offset(start, zone)
        today = _midnight(wall)
        if wall - today > plan.times[-1] and _offset(start + 2 * _DAY, zone) == offset:
            today += _DAY  # it has nothing left, and nothing brings it back
        known, change = start, None  # the offset holds up to `known`; `change` is where it ends
        for day in _days(plan, today):
            base = (day - offset).replace(tzinfo=UTC)
            if change is None:
                if base > known + _DAY:  # a leap over days that don't match: look afresh from there
                    start = _instant(day, zone)
                    break
                ahead = base + 2 * _DAY
                if _offset(ahead, zone) == offset:
                    known = ahead
                else:
                    change = _change(zone, known, ahead)
            end = len(plan.times)
            if change is not None:
                end = bisect_left(plan.times, change - base)
            for moment in plan.times[bisect_left(plan.times, start - base) : end]:
                yield base + moment
            if change is not None and base + _DAY >= change:
                start = change
                break
        else:
            return


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"a datetime without a zone: {instant!r}")
    return instant.astimezone(UTC)


def _wall(instant: datetime, zone: tzinfo) -> datetime:
    """Say what a clock on the wall shows, as a naive datetime."""
    return instant.astimezone(zone).replace(tzinfo=None)


def _midnight(wall: datetime) -> datetime:
    return datetime(wall.year, wall.month, wall.day)  # noqa: DTZ001


def _offset(when: datetime, zone: tzinfo) -> timedelta:
    """Give the offset from UTC at an aware instant or a naive wall time (which has a fold)."""
    local = when.replace(tzinfo=zone) if when.tzinfo is None else when.astimezone(zone)
    return local.utcoffset() or timedelta(0)


def _change(zone: tzinfo, before: datetime, after: datetime) -> datetime:
    """Find the first instant in (before, after] whose offset isn't that of ``before``."""
    before, offset = before.replace(microsecond=0), _offset(before, zone)
    while after - before > timedelta(seconds=1):  # zones change on whole seconds
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, zone) == offset:
            before = middle
        else:
            after = middle
    return after


def _exists(wall: datetime, zone: tzinfo) -> bool:
    """Say whether clocks in the zone ever show this naive time, or jump over it."""
    return _wall(wall.replace(tzinfo=zone).astimezone(UTC), zone) == wall


def _instant(wall: datetime, zone: tzinfo) -> datetime:
    """Turn a naive wall time into UTC: in an overlap the first pass, in a gap the gap's end."""
    if _exists(wall, zone):
        return wall.replace(tzinfo=zone).astimezone(UTC)
    # Read with the offset after the gap, it is an instant before the gap's end, and vice versa.
    early, late = ((wall - _offset(wall.replace(fold=f), zone)).replace(tzinfo=UTC) for f in (1, 0))
    return _change(zone, early, late)


# --- reading cron expressions ------------------------------------------------------------------

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()  # noqa: SIM905
_WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()  # noqa: SIM905
# (name, smallest, largest, names); 7 is Sunday too
_FIELDS: tuple[tuple[str, int, int, list[str]], ...] = (
    ("minute", 0, 59, []),
    ("hour", 0, 23, []),
    ("day of the month", 1, 31, []),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 7, _WEEKDAYS),
)
_ITEM = re.compile(r"(\*|[0-9]{1,4}|[A-Z]{3})(?:(?<!\*)-([0-9]{1,4}|[A-Z]{3}))?(?:/([0-9]{1,4}))?")
_LONGEST_CRON = 1000  # characters; listing all 60 minutes takes 169
_CRON_HINT = (
    "Write five fields: minute, hour, day of the month, month, day of the week; for example"
    " '30 9 * * MON-FRI', or a macro such as @daily."
)
_ITEM_HINT = (
    "Use *, numbers, ranges (1-5), steps (*/15), lists (1,3) and three-letter names of months and"
    " weekdays; L, W, #, ? and H aren't part of Debian's cron."
)
_MONTH_LENGTHS = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class _Field:
    text: str  # canonical
    values: tuple[int, ...]  # ascending; Sunday is 0
    size: int  # how many values there could be

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")

    def for_croniter(self) -> str:
        """Spell the values so that croniter can't read them otherwise, the leading star kept.

        ``*/size`` is the field's lowest value alone, which every field with a star contains.
        """
        if self.starred and len(self.values) == self.size:
            return "*"
        return (f"*/{self.size}," if self.starred else "") + ",".join(map(str, self.values))


def parse_cron(text: str) -> str:
    """Check a cron expression and return it canonical: single spaces, names in capitals.

    Fields are ``*``, numbers, names of months and weekdays, ranges, steps and lists of them; macros
    come back as their five fields. Spellings of one value stay different (``MON`` isn't ``1``).

    Raises:
        PromptyoselfError: ``invalid_cron``, or ``cron_never_fires`` for a day that no month has.
    """
    fields = _cron_fields(text)
    expression = " ".join(field.text for field in fields)
    day, month, weekday = fields[2:]
    if (day.starred or weekday.starred) and day.values[0] > max(
        _MONTH_LENGTHS[m] for m in month.values
    ):
        raise PromptyoselfError(
            "cron_never_fires",
            f"The cron expression {expression!r} never fires: no month it names has"
            f" a day {day.values[0]}.",
            "Choose a day of the month that exists, or other months.",
            value=expression,
        )
    return expression


def _cron_fields(text: str) -> list[_Field]:
    if len(text) > _LONGEST_CRON:
        raise _cron_error(text, f"is longer than {_LONGEST_CRON} characters")
    words = text.upper().split()
    if len(words) == 1 and words[0].startswith("@"):
        macro = _MACROS.get(words[0].lower())
        if macro is None:
            known = ", ".join(sorted(_MACROS))
            raise _cron_error(text, "isn't a known macro", f"The macros are {known}.")
        words = macro.split()
    if len(words) != 5:
        many = (
            "no fields" if not words else "1 field" if len(words) == 1 else f"{len(words)} fields"
        )
        seconds = "; seconds and years aren't supported" if len(words) in (6, 7) else ""
        raise _cron_error(text, f"has {many}, not five{seconds}")
    return [_field(text, word, field) for word, field in zip(words, _FIELDS, strict=True)]


def _field(text: str, word: str, spec: tuple[str, int, int, list[str]]) -> _Field:
    name, low, high, names = spec
    week = high == 7
    size = 7 if week else high - low + 1

    def fault(problem: str, hint: str = _ITEM_HINT) -> PromptyoselfError:
        return _cron_error(text, f"has {problem} in its {name} field {_shown(word)}", hint)

    def number(token: str) -> int:
        value = names.index(token) + low if token in names else int(token)
        if not low <= value <= high:
            raise fault(token, f"Values there go from {low} to {high}.")
        return value

    items: list[str] = []
    values: set[int] = set()
    for item in word.split(","):
        match = _ITEM.fullmatch(item)
        ends = [end for end in match.group(1, 2) if end] if match else []
        if not match or not all(end.isdigit() or end in ["*", *names] for end in ends):
            raise fault(_shown(item) if item else "an empty item")
        step = int(match.group(3) or 1)
        if not 1 <= step <= size:
            # Others accept `*/90` for the minute, and fire at minute 0 only; nobody means that.
            hint = f"Steps there go from 1 to {size}; for any other length use an interval."
            raise fault(f"the step {step}", hint)
        first, last = (low, high) if ends == ["*"] else (number(ends[0]), number(ends[-1]))
        if match.group(3) and len(ends) == 1:
            if week and ends != ["*"]:  # up to Saturday in some crons, to the next Sunday in others
                raise fault(f"the open range {item}", f"Say where it ends: {ends[0]}-SAT/{step}.")
            last = high
        if week and first > 0 and ends[-1] == "SUN":
            last = 7
        if last < first:
            hint = f"Write it in two: {first}-{high - week},{low}-{last}."
            raise fault(f"the backward range {item}", hint)
        values.update(value % 7 if week else value for value in range(first, last + 1, step))
        spelled = "-".join(str(int(end)) if end.isdigit() else end for end in ends)
        items.append(spelled + (f"/{step}" if match.group(3) else ""))
    return _Field(",".join(items), tuple(sorted(values)), size)


def _cron_error(text: str, problem: str, hint: str = "") -> PromptyoselfError:
    message = f"The cron expression {_shown(text)} {problem}."
    return PromptyoselfError("invalid_cron", message, hint or _CRON_HINT, value=text[:200])


# --- reading durations, zones and times --------------------------------------------------------

_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile("".join(f"(?:([0-9]{{1,12}}){unit})?" for unit in _UNITS))
_LONGEST = 36500 * 86400  # seconds: a hundred years
_DURATION_HINT = "Write 90s, 5m, 2h30m, 1d or 1w: whole numbers, no spaces, the largest unit first."
_ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*")
# Names that depend on the machine, that count leap seconds, or that are no place at all.
_NO_ZONES = re.compile(r"(?:posix|right)(?:/.*)?|localtime|posixrules|Factory")
_DATE_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,6})?)?)"
    r" ?([Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)
_CLOCK = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_TIME_HINT = (
    "Write 2026-11-21T09:00, 2026-11-21T09:00:00+01:00 or 2026-11-21T08:00:00Z; or 'in 45m';"
    " or 09:00 for the next time the clock shows it."
)


def parse_duration(text: str) -> int:
    """Read ``90s``, ``5m``, ``2h30m``, ``1d`` or ``1w`` as seconds, from 1 s to a hundred years.

    Raises:
        PromptyoselfError: ``invalid_duration``.
    """

    def fault(problem: str) -> PromptyoselfError:
        message = f"The duration {_shown(text)} {problem}."
        return PromptyoselfError("invalid_duration", message, _DURATION_HINT, value=text[:200])

    stripped = text.strip()
    if re.fullmatch(r"-[0-9a-z.]+", stripped):
        raise fault("must be more than zero")
    match = _DURATION.fullmatch(stripped)
    if not match or not stripped:
        plain = stripped.isascii() and stripped.isdigit()
        raise fault("has no unit" if plain else "isn't a duration")
    seconds = sum(
        int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS.values(), strict=True)
    )
    if seconds == 0:
        raise fault("must be more than zero")
    if seconds > _LONGEST:
        raise fault("is more than a hundred years")
    return seconds


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


_seconds = lru_cache(maxsize=256)(parse_duration)


def parse_zone(text: str) -> str:
    """Check the IANA name of a time zone and return it.

    Raises:
        PromptyoselfError: ``unknown_zone``.
    """
    name = text.strip()
    _zone(name)
    return name


@lru_cache(maxsize=64)
def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC
    from zoneinfo import ZoneInfo

    if len(name) <= 64 and _ZONE.fullmatch(name) and not _NO_ZONES.fullmatch(name):
        try:
            return ZoneInfo(name)
        except (KeyError, ValueError, OSError):  # not there; not a zone's file; a directory
            pass
    raise PromptyoselfError(
        "unknown_zone", f"There is no time zone {_shown(name)}.", _zone_hint(name), value=name[:200]
    )


def _zone_hint(name: str) -> str:
    from difflib import get_close_matches
    from zoneinfo import available_timezones

    wanted = name[:64].strip().lower().replace(" ", "_")
    known = {zone.lower(): zone for zone in sorted(available_timezones())}
    close = [zone for low, zone in known.items() if low.rpartition("/")[2] == wanted]
    close = close or [known[low] for low in get_close_matches(wanted, known)]
    hint = "Give an IANA name such as Europe/London, America/New_York or UTC."
    return f"Did you mean {', '.join(close[:3])}? {hint}" if close else hint


def parse_time(text: str, zone: str, now: datetime) -> datetime:
    """Read a time as an aware UTC datetime, which may be in the past (see ``require_future``).

    It is a date and time in ISO 8601, with an offset or else read in ``zone``; or ``in`` and a
    duration, from ``now``, rounded up to a whole second; or ``HH:MM`` or ``HH:MM:SS``, the next
    instant strictly after ``now`` at which clocks in the zone show that. Of the two passes of an
    autumn overlap, a date and time means the first, and ``HH:MM`` the first that is still to come.

    Raises:
        PromptyoselfError: ``invalid_time``; ``nonexistent_time`` for a local time that clocks jump
            over, also if it is the next one that ``HH:MM`` names; ``unknown_zone``.
    """
    local, words = _zone(zone), text.strip()
    try:
        if match := _DATE_TIME.fullmatch(words):
            date, clock, offset = match.groups()
            instant = datetime.fromisoformat(f"{date}T{clock}{(offset or '').upper()}")
            if instant.tzinfo is not None:
                return instant.astimezone(UTC)
            if not _exists(instant, local):
                raise _nonexistent(instant, zone)
            return _instant(instant, local)
        if match := _CLOCK.fullmatch(words):
            hour, minute, second = (int(part or 0) for part in match.groups())
            return _next_showing(time(hour, minute, second), zone, now)
        if match := re.fullmatch(r"[Ii][Nn]\s+(.*)", words, re.DOTALL):
            instant = _utc(now) + timedelta(seconds=parse_duration(match.group(1)))
            return instant + timedelta(microseconds=-instant.microsecond % 1_000_000)
        problem, hint = "isn't a time", _TIME_HINT
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", words):
            problem, hint = "is a date without a time", f"Add the time of day: {words}T09:00."
    except (ValueError, OverflowError):
        problem, hint = "is out of range: there is no such date or time", _TIME_HINT
    except PromptyoselfError as error:
        if error.code != "invalid_duration":
            raise
        problem, hint = f"isn't a time: {error.message.removesuffix('.')}", error.hint
    message = f"{_shown(text)} {problem}."
    raise PromptyoselfError("invalid_time", message, hint, value=text[:200])


def _next_showing(clock: time, zone: str, now: datetime) -> datetime:
    """Find the next instant after ``now`` at which clocks in the zone show the time."""
    local, today = _zone(zone), _midnight(_wall(_utc(now), _zone(zone)))
    found: list[tuple[datetime, datetime]] = []  # (instant, the wall time it was looked for as)
    for days in (-1, 0, 1):  # yesterday too: an overlap across midnight brings its evening back
        wall = datetime.combine(today + days * _DAY, clock)
        found.append((_instant(wall, local), wall))
        if _exists(wall, local):
            found.append((wall.replace(tzinfo=local, fold=1).astimezone(UTC), wall))
    instant, wall = min(pair for pair in found if pair[0] > now)
    if not _exists(wall, local):
        raise _nonexistent(wall, zone)
    return instant


def _nonexistent(wall: datetime, zone: str) -> PromptyoselfError:
    local = _zone(zone)
    end = _instant(wall, local)
    before, after = in_zone(end - timedelta(seconds=1), zone), in_zone(end, zone)
    left = (end + _offset(end - timedelta(seconds=1), local)).replace(tzinfo=None)
    return PromptyoselfError(
        "nonexistent_time",
        f"The time {wall.isoformat()} doesn't exist in {zone}: clocks there jump from"
        f" {left.isoformat()} to {_wall(end, local).isoformat()}.",
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
        return instant.astimezone(_zone(zone)).isoformat()
    except OverflowError:  # within hours of year 1 or 9999, where local time has no name
        return _utc(instant).isoformat()


def _shown(text: str) -> str:
    """Quote what the user wrote, so that nothing in it can break a line or flood the answer."""
    return ascii(text if len(text) <= 80 else text[:77] + "...")
