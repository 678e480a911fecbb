"""A role that one process of many has at a time, such as sending notices."""

from pathlib import Path


class SoleRole:
    """The lock of a role. A process that dies gives it back, however it dies."""

    def __init__(self, path: Path) -> None:
        """``path`` is of the lock's file, which is of no other use."""
        from filelock import FileLock

        self._lock = FileLock(path, timeout=0, mode=0o600)

    def take(self) -> bool:
        """Have the role from now on, unless another process has it. Returns whether we have it.

        Raises:
            OSError: the lock's file can't be made.
        """
        if self._lock.is_locked:
            return True
        try:
            self._lock.acquire()
        except TimeoutError:
            return False
        return True

    def give_back(self) -> None:
        """Let another process have it."""
        self._lock.release()
