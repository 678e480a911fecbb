"""For people's eyes: a table for each list in a document, lines for the rest, and progress bars."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from promptyoself.core.times import format_duration
from promptyoself.core.visible import visible

_DURATIONS = frozenset({"grace", "jitter"})

_LEFT_OUT = frozenset({"active", "schedule_type"})  # the status and the value say as much


def print_table(document: Mapping[str, Any]) -> None:
    """Print a document on stdout, as wide as the terminal; 200 columns where there is none."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=200)
    fields = Table(box=None, show_header=False, pad_edge=False)
    for key, value in document.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            _print_rows(console, value)
        elif value not in (None, [], {}):
            # Only a text by itself may have lines: they stand beside its name, and no other's.
            lines = value.split("\n") if isinstance(value, str) else ()
            whole = "\n".join(map(_cell, lines)) if lines else _named(key, value)
            fields.add_row(Text(_cell(key), style="bold"), Text(whole))
    console.print(fields)


@contextmanager
def progress_bar(events: int) -> Iterator[Callable[[int], None]]:
    """A bar on stderr, which goes away at the end. Call what it yields with the number of events
    that are done."""
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("events", total=events or None)
        yield lambda done: bar.update(task, completed=done)


def _print_rows(console: Console, rows: list[Mapping[str, Any]]) -> None:
    columns = [
        key
        for key in rows[0]
        if key not in _LEFT_OUT and any(row.get(key) not in (None, [], {}) for row in rows)
    ]
    table = Table()
    for column in columns:
        table.add_column(column, overflow="fold")  # an id that is cut is of no use
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    console.print(table)


def _named(key: str, value: Any) -> str:
    """A value under its name: those that are seconds are durations to people."""
    if key in _DURATIONS and isinstance(value, int) and value > 0:
        return format_duration(value)
    return _cell(value)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return ", ".join(f"{_cell(key)} {_named(key, item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    # A prompt can hold anything, also what would make the terminal do things, or look like a cell.
    return visible(str(value), one_line=True)
