"""The short way of a simulation, for slots about which only the policy has something to decide.

This is a second implementation of what the claim, the outcome and the fold do, for one case. Nearly
every slot is that case: it is due on time, others follow it, and nothing of its schedule is open.
The short way costs 6 µs for an event, and the whole way 56. A year of 1,000 schedules, 1.3 million
events, takes 8 s instead of 75. A test with random schedules holds one way against the other, and
both against a loop.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.rules.policy import APPROVED_TIER, ApprovalVerdict
from promptyoself.rules.slots import MISFIRE_TOLERANCE, schedule_trigger
from promptyoself.rules.triggers import slots
from promptyoself.state.schedules import AgentState, Schedule, summarize

_END_OF_TIME = datetime.max.replace(tzinfo=UTC)


class _Fires(NamedTuple):
    """The rest of a schedule's fire times, so that each needn't be searched for from the start."""

    reached: str  # the slot that was given out last
    following: Iterator[datetime]  # the fire times after it


class PlainSlots:
    """Tells which slots may go the short way."""

    def __init__(self, judge: Callable[[str, Schedule], ApprovalVerdict]) -> None:
        """``judge`` tells whether a schedule has an approval at an instant."""
        self._judge = judge
        self._fires: dict[str, _Fires] = {}  # by the schedule's id

    def next_slot(self, schedule: Schedule, agent: AgentState, slot: str, at: str) -> str | None:
        """The slot after ``slot``, if that one may go the short way at the instant ``at``. ``None``
        means that the claim has to decide. Nothing of the schedule may be open."""
        if schedule.status != "active" or schedule.next_run != slot:
            return None
        if schedule.max_repetitions:
            return None
        if schedule.template is not None or schedule.render is not None:
            return None
        if slot != at and not _is_on_time(schedule, slot, at):
            return None
        if schedule.tier >= APPROVED_TIER and self._judge(at, schedule).grant is not None:
            return None  # a claim pays for it with the approval
        if max(agent.spent_day, schedule.spent_day or "") > at[:10]:
            return None  # the clock was set back
        fires = self._fires.get(schedule.id)
        try:
            if fires is None or fires.reached != slot:
                times = slots(
                    schedule_trigger(schedule), parse_utc(slot) - MICROSECOND, _END_OF_TIME
                )
                if next(times, None) != parse_utc(slot):
                    return None
                fires = _Fires(slot, times)
            following = next(fires.following, None)
        except PromptyoselfError:
            return None  # the claim says what is wrong
        text = "" if following is None else format_utc(following)
        if text <= at:
            return None
        self._fires[schedule.id] = _Fires(text, fires.following)
        return text


def after_claim(
    schedule: Schedule, agent: AgentState, slot: str, following: str, at: str
) -> tuple[Schedule, AgentState]:
    """The schedule and its agent after its slot was delivered at the instant ``at``."""
    day = at[:10]
    agent = agent._replace(spent_day=day, spent=agent.spent + 1 if agent.spent_day == day else 1)
    if schedule.failures or schedule.last_error:
        schedule = schedule._replace(failures=0, last_error=None)
    schedule = schedule._replace(
        last_slot=slot,
        next_run=following,
        repetition_count=schedule.repetition_count + 1,
        spent_day=day,
        spent=schedule.spent + 1 if schedule.spent_day == day else 1,
        last_run=at,
        settled_at=at,
    )
    return schedule, agent


def _is_on_time(schedule: Schedule, slot: str, at: str) -> bool:
    """Whether a slot that isn't due this very instant is neither too early nor missed."""
    now, ready = parse_utc(at), parse_utc(summarize(schedule).ready or at)
    if ready > now:
        return False  # it makes up for what was missed, after a pause
    if now - parse_utc(slot) > timedelta(seconds=schedule.grace):
        return False
    return now - ready <= MISFIRE_TOLERANCE
