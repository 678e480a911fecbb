"""OS locks on files, which the kernel drops when their process dies: no lock is ever stale."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from pathlib import Path
from threading import TIMEOUT_MAX, RLock
from weakref import WeakSet

import orjson

from promptyoself.durable import read_ours
from promptyoself.errors import PromptyoselfError

__all__ = ["ExclusiveLock", "Liveness"]

_POLL_SECONDS = 0.001  # whoever appends without a pause leaves it free for no longer than that
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
_NOTE_BYTES = 512
_MARK_BYTES = 32
_NOTE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class ExclusiveLock:
    """A lock among all processes and threads; re-entrant within a thread.

    It is ``flock`` itself, since an append should cost little more than its ``fsync``, and a
    library for locks costs as much again. Its file stays open, but each time one looks whether it
    is still the one of that name: whoever removes the file, or puts another folder in its place,
    must not leave two processes with a lock each.
    """

    def __init__(
        self, path: Path, timeout: float, prepare: Callable[[], None], state: str = "locked"
    ) -> None:
        """``timeout`` is how many seconds to wait before giving up; ``prepare`` makes the folder
        where there is none; ``state`` says what the log is meanwhile."""
        self._path = path
        self._name = str(path)
        self._timeout = timeout
        self._prepare = prepare
        self._state = state
        self._thread = RLock()
        self._depth = 0
        self._descriptor = -1
        self._file = (0, 0)  # which one is open there
        self._mark = b""
        _locks.add(self)

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def held(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Hold the lock; ``timeout`` as given to the constructor unless stated.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the process that holds it.
            OSError: the lock's file can't be made.
        """
        return self if timeout is None else _Held(self, timeout)

    def acquire(self, limit: float | None = None) -> None:
        """Take it, or take it once more, within ``limit`` seconds, or those that the constructor
        was given. Raises as :meth:`held`."""
        if limit is None:
            limit = self._timeout
        thread = self._thread
        deadline = None
        if not thread.acquire(blocking=False):
            deadline = time.monotonic() + limit
            if not thread.acquire(timeout=min(max(limit, 0), TIMEOUT_MAX)):
                raise self._timed_out(limit)
        if self._depth:
            self._depth += 1
            return
        try:
            if not self._try():
                self._wait(limit, deadline)
            if not self._mark or os.pread(self._descriptor, _MARK_BYTES, 0) != self._mark:
                self._sign()
            self._depth = 1
        except BaseException:
            self._depth = 0
            if self._descriptor >= 0:
                flock(self._descriptor, LOCK_UN)
            thread.release()
            raise

    def release(self, *_: object) -> None:
        """Give it back, as often as it was taken."""
        if not self._depth:
            return  # a child process, in which nothing is held that its parent holds
        self._depth -= 1
        if not self._depth:
            flock(self._descriptor, LOCK_UN)
        self._thread.release()

    __enter__, __exit__ = acquire, release

    def forget(self) -> None:
        """In a child process: what the parent holds is not ours, nor may we keep it from anyone
        when he lets go."""
        self._close()
        self._thread, self._depth, self._mark = RLock(), 0, b""

    def _wait(self, limit: float, deadline: float | None) -> None:
        if deadline is None:
            deadline = time.monotonic() + limit
        while True:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._timed_out(limit)
            time.sleep(min(_POLL_SECONDS, left))
            if self._try():
                return

    def _try(self) -> bool:
        """Lock the file that has the name now, if nobody else has."""
        while True:
            if self._descriptor < 0:
                self._open()
            locked = True
            try:
                flock(self._descriptor, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                locked = False
            try:
                found = os.stat(self._name)
                if (found.st_dev, found.st_ino) == self._file:
                    return locked
            except FileNotFoundError:
                pass
            self._close()

    def _open(self) -> None:
        try:
            descriptor = os.open(self._name, _FLAGS, 0o600)
        except FileNotFoundError:
            self._prepare()
            descriptor = os.open(self._name, _FLAGS, 0o600)
        found = os.fstat(descriptor)
        self._descriptor, self._file = descriptor, (found.st_dev, found.st_ino)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _sign(self) -> None:
        """Leave word of who holds it, for the error of whoever waits in vain. It needn't be done
        again as long as our mark in the lock's own file says that nobody else has held it since."""
        command = " ".join([os.path.basename(sys.argv[0]), *sys.argv[1:2]])[:100]
        note = {"pid": os.getpid(), "command": command.encode("ascii", "backslashreplace").decode()}
        mark = os.urandom(_MARK_BYTES // 2).hex().encode()
        with suppress(OSError):
            descriptor = os.open(self._name + ".holder", _NOTE_FLAGS, 0o600)
            try:
                # Of one length and in place: cutting the file first would cost more than an append.
                os.pwrite(descriptor, orjson.dumps(note).ljust(_NOTE_BYTES), 0)
            finally:
                os.close(descriptor)
            os.pwrite(self._descriptor, mark, 0)
            self._mark = mark

    def _timed_out(self, limit: float) -> PromptyoselfError:
        try:
            note = orjson.loads(read_ours(self._path.with_name(self._path.name + ".holder")))
            holder = f"process {note['pid']} ({note['command'].strip()})"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            note, holder = {}, "another process"
        return PromptyoselfError(
            "lock_timeout",
            f"The log is {self._state} by {holder}, for longer than {limit:g} seconds.",
            "Nothing was changed. Try again; if that process hangs, end it: its lock goes with it.",
            holder=note,
        )


class _Held:
    """One hold, as a context."""

    __slots__ = ("_limit", "_lock")

    def __init__(self, lock: ExclusiveLock, limit: float) -> None:
        self._lock = lock
        self._limit = limit

    def __enter__(self) -> None:
        self._lock.acquire(self._limit)

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: WeakSet[ExclusiveLock] = WeakSet()


def _forget_all() -> None:
    for lock in list(_locks):
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)


class Liveness:
    """Tells which workers live: each holds a lock of its own for as long as its process lives.

    A process may live and yet be stopped or blocked. So a worker may also give signs of life: the
    time of an empty file of its own, which is of no other use.
    """

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
                self._remove(worker)

    def is_alive(self, worker: str) -> bool:
        """Whether the process of that worker lives (on this machine, or another that shares its
        kernel's locks)."""
        from filelock import FileLock

        path = self._path(worker)
        if not path.exists():
            return False
        try:
            with FileLock(path, timeout=0, mode=0o600):
                self._remove(worker)
                return False
        except TimeoutError:
            return True

    def anyone(self) -> bool:
        """Whether any worker lives. What can't be told counts as alive. Without the library, which
        takes long to load; and a worker that starts at this very moment waits for that long."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return False
        return any(name.endswith(".lock") and _is_held(self._folder / name) for name in names)

    def living(self) -> list[str]:
        """Every worker that lives, by name."""
        names = sorted(path.stem for path in self._folder.glob("*.lock"))
        return [name for name in names if self.is_alive(name)]

    def beat(self, worker: str, at: float) -> None:
        """Give a sign of life, at that time of Unix. Never fails."""
        path = self._sign(worker)
        with suppress(OSError, OverflowError):
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.utime(path, (at, at), follow_symlinks=False)

    def silence(self, worker: str, at: float) -> float | None:
        """For how many seconds that worker has given no sign of life; ``None`` where it never
        does. A sign out of the future counts by its distance: the clock was set since."""
        try:
            return abs(at - os.lstat(self._sign(worker)).st_mtime)
        except OSError:
            return None

    def _path(self, worker: str) -> Path:
        return self._folder / f"{worker}.lock"

    def _sign(self, worker: str) -> Path:
        return self._folder / f"{worker}.alive"

    def _remove(self, worker: str) -> None:
        for path in (self._path(worker), self._sign(worker)):
            with suppress(OSError):
                path.unlink()


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        flock(descriptor, LOCK_SH | LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
