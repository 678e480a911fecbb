"""What a call costs, for tests of how costs grow."""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def cpu_seconds(call: Callable[[], T]) -> tuple[float, T]:
    """The CPU seconds that a call takes of this thread, and what it returns.

    Neither other threads count nor the garbage collector: how long a full collection takes follows
    from what the tests before have left in this process.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        begun = time.thread_time()
        returned = call()
        return time.thread_time() - begun, returned
    finally:
        if enabled:
            gc.enable()
