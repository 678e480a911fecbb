"""A stand-in for what Letta's cloud adds to a Letta server: the queue of messages for agents of
Letta Code. It is written from what Letta Code 0.34.12 sends and reads; nobody here has run the real
one. What Letta Code wouldn't send is refused, so that a wrong request fails a test."""

from __future__ import annotations

import json
import re
import struct
import threading
import time
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SO_LINGER, SOL_SOCKET
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KEY = "sk-let-cloud"


@dataclass
class Talk:
    """A conversation, and what has been said in it."""

    id: str
    agent_id: str
    summary: str | None
    messages: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class SuperRun:
    """What became of a message that was put into the queue."""

    id: str
    agent_id: str
    talk: Talk
    otid: str
    text: str
    ends_at: float  # by the monotonic clock
    outcome: str  # completed | errored | cancelled | run_failed | silent
    run_id: str | None = None
    ended: str | None = None  # when, as the cloud writes it

    def document(self) -> dict[str, Any]:
        """As the cloud tells it."""
        ended = {"completed_at": None, "errored_at": None, "cancelled_at": None}
        status, error = ("RUN" if self.run_id else "QUE"), None
        if self.ended:
            status, name = {
                "errored": ("ERR", "errored_at"),
                "cancelled": ("CAN", "cancelled_at"),
            }.get(self.outcome, ("COM", "completed_at"))
            ended[name] = self.ended
            if self.outcome == "errored":
                error = {"code": "sandbox_start", "message": "The sandbox didn't start."}
        run_ids = [self.run_id] if self.run_id else []
        return {"id": self.id, "status": status, "run_ids": run_ids, **ended, "error": error}


class Cloud:
    """The stand-in. Use it as a context manager.

    ``latency`` is how many seconds a turn takes; ``outcome`` is what becomes of the next ones. A
    list of conversations has all of an agent's unless it ``searches``.
    """

    def __init__(self, latency: float = 0.02) -> None:
        self.latency = latency
        self.outcome = "completed"
        self.tools: list[str] = []  # that are called in the next turn
        self.searches = True
        self.agents: list[str] = []
        self.talks: dict[str, Talk] = {}
        self.super_runs: dict[str, SuperRun] = {}
        self.requests: Counter[str] = Counter()  # by method and route
        self.lock = threading.RLock()
        self._faults: dict[str, deque[tuple[Any, ...]]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.cloud = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Cloud:
        run = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        run.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def agent(self) -> str:
        """Make an agent; returns its id."""
        self.agents.append(f"agent-{uuid.uuid4()}")
        return self.agents[-1]

    def conversation(self, agent_id: str, summary: str | None = None) -> str:
        """Begin a conversation; returns its id."""
        talk = Talk(f"conv-{uuid.uuid4()}", agent_id, summary)
        self.talks[talk.id] = talk
        return talk.id

    def fault(self, route: str, *answer: Any) -> None:
        """The next request of a route (its method and what its path ends with, as in ``requests``)
        gets a status and a body, and headers if there is a third. Or it is ``reset`` before it is
        done, or ``lost`` after."""
        self._faults.setdefault(route, deque()).append(answer)

    def finish(self) -> None:
        """End every turn, and let the next ones end soon."""
        self.latency = 0.02
        for super_run in self.super_runs.values():
            super_run.ends_at = 0

    def copies(self, agent_id: str) -> Counter[str]:
        """How often each otid stands in an agent's conversations."""
        with self.lock:
            self.move()
            rows = [m for t in self.talks.values() if t.agent_id == agent_id for m in t.messages]
        return Counter(row["otid"] for row in rows if row["message_type"] == "user_message")

    # -- what it does

    def move(self) -> None:
        """End the turns whose time has come."""
        for super_run in self.super_runs.values():
            if super_run.ended or super_run.ends_at > time.monotonic():
                continue
            super_run.ended = datetime.now(UTC).isoformat()
            if super_run.outcome in ("errored", "cancelled"):
                continue
            super_run.run_id = f"run-{uuid.uuid4()}"
            said = [("user_message", super_run.text, super_run.otid)]
            calls, self.tools = self.tools, []
            said += [("tool_call_message", tool, str(uuid.uuid4())) for tool in calls]
            if super_run.outcome == "completed":
                said.append(("assistant_message", "Yes.", str(uuid.uuid4())))
            for kind, text, otid in said if super_run.outcome != "silent" else []:
                super_run.talk.messages.append(
                    {
                        "id": f"message-{uuid.uuid4()}",
                        "date": datetime.now(UTC).isoformat(timespec="seconds"),
                        "message_type": kind,
                        "otid": otid,
                        "run_id": super_run.run_id,
                        **_content(kind, text),
                    }
                )

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> tuple[int, Any]:
        """Status and JSON of a request."""
        self.move()
        for pattern, handler in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                return handler(self, query, body, *map(unquote, match.groups()))
        return 404, {"detail": "Not Found"}

    def route(self, method: str, path: str) -> str:
        """A request's name in ``requests``."""
        return f"{method} {re.sub(r'(agent|conv|message|run|super)-[^/]+', '*', path)[3:]}"

    def faulty(self, route: str) -> tuple[Any, ...] | None:
        """The fault of a request, if there is one."""
        waiting = self._faults.get(route)
        return waiting.popleft() if waiting else None

    def _talk(self, talk_id: str, agent_id: str | None) -> Talk | None:
        if talk_id == "default" and agent_id in self.agents:
            return self.talks.setdefault(agent_id, Talk("default", agent_id, None))
        return self.talks.get(talk_id)

    def _enqueue(self, query: dict[str, str], body: Any, talk_id: str) -> tuple[int, Any]:
        talk = self._talk(talk_id, body["agent_id"])
        if talk is None or talk.agent_id != body["agent_id"]:
            return 404, {"detail": f"Conversation not found with id='{talk_id}'"}
        otid = body["client_message_id"]
        (message,) = body["messages"]
        strict = {
            "agent_id": talk.agent_id,
            "client_message_id": otid,
            "messages": [
                {"role": "user", "content": message["content"], "client_message_id": otid}
            ],
        }
        if query or body != strict or str(uuid.UUID(otid)) != otid:
            return 422, {"detail": f"not what Letta Code sends: {body}"}
        id_ = f"super-{uuid.uuid4()}"
        self.super_runs[id_] = SuperRun(
            *(id_, talk.agent_id, talk, otid, message["content"]),
            time.monotonic() + self.latency,
            self.outcome,
        )
        receipt = {"workflow_id": f"wf-{otid}", "super_run_id": id_, "client_message_id": otid}
        return 200, receipt

    def _super_run(self, _: Any, __: Any, agent_id: str, id_: str) -> tuple[int, Any]:
        super_run = self.super_runs.get(id_)
        if super_run is None or super_run.agent_id != agent_id:
            return 404, {"detail": f"Super run not found with id='{id_}'"}
        return 200, super_run.document()

    def _latest(self, _: Any, __: Any, talk_id: str) -> tuple[int, Any]:
        runs = [run for run in self.super_runs.values() if run.talk.id == talk_id]
        if not runs:
            return 404, {"detail": f"No super run of conversation id='{talk_id}'"}
        return 200, runs[-1].document()

    def _create(self, query: dict[str, str], body: Any) -> tuple[int, Any]:
        agent_id = query["agent_id"]
        if agent_id not in self.agents:
            return 404, {"detail": f"Agent not found with id='{agent_id}'"}
        return 200, _talk_document(self.talks[self.conversation(agent_id, body["summary"])])

    def _list(self, query: dict[str, str], _: Any) -> tuple[int, Any]:
        known = {"agent_id", "summary_search", "order", "limit", "archive_status"}
        assert set(query) <= known, query
        rows = [
            _talk_document(talk)
            for talk in self.talks.values()
            if talk.agent_id == query["agent_id"]
            and (not self.searches or query["summary_search"] in (talk.summary or ""))
        ]
        return 200, rows[::-1][: int(query.get("limit", "50"))]

    def _show(self, _: Any, __: Any, talk_id: str) -> tuple[int, Any]:
        talk = self.talks.get(talk_id)
        if talk is None:
            return 404, {"detail": f"Conversation not found with id='{talk_id}'"}
        return 200, _talk_document(talk)

    def _messages(self, query: dict[str, str], _: Any, talk_id: str) -> tuple[int, Any]:
        talk = self._talk(talk_id, query.get("agent_id"))
        if talk is None:
            return 404, {"detail": f"Conversation not found with id='{talk_id}'"}
        rows = talk.messages
        if "before" in query:
            rows = rows[: [row["id"] for row in rows].index(query["before"])]
        assert query["order"] == "desc"
        return 200, rows[::-1][: int(query["limit"])]

    def _run(self, _: Any, __: Any, run_id: str) -> tuple[int, Any]:
        runs = [run for run in self.super_runs.values() if run.run_id == run_id]
        if not runs:
            return 404, {"detail": f"Run not found with id='{run_id}'"}
        failed = runs[0].outcome == "run_failed"
        error = {"metadata": {"error": "the model is gone"}} if failed else {}
        status = "failed" if failed else "completed"
        return 200, {"id": run_id, "agent_id": runs[0].agent_id, "status": status, **error}

    def _agents(self, query: dict[str, str], _: Any) -> tuple[int, Any]:
        ids = self.agents[self.agents.index(query["after"]) + 1 :] if "after" in query else []
        ids = ids if "after" in query else self.agents
        return 200, [{"id": id_, "name": "cloudy"} for id_ in ids[: int(query["limit"])]]

    def _agent(self, _: Any, __: Any, agent_id: str) -> tuple[int, Any]:
        if agent_id not in self.agents:
            return 404, {"detail": f"Agent not found with id='{agent_id}'"}
        return 200, {"id": agent_id, "name": "cloudy"}

    def _health(self, _: Any, __: Any) -> tuple[int, Any]:
        return 200, {"version": "0.34.12", "status": "ok"}

    def _runs(self, _: Any, __: Any) -> tuple[int, Any]:
        return 200, []


_ROUTES = (
    (r"POST /v1/conversations/([^/]+)/messages/enqueue", Cloud._enqueue),
    (r"GET /v1/conversations/([^/]+)/super-run", Cloud._latest),
    (r"GET /v1/conversations/([^/]+)/messages", Cloud._messages),
    (r"GET /v1/conversations/([^/]+)", Cloud._show),
    (r"GET /v1/conversations/", Cloud._list),
    (r"POST /v1/conversations/", Cloud._create),
    (r"GET /v1/agents/([^/]+)/super-runs/([^/]+)", Cloud._super_run),
    (r"GET /v1/agents/", Cloud._agents),
    (r"GET /v1/agents/([^/]+)", Cloud._agent),
    (r"GET /v1/runs/", Cloud._runs),
    (r"GET /v1/runs/([^/]+)", Cloud._run),
    (r"GET /v1/health/", Cloud._health),
)


def _content(kind: str, text: str) -> dict[str, Any]:
    if kind == "tool_call_message":
        return {"tool_call": {"name": text, "arguments": "{}", "tool_call_id": f"call_{text}"}}
    return {"content": text}


def _talk_document(talk: Talk) -> dict[str, Any]:
    return {"id": talk.id, "agent_id": talk.agent_id, "summary": talk.summary}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Nothing goes to stderr."""

    def _serve(self) -> None:
        cloud: Cloud = self.server.cloud  # type: ignore[attr-defined]
        url = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        route = cloud.route(self.command, url.path)
        with cloud.lock:
            cloud.requests[route] += 1
            fault = cloud.faulty(route)
            if self.headers.get("Authorization") != f"Bearer {KEY}" and url.path != "/v1/health/":
                fault = (401, {"detail": "Unauthorized"})
            if fault is None or fault[0] == "lost":
                body = json.loads(data) if data else None
                status, answer = cloud.answer(self.command, url.path, query, body)
        if fault is not None and isinstance(fault[0], str):
            self.close_connection = True
            self.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            return
        headers: dict[str, str] = {}
        if fault is not None:
            status, answer = fault[:2]
            headers = fault[2] if len(fault) > 2 else {}
        encoded = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(encoded)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = _serve  # noqa: N815
