"""The two Lettas that one suite runs against: the sandbox, and a real server (`letta_server/`)."""

import json
import signal
import subprocess
import time
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from letta_server.internet import Internet
from letta_server.model import FAIL, Call, Model

from promptyoself.sandbox import Sandbox
from promptyoself.targets.api import DeliveryError, Message

PROMPT = "the prompt is nobody's business"

TOOL = '''
def wave(word: str) -> str:
    """Wave.

    Args:
        word (str): what is said to it
    """
    return word
'''

SERVE = Path(__file__).parents[1] / "letta_server" / "serve.py"


class Letta(ABC):
    """A running Letta, and a hand on what its agents do: they answer at once, if not told else.

    What is asked of it here goes over HTTP, with nothing of ours in between.
    """

    url: str
    real: bool
    grace: str  # PROMPTYOSELF_RECONCILE_GRACE, long enough that a request can't come later
    timeout: str  # PROMPTYOSELF_CALL_TIMEOUT

    @abstractmethod
    def agent(self) -> str:
        """Make an agent; returns its id."""

    @abstractmethod
    def slow(self, seconds: float) -> None:
        """From now on agents take so long to answer."""

    @abstractmethod
    def hold(self) -> None:
        """No agent answers until :meth:`finish`."""

    @abstractmethod
    def finish(self) -> None:
        """Who waits for an answer gets it, and from now on answers come at once."""

    @abstractmethod
    def fail(self, agent_id: str, *, after_a_step: bool) -> None:
        """The agent's next turn fails: at its first question to the model, or at its second."""

    @abstractmethod
    def calls(self, agent_id: str, tool: str, /, **arguments: Any) -> None:
        """In its next turn the agent calls a tool."""

    @abstractmethod
    def asks(self, agent_id: str, times: int = 1) -> None:
        """In its next turn the agent asks somebody to approve of a tool, so often."""

    @abstractmethod
    def die_over(self, agent_id: str, send: Callable[[], object]) -> None:
        """Begin a turn by ``send``, be ended after the call of a tool in it, and start again."""

    @abstractmethod
    def seen(self, agent_id: str) -> list[str]:
        """What the agent's model was told by the user, turn by turn."""

    @abstractmethod
    def stop(self) -> None:
        """End it as a service manager does. What it has in hand is lost."""

    @abstractmethod
    def start(self) -> None:
        """Start it again, at the same address and with the same data."""

    def conversation(self, agent_id: str) -> str:
        """Begin a conversation with an agent; returns its id."""
        return str(self._http("POST", f"/v1/conversations/?agent_id={agent_id}", json={})["id"])

    def conversations(self, agent_id: str) -> dict[str, str | None]:
        """The ids of an agent's conversations, with their summaries."""
        rows = self._http("GET", f"/v1/conversations/?agent_id={agent_id}&limit=1000")
        return {row["id"]: row["summary"] for row in rows}

    def rows(self, message: Message, kind: str) -> list[dict[str, Any]]:
        """The messages of a kind in the conversation that a message goes to, in order."""
        where = message.conversation
        path = (
            f"/v1/agents/{message.agent_id}/messages?limit=1000&order=asc&conversation_id={where}"
        )
        return [row for row in self._http("GET", path) if row["message_type"] == f"{kind}_message"]

    def answer(self, message: Message, *words: str, approve: bool = True) -> None:
        """Approve of what the agent last asked for in the message's conversation, or deny it. Then
        say these words in the same breath. Only tools' results are to be told of that turn."""
        where, agent_id = message.conversation, message.agent_id
        call_id = self.rows(message, "approval_request")[-1]["tool_call"]["tool_call_id"]
        approval = {"type": "approval", "approve": approve, "tool_call_id": call_id}
        said = [{"role": "user", "content": text} for text in words]
        rows = [{"type": "approval", "approvals": [approval]}, *said]
        body: dict[str, Any] = {
            "messages": rows,
            "include_return_message_types": ["tool_return_message"],
        }
        if where == "default":
            self._http("POST", f"/v1/agents/{agent_id}/messages/async", json=body)
        else:
            body["streaming"] = True
            path = f"{self.url}/v1/conversations/{where}/messages"
            httpx.post(path, json=body, timeout=60, trust_env=False).raise_for_status()

    def forget(self, agent_id: str) -> None:
        """Let the agent forget what it was told outside of conversations. Its history stays."""
        body = {"add_default_initial_messages": False}
        self._http("PATCH", f"/v1/agents/{agent_id}/reset-messages", json=body)

    def delete(self, agent_id: str) -> None:
        """Delete an agent with all that it knows."""
        self._http("DELETE", f"/v1/agents/{agent_id}")

    def delete_conversation(self, conversation_id: str) -> None:
        """Delete a conversation with its messages."""
        self._http("DELETE", f"/v1/conversations/{conversation_id}")

    def agents(self) -> list[str]:
        """The ids of all agents."""
        return [row["id"] for row in self._http("GET", "/v1/agents/?limit=1000")]

    def history(self, agent_id: str) -> list[dict[str, Any]]:
        """The messages of the user in the agent's history, in whatever conversation, in order."""
        rows = self._http("GET", f"/v1/agents/{agent_id}/messages?limit=1000&order=asc")
        assert len(rows) < 1000
        return [row for row in rows if row["message_type"] == "user_message"]

    def said_in(self, conversation_id: str) -> list[str]:
        """What the user has said in a conversation, in order."""
        rows = self._http("GET", f"/v1/conversations/{conversation_id}/messages?order=asc")
        return [row["content"] for row in rows if row["message_type"] == "user_message"]

    def active_runs(self, agent_id: str) -> list[str]:
        """The ids of the agent's runs that haven't ended."""
        rows = self._http("GET", f"/v1/runs/?agent_id={agent_id}&active=true")
        return [row["id"] for row in rows]

    def copies(self, agent_ids: list[str]) -> Counter[str]:
        """How often each otid is in these agents' histories."""
        return Counter(row["otid"] for agent_id in agent_ids for row in self.history(agent_id))

    def _http(self, method: str, path: str, **more: Any) -> Any:
        answer = httpx.request(method, self.url + path, timeout=60, trust_env=False, **more)
        answer.raise_for_status()
        return answer.json()


class SandboxLetta(Letta):
    """The sandbox."""

    real = False
    grace, timeout = "1.5", "2"

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.url = sandbox.url

    def agent(self) -> str:
        return str(self._http("POST", "/v1/agents/", json={"name": f"test-{uuid.uuid4()}"})["id"])

    def slow(self, seconds: float) -> None:
        self._sandbox.latency = seconds

    def hold(self) -> None:
        self._sandbox.latency = 3600

    def finish(self) -> None:
        self._sandbox.latency = 0.02
        self._sandbox.finish_runs()

    def fail(self, agent_id: str, *, after_a_step: bool) -> None:
        kind = "run_fails_after" if after_a_step else "run_fails_before"
        self._sandbox.fault(kind, agent_id=agent_id)

    def calls(self, agent_id: str, tool: str, /, **arguments: Any) -> None:
        del arguments
        self._sandbox.fault("answers", agent_id=agent_id, tools=tool, text="It is done.")

    def asks(self, agent_id: str, times: int = 1) -> None:
        self._sandbox.fault("asks_approval", agent_id=agent_id, asks=times)

    def die_over(self, agent_id: str, send: Callable[[], object]) -> None:
        self._sandbox.fault("answer_late", agent_id=agent_id)
        send()
        self._sandbox.finish_runs()

    def seen(self, agent_id: str) -> list[str]:
        return [message.text for message in self._sandbox.messages(agent_id)]

    def stop(self) -> None:
        self._sandbox.stop(lose_runs=True)

    def start(self) -> None:
        self._sandbox.start()


class RealLetta(Letta):
    """The real server in a process of its own, with a model in ours."""

    real = True
    grace, timeout = "20", "20"

    def __init__(
        self, server: subprocess.Popen[str], url: str, model: Model, internet: Internet
    ) -> None:
        self._server, self._model, self.url = server, model, url
        self.internet = internet
        self._names: dict[str, str] = {}

    def agent(self, kind: str | None = None) -> str:
        """Make an agent, of Letta's usual kind if no other is named; returns its id."""
        name = f"test-{uuid.uuid4()}"
        model = self._model.address(name)
        body = {
            **({} if kind is None else {"agent_type": kind}),
            "name": name,
            "memory_blocks": [],
            "include_base_tools": False,
            "llm_config": {
                "model": "gpt-4o-mini",
                "model_endpoint_type": "openai",
                "model_endpoint": model,
                "context_window": 30000,
                "handle": "openai-proxy/gpt-4o-mini",
            },
            "embedding_config": {
                "embedding_model": "text-embedding-3-small",
                "embedding_endpoint_type": "openai",
                "embedding_endpoint": model,
                "embedding_dim": 1536,
            },
        }
        agent_id = str(self._http("POST", "/v1/agents/", json=body)["id"])
        self._names[agent_id] = name
        return agent_id

    def slow(self, seconds: float) -> None:
        self._model.latency = seconds

    def hold(self) -> None:
        self._model.hold()

    def finish(self) -> None:
        self._model.latency = 0
        self._model.finish()

    def fail(self, agent_id: str, *, after_a_step: bool) -> None:
        steps = (Call("nothing_of_the_kind"), FAIL) if after_a_step else (FAIL,)
        self._model.plan(self._names[agent_id], *steps)

    def calls(self, agent_id: str, tool: str, /, **arguments: Any) -> None:
        self._model.plan(self._names[agent_id], Call(tool, arguments))

    def asks(self, agent_id: str, times: int = 1) -> None:
        source = {"source_code": TOOL, "source_type": "python"}
        tool = self._http("PUT", "/v1/tools/", json=source)
        self._http("PATCH", f"/v1/agents/{agent_id}/tools/attach/{tool['id']}")
        wanted = {"requires_approval": True}
        self._http("PATCH", f"/v1/agents/{agent_id}/tools/approval/{tool['name']}", json=wanted)
        self._model.plan(self._names[agent_id], *[Call("wave", {"word": "hello"})] * times)

    def die_over(self, agent_id: str, send: Callable[[], object]) -> None:
        self.calls(agent_id, "nothing_of_the_kind")
        self.hold()
        send()
        self._wait(lambda: self._model.asked(self._names[agent_id]))
        self.finish()
        self.hold()  # before it asks for the second time
        self._wait(lambda: self.rows(about(agent_id), "tool_return"))
        self.stop()
        self.finish()
        self.start()

    @staticmethod
    def _wait(look: Callable[[], object]) -> None:
        until = time.monotonic() + 180
        while not look():
            assert time.monotonic() < until
            time.sleep(0.02)

    def instructions(self, agent_id: str) -> str:
        """What the agent's model was told first, when it was last asked."""
        return str(self._model.asked(self._names[agent_id])[-1][0]["content"])

    def seen(self, agent_id: str) -> list[str]:
        turns = []
        for messages in self._model.asked(self._names[agent_id]):
            last = messages[-1]
            if last["role"] == "user":  # else it is the answer of a tool: the same turn still
                turns.append(str(last["content"]))
        return turns

    def stop(self) -> None:
        self._tell("stop")

    def start(self) -> None:
        self._tell("start")

    def _tell(self, what: str) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(what + "\n")
        self._server.stdin.flush()
        assert json.loads(self._server.stdout.readline() or "{}") == {"done": what}


@contextmanager
def real_letta(python: str) -> Iterator[RealLetta]:
    """A real server, by the Python of the environment that it is installed in."""
    model, internet = Model(), Internet()
    # A session of its own: a Ctrl-C is for us, whose end it notices.
    server = subprocess.Popen(
        [python, SERVE, internet.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert server.stdin is not None
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line, "the real server didn't start; see above"
        yield RealLetta(server, json.loads(line)["url"], model, internet)
    finally:
        server.stdin.close()  # type: ignore[union-attr]
        model.close()
        internet.close()
        try:
            server.wait(60)
        except subprocess.TimeoutExpired:
            server.send_signal(signal.SIGKILL)
            server.wait()


def fresh(agent_id: str, conversation: str = "default") -> Message:
    """A message that was never sent."""
    return Message(agent_id, conversation, PROMPT, str(uuid.uuid4()))


def about(agent_id: str, otid: str = "") -> Message:
    """What to ask for an agent's runs with, or for a message that it was sent."""
    return Message(agent_id, "default", "", otid)


def since() -> datetime:
    """A time before everything that a test does."""
    return datetime.now(UTC) - timedelta(minutes=5)


def failure(kind: str, code: str, call: Callable[..., object], *arguments: object) -> DeliveryError:
    """The error of a call that fails in this way."""
    with pytest.raises(DeliveryError) as caught:
        call(*arguments)
    assert (caught.value.kind, caught.value.code) == (kind, code)
    return caught.value
