"""Letting a schedule count from now again, where a clock that was ahead has decided later slots.

Slots that were skipped then may come again. Slots that were claimed may not: they were sent, or may
have been, and the name of a slot in the agent's history is that of its instant. Only the log knows
which slots were claimed, so it is read; that happens only where a schedule has been ahead of the
clock.

The schedule itself forgets the last slot that the clock ahead decided. So the ranges always reach
to the last slot that was claimed, even if it lies before now. A clock that is set back further
finds by it that the schedule is ahead.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.store.store import Store

_MOST_RANGES = 1000
"""The most ranges that an event lists. Where there would be more, the last of them is widened, and
what lies within it doesn't come again either."""


class Recount(NamedTuple):
    """What an event says so that its schedule counts from now again."""

    counts_from: str  # the instant from which slots count again
    without: list[list[str]]  # ranges of slots that don't: the first and the last of each


def claimed_after(store: Store, id_: str, now: datetime) -> set[str]:
    """The slots of a schedule after ``now`` that were ever claimed, or that `trigger` asked for.

    Raises:
        ChainError: the log is damaged.
    """
    start = format_utc(now)
    return {slot for slot in _decided(store, id_)[0] if slot > start}


def recount(store: Store, id_: str, trigger: Trigger, now: datetime) -> Recount:
    """Since when a schedule counts again if it counts from now by ``trigger``, and without which
    slots.

    Raises:
        ChainError: the log is damaged.
    """
    plain = trigger._replace(without=())
    start = format_utc(now)
    claimed, imported_up_to = _decided(store, id_)
    later = sorted(slot for slot in claimed if slot > max(start, imported_up_to))
    ranges = _ranges(plain, later)
    if imported_up_to > start:  # this log doesn't say which slots were claimed elsewhere
        ranges.insert(0, [start, imported_up_to])
    latest = max([imported_up_to, *claimed])
    if not ranges and latest:
        ranges.append([latest, latest])
    return Recount(start, ranges)


def _decided(store: Store, id_: str) -> tuple[set[str], str]:
    """The slots of a schedule that were ever claimed, or that `trigger` asked for; and the last one
    that was decided in another log, before the schedule was imported, or ``""``."""
    claimed, imported_up_to = set[str](), ""
    for batch in store.unpinned.replay():
        for event in batch.envelopes:
            if event.id != id_:
                continue
            if event.type in ("delivery.attempted", "schedule.triggered"):
                claimed.add(str(event.data.get("slot", "")))
            elif event.type == "schedule.registered" and "last_slot" in event.data:
                imported_up_to = max(imported_up_to, str(event.data["last_slot"]))
    return claimed, imported_up_to


def _ranges(trigger: Trigger, claimed: Iterable[str]) -> list[list[str]]:
    """These instants, each run of neighbouring slots of ``trigger`` as one range. An instant that
    isn't a slot of it is a range too, for the schedule's times may be changed back."""
    ranges: list[list[str]] = []
    following: datetime | None = None
    for text in claimed:
        instant = parse_utc(text)
        if instant == following or len(ranges) >= _MOST_RANGES:
            ranges[-1][1] = text
        else:
            ranges.append([text, text])
        following = next_fire_time(trigger, instant)
    return ranges
