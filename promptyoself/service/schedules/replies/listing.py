"""The answers of agents, as the log has them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, cast

from promptyoself.core.errors import impossible_event
from promptyoself.ledger import Envelope
from promptyoself.service.schedules.history import Filters, filters_of
from promptyoself.service.schedules.new_events import follow as follow_events
from promptyoself.service.schedules.replies import answers
from promptyoself.service.schedules.replies.latest import ANSWER_TYPES, view_of
from promptyoself.state.schedules import State
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store


def filters_of_replies(
    store: Store,
    id_: str | None,
    *,
    agent_id: str | None,
    since: str | None,
    until: str | None,
    now: datetime,
) -> Filters:
    """What a caller asks of answers: of which schedule or agent, and recorded when.

    Raises:
        PromptyoselfError: ``unknown_id``, ``invalid_time``, ``forbidden_agent``.
    """
    if id_ is not None:
        find_schedule(store.read().state, id_)
    filters = filters_of(
        store,
        id_,
        agent_id=agent_id,
        type_=None,
        since=since,
        until=until,
        slot=None,
        by=None,
        now=now,
    )
    return filters._replace(types=ANSWER_TYPES)


def replies(store: Store, filters: Filters) -> Iterator[answers.ReplyView]:
    """The answers that were recorded, oldest first, and those that won't come. With an earliest
    instant, only the months from then on are read.

    Raises:
        ChainError: the log is damaged; the answers before the damage have been yielded.
    """
    events = store.tail(filters.first[:7]).read() if filters.first else store.events()
    return _views(store.read().state, _until(filters, events))


def awaited(store: Store, filters: Filters) -> list[answers.AwaitedView]:
    """The answers that aren't there yet, those of the prompts that arrived first before others."""
    state = store.read().state
    waiting = [
        reply
        for reply in state.replies.values()
        if filters.id_ in (None, reply.id)
        and filters.agent_id in (None, reply.agent_id)
        and filters.first <= reply.delivered_at <= filters.last
    ]
    lines: list[answers.AwaitedView] = []
    for reply in sorted(waiting, key=lambda reply: (reply.delivered_at, reply.id)):
        name = _name(state, reply.id)
        line = {
            "id": reply.id,
            **({} if name is None else {"name": name}),
            "agent_id": reply.agent_id,
            "slot": reply.slot,
            "delivered_at": reply.delivered_at,
        }
        lines.append(cast("answers.AwaitedView", line))
    return lines


def follow(
    store: Store, filters: Filters, *, limit: int | None = None, wait: Callable[[], bool]
) -> Iterator[Sequence[answers.ReplyView]]:
    """First the newest answers, then each as it is recorded. The arguments, and what is raised, are
    as in :func:`~promptyoself.service.schedules.new_events.follow`."""
    for events in follow_events(store, filters, limit=limit, wait=wait):
        if events:
            owned = ((None, event) for event in events)
            yield list(_views(store.read().state, owned))


def _until(
    filters: Filters, events: Iterable[tuple[Any, Envelope]]
) -> Iterator[tuple[Any, Envelope]]:
    for owner, event in events:
        if event.ts > filters.last:
            return  # for ts never runs backwards
        if filters.match(owner, event):
            yield owner, event


def _views(
    state: State, events: Iterable[tuple[str | None, Envelope]]
) -> Iterator[answers.ReplyView]:
    for owner, event in events:
        try:
            yield view_of(event, owner, _name(state, event.id or ""))
        except (KeyError, TypeError) as error:
            problem = f"Event {event.seq} ({event.type}) can't be read: {error!r}."
            raise impossible_event(event.seq, problem) from None


def _name(state: State, id_: str) -> str | None:
    schedule = state.schedules.get(id_)
    return None if schedule is None else schedule.name
