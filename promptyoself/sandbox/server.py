"""The sandbox as a whole: agents, faults, and a server in front of them."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import cannot_listen
from promptyoself.sandbox.agents import Agents, SandboxMessage
from promptyoself.sandbox.faults import FaultQueue

if TYPE_CHECKING:
    from promptyoself.sandbox.http import Server


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

    Every method may be called from any thread.
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
        self._agents = Agents(seed, clock, latency)
        self._faults = FaultQueue(seed)
        self._host, self._port, self._token = host, port, token
        self._server: Server | None = None
        for name in agents:
            self.create_agent(name)

    @property
    def url(self) -> str:
        """The base URL, known once it has started."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    def start(self) -> Sandbox:
        """Listen. Raises PromptyoselfError ``port_in_use``, or ``cannot_listen`` for the rest."""
        if self._server is None:
            from promptyoself.sandbox.http import (
                Server,
            )  # a sandbox that only keeps state needs none

            try:
                self._server = Server(
                    self._agents, self._faults, self.state, self._token, (self._host, self._port)
                )
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
        with self._agents.lock:
            self._agents.end_runs()
            server, self._server = self._server, None
            if lose_runs:
                self._agents.abandon_runs()
        if server is not None:
            server.close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def agents(self) -> list[str]:
        """The agents' ids, in the order of their creation."""
        with self._agents.lock:
            return list(self._agents.by_id)

    @property
    def latency(self) -> float:
        """Seconds from a send to the agent's answer."""
        return self._agents.latency

    @latency.setter
    def latency(self, seconds: float) -> None:
        self._agents.latency = seconds

    @property
    def overlaps(self) -> int:
        """How often an agent got a message while it had a turn under way."""
        return self._agents.overlaps

    @property
    def requests(self) -> Counter[str]:
        """How many requests there were, by route."""
        return self._agents.requests

    def create_agent(self, name: str) -> str:
        """Add an agent; returns its id. Raises PromptyoselfError ``too_many_agents``."""
        return self._agents.create(name)

    def delete_agent(self, agent_id: str) -> None:
        """Remove an agent with its history and runs, as Letta does."""
        with self._agents.lock:
            self._agents.delete(agent_id)

    def create_conversation(self, agent_id: str) -> str:
        """Begin a conversation with an agent; returns its id."""
        with self._agents.lock:
            return self._agents.create_conversation(agent_id)

    def messages(self, agent_id: str) -> list[SandboxMessage]:
        """The user messages in an agent's history, in the order of arrival."""
        with self._agents.lock:
            return self._agents.user_messages(agent_id)

    @property
    def deliveries(self) -> Counter[tuple[str, str]]:
        """How often each (agent id, otid) is in the histories."""
        return Counter((a, m.otid or "") for a in self.agents for m in self.messages(a))

    def finish_runs(self) -> None:
        """End every run in flight now, whatever the latency."""
        with self._agents.lock:
            self._agents.end_runs(float("inf"))

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
            kind: one of :data:`~promptyoself.sandbox.faults.FAULTS`; ``params`` are its own.
            agent_id: only requests for this agent.
            route: one of :data:`~promptyoself.sandbox.faults.ROUTES`; by default ``send``, into
                conversations too.
            times: how many requests; 1 by default, without an end with ``probability``.
            probability: of each matching request to go wrong, from 0 to 1.

        Raises:
            PromptyoselfError: ``unknown_fault`` or ``invalid_fault``; nothing is queued.
        """
        with self._agents.lock:
            self._faults.add(kind, agent_id, route, times, probability, params)

    def clear_faults(self) -> None:
        """Forget the faults that are queued, and release what hangs."""
        with self._agents.lock:
            self._faults.clear()

    def state(self) -> dict[str, Any]:
        """What ``GET /_sandbox/state`` answers: agents, their messages, otid counts, overlaps."""
        with self._agents.lock:
            return {
                "url": self.url,
                "agents": self._agents.state(),
                "overlaps": self.overlaps,
                "faults": self._faults.state(),
            }


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
