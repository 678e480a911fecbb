"""What registering and changing a schedule have in common: where its prompts go, the slots that are
over by then, where the schedule goes on, and what the answer says of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.core.times import local_time
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import MISSED, SkipReason
from promptyoself.events.records import DeliverySkipped
from promptyoself.events.target_names import (
    DEFAULT,
    NEW,
    default_conversation,
    stored_conversation,
    stored_target,
    target_of,
)
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.slots import (
    CLOCK_TOLERANCE,
    SkippedRange,
    missed_slots,
    schedule_trigger,
    skip_event,
)
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.service.schedules.limits import require_route, require_target
from promptyoself.state.schedules import OpenSlot, Schedule, State
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import NextRun


DESTINATION = ("agent_id", "target", "conversation_id")
"""The fields that say where a schedule's prompts go. What one of them means depends on the others.
"""


def registered_destination(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The target and the conversation of a registration of these fields."""
    target = target_of(fields["agent_id"], fields.get("target"))
    return {
        "target": stored_target(fields["agent_id"], target),
        "conversation_id": stored_conversation(target, fields.get("conversation_id")),
    }


def with_destination(
    new: Schedule, old: Schedule, asked: Mapping[str, Any], settings: Settings
) -> Schedule:
    """The changed schedule, with its target and its conversation as they are to be recorded.

    The prompts go on into the conversation into which they went before, unless a conversation is
    among the fields that are asked for. So a change of the target changes nothing else.

    Raises:
        PromptyoselfError: ``target_not_configured``; ``invalid_conversation_id``, also of one that
            the prompts went into before.
    """
    if asked.keys().isdisjoint(DESTINATION):
        return new
    target = target_of(new.agent_id, new.target)
    if "agent_id" in asked or "target" in asked:
        require_target(settings, target)
    conversation = new.conversation_id
    if "conversation_id" not in asked and conversation is None:
        conversation = default_conversation(target_of(old.agent_id, old.target))
    require_route(target, conversation)
    return new._replace(
        target=stored_target(new.agent_id, new.target),
        conversation_id=stored_conversation(target, conversation),
    )


def conversation_kept(asked: Mapping[str, Any], changes: Mapping[str, Any]) -> str:
    """A sentence about a conversation that had to be recorded so that it stays what it was; empty
    where there is none."""
    words = _SAID.get(changes.get("conversation_id") or "")
    if words is None or "conversation_id" in asked:
        return ""
    return f" Its prompts still go into {words}."


_SAID = {DEFAULT: "the agent's own conversation", NEW: "a new conversation at each fire"}


def high_water(schedule: Schedule, now: datetime, trigger: Trigger) -> datetime:
    """The instant up to which no slot of ``trigger`` may come any more.

    It is now, or the schedule's latest slot if that is later. Slots that a clock that was ahead has
    decided don't count here: ``trigger`` leaves out those of them that may not come again. A
    delivery that `trigger` asked for has a slot too. Where the next slot would be at its very
    instant, both would have the same name, so that one is passed as well.
    """
    high = now
    if schedule.last_slot and parse_utc(schedule.last_slot) - now <= CLOCK_TOLERANCE:
        high = max(now, parse_utc(schedule.last_slot))
    if schedule.last_trigger is not None:
        last_run_now = parse_utc(schedule.last_trigger)
        if next_fire_time(trigger, high) == last_run_now:
            return last_run_now
    return high


def skip_reason(schedule: Schedule, otherwise: SkipReason = "modified") -> SkipReason:
    """Why slots that were on time weren't claimed before a change of this schedule."""
    if schedule.status == "paused":
        return "paused"
    return "parked" if schedule.status == "failed" else otherwise


def missed_or_uncounted(
    schedule: Schedule, now: datetime, why: SkipReason
) -> tuple[list[SkippedRange], str | None]:
    """The slots that have passed unclaimed, and ``None``. Where this machine can't compute the
    schedule's times: the one slot that the log has promised, if it has passed, and the code of the
    error."""
    try:
        next_fire_time(schedule_trigger(schedule), now)
        return missed_slots(schedule, now, why), None
    except PromptyoselfError as error:
        if schedule.next_run is None or parse_utc(schedule.next_run) > now:
            return [], error.code
        first = parse_utc(schedule.next_run)
        return [SkippedRange(first, first, 1, why)], error.code


def skip_drafts(
    store: Store, schedule: Schedule, skipped: list[SkippedRange], next_run: str | None
) -> list[Draft]:
    """The events that skip these ranges. ``next_run`` is the schedule's next slot after them."""
    following = [*(format_utc(slots.first) for slots in skipped[1:]), next_run]
    return [
        store.draft(skip_event(slots, after), schedule.id, schedule.agent_id)
        for slots, after in zip(skipped, following, strict=False)
    ]


def require_slot_from(back: datetime, trigger: Trigger, high: datetime, id_: str) -> None:
    """Refuse times of which none is left when a pause ends, at ``back``; none up to ``high`` comes
    anyway.

    Raises:
        PromptyoselfError: ``nothing_left``.
    """
    if next_fire_time(trigger, max(high, back - MICROSECOND)) is None:
        raise PromptyoselfError(
            "nothing_left",
            f"{id_} has no slot at {format_utc(back)} or later, so it would never run again.",
            "Take an earlier time for the pause, or a later one for the prompt; or `cancel` it.",
        )


def open_slots(state: State, id_: str) -> list[OpenSlot]:
    """The slots of a schedule that have begun and have no outcome yet."""
    return [slot for slot in state.open.values() if slot.id == id_]


def drop_waiting(
    store: Store, schedule: Schedule, slots: Iterable[OpenSlot], why: SkipReason
) -> list[Draft]:
    """Skip those of these open slots that no worker has: they are known not to have arrived."""
    return [
        store.draft(
            DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind), schedule.id, schedule.agent_id
        )
        for slot in slots
        if slot.worker is None
    ]


def drop_ahead(store: Store, state: State, schedule: Schedule, now: datetime) -> list[Draft]:
    """Skip the open slots that a clock that was ahead has begun. They would be tried again only
    when their own time comes."""
    text = format_utc(now)
    ahead = (slot for slot in open_slots(state, schedule.id) if slot.slot > text)
    return drop_waiting(store, schedule, ahead, "clock")


def after_pause(store: Store, state: State, id_: str, now: datetime) -> tuple[list[Draft], State]:
    """The state in which a schedule isn't paused any more if its pause is over, and the events that
    lead to it. Where its times can't be computed here, it stays paused."""
    from promptyoself.rules.pause_end import end_of_pause, is_over
    from promptyoself.state.apply import fold

    schedule = state.schedules.get(id_)
    if schedule is None or not is_over(schedule, now):
        return [], state
    try:
        events, _ = end_of_pause(state, schedule)
    except PromptyoselfError:
        return [], state
    drafts = [store.draft(event, id_, schedule.agent_id) for event in events]
    ts = format_utc(now)
    return drafts, fold(state, [provisional_event(event, id_, ts) for event in events])


def next_run_fields(next_run: str | None, zone: str) -> NextRun:
    """What an answer says of a schedule's next slot."""
    if next_run is None:
        return {"next_run": None}
    local = local_time(parse_utc(next_run), zone)
    return {"next_run": next_run, "next_run_local": local, "timezone": zone}


def with_notice(store: Store, state: State, drafts: list[Draft], now: datetime) -> list[Draft]:
    """The drafts, and a notice if they skip slots that had been missed, where one is wanted."""
    whys = {draft.record.why for draft in drafts if isinstance(draft.record, DeliverySkipped)}
    if whys.isdisjoint(MISSED):
        return drafts
    from promptyoself.rules.notices.failures import with_notices

    settings = store.settings
    return with_notices(
        *(store.unpinned_state(state), drafts, now, settings.caps, settings.destinations),
        store.warn,
    )
