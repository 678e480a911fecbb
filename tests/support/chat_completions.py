"""OpenAI's HTTP interface for language models, on loopback, without a mind: what the models of the
two real Lettas have in common."""

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

Message = dict[str, Any]


class Fail(NamedTuple):
    """Answer with this status."""

    status: int = 500
    code: str = "server_error"


class Call(NamedTuple):
    """Answer with a call of a tool, whereupon the agent's program asks again."""

    tool: str
    arguments: dict[str, Any] = {}  # noqa: RUF012


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def last_said(messages: list[Message]) -> str:
    """What the user said last."""
    for message in reversed(messages):
        if message["role"] == "user":
            return text_of(message)
    return ""


def text_of(message: Message) -> str:
    """The text of a message, whose content may come in parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)


class Listener(ThreadingHTTPServer):
    """Listens on a port that the system chooses, from its making until :meth:`close`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 256

    def __init__(self, handler: type["Handler"], owner: Any) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.owner = owner
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Who asked has gone; Lettas are killed now and then."""


class Handler(BaseHTTPRequestHandler):
    """Takes a request to pieces. :meth:`complete` answers it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Listener
    model: str  # its name, as who asks is told

    def complete(self, path: list[str], body: dict[str, Any]) -> None:
        """Answer a completion that was asked for at this path, which ends with ``/v1/…``."""
        raise NotImplementedError

    def listed(self) -> dict[str, Any]:
        """What is told of the model where models are listed."""
        return {"id": self.model, "object": "model"}

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self.send_json(200, {"object": "list", "data": [self.listed()]})
        else:
            self.send_json(404, {"error": {"message": f"No {self.path} here."}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        path = unquote(urlsplit(self.path).path).strip("/").split("/")
        if path[-3:] == ["v1", "chat", "completions"]:
            self.complete(path[:-3], body)
        else:
            self.send_json(404, {"error": {"message": f"No {self.path} here."}})

    def send_failure(self, failure: Fail, headers: dict[str, str] | None = None) -> None:
        """Answer that it failed."""
        error = {"message": "a failure on demand", "code": failure.code, "type": failure.code}
        self.send_json(failure.status, {"error": error}, headers)

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

    def send_completion(self, body: dict[str, Any], answer: str | Call, drip: float = 0.0) -> None:
        """Answer a request that came well: at once or as a stream, as it asks.

        ``drip`` is how many seconds a stream stands still after its first piece.
        """
        message, reason = _message(answer)
        if body.get("stream"):
            return self._send_events(self._events(message, reason, drip))
        choice = {"index": 0, "message": message, "finish_reason": reason}
        head = self._head("chat.completion")
        return self.send_json(200, {**head, "choices": [choice], "usage": USAGE})

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

    def _events(self, message: Message, reason: str, drip: float) -> Iterator[dict[str, Any]]:
        head = self._head("chat.completion.chunk")
        for number, delta in enumerate(_deltas(message)):
            if number == 1 and drip:
                time.sleep(drip)
            yield {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
        yield {**head, "choices": [], "usage": USAGE}

    def _head(self, kind: str) -> dict[str, Any]:
        identity = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
        return {**identity, "object": kind, "model": self.model}


def _message(answer: str | Call) -> tuple[Message, str]:
    """The model's message, and why it ends there."""
    if isinstance(answer, str):
        return {"role": "assistant", "content": answer}, "stop"
    function = {"name": answer.tool, "arguments": json.dumps(answer.arguments)}
    call = {"id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"


def _deltas(message: Message) -> list[Message]:
    """A message in pieces: a text in two, so that a stream can stop between them."""
    if calls := message.get("tool_calls"):
        return [{**message, "tool_calls": [{"index": n, **call} for n, call in enumerate(calls)]}]
    text = message["content"]
    return [{**message, "content": text[:2]}, {"content": text[2:]}]
