"""Which slots to claim now, and which to skip, decided on the state as it is under the lock."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import slot_otid
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Caps
from promptyoself.events import records
from promptyoself.events.kinds import SkipReason, SlotKind
from promptyoself.events.records import Record
from promptyoself.events.target_names import (
    TargetName,
    default_conversation,
    recorded_target,
    serves,
    target_of,
)
from promptyoself.rules.due import due
from promptyoself.rules.lanes import NO_LIMITS, occupied_lanes, place_of
from promptyoself.rules.pause_end import end_of_pause
from promptyoself.rules.policy import Approvals, ApprovalVerdict, PolicyCheck, no_approvals
from promptyoself.rules.prompts import (
    PromptFault,
    fill_in,
    names_desires,
    render_idle_prompt,
    with_header,
)
from promptyoself.rules.slot_end import GRACE_IS_OVER, completion_events, give_up_reason
from promptyoself.rules.slots import CLOCK_TOLERANCE, due_slots, skip_event
from promptyoself.state.desires import Ranked
from promptyoself.state.schedules import OpenSlot, Schedule, State

_MOST_RECORDS = 1000
"""The most events of one decision. The rest is left to the next decision, which follows at once."""

_MOST_TEXT = 4 * 1024 * 1024
"""The characters of rendered texts after which one decision claims no more. They take at most 24
MiB of JSON in its append, which may have 64 MiB. The rest is left to the next decision."""


class Stalled(NamedTuple):
    """What keeps a delivery from its end, though it goes on."""

    code: str
    error: str
    in_doubt: bool  # the prompt may have arrived for all that
    http_status: int | None = None
    detail: str | None = None  # an excerpt of Letta's answer
    retry_at: datetime | None = None  # when the delivery makes way for a later attempt


class Claim(NamedTuple):
    """A slot that this worker alone may deliver, and what is to be sent."""

    id: str  # the schedule's
    agent_id: str
    conversation_id: str | None
    text: str
    slot: str  # an instant
    kind: SlotKind  # `scheduled` or `trigger`
    otid: str
    attempt: int  # counted from 1
    claimed_at: datetime  # of this attempt
    since: datetime  # when the first attempt was claimed
    run_id: str | None = None
    in_doubt: bool = False  # it was claimed before, by a worker that died over it
    stalled: Stalled | None = None  # what that worker had met
    unsent: int = 0  # earlier attempts that were handed back before anything was sent
    untraced: bool = False  # what an earlier attempt has sent may still arrive
    fault: str | None = None  # why there is no text to send, so that the delivery fails at once
    target: TargetName = "letta"
    title: str = ""  # of a conversation that is made for it

    @property
    def conversation(self) -> str:
        """Where it is to go: an id, ``new`` or ``default``."""
        return self.conversation_id or default_conversation(self.target)

    @property
    def tries(self) -> int:
        """How many attempts there were, with this one, but without those handed back unsent."""
        return max(self.attempt - self.unsent, 1)


RankDesires = Callable[[str, datetime], Sequence[Ranked]]
"""The desires of an agent that a prompt lists. It is called only where such a prompt is due.
What it raises keeps that schedule from being decided about, and no other."""

ScheduleCheck = Callable[[Schedule], None]
"""Raises :class:`IndexMismatch` where the log doesn't say what the schedule says. It is called only
about a schedule that is to be sent now. A state that was folded from the log itself needs none."""


class IndexMismatch(Exception):
    """The index says something of a schedule that the log doesn't say."""

    def __init__(self, id_: str) -> None:
        super().__init__(f"The index doesn't say of {id_} what the log says")
        self.id = id_


class Decision(NamedTuple):
    """What was decided about the slots that are due."""

    records: list[tuple[Record, str]]  # events to append, each with its schedule's id
    claims: list[Claim]
    skipped: list[dict[str, Any]]  # a line for people per range of skipped slots
    broken: dict[str, str]  # schedules about which nothing could be decided, and why


def anything_to_claim(
    state: State,
    now: datetime,
    until: datetime | None,
    only: str | None,
    limits: Mapping[TargetName, int] = NO_LIMITS,
    worker: str = "",
) -> bool:
    """Whether :func:`claim` would have something to decide. It stops at the first slot."""
    return next(_candidates(state, now, until, only, _held(limits), worker), None) is not None


def claim(
    state: State,
    now: datetime,
    worker: str,
    caps: Caps,
    seats: int,
    until: datetime | None = None,
    rank_desires: RankDesires | None = None,
    approvals: Approvals = no_approvals,
    check: ScheduleCheck | None = None,
    event_time: datetime | None = None,
    only: str | None = None,
    limits: Mapping[TargetName, int] = NO_LIMITS,
) -> Decision:
    """Claim what is due and may be delivered: one slot per lane, at most ``seats`` altogether, and
    at most the number in ``limits`` of a target that is in trouble.

    See :func:`~promptyoself.events.target_names.lane_of`: a lane with a claimed slot, of whatever
    worker, gets no second one. A schedule about which nothing can be decided (its time zone is
    gone, say) doesn't stop the others. What an approval allows is claimed and paid for at once.

    ``until`` leaves alone what became due only after it, and ``only`` what isn't that agent's. What
    the worker doesn't serve (:func:`~promptyoself.events.target_names.serves`) is left to others.
    ``event_time`` is the time that the events will bear, by default ``now``. It is later where the
    clock has run back; then the claims say when they were made, and headers tell that time.

    Raises:
        IndexMismatch: see :data:`ScheduleCheck`. Nothing is to be appended then.
    """
    policy = PolicyCheck(state, now, caps, approvals)
    claiming = _Claiming(state, now, worker, policy, rank_desires, check, event_time or now)
    decision = Decision([], [], [], {})
    occupied: set[str | None] = set()
    claimed: set[str] = set()  # schedules: their budgets and approvals are charged one by one
    left = dict(limits)
    written = 0  # characters of texts that were rendered
    for id_, key in _candidates(state, now, until, only, _held(limits), worker):
        full = len(decision.records) >= _MOST_RECORDS or written >= _MOST_TEXT
        if len(decision.claims) >= seats or full:
            break
        schedule = state.schedules[id_]
        target, lane = place_of(schedule)
        if lane in occupied or id_ in claimed or left.get(target, 1) <= 0:
            continue
        try:
            if key:
                events, new_claim = claiming.waiting(schedule, key)
            else:
                events, new_claim = claiming.scheduled(schedule)
        except IndexMismatch:
            raise
        except Exception as error:
            expected = isinstance(error, PromptyoselfError)
            decision.broken[id_] = f"{error}" if expected else f"{type(error).__name__}: {error}"
            continue
        decision.records.extend((record, id_) for record in events)
        claims = (record for record in events if isinstance(record, records.DeliveryAttempted))
        written += sum(len(record.text or "") for record in claims)
        skips = (record for record in events if isinstance(record, records.DeliverySkipped))
        decision.skipped.extend(_skip_line(schedule, record) for record in skips)
        if new_claim is not None:
            decision.claims.append(new_claim)
            occupied.update([lane] if lane else [])
            claimed.add(id_)
            if new_claim.attempt == 1:
                policy.charge(new_claim.agent_id)
            if target in left:
                left[target] -= 1
    return decision


def orphans(state: State, workers: Collection[str], now: datetime) -> Iterator[Claim]:
    """What these workers, which are dead, left claimed. Nobody knows whether it has arrived.

    An orphan is looked for in Letta and not sent, so of a rendered prompt the text doesn't matter.
    """
    for slot in state.open.values():
        if slot.worker in workers:
            schedule = state.schedules[slot.id]
            text = _text(schedule, slot, now)
            yield _claim_of(schedule, slot, text, in_doubt=True)


def _held(limits: Mapping[TargetName, int]) -> frozenset[TargetName]:
    """The targets of which nothing may be claimed."""
    return frozenset(name for name, most in limits.items() if most <= 0)


def _candidates(
    state: State,
    now: datetime,
    until: datetime | None,
    only: str | None,
    held: frozenset[TargetName],
    worker: str,
) -> Iterator[tuple[str, str]]:
    """The due slots that this worker serves and whose lanes are free, as schedule id and key of the
    open slot, if any."""
    occupied = occupied_lanes(state)
    begun = {slot.id for slot in state.open.values() if slot.kind == "scheduled"}
    latest = format_utc(now) if until is None else min(format_utc(now), format_utc(until))
    for _, id_, key in due(state, latest, only):
        schedule = state.schedules[id_]
        target, lane = place_of(schedule)
        is_free = lane not in occupied and target not in held and (key or id_ not in begun)
        if is_free and serves(worker, target, schedule.agent_id):
            yield id_, key


class _Prompt(NamedTuple):
    """What is to be sent for a slot."""

    schedule: Schedule
    text: str
    fault: str | None = None  # why there is none


class _Claiming(NamedTuple):
    """What all slots of one decision are decided by. About a schedule is decided which events to
    append, and which slot to claim, if any."""

    state: State
    now: datetime
    worker: str
    policy: PolicyCheck
    rank_desires: RankDesires | None
    check: ScheduleCheck | None
    event_time: datetime

    def waiting(self, schedule: Schedule, key: str) -> tuple[list[Record], Claim | None]:
        """Try an open slot again, or a triggered one for the first time; or give it up."""
        slot = self.state.open[key]
        why, verdict = give_up_reason(schedule, slot, self.now), ApprovalVerdict()
        if why is None and slot.attempt == 0:
            why, verdict = self.policy.first_attempt(schedule, slot.kind)
        elif why is None and not slot.approved:
            why, verdict = self.policy.next_attempt(schedule, slot.kind)
        if why is None:
            ready = self._ready(schedule, slot)
            if not isinstance(ready, str):
                return self._attempt(ready, slot, None, verdict)
            why = ready
        end: Record
        if why == "grace" and slot.attempt:
            error = f"{slot.error or schedule.last_error or ''} {GRACE_IS_OVER}".strip()
            end = records.DeliveryFailed(
                slot.slot,
                slot.otid or "",
                slot.attempt,
                self.worker,
                slot.code or "grace",
                error,
                permanent=False,
                http_status=slot.http_status,
                detail=slot.detail,
            )
        else:
            detail = verdict.detail if why == "approval" else None
            end = records.DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind, detail=detail)
        return [end, *completion_events(self.state, schedule, slot, "failed")], None

    def scheduled(self, schedule: Schedule) -> tuple[list[Record], Claim | None]:
        """Decide about all slots of a schedule that are due, and claim the one that fires. If it is
        paused, its pause is over, and it runs on first."""
        if schedule.status != "paused":
            return self._due(schedule)
        events, schedule = end_of_pause(self.state, schedule)
        if schedule.status == "paused":  # nothing is left to fire
            return events, None
        further, new_claim = self._due(schedule)
        return [*events, *further], new_claim

    def _due(self, schedule: Schedule) -> tuple[list[Record], Claim | None]:
        """Decide about the slots of an active schedule."""
        slots = due_slots(schedule, self.now)
        fire, following = slots.fire, slots.next_run
        why: SkipReason | None = None
        verdict, ready, slot = ApprovalVerdict(), None, None
        if fire is not None:
            slot = OpenSlot(schedule.id, schedule.agent_id, format_utc(fire), "scheduled")
            why, verdict = self.policy.first_attempt(schedule, "scheduled")
            if why is None:
                prompt = self._ready(schedule, slot)
                ready, why = (None, prompt) if isinstance(prompt, str) else (prompt, None)
        most = schedule.max_repetitions
        if ready is not None and most and schedule.repetition_count + 1 >= most:
            following = None
        next_run = None if following is None else format_utc(following)
        # Each skip says what comes next: the next range, the slot that fires, or what lies ahead.
        upcoming: list[str | None] = [format_utc(skipped.first) for skipped in slots.skipped[1:]]
        upcoming.append(next_run if fire is None else format_utc(fire))
        events: list[Record] = [
            skip_event(skipped, after)
            for skipped, after in zip(slots.skipped, upcoming, strict=False)
        ]
        if slot is not None and ready is not None:
            attempted, new_claim = self._attempt(ready, slot, next_run, verdict)
            return [*events, *attempted], new_claim
        if slot is not None and why is not None:
            detail = verdict.detail if why == "approval" else None
            events.append(
                records.DeliverySkipped(
                    slot.slot, slot.slot, 1, why, next_run=next_run, detail=detail
                )
            )
        if next_run is None and events:
            last = schedule._replace(next_run=None)
            events += completion_events(self.state, last, None, "failed")
        return events, None

    def _ready(self, schedule: Schedule, slot: OpenSlot) -> _Prompt | SkipReason:
        """What is to be sent for a slot now, or why there is nothing to send."""
        if self.check is not None:
            self.check(schedule)
        is_first = slot.attempt == 0
        if schedule.render is None and schedule.template is None:
            return _Prompt(schedule, _text(schedule, slot, self.event_time, new=is_first))
        ranked: Sequence[Ranked] = ()
        if names_desires(schedule):
            if self.rank_desires is None:
                raise ValueError("nobody can tell the agent's desires")
            ranked = self.rank_desires(schedule.agent_id, self.now)
        if schedule.render is None:
            if not ranked:
                return "no_desires"
            prompt = render_idle_prompt(ranked)
        else:
            fires = schedule.repetition_count + (is_first and slot.kind == "scheduled")
            try:
                prompt = fill_in(schedule, slot.slot, self.event_time, fires, ranked)
            except PromptFault as fault:
                return _Prompt(schedule, "", f"{fault}")
            if not prompt:
                return "no_text"
        text = _text(schedule._replace(prompt=prompt), slot, self.event_time, new=is_first)
        return _Prompt(schedule, text)

    def _attempt(
        self,
        prompt: _Prompt,
        slot: OpenSlot,
        next_run: str | None,
        verdict: ApprovalVerdict,
    ) -> tuple[list[Record], Claim]:
        schedule, text, fault = prompt
        otid = slot.otid or slot_otid(slot.id, slot.slot)
        attempt, at = slot.attempt + 1, format_utc(self.now)
        target = target_of(schedule.agent_id, schedule.target)
        is_clock_behind = self.event_time - self.now > CLOCK_TOLERANCE
        events: list[Record] = [
            records.DeliveryAttempted(
                slot.slot,
                otid,
                attempt,
                self.worker,
                sha256(text.encode()).hexdigest(),
                slot.kind,
                next_run,
                text if schedule.template or schedule.render else None,
                schedule.agent_id,
                schedule.conversation_id,
                at if is_clock_behind else None,
                None if target == "letta" else target,
            )
        ]
        if verdict.grant is not None:
            events.append(records.ApprovalConsumed(verdict.grant, slot.slot, verdict.uses - 1))
        opened = slot._replace(
            agent_id=schedule.agent_id,  # which may have been modified since an earlier attempt
            attempt=attempt,
            otid=otid,
            worker=self.worker,
            claimed_at=at,
            first_claimed_at=slot.first_claimed_at or at,
            run_id=None,  # an earlier attempt's run tells nothing of this one
            in_doubt=False,
            conversation_id=schedule.conversation_id,
            target=target,
        )
        return events, _claim_of(schedule, opened, text)._replace(fault=fault)


def _claim_of(schedule: Schedule, slot: OpenSlot, text: str, *, in_doubt: bool = False) -> Claim:
    claimed_at = parse_utc(slot.claimed_at or slot.slot)
    return Claim(
        slot.id,
        slot.agent_id,
        slot.conversation_id,
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
        slot.untraced,
        target=recorded_target(slot.target),
        title=schedule.name or schedule.id,
    )


def _skip_line(schedule: Schedule, record: records.DeliverySkipped) -> dict[str, Any]:
    line: dict[str, Any] = {"id": schedule.id, "agent_id": schedule.agent_id, "slot": record.slot}
    line |= {"last": record.last, "slots": record.slots, "why": record.why}
    return {**line, "detail": record.detail} if record.detail else line


def _text(schedule: Schedule, slot: OpenSlot, now: datetime, *, new: bool = False) -> str:
    if not schedule.envelope:
        return schedule.prompt
    fields, fires = schedule._asdict(), schedule.repetition_count + new
    return with_header(schedule.id, fields, slot.slot, slot.kind, now, fires)
