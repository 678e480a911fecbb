"""A stand-in Letta server for trying and testing: agents that echo, and faults on demand.

It serves the routes that a delivery uses, with the status codes and JSON shapes of a real Letta
0.16.8 server, oddities included, since a client must get along with them:

- A message enters the history, with its otid, only when the run's first answer is there.
- A turn that fails later leaves its first step: a call of a tool, and what that returned. In a
  conversation such a run is ``completed``.
- A page of an agent's messages is oldest first, even where ``order=desc`` chose the newest.
- Agents page by ``after``; runs and messages by ``before``.
- Of two runs at once in one agent the one that ends last forgets the other's messages: they stay in
  the history, but not in the agent's context (``message_ids``). ``overlaps`` counts such sends.
- Nothing is deduplicated: the same otid sent twice is there twice.
- While an approval is pending, an asynchronous send is taken, and its *run* fails.

Faults are queued in process (:meth:`Sandbox.fault`) or over HTTP, by any process: ``POST`` or
``DELETE /_sandbox/faults``; ``GET /_sandbox/state`` tells what has arrived. State lives in memory:
it outlasts :meth:`Sandbox.stop` and :meth:`Sandbox.start`, not the object.
"""

from __future__ import annotations

import hashlib
import random
import re
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import PromptyoselfError, cannot_listen
from promptyoself.sandbox.faults import FAULTS, MODEL_ERRORS, NO_REDIS, PARAMS, ROUTES

if TYPE_CHECKING:
    from promptyoself.sandbox.http import Server

__all__ = ["FAULTS", "ROUTES", "Sandbox", "SandboxMessage", "serve_forever"]

_KEPT = 20_000  # messages and runs of one agent, and agents: more, and the oldest are forgotten
_SYSTEM = "You echo."
UUID4 = "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"


@dataclass(frozen=True, slots=True)
class SandboxMessage:
    """A message in an agent's history, in the order of arrival there; ``date`` is of the send."""

    id: str
    agent_id: str
    conversation_id: str | None
    kind: str  # (system | user | assistant | tool_call | tool_return)_message
    otid: str | None
    text: str
    date: datetime
    run_id: str | None
    parts: list[Any] | None = None  # where the text was sent as such


@dataclass(slots=True)
class RunState:
    id: str
    agent_id: str
    conversation_id: str | None
    created_at: datetime
    tag: str
    messages: list[SandboxMessage]
    context: list[str]  # what the agent had in mind when it began
    due: float | None  # monotonic instant of the first answer; None: never
    outcome: str = ""  # the run fault that decides how it ends, if any
    error: str = ""
    status: str = "created"
    completed_at: datetime | None = None
    answers: list[SandboxMessage] = field(default_factory=list)
    background: bool = False  # of a turn in a conversation that wanted that


@dataclass(slots=True)
class AgentState:
    id: str
    name: str
    created_at: datetime
    history: list[SandboxMessage] = field(default_factory=list)
    context: list[str] = field(default_factory=list)
    runs: list[RunState] = field(default_factory=list)
    updated_at: datetime | None = None


@dataclass(slots=True)
class Fault:
    kind: str
    agent_id: str | None
    route: str
    times: int | None
    probability: float
    params: dict[str, Any]
    released: threading.Event = field(default_factory=threading.Event)


class Sandbox:
    """A stand-in Letta. Use it as a context manager, or :meth:`start` and :meth:`stop` it.

    Args:
        agents: names; each gets an id that depends on the name and ``seed`` only. A name that is
            an id of Letta's form is taken as the id.
        host, port: where to listen; port 0 takes a free one, and keeps it over restarts.
        latency: seconds from a send to the agent's answer.
        token: where given, wanted as the bearer token, or password, by all but the health route.
        seed: of ids and of faults with a probability.
        clock: tells the time for dates in answers; the wall clock by default.

    Every method may be called from any thread. ``requests`` counts what was asked, by route.
    """

    def __init__(
        self,
        agents: Sequence[str] = ("echo",),
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        latency: float = 0.02,
        token: str | None = None,
        seed: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.latency = latency
        self.overlaps = 0
        self.requests: Counter[str] = Counter()
        self._host, self._port, self._token = host, port, token
        self._seed, self._clock = seed, clock
        self._random = random.Random(seed)
        self._lock = threading.RLock()
        self._faults: list[Fault] = []
        self._agents: dict[str, AgentState] = {}
        self._runs: dict[str, RunState] = {}
        self._active: dict[str, RunState] = {}  # those of them that haven't ended
        self._due: dict[str, RunState] = {}  # and those of these that are going to
        self._conversations: dict[str, tuple[str, datetime]] = {}
        self._ids = 0
        self._server: Server | None = None
        for name in agents:
            self.create_agent(name)

    # -- life

    @property
    def url(self) -> str:
        """The base URL, known once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def agents(self) -> list[str]:
        """The agents' ids, in the order of their creation."""
        with self._lock:
            return list(self._agents)

    def start(self) -> Sandbox:
        """Listen. Raises PromptyoselfError ``port_in_use``, or ``cannot_listen`` for the rest."""
        if self._server is None:
            try:
                from promptyoself.sandbox.http import Server

                self._server = Server(self, self._host, self._port)
            except (OSError, OverflowError, TypeError, UnicodeError) as err:
                raise cannot_listen(self._host, self._port, err) from err
            self._port = self._server.server_address[1]
            threading.Thread(
                target=self._server.serve_forever, args=(0.02,), name="sandbox", daemon=True
            ).start()
        return self

    def stop(self, *, lose_runs: bool = False) -> None:
        """Stop listening and cut every connection; what hangs is released.

        Args:
            lose_runs: runs in flight stay as they are for ever, which is how a Letta that was
                killed, or told to stop, leaves them. Otherwise they go on: only the network failed.
        """
        with self._lock:
            self._settle()
            server, self._server = self._server, None
            if lose_runs:
                for run in self._due.values():
                    run.due = None
                self._due.clear()
        if server is not None:
            server.close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # -- for tests

    def create_agent(self, name: str) -> str:
        """Add an agent; returns its id."""
        with self._lock:
            if len(self._agents) >= _KEPT:
                raise PromptyoselfError("too_many_agents", f"The sandbox has {_KEPT} agents.")
            same = sum(a.name == name for a in self._agents.values())
            agent_id = (
                name
                if re.fullmatch(f"agent-{UUID4}", name) and not same
                else self._uuid("agent", f"{name}|{same}")
            )
            agent = self._agents[agent_id] = AgentState(agent_id, name, self._clock())
            self._remember(agent, None, "system_message", text=_SYSTEM, date=agent.created_at)
            return agent_id

    def delete_agent(self, agent_id: str) -> None:
        """Remove an agent with its history and runs, as Letta does."""
        with self._lock:
            agent = self._agents.pop(agent_id, None)
            for run in agent.runs if agent else ():
                self._forget(run)

    def create_conversation(self, agent_id: str) -> str:
        """Begin a conversation with an agent; returns its id."""
        with self._lock:
            conversation_id, now = self._new("conv"), self._clock()
            self._conversations[conversation_id] = (agent_id, now)
            agent = self._agents.get(agent_id)
            if agent is not None:
                self._remember(agent, conversation_id, "system_message", text=_SYSTEM, date=now)
            return conversation_id

    def messages(self, agent_id: str) -> list[SandboxMessage]:
        """The user messages in an agent's history, in the order of arrival."""
        with self._lock:
            self._settle()
            agent = self._agents.get(agent_id)
            return [m for m in agent.history if m.kind == "user_message"] if agent else []

    @property
    def deliveries(self) -> Counter[tuple[str, str]]:
        """How often each (agent id, otid) is in the histories."""
        return Counter((a, m.otid or "") for a in self.agents for m in self.messages(a))

    def finish_runs(self) -> None:
        """End every run in flight now, whatever the latency."""
        with self._lock:
            self._settle(float("inf"))

    def fault(
        self,
        kind: str,
        *,
        agent_id: str | None = None,
        route: str | None = None,
        times: int | None = None,
        probability: float | None = None,
        **params: Any,
    ) -> None:
        """Let the next matching requests go wrong.

        Args:
            kind: one of :data:`FAULTS`; ``params`` are its own.
            agent_id: only requests for this agent.
            route: one of :data:`ROUTES`; by default ``send``, into conversations too.
            times: how many requests; 1 by default, without an end with ``probability``.
            probability: of each matching request to go wrong, from 0 to 1.

        Raises:
            PromptyoselfError: ``unknown_fault`` or ``invalid_fault``; nothing is queued.
        """
        if kind not in FAULTS:
            raise PromptyoselfError(
                "unknown_fault", f"No fault is called {kind!r}.", f"There are: {', '.join(FAULTS)}."
            )
        known = PARAMS.get(kind, {})
        wrong = [f"{k}={v!r}" for k, v in params.items() if not like(v, known.get(k))]
        if times is not None and (not like(times, 0) or times < 1):
            wrong.append(f"times={times!r}")
        if probability is not None and (not like(probability, 0.0) or not 0 <= probability <= 1):
            wrong.append(f"probability={probability!r}")
        if agent_id is not None and not isinstance(agent_id, str):
            wrong.append(f"agent_id={agent_id!r}")
        if not wrong and "status" in known and not 200 <= {**known, **params}["status"] <= 599:
            wrong.append(f"status={params['status']!r} (200 to 599)")
        if (
            not wrong
            and "where" in known
            and {**known, **params}["where"] not in ("headers", "body")
        ):
            wrong.append(f"where={params['where']!r} (headers or body)")
        if route is not None and route not in ROUTES:
            wrong.append(f"route={route!r} (there are {', '.join(ROUTES)})")
        if wrong:
            raise PromptyoselfError(
                "invalid_fault",
                f"Fault {kind!r} does not take {', '.join(wrong)}.",
                f"It takes {known}, agent_id, route, times and probability.",
            )
        with self._lock:
            self._faults.append(
                Fault(
                    kind,
                    agent_id,
                    route or "send",
                    times if times or probability is not None else 1,
                    1.0 if probability is None else float(probability),
                    {**known, **params},
                )
            )

    def clear_faults(self) -> None:
        """Forget the faults that are queued, and release what hangs."""
        with self._lock:
            for fault in self._faults:
                fault.released.set()
            self._faults.clear()

    def _release(self) -> None:
        with self._lock:
            for fault in self._faults:
                fault.released.set()
                fault.released = threading.Event()
            self._faults = [f for f in self._faults if f.times != 0]

    def state(self) -> dict[str, Any]:
        """What ``GET /_sandbox/state`` answers: agents, their messages, otid counts, overlaps."""
        with self._lock:
            self._settle()
            agents = [
                {
                    "id": a.id,
                    "name": a.name,
                    "otids": Counter(m.otid for m in self.messages(a.id)),
                    "messages": [
                        {
                            "otid": m.otid,
                            "text": m.text,
                            "date": m.date.isoformat(),
                            "run_id": m.run_id,
                            "conversation_id": m.conversation_id,
                            "in_context": m.id in a.context,
                        }
                        for m in self.messages(a.id)
                    ],
                    "active_runs": [r.id for r in a.runs if r.status in ("created", "running")],
                }
                for a in self._agents.values()
            ]
            faults = [
                {"kind": f.kind, "agent_id": f.agent_id, "route": f.route, "times": f.times}
                for f in self._faults
                if f.times != 0
            ]
            return {"url": self.url, "agents": agents, "overlaps": self.overlaps, "faults": faults}

    # -- below: all under the lock

    def _uuid(self, prefix: str, name: str) -> str:
        digest = hashlib.sha256(f"{self._seed}|{prefix}|{name}".encode()).digest()
        return f"{prefix}-{uuid.UUID(bytes=digest[:16], version=4)}"

    def _new(self, prefix: str) -> str:
        self._ids += 1
        return self._uuid(prefix, f"#{self._ids}")

    def _remember(
        self,
        agent: AgentState,
        conversation_id: str | None,
        kind: str,
        otid: str | None = None,
        *,
        text: str,
        date: datetime,
        run_id: str | None = None,
        parts: list[Any] | None = None,
    ) -> SandboxMessage:
        message = SandboxMessage(
            self._new("message"), agent.id, conversation_id, kind, otid, text, date, run_id, parts
        )
        agent.history.append(message)
        del agent.history[:-_KEPT]
        if conversation_id is None:
            agent.context.append(message.id)
        return message

    def _settle(self, now: float | None = None) -> None:
        """End the runs whose time has come: at every look, so that no thread need do it."""
        now = time.monotonic() if now is None else now
        ended = [r for r in self._due.values() if r.due is not None and r.due <= now]
        for run in sorted(ended, key=lambda r: r.due or 0):
            del self._due[run.id], self._active[run.id]
            self._end(self._agents[run.agent_id], run)

    def _end(self, agent: AgentState, run: RunState) -> None:
        run.due, run.completed_at = None, self._clock()
        agent.updated_at = run.completed_at
        stepped, talk = run.outcome == "run_fails_after", run.conversation_id
        run.status = "failed" if run.error and not (stepped and talk) else "completed"
        if run.error and not stepped:
            return
        if talk is None:
            agent.context = run.context
        for sent in run.messages:
            self._remember(
                agent,
                talk,
                sent.kind,
                sent.otid,
                text=sent.text,
                date=sent.date,
                run_id=run.id,
                parts=sent.parts,
            )
        answers = [("assistant_message", f"You said: {run.messages[-1].text[:200]}")]
        if stepped:
            answers = [("tool_call_message", ""), ("tool_return_message", "No such tool.")]
        for number, (kind, text) in enumerate(answers):
            otid, date = f"{run.id[4:-2]}{number:02d}", run.completed_at
            run.answers.append(
                self._remember(agent, talk, kind, otid, text=text, date=date, run_id=run.id)
            )

    def _begin(
        self,
        agent: AgentState,
        conversation_id: str | None,
        body: dict[str, Any],
        fault: Fault | None,
    ) -> RunState:
        """Take a message: from here on it arrives, whatever becomes of the answer."""
        self._settle()
        if any(r.due is not None for r in agent.runs):
            self.overlaps += 1
        outcome = fault.kind if fault and fault.kind.startswith(("run_", "model_")) else ""
        error = (fault.params.get("error") if fault else None) or MODEL_ERRORS.get(outcome, "")
        now = self._clock()
        messages = [self._read(agent.id, conversation_id, row, now) for row in body["messages"]]
        if not messages:
            outcome, error = "", "list index out of range"
        elif not all(message.text for message in messages):
            outcome, error = "", "Message content is empty or invalid"
        run = RunState(
            self._new("run"),
            agent.id,
            conversation_id,
            now,
            body.get("assistant_message_tool_name") or "send_message",
            messages,
            list(agent.context),
            None if outcome == "run_stuck" else time.monotonic() + self.latency,
            outcome,
            error,
        )
        self._runs[run.id] = self._active[run.id] = run
        if run.due is not None:
            self._due[run.id] = run
        agent.runs.append(run)
        for old in agent.runs[:-_KEPT]:
            self._forget(old)
        del agent.runs[:-_KEPT]
        return run

    def _read(
        self, agent_id: str, conversation_id: str | None, row: dict[str, Any], now: datetime
    ) -> SandboxMessage:
        """A message of a send's body; it has neither id nor run yet."""
        content = row["content"]
        parts = None if isinstance(content, str) else content
        if parts is not None:
            content = "".join(part["text"] for part in parts)
        otid = row.get("otid") or str(uuid.UUID(self._new("x")[2:]))
        kind = f"{row['role']}_message"
        return SandboxMessage("", agent_id, conversation_id, kind, otid, content, now, None, parts)

    def _refuse_background(self, agent: AgentState, conversation_id: str) -> None:
        """Leave what Letta leaves of a turn that it can't stream: a run that has failed."""
        run = self._begin(agent, conversation_id, {"messages": []}, None)
        del self._due[run.id], self._active[run.id]
        run.due, run.completed_at, run.background = None, self._clock(), True
        run.status, run.error = "failed", NO_REDIS

    def _forget(self, run: RunState) -> None:
        for runs in (self._runs, self._active, self._due):
            runs.pop(run.id, None)

    def _pick(self, route: str, agent_id: str | None) -> Fault | None:
        """The first queued fault that this request meets."""
        for fault in self._faults:
            if fault.times == 0 or fault.route not in (route, "any"):
                continue
            if fault.agent_id is not None and fault.agent_id != agent_id:
                continue
            if fault.probability < 1 and self._random.random() >= fault.probability:
                continue
            if fault.times is not None:
                fault.times -= 1
            if fault.times == 0 and fault.kind != "hang":  # one that hangs is to be released
                self._faults.remove(fault)
            return fault
        return None


def like(value: Any, model: Any) -> bool:
    """Whether a value is of its default's type; an integer will do for a float."""
    if isinstance(model, bool) or model is None:
        return model is not None and isinstance(value, bool)
    if isinstance(model, int | float):
        kinds = (int, float) if isinstance(model, float) else (int,)
        return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value < 1e6
    return isinstance(value, str)


def serve_forever(
    agents: Sequence[str] = ("echo",),
    *,
    host: str = "127.0.0.1",
    port: int = 8283,
    latency: float = 1.0,
    token: str | None = None,
    seed: int = 0,
    ready: Callable[[Sandbox], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until ``stop`` is set; ``ready`` is called once it listens.

    Signals are heeded in the main thread only, and their handlers put back afterwards.

    Raises:
        PromptyoselfError: ``port_in_use`` or ``cannot_listen``.
    """
    ended = stop or threading.Event()
    sandbox = Sandbox(agents, host=host, port=port, latency=latency, token=token, seed=seed)
    before: list[tuple[signal.Signals, Any]] = []
    with sandbox:
        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    before.append((number, signal.signal(number, lambda *_: ended.set())))
            ready(sandbox)
            ended.wait()
        finally:
            for number, handler in before:
                signal.signal(number, handler)
