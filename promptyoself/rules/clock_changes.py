"""How cron expressions and calendar rules meet changes of clocks, as in Debian's cron.

A job of fixed times runs once for each of them: right after a gap, and at the first of two passes.
A job that follows the clock runs whenever the clock on the wall shows a time that it names.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from promptyoself.core.instants import MICROSECOND
from promptyoself.core.times import (
    DAY,
    instant_at,
    midnight,
    next_change,
    offset_of,
    to_instant,
    wall_time,
)

_AT_ONCE = (timedelta(0),)

Group = tuple[datetime, tuple[timedelta, ...]]
"""Fires that follow each other: an instant, and how long after it each of them is. There is at
least one. Counting needs no more of a day than this."""


class WallTimes(Protocol):
    """The times that a cron expression or a calendar rule names, by the clock on the wall."""

    @property
    def times(self) -> tuple[timedelta, ...]:
        """The named times of a day, since its midnight, ascending."""

    def days_from(self, day: datetime, back: bool = False) -> Iterator[datetime]:
        """Yield the named days, naive midnights, from ``day`` on, or back from it, included."""


def fixed_times(named: WallTimes, zone: tzinfo, low: datetime) -> Iterator[Group]:
    """Each named wall time once. Wall times in order are instants in order, equal ones merged."""
    wall, last = wall_time(low, zone), low
    today = midnight(wall)
    if wall - today >= named.times[-1]:
        today += DAY  # each day takes time to compute, and no time of today is left
    for day in named.days_from(today):
        offset = offset_of(day, zone)
        # The early side of one midnight is compared with the late side of the next, so that a
        # change with a midnight inside its gap or overlap is noticed too.
        steady = zone is UTC or offset == offset_of((day + DAY).replace(fold=1), zone)
        base = instant_at(day, offset)
        moments = named.times[bisect_right(named.times, wall - day) :]
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


def clock_times(named: WallTimes, zone: tzinfo, low: datetime) -> Iterator[Group]:
    """Each instant at which the clock on the wall shows a named time.

    Between two changes of the offset the wall clock just runs, so the fires are computed from one
    change to the next. A change is noticed two days ahead of need, because an overlap (24 h at
    most, ever) brings back wall times of the day before. Comparing the two ends of at most three
    days misses no change, since no zone has ever changed twice within three days: the shortest
    time between two changes was 3.98 days, in 1939, and 6.95 days since 1945.
    """
    start = low + MICROSECOND
    while True:
        wall, offset = wall_time(start, zone), offset_of(start, zone)
        today = midnight(wall)
        if wall - today > named.times[-1] and offset_of(start + 2 * DAY, zone) == offset:
            today += DAY  # no time of today is left, and no overlap brings one back
        known, change = start, None  # the offset holds up to `known`; `change` is where it ends
        for day in named.days_from(today):
            base = instant_at(day, offset)
            if change is None:
                if base > known + DAY:  # past days that aren't named: compute the offset there
                    start = to_instant(day, zone)
                    break
                ahead = base + 2 * DAY
                if offset_of(ahead, zone) == offset:
                    known = ahead
                else:
                    change = next_change(zone, known, ahead)
            end = len(named.times)
            if change is not None:
                end = bisect_left(named.times, change - base)
            moments = named.times[bisect_left(named.times, start - base) : end]
            if moments:
                yield base, moments
            if change is not None and base + DAY >= change:
                start = change
                break
        else:
            return
