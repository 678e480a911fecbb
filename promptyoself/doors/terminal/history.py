"""What happened, a line for each event: when, what, to which schedule, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from textwrap import shorten
from typing import Any

from rich.text import Text

from promptyoself.core.texts import first_line
from promptyoself.core.visible import visible
from promptyoself.doors.terminal.quotes import size
from promptyoself.doors.terminal.screen import Document, Screen, listed, plain, state
from promptyoself.doors.terminal.tables import Column, cut, show_table
from promptyoself.events.target_names import TARGET_TITLES

_WORDS = {
    "delivery.attempted": ("waiting", "claimed"),
    "delivery.delivered": ("delivered", "delivered"),
    "delivery.failed": ("failed", "failed"),
    "delivery.skipped": ("skipped", "skipped"),
    "delivery.abandoned": ("waiting", "given back"),
    "delivery.stalled": ("waiting", "no answer yet"),
    "delivery.replied": ("", "answered"),
    "delivery.unanswered": ("", "unanswered"),
    "notice.sent": ("", "notice sent"),
    "notice.failed": ("failed", "notice failed"),
}
"""The state that an event leaves a slot in, and what people call it."""

_MARKS = {"delivered": "delivered", "failed": "failed", "skipped": "skipped", "waiting": "waiting"}

_MOST_OF_PROMPT = 48  # characters
_MOST_OF_ANSWER = 120  # characters

_DULL = ("worker", "segment", "ledger")
"""The first parts of the types of events that say nothing of a prompt."""


def show_history(document: Document, screen: Screen) -> None:
    """A line for each event."""
    events = document["events"]
    if not events:
        screen.print(Text("Nothing happened."))
        return
    hidden = document.get("total", len(events)) - len(events)
    if hidden:
        line = f"{hidden:,} earlier events; --limit and --since say how many are shown."
        screen.print(Text(line, style="dim"))
    names = screen.beside.get("names", {})
    columns = (
        Column("TIME"),
        Column(""),
        Column("WHAT", 9),
        Column("SCHEDULE", 12, most=24),
        Column("DETAILS", 12, rank=1),
    )
    show_table(screen, columns, (_record(event, names, screen) for event in events))
    for sent in screen.beside.get("texts", ()):
        title = Text.assemble("Sent ", screen.clock(sent["at"]), f", attempt {sent['attempt']}")
        title.stylize("bold")
        text = sent["text"]
        unknown = Text("The log has only its SHA-256.", style="dim")
        screen.print("", title, unknown if text is None else Text(visible(text)))


def _record(event: Document, names: Document, screen: Screen) -> tuple[Text, ...]:
    time, mark, what, details = _parts(event, screen)
    id_ = event["id"] or ""
    called = plain(names.get(id_) or id_)
    record = (time, mark, what, called, details)
    if event["type"].partition(".")[0] in _DULL or event["type"] == "delivery.attempted":
        for cell in record:
            cell.stylize("dim")
    return record


def show_followed(document: Document, screen: Screen) -> None:
    """A line for each event, below those that were shown already: the columns stay where they
    are."""
    names = screen.beside.get("names", {})
    for event in document["events"]:
        time, mark, what, called, details = _record(event, names, screen)
        cells = (
            _filled(time, 16),
            mark if mark else Text(" "),
            _filled(what, 13),
            _filled(called, 14),
        )
        line = Text("  ").join((*cells, details))
        screen.print(cut(screen, line, screen.width))


def _filled(cell: Text, width: int) -> Text:
    cell.append(" " * (width - cell.cell_len))
    return cell


def event_line(event: Document, screen: Screen) -> tuple[Text, Text, Text]:
    """An event without its schedule: when, what with its sign, and why."""
    time, mark, what, details = _parts(event, screen)
    return time, Text.assemble(mark, " ", what), details


def _parts(event: Document, screen: Screen) -> tuple[Text, Text, Text, Text]:
    kind = event["type"]
    word, what = _WORDS.get(kind, ("", kind.replace("schedule.", "").replace(".", " ")))
    if kind == "delivery.failed" and event["data"].get("parked"):
        what = "failed, parked"
    if kind == "notice.failed" and event["data"].get("retry_at"):
        word, what = "waiting", "notice not sent"
    mark = screen.mark(_MARKS[word]) if word in _MARKS else Text("")
    described = Text(visible(what, one_line=True), style=state(word).style)
    details = listed(_details(event, screen))
    return screen.clock(event["ts"]), mark, described, details


def _details(event: Document, screen: Screen) -> Iterator[Text]:
    """What an event says beside its type, the most telling first."""
    data = event["data"]
    if event["type"] == "delivery.replied":
        yield _answer(data)
    if data.get("turn"):
        yield plain(_TURNS.get(data["turn"], data["turn"]))
    for key in ("error", "why", "reason", "message", "outcome"):
        if data.get(key):
            yield plain(str(data[key]).replace("_", " ") if key == "why" else data[key])
    if data.get("slot") and data["slot"][:16] != event["ts"][:16]:
        yield Text.assemble("slot ", screen.clock(data["slot"]))
    if data.get("slots", 1) != 1:
        yield Text(f"{data['slots']} slots")
    without = _OF_DELIVERIES if event["type"].startswith("delivery.") else ()
    if event["type"] == "delivery.replied":
        without = (*without, "text")
    for key, words in _NAMED.items():
        if key not in without and data.get(key) not in (None, False, "", [], {}):
            yield words(data[key], screen)
    if event["type"] == "delivery.delivered" and data.get("conversation_id"):
        yield Text.assemble("in conversation ", plain(data["conversation_id"]))
    if data.get("to"):
        yield from _notice(event["type"], data)
    if event["type"] == "schedule.modified":
        yield plain(_modified(data.get("changes") or {}))
    actor = event["actor"]
    if event["type"].partition(".")[0] not in ("delivery", "notice", *_DULL):
        yield plain(f"by {actor.get('who', '')}")


def _modified(changes: Document) -> str:
    """The fields that somebody has changed, without what followed from that."""
    words = {_TIMES.get(field, field.replace("_", " ")) for field in changes}
    return ", ".join(sorted(words - {""}))


_TIMES = {"schedule_type": "times", "schedule_value": "times", "next_run": "", "anchor": ""}


def _answer(data: Document) -> Text:
    """The first line of an agent's answer; where its text isn't kept, how long it was."""
    line = first_line(data.get("text") or "")
    if line:
        return plain(shorten(line, _MOST_OF_ANSWER, placeholder=" ..."))
    return Text(size(data.get("bytes", 0)))


def _notice(kind: str, data: Document) -> Iterator[Text]:
    """Which destination is told, and of what."""
    told_of = _NOTICES.get(data.get("kind", ""), "") if kind.startswith("notice.") else ""
    yield Text.assemble(told_of, "to " if told_of else "notice to ", plain(data["to"]))
    if data.get("tries", 1) > 1:
        yield Text(f"{data['tries']} tries")


_NOTICES = {"reply": "an answer ", "failure": "a failure ", "digest": "a digest "}

_OF_DELIVERIES = ("next_run", "worker")
"""Fields that say nothing of a delivery."""

_TURNS = {
    "cut_off": "the agent's turn was cut off",
    "failed": "the agent's turn failed",
    "waits_for_approval": "the agent waits for an approval",
}

_NAMED: dict[str, Callable[[Any, Screen], Text]] = {
    "prompt": lambda prompt, _: plain(shorten(str(prompt), _MOST_OF_PROMPT, placeholder=" ...")),
    "attempt": lambda number, _: Text(f"attempt {number}" if number > 1 else ""),
    "tools": lambda names, _: plain(f"called {', '.join(map(str, names))}"),
    "latency_ms": lambda ms, _: Text(f"took {ms / 1000:,.0f} s" if ms >= 1000 else ""),
    "target": lambda name, _: Text(f"to {TARGET_TITLES.get(name, visible(str(name)))}"),
    "retry_at": lambda instant, screen: Text.assemble("again ", screen.clock(instant)),
    "next_run": lambda instant, screen: Text.assemble("next ", screen.clock(instant)),
    "month": lambda month, _: plain(month),
    "worker": lambda worker, _: plain(worker),
    "text": lambda text, _: plain(text),
}
"""How a field of an event is told, in the order in which they are told."""
