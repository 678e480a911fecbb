"""The activity log and its file: sentences or JSON lines on stderr, or JSON lines in a file.

The history is in the ledger and not here. A prompt appears here only if the settings allow it. A
secret never does: those that a :class:`Log` was given are masked in every text.
"""

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

LEVELS = ("debug", "info", "warning", "error")
"""From ``debug``, which helps to find a fault, to ``error``, which needs somebody at once."""

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
    redacted, kept, start = "", 0, 0
    while start + window <= len(text):
        if text[start : start + window] not in prompt:
            start += 1
            continue
        end = start + window
        while end < len(text) and text[end - window + 1 : end + 1] in prompt:
            end += 1
        redacted += text[kept:start] + "…"
        kept = start = end
    return redacted + text[kept:]


def excerpt(text: str, prompt: str) -> str:
    """A text of another program, as it may be kept and shown: on one line of 200 characters at
    most. Secrets are masked. So is the prompt, in plain text and as JSON or Python encode it."""
    text = redact_secrets(text)
    as_json = orjson.dumps(prompt.encode("utf-8", "replace").decode())[1:-1].decode()
    for encoded in dict.fromkeys((as_json, repr(prompt)[1:-1], ascii(prompt)[1:-1], prompt)):
        text = redact_prompt(text, encoded)
    visible_text = "".join(c if c.isprintable() else " " for c in text)
    line = " ".join(visible_text.split())
    if len(line) <= _LONGEST_EXCERPT:
        return line
    return line[: _LONGEST_EXCERPT - 1] + "…"


class Seldom:
    """Passes warnings on, at most one of each kind in a minute. A fault that lasts is repeated."""

    def __init__(
        self, warn: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``clock`` gives seconds."""
        self._warn = warn
        self._clock = clock
        self._warned: dict[str, float] = {}  # when each kind was last passed on

    def warn(self, kind: str, message: str) -> None:
        """Pass the message on, unless one of that kind came less than a minute ago."""
        now = self._clock()
        last = self._warned.get(kind)
        if last is not None and now - last < _SELDOM:
            return
        if len(self._warned) >= _MOST_KINDS:
            self._warned = {old: last for old, last in self._warned.items() if now - last < _SELDOM}
        self._warned[kind] = now
        self._warn(message)


class Log:
    """The activity log of a process. A file is opened on first use, with mode 0600."""

    def __init__(
        self,
        path: Path | None,
        *,
        form: str = "text",
        level: str = "info",
        secrets: Collection[str] = (),
        disk: Disk | None = None,
    ) -> None:
        """``path`` of ``None`` means stderr. There, ``form`` is ``text``, which is warnings only,
        or ``json``. A file always has JSON. JSON lines below ``level`` are left out."""
        register_secrets(*secrets)
        self._least = LEVELS.index(level)
        self._context: dict[str, Any] = {}
        self._timed = False
        self._seldom = Seldom(self._tell_people)
        self._path = path
        self._write: Callable[[bytes], None] | None = None
        if path is not None:
            self._write = _File(path, disk or Disk()).write
        elif form == "json":
            self._write = _to_stderr

    def bind(self, **fields: Any) -> None:
        """Add these fields to every line from now on."""
        self._context.update(fields)

    def tell_time(self) -> None:
        """Begin what is told to people with the time, from now on: for a process that lasts."""
        self._timed = True

    def _tell_people(self, message: str) -> None:
        _to_people(message, format_utc(datetime.now(UTC))[:19] + "Z " if self._timed else "")

    def warn(self, message: str, **fields: Any) -> None:
        """Report that something is not as it should be."""
        if self._write is None:
            self._tell_people(message)
        else:
            self.record(message, level="warning", **fields)

    def record(self, message: str, *, level: str = "info", **fields: Any) -> None:
        """Record that something was done. Only JSON has it; without JSON this costs nothing."""
        if self._write is None or LEVELS.index(level) < self._least:
            return
        now = format_utc(datetime.now(UTC))
        head = {"ts": now, "level": level, "message": "", "pid": os.getpid()}
        fields = {**head, **_all_masked({**self._context, "message": message, **fields})}
        try:
            self._write(_encoded(fields) + b"\n")
        except OSError as error:
            if level in ("warning", "error"):
                self._tell_people(message)
            self._seldom.warn("no log", f"The log file can't be written: {sentence(error)}")


class _File:
    """A file that any number of processes write to, and rotate when it is full.

    A line is one ``write`` to a file opened for appending. The kernel does that whole, so no lock
    is needed. With a lock, a process that was stopped while it wrote would stop all others.
    Rotating needs the lock of the full file; a process that doesn't get it writes on.
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
                # If it was removed since it was opened, the line went into the removed file.
                if os.fstat(self._descriptor).st_nlink:
                    return

    def _open(self) -> None:
        """Open the file that has the name now, unless it is open already. A full one is rotated."""
        if self._descriptor >= 0:
            ours = os.fstat(self._descriptor)
            if not stat.S_ISREG(ours.st_mode):
                return
            if self._is_ours(ours) and (ours.st_size < _ROTATE_BYTES or not self._rotate()):
                return
            os.close(self._descriptor)
        self._descriptor = -1  # should opening fail
        # It isn't compared with the name again: a file system may tell two inodes of one file.
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
        """Rename the full file; returns whether another one is to be opened."""
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


def _to_people(message: str, time: str) -> None:
    try:
        from promptyoself.core.visible import visible

        text = visible(redact_secrets(message), one_line=True)
    except OSError:  # too many open files: a command must not fail because of a warning
        text = ascii(redact_secrets(message))[1:-1]
    print(f"{time}promptyoself: {text}", file=sys.stderr)


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


def _encoded(record: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(record, default=repr)
    except TypeError:  # a lone surrogate, from the answer of another program
        return orjson.dumps({name: ascii(value) for name, value in record.items()})
