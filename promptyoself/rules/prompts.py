"""The text that is sent: the header before a prompt, the idle prompt, and prompts with values.

The header tells the agent what woke it, and when. Letta shows an agent the text verbatim and no
time. The lines are those that Letta Code (0.34) writes for its own schedules, so that its
transcripts show ours in the same way. It recognises the first line, and the one about recurrence.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import in_zone, is_zone, zone_named
from promptyoself.events.kinds import SlotKind
from promptyoself.state.desires import Ranked
from promptyoself.state.schedules import Schedule


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


class PromptFault(Exception):
    """A prompt with values can't be made. The text says why, for the log."""


def names_desires(schedule: Schedule) -> bool:
    """Whether the text that is sent depends on the agent's desires."""
    if schedule.render is None:
        return schedule.template is not None
    if "desires" not in schedule.prompt:
        return False
    from promptyoself.rules.templates import names_value

    return names_value(schedule.prompt, "desires")


def fill_in(
    schedule: Schedule, slot: str, now: datetime, fire_number: int, ranked: Sequence[Ranked]
) -> str:
    """The prompt of a schedule that has one with values, filled in.

    It may be blank, which says that there is nothing to send. ``fire_number`` counts the scheduled
    fires from 1. ``ranked`` are the desires, where :func:`names_desires` says that it takes any.

    Raises:
        PromptFault: it can't be filled in, or makes a text that can't be sent.
    """
    from promptyoself.core.text_limits import check_prompt
    from promptyoself.rules.templates import TemplateFault, check_template, render

    zone = zone_named(schedule.timezone if is_zone(schedule.timezone) else "UTC")
    values = {
        "now": now.astimezone(zone),
        "slot": parse_utc(slot).astimezone(zone),
        "zone": schedule.timezone,
        "fire_number": fire_number,
        "name": schedule.name or schedule.id,
        "agent": schedule.agent_id,
        "last_run": parse_utc(schedule.last_run).astimezone(zone) if schedule.last_run else None,
        "last_reply": None,  # answers aren't kept
        "desires": [
            {"text": desire.text, "tags": list(desire.tags), "strength": round(strength, 2)}
            for strength, desire in ranked
        ],
    }
    try:
        check_template(schedule.prompt)  # another version may have taken what this one doesn't
        text = render(schedule.prompt, values)
        return check_prompt(text) if text.strip() else ""
    except TemplateFault as error:
        raise PromptFault(f"{error}") from None
    except PromptyoselfError as error:
        raise PromptFault(error.message) from None
