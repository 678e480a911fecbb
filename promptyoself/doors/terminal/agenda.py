"""What fires ahead, day by day."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import DAY, wall_time, zone_named
from promptyoself.doors.terminal.screen import Document, Screen, plain, rows, short_ids

_WIDE = 100  # columns from which agents have one of their own


def show_agenda(document: Document, screen: Screen) -> None:
    """A block for each day, with a line for each delivery, or for all of a schedule that day."""
    screen.print(screen.sentence(document["message"]))
    agents = short_ids(line["agent_id"] for line in document["agenda"])
    has_agents = len(agents) > 1 and screen.console.width >= _WIDE
    days: dict[str, list[Document]] = {}
    for line in document["agenda"]:
        days.setdefault(_day(line["at"], screen), []).append(line)
    for day, lines in days.items():
        table = rows("TIME", "NAME", *(["AGENT"] if has_agents else []), "PROMPT")
        table.show_header = False
        for line in lines:
            table.add_row(
                _times(line, screen),
                plain(line["name"] or line["id"]),
                *([agents[line["agent_id"]]] if has_agents else []),
                _prompt(line),
            )
        screen.print("", Text(day, style="bold"), table)
    _show_what_is_missing(document, screen)


def _show_what_is_missing(document: Document, screen: Screen) -> None:
    """The lines that were left out, the paused schedules, and those whose times can't be told."""
    if left_out := document.get("total", document["count"]) - document["count"]:
        hint = f"{left_out:,} more: --limit {document['total']} shows all."
        screen.print("", Text(hint, style="dim"))
    if document.get("paused"):
        names = (plain(paused["name"] or paused["id"]) for paused in document["paused"])
        screen.print("", Text.assemble("Paused: ", Text(", ").join(names), "."))
    for broken in document.get("broken", ()):
        screen.print(Text.assemble(f"{broken['id']}: ", plain(broken["problem"])))


def _day(instant: str, screen: Screen) -> str:
    """The day of an instant, as ``Today, Sun 29 Nov``."""
    there, here = _wall(instant, screen), wall_time(screen.now, zone_named(screen.zone))
    year = "" if there.year == here.year else f" {there.year}"
    day = f"{there:%a} {there.day} {there:%b}{year}"
    near = {here.date(): "Today, ", (here + DAY).date(): "Tomorrow, "}
    return near.get(there.date(), "") + day


def _wall(instant: str, screen: Screen) -> datetime:
    return wall_time(parse_utc(instant), zone_named(screen.zone))


def _times(line: Document, screen: Screen) -> Text:
    """When a line is: its time, or its first and its last."""
    times = [_wall(line["at"], screen)]
    if "last" in line:
        times.append(_wall(line["last"], screen))
    return Text(
        " to ".join(f"{time:%H:%M:%S}" if time.second else f"{time:%H:%M}" for time in times)
    )


def _prompt(line: Document) -> Text:
    """What is said, after how often where a line stands for more than one delivery."""
    prompt = plain(line["prompt"] or f"[{line.get('template') or ''}]")
    if line["fires"] == 1:
        return prompt
    often = f"{line['fires']} times: "
    if line["schedule_type"] == "interval":
        often = f"every {line['schedule_value']}, {often}"
    return Text.assemble(Text(often, style="dim"), prompt)
