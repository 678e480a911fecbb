"""Deciding, on the state as it is under the lock: which slots to claim, which to skip, and what a
delivery's outcome means for its slot and its schedule. Everything here is a function of its
arguments; nothing is sent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import slot_otid
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Caps
from promptyoself.events.kinds import (
    HANDED_BACK,
    ArrivalProof,
    CompletionReason,
    FinalStatus,
    SkipReason,
    SlotKind,
)
from promptyoself.events.records import (
    ApprovalConsumed,
    DeliveryAbandoned,
    DeliveryAttempted,
    DeliveryDelivered,
    DeliveryFailed,
    DeliverySkipped,
    DeliveryStalled,
    Record,
    ScheduleCompleted,
)
from promptyoself.rules.policy import Allowed, Approvals, Verdict, none_given
from promptyoself.rules.prompts import render, wrap
from promptyoself.rules.slots import plan, retry_delay, skip_record
from promptyoself.state.desires import Ranked
from promptyoself.state.schedules import OpenSlot, Schedule, State, due, slot_key

__all__ = [
    "Abandoned",
    "Claim",
    "Delivered",
    "Failed",
    "Forged",
    "Outcome",
    "Stalled",
    "Strongest",
    "claim",
    "orphans",
    "settle",
    "stall",
]

PARK_AFTER = 5
"""So many permanent failures in a row end a schedule, so that it doesn't fail for ever."""

_TRIES_AT_ONCE = 3
"""After so many attempts, even one that need not wait is made to, lest the log fill up."""

_MOST_RECORDS = 1000
"""The most events of one decision; the rest is for the next, which follows at once."""

_MOMENT = timedelta(minutes=1)
"""Clocks that differ by no more are not told apart."""

_TOO_LATE = "Given up: its grace has passed."


class Stalled(NamedTuple):
    """What keeps a delivery from its end; the fields as in the event."""

    code: str
    error: str
    in_doubt: bool
    http_status: int | None = None
    detail: str | None = None
    retry_at: datetime | None = None


class Claim(NamedTuple):
    """A slot that this worker alone may deliver, and what is to be sent.

    ``in_doubt`` says that it was claimed before, by a worker that died over it, and ``stalled``
    what that one had met; ``since`` is when the first attempt at it was claimed, ``claimed_at`` the
    latest. ``unsent`` is how many earlier attempts were handed back before anything was sent.
    """

    id: str
    agent_id: str
    conversation_id: str | None
    text: str
    slot: str
    kind: SlotKind
    otid: str
    attempt: int
    claimed_at: datetime
    since: datetime
    run_id: str | None = None
    in_doubt: bool = False
    stalled: Stalled | None = None
    unsent: int = 0

    @property
    def tries(self) -> int:
        """How many attempts there were, this one included, but for those handed back unsent."""
        return max(self.attempt - self.unsent, 1)


class Delivered(NamedTuple):
    """The agent has it; the fields as in the event."""

    via: ArrivalProof
    run_id: str | None = None
    error: str | None = None
    http_status: int | None = None
    detail: str | None = None


class Failed(NamedTuple):
    """It won't be delivered; ``permanent``: and neither would the next one, for the same reason."""

    code: str
    error: str
    permanent: bool
    run_id: str | None = None
    http_status: int | None = None
    detail: str | None = None


class Abandoned(NamedTuple):
    """This attempt left nothing with the agent. ``retry_after`` is in seconds, if anyone said;
    ``at_once``: nothing stands in the way of another attempt now, in the slot's own place."""

    code: str
    error: str
    retry_after: float | None = None
    at_once: bool = False
    http_status: int | None = None
    detail: str | None = None


Outcome = Delivered | Failed | Abandoned

Strongest = Callable[[str, datetime], Sequence[Ranked]]
"""Tells the desires of an agent that an idle prompt lists. Asked only where one is due; what it
raises keeps that schedule from being decided about, and no other."""


Genuine = Callable[[Schedule], None]
"""Raises :class:`Forged` where the log doesn't say what the schedule says. Asked only about one
that is to be sent now."""


class Forged(Exception):
    """What is known of the schedule ``id``, from the index, isn't what the log says."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"The index doesn't say of {id_} what the log says")
        self.id = id_


def taken_as_read(_: Schedule) -> None:
    """For a state that was folded from the log itself."""


class Decision(NamedTuple):
    """Events to append, each with its schedule's id, and the claims that they make.

    ``broken`` says for which schedules nothing could be decided, and why; ``at`` is the time of the
    claims, where the log's is held at a later one.
    """

    records: list[tuple[Record, str]]
    claims: list[Claim]
    skipped: list[dict[str, Any]]
    broken: dict[str, str]
    at: str | None = None


def claim(
    state: State,
    now: datetime,
    worker: str,
    caps: Caps,
    seats: int,
    until: datetime | None = None,
    strongest: Strongest | None = None,
    approvals: Approvals = none_given,
    genuine: Genuine = taken_as_read,
    told_at: datetime | None = None,
    only: str | None = None,
) -> Decision:
    """Claim what is due and may be delivered: one slot per agent, at most ``seats`` altogether.

    An agent with a claimed slot, whoever claimed it, gets no second one: two messages at once lose
    one of them from its context. ``until`` leaves alone what became due only after it. A schedule
    about which nothing can be decided (its time zone is gone, say) doesn't stop the others. What
    an approval allows is claimed and paid for in one append. ``told_at`` is the time that an
    envelope tells, which is that of the event: where the clock has run back, not ``now``, and then
    the claims say when they were made. ``only`` leaves alone what isn't that agent's.

    Raises:
        Forged: see :data:`Genuine`. Nothing is to be appended then.
    """
    allowed = Allowed(state, now, caps, approvals)
    behind = told_at is not None and told_at - now > _MOMENT
    decision = Decision([], [], [], {}, format_utc(now) if behind else None)
    words = _Words(now, told_at or now, strongest, genuine)
    occupied = {slot.agent_id for slot in state.open.values() if slot.worker is not None}
    begun = {slot.id for slot in state.open.values() if slot.kind == "scheduled"}
    text = format_utc(now)
    latest = text if until is None else min(text, format_utc(until))
    for _, id_, key in due(state, latest, only):
        if len(decision.claims) >= seats or len(decision.records) >= _MOST_RECORDS:
            break
        schedule = state.schedules[id_]
        if schedule.agent_id in occupied or (not key and id_ in begun):
            continue
        records, skipped = len(decision.records), len(decision.skipped)
        try:
            if key:
                slot = state.open[key]
                made = _claim_waiting(state, slot, schedule, now, worker, allowed, decision, words)
            else:
                made = _claim_scheduled(state, schedule, now, worker, allowed, decision, words)
        except Forged:
            raise
        except Exception as error:
            del decision.records[records:], decision.skipped[skipped:]
            expected = isinstance(error, PromptyoselfError)
            decision.broken[id_] = f"{error}" if expected else f"{type(error).__name__}: {error}"
            continue
        if made is not None:
            decision.claims.append(made)
            occupied.add(made.agent_id)
    return decision


def orphans(state: State, workers: Collection[str], now: datetime) -> Iterator[Claim]:
    """What these workers, who are dead, left claimed: nobody knows whether it arrived. It is looked
    for, not sent, so of a rendered prompt the text doesn't matter."""
    for slot in state.open.values():
        if slot.worker in workers:
            schedule = state.schedules[slot.id]
            yield _claim_of(
                schedule, slot, _text(schedule, slot.slot, slot.kind, now), in_doubt=True
            )


def settle(
    state: State, claimed: Claim, worker: str, outcome: Outcome, now: datetime
) -> tuple[list[Record], str]:
    """The events that an outcome makes, and what became of the slot: ``delivered``, ``failed``,
    ``retrying``, ``skipped``; or ``settled`` where someone else has settled it already."""
    slot = state.open.get(slot_key(claimed.id, claimed.slot))
    if slot is None or slot.worker is None or slot.attempt != claimed.attempt:
        return [], "settled"
    outcome = _legible(outcome)
    answer = outcome.http_status, outcome.detail
    schedule = state.schedules[claimed.id]
    head = (claimed.slot, claimed.otid, claimed.attempt, worker)
    records: list[Record]
    if isinstance(outcome, Abandoned):
        retry_at = _retry_at(claimed, outcome, now)
        why = _given_up(schedule, slot, max(retry_at, now))
        if why != "grace":
            records = [
                DeliveryAbandoned(*head, outcome.code, outcome.error, format_utc(retry_at), *answer)
            ]
            if why is None:
                return records, "retrying"
            records.append(DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind))
            return [*records, *_completion(state, schedule, slot, "failed")], "skipped"
        error = f"{outcome.error} {_TOO_LATE}"
        outcome = Failed(outcome.code, error, False, None, *answer)
    if isinstance(outcome, Delivered):
        latency = round((now - claimed.claimed_at) / timedelta(milliseconds=1))
        records = [
            DeliveryDelivered(
                *head, outcome.via, max(latency, 0), outcome.run_id, outcome.error, *answer
            )
        ]
        return [*records, *_completion(state, schedule, slot, "completed")], "delivered"
    parked = outcome.permanent and schedule.failures + 1 >= PARK_AFTER
    going_on = schedule.status == "active" and schedule.next_run is not None
    records = [
        DeliveryFailed(
            *head,
            outcome.code,
            outcome.error,
            outcome.permanent,
            outcome.run_id,
            (parked and going_on) or None,
            http_status=outcome.http_status,
            detail=outcome.detail,
        )
    ]
    return [*records, *_completion(state, schedule, slot, "failed")], "failed"


def stall(state: State, claimed: Claim, worker: str, stalled: Stalled) -> list[Record]:
    """The event for what a delivery has met on its way; none where someone else has settled the
    slot already, or where the log says so already."""
    slot = state.open.get(slot_key(claimed.id, claimed.slot))
    if slot is None or slot.worker is None or slot.attempt != claimed.attempt:
        return []
    if (slot.code, slot.http_status) == (stalled.code, stalled.http_status):
        return []
    return [
        DeliveryStalled(
            claimed.slot,
            claimed.otid,
            claimed.attempt,
            worker,
            stalled.code,
            _in_json(stalled.error),
            stalled.in_doubt,
            stalled.http_status,
            stalled.detail,
            None if stalled.retry_at is None else format_utc(stalled.retry_at),
        )
    ]


class _Words:
    """What is sent, for one schedule at a time."""

    def __init__(
        self, now: datetime, told_at: datetime, strongest: Strongest | None, genuine: Genuine
    ) -> None:
        self.told_at = told_at
        self._now, self._strongest, self._genuine = now, strongest, genuine

    def ready(self, schedule: Schedule) -> Schedule | None:
        """The schedule with the prompt that it has now; ``None`` where there is nothing to say."""
        self._genuine(schedule)
        if schedule.template is None:
            return schedule
        if self._strongest is None:
            raise ValueError("nobody can tell the agent's desires")
        ranked = self._strongest(schedule.agent_id, self._now)
        return schedule._replace(prompt=render(ranked)) if ranked else None


def _claim_waiting(
    state: State,
    slot: OpenSlot,
    schedule: Schedule,
    now: datetime,
    worker: str,
    allowed: Allowed,
    decision: Decision,
    words: _Words,
) -> Claim | None:
    """Try a slot again, or a triggered one for the first time; or give it up."""
    why, verdict = _given_up(schedule, slot, now), Verdict()
    if why is None and slot.attempt == 0:
        why, verdict = allowed.first(schedule, slot.kind)
    elif why is None and not slot.approved:
        why, verdict = allowed.again(schedule, slot.kind)
    if why is None and (ready := words.ready(schedule)) is not None:
        otid = slot.otid or slot_otid(slot.id, slot.slot)
        return _attempt(ready, slot, otid, None, now, worker, verdict, decision, words)
    if why == "grace" and slot.attempt:
        error = f"{slot.error or schedule.last_error or ''} {_TOO_LATE}".strip()
        head = (slot.slot, slot.otid or "", slot.attempt, worker)
        failed = DeliveryFailed(
            *head,
            slot.code or "grace",
            error,
            permanent=False,
            http_status=slot.http_status,
            detail=slot.detail,
        )
        decision.records.append((failed, schedule.id))
    else:
        why = why or "no_desires"
        detail = verdict.detail if why == "approval" else None
        skipped = DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind, detail=detail)
        _note_skip(decision, schedule, skipped)
    ended = _completion(state, schedule, slot, "failed")
    decision.records.extend((record, schedule.id) for record in ended)
    return None


def _claim_scheduled(
    state: State,
    schedule: Schedule,
    now: datetime,
    worker: str,
    allowed: Allowed,
    decision: Decision,
    words: _Words,
) -> Claim | None:
    planned = plan(schedule, now)
    fire, following = planned.fire, planned.next_run
    why: SkipReason | None = None
    verdict = Verdict()
    if fire is not None:
        why, verdict = allowed.first(schedule, "scheduled")
    ready = words.ready(schedule) if fire is not None and why is None else None
    if fire is not None and why is None and ready is None:
        why = "no_desires"
    most = schedule.max_repetitions
    if fire is not None and why is None and most and schedule.repetition_count + 1 >= most:
        following = None
    next_run = None if following is None else format_utc(following)
    # Each skip says what comes next: the following range, the slot that fires, or what lies ahead.
    upcoming: list[str | None] = [format_utc(skipped.first) for skipped in planned.skipped[1:]]
    upcoming.append(next_run if fire is None else format_utc(fire))
    for skipped, after in zip(planned.skipped, upcoming, strict=False):
        _note_skip(decision, schedule, skip_record(skipped, after))
    if fire is not None and ready is not None:
        slot = OpenSlot(schedule.id, schedule.agent_id, format_utc(fire), "scheduled")
        otid = slot_otid(schedule.id, slot.slot)
        return _attempt(ready, slot, otid, next_run, now, worker, verdict, decision, words)
    if fire is not None and why is not None:
        instant, detail = format_utc(fire), verdict.detail if why == "approval" else None
        skip = DeliverySkipped(instant, instant, 1, why, next_run=next_run, detail=detail)
        _note_skip(decision, schedule, skip)
    if next_run is None and (planned.skipped or fire is not None):
        last = schedule._replace(next_run=None)
        ended = _completion(state, last, None, "failed")
        decision.records.extend((record, schedule.id) for record in ended)
    return None


def _attempt(
    schedule: Schedule,
    slot: OpenSlot,
    otid: str,
    next_run: str | None,
    now: datetime,
    worker: str,
    verdict: Verdict,
    decision: Decision,
    words: _Words,
) -> Claim:
    text = _text(schedule, slot.slot, slot.kind, words.told_at, new=slot.attempt == 0)
    attempt = slot.attempt + 1
    record = DeliveryAttempted(
        slot.slot,
        otid,
        attempt,
        worker,
        sha256(text.encode()).hexdigest(),
        slot.kind,
        next_run,
        text if schedule.template else None,
        schedule.agent_id,
        schedule.conversation_id,
        decision.at,
    )
    decision.records.append((record, schedule.id))
    if verdict.grant is not None:
        paid = ApprovalConsumed(verdict.grant, slot.slot, verdict.uses - 1)
        decision.records.append((paid, schedule.id))
    at = format_utc(now)
    opened = slot._replace(
        agent_id=schedule.agent_id,  # which may have been modified since an earlier attempt
        attempt=attempt,
        otid=otid,
        worker=worker,
        claimed_at=at,
        first_claimed_at=slot.first_claimed_at or at,
        run_id=None,  # an earlier attempt's run tells nothing of this one
        in_doubt=False,
    )
    return _claim_of(schedule, opened, text)


def _claim_of(schedule: Schedule, slot: OpenSlot, text: str, *, in_doubt: bool = False) -> Claim:
    claimed_at = parse_utc(slot.claimed_at or slot.slot)
    return Claim(
        slot.id,
        slot.agent_id,
        schedule.conversation_id,
        text,
        slot.slot,
        slot.kind,
        slot.otid or slot_otid(slot.id, slot.slot),
        slot.attempt,
        claimed_at,
        parse_utc(slot.first_claimed_at) if slot.first_claimed_at else claimed_at,
        slot.run_id,
        in_doubt,
        Stalled(slot.code, slot.error or "", True, slot.http_status, slot.detail)
        if slot.in_doubt and slot.code
        else None,
        slot.unsent,
    )


def _retry_at(claimed: Claim, outcome: Abandoned, now: datetime) -> datetime:
    own_place = min(parse_utc(claimed.slot), now)
    if outcome.code in HANDED_BACK:
        return own_place
    delay = retry_delay(claimed.otid, claimed.tries, outcome.retry_after)
    if not outcome.at_once:
        return now + delay
    if claimed.tries < _TRIES_AT_ONCE:
        return own_place
    return max(claimed.claimed_at + delay, now)


def _legible(outcome: Outcome) -> Outcome:
    return outcome if outcome.error is None else outcome._replace(error=_in_json(outcome.error))


def _in_json(text: str) -> str:
    """What others said, in what JSON can carry: a lone surrogate must not stop the log."""
    return text.encode("utf-8", "backslashreplace").decode()


def _given_up(schedule: Schedule, slot: OpenSlot, when: datetime) -> SkipReason | None:
    """Why a slot that has to wait until ``when`` isn't tried again, or ``None`` if it is."""
    if schedule.status == "cancelled":
        return "cancelled"
    if slot.kind == "scheduled" and schedule.status == "paused":
        return "paused"
    if slot.kind == "scheduled" and schedule.status == "failed":
        return "parked"
    # Not slot + grace, which near the calendar's end is no date.
    if when - parse_utc(slot.slot) > timedelta(seconds=schedule.grace):
        return "grace"
    return None


def _completion(
    state: State, schedule: Schedule, slot: OpenSlot | None, status: FinalStatus
) -> list[Record]:
    """The end of a schedule whose last slot has just got its outcome, if it has.

    Only a one-off fails as a whole; a series that ran its course is completed, whatever became of
    its single slots.
    """
    if schedule.status not in ("active", "paused") or schedule.next_run is not None:
        return []
    if slot is not None and slot.kind != "scheduled":
        return []
    others = [
        other
        for other in state.open.values()
        if other.id == schedule.id and other.kind == "scheduled" and other is not slot
    ]
    if others:
        return []
    if schedule.schedule_type == "once":
        return [ScheduleCompleted("once", status)]
    most = schedule.max_repetitions
    why: CompletionReason = (
        "max_repetitions" if most and schedule.repetition_count >= most else "until"
    )
    return [ScheduleCompleted(why, "completed")]


def _note_skip(decision: Decision, schedule: Schedule, record: DeliverySkipped) -> None:
    decision.records.append((record, schedule.id))
    decision.skipped.append(
        {
            "id": schedule.id,
            "agent_id": schedule.agent_id,
            "slot": record.slot,
            "last": record.last,
            "slots": record.slots,
            "why": record.why,
            **({"detail": record.detail} if record.detail else {}),
        }
    )


def _text(
    schedule: Schedule, slot: str, kind: SlotKind, now: datetime, *, new: bool = False
) -> str:
    if not schedule.envelope:
        return schedule.prompt
    fields = schedule._asdict()
    return wrap(schedule.id, fields, slot, kind, now, schedule.repetition_count + new)
