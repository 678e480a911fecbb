"""The sandbox's agents: their histories, their runs and their conversations, in memory."""

import hashlib
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.sandbox.approvals import Answer, Request, answer_of, wrong_answer
from promptyoself.sandbox.faults import APPROVAL, MODEL_ERRORS, NO_REDIS, Fault

UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
"""A regular expression for the random UUIDs that ids end with."""

_MOST_KEPT = 20_000
"""How many agents there may be, and how many conversations, and messages and runs of an agent, are
remembered."""


@dataclass(frozen=True, slots=True)
class SandboxMessage:
    """A message in an agent's history, in the order of arrival there."""

    id: str
    agent_id: str
    conversation_id: str | None
    # (system | user | assistant | tool_call | tool_return | approval_request |
    # approval_response)_message
    kind: str
    otid: str | None
    text: str  # of a tool's call its name
    date: datetime  # of the send, not of the arrival
    run_id: str | None = None
    parts: list[Any] | None = None  # the content as it was sent, where it was sent in parts
    call_id: str | None = None  # of a tool's call, its return, or what is said to it
    approve: bool | None = None  # of an answer to a request, and of what the tool returned then
    reason: str | None = None  # of such an answer


@dataclass(slots=True)
class RunState:
    """A turn of an agent, under way or over."""

    id: str
    agent_id: str
    conversation_id: str | None
    created_at: datetime
    tag: str  # Letta's `assistant_message_tool_name`, by which a sender finds its run
    messages: list[SandboxMessage]  # what was sent
    context: list[str]  # the ids of the messages that the agent had in mind when it began
    ends_at: float | None  # the monotonic instant of the first answer; None: never
    outcome: str = ""  # the fault that decides how it ends, if any
    params: dict[str, Any] = field(default_factory=dict)  # of that fault
    error: str = ""
    status: str = "created"
    completed_at: datetime | None = None
    answers: list[SandboxMessage] = field(default_factory=list)
    background: bool = False  # it is of a turn in a conversation that asked for that
    answer: Answer | None = None  # it begins with this answer to a request
    request: Request | None = None  # the one that it answers, or the one that it ended with
    shown: list[str] | None = None  # the kinds of its messages that it shows; None: all


@dataclass(frozen=True, slots=True)
class ConversationState:
    """A conversation, whose messages are in its agent's history."""

    id: str
    agent_id: str
    created_at: datetime
    summary: str | None


@dataclass(slots=True)
class AgentState:
    """An agent with all that it has been told."""

    id: str
    name: str
    created_at: datetime
    history: list[SandboxMessage] = field(default_factory=list)
    context: list[str] = field(default_factory=list)  # ids of messages
    runs: list[RunState] = field(default_factory=list)
    requests: dict[str | None, Request] = field(default_factory=dict)  # that wait, by conversation
    updated_at: datetime | None = None


class Agents:
    """All agents of a sandbox. Who calls :meth:`begin_run`, :meth:`refuse_background`,
    :meth:`end_runs` or :meth:`agents_json`, or reads the attributes, holds the ``lock``; the other
    methods take it.
    """

    def __init__(self, seed: int, clock: Callable[[], datetime], latency: float) -> None:
        """``latency`` is in seconds, from a send to the agent's answer; it may be changed."""
        self.latency = latency
        self.clock = clock
        self.overlaps = 0  # sends to an agent that had a turn under way
        self.requests: Counter[str] = Counter()  # by route
        self.lock = threading.RLock()
        self.by_id: dict[str, AgentState] = {}
        self.runs: dict[str, RunState] = {}
        self.active: dict[str, RunState] = {}  # the runs that haven't ended
        self.conversations: dict[str, ConversationState] = {}
        self._seed = seed
        self._ids = 0

    def create_agent(self, name: str) -> str:
        """Add an agent; returns its id. Raises PromptyoselfError ``too_many_agents``."""
        with self.lock:
            if len(self.by_id) >= _MOST_KEPT:
                raise PromptyoselfError("too_many_agents", f"The sandbox has {_MOST_KEPT} agents.")
            namesakes = sum(agent.name == name for agent in self.by_id.values())
            is_id = re.fullmatch(f"agent-{UUID4}", name) and not namesakes
            agent_id = name if is_id else self._uuid("agent", f"{name}|{namesakes}")
            agent = self.by_id[agent_id] = AgentState(agent_id, name, self.clock())
            self._greet(agent, None, agent.created_at)
            return agent_id

    def delete_agent(self, agent_id: str) -> None:
        """Remove an agent with its history and runs, as Letta does."""
        with self.lock:
            agent = self.by_id.pop(agent_id, None)
            for run in agent.runs if agent else ():
                self._forget(run)

    def delete_conversation(self, conversation_id: str) -> None:
        """Remove a conversation with its messages, as Letta does. Its runs stay."""
        with self.lock:
            conversation = self.conversations.pop(conversation_id, None)
            agent = self.by_id.get(conversation.agent_id) if conversation else None
            if agent is not None:
                agent.history = [m for m in agent.history if m.conversation_id != conversation_id]

    def create_conversation(self, agent_id: str, summary: str | None = None) -> str:
        """Begin a conversation with an agent; returns its id."""
        with self.lock:
            conversation_id, now = self._new_id("conv"), self.clock()
            conversation = ConversationState(conversation_id, agent_id, now, summary)
            self.conversations[conversation_id] = conversation
            if len(self.conversations) > _MOST_KEPT:
                del self.conversations[next(iter(self.conversations))]
            agent = self.by_id.get(agent_id)
            if agent is not None:
                self._greet(agent, conversation_id, now)
            return conversation_id

    def messages(self, agent_id: str) -> list[SandboxMessage]:
        """The user messages in an agent's history, in the order of arrival."""
        with self.lock:
            self.end_runs()
            agent = self.by_id.get(agent_id)
            return [m for m in agent.history if m.kind == "user_message"] if agent else []

    def end_runs(self, now: float | None = None) -> None:
        """End the runs whose time has come. It is called whenever somebody asks, so no thread
        needs to wait for them. ``now`` is a monotonic instant in seconds."""
        now = time.monotonic() if now is None else now
        ended = [r for r in self.active.values() if r.ends_at is not None and r.ends_at <= now]
        for run in sorted(ended, key=lambda run: run.ends_at or 0):
            del self.active[run.id]
            self._end(self.by_id[run.agent_id], run)

    def begin_run(
        self,
        agent: AgentState,
        conversation_id: str | None,
        body: dict[str, Any],
        fault: Fault | None,
    ) -> RunState:
        """Accept a send. From here on its messages arrive, whatever becomes of the response."""
        self.end_runs()
        if any(run.ends_at is not None for run in agent.runs):
            self.overlaps += 1
        decides = fault is not None and fault.kind.startswith(("run_", "model_", "answer", "asks"))
        outcome, params = (fault.kind, fault.params) if fault and decides else ("", {})
        error = (fault.params.get("error") if fault else None) or MODEL_ERRORS.get(outcome, "")
        now, request = self.clock(), agent.requests.get(conversation_id)
        answer = answer_of(body["messages"])
        rows = body["messages"] if answer is None else body["messages"][1:]
        messages = [self._sent(agent.id, conversation_id, row, now) for row in rows]
        if answer is not None and (refusal := wrong_answer(request, answer)):
            outcome, error = "", refusal
        elif answer is None and request is not None:
            outcome, error = "", APPROVAL
        elif not messages and answer is None:
            outcome, error = "", "list index out of range"
        elif not all(message.text for message in messages):
            outcome, error = "", "Message content is empty or invalid"
        run = RunState(
            self._new_id("run"),
            agent.id,
            conversation_id,
            now,
            body.get("assistant_message_tool_name") or "send_message",
            messages,
            list(agent.context),
            None if outcome == "run_stuck" else time.monotonic() + self.latency,
            outcome,
            params,
            error,
            answer=answer,
            request=request,
            shown=body.get("include_return_message_types"),
        )
        self.runs[run.id] = self.active[run.id] = run
        agent.runs.append(run)
        for old in agent.runs[:-_MOST_KEPT]:
            self._forget(old)
        del agent.runs[:-_MOST_KEPT]
        return run

    def refuse_background(self, agent: AgentState, conversation_id: str) -> None:
        """Leave what Letta leaves of a turn that it can't stream: a run that has failed."""
        run = self.begin_run(agent, conversation_id, {"messages": []}, None)
        del self.active[run.id]
        run.ends_at, run.completed_at, run.background = None, self.clock(), True
        run.status, run.error = "failed", NO_REDIS

    def agents_json(self) -> list[dict[str, Any]]:
        """Every agent with what it was sent, as ``GET /_sandbox/state`` shows it."""
        self.end_runs()
        return [
            {
                "id": agent.id,
                "name": agent.name,
                "otids": Counter(m.otid for m in self.messages(agent.id)),
                "messages": [
                    {
                        "otid": message.otid,
                        "text": message.text,
                        "date": message.date.isoformat(),
                        "run_id": message.run_id,
                        "conversation_id": message.conversation_id,
                        "in_context": message.id in agent.context,
                    }
                    for message in self.messages(agent.id)
                ],
                "active_runs": [r.id for r in agent.runs if r.status in ("created", "running")],
            }
            for agent in self.by_id.values()
        ]

    def _end(self, agent: AgentState, run: RunState) -> None:
        run.ends_at, run.completed_at = None, self.clock()
        agent.updated_at = run.completed_at
        has_stepped, conversation_id = run.outcome == "run_fails_after", run.conversation_id
        has_failed = run.error and not (has_stepped and conversation_id)
        run.status = "failed" if has_failed else "completed"
        if run.error and not has_stepped:
            return
        if conversation_id is None:
            agent.context = run.context
        if run.answer is not None and run.request is not None:
            self._go_on(agent, run, run.request, run.answer)
        for sent in run.messages:
            self._remember(agent, replace(sent, run_id=run.id))
        asks = _request_of(run)
        if asks is None:
            self._say(agent, run, _answers_of(run))
        else:
            self._say(agent, run, [("approval_request_message", asks.tool, asks.call_id)])
            agent.requests[conversation_id] = asks
        run.request = asks
        if run.outcome == "answer_gone":
            agent.history = [m for m in agent.history if m.run_id != run.id]
        if run.outcome == "answer_late":
            run.status, run.completed_at, self.active[run.id] = "running", None, run

    def _go_on(self, agent: AgentState, run: RunState, request: Request, answer: Answer) -> None:
        """Let what somebody answered to a request enter the history, and what the tool did then."""
        agent.requests.pop(run.conversation_id, None)
        now, said = self.clock(), (request.call_id, answer.approve, answer.reason)
        head = ("", agent.id, run.conversation_id)
        answered = SandboxMessage(*head, "approval_response_message", None, "", now, run.id)
        self._remember(agent, _about(answered, *said))
        otid, text = f"{run.id[4:-2]}ff", answer.outcome
        returned = SandboxMessage(*head, "tool_return_message", otid, text, now, run.id)
        run.answers.append(self._remember(agent, _about(returned, *said)))

    def reset_messages(self, agent: AgentState) -> None:
        """Let the agent forget what it was told outside of conversations. Its history stays. The
        caller holds the lock."""
        del agent.context[1:]
        agent.requests.pop(None, None)

    def say_what_is_late(self) -> None:
        """End the runs whose answer was to come after a restart."""
        for run in [run for run in self.active.values() if run.outcome == "answer_late"]:
            if run.answers:
                del self.active[run.id]
                run.status, run.completed_at = "completed", self.clock()
                agent = self.by_id[run.agent_id]
                self._say(agent, run, [("assistant_message", "Better late than never.", None)])

    def _say(
        self, agent: AgentState, run: RunState, said: list[tuple[str, str, str | None]]
    ) -> None:
        """Let messages of a run enter the history: the kind, the text and the call's id of each."""
        for kind, text, call_id in said:
            otid = f"{run.id[4:-2]}{len(run.answers):02d}"
            answer = SandboxMessage(
                *("", agent.id, run.conversation_id, kind, otid, text, self.clock(), run.id),
                call_id=call_id,
            )
            run.answers.append(self._remember(agent, answer))

    def _greet(self, agent: AgentState, conversation_id: str | None, now: datetime) -> None:
        kind, otid = "system_message", None
        greeting = SandboxMessage("", agent.id, conversation_id, kind, otid, "You echo.", now)
        self._remember(agent, greeting)

    def _remember(self, agent: AgentState, message: SandboxMessage) -> SandboxMessage:
        """Let a message enter the history; it gets its id there."""
        message = replace(message, id=self._new_id("message"))
        agent.history.append(message)
        del agent.history[:-_MOST_KEPT]
        if message.conversation_id is None:
            agent.context.append(message.id)
        return message

    def _sent(
        self, agent_id: str, conversation_id: str | None, row: dict[str, Any], now: datetime
    ) -> SandboxMessage:
        """A message of a send's body. It has neither an id nor a run yet."""
        content = row["content"]
        parts = None if isinstance(content, str) else content
        text = content if parts is None else "".join(part["text"] for part in parts)
        otid = row.get("otid") or str(uuid.UUID(self._new_id("x")[2:]))
        kind = f"{row['role']}_message"
        return SandboxMessage("", agent_id, conversation_id, kind, otid, text, now, parts=parts)

    def _forget(self, run: RunState) -> None:
        self.runs.pop(run.id, None)
        self.active.pop(run.id, None)

    def _uuid(self, prefix: str, name: str) -> str:
        digest = hashlib.sha256(f"{self._seed}|{prefix}|{name}".encode()).digest()
        return f"{prefix}-{uuid.UUID(bytes=digest[:16], version=4)}"

    def _new_id(self, prefix: str) -> str:
        self._ids += 1
        return self._uuid(prefix, f"#{self._ids}")


def _about(
    message: SandboxMessage, call_id: str, approve: bool, reason: str | None
) -> SandboxMessage:
    return replace(message, call_id=call_id, approve=approve, reason=reason)


def _request_of(run: RunState) -> Request | None:
    """What a run asks for at its end, if it does."""
    if run.outcome == "asks_approval":
        return Request(f"call_{run.id[4:]}", **run.params)
    request = run.request if run.answer is not None and not run.outcome else None
    return None if request is None else request.next(f"call_{run.id[4:]}")


def _answers_of(run: RunState) -> list[tuple[str, str, str | None]]:
    """What the agent does in a turn, as :meth:`Agents._say` takes it."""
    text, tools = f"You said: {run.messages[-1].text[:200]}" if run.messages else "", ""
    if run.request is not None and not run.messages and not run.outcome:
        text = run.request.text
    elif run.outcome == "answers":
        text, tools = run.params["text"], run.params["tools"]
        size = int(run.params["megabytes"] * 1_000_000)
        text = (text or "x").ljust(size, "x") if size else text
    elif run.outcome in ("run_fails_after", "answer_late"):
        text, tools = "", "no_such_tool"
    size = int(run.params.get("megabytes", 0) * 1_000_000) if run.outcome == "answer_late" else 0
    said: list[tuple[str, str, str | None]] = []
    for number, tool in enumerate(filter(None, tools.split(","))):
        said.append(("tool_call_message", tool, f"call_{number}"))
        said.append(("tool_return_message", "No such tool.".ljust(size), f"call_{number}"))
    return [*said, ("assistant_message", text, None)] if text else said
