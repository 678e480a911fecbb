"""OS locks on files, which the kernel drops when their process dies: no lock is ever stale."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import orjson

from promptyoself.errors import PromptyoselfError

if TYPE_CHECKING:
    from filelock import BaseFileLock

__all__ = ["ExclusiveLock", "Liveness"]

_POLL_SECONDS = 0.005
_NOTE_BYTES = 512
_NOTE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # not to wait for a pipe
_creating = Lock()  # two threads must not make two FileLocks: each knows only its own re-entries


class ExclusiveLock:
    """A lock among all processes and threads; re-entrant within a thread."""

    def __init__(self, path: Path, timeout: float, state: str = "locked") -> None:
        """``timeout`` is how many seconds to wait before giving up; ``state`` says what the log is
        meanwhile."""
        self._path = path
        self._timeout = timeout
        self._state = state
        self._lock: BaseFileLock | None = None

    @contextmanager
    def held(self, timeout: float | None = None) -> Iterator[None]:
        """Hold the lock; ``timeout`` as given to the constructor unless stated.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the process that holds it.
            OSError: the lock's file can't be made.
        """
        limit = self._timeout if timeout is None else timeout
        lock = self._file_lock()
        try:
            lock.acquire(timeout=limit, poll_interval=_POLL_SECONDS)
        except TimeoutError:
            raise self._timed_out(limit) from None
        try:
            if lock.lock_counter == 1:
                self._sign()
            yield
        finally:
            lock.release()

    def _file_lock(self) -> BaseFileLock:
        with _creating:
            if self._lock is None:
                # Imported here: commands that only read need no lock, and it's slow to import.
                from filelock import FileLock

                self._lock = FileLock(self._path, mode=0o600)
            return self._lock

    def _sign(self) -> None:
        """Leave word of who holds it, for the error of whoever waits in vain."""
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:2]])[:100]
        note = {"pid": os.getpid(), "command": command.encode("ascii", "backslashreplace").decode()}
        with suppress(OSError):
            descriptor = os.open(self._holder, _NOTE_FLAGS, 0o600)
            try:
                # Of one length and in place: cutting the file first would cost more than an append.
                os.pwrite(descriptor, orjson.dumps(note).ljust(_NOTE_BYTES), 0)
            finally:
                os.close(descriptor)

    @property
    def _holder(self) -> Path:
        return self._path.with_name(self._path.name + ".holder")

    def _timed_out(self, limit: float) -> PromptyoselfError:
        try:
            note = orjson.loads(self._holder.read_bytes())
            holder = f"process {note['pid']} ({note['command'].strip()})"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            note, holder = {}, "another process"
        return PromptyoselfError(
            "lock_timeout",
            f"The log is {self._state} by {holder}, for longer than {limit:g} seconds.",
            "Nothing was changed. Try again; if that process hangs, end it: its lock goes with it.",
            holder=note,
        )


class Liveness:
    """Tells which workers live: each holds a lock of its own for as long as its process lives."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def alive(self, worker: str) -> Iterator[None]:
        """Be alive under that name, until the context ends or the process dies.

        Raises:
            OSError: the lock's file can't be made.
        """
        from filelock import FileLock

        path = self._path(worker)
        with FileLock(path, mode=0o600):
            try:
                yield
            finally:
                with suppress(OSError):
                    path.unlink()

    def is_alive(self, worker: str) -> bool:
        """Whether the process of that worker lives (on this machine, or another that shares its
        kernel's locks)."""
        from filelock import FileLock

        path = self._path(worker)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0, mode=0o600):
                with suppress(OSError):
                    path.unlink()
                return False
        except TimeoutError:
            return True

    def living(self) -> list[str]:
        """Every worker that lives, by name."""
        names = sorted(path.stem for path in self._folder.glob("*.lock"))
        return [name for name in names if self.is_alive(name)]

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"
