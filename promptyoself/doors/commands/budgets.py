"""What has been spent today, and what is left."""

from __future__ import annotations

from promptyoself.doors.command import command
from promptyoself.doors.options import only_agent_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("budgets")
@only_agent_option
def budgets_command(session: Session, agent_id: str | None) -> Document:
    """Show what agents and schedules have spent of today's deliveries, and when that is reset.

    Use it when slots are skipped as `budget` or `agent_cap`, or before planning many prompts.
    Answers with agents and schedules, each with spent, limit, left and resets_at (midnight UTC).
    """
    from promptyoself.service.schedules.budgets import budgets

    return budgets(session.reading(agent_id=agent_id), agent_id, session.now())
