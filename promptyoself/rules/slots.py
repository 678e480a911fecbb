"""Which slots are due, which of them fires, and what becomes of the others."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from promptyoself.core.ids import jittered
from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.events.kinds import SkipReason
from promptyoself.events.records import DeliverySkipped, ScheduleRegistered
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time
from promptyoself.state.schedules import Schedule, State, ready_at

MISFIRE_TOLERANCE = timedelta(seconds=120)
"""A slot that is late by no more than this is on time: a loop that runs once a minute, from cron
say, is no misfire. It only matters to ``misfire=skip``."""

CLOCK_TOLERANCE = timedelta(minutes=1)
"""Two clocks that differ by no more than this are taken for the same."""


class SkippedRange(NamedTuple):
    """Slots that follow one another and won't fire."""

    first: datetime
    last: datetime
    slots: int  # how many
    why: SkipReason


class DueSlots(NamedTuple):
    """What is to become of the slots of a schedule that are due."""

    skipped: Sequence[SkippedRange]
    fire: datetime | None  # the slot that is to be delivered now
    next_run: datetime | None  # the first slot that isn't decided by this


def is_ahead(schedule: Schedule, now: datetime) -> bool:
    """Whether a slot that is still to come was decided already, by a clock ahead of this one."""
    decided = [schedule.last_slot, schedule.last_trigger]
    decided += [last for _, last in schedule.without or ()]
    return any(
        instant is not None and parse_utc(instant) - now > CLOCK_TOLERANCE for instant in decided
    )


def schedule_trigger(schedule: Schedule | ScheduleRegistered) -> Trigger:
    """The schedule's trigger, with its bounds."""
    return trigger_from_fields(schedule._asdict())


def trigger_from_fields(fields: Mapping[str, Any]) -> Trigger:
    """The trigger that the fields of a schedule or a registration describe."""
    anchor, until = parse_utc(fields["anchor"]), fields.get("until")
    start_at = parse_utc(fields["start_at"]) if fields.get("start_at") else None
    if start_at is None and fields["schedule_type"] == "interval":
        # Without a start, an interval is counted from the anchor and first fires one interval
        # later. The anchor is a whole second, so it can lie a little ahead of now.
        start_at = anchor + MICROSECOND
    return Trigger(
        fields["schedule_type"],
        fields["schedule_value"],
        fields["timezone"],
        anchor,
        start_at,
        parse_utc(until) if until else None,
        tuple((parse_utc(first), parse_utc(last)) for first, last in fields.get("without") or ()),
    )


def due_slots(schedule: Schedule, now: datetime) -> DueSlots:
    """Decide about every slot of an active schedule that is due at ``now``.

    With ``misfire=coalesce`` the latest slot fires, and the others are skipped. With ``skip`` the
    latest fires only where it is on time. With ``all`` the oldest slot that is still within the
    grace fires. The rest stays due, and each slot of it fires after a pause.

    A slot is skipped for ``overlap`` if an earlier one was still being delivered when it was due,
    for ``grace`` if its grace has passed, else for ``misfire``.
    """
    if schedule.next_run is None:
        return DueSlots((), None, None)
    first = parse_utc(schedule.next_run)
    if ready_at(schedule, schedule.next_run) > format_utc(now):
        return DueSlots((), None, first)
    trigger = schedule_trigger(schedule)
    grace = timedelta(seconds=schedule.grace)
    before = first - MICROSECOND
    latest = last_slot(trigger, before, now)
    if latest is None:  # promised by other time zone data than today's
        latest = first
    in_grace = latest >= now - grace
    if schedule.misfire == "all" and in_grace:
        oldest = max(before, now - grace - MICROSECOND)
        fire = next_fire_time(trigger, oldest) if oldest > before else first
    elif in_grace and (
        schedule.misfire != "skip"
        or now - jittered(schedule.id, latest, schedule.jitter) <= MISFIRE_TOLERANCE
    ):
        fire = latest
    else:
        fire = None
    until = latest if fire is None else fire - MICROSECOND
    skipped = _unclaimed(schedule, trigger, first, until, late=not in_grace)
    last = latest if fire is None else fire
    return DueSlots(skipped, fire, next_fire_time(trigger, last))


def skip_event(skipped: SkippedRange, next_run: str | None) -> DeliverySkipped:
    """The event for a skipped range; ``next_run`` is the schedule's next slot after it."""
    first, last = format_utc(skipped.first), format_utc(skipped.last)
    return DeliverySkipped(first, last, skipped.slots, skipped.why, next_run=next_run)


def next_wake(state: State, now: datetime) -> datetime | None:
    """The first instant after ``now`` at which something new may be claimed.

    A slot that is due already and wasn't claimed waits for its agent, not for the clock.
    """
    text = format_utc(now)
    wakes = [
        slot.retry_at
        for slot in state.open.values()
        if slot.worker is None and slot.retry_at is not None and slot.retry_at > text
    ]
    ready = state.schedules.next_ready(text)
    if ready is not None:
        wakes.append(ready)
    return parse_utc(min(wakes)) if wakes else None


def _range(
    trigger: Trigger, first: datetime | None, until: datetime, why: SkipReason
) -> list[SkippedRange]:
    """The slots from ``first`` up to ``until``, as one range, or none.

    ``first`` counts as a slot, since the log has promised it, even where newer time zone data has
    none there.
    """
    if first is None or first > until:
        return []
    last = last_slot(trigger, first, until) or first
    return [SkippedRange(first, last, 1 + count_slots(trigger, first, until), why)]


def _unclaimed(
    schedule: Schedule, trigger: Trigger, first: datetime, until: datetime, *, late: bool
) -> list[SkippedRange]:
    """The slots from ``first`` up to ``until`` that nobody claimed in time.

    ``late`` says that even the latest slot is past its grace.
    """
    if late or schedule.misfire == "all":
        return _range(trigger, first, until, "grace")
    before = first - MICROSECOND
    busy_until = parse_utc(schedule.settled_at) if schedule.settled_at else before
    border = max(before, min(busy_until, until))
    rest = first if border == before else next_fire_time(trigger, border)
    skipped = _range(trigger, first, border, "overlap")
    return skipped + _range(trigger, rest, until, "misfire")


def missed_slots(schedule: Schedule, now: datetime, why: SkipReason) -> list[SkippedRange]:
    """The slots of a schedule that have passed unclaimed up to a change of it.

    If the schedule isn't active, ``why`` is the reason for all of them. If it is active, ``why`` is
    the reason only for those that are still on time: the others had been missed before the change.
    """
    if schedule.next_run is None:
        return []
    trigger, first = schedule_trigger(schedule), parse_utc(schedule.next_run)
    if schedule.status != "active" or first > now:
        return _range(trigger, first, now, why)
    grace = timedelta(seconds=schedule.grace)
    on_time_from = now - min(grace, MISFIRE_TOLERANCE + timedelta(seconds=schedule.jitter or 0))
    last_missed = on_time_from - MICROSECOND
    latest = last_slot(trigger, first - MICROSECOND, now) or first
    skipped: list[SkippedRange] = []
    if first <= last_missed:
        border = last_missed
        if schedule.misfire == "all":
            border = min(last_missed, now - grace - MICROSECOND)
        skipped = _unclaimed(schedule, trigger, first, border, late=latest < now - grace)
        if schedule.misfire == "all":
            rest = first if first > border else next_fire_time(trigger, border)
            skipped += _range(trigger, rest, last_missed, "misfire")
    rest = first if first > last_missed else next_fire_time(trigger, last_missed)
    return skipped + _range(trigger, rest, now, why)
