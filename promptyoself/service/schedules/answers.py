"""What the services about schedules answer."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Counts, Instant, ScheduleId, Total
from promptyoself.events.kinds import KeepReply, ScheduleType, Status
from promptyoself.service.schedules.replies.answers import ReplyView, ReportedReply

_NextRun = Annotated[str | None, "When it fires next, in UTC; null where it won't."]
_NextRunLocal = Annotated[str | None, "The same in the schedule's own time zone."]
_Zone = Annotated[str, "The schedule's time zone."]


class NextRun(TypedDict):
    """A schedule's next slot. Where there is none, this has ``next_run`` only."""

    next_run: _NextRun
    next_run_local: NotRequired[_NextRunLocal]
    timezone: NotRequired[_Zone]


_Understood = Annotated[
    str, "What words, a rule or a length by the calendar were understood as: options of register."
]


class Fire(TypedDict):
    """When a schedule fires."""

    utc: Instant
    local: str | None


class Scheduled(TypedDict):
    """What ``register`` and ``idle`` answer."""

    id: ScheduleId
    created: Annotated[bool, "False where it was scheduled already."]
    next_run: _NextRun
    next_run_local: NotRequired[_NextRunLocal]
    timezone: NotRequired[_Zone]
    message: AnswerMessage
    differs: NotRequired[Annotated[list[str], "Options that were another way; the old ones stay."]]
    life: NotRequired[Annotated[int, "How often it has come to life, where it had ended."]]
    understood: NotRequired[_Understood]
    fires: NotRequired[Annotated[list[Fire], "The next three."]]
    warning: NotRequired[str]
    dry_run: NotRequired[bool]
    hint: NotRequired[str]


class ScheduleView(TypedDict):
    """A schedule as it is listed. The keys that it may lack are those of the full form, and the
    full form has the policy of the schedule beside them (docs/reference/json.md)."""

    id: ScheduleId
    agent_id: Annotated[str, "The agent that is prompted."]
    name: str | None
    prompt: Annotated[str, "What the agent is told."]
    schedule_type: ScheduleType
    schedule_value: Annotated[str, "The instant, the cron expression or the interval."]
    timezone: str
    next_run: Instant | None
    last_run: Instant | None
    created_at: Instant
    status: Status
    active: bool
    repetition_count: Annotated[int, "How often it has fired."]
    max_repetitions: int | None
    template: NotRequired[str | None]
    tags: NotRequired[list[str]]
    render: NotRequired[Annotated[str, "The language of a prompt with values."]]
    resume_at: NotRequired[Annotated[Instant, "When a paused one runs again by itself."]]
    problem: NotRequired[str]
    invisible: NotRequired[int]
    next_run_local: NotRequired[str | None]
    conversation_id: NotRequired[str | None]
    target: NotRequired[Annotated[str, "Where its agent is, if that isn't a Letta server."]]
    start_at: NotRequired[str | None]
    until: NotRequired[str | None]
    life: NotRequired[int]
    failures: NotRequired[int]
    last_error: NotRequired[str | None]
    last_code: NotRequired[str | None]
    reason: NotRequired[str | None]
    content_sha256: NotRequired[str]
    open: NotRequired[list[dict[str, Any]]]
    keep_reply: NotRequired[Annotated[KeepReply, "How much of answers is kept, as things stand."]]
    reply_to: NotRequired[Annotated[str, "The destination of answers."]]
    failure_to: NotRequired[Annotated[str, "The destination that is told of failures."]]
    last_reply: NotRequired[ReplyView]


class ScheduleList(TypedDict):
    """What ``list`` answers."""

    schedules: Annotated[list[ScheduleView], "The soonest first."]
    count: int
    total: NotRequired[Total]
    not_shown: NotRequired[Annotated[Counts, "How many have failed, and so aren't listed."]]
    message: NotRequired[str]
    hint: NotRequired[str]


class ScheduleShown(TypedDict):
    """What ``show`` answers."""

    id: ScheduleId
    schedule: ScheduleView


class Modified(TypedDict):
    """What ``modify`` answers."""

    id: ScheduleId
    modified: Annotated[list[str], "The fields that have changed."]
    next_run: _NextRun
    next_run_local: NotRequired[_NextRunLocal]
    timezone: NotRequired[_Zone]
    message: AnswerMessage
    understood: NotRequired[_Understood]
    fires: NotRequired[Annotated[list[Fire], "The next three."]]
    warning: NotRequired[str]


class Cancelled(TypedDict):
    """What ``cancel`` answers."""

    cancelled_id: ScheduleId
    message: AnswerMessage
    under_way: NotRequired[int]


class Paused(TypedDict):
    """What ``pause`` answers."""

    id: ScheduleId
    resume_at: NotRequired[Annotated[Instant, "When it runs again by itself."]]
    resume_at_local: NotRequired[str | None]
    message: AnswerMessage


class ResumedOne(TypedDict):
    """A schedule that was resumed with others."""

    id: ScheduleId
    agent_id: str
    next_run: Instant | None


class LeftAsItIs(TypedDict):
    """A schedule that could not be resumed with others, and why."""

    id: ScheduleId
    agent_id: str
    code: str
    message: str


class Resumed(TypedDict):
    """What ``resume`` answers, of one schedule or of all that have failed with a code."""

    id: NotRequired[ScheduleId]
    next_run: NotRequired[_NextRun]
    next_run_local: NotRequired[_NextRunLocal]
    timezone: NotRequired[_Zone]
    life: NotRequired[Annotated[int, "Of one that was over: how often it was begun."]]
    failed_with: NotRequired[Annotated[str, "The code that was asked for."]]
    resumed: NotRequired[Annotated[list[ResumedOne], "Those that run on."]]
    left: NotRequired[Annotated[list[LeftAsItIs], "Those left as they are."]]
    count: NotRequired[int]
    message: AnswerMessage
    warning: NotRequired[str]


class SeveralChanged(TypedDict):
    """What ``cancel``, ``pause``, ``resume`` and ``trigger`` answer of several schedules."""

    cancelled: NotRequired[list[dict[str, Any]]]
    paused: NotRequired[list[dict[str, Any]]]
    resumed: NotRequired[list[dict[str, Any]]]
    triggered: NotRequired[list[dict[str, Any]]]
    left: list[LeftAsItIs]
    count: int
    message: AnswerMessage


class Triggered(TypedDict):
    """What ``trigger`` answers."""

    id: ScheduleId
    slot: Instant
    message: AnswerMessage
    warning: NotRequired[str]


class NextFires(TypedDict):
    """What ``next`` answers."""

    fires: Annotated[list[Fire], "The soonest first."]
    understood: NotRequired[_Understood]


_Spent = Annotated[int, "Deliveries charged today."]
_Limit = Annotated[int | None, "The most that a day may have; null: no limit."]
_ResetsAt = Annotated[str | None, "Midnight, UTC, when today ends."]


class Spent(TypedDict):
    """What was spent of a day's deliveries."""

    spent: _Spent
    limit: _Limit
    left: int | None
    resets_at: _ResetsAt


class AgentBudget(TypedDict):
    """What an agent has spent of today's deliveries."""

    agent_id: str
    spent: _Spent
    limit: _Limit
    left: int | None
    resets_at: _ResetsAt
    active: int
    max_active: int
    prompt_bytes: int
    max_prompt_bytes: int


class ScheduleBudget(TypedDict):
    """What a schedule has spent of today's deliveries."""

    id: ScheduleId
    agent_id: str
    name: str | None
    status: str
    spent: _Spent
    limit: _Limit
    left: int | None
    resets_at: _ResetsAt


class Budgets(TypedDict):
    """What ``budgets`` answers."""

    agents: Annotated[list[AgentBudget], "By agent."]
    schedules: Annotated[list[ScheduleBudget], "Those that aren't over."]
    count: int


class Approved(TypedDict):
    """What ``approve`` answers."""

    id: ScheduleId
    uses_left: int
    expires: Instant
    agent_id: str
    prompt: Annotated[str, "Its beginning, if it is long."]
    content_sha256: str
    allow_trigger: bool
    message: AnswerMessage
    template: NotRequired[str]
    invisible: NotRequired[int]
    warning: NotRequired[str]
    replaced: NotRequired[dict[str, Any]]


class Revoked(TypedDict):
    """What ``revoke`` answers."""

    id: ScheduleId
    revoked_uses: int
    message: AnswerMessage


class ApprovalView(TypedDict):
    """An approval as it is listed, or a token that the log didn't grant."""

    id: ScheduleId
    agent_id: str | None
    state: Annotated[str | None, "``live``, or what is wrong with it."]
    uses_left: int
    expires: Instant | None
    next_run: Instant | None
    allow_trigger: bool


class ApprovalList(TypedDict):
    """What ``approvals`` answers."""

    approvals: Annotated[list[ApprovalView], "Those that count first."]
    count: int


class Event(TypedDict):
    """An event as it is in the log."""

    v: int
    seq: Annotated[int, "Its number in the log."]
    ts: Instant
    type: Annotated[str, "What happened: schedule.registered, delivery.delivered, …"]
    id: ScheduleId | None
    actor: Annotated[
        dict[str, str], "Who called (who, kind), through which door (via), and for_agent."
    ]
    data: dict[str, Any]
    prev: Annotated[str, "The SHA-256 of the event before."]


class History(TypedDict):
    """What ``history`` answers."""

    events: Annotated[list[Event], "The oldest first, as they are in the log."]
    count: int
    total: NotRequired[Total]


class _StatsHead(TypedDict):
    seq: int
    hash: str
    ts: Instant | None


class LogStats(TypedDict):
    """How much a log has."""

    events: int
    events_by_type: Counts
    head: _StatsHead
    bytes: int


class Stats(TypedDict):
    """What ``stats`` answers."""

    schedules: Counts
    agents: int
    open_slots: Counts
    events: int
    events_by_type: Counts
    head: _StatsHead
    bytes: int
    awaited_replies: NotRequired[int]
    owed_notices: NotRequired[int]
    desires: NotRequired[
        Annotated[dict[str, Any], "The same of the desires' log, if there is one."]
    ]


class OutcomeCounts(TypedDict):
    """How many slots were delivered, failed or were skipped, and how many have no outcome yet."""

    delivered: int
    failed: int
    skipped: int
    skipped_why: Counts
    waiting: int
    in_doubt: int
    answers: NotRequired[Annotated[Counts, "How many answers came, and how many won't."]]
    notices: NotRequired[Annotated[Counts, "How many notices were sent, and how many given up."]]


class AgentOutcomes(OutcomeCounts):
    """What became of an agent's slots."""

    agent_id: str


class LastError(TypedDict):
    """The latest failure of a schedule."""

    at: Instant
    slot: Instant
    code: str
    error: str


class ScheduleOutcomes(AgentOutcomes):
    """What became of a schedule's slots."""

    id: ScheduleId
    name: str | None
    prompt: str
    last_error: LastError | None
    last_reply: NotRequired[ReportedReply]


class OutcomeLine(TypedDict):
    """The outcome of a slot, or of several that were skipped together."""

    at: Annotated[Instant, "When it was recorded."]
    slot: Instant
    last: NotRequired[Instant]
    slots: NotRequired[int]
    id: ScheduleId
    agent_id: str
    name: str | None
    outcome: str


class OpenDelivery(TypedDict):
    """A slot that is due and has no outcome yet."""

    slot: Instant
    id: ScheduleId
    agent_id: str
    name: str | None
    state: Annotated[str, "due, waiting, claimed or in_doubt."]
    attempt: int
    retry_at: Instant | None
    code: str | None
    error: str | None


class Report(TypedDict):
    """What ``report`` answers."""

    since: Instant
    until: Instant
    totals: OutcomeCounts
    agents: Annotated[list[AgentOutcomes], "By agent."]
    schedules: Annotated[list[ScheduleOutcomes], "Those with the most trouble first."]
    outcomes: Annotated[list[OutcomeLine], "The newest, oldest first."]
    open: Annotated[list[OpenDelivery], "What has no outcome yet."]
    count: int
    left_out: NotRequired[Annotated[Counts, "How many lines each list lacks."]]
    message: AnswerMessage


class SentText(TypedDict):
    """The text of one attempt to deliver a slot."""

    at: Instant
    attempt: int
    text_sha256: str
    text: Annotated[str | None, "null where it can't be told."]
