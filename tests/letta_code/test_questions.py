"""What a delivery asks an App Server: no question whose answer is known."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from letta_code.server import LettaCode as AppServer
from target_contract import until

from promptyoself.targets.api import Message
from promptyoself.targets.letta_code import LettaCode, client, connection


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds of the questions, as they are asked."""
    kinds: list[str] = []
    ask = connection.Connection.ask

    def noted(self: connection.Connection, kind: str, *args: Any, **fields: Any) -> dict[str, Any]:
        kinds.append(kind)
        return ask(self, kind, *args, **fields)

    monkeypatch.setattr(connection.Connection, "ask", noted)
    return kinds


def deliver(target: LettaCode, agent: str, conversation: str) -> None:
    """As a delivery does: the runs that are in its way, the sending, its run, and the history."""
    message = Message(agent, conversation, "Hello.", str(uuid.uuid4()), "Stretch")
    assert target.active_runs(message) == []
    run_id = str(target.send(message).run_id)
    until(lambda: not target.run(run_id).active)
    found = target.find(message, datetime.now(UTC) - timedelta(minutes=1))
    assert found is not None
    assert (found.conversation_id is None) == (conversation != "new")


def test_a_conversation_that_is_told_to_be_idle_isnt_asked_about_again(
    letta_code: AppServer, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "_FRESH", 1e-9)  # so that seconds seem to have passed
    agent = letta_code.agent()
    with letta_code.connect() as wire:
        conversation = str(wire.conversation(agent)["conversation_id"])
    target = LettaCode(letta_code.url)
    deliver(target, agent, conversation)
    assert asked.count("sync") == 1
    asked.clear()
    deliver(target, agent, conversation)
    target.close()
    assert asked == ["conversation_retrieve", "input", "conversation_messages_list"]


def test_the_conversations_of_an_agent_arent_listed_to_find_what_was_just_sent(
    letta_code: AppServer, asked: list[str]
) -> None:
    target = LettaCode(letta_code.url)
    deliver(target, letta_code.agent(), "new")
    target.close()
    assert asked[-3:] == ["conversation_create", "input", "conversation_messages_list"]
    assert asked.count("conversation_list") == 2  # what an earlier attempt may have made
