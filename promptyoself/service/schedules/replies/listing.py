"""The answers of agents, as the log has them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from itertools import takewhile
from typing import Any, cast

from promptyoself.core.errors import ChainError, impossible_event
from promptyoself.events.draft import FOR
from promptyoself.ledger import Envelope, HeadMoved
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


def replies(
    store: Store, filters: Filters, newest: int | None = None
) -> Iterator[answers.ReplyView]:
    """The answers that were recorded, oldest first, and those that won't come. With an earliest
    instant, only the months from then on are read. An answer is that of the agent that was
    prompted, also if the schedule was another agent's when it came.

    With ``newest``, only that number of the latest is yielded, and no months before theirs are
    read.

    Raises:
        ChainError: the log is damaged; the answers before the damage have been yielded.
    """
    state, log = store.read().state, store.unpinned  # the filters name whom the caller is pinned to
    if newest is None or filters.first:
        events = log.tail(filters.first[:7]).read() if filters.first else log.events()
        matching = _until(filters, events)
        return _views(state, matching if newest is None else iter(deque(matching, newest)))
    try:
        return _views(state, _newest(log, filters, newest))
    except (ChainError, HeadMoved):  # reading from the start tells what is damaged, or isn't
        return _views(state, iter(deque(_until(filters, log.events()), newest)))


def total_of_all(store: Store, filters: Filters) -> int | None:
    """How many answers there are that the filters match, where that is known without reading the
    log: of all of them."""
    if (filters.id_, filters.agent_id, filters.first, filters.last) != (None, None, "", "~"):
        return None
    counts = store.read().state.counts
    return sum(counts.get(type_, 0) for type_ in ANSWER_TYPES)


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
        prompted = event.actor.get(FOR) or owner
        if filters.match(prompted, event):
            yield prompted, event


def _newest(log: Store, filters: Filters, count: int) -> Iterator[tuple[Any, Envelope]]:
    """The latest events that match, oldest first. Months are read from the last one back, until
    there are enough.

    Raises:
        ChainError, HeadMoved: the log is damaged, or has changed meanwhile.
    """
    matching: list[tuple[Any, Envelope]] = []
    months = log.months()
    if not months:
        return _until(filters, log.events())
    for month in reversed(months):
        end = f"{month}~"  # sorts after each instant of that month
        in_month = takewhile(lambda owned: owned[1].ts < end, log.tail(month).read())  # noqa: B023
        matching[:0] = deque(_until(filters, in_month), count - len(matching))
        if len(matching) == count:
            break
    return iter(matching)


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
