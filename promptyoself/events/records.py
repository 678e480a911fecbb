"""What can happen, as immutable records with stable names and versions.

A record is the ``data`` of one event in the log. Instants are text as
:func:`promptyoself.core.instants.format_utc` spells them, durations are whole seconds. Optional
fields that are ``None`` are left out of the log. The names of types and fields are permanent: a
change of meaning takes a new version and an upcast from the old one, never an edit.

They are named tuples rather than dataclasses because every command pays for creating these classes
at start-up: twenty frozen dataclasses with slots cost 15 ms, twenty named tuples 2 ms. For the same
reason there is no ``from __future__ import annotations`` where named tuples are many: it would have
each annotation compiled.
"""

from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, NamedTuple

from promptyoself.core.instants import is_instant
from promptyoself.events.kinds import (
    ArrivalProof,
    CompletionReason,
    FinalStatus,
    MisfirePolicy,
    ScheduleType,
    SkipReason,
    SlotKind,
    WorkerMode,
)
from promptyoself.events.versions import VERSIONS

__all__ = [
    "CLASSES",
    "FORMAT",
    "VERSIONS",
    "ApprovalConsumed",
    "ApprovalGranted",
    "ApprovalRevoked",
    "DeliveryAbandoned",
    "DeliveryAttempted",
    "DeliveryDelivered",
    "DeliveryFailed",
    "DeliverySkipped",
    "DeliveryStalled",
    "DesirePruned",
    "DesireRecorded",
    "DesireReinforced",
    "LedgerCreated",
    "LedgerRecovered",
    "Record",
    "ScheduleCancelled",
    "ScheduleCompleted",
    "ScheduleModified",
    "SchedulePaused",
    "ScheduleRegistered",
    "ScheduleResumed",
    "ScheduleTriggered",
    "SegmentSealed",
    "TailQuarantined",
    "WorkerStarted",
    "WorkerStopped",
    "is_known",
    "read_record",
    "type_of",
    "write_event",
]

FORMAT = 1
"""The version of the chain's format that ``ledger.created`` states."""


class LedgerCreated(NamedTuple):
    """The first event of every chain."""

    format: int
    chain: str
    software: str


class ScheduleRegistered(NamedTuple):
    """A schedule came to life, or an ended one came back (``life`` > 1).

    Of an imported one, ``repetition_count`` and ``last_slot`` say how many slots were claimed where
    it came from, and which was the latest claimed or skipped; ``first_content`` is what its id was
    made of, where it had been modified since. ``template`` names what the prompt is rendered from
    when it fires; then ``prompt`` is empty.
    """

    agent_id: str
    prompt: str
    schedule_type: ScheduleType
    schedule_value: str
    timezone: str
    next_run: str
    anchor: str
    tier: int
    misfire: MisfirePolicy
    grace: int
    conversation_id: str | None = None
    name: str | None = None
    start_at: str | None = None
    until: str | None = None
    max_repetitions: int | None = None
    salt: int | None = None
    life: int | None = None
    daily_budget: int | None = None
    jitter: int | None = None
    envelope: bool | None = None
    on_failure: str | None = None
    repetition_count: int | None = None
    last_slot: str | None = None
    first_content: dict[str, Any] | None = None
    reason: str | None = None
    template: str | None = None
    counts_from: str | None = None
    without: list[list[str]] | None = None


class ScheduleModified(NamedTuple):
    """Fields changed: ``changes`` holds their new values under the names of the registration.

    A ``next_run`` of ``None`` within ``changes`` means that no slot is left. ``uncounted`` as in
    :class:`SchedulePaused`; ``counts_from`` and ``without`` as in :class:`ScheduleResumed`.
    """

    changes: dict[str, Any]
    reason: str | None = None
    uncounted: str | None = None
    counts_from: str | None = None
    without: list[list[str]] | None = None


class SchedulePaused(NamedTuple):
    """No slot is claimed until it is resumed. ``next_run`` is the first slot that then counts.

    ``uncounted`` says why nobody could tell which slots had passed by then: the code of the error.
    """

    next_run: str | None = None
    reason: str | None = None
    uncounted: str | None = None


class ScheduleResumed(NamedTuple):
    """Slots are claimed again, from ``next_run`` on.

    ``counts_from`` is the time then, where slots after it had been decided by a clock that was
    ahead: they count again. But for those that were claimed, in the ranges of ``without``, each of
    a first and a last slot: they don't come again.
    """

    next_run: str
    reason: str | None = None
    counts_from: str | None = None
    without: list[list[str]] | None = None


class ScheduleCancelled(NamedTuple):
    """No slot is claimed any more; one already sent may still arrive. ``uncounted`` as in
    :class:`SchedulePaused`."""

    reason: str | None = None
    uncounted: str | None = None


class ScheduleCompleted(NamedTuple):
    """The last slot has its outcome. ``status`` is ``completed``, or ``failed`` for a one-off that
    was not delivered; ``why`` is ``once``, ``max_repetitions`` or ``until``. ``notice`` as in
    :class:`DeliverySkipped`."""

    why: CompletionReason
    status: FinalStatus
    notice: str | None = None


class ScheduleTriggered(NamedTuple):
    """Someone asked for one delivery now: a slot of its own, beside the scheduled ones."""

    slot: str
    reason: str | None = None


class DeliveryAttempted(NamedTuple):
    """A slot is claimed: from here on only ``worker`` may send it. Written before anything is sent.

    ``at`` is when, where the log's own time is held at a later one.

    ``text_sha256`` is the SHA-256 of the exact text sent; ``next_run`` the schedule's next slot
    (absent: none is left, or a triggered slot, or a further attempt at the same one). ``text`` is
    that text itself, where it was rendered from a template. ``agent_id`` and ``conversation_id``
    say to whom it goes; where there is an ``agent_id``, the time that an envelope tells the agent
    is that of the event.
    """

    slot: str
    otid: str
    attempt: int
    worker: str
    text_sha256: str
    kind: SlotKind = "scheduled"
    next_run: str | None = None
    text: str | None = None
    agent_id: str | None = None
    conversation_id: str | None = None
    at: str | None = None


class DeliveryDelivered(NamedTuple):
    """The agent has it. ``via`` is ``run`` (its run completed) or ``history`` (the otid was found
    among its messages); ``error`` is that of a run which failed after the prompt had been read.
    ``http_status`` and ``detail`` are of the answer to its send, where that left it in doubt."""

    slot: str
    otid: str
    attempt: int
    worker: str
    via: ArrivalProof
    latency_ms: int
    run_id: str | None = None
    error: str | None = None
    http_status: int | None = None
    detail: str | None = None


class DeliveryFailed(NamedTuple):
    """The slot's final outcome is that it was not delivered; perhaps not, where ``code`` is
    ``unknown``.

    ``permanent`` failures count towards parking; ``parked`` says that this one parked the schedule.
    ``notice`` as in :class:`DeliverySkipped`; ``http_status`` and ``detail`` as in
    :class:`DeliveryStalled`.
    """

    slot: str
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


class DeliveryAbandoned(NamedTuple):
    """This attempt is known to have left nothing with the agent; the slot is open until another
    attempt, not before ``retry_at``, or another outcome. ``http_status`` and ``detail`` as in
    :class:`DeliveryStalled`."""

    slot: str
    otid: str
    attempt: int
    worker: str
    code: str
    error: str
    retry_at: str
    http_status: int | None = None
    detail: str | None = None


class DeliveryStalled(NamedTuple):
    """An attempt met something that keeps it from its end, and goes on: its outcome is to come.

    ``in_doubt``: the prompt may have reached the agent, or not. ``http_status`` is that of Letta's
    answer, if there was one; ``detail`` is what that said, in an excerpt without the prompt. At
    ``retry_at``, if it is known, the attempt makes way for another, unless it has found something.
    """

    slot: str
    otid: str
    attempt: int
    worker: str
    code: str
    error: str
    in_doubt: bool
    http_status: int | None = None
    detail: str | None = None
    retry_at: str | None = None


class DeliverySkipped(NamedTuple):
    """``slots`` slots, from ``slot`` to ``last``, will not be delivered, and why.

    ``next_run`` is the schedule's next slot; absent where none is left, or where ``kind`` is
    ``trigger``, which never moves the schedule. ``detail`` says what was wrong with the approval,
    where ``why`` is ``approval``. ``notice`` is the schedule that tells somebody of it, or the code
    that says why there is none though one was wanted.
    """

    slot: str
    last: str
    slots: int
    why: SkipReason
    kind: SlotKind = "scheduled"
    next_run: str | None = None
    detail: str | None = None
    notice: str | None = None


class ApprovalGranted(NamedTuple):
    """Someone allowed ``uses`` deliveries of a schedule, up to ``expires``, as its content
    (``content_sha256``) now is. ``grant`` names this approval; an earlier one is void.
    ``allow_trigger`` says whether a delivery that `trigger` asked for may spend it; it may where
    that isn't said, as in logs of earlier versions."""

    grant: str
    content_sha256: str
    expires: str
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
    slot: str
    uses_left: int


class WorkerStarted(NamedTuple):
    """A process that delivers came up."""

    worker: str
    pid: int
    host: str
    software: str
    mode: WorkerMode
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
    """The log was damaged or cut, and was brought back into service. What it says after event
    ``after`` (whose hash is ``after_hash``; 0 where no event before it is left) and before event
    ``first`` (whose ``prev`` is ``first_prev``) is lost: ``lost`` events.

    Without ``first`` the end of the log was lost, and the chain goes on after ``after``; then
    ``known`` is the last event that an index had seen, with its hash, if any had. The damaged bytes
    are kept: ``quarantined`` says of each piece its ``month``, ``offset``, ``bytes``, ``sha256``
    and ``file``. ``unknown`` are the ids that later events bear, though what began them was lost.
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
    recorded_at: str
    tags: list[str] | None = None
    salt: int | None = None
    reason: str | None = None


class DesireReinforced(NamedTuple):
    """It grew by ``by``; ``strength`` is what it then had, counted from what had decayed until
    this event by the half-life that was set."""

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
    "ledger.created": LedgerCreated,
    "schedule.registered": ScheduleRegistered,
    "schedule.modified": ScheduleModified,
    "schedule.paused": SchedulePaused,
    "schedule.resumed": ScheduleResumed,
    "schedule.cancelled": ScheduleCancelled,
    "schedule.completed": ScheduleCompleted,
    "schedule.triggered": ScheduleTriggered,
    "delivery.attempted": DeliveryAttempted,
    "delivery.delivered": DeliveryDelivered,
    "delivery.failed": DeliveryFailed,
    "delivery.abandoned": DeliveryAbandoned,
    "delivery.stalled": DeliveryStalled,
    "delivery.skipped": DeliverySkipped,
    "approval.granted": ApprovalGranted,
    "approval.revoked": ApprovalRevoked,
    "approval.consumed": ApprovalConsumed,
    "worker.started": WorkerStarted,
    "worker.stopped": WorkerStopped,
    "segment.sealed": SegmentSealed,
    "tail.quarantined": TailQuarantined,
    "ledger.recovered": LedgerRecovered,
    "desire.recorded": DesireRecorded,
    "desire.reinforced": DesireReinforced,
    "desire.pruned": DesirePruned,
}
"""The class of each type of event, under the name that the log has for it."""

_SHAPES = {
    cls: (
        VERSIONS[name],
        name,
        cls._fields,
        tuple(field for field, default in cls._field_defaults.items() if default is None),
    )
    for name, cls in CLASSES.items()
}


def is_known(type_: str, version: int) -> bool:
    """Whether this software can read an event of that type and version."""
    return 1 <= version <= VERSIONS.get(type_, 0)


def type_of(record: Record) -> str:
    """The name under which a record's class stands in the log."""
    return _SHAPES[type(record)][1]


def write_event(record: Record) -> tuple[int, str, dict[str, Any]]:
    """The version, the type and the ``data`` of an event, without what is ``None``."""
    version, type_, fields, optional = _SHAPES[type(record)]
    # A smaller dict than one that is made of what isn't None, and so spelled in less time; and a
    # word to zip costs a tenth of the event.
    data: dict[str, Any] = dict(zip(fields, record))  # noqa: B905
    for name in optional:
        if data[name] is None:
            del data[name]
    return version, type_, data


def read_record(type_: str, version: int, data: Mapping[str, Any]) -> Record:
    """The record that an event holds, brought up to the newest version of its type.

    Raises:
        KeyError: the type isn't known (ask :func:`is_known` first).
        TypeError: ``data`` lacks a field of its version, or has one too many, or of another type.
        ValueError: an instant isn't one.
    """
    del version  # every type is still at version 1: upcasts go here, one step per version
    record: Record = CLASSES[type_](**data)
    types = (type_, *map(type, record))
    instants = _RIGHT.get(types)
    if instants is None:
        _check_types(type(record), record._asdict())
        instants = _RIGHT[types] = tuple(
            at
            for at, (name, value) in enumerate(zip(record._fields, record, strict=True))
            if name in _INSTANTS and value is not None
        )
    values: tuple[Any, ...] = record
    for at in instants:
        if not is_instant(values[at]):
            raise ValueError(f"{record._fields[at]} isn't an instant")
    if isinstance(record, ScheduleModified):
        _check_changes(record.changes)
    return record


# Combinations of types that have been checked, and where their instants stand: there are few
# combinations, and each event asks.
_RIGHT: dict[tuple[object, ...], tuple[int, ...]] = {}

_INSTANTS = frozenset(
    ("slot", "last", "next_run", "anchor", "start_at", "until", "retry_at", "last_slot", "expires")
) | {"recorded_at", "counts_from", "at"}


def _check_changes(changes: Mapping[str, Any]) -> None:
    # That no slot is left is the one change that no registration has.
    changes = {name: new for name, new in changes.items() if (name, new) != ("next_run", None)}
    _check_types(ScheduleRegistered, changes)
    for name in _INSTANTS & changes.keys():
        if changes[name] is not None and not is_instant(changes[name]):
            raise ValueError(f"{name} isn't an instant")


def _check_types(cls: type[Any], values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if type(value) not in _types_of(cls.__annotations__.get(name)):
            raise TypeError(f"{name} is a {type(value).__name__}")


def _types_of(annotation: Any) -> set[Any]:
    """The classes that a value of a field so annotated may have."""
    kinds = annotation.__args__ if isinstance(annotation, UnionType) else (annotation,)
    # A field of a later version may hold a word that isn't known here, so any text will do. And
    # what is in a list is for those who use it to find out.
    origins = {getattr(kind, "__origin__", kind) for kind in kinds}
    return {str if origin is Literal else origin for origin in origins}
