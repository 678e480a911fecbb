"""The sandbox's HTTP side: Letta's routes and shapes, and the faults as they look on the wire."""

from __future__ import annotations

import contextlib
import hmac
import json
import logging
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, ValuesView
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache
from http.server import BaseHTTPRequestHandler
from itertools import islice
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
from promptyoself.sandbox import UUID4, AgentState, Fault, RunState, Sandbox, SandboxMessage
from promptyoself.sandbox.faults import APPROVAL, FAULTS, NO_REDIS
from promptyoself.sandbox.shapes import (
    agent_json,
    conversation_json,
    error_json,
    message_json,
    ping_json,
    run_json,
)

__all__ = ["Server"]

VERSION = "0.16.8"
_BODY_LIMIT = 8 * 1024 * 1024
_LINE_LIMIT, _HEADER_LIMIT = 65536, 100
MOST_CONNECTIONS = 1024
_IDLE = 60.0  # seconds until a silent connection is closed
_ACTIVE = frozenset({"created", "running"})
_STATUSES = _ACTIVE | {"completed", "failed", "cancelled"}
_USAGE = {
    "message_type": "usage_statistics",
    "completion_tokens": 5,
    "prompt_tokens": 10,
    "total_tokens": 15,
    "step_count": 1,
    "run_ids": None,
}
_log = logging.getLogger(__name__)

_STREAMED = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Transfer-Encoding": "chunked",
}

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


class _RefusedError(Exception):
    """Ends a request with this status and JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


class Server(BoundedServer):
    """Serves a sandbox on a thread per connection, none of which outlives it."""

    allow_reuse_address = True
    request_queue_size = 256

    def __init__(self, sandbox: Sandbox, host: str, port: int) -> None:
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.sandbox = sandbox
        self.stopping = threading.Event()
        self.most = most_connections(MOST_CONNECTIONS)
        self.to_reset: set[socket.socket] = set()
        super().__init__((host, port), _Handler)

    def shutdown_request(self, request: Any) -> None:
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
        _log.debug("a connection ended badly", exc_info=True)

    def close(self) -> None:
        self.stopping.set()
        self.sandbox._release()
        self.shutdown()
        self.server_close()
        for connection in list(self.open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Headers(dict[str, str]):
    """A request's headers, by their names in lower case; of several of a name the last."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name.lower(), default)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "promptyoself-sandbox"
    sys_version = ""
    timeout = _IDLE
    disable_nagle_algorithm = True
    server: Server
    raw_requestline: bytes
    _headers_buffer: list[bytes]

    def parse_request(self) -> bool:
        """The standard library's, without its parser of mail, which takes as long as the rest."""
        words = str(self.raw_requestline, "iso-8859-1").split()
        if len(words) != 3 or words[2] != "HTTP/1.1":
            return super().parse_request()  # to say what is wrong with it
        self.requestline = " ".join(words)
        self.command, self.path, self.request_version = words
        self.headers = headers = _Headers()  # type: ignore[assignment]
        self.close_connection = True
        while (line := self.rfile.readline(_LINE_LIMIT + 1)) not in (b"\r\n", b"\n", b""):
            if len(line) > _LINE_LIMIT or len(headers) >= _HEADER_LIMIT:
                self.send_error(431)
                return False
            name, _, value = str(line, "iso-8859-1").partition(":")
            headers[name.lower()] = value.strip()
        self.close_connection = headers.get("Connection", "").lower() == "close"
        if headers.get("Expect", "").lower() == "100-continue":
            return self.handle_expect_100()
        return True

    def date_time_string(self, timestamp: float | None = None) -> str:
        return _date(int(time.time() if timestamp is None else timestamp))

    def log_request(self, code: Any = "-", *_: Any) -> None:
        _log.debug("%s %s", self.requestline, code)

    def log_message(self, format: str, *args: Any) -> None:
        _log.debug(format, *args)

    def handle_one_request(self) -> None:
        """See :class:`BaseHTTPRequestHandler`; a head has a time limit, however slowly it comes."""
        self.server.is_asked(self.connection, waits=True)
        super().handle_one_request()

    def _serve(self) -> None:
        self._began = False
        self.server.is_asked(self.connection)
        try:
            try:
                self._require_own()
                self._route(self._body())
            except _RefusedError as refusal:
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

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815

    # -- what comes in

    def _require_own(self) -> None:
        """Refuse what a web page sends, by a name of its own or from where it is: faults are for
        whoever runs this."""
        host = self.headers.get("Host")
        if not is_own_name(host):
            self.close_connection = True
            raise _RefusedError(421, {"detail": "This name isn't this machine's."})
        if "/_sandbox/" not in self.path:
            return
        origin, site = self.headers.get("Origin"), self.headers.get("Sec-Fetch-Site")
        if not is_own_origin(origin, site, host):
            self.close_connection = True
            raise _RefusedError(403, {"detail": "Web pages may not set faults."})
        kind = (self.headers.get("Content-Type") or "").partition(";")[0].strip().lower()
        if self.command == "POST" and self._has_body() and kind != "application/json":
            self.close_connection = True
            raise _RefusedError(
                415, {"detail": "Send it with Content-Type: application/json, as no form can."}
            )

    def _has_body(self) -> bool:
        return (self.headers.get("Content-Length") or "0") != "0"

    def _body(self) -> Any:
        length = self.headers.get("Content-Length") or "0"
        if self.headers.get("Transfer-Encoding") or not re.fullmatch(r"[0-9]{1,15}", length):
            self.close_connection = True
            raise _RefusedError(411, {"detail": "Send a Content-Length."})
        if int(length) > _BODY_LIMIT:
            self.close_connection = True
            raise _RefusedError(413, {"detail": f"The body is larger than {_BODY_LIMIT} bytes."})
        data = self.rfile.read(int(length))
        if len(data) < int(length):
            raise ConnectionError("the body was cut off")
        if not data:
            return None
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return _RefusedError(422, {"trace_id": "", "detail": "[{'type': 'json_invalid'}]"})

    def _route(self, body: Any) -> None:
        sandbox = self.server.sandbox
        try:
            url = urlsplit(self.path)
        except ValueError:
            raise _RefusedError(400, {"detail": "Not a URL."}) from None
        path, several = url.path, parse_qs(url.query)
        query = {k: v[-1] for k, v in several.items()}
        if path in ("/v1/health", "/v1/agents", "/v1/runs", "/v1/conversations"):
            self._json(307, None, {"Location": self.path.replace(path, path + "/", 1)})
            return
        if sandbox._token and path != "/v1/health/":
            sent = self.headers.get("Authorization") or self.headers.get("X-BARE-PASSWORD") or ""
            wanted = sandbox._token.encode()
            if not hmac.compare_digest(sent.partition(" ")[2].encode("utf-8", "replace"), wanted):
                raise _RefusedError(401, {"detail": "Unauthorized"})
        if isinstance(body, _RefusedError):
            raise body
        if path.startswith("/_sandbox/"):
            self._json(200, self._control(path[10:], body))
            return
        with sandbox._lock:
            sandbox._settle()
            statuses = several.get("statuses", [])
            route, agent_id, action = self._action(path, query, statuses, body)
            sandbox.requests[route] += 1
            fault = sandbox._pick(route, agent_id)
            hold = fault.released if fault else threading.Event()
        self._answer(action, fault, hold)

    def _control(self, what: str, body: Any) -> Any:
        sandbox = self.server.sandbox
        match (self.command, what):
            case ("GET", "state"):
                return sandbox.state()
            case ("POST", "finish"):
                sandbox.finish_runs()
            case ("DELETE", "faults"):
                sandbox.clear_faults()
            case ("POST", "faults"):
                if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
                    raise PromptyoselfError(
                        "invalid_fault",
                        'Send {"kind": …} with its parameters.',
                        f"Kinds: {FAULTS}.",
                    )
                kind = body.pop("kind")
                if "self" in body or "kind" in body:
                    raise PromptyoselfError("invalid_fault", "No fault takes 'self'.")
                sandbox.fault(kind, **body)
            case _:
                raise _RefusedError(
                    404, {"detail": "There are GET state, POST and DELETE faults, POST finish."}
                )
        return {"faults": sandbox.state()["faults"]}

    # -- what is done

    def _action(
        self, path: str, query: dict[str, str], statuses: list[str], body: Any
    ) -> tuple[str, str | None, Callable[[Fault | None], Any]]:
        """Route, agent and the work of a request; all but a send is done before it is returned."""
        sandbox = self.server.sandbox
        asked = (self.command, *path.strip("/").split("/")[1:])

        def done(answer: Any) -> Callable[[Fault | None], Any]:
            return lambda _: answer

        match asked:
            case ("GET", "health"):
                return "health", None, done({"version": VERSION, "status": "ok"})
            case ("GET", "agents"):
                return "agents", None, done([agent_json(a) for a in self._agent_page(query)])
            case ("POST", "agents"):
                name = body.get("name") if isinstance(body, dict) else None
                agent_id = sandbox.create_agent(name if isinstance(name, str) else "agent")
                return "agents", None, done(agent_json(sandbox._agents[agent_id]))
            case ("GET", "agents", agent_id):
                detail = f"Agent with ID {agent_id} not found"
                agent = self._agent(agent_id, detail)
                return "agent", agent_id, done(agent_json(agent))
            case ("DELETE", "agents", agent_id):
                self._agent(agent_id, _missing("Agent", agent_id))
                sandbox.delete_agent(agent_id)
                answer = {"message": f"Agent id={agent_id} successfully deleted"}
                return "agent", agent_id, done(answer)
            case ("GET", "agents", agent_id, "messages"):
                rows = self._messages(self._agent(agent_id), query.get("conversation_id"), query)
                return "messages", agent_id, done([message_json(m) for m in rows])
            case ("POST", "agents", agent_id, "messages", "async"):
                agent, body = self._agent(agent_id), _checked(body)
                return (
                    "send",
                    agent_id,
                    lambda fault: run_json(sandbox._begin(agent, None, body, fault)),
                )
            case ("GET", "runs"):
                return "runs", query.get("agent_id"), done(self._run_page(query, statuses))
            case ("GET", "runs", run_id):
                if not re.fullmatch(f"run-{UUID4}", run_id):
                    raise _RefusedError(
                        400,
                        {
                            "detail": f"INVALID_ARGUMENT: Invalid run ID format: {run_id}. "
                            "Expected format: 'run-<uuid4>'"
                        },
                    )
                run = sandbox._runs.get(run_id)
                if run is None:
                    raise _RefusedError(404, {"detail": _missing("Run", run_id)})
                return "run", run.agent_id, done(run_json(run))
            case ("POST", "conversations"):
                agent = self._asked_for(query)
                new = sandbox.create_conversation(agent.id)
                return "conversations", agent.id, done(self._conversation_json(new))
            case ("GET", "conversations", conversation_id):
                agent = self._owner(conversation_id)
                return "conversations", agent.id, done(self._conversation_json(conversation_id))
            case ("GET", "conversations", conversation_id, "messages"):
                talker = self._talker(conversation_id)
                if talker is None:
                    return "messages", None, done([])
                rows = self._messages(talker, conversation_id, query)
                return "messages", talker.id, done([message_json(m) for m in reversed(rows)])
            case ("POST", "conversations", conversation_id, "messages"):
                agent, body = self._owner(conversation_id), _checked(body)
                if body.get("streaming", True) is not True:
                    raise _RefusedError(503, {"detail": "The sandbox does nothing but stream."})
                if body.get("background"):
                    sandbox._refuse_background(agent, conversation_id)
                    raise _RefusedError(503, {"detail": NO_REDIS})

                def begin(fault: Fault | None) -> RunState:
                    run = sandbox._begin(agent, conversation_id, body, fault)
                    run.status = "running"
                    return run

                return "send", agent.id, begin
        raise _RefusedError(404, {"detail": "Not Found"})

    def _agent(self, agent_id: str, detail: str = "Agent not found") -> AgentState:
        if not re.fullmatch(f"agent-{UUID4}", agent_id):
            raise _RefusedError(
                422,
                {
                    "trace_id": "",
                    "detail": "[{'type': 'string_pattern_mismatch', 'loc': ('path', 'agent_id'), "
                    "'msg': \"String should match pattern 'agent-{uuid4}'\"}]",
                    "examples": ["agent-123e4567-e89b-42d3-8456-426614174000"],
                },
            )
        agent = self.server.sandbox._agents.get(agent_id)
        if agent is None:
            raise _RefusedError(404, {"detail": detail})
        return agent

    def _asked_for(self, query: dict[str, str]) -> AgentState:
        """The agent that a new conversation is to be with."""
        if "agent_id" not in query:
            raise _unfit("missing", "query", "agent_id")
        agent = self.server.sandbox._agents.get(query["agent_id"])
        if agent is None:
            raise _RefusedError(404, {"detail": "Agent not found"})
        return agent

    def _talker(self, conversation_id: str) -> AgentState | None:
        """The agent of a conversation that is listed; one that isn't known has no messages."""
        if not re.fullmatch(f"(conv|agent)-{UUID4}|default", conversation_id):
            raise _unfit("string_pattern_mismatch", "path", "conversation_id")
        sandbox = self.server.sandbox
        owner, _ = sandbox._conversations.get(conversation_id, ("", None))
        return sandbox._agents.get(owner)

    def _owner(self, conversation_id: str) -> AgentState:
        if not re.fullmatch(f"conv-{UUID4}", conversation_id):
            raise _unfit("string_too_short", "path", "conversation_id")
        owner = self.server.sandbox._conversations.get(conversation_id)
        agent = self.server.sandbox._agents.get(owner[0]) if owner else None
        if agent is None:
            raise _RefusedError(404, {"detail": _missing("Conversation", conversation_id)})
        return agent

    def _conversation_json(self, conversation_id: str) -> dict[str, Any]:
        sandbox = self.server.sandbox
        agent_id, created_at = sandbox._conversations[conversation_id]
        history = sandbox._agents[agent_id].history
        mine = [message for message in history if message.conversation_id == conversation_id]
        return conversation_json(conversation_id, agent_id, created_at, mine)

    def _agent_page(self, query: dict[str, str]) -> list[AgentState]:
        rows = list(self.server.sandbox._agents.values())
        if query.get("order") != "asc":
            rows.reverse()
        if query.get("name"):
            rows = [a for a in rows if a.name == query["name"]]
        ids = [a.id for a in rows]
        if query.get("after") in ids:
            rows = rows[ids.index(query["after"]) + 1 :]
        elif query.get("before") in ids:
            rows = rows[: ids.index(query["before"])]
        return rows[: _limit(query, 50)]

    def _messages(
        self, agent: AgentState, conversation_id: str | None, query: dict[str, str]
    ) -> list[SandboxMessage]:
        rows = [m for m in agent.history if conversation_id in (None, m.conversation_id)]
        ids = [m.id for m in rows]
        for cursor in (query.get("before"), query.get("after")):
            if cursor is not None and cursor not in ids:
                detail = f"No message found with id '{cursor}' for agent '{agent.id}'."
                raise _RefusedError(404, {"detail": detail})
        if query.get("after"):
            rows = rows[ids.index(query["after"]) + 1 :]
        elif query.get("before"):
            rows = rows[: ids.index(query["before"])]
        limit = _limit(query, 100)
        if query.get("order", "desc") not in ("asc", "desc"):
            raise _unfit("literal_error", "query", "order")
        if query.get("order") == "asc":
            return rows[:limit]
        return rows[-limit:] if limit else []

    def _run_page(self, query: dict[str, str], statuses: list[str]) -> list[dict[str, Any]]:
        limit = _limit(query, 100)
        if limit < 1:
            raise _unfit("greater_than_equal", "query", "limit")
        if limit > 1000:
            raise _unfit("less_than_equal", "query", "limit")
        for status in statuses:
            if status not in _STATUSES:
                raise _RefusedError(400, {"detail": f"'{status}' is not a valid RunStatus"})
        sandbox, agent_id = self.server.sandbox, query.get("agent_id")
        if not statuses and query.get("active", "").lower() in ("true", "1"):
            statuses = list(_ACTIVE)
        rows: list[RunState] | ValuesView[RunState]
        cursors = query.keys() & {"before", "after"}
        if agent_id is not None:
            rows = sandbox._agents[agent_id].runs if agent_id in sandbox._agents else []
        elif statuses and _ACTIVE.issuperset(statuses) and not cursors:
            rows = sandbox._active.values()
        else:
            rows = sandbox._runs.values()
        if cursors:  # which may name a run that isn't wanted itself
            rows = _beyond(list(rows), query.get("before"), query.get("after"))
        wanted = (
            run
            for run in (rows if query.get("order") == "asc" else reversed(rows))
            if query.get("conversation_id") in (None, run.conversation_id)
            and (not statuses or run.status in statuses)
        )
        return [run_json(run) for run in islice(wanted, limit)]

    # -- what goes out

    def _answer(
        self, action: Callable[[Fault | None], Any], fault: Fault | None, hold: threading.Event
    ) -> None:
        """Carry out the action, or the fault, or both."""
        kind, params = (fault.kind, fault.params) if fault else ("", {})
        status, headers, stopping = 200, {}, self.server.stopping
        if kind == "slow":
            stopping.wait(params["seconds"])
        elif kind in _STATUS_FAULTS:
            status, body = _STATUS_FAULTS[kind]
            headers = {"Retry-After": "1"} if kind == "conflict" else {}
            return self._json(status, body, headers)
        elif kind in ("status", "out_of_credits"):
            headers = {"Retry-After": str(params["retry_after"])} if params["retry_after"] else {}
            return self._json(params.get("status", 402), {"detail": params["detail"]}, headers)
        elif kind == "rate_limit":
            wait = params["retry_after"]
            value = format_datetime(datetime.fromtimestamp(time.time() + wait, UTC), usegmt=True)
            headers = {"Retry-After": value if params["http_date"] else str(wait)}
            return self._json(429, {"error": {"type": "rate_limit"}}, headers)
        result = None
        if kind != "refuse" and params.get("stored", True):
            with self.server.sandbox._lock:
                result = action(fault)
        if kind in ("refuse", "lost_reply"):
            self.server.to_reset.add(self.connection)
            self.close_connection = True
        elif kind == "hang":
            while not hold.wait(0.05) and not stopping.is_set():
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
        data = b"" if body is None else _dumps(body)
        self._raw(status, data, "application/json", headers)

    def _raw(
        self, status: int, data: bytes, content_type: str, headers: dict[str, str] | None = None
    ) -> None:
        self._head(status, {"Content-Type": content_type, "Content-Length": str(len(data))})
        for name, value in (headers or {}).items():
            self.send_header(name, value)
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
        self._head(200, _STREAMED)
        self.end_headers()
        sandbox = self.server.sandbox
        for event in self._events(sandbox, run):
            data = event.encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")

    def _events(self, sandbox: Sandbox, run: RunState) -> Iterator[str]:
        yield f"data: {json.dumps(ping_json(run, sandbox._clock()))}\n\n"
        while run.status == "running":
            if self.server.stopping.wait(0.01):
                return
            with sandbox._lock:
                sandbox._settle()
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


def _beyond(rows: list[RunState], before: str | None, after: str | None) -> list[RunState]:
    """The older, or the newer, than some run; all where it isn't among them."""
    ids = [run.id for run in rows]
    if before in ids:
        return rows[: ids.index(before)]
    if after in ids:
        return rows[ids.index(after) + 1 :]
    return rows


def _limit(query: dict[str, str], default: int) -> int:
    value = query.get("limit", str(default))
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise _unfit("int_parsing", "query", "limit")
    return int(value)


def _dumps(body: Any) -> bytes:
    try:
        return orjson.dumps(body)
    except TypeError:  # a lone surrogate
        return json.dumps(body).encode()


@lru_cache(maxsize=2)
def _date(second: int) -> str:
    return format_datetime(datetime.fromtimestamp(second, UTC), usegmt=True)


def _checked(body: Any) -> dict[str, Any]:
    """A send's body, or 422 as the real server answers."""
    rows = body.get("messages") if isinstance(body, dict) else None
    if rows is None:
        raise _unfit("value_error", "body")
    if isinstance(rows, list) and all(
        isinstance(row, dict)
        and row.get("role") in ("user", "system", "assistant")
        and _is_content(row.get("content"))
        and isinstance(row.get("otid"), str | None)
        for row in rows
    ):
        return dict(body)
    raise _unfit("literal_error", "body", "messages")


def _is_content(value: Any) -> bool:
    """Text, or parts of it."""
    if isinstance(value, list):
        return all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value)
    return isinstance(value, str)


def _unfit(kind: str, *where: str) -> _RefusedError:
    """What is answered to a request of the wrong form, as far as a program might read it."""
    return _RefusedError(422, {"trace_id": "", "detail": f"[{{'type': '{kind}', 'loc': {where}}}]"})


def _missing(thing: str, id_: str) -> str:
    actor = "id='user-00000000-0000-4000-8000-000000000000'"
    return f"{thing} not found with id='['{id_}']', access level in ['read'] for actor='{actor}'"
