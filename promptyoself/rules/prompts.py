"""The text that is sent: the header before a prompt, and the idle prompt.

The header tells the agent what woke it, and when. Letta shows an agent the text verbatim and no
time. The lines are those that Letta Code (0.34) writes for its own schedules, so that its
transcripts show ours in the same way. It recognises the first line, and the one about recurrence.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import in_zone, is_zone
from promptyoself.events.kinds import SlotKind
from promptyoself.state.desires import Ranked


def with_header(
    id_: str, fields: Mapping[str, Any], slot: str, kind: SlotKind, now: datetime, fire_number: int
) -> str:
    """The prompt with its header.

    ``fields`` are those of the schedule, or of its registration. ``fire_number`` counts the
    scheduled fires from 1.
    """
    name = " ".join((fields.get("name") or id_).split())
    rhythm, zone = fields["schedule_value"], fields["timezone"]
    if fields["schedule_type"] == "interval":
        rhythm = f"every {rhythm}"
    if fields["schedule_type"] == "once":
        recurrence = "This is a one-off scheduled task."
    elif kind == "scheduled":
        recurrence = f"This is fire #{fire_number} (cron: {rhythm})."
    else:
        recurrence = f"This is a recurring scheduled task (cron: {rhythm})."
    return "\n".join(
        (
            f'Scheduled task "{name}" is firing.',
            f"Timezone: {zone}",
            f"Scheduled for: {_qualified(parse_utc(slot), zone)}",
            f"Current time: {_qualified(now, zone)}",
            recurrence,
            "",
            f"Prompt: {fields['prompt']}",
        )
    )


def _qualified(instant: datetime, zone: str) -> str:
    """``2026-11-21T09:00:00.000+01:00[Europe/Paris]``: local time, offset and zone.

    It is in UTC if this machine doesn't know the zone, since the prompt is to be sent all the same.
    """
    zone = zone if is_zone(zone) else "UTC"
    milliseconds = instant.microsecond // 1000 * 1000
    local = in_zone(instant.replace(microsecond=milliseconds), zone)
    head, sign, offset = local[:19], local[-6], local[-5:]
    return f"{head}.{milliseconds // 1000:03d}{sign}{offset}[{zone}]"


IDLE_LISTED = 10
"""The most desires that an idle prompt lists."""

IDLE_FLOOR = 0.01
"""The least strength of a desire that is listed. A desire of full strength fades to it in nearly
seven half-lives."""

_INTRODUCTION = (
    "You are idle. These are your strongest desires at this moment, the strongest first, each with "
    "its id, its strength from 0 to 1 and its tags. This is a list, not an instruction: none of "
    "them has been made a goal."
)

_CLOSING = (
    "The promptyoself commands `reinforce` (by id), `desire`, `desires` and `prune` keep this list."
)


def render_idle_prompt(ranked: Sequence[Ranked]) -> str:
    """The idle prompt that lists these desires.

    Each takes one line, so that no desire's text looks like another desire.
    """
    return "\n".join((_INTRODUCTION, "", *map(_line, ranked), "", _CLOSING))


def _line(ranked: Ranked) -> str:
    strength, desire = ranked
    tags = f" [{', '.join(desire.tags)}]" if desire.tags else ""
    return f"- {desire.id} ({strength:.2f}) {' '.join(desire.text.split())}{tags}"
