"""One App Server for each store of Letta Code's local agents."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, flock
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError

_NAME = "promptyoself-app-server.lock"
_PATIENCE = 1.0
"""Seconds for those who only look whether it is held."""
_MOST_BYTES = 4096


class Holder(NamedTuple):
    """The App Server that has a store."""

    pid: int
    url: str
    up: int | None = None
    """The process that starts it, and starts it again when it ends."""


class StoreLock:
    """The lock of a store. The App Server inherits it, and holds it for as long as it lives,
    even if the process that has started it was killed."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        """What the App Server has to inherit."""

    def name(self, holder: Holder) -> None:
        """Write down who has the store, for others to read."""
        text = json.dumps(holder._asdict()).encode()
        os.pwrite(self.descriptor, text.ljust(_MOST_BYTES), 0)  # over all that was there


def store_of(environ: Mapping[str, str]) -> Path:
    """The folder in which Letta Code keeps its local agents."""
    home = environ.get("HOME") or os.path.expanduser("~")
    named = environ.get("LETTA_LOCAL_BACKEND_DIR")
    return Path(named or Path(home, ".letta", "lc-local-backend")).absolute()


@contextmanager
def locked(store: Path) -> Iterator[StoreLock]:
    """Have a store, whose folder is made if it isn't there.

    Raises:
        PromptyoselfError: ``letta_code_running``: an App Server has it.
        OSError: the folder or the file can't be made.
    """
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(store / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        if not _lock(descriptor):
            holder = _read(descriptor)
            who = "An App Server" if holder is None else f"The App Server of process {holder.pid}"
            raise PromptyoselfError(
                "letta_code_running",
                f"{who} has the store {str(store)!r}. Two on one store would lose messages.",
                "Use that one, or stop it first. LETTA_LOCAL_BACKEND_DIR names another store.",
                **({} if holder is None else {"pid": holder.pid, "url": holder.url}),
            )
        yield StoreLock(descriptor)
    finally:
        os.close(descriptor)


def holder_of(store: Path) -> Holder | None:
    """The App Server that has a store and was started with its lock, if one has it."""
    try:
        descriptor = os.open(store / _NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    else:
        return None
    finally:
        os.close(descriptor)


def is_alive(pid: int) -> bool:
    """Whether there is a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it is another user's
        pass
    return True


def _lock(descriptor: int) -> bool:
    """Take the lock, unless somebody holds it for longer than it takes to look at it."""
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                return False
            time.sleep(0.05)
        else:
            return True


def _read(descriptor: int) -> Holder | None:
    try:
        told = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
        up = told.get("up")
        return Holder(int(told["pid"]), str(told["url"]), None if up is None else int(up))
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
