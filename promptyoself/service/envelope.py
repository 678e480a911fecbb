"""The envelope: a few lines before the prompt that tell the agent what woke it, and when.

Letta shows an agent the text verbatim and no time. The lines are those that Letta Code (0.34)
writes for schedules of its own, so that its transcripts show ours in the same way: it recognises
the first line, and the one about the recurrence.
"""

from __future__ import annotations

from datetime import datetime

from promptyoself.instants import parse_utc
from promptyoself.schedules import Schedule
from promptyoself.times import in_zone

__all__ = ["wrap"]


def wrap(schedule: Schedule, slot: str, kind: str, now: datetime, fire_number: int) -> str:
    """The prompt in its envelope. ``fire_number`` counts the scheduled fires from 1."""
    name = " ".join((schedule.name or schedule.id).split())
    rhythm = schedule.schedule_value
    if schedule.schedule_type == "interval":
        rhythm = f"every {rhythm}"
    if schedule.schedule_type == "once":
        recurrence = "This is a one-off scheduled task."
    elif kind == "scheduled":
        recurrence = f"This is fire #{fire_number} (cron: {rhythm})."
    else:
        recurrence = f"This is a recurring scheduled task (cron: {rhythm})."
    return "\n".join(
        (
            f'Scheduled task "{name}" is firing.',
            f"Timezone: {schedule.timezone}",
            f"Scheduled for: {_qualified(parse_utc(slot), schedule.timezone)}",
            f"Current time: {_qualified(now, schedule.timezone)}",
            recurrence,
            "",
            f"Prompt: {schedule.prompt}",
        )
    )


def _qualified(instant: datetime, zone: str) -> str:
    """``2026-11-21T09:00:00.000+01:00[Europe/Paris]``: local time, offset and zone."""
    milliseconds = instant.microsecond // 1000 * 1000
    local = in_zone(instant.replace(microsecond=milliseconds), zone)
    head, sign, offset = local[:19], local[-6], local[-5:]
    return f"{head}.{milliseconds // 1000:03d}{sign}{offset}[{zone}]"
