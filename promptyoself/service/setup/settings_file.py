"""Changing the file of settings, line by line: all other lines stay as they are."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import check_value, read_file

_HEADER = "# Settings of promptyoself: `promptyoself config` shows them all.\n"
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=~-]*")
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_ASSIGNMENT = re.compile(
    r"""(?P<name>\ufeff?\s*(?:export\s+)?(?:'[^']+'|[^=\s]+)[^\S\r\n]*=)
    (?P<value>[^\S\r\n]*(?:'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|[^\r\n]*?)
    (?P<comment>[^\S\r\n]+\#[^\r\n]*)?[^\S\r\n]*
    (?P<end>\r\n|\r|\n|)""",
    re.VERBOSE | re.DOTALL,
)


def change_settings(
    path: Path, changes: Mapping[str, str | None], disk: Disk | None = None
) -> list[str]:
    """Set each of these settings to its text, or take it out of the file where that is ``None``.

    Returns the names of those that the file had otherwise before; where there are none, nothing is
    written. Each value is checked first. The file is replaced as a whole, and only this user may
    read it. Where a link leads to the file, the link stays.

    Raises:
        PromptyoselfError: ``invalid_setting``: a value isn't one, or the file can't be understood.
        OSError: the file can't be written; it is then as it was.
    """
    disk = disk or Disk()
    for name, value in changes.items():
        if value is not None:
            _require_line(name, value)
            check_value(name, value)
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir() and all(value is None for value in changes.values()):
        return []
    disk.make_directory(target.parent)
    with _locked(target.parent):
        entries = read_file(path)
        there = {name: entry.value for name, entry in entries.items()}
        changed = [name for name, value in changes.items() if there.get(name) != value]
        if changed:
            lines = [_HEADER]
            if target.exists():
                lines = _LINES.findall(target.read_bytes().decode())
            for name in changed:
                number = entries[name].line - 1 if name in entries else None
                _change(lines, number, name, changes[name])
            _write(disk, target, lines, {name: changes[name] for name in changed})
    return changed


def _write(disk: Disk, target: Path, lines: list[str], changes: Mapping[str, str | None]) -> None:
    """Write the lines, once they are seen to be read as what the ``changes`` say."""
    disk.write_beside(target, ["".join(lines).encode()])
    written = {name: entry.value for name, entry in read_file(disk.beside(target)).items()}
    for name, value in changes.items():
        if written.get(name) != value:
            disk.discard(disk.beside(target))
            raise PromptyoselfError(
                "invalid_setting",
                f"{name} can't be written to {str(target)!r} in a form that is read as it was.",
                "Write that line with an editor.",
                setting=name,
            )
    disk.put_in_place(target)


def _change(lines: list[str], number: int | None, name: str, value: str | None) -> None:
    """Change the line of that ``number``, from 0, in its place. A new line goes below the comment
    that shows the setting, as ``.env.example`` has one for each, else to the end. Lines that are
    gone stay as empty texts, so that the numbers of the others still hold."""
    if value is None:
        if number is not None:
            lines[number] = ""
        return
    if number is not None:
        match = _ASSIGNMENT.fullmatch(lines[number])
        name_part, comment, end = match.group("name", "comment", "end") if match else (None,) * 3
        lines[number] = f"{name_part or name + '='}{_quoted(value)}{comment or ''}{end or ''}"
        return
    shown = re.compile(rf"#\s*{re.escape(name)}=")
    place = next((at for at, line in enumerate(lines) if shown.match(line)), len(lines) - 1)
    if place >= 0 and not lines[place].endswith(("\n", "\r")):
        lines[place] += "\n"
    addition = f"{name}={_quoted(value)}\n"
    if place < 0:
        lines.append(addition)
    else:  # into the same element, for the sake of the numbers
        lines[place] += addition


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _require_line(name: str, value: str) -> None:
    """Refuse what would be no value: an empty text counts as unset, and a value is on one line."""
    if not value.strip():
        hint = f"`promptyoself config unset {name}` takes it out of the file."
        raise PromptyoselfError("invalid_setting", f"{name} is empty.", hint, setting=name)
    if not value.isprintable():
        raise PromptyoselfError(
            "invalid_setting",
            f"{name} has a character that can't be printed, such as a line's end.",
            "Give it as one line of text.",
            setting=name,
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, so that two changes at once don't undo each other."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
