"""Waiting for something to happen, until a signal says to stop or nobody reads what is printed."""

from __future__ import annotations

import select
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_POLL_MILLISECONDS = 500


@contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """A function that waits half a second, and says whether to go on.

    It says no after SIGINT or SIGTERM, at once if it is waiting then, so that nothing is cut short
    that is being read or printed. A second signal does what it did before. It also says no when
    stdout is a pipe or a terminal that nobody reads any more.
    """
    stopped = waiting = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(number, before[signal.Signals(number)])
        if waiting:
            raise _Stopped

    def wait() -> bool:
        nonlocal waiting
        try:
            waiting = True
            # No event is asked for, so that only a closed pipe or terminal ends the wait early.
            is_closed = not stopped and poll.poll(_POLL_MILLISECONDS)
            waiting = False
        except _Stopped:
            return False
        return not (stopped or is_closed)

    poll = select.poll()
    with suppress(OSError, ValueError):  # what isn't a file can't be closed by others
        poll.register(sys.stdout.fileno(), 0)
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield wait
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stopped(Exception):
    """A signal has come while nothing was being done."""
