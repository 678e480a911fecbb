"""OpenAI's HTTP interface for language models, on loopback, without a mind: a subclass of
:class:`Handler` knows what to answer.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

Message = dict[str, Any]

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def last_said(messages: list[Message]) -> list[str]:
    """What the user said last, in the parts in which it was sent."""
    for message in reversed(messages):
        if message["role"] == "user":
            return parts_of(message)
    return []


def parts_of(message: Message) -> list[str]:
    """The texts of a message, whose content may come in parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return [content]
    return [part.get("text", "") for part in content]


class Listener(ThreadingHTTPServer):
    """Listens on a port that the system chooses, from its making until :meth:`close`.

    ``owner`` is what its handlers ask.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, handler: type[Handler], owner: Any = None) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.server_port}/v1"

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Do nothing: the client has gone, as Lettas that are killed do."""


class Handler(BaseHTTPRequestHandler):
    """Takes a request to pieces. :meth:`complete` answers it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    model: str  # its name, as the client is told

    def complete(self, path: list[str], body: dict[str, Any]) -> None:
        """Answer a completion that was asked for at this path, which ends with ``/v1/…``."""
        raise NotImplementedError

    def listed(self) -> dict[str, Any]:
        """What is told of the model where models are listed."""
        return {"id": self.model, "object": "model"}

    def log_message(self, *_: Any) -> None:
        """Write no log."""

    def do_GET(self) -> None:
        """List the model."""
        if self.path.endswith("/models"):
            self.send_json(200, {"object": "list", "data": [self.listed()]})
        else:
            self._send_nothing_here()

    def do_POST(self) -> None:
        """Take a completion that is asked for."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        if path[-3:] == ["v1", "chat", "completions"]:
            self.complete(path[:-3], body)
        else:
            self._send_nothing_here()

    def send_json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        """Answer with one document."""
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def send_message(
        self, body: dict[str, Any], message: Message, pieces: Iterable[Message], reason: str
    ) -> None:
        """Answer a request with a message, at once or as a stream, as it asks.

        ``pieces`` are those of a stream, and ``reason`` is why the message ends there.
        """
        if body.get("stream"):
            return self._send_events(self._events(pieces, reason))
        choice = {"index": 0, "message": message, "finish_reason": reason}
        head = self._head("chat.completion")
        return self.send_json(200, {**head, "choices": [choice], "usage": USAGE})

    def _send_nothing_here(self) -> None:
        self.send_json(404, {"error": {"message": f"No {self.path} here."}})

    def _send_events(self, events: Iterable[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for event in events:
                self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            self.wfile.write(b"data: [DONE]\n\n")

    def _events(self, pieces: Iterable[Message], reason: str) -> Iterator[dict[str, Any]]:
        head = self._head("chat.completion.chunk")
        for piece in pieces:
            yield {**head, "choices": [{"index": 0, "delta": piece, "finish_reason": None}]}
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {**head, "choices": [], "usage": USAGE}

    def _head(self, kind: str) -> dict[str, Any]:
        identity = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        return {**identity, "object": kind, "model": self.model}
