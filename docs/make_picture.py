"""Make docs/images/terminal.svg: what a person sees at a terminal, from a real run.

`make docs` runs it. The commands run in a terminal of their own, on a store that a fixed story has
made at a fixed time (tests/support/terminals.py), so that the picture is the same each time.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "images" / "terminal.svg"
COLUMNS = 96

RUN = (
    (
        *("register", "--name", "standup", "--agent-id", "{Ada}"),
        *("--prompt", "What did you do, and what is next?", "--when", "every weekday at 9:15"),
    ),
    ("list",),
    ("show", "stretch"),
)
"""The commands in the picture. `{name}` is the id of the agent of that name."""

_THEME = TerminalTheme(
    (22, 27, 34),
    (201, 209, 217),
    [
        *((72, 79, 88), (255, 123, 114), (63, 185, 80), (210, 153, 34)),
        *((88, 166, 255), (188, 140, 255), (57, 197, 207), (177, 186, 196)),
    ],
)


def picture() -> str:
    """The text of docs/images/terminal.svg."""
    sys.path.insert(0, str(ROOT / "tests" / "support"))
    from terminals import at_terminal, told

    console = Console(
        record=True,
        width=COLUMNS,
        file=io.StringIO(),
        force_terminal=True,
        color_system="truecolor",
        highlight=False,
        markup=False,
    )
    with tempfile.TemporaryDirectory() as folder, told(Path(folder) / "var") as story:
        for words in RUN:
            asked = [word.format(**story.ids) for word in words]
            shown = at_terminal(*asked, environ=story.environ(), columns=COLUMNS)
            console.print(Text.assemble(("$ ", "dim"), *_typed(words)))
            console.print(Text.from_ansi(shown.out.decode()))
    return _standing_alone(console.export_svg(title="promptyoself", theme=_THEME, unique_id="t"))


def _typed(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """A command as a person would type it: by names, where the run has ids."""
    typed = [re.sub(r"\{(\w+)\}", r"\1", word) for word in words]
    quoted = [f'"{word}"' if set(word) & set(" *") else word for word in typed]
    return [(f"promptyoself {' '.join(quoted)}", "bold")]


def _standing_alone(svg: str) -> str:
    """The picture without the fonts that rich would have readers fetch from elsewhere."""
    svg = re.sub(r"\s*@font-face \{.*?\}\n", "\n", svg, flags=re.DOTALL)
    return svg.replace("Fira Code", "ui-monospace, Menlo, Consolas, DejaVu Sans Mono")


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(), encoding="utf-8")
    print(PICTURE.relative_to(ROOT))
