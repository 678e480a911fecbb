"""A server from its beginning to its end: signals, and the delivery loop beside it."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import anyio
from anyio import to_thread

from promptyoself.doors.mcp.tools import Door
from promptyoself.service.delivery.loop import StopFlag

if TYPE_CHECKING:
    from mcp.server import Server


PATIENCE = 25
"""Seconds for calls under way when the server is to end; `execute` takes 5."""


class Transport(Protocol):
    """A way for clients to reach the server."""

    async def serve(self, server: Server[Any]) -> None:
        """Serve until no client can come any more, or :meth:`end` was called."""

    async def end(self) -> None:
        """Come to an end soon."""


class Unanswered:
    """The requests that came in and have no answer yet."""

    def __init__(self) -> None:
        self._requests: set[object] = set()
        self._none: anyio.Event | None = None

    def begun(self, request: object) -> None:
        """A request came in."""
        self._requests.add(request)

    def ended(self, request: object) -> None:
        """A request is answered to the last byte, or gets no answer."""
        self._requests.discard(request)
        if not self._requests and self._none is not None:
            self._none.set()

    async def none(self) -> None:
        """Wait until there is none, for :data:`PATIENCE` seconds at most."""
        if self._requests:
            self._none = anyio.Event()
            with anyio.move_on_after(PATIENCE):
                await self._none.wait()


def serve(door: Door, transport: Transport, loop: Callable[[StopFlag], None] | None = None) -> None:
    """Serve until the client has gone, or SIGTERM or SIGINT comes, or ``loop`` ends.

    ``loop`` delivers in a thread beside the server, until its flag is set. If it fails, the server
    ends too: a server that has stopped to deliver would go unnoticed.

    Raises:
        Exception: whatever made the transport or the loop fail.
    """
    anyio.run(_serve, door, transport, loop)


async def _serve(door: Door, transport: Transport, loop: Callable[[StopFlag], None] | None) -> None:
    ending, stop = anyio.Event(), StopFlag()
    failures: list[Exception] = []  # the group would wrap them, and their codes would be lost

    async def deliver(loop: Callable[[StopFlag], None]) -> None:
        try:
            await to_thread.run_sync(loop, stop)
        except Exception as error:
            failures.append(error)
        ending.set()

    async def end_on_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                stop.set(signal.Signals(number).name)
                ending.set()
                return  # a second one does what it always did

    async def end_transport() -> None:
        await ending.wait()
        door.stop("shutdown")
        await transport.end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_on_signal)
        tasks.start_soon(end_transport)
        if loop is not None:
            tasks.start_soon(deliver, loop)
        try:
            await transport.serve(door.server)
        except Exception as error:
            failures.append(error)
        finally:  # also where the transport ends the process: the loop's thread is waited for
            if stop.why is None:
                stop.set("server_ended")
            tasks.cancel_scope.cancel()
    door.stop("shutdown")
    if failures:
        raise failures[0]
