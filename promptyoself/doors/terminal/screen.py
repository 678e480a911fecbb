"""The terminal that an answer is shown on: its width, its colours, and the reader's zone."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from rich.console import Console, RenderableType  # noqa: TC002  # a named tuple has it
from rich.table import Table
from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.moments import distance, moment

Document = Mapping[str, Any]

INSTANT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z"
"""How an instant is written in documents."""

# A state is told by its word; the colour only helps those who see it.
_STYLES = {
    "active": "green",
    "delivered": "green",
    "ok": "green",
    "paused": "yellow",
    "waiting": "yellow",
    "in_doubt": "yellow",
    "skipped": "yellow",
    "failed": "red",
    "missed": "red",
    "error": "red",
    "cancelled": "dim",
    "completed": "dim",
}


class Screen(NamedTuple):
    """Where an answer is shown, and to whom."""

    console: Console
    zone: str  # in which the reader's clocks run
    now: datetime

    def when(self, instant: str | None) -> Text:
        """An instant and how far away it is; empty where there is none."""
        if not instant:
            return Text("")
        text = Text(moment(instant, self.zone, self.now))
        text.append(f"  {distance(instant, self.now)}", style="dim")
        return text

    def clock(self, instant: str | None) -> Text:
        """An instant without its distance."""
        return Text(moment(instant, self.zone, self.now) if instant else "")

    def sentence(self, text: str) -> Text:
        """A sentence of ours, with its instants as people say them."""
        return plain(re.sub(INSTANT, lambda instant: moment(instant[0], self.zone, self.now), text))

    def print(self, *shown: RenderableType) -> None:
        """Print below what is there, each on lines of its own."""
        for one in shown:
            self.console.print(one)


def state(word: str) -> Text:
    """A state of a schedule, a slot or a check, in its colour."""
    return Text(word.replace("_", " "), style=_STYLES.get(word, ""))


def plain(value: object) -> Text:
    """What somebody else wrote, on one line, with nothing in it that a terminal would act on."""
    return Text(visible(str(value), one_line=True))


def rows(*headings: str) -> Table:
    """A table without lines. Its last column gets what is left of the width, and is cut there."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for heading in headings[:-1]:
        table.add_column(heading, no_wrap=True)
    table.add_column(headings[-1], no_wrap=True, overflow="ellipsis", ratio=1)
    table.expand = True
    return table


def pairs(named: Iterable[tuple[str, RenderableType | str | None]]) -> Table:
    """Names on the left, what they are on the right; without those that are empty."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in named:
        if value is not None and str(value):
            table.add_row(name, Text(value) if isinstance(value, str) else value)
    return table


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Each id, cut after eight digits of its UUID where no other of these begins so."""
    whole = set(ids)
    cut = {one: one[: one.find("-", 6) if one.startswith("agent-") else len(one)] for one in whole}
    return {
        one: short if sum(other.startswith(short) for other in whole) == 1 else one
        for one, short in cut.items()
    }
