"""Taking in schedules from elsewhere, however many: each is checked against those there are, under
the lock, and all are appended in as few steps as the log allows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.records import Record, ScheduleRegistered
from promptyoself.ledger import encode_line
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.placement import id_for_content
from promptyoself.service.schedules.limits import require_room, require_space
from promptyoself.state.apply import fold
from promptyoself.state.overlay import Overlay
from promptyoself.state.schedules import EMPTY, Schedule, State, copy_state, prompt_size
from promptyoself.store.store import Store

__all__ = ["MAX_BYTES", "Admission", "Arrival", "admit", "outcome", "take_in", "too_much"]

MAX_BYTES = 256 * 1024 * 1024
"""The most that one import reads, since all of it is held until all of it is checked."""

_PART_BYTES = 32 * 1024 * 1024
"""The most that is put into one append, half of what it holds."""

_LINK_BYTES = 200  # what the chain adds to an event: its hash, a longer number


class Arrival(NamedTuple):
    """A schedule that is to come in. ``where`` names its line or row in the report; ``further`` are
    the events that follow its registration in the same append. ``id`` is the one that it must get
    back; ``None``: whichever its content gives."""

    where: dict[str, Any]
    registered: ScheduleRegistered
    further: Sequence[Record] = ()
    id: str | None = None


class Admission(NamedTuple):
    """What was decided about all of them: a group of events for each schedule to be ``imported``;
    those ``skipped`` because they are here; and those ``refused``, each with its error."""

    groups: list[tuple[list[Draft], int]]
    imported: list[dict[str, Any]]
    skipped: list[dict[str, Any]]
    refused: list[tuple[dict[str, Any], PromptyoselfError]]


def outcome(admission: Admission, skipped: int, bad: int = 0, *, dry_run: bool) -> str:
    """The sentence that says what became of all of them."""
    count = len(admission.imported)
    schedules = f"{count} {'schedule' if count == 1 else 'schedules'}"
    message = f"{schedules} would be imported" if dry_run else f"{schedules} imported"
    if skipped:
        message += f", {skipped} skipped"
    if bad:
        message += f", {bad} bad"
    return message + ("; this was a dry run." if dry_run else ".")


def admit(store: Store, state: State, arrivals: Iterable[Arrival], now: datetime) -> Admission:
    """Decide about each, as if those before it were here. A known one is skipped, whatever became
    of it here: an import neither revives nor changes anything."""
    found = Admission([], [], [], [])
    state = store.unpinned_state(state)
    before = state.schedules
    state = copy_state(state)
    for arrival in arrivals:
        id_, salt, existing = id_for_content(state, arrival.registered)
        registered = arrival.registered
        if existing is not None:
            found.skipped.append({**arrival.where, **_known(existing, before)})
            continue
        if arrival.id is None:
            registered = registered._replace(salt=salt or None)
        elif (holder := state.schedules.get(arrival.id)) is not None:
            found.refused.append((arrival.where, _taken(holder)))
            continue
        else:
            id_ = arrival.id
        whose = registered.agent_id
        drafts = [store.draft(record, id_, whose) for record in (registered, *arrival.further)]
        schedule, size = _outcome(drafts, id_, now)
        if schedule.status not in FINISHED:
            active = schedule.status == "active"
            try:
                if active:
                    require_room(state, schedule.agent_id, store.settings)
                require_space(state, schedule.agent_id, schedule.prompt, store.settings)
            except PromptyoselfError as error:
                found.refused.append((arrival.where, error))
                continue
            agent = state.agent(schedule.agent_id)
            state.agents[schedule.agent_id] = agent._replace(
                active=agent.active + active,
                prompt_bytes=agent.prompt_bytes + prompt_size(schedule),
            )
        state.schedules[id_] = schedule
        found.groups.append((drafts, size))
        found.imported.append(
            {
                **arrival.where,
                "id": id_,
                "agent_id": schedule.agent_id,
                "schedule_type": schedule.schedule_type,
                "status": schedule.status,
                "next_run": schedule.next_run,
            }
        )
    return found


def take_in(store: Store, now: datetime, decide: Callable[[State], Admission]) -> Admission:
    """Append what is decided on the state as it is, before anyone else can change it.

    It is one append, all or nothing, up to 32 MiB; a larger import takes several, and one that is
    ended between them is completed by the same import again.

    Raises:
        PromptyoselfError: what ``decide`` raised, with nothing changed; ``lock_timeout``;
            ``newer_events``.
        ChainError: the log is damaged.
        OSError: the disk refused; what was appended before stays.
    """
    with store.ledger.exclusive():
        admission = decide(store.read().state)
        for part in _parts(admission.groups):
            store.transact(now, lambda _, drafts=part: (drafts, None))  # type: ignore[misc]
    return admission


def too_much(what: str) -> PromptyoselfError:
    """The refusal of a file that holds more than an import reads."""
    return PromptyoselfError(
        "import_too_large",
        f"{what} holds more than {MAX_BYTES // 1024**2} MiB.",
        "Nothing was imported. Split it (an export anywhere between two lines), and import each "
        "part.",
    )


def _outcome(drafts: Sequence[Draft], id_: str, now: datetime) -> tuple[Schedule, int]:
    """The schedule that the events make, and roughly how many bytes they take."""
    ts = format_utc(now)
    envelopes = [
        provisional_event(draft.record, id_, ts)._replace(seq=1, actor=draft.actor)
        for draft in drafts
    ]
    size = sum(len(encode_line(envelope)) + _LINK_BYTES for envelope in envelopes)
    return fold(EMPTY, envelopes).schedules[id_], size


def _parts(groups: Iterable[tuple[list[Draft], int]]) -> list[list[Draft]]:
    """The events in as few appends as they fit into, a schedule's own together. At least one,
    though it be empty: what is answered of schedules found there must be durable too."""
    parts: list[list[Draft]] = [[]]
    filled = 0
    for drafts, size in groups:
        if filled + size > _PART_BYTES and parts[-1]:
            parts.append([])
            filled = 0
        parts[-1].extend(drafts)
        filled += size
    return parts


def _known(existing: Schedule, before: Overlay[Schedule]) -> dict[str, Any]:
    if existing.id in before:
        detail = f"{existing.id} is {existing.status} here; nothing was changed."
        return {"id": existing.id, "why": "exists", "detail": detail}
    detail = f"{existing.id} came earlier in this import, with the same content."
    return {"id": existing.id, "why": "duplicate", "detail": detail}


def _taken(holder: Schedule) -> PromptyoselfError:
    return PromptyoselfError(
        "id_taken",
        f"{holder.id} is another schedule here: ids have 32 bits, and two contents met.",
        "Register it by hand: it gets another id.",
    )
