"""What a real Letta finds where the internet would be: nothing, or one server of ours.

Letta refuses MCP servers at addresses that aren't public, so a test gives it one that nobody has,
and this is the proxy that all its requests for the outside go through.
"""

import http.client
import threading
from contextlib import closing, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

NOBODY = "[3ffe::1]"
"""An address that counts as public and has been given back: should a request for it ever miss the
proxy, it reaches no one."""

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding"}
_HOP_BY_HOP |= {"proxy-connection", "content-length"}


class Internet:
    """The proxy, listening from its making until :meth:`close`. Any method from any thread."""

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def lead_to(self, url: str | None) -> None:
        """From now on :data:`NOBODY` is the server of this URL, or nobody again."""
        self._server.port = None if url is None else urlsplit(url).port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    port: int | None = None

    def handle_error(self, *_: Any) -> None:
        """Who asked has gone."""


class _Handler(BaseHTTPRequestHandler):
    """Passes on one request of each connection, and the answer as it comes: it may be a stream."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        self.close_connection = True
        port = self.server.port
        if port is None or self.headers["Host"] != NOBODY:
            return self.send_error(502)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
        with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
            connection.request(self.command, urlsplit(self.path).path, body or None, headers)
            answer = connection.getresponse()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            with suppress(OSError):  # who asked may have heard enough
                while part := answer.read1():
                    self.wfile.write(part)
        return None

    do_GET = do_POST = do_DELETE = _pass_on  # noqa: N815
