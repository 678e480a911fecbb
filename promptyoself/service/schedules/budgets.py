"""What agents and schedules have spent today of what they may, as the claim counts it."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from operator import attrgetter

from promptyoself.core.instants import format_utc
from promptyoself.rules.policy import spending_day
from promptyoself.service.schedules.answers import AgentBudget, Budgets, ScheduleBudget, Spent
from promptyoself.state.schedules import unfinished
from promptyoself.store.store import Store


def budgets(store: Store, agent_id: str | None, now: datetime) -> Budgets:
    """What each agent and each of its schedules has spent today (UTC) of what it may.

    Agents are listed that have schedules that aren't over, or that have spent anything today. A
    schedule's ``limit`` of ``None`` means that only its agent's limit holds.

    Raises:
        PromptyoselfError: ``forbidden_agent``.
    """
    wanted = store.require_agent(agent_id)
    state = store.read().state
    today = format_utc(now)[:10]
    schedules: list[ScheduleBudget] = [
        {
            "id": schedule.id,
            "agent_id": schedule.agent_id,
            "name": schedule.name,
            "status": schedule.status,
            **_spent(
                spending_day(today, schedule.spent_day, state.agent(schedule.agent_id).spent_day),
                (schedule.spent_day or "", schedule.spent),
                schedule.daily_budget,
            ),
        }
        for schedule in sorted(unfinished(state, wanted), key=attrgetter("agent_id", "id"))
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


def _spent(day: str, spent: tuple[str, int], limit: int | None) -> Spent:
    """What was spent of a limit on a ``day``. ``spent`` is the last day on which anything was, and
    how many deliveries."""
    number, midnight = spent[1] if spent[0] == day else 0, None
    with suppress(OverflowError):  # the last day that the calendar has
        midnight = format_utc(datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(days=1))
    return {
        "spent": number,
        "limit": limit,
        "left": None if limit is None else max(limit - number, 0),
        "resets_at": midnight,
    }
