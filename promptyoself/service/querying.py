"""Answers that change nothing: schedules and their history."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from promptyoself.errors import ChainError, PromptyoselfError, WrongUsage
from promptyoself.folding import NO_LOSSES
from promptyoself.index import chain_is_gone
from promptyoself.instants import format_utc, parse_utc
from promptyoself.ledger import Batch, Envelope, Position
from promptyoself.overlay import Wanted
from promptyoself.schedules import (
    CHAIN,
    EMPTY,
    FINISHED,
    STATUSES,
    OpenSlot,
    Schedule,
    State,
    fold,
    spec_hash,
)
from promptyoself.service.store import (
    Chain,
    Store,
    chains,
    find_schedule,
    forbidden,
    unknown_desire,
)
from promptyoself.settings import default_zone
from promptyoself.times import is_zone, local_time, parse_moment, shown
from promptyoself.versions import VERSIONS

__all__ = [
    "Cutoff",
    "cutoff",
    "describe",
    "history",
    "list_schedules",
    "open_by_id",
    "pinned",
    "problem_of",
    "show",
    "state_at",
    "stats",
    "unknown_agent",
]

_ASKED = {"": ("active", "paused"), "all": STATUSES}
_SHORT = 120
_FEW_AGENTS = 1000


def list_schedules(
    store: Store,
    *,
    agent_id: str | None = None,
    status: str | None = None,
    limit: int | None = None,
    full: bool = False,
    at: str | None = None,
    now: datetime,
) -> dict[str, Any]:
    """The schedules, soonest first, then those without a next run by id.

    ``status`` of ``None`` means those that aren't over: active and paused. Those that have failed
    aren't among them, so the answer says how many there are.

    Raises:
        PromptyoselfError: ``forbidden_agent``, ``invalid_time``.
    """
    wanted = pinned(store, agent_id) or agent_id
    state = store.read().state if at is None else state_at(store, at, now)
    statuses = _ASKED.get(status or "", (status or "",))
    if wanted is not None:
        chosen = _of_agent(state, wanted, statuses)
        total = len(chosen)
        found = chosen[:limit]
        failed = state.agent(wanted).failed
    else:
        total = sum(state.statuses.get(each, 0) for each in statuses)
        failed = state.statuses.get("failed", 0)
        found = list(islice(_in_order(state, statuses), limit))
    slots = open_by_id(state) if full else {}
    answer: dict[str, Any] = {
        "schedules": [
            describe(schedule, slots.get(schedule.id, ()), full=full) for schedule in found
        ],
        "count": len(found),
    }
    if len(found) < total:
        answer["total"] = total
    if failed and "active" in statuses and "failed" not in statuses:
        answer["not_shown"] = {"failed": failed}
        answer["message"] = f"{failed} failed, not shown."
        answer["hint"] = "`--status failed` lists them, parked ones too."
    return answer


def _of_agent(state: State, agent_id: str, statuses: Collection[str]) -> list[Schedule]:
    if FINISHED.isdisjoint(statuses):
        mine = [state.schedules[id_] for id_ in state.agent(agent_id).unfinished]
    else:
        mine = list(state.schedules.values(_has(statuses)))
    chosen = [each for each in mine if each.agent_id == agent_id and each.status in statuses]
    return sorted(chosen, key=lambda schedule: (_next_run(schedule) or "~", schedule.id))


def _in_order(state: State, statuses: Collection[str]) -> Iterator[Schedule]:
    """As they are listed; those that aren't asked for aren't read, as far as that can be told."""
    if "active" in statuses:
        yield from (each for _, _, each in state.schedules.soonest(_has(("active",))))
    for _, each in state.schedules.in_order(_has(statuses)):
        if each.status in statuses and _next_run(each) is None:
            yield each


def _has(statuses: Collection[str]) -> Wanted:
    """Whether there may be schedules of these statuses."""
    places = [STATUSES.index(status) for status in statuses]
    return lambda summary: any(summary.statuses[place] for place in places)


def show(store: Store, id_: str, *, at: str | None = None, now: datetime) -> dict[str, Any]:
    """Everything about one schedule. Raises ``unknown_id`` or ``forbidden_agent``."""
    state = store.read().state if at is None else state_at(store, at, now)
    schedule = find_schedule(state, id_, store.settings.only_agent)
    return describe(schedule, open_by_id(state).get(id_, ()), full=True)


def open_by_id(state: State) -> dict[str, list[OpenSlot]]:
    """The slots that have begun and have no outcome yet, by their schedules."""
    found: dict[str, list[OpenSlot]] = {}
    for slot in state.open.values():
        found.setdefault(slot.id, []).append(slot)
    return found


def describe(schedule: Schedule, slots: Iterable[OpenSlot], *, full: bool) -> dict[str, Any]:
    """One schedule as the JSON contract has it; ``full`` adds policy, bounds and the ``slots`` that
    are open."""
    prompt = schedule.prompt
    if not full and len(prompt) > _SHORT:
        prompt = prompt[: _SHORT - 1] + "…"
    next_run = _next_run(schedule)
    answer: dict[str, Any] = {
        "id": schedule.id,
        "agent_id": schedule.agent_id,
        "name": schedule.name,
        "prompt": prompt,
        "schedule_type": schedule.schedule_type,
        "schedule_value": schedule.schedule_value,
        "timezone": schedule.timezone,
        "next_run": next_run,
        "last_run": schedule.last_run,
        "created_at": schedule.created_at,
        "status": schedule.status,
        "active": schedule.status == "active",
        "repetition_count": schedule.repetition_count,
        "max_repetitions": schedule.max_repetitions,
    }
    if full or schedule.template is not None:
        answer["template"] = schedule.template
    if (problem := problem_of(schedule)) is not None:
        answer["problem"] = problem
    if not full:
        return answer
    from promptyoself.visible import unseen

    if invisible := unseen(schedule.prompt, schedule.name, schedule.agent_id):
        answer["invisible"] = invisible
    answer.update(
        next_run_local=local_time(parse_utc(next_run), schedule.timezone) if next_run else None,
        conversation_id=schedule.conversation_id,
        start_at=schedule.start_at,
        until=schedule.until,
        misfire=schedule.misfire,
        grace=schedule.grace,
        jitter=schedule.jitter or 0,
        envelope=schedule.envelope,
        on_failure=schedule.on_failure,
        tier=schedule.tier,
        daily_budget=schedule.daily_budget,
        life=schedule.life,
        failures=schedule.failures,
        last_error=schedule.last_error,
        last_code=schedule.last_code,
        reason=schedule.reason,
        content_sha256=spec_hash(schedule),
        open=[
            {
                "slot": slot.slot,
                "kind": slot.kind,
                "state": "claimed" if slot.worker else "waiting",
                "attempt": slot.attempt,
                "worker": slot.worker,
                "retry_at": slot.retry_at,
                "code": slot.code,
                "error": slot.error,
                "http_status": slot.http_status,
                "detail": slot.detail,
                "in_doubt": slot.in_doubt,
            }
            for slot in slots
        ],
    )
    return answer


def problem_of(schedule: Schedule) -> str | None:
    """Why the times of a schedule that isn't over can't be computed on this machine, if they can't
    be. It says nothing against the others."""
    if schedule.status in ("completed", "cancelled"):
        return None
    known = is_zone(schedule.timezone)
    if schedule.schedule_type == "cron":
        from promptyoself.triggers import parse_cron

        try:
            parse_cron(schedule.schedule_value)
        except PromptyoselfError as error:
            return f"{error.message} Nothing is delivered until `modify` gives it other times."
        if not known:
            return (
                f"There is no time zone {shown(schedule.timezone)} on this machine. Nothing is "
                "delivered until it is installed, or until `modify --tz` gives it another."
            )
    elif schedule.schedule_type == "interval":
        from promptyoself.times import parse_duration

        try:
            parse_duration(schedule.schedule_value)
        except PromptyoselfError as error:
            return f"{error.message} Nothing is delivered until `modify` gives it other times."
    if not known:
        return (
            f"There is no time zone {shown(schedule.timezone)} on this machine, so its local times "
            "can't be told. It is delivered all the same."
        )
    return None


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


class Cutoff(NamedTuple):
    """A point of the log: after the last event up to ``ts``, or after event ``seq``."""

    seq: int | None
    ts: str

    def covers(self, event: Envelope) -> bool:
        """Whether the event lies before this point."""
        return event.ts <= self.ts if self.seq is None else event.seq <= self.seq


def cutoff(store: Chain[Any], at: str, now: datetime, *, end: bool = True) -> Cutoff:
    """What a user means by ``at``: an event's number, or a time. Of a date it is the ``end``, or
    else the beginning. Raises ``invalid_time``."""
    if at.isascii() and at.isdigit() and len(at) < 19:
        return Cutoff(int(at), "")
    return Cutoff(None, format_utc(parse_moment(at, default_zone(store.settings), now, end=end)))


def state_at(store: Store, at: str, now: datetime) -> State:
    """The state as it was at an instant, or after the event of that number.

    Raises:
        PromptyoselfError: ``invalid_time``.
        ChainError: the log is damaged before that point.
    """
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


def stats(store: Store) -> dict[str, Any]:
    """How much there is, from the indexes alone; of desires, where there are any."""
    state, position = store.read()
    answer: dict[str, Any] = {
        "schedules": state.statuses,
        "agents": sum(1 for agent in state.agents.values() if agent.schedules),
        "open_slots": {
            "claimed": sum(1 for slot in state.open.values() if slot.worker),
            "waiting": sum(1 for slot in state.open.values() if not slot.worker),
        },
        **_log_of(state.counts, position),
    }
    for chain in chains(store)[1:]:
        state, position = chain.read()
        answer[chain.name] = {**state.statuses, **_log_of(state.counts, position)}
    return answer


def _log_of(counts: Mapping[str, int], position: Position) -> dict[str, Any]:
    return {
        "events": position.seq,
        "events_by_type": dict(sorted(counts.items())),
        "head": {"seq": position.seq, "hash": position.hash, "ts": position.ts or None},
        "bytes": position.earlier + position.offset,
    }


def unknown_agent(store: Store, agent_id: str | None) -> str | None:
    """What to tell a caller who named an agent that no log knows, or ``None``: a name that is
    mistyped gets an answer as empty as one that has no schedules. A caller that is pinned to
    one agent isn't told: it is no business of its which others there are."""
    if agent_id is None or store.settings.only_agent is not None:
        return None
    try:
        agents = store.read().state.agents
        if agent_id in agents:
            return None
        from promptyoself.desires import living

        for chain in chains(store)[1:]:
            if any(True for _ in living(chain.read().state, agent_id)):
                return None
    except (ChainError, OSError):  # of which the command itself tells more
        return None
    message = f"The log knows of no agent {shown(agent_id)}."
    if len(agents) > _FEW_AGENTS:
        return message
    from difflib import get_close_matches

    close = get_close_matches(agent_id, list(agents), 1)
    return f"{message} Did you mean {close[0]}?" if close else message


def _unknown_type(type_: str) -> PromptyoselfError:
    from difflib import get_close_matches

    known = list(dict.fromkeys([*VERSIONS, *(each.partition(".")[0] for each in VERSIONS)]))
    close = " or ".join(get_close_matches(type_.lower(), known))
    return PromptyoselfError(
        "unknown_type",
        f"There are no events of a type {shown(type_)}.",
        f"Did you mean {close}?" if close else f"Types are {', '.join(sorted(VERSIONS))}.",
    )


def pinned(store: Chain[Any], agent_id: str | None) -> str | None:
    """The agent that this caller is pinned to, if any.

    Raises:
        PromptyoselfError: ``forbidden_agent``: ``agent_id`` is another.
    """
    only = store.settings.only_agent
    if only is not None and agent_id not in (None, only):
        raise forbidden(f"--agent-id {(agent_id or '')[:200]!r} is not", only)
    return only


def _next_run(schedule: Schedule) -> str | None:
    return schedule.next_run if schedule.status == "active" else None
