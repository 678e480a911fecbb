"""What the log says: a fold of its events into the schedules as they stand.

The fold asks no clock, no time zone data and no settings: every decision that depended on those
is in the events (``next_run``, ``why``, ``parked``), so that a replay years later gives the same
answer. Instants are text in the one spelling of :mod:`promptyoself.instants`, whose order is that
of time.
"""

import heapq
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

from promptyoself import events
from promptyoself.errors import ChainError
from promptyoself.identity import content_hash, content_of, jittered
from promptyoself.instants import format_utc, is_instant, parse_utc
from promptyoself.overlay import Overlay, Summary

__all__ = [
    "EMPTY",
    "FINISHED",
    "STATUSES",
    "AgentState",
    "Folded",
    "OpenSlot",
    "Schedule",
    "State",
    "agent_table",
    "branch",
    "due",
    "fold",
    "schedule_table",
    "slot_key",
    "summarize",
]

STATUSES = ("active", "paused", "completed", "cancelled", "failed")

FINISHED = frozenset(STATUSES[2:])
"""The statuses in which no slot is to come."""


class Folded(Protocol):
    """What the fold reads of an envelope."""

    @property
    def v(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def ts(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def id(self) -> str | None: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


class Schedule(NamedTuple):
    """One schedule as it stands. Durations are seconds.

    ``next_run`` is the first slot without an outcome or a claim. ``registered`` is the hash of its
    content at registration: what its id was made of, whatever was modified since. ``last_slot`` is
    the latest slot ever claimed or skipped: no slot up to it can fire again, in any life.
    ``settled_at`` is when the last scheduled one that was tried got its outcome.
    """

    id: str
    agent_id: str
    prompt: str
    schedule_type: str
    schedule_value: str
    timezone: str
    status: str
    created_at: str
    anchor: str
    tier: int
    misfire: str
    grace: int
    registered: str
    next_run: str | None = None
    last_run: str | None = None
    repetition_count: int = 0
    conversation_id: str | None = None
    name: str | None = None
    start_at: str | None = None
    until: str | None = None
    max_repetitions: int | None = None
    salt: int | None = None
    life: int = 1
    daily_budget: int | None = None
    jitter: int | None = None
    envelope: bool = False
    failures: int = 0
    last_error: str | None = None
    last_slot: str | None = None
    last_trigger: str | None = None
    settled_at: str | None = None
    spent_day: str | None = None
    spent: int = 0
    reason: str | None = None


class OpenSlot(NamedTuple):
    """A slot that has begun and has no outcome yet.

    Claimed while ``worker`` names who may send it; otherwise it waits for ``retry_at``.
    ``claimed_at`` is the time of the latest claim, ``first_claimed_at`` that of the first.
    """

    id: str
    agent_id: str
    slot: str
    kind: str
    attempt: int = 0
    worker: str | None = None
    otid: str | None = None
    claimed_at: str | None = None
    first_claimed_at: str | None = None
    retry_at: str | None = None
    run_id: str | None = None
    code: str | None = None


class AgentState(NamedTuple):
    """What is known of an agent: how many ``schedules`` it has, in any status, and how many are
    ``active``; the ids of those that aren't over, sorted; and how many slots of it were claimed on
    the last day (UTC) on which any were."""

    schedules: int = 0
    active: int = 0
    unfinished: tuple[str, ...] = ()
    spent_day: str = ""
    spent: int = 0


NO_AGENT = AgentState()


class State(NamedTuple):
    """Everything the log says now: the ``schedules`` by id, the ``open`` slots by
    :func:`slot_key`, the ``agents`` by id; how many schedules there are per status, and events per
    type. ``newer`` names the first event that this software is too old to read."""

    schedules: Overlay[Schedule]
    open: dict[str, OpenSlot]
    agents: Overlay[AgentState]
    statuses: dict[str, int]
    counts: dict[str, int]
    newer: str | None = None

    def agent(self, agent_id: str) -> AgentState:
        """What is known of an agent, if only that it has nothing."""
        return self.agents.get(agent_id) or NO_AGENT


def schedule_table(schedules: Iterable[Schedule] = ()) -> Overlay[Schedule]:
    """A table of these schedules, in memory."""
    return Overlay(summarize, None, {schedule.id: schedule for schedule in schedules})


def agent_table(agents: Mapping[str, AgentState] | None = None) -> Overlay[AgentState]:
    """A table of these agents, in memory."""
    return Overlay(_nothing_to_sum_up, None, dict(agents or {}))


def summarize(schedule: Schedule) -> Summary:
    """One schedule's part in a :class:`~promptyoself.overlay.Summary` of many."""
    first = schedule.next_run if schedule.status == "active" else None
    ready = first
    if first is not None and schedule.jitter:
        ready = format_utc(jittered(schedule.id, parse_utc(first), schedule.jitter))
    return Summary(1, first, ready, _ONE_OF[schedule.status])


_ONE_OF = {status: tuple(int(status == each) for each in STATUSES) for status in STATUSES}


def _nothing_to_sum_up(_: AgentState) -> Summary:
    return _ONE


_ONE = Summary(1)


EMPTY = State(schedule_table(), {}, agent_table(), {}, {})
"""Before the first event."""


def slot_key(id_: str, slot: str) -> str:
    """The name of a slot: what its otid is made of, and its key among the open ones."""
    return f"{id_}|{slot}"


def fold(state: State, envelopes: Iterable[Folded]) -> State:
    """The state after some more events; ``state`` itself is left as it was.

    Raises:
        ChainError: ``corrupt_chain``: an event contradicts those before it. Its links may hold,
            but no writer of ours can have written it.
    """
    new = branch(state)
    for event in envelopes:
        new.counts[event.type] = new.counts.get(event.type, 0) + 1
        if not events.is_known(event.type, event.v):
            if new.newer is None:
                new = new._replace(newer=f"event {event.seq} ({event.type}, version {event.v})")
            continue
        try:
            _apply(new, event, events.read_record(event.type, event.v, event.data))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ChainError(
                "corrupt_chain",
                f"Event {event.seq} ({event.type}) contradicts those before it: {error!r}.",
                "Nothing was changed. No version of promptyoself writes this: restore the log from "
                "a backup and run `promptyoself verify`, or report it if only promptyoself ever "
                "wrote there.",
                seq=event.seq,
            ) from None
    return new


def branch(state: State) -> State:
    """The same state, to be changed by itself."""
    return State(
        state.schedules.branch(),
        dict(state.open),
        state.agents.branch(),
        dict(state.statuses),
        dict(state.counts),
        state.newer,
    )


def due(state: State, now: str) -> Iterator[tuple[str, str, str]]:
    """What could be claimed at ``now``: ``(instant, schedule id, open slot's key or "")``, oldest
    first. Whether it may be is for the claim to decide. What isn't asked for isn't looked for."""

    def is_ready(summary: Summary) -> bool:
        return summary.ready is not None and summary.ready <= now

    scheduled = ((first, id_, "") for first, id_, _ in state.schedules.soonest(is_ready))
    waiting = sorted(
        (slot.retry_at, slot.id, key)
        for key, slot in state.open.items()
        if slot.worker is None and slot.retry_at is not None and slot.retry_at <= now
    )
    return heapq.merge(scheduled, waiting)


def _apply(state: State, event: Folded, record: events.Record) -> None:
    if event.id is None:
        if isinstance(record, events.WorkerStopped):
            for left in record.in_flight or ():
                key = slot_key(left["id"], left["slot"])
                if key in state.open:
                    state.open[key] = state.open[key]._replace(run_id=left.get("run_id"))
        return
    before = state.schedules.get(event.id)
    if isinstance(record, events.ScheduleRegistered):
        after = _register(event, record, before)
    elif before is None:
        raise ValueError("its schedule was never registered")
    else:
        after = _evolve(state, event, record, before)
    if isinstance(record, events.ScheduleRegistered | events.ScheduleModified):
        _check_spec(after)
    state.schedules[event.id] = after
    if before is None:
        _count(state, after, 1)
    elif before.status != after.status or before.agent_id != after.agent_id:
        _count(state, before, -1)
        _count(state, after, 1)


def _count(state: State, schedule: Schedule, change: int) -> None:
    """Add a schedule to what is counted, or take it away."""
    count = state.statuses.get(schedule.status, 0) + change
    state.statuses[schedule.status] = count
    if not count:
        del state.statuses[schedule.status]
    agent = state.agent(schedule.agent_id)
    unfinished = agent.unfinished
    if schedule.status not in FINISHED:
        at = bisect_left(unfinished, schedule.id)
        added = (schedule.id,) if change > 0 else ()
        unfinished = unfinished[:at] + added + unfinished[at + (change < 0) :]
    state.agents[schedule.agent_id] = agent._replace(
        schedules=agent.schedules + change,
        active=agent.active + change * (schedule.status == "active"),
        unfinished=unfinished,
    )


def _check_spec(schedule: Schedule) -> None:
    if schedule.schedule_type not in ("once", "cron", "interval"):
        raise ValueError("its schedule_type isn't known")
    if schedule.schedule_type == "once" and not is_instant(schedule.schedule_value):
        raise ValueError("its time isn't an instant")


def _register(
    event: Folded, record: events.ScheduleRegistered, before: Schedule | None
) -> Schedule:
    fields = record._asdict()
    first_content = fields.pop("first_content")
    fields.update(
        id=event.id,
        status="active",
        created_at=event.ts,
        registered=content_hash(dict(first_content) if first_content else content_of(record)),
        life=record.life or 1,
        envelope=bool(record.envelope),
        repetition_count=record.repetition_count or 0,
    )
    if before is not None:
        fields.update(
            last_run=before.last_run,
            last_slot=before.last_slot,
            last_trigger=before.last_trigger,
            spent_day=before.spent_day,
            spent=before.spent,
        )
    return Schedule(**fields)


def _evolve(state: State, event: Folded, record: events.Record, schedule: Schedule) -> Schedule:
    match record:  # the most frequent first
        case events.DeliveryAttempted():
            return _claim(state, event, record, schedule)
        case events.DeliveryDelivered():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            return schedule._replace(
                last_run=event.ts,
                settled_at=event.ts if slot.kind == "scheduled" else schedule.settled_at,
                failures=0,
                last_error=record.error,
            )
        case events.DeliverySkipped():
            # An open slot that is given up; or slots that never began, which moves the schedule on.
            if state.open.pop(slot_key(schedule.id, record.slot), None) is not None:
                return schedule._replace(settled_at=event.ts)
            if record.kind != "scheduled":
                raise ValueError("it skips a slot that never began")
            return schedule._replace(last_slot=record.last, next_run=record.next_run)
        case events.DeliveryAbandoned():
            key = slot_key(schedule.id, record.slot)
            state.open[key] = state.open[key]._replace(
                worker=None, retry_at=record.retry_at, code=record.code
            )
            return schedule._replace(last_error=record.error)
        case events.DeliveryFailed():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            return schedule._replace(
                settled_at=event.ts if slot.kind == "scheduled" else schedule.settled_at,
                failures=schedule.failures + record.permanent,
                last_error=record.error,
                status="failed" if record.parked else schedule.status,
            )
        case events.ScheduleModified():
            return schedule._replace(**{"reason": record.reason, **record.changes})
        case events.SchedulePaused():
            return schedule._replace(
                status="paused", next_run=record.next_run, reason=record.reason
            )
        case events.ScheduleResumed():
            return schedule._replace(
                status="active", next_run=record.next_run, reason=record.reason, failures=0
            )
        case events.ScheduleCancelled():
            return schedule._replace(status="cancelled", next_run=None, reason=record.reason)
        case events.ScheduleCompleted():
            if record.status not in FINISHED:
                raise ValueError("it ends in a status that is none")
            return schedule._replace(status=record.status, next_run=None)
        case events.ScheduleTriggered():
            key = slot_key(schedule.id, record.slot)
            state.open[key] = OpenSlot(
                schedule.id, schedule.agent_id, record.slot, "trigger", retry_at=record.slot
            )
            return schedule._replace(last_trigger=record.slot)
        case _:
            raise ValueError("an event of the log itself bears a schedule's id")


def _claim(
    state: State, event: Folded, record: events.DeliveryAttempted, schedule: Schedule
) -> Schedule:
    key = slot_key(schedule.id, record.slot)
    earlier = state.open.get(key)
    first = record.attempt == 1
    state.open[key] = OpenSlot(
        schedule.id,
        schedule.agent_id,
        record.slot,
        record.kind,
        record.attempt,
        record.worker,
        record.otid,
        event.ts,
        event.ts if first or earlier is None else earlier.first_claimed_at,
    )
    if not first:
        return schedule
    day = event.ts[:10]
    agent = state.agent(schedule.agent_id)
    state.agents[schedule.agent_id] = agent._replace(
        spent_day=day, spent=agent.spent + 1 if agent.spent_day == day else 1
    )
    spent = schedule.spent + 1 if schedule.spent_day == day else 1
    if record.kind != "scheduled":
        return schedule._replace(spent_day=day, spent=spent)
    return schedule._replace(
        spent_day=day,
        spent=spent,
        last_slot=record.slot,
        next_run=record.next_run,
        repetition_count=schedule.repetition_count + 1,
    )
