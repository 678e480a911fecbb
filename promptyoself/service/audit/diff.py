"""What changed between two points of the log."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from promptyoself.core.errors import WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.ledger import Envelope
from promptyoself.service.audit.answers import Difference, Point, ScheduleChange
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY, Schedule
from promptyoself.store.point import Cutoff, cutoff
from promptyoself.store.store import Store

_OURS = frozenset(("id", "registered", "told", "retold", "replied"))
"""The fields of a schedule that no event has."""


def diff(store: Store, *, from_: str, to: str | None, now: datetime) -> Difference:
    """The changes of schedules from one point of the log to another, and the events that made them.

    Each point is a time or an event's number. Without ``to``, the second point is ``now``.

    Raises:
        PromptyoselfError: ``invalid_time``; ``empty_window`` where ``to`` is before ``from_``.
        ChainError: the log is damaged before that point.
    """
    start, end = cutoff(store, from_, now, end=False), cutoff(store, to or format_utc(now), now)
    events = _Events(store)
    before, latest_before = fold(EMPTY, events.up_to(start)), events.latest
    if latest_before is not None and not end.covers(latest_before):
        raise WrongUsage("empty_window", f"--to {to} is before --from {from_}.", "Exchange them.")
    events_by_id: dict[str, list[dict[str, Any]]] = {}
    after = fold(before, events.up_to(end, events_by_id))
    store.mention_newer(after)
    seen = store.seen(after).schedules
    changes: list[ScheduleChange] = [
        {
            "id": id_,
            "agent_id": after.schedules[id_].agent_id,
            "change": "changed" if id_ in before.schedules else "registered",
            "fields": fields,
            "events": events_by_id.get(id_, []),
        }
        for id_ in after.schedules
        if (fields := _differences(before.schedules.get(id_), after.schedules[id_])) and id_ in seen
    ]
    return {
        "from": _point(latest_before),
        "since": _point(latest_before),
        "to": _point(events.latest),
        "changes": changes,
        "count": len(changes),
    }


class _Events:
    """Reads a log from its beginning, in pieces."""

    def __init__(self, store: Store) -> None:
        self.latest: Envelope | None = None
        """The event that was read last."""
        self._events = (event for batch in store.unpinned.replay() for event in batch.folded())
        self._ahead = next(self._events, None)

    def up_to(
        self, point: Cutoff, events_by_id: dict[str, list[dict[str, Any]]] | None = None
    ) -> Iterator[Envelope]:
        """The events that were not read yet, up to a point. Each that is about a schedule is
        described in ``events_by_id`` as it passes."""
        while self._ahead is not None and point.covers(self._ahead):
            event = self.latest = self._ahead
            if events_by_id is not None and event.id is not None:
                events_by_id.setdefault(event.id, []).append(_described(event))
            yield event
            self._ahead = next(self._events, None)


def _differences(before: Schedule | None, after: Schedule) -> dict[str, Any]:
    """The fields that differ, each with its values before and after."""
    if before is None:
        return {
            name: {"from": None, "to": value}
            for name, value in after._asdict().items()
            if value != after._field_defaults.get(name) and name not in _OURS
        }
    return {
        name: {"from": old, "to": new}
        for name, old, new in zip(Schedule._fields, before, after, strict=True)
        if old != new and name not in _OURS
    }


def _described(event: Envelope) -> dict[str, Any]:
    line = {"seq": event.seq, "ts": event.ts, "type": event.type, "by": event.actor}
    reason = event.data.get("reason")
    return line if reason is None else {**line, "reason": reason}


def _point(event: Envelope | None) -> Point:
    return {"seq": 0, "ts": None} if event is None else {"seq": event.seq, "ts": event.ts}
