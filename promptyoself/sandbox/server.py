"""The sandbox as a whole."""

from __future__ import annotations

import signal
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from promptyoself.core.errors import cannot_listen
from promptyoself.sandbox.agents import Agents
from promptyoself.sandbox.faults import FaultQueue
from promptyoself.sandbox.http import Server


class Sandbox(Agents):
    """A stand-in Letta: agents, faults, and a server in front of them. Use it as a context manager,
    or :meth:`start` and :meth:`stop` it.

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
        super().__init__(seed, clock, latency)
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
        with self.lock:
            self.say_what_is_late()
        if self._server is None:
            try:
                address = (self._host, self._port)
                self._server = Server(self, self._faults, self.state, self._token, address)
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
        with self.lock:
            self.end_runs()
            server, self._server = self._server, None
            for run in self.active.values() if lose_runs else ():
                run.ends_at = None
        if server is not None:
            server.close()

    def __enter__(self) -> Sandbox:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def agents(self) -> list[str]:
        """The agents' ids, in the order of their creation."""
        with self.lock:
            return list(self.by_id)

    @property
    def deliveries(self) -> Counter[tuple[str, str]]:
        """How often each (agent id, otid) is in the histories."""
        return Counter((a, m.otid or "") for a in self.agents for m in self.messages(a))

    def finish_runs(self) -> None:
        """End every run in flight now, whatever the latency."""
        with self.lock:
            self.end_runs(float("inf"))

    def fault(self, kind: str, **asked: Any) -> None:
        """Let the next matching requests go wrong; see :meth:`.FaultQueue.add`."""
        with self.lock:
            self._faults.add(kind, **asked)

    def clear_faults(self) -> None:
        """Forget the faults that are queued, and release what hangs."""
        with self.lock:
            self._faults.clear()

    def state(self) -> dict[str, Any]:
        """What ``GET /_sandbox/state`` answers: agents, their messages, otid counts, overlaps."""
        with self.lock:
            return {
                "url": self.url,
                "agents": self.agents_json(),
                "overlaps": self.overlaps,
                "faults": self._faults.state(),
            }


def serve_forever(
    agents: Sequence[str] = ("echo",),
    *,
    host: str = "127.0.0.1",
    port: int = 8283,
    latency: float = 1.0,
    ready: Callable[[Sandbox], None] = lambda _: None,
    stop: threading.Event | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM, or until ``stop`` is set; ``ready`` is called once it listens.

    Signals are heeded in the main thread only, and their handlers put back afterwards.

    Raises:
        PromptyoselfError: ``port_in_use`` or ``cannot_listen``.
    """
    ended = stop or threading.Event()
    before: list[tuple[signal.Signals, Any]] = []
    with Sandbox(agents, host=host, port=port, latency=latency) as sandbox:
        try:
            if threading.current_thread() is threading.main_thread():
                for number in (signal.SIGINT, signal.SIGTERM):
                    before.append((number, signal.signal(number, lambda *_: ended.set())))
            ready(sandbox)
            ended.wait()
        finally:
            for number, handler in before:
                signal.signal(number, handler)
