"""What `execute` did, a line for each slot: when, what became of it, and why."""

from __future__ import annotations

import re

from rich.text import Text

from promptyoself.core.times import wall_time, zone_named
from promptyoself.doors.terminal.answers import show_answer
from promptyoself.doors.terminal.quotes import size
from promptyoself.doors.terminal.screen import Document, Screen, listed, plain, state
from promptyoself.doors.terminal.tables import Column, show_table

_MARKS = {
    "delivered": "delivered",
    "failed": "failed",
    "parked": "failed",
    "skipped": "skipped",
    "answered": "ok",
    "unanswered": "none",
    "notice sent": "ok",
    "notice not sent": "failed",
}

_LISTS = ("skipped", "executed", "replies", "notices")

_COLUMNS = (
    Column(""),
    Column(""),
    Column("", 9),
    Column("", 12, most=24),
    Column("", 8, rank=2, most=20),
    Column("", 12, rank=1),
)


def show_deliveries(document: Document, screen: Screen) -> None:
    """A line for each range of slots that was skipped, each prompt that was tried, each answer, and
    each notice. A loop shows what becomes due as it goes on."""
    lines = [line for key in _LISTS for line in document.get(key, ())]
    if not lines:
        show_answer(document, screen)
        return
    names = screen.beside.get("names", {})
    agents = screen.agents(line.get("agent_id") for line in lines)
    records = []
    for line in lines:
        became = _became(line)
        id_ = line.get("id")
        name = plain(names.get(id_) or id_ or line.get("kind", ""))
        agent = agents[line.get("agent_id")]
        mark = screen.mark(_MARKS.get(became, "waiting"))
        what = state(became)
        records.append((_now(screen), mark, what, name, agent, _details(line, screen)))
    show_table(screen, _COLUMNS, records, wrapped=True)


def _now(screen: Screen) -> Text:
    if screen.now is None:
        return Text("")
    return Text(f"{wall_time(screen.now, zone_named(screen.zone)):%H:%M:%S}", style="dim")


def _became(line: Document) -> str:
    """What became of a prompt, of its answer, or of a notice."""
    if "replied" in line:
        return "answered" if line["replied"] else "unanswered"
    if "sent" in line:
        return "notice sent" if line["sent"] else "notice not sent"
    return str(line.get("state", "skipped"))


def _sentence(text: str) -> Text:
    """What went wrong: a sentence as it is, and a code in words."""
    is_code = re.fullmatch("[a-z_]+", text) is not None
    return plain(text.replace("_", " ") if is_code else text)


def _details(line: Document, screen: Screen) -> Text:
    told = [_sentence(str(line[key])) for key in ("error", "why") if line.get(key)]
    if line.get("to"):
        told.append(plain(f"to {line['to']}"))
    if line.get("bytes") is not None:
        told.append(Text(size(line["bytes"])))
    if line.get("slots", 1) > 1:
        told.append(Text(f"{line['slots']:,} slots"))
    if line.get("retry_at"):
        told.append(Text.assemble("again ", screen.clock(line["retry_at"])))
    elif line.get("next_run"):
        told.append(Text.assemble("next ", screen.clock(line["next_run"])))
    return listed(told)
