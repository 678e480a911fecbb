"""The terminal that an answer is shown on: its width, its colours, and who reads there."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from rich.console import Console, RenderableType  # noqa: TC002  # a named tuple has it
from rich.text import Text

from promptyoself.core.instants import is_instant
from promptyoself.core.visible import visible
from promptyoself.doors.terminal.moments import distance, moment

Document = Mapping[str, Any]

INSTANT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z"
"""How an instant is written in documents."""

_LOCAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+[+-][0-9:]+"
"""The same instant as some clocks show it, which sentences have before it."""

GOOD, WARN, BAD = "green", "dark_goldenrod", "red"
"""Colours that can be read on a light ground and on a dark one."""

# A state is told by its word and its mark; the colour only helps those who see it.
_STYLES = {
    "active": GOOD,
    "delivered": GOOD,
    "ok": GOOD,
    "live": GOOD,
    "paused": WARN,
    "waiting": WARN,
    "claimed": WARN,
    "in_flight": WARN,
    "in_doubt": WARN,
    "pending": WARN,
    "skipped": WARN,
    "failed": BAD,
    "missed": BAD,
    "error": BAD,
    "unaccounted": BAD,
    "doubled": BAD,
    "unexpected": BAD,
    "lost": BAD,
    "cancelled": "dim",
    "completed": "dim",
}

_MARKS = {
    "ok": ("✓", "ok"),
    "delivered": ("✓", "+"),
    "failed": ("✗", "x"),
    "skipped": ("↷", "-"),
    "waiting": ("…", "?"),
    "paused": ("‖", "="),
    "none": ("·", "."),
    "to": ("→", "->"),
    "cut": ("…", "..."),
}
"""Signs that stand beside words or for them, and their spelling where there is only ASCII."""


class Screen(NamedTuple):
    """Where an answer is shown, to whom, and what its form may show beside it."""

    console: Console
    zone: str
    """The IANA name of the zone in which the reader's clocks run."""
    now: datetime | None = None
    """The time, or ``None`` where nothing is to be said relative to it."""
    names: Mapping[str, str] = MappingProxyType({})
    """The names of agents by their ids, as Letta last told them."""
    beside: Document = MappingProxyType({})
    """What the command knows beside its answer, for people alone."""
    ascii: bool = False
    """Whether the terminal takes nothing but ASCII."""

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.console.width

    def when(self, instant: str | None, *, rounded: bool = False) -> Text:
        """An instant and how far away it is, perhaps ``rounded``; empty where there is none."""
        text = self.clock(instant)
        if instant and self.now is not None:
            with suppress(ValueError):
                text.append(f" ({distance(instant, self.now, rounded=rounded)})", style="dim")
        return text

    def clock(self, instant: str | None) -> Text:
        """An instant without its distance. What another version wrote there stays as it is."""
        try:
            return Text(moment(instant, self.zone, self.now) if instant else "")
        except ValueError:
            return plain(instant)

    def sentence(self, text: str) -> Text:
        """A sentence of ours, with its instants as people say them, each of them once."""

        def said(match: re.Match[str]) -> str:
            if not is_instant(match[2]):  # somebody's word, which an error repeats
                return match[0]
            words = moment(match[2], self.zone, self.now)
            return words if words.startswith("today") else (match[1] or "") + words

        once = re.sub(rf"{_LOCAL} \(({INSTANT})\)", r"\1", text)
        return plain(re.sub(rf"(\bat )?({INSTANT})", said, once))

    def agent(self, agent_id: str | None) -> Text:
        """An agent's name and its whole id, or the id alone."""
        if not agent_id:
            return Text("")
        name = self.names.get(agent_id)
        if name is None:
            return plain(agent_id)
        return Text.assemble(plain(name), (f" ({visible(agent_id, one_line=True)})", "dim"))

    def agents(self, ids: Iterable[str | None]) -> dict[str | None, Text]:
        """What each of these agents is called beside the others: by its name, by the beginning of
        its id, or by both where two have one name."""
        short = short_ids(id_ for id_ in ids if id_)
        named = [self.names.get(id_) for id_ in short]
        called: dict[str | None, Text] = {None: Text("")}
        for id_, beginning in short.items():
            name = self.names.get(id_)
            if name is None:
                called[id_] = plain(beginning)
            elif named.count(name) == 1:
                called[id_] = plain(name)
            else:
                called[id_] = Text.assemble(plain(name), (f" {beginning}", "dim"))
        return called

    def mark(self, word: str) -> Text:
        """The sign of a state, in its colour."""
        return Text(_MARKS[word][self.ascii], style=_STYLES.get(word, "dim"))

    def print(self, *shown: RenderableType) -> None:
        """Print below what is there, each on lines of its own."""
        for one in shown:
            self.console.print(one)


def state(word: str) -> Text:
    """A state of a schedule, a slot or a check, in its colour."""
    return Text(visible(word.replace("_", " "), one_line=True), style=_STYLES.get(word, ""))


def plain(value: object) -> Text:
    """What somebody else wrote, on one line, with nothing in it that a terminal would act on."""
    return Text(visible(str(value), one_line=True))


def listed(parts: Iterable[Text]) -> Text:
    """Remarks side by side. After a whole sentence, a semicolon stands for its full stop."""
    told = [part for part in parts if part]
    line = Text()
    for number, part in enumerate(told, 1):
        if number == len(told):
            line.append_text(part)
        elif part.plain.endswith(".") and not part.plain.endswith(".."):
            line.append_text(part[:-1]).append("; ")
        else:
            line.append_text(part).append(", ")
    return line


def short_ids(ids: Iterable[str]) -> dict[str, str]:
    """Each id; of an agent's whose UUID begins like no other of these, the first eight digits."""
    whole = dict.fromkeys(ids)
    cut = {id_: id_[:14] if re.fullmatch(_AGENT, id_) else id_ for id_ in whole}
    return {
        id_: short if sum(other.startswith(short) for other in whole) == 1 else id_
        for id_, short in cut.items()
    }


_AGENT = r"agent-[0-9a-f]{8}-[0-9a-f-]{27}"
