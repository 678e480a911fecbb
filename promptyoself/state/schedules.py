"""The schedules as they stand: the state that the events of the log add up to.

The state depends on the events alone, not on a clock, on time zone data or on settings. Decisions
that did are in the events (``next_run``, ``why``, ``parked``), so that a replay years later gives
the same answer.

Instants are text as :mod:`promptyoself.core.instants` writes it, and sort as text.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash, jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import parse_duration
from promptyoself.events import kinds
from promptyoself.events.kinds import FINISHED, STATUSES
from promptyoself.events.schedule_fields import SPECIFIED
from promptyoself.state.fold import NO_LOSSES, Losses
from promptyoself.state.overlay import Overlay, Summary, one

CHAIN = "schedules"
"""The name of the chain that has these events, and of its folder."""


class Schedule(NamedTuple):
    """One schedule as it stands."""

    id: str
    agent_id: str
    prompt: str  # empty with a template, from which it is rendered when it fires
    schedule_type: kinds.ScheduleType
    schedule_value: str  # an instant, a cron expression or an interval
    timezone: str
    status: kinds.Status
    created_at: str  # the time of the registration that began this life
    anchor: str  # the instant that an interval counts from
    tier: int
    misfire: kinds.MisfirePolicy
    grace: int  # seconds
    registered: str  # the hash of its content at registration, from which its id was made
    next_run: str | None = None  # the first slot without an outcome or a claim
    last_run: str | None = None  # when a prompt was last delivered
    repetition_count: int = 0  # scheduled slots that were claimed
    conversation_id: str | None = None
    name: str | None = None
    start_at: str | None = None
    until: str | None = None
    max_repetitions: int | None = None
    salt: int | None = None  # what tells its id from another with the same content
    life: int = 1  # how often it was registered, counting each return after its end
    daily_budget: int | None = None  # deliveries a day
    jitter: int | None = None  # seconds
    envelope: bool = False  # whether a header goes before the prompt
    on_failure: str | None = None  # the agent that gets notices
    failures: int = 0  # permanent failures since the last delivery
    last_error: str | None = None
    last_slot: str | None = None  # the latest claimed or skipped: none up to it fires again
    last_trigger: str | None = None  # the latest slot that `trigger` made
    # When the last scheduled slot that was tried got its outcome, or any begun slot was given up.
    settled_at: str | None = None
    spent_day: str | None = None  # the last day (UTC) on which a slot was claimed
    spent: int = 0  # slots claimed on that day
    reason: str | None = None
    template: str | None = None
    approval: str | None = None  # the name of the latest approval in this life
    approval_content: str | None = None  # the hash of the content that it is for
    approval_expires: str | None = None
    approval_uses: int = 0  # deliveries that it still allows
    approval_void: kinds.VoidReason | None = None
    approval_triggers: bool = True  # whether it allows deliveries that `trigger` asked for
    noticed_at: str | None = None  # when a notice last told somebody of missed slots
    told: str = ""  # the place of the registration in the log
    retold: dict[str, str] | None = None  # for each modified field, the place of its last change
    last_code: str | None = None  # the code of the latest slot that failed, in this life
    # Ranges of slots, each with its first and its last, that were claimed while a clock was ahead.
    # They don't come again, though others around them do.
    without: list[list[str]] | None = None
    tags: list[str] | None = None
    render: str | None = None  # the language of a prompt that is filled in when it fires
    resume_at: str | None = None  # when a paused one is to run again by itself
    target: str | None = None  # where its prompts go, if its agent's id says something else
    keep_reply: kinds.KeepReply | None = None  # how much of its agent's answers is kept
    reply_to: str | None = None  # the destination that is told of answers
    failure_to: str | None = None  # the destination that is told of failed and missed slots
    replied: str | None = None  # the place of the latest answer in the log


class OpenSlot(NamedTuple):
    """A slot that has begun and has no outcome yet."""

    id: str  # the schedule's
    agent_id: str
    slot: str
    kind: kinds.SlotKind
    attempt: int = 0
    worker: str | None = None  # the one that may send it; None while it waits for `retry_at`
    otid: str | None = None
    claimed_at: str | None = None  # the time of the latest claim
    first_claimed_at: str | None = None
    retry_at: str | None = None
    run_id: str | None = None
    code: str | None = None  # this and the next three: what last kept it from its end
    approved: bool = False  # an approval was spent on it, and its schedule is as it was then
    error: str | None = None
    http_status: int | None = None
    detail: str | None = None
    in_doubt: bool = False  # it may have been delivered in spite of that
    unsent: int = 0  # attempts that were handed back before anything was sent
    held: bool = False  # claimed by a clock that was behind the log
    conversation_id: str | None = None  # this and the next: where the latest claim was to go
    target: str | None = None
    untraced: bool = False  # an attempt was sent, and no trace of it could be found


class AwaitedReply(NamedTuple):
    """A prompt that has arrived, and whose answer is to be read."""

    id: str  # the schedule's
    agent_id: str
    slot: str
    otid: str
    keep: kinds.KeptReply
    worker: str  # the one that delivered it, which reads the answer while it lives
    since: str  # the time of the slot's first claim
    delivered_at: str
    run_id: str | None = None
    conversation_id: str | None = None  # where it went, or of the conversation that was made for it
    target: str | None = None


class OwedNotice(NamedTuple):
    """A destination is to be told of something, and hasn't taken the notice yet."""

    notice: str
    to: str
    kind: kinds.NoticeKind
    id: str  # the schedule's
    agent_id: str
    slot: str | None
    place: str  # of the event in the log that it tells of
    at: str  # the time of that event
    tries: int = 0
    retry_at: str | None = None
    code: str | None = None  # of the latest failure to send it


class AgentState(NamedTuple):
    """What is known of an agent."""

    schedules: int = 0  # in any status
    active: int = 0
    unfinished: tuple[str, ...] = ()  # the ids of its schedules that aren't over, sorted
    spent_day: str = ""  # the last day (UTC) on which a slot of it was claimed
    spent: int = 0  # slots claimed on that day
    failed: int = 0
    prompt_bytes: int = 0  # of the prompts of schedules that aren't over


NO_AGENT = AgentState()


class State(NamedTuple):
    """Everything that the log says now."""

    schedules: Overlay[Schedule]  # by id
    open: dict[str, OpenSlot]  # by slot_key
    agents: Overlay[AgentState]  # by id
    statuses: dict[str, int]  # how many schedules have each status
    counts: dict[str, int]  # how many events there are of each type
    replies: dict[str, AwaitedReply]  # by slot_key
    notices: dict[str, OwedNotice]  # by their own ids, those that are owed longest first
    digests: dict[str, str]  # by destination: the end of the time that it was told of last
    # How many notices each agent's schedules had for each destination that is an agent, in the
    # latest hour that had any: by `told_key`.
    told_agents: dict[str, int]
    newer: str | None = None  # the first event that this software is too old to read
    losses: Losses = NO_LOSSES  # the gaps in the log

    def agent(self, agent_id: str) -> AgentState:
        """What is known of an agent, also of one that the log doesn't name."""
        return self.agents.get(agent_id) or NO_AGENT

    def copy(self) -> "State":
        """The same state, to be changed by itself."""
        return self._replace(
            schedules=self.schedules.copy(),
            open=dict(self.open),
            agents=self.agents.copy(),
            statuses=dict(self.statuses),
            counts=dict(self.counts),
            replies=dict(self.replies),
            notices=dict(self.notices),
            digests=dict(self.digests),
            told_agents=dict(self.told_agents),
            losses=self.losses.copy(),
        )


def schedule_table(schedules: Iterable[Schedule] = ()) -> Overlay[Schedule]:
    """A table of these schedules, in memory."""
    return Overlay(summarize, None, {schedule.id: schedule for schedule in schedules})


def agent_table(agents: Mapping[str, AgentState] | None = None) -> Overlay[AgentState]:
    """A table of these agents, in memory."""
    return Overlay(one, None, dict(agents or {}))


def summarize(schedule: Schedule) -> Summary:
    """One schedule's part in a :class:`~promptyoself.state.overlay.Summary` of many."""
    if (first := comes_back_at(schedule)) is not None:
        return Summary(1, first, first, _ONE_OF["paused"])
    first = schedule.next_run if schedule.status == "active" else None
    ready = None if first is None else ready_at(schedule, first)
    return Summary(1, first, ready, _ONE_OF[schedule.status], int(is_failing(schedule)))


def comes_back_at(schedule: Schedule) -> str | None:
    """When a paused schedule is to run again by itself, if it is, and if a slot of it is left."""
    if schedule.status != "paused" or schedule.next_run is None:
        return None
    return schedule.resume_at


def is_failing(schedule: Schedule) -> bool:
    """Whether it is active, though its latest delivery failed."""
    if schedule.last_error is None or schedule.status != "active":
        return False
    return schedule.failures > 0 or (schedule.settled_at or "") > (schedule.last_run or "")


def unfinished(state: State, agent_id: str | None = None) -> Iterator[Schedule]:
    """The schedules that aren't over, of one agent or of all. Parts without any aren't read."""
    if agent_id is not None:
        return (state.schedules[id_] for id_ in state.agent(agent_id).unfinished)
    candidates = state.schedules.values(
        lambda summary: any(summary.statuses[index] for index in _UNFINISHED)
    )
    return (schedule for schedule in candidates if schedule.status not in FINISHED)


_UNFINISHED = [index for index, status in enumerate(STATUSES) if status not in FINISHED]


def open_by_id(state: State) -> dict[str, list[OpenSlot]]:
    """The slots that have begun and have no outcome yet, by their schedules."""
    by_id: dict[str, list[OpenSlot]] = {}
    for slot in state.open.values():
        by_id.setdefault(slot.id, []).append(slot)
    return by_id


def ready_at(schedule: Schedule, slot: str) -> str:
    """When a schedule's next slot may begin: at its instant, with the jitter added.

    With ``misfire`` ``all``, a slot that was due already when the one before it ended also waits
    for :data:`CATCH_UP_PAUSE`, or for its interval if that is shorter. So what was missed in a long
    sleep doesn't come all at once.
    """
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
    """How long a schedule with these fields waits between two slots that it makes up for."""
    if fields["schedule_type"] != "interval":
        return CATCH_UP_PAUSE
    try:
        interval = timedelta(seconds=parse_duration(fields["schedule_value"]))
    except PromptyoselfError:  # of which the claim will complain
        return CATCH_UP_PAUSE
    return min(CATCH_UP_PAUSE, interval)


CATCH_UP_PAUSE = timedelta(seconds=60)

_ONE_OF = {status: tuple(int(status == other) for other in STATUSES) for status in STATUSES}

EMPTY = State(schedule_table(), {}, agent_table(), {}, {}, {}, {}, {}, {})
"""Before the first event."""


def prompt_size(schedule: Schedule) -> int:
    """How many bytes a schedule's prompt has, for as long as the schedule isn't over."""
    if schedule.status in FINISHED:
        return 0
    return len(schedule.prompt.encode("utf-8", "surrogatepass"))


def spec_hash(schedule: Schedule) -> str:
    """The hash of everything that a person reads and approves: the fields of
    :data:`~promptyoself.events.schedule_fields.SPECIFIED`. The policy is among them, since any
    modification voids an approval."""
    return content_hash({name: getattr(schedule, name) for name in SPECIFIED})


def told_key(at: str, agent_id: str, to: str) -> str:
    """The hour of an instant, the agent whose schedules have something to tell, and the destination
    that is told: what notices for agents are counted by."""
    return f"{at[:13]}|{agent_id}|{to}"


def slot_key(id_: str, slot: str) -> str:
    """The name of a slot: what its otid is made of, and its key among the open ones."""
    return f"{id_}|{slot}"
