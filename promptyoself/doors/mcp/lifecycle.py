"""A server from its beginning to its end: signals, and the delivery loop beside it."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

import anyio

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
    with _Beside(loop) as beside:
        anyio.run(_serve, door, transport, beside)
    if beside.failure is not None:
        raise beside.failure


class _Beside:
    """The delivery loop, in a thread of its own, from entry to exit."""

    def __init__(self, loop: Callable[[StopFlag], None] | None) -> None:
        self.failure: BaseException | None = None
        self._loop, self._stop = loop, StopFlag()
        self._ended = threading.Event()
        self._on_end: Callable[[], object] = lambda: None
        self._thread = threading.Thread(target=self._run, name="delivery loop")

    def __enter__(self) -> _Beside:
        if self._loop is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop("server_ended")
        if self._loop is not None:
            self._thread.join()

    def when_ended(self, callback: Callable[[], object]) -> None:
        """Call ``callback``, in the loop's thread, once the loop has ended; now, if it has."""
        self._on_end = callback
        if self._ended.is_set():
            callback()

    def stop(self, why: str) -> None:
        """Ask the loop to end."""
        if self._stop.why is None:
            self._stop.set(why)

    def _run(self) -> None:
        assert self._loop is not None
        try:
            self._loop(self._stop)
        except BaseException as error:
            self.failure = error
        self._ended.set()
        self._on_end()


async def _serve(door: Door, transport: Transport, beside: _Beside) -> None:
    events = asyncio.get_running_loop()
    ending = anyio.Event()

    def end_soon() -> None:
        with suppress(RuntimeError):  # we have ended first
            events.call_soon_threadsafe(ending.set)

    async def end_on_signal() -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            async for number in signals:
                beside.stop(signal.Signals(number).name)
                ending.set()
                return  # a second one does what it always did

    async def end_transport() -> None:
        await ending.wait()
        door.stop("shutdown")
        await transport.end()

    beside.when_ended(end_soon)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(end_on_signal)
        tasks.start_soon(end_transport)
        try:
            await transport.serve(door.server)
        except Exception as error:  # the group would wrap it, and its code would be lost
            failure = error
        tasks.cancel_scope.cancel()
    door.stop("shutdown")
    if failure is not None:
        raise failure
