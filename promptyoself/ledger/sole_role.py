"""A role that one process of many has at a time, such as sending notices."""

import os
import time
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path

from promptyoself.core.disk import is_ours

BEAT_EVERY = 10.0
"""Seconds between two signs of life of the process that has a role."""

SILENCE = 120.0
"""Seconds without a sign of life after which another process may take a role over."""

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW


class SoleRole:
    """The lock of a role. A process that dies gives it back, however it dies.

    A process that lives and is stopped, or hangs, keeps the lock of the file. So the time of the
    file is a sign of life. Where that is old, another process replaces the file by its own. The
    first one finds out before it uses the role again. What it has begun may be done twice.
    """

    def __init__(self, path: Path) -> None:
        """``path`` is of the lock's file, which is of no other use."""
        self._path = path
        self._descriptor = -1
        self._beat_at = float("-inf")  # when the next sign of life is due, by the monotonic clock

    def take(self, at: float) -> bool:
        """Have the role from now on, which is ``at`` in Unix time, unless another process has it.
        Returns whether we have it.

        Raises:
            OSError: the lock's file can't be made.
        """
        if self._is_ours():
            self.beat(at)
            return True
        self.give_back()  # somebody has taken it over
        if self._lock(at):
            return True
        if not self._is_silent(at):
            return False
        with suppress(FileNotFoundError):
            os.unlink(self._path)
        return self._lock(at)

    def beat(self, at: float) -> None:
        """Give a sign of life, at that time of Unix, if we have the role and it is time for one.
        Never fails."""
        if self._descriptor >= 0 and time.monotonic() >= self._beat_at:
            self._beat_at = time.monotonic() + BEAT_EVERY
            with suppress(OSError, OverflowError):
                os.utime(self._descriptor, (at, at))

    def give_back(self) -> None:
        """Let another process have it."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _is_ours(self) -> bool:
        return self._descriptor >= 0 and self._is_in_place(self._descriptor)

    def _is_in_place(self, descriptor: int) -> bool:
        """Whether the file that is open there has the name still."""
        try:
            return os.path.samestat(os.fstat(descriptor), os.lstat(self._path))
        except OSError:
            return False

    def _is_silent(self, at: float) -> bool:
        """Whether the process that has the role has given no sign of life for long. A sign out of
        the future counts by its distance: the clock was set since."""
        try:
            return abs(at - os.lstat(self._path).st_mtime) > SILENCE
        except OSError:
            return True

    def _lock(self, at: float) -> bool:
        descriptor = os.open(self._path, _FLAGS, 0o600)
        try:
            is_ours(os.fstat(descriptor), self._path)
            flock(descriptor, LOCK_EX | LOCK_NB)
            if self._is_in_place(descriptor):  # else another process was quicker
                self._descriptor = descriptor
        except BlockingIOError:
            pass
        finally:
            if self._descriptor != descriptor:
                os.close(descriptor)
        if self._descriptor < 0:
            return False
        self._beat_at = float("-inf")
        self.beat(at)
        return True
