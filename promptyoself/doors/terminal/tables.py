"""Tables without lines: columns as wide as what is in them, and what is left for the last one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from rich.text import Text

from promptyoself.doors.terminal.screen import Screen

GAP = 2
"""The columns between two of a table."""
_INDENT = 2


class Column(NamedTuple):
    """One column of a table."""

    heading: str
    least: int = 0
    """The width that it may be cut to where the screen is narrow; 0: it is never cut."""
    rank: int = 0
    """Where the screen is narrow, columns go, the highest rank first; 0: it stays. Those from
    :data:`LUXURY` on also go where the last column wouldn't get the width that it wishes."""
    most: int = 1000
    """The width that it gets at most."""
    right: bool = False
    """Whether what is in it stands at its right."""
    wish: int = 0
    """The width that the last column would like to have."""


LUXURY = 3

Row = Sequence[Text | str]


def show_table(
    screen: Screen, columns: Sequence[Column], records: Iterable[Row], *, wrapped: bool = False
) -> None:
    """Print a heading and a line for each record. A column without content is left out.

    What doesn't fit is cut, first in the last column; ``wrapped`` goes on below instead there.
    """
    cells = [[_text(cell) for cell in record] for record in records]
    filled = [index for index in range(len(columns)) if any(record[index] for record in cells)]
    if not filled:
        return
    natural = {
        index: max(
            len(columns[index].heading),
            min(max(record[index].cell_len for record in cells), columns[index].most),
        )
        for index in filled
    }
    shown = _widths(screen.width, {index: columns[index] for index in filled}, natural)
    last = max(shown)
    heading = [Text(column.heading, style="dim") for column in columns]
    lines: list[Text] = []
    for record in [heading, *cells] if any(column.heading for column in columns) else cells:
        rest = []
        if wrapped and record is not heading:
            rest = list(record[last].wrap(screen.console, max(shown[last], 1)))
            record = [*record[:last], rest.pop(0) if rest else Text("")]  # noqa: PLW2901
        parts = [(record[index], shown[index], columns[index]) for index in sorted(shown)]
        lines.append(_line(screen, parts))
        before = sum(width + GAP for index, width in shown.items() if index != last)
        lines += (cut(screen, Text.assemble(" " * before, line), screen.width) for line in rest)
    # At once, and as they are: rich would measure and wrap each of thousands again.
    screen.console.print(Text("\n").join(lines), soft_wrap=True)


def _text(cell: Text | str) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _widths(width: int, columns: dict[int, Column], natural: dict[int, int]) -> dict[int, int]:
    """How wide each column is; those that find no room are missing."""
    least = {
        index: min(natural[index], column.least or natural[index])
        for index, column in columns.items()
    }
    widths = dict(natural)
    for index in sorted(columns, key=lambda index: -columns[index].rank):
        last = max(widths)
        wish = columns[last].wish if columns[index].rank >= LUXURY else 0
        least_of_last = max(least[last], min(natural[last], wish))
        floor = sum(least[other] for other in widths if other != last) + least_of_last
        if columns[index].rank == 0 or floor + GAP * (len(widths) - 1) <= width:
            break
        del widths[index]
    last = max(widths)
    others = [index for index in widths if index != last]
    wished = any(columns[index].rank >= LUXURY for index in others)
    wanted = max(least[last], min(natural[last], columns[last].wish if wished else 0))
    room = width - GAP * len(others)
    while room - sum(widths[index] for index in others) < wanted:
        wide = [index for index in others if widths[index] > least[index]]
        if not wide:
            break
        # Those that may go altogether are cut first, the one with the most to spare.
        spare = [(columns[index].rank > 0, widths[index] - least[index], index) for index in wide]
        widths[max(spare)[2]] -= 1
    widths[last] = max(min(room - sum(widths[index] for index in others), natural[last]), 1)
    return widths


def _line(screen: Screen, cells: list[tuple[Text, int, Column]]) -> Text:
    line, begin = Text(), 0
    for cell, width, column in cells:
        shown = cut(screen, cell, width)
        before = width - shown.cell_len if column.right else 0
        line.append(" " * (begin + before - line.cell_len))
        line.append_text(shown)
        begin += width + GAP
    return cut(screen, line, screen.width)


def cut(screen: Screen, text: Text, width: int) -> Text:
    """A text that is no wider than that; a sign at its end says that it was cut."""
    if text.cell_len <= width:
        return text
    end = screen.mark("cut")
    shorter = text.copy()
    shorter.truncate(max(width - end.cell_len, 0), overflow="crop")
    shorter.rstrip()
    shorter.append(end.plain[:width])
    return shorter


def show_pairs(
    screen: Screen, named: Iterable[tuple[str, Text | str | None]], *, indent: int = _INDENT
) -> None:
    """Print names on the left and what they are on the right; without those that are empty."""
    filled = [(name, _text(value)) for name, value in named if value]
    widest = max((len(name) for name, _ in filled), default=0)
    before = indent + widest + GAP
    for name, value in filled:
        left = Text(" " * indent + name.ljust(widest + GAP), style="dim")
        if " " not in value.plain and before + value.cell_len > screen.width >= value.cell_len:
            margin = " " * min(2 * indent, screen.width - value.cell_len)
            screen.print(left, Text.assemble(margin, value))  # what is copied stays in one piece
            continue
        for line in _lines(screen, value, max(screen.width - before, 8)):
            screen.print(Text.assemble(left, line))
            left = Text(" " * before)


def _lines(screen: Screen, value: Text, width: int) -> Iterator[Text]:
    for paragraph in value.split("\n", allow_blank=True):
        yield from paragraph.wrap(screen.console, width) or [Text("")]
