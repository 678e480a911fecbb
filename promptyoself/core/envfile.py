"""A ``.env`` file: lines of ``NAME=value``, blank ones and comments, and nothing else.

A line that can't be understood is refused, since otherwise its setting would be lost silently.
An error names the file and the line, and never shows the line itself, which may hold a secret.
A file that other users may write to is refused: it says where prompts are sent, and with which key.
"""

import grp
import os
import pwd
import re
import shlex
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from stat import S_ISREG, S_IWGRP, S_IWOTH
from typing import NamedTuple

from dotenv.parser import parse_stream

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.texts import NotUTF8, text_of

_MOST_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ASSIGNED = re.compile(r"\s*(?:export\s+)?(?P<name>'[^']+'|[^=#\s]+)[^\S\n]*=(?P<value>.*)", re.S)
_EXPANDED = re.compile(r"\$(?:\{|[A-Za-z_])")
_MEND = "Mend the line, or put a # before it."


class Entry(NamedTuple):
    """A value, and the line, from 1, in which it is set."""

    value: str
    line: int


def read_envfile(
    path: Path, is_ours: Callable[[str], bool], is_secret: Callable[[str], bool]
) -> dict[str, Entry]:
    """The values that the file sets, by name; none if there is no file.

    A name that ``is_ours`` may be set once, to a value on one line. Values aren't expanded, so
    ``${NAME}`` and ``$NAME`` are refused in one of ours, unless in single quotes. One that
    ``is_secret`` may have ``$NAME``, since a password may well have a dollar sign.

    Raises:
        PromptyoselfError: ``invalid_setting``, with ``file``, and ``line`` where it is one line's.
    """
    content = _content(path)
    if content is None:
        return {}
    try:
        text = text_of(content)
    except NotUTF8 as error:
        hint = error.hint if "UTF-" in error.hint else "Save it as UTF-8."
        raise _refused(path, f"it {error}", hint, error.line) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise _refused(path, "it has a NUL character", "Save it as text, in UTF-8.", line)
    entries: dict[str, Entry] = {}
    for name, value, source, line in _assignments(path, text):
        if is_ours(name):
            _require_plain(path, name, value, source, line, is_secret=is_secret(name))
            if name in entries:
                lines = f"in line {entries[name].line} and again"
                raise _refused(path, f"{name} is set {lines}", "Remove one of them.", line)
        elif "\n" in value and any(is_ours(inner) for inner in _names_within(value)):
            raise _refused(path, f"the quote after {name} isn't closed on its line", _MEND, line)
        entries[name] = Entry(value, line)
    return entries


def values_of(path: Path) -> dict[str, str]:
    """What the ``.env`` file of another program sets, as that program's reader has it; nothing if
    there is no file."""
    from dotenv import dotenv_values

    return {name: value for name, value in dotenv_values(path).items() if value is not None}


def _content(path: Path) -> bytes | None:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise _refused(path, "it is a link to nowhere", "Mend or remove it.") from None
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not S_ISREG(status.st_mode):
        if os.path.exists(os.devnull) and os.path.samefile(path, os.devnull):
            return None
        raise _refused(path, "it is no file", "Move away what is there, or make it a file.")
    if _others_may_write(status):
        command = f"chmod 600 {shlex.quote(str(path))}"
        what = "other users may write to it, and so could send your prompts elsewhere"
        raise _refused(path, what, f"See that its lines are yours, then run `{command}`.")
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(content) > _MOST_BYTES:
        raise _refused(path, "it has more than 1 MiB", "It is some other file; move it away.")
    return content


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & S_IWOTH:
        return True
    return bool(status.st_mode & S_IWGRP) and not _is_owners_own_group(status)


def _is_owners_own_group(status: os.stat_result) -> bool:
    """Whether nobody but its owner is in the file's group. Many systems give each user a group of
    the same name, and let that group write to all that the user makes."""
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
        group = grp.getgrgid(status.st_gid)
    except KeyError:
        return False
    return group.gr_name == owner and set(group.gr_mem) <= {owner}


def _assignments(path: Path, text: str) -> Iterator[tuple[str, str, str, int]]:
    """Each name with its value, its value as it is written, and its line."""
    for binding in parse_stream(StringIO(text)):
        # A statement begins after the blank lines before it.
        written = binding.original.string
        blank = len(written) - len(written.lstrip())
        line = binding.original.line + written.count("\n", 0, blank)
        match = _ASSIGNED.match(written)
        name = match["name"].strip("'") if match else ""
        if binding.error:
            quoted = match is not None and match["value"].lstrip()[:1] in ("'", '"')
            if quoted and _NAME.fullmatch(name):
                what = f"the quote after {name} isn't closed, or something stands behind it"
                raise _refused(path, what, _MEND, line)
            raise _refused(path, "it isn't NAME=value", _MEND, line)
        if binding.key is None:
            continue
        if binding.value is None or match is None:
            raise _refused(path, "it has no = after a name", _MEND, line)
        if not _NAME.fullmatch(binding.key):
            raise _refused(path, "what stands before its = is no name", _MEND, line)
        source = match["value"]
        # As newer releases of python-dotenv have it: a comment, and no value.
        value = "" if re.match(r"[^\S\n]+#", source) else binding.value
        yield binding.key, value, source.strip(), line


def _require_plain(
    path: Path, name: str, value: str, source: str, line: int, *, is_secret: bool
) -> None:
    if "\n" in value:
        raise _refused(path, f"the quote after {name} isn't closed on its line", _MEND, line)
    if source.startswith("'") or (reference := _EXPANDED.search(value)) is None:
        return
    if is_secret and reference[0] != "${":
        return
    raise _refused(
        path,
        f"{name} refers to another variable with $, and nothing is expanded here",
        "Write the value out; or put it in single quotes, if the $ belongs to it.",
        line,
    )


def _names_within(value: str) -> Iterator[str]:
    for line in value.split("\n")[1:]:
        if (match := _ASSIGNED.match(line)) is not None:
            yield match["name"]


def _unreadable(path: Path, error: OSError | ValueError) -> PromptyoselfError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return _refused(path, f"it can't be read ({reason})", "Check its owner and mode; or remove it.")


def _refused(path: Path, what: str, hint: str, line: int | None = None) -> PromptyoselfError:
    where = f"The file of settings {str(path)!r}" + (f", line {line}" if line else "")
    more = {} if line is None else {"line": line}
    return PromptyoselfError(
        "invalid_setting", f"{where}: {what}.", hint, setting=".env", file=str(path), **more
    )
