"""The server over standard input and output, for a client that starts it."""

from __future__ import annotations

import fcntl
import os
import threading
from asyncio import AbstractEventLoop, Queue, get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import anyio
from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage

from promptyoself.mcp_server.messages import MAX_BODY, mended, too_long

if TYPE_CHECKING:
    from mcp.server import Server

__all__ = ["Stdio"]

_LINES_AHEAD = 16
_CHUNK = 65536
_ENDS = 4096  # bytes of both ends of a line that is too long, in which its id is looked for


class _TooLong(NamedTuple):
    head: bytes
    tail: bytes


class Stdio:
    """Serves the one client on the other side, until that closes its end.

    The SDK sees to it that nothing but the protocol gets out: while it serves, descriptor 1 is
    stderr. But it reads in a thread that waits for input whatever happens, so that no signal could
    end the process, and it drops what it can't read without a word; hence the reader here.
    """

    def __init__(self) -> None:
        self._ended = False
        self._scope: anyio.CancelScope | None = None

    async def serve(self, server: Server[Any]) -> None:
        """Return when the client has gone, or :meth:`end` was called."""
        if self._ended:
            return
        lines = _Lines()
        try:
            with anyio.CancelScope() as self._scope:
                async with stdio_server(stdin=cast("anyio.AsyncFile[str]", lines)) as (read, write):
                    lines.refuse = partial(_send, write)
                    await server.run(read, write, server.create_initialization_options())
        except* BrokenPipeError:
            pass  # the client has gone without closing its end first

    async def end(self) -> None:
        """Wait for no more input. What is under way is answered, as an error."""
        self._ended = True
        if self._scope is not None:
            self._scope.cancel()


class _Lines:
    """The lines of standard input, as the SDK iterates over them; those that are no message of the
    protocol are refused right here."""

    def __init__(self) -> None:
        self.refuse: Callable[[JSONRPCMessage], Awaitable[None]]
        self._queue: Queue[bytes | _TooLong | None] = Queue()
        self._room = threading.Semaphore(_LINES_AHEAD)
        arguments = (get_running_loop(), _taken())
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> str:
        while True:
            line = await self._queue.get()
            self._room.release()
            if line is None:
                raise StopAsyncIteration
            if isinstance(line, _TooLong):
                await self.refuse(too_long(*line))
            elif not line.isspace():
                message = mended(line)
                if not isinstance(message, JSONRPCError):
                    return message.decode("utf-8", "replace")
                await self.refuse(message)

    def _read(self, loop: AbstractEventLoop, descriptor: int | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody wants to know any more
            rest, head = b"", b""
            while chunk := _chunk(descriptor):
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if head or len(line) > MAX_BODY:
                        self._put(loop, _TooLong(head or line[:_ENDS], line[-_ENDS:]))
                        head = b""
                    else:
                        self._put(loop, line + b"\n")
                if len(rest) > MAX_BODY or head:
                    head, rest = head or rest[:_ENDS], rest[-_ENDS:]
            if rest:
                self._put(loop, _TooLong(head, rest) if head else rest)
            self._put(loop, None)

    def _put(self, loop: AbstractEventLoop, line: bytes | _TooLong | None) -> None:
        self._room.acquire()
        loop.call_soon_threadsafe(self._queue.put_nowait, line)


async def _send(stream: Any, message: JSONRPCMessage) -> None:
    await stream.send(SessionMessage(message))


def _taken() -> int | None:
    """Standard input for us alone: whoever else reads it, a child too, finds its end."""
    try:
        private = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    except OSError:  # it is closed
        return None
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return private


def _chunk(descriptor: int | None) -> bytes:
    try:
        return b"" if descriptor is None else os.read(descriptor, _CHUNK)
    except OSError:
        return b""
