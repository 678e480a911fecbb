"""The server over standard input and output, for a client that starts it."""

from __future__ import annotations

import fcntl
import json
import os
import sys
import threading
from asyncio import AbstractEventLoop, Queue, get_running_loop
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

from mcp.server.stdio import stdio_server
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCError, JSONRPCMessage, JSONRPCResponse

from promptyoself.doors.mcp.lifecycle import Unanswered
from promptyoself.doors.mcp.messages import MAX_BODY, mended, too_long

if TYPE_CHECKING:
    from anyio import AsyncFile
    from mcp.server import Server
    from mcp.shared._stream_protocols import WriteStream

_LINES_AHEAD = 16
_CHUNK = 65536
_ENDS = 4096  # bytes of both ends of a line that is too long, in which its id is looked for


class _TooLong(NamedTuple):
    head: bytes
    tail: bytes


class Stdio:
    """Serves the one client on the other side, until that closes its end.

    The SDK sees to it that nothing but the protocol gets out: while it serves, descriptor 1 is
    stderr. But its reader waits for input in a thread that no signal ends, and drops what it can't
    read without a word, so there is a reader here.
    """

    def __init__(self) -> None:
        self._ended = False
        self._lines: _Lines | None = None

    async def serve(self, server: Server[Any]) -> None:
        """Return when the client has gone, or :meth:`end` was called."""
        if self._ended:
            return
        self._lines = lines = _Lines()
        try:
            async with stdio_server(stdin=cast("AsyncFile[str]", lines)) as (read, write):
                lines.refuse = lambda message: write.send(SessionMessage(message))
                answered = cast("WriteStream[SessionMessage]", _Answering(write, lines.unanswered))
                await server.run(read, answered, server.create_initialization_options())
        except* BrokenPipeError:
            pass  # the client has gone without closing its end first

    async def end(self) -> None:
        """Wait for no more input. What was asked is answered first."""
        self._ended = True
        if self._lines is not None:
            self._lines.end()


class _Answering:
    """The SDK's way out, on which every answer is seen."""

    def __init__(self, stream: Any, unanswered: Unanswered) -> None:
        self._stream, self._unanswered = stream, unanswered

    async def send(self, message: SessionMessage) -> None:
        await self._stream.send(message)  # until the writer has taken it
        if isinstance(message.message, JSONRPCResponse | JSONRPCError):
            self._unanswered.ended(message.message.id)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *how: Any) -> None:
        await self._stream.__aexit__(*how)


class _Lines:
    """The lines of standard input, as the SDK iterates over them; those that are no message of the
    protocol are refused right here."""

    def __init__(self) -> None:
        self.refuse: Callable[[JSONRPCMessage], Awaitable[None]]
        self.unanswered = Unanswered()
        self._ended = False
        self._queue: Queue[bytes | _TooLong | None] = Queue()
        self._room = threading.Semaphore(_LINES_AHEAD)
        arguments = (get_running_loop(), _private_stdin())
        threading.Thread(target=self._read, args=arguments, daemon=True).start()

    def end(self) -> None:
        """Read nothing more."""
        self._ended = True
        self._queue.put_nowait(None)

    def __aiter__(self) -> _Lines:
        return self

    async def __anext__(self) -> str:
        while True:
            line = await self._queue.get()
            self._room.release()
            if line is None or self._ended:
                await self.unanswered.none()
                raise StopAsyncIteration
            if isinstance(line, _TooLong):
                await self.refuse(too_long(*line))
            elif not line.isspace():
                message = mended(line)
                if not isinstance(message, JSONRPCError):
                    self._note(json.loads(message))
                    return message.decode("utf-8", "replace")
                await self.refuse(message)

    def _note(self, message: dict[str, Any]) -> None:
        """A message came in. A request that is called off gets no answer."""
        if "id" in message and "method" in message:
            self.unanswered.begun(message["id"])
        elif message.get("method") == "notifications/cancelled":
            id_ = (message.get("params") or {}).get("requestId")
            if isinstance(id_, str | int):
                self.unanswered.ended(id_)

    def _read(self, loop: AbstractEventLoop, descriptor: int | None) -> None:
        with suppress(RuntimeError):  # the loop has been closed: nobody wants to know any more
            unfinished, head = b"", b""
            while chunk := _chunk(descriptor):
                *lines, unfinished = (unfinished + chunk).split(b"\n")
                for line in lines:
                    if head or len(line) > MAX_BODY:
                        self._put(loop, _TooLong(head or line[:_ENDS], line[-_ENDS:]))
                        head = b""
                    else:
                        self._put(loop, line + b"\n")
                if len(unfinished) > MAX_BODY or head:
                    head, unfinished = head or unfinished[:_ENDS], unfinished[-_ENDS:]
            if unfinished:
                self._put(loop, _TooLong(head, unfinished) if head else unfinished)
            self._put(loop, None)

    def _put(self, loop: AbstractEventLoop, line: bytes | _TooLong | None) -> None:
        self._room.acquire()
        loop.call_soon_threadsafe(self._queue.put_nowait, line)


def _private_stdin() -> int | None:
    """Standard input for us alone. Any other reader, such as a child, finds it ended."""
    if sys.stdin is None:  # it was closed, and its number may be the event loop's by now
        return None
    private = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, 3)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return private


def _chunk(descriptor: int | None) -> bytes:
    try:
        return b"" if descriptor is None else os.read(descriptor, _CHUNK)
    except OSError:
        return b""
