"""The sandbox's HTTP side: requests read, answers written, and faults as they look on the wire."""

import contextlib
import hmac
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson

from promptyoself.core.connections import (
    BoundedServer,
    is_own_name,
    is_own_origin,
    most_connections,
)
from promptyoself.core.errors import PromptyoselfError
from promptyoself.sandbox.agents import Agents, RunState
from promptyoself.sandbox.faults import APPROVAL, FAULTS, Fault, FaultQueue
from promptyoself.sandbox.routes import Call, Refused, Request, find
from promptyoself.sandbox.shapes import error_json, message_json, ping_json, run_json

MOST_CONNECTIONS = 1024
_MOST_BODY_BYTES = 8 * 1024 * 1024
_IDLE_SECONDS = 60.0  # until a silent connection is closed
_USAGE = {
    "message_type": "usage_statistics",
    "completion_tokens": 5,
    "prompt_tokens": 10,
    "total_tokens": 15,
    "step_count": 1,
    "run_ids": None,
}
_log = logging.getLogger(__name__)

_STATUS_FAULTS: dict[str, tuple[int, Any]] = {
    "pending_approval": (
        409,
        {
            "detail": {
                "code": "PENDINGAPPROVAL",
                "message": APPROVAL,
                "pending_request_id": "message-00000000-0000-4000-8000-000000000000",
            }
        },
    ),
    "busy": (
        409,
        {
            "detail": "CONFLICT: Cannot send a new message: Another request is currently being "
            "processed for this conversation. Please wait for the current request to complete."
        },
    ),
    "conflict": (
        409,
        {"detail": "The resource is currently locked by another operation. Please retry shortly."},
    ),
    "unauthorized": (401, {"detail": "Unauthorized"}),
    "not_found": (404, {"detail": "Agent not found"}),
    "unprocessable": (422, {"trace_id": "", "detail": "[{'type': 'a fault on demand'}]"}),
}
"""The faults that are a status with a body, and nothing else."""


class Server(BoundedServer):
    """Serves a sandbox on a thread per connection, none of which outlives it."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(
        self,
        agents: Agents,
        faults: FaultQueue,
        state: Callable[[], dict[str, Any]],
        token: str | None,
        address: tuple[str, int],
    ) -> None:
        """``state`` is what ``GET /_sandbox/state`` answers. Raises OSError and what else an
        address that can't be listened on brings about."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.agents, self.faults, self.state, self.token = agents, faults, state, token
        self.stopping = threading.Event()
        self.most = most_connections(MOST_CONNECTIONS)
        self.to_reset: set[socket.socket] = set()
        super().__init__(address, _Handler)

    def shutdown_request(self, request: Any) -> None:
        """See :class:`BoundedServer`; a connection that is to be reset is closed without a word."""
        if request in self.to_reset:
            self.to_reset.discard(request)
            linger = struct.pack("ii", 1, 0)  # close at once and say so: a reset
            with contextlib.suppress(OSError):
                request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.forget(request)
            self.close_request(request)
        else:
            super().shutdown_request(request)

    def handle_error(self, *_: Any) -> None:
        """See :class:`socketserver.BaseServer`; stderr is for people."""
        _log.debug("a connection ended badly", exc_info=True)

    def close(self) -> None:
        """Stop listening, and cut every connection."""
        self.stopping.set()
        with self.agents.lock:
            self.faults.release()
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "promptyoself-sandbox"
    sys_version = ""
    timeout = _IDLE_SECONDS
    disable_nagle_algorithm = True
    server: Server
    _headers_buffer: list[bytes]

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def handle_one_request(self) -> None:
        """See :class:`BaseHTTPRequestHandler`. Until its head is there, a connection may have to
        make room for another."""
        self.server.is_asked(self.connection, waits=True)
        super().handle_one_request()

    def _serve(self) -> None:
        self._began = False
        self.server.is_asked(self.connection)
        try:
            try:
                self._require_own()
                self._dispatch(self._body())
            except Refused as refusal:
                self._json(refusal.status, refusal.body)
            except PromptyoselfError as err:
                self._json(400, {"detail": f"{err.message} {err.hint}".strip(), "code": err.code})
        except OSError:  # the peer has gone, or is too slow
            self.close_connection = True
        except Exception:
            _log.exception("the sandbox itself failed")
            self.close_connection = True
            if not self._began:
                with contextlib.suppress(OSError):
                    self._json(500, {"detail": "An unknown error occurred"})

    do_GET = do_POST = do_PATCH = do_DELETE = _serve  # noqa: N815

    # -- what comes in

    def _require_own(self) -> None:
        """Refuse what a web page sends: by a name of its own, or a fault from where it is. Faults
        are for the person who runs this."""
        host = self.headers.get("Host")
        if not is_own_name(host):
            raise self._last(421, "This name isn't this machine's.")
        if "/_sandbox/" not in self.path:
            return
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if not is_own_origin(origin, site, host):
            raise self._last(403, "Web pages may not set faults.")
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        has_body = (self.headers.get("Content-Length") or "0") != "0"
        if self.command == "POST" and has_body and kind != "application/json":
            raise self._last(415, "Send it with Content-Type: application/json, as no form can.")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not re.fullmatch(r"[0-9]{1,15}", length):
            raise self._last(411, "Send a Content-Length.")
        if int(length) > _MOST_BODY_BYTES:
            raise self._last(413, f"The body is larger than {_MOST_BODY_BYTES} bytes.")
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError("the body was cut off")
        return data

    def _last(self, status: int, detail: str) -> Refused:
        """The refusal of a request after which the connection is of no more use."""
        self.close_connection = True
        return Refused(status, {"detail": detail})

    def _dispatch(self, data: bytes) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError:
            raise Refused(400, {"detail": "Not a URL."}) from None
        path, query = url.path, parse_qs(url.query)
        if path in ("/v1/health", "/v1/agents", "/v1/runs", "/v1/conversations"):
            where = {"Location": self.path.replace(path, path + "/", 1)}
            self._raw(307, b"", "application/json", where)
            return
        self._require_token(path)
        body = _parsed(data)
        if path.startswith("/_sandbox/"):
            self._json(200, self._control(path[10:], body))
            return
        last = {name: values[-1] for name, values in query.items()}
        request = Request(self.command, path, last, query.get("statuses", []), body)
        agents = self.server.agents
        with agents.lock:
            agents.end_runs()
            call = find(agents, request)
            agents.requests[call.route] += 1
            fault = self.server.faults.pick(call.route, call.agent_id)
            released = fault.released if fault else threading.Event()
        self._answer(call, fault, released)

    def _require_token(self, path: str) -> None:
        if self.server.token and path != "/v1/health/":
            sent = self.headers.get("Authorization") or self.headers.get("X-BARE-PASSWORD") or ""
            given = sent.partition(" ")[2].encode("utf-8", "replace")
            if not hmac.compare_digest(given, self.server.token.encode()):
                raise Refused(401, {"detail": "Unauthorized"})

    def _control(self, name: str, body: Any) -> Any:
        """What is asked of the sandbox itself."""
        server = self.server
        with server.agents.lock:
            match (self.command, name):
                case ("GET", "state"):
                    return server.state()
                case ("POST", "finish"):
                    server.agents.end_runs(float("inf"))
                case ("DELETE", "faults"):
                    server.faults.clear()
                case ("POST", "faults"):
                    if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
                        text = 'Send {"kind": …} with its parameters.'
                        raise PromptyoselfError("invalid_fault", text, f"Kinds: {FAULTS}.")
                    server.faults.add(body.pop("kind"), **body)
                case _:
                    detail = "There are GET state, POST and DELETE faults, POST finish."
                    raise Refused(404, {"detail": detail})
            return {"faults": server.faults.state()}

    # -- what goes out

    def _answer(self, call: Call, fault: Fault | None, released: threading.Event) -> None:
        """Carry out the call, or the fault, or both."""
        kind, params = (fault.kind, fault.params) if fault else ("", {})
        stopping = self.server.stopping
        refusal = _refusal(kind, params)
        if refusal is not None:
            return self._json(*refusal)
        if kind == "slow":
            stopping.wait(params["seconds"])
        result = None
        if kind != "refuse" and params.get("stored", True):
            with self.server.agents.lock:
                result = call.run(fault)
        if kind in ("refuse", "lost_reply"):
            self.server.to_reset.add(self.connection)
            self.close_connection = True
        elif kind == "hang":
            while not released.wait(0.05) and not stopping.is_set():
                pass
            self.close_connection = True
        elif kind == "server_error":
            self._json(params["status"], {"detail": params["detail"]})
        elif kind == "garbage":
            self._raw(200, params["body"].encode(), "text/html")
        elif kind == "wrong_shape":
            self._json(200, ["this", "is", "not", "it"] if result is None else [result])
        elif kind == "drip":
            body = result if not isinstance(result, RunState) else run_json(result)
            self._drip(json.dumps(body).encode(), params)
        elif isinstance(result, RunState):
            self._stream(result)
        else:
            self._json(200, result)
        return None

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._raw(status, _encoded(body), "application/json", headers)

    def _raw(
        self, status: int, data: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        described = {"Content-Type": content_type, "Content-Length": str(len(data))}
        self._head(status, {**described, **(headers or {})})
        self._headers_buffer.append(b"\r\n" + data)  # so that it leaves in one piece
        self.flush_headers()

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self._began = True
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")

    def _drip(self, data: bytes, params: dict[str, Any]) -> None:
        self.close_connection = True
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
        head += str(len(data)).encode() + b"\r\nConnection: close\r\n\r\n"
        if params["where"] == "body":
            self.wfile.write(head)
        else:
            data = head + data
        for byte in data:
            self.wfile.write(bytes([byte]))
            if self.server.stopping.wait(params["interval"]):
                return

    def _stream(self, run: RunState) -> None:
        """A run's server-sent events: a ping at once, the answer when it is there."""
        content_type = "text/event-stream; charset=utf-8"
        self._head(200, {"Content-Type": content_type, "Transfer-Encoding": "chunked"})
        self.end_headers()
        for event in self._events(run):
            data = event.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _events(self, run: RunState) -> Iterator[str]:
        agents = self.server.agents
        yield f"data: {json.dumps(ping_json(run, agents.clock()))}\n\n"
        while run.status == "running":
            if self.server.stopping.wait(0.01):
                return
            with agents.lock:
                agents.end_runs()
        for answer in run.answers:
            yield f"data: {json.dumps(message_json(answer))}\n\n"
        reason = "llm_api_error" if run.error else "end_turn"
        yield f'data: {{"message_type":"stop_reason","stop_reason":"{reason}"}}\n\n'
        if run.error:
            yield f"event: error\ndata: {json.dumps(error_json(run))}\n\n"
        else:
            yield f"data: {json.dumps(_USAGE)}\n\n"
        if not (run.error and run.answers):  # where a later step failed, it just ends
            yield "data: [DONE]\n\n"


def _refusal(kind: str, params: dict[str, Any]) -> tuple[int, Any, dict[str, str]] | None:
    """Status, body and headers of a fault that is an error answer before anything is done."""
    if kind in _STATUS_FAULTS:
        return *_STATUS_FAULTS[kind], {"Retry-After": "1"} if kind == "conflict" else {}
    if kind in ("status", "out_of_credits"):
        headers = {"Retry-After": str(params["retry_after"])} if params["retry_after"] else {}
        return params.get("status", 402), {"detail": params["detail"]}, headers
    if kind == "rate_limit":
        wait = params["retry_after"]
        until = datetime.fromtimestamp(time.time() + wait, UTC)
        value = format_datetime(until, usegmt=True) if params["http_date"] else str(wait)
        return 429, {"error": {"type": "rate_limit"}}, {"Retry-After": value}
    return None


def _parsed(data: bytes) -> Any:
    """A request's JSON; nothing where there is no body. Raises Refused where it is none."""
    try:
        return json.loads(data) if data else None
    except (ValueError, RecursionError):
        raise Refused(422, {"trace_id": "", "detail": "[{'type': 'json_invalid'}]"}) from None


def _encoded(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate
        return json.dumps(body).encode()
