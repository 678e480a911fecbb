"""A schedule to start from, and two prompts whose schedules would have one id."""

from datetime import UTC, datetime, timedelta
from typing import Any

from promptyoself.core.instants import format_utc
from promptyoself.state.schedules import Schedule

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
MEETING = ("Hello 101207", "Hello 188523")
"""Two prompts with which an hourly schedule of ``calling.AGENT`` has one id (32 bits of a hash)."""


def schedule(**changes: Any) -> Schedule:
    """An hourly schedule, registered at 12:00, that first fires at 13:00."""
    base = Schedule(
        id="sch_00000001",
        agent_id="agent",
        prompt="Hello",
        schedule_type="interval",
        schedule_value="1h",
        timezone="UTC",
        status="active",
        created_at=format_utc(NOON),
        anchor=format_utc(NOON),
        tier=0,
        misfire="coalesce",
        grace=24 * 3600,
        registered="",
        next_run=format_utc(NOON + HOUR),
    )
    return base._replace(**changes)
