"""What the log adds up to: audits, changes between two points, budgets, forecasts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.text import Text

from promptyoself.core.instants import parse_utc
from promptyoself.core.visible import visible
from promptyoself.doors.terminal.moments import length_of_seconds
from promptyoself.doors.terminal.screen import Document, Screen, plain, state
from promptyoself.doors.terminal.tables import Column, show_pairs, show_table

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
    if document["status"] == "success":
        mark = screen.mark("ok")
        screen.print(Text.assemble(mark, " ", screen.sentence(document["message"])))
    totals = document["totals"]
    why = counts((reason, count) for reason, count in totals["skipped_why"].items())
    show_pairs(
        screen,
        [
            ("from", screen.clock(document["since"])),
            ("to", screen.clock(document["until"])),
            ("slots", f"{totals['slots']:,}"),
            ("outcomes", counts((outcome, totals.get(outcome, 0)) for outcome in _OUTCOMES)),
            ("skipped for", why),
            *(
                (name, counts(document[name].items()))
                for name in ("answers", "notices")
                if name in document
            ),
            ("last event", f"number {document['head'].partition(':')[0]}"),
        ],
    )
    names = screen.beside.get("names", {})
    agents = screen.agents(schedule["agent_id"] for schedule in document["schedules"])
    if document["schedules"]:
        screen.print("")
        columns = (
            Column("SCHEDULE", 12, most=24),
            Column("AGENT", 8, rank=1, most=20),
            Column("SLOTS", right=True),
            Column("OUTCOMES", 16),
        )
        show_table(
            screen,
            columns,
            (
                (
                    plain(names.get(schedule["id"]) or schedule["id"]),
                    agents[schedule["agent_id"]],
                    f"{schedule['slots']:,}",
                    counts((outcome, schedule.get(outcome, 0)) for outcome in _OUTCOMES),
                )
                for schedule in document["schedules"]
            ),
            wrapped=True,
        )
    if document["undelivered"]:
        screen.print("", Text("Not delivered", style="bold"))
        columns = (
            Column("SCHEDULE", 12, most=24),
            Column("SLOT"),
            Column("UP TO", rank=1),
            Column("WHY", 12),
        )
        show_table(
            screen,
            columns,
            (_undelivered(missing, names, screen) for missing in document["undelivered"]),
            wrapped=True,
        )


def _undelivered(missing: Document, names: Document, screen: Screen) -> tuple[Text, ...]:
    several = missing["last"] != missing["slot"]
    why = [state(missing.get("outcome", ""))]
    if missing["why"]:
        why.append(Text.assemble(": ", _reason(missing, screen)))
    if missing.get("slots", 1) > 1:
        why.append(Text(f", {missing['slots']:,} slots", style="dim"))
    return (
        plain(names.get(missing["id"]) or missing["id"]),
        screen.clock(missing["slot"]),
        screen.clock(missing["last"] if several else None),
        Text.assemble(*why),
    )


def _reason(missing: Document, screen: Screen) -> Text:
    """Why a slot wasn't delivered, or what it waits for."""
    why = str(missing["why"])
    if missing.get("outcome") != "pending":
        return plain(why.replace("_", " "))
    retry_at = screen.beside.get("retries", {}).get(f"{missing['id']}|{missing['slot']}")
    if why == "soon" and retry_at and screen.now and parse_utc(retry_at) > screen.now:
        return Text.assemble("another attempt follows ", screen.clock(retry_at))
    return plain(_WAITS.get(why, why.replace("_", " ")))


_WAITS: dict[str, str] = {
    "no_loop": "no loop is running",
    "no_broca_loop": "no loop is running inside its agent's Broca",
    "busy": "another delivery is under way there",
    "overlap": "an earlier slot of its schedule isn't settled",
    "held": "its target can't be reached, so it is held back",
    "desires": "the log of desires can't be read",
    "soon": "it is tried in a moment",
}


def counts(named: Iterable[tuple[str, int]]) -> Text:
    """What there is any of, each with its number."""
    return Text(", ").join(
        Text.assemble(f"{count:,} ", state(name)) for name, count in named if count
    )


def show_diff(document: Document, screen: Screen) -> None:
    """What changed between two points of the log, a block for each schedule."""
    if not document["changes"]:
        screen.print(Text("Nothing changed."))
    names = screen.beside.get("names", {})
    for number, change in enumerate(document["changes"]):
        name = names.get(change["id"])
        title = plain(name or change["id"])
        title.stylize("bold")
        id_ = (f"  {change['id']}", "dim") if name else ""
        screen.print(*[""] * (number > 0), Text.assemble(title, id_, "  ", change["change"]))
        show_pairs(
            screen,
            (
                (visible(field.replace("_", " "), one_line=True), _from_to(field, values, screen))
                for field, values in change["fields"].items()
                if field not in _INNER
            ),
        )
        for event in change["events"]:
            by = visible(str(event["by"].get("who", "")), one_line=True)
            about = Text.assemble(", ", plain(event["reason"])) if event.get("reason") else ""
            words = visible(event["type"].replace(".", " "), one_line=True)
            line = Text.assemble("  ", screen.clock(event["ts"]), f"  {words} by {by}", about)
            line.stylize("dim")
            screen.print(line)


_INNER = frozenset(
    {"anchor", "last_slot", "settled_at", "spent", "spent_day", "told", "retold", "registered"}
)
"""Fields that say nothing to people which others don't say."""


def _from_to(field: str, values: Mapping[str, Any], screen: Screen) -> Text:
    before, after = (_field(field, values[key], screen) for key in ("from", "to"))
    if not before:
        return after
    return Text.assemble(
        before, (f" {screen.mark('to').plain} ", "dim"), after or Text("none", style="dim")
    )


def _field(field: str, value: Any, screen: Screen) -> Text:
    if field in ("grace", "jitter") and isinstance(value, int):
        return Text(length_of_seconds(value) or "0 s")
    if isinstance(value, list):
        return plain(", ".join(str(item) for item in value))
    return Text("") if value is None else screen.sentence(str(value))


def show_budgets(document: Document, screen: Screen) -> None:
    """How many prompts each agent, and each schedule with a budget, has left today."""
    agents = screen.agents(agent["agent_id"] for agent in document["agents"])
    columns = (
        Column("AGENT", 14, most=32),
        Column("LEFT TODAY"),
        Column("SENT", right=True, rank=2),
        Column("ACTIVE", rank=1),
        Column("NEW DAY", 12),
    )
    show_table(
        screen,
        columns,
        (
            (
                agents[agent["agent_id"]],
                _left(agent),
                f"{agent['spent']:,}",
                f"{agent['active']} of {agent['max_active']}"
                if agent["max_active"]
                else str(agent["active"]),
                screen.when(agent["resets_at"]),
            )
            for agent in document["agents"]
        ),
    )
    limited = [schedule for schedule in document["schedules"] if schedule["limit"] is not None]
    if limited:
        screen.print("")
        show_table(
            screen,
            (Column("SCHEDULE", 12, most=32), Column("LEFT TODAY"), Column("STATUS")),
            (
                (
                    plain(schedule["name"] or schedule["id"]),
                    _left(schedule),
                    state(schedule["status"]),
                )
                for schedule in limited
            ),
        )
    if not document["agents"]:
        screen.print(Text("No agent has a schedule."))


def _left(budget: Document) -> str:
    if budget["limit"] is None:
        return "no limit"
    return f"{budget['left']:,} of {budget['limit']:,}"


def show_forecast(document: Document, screen: Screen) -> None:
    """What would be delivered: by day, and what limits would stop."""
    screen.print(screen.sentence(document["message"]))
    days: dict[str, list[int]] = {}
    for agent in document["agents"]:
        for day in agent["days"]:
            fired, skipped = days.setdefault(day["day"], [0, 0])
            days[day["day"]] = [fired + day["fired"], skipped + sum(day["skipped"].values())]
    if days:
        screen.print("")
        most = max(fired for fired, _ in days.values())
        columns = (
            Column("DAY (UTC)"),
            Column("DELIVERED", right=True),
            Column("SKIPPED", right=True),
            Column(""),
        )
        show_table(
            screen,
            columns,
            (
                (
                    day,
                    f"{fired:,}",
                    f"{skipped:,}" if skipped else "",
                    Text(("#" if screen.ascii else "▇") * round(20 * fired / max(most, 1)), "dim"),
                )
                for day, (fired, skipped) in sorted(days.items())
            ),
        )
    names = screen.beside.get("names", {})
    for number, stopped in enumerate(document["stopped"]):
        line = Text.assemble(
            screen.mark("skipped"),
            " ",
            plain(names.get(stopped["id"]) or stopped["id"]),
            f" is stopped by its {visible(stopped['why'], one_line=True).replace('_', ' ')}: ",
            f"{stopped['slots']:,} {'slot' if stopped['slots'] == 1 else 'slots'} from ",
            screen.clock(stopped["first"]),
        )
        screen.print(*[""] * (number == 0), line)
    for broken in document["broken"]:
        name = plain(names.get(broken["id"]) or broken["id"])
        screen.print(
            Text.assemble(screen.mark("failed"), " ", name, ": ", plain(broken["problem"]))
        )
