"""Letting a schedule count from now again, where a clock that was ahead has decided later slots.

What was skipped then may come again. What was claimed may not: it was sent, or may have been, and
its name in the agent's history is that of its instant. Only the log knows which slots these are, so
it is read; that happens only where a schedule has been ahead of the clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.store.store import Store

__all__ = ["claimed_after", "reopened"]

_MOST_RANGES = 1000
"""Beyond so many, what lies between the last of them doesn't come again either."""


def claimed_after(store: Store, id_: str, now: datetime) -> set[str]:
    """The slots of a schedule after ``now`` that were ever claimed, or asked for, as in the log.
    Raises what reading the log raises."""
    start, found = format_utc(now), set()
    for batch in store.unpinned.replay():
        for event in batch.envelopes:
            if event.id == id_ and event.type in ("delivery.attempted", "schedule.triggered"):
                slot = str(event.data.get("slot", ""))
                if slot > start:
                    found.add(slot)
    return found


def reopened(store: Store, id_: str, trigger: Trigger, now: datetime) -> dict[str, Any]:
    """What a schedule's event has to say, so that it counts from now by that trigger: since when
    slots count again (``counts_from``), and the ranges of those that don't (``without``)."""
    plain = trigger._replace(without=())
    start, claimed = format_utc(now), sorted(claimed_after(store, id_, now))
    elsewhere = max(
        (
            str(event.data["last_slot"])
            for batch in store.unpinned.replay()
            for event in batch.envelopes
            if event.id == id_ and event.type == "schedule.registered" and "last_slot" in event.data
        ),
        default="",
    )
    ranges = _ranges(plain, (slot for slot in claimed if slot > elsewhere))
    if elsewhere > start:  # an imported one: what was claimed there, this log doesn't say
        ranges.insert(0, [start, elsewhere])
    return {"counts_from": start, "without": ranges}


def _ranges(trigger: Trigger, claimed: Iterable[str]) -> list[list[str]]:
    """These instants, each run of neighbouring slots of ``trigger`` as one range. Those that aren't
    slots of it are told too, for its times may be changed back."""
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
