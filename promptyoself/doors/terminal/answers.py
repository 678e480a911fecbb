"""Any answer that has no form of its own: its message, its values by name, its lists as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.screen import INSTANT, Document, Screen, plain, state
from promptyoself.doors.terminal.tables import GAP, Column, show_pairs, show_table

_TOLD_OTHERWISE = ("status", "code", "error", "message", "warning", "hint", "count", "dry_run")
_NEVER_CUT = ("id", "file", "line", "row", "secret")
_SENTENCES = ("message", "hint", "why", "command", "understood", "warning", "notes")
"""What is read as a whole, or not at all: it goes on below rather than being cut."""
_NAMES = {"ts": "last event"}
_AGENT_KEYS = ("agent_id", "for_agent", "on_failure")


def show_answer(document: Document, screen: Screen) -> None:
    """The message first, then what else the answer has, then what it advises."""
    if document.get("message"):
        mark = screen.mark("none" if document.get("dry_run") else "ok")
        screen.print(Text.assemble(mark, " ", screen.sentence(document["message"])))
    show_rest(document, screen)
    if document.get("hint"):
        screen.print(screen.sentence(document["hint"]))


def show_rest(document: Document, screen: Screen, *, without: Sequence[str] = ()) -> None:
    """What an answer has beside its sentences and the keys that were told already: values by their
    names, groups below their names, lists as tables."""
    told = {*_TOLD_OTHERWISE, *without}
    rest = {
        key: value
        for key, value in document.items()
        if key not in told and not _is_twin(key, document) and _is_filled(value)
    }
    sentences = {key: rest.pop(key) for key in [*rest] if _are_sentences(rest[key])}
    tables = {key: value for key, value in rest.items() if _is_table(value)}
    groups = {key: value for key, value in rest.items() if isinstance(value, Mapping)}
    show_pairs(
        screen,
        (
            (_name(key), _value(value, screen, key))
            for key, value in rest.items()
            if key not in tables and key not in groups
        ),
    )
    for key, group in groups.items():
        screen.print(Text(f"  {_name(key)}", style="bold"))
        show_pairs(
            screen,
            (
                (_name(name), _value(value, screen, name))
                for name, value in group.items()
                if not _is_twin(name, group)
            ),
            indent=4,
        )
    for key, records in tables.items():
        if len(tables) > 1 or len(rest) > 1:
            screen.print("", Text(_name(key), style="bold"))
        show_records(records, screen)
    for key, texts in sentences.items():
        screen.print("", Text(_name(key), style="bold"))
        show_pairs(screen, (("-", screen.sentence(text)) for text in texts))


def show_records(records: Sequence[Document], screen: Screen) -> None:
    """A line for each record, with the columns that any of them has something in. The longest text
    is the last column, but for what to do about it."""
    names = screen.beside.get("names", {})
    if any(record.get("id") in names for record in records):
        records = [{"name": names.get(record.get("id")), **record} for record in records]
    keys = dict.fromkeys(key for record in records for key in record)
    filled = [
        key
        for key in keys
        if any(_is_filled(record.get(key)) for record in records)
        and not any(_is_twin(key, record) for record in records)
    ]
    agents = screen.agents(
        record.get(key) for record in records for key in _AGENT_KEYS if key in record
    )
    cells = {
        key: [
            agents[record.get(key)] if key in _AGENT_KEYS else _value(record.get(key), screen, key)
            for record in records
        ]
        for key in filled
    }
    if any(key in _SENTENCES for key in filled) and not _fit(filled, cells, screen):
        _show_blocks(filled, cells, screen)
        return
    texts = [key for key in filled if key not in ("id", "name")] or filled
    longest = max(texts, key=lambda key: max(cell.cell_len for cell in cells[key]))
    order = sorted(filled, key=lambda key: (key == "hint", key == longest))
    columns = [
        Column(_name(key).upper())
        if key in _NEVER_CUT
        else Column(_name(key).upper(), 8, rank=number if number > 1 else 0)
        for number, key in enumerate(order[:-1])
    ]
    columns.append(Column(_name(order[-1]).upper(), 12))
    show_table(screen, columns, zip(*(cells[key] for key in order), strict=True))


def _fit(keys: Sequence[str], cells: Mapping[str, Sequence[Text]], screen: Screen) -> bool:
    """Whether a table of these columns needs to cut nothing."""
    widths = (max(len(_name(key)), *(cell.cell_len for cell in cells[key])) for key in keys)
    return sum(width + GAP for width in widths) - GAP <= screen.width


def _show_blocks(keys: Sequence[str], cells: Mapping[str, Sequence[Text]], screen: Screen) -> None:
    """A line that says which record it is, and its sentences below, as long as they are."""
    for number in range(len(cells[keys[0]])):
        values = [(key, cells[key][number]) for key in keys if cells[key][number]]
        titles = [
            value if key in ("id", "name") else Text.assemble((f"{_name(key)} ", "dim"), value)
            for key, value in values
            if key not in _SENTENCES
        ]
        lines = Text("  ").join(titles).wrap(screen.console, max(screen.width - 2, 8))
        screen.print(*(Text.assemble("  ", line) for line in lines))
        sentences = ((key, value) for key, value in values if key in _SENTENCES)
        show_pairs(screen, ((_SAID.get(key, key), value) for key, value in sentences), indent=4)


_SAID = {"message": "why", "hint": "try"}
"""What the sentences of a block are called."""


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _are_sentences(value: Any) -> bool:
    """Whether a value is a list of sentences."""
    return isinstance(value, list) and bool(value) and all(_ends_as_one(item) for item in value)


def _ends_as_one(item: Any) -> bool:
    return isinstance(item, str) and " " in item and item.endswith(".")


def _is_twin(key: str, document: Document) -> bool:
    """Whether a key says in other words what another says."""
    if key.endswith("_local"):
        return key.removesuffix("_local") in document
    if key in ("seq", "hash"):
        return "head" in document
    if key == "valid":
        return bool(document[key])
    return key == "active" and "status" in document


def _is_filled(value: Any) -> bool:
    return value not in (None, "", [], {})


def _name(key: str) -> str:
    is_id = key.startswith("sch_")  # which is to be copied
    words = key if is_id else key.replace("_", " ")
    return visible(_NAMES.get(key, words), one_line=True)


def _value(value: Any, screen: Screen, key: str = "") -> Text:
    """A value as people write it."""
    if not _is_filled(value):
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, Mapping):
        named = (
            Text.assemble(_name(name), " ", _value(item, screen, name))
            for name, item in value.items()
            if not _is_twin(name, value)
        )
        return Text(", ").join(named)
    if isinstance(value, list):
        between = " " if _are_sentences(value) else ", "
        return Text(between).join(_value(item, screen) for item in value)
    if isinstance(value, str) and re.fullmatch(INSTANT, value):
        return screen.when(value) if key in ("next_run", "expires") else screen.clock(value)
    if key in _AGENT_KEYS:
        return screen.agent(str(value))
    if isinstance(value, int) and abs(value) >= 10_000 and key != "pid":
        return Text(f"{value:,}")
    text = plain(value)
    text.stylize(state(str(value)).style)
    return text
