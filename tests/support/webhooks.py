"""A stand-in for what takes webhooks: it writes down what it gets, and misbehaves on demand."""

import json
import ssl
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, NamedTuple


class Received(NamedTuple):
    """A request as it came in. The names of headers are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def id(self) -> str:
        """The notice's id."""
        return self.headers["webhook-id"]

    @property
    def json(self) -> Any:
        """The body as it is meant."""
        return json.loads(self.body)


class Answer(NamedTuple):
    """How a request is answered, after ``delay`` seconds."""

    status: int = 204
    headers: dict[str, str] = {}  # noqa: RUF012
    body: bytes = b""
    delay: float = 0.0


Fault = Literal["silent", "drip", "lost", "dropped"]
"""``silent``: the request is taken and never answered. ``drip``: the answer comes a byte at a time
and never ends. ``lost``: the request is taken, and the connection is closed without an answer.
``dropped``: the same, but it isn't taken."""


class Webhook:
    """A server of its own for a test."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.received: list[Received] = []
        self.always: Answer | Fault = Answer()
        """How requests are answered for which nothing else was planned."""
        self.ending = threading.Event()
        self._planned: deque[Answer | Fault] = deque()

    def plan(self, *answers: Answer | Fault) -> None:
        """How the next requests are answered, one after another."""
        self._planned.extend(answers)

    @property
    def ids(self) -> list[str]:
        """The ids of the notices that came in, in order, each as often as it came."""
        return [request.id for request in self.received]

    def answer_to(self, request: Received) -> Answer | Fault:
        """Take a request, and say how it is answered."""
        answer = self._planned.popleft() if self._planned else self.always
        if answer != "dropped":
            self.received.append(request)
        return answer


@contextmanager
def webhook(tls: ssl.SSLContext | None = None, kind: type[Webhook] = Webhook) -> Iterator[Webhook]:
    """A webhook that takes everything (204), until a test says otherwise. With ``tls`` it is at
    ``https://localhost``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Received(self.path, headers, self.rfile.read(length))
            answer = stand_in.answer_to(request)
            if isinstance(answer, Answer):
                self._say(answer)
                return
            self.close_connection = True
            if answer == "silent":
                stand_in.ending.wait()
            elif answer == "drip":
                self._drip()

        def _say(self, answer: Answer) -> None:
            stand_in.ending.wait(answer.delay)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if answer.status != 204:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def _drip(self) -> None:
            with suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Drip: ")
                while not stand_in.ending.wait(0.02):
                    self.wfile.write(b"x")

        def do_GET(self) -> None:  # where a redirect would lead
            stand_in.received.append(Received(self.path, {}, b""))
            self._say(Answer())

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as server:
        where = "http://127.0.0.1" if tls is None else "https://localhost"
        stand_in = kind(f"{where}:{server.server_address[1]}/hook")
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield stand_in
        finally:
            stand_in.ending.set()
            server.shutdown()
            thread.join()
