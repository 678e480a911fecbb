"""The MCP server in the hands of a real agent of Letta Code, set up as the documentation says."""

import json
import os
import sys
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from calling import call
from documents import blocks
from letta_code.server import LettaCode

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "letta-code.md"


def test_an_agent_calls_the_server_that_its_settings_name(
    new_letta_code: Callable[..., LettaCode], var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The documented piece of `settings.json`, with this agent and these paths in it: the agent's
    own tool call registers a prompt for itself, and can't for another agent."""
    (shown,) = [
        block.content for block in blocks(PAGE.read_text()) if "mcpServers" in block.content
    ]
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:/usr/bin:/bin")
    server = new_letta_code()
    agent = server.agent()
    server.terminate()
    ours = Path(sys.executable).with_name("promptyoself")
    for documented, here in {
        "agent-local-…": agent,
        "/home/you/.letta/lc-local-backend": str(server.store),
        "/opt/promptyoself/bin/promptyoself": str(ours),
        "/var/lib/promptyoself": str(var),
    }.items():
        assert documented in shown
        shown = shown.replace(documented, here)
    settings = server.home / ".letta" / "settings.json"
    before, added = json.loads(settings.read_text()), json.loads(shown)
    kept = [entry for entry in before.get("agents", []) if entry.get("agentId") != agent]
    settings.write_text(json.dumps({**before, "agents": [*kept, *added["agents"]]}))
    server.start()
    with server.connect() as wire:
        runtime = wire.conversation(agent)

        def answered(arguments: dict[str, str]) -> str:
            words = f"{server.program} mcp call mcp__promptyoself__register"
            command = f"{words} --args '{json.dumps(arguments)}'"
            order = json.dumps({"command": command, "description": "schedule"})
            wire.turn(runtime, f"Do it. [[tool:Bash {order}]]", str(uuid.uuid4()))
            return str(wire.history(runtime)[-1]["content"])

        asked = {"prompt": "Stretch.", "time": "2127-01-01T09:00:00Z"}
        assert "Prompt scheduled." in answered(asked)
        assert "forbidden_agent" in answered({**asked, "agent_id": "agent-local-other"})
    (schedule,) = call("list").success()["schedules"]
    assert schedule["agent_id"] == agent
    event = call("history").success()["events"][-1]
    assert (event["actor"]["via"], event["actor"]["who"]) == ("mcp", agent)
