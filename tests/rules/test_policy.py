"""What a schedule may do by itself."""

from typing import Any

import pytest
from samples import schedule

from promptyoself.core.settings import Caps
from promptyoself.events.schedule_fields import FIELDS
from promptyoself.rules.policy import refusal_reason
from promptyoself.service.schedules.request import Request
from promptyoself.state.schedules import EMPTY, AgentState, agent_table

DAY = "2026-11-20"
BEFORE = "2026-11-19"


@pytest.mark.parametrize(
    ("changes", "spent", "expected"),
    [
        ({}, None, None),
        ({"tier": 1}, None, None),
        ({"tier": 2}, None, "approval"),
        ({"tier": 2, "daily_budget": 0}, None, "approval"),
        ({"daily_budget": 0}, None, "budget"),
        ({"daily_budget": 3, "spent_day": DAY, "spent": 2}, None, None),
        ({"daily_budget": 3, "spent_day": DAY, "spent": 3}, None, "budget"),
        ({"daily_budget": 3, "spent_day": DAY, "spent": 4}, None, "budget"),
        ({"daily_budget": 3, "spent_day": BEFORE, "spent": 3}, None, None),
        ({"spent_day": DAY, "spent": 10_000}, None, None),
        ({}, (DAY, 4), None),
        ({}, (DAY, 5), "agent_cap"),
        ({}, (DAY, 6), "agent_cap"),
        ({}, (BEFORE, 5), None),
        ({"daily_budget": 3, "spent_day": DAY, "spent": 3}, (DAY, 5), "budget"),
    ],
)
def test_a_refusal_has_a_reason(
    changes: dict[str, Any], spent: tuple[str, int] | None, expected: str | None
) -> None:
    """Tier 2 waits for approvals, budgets and the cap of an agent hold for a day in UTC, and each
    refusal says which of them it was."""
    agents = {"agent": AgentState(spent_day=spent[0], spent=spent[1])} if spent else {}
    state = EMPTY._replace(agents=agent_table(agents))
    caps = Caps(daily_per_agent=5)
    assert refusal_reason(schedule(**changes), state, caps, DAY) == expected


def test_an_agent_has_a_cap_of_its_own() -> None:
    """The cap of one agent is not spent by another. PROMPTYOSELF_DAILY_PER_AGENT=0 stops every
    delivery, also the day's first."""
    state = EMPTY._replace(agents=agent_table({"other": AgentState(spent_day=DAY, spent=10_000)}))
    assert refusal_reason(schedule(), state, Caps(), DAY) is None
    assert refusal_reason(schedule(), EMPTY, Caps(daily_per_agent=0), DAY) == "agent_cap"


def test_the_words_of_policy_are_pinned() -> None:
    """Tiers and misfires stand in the log, so their spelling may not change."""
    assert FIELDS["tier"].values == (0, 1, 2)
    assert FIELDS["misfire"].values == ("coalesce", "skip", "all")
    assert {"tier", "misfire", "daily_budget"} < set(Request._fields)
