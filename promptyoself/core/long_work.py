"""Work that takes long. In the thread that does it, it asks again and again whether it may go on,
and tells how far it has come.

A call that a program makes may go on until a time is over, or until nobody waits for it any more. A
person at a shell has all the time there is, and Ctrl-C, and sees how far it is.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError


class _Limit(NamedTuple):
    end: float  # by the clock that nobody can set
    seconds: float
    stopped: Callable[[], bool]


Listener = Callable[[str, int | None], None]
"""It is told what is counted, and how many are done; ``None`` where that work has ended."""


class _Thread(threading.local):
    limit: _Limit | None = None
    listener: Listener | None = None


_thread = _Thread()


@contextmanager
def limited(seconds: float, stopped: Callable[[], bool]) -> Iterator[None]:
    """Let what this thread does in the context end after ``seconds``, or once it is ``stopped``."""
    before = _thread.limit
    _thread.limit = _Limit(time.monotonic() + seconds, seconds, stopped)
    try:
        yield
    finally:
        _thread.limit = before


def check() -> None:
    """Go on, or not. Only where nothing has been written that would be left half done.

    Raises:
        PromptyoselfError: ``took_too_long``, ``cancelled``.
    """
    limit = _thread.limit
    if limit is None:
        return
    if limit.stopped():
        raise PromptyoselfError("cancelled", "The call was cancelled before it was done.")
    if time.monotonic() > limit.end:
        raise PromptyoselfError(
            "took_too_long",
            f"The call took longer than {limit.seconds:g} s, and was ended; nothing was changed.",
            "Ask for less: a shorter time, or a single schedule. At a shell there is no limit.",
        )


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Tell that listener how far this thread's work in the context comes."""
    before = _thread.listener
    _thread.listener = listener
    try:
        yield
    finally:
        _thread.listener = before


def tell(what: str, done: int | None) -> None:
    """Tell how many of ``what``, in the plural, are done; ``None``: the work has ended. It costs
    next to nothing where nobody listens."""
    if _thread.listener is not None:
        _thread.listener(what, done)
