"""What Letta answers is seen, at once and by whoever asks; and what passes by itself, by paying or
by mending the installation costs no slot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import call

from promptyoself.sandbox import Sandbox

if TYPE_CHECKING:
    from conftest import Clock


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, var: Path) -> Iterator[Sandbox]:
    with Sandbox(("echo", "other"), latency=0.02) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        yield sandbox


def register(agent: str, *asked: str) -> str:
    words = ("--prompt", "Plan the day, then water the plants.", *(asked or ("--every", "1h")))
    return str(call("register", "--agent-id", agent, *words).success()["id"])


def history(id_: str, type_: str) -> list[dict[str, Any]]:
    events = call("history", "--id", id_, "--type", type_).success()["events"]
    return [event["data"] for event in events]


def shown(id_: str) -> dict[str, Any]:
    found: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return found


# --- ids that are none ----------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["new", "self", "New", "SELF"])
@pytest.mark.parametrize("command", ["register", "modify", "idle"])
def test_a_word_for_a_conversation_is_no_id(sandbox: Sandbox, command: str, word: str) -> None:
    """P7: what other tools call a new conversation would be refused by Letta each time."""
    agent = sandbox.agents[0]
    asked = {
        "register": ("--agent-id", agent, "--prompt", "x", "--every", "1h"),
        "modify": ("--id", register(agent)),
        "idle": ("--agent-id", agent, "--every", "1h"),
    }[command]
    error = call(command, *asked, "--conversation-id", word).error("invalid_conversation_id")
    assert "conv-" in error["hint"]


def test_check_says_when_it_is_an_agents_name(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: `register --check` tells the id of the agent whose name was given for one."""
    asked = ("register", "--prompt", "x", "--every", "1h", "--check", "--agent-id")
    error = call(*asked, "echo").error("agent_not_found")
    assert sandbox.agents[0] in error["message"]
    assert "name" in error["message"]
    assert sandbox.agents[0] in error["hint"]
    assert error["named"] == [sandbox.agents[0]]
    assert call(*asked, "Other").error("agent_not_found")["named"] == [sandbox.agents[1]]
    twin = sandbox.create_agent("echo")
    assert call(*asked, "echo").error("agent_not_found")["named"] == [sandbox.agents[0], twin]
    error = call(*asked, "nobody").error("agent_not_found")
    assert "named" not in error
    assert "promptyoself agents" in error["hint"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", sandbox.agents[1])
    assert "named" not in call(*asked, "echo").error("agent_not_found"), "others' ids are theirs"


def test_a_name_that_was_registered_fails_with_a_plain_reason(
    sandbox: Sandbox, clock: Clock
) -> None:
    """P9: later it is said what is probably wrong, and what to do."""
    id_ = register("echo")
    clock.advance(hours=1)
    (line,) = call("execute").success()["executed"]
    assert (line["state"], line["code"]) == ("failed", "agent_not_found")
    assert "is it a name?" in line["error"]
    assert "`promptyoself agents`" in line["error"]
    assert "is it a name?" in shown(id_)["last_error"]


def test_a_client_that_does_not_fit_costs_no_slot(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: with letta-client 1.7.4 to 1.7.6 a one-off into a conversation waits, and isn't lost."""
    from letta_client.resources.conversations.messages import MessagesResource

    def named_differently(self: object, id_: str, *, message: object) -> None:
        raise AssertionError("it isn't even called")

    agent = sandbox.agents[0]
    conversation = sandbox.create_conversation(agent)
    id_ = register(agent, "--time", "in 1h", "--conversation-id", conversation)
    clock.advance(hours=1)
    with monkeypatch.context() as patch:
        patch.setattr(MessagesResource, "create", named_differently)
        (line,) = call("execute").success()["executed"]
    assert (line["state"], line["code"]) == ("retrying", "letta_client_unfit")
    assert shown(id_)["status"] == "active"
    clock.advance(minutes=1)
    assert call("execute").success()["executed"][0]["state"] == "delivered"


def test_doctor_names_a_client_that_does_not_fit(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: no all-clear over an installation that can't deliver into conversations."""
    from promptyoself.service import checking

    real = checking.version
    monkeypatch.setattr(
        checking, "version", lambda name: "1.7.5" if name == "letta-client" else real(name)
    )
    (check,) = [
        each
        for each in call("doctor", "--skip-letta").error("unhealthy")["checks"]
        if each["name"] == "software"
    ]
    assert not check["ok"]
    assert "1.7.5" in check["detail"]
