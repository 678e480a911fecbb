"""Calls over HTTP: one deadline for a whole call, a bound on its answer, and whether it has written
anything.

An HTTP library's time-out is per read, so a server that drips a byte a second holds a caller for
ever. The connections made here honour one deadline per call. They remember whether a byte has left:
a call that failed before that has certainly delivered nothing. They read an answer up to
:data:`MOST_BYTES`, since a server may never stop. They read no compressed answer, which nobody
asked for, since a few bytes of it could expand without end.
"""

from __future__ import annotations

import re
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

MOST_BYTES = 16 * 1024 * 1024
"""The longest answer that is read. A page of a hundred messages has far less; a page of a few long
ones may have as much."""

_KEEPALIVE = 2.0  # seconds; uvicorn, which serves Letta, drops idle connections after 5
_CONNECT_TIMEOUT = 10.0
_CHUNK = 16 * 1024


class TooLong(Exception):
    """An answer has more than :data:`MOST_BYTES`, or is compressed, so that nobody knows."""


class Call(threading.local):
    """This thread's call in progress."""

    deadline: float | None = None  # by the monotonic clock
    wrote = False  # a byte may have left
    read = 0  # bytes


_call = Call()


@contextmanager
def call_within(seconds: float) -> Iterator[Call]:
    """What this thread reads and writes in the context is one call, of ``seconds`` at most."""
    _call.deadline, _call.wrote, _call.read = time.monotonic() + seconds, False, 0
    try:
        yield _call
    finally:
        _call.deadline = None


def _left(timeout: float | None, error: str) -> float | None:
    """Seconds that a single operation may take; raises httpcore's ``error`` when none are left."""
    if _call.deadline is None:
        return timeout
    left = _call.deadline - time.monotonic()
    if left <= 0:
        import httpcore

        raise getattr(httpcore, error)("the call's deadline has passed")
    return left if timeout is None else min(left, timeout)


class _Stream:
    """A connection whose reads and writes end at the call's deadline (httpcore's NetworkStream).

    Bytes leave when there are many, or when an answer is read. So a request's header and its body
    are one packet, and wake the server once.
    """

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self._unsent = b""

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._unsent:
            import httpcore

            # A server that refuses a request before its end may have said why: that is read.
            with suppress(httpcore.WriteError):
                self._send(timeout)
        data: bytes = self._inner.read(max_bytes, _left(timeout, "ReadTimeout"))
        _call.read += len(data)
        if _call.read > MOST_BYTES:
            raise TooLong
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._unsent += buffer
        if len(self._unsent) > _CHUNK:
            self._send(timeout)

    def _send(self, timeout: float | None) -> None:
        data, self._unsent = self._unsent, b""
        # In pieces, because the inner stream applies its time-out to each of its sends.
        for start in range(0, len(data), _CHUNK):
            left = _left(timeout, "WriteTimeout")
            _call.wrote = True
            self._inner.write(data[start : start + _CHUNK], left)

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> _Stream:
        left = _left(timeout, "ConnectTimeout")
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend:
    """Opens connections with a deadline: what is called of httpcore's NetworkBackend."""

    def __init__(self) -> None:
        import httpcore

        self._inner = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> _Stream:
        import httpcore

        # One by one, since ``socket.create_connection`` gives each address the whole time-out.
        # The resolver has its own, which nobody can shorten from here.
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as err:  # socket.gaierror, or a name that cannot be encoded
            raise httpcore.ConnectError("name resolution failed") from err
        except UnicodeError as err:
            raise httpcore.ConnectError("not a host name") from err
        failure: Exception = httpcore.ConnectError("no address")
        for *_, address in addresses:
            try:
                return _Stream(
                    self._inner.connect_tcp(
                        str(address[0]),
                        port,
                        _left(timeout, "ConnectTimeout"),
                        local_address,
                        socket_options,
                    )
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as err:
                failure = err
        raise failure


class _Pool:
    """As many connections as there are calls at once (in place of httpcore's pool).

    The connection that was used last is used first. httpcore's own pool asks every idle connection
    by a system call whether it is still there, at every request and at its end. With 64 connections
    that takes twice as long as the request.
    """

    def __init__(self, connect: Callable[[Any], Any], takes_packed: bool) -> None:
        """``connect`` makes a connection to an origin (httpcore's HTTPConnection)."""
        self._connect = connect
        self._takes_packed = takes_packed
        self._idle: deque[tuple[float, Any]] = deque()  # any thread may pop from its ends
        self._closed = False

    def handle_request(self, request: Any) -> Any:
        connection = self._take(request.url.origin)
        try:
            response = connection.handle_request(request)
            packed = any(_is_compressed(*header) for header in response.headers)
            if packed and not self._takes_packed:
                raise TooLong
        except BaseException:
            connection.close()
            raise
        response.stream = _Body(response.stream, lambda: self._release(connection))
        return response

    def _take(self, origin: Any) -> Any:
        while True:
            try:
                _, connection = self._idle.pop()
            except IndexError:
                return self._connect(origin)
            lasts = not (connection.is_closed() or connection.has_expired())
            if lasts and connection.can_handle_request(origin):
                return connection
            connection.close()

    def _release(self, connection: Any) -> None:
        now = time.monotonic()
        self._idle.append((now, connection))
        with suppress(IndexError):  # another thread may have taken the last one at any moment
            while self._closed or self._idle[0][0] < now - _KEEPALIVE:
                self._idle.popleft()[1].close()

    def close(self) -> None:
        self._closed = True
        while self._idle:
            with suppress(IndexError):
                self._idle.pop()[1].close()


def _is_compressed(name: bytes, value: bytes) -> bool:
    return name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity")


class _Body:
    """A response's body, after which its connection is free."""

    def __init__(self, stream: Any, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release: Callable[[], None] | None = release

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._stream)

    def close(self) -> None:
        release, self._release = self._release, None
        self._stream.close()
        if release is not None:
            release()


def http_client(call_timeout: float, *, tls: bool, takes_packed: bool = False) -> Any:
    """An ``httpx.Client`` of connections with a deadline; with ``tls`` it checks certificates.

    ``takes_packed``: an answer may be compressed, since the caller doesn't unpack it.
    """
    import httpcore
    import httpx

    # The environment decides on certificates (SSL_CERT_FILE, SSL_CERT_DIR), not on proxies nor,
    # by ~/.netrc, on passwords: what is sent once must go to the server that was named, and a
    # proxy's 403, 502 or silent repetition would be taken for the server's own.
    # Reading the certificates takes 30 ms, so only where they are needed.
    context = httpx.create_ssl_context(trust_env=True) if tls else None
    transport = httpx.HTTPTransport(verify=context or False)
    transport._pool.close()
    backend = _Backend()

    def connect(origin: httpcore.Origin) -> httpcore.HTTPConnection:
        return httpcore.HTTPConnection(
            origin,
            ssl_context=context,
            keepalive_expiry=_KEEPALIVE,
            network_backend=backend,  # type: ignore[arg-type]
        )

    transport._pool = _Pool(connect, takes_packed)  # type: ignore[assignment]
    timeout = httpx.Timeout(call_timeout, connect=min(call_timeout, _CONNECT_TIMEOUT))
    # A redirect is refused: a POST would be repeated elsewhere, or turned into a GET.
    client = httpx.Client(
        transport=transport,
        timeout=timeout,
        trust_env=False,
        follow_redirects=False,
        headers={"Accept-Encoding": "identity"},
    )
    extract_cookies = client.cookies.extract_cookies

    def extract_any_cookies(response: httpx.Response) -> None:
        # To look for cookies where there are none takes a tenth of a call's processor time.
        if "set-cookie" in response.headers:
            extract_cookies(response)

    client.cookies.extract_cookies = extract_any_cookies  # type: ignore[method-assign]
    return client


def causes(err: BaseException) -> Iterator[BaseException]:
    """What led to an error, the nearest first."""
    for _ in range(10):
        following = err.__cause__ or err.__context__
        if following is None:
            return
        yield following
        err = following


def why_unreachable(roots: Iterable[BaseException]) -> str:
    """Why there is no connection, in a few words. ``roots`` are the error and its causes."""
    for root in roots:
        if isinstance(root, socket.gaierror):
            return "its name is not known"
        if isinstance(root, ConnectionRefusedError):
            return "connection refused"
        if isinstance(root, TimeoutError):
            return "no answer to connecting"
        if (refusal := getattr(root, "verify_message", None)) is not None:  # ssl's
            return f"its certificate isn't accepted: {refusal}"
        if type(root).__name__ == "SSLError":
            return "it doesn't answer with TLS"
    return "no connection"


def retry_after(headers: Any) -> float | None:
    """The seconds of a Retry-After header, in seconds or as a date; ``None`` if there is none."""
    value = str(headers.get("retry-after") or "").strip()
    if not value:
        return None
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", value):
        return float(value)

    def instant(name: str) -> datetime:
        parsed = parsedate_to_datetime(str(headers.get(name) or ""))
        return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)

    # By the server's own clock, since ours may be wrong. Without its time, the date says nothing.
    try:
        return max(0.0, (instant("retry-after") - instant("date")).total_seconds())
    except (ValueError, OverflowError):  # of a zone that is years away
        return None
