"""At which instants a schedule fires: once, on a cron expression, at an interval, or by a rule.

Every instant that goes in or out is an aware datetime, and every one that comes out is in UTC.
Which times a cron expression names is in :mod:`promptyoself.rules.cron_expressions`, and which a
recurrence rule names in :mod:`promptyoself.rules.calendar`. Each is imported only for a trigger
that has one.

How a cron expression meets a change of clocks is Debian's (Vixie) rule:

* A *fixed-time* job, whose minute and hour fields both start with something else than ``*``, runs
  once for every wall time that it names. A time inside a spring gap runs right after the gap, and
  times that meet there are one slot. A time that an autumn overlap repeats runs only the first
  time.
* Any other job follows the clock on the wall: nothing in the gap, both passes of the overlap.

A recurrence rule is like a job of fixed times.

Debian's cron gives up this rule for changes of 3 hours or more. Here it holds for all of them, so
that no slot vanishes where a zone skips a whole day.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

from promptyoself.core.instants import MICROSECOND, parse_utc
from promptyoself.core.times import midnight, seconds_of, to_instant, utc, wall_time, zone_named
from promptyoself.events.kinds import ScheduleType

if TYPE_CHECKING:
    from promptyoself.rules.clock_changes import Group, WallTimes
    from promptyoself.rules.cron_expressions import CronExpression


_END = datetime.max.replace(tzinfo=UTC)
# Cron is computed between these, so that no step of the arithmetic leaves datetime's range.
_FIRST = datetime(1, 1, 8, tzinfo=UTC)
_LAST = datetime(9999, 12, 24, tzinfo=UTC)


class Trigger(NamedTuple):
    """When to fire.

    An interval fires at ``anchor`` + k times its length for k = 0, 1, 2, …, so it never drifts. The
    next fire is always strictly later than the instant that it is computed for. So a schedule
    anchored at its registration first fires one length after it. One with ``start_at`` is anchored
    there, and first fires at ``start_at`` itself.

    A recurrence rule counts from the wall time at ``anchor``, and never fires before it.

    ``start_at`` and ``until`` bound the fires of every kind, both inclusive.
    """

    kind: ScheduleType
    value: str  # canonical: an instant as `format_utc` spells it, five fields, a duration or a rule
    zone: str = "UTC"  # in which a cron expression or a rule is read
    anchor: datetime | None = None  # from which an interval or a rule counts
    start_at: datetime | None = None  # the first instant at which it may fire
    until: datetime | None = None  # the last instant at which it may fire
    # Ranges without fires, ascending and apart, each with its first and its last instant.
    without: tuple[tuple[datetime, datetime], ...] = ()


# --- the fires of a trigger --------------------------------------------------------------------


def next_fire_time(trigger: Trigger, after: datetime) -> datetime | None:
    """Say when ``trigger`` first fires strictly after ``after`` (aware); None if it never will."""
    return next(slots(trigger, after, _END), None)


def slots(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    """Yield every fire in (``after``, ``until``], ascending, each computed when it is needed.

    Raises:
        PromptyoselfError: the trigger's own text or zone is invalid (see ``parse_cron``,
            ``parse_rule``, ``parse_duration`` and ``parse_zone``). The other functions of triggers
            raise it too.
        ValueError: a datetime is naive, the kind is unknown, or an interval or a rule has no
            anchor: a mistake of the caller's, not of the user's.
    """
    if trigger.without:
        return _slots_outside(trigger, after, until)
    low, high = _window(trigger, after, until)
    if low >= high:
        return iter(())
    if trigger.kind in _ON_DAYS:
        groups = _groups(trigger, low)
        fires = (base + moment for base, moments in groups for moment in moments)
        return takewhile(lambda fire: fire <= high, fires)
    start, step, indices = _arithmetic(trigger, low, high)
    return (start + k * step for k in indices)


def _slots_outside(trigger: Trigger, after: datetime, until: datetime) -> Iterator[datetime]:
    plain = trigger._replace(without=())
    for first, last in trigger.without:
        if last > after:
            yield from slots(plain, after, min(until, first - MICROSECOND))
            after = max(after, last)
        if after >= until:
            return
    yield from slots(plain, after, until)


def count_slots(trigger: Trigger, after: datetime, until: datetime) -> int:
    """Count the fires in (``after``, ``until``]. Only for cron and rules are the days walked."""
    if trigger.without:
        plain = trigger._replace(without=())
        return count_slots(plain, after, until) - sum(
            count_slots(plain, max(after, first - MICROSECOND), min(until, last))
            for first, last in trigger.without
        )
    low, high = _window(trigger, after, until)
    if trigger.kind not in _ON_DAYS:
        return len(_arithmetic(trigger, low, high)[2])
    count = 0
    for base, moments in _groups(trigger, low) if low < high else ():
        if base + moments[-1] > high:
            return count + bisect_right(moments, high - base)
        count += len(moments)
    return count


def times_a_day(kind: str, value: str) -> int:
    """Count the fires of a cron expression or a rule on a day that it names, or the most that an
    ``interval`` has in 24 hours. Raises as :func:`slots`."""
    if kind == "cron":
        return len(_cron(value).times)
    if kind == "rrule":
        return len(_rule(value, _FIRST.replace(tzinfo=None)).times)
    return -(-86400 // seconds_of(value))


def last_slot(trigger: Trigger, after: datetime, until: datetime) -> datetime | None:
    """Find the latest fire in (``after``, ``until``]. Of cron and rules, no more is walked
    than its day."""
    if trigger.without:
        plain = trigger._replace(without=())
        for begin, end in reversed(trigger.without):
            if end < until:
                latest = last_slot(plain, max(after, end), until)
                if latest is not None:
                    return latest
            if begin <= until:
                until = begin - MICROSECOND
        return last_slot(plain, after, until)
    low, high = _window(trigger, after, until)
    if low >= high:
        return None
    if trigger.kind not in _ON_DAYS:
        start, step, indices = _arithmetic(trigger, low, high)
        return start + indices[-1] * step if indices else None
    low, high = max(low, _FIRST), min(high, _LAST)
    zone = zone_named(trigger.zone)
    # No fire up to `high` is later than the first one found forward from the last matching day, and
    # going forward keeps the two passes of an overlap, even one across midnight, in their order.
    for day in _named(trigger).days_from(midnight(wall_time(high, zone)), back=True):
        begin = max(low, to_instant(day, zone) - MICROSECOND)
        last = None
        for base, moments in _groups(trigger, begin):
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
        low = utc(trigger.start_at) - MICROSECOND
    if trigger.until is not None and trigger.until < high:
        high = utc(trigger.until)
    if trigger.kind == "rrule" and trigger.anchor is not None:
        low = max(low, utc(trigger.anchor) - MICROSECOND)
    return low, high


def _arithmetic(
    trigger: Trigger, low: datetime, high: datetime
) -> tuple[datetime, timedelta, range]:
    """Give a start, a step, and the k for which start + k * step is a fire in (low, high]."""
    if trigger.kind == "once":
        instant = parse_utc(trigger.value)
        return instant, timedelta(0), range(1 if low < instant <= high else 0)
    if trigger.kind != "interval" or trigger.anchor is None:
        raise ValueError(f"an unknown kind of trigger, or an interval without anchor: {trigger}")
    anchor, step = utc(trigger.anchor), timedelta(seconds=seconds_of(trigger.value))
    # `high` is itself a datetime, so no fire up to it can overflow.
    return anchor, step, range(max(0, (low - anchor) // step + 1), (high - anchor) // step + 1)


# --- cron and rules: the instants that named times come to ---------------------------------------

_ON_DAYS = ("cron", "rrule")
"""The kinds of which the days are walked."""


def _cron(expression: str) -> CronExpression:
    # An interval or a single time needs neither the module nor croniter.
    from promptyoself.rules.cron_expressions import read_cron

    return read_cron(expression)


def _rule(rule: str, counted_from: datetime) -> WallTimes:
    from promptyoself.rules.calendar import read_rule

    return read_rule(rule, counted_from)


def _named(trigger: Trigger) -> WallTimes:
    """The times that a cron expression or a rule names."""
    if trigger.kind == "cron":
        return _cron(trigger.value)
    if trigger.anchor is None:
        raise ValueError(f"a rule without anchor: {trigger}")
    return _rule(trigger.value, wall_time(trigger.anchor, zone_named(trigger.zone)))


def _groups(trigger: Trigger, low: datetime) -> Iterator[Group]:
    """Yield the fires of a cron expression or a rule after ``low``, ascending, in groups."""
    from promptyoself.rules.clock_changes import clock_times, fixed_times

    zone, low = zone_named(trigger.zone), max(low, _FIRST)
    if low >= _LAST:
        return iter(())
    if trigger.kind == "cron" and not (cron := _cron(trigger.value)).is_fixed:
        return clock_times(cron, zone, low)
    return fixed_times(_named(trigger), zone, low)
