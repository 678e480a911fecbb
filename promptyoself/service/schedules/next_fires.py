"""When a schedule, or a trigger that isn't one yet, will fire.

Apart from :mod:`promptyoself.service.schedules.views`, since listing schedules needs no triggers.
"""

from datetime import UTC, datetime
from itertools import islice

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import local_time
from promptyoself.rules.pause_end import first_slot_after
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import Trigger, slots
from promptyoself.service.schedules.answers import Fire
from promptyoself.state.schedules import comes_back_at
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


def next_fires(store: Store, id_: str, count: int) -> list[Fire]:
    """The next ``count`` fires of a schedule. A schedule that isn't active has none, unless it is
    paused and runs again by itself."""
    schedule = find_schedule(store.read().state, id_)
    if comes_back_at(schedule) is not None:
        following = first_slot_after(schedule)
        next_run = None if following is None else format_utc(following)
        schedule = schedule._replace(status="active", next_run=next_run)
    if schedule.next_run is None or schedule.status != "active":
        return []
    left = None
    if schedule.max_repetitions is not None:
        left = schedule.max_repetitions - schedule.repetition_count
    first = parse_utc(schedule.next_run)
    rest = fires(schedule_trigger(schedule), left, count, first)
    next_fire: Fire = {"utc": schedule.next_run, "local": local_time(first, schedule.timezone)}
    return [next_fire, *rest][: count if left is None else min(count, left)]


def fires(trigger: Trigger, repetitions: int | None, count: int, after: datetime) -> list[Fire]:
    """The first ``count`` fires strictly after an instant, at most ``repetitions`` of them, each in
    UTC and in the trigger's zone."""
    most = count if repetitions is None else min(count, repetitions)
    return [
        {"utc": format_utc(instant), "local": local_time(instant, trigger.zone)}
        for instant in islice(slots(trigger, after, _END_OF_TIME), most)
    ]
