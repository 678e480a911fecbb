"""A clock that notices when it is set, by comparing it with one that nobody can set.

Pure: both clocks are arguments.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from threading import Lock

LEAP = timedelta(hours=1)
"""By more than this no clock is put right without anybody's doing."""


class TrustedClock:
    """The time, as ``wall`` shows it, unless that has leapt. Any thread may ask.

    Small corrections are followed. After a leap the time goes on from where it was, by the clock
    that nobody can set, until ``wall`` is back within :data:`LEAP` of it.
    """

    def __init__(self, wall: Callable[[], datetime], elapsed: Callable[[], float]) -> None:
        """``elapsed`` counts seconds from some time on, those too in which the machine slept."""
        self._wall, self._elapsed = wall, elapsed
        self._lock = Lock()
        self._since = wall(), elapsed()
        self._leap = timedelta(0)

    @property
    def leap(self) -> timedelta:
        """By how much the clock has leapt: above zero, forward. Zero if it has not, or is back."""
        self()
        return self._leap

    def __call__(self) -> datetime:
        """The time that is trusted."""
        with self._lock:
            now, elapsed = self._wall(), self._elapsed()
            before, then = self._since
            try:
                expected = before + timedelta(seconds=elapsed - then)
            except OverflowError:  # the calendar's end
                expected = now
            if abs(now - expected) > LEAP:
                self._leap = now - expected
                return expected
            self._since, self._leap = (now, elapsed), timedelta(0)
            return now
