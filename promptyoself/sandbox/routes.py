"""Letta's routes: which request is for what, and what the sandbox does with it."""

import re
from collections.abc import Callable, ValuesView
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from promptyoself.sandbox.agents import (
    UUID4,
    Agents,
    AgentState,
    ConversationState,
    RunState,
    SandboxMessage,
)
from promptyoself.sandbox.approvals import is_answer
from promptyoself.sandbox.faults import NO_REDIS, Fault
from promptyoself.sandbox.shapes import agent_json, conversation_json, message_json, run_json

VERSION = "0.16.8"
"""The version of Letta that this is like."""

_Row = TypeVar("_Row", AgentState, ConversationState, RunState, SandboxMessage)

_ACTIVE = frozenset({"created", "running"})
_STATUSES = _ACTIVE | {"completed", "failed", "cancelled"}


class Refused(Exception):
    """Ends a request with this status and JSON."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.status, self.body = status, body


class Request(NamedTuple):
    """A request as the routes see it."""

    method: str
    path: str
    query: dict[str, str]  # of several values of a name the last
    statuses: list[str]  # all values of the query's `statuses`
    body: Any  # JSON, read


class Call(NamedTuple):
    """A request whose route is known."""

    route: str  # as faults and counts name it
    agent_id: str | None
    run: Callable[[Fault | None], Any]  # what answers: a document, or a run whose events are sent


def find(agents: Agents, request: Request) -> Call:
    """What a request is for. Sending and beginning a conversation are left to the call's ``run``.
    All else is done before it is returned, as in Letta a request that fails leaves nothing. The
    caller holds the lock of ``agents``.

    Raises:
        Refused: there is no such route, or nothing where it leads.
    """
    segments = request.path.strip("/").split("/")[1:]
    for method, pattern, handler in _ROUTES:
        if method == request.method and len(pattern) == len(segments):
            pairs = list(zip(pattern, segments, strict=True))
            if all(expected in ("*", segment) for expected, segment in pairs):
                ids = [segment for expected, segment in pairs if expected == "*"]
                return handler(agents, request, *ids)
    raise Refused(404, {"detail": "Not Found"})


def _done(route: str, agent_id: str | None, answer: Any) -> Call:
    return Call(route, agent_id, lambda _: answer)


def _health(_: Agents, __: Request) -> Call:
    return _done("health", None, {"version": VERSION, "status": "ok"})


def _list_agents(agents: Agents, request: Request) -> Call:
    query, rows = request.query, list(agents.by_id.values())
    if query.get("order") != "asc":
        rows.reverse()
    if query.get("name"):
        rows = [agent for agent in rows if agent.name == query["name"]]
    page = _beyond(rows, query)[: _limit(query, 50)]
    return _done("agents", None, [agent_json(agent) for agent in page])


def _create_agent(agents: Agents, request: Request) -> Call:
    name = request.body.get("name") if isinstance(request.body, dict) else None
    agent_id = agents.create_agent(name if isinstance(name, str) else "agent")
    return _done("agents", None, agent_json(agents.by_id[agent_id]))


def _show_agent(agents: Agents, _: Request, agent_id: str) -> Call:
    agent = _agent(agents, agent_id, f"Agent with ID {agent_id} not found")
    return _done("agent", agent_id, agent_json(agent))


def _delete_agent(agents: Agents, _: Request, agent_id: str) -> Call:
    _agent(agents, agent_id, _missing("Agent", agent_id))
    agents.delete_agent(agent_id)
    answer = {"message": f"Agent id={agent_id} successfully deleted"}
    return _done("agent", agent_id, answer)


def _reset_messages(agents: Agents, _: Request, agent_id: str) -> Call:
    agent = _agent(agents, agent_id)
    agents.reset_messages(agent)
    return _done("agent", agent_id, agent_json(agent))


def _list_messages(agents: Agents, request: Request, agent_id: str) -> Call:
    agent = _agent(agents, agent_id)
    rows = _messages_in(agent, request.query.get("conversation_id"))
    rows = _page_of_messages(rows, agent_id, request.query)
    return _done("messages", agent_id, [message_json(message) for message in rows])


def _send(agents: Agents, request: Request, agent_id: str) -> Call:
    agent, body = _agent(agents, agent_id), _sendable(request.body)
    return Call(
        "send", agent_id, lambda fault: run_json(agents.begin_run(agent, None, body, fault))
    )


def _list_runs(agents: Agents, request: Request) -> Call:
    return _done("runs", request.query.get("agent_id"), _page_of_runs(agents, request))


def _show_run(agents: Agents, _: Request, run_id: str) -> Call:
    run = _run(agents, run_id)
    return _done("run", run.agent_id, run_json(run))


def _list_messages_of_run(agents: Agents, request: Request, run_id: str) -> Call:
    run = _run(agents, run_id)
    agent, query = agents.by_id[run.agent_id], request.query
    history = [message for message in agent.history if message.run_id == run_id]
    rows = _page_of_messages(history, "None", {"order": "asc", **query})
    if query.get("order") == "desc":
        rows.reverse()
    shown = [message_json(row) for row in rows if run.shown is None or row.kind in run.shown]
    return _done("run_messages", agent.id, shown)


def _list_conversations(agents: Agents, request: Request) -> Call:
    query = request.query
    order, limit = query.get("order", "desc"), _limit(query, 50)
    if order not in ("asc", "desc"):
        raise _unfit("literal_error", "query", "order")
    cursor = query.get("after")
    if cursor is not None and cursor not in agents.conversations:
        raise Refused(404, {"detail": _missing("Conversation", cursor)})
    agent_id, wanted = query.get("agent_id"), query.get("summary_search")
    rows = [
        conversation
        for conversation in agents.conversations.values()
        if conversation.agent_id in agents.by_id
        and agent_id in (None, conversation.agent_id)
        and (not wanted or wanted in (conversation.summary or ""))
    ]
    if order == "desc":
        rows.reverse()
    page = [conversation_json(row) for row in _beyond(rows, query)[:limit]]
    return _done("conversation_list", agent_id, page)


def _create_conversation(agents: Agents, request: Request) -> Call:
    if "agent_id" not in request.query:
        raise _unfit("missing", "query", "agent_id")
    summary = request.body.get("summary") if isinstance(request.body, dict) else None
    if not isinstance(summary, str | None):
        raise _unfit("string_type", "body", "summary")
    agent = agents.by_id.get(request.query["agent_id"])
    if agent is None:
        raise Refused(404, {"detail": "Agent not found"})

    def create(_: Fault | None) -> dict[str, Any]:
        conversation_id = agents.create_conversation(agent.id, summary)
        return conversation_json(agents.conversations[conversation_id])

    return Call("conversations", agent.id, create)


def _show_conversation(agents: Agents, _: Request, conversation_id: str) -> Call:
    agent = _owner(agents, conversation_id)
    messages = [m for m in agent.history if m.conversation_id == conversation_id]
    answer = conversation_json(agents.conversations[conversation_id], messages)
    return _done("conversations", agent.id, answer)


def _delete_conversation(agents: Agents, _: Request, conversation_id: str) -> Call:
    agent = _owner(agents, conversation_id)
    agents.delete_conversation(conversation_id)
    return _done("conversations", agent.id, None)


def _list_conversation(agents: Agents, request: Request, conversation_id: str) -> Call:
    """The messages of a conversation; one that isn't known has none."""
    if not re.fullmatch(f"(conv|agent)-{UUID4}|default", conversation_id):
        raise _unfit("string_pattern_mismatch", "path", "conversation_id")
    conversation = agents.conversations.get(conversation_id)
    agent = agents.by_id.get(conversation.agent_id) if conversation else None
    if agent is None:
        return _done("messages", None, [])
    rows = _page_of_messages(_messages_in(agent, conversation_id), agent.id, request.query)
    return _done("messages", agent.id, [message_json(message) for message in reversed(rows)])


def _send_into_conversation(agents: Agents, request: Request, conversation_id: str) -> Call:
    agent, body = _owner(agents, conversation_id), _sendable(request.body)
    if body.get("streaming", True) is not True:
        raise Refused(503, {"detail": "The sandbox does nothing but stream."})
    if body.get("background"):
        agents.refuse_background(agent, conversation_id)
        raise Refused(503, {"detail": NO_REDIS})

    def begin(fault: Fault | None) -> RunState:
        run = agents.begin_run(agent, conversation_id, body, fault)
        run.status = "running"
        return run

    return Call("send", agent.id, begin)


_ROUTES: tuple[tuple[str, tuple[str, ...], Callable[..., Call]], ...] = (
    ("GET", ("health",), _health),
    ("GET", ("agents",), _list_agents),
    ("POST", ("agents",), _create_agent),
    ("GET", ("agents", "*"), _show_agent),
    ("DELETE", ("agents", "*"), _delete_agent),
    ("PATCH", ("agents", "*", "reset-messages"), _reset_messages),
    ("GET", ("agents", "*", "messages"), _list_messages),
    ("POST", ("agents", "*", "messages", "async"), _send),
    ("GET", ("runs",), _list_runs),
    ("GET", ("runs", "*"), _show_run),
    ("GET", ("runs", "*", "messages"), _list_messages_of_run),
    ("GET", ("conversations",), _list_conversations),
    ("POST", ("conversations",), _create_conversation),
    ("GET", ("conversations", "*"), _show_conversation),
    ("DELETE", ("conversations", "*"), _delete_conversation),
    ("GET", ("conversations", "*", "messages"), _list_conversation),
    ("POST", ("conversations", "*", "messages"), _send_into_conversation),
)
"""Method, the path's segments after ``/v1`` (``*`` is an id), and what answers."""


def _agent(agents: Agents, agent_id: str, detail: str = "Agent not found") -> AgentState:
    if not re.fullmatch(f"agent-{UUID4}", agent_id):
        raise Refused(
            422,
            {
                "trace_id": "",
                "detail": "[{'type': 'string_pattern_mismatch', 'loc': ('path', 'agent_id'), "
                "'msg': \"String should match pattern 'agent-{uuid4}'\"}]",
                "examples": ["agent-123e4567-e89b-42d3-8456-426614174000"],
            },
        )
    agent = agents.by_id.get(agent_id)
    if agent is None:
        raise Refused(404, {"detail": detail})
    return agent


def _owner(agents: Agents, conversation_id: str) -> AgentState:
    """The agent of a conversation."""
    if not re.fullmatch(f"conv-{UUID4}", conversation_id):
        raise _unfit("string_too_short", "path", "conversation_id")
    conversation = agents.conversations.get(conversation_id)
    agent = agents.by_id.get(conversation.agent_id) if conversation else None
    if agent is None:
        raise Refused(404, {"detail": _missing("Conversation", conversation_id)})
    return agent


def _run(agents: Agents, run_id: str) -> RunState:
    if not re.fullmatch(f"run-{UUID4}", run_id):
        detail = f"INVALID_ARGUMENT: Invalid run ID format: {run_id}. "
        raise Refused(400, {"detail": f"{detail}Expected format: 'run-<uuid4>'"})
    run = agents.runs.get(run_id)
    if run is None:
        raise Refused(404, {"detail": _missing("Run", run_id)})
    return run


def _messages_in(agent: AgentState, conversation_id: str | None) -> list[SandboxMessage]:
    wanted = None if conversation_id == "default" else conversation_id
    return [m for m in agent.history if conversation_id is None or m.conversation_id == wanted]


def _page_of_messages(
    rows: list[SandboxMessage], agent_id: str, query: dict[str, str]
) -> list[SandboxMessage]:
    ids = {message.id for message in rows}
    for cursor in (query.get("before"), query.get("after")):
        if cursor is not None and cursor not in ids:
            detail = f"No message found with id '{cursor}' for agent '{agent_id}'."
            raise Refused(404, {"detail": detail})
    rows = _beyond(rows, query)
    limit = _limit(query, 100)
    if query.get("order", "desc") not in ("asc", "desc"):
        raise _unfit("literal_error", "query", "order")
    if query.get("order") == "asc":
        return rows[:limit]
    return rows[-limit:] if limit else []


def _page_of_runs(agents: Agents, request: Request) -> list[dict[str, Any]]:
    query, statuses = request.query, request.statuses
    limit = _limit(query, 100)
    if limit < 1:
        raise _unfit("greater_than_equal", "query", "limit")
    if limit > 1000:
        raise _unfit("less_than_equal", "query", "limit")
    for status in statuses:
        if status not in _STATUSES:
            raise Refused(400, {"detail": f"'{status}' is not a valid RunStatus"})
    if not statuses and query.get("active", "").lower() in ("true", "1"):
        statuses = list(_ACTIVE)
    agent_id, cursors = query.get("agent_id"), query.keys() & {"before", "after"}
    rows: list[RunState] | ValuesView[RunState]
    if agent_id is not None:
        rows = agents.by_id[agent_id].runs if agent_id in agents.by_id else []
    elif statuses and _ACTIVE.issuperset(statuses) and not cursors:
        rows = agents.active.values()
    else:
        rows = agents.runs.values()
    if cursors:  # which may name a run that isn't wanted itself
        rows = _beyond(list(rows), query)
    wanted = (
        run
        for run in (rows if query.get("order") == "asc" else reversed(rows))
        if query.get("conversation_id") in (None, run.conversation_id)
        and (not statuses or run.status in statuses)
    )
    return [run_json(run) for run in islice(wanted, limit)]


def _beyond(rows: list[_Row], query: dict[str, str]) -> list[_Row]:
    """The rows after one of them, or before it; all where that one isn't among them."""
    ids = [row.id for row in rows]
    if query.get("after") in ids:
        return rows[ids.index(query["after"]) + 1 :]
    if query.get("before") in ids:
        return rows[: ids.index(query["before"])]
    return rows


def _limit(query: dict[str, str], default: int) -> int:
    value = query.get("limit", str(default))
    if not re.fullmatch(r"[0-9]{1,6}", value):
        raise _unfit("int_parsing", "query", "limit")
    return int(value)


def _sendable(body: Any) -> dict[str, Any]:
    """A send's body, or 422 as the real server answers."""
    rows = body.get("messages") if isinstance(body, dict) else None
    if rows is None:
        raise _unfit("value_error", "body")
    shown = body.get("include_return_message_types") if isinstance(body, dict) else None
    if shown is not None and not _is_list_of(str, shown):
        raise _unfit("list_type", "body", "include_return_message_types")
    if isinstance(rows, list) and all(
        isinstance(row, dict) and (is_answer(row) or _is_message(row)) for row in rows
    ):
        return dict(body)
    raise _unfit("literal_error", "body", "messages")


def _is_list_of(kind: type, value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_message(row: dict[str, Any]) -> bool:
    return (
        row.get("role") in ("user", "system", "assistant")
        and _is_content(row.get("content"))
        and isinstance(row.get("otid"), str | None)
    )


def _is_content(value: Any) -> bool:
    """Whether it is text, or parts of a text."""
    if isinstance(value, list):
        return all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in value)
    return isinstance(value, str)


def _unfit(kind: str, *where: str) -> Refused:
    """The answer to a request of the wrong form, as far as a program might read it."""
    return Refused(422, {"trace_id": "", "detail": f"[{{'type': '{kind}', 'loc': {where}}}]"})


def _missing(thing: str, id_: str) -> str:
    actor = "id='user-00000000-0000-4000-8000-000000000000'"
    return f"{thing} not found with id='['{id_}']', access level in ['read'] for actor='{actor}'"
