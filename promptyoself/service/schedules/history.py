"""What the log says: its events as stored, and the state as it was at a point."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from promptyoself.core.errors import ChainError, PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import parse_moment, shown
from promptyoself.events.versions import VERSIONS
from promptyoself.index.index import chain_is_gone
from promptyoself.ledger import Batch, Envelope
from promptyoself.state.fold import NO_LOSSES
from promptyoself.state.schedules import (
    CHAIN,
    EMPTY,
    State,
)
from promptyoself.store.access import find_schedule, forbidden, pinned, unknown_desire
from promptyoself.store.chain import Chain
from promptyoself.store.point import cutoff
from promptyoself.store.store import Store

__all__ = ["history", "state_at"]


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

    ``type_`` is a whole type or its first part (``delivery``); ``since`` and ``until`` are times
    (inclusive). With an agent, the events of the schedules that were its own at the time. With a
    ``slot`` (a time), those that decided this one: what promised it, began it and ended it. With
    ``by``, those whose caller has that name: as a login, as an agent, or as an MCP client.

    Raises:
        PromptyoselfError: ``invalid_time``; ``unknown_id`` if no event bears the id;
            ``unknown_type`` if there is no such type, here or in the log;
            ``unknown_slot`` if none is about that slot of it; ``unknown_caller`` if nobody of
            that name did anything; ``missing_option`` for a slot without
            an id; ``forbidden_agent``.
        ChainError: the log is damaged; the events before the damage have been yielded.
    """
    zone = default_zone(store.settings)
    first = "" if since is None else format_utc(parse_moment(since, zone, now))
    last = "~" if until is None else format_utc(parse_moment(until, zone, now, end=True))
    wanted = pinned(store, agent_id) or agent_id
    instant = None if slot is None else format_utc(parse_moment(slot, zone, now))
    if instant is not None and id_ is None:
        raise WrongUsage("missing_option", "--slot was given without --id.", "Name a schedule.")
    owner: dict[str, Any] = {}
    known = mine = found = False
    # A newer version's log may have types that aren't known here.
    typed = type_ is None or any(f"{each}.".startswith(f"{type_}.") for each in VERSIONS)
    called = by is None
    only = store.settings.only_agent
    for event in (event for batch in _replay(store) for event in batch.envelopes):
        if event.ts > last and called and (id_ is None or (known and (mine or only is None))):
            break  # for ts never runs backwards
        if event.id is not None:
            changes = event.data.get("changes")
            for data in (event.data, changes if isinstance(changes, dict) else {}):
                owner[event.id] = data.get("agent_id", owner.get(event.id))
        known = known or event.id == id_
        mine = mine or (event.id == id_ and owner.get(event.id or "") == wanted)
        theirs = by is None or by in (event.actor.get(name) for name in _NAMES)
        called = called or (theirs and (only is None or owner.get(event.id or "") == only))
        about = (id_ is None or event.id == id_) and theirs
        if instant is not None:
            about = theirs and _decides(event, id_ or "", instant)
        of_type = type_ is None or event.type == type_ or event.type.startswith(type_ + ".")
        typed = typed or of_type
        if (
            about
            and of_type
            and (wanted is None or owner.get(event.id or "") == wanted)
            and first <= event.ts <= last
        ):
            found = True
            yield event
    if not typed:
        raise _unknown_type(type_ or "")
    if id_ is not None and not known and store.name == CHAIN:
        find_schedule(EMPTY, id_, None)
    elif id_ is not None and not known:
        raise unknown_desire(id_)
    if id_ is not None and not mine and store.settings.only_agent is not None:
        raise forbidden(f"{id_} belongs to another agent than", store.settings.only_agent)
    if not called:
        raise PromptyoselfError(
            "unknown_caller",
            f"The log has nothing that {shown(by or '')} did.",
            "Each event names its caller: `promptyoself history --limit 10` shows some.",
        )
    if instant is not None and not found:
        raise PromptyoselfError(
            "unknown_slot",
            f"The log says nothing of a slot of {id_} at {instant}.",
            "`promptyoself audit` lists slots; `promptyoself history --id ID` has all events.",
        )


_NAMES = ("who", "login", "client")
"""Where an event's actor has names of the caller."""


def _replay(store: Chain[Any]) -> Iterator[Batch]:
    """Every batch of the log. Says so at the end where events are missing that its index has seen;
    a log of which nothing is left is refused."""
    witness, end, losses = store.index.witness(), 0, NO_LOSSES.branch()
    with store.naming():
        for batch in store.ledger.replay():
            for event in batch.envelopes:
                if event.type == "ledger.recovered":
                    losses.record(event)
            end = batch.position.seq
            yield batch
        try:
            store.require_seen(witness, end, losses.recorded)
        except ChainError as error:
            if not end:
                raise chain_is_gone(store.index.path, witness[0] if witness else 0) from None
            store.warn(error.message)


def state_at(store: Store, at: str, now: datetime) -> State:
    """The state as it was at an instant, or after the event of that number.

    Raises:
        PromptyoselfError: ``invalid_time``.
        ChainError: the log is damaged before that point.
    """
    from promptyoself.state.apply import fold  # with the records, which `history` does without

    end = cutoff(store, at, now)

    def envelopes() -> Iterator[Envelope]:
        for batch in store.ledger.replay():
            for event in batch.folded():
                if not end.covers(event):
                    return
                yield event

    state = fold(EMPTY, envelopes())
    store.mention_newer(state)
    return state


def _decides(event: Envelope, id_: str, slot: str) -> bool:
    """Whether an event promised, began, moved or ended this slot. Raises ``corrupt_chain``."""
    data = event.data
    try:
        if event.id is None:
            left = data.get("in_flight") or ()
            return any((each["id"], each["slot"]) == (id_, slot) for each in left)
        if event.id != id_:
            return False
        if "slot" in data:
            return bool(data["slot"] <= slot <= data.get("last", data["slot"]))
        return slot in (data.get("next_run"), data.get("changes", {}).get("next_run"))
    except (AttributeError, KeyError, TypeError) as error:
        raise ChainError(
            "corrupt_chain",
            f"Event {event.seq} ({event.type}) can't be read: {error!r}.",
            "No version of promptyoself writes this: run `promptyoself verify`, and compare it "
            "with a backup.",
            seq=event.seq,
        ) from None


def _unknown_type(type_: str) -> PromptyoselfError:
    from difflib import get_close_matches

    known = list(dict.fromkeys([*VERSIONS, *(each.partition(".")[0] for each in VERSIONS)]))
    close = " or ".join(get_close_matches(type_.lower(), known))
    return PromptyoselfError(
        "unknown_type",
        f"There are no events of a type {shown(type_)}.",
        f"Did you mean {close}?" if close else f"Types are {', '.join(sorted(VERSIONS))}.",
    )
