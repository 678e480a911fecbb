"""The skill in the hands of a real agent of Letta Code: it is found in every place that
`install-skill` knows, read, and what it says is done with the agent's own tools."""

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import call, clean_environ
from letta_code.server import LettaCode
from letta_code.wire import Frame, Wire

ELSEWHERE = 'promptyoself register --agent-id "$AGENT_ID" --prompt Breathe.'
REGISTER = 'promptyoself register --agent-id "$AGENT_ID" --conversation-id "$CONVERSATION_ID"'
REGISTER += " --prompt Stretch."
DESCRIPTION = "Schedule a prompt to yourself for later"


def offered(server: LettaCode, wire: Wire, agent: str) -> bool:
    """Whether the model of an agent is told of the skill, in a conversation that begins now."""
    before = len(server.model.asked())
    wire.turn(wire.conversation(agent), "Hello.", str(uuid.uuid4()))
    return DESCRIPTION in str(server.model.asked()[before:])


def tool(name: str, **arguments: str) -> str:
    """The order to the model to call a tool."""
    return f"Do it. [[tool:{name} {json.dumps(arguments)}]]"


def said(wire: Wire, runtime: Frame, order: str) -> str:
    """What the agent says of what its tool has returned."""
    wire.turn(runtime, order, str(uuid.uuid4()))
    return "\n".join(part["text"] for part in wire.history(runtime)[-1]["content"])


def run(wire: Wire, runtime: Frame, command: str) -> Any:
    """What a command answers that the agent runs with its Bash tool."""
    order = tool("Bash", command=command, description="do it")
    return json.loads(said(wire, runtime, order).partition("done: ")[2])


def text(message: Frame) -> str:
    """The last part of a message, behind what Letta Code adds of its own; of a tool call none."""
    content = message.get("content", "")
    return str(content if isinstance(content, str) else content[-1].get("text"))


@pytest.fixture
def server(
    new_letta_code: Callable[..., LettaCode], var: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LettaCode]:
    """An App Server that `letta-code up` has started, in an environment whose PATH doesn't lead to
    us. Its home and its folder are those of commands called here."""
    server = new_letta_code()
    server.terminate()
    monkeypatch.setenv("HOME", str(server.home))
    monkeypatch.chdir(server.work)
    environ = {**clean_environ(var), **server.environ, "PATH": "/usr/bin:/bin"}
    environ["PROMPTYOSELF_LETTA_CODE_URL"] = server.address
    words = ["letta-code", "up", "--program", str(server.program)]
    with subprocess.Popen(
        [sys.executable, "-m", "promptyoself", *words], stdout=subprocess.PIPE, env=environ
    ) as up:
        try:
            assert up.stdout is not None
            assert [json.loads(up.stdout.readline())["event"] for _ in "12"] == ["started", "ready"]
            yield server
        finally:
            up.terminate()


def test_it_is_found_in_every_place(server: LettaCode) -> None:
    """In the place for all agents, in that of one agent, and in a project's, by an App Server that
    runs already."""
    with server.connect() as wire:
        one, other = wire.agent(), wire.agent()
        assert not offered(server, wire, one)
        for words in (("--agent-id", one), ("--global",), ()):
            if not words:
                Path(server.work, ".agents", "skills").mkdir(parents=True)
            answer = call("install-skill", *words).success()
            assert offered(server, wire, one), answer
            assert offered(server, wire, other) == (answer["place"] != "agent")
            os.unlink(answer["path"])


def test_an_agent_reads_it_and_does_what_it_says(server: LettaCode, var: Path) -> None:
    """The agent loads the skill. What that tells it to run registers the prompt for this agent and
    this conversation, is listed, and is cancelled: by the agent's own tool calls, with the ids that
    Letta Code gives them."""
    call("install-skill").success()
    with server.connect() as wire:
        runtime = wire.conversation(wire.agent())
        text = said(wire, runtime, tool("Skill", skill="promptyoself"))
        read = str(server.model.asked()[-1])
        assert "promptyoself register --agent-id" in read, text

        made = run(wire, runtime, f'{REGISTER} --time "in 10 minutes"')
        schedule = call("show", "--id", made["id"]).success()["schedule"]
        assert (schedule["agent_id"], schedule["conversation_id"]) == (
            runtime["agent_id"],
            runtime["conversation_id"],
        )
        listed = call("list", "--agent-id", runtime["agent_id"]).success()["schedules"]
        assert [line["id"] for line in listed] == [made["id"]]
        gone = run(wire, runtime, f"promptyoself cancel --id {made['id']}")
        assert gone["cancelled_id"] == made["id"]


def test_what_an_agent_has_asked_for_comes_back_to_it(
    server: LettaCode, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its own tool call an agent schedules a prompt for its conversation and one for no
    conversation. Later both are in its own history, once each and answered, and the agent reads
    what became of them."""
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", server.address)
    with server.connect() as wire:
        runtime = wire.conversation(wire.agent())
        here = run(wire, runtime, f'{REGISTER} --time "in 1s"')["id"]
        elsewhere = run(wire, runtime, f'{ELSEWHERE} --time "in 1s"')["id"]
    time.sleep(2)  # a slot is a whole second
    executed = call("execute").success()["executed"]
    assert {line["id"]: line["delivered"] for line in executed} == {here: True, elsewhere: True}
    with server.connect() as wire:
        rows = [(row["message_type"], text(row)) for row in wire.history(runtime)]
        assert rows[-2:] == [("user_message", "Stretch."), ("assistant_message", "ok, done")]
        assert [said for _, said in rows].count("Stretch.") == 1
        assert "Breathe." not in [said for _, said in rows]
        told = run(wire, runtime, f"promptyoself history --id {here} --type delivery.delivered")
        assert told["count"] == 1
    both = [text(message) for message in server.stored() if message.get("role") == "user"]
    assert [both.count(prompt) for prompt in ("Stretch.", "Breathe.")] == [1, 1]
