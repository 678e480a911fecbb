"""Which workers live."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fcntl import LOCK_NB, LOCK_SH, flock
from pathlib import Path


class WorkerLocks:
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
