"""What `execute` did, a line for each slot: when, what became of it, and why."""

from __future__ import annotations

from rich.text import Text

from promptyoself.core.times import wall_time, zone_named
from promptyoself.doors.terminal.answers import show_answer
from promptyoself.doors.terminal.screen import Document, Screen, listed, plain, state
from promptyoself.doors.terminal.tables import Column, show_table

_MARKS = {"delivered": "delivered", "failed": "failed", "parked": "failed", "skipped": "skipped"}

_COLUMNS = (
    Column(""),
    Column(""),
    Column("", 9),
    Column("", 12, most=24),
    Column("", 8, rank=2, most=20),
    Column("", 12, rank=1),
)


def show_deliveries(document: Document, screen: Screen) -> None:
    """A line for each prompt that was tried, and for each range of slots that was skipped. A loop
    shows what becomes due as it goes on."""
    tried, skipped = document.get("executed", ()), document.get("skipped", ())
    if not tried and not skipped:
        show_answer(document, screen)
        return
    names = screen.beside.get("names", {})
    agents = screen.agents(line.get("agent_id") for line in (*tried, *skipped))
    records = []
    for line in (*skipped, *tried):
        became = line.get("state", "skipped")
        name = plain(names.get(line["id"]) or line["id"])
        agent = agents[line.get("agent_id")]
        mark = screen.mark(_MARKS.get(became, "waiting"))
        what = state(became)
        records.append((_now(screen), mark, what, name, agent, _details(line, screen)))
    show_table(screen, _COLUMNS, records, wrapped=True)


def _now(screen: Screen) -> Text:
    if screen.now is None:
        return Text("")
    return Text(f"{wall_time(screen.now, zone_named(screen.zone)):%H:%M:%S}", style="dim")


def _details(line: Document, screen: Screen) -> Text:
    told = [plain(str(line[key]).replace("_", " ")) for key in ("error", "why") if line.get(key)]
    if line.get("slots", 1) > 1:
        told.append(Text(f"{line['slots']:,} slots"))
    if line.get("retry_at"):
        told.append(Text.assemble("again ", screen.clock(line["retry_at"])))
    elif line.get("next_run"):
        told.append(Text.assemble("next ", screen.clock(line["next_run"])))
    return listed(told)
