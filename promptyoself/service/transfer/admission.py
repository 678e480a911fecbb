"""The admission of schedules from elsewhere. Under the log's lock, each is checked against those
that are here. All are appended in as few steps as the log allows."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, cast

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.records import Record, ScheduleRegistered
from promptyoself.ledger import encode_line
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.placement import id_for_content
from promptyoself.service.schedules.limits import require_room, require_space
from promptyoself.service.transfer import answers
from promptyoself.state.apply import fold
from promptyoself.state.overlay import Overlay
from promptyoself.state.schedules import EMPTY, Schedule, State, comes_back_at, prompt_size
from promptyoself.store.store import Store

MAX_BYTES = 256 * 1024 * 1024
"""The most that one import reads: all of it is held in memory until all of it is checked."""

_PART_BYTES = 32 * 1024 * 1024
"""The most that is put into one append, which holds twice as much."""

_LINK_BYTES = 200  # what the chain adds to an event: its hash, a longer number


class Arrival(NamedTuple):
    """A schedule that is to be admitted."""

    where: answers.Where
    registered: ScheduleRegistered
    further: Sequence[Record] = ()  # the events that follow its registration in the same append
    id: str | None = None  # the id that it must get; None: the one that its content gives


class Admission(NamedTuple):
    """What was decided about the schedules of an import."""

    groups: list[tuple[list[Draft], int]]  # of each admitted one, its events and their bytes
    imported: list[answers.ImportedSchedule]
    skipped: list[answers.SkippedSchedule]  # those that are here already
    refused: list[tuple[answers.Where, PromptyoselfError]]  # where it was, and why not


def answer_of(
    admission: Admission,
    skipped: list[answers.SkippedSchedule],
    bad: answers.BadLines | None = None,
    *,
    dry_run: bool,
) -> answers.Imported:
    """What an import answers that has ``skipped`` these altogether."""
    count = len(admission.imported)
    schedules = f"{count} {'schedule' if count == 1 else 'schedules'}"
    message = f"{schedules} would be imported" if dry_run else f"{schedules} imported"
    if skipped:
        message += f", {len(skipped)} skipped"
    if bad and bad["bad_count"]:
        message += f", {bad['bad_count']} bad"
    return cast(
        "answers.Imported",
        {
            "imported": admission.imported,
            "skipped": skipped,
            **(bad or {}),
            "count": count,
            **({"dry_run": True} if dry_run else {}),
            "message": message + ("; this was a dry run." if dry_run else "."),
        },
    )


def admit(store: Store, state: State, arrivals: Iterable[Arrival], now: datetime) -> Admission:
    """Decide about each arrival as if those before it were here. A schedule that is known here is
    skipped, whatever its status: an import neither revives nor changes anything."""
    admission = Admission([], [], [], [])
    state = store.unpinned_state(state)
    before = state.schedules
    state = state.copy()
    for arrival in arrivals:
        id_, salt, existing = id_for_content(state, arrival.registered)
        registered = arrival.registered
        if existing is not None:
            admission.skipped.append({**arrival.where, **_why_skipped(existing, before)})
            continue
        if arrival.id is None:
            registered = registered._replace(salt=salt or None)
        elif (holder := state.schedules.get(arrival.id)) is not None:
            admission.refused.append((arrival.where, _id_taken(holder)))
            continue
        else:
            id_ = arrival.id
        events = (registered, *arrival.further)
        drafts = [store.draft(record, id_, registered.agent_id) for record in events]
        schedule, size = _preview(drafts, id_, now)
        if schedule.status not in FINISHED:
            active = schedule.status == "active" or comes_back_at(schedule) is not None
            try:
                if active:
                    require_room(state, schedule.agent_id, store.settings)
                require_space(state, schedule.agent_id, schedule.prompt, store.settings)
            except PromptyoselfError as error:
                admission.refused.append((arrival.where, error))
                continue
            agent = state.agent(schedule.agent_id)
            state.agents[schedule.agent_id] = agent._replace(
                active=agent.active + active,
                prompt_bytes=agent.prompt_bytes + prompt_size(schedule),
            )
        state.schedules[id_] = schedule
        admission.groups.append((drafts, size))
        admission.imported.append(
            {
                **arrival.where,
                "id": id_,
                "agent_id": schedule.agent_id,
                "schedule_type": schedule.schedule_type,
                "status": schedule.status,
                "next_run": schedule.next_run,
            }
        )
    return admission


def append_admitted(store: Store, now: datetime, decide: Callable[[State], Admission]) -> Admission:
    """Append what ``decide`` admits by the state as it is, before anyone else can change that.

    Up to 32 MiB go into one append, all or nothing. A larger import takes several. If it is ended
    between two of them, the same import completes it when it is run again.

    Raises:
        PromptyoselfError: what ``decide`` raised, with nothing changed; ``lock_timeout``;
            ``newer_events``.
        ChainError: the log is damaged.
        OSError: the disk refused; what was appended before stays.
    """
    with store.exclusive():
        admission = decide(store.read().state)
        for part in _parts(admission.groups):
            store.transact(now, lambda _, drafts=part: (drafts, None))  # type: ignore[misc]
    return admission


def too_much(what: str) -> PromptyoselfError:
    """The refusal of a file that is larger than :data:`MAX_BYTES`."""
    return PromptyoselfError(
        "import_too_large",
        f"{what} holds more than {MAX_BYTES // 1024**2} MiB.",
        "Nothing was imported. Split it (an export anywhere between two lines), and import each "
        "part.",
    )


def _preview(drafts: Sequence[Draft], id_: str, now: datetime) -> tuple[Schedule, int]:
    """The schedule that these events make, and roughly how many bytes they take in the log."""
    ts = format_utc(now)
    envelopes = [
        provisional_event(draft.record, id_, ts)._replace(seq=1, actor=draft.actor)
        for draft in drafts
    ]
    size = sum(len(encode_line(envelope)) + _LINK_BYTES for envelope in envelopes)
    return fold(EMPTY, envelopes).schedules[id_], size


def _parts(groups: Iterable[tuple[list[Draft], int]]) -> list[list[Draft]]:
    """The events in as few appends as they fit into, those of a schedule together. There is one
    append even if it is empty: what is answered of schedules that are here must be durable too."""
    parts: list[list[Draft]] = [[]]
    filled = 0
    for drafts, size in groups:
        if filled + size > _PART_BYTES and parts[-1]:
            parts.append([])
            filled = 0
        parts[-1].extend(drafts)
        filled += size
    return parts


def _why_skipped(existing: Schedule, before: Overlay[Schedule]) -> answers.WhySkipped:
    if existing.id in before:
        detail = f"{existing.id} is {existing.status} here; nothing was changed."
        return {"id": existing.id, "why": "exists", "detail": detail}
    detail = f"{existing.id} came earlier in this import, with the same content."
    return {"id": existing.id, "why": "duplicate", "detail": detail}


def _id_taken(holder: Schedule) -> PromptyoselfError:
    return PromptyoselfError(
        "id_taken",
        f"{holder.id} is another schedule here: ids have 32 bits, and two contents met.",
        "Register it by hand: it gets another id.",
    )
