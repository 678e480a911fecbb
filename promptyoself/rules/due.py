"""The queue: which slots could be claimed now, the oldest first."""

import heapq
from collections.abc import Iterable, Iterator

from promptyoself.state.schedules import State, summarize


def due(state: State, now: str, agent_id: str | None = None) -> Iterator[tuple[str, str, str]]:
    """What could be claimed at ``now``, of one agent if that is given. Each item has the instant,
    the schedule's id, and the open slot's key or ``""``; the oldest comes first. The claim decides
    whether it may be claimed. An item is looked up only when the caller asks for it."""
    scheduled: Iterable[tuple[str, str, str]]
    if agent_id is None:
        scheduled = ((first, id_, "") for first, id_, _ in state.schedules.ready_by(now))
    else:
        scheduled = _scheduled_of(state, now, agent_id)
    waiting = sorted(
        (slot.retry_at, slot.id, key)
        for key, slot in state.open.items()
        if slot.worker is None
        and slot.retry_at is not None
        and slot.retry_at <= now
        and agent_id in (None, state.schedules[slot.id].agent_id)
    )
    return heapq.merge(scheduled, waiting)


def _scheduled_of(state: State, now: str, agent_id: str) -> list[tuple[str, str, str]]:
    items = []
    for id_ in state.agent(agent_id).unfinished:
        summary = summarize(state.schedules[id_])
        if summary.first is not None and summary.ready is not None and summary.ready <= now:
            items.append((summary.first, id_, ""))
    return sorted(items)
