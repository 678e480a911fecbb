"""What somebody else has written, behind a bar that tells its lines from ours."""

from __future__ import annotations

from rich.text import Text

from promptyoself.core.visible import visible
from promptyoself.doors.terminal.screen import Screen


def show_quoted(text: str, screen: Screen, *, most: int | None = None) -> bool:
    """Print a text, of which everything can be seen, line for line; no more than ``most`` lines.
    Returns whether all of it was printed."""
    bar = ("  | " if screen.ascii else "  │ ", "dim")
    lines = [
        part
        for line in Text(visible(text)).split("\n", allow_blank=True)
        for part in line.wrap(screen.console, max(screen.width - 4, 8)) or [Text("")]
    ]
    for line in lines[:most]:
        screen.print(Text.assemble(bar, line))
    return most is None or len(lines) <= most


def size(count: int) -> str:
    """A number of bytes in words."""
    return "1 byte" if count == 1 else f"{count:,} bytes"
