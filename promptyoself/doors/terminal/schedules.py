"""Schedules as people see them: the list, and the card of one."""

from __future__ import annotations

from datetime import timedelta

from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.moments import length_of, recurrence
from promptyoself.doors.terminal.screen import (
    Document,
    Screen,
    pairs,
    plain,
    rows,
    short_ids,
    state,
)

_WIDE = 100  # columns from which agents have one of their own


def show_list(document: Document, screen: Screen) -> None:
    """A line for each schedule: how it is called, when it fires, and what it says."""
    schedules = document["schedules"]
    if not schedules:
        screen.print(
            "No schedules.", Text("promptyoself register --help says how to make one.", style="dim")
        )
        return
    agents = short_ids(schedule["agent_id"] for schedule in schedules)
    is_wide = screen.console.width >= _WIDE
    several = len(agents) > 1 and is_wide
    next_run = screen.when if is_wide else screen.clock
    table = rows("NAME", *(["AGENT"] if several else []), "WHEN", "NEXT", "PROMPT")
    for schedule in schedules:
        upcoming = schedule["status"] == "active" and schedule["next_run"]
        table.add_row(
            _called(schedule),
            *([agents[schedule["agent_id"]]] if several else []),
            _recurrence(schedule, screen),
            next_run(schedule["next_run"]) if upcoming else state(schedule["status"]),
            plain(schedule["prompt"]),
        )
    screen.print(table)
    hidden = document.get("remaining", 0)
    if hidden:
        screen.print(Text(f"{hidden} more: --limit 0 shows all.", style="dim"))


def _called(schedule: Document) -> Text:
    return plain(schedule["name"]) if schedule.get("name") else Text(schedule["id"])


def _recurrence(schedule: Document, screen: Screen) -> str:
    return recurrence(
        schedule["schedule_type"],
        schedule["schedule_value"],
        schedule["timezone"],
        screen.zone,
    )


def show_card(document: Document, screen: Screen) -> None:
    """One schedule in sections: what it is, when it fires, its limits, and what became of it."""
    schedule = document["schedule"]
    title = Text.assemble(_called(schedule), "  ", state(schedule["status"]))
    screen.print(title)
    screen.print(Text(visible(schedule["prompt"] or "")), "")
    fires = [fire["utc"] for fire in document.get("fires", ())] or [schedule["next_run"]]
    screen.print(
        pairs(
            [
                ("id", schedule["id"]),
                ("agent", schedule["agent_id"]),
                ("conversation", schedule["conversation_id"]),
                ("when", _when(schedule, screen)),
                ("from", screen.clock(schedule["start_at"])),
                ("until", screen.clock(schedule["until"])),
                ("next", Text("\n").join(screen.when(fire) for fire in fires if fire)),
                ("last", screen.when(schedule["last_run"])),
                ("delivered", _count(schedule)),
                ("failed", _failures(schedule)),
                ("reason", plain(schedule["reason"] or "")),
                ("open", _open_slots(schedule, screen)),
                ("if missed", _misfire(schedule)),
                ("approval", f"tier {schedule['tier']}" if schedule["tier"] else ""),
                ("on failure", schedule["on_failure"]),
                ("a day", _daily(schedule)),
                ("made", screen.when(schedule["created_at"])),
            ]
        )
    )


def _when(schedule: Document, screen: Screen) -> str:
    words = _recurrence(schedule, screen)
    if schedule["schedule_type"] == "cron":
        words += f"  [{schedule['schedule_value']}]"
    jitter = schedule["jitter"]
    return words + (f", up to {length_of(timedelta(seconds=jitter))} later" if jitter else "")


def _count(schedule: Document) -> str:
    times, most = schedule["repetition_count"], schedule["max_repetitions"]
    if most:
        return f"{times} of {most} times"
    return "once" if times == 1 else f"{times} times" if times else ""


def _failures(schedule: Document) -> Text:
    times = schedule["failures"]
    if not times:
        return Text("")
    count = "once" if times == 1 else f"{times} times in a row"
    return Text.assemble(state("failed"), f" {count}: ", plain(schedule["last_error"] or ""))


def _open_slots(schedule: Document, screen: Screen) -> Text:
    return Text("\n").join(
        Text.assemble(screen.clock(slot["slot"]), "  ", state(slot.get("state", "")))
        for slot in schedule["open"]
    )


def _misfire(schedule: Document) -> str:
    grace = length_of(timedelta(seconds=schedule["grace"]))
    return {
        "skip": f"skipped after {grace}",
        "coalesce": f"the latest one is sent, up to {grace} late",
        "all": f"each is sent, up to {grace} late",
    }.get(schedule["misfire"], str(schedule["misfire"]))


def _daily(schedule: Document) -> str:
    return f"at most {schedule['daily_budget']}" if schedule["daily_budget"] else ""
