"""Who may have how many calls at once, so that no agent's calls make another's wait for long.

A call that was cancelled keeps its place until its thread has ended, or cancelling would be a way
to have more of them.
"""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from math import inf

import anyio
from anyio import to_thread

from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.registry import Effect

CALLS_AT_ONCE = 32
"""Calls under way, of all callers, that take no longer than it takes to read a file."""

EXPENSIVE_AT_ONCE = 2
"""Calls under way, of all callers, that may read the whole log."""

CALLS_OF_ONE, EXPENSIVE_OF_ONE = 8, 1
"""The same of one agent, where the door knows which agent calls."""

WRITES_OF_ONE = 1
"""Calls of one agent at once that write. The log has one writer at a time, and each call that waits
for it has a place in the same line as the loop and everybody else."""

DELIVERIES_OF_ONE = 1
"""Calls of one agent at once that deliver: an agent gets one prompt at a time anyhow. They don't
count as writes, since the prompt that is delivered may make the agent register another."""

MOST_PENDING = 64
"""Calls of one agent that are under way or wait; of callers that aren't known, all together, four
times as many."""


class _Share:
    """What one agent has, and how many calls of it there are."""

    def __init__(self, is_known: bool) -> None:
        self.pending = 0
        self.max_pending = MOST_PENDING if is_known else 4 * MOST_PENDING
        self.calls = anyio.CapacityLimiter(CALLS_OF_ONE if is_known else CALLS_AT_ONCE)
        self.expensive = anyio.CapacityLimiter(EXPENSIVE_OF_ONE if is_known else EXPENSIVE_AT_ONCE)
        self.writes = anyio.CapacityLimiter(WRITES_OF_ONE if is_known else CALLS_AT_ONCE)
        self.deliveries = anyio.CapacityLimiter(DELIVERIES_OF_ONE if is_known else CALLS_AT_ONCE)


class Shares:
    """Runs calls in threads. Belongs to the event loop in which it is made."""

    def __init__(self) -> None:
        self._threads = anyio.CapacityLimiter(inf)
        self._calls = anyio.CapacityLimiter(CALLS_AT_ONCE)
        self._expensive = anyio.CapacityLimiter(EXPENSIVE_AT_ONCE)
        self._shares: dict[str | None, _Share] = {}

    async def run(self, call: Callable[[], bytes], agent: str | None, effect: Effect) -> bytes:
        """What a call answers, once it has had its turn.

        Raises:
            PromptyoselfError: ``too_many_calls``.
        """
        share = self._shares.setdefault(agent, _Share(agent is not None))
        if share.pending >= share.max_pending:
            raise PromptyoselfError(
                "too_many_calls",
                f"{share.pending} calls of this caller are under way or wait for their turn.",
                "Wait for an answer before you call again.",
            )
        share.pending += 1
        waiting = anyio.CancelScope()

        async def turn() -> bytes:
            try:
                with waiting:
                    async with AsyncExitStack() as places:
                        for limiter in self._limiters(share, effect):
                            await places.enter_async_context(limiter)
                        # A thread that has begun is waited for, also if nobody wants its answer.
                        return await to_thread.run_sync(call, limiter=self._threads)
                return b""
            finally:
                share.pending -= 1
                if not share.pending:
                    self._shares.pop(agent, None)

        task = asyncio.create_task(turn())
        # Where nobody waits any more, nobody is told of an error either.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        try:
            return await asyncio.shield(task)
        finally:
            waiting.cancel()

    def _limiters(self, share: _Share, effect: Effect) -> tuple[anyio.CapacityLimiter, ...]:
        """A call's limiters, in the order in which it waits for them. Those of its agent come
        first, so that it keeps no other agent's place while it waits."""
        if effect is Effect.READS_LOG:
            return share.expensive, self._expensive
        calls = (share.calls, self._calls)
        if effect is Effect.READS:
            return calls
        return (share.deliveries if effect is Effect.DELIVERS else share.writes, *calls)
