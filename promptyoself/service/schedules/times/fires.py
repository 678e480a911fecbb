"""When a schedule, or a trigger that isn't one yet, will fire; and what was understood of words and
rules, said back.

Apart from :mod:`promptyoself.service.schedules.views`, since listing schedules needs no triggers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.core.times import in_zone, local_time, parse_time
from promptyoself.events.schedule_fields import ScheduleRegistered
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import Trigger, slots
from promptyoself.service.schedules.times.asked import completed
from promptyoself.state.schedules import Schedule, comes_back_at
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import Fire, NextFires
    from promptyoself.service.schedules.request import Request

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


def next_fires(store: Store, id_: str, count: int) -> list[Fire]:
    """The next ``count`` fires of a schedule. A schedule that isn't active has none, unless it is
    paused and runs again by itself."""
    schedule = find_schedule(store.read().state, id_)
    if comes_back_at(schedule) is not None:
        from promptyoself.rules.pause_end import first_slot_after

        following = first_slot_after(schedule)
        next_run = None if following is None else format_utc(following)
        schedule = schedule._replace(status="active", next_run=next_run)
    if schedule.status != "active":
        return []
    return fires_from(schedule, count)


def fires_from(schedule: Schedule | ScheduleRegistered, count: int) -> list[Fire]:
    """The next ``count`` fires of a schedule or a registration, from its next slot on."""
    if schedule.next_run is None:
        return []
    left = None
    if schedule.max_repetitions is not None:
        left = schedule.max_repetitions - (schedule.repetition_count or 0)
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


def say_back(
    answer: Any, request: Request, schedule: ScheduleRegistered | Schedule, now: datetime
) -> None:
    """Put into an answer what was understood of a request, and the next three fires, where words or
    a rule were given."""
    if not is_said_back(request, schedule, now):
        return
    answer["understood"] = as_options(schedule)
    answer["fires"] = fires_from(schedule, 3)


def is_said_back(request: Request, schedule: ScheduleRegistered | Schedule, now: datetime) -> bool:
    """Whether an answer is to say what was understood of a request: of words, and of rules."""
    if request.when is not None or request.rrule is not None:
        return True
    if request.every is not None:
        return schedule.schedule_type != "interval" or " " in request.every.strip()
    if request.time is None:
        return False
    try:
        parse_time(request.time, schedule.timezone, now)
    except PromptyoselfError:
        return True
    return False


def planned_fires(request: Request, settings: Settings, count: int, now: datetime) -> NextFires:
    """The first ``count`` fires of what a request of times alone asks for, and how it was read.

    Raises:
        PromptyoselfError: what :func:`~promptyoself.service.schedules.request.parse_times` raises.
    """
    from promptyoself.service.schedules.request import parse_times

    planned = parse_times(request, settings, now)
    answer: NextFires = {"fires": fires_from(planned, count)}
    if is_said_back(request, planned, now):
        answer["understood"] = as_options(planned)
    return answer


def as_options(schedule: ScheduleRegistered | Schedule) -> str:
    """The times of a schedule as options in their strict forms. A rule has everything that it
    leaves open."""
    import shlex

    kind, value, zone = schedule.schedule_type, schedule.schedule_value, schedule.timezone
    if kind == "once":
        value = in_zone(parse_utc(value), zone)
    if kind == "rrule":
        value = completed(schedule)
    option = {"once": "time", "interval": "every"}.get(kind, kind)
    words = [f"--{option}", value, "--tz", zone]
    for name in ("start_at", "until"):
        if bound := getattr(schedule, name):
            words += ["--" + name.replace("_", "-"), in_zone(parse_utc(bound), zone)]
    return shlex.join(words)
