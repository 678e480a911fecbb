"""What happened in a while: by agent, what wasn't delivered, and what still waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from promptyoself.doors.terminal.quotes import size
from promptyoself.doors.terminal.reports import counts
from promptyoself.doors.terminal.screen import Document, Screen, listed, plain, state
from promptyoself.doors.terminal.tables import Column, show_table

_COUNTED = ("delivered", "failed", "skipped", "waiting", "in_doubt")
_LEFT_OUT = {
    "agents": "agents",
    "schedules": "schedules",
    "outcomes": "earlier outcomes",
    "open": "deliveries that wait",
}


def show_report(document: Document, screen: Screen) -> None:
    """The sums, a block for each agent, then a line for each slot that was not delivered."""
    totals = document["totals"]
    trouble = totals["failed"] or totals["in_doubt"]
    mark = screen.mark("failed" if trouble else "ok")
    screen.print(Text.assemble(mark, " ", screen.sentence(document["message"])))
    agents = screen.agents(agent["agent_id"] for agent in document["agents"])
    for agent in document["agents"]:
        title = agents[agent["agent_id"]].copy()
        title.stylize("bold")
        screen.print("", Text.assemble(title, "  ", _sums(agent)))
        show_table(
            screen,
            (Column("", 12, most=24), Column("", 16), Column("", 12)),
            (
                (
                    Text.assemble("  ", _called(schedule)),
                    _sums(schedule),
                    plain((schedule["last_error"] or {}).get("error", "")),
                )
                for schedule in document["schedules"]
                if schedule["agent_id"] == agent["agent_id"]
            ),
            wrapped=True,
        )
    _show_last_replies(document["schedules"], screen)
    undelivered = [line for line in document["outcomes"] if line["outcome"] != "delivered"]
    _show_lines("Not delivered", undelivered, screen)
    _show_lines("Still waiting", document["open"], screen)
    for name, number in document.get("left_out", {}).items():
        screen.print(Text(f"{number:,} {_LEFT_OUT[name]} are left out: see --limit.", style="dim"))


def _show_lines(title: str, lines: list[Mapping[str, Any]], screen: Screen) -> None:
    """A line for each slot: when it was due, whose, and why it isn't delivered."""
    if not lines:
        return
    screen.print("", Text(title, style="bold"))
    columns = (Column("SLOT"), Column("SCHEDULE", 12, most=24), Column("WHY", 12))
    show_table(
        screen,
        columns,
        (
            (screen.clock(line["slot"]), _called(line), listed(_why(line, screen)))
            for line in sorted(lines, key=lambda line: str(line["slot"]))
        ),
        wrapped=True,
    )


def _why(line: Document, screen: Screen) -> Iterator[Text]:
    """What became of a slot, and why, the most telling first."""
    yield state(line.get("outcome") or line["state"])
    if line.get("slots", 1) > 1:
        yield Text(f"{line['slots']:,} slots")
    for key in ("why", "error"):
        if line.get(key):
            yield plain(str(line[key]).replace("_", " ") if key == "why" else line[key])
    if line.get("retry_at"):
        yield Text.assemble("again ", screen.clock(line["retry_at"]))


def _sums(sums: Document) -> Text:
    further = [
        (words.format(s="s" * (count != 1)), count)
        for words, group, name in (
            ("answered", "answers", "replied"),
            ("unanswered", "answers", "unanswered"),
            ("notice{s} sent", "notices", "sent"),
            ("notice{s} given up", "notices", "failed"),
        )
        for count in (sums.get(group, {}).get(name, 0),)
    ]
    return counts([*((name, sums[name]) for name in _COUNTED), *further])


def _show_last_replies(schedules: list[Mapping[str, Any]], screen: Screen) -> None:
    """The first line of each schedule's latest answer."""
    answered = [schedule for schedule in schedules if schedule.get("last_reply")]
    if not answered:
        return
    screen.print("", Text("Last answers", style="bold"))
    show_table(
        screen,
        (Column("TIME"), Column("SCHEDULE", 12, most=24), Column("FIRST LINE", 12)),
        (
            (screen.clock(reply["at"]), _called(schedule), _line(reply))
            for schedule in answered
            for reply in (schedule["last_reply"],)
        ),
    )


def _line(reply: Document) -> Text:
    if reply.get("text"):
        return plain(reply["text"])
    return Text(size(reply["bytes"]), style="dim")


def _called(line: Document) -> Text:
    return plain(line["name"] or line["id"])
