"""How a fold applies an event after a gap in the log, if the events that led to it may be lost."""

from promptyoself.events import records
from promptyoself.state.answers import place_of
from promptyoself.state.fold import Folded
from promptyoself.state.schedules import (
    AwaitedReply,
    OpenSlot,
    OwedNotice,
    Schedule,
    State,
    slot_key,
)


def bridge(state: State, event: Folded, record: records.Record, schedule: Schedule) -> Schedule:
    """Change the state so that the event follows from it: the events that led to it must have
    happened in the gap. Returns the schedule as it must have been."""
    match record:
        case records.DeliveryAttempted() if record.attempt == 1 and record.kind == "scheduled":
            # A slot is begun only when the one before it has its outcome, which is lost.
            for key, slot in list(state.open.items()):
                if slot.id == schedule.id and slot.kind == "scheduled":
                    del state.open[key]
        case (
            records.DeliveryDelivered()
            | records.DeliveryFailed()
            | records.DeliveryAbandoned()
            | records.DeliveryStalled()
        ) if slot_key(schedule.id, record.slot) not in state.open:
            return _begun(state, event, record, schedule)
        case records.DeliveryReplied() | records.DeliveryUnanswered():
            state.replies.setdefault(
                slot_key(schedule.id, record.slot),
                AwaitedReply(
                    *(schedule.id, schedule.agent_id, record.slot, record.otid, "excerpt"),
                    *(record.worker, event.ts, event.ts),
                ),
            )
        case records.NoticeSent() | records.NoticeFailed():
            where = place_of(event)
            state.notices.setdefault(
                record.notice,
                OwedNotice(
                    *(record.notice, record.to, record.kind, schedule.id, schedule.agent_id),
                    *(record.slot, where, event.ts),
                ),
            )
        case records.DeliverySkipped() if (
            record.kind != "scheduled" and slot_key(schedule.id, record.slot) not in state.open
        ):
            key = slot_key(schedule.id, record.slot)
            state.open[key] = OpenSlot(schedule.id, schedule.agent_id, record.slot, record.kind)
    return schedule


def _begun(
    state: State,
    event: Folded,
    record: records.DeliveryDelivered
    | records.DeliveryFailed
    | records.DeliveryAbandoned
    | records.DeliveryStalled,
    schedule: Schedule,
) -> Schedule:
    """Begin the slot of an attempt that is lost. A slot before the schedule's next one was a
    triggered slot; any other was a scheduled one."""
    triggered = schedule.last_trigger is not None and record.slot <= schedule.last_trigger
    scheduled = not triggered and schedule.next_run is not None and record.slot >= schedule.next_run
    state.open[slot_key(schedule.id, record.slot)] = OpenSlot(
        schedule.id,
        schedule.agent_id,
        record.slot,
        kind="scheduled" if scheduled else "trigger",
        attempt=record.attempt,
        worker=record.worker,
        otid=record.otid,
        claimed_at=event.ts,
        first_claimed_at=event.ts,
    )
    if not scheduled:
        return schedule
    state.losses.moved[schedule.id] = None
    return schedule._replace(
        last_slot=max(schedule.last_slot or "", record.slot),
        repetition_count=schedule.repetition_count + 1,
    )
