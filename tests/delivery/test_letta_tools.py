"""The tools in the hands of agents of a real Letta server, of which the sandbox has nothing: an
agent calls them itself, and is prompted by what it has scheduled."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from calling import lines_of, run
from checker import check_chain
from documents import ROOT, Reader, steps
from letta_client import Letta as Client
from letta_client import UnprocessableEntityError
from letta_server.internet import NOBODY
from mcp_servers import TOKEN, serving

if TYPE_CHECKING:
    from lettas import RealLetta

pytestmark = pytest.mark.timeout(600)

DOCUMENT = ROOT / "docs" / "tutorial" / "letta.md"
CLOCK = f"http://{NOBODY}/mcp"


@pytest.fixture
def letta(request: pytest.FixtureRequest) -> Iterator[RealLetta]:
    """The real server, in the end without what a test has registered there."""
    if not request.config.getoption("real_letta"):
        pytest.skip("only a real Letta calls tools: make test-letta")
    server: RealLetta = request.getfixturevalue("real_letta_server")
    yield server
    server.internet.lead_to(None)
    client = client_of(server)
    for registered in client.mcp_servers.list():
        client.mcp_servers.delete(str(registered.id))


def client_of(letta: RealLetta) -> Client:
    """The SDK, as a user has it."""
    return Client(base_url=letta.url, api_key="none", max_retries=0, timeout=120)


def test_what_the_document_shows(letta: RealLetta, tmp_path: Path) -> None:
    """docs/tutorial/letta.md, step by step: tools are attached over stdio and over HTTP, the
    agent's own calls end in schedules, and what it asked to be told is in its own history, once."""
    agent = letta.agent()
    text = DOCUMENT.read_text()
    (documented,) = set(re.findall(r"AGENT=(agent-\S+)", text))
    var = tmp_path / "var"
    for shown, here in (
        (documented, agent),
        ("/opt/promptyoself/bin/promptyoself", str(Path(sys.executable).parent / "promptyoself")),
        ("PROMPTYOSELF_VAR=/var/lib/promptyoself", f"PROMPTYOSELF_VAR={var}"),
        ("https://clock.example/mcp", CLOCK),
        ("--allow-host clock.example", f"--allow-host {NOBODY}"),
    ):
        assert shown in text, shown
        text = text.replace(shown, here)
    calls = [
        {"agent_id": agent, "prompt": "Stretch.", "time": "in 10s"},
        {"prompt": "Plan the day.", "cron": "0 9 * * MON-FRI"},
    ]
    reader = Reader(tmp_path, letta.url, patience=120)
    try:
        for step in steps(text, "make test-letta runs it"):
            if "agent.py ask" in step.command:
                letta.calls(agent, "promptyoself_register", **calls.pop(0))
            reader.follow(step)
            if step.command.startswith("promptyoself mcp"):
                letta.internet.lead_to(reader.mcp_url)
        reader.leave()
    finally:
        reader.abandon()
    assert not calls
    assert f"AGENT_ID: {agent}" in letta.instructions(agent), "how a model knows its own id"
    events = [orjson.loads(line) for line in lines_of(var)]
    registered = [event for event in events if event["type"] == "schedule.registered"]
    callers = [(event["actor"]["via"], event["actor"]["for_agent"]) for event in registered]
    assert callers == [("mcp", agent)] * 2
    assert [event["data"]["prompt"] for event in registered] == ["Stretch.", "Plan the day."]
    assert [event["data"]["agent_id"] for event in registered] == [agent] * 2
    (delivered,) = [event["data"] for event in events if event["type"] == "delivery.delivered"]
    assert [row["content"] for row in letta.history(agent)].count("Stretch.") == 1
    assert letta.copies([agent])[delivered["otid"]] == 1
    environ = {**os.environ, "PROMPTYOSELF_VAR": str(var)}
    assert run("audit", environ=environ).success()["totals"]["delivered"] == 1
    check_chain(var / "schedules")


def test_the_setting_that_is_documented_is_the_one_tested() -> None:
    """The server of these tests is started with what docs/tutorial/letta.md says, word for word."""
    (name, value) = re.findall(r"^([A-Z_]+)=(\w+)$", DOCUMENT.read_text(), re.MULTILINE)[0]
    served = (Path(__file__).parents[1] / "letta_server" / "serve.py").read_text()
    assert f'"{name}": "{value}"' in served


def test_every_kind_of_agent_calls_alike(
    letta: RealLetta, var: Path, environ: dict[str, str]
) -> None:
    """What a model leaves as null, or answers Letta itself, is no hindrance; each agent is known by
    Letta's header and pinned to itself, and an error is told it with the hint."""
    client = client_of(letta)
    served = ("--agent-header", "X-Agent-Id", "--tool-prefix", "promptyoself_", "--allow-host")
    own = {"request_heartbeat": False, "thinking": "Well."}
    nulls = {"name": None, "tz": None, "max_repetitions": None, "envelope": None}
    token = {"PROMPTYOSELF_MCP_TOKEN": TOKEN, "LETTA_BASE_URL": letta.url}
    agents = []
    with serving({**environ, **token}, *served, NOBODY) as server:
        letta.internet.lead_to(server.url)
        tools = attach(client)

        def ask(agent: str, **arguments: object) -> tuple[str, dict[str, object]]:
            letta.calls(agent, "promptyoself_register", **own, **arguments)
            answer = client.agents.messages.create(agent, input="Do as you like.")
            (returned,) = [m for m in answer.messages if m.message_type == "tool_return_message"]
            return returned.status, json.loads(str(returned.tool_return))

        for kind in ("letta_v1_agent", "memgpt_v2_agent", "memgpt_agent"):
            agent = letta.agent(kind)
            client.agents.tools.attach(tools["promptyoself_register"], agent_id=agent)
            status, answer = ask(agent, prompt=kind, every="2h", **nulls)
            assert (status, answer.get("created")) == ("success", True), answer
            agents.append(agent)
        status, answer = ask(agents[0], prompt="x", every="2x")
        assert (status, answer["code"], bool(answer["hint"])) == ("error", "invalid_duration", True)
        status, answer = ask(agents[0], prompt="x", every="2h", agent_id=agents[1])
        assert (status, answer["code"]) == ("error", "forbidden_agent")
        (server_id,) = [str(registered.id) for registered in client.mcp_servers.list()]
        # It takes some for new that it has, since it looks at 50 tools only, its own among them.
        refreshed = client.mcp_servers.refresh(server_id)
        assert (refreshed["deleted"], refreshed["updated"]) == ([], [])
        assert {t.name: t.id for t in client.mcp_servers.tools.list(server_id)} == tools
        ran = client.mcp_servers.tools.run(
            tools["promptyoself_list"], mcp_server_id=server_id, args={}
        )
        assert (ran.status, json.loads(str(ran.func_return))["code"]) == (
            "error",
            "missing_agent_header",
        )
    events = check_chain(var / "schedules")[1:]
    callers = [(event["actor"]["via"], event["actor"]["who"]) for event in events]
    assert callers == [("mcp", agent) for agent in agents]


def test_what_letta_does_not_take(letta: RealLetta) -> None:
    """As documented: an address that isn't public is refused, and a name that can't be reached is
    registered without tools. Where this fails, a newer Letta may have become more open."""
    client = client_of(letta)
    for url in ("http://127.0.0.1:8765/mcp", "http://localhost:8765/mcp", "http://10.0.0.1/mcp"):
        with pytest.raises(UnprocessableEntityError, match=r"Non-public|Blocked internal"):
            attach(client, url)
    assert attach(client, "http://mcp:8765/mcp") == {}
    with pytest.raises(Exception, match=r"409|exist"):
        attach(client, "http://mcp:8765/mcp")


def attach(client: Client, url: str = CLOCK) -> dict[str, str]:
    """Register a server with Letta; its tools' ids by their names."""
    server = client.mcp_servers.create(
        server_name="promptyoself",
        config={
            "mcp_server_type": "streamable_http",
            "server_url": url,
            "auth_header": "Authorization",
            "auth_token": f"Bearer {TOKEN}",
        },
    )
    return {tool.name: str(tool.id) for tool in client.mcp_servers.tools.list(str(server.id))}
