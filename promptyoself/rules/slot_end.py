"""When a slot is given up, and when its end is the end of its schedule too."""

from datetime import datetime, timedelta

from promptyoself.core.instants import parse_utc
from promptyoself.events.kinds import CompletionReason, FinalStatus, SkipReason
from promptyoself.events.records import Record, ScheduleCompleted
from promptyoself.state.schedules import OpenSlot, Schedule, State

GRACE_IS_OVER = "Given up: its grace has passed."


def give_up_reason(schedule: Schedule, slot: OpenSlot, when: datetime) -> SkipReason | None:
    """Why a slot isn't tried again at ``when``; ``None`` if it is.

    The reasons are ``cancelled``, ``paused``, ``parked`` and ``grace``. A slot that somebody
    triggered is delivered though its schedule is paused or parked.
    """
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


def completion_events(
    state: State, schedule: Schedule, slot: OpenSlot | None, status: FinalStatus
) -> list[Record]:
    """The end of a schedule, if nothing of it is to come after the end of ``slot``.

    ``status`` is what a one-off ends with. A series that ran its course is completed, even where
    single slots of it failed. ``slot`` is ``None`` where the last slot was never begun.
    """
    if schedule.status not in ("active", "paused") or schedule.next_run is not None:
        return []
    if slot is not None and slot.kind != "scheduled":
        return []
    if any(
        other.id == schedule.id and other.kind == "scheduled" and other is not slot
        for other in state.open.values()
    ):
        return []
    if schedule.schedule_type == "once":
        return [ScheduleCompleted("once", status)]
    most = schedule.max_repetitions
    is_full = most is not None and schedule.repetition_count >= most
    why: CompletionReason = "max_repetitions" if is_full else "until"
    return [ScheduleCompleted(why, "completed")]
