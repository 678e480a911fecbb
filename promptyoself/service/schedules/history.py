"""The events of the log as stored, and the state as it was at a point of the log."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError, WrongUsage, impossible_event
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import shown
from promptyoself.events.versions import VERSIONS
from promptyoself.ledger import Envelope
from promptyoself.phrases.moments import read_moment
from promptyoself.state.schedules import CHAIN, State
from promptyoself.store.chain import Chain
from promptyoself.store.point import cutoff
from promptyoself.store.store import Store


class Filters(NamedTuple):
    """What a caller asks of events."""

    id_: str | None
    agent_id: str | None
    types: tuple[str, ...]
    """Whole types or the first parts of some; empty for all."""
    first: str
    """The earliest instant; empty for all."""
    last: str
    """The latest instant, as text that sorts after all others where there is none."""
    slot: str | None
    by: str | None

    def is_theirs(self, event: Envelope) -> bool:
        """Whether the caller that was asked about did it."""
        return self.by is None or self.by in (event.actor.get(name) for name in _NAMES)

    def has_type(self, event: Envelope) -> bool:
        """Whether it is of a type that was asked about."""
        return not self.types or any(
            event.type == type_ or event.type.startswith(type_ + ".") for type_ in self.types
        )

    def match(self, owner: str | None, event: Envelope) -> bool:
        """Whether an event of that owner matches everything. Raises ``corrupt_chain``."""
        if self.slot is not None:
            is_about = _decides(event, self.id_ or "", self.slot)
        else:
            is_about = self.id_ is None or event.id == self.id_
        return (
            is_about
            and self.is_theirs(event)
            and self.has_type(event)
            and self.agent_id in (None, owner)
            and self.first <= event.ts <= self.last
        )


def filters_of(
    store: Chain[Any],
    id_: str | None,
    *,
    agent_id: str | None,
    type_: str | None,
    since: str | None,
    until: str | None,
    slot: str | None,
    by: str | None,
    now: datetime,
) -> Filters:
    """The filters of :func:`history`, as it takes them.

    Raises:
        PromptyoselfError: ``invalid_time``, ``missing_option``, ``forbidden_agent``.
    """
    zone = default_zone(store.settings)
    first = "" if since is None else format_utc(read_moment(since, zone, now))
    last = "~" if until is None else format_utc(read_moment(until, zone, now, end=True))
    wanted = store.require_agent(agent_id)
    instant = None if slot is None else format_utc(read_moment(slot, zone, now))
    if instant is not None and id_ is None:
        raise WrongUsage("missing_option", "--slot was given without --id.", "Name a schedule.")
    types = () if type_ is None else (type_,)
    return Filters(id_, wanted, types, first, last, instant, by)


def history(
    store: Chain[Any],
    *,
    id_: str | None = None,
    agent_id: str | None = None,
    type_: str | None = None,
    since: str | None = None,
    until: str | None = None,
    slot: str | None = None,
    by: str | None = None,
    now: datetime,
) -> Iterator[Envelope]:
    """The events as stored, oldest first, that match everything given.

    ``type_`` is a whole type or its first part (``delivery``). ``since`` and ``until`` are times,
    both inclusive. With ``agent_id``, an event matches if its schedule was that agent's at the
    time. With ``slot`` (a time), an event matches if it promised, began or ended that slot. With
    ``by``, an event matches if its caller has that name: as a login, as an agent, or as an MCP
    client.

    Raises:
        PromptyoselfError: ``invalid_time``; ``unknown_id`` if no event has the id; ``unknown_type``
            if there is no such type, here or in the log; ``unknown_slot`` if no event is about
            that slot; ``unknown_caller`` if nobody of that name did anything; ``missing_option``
            for a slot without an id; ``forbidden_agent``.
        ChainError: the log is damaged; the events before the damage have been yielded.
    """
    filters = filters_of(
        store,
        id_,
        agent_id=agent_id,
        type_=type_,
        since=since,
        until=until,
        slot=slot,
        by=by,
        now=now,
    )
    id_seen = any_match = False
    # A newer version's log may have types that aren't known here.
    type_exists = type_ is None or is_known_type(type_)
    caller_seen = by is None
    events = store.events()
    for owner, event in events:
        if event.ts > filters.last and caller_seen and (id_ is None or id_seen):
            break  # for ts never runs backwards
        id_seen = id_seen or event.id == id_
        caller_seen = caller_seen or filters.is_theirs(event)
        type_exists = type_exists or filters.has_type(event)
        if filters.match(owner, event):
            any_match = True
            yield event
    if not type_exists:
        raise unknown_type(type_ or "")
    if id_ is not None and not id_seen:
        raise events.unseen("schedule" if store.name == CHAIN else "desire", id_)
    if not caller_seen:
        raise PromptyoselfError(
            "unknown_caller",
            f"The log has nothing that {shown(by or '')} did.",
            "Each event names its caller: `promptyoself history --limit 10` shows some.",
        )
    if slot is not None and not any_match:
        raise PromptyoselfError(
            "unknown_slot",
            f"The log says nothing of a slot of {id_} at {filters.slot}.",
            "`promptyoself audit` lists slots; `promptyoself history --id ID` has all events.",
        )


def latest_outcomes(store: Store, id_: str, count: int) -> list[Envelope]:
    """What became of the latest slots of a schedule, oldest first, as far as it is among the log's
    newest events: the whole log may be long, and this is for a look. Only a store that is
    ``unpinned`` has it."""
    outcomes = (
        event for event in store.newest_events() if event.id == id_ and event.type in _OUTCOMES
    )
    return list(islice(outcomes, count))[::-1]


_OUTCOMES = frozenset(
    {"delivery.delivered", "delivery.failed", "delivery.skipped", "delivery.stalled"}
)

_NAMES = ("who", "login", "client")
"""Where an event's actor has names of the caller."""


def state_at(store: Store, at: str, now: datetime) -> State:
    """The state as it was at an instant, or after the event of that number.

    Raises:
        PromptyoselfError: ``invalid_time``.
        ChainError: the log is damaged before that point.
    """
    return store.state_at(cutoff(store, at, now).covers)[0]


def _decides(event: Envelope, id_: str, slot: str) -> bool:
    """Whether an event promised, began, moved or ended this slot. Raises ``corrupt_chain``."""
    data = event.data
    try:
        if event.id is None:
            left = data.get("in_flight") or ()
            return any((unsettled["id"], unsettled["slot"]) == (id_, slot) for unsettled in left)
        if event.id != id_:
            return False
        if "slot" in data:
            return bool(data["slot"] <= slot <= data.get("last", data["slot"]))
        return slot in (data.get("next_run"), data.get("changes", {}).get("next_run"))
    except (AttributeError, KeyError, TypeError) as error:
        problem = f"Event {event.seq} ({event.type}) can't be read: {error!r}."
        raise impossible_event(event.seq, problem) from None


def is_known_type(type_: str) -> bool:
    """Whether there are events of a type, or of types that begin with that part."""
    return any(f"{known}.".startswith(f"{type_}.") for known in VERSIONS)


def unknown_type(type_: str) -> PromptyoselfError:
    """The refusal of a type that no event has."""
    from difflib import get_close_matches

    known = list(dict.fromkeys([*VERSIONS, *(name.partition(".")[0] for name in VERSIONS)]))
    close = " or ".join(get_close_matches(type_.lower(), known))
    return PromptyoselfError(
        "unknown_type",
        f"There are no events of a type {shown(type_)}.",
        f"Did you mean {close}?" if close else f"Types are {', '.join(sorted(VERSIONS))}.",
    )
