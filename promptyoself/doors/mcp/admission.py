"""Who may speak to the server over HTTP: by which names it is called, which web pages may call it,
and what a browser has to be told so that it lets them.

All of that comes before the token, since a browser asks without one whether a page may send it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = r"[a-z0-9_](?:[a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]"
_PORT = r"[0-9]{1,5}"
_AUTHORITY = re.compile(rf"({_HOST})(?::({_PORT}|\*))?", re.ASCII)
_ORIGIN = re.compile(rf"([a-z][a-z0-9+.-]*)://({_HOST})(?::({_PORT}|\*))?", re.ASCII)
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_TOKENS = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,2000}", re.ASCII)
_METHODS = "GET, POST, DELETE"
_EXPOSED = "Mcp-Session-Id, MCP-Protocol-Version, WWW-Authenticate, Retry-After"
_REMEMBERED = "600"  # seconds for which a browser need not ask again

Pattern = tuple[str, str, str | None]
"""A scheme, empty for a host's name; a host, in lower case; and a port: ``*`` for any, ``None`` for
the scheme's own, or where none is given."""


def host_pattern(text: str) -> Pattern:
    """A name that clients may know the server by. Raises ``invalid_value``."""
    return _pattern(_AUTHORITY, text, "--allow-host", "mcp, clock.example:8765 or [::1]")


def origin_pattern(text: str) -> Pattern:
    """A web page's origin that may call. Raises ``invalid_value``."""
    example = "https://chat.example, or http://localhost:* for any port"
    return _pattern(_ORIGIN, text, "--allow-origin", example)


def _pattern(syntax: re.Pattern[str], text: str, option: str, example: str) -> Pattern:
    pattern = _read(syntax, text)
    if pattern is None:
        raise WrongUsage(
            "invalid_value",
            f"{option} is {shown(text)}, which isn't one, alone and whole.",
            f"Give one such as {example}.",
        )
    return pattern


class Admission:
    """Lets a request through to ``app`` if it is for one of these hosts, and comes from no web page
    or from a page of these origins."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: Iterable[Pattern],
        pages: Iterable[Pattern],
        origins: Iterable[Pattern],
    ) -> None:
        """The pages of ``pages`` may read the answers; those of ``origins`` may only send."""
        self._app = app
        self._hosts, self._pages = frozenset(hosts), frozenset(pages)
        self._origins = frozenset(origins) | self._pages

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = _single(headers.getlist("origin"))
        of_page = origin is not None and _matches(_read(_ORIGIN, origin), self._pages)
        answer = self._refusal(headers, origin)
        wanted_method = headers.get("access-control-request-method")
        if answer is None and scope["method"] == "OPTIONS" and origin is not None and wanted_method:
            answer = _preflight(headers) if of_page else _forbidden("Invalid Origin header")

        async def send_with_headers(message: Message) -> None:
            if origin is not None and message["type"] == "http.response.start":
                more = MutableHeaders(scope=message)
                more.add_vary_header("Origin")
                if of_page:
                    more["Access-Control-Allow-Origin"] = origin
                    more["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        await (self._app if answer is None else answer)(scope, receive, send_with_headers)

    def _refusal(self, headers: Headers, origin: str | None) -> Response | None:
        host = _single(headers.getlist("host"))
        if host is None or not _matches(_read(_AUTHORITY, host), self._hosts):
            return Response("Invalid Host header", status_code=421)
        if origin is not None and not _matches(_read(_ORIGIN, origin), self._origins):
            return _forbidden("Invalid Origin header")
        return None


def _read(syntax: re.Pattern[str], text: str) -> Pattern | None:
    """A host or an origin as it is compared: in lower case, without its scheme's own port."""
    match = syntax.fullmatch(text.lower())
    if match is None:
        return None
    *scheme, host, port = match.groups()
    name = scheme[0] if scheme else ""
    return name, host, None if port == _DEFAULT_PORTS.get(name) else port


def _matches(pattern: Pattern | None, allowed: frozenset[Pattern]) -> bool:
    if pattern is None or pattern[2] == "*":
        return False
    return pattern in allowed or (pattern[0], pattern[1], "*") in allowed


def _single(values: Sequence[str]) -> str | None:
    """A header's value. Several are joined, and so match nothing that is allowed."""
    return ", ".join(values) if values else None


def _preflight(headers: Headers) -> Response:
    """The answer to a browser that asks before it sends a page's request."""
    allowed = {
        "Access-Control-Allow-Methods": _METHODS,
        "Access-Control-Max-Age": _REMEMBERED,
        "Vary": "Access-Control-Request-Headers",
    }
    wanted = headers.get("access-control-request-headers", "")
    if _TOKENS.fullmatch(wanted):
        allowed["Access-Control-Allow-Headers"] = wanted
    if headers.get("access-control-request-private-network") == "true":
        allowed["Access-Control-Allow-Private-Network"] = "true"
    return Response(status_code=204, headers=allowed)


def _forbidden(why: str) -> Response:
    return Response(why, status_code=403)
