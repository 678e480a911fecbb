"""Pauses that end by themselves: which are over, and by which events their schedules run on.

Slots before ``resume_at`` are skipped as paused. From then on a schedule counts as if it had been
active, also where nothing looked at it in time: what came due meanwhile is missed, by its policy.
"""

from datetime import datetime

from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.events.records import Record, ScheduleResumed
from promptyoself.rules.slot_end import completion_events
from promptyoself.rules.slots import missed_slots, schedule_trigger, skip_event
from promptyoself.rules.triggers import next_fire_time
from promptyoself.state.schedules import Schedule, State, comes_back_at


def is_over(schedule: Schedule, now: datetime) -> bool:
    """Whether it is paused, and the time has come at which it was to run again."""
    back = comes_back_at(schedule)
    return back is not None and back <= format_utc(now)


def first_slot_after(schedule: Schedule) -> datetime | None:
    """The first slot of a paused schedule that isn't skipped for its pause, if one is left.

    Raises:
        PromptyoselfError: its times can't be computed on this machine.
    """
    if schedule.next_run is None or schedule.resume_at is None:
        return None
    first, back = parse_utc(schedule.next_run), parse_utc(schedule.resume_at)
    if first < back:
        following = next_fire_time(schedule_trigger(schedule), back - MICROSECOND)
        if following is None:
            return None
        first = following
    if format_utc(first) == schedule.last_trigger:  # two slots would have the same name
        return next_fire_time(schedule_trigger(schedule), first)
    return first


def end_of_pause(
    state: State, schedule: Schedule, reason: str | None = None
) -> tuple[list[Record], Schedule]:
    """The events that end a pause which is over, and the schedule after them. It is completed if
    no slot is left.

    Raises:
        PromptyoselfError: its times can't be computed on this machine.
    """
    following = first_slot_after(schedule)
    next_run = None if following is None else format_utc(following)
    before = parse_utc(schedule.resume_at or "") - MICROSECOND
    events: list[Record] = []
    for skipped in missed_slots(schedule, before, "paused"):
        events.append(skip_event(skipped, next_run))
        schedule = schedule._replace(last_slot=format_utc(skipped.last))
    schedule = schedule._replace(next_run=next_run)
    if next_run is None:
        return [*events, *completion_events(state, schedule, None, "failed")], schedule
    events.append(ScheduleResumed(next_run, reason))
    return events, schedule._replace(status="active", resume_at=None, failures=0, reason=reason)
