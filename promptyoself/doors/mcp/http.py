"""The server over streamable HTTP, for clients anywhere; without a token, on this machine only."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from hmac import compare_digest
from typing import TYPE_CHECKING, Any

import uvicorn
from mcp.server.auth.middleware.bearer_auth import BearerAuthBackend
from mcp.server.auth.provider import AccessToken
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import JSONRPCError
from sse_starlette.sse import AppStatus
from starlette.datastructures import Headers
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from promptyoself.core.errors import PromptyoselfError, cannot_listen
from promptyoself.core.times import shown
from promptyoself.doors.mcp.admission import Admission, host_pattern, origin_pattern
from promptyoself.doors.mcp.connections import Bounds
from promptyoself.doors.mcp.lifecycle import PATIENCE, Unanswered
from promptyoself.doors.mcp.messages import MAX_BODY, mended

if TYPE_CHECKING:
    from mcp.server import Server
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/mcp"
MAX_SESSIONS = 1000
SESSION_IDLE = 600.0
"""Seconds after which a session that nobody uses is forgotten; many clients never end theirs."""

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_LEAST_TOKEN = 16
"""Characters of a token. Nothing here slows down those who guess."""

_LEAST_VARIETY = 5
"""Different characters of a token; one that was made at random has more."""


class HTTP:
    """Serves on a socket that listens, until it is asked to end."""

    def __init__(
        self,
        listener: socket.socket,
        *,
        token: str | None,
        hosts: Sequence[str],
        origins: Sequence[str],
        ready: Callable[[], None],
        warn: Callable[[str], None],
    ) -> None:
        """``hosts`` and ``origins`` are allowed besides those of this machine: names, with a port
        or with any, and whole origins. ``ready`` is called once requests are answered,
        and ``warn`` gets a sentence where there is no room for more connections."""
        self._bounds = Bounds(warn)
        self._listener, self._token, self._ready = listener, token, ready
        bound = listener.getsockname()[0]
        names = [host_pattern(name) for name in (*_LOOPBACK, *hosts)]
        if not ipaddress.ip_address(bound).is_unspecified:
            names.append(host_pattern(f"[{bound}]" if ":" in bound else bound))
        # A name is good with any port, unless it is said with one.
        self._hosts = {*names, *((*name[:2], "*") for name in names if name[2] is None)}
        self._pages = {origin_pattern(origin) for origin in origins}
        self._origins = {
            origin_pattern(f"http://{name}{port}") for name in _LOOPBACK for port in ("", ":*")
        }
        # Streams aside, which a client may hold open for ever.
        self._unanswered = Unanswered()
        self._ended = False
        self._uvicorn: _Uvicorn | None = None

    @property
    def url(self) -> str:
        """Where clients find it, from this machine."""
        host, port = self._listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}"

    async def serve(self, server: Server[Any]) -> None:
        """Return when :meth:`end` was called, and what was under way has been answered."""
        if self._ended:
            return
        # Sessions come and go; what should be known of that is known from the log.
        errors = logging.StreamHandler()
        errors.addFilter(_is_no_departure)
        logging.getLogger("mcp").setLevel(logging.ERROR)
        logging.getLogger("mcp").propagate = False
        logging.getLogger("mcp").handlers = [errors]
        app = server.streamable_http_app(
            streamable_http_path=PATH,
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
            max_request_body_size=MAX_BODY,
            max_sessions=MAX_SESSIONS,
            session_idle_timeout=SESSION_IDLE,
            token_verifier=None if self._token is None else _Verifier(self._token),
        )
        app.add_middleware(_Readable, token=self._token)
        if self._token is not None:
            backend = BearerAuthBackend(_Verifier(self._token))
            app.add_middleware(AuthenticationMiddleware, backend=backend)
        app.add_middleware(Admission, hosts=self._hosts, pages=self._pages, origins=self._origins)
        app.add_middleware(_UnderWay, unanswered=self._unanswered)
        self._bounds.watch(asyncio.get_running_loop())
        self._uvicorn = _Uvicorn(
            uvicorn.Config(
                app,
                log_config=None,
                log_level="error",  # what is no HTTP needs no line for each time
                http=self._bounds.protocol,  # type: ignore[arg-type]
                backlog=self._bounds.accepts,
                access_log=False,
                lifespan="on",
                server_header=False,
                ws="none",
                timeout_graceful_shutdown=PATIENCE + 5,
            ),
            self._ready,
        )
        try:
            await self._uvicorn.serve(sockets=[self._listener])
        finally:
            AppStatus.should_exit = False

    async def end(self) -> None:
        """Take no more connections, answer what is under way, and let go of streams on which
        nothing is asked."""
        self._ended = True
        if self._uvicorn is None:
            return
        # Not by its `handle_exit`: sse-starlette has put one there that cuts every answer.
        self._uvicorn.should_exit = True
        await self._unanswered.none()
        AppStatus.should_exit = True  # which is how sse-starlette is told to end its streams


class _Uvicorn(uvicorn.Server):
    """Leaves signals to :func:`.lifecycle.serve`: it would die of them in the end."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _is_no_departure(record: logging.LogRecord) -> bool:
    """Whether a record tells of anything but a client that has left, which is its good right."""
    return record.exc_info is None or not isinstance(record.exc_info[1], ClientDisconnect)


class _UnderWay:
    """Counts the requests that are being answered, and completes streams that are ended.

    A client can't ask for what it missed on a stream. Nothing is kept for that, and the SDK would
    give no answer."""

    def __init__(self, app: ASGIApp, unanswered: Unanswered) -> None:
        self._app, self._unanswered = app, unanswered

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        open_ = False

        async def seen(message: Message) -> None:
            nonlocal open_
            open_ = message["type"] == "http.response.start" or message.get("more_body", False)
            await send(message)

        request = object()
        if scope["method"] == "GET":
            kept = [pair for pair in scope["headers"] if pair[0] != b"last-event-id"]
            scope = {**scope, "headers": kept}
        else:
            self._unanswered.begun(request)
        try:
            await self._app(scope, receive, seen)
            if open_:
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._unanswered.ended(request)


class _Readable:
    """Mends or refuses a message that the SDK can't read, and would answer without its id. It reads
    no message that is too long, and none of a caller without the token."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not self._may_be_read(scope):
            await self._app(scope, receive, send)
            return
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return  # there is nobody left to answer
        message = mended(body)
        if isinstance(message, JSONRPCError):
            text = message.model_dump_json(by_alias=True, exclude_unset=True)
            await Response(text, 400, media_type="application/json")(scope, receive, send)
            return
        headers = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        headers.append((b"content-length", str(len(message)).encode()))
        sent = False

        async def again() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": message, "more_body": False}

        await self._app({**scope, "headers": headers}, again, send)

    def _may_be_read(self, scope: Scope) -> bool:
        if self._token is not None and not scope["user"].is_authenticated:
            return False
        length = Headers(scope=scope).get("content-length", "")
        is_number = length.isascii() and length.isdigit() and len(length) < 9
        return is_number and 0 < int(length) <= MAX_BODY


class _Verifier:
    """Knows the one token. How long a check takes says nothing about the token."""

    def __init__(self, token: str) -> None:
        self._digest = sha256(token.encode()).digest()

    async def verify_token(self, token: str) -> AccessToken | None:
        """An access token if ``token`` is that one, else ``None``."""
        if not compare_digest(sha256(token.encode()).digest(), self._digest):
            return None
        return AccessToken(token="", client_id="bearer", scopes=[])


def listen(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens there. Port 0 is any free one.

    Raises:
        PromptyoselfError: ``missing_token``: others than this machine can reach it, and there is no
            token that they would have to show; ``invalid_setting``: the token could be guessed;
            ``port_in_use``, or ``cannot_listen`` for the rest.
    """
    if token is not None:
        _refuse_weak(token)
    if token is None and not _is_loopback(host):
        raise PromptyoselfError(
            "missing_token",
            f"Other machines can reach {shown(host)}, and there is no token to keep them out.",
            "Set PROMPTYOSELF_MCP_TOKEN to a long random text, or listen on 127.0.0.1.",
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=256)
    except (OSError, OverflowError, UnicodeError, ValueError) as error:
        raise cannot_listen(host, port, error) from None


def _refuse_weak(token: str) -> None:
    if len(token) < _LEAST_TOKEN:
        problem = f"has {len(token)} characters, and {_LEAST_TOKEN} are the least"
    elif len(set(token)) < _LEAST_VARIETY:
        problem = f"has {len(set(token))} different characters, and {_LEAST_VARIETY} are the least"
    else:
        return
    raise PromptyoselfError(
        "invalid_setting",
        f"PROMPTYOSELF_MCP_TOKEN {problem}: it could be guessed.",
        "`openssl rand -hex 32` makes a good one. Clients have to show the same.",
        setting="PROMPTYOSELF_MCP_TOKEN",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
