"""How long a call may go on that somebody else has made: until a time is over, or until nobody
waits for it any more. What takes long asks, again and again, in the thread that does it.

A person at a shell has all the time there is, and Ctrl-C.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from promptyoself.core.errors import PromptyoselfError


class _Limit(threading.local):
    end: float | None = None
    seconds = 0.0

    @staticmethod
    def stopped() -> bool:
        return False


_limit = _Limit()


@contextmanager
def limited(seconds: float, stopped: Callable[[], bool]) -> Iterator[None]:
    """Let what this thread does in the context end after ``seconds``, or once it is ``stopped``."""
    before = _limit.end, _limit.seconds, _limit.stopped
    _limit.end, _limit.seconds = time.monotonic() + seconds, seconds
    _limit.stopped = stopped  # type: ignore[method-assign]
    try:
        yield
    finally:
        _limit.end, _limit.seconds, _limit.stopped = before  # type: ignore[method-assign]


def check() -> None:
    """Go on, or not. Only where nothing has been written that would be left half done.

    Raises:
        PromptyoselfError: ``took_too_long``, ``cancelled``.
    """
    if _limit.end is None:
        return
    if _limit.stopped():
        raise PromptyoselfError("cancelled", "The call was cancelled before it was done.")
    if time.monotonic() > _limit.end:
        raise PromptyoselfError(
            "took_too_long",
            f"The call took longer than {_limit.seconds:g} s, and was ended; nothing was changed.",
            "Ask for less: a shorter time, or a single schedule. At a shell there is no limit.",
        )
