"""What the outcome of a delivery means for its slot and its schedule."""

from datetime import datetime, timedelta
from typing import NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.texts import json_safe
from promptyoself.events import records
from promptyoself.events.kinds import HANDED_BACK, ArrivalProof, KeepReply, TurnEnd
from promptyoself.events.records import Record
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.notices.replies import kept_of_reply
from promptyoself.rules.retry import retry_delay
from promptyoself.rules.slot_end import GRACE_IS_OVER, completion_events, give_up_reason
from promptyoself.state.schedules import OpenSlot, State, slot_key

PARK_AFTER = 5
"""Permanent failures in a row that park a schedule, so that it doesn't fail for ever."""

_TRIES_AT_ONCE = 3
"""Attempts after which a slot has to wait even where it could be tried at once, so that the log
doesn't fill up."""


class Delivered(NamedTuple):
    """The agent has the prompt."""

    via: ArrivalProof  # how that is known: `run` or `history`
    run_id: str | None = None
    error: str | None = None  # what became of the run, where that went wrong afterwards
    http_status: int | None = None  # of the answer that had left the delivery in doubt
    detail: str | None = None  # an excerpt of that answer
    turn: TurnEnd | None = None  # what became of the agent's turn, unless that ended well
    conversation_id: str | None = None  # of the conversation that was made for it


class Failed(NamedTuple):
    """The slot won't be delivered."""

    code: str
    error: str
    permanent: bool  # the schedule's next slot would fail for the same reason
    run_id: str | None = None
    http_status: int | None = None
    detail: str | None = None


class Abandoned(NamedTuple):
    """This attempt left nothing with the agent. The slot will be tried again."""

    code: str
    error: str
    retry_after: float | None = None  # seconds, where the server asked for them
    at_once: bool = False  # the slot may be tried now, in its own place in the queue
    http_status: int | None = None
    detail: str | None = None


Outcome = Delivered | Failed | Abandoned


def outcome_events(
    state: State,
    claimed: Claim,
    worker: str,
    outcome: Outcome,
    now: datetime,
    keep_reply: KeepReply = "none",
) -> tuple[list[Record], str]:
    """The events that an outcome makes, and what became of the slot.

    That is ``delivered``, ``failed``, ``retrying`` or ``skipped``; or ``settled``, without events,
    where another worker has recorded the slot's outcome already. ``keep_reply`` is the most that
    may be kept of an answer.
    """
    slot = _slot_of(state, claimed)
    if slot is None:
        return [], "settled"
    if outcome.error is not None:
        outcome = outcome._replace(error=json_safe(outcome.error))
    answer = outcome.http_status, outcome.detail
    schedule = state.schedules[claimed.id]
    attempt = (claimed.slot, claimed.otid, claimed.attempt, worker)
    if isinstance(outcome, Abandoned):
        retry_at = _retry_at(claimed, outcome, now)
        why = give_up_reason(schedule, slot, max(retry_at, now))
        if why != "grace":
            abandoned = records.DeliveryAbandoned(
                *attempt, outcome.code, outcome.error, format_utc(retry_at), *answer
            )
            if why is None:
                return [abandoned], "retrying"
            skipped = records.DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind)
            end = completion_events(state, schedule, slot, "failed")
            return [abandoned, skipped, *end], "skipped"
        error = f"{outcome.error} {GRACE_IS_OVER}"
        outcome = Failed(outcome.code, error, False, None, *answer)
    if isinstance(outcome, Delivered):
        latency = round((now - claimed.claimed_at) / timedelta(milliseconds=1))
        delivered = records.DeliveryDelivered(
            *attempt,
            outcome.via,
            max(latency, 0),
            outcome.run_id,
            outcome.error,
            *answer,
            outcome.turn,
            outcome.conversation_id,
            kept_of_reply(schedule, keep_reply),
        )
        return [delivered, *completion_events(state, schedule, slot, "completed")], "delivered"
    is_last_straw = outcome.permanent and schedule.failures + 1 >= PARK_AFTER
    goes_on = schedule.status == "active" and schedule.next_run is not None
    failed = records.DeliveryFailed(
        *attempt,
        outcome.code,
        outcome.error,
        outcome.permanent,
        outcome.run_id,
        (is_last_straw and goes_on) or None,
        http_status=outcome.http_status,
        detail=outcome.detail,
    )
    return [failed, *completion_events(state, schedule, slot, "failed")], "failed"


def stall_events(state: State, claimed: Claim, worker: str, stalled: Stalled) -> list[Record]:
    """The event for what a delivery has met on its way.

    There is none where another worker has recorded the slot's outcome already, or where the log
    says the same already.
    """
    slot = _slot_of(state, claimed)
    if slot is None or (slot.code, slot.http_status) == (stalled.code, stalled.http_status):
        return []
    return [
        records.DeliveryStalled(
            claimed.slot,
            claimed.otid,
            claimed.attempt,
            worker,
            stalled.code,
            json_safe(stalled.error),
            stalled.in_doubt,
            stalled.http_status,
            stalled.detail,
            None if stalled.retry_at is None else format_utc(stalled.retry_at),
        )
    ]


def _slot_of(state: State, claimed: Claim) -> OpenSlot | None:
    """The claimed slot, while this very attempt at it is open."""
    slot = state.open.get(slot_key(claimed.id, claimed.slot))
    if slot is None or slot.worker is None or slot.attempt != claimed.attempt:
        return None
    return slot


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
