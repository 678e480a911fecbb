"""Which slots are due, which of them fires, and what becomes of the others."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from promptyoself.core.ids import jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.kinds import SkipReason
from promptyoself.events.records import DeliverySkipped
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time
from promptyoself.state.schedules import Schedule, State, ready_at

__all__ = [
    "MISFIRE_TOLERANCE",
    "MOMENT",
    "Plan",
    "Skipped",
    "is_ahead",
    "next_wake",
    "passed",
    "plan",
    "retry_delay",
    "skip_record",
    "trigger_from",
    "trigger_of",
]

MISFIRE_TOLERANCE = timedelta(seconds=120)
"""Up to this much late, a slot is on time: a loop that runs once a minute, from cron say, is no
misfire. It only matters to ``misfire=skip``."""

_INSTANT = timedelta(microseconds=1)  # the resolution of the log
_FIRST_RETRY = 5.0
_LONGEST_RETRY = 600.0


class Skipped(NamedTuple):
    """``slots`` slots from ``first`` to ``last`` that won't fire, and ``why``."""

    first: datetime
    last: datetime
    slots: int
    why: SkipReason


class Plan(NamedTuple):
    """What to do about the slots that are due: skip these, fire that, look again at the next."""

    skipped: Sequence[Skipped]
    fire: datetime | None
    next_run: datetime | None


MOMENT = timedelta(minutes=1)
"""By so much two clocks may differ before a schedule counts as ahead of one of them."""


def is_ahead(schedule: Schedule, now: datetime) -> bool:
    """Whether slots of a schedule that are still to come have been decided, by a clock that was
    ahead of this one."""
    decided = [schedule.last_slot, schedule.last_trigger]
    decided += [last for _, last in schedule.without or ()]
    return any(instant is not None and parse_utc(instant) - now > MOMENT for instant in decided)


def trigger_of(schedule: Schedule) -> Trigger:
    """The schedule's trigger, with its bounds."""
    return trigger_from(schedule._asdict())


def trigger_from(fields: Mapping[str, Any]) -> Trigger:
    """The trigger that the fields of a schedule or a registration describe."""
    anchor, until = parse_utc(fields["anchor"]), fields.get("until")
    start_at = parse_utc(fields["start_at"]) if fields.get("start_at") else None
    if start_at is None and fields["schedule_type"] == "interval":
        # One that was told no start begins to count at its anchor, and first fires a whole
        # interval later; and the anchor, being a whole second, can lie a little ahead of now.
        start_at = anchor + _INSTANT
    return Trigger(
        fields["schedule_type"],
        fields["schedule_value"],
        fields["timezone"],
        anchor,
        start_at,
        parse_utc(until) if until else None,
        tuple((parse_utc(first), parse_utc(last)) for first, last in fields.get("without") or ()),
    )


def plan(schedule: Schedule, now: datetime) -> Plan:
    """Decide about every slot of an active schedule that is due at ``now``.

    ``coalesce`` fires the latest and skips the others; ``skip`` fires it only where it is on time;
    ``all`` fires the oldest that is still within the grace, and is asked again for the rest, each
    after a pause. A skipped slot is an ``overlap`` where an earlier one was still being delivered
    when it was due, past its ``grace``, or a ``misfire``.
    """
    if schedule.next_run is None:
        return Plan((), None, None)
    first = parse_utc(schedule.next_run)
    if ready_at(schedule, schedule.next_run) > format_utc(now):
        return Plan((), None, first)
    trigger = trigger_of(schedule)
    grace = timedelta(seconds=schedule.grace)
    before = first - _INSTANT
    latest = last_slot(trigger, before, now)
    if latest is None:  # promised by other time zone data than today's
        latest = first
    in_grace = latest >= now - grace
    if schedule.misfire == "all" and in_grace:
        oldest = max(before, now - grace - _INSTANT)
        fire = next_fire_time(trigger, oldest) if oldest > before else first
    elif in_grace and (
        schedule.misfire != "skip"
        or now - jittered(schedule.id, latest, schedule.jitter) <= MISFIRE_TOLERANCE
    ):
        fire = latest
    else:
        fire = None
    until = latest if fire is None else fire - _INSTANT
    skipped = _missed(schedule, trigger, first, until, late=not in_grace)
    last = latest if fire is None else fire
    return Plan(skipped, fire, next_fire_time(trigger, last))


def skip_record(skipped: Skipped, next_run: str | None) -> DeliverySkipped:
    """The event that says so; ``next_run`` is the schedule's next slot from then on."""
    first, last = format_utc(skipped.first), format_utc(skipped.last)
    return DeliverySkipped(first, last, skipped.slots, skipped.why, next_run=next_run)


def next_wake(state: State, now: datetime) -> datetime | None:
    """The first instant after ``now`` at which something new may be claimed.

    What is due already and wasn't claimed waits for its agent, not for the clock.
    """
    text = format_utc(now)
    found = [
        slot.retry_at
        for slot in state.open.values()
        if slot.worker is None and slot.retry_at is not None and slot.retry_at > text
    ]
    ready = state.schedules.next_ready(text)
    if ready is not None:
        found.append(ready)
    return parse_utc(min(found)) if found else None


def retry_delay(otid: str, attempt: int, retry_after: float | None) -> timedelta:
    """How long to wait after a failed attempt (the first is 1): 5 s, doubled each time, at most 10
    minutes, give or take a fifth by the otid, so that slots that failed together don't return
    together. A server's own ``Retry-After`` in seconds, up to an hour, prevails where longer."""
    digest = sha256(f"{otid}|{attempt}".encode()).digest()
    spread = 0.8 + 0.4 * int.from_bytes(digest[:4]) / 2**32
    seconds = min(_LONGEST_RETRY, _FIRST_RETRY * 2 ** min(attempt - 1, 20)) * spread
    return timedelta(seconds=max(min(seconds, _LONGEST_RETRY), min(retry_after or 0.0, 3600.0)))


def _range(
    trigger: Trigger, first: datetime | None, until: datetime, why: SkipReason
) -> list[Skipped]:
    """The slots from ``first``, which is one, up to ``until``.

    It is one because the log has promised it, even where newer time zone data wouldn't.
    """
    if first is None or first > until:
        return []
    last = last_slot(trigger, first, until) or first
    return [Skipped(first, last, 1 + count_slots(trigger, first, until), why)]


def _missed(
    schedule: Schedule, trigger: Trigger, first: datetime, until: datetime, *, late: bool
) -> list[Skipped]:
    """The slots from ``first`` up to ``until`` that nobody claimed in time; ``late``: nor would the
    latest be delivered any more."""
    if late or schedule.misfire == "all":
        return _range(trigger, first, until, "grace")
    before = first - _INSTANT
    busy = parse_utc(schedule.settled_at) if schedule.settled_at else before
    border = max(before, min(busy, until))
    rest = first if border == before else next_fire_time(trigger, border)
    skipped = _range(trigger, first, border, "overlap")
    return skipped + _range(trigger, rest, until, "misfire")


def passed(schedule: Schedule, now: datetime, why: SkipReason) -> list[Skipped]:
    """The slots of a schedule that have come and gone unclaimed up to a change of it.

    Of one that isn't active, ``why`` is the reason for all of them. Of an active one it is the
    reason only for those that are still on time: the others had been missed before the change.
    """
    if schedule.next_run is None:
        return []
    trigger, first = trigger_of(schedule), parse_utc(schedule.next_run)
    if schedule.status != "active" or first > now:
        return _range(trigger, first, now, why)
    grace = timedelta(seconds=schedule.grace)
    on_time = now - min(grace, MISFIRE_TOLERANCE + timedelta(seconds=schedule.jitter or 0))
    missed = on_time - _INSTANT
    latest = last_slot(trigger, first - _INSTANT, now) or first
    found: list[Skipped] = []
    if first <= missed:
        border = min(missed, now - grace - _INSTANT) if schedule.misfire == "all" else missed
        found = _missed(schedule, trigger, first, border, late=latest < now - grace)
        if schedule.misfire == "all":
            rest = first if first > border else next_fire_time(trigger, border)
            found += _range(trigger, rest, missed, "misfire")
    rest = first if first > missed else next_fire_time(trigger, missed)
    return found + _range(trigger, rest, now, why)
