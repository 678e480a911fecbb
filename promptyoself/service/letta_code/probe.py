"""Asking an App Server over HTTP whether it answers, and which version it is."""

from __future__ import annotations

import http.client
import json
import time
from typing import NamedTuple

from promptyoself.core.addresses import WebSocket, web_socket
from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.letta_code.program import number_of

_MOST_BYTES = 64 * 1024
_ANY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Where to ask one that listens on every address of this machine."""


class Info(NamedTuple):
    """What an App Server tells of itself."""

    version: str
    backend: str  # local | api
    protocol_version: int | None
    latency_ms: int


def address_of(url: str) -> WebSocket:
    """The parts of an App Server's address, with its port.

    Raises:
        ValueError: it is no address of a WebSocket.
    """
    address = web_socket(url)
    if address is None:
        raise ValueError(url)
    host = _ANY_ADDRESS.get(address.host, address.host)
    return address._replace(host=host, port=address.port or (443 if address.is_secure else 80))


def is_ready(url: str, timeout: float) -> bool:
    """Whether an App Server there says that it is ready, within some seconds."""
    try:
        return _get(url, "/readyz", None, timeout)[0] == 200
    except (OSError, http.client.HTTPException):
        return False


def ask(url: str, token: str | None, timeout: float) -> Info:
    """What the App Server there tells of itself. Each step may take ``timeout`` seconds.

    Raises:
        PromptyoselfError: ``letta_code_unreachable``, ``letta_code_timeout``,
            ``letta_code_connection_lost``, ``letta_code_unauthorized`` or
            ``letta_code_unreadable``.
    """
    began = time.monotonic()
    try:
        status, body = _get(url, "/app-server-info", token, timeout)
    except TimeoutError:
        raise PromptyoselfError(
            "letta_code_timeout",
            f"What listens at {url} didn't answer within {timeout:g} seconds.",
            "If it is an App Server, it may be busy or stopped. Start it again if that goes on.",
        ) from None
    except (ConnectionResetError, BrokenPipeError) as error:
        raise PromptyoselfError(
            "letta_code_connection_lost",
            f"What listens at {url} closed the connection: {error}.",
            "Try it again. If it is an App Server, its output says why.",
        ) from None
    except http.client.HTTPException:
        raise _unreadable(url) from None
    except OSError as error:
        raise PromptyoselfError(
            "letta_code_unreachable",
            f"No App Server answers at {url}: {error.strerror or error}.",
            "`promptyoself letta-code up` starts one on this machine. "
            "If it is elsewhere, set PROMPTYOSELF_LETTA_CODE_URL to its address.",
        ) from None
    latency = round((time.monotonic() - began) * 1000)
    if status in (401, 403):
        raise PromptyoselfError(
            "letta_code_unauthorized",
            f"The App Server at {url} refuses us: "
            f"{'the token is wrong' if token else 'it wants a token'}.",
            "PROMPTYOSELF_LETTA_CODE_TOKEN has to be the token that it was started with.",
        )
    return _read(url, status, body, latency)


def _read(url: str, status: int, body: bytes, latency: int) -> Info:
    try:
        told = json.loads(body) if status == 200 else None
    except ValueError:
        told = None
    if not isinstance(told, dict):
        raise _unreadable(url)
    version, protocol = told.get("letta_code_version"), told.get("protocol_version")
    if not isinstance(version, str) or not number_of(version) or len(version) > 100:
        raise _unreadable(url)
    return Info(
        version,
        "api" if told.get("backend") == "api" else "local",
        protocol if isinstance(protocol, int) else None,
        latency,
    )


def _unreadable(url: str) -> PromptyoselfError:
    return PromptyoselfError(
        "letta_code_unreadable",
        f"What answers at {url} doesn't answer as an App Server does.",
        "Check the port in PROMPTYOSELF_LETTA_CODE_URL.",
    )


def _get(url: str, path: str, token: str | None, timeout: float) -> tuple[int, bytes]:
    address = address_of(url)
    kind = http.client.HTTPSConnection if address.is_secure else http.client.HTTPConnection
    connection = kind(address.host, address.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.read(_MOST_BYTES)
    finally:
        connection.close()
