"""What agents and schedules have spent today of what they may, as the claim counts it."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from promptyoself.core.instants import format_utc
from promptyoself.events.kinds import FINISHED
from promptyoself.rules.policy import spending_day
from promptyoself.state.schedules import Schedule, State, is_unfinished
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import AgentBudget, Budgets, ScheduleBudget, Spent

__all__ = ["budgets"]


def budgets(store: Store, agent_id: str | None, now: datetime) -> Budgets:
    """For each agent that has schedules, or has spent anything today, and for each of its schedules
    that isn't over: deliveries ``spent`` today (UTC), the ``limit`` (``None``: none but its
    agent's), what is ``left`` of it, and when that is reset.

    Raises:
        PromptyoselfError: ``forbidden_agent``.
    """
    wanted = store.require_agent(agent_id)
    state = store.read().state
    today = format_utc(now)[:10]
    schedules: list[ScheduleBudget] = [
        {
            "id": each.id,
            "agent_id": each.agent_id,
            "name": each.name,
            "status": each.status,
            **_spent(
                spending_day(today, each.spent_day, state.agent(each.agent_id).spent_day),
                (each.spent_day or "", each.spent),
                each.daily_budget,
            ),
        }
        for each in _schedules(state, wanted)
    ]
    agents: list[AgentBudget] = []
    for id_ in [wanted] if wanted else sorted(state.agents):
        agent = state.agent(id_)
        if wanted is None and not agent.unfinished and agent.spent_day < today:
            continue
        day = spending_day(today, agent.spent_day)
        caps = store.settings.caps
        agents.append(
            {
                "agent_id": id_,
                **_spent(day, (agent.spent_day, agent.spent), caps.daily_per_agent),
                "active": agent.active,
                "max_active": caps.max_active_per_agent,
                "prompt_bytes": agent.prompt_bytes,
                "max_prompt_bytes": caps.max_prompt_bytes_per_agent,
            }
        )
    return {"agents": agents, "schedules": schedules, "count": len(agents)}


def _schedules(state: State, wanted: str | None) -> list[Schedule]:
    if wanted is not None:
        return [state.schedules[id_] for id_ in state.agent(wanted).unfinished]
    found = (each for _, each in state.schedules.in_order(is_unfinished))
    mine = [each for each in found if each.status not in FINISHED]
    return sorted(mine, key=lambda each: (each.agent_id, each.id))


def _spent(day: str, spent: tuple[str, int], limit: int | None) -> Spent:
    """What is charged to a day, of what was ``spent`` on the day of that text."""
    number, midnight = spent[1] if spent[0] == day else 0, None
    with suppress(OverflowError):  # the last day that the calendar has
        midnight = format_utc(datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1))
    return {
        "spent": number,
        "limit": limit,
        "left": None if limit is None else max(limit - number, 0),
        "resets_at": midnight,
    }
