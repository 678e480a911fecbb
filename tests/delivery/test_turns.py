"""Turns at the files' lock: in order, though some are killed, stopped or give up meanwhile."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Any

import pytest
from chains import NOW, append, draft, ledger_in
from checker import check_chain
from crashes import FORK
from loops import wait_for
from remains import open_files, tasks
from sealed_logs import side_by_side

from promptyoself.core.errors import PromptyoselfError
from promptyoself.ledger import START, FileLedger


def _append_until(folder: Path, last: int, start: Any, pipe: Any) -> None:
    ledger, turns, position = ledger_in(folder), 0, START
    start.wait()
    while position.seq < last:
        with ledger.exclusive():
            position = ledger.append([draft(turns)], NOW, ledger.head(position)).position
        turns += 1
    pipe.send(turns)


def test_ten_processes_that_never_pause(tmp_path: Path) -> None:
    """P5: each of ten has at least half of the turns of the one that has most; none is refused."""
    folder, start = tmp_path / "s", FORK.Barrier(10)
    turns = side_by_side([(_append_until, (folder, 800, start))] * 10)
    assert min(turns) >= max(turns) / 2, turns
    assert len(check_chain(folder)) == sum(turns) + 1


def test_threads_that_never_pause(tmp_path: Path) -> None:
    """P5: so it is among eight threads that share a ledger."""
    ledger, start = ledger_in(tmp_path / "s"), threading.Barrier(8)
    head = append(ledger, 1)

    def work() -> int:
        nonlocal head
        done = 0
        start.wait()
        while head.seq < 800:
            with ledger.exclusive():
                head = ledger.append([draft(done)], NOW, head).position
            done += 1
        return done

    with ThreadPoolExecutor(8) as threads:
        turns = [thread.result() for thread in [threads.submit(work) for _ in range(8)]]
    assert min(turns) >= max(turns) / 2, turns


def _someone_is_next(folder: Path) -> bool:
    descriptor = os.open(folder / "lock.queue", os.O_RDWR)
    try:
        flock(descriptor, LOCK_EX | LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _stands_in_line(pid: int) -> bool:
    """Whether that process has a thread which waits until it is next."""
    return len(os.listdir(f"/proc/{pid}/task")) > 1


@contextmanager
def _waiting(folder: Path, number: int, ready: Callable[[int], bool]) -> Iterator[Any]:
    """A process that waits for the lock, to append."""
    child = FORK.Process(target=lambda: append(ledger_in(folder, lock_timeout=60), number))
    child.start()
    try:
        wait_for(lambda: ready(child.pid or 0))
        yield child
    finally:
        child.kill()
        child.join()


@pytest.fixture
def ledger(tmp_path: Path) -> FileLedger:
    """One with an event in it."""
    ledger = ledger_in(tmp_path)
    append(ledger, 1)
    return ledger


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_the_next_one_is_killed_or_stopped(tmp_path: Path, ledger: FileLedger, how: int) -> None:
    """P5: a process that is killed, or stopped, while it is next keeps nobody from the lock."""
    with (
        ExitStack() as held,
        _waiting_after(held, ledger, tmp_path) as child,
        _waiting(tmp_path, 3, _stands_in_line) as other,
    ):
        os.kill(child.pid, how)
        with pytest.raises(PromptyoselfError, match=f"by process {os.getpid()} ") as caught:
            append(ledger_in(tmp_path, lock_timeout=0.05), 4)
        assert caught.value.code == "lock_timeout"
        held.close()
        other.join(60)
        assert other.exitcode == 0
        append(ledger, 5)
        assert how == signal.SIGKILL or _someone_is_next(tmp_path)
    wait_for(lambda: not _someone_is_next(tmp_path))
    assert len(check_chain(tmp_path)) == 4


def _waiting_after(held: ExitStack, ledger: FileLedger, folder: Path) -> Any:
    held.enter_context(ledger.exclusive())
    return _waiting(folder, 2, lambda _: _someone_is_next(folder))


def test_a_process_that_gives_up_leaves_the_line(tmp_path: Path, ledger: FileLedger) -> None:
    """P5: a process that waits in vain time and again has one place in the line, which it gives
    up when it is reached, and uses if it wants the lock again."""
    waiter = ledger_in(tmp_path, lock_timeout=0.02)
    before = tasks()
    with ExitStack() as held, _waiting_after(held, ledger, tmp_path) as child:
        for _ in range(3):
            with pytest.raises(PromptyoselfError, match="is locked"):
                append(waiter, 3)
            (place,) = tasks() - before
            files = open_files()
        with pytest.raises(PromptyoselfError), waiter.exclusive(timeout=0):
            pass
        assert tasks() - before == {place}
        assert open_files() <= files
        held.close()
        child.join(60)
        assert child.exitcode == 0
    wait_for(lambda: not tasks() - before and not _someone_is_next(tmp_path))
    for number in range(4, 7):
        append(waiter, number)
    assert len(check_chain(tmp_path)) == 6


def test_a_child_has_no_place_in_the_line(tmp_path: Path, ledger: FileLedger) -> None:
    """P5: a process forked while its parent stands in line keeps nobody from anything."""
    waiter = ledger_in(tmp_path, lock_timeout=0.02)
    ours, theirs = FORK.Pipe()

    def work() -> None:
        theirs.send("forked")
        theirs.recv()
        append(waiter, 4)

    with ExitStack() as held, _waiting_after(held, ledger, tmp_path) as first:
        with pytest.raises(PromptyoselfError, match="is locked"):
            append(waiter, 3)
        child = FORK.Process(target=work)
        child.start()
        assert ours.recv() == "forked"
        held.close()
        first.join(60)
    wait_for(lambda: not _someone_is_next(tmp_path))
    append(ledger, 5)
    ours.send("go")
    child.join(60)
    assert child.exitcode == 0
    assert len(check_chain(tmp_path)) == 5


def test_files_replaced_while_one_waits(tmp_path: Path, ledger: FileLedger) -> None:
    """P5: who stands in line for files that were removed goes on with those in their place."""
    with (
        ExitStack() as held,
        _waiting_after(held, ledger, tmp_path) as first,
        _waiting(tmp_path, 3, _stands_in_line) as second,
    ):
        for name in ("lock", "lock.queue"):
            (tmp_path / name).unlink()
        for child in (first, second):
            child.join(60)
            assert child.exitcode == 0
    append(ledger, 4)
    assert len(check_chain(tmp_path)) == 5
