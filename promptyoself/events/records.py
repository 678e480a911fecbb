"""What can happen: a class for each type of event.

A record is the ``data`` of one event in the log. Durations are whole seconds. Fields that are
``None`` are left out of the log. The names of types and fields are permanent: a change of meaning
takes a new version and an upcast from the old one, never an edit.

They are named tuples because commands pay for creating them: twenty frozen dataclasses with slots
cost 15 ms, twenty named tuples 2 ms. For the same reason ``from __future__ import annotations`` is
left out, which would compile each annotation.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from promptyoself.events import kinds
from promptyoself.events.answer_records import DeliveryReplied as DeliveryReplied  # noqa: PLC0414
from promptyoself.events.answer_records import (
    DeliveryUnanswered as DeliveryUnanswered,  # noqa: PLC0414
)
from promptyoself.events.answer_records import NoticeFailed as NoticeFailed  # noqa: PLC0414
from promptyoself.events.answer_records import NoticeSent as NoticeSent  # noqa: PLC0414
from promptyoself.events.schedule_fields import Instant
from promptyoself.events.schedule_fields import ScheduleRegistered as ScheduleRegistered  # noqa: PLC0414

FORMAT = 1
"""The version of the chain's format that ``ledger.created`` states."""


class LedgerCreated(NamedTuple):
    """The first event of every chain."""

    format: int
    chain: str
    software: str


class ScheduleModified(NamedTuple):
    """Fields changed: ``changes`` holds their new values under the names of the registration.

    A ``next_run`` of ``None`` within ``changes`` means that no slot is left. ``uncounted`` as in
    :class:`SchedulePaused`; ``counts_from`` and ``without`` as in :class:`ScheduleResumed`.
    """

    changes: dict[str, Any]
    reason: str | None = None
    uncounted: str | None = None
    counts_from: Instant | None = None
    without: list[list[str]] | None = None


class SchedulePaused(NamedTuple):
    """No slot is claimed until it is resumed. ``next_run`` is the first slot that then counts.

    ``uncounted`` says why nobody could tell which slots had passed by then: the code of the error.
    ``resume_at`` is the instant from which it is to run again by itself.
    """

    next_run: Instant | None = None
    reason: str | None = None
    uncounted: str | None = None
    resume_at: Instant | None = None


class ScheduleResumed(NamedTuple):
    """Slots are claimed again, from ``next_run`` on.

    ``counts_from`` is there if a clock that was ahead had decided slots that lay in the future. It
    is the time of the event, and slots after it count again. Those that had been claimed don't come
    again: ``without`` lists them as ranges, each with a first and a last slot.
    """

    next_run: Instant
    reason: str | None = None
    counts_from: Instant | None = None
    without: list[list[str]] | None = None


class ScheduleCancelled(NamedTuple):
    """No slot is claimed any more; one already sent may still arrive. ``uncounted`` as in
    :class:`SchedulePaused`."""

    reason: str | None = None
    uncounted: str | None = None


class ScheduleCompleted(NamedTuple):
    """The last slot has its outcome. ``status`` is ``completed``, or ``failed`` for a one-off that
    was not delivered; ``why`` is ``once``, ``max_repetitions`` or ``until``. ``notice`` and ``to``
    as in :class:`DeliverySkipped`."""

    why: kinds.CompletionReason
    status: kinds.FinalStatus
    notice: str | None = None
    to: str | None = None


class ScheduleTriggered(NamedTuple):
    """Someone asked for one delivery now: a slot of its own, beside the scheduled ones."""

    slot: Instant
    reason: str | None = None


class DeliveryAttempted(NamedTuple):
    """A slot is claimed: from here on only ``worker`` may send it. Written before anything is sent.

    ``text_sha256`` is the SHA-256 of the exact text that is sent. ``text`` is that text itself, if
    it was rendered from a template; it is empty if that failed, and nothing is sent then.
    ``next_run`` is the schedule's next slot; it is absent if none is left, and at triggered slots
    and further attempts. ``agent_id`` and ``conversation_id`` say to whom it goes. With an
    ``agent_id``, the time that a header tells the agent is that of the event. ``at`` is the time of
    the claim, if the event bears a later one because the clock is behind the log. ``target`` says
    where the agent is; it is absent where that is a Letta server.
    """

    slot: Instant
    otid: str
    attempt: int
    worker: str
    text_sha256: str
    kind: kinds.SlotKind = "scheduled"
    next_run: Instant | None = None
    text: str | None = None
    agent_id: str | None = None
    conversation_id: str | None = None
    at: Instant | None = None
    target: str | None = None


class DeliveryDelivered(NamedTuple):
    """The agent has it. ``via`` is ``run`` (its run completed) or ``history`` (the otid was found
    among its messages); ``error`` is that of a run which failed after the prompt had been read.
    ``http_status`` and ``detail`` are of the answer to its send, where that left it in doubt.
    ``turn`` says what became of the agent's turn, where it is known not to have ended well.
    ``conversation_id`` is that of the conversation that was made for it. ``keep_reply`` says how
    much of the agent's answer is to be kept; it is absent where the answer isn't asked for."""

    slot: Instant
    otid: str
    attempt: int
    worker: str
    via: kinds.ArrivalProof
    latency_ms: int
    run_id: str | None = None
    error: str | None = None
    http_status: int | None = None
    detail: str | None = None
    turn: kinds.TurnEnd | None = None
    conversation_id: str | None = None
    keep_reply: kinds.KeptReply | None = None


class DeliveryFailed(NamedTuple):
    """The slot's final outcome is that it was not delivered; perhaps not, where ``code`` is
    ``unknown``.

    ``permanent`` failures count towards parking; ``parked`` says that this one parked the schedule.
    ``notice`` and ``to`` as in :class:`DeliverySkipped`; ``http_status`` and ``detail`` as in
    :class:`DeliveryStalled`.
    """

    slot: Instant
    otid: str
    attempt: int
    worker: str
    code: str
    error: str
    permanent: bool
    run_id: str | None = None
    parked: bool | None = None
    notice: str | None = None
    http_status: int | None = None
    detail: str | None = None
    to: str | None = None


class DeliveryAbandoned(NamedTuple):
    """This attempt has left nothing with the agent. The slot stays open until another attempt, not
    before ``retry_at``, or another outcome. ``http_status`` and ``detail`` as in
    :class:`DeliveryStalled`."""

    slot: Instant
    otid: str
    attempt: int
    worker: str
    code: str
    error: str
    retry_at: Instant
    http_status: int | None = None
    detail: str | None = None


class DeliveryStalled(NamedTuple):
    """Something keeps an attempt from its end, and the attempt goes on: its outcome is to come.

    ``in_doubt`` says that nobody knows whether the prompt has reached the agent. ``http_status`` is
    that of Letta's answer, if there was one; ``detail`` is an excerpt of that, without the prompt.
    At ``retry_at``, if it is known, another attempt follows, unless this one has arrived by then.
    """

    slot: Instant
    otid: str
    attempt: int
    worker: str
    code: str
    error: str
    in_doubt: bool
    http_status: int | None = None
    detail: str | None = None
    retry_at: Instant | None = None


class DeliverySkipped(NamedTuple):
    """``slots`` slots, from ``slot`` to ``last``, will not be delivered, and why.

    ``next_run`` is the schedule's next slot; absent where none is left, or where ``kind`` is
    ``trigger``, which never moves the schedule. ``detail`` says what was wrong with the approval,
    where ``why`` is ``approval``. ``notice`` is the schedule that tells somebody of it, or the code
    that says why there is none though one was wanted. With ``to``, which is a destination, it is
    the notice that goes there.
    """

    slot: Instant
    last: Instant
    slots: int
    why: kinds.SkipReason
    kind: kinds.SlotKind = "scheduled"
    next_run: Instant | None = None
    detail: str | None = None
    notice: str | None = None
    to: str | None = None


class ApprovalGranted(NamedTuple):
    """Someone allowed ``uses`` deliveries of a schedule, up to ``expires``, as its content
    (``content_sha256``) now is. ``grant`` names this approval; an earlier one is void.
    ``allow_trigger`` says whether a delivery that `trigger` asked for may spend it; it may where
    that isn't said, as in logs of earlier versions."""

    grant: str
    content_sha256: str
    expires: Instant
    uses: int
    reason: str | None = None
    allow_trigger: bool | None = None


class ApprovalRevoked(NamedTuple):
    """An approval doesn't count any more."""

    grant: str
    reason: str | None = None


class ApprovalConsumed(NamedTuple):
    """The claim just before this, in the same append, is paid for: of that approval, ``uses_left``
    are left."""

    grant: str
    slot: Instant
    uses_left: int


class WorkerStarted(NamedTuple):
    """A process that delivers came up."""

    worker: str
    pid: int
    host: str
    software: str
    mode: kinds.WorkerMode
    concurrency: int


class WorkerStopped(NamedTuple):
    """It went down in order. ``in_flight`` lists ``{"id", "slot", "run_id"}`` of what it leaves in
    doubt, so that the next worker can ask for those runs directly."""

    worker: str
    why: str
    in_flight: list[dict[str, str]] | None = None


class SegmentSealed(NamedTuple):
    """A closed month was rewritten into large members: the same lines, hence ``content_sha256``."""

    month: str
    events: int
    content_sha256: str


class TailQuarantined(NamedTuple):
    """A half-written end of a segment was moved aside, whole, to ``file`` in ``quarantine/``."""

    month: str
    offset: int
    bytes: int
    sha256: str
    file: str


class LedgerRecovered(NamedTuple):
    """The log was damaged or cut, and was brought back into service: ``lost`` events are missing.

    They lay between event ``after``, whose hash is ``after_hash``, and event ``first``, whose
    ``prev`` is ``first_prev``. ``after`` is 0 if no event before them is left. Without ``first``
    the end of the log was lost; then ``known`` is the last event that an index had seen, if any
    had, and ``known_hash`` its hash. ``unknown`` are the ids that later events bear though the
    event that began them was lost. The damaged bytes are kept: ``quarantined`` has the ``month``,
    ``offset``, ``bytes``, ``sha256`` and ``file`` of each piece.
    """

    after: int
    after_hash: str
    lost: int
    first: int | None = None
    first_prev: str | None = None
    known: int | None = None
    known_hash: str | None = None
    quarantined: list[dict[str, Any]] | None = None
    unknown: list[str] | None = None
    reason: str | None = None


class DesireRecorded(NamedTuple):
    """An agent would like something. ``strength`` is from 0 to 1; ``recorded_at`` is the instant
    that, with the agent and the text, the id was made of."""

    agent_id: str
    text: str
    strength: float
    recorded_at: Instant
    tags: list[str] | None = None
    salt: int | None = None
    reason: str | None = None


class DesireReinforced(NamedTuple):
    """It grew by ``by``. ``strength`` is what it had then, after decaying until this event."""

    by: float
    strength: float
    reason: str | None = None


class DesirePruned(NamedTuple):
    """Its ``strength`` had decayed to less than ``below``, and it is listed no more."""

    strength: float
    below: float
    reason: str | None = None


Record = (
    LedgerCreated
    | ScheduleRegistered
    | ScheduleModified
    | SchedulePaused
    | ScheduleResumed
    | ScheduleCancelled
    | ScheduleCompleted
    | ScheduleTriggered
    | DeliveryAttempted
    | DeliveryDelivered
    | DeliveryFailed
    | DeliveryAbandoned
    | DeliveryStalled
    | DeliverySkipped
    | DeliveryReplied
    | DeliveryUnanswered
    | NoticeSent
    | NoticeFailed
    | ApprovalGranted
    | ApprovalRevoked
    | ApprovalConsumed
    | WorkerStarted
    | WorkerStopped
    | SegmentSealed
    | TailQuarantined
    | LedgerRecovered
    | DesireRecorded
    | DesireReinforced
    | DesirePruned
)

CLASSES: Mapping[str, type[Any]] = {
    re.sub(r"\B([A-Z])", r".\1", cls.__name__).lower(): cls for cls in get_args(Record)
}
"""The class of each type of event, by the type's name: ``delivery.failed`` is
:class:`DeliveryFailed`."""
