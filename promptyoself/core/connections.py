"""How many connections a server of ours keeps open, and from which names it may be asked for.

A connection that says nothing costs a file and a thread, and anybody may open a thousand. So there
is a bound, well below the process's limit of files; and where it is reached, the oldest connection
that has yet to ask for something makes room for a new one: who asks at once always gets in.
"""

import ipaddress
import resource
import socket
import threading
import time
from contextlib import suppress
from socketserver import ThreadingTCPServer
from typing import Any
from urllib.parse import urlsplit

LEAST = 16
"""Fewer connections are of no use, however few files there may be."""

_PAUSE = 0.1  # seconds after an accept that failed: it fails again at once


def most_connections(wanted: int) -> int:
    """The number that is wanted, but no more than half of the files that the process may open: the
    rest is for what it is there for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    return max(min(wanted, soft // 2), LEAST)


def is_own_name(host: str | None) -> bool:
    """Whether a ``Host`` header names this machine in a way that no page of somebody else's can:
    by an address, as ``localhost``, or by a name without a dot, as containers have them. A page's
    own name has one, and may point anywhere (DNS rebinding). Without a header it is no browser."""
    if host is None or host == "":
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    if "." not in name and ":" not in name:
        return bool(name)
    if name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_own_origin(origin: str | None, fetch_site: str | None, host: str | None) -> bool:
    """Whether a request comes from no page, or from one that we have served."""
    if fetch_site not in (None, "", "none", "same-origin"):
        return False
    return origin in (None, "") or (bool(host) and origin == f"http://{host}")


class BoundedServer(ThreadingTCPServer):
    """A thread for each connection, up to a bound. A handler says with :meth:`is_asked` that a
    connection has asked for something: then it isn't closed to make room."""

    daemon_threads = True
    block_on_close = False
    most = 64

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.open: dict[socket.socket, bool] = {}  # the oldest first, and whether it waits
        self._gate = threading.Lock()
        super().__init__(*arguments, **more)

    def get_request(self) -> tuple[socket.socket, Any]:
        """See :class:`socketserver.TCPServer`."""
        try:
            return super().get_request()
        except OSError:  # no more files: a caller that tries again would do so without a rest
            time.sleep(_PAUSE)
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for it, or could be made."""
        del client_address
        with self._gate:
            if len(self.open) >= self.most:
                silent = next((other for other, waits in self.open.items() if waits), None)
                if silent is None:
                    return False
                del self.open[silent]  # its thread will close it
                with suppress(OSError):
                    silent.shutdown(socket.SHUT_RDWR)
            self.open[request] = True
        return True

    def is_asked(self, request: socket.socket, *, waits: bool = False) -> None:
        """It has asked for something; or again it ``waits`` for what comes next."""
        with self._gate:
            if request in self.open:
                if waits:  # the latest again
                    del self.open[request]
                self.open[request] = waits

    def shutdown_request(self, request: Any) -> None:
        """See :class:`socketserver.TCPServer`."""
        self.forget(request)
        super().shutdown_request(request)

    def forget(self, request: socket.socket) -> None:
        """It is closed."""
        with self._gate:
            self.open.pop(request, None)

    def process_request(self, request: Any, client_address: Any) -> None:
        """See :class:`socketserver.ThreadingMixIn`. Without a thread there is no answer."""
        try:
            super().process_request(request, client_address)
        except RuntimeError:
            self.shutdown_request(request)
