"""The threads that talk to Letta. Each takes one delivery after another to its next wait."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Callable
from errno import EAGAIN
from queue import Empty, SimpleQueue

from promptyoself.rules.outcome import Outcome
from promptyoself.targets.api import DeliveryError
from promptyoself.targets.letta import RunSnapshot

__all__ = ["Job", "JobError", "LettaPool", "Result", "result_of"]


class JobError:
    """An exception that escaped from a job."""

    def __init__(self, error: BaseException) -> None:
        self.expected = isinstance(error, DeliveryError)
        self.text = "".join(traceback.format_exception(error)).rstrip()  # with its traceback


Result = float | Outcome | RunSnapshot | JobError | None
"""What a job gives: seconds that a delivery waits, the outcome of one, or a snapshot of the runs;
``None`` where no snapshot could be had."""

Job = Callable[[], Result]


def result_of(job: Job) -> Result:
    """Do a job here and now. An exception is its result too."""
    try:
        return job()
    except StopIteration as stop:
        outcome: Outcome = stop.value
        return outcome
    except BaseException as error:  # a bug, which must not take the others along
        return JobError(error)


class LettaPool:
    """Does jobs in as many threads as are needed. Only one thread may submit them."""

    def __init__(self) -> None:
        self._todo: SimpleQueue[tuple[str, Job] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[str, Result]] = SimpleQueue()
        self._threads = 0

    def submit(self, key: str, job: Job, most: int) -> None:
        """Have a job done, with one more thread if there are fewer than ``most``.

        Raises:
            OSError: the system gives us no thread at all.
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

    def next_result(self, seconds: float) -> tuple[str, Result] | None:
        """The key and the result of the next job that is done; ``None`` after ``seconds``."""
        try:
            return self._done.get(timeout=seconds) if seconds > 0 else self._done.get_nowait()
        except Empty:
            return None

    def close(self) -> None:
        """Let the threads end, each after its present job."""
        for _ in range(self._threads):
            self._todo.put(None)
        self._threads = 0

    def _work(self) -> None:
        while (submitted := self._todo.get()) is not None:
            key, job = submitted
            self._done.put((key, result_of(job)))
