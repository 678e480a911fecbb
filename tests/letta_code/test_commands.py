"""What people ask and are told about agents of Letta Code, with a real App Server."""

from pathlib import Path
from typing import Any

import pytest
from calling import call
from installed import home, place  # noqa: F401
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


def test_a_machine_with_letta_code_alone_is_set_up(
    letta_code: LettaCode, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`init` takes the address of an App Server, tries it, and offers its agents."""
    agent = letta_code.agent()
    given = ("--url", letta_code.address, "--tz", "Europe/London", "--agent-id", agent)
    answer = call("init", "--yes", *given).success()
    assert answer["changed"] == [
        "PROMPTYOSELF_LETTA_CODE_URL", "PROMPTYOSELF_TZ", "PROMPTYOSELF_DEFAULT_AGENT_ID"
    ]  # fmt: skip
    assert (answer["url"], answer["agent_id"]) == (letta_code.address, agent)
    again = call("init", "--yes").success()
    assert (again["changed"], again["url"]) == ([], letta_code.address)
    registered = call("register", "--prompt", "Hello.", "--every", "1h", "--check").success()
    shown = call("show", registered["id"]).success()["schedule"]
    assert (shown["agent_id"], shown["target"]) == (agent, "letta-code")


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
