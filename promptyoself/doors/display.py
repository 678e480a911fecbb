"""Answers for people: written to the terminal in the form of each command, through a pager where
they are longer than the screen."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple

from rich.console import Console

from promptyoself.doors.output import Document, representable
from promptyoself.doors.terminal.forms import show
from promptyoself.doors.terminal.screen import Screen

_WIDTH, _HEIGHT = 80, 24
_NARROWEST = 20  # columns; below it nothing could be laid out
_NOTHING: Document = MappingProxyType({})


class Reader(NamedTuple):
    """Who reads an answer, and how."""

    zone: str = "UTC"
    """The IANA name of the zone in which the reader's clocks run."""
    now: datetime | None = None
    """The time, or ``None`` where it isn't known."""
    names: Mapping[str, str] = MappingProxyType({})
    """The names of agents by their ids, as Letta last told them."""
    paged: bool = True
    """Whether a long answer goes through a pager."""


def display(command: str, document: Document, reader: Reader, beside: Document = _NOTHING) -> None:
    """Print the answer of a command, or an error, on stdout. ``beside`` is what the form of that
    command shows and the answer doesn't have.

    Raises:
        OSError: stdout can't be written to.
    """
    text, height = rendered(command, document, reader, beside)
    lines = text.count(b"\n")
    is_error = document["status"] == "error"
    if reader.paged and not is_error and lines >= height and sys.stdout.isatty() and _page(text):
        return
    sys.stdout.flush()
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def rendered(
    command: str, document: Document, reader: Reader, beside: Document = _NOTHING
) -> tuple[bytes, int]:
    """What :func:`display` prints, and how many lines the terminal has."""
    encoding = (sys.stdout.encoding or "ascii").lower()
    is_ascii = not encoding.startswith("utf")
    shown = representable(document, "ascii" if is_ascii else "utf-8")
    aside = representable(beside, "ascii" if is_ascii else "utf-8")
    names = representable(reader.names, "ascii" if is_ascii else "utf-8")
    colours = Console(file=sys.stdout).color_system if _may_colour() else None
    width, height = _size()
    console = Console(
        file=io.StringIO(),
        width=max(width, _NARROWEST),
        color_system=colours,  # type: ignore[arg-type]  # it came from a console
        force_terminal=colours is not None,
        markup=False,
        emoji=False,
        highlight=False,
        legacy_windows=False,
    )
    show(command, shown, Screen(console, reader.zone, reader.now, names, aside, is_ascii))
    assert isinstance(console.file, io.StringIO)
    text = re.sub(r" +((?:\x1b\[[0-9;]*m)*)$", r"\1", console.file.getvalue(), flags=re.MULTILINE)
    return text.encode(encoding, "backslashreplace"), height


def _may_colour() -> bool:
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _size() -> tuple[int, int]:
    """The columns and lines of the terminal. ``COLUMNS`` and ``LINES`` win, as they do elsewhere;
    80 columns where stdout is no terminal."""
    width, height = _WIDTH, _HEIGHT
    with suppress(OSError, ValueError):
        size = os.get_terminal_size(sys.stdout.fileno())
        width, height = size.columns or width, size.lines or height
    return _number("COLUMNS") or width, _number("LINES") or height


def _number(name: str) -> int:
    text = os.environ.get(name, "")
    return min(int(text), 10_000) if text.isascii() and text.isdigit() else 0


def _page(text: bytes) -> bool:
    """Show a text through the reader's pager; whether there is one."""
    import shutil
    import signal
    import subprocess

    pager = os.environ.get("PAGER", "less -FRX" if shutil.which("less") else "").strip()
    if pager in ("", "cat") or os.environ.get("TERM") == "dumb":
        return False
    environ = {"LESS": "FRX", "LESSCHARSET": "utf-8", **os.environ}
    sys.stdout.flush()
    # Ctrl-C is for the pager: some stop searching by it.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process = subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE, env=environ)
        with process, suppress(BrokenPipeError):  # the reader has seen enough
            process.communicate(text)
        return process.returncode not in (126, 127)  # the shell's words for: there is none
    finally:
        signal.signal(signal.SIGINT, before)


class ProgressBar:
    """A bar on stderr, with its rate and the time that is left. It leaves nothing behind."""

    def __init__(self, what: str, total: int | None) -> None:
        """``what`` is counted, in the plural, up to ``total``, if that is known."""
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn(what),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.completed:,.0f}"),
            TextColumn("{task.fields[rate]}", style="dim"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total, rate="")
        self._first: tuple[float, int] | None = None
        self._shown = 0.0
        self._bar.start()

    def show(self, done: int) -> None:
        """Show that so much is done; not at every call, since there are many."""
        now = self._bar.get_time()
        if now - self._shown < _OFTEN:
            return
        self._shown = now
        began, before = self._first = self._first or (now, done)
        rate = f"{(done - before) / (now - began):,.0f}/s" if now > began else ""
        self._bar.update(self._task, completed=done, rate=rate)

    def close(self) -> None:
        """Take the bar away."""
        self._bar.stop()


_OFTEN = 0.1  # seconds between two looks of the bar
