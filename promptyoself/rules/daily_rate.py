"""How often a schedule fires in a day, compared with what is allowed in a day.

So the person who registers a schedule hears at once what the loop would skip later on.
"""

from collections.abc import Iterator
from datetime import datetime

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND, parse_utc
from promptyoself.core.settings import Caps
from promptyoself.core.times import DAY
from promptyoself.events.schedule_fields import ScheduleRegistered
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import count_slots, times_a_day
from promptyoself.state.schedules import Schedule, State

_AHEAD = 35
"""Days from the first fire on that are counted. They have each weekday and each day of a month."""

_FEW = 300
"""Up to this number of schedules, all lie in the index's one file. Then the agent's other schedules
can be counted without reading more."""


def exceeded(
    state: State, caps: Caps, schedule: Schedule | ScheduleRegistered, id_: str | None = None
) -> Iterator[str]:
    """Warnings about a schedule.

    They say that on its fullest day it fires more often than its own budget or its agent's allows,
    or would do so together with the agent's other schedules. ``id_`` is the schedule's own id, if
    it is registered already.
    """
    first, budget, cap = schedule.next_run, schedule.daily_budget, caps.daily_per_agent
    if first is None:
        return
    wanted = _fullest(schedule, parse_utc(first), cap if budget is None else min(budget, cap))
    if budget is not None and wanted > budget:
        yield (
            f"It fires up to {_times(wanted)} a day, of which its daily budget allows {budget}: "
            "the others will be skipped."
        )
        wanted = budget
    limit = f"its agent gets at most {cap} deliveries a day (PROMPTYOSELF_DAILY_PER_AGENT)"
    if wanted > cap:
        yield f"It fires up to {_times(wanted)} a day, and {limit}: the others will be skipped."
        return
    others = _others(state, schedule.agent_id, id_)
    if others and wanted + others > cap:
        yield (
            f"With the agent's other schedules that makes up to {wanted + others} a day, and "
            f"{limit}: the others will be skipped."
        )


def _fullest(schedule: Schedule | ScheduleRegistered, first: datetime, least: int) -> int:
    """How often it fires on its fullest day (UTC); exact only if that is more than ``least``."""
    rough = _roughly(schedule)
    if rough <= least:
        return rough
    trigger = schedule_trigger(schedule)
    day = first.replace(hour=0, minute=0, second=0, microsecond=0)
    days = _AHEAD if schedule.schedule_type in ("cron", "rrule") else 2
    try:
        fullest = max(
            count_slots(
                trigger,
                max(day + number * DAY, first) - MICROSECOND,
                day + (number + 1) * DAY - MICROSECOND,
            )
            for number in range(days)
        )
    except OverflowError:  # the calendar's end
        return rough
    return _within_repetitions(fullest, schedule)


def _roughly(schedule: Schedule | ScheduleRegistered) -> int:
    """The most fires of any day, but for a day on which clocks are set back."""
    is_once = schedule.schedule_type == "once"
    rough = 1 if is_once else times_a_day(schedule.schedule_type, schedule.schedule_value)
    return _within_repetitions(rough, schedule)


def _within_repetitions(fires: int, schedule: Schedule | ScheduleRegistered) -> int:
    limit = schedule.max_repetitions
    return fires if limit is None else min(fires, limit - (schedule.repetition_count or 0))


def _others(state: State, agent_id: str, id_: str | None) -> int:
    """How often the agent's other active schedules fire in a day, without one-offs."""
    if sum(state.statuses.values()) > _FEW:
        return 0
    others = (other for other in state.agent(agent_id).unfinished if other != id_)
    return sum(_share(state.schedules.get(other)) for other in others)


def _share(schedule: Schedule | None) -> int:
    if schedule is None or schedule.status != "active" or schedule.schedule_type == "once":
        return 0
    try:
        rough = _roughly(schedule)
    except PromptyoselfError:  # written by another version; the claim will complain
        return 0
    return rough if schedule.daily_budget is None else min(rough, schedule.daily_budget)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
