"""When a schedule fires: once, on a cron expression, or at an interval.

Pure: nothing here reads a clock or a file other than the time zone data, and ``now`` is always an
argument. Every instant that goes in or out is an aware datetime, and every one that comes out is in
UTC. zoneinfo is imported only where a zone other than UTC is named.

How a cron expression meets a change of clocks is Debian's (Vixie) rule:

* A *fixed-time* job, whose minute and hour fields both start with something else than ``*``, runs
  once for every wall time it names. A time inside a spring gap runs right after the gap, and times
  that meet there are one slot; a time that an autumn overlap repeats runs the first time only.
* Any other job follows the clock on the wall: nothing in the gap, both passes of the overlap.

Debian's cron gives up this rule for changes of 3 hours or more; here it holds for all of them, so
that no slot vanishes where a zone skips a whole day.

A day matches where its month does, and its day of the month and of the week: both of them where
one of the two fields starts with ``*``, else either. What recurs most rarely, a 29 February on one
weekday, comes up to 40 years later; since only the named months are looked at, that takes 40 looks.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import takewhile
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import (
    DAY,
    instant_at,
    midnight,
    next_change,
    offset_of,
    seconds_of,
    shown,
    to_instant,
    utc,
    wall_time,
    zone_named,
)
from promptyoself.events.kinds import SCHEDULE_TYPES

__all__ = [
    "Trigger",
    "count_slots",
    "last_slot",
    "next_fire_time",
    "parse_cron",
    "slots",
    "times_a_day",
]

_AT_ONCE = (timedelta(0),)
_TICK = timedelta(
    microseconds=1
)  # what datetime can tell apart: "at or after t" is "after t - _TICK"
_END = datetime.max.replace(tzinfo=UTC)
# Cron is computed between these, so that no step of the arithmetic leaves datetime's range.
_FIRST = datetime(1, 1, 8, tzinfo=UTC)
_LAST = datetime(9999, 12, 24, tzinfo=UTC)
_FIRST_DAY, _LAST_DAY = datetime(1, 1, 3), _LAST.replace(tzinfo=None)  # noqa: DTZ001


class _Fields(NamedTuple):
    kind: str
    value: str
    zone: str
    anchor: datetime | None
    start_at: datetime | None
    until: datetime | None
    without: tuple[tuple[datetime, datetime], ...]


class Trigger(_Fields):
    """When to fire. ``value`` is canonical text, as the functions below return it.

    ``kind`` is ``once`` (value: an instant as ``format_utc`` spells it), ``cron`` (five fields,
    read in ``zone``) or ``interval`` (a duration). An interval fires at ``anchor`` + k times its
    length for k = 0, 1, 2, …, so it never drifts. Since the answer to "what comes next" is always
    strictly later than the question, a schedule anchored at its registration first fires one length
    after it; one with ``start_at`` is anchored there, and first fires at ``start_at`` itself.
    ``start_at`` and ``until`` bound the fires of every kind, both inclusive. The ranges of
    ``without``, ascending and apart, each with its first and its last instant, have no fires.

    Raises:
        ValueError: the kind is unknown or an interval has no anchor (the caller's mistake, not the
            user's).
    """

    __slots__ = ()

    def __new__(
        cls,
        kind: str,
        value: str,
        zone: str = "UTC",
        anchor: datetime | None = None,
        start_at: datetime | None = None,
        until: datetime | None = None,
        without: tuple[tuple[datetime, datetime], ...] = (),
    ) -> Trigger:
        """Check what the fields must have."""
        if kind not in SCHEDULE_TYPES:
            raise ValueError(f"no such kind of trigger: {kind!r}")
        if kind == "interval" and anchor is None:
            raise ValueError("an interval needs an anchor")
        return super().__new__(cls, kind, value, zone, anchor, start_at, until, without)


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
    if trigger.without:
        return _slots_outside(trigger, after, until)
    low, high = _window(trigger, after, until)
    if low >= high:
        return iter(())
    if trigger.kind == "cron":
        return takewhile(lambda fire: fire <= high, _cron_fires(trigger, low))
    start, step, indices = _arithmetic(trigger, low, high)
    return (start + k * step for k in indices)


def _slots_outside(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    plain = trigger._replace(without=())
    for first, last in trigger.without:
        if last > after:
            yield from slots(plain, after, min(until, first - _TICK))
            after = max(after, last)
        if after >= until:
            return
    yield from slots(plain, after, until)


def count_slots(trigger: Trigger, after: datetime, until: datetime) -> int:
    """Count the fires in (``after``, ``until``]: at once, except for cron, which walks the days."""
    if trigger.without:
        plain = trigger._replace(without=())
        return count_slots(plain, after, until) - sum(
            count_slots(plain, max(after, first - _TICK), min(until, last))
            for first, last in trigger.without
        )
    low, high = _window(trigger, after, until)
    if trigger.kind != "cron":
        return len(_arithmetic(trigger, low, high)[2])
    count = 0
    for base, moments in _cron_runs(trigger, low) if low < high else ():
        if base + moments[-1] > high:
            return count + bisect_right(moments, high - base)
        count += len(moments)
    return count


def times_a_day(kind: str, value: str) -> int:
    """How often a cron expression fires on a day that it names, or an ``interval`` in 24 hours at
    most. Raises as :func:`slots`."""
    if kind == "cron":
        return len(_plan(value).times)
    return -(-86400 // seconds_of(value))


def last_slot(trigger: Trigger, after: datetime, until: datetime) -> datetime | None:
    """Find the latest fire in (``after``, ``until``]; for cron, by walking no more than its day."""
    if trigger.without:
        plain = trigger._replace(without=())
        for begin, end in reversed(trigger.without):
            if end < until:
                latest = last_slot(plain, max(after, end), until)
                if latest is not None:
                    return latest
            if begin <= until:
                until = begin - _TICK
        return last_slot(plain, after, until)
    low, high = _window(trigger, after, until)
    if low >= high:
        return None
    if trigger.kind != "cron":
        start, step, indices = _arithmetic(trigger, low, high)
        return start + indices[-1] * step if indices else None
    low, high = max(low, _FIRST), min(high, _LAST)
    zone = zone_named(trigger.zone)
    # No fire up to `high` is later than the first one found forward from the last matching day, and
    # going forward keeps the two passes of an overlap, even one across midnight, in their order.
    for day in _days(_plan(trigger.value), midnight(wall_time(high, zone)), back=True):
        begin = max(low, to_instant(day, zone) - _TICK)
        last = None
        for base, moments in _cron_runs(trigger, begin):
            if base + moments[0] > high:
                break
            last = base + moments[bisect_right(moments, high - base) - 1]
        if last is not None or begin == low:
            return last
    return None


def _window(trigger: Trigger, after: datetime, until: datetime) -> tuple[datetime, datetime]:
    """Narrow (after, until] by the trigger's own bounds."""
    low, high = utc(after), utc(until)
    if trigger.start_at is not None and trigger.start_at > low:
        low = utc(trigger.start_at) - _TICK
    if trigger.until is not None and trigger.until < high:
        high = utc(trigger.until)
    return low, high


def _arithmetic(
    trigger: Trigger, low: datetime, high: datetime
) -> tuple[datetime, timedelta, range]:
    """Give a start, a step, and the k for which start + k * step is a fire in (low, high]."""
    if trigger.anchor is None or trigger.kind == "once":
        instant = parse_utc(trigger.value)
        return instant, timedelta(0), range(1 if low < instant <= high else 0)
    anchor, step = utc(trigger.anchor), timedelta(seconds=seconds_of(trigger.value))
    # `high` is itself a datetime, so no fire up to it can overflow.
    return anchor, step, range(max(0, (low - anchor) // step + 1), (high - anchor) // step + 1)


# --- cron: days, times of the day, and the instants they come to -------------------------------


class _Days(NamedTuple):
    """Which days match, where not every day does."""

    months: tuple[int, ...]  # ascending
    days: tuple[int, ...]
    weekdays: tuple[int, ...]
    both: bool  # whether the day of the month and of the week must match, or either
    seen: dict[tuple[int, int], tuple[int, ...]]

    def of(self, year: int, month: int) -> tuple[int, ...]:
        """The matching days of a month that matches: they depend on nothing but the weekday of its
        first and on its length."""
        first = date(year, month, 1).toordinal() % 7  # 1 January of the year 1 was a Monday
        short = month == 2 and (year % 4 or (year % 100 == 0 and year % 400))
        length = 28 if short else _MONTH_LENGTHS[month]
        found = self.seen.get((first, length))
        if found is None:
            named = set(self.days)
            weekly = {day for day in range(1, 32) if (first + day - 1) % 7 in self.weekdays}
            matching = named & weekly if self.both else named | weekly
            found = tuple(sorted(day for day in matching if day <= length))
            self.seen[first, length] = found
        return found


class _Plan(NamedTuple):
    """A cron expression taken apart once."""

    fixed: bool  # a fixed-time job, in the sense of the module's docstring
    times: tuple[timedelta, ...]  # the times of a matching day, ascending
    named: _Days | None  # None: every day matches


@lru_cache(maxsize=256)
def _plan(expression: str) -> _Plan:
    minute, hour, day, month, weekday = _cron_fields(expression)
    times = tuple(timedelta(hours=h, minutes=m) for h in hour.values for m in minute.values)
    named = None
    if not (day.whole and month.whole and weekday.whole):
        both = day.starred or weekday.starred
        named = _Days(month.values, day.values, weekday.values, both, {})
    return _Plan(not (minute.starred or hour.starred), times, named)


def _days(plan: _Plan, day: datetime, back: bool = False) -> Iterator[datetime]:
    """Yield the matching days from ``day`` (a naive midnight) on, or back, itself included."""
    step = -1 if back else 1
    if back:
        day = min(day, _LAST_DAY - DAY)
    if plan.named is None:
        while _FIRST_DAY <= day < _LAST_DAY:
            yield day
            day += step * DAY
        return
    for year in range(day.year, 0 if back else _LAST_DAY.year + 1, step):
        for month in plan.named.months[::step]:
            if year == day.year and (month > day.month if back else month < day.month):
                continue
            numbers = plan.named.of(year, month)
            if (year, month) == (day.year, day.month):
                here = bisect_left(numbers, day.day + back)
                numbers = numbers[:here] if back else numbers[here:]
            for number in numbers[::step]:
                found = datetime(year, month, number)  # noqa: DTZ001
                if not _FIRST_DAY <= found < _LAST_DAY:
                    return
                yield found


def _cron_fires(trigger: Trigger, low: datetime) -> Iterator[datetime]:
    """Yield every fire of a cron trigger after ``low``, ascending, without end."""
    for base, moments in _cron_runs(trigger, low):
        for moment in moments:
            yield base + moment


_Run = tuple[datetime, tuple[timedelta, ...]]
"""Fires that follow each other: an instant, and how long after it each is, of which there is one
at least. Counting needs no more of a day than this."""


def _cron_runs(trigger: Trigger, low: datetime) -> Iterator[_Run]:
    plan, zone = _plan(trigger.value), zone_named(trigger.zone)
    low = max(low, _FIRST)
    if low >= _LAST:
        return iter(())
    return _fixed_runs(plan, zone, low) if plan.fixed else _clock_runs(plan, zone, low)


def _fixed_runs(plan: _Plan, zone: tzinfo, low: datetime) -> Iterator[_Run]:
    """Each named wall time once. Wall times in order are instants in order, equal ones merged."""
    wall, last = wall_time(low, zone), low
    today = midnight(wall)
    if wall - today >= plan.times[-1]:
        today += DAY  # asking for a day is what costs, and today has nothing left
    for day in _days(plan, today):
        offset = offset_of(day, zone)
        # Looking from the early side of one midnight to the late side of the next also sees a
        # change that has a midnight inside its gap or overlap.
        steady = zone is UTC or offset == offset_of((day + DAY).replace(fold=1), zone)
        base = instant_at(day, offset)
        moments = plan.times[bisect_right(plan.times, wall - day) :]
        if steady:
            moments = moments[bisect_right(moments, last - base) :]
            if moments:
                yield base, moments
                last = base + moments[-1]
            continue
        for moment in moments:
            fire = to_instant(day + moment, zone)
            if fire > last:
                yield fire, _AT_ONCE
                last = fire


def _clock_runs(plan: _Plan, zone: tzinfo, low: datetime) -> Iterator[_Run]:
    """Each instant at which the clock on the wall shows a named time.

    It goes from one change of the offset to the next; between them the wall clock just runs. A
    change is noticed two days ahead of need, because an overlap (24 h at most, ever) brings back
    wall times of the day before. No zone has ever changed twice within three days (the tightest is
    3.98, in 1939; 6.95 since 1945), so that comparing the two ends of at most three days misses
    none.
    """
    start = low + _TICK
    while True:
        wall, offset = wall_time(start, zone), offset_of(start, zone)
        today = midnight(wall)
        if wall - today > plan.times[-1] and offset_of(start + 2 * DAY, zone) == offset:
            today += DAY  # it has nothing left, and nothing brings it back
        known, change = start, None  # the offset holds up to `known`; `change` is where it ends
        for day in _days(plan, today):
            base = instant_at(day, offset)
            if change is None:
                if base > known + DAY:  # a leap over days that don't match: look afresh from there
                    start = to_instant(day, zone)
                    break
                ahead = base + 2 * DAY
                if offset_of(ahead, zone) == offset:
                    known = ahead
                else:
                    change = next_change(zone, known, ahead)
            end = len(plan.times)
            if change is not None:
                end = bisect_left(plan.times, change - base)
            moments = plan.times[bisect_left(plan.times, start - base) : end]
            if moments:
                yield base, moments
            if change is not None and base + DAY >= change:
                start = change
                break
        else:
            return


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
_ITEM = r"(\*|[0-9]{1,4}|[A-Z]{3})(?:(?<!\*)-([0-9]{1,4}|[A-Z]{3}))?(?:/([0-9]{1,4}))?"
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


class _Field(NamedTuple):
    text: str  # canonical
    values: tuple[int, ...]  # ascending; Sunday is 0
    size: int  # how many values there could be

    @property
    def starred(self) -> bool:
        return self.text.startswith("*")

    @property
    def whole(self) -> bool:
        """Whether it excludes nothing."""
        return self.starred and len(self.values) == self.size


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
    if re.match(r"\s*(?:CRON_)?TZ=", text, re.IGNORECASE):
        zone, _, rest = text.strip().partition("=")[2].strip("\"'").partition(" ")
        zone, rest = zone.strip("\"'")[:80], rest.strip()[:80]
        hint = f"Give the zone as an option of its own: --tz {zone or 'ZONE'} --cron '{rest}'."
        raise _cron_error(text, "names a zone", hint)
    if words and words[0].startswith("@EVERY"):
        length = "".join(text.split())[len("@every") :][:80].lower()
        hint = f"That is an interval, which counts from its start: --every {length or '5m'}."
        raise _cron_error(text, "is an interval", hint)
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
        return _cron_error(text, f"has {problem} in its {name} field {shown(word)}", hint)

    def number(token: str) -> int:
        value = names.index(token) + low if token in names else int(token)
        if not low <= value <= high:
            raise fault(token, f"Values there go from {low} to {high}.")
        return value

    items: list[str] = []
    values: set[int] = set()
    for item in word.split(","):
        match = re.fullmatch(_ITEM, item)
        ends = [end for end in match.group(1, 2) if end] if match else []
        if not match or not all(end.isdigit() or end in ["*", *names] for end in ends):
            raise fault(shown(item) if item else "an empty item")
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
    message = f"The cron expression {shown(text)} {problem}."
    return PromptyoselfError("invalid_cron", message, hint or _CRON_HINT, value=text[:200])
