"""A role that one process of many has at a time, such as sending notices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


class SoleRole:
    """The lock of a role. A process that dies gives it back, however it dies."""

    def __init__(self, path: Path) -> None:
        """``path`` is of the lock's file, which is of no other use."""
        self._path = path
        self._lock: BaseFileLock | None = None

    def take(self) -> bool:
        """Have the role from now on, unless another process has it. Returns whether we have it.

        Raises:
            OSError: the lock's file can't be made.
        """
        if self._lock is not None:
            return True
        from filelock import FileLock

        lock = FileLock(self._path, timeout=0, mode=0o600)
        try:
            lock.acquire()
        except TimeoutError:
            return False
        self._lock = lock
        return True

    def give_back(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None
