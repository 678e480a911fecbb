"""What people should know while it runs: words on stderr, or lines of JSON, there or in a file.

It is no part of the history: the ledger has that. A prompt appears here only where the settings
allow it, and a secret never: whatever text comes along, those that a :class:`Log` was told of are
taken out of it.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime
from errno import ENOSPC
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from threading import Lock
from typing import Any

import orjson

from promptyoself.core.disk import Disk
from promptyoself.core.errors import sentence
from promptyoself.core.instants import format_utc

__all__ = [
    "LEVELS",
    "Log",
    "Seldom",
    "excerpt",
    "redact_prompt",
    "redact_secrets",
    "register_secrets",
]

LEVELS = ("debug", "info", "warning", "error")
"""From what is only of interest to those who look for a fault, to what needs somebody at once."""

_ROTATE_BYTES = 5 * 1024 * 1024
_ROTATED_FILES = 5
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
_WINDOW = 12
_SELDOM = 60.0
_MOST_KINDS = 1000
_LONGEST_PROMPT = 64 * 1024
_LONGEST_EXCERPT = 200

_secrets: set[str] = set()


def register_secrets(*secrets: str) -> None:
    """Keep these secrets out of everything that this process writes from now on."""
    _secrets.update(secret for secret in secrets if secret)


def redact_secrets(text: str) -> str:
    """The text with ``***`` for each registered secret."""
    for secret in sorted(_secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def redact_prompt(text: str, prompt: str) -> str:
    """The text with ``…`` for each part of a prompt of 12 characters or more, or all of a shorter
    prompt. An error of another program may quote the prompt that it was sent."""
    window = min(_WINDOW, len(prompt))
    if window < 4:
        return text
    if len(prompt) > _LONGEST_PROMPT:
        return "…"
    found, kept, at = "", 0, 0
    while at + window <= len(text):
        if text[at : at + window] not in prompt:
            at += 1
            continue
        end = at + window
        while end < len(text) and text[end - window + 1 : end + 1] in prompt:
            end += 1
        found += text[kept:at] + "…"
        kept = at = end
    return found + text[kept:]


def excerpt(text: str, prompt: str) -> str:
    """What others said, as it may be kept and shown: 200 characters at most, on one line, without
    secrets, and without what it has of a prompt, be that spelled as JSON or Python spell it."""
    text = redact_secrets(text)
    for spelled in dict.fromkeys(
        (_quoted(prompt), repr(prompt)[1:-1], ascii(prompt)[1:-1], prompt)
    ):
        text = redact_prompt(text, spelled)
    seen = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(seen.split())
    if len(line) <= _LONGEST_EXCERPT:
        return line
    return line[: _LONGEST_EXCERPT - 1] + "…"


def _quoted(text: str) -> str:
    return orjson.dumps(text.encode("utf-8", "replace").decode())[1:-1].decode()


class Seldom:
    """Passes warnings on, but of each kind at most one in a minute: what lasts is told again and
    again, and what comes twice a second isn't."""

    def __init__(
        self, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` gives seconds."""
        self._warn = warn
        self._clock = clock
        self._told: dict[str, float] = {}

    def warn(self, kind: str, message: str) -> None:
        """Tell it, unless something of that kind was told less than a minute ago."""
        now = self._clock()
        at = self._told.get(kind)
        if at is not None and now - at < _SELDOM:
            return
        if len(self._told) >= _MOST_KINDS:
            self._told = {each: at for each, at in self._told.items() if now - at < _SELDOM}
        self._told[kind] = now
        self._warn(message)


class Log:
    """Where a process tells what it does. A file is opened on first use, with mode 0600."""

    def __init__(
        self,
        path: Path | None,
        *,
        form: str = "text",
        level: str = "info",
        secrets: Collection[str] = (),
        disk: Disk | None = None,
    ) -> None:
        """``path`` of ``None`` means stderr. ``form`` is how it is told there: as ``text``, which
        is warnings only, or as ``json``; a file always has JSON. Of that, lines below ``level``
        are left out. None of the ``secrets`` will ever be in it."""
        register_secrets(*secrets)
        self._least = LEVELS.index(level)
        self._context: dict[str, Any] = {}
        self._seldom = Seldom(_to_people)
        self._path = path
        self._write: Callable[[bytes], None] | None = None
        if path is not None:
            self._write = _File(path, disk or Disk()).write
        elif form == "json":
            self._write = _to_stderr

    def bind(self, **fields: Any) -> None:
        """Have these in every line from now on."""
        self._context.update(fields)

    def warn(self, message: str, **fields: Any) -> None:
        """Something is not as it should be."""
        if self._write is None:
            _to_people(message)
        else:
            self.note(message, level="warning", **fields)

    def note(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Something was done. It goes into JSON only, and costs nothing where there is none."""
        if self._write is None or LEVELS.index(level) < self._least:
            return
        at = format_utc(datetime.now(UTC))
        head = {"ts": at, "level": level, "message": "", "pid": os.getpid()}
        record = {**head, **_all_masked({**self._context, "message": message, **fields})}
        try:
            self._write(_spelled(record) + b"\n")
        except OSError as error:
            if level in ("warning", "error"):
                _to_people(message)
            self._seldom.warn("no log", f"The log file can't be written: {sentence(error)}")


class _File:
    """A file that any number of processes write to, and rotate when it is full.

    A line is one ``write`` to a file opened for appending, which the kernel does whole, so nothing
    is torn and no lock is waited for: a process that was stopped in the middle of it would stop
    all others. Rotating takes the lock of the very file that is full; who doesn't get it writes on.
    """

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk
        self._descriptor = -1
        self._mutex = Lock()

    def write(self, line: bytes) -> None:
        """Raises :class:`OSError`."""
        with self._mutex:
            while True:
                self._open()
                if self._disk.write(self._descriptor, line) < len(line):
                    raise OSError(ENOSPC, os.strerror(ENOSPC))
                # Held up since it was opened, we may have written into one that was removed.
                if os.fstat(self._descriptor).st_nlink:
                    return

    def _open(self) -> None:
        """Have the file open that has the name now, and that isn't full."""
        if self._descriptor >= 0:
            ours = os.fstat(self._descriptor)
            if not stat.S_ISREG(ours.st_mode):
                return
            if self._is_ours(ours) and (ours.st_size < _ROTATE_BYTES or not self._rotate()):
                return
            os.close(self._descriptor)
        self._descriptor = -1  # should opening fail
        self._descriptor = self._disk.open(self._path, _FLAGS)
        ours = os.fstat(self._descriptor)
        if stat.S_ISREG(ours.st_mode) and ours.st_size >= _ROTATE_BYTES:
            self._open()

    def _is_ours(self, ours: os.stat_result) -> bool:
        try:
            return os.path.samestat(ours, self._path.stat())
        except FileNotFoundError:
            return False

    def _rotate(self) -> bool:
        """Move it aside; whether there is another one to be opened."""
        try:
            flock(self._descriptor, LOCK_EX | LOCK_NB)
        except OSError:
            return False
        if not self._is_ours(os.fstat(self._descriptor)):
            return True
        names = [self._path] + [
            self._path.with_name(f"{self._path.name}.{number}")
            for number in range(1, _ROTATED_FILES + 1)
        ]
        try:
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                if newer.exists():
                    self._disk.rename(newer, older)
        except OSError:  # a folder that isn't ours to write: the file grows
            return False
        return True


def _to_people(message: str) -> None:
    try:
        from promptyoself.core.visible import visible

        text = visible(redact_secrets(message), one_line=True)
    except OSError:  # no more files may be opened: what was done must not fail for a word about it
        text = ascii(redact_secrets(message))[1:-1]
    print(f"promptyoself: {text}", file=sys.stderr)


def _to_stderr(line: bytes) -> None:
    sys.stderr.write(line.decode())
    sys.stderr.flush()


def _all_masked(value: Any) -> Any:
    if isinstance(value, str):
        return redact_secrets(value)
    if isinstance(value, dict):
        return {key: _all_masked(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_all_masked(item) for item in value]
    return value


def _spelled(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, default=repr)
    except TypeError:  # a lone surrogate, out of somebody's answer
        return orjson.dumps({name: ascii(value) for name, value in record.items()})
