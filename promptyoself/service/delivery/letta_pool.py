"""The threads that talk to Letta: each advances one delivery after another to its next wait."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from errno import EAGAIN
from queue import Empty, SimpleQueue

from promptyoself.rules.claim import Outcome
from promptyoself.targets.api import DeliveryError
from promptyoself.targets.letta import Look

__all__ = ["Broken", "Callers", "Job", "Result", "result_of"]


class Broken:
    """An exception that escaped from a job, with its traceback."""

    def __init__(self, error: BaseException) -> None:
        self.expected = isinstance(error, DeliveryError)
        self.text = "".join(traceback.format_exception(error)).rstrip()


Result = float | Outcome | Look | Broken | None
"""What a job leads to: a wait, in seconds; an outcome; or what a look has seen."""

Job = Callable[[], Result]


def result_of(job: Job) -> Result:
    """What a job gives, or what it ends with."""
    try:
        return job()
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    except BaseException as error:  # a bug, which must not take the others along
        return Broken(error)


class Callers:
    """Does jobs, each under a key, in as many threads as are needed. One thread hands them out."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[str, Job] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[str, Result]] = SimpleQueue()
        self._threads = 0

    def ask(self, key: str, job: Job, most: int) -> None:
        """Have a job done, by one more thread if there are fewer than ``most``.

        Raises:
            OSError: the system has no thread for us at all.
        """
        self._todo.put((key, job))
        if self._threads < most:
            try:
                threading.Thread(target=self._work, name="letta", daemon=True).start()
            except RuntimeError as error:  # the system has no more; those there are will do
                if not self._threads:
                    raise OSError(EAGAIN, str(error)) from None
            else:
                self._threads += 1

    def answer(self, seconds: float) -> tuple[str, Result] | None:
        """The next job that is done, by its key; ``None`` if none is within so many seconds."""
        try:
            return self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait()
        except Empty:
            return None

    def end(self) -> None:
        """Let the threads end, each after what it is at."""
        for _ in range(self._threads):
            self._todo.put(None)
        self._threads = 0

    def _work(self) -> None:
        while (asked := self._todo.get()) is not None:
            key, job = asked
            self._done.put((key, result_of(job)))
