"""What the log says: a fold of its events into the schedules as they stand.

The fold asks no clock, no time zone data and no settings: every decision that depended on those
is in the events (``next_run``, ``why``, ``parked``), so that a replay years later gives the same
answer.

Instants are text as :mod:`promptyoself.core.instants` writes it. Their order as text is that of
time.
"""

import heapq
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash, jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import parse_duration
from promptyoself.events.kinds import (
    FINISHED,
    STATUSES,
    MisfirePolicy,
    ScheduleType,
    SlotKind,
    Status,
    VoidReason,
)
from promptyoself.events.schedule_fields import SPECIFIED
from promptyoself.state.fold import NO_LOSSES, Folded, Losses
from promptyoself.state.overlay import Overlay, Summary

__all__ = [
    "CATCH_UP_PAUSE",
    "CHAIN",
    "EMPTY",
    "AgentState",
    "Folded",
    "OpenSlot",
    "Schedule",
    "State",
    "agent_table",
    "catch_up_pause",
    "copy_state",
    "due",
    "is_failing",
    "is_unfinished",
    "place",
    "prompt_size",
    "ready_at",
    "schedule_table",
    "slot_key",
    "spec_hash",
    "summarize",
]

CHAIN = "schedules"
"""The name of the chain that has these events, and of its folder."""


class Schedule(NamedTuple):
    """One schedule as it stands. Durations are seconds.

    ``next_run`` is the first slot without an outcome or a claim. ``registered`` is the hash of its
    content at registration: what its id was made of, whatever was modified since. ``last_slot`` is
    the latest slot ever claimed or skipped: no slot up to it can fire again, in any life.
    ``settled_at`` is when the last scheduled one that was tried got its outcome. With a
    ``template`` the prompt is empty, and rendered when it fires. The fields of ``approval`` are
    those of the latest that was granted in this life: its name, the hash of the content it is for,
    the deliveries left, why it is void, if it is, and whether triggers may spend it. ``noticed_at``
    is when somebody was last told that slots were missed. ``told`` is the :func:`place` of the
    registration in the log, and ``retold`` that of the latest change of each field that was
    modified since. ``last_code`` is the code of the latest slot that failed, in this life.
    ``without`` are ranges of slots, each with its first and its last, that were claimed while a
    clock was ahead: they don't come again, though others around them do.
    """

    id: str
    agent_id: str
    prompt: str
    schedule_type: ScheduleType
    schedule_value: str
    timezone: str
    status: Status
    created_at: str
    anchor: str
    tier: int
    misfire: MisfirePolicy
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
    on_failure: str | None = None
    failures: int = 0
    last_error: str | None = None
    last_slot: str | None = None
    last_trigger: str | None = None
    settled_at: str | None = None
    spent_day: str | None = None
    spent: int = 0
    reason: str | None = None
    template: str | None = None
    approval: str | None = None
    approval_content: str | None = None
    approval_expires: str | None = None
    approval_uses: int = 0
    approval_void: VoidReason | None = None
    approval_triggers: bool = True
    noticed_at: str | None = None
    told: str = ""
    retold: dict[str, str] | None = None
    last_code: str | None = None
    without: list[list[str]] | None = None


class OpenSlot(NamedTuple):
    """A slot that has begun and has no outcome yet.

    Claimed while ``worker`` names who may send it; otherwise it waits for ``retry_at``. ``code``,
    ``error``, ``http_status`` and ``detail`` are of what last kept it from its end; ``in_doubt``
    says that it may have been delivered for all that.
    ``claimed_at`` is the time of the latest claim, ``first_claimed_at`` that of the first.
    ``approved`` says that an approval was spent on it, and that its schedule is as it then was;
    ``held`` that it was claimed while the log's time was held at a later one than the claim's.
    ``unsent`` is how many attempts were handed back before anything was sent.
    """

    id: str
    agent_id: str
    slot: str
    kind: SlotKind
    attempt: int = 0
    worker: str | None = None
    otid: str | None = None
    claimed_at: str | None = None
    first_claimed_at: str | None = None
    retry_at: str | None = None
    run_id: str | None = None
    code: str | None = None
    approved: bool = False
    error: str | None = None
    http_status: int | None = None
    detail: str | None = None
    in_doubt: bool = False
    unsent: int = 0
    held: bool = False


class AgentState(NamedTuple):
    """What is known of an agent: how many ``schedules`` it has, in any status, and how many are
    ``active``; the ids of those that aren't over, sorted; and how many slots of it were claimed on
    the last day (UTC) on which any were; how many have ``failed``; and how many bytes the prompts
    of those have that aren't over."""

    schedules: int = 0
    active: int = 0
    unfinished: tuple[str, ...] = ()
    spent_day: str = ""
    spent: int = 0
    failed: int = 0
    prompt_bytes: int = 0


NO_AGENT = AgentState()


class State(NamedTuple):
    """Everything the log says now: the ``schedules`` by id, the ``open`` slots by
    :func:`slot_key`, the ``agents`` by id; how many schedules there are per status, and events per
    type. ``newer`` names the first event that this software is too old to read; ``losses`` are the
    gaps in the log."""

    schedules: Overlay[Schedule]
    open: dict[str, OpenSlot]
    agents: Overlay[AgentState]
    statuses: dict[str, int]
    counts: dict[str, int]
    newer: str | None = None
    losses: Losses = NO_LOSSES

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
    """One schedule's part in a :class:`~promptyoself.state.overlay.Summary` of many."""
    first = schedule.next_run if schedule.status == "active" else None
    ready = None if first is None else ready_at(schedule, first)
    return Summary(1, first, ready, _ONE_OF[schedule.status], int(is_failing(schedule)))


def is_failing(schedule: Schedule) -> bool:
    """Whether it is active, though its latest delivery failed."""
    if schedule.last_error is None or schedule.status != "active":
        return False
    return schedule.failures > 0 or (schedule.settled_at or "") > (schedule.last_run or "")


def is_unfinished(summary: Summary) -> bool:
    """Whether there may be a schedule that isn't over among those that are summed up."""
    return any(summary.statuses[place] for place in _UNFINISHED)


_UNFINISHED = [place for place, status in enumerate(STATUSES) if status not in FINISHED]


def ready_at(schedule: Schedule, slot: str) -> str:
    """When a schedule's next slot may begin: at once, but for its jitter. One that was due already
    when the one before it ended, and is made up for since ``misfire`` is ``all``, waits for
    :data:`CATCH_UP_PAUSE`, or the interval where that is shorter: so that what was missed in a
    long sleep doesn't come all at once."""
    ready = slot
    if schedule.jitter:
        ready = format_utc(jittered(schedule.id, parse_utc(slot), schedule.jitter))
    ended = schedule.settled_at
    if schedule.misfire == "all" and ended is not None and slot <= ended:
        with suppress(OverflowError):  # the calendar's end
            rested = parse_utc(ended) + catch_up_pause(schedule._asdict())
            ready = max(ready, format_utc(rested))
    return ready


def catch_up_pause(fields: Mapping[str, Any]) -> timedelta:
    """How long a schedule of these fields waits between two slots that it makes up for."""
    if fields["schedule_type"] != "interval":
        return CATCH_UP_PAUSE
    try:
        interval = timedelta(seconds=parse_duration(fields["schedule_value"]))
    except PromptyoselfError:  # of which the claim will complain
        return CATCH_UP_PAUSE
    return min(CATCH_UP_PAUSE, interval)


CATCH_UP_PAUSE = timedelta(seconds=60)


_ONE_OF = {status: tuple(int(status == each) for each in STATUSES) for status in STATUSES}


def _nothing_to_sum_up(_: AgentState) -> Summary:
    return _ONE


_ONE = Summary(1)


EMPTY = State(schedule_table(), {}, agent_table(), {}, {})
"""Before the first event."""


def prompt_size(schedule: Schedule) -> int:
    """How many bytes a schedule's prompt has, for as long as the schedule isn't over."""
    if schedule.status in FINISHED:
        return 0
    return len(schedule.prompt.encode("utf-8", "surrogatepass"))


def spec_hash(schedule: Schedule) -> str:
    """The hash of all that a person reads and approves: of the fields of
    :data:`~promptyoself.events.schedule_fields.SPECIFIED`, policy too, since any modification voids
    an approval."""
    return content_hash({name: getattr(schedule, name) for name in SPECIFIED})


def place(event: Folded) -> str:
    """Where an event stands in the log: its month and its number, as ``2026-11:42``."""
    return f"{event.ts[:7]}:{event.seq}"


def slot_key(id_: str, slot: str) -> str:
    """The name of a slot: what its otid is made of, and its key among the open ones."""
    return f"{id_}|{slot}"


def due(state: State, now: str, agent_id: str | None = None) -> Iterator[tuple[str, str, str]]:
    """What could be claimed at ``now``: ``(instant, schedule id, open slot's key or "")``, oldest
    first; of one agent, where that is given. Whether it may be is for the claim to decide. What
    isn't asked for isn't looked for."""
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
    found = []
    for id_ in state.agent(agent_id).unfinished:
        summary = summarize(state.schedules[id_])
        if summary.first is not None and summary.ready is not None and summary.ready <= now:
            found.append((summary.first, id_, ""))
    return sorted(found)


def copy_state(state: State) -> State:
    """The same state, to be changed by itself."""
    return State(
        state.schedules.copy(),
        dict(state.open),
        state.agents.copy(),
        dict(state.statuses),
        dict(state.counts),
        state.newer,
        state.losses.copy(),
    )
