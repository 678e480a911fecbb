"""What people ask and are told about agents of Letta Code, with a real App Server."""

from pathlib import Path
from typing import Any

import pytest
from calling import call
from letta_code.server import LettaCode
from target_contract import until

ASKED = ("register", "--prompt", "Hello.", "--time", "in 1s", "--check", "--agent-id")


@pytest.fixture
def server(letta_code: LettaCode, var: Path, monkeypatch: pytest.MonkeyPatch) -> LettaCode:
    """The App Server that the settings name."""
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", letta_code.address)
    return letta_code


def test_its_agents_are_listed_and_asked_for(server: LettaCode) -> None:
    """Each question goes to the target that it is about, and its answer names that."""
    agent = server.agent()
    listed = call("agents", "--target", "letta-code").success()
    assert (listed["target"], listed["url"]) == ("letta-code", server.address)
    (own,) = [each for each in listed["agents"] if each["id"] == agent]
    tested = call("test", "--target", "letta-code").success()
    assert tested["agents"] == listed["count"]
    assert tested["message"] == "Letta Code answers."
    assert call(*ASKED, agent).success()["created"]
    assert call(*ASKED, own["name"], "--target", "letta-code", "--prompt", "Named.").success()
    error = call(*ASKED, f"{agent}-none").error("agent_not_found")
    assert server.address in error["message"]
    assert "--target letta-code" in error["hint"]


def test_each_fire_tells_its_conversation(server: LettaCode) -> None:
    """The history has the conversation that was made; a schedule into the agent's own has none."""
    agent = server.agent()
    ids = {
        words: call(*ASKED, agent, "--conversation", words).success()["id"]
        for words in ("new", "default")
    }
    assert len(set(ids.values())) == 2

    def delivered() -> list[dict[str, Any]]:
        call("execute").success()
        events = call("history", "--type", "delivery.delivered").success()["events"]
        return events if len(events) == 2 else []

    told = {event["id"]: event["data"].get("conversation_id") for event in until(delivered)}
    assert told[ids["new"]]
    assert told[ids["default"]] is None
    call("audit").success()
