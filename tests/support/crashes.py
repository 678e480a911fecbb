"""Work in a child process that is killed, and a disk that waits for nothing."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable

from promptyoself.core.disk import Disk

FORK = multiprocessing.get_context("fork")

Report = Callable[[str], None]


class Unsynced(Disk):
    """For tests in which no power is lost: as the real one, without the waiting."""

    def fsync(self, descriptor: int) -> None:
        pass


def in_child(run: Callable[[Report], None]) -> tuple[list[str], int]:
    """Run it in a process of its own; what it acknowledged, and the signal that ended it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        code = 70
        try:
            run(lambda text: os.write(writer, f"{text}\n".encode()) and None)
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        acknowledged = pipe.read().split("\n")[:-1]
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return acknowledged, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
