"""Bounds on connections over HTTP: how many there are, and how long a request's head and its body
may take. Somebody who has yet to show a token can hold no other client off, and no loop beside."""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from promptyoself.core.connections import most_connections
from promptyoself.core.diagnostics import Seldom

MOST_CONNECTIONS = 512
HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
_PHASES = {h11.IDLE: "head", h11.SEND_BODY: "body"}  # in which a client may take too long
_ACCEPTS = 64  # connections taken at once, before any of them is looked at


class Bounds:
    """What all connections of a server share. ``protocol`` is what uvicorn makes of each."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """``warn`` is told once a minute at most that there is no room, or no file."""
        self.most = most_connections(MOST_CONNECTIONS)
        self.accepts = max(min(_ACCEPTS, self.most // 8), 1)
        self.waiting: dict[_Connection, None] = {}  # for a request's head; the oldest first
        self._seldom = Seldom(warn)

    def protocol(self, *arguments: Any, **more: Any) -> asyncio.Protocol:
        """Make a connection."""
        return _Connection(self, *arguments, **more)

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Report an accept that fails as a sentence, and not each time with a traceback."""

        def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            if "accept" not in str(context.get("message")):
                loop.default_exception_handler(context)
                return
            problem = context.get("exception")
            self._seldom.warn("accept", f"No connection can be taken for now: {problem}.")

        loop.set_exception_handler(report)

    def make_room(self, number: int) -> bool:
        """Whether there is room for one more connection. The oldest that waits is closed for it."""
        if number <= self.most:
            return True
        oldest = next(iter(self.waiting), None)
        if oldest is not None:
            oldest.abort()
            return True
        self._seldom.warn(
            "full", f"All {self.most} connections are in use; more are turned away for now."
        )
        return False


class _Connection(H11Protocol):
    """Is closed where a head or a body takes too long."""

    def __init__(self, bounds: Bounds, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._bounds = bounds
        self._phase = ""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self._bounds.make_room(len(self.connections)):
            self._enter("head")
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        phase = _PHASES.get(self.conn.their_state, "")
        self._enter("" if self.transport.is_closing() else phase)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE:  # uvicorn gives it a few seconds for the next one
            self._enter("")
            self._bounds.waiting.setdefault(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._enter("")
        super().connection_lost(exc)

    def abort(self) -> None:
        """Close it now."""
        self._enter("")
        self.connections.discard(self)
        self.transport.abort()

    def _enter(self, phase: str) -> None:
        if phase == "head":
            self._bounds.waiting.setdefault(self)
        else:
            self._bounds.waiting.pop(self, None)
        if phase == self._phase:
            return
        self._phase = phase
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if phase:
            seconds = HEAD_SECONDS if phase == "head" else BODY_SECONDS
            self._timer = self.loop.call_later(seconds, self.abort)
