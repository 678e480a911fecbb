"""What the log adds up to: audits, changes between two points, budgets, forecasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from promptyoself.doors.terminal.screen import (
    Document,
    Screen,
    pairs,
    plain,
    rows,
    short_ids,
    state,
)

_OUTCOMES = (
    "delivered",
    "failed",
    "skipped",
    "in_flight",
    "in_doubt",
    "pending",
    "lost",
    "unaccounted",
    "doubled",
    "unexpected",
)


def show_audit(document: Document, screen: Screen) -> None:
    """What became of every slot: of all, of each schedule, and which weren't delivered and why."""
    screen.print(screen.sentence(document["message"]))
    agents = short_ids(schedule["agent_id"] for schedule in document["schedules"])
    if document["schedules"]:
        table = rows("SCHEDULE", "AGENT", "SLOTS", "OUTCOMES")
        for schedule in document["schedules"]:
            counts = _counts((outcome, schedule.get(outcome, 0)) for outcome in _OUTCOMES)
            agent = agents[schedule["agent_id"]]
            table.add_row(schedule["id"], agent, str(schedule["slots"]), counts)
        screen.print("", table)
    if document["undelivered"]:
        table = rows("SCHEDULE", "FROM", "TO", "WHY")
        for missing in document["undelivered"]:
            last = screen.clock(missing["last"]) if missing["last"] != missing["slot"] else Text("")
            why = Text.assemble(state(missing.get("outcome", "")), " ", plain(missing["why"]))
            table.add_row(missing["id"], screen.clock(missing["slot"]), last, why)
        screen.print("", table)
    screen.print("", pairs([("head", document["head"])]))


def _counts(named: Iterable[tuple[str, int]]) -> Text:
    """What there is any of, each with its number."""
    return Text(", ").join(
        Text.assemble(f"{count:,} ", state(name)) for name, count in named if count
    )


def show_diff(document: Document, screen: Screen) -> None:
    """What changed between two points of the log, a block for each schedule."""
    if not document["changes"]:
        screen.print("Nothing changed.")
    for change in document["changes"]:
        screen.print(Text.assemble(change["id"], "  ", Text(change["change"], style="bold")))
        screen.print(
            pairs(
                (f"  {name.replace('_', ' ')}", _from_to(values, screen))
                for name, values in change["fields"].items()
            )
        )
        for event in change["events"]:
            by = event["by"].get("who", "")
            about = f", {event['reason']}" if event.get("reason") else ""
            words = event["type"].replace(".", " ")
            line = Text.assemble("  ", screen.clock(event["ts"]), f"  {words} by {by}{about}")
            line.stylize("dim")
            screen.print(line)


def _from_to(values: Mapping[str, Any], screen: Screen) -> Text:
    before, after = (_field(values[key], screen) for key in ("from", "to"))
    if not before:
        return Text(after)
    return Text.assemble(before, Text(" -> ", style="dim"), after or "none")


def _field(value: Any, screen: Screen) -> str:
    return "" if value is None else str(screen.sentence(str(value)))


def show_budgets(document: Document, screen: Screen) -> None:
    """How many prompts each agent, and each schedule with a budget, has left today."""
    agents = short_ids(agent["agent_id"] for agent in document["agents"])
    table = rows("AGENT", "LEFT TODAY", "SCHEDULES", "NEW DAY")
    for agent in document["agents"]:
        table.add_row(
            agents[agent["agent_id"]],
            _left(agent),
            f"{agent['active']} of {agent['max_active']}"
            if agent["max_active"]
            else str(agent["active"]),
            screen.when(agent["resets_at"]),
        )
    screen.print(table)
    limited = [schedule for schedule in document["schedules"] if schedule["limit"] is not None]
    if limited:
        table = rows("SCHEDULE", "NAME", "STATUS", "LEFT TODAY")
        for schedule in limited:
            name = plain(schedule["name"] or "")
            table.add_row(schedule["id"], name, state(schedule["status"]), _left(schedule))
        screen.print("", table)


def _left(budget: Document) -> str:
    if budget["limit"] is None:
        return f"no limit, {budget['spent']} sent"
    return f"{budget['left']} of {budget['limit']}"


def show_forecast(document: Document, screen: Screen) -> None:
    """What would be delivered: by day, and what limits would stop."""
    screen.print(screen.sentence(document["message"]))
    days: dict[str, list[int]] = {}
    for agent in document["agents"]:
        for day in agent["days"]:
            fired, skipped = days.setdefault(day["day"], [0, 0])
            days[day["day"]] = [fired + day["fired"], skipped + sum(day["skipped"].values())]
    if days:
        table = rows("DAY (UTC)", "DELIVERED", "SKIPPED")
        for day, (fired, skipped) in sorted(days.items()):
            table.add_row(day, f"{fired:,}", f"{skipped:,}" if skipped else "")
        screen.print("", table)
    for stopped in document["stopped"]:
        line = (
            f"{stopped['id']} is stopped by its {stopped['why']}: {stopped['slots']:,} slots from "
        )
        screen.print(Text.assemble(line, screen.clock(stopped["first"])))
    for broken in document["broken"]:
        screen.print(Text.assemble(f"{broken['id']}: ", plain(broken["problem"])))
