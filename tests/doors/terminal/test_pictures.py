"""What a person sees, as pictures in text: of a store that a fixed story has made, at a fixed time.

To draw them again after a change that was meant: `PICTURES=write pytest tests/doors/terminal`.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from terminals import Story, at_terminal, picture, told, without_codes

DOCS = Path(__file__).resolve().parents[3] / "docs"
PICTURES = Path(__file__).parent / "pictures"

SHOWN = {
    "list": ("list",),
    "show": ("show", "--id", "{stretch}"),
    "show-failing": ("show", "--id", "{night-watch}"),
    "history": ("history",),
    "doctor": ("doctor",),
    "error": ("cancel", "--id", "sch_00000000"),
    "audit": ("audit", "--since", "2026-11-27T00:00"),
    "diff": ("diff", "--since", "2026-11-28T00:00"),
    "budgets": ("budgets",),
    "report": ("report", "--since", "last week"),
    "agenda": ("agenda", "--for", "2d"),
    "simulate": ("simulate", "--until", "in 3d"),
    "agents": ("agents",),
    "stats": ("stats",),
    "next": ("next", "--id", "{invoices}", "--count", "3"),
}
"""The commands of which there are pictures. `{name}` is the id of the schedule of that name."""


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """The store; the tests only look at it."""
    with told(tmp_path_factory.mktemp("story") / "var") as story:
        yield story


def drawn(story: Story, name: str, columns: int) -> str:
    """A picture, without what is this machine's."""
    words = [word.format(**story.ids) for word in SHOWN[name]]
    text = picture(*words, columns=columns)
    assert all(cell_len(line) <= columns for line in text.splitlines()), text
    for pattern, instead in _OF_THE_MACHINE:
        text = pattern.sub(instead, text)
    return text.replace(str(story.var), "VAR")


_OF_THE_MACHINE = (
    (re.compile(r"wrk_[0-9a-f]{16}"), "wrk_0123456789abcdef"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "f" * 64),
    (re.compile(r"[0-9]+\.[0-9] kB"), "9.9 kB"),
    # Versions and folders, on one line or on more.
    (re.compile(r"(software +)promptyoself(?:.|\n {10,})*"), r"\1promptyoself …"),
    (re.compile(r"(files +)promptyoself\.service(?:.|\n {10,})*"), r"\1promptyoself.service …"),
    (re.compile(r"(data directory +)(?:.|\n {10,})*"), r"\1VAR"),
)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", SHOWN)
def test_a_form_looks_like_its_picture(story: Story, name: str, columns: int) -> None:
    """A person reads what the picture has, at 80 columns and at 120."""
    path = PICTURES / f"{name}-{columns}.txt"
    text = drawn(story, name, columns)
    if os.environ.get("PICTURES") == "write":
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


def test_every_picture_is_compared() -> None:
    names = {f"{name}-{columns}.txt" for name in SHOWN for columns in (80, 120)}
    assert {path.name for path in PICTURES.iterdir()} == names


@pytest.mark.parametrize("columns", [80, 120])
def test_a_real_terminal_shows_the_same(story: Story, columns: int) -> None:
    """A process at a terminal takes the terminal's width, and the form for people, by itself. What
    is coloured there is the same text."""
    environ = story.environ()
    shown = at_terminal("list", environ=environ, columns=columns)
    assert shown.code == 0
    assert b"\x1b[" in shown.out
    assert without_codes(shown.out) == drawn(story, "list", columns)
    wrong = at_terminal("cancel", "--id", "sch_00000000", environ=environ, columns=columns)
    assert wrong.code == 1
    assert without_codes(wrong.out) == drawn(story, "error", columns)


@pytest.mark.parametrize("columns", [1, 20, 40, 60, 200])
@pytest.mark.parametrize("name", SHOWN)
def test_no_width_breaks_a_form(story: Story, name: str, columns: int) -> None:
    """No line is wider than the terminal, whatever its width; below 20 columns it counts as 20."""
    words = [word.format(**story.ids) for word in SHOWN[name]]
    lines = picture(*words, columns=columns).splitlines()
    assert max(map(cell_len, lines)) <= max(columns, 20)
    assert not any(line != line.rstrip() for line in lines)


def test_the_picture_of_the_documentation_is_true() -> None:
    """What docs/images/terminal.svg shows is what the commands print; `make docs` draws it."""
    sys.path.insert(0, str(DOCS))
    try:
        from make_picture import PICTURE, picture
    finally:
        sys.path.remove(str(DOCS))

    def words(svg: str) -> list[str]:
        return re.findall(r">([^<>]+)</text>", svg)

    kept = PICTURE.read_text(encoding="utf-8")
    assert words(picture()) == words(kept)
    assert "url(http" not in kept  # what a page that shows it would have to fetch
    assert "@font-face" not in kept
