"""When each waiting delivery goes on."""

from __future__ import annotations

import heapq
from itertools import count
from math import ceil, floor, log2


class Timers:
    """A timer for each delivery that waits. Instants are seconds of a monotonic clock."""

    def __init__(self) -> None:
        self._queue: list[tuple[float, int, str]] = []
        self._number_of: dict[str, int] = {}  # of the timer that counts for a delivery
        self._numbers = count()

    def start(self, key: str, seconds: float, now: float) -> None:
        """Let a delivery go on after ``seconds``, or up to a quarter more.

        Timers meet on a grid, so that one snapshot of the runs serves several deliveries.
        """
        grid = 2.0 ** floor(log2(seconds / 4)) if seconds > 0 else 1.0
        number = self._number_of[key] = next(self._numbers)
        due = ceil((now + seconds) / grid) * grid
        heapq.heappush(self._queue, (due, number, key))

    def cancel(self, key: str) -> None:
        """The delivery goes on by something else."""
        self._number_of.pop(key, None)

    def due(self, now: float) -> list[str]:
        """The deliveries that are to go on now. Their timers are over."""
        keys = []
        while self._queue and self._queue[0][0] <= now:
            _, number, key = heapq.heappop(self._queue)
            if self._number_of.get(key) == number:
                del self._number_of[key]
                keys.append(key)
        return keys

    def wake(self) -> float:
        """When :meth:`due` will have something to say."""
        return self._queue[0][0] if self._queue else float("inf")
