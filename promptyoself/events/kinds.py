"""The words that certain fields of events and answers can have, each list once.

Each list is a type, so that mypy refuses a misspelt word where one is written, and a tuple of the
same words for those who go through them. They are permanent, as all of the log's format is. An
event of a later version may have a word that isn't here: reading doesn't refuse it.

They aren't enums: creating one costs 0.1 ms, and every command would pay for it.
"""

from typing import Literal, get_args

ScheduleType = Literal["once", "cron", "interval", "rrule"]
"""What kind of times a schedule has. An ``rrule`` is a recurrence rule of RFC 5545, which keeps the
time of day when the clocks change."""

SCHEDULE_TYPES: tuple[ScheduleType, ...] = get_args(ScheduleType)

Status = Literal["active", "paused", "completed", "cancelled", "failed"]
"""How a schedule stands. One that ``failed`` was parked, or is a one-off that wasn't delivered."""

STATUSES: tuple[Status, ...] = get_args(Status)

FINISHED: frozenset[Status] = frozenset({"completed", "cancelled", "failed"})
"""The statuses in which no slot is to come."""

MisfirePolicy = Literal["coalesce", "skip", "all"]
"""What becomes of slots that were missed."""

MISFIRE_POLICIES: tuple[MisfirePolicy, ...] = get_args(MisfirePolicy)

SlotKind = Literal["scheduled", "trigger"]
"""Where a slot comes from: from its schedule's times, or from a command to deliver once now."""

SkipReason = Literal[
    "misfire",  # it was missed, and the schedule's misfire policy doesn't ask for it
    "overlap",  # an earlier slot of the schedule was still being delivered
    "grace",  # it was too late
    # The schedule was not active.
    "paused",
    "parked",
    "cancelled",
    "modified",  # the schedule's times were changed while the slot was still on time
    # The limits of rules/policy.py.
    "approval",
    "budget",
    "agent_cap",
    "no_desires",  # the schedule renders an idle prompt, and the agent has no desires to list
    "no_text",  # its prompt with values was filled in, and nothing was left to say
    "clock",  # a clock that was ahead had begun it
]
"""Why a slot won't be delivered."""

SKIP_REASONS: tuple[SkipReason, ...] = get_args(SkipReason)

MISSED: frozenset[SkipReason] = frozenset({"misfire", "grace"})
"""The reasons of slots that nobody claimed in time, of which somebody wants to hear."""

CompletionReason = Literal["once", "max_repetitions", "until"]
"""What ended a schedule."""

FinalStatus = Literal["completed", "failed"]
"""The status in which a schedule ends by itself; ``failed`` only of a one-off."""

ArrivalProof = Literal["run", "history"]
"""How a delivery is known to have arrived: its run completed, or the agent has its message."""

TurnEnd = Literal["cut_off", "failed", "waits_for_approval"]
"""What became of the agent's turn over a prompt that has arrived, other than that it ended well: it
ended without an answer, since somebody or a dying server ended it; it went wrong; or it waits for
somebody to approve of a tool."""

KeepReply = Literal["none", "hash", "excerpt", "full"]
"""How much of an agent's answer is kept: nothing, and it isn't asked for; its length and its
SHA-256; its beginning besides; or all of it."""

KeptReply = Literal["hash", "excerpt", "full"]
"""How much there is of an answer that is kept."""

KEEP_REPLY: tuple[KeepReply, ...] = get_args(KeepReply)
"""From the least to the most."""

NoticeKind = Literal["reply", "failure", "digest"]
"""What a notice tells of: what an agent has answered, that a schedule has failed or missed slots,
or what happened since the digest before."""

HANDED_BACK = frozenset({"worker_stopped", "too_slow"})
"""The codes of attempts that were given up before anything was sent, because of the worker. They
say nothing of the agent or of Letta, so they don't count as tries."""

NO_TRACE = "no_trace"
"""The code of attempts that were sent, and left no trace that could be found. What they have sent
may still arrive, if something holds it up."""

VoidReason = Literal["modified", "revoked"]
"""Why an approval that was granted doesn't count any more."""

ApprovalProblem = Literal[
    VoidReason,
    # What the log alone can tell.
    "missing",
    "expired",
    "used_up",
    "trigger_not_allowed",
    # What is wrong with the token.
    "forged",
    "copied",
    "unrecorded",
    "unreadable",
]
"""What is wrong with the approval that a delivery needs."""

WorkerMode = Literal["loop", "once"]
"""Whether a worker delivers until it is stopped, or what is due now."""

Outcome = Literal[
    "delivered",  # it has its outcome in the log
    "failed",
    "skipped",
    "in_flight",  # a worker that lives is at it
    "in_doubt",  # its worker died over it
    "pending",  # it is due, and nobody could have claimed it yet
    "lost",  # what became of it lies in a gap of the log
    "unaccounted",  # the log has forgotten it
    "doubled",  # it was claimed twice, or has two outcomes
    "unexpected",  # there was to be no slot then, or its claim was not allowed
]
"""What an audit says of a slot."""

OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

PROBLEMS: frozenset[Outcome] = frozenset({"unaccounted", "doubled", "unexpected"})
"""The outcomes that break a promise."""

PendingReason = Literal[
    "no_loop",  # no loop is running
    "no_broca_loop",  # no loop is running inside its agent's Broca
    "busy",  # its agent has another delivery under way
    "overlap",  # an earlier slot of its schedule isn't settled
    "held",  # Letta gave no answer
    "desires",  # it renders an idle prompt, and the log of desires is refused
    "soon",  # a loop will come to it in moments
]
"""What a pending slot waits for."""
