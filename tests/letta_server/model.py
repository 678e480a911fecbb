"""A language model for the real Letta server.

Each agent gets an address of its own (:meth:`Model.address`), so that what it asked can be told
apart, and what it is to be answered be planned. Without a plan it is answered ``You said: …``.
"""

import threading
import time
from collections import defaultdict, deque
from typing import Any

from chat_completions import Call, Fail, Handler, Listener, last_said

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
        self._listener = Listener(_Answers, self)

    def address(self, agent: str) -> str:
        """The base URL for one agent, by whatever name."""
        return f"http://127.0.0.1:{self._listener.server_port}/{agent}/v1"

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
        self._listener.close()

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


class _Answers(Handler):
    model = "gpt-4o-mini"

    def complete(self, path: list[str], body: dict[str, Any]) -> None:
        (agent,) = path
        owner: Model = self.server.owner
        step = owner.take(agent, body["messages"])
        if isinstance(step, Fail):
            self.send_failure(step, {"x-should-retry": "false"})  # the server would, by itself
        else:
            said = f"You said: {last_said(body['messages'])[:200]}"
            self.send_completion(body, said if step is None else step)
