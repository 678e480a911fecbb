"""Any answer that has no form of its own: its message, its values by name, its lists as tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.screen import INSTANT, Document, Screen, pairs, plain, rows, state

_TOLD_OTHERWISE = ("status", "message", "warning", "hint", "count")


def show_answer(document: Document, screen: Screen) -> None:
    """The message first, then what else the answer has, then its warning."""
    if document.get("message"):
        screen.print(screen.sentence(document["message"]))
    lists = {key: value for key, value in document.items() if _is_table(value)}
    screen.print(
        pairs(
            (_name(key), _value(value, screen))
            for key, value in document.items()
            if key not in _TOLD_OTHERWISE and key not in lists and not _is_twin(key, document)
        )
    )
    for key, records in lists.items():
        if len(lists) > 1:
            screen.print("", Text(_name(key), style="bold"))
        _show_records(records, screen)
    show_warning(document, screen)


def show_warning(document: Document, screen: Screen) -> None:
    """What an answer warns of, after a word for those who see no colour."""
    if document.get("warning"):
        warning = Text("warning: ", style="bold yellow")
        screen.print(warning.append_text(screen.sentence(document["warning"])))


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping)


def _is_twin(key: str, document: Document) -> bool:
    """Whether a key says in the schedule's zone what another says in UTC."""
    return key.endswith("_local") and key.removesuffix("_local") in document


def _show_records(records: list[Mapping[str, Any]], screen: Screen) -> None:
    """A line for each record, with the columns that any of them has something in. The longest text
    is the last column."""
    filled = [key for key in records[0] if any(_is_filled(record.get(key)) for record in records)]
    widths = {
        key: max(len(str(_value(record.get(key), screen))) for record in records) for key in filled
    }
    longest = max(filled, key=lambda key: widths[key])
    columns = [key for key in filled if key != longest and not _is_twin(key, records[0])]
    columns.append(longest)
    table = rows(*(_name(key).upper() for key in columns))
    for record in records:
        table.add_row(*(_value(record.get(key), screen) for key in columns))
    screen.print(table)


def _is_filled(value: Any) -> bool:
    return value not in (None, "", [], {})


def _name(key: str) -> str:
    return visible(key.replace("_", " "), one_line=True)


def _value(value: Any, screen: Screen) -> Text:
    """A value as people write it."""
    if not _is_filled(value):
        return Text("")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, Mapping):
        named = (Text.assemble(_name(key), " ", _value(one, screen)) for key, one in value.items())
        return Text(", ").join(named)
    if isinstance(value, list):
        return Text(", ").join(_value(one, screen) for one in value)
    if isinstance(value, str) and re.fullmatch(INSTANT, value):
        return screen.clock(value)
    if isinstance(value, int) and abs(value) >= 10_000:
        return Text(f"{value:,}")
    text = plain(value)
    text.stylize(state(str(value)).style)
    return text
