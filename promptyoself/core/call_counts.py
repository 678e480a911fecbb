"""What no log tells, counted all the same: calls of commands, and how often an index was made anew.

A command lives for a moment, so counts that are to be seen by others lie in a file of the data
directory: a line for each, of one length, changed in place. That costs a few system calls and no
sync, so a loss of power may undo the last ones; and whoever can't count at once goes on without.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from promptyoself.core.errors import PromptyoselfError

__all__ = ["CALLS", "REBUILDS", "counted", "increment", "read_counts"]

REBUILDS = "index-rebuild"
CALLS = "call"

_FILE = "counts"
_LINE = 80
_DIGITS = 20
_NAME = _LINE - _DIGITS - 2
_MOST_LINES = 1000
_TRIES = 100
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


@contextmanager
def counted(var: Path, command: str, door: str) -> Iterator[None]:
    """Count a call of a command through a door (``cli``, ``sanctum``, ``mcp``) by how it ends: in
    ``success``; ``refused``, with an error of ours; or ``failed``, by the system or a bug."""
    result = "failed"
    try:
        yield
        result = "success"
    except PromptyoselfError:
        result = "refused"
        raise
    finally:
        increment(var, CALLS, command, door, result)


def increment(var: Path, *names: str) -> None:
    """Add one to the count of that name in a data directory, if there is one that can be written.
    Never fails, and never waits for more than a moment."""
    name = " ".join(names)[:_NAME].encode("ascii", "replace").ljust(_NAME)
    with suppress(OSError):
        descriptor = os.open(var / _FILE, _FLAGS, 0o600)
        try:
            if _locked(descriptor):
                _increment(descriptor, name)
        finally:
            os.close(descriptor)


def read_counts(var: Path) -> dict[tuple[str, ...], int]:
    """Every count of a data directory, by the words of its name. What can't be read counts as
    nothing, for nothing depends on it."""
    try:
        descriptor = os.open(
            var / _FILE, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        )
    except OSError:
        return {}
    try:
        content = os.read(descriptor, _LINE * _MOST_LINES)
    except OSError:
        return {}
    finally:
        os.close(descriptor)
    found = {}
    for at in range(0, len(content) - _LINE + 1, _LINE):
        *names, number = content[at : at + _LINE].decode("ascii", "replace").split() or [""]
        if names and number.isascii() and number.isdigit() and len(number) <= _DIGITS:
            found[tuple(names)] = int(number)
    return found


def _increment(descriptor: int, name: bytes) -> None:
    content = os.pread(descriptor, _LINE * _MOST_LINES, 0)
    content = content[: len(content) // _LINE * _LINE]  # a disk that was full has cut the last
    at = content.find(name)
    while at % _LINE and at >= 0:  # within another line, which only damage explains
        at = content.find(name, at + 1)
    number = 0
    if at < 0:
        at = len(content)
        if at >= _LINE * _MOST_LINES:
            return
    else:
        digits = content[at + _NAME : at + _LINE].strip()
        number = int(digits) if digits.isdigit() and len(digits) < _DIGITS else 0
    os.pwrite(descriptor, name + b" %*d\n" % (_DIGITS, number + 1), at)


def _locked(descriptor: int) -> bool:
    import time

    for _ in range(_TRIES):
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            time.sleep(0.0005)
        else:
            return True
    return False
