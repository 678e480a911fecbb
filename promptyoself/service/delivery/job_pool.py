"""The threads that talk to targets. Each takes one delivery after another to its next wait."""

import threading
import traceback
from collections.abc import Callable
from errno import EAGAIN
from queue import Empty, Queue, SimpleQueue
from typing import Generic, TypeVar

from promptyoself.targets.api import DeliveryError

R = TypeVar("R")


class JobError:
    """An exception that escaped from a job."""

    def __init__(self, error: BaseException) -> None:
        self.expected = isinstance(error, DeliveryError)
        self.text = "".join(traceback.format_exception(error)).rstrip()  # with its traceback


class JobPool(Generic[R]):
    """Does jobs in as many threads as are needed. Only one thread may submit them."""

    def __init__(self, beside: "JobPool[R] | None" = None) -> None:
        """The results come out of the pool ``beside`` this one, if there is one."""
        self._todo: SimpleQueue[tuple[str, Callable[[], R]] | None] = SimpleQueue()
        # Not a SimpleQueue: its `get` waits for ever if its time runs out in a signal's handler.
        self._done: Queue[tuple[str, R | JobError]] = beside._done if beside else Queue()
        self._threads = 0

    def submit(self, key: str, job: Callable[[], R], most: int) -> None:
        """Have a job done, with one more thread if there are fewer than ``most``.

        Raises:
            OSError: the system gives us no thread at all.
        """
        self._todo.put((key, job))
        if self._threads < most:
            try:
                threading.Thread(target=self._work, name="delivery", daemon=True).start()
            except RuntimeError as error:  # the system has no more; those there are will do
                if not self._threads:
                    raise OSError(EAGAIN, str(error)) from None
            else:
                self._threads += 1

    def next_result(self, seconds: float) -> tuple[str, R | JobError] | None:
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
            try:
                self._done.put((key, job()))
            except BaseException as error:  # a bug, which must not take the others along
                self._done.put((key, JobError(error)))
