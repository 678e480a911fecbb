"""A language model for the real Letta server: OpenAI's HTTP interface on loopback, without a mind.

Each agent gets an address of its own (:meth:`Model.address`), so that what it asked can be told
apart, and what it is to be answered be planned. Without a plan it is answered ``You said: …``.
"""

import contextlib
import json
import threading
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

NAME = "gpt-4o-mini"


class Fail(NamedTuple):
    """Answer with this status. Who asked is told not to try again by itself."""

    status: int = 500
    code: str = "server_error"


class Call(NamedTuple):
    """Answer with a call of a tool, whereupon Letta asks again."""

    tool: str
    arguments: dict[str, Any] = {}  # noqa: RUF012


FAIL = Fail()


class Model:
    """The model, listening from its making until :meth:`close`. Any method from any thread.

    ``latency`` is how long it thinks, in seconds; :meth:`hold` lets it think until :meth:`finish`.
    """

    def __init__(self) -> None:
        self.latency = 0.0
        self._plans: dict[str, deque[Fail | Call]] = defaultdict(deque)
        self._asked: dict[str, list[list[dict[str, Any]]]] = defaultdict(list)
        self._lock = threading.Lock()
        self._open = threading.Event()
        self._open.set()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.model = self
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def address(self, agent: str) -> str:
        """The base URL for one agent, by whatever name."""
        return f"http://127.0.0.1:{self._server.server_port}/{agent}/v1"

    def plan(self, agent: str, *steps: Fail | Call) -> None:
        """How the agent's next requests are answered, one each."""
        with self._lock:
            self._plans[agent].extend(steps)

    def asked(self, agent: str) -> list[list[dict[str, Any]]]:
        """The messages of each request of an agent, in the order of arrival."""
        with self._lock:
            return list(self._asked[agent])

    def hold(self) -> None:
        """Answer nobody until :meth:`finish`."""
        self._open.clear()

    def finish(self) -> None:
        """Answer those that wait, and all that come."""
        self._open.set()

    def close(self) -> None:
        """Stop listening."""
        self._open.set()
        self._server.shutdown()
        self._server.server_close()

    def take(self, agent: str, messages: list[dict[str, Any]]) -> Fail | Call | None:
        """Note a request, think, and say what was planned for it."""
        with self._lock:
            self._asked[agent].append(messages)
            plan = self._plans[agent]
            step = plan.popleft() if plan else None
        self._open.wait(600)
        if self.latency:
            time.sleep(self.latency)
        return step


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 256
    model: Model

    def handle_error(self, *_: Any) -> None:
        """Who asked has gone; Letta is killed now and then."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        if self.path.endswith("/models"):
            self._json(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})
        else:
            self._json(404, {"error": {"message": f"No {self.path} here."}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, agent, _, *what = unquote(urlsplit(self.path).path).split("/")
        if what != ["chat", "completions"]:
            return self._json(404, {"error": {"message": f"No {self.path} here."}})
        step = self.server.model.take(agent, body["messages"])
        if isinstance(step, Fail):
            error = {"message": "a failure on demand", "code": step.code, "type": step.code}
            return self._json(step.status, {"error": error}, {"x-should-retry": "false"})
        if isinstance(step, Call):
            function = {"name": step.tool, "arguments": json.dumps(step.arguments)}
            call = {"id": f"call_{uuid.uuid4().hex[:20]}", "type": "function", "function": function}
            message, why = (
                {"role": "assistant", "content": None, "tool_calls": [call]},
                "tool_calls",
            )
        else:
            text = f"You said: {_said(body['messages'])[:200]}"
            message, why = {"role": "assistant", "content": text}, "stop"
        if body.get("stream"):
            return self._stream(message, why)
        choice = {"index": 0, "message": message, "finish_reason": why}
        return self._json(200, {**_head("chat.completion"), "choices": [choice], "usage": _USAGE})

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, message: dict[str, Any], why: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            for event in _events(message, why):
                self.wfile.write(f"data: {event}\n\n".encode())


_USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def _head(kind: str) -> dict[str, Any]:
    identity = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time())}
    return {**identity, "object": kind, "model": NAME}


def _events(message: dict[str, Any], why: str) -> Iterator[str]:
    calls = [{"index": n, **call} for n, call in enumerate(message.get("tool_calls", ()))]
    delta = {**message, "tool_calls": calls} if calls else message
    head = _head("chat.completion.chunk")
    yield json.dumps({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield json.dumps({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": why}]})
    yield json.dumps({**head, "choices": [], "usage": _USAGE})
    yield "[DONE]"


def _said(messages: list[dict[str, Any]]) -> str:
    """What the user said last."""
    for message in reversed(messages):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content)
    return ""
