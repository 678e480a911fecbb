"""Work in threads and in a child process that is killed, and a disk that waits for nothing."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

from promptyoself.core.disk import Disk

FORK = multiprocessing.get_context("fork")

Report = Callable[[str], None]


def in_threads(*works: Callable[[], object]) -> list[Any]:
    """Do each in a thread of its own, at once; what they return. Raises what one of them raises."""
    with ThreadPoolExecutor(len(works)) as pool:
        return [begun.result() for begun in [pool.submit(work) for work in works]]


class Unsynced(Disk):
    """For tests in which no power is lost: as the real one, without the waiting."""

    def fsync(self, descriptor: int) -> None:
        pass


def ways(steps: list[str]) -> Iterator[tuple[int, str]]:
    """Before, after and in the middle of every step of a disk's log."""
    for at, name in enumerate(steps, 1):
        for when in ("before", "after", *(["half"] if name == "write" else [])):
            yield at, when


@contextmanager
def locked_elsewhere(lock: Callable[[], AbstractContextManager[None]]) -> Iterator[BaseProcess]:
    """Another process holds that lock meanwhile, if it isn't killed."""
    ours, theirs = FORK.Pipe()

    def hold() -> None:
        with lock():
            theirs.send("held")
            theirs.recv()

    child = FORK.Process(target=hold)
    child.start()
    assert ours.recv() == "held"
    try:
        yield child
    finally:
        ours.send("go")
        child.join()


def in_child(
    run: Callable[[Report], object], kill_after: float | None = None
) -> tuple[list[str], int]:
    """Run it in a process of its own, which is killed after ``kill_after`` seconds; what it
    acknowledged, and the signal that ended it."""
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
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    with os.fdopen(reader) as pipe:
        acknowledged = pipe.read().split("\n")[:-1]
    _, status = os.waitpid(pid, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the child failed"
    return acknowledged, os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
