"""What a schedule may do by itself: tiers, budgets and caps. A refusal is a reason, never silence.

Days are days in UTC. What has been spent is counted by the fold from the log, so that nobody can
reset it by hand.
"""

from typing import NamedTuple

from promptyoself.schedules import Schedule, State

__all__ = ["MISFIRES", "TIERS", "Caps", "refusal"]

TIERS = (0, 1, 2)
MISFIRES = ("coalesce", "skip", "all")


class Caps(NamedTuple):
    """Limits that no schedule can opt out of. ``min_interval`` is in seconds."""

    min_interval: int = 10
    max_active_per_agent: int = 100
    daily_per_agent: int = 500


def refusal(schedule: Schedule, state: State, caps: Caps, day: str) -> str | None:
    """Why a slot of this schedule may not be delivered on that ``day`` (``YYYY-MM-DD``), or
    ``None``: ``approval`` (tier 2 acts outside, and needs one for each delivery), ``budget`` (the
    schedule's own for the day is spent), ``agent_cap`` (its agent's is)."""
    if schedule.tier >= 2:
        return "approval"
    budget = schedule.daily_budget
    if budget is not None and schedule.spent_day == day and schedule.spent >= budget:
        return "budget"
    if budget == 0:
        return "budget"
    agent = state.agent(schedule.agent_id)
    spent = agent.spent if agent.spent_day == day else 0
    if spent >= caps.daily_per_agent:
        return "agent_cap"
    return None
