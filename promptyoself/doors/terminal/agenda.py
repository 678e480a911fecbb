"""What fires ahead, day by day."""

from __future__ import annotations

from datetime import datetime

from rich.text import Text

from promptyoself.core.instants import parse_utc
from promptyoself.core.times import DAY, wall_time, zone_named
from promptyoself.doors.terminal.screen import Document, Screen, plain
from promptyoself.doors.terminal.tables import Column, show_table


def show_agenda(document: Document, screen: Screen) -> None:
    """A block for each day, with a line for each delivery, or for all of a schedule that day."""
    screen.print(screen.sentence(document["message"]))
    agents = screen.agents(line["agent_id"] for line in document["agenda"])
    days: dict[str, list[Document]] = {}
    for line in document["agenda"]:
        days.setdefault(_day(line["at"], screen), []).append(line)
    columns = (
        Column("", 13),
        Column("", 12, most=24),
        Column("", 8, rank=3, most=20),
        Column("", 12, wish=24),
    )
    for day, lines in days.items():
        screen.print("", Text(day, style="bold"))
        show_table(
            screen,
            columns,
            (
                (
                    _times(line, screen),
                    plain(line["name"] or line["id"]),
                    agents[line["agent_id"]] if len(agents) > 2 else "",  # `None` is one of them
                    _prompt(line),
                )
                for line in lines
            ),
        )
    _show_what_is_missing(document, screen)


def _show_what_is_missing(document: Document, screen: Screen) -> None:
    """The lines that were left out, the paused schedules, and those whose times can't be told."""
    if left_out := document.get("total", document["count"]) - document["count"]:
        hint = f"{left_out:,} more: --limit {document['total']} shows all."
        screen.print("", Text(hint, style="dim"))
    if document.get("paused"):
        names = (_paused(paused, screen) for paused in document["paused"])
        screen.print("", Text.assemble("Paused: ", Text(", ").join(names), "."))
    for broken in document.get("broken", ()):
        screen.print(Text.assemble(f"{broken['id']}: ", plain(broken["problem"])))


def _paused(paused: Document, screen: Screen) -> Text:
    name = plain(paused["name"] or paused["id"])
    if not paused.get("resume_at"):
        return name
    return Text.assemble(name, " until ", screen.clock(paused["resume_at"]))


def _day(instant: str, screen: Screen) -> str:
    """The day of an instant, as ``Today, Sun 29 Nov``."""
    there = _wall(instant, screen)
    if screen.now is None:
        return f"{there:%a} {there.day} {there:%b} {there.year}"
    here = wall_time(screen.now, zone_named(screen.zone))
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
    prompt = plain(" ".join(line["prompt"].split()) or f"[{line.get('template') or ''}]")
    if line["fires"] == 1:
        return prompt
    often = f"{line['fires']} times: "
    if line["schedule_type"] == "interval":
        often = f"every {line['schedule_value']}, {often}"
    return Text.assemble(Text(often, style="dim"), prompt)
