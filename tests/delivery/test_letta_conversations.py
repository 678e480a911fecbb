"""A conversation for each fire: made before the send, found again by whoever comes after a crash,
never two. The first tests run against a real server too."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from lettas import PROMPT, failure, fresh, since
from target_contract import ended

from promptyoself.sandbox import Sandbox
from promptyoself.targets.letta import LettaClient
from promptyoself.targets.letta.conversations import Conversations

if TYPE_CHECKING:
    from lettas import Letta

Connect = Callable[[str], LettaClient]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Makes clients, each as a process of its own would."""
    clients: list[LettaClient] = []

    def connect(url: str) -> LettaClient:
        clients.append(LettaClient(url, call_timeout=60))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def test_each_message_has_a_conversation_of_its_own(any_letta: Letta, connect: Connect) -> None:
    """It is named after the schedule, the message is in it and in the agent's history, and whoever
    finds the message is told which conversation was made for it."""
    agent_id, client = any_letta.agent(), connect(any_letta.url)
    messages = [replace(fresh(agent_id, "new"), title=f"Plan {n}") for n in range(2)]
    made = {}
    for message in messages:
        assert client.find(message, since()) is None
        run_id, conversation_id = client.send(message)
        assert ended(client, run_id).status == "completed"
        made[conversation_id] = f"{message.title} [{message.otid}]"
        sighting = client.find(message, since())
        assert sighting is not None
        assert (sighting.conversation_id, sighting.run_id) == (conversation_id, run_id)
        assert any_letta.said_in(str(conversation_id)) == [PROMPT]
    assert any_letta.conversations(agent_id) == made
    assert any_letta.copies([agent_id]) == {message.otid: 1 for message in messages}


def test_what_a_dead_process_made_is_used(any_letta: Letta, connect: Connect) -> None:
    """One process made the conversation and died; the next sends into it, and makes none."""
    agent_id = any_letta.agent()
    message = fresh(agent_id, "new")
    any_letta.conversation(agent_id)  # of somebody else's
    made = Conversations(connect(any_letta.url).calls).make(message)
    client = connect(any_letta.url)
    assert client.active_runs(message) == []
    assert client.find(message, since()) is None
    run_id, conversation_id = client.send(message)
    assert conversation_id == made
    assert ended(client, run_id).otid == message.otid
    assert len(any_letta.conversations(agent_id)) == 2
    assert any_letta.copies([agent_id]) == {message.otid: 1}


def test_no_conversation_with_an_agent_that_is_gone(any_letta: Letta, connect: Connect) -> None:
    """An agent that was deleted, or never was, gets none."""
    for agent_id in (any_letta.agent(), f"agent-{uuid.uuid4()}"):
        if agent_id in any_letta.agents():
            any_letta.delete(agent_id)
        message = fresh(agent_id, "new")
        failure("permanent", "agent_not_found", connect(any_letta.url).send, message)


@pytest.mark.parametrize(
    ("fault", "params", "kind", "code"),
    [
        ("lost_reply", {}, "doubt", "letta_connection_lost"),
        ("refuse", {}, "doubt", "letta_connection_lost"),
        ("server_error", {"stored": True}, "doubt", "letta_server_error"),
        ("server_error", {}, "doubt", "letta_server_error"),
        ("garbage", {"stored": True}, "doubt", "letta_unreadable"),
        ("wrong_shape", {"stored": True}, "doubt", "letta_unreadable"),
        ("rate_limit", {}, "retry", "letta_rate_limited"),
        ("unauthorized", {}, "unauthorized", "letta_unauthorized"),
    ],
)
def test_a_lost_answer_makes_no_second_one(
    sandbox: Sandbox, connect: Connect, fault: str, params: dict[str, Any], kind: str, code: str
) -> None:
    """Whatever is lost when it is made: nothing is sent then, and a later attempt uses what there
    is, or makes the first."""
    message = fresh(sandbox.agents[0], "new")
    sandbox.fault(fault, route="conversations", **params)
    failure(kind, code, connect(sandbox.url).send, message)
    assert sandbox.requests["send"] == 0
    stored = params.get("stored") or fault == "lost_reply"
    assert len(sandbox.conversations) == (1 if stored else 0)
    client = connect(sandbox.url)
    run_id, conversation_id = client.send(message)
    assert ended(client, run_id).status == "completed"
    assert list(sandbox.conversations) == [conversation_id]
    assert sandbox.deliveries == {(message.agent_id, message.otid): 1}


def test_nothing_is_made_where_nobody_could_look(sandbox: Sandbox, connect: Connect) -> None:
    """A list that can't be read is tried again: nothing was made, and nothing sent."""
    message = fresh(sandbox.agents[0], "new")
    for fault, code in (("server_error", "letta_server_error"), ("garbage", "letta_unreadable")):
        sandbox.fault(fault, route="conversation_list")
        failure("retry", code, connect(sandbox.url).send, message)
    assert not sandbox.conversations
    assert sandbox.requests["send"] == 0


def test_a_long_title_is_cut_and_the_mark_is_not(sandbox: Sandbox, connect: Connect) -> None:
    """However long a name is, the conversation can be found."""
    message = replace(fresh(sandbox.agents[0], "new"), title="x" * 5000)
    connect(sandbox.url).send(message)
    (conversation,) = sandbox.conversations.values()
    assert re.fullmatch(rf"x{{100}} \[{message.otid}\]", conversation.summary or "")


def test_of_two_the_first_is_used(sandbox: Sandbox, connect: Connect) -> None:
    """Where there should be two all the same, every attempt uses the same one."""
    message = fresh(sandbox.agents[0], "new")
    first, _ = (sandbox.create_conversation(message.agent_id, message.otid) for _ in range(2))
    assert {connect(sandbox.url).send(message).conversation_id for _ in range(2)} == {first}
