"""Letta Code: what an agent has answered, as a conversation tells it that no real App Server can be
made to have."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from false_app_servers import AppServer, app_server
from target_contract import refusal, until

from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Found, Message
from promptyoself.targets.letta_code import LettaCode, connection

SINCE = datetime(2026, 11, 20, tzinfo=UTC)
NOON = SINCE.replace(hour=12)
SENT = Message("agent-local-1", "local-conv-1", "", "otid-1", tried=True)
PROMPTED = {"message_type": "user_message", "otid": "otid-1", "content": "p"}
FOLLOWED = {"message_type": "user_message", "otid": "otid-2", "content": "q"}
SUMMARY = {"message_type": "summary_message", "content": "…"}
CALLS = {
    "message_type": "approval_request_message",
    "tool_call": {"name": "Bash", "tool_call_id": "call-1", "arguments": "{}"},
}


@pytest.fixture
def server() -> Iterator[AppServer]:
    with app_server() as running:
        yield running


@pytest.fixture
def target(server: AppServer) -> Iterator[LettaCode]:
    client = LettaCode(server.url, call_timeout=10, anchored=False)
    yield client
    client.close()


def says(text: str) -> dict[str, Any]:
    return {"message_type": "assistant_message", "content": [{"type": "text", "text": text}]}


def attempted(find: Callable[..., Found | None], *arguments: Any) -> Found | None:
    """What is found, if anything can be told."""
    with contextlib.suppress(DeliveryError):
        return find(*arguments)
    return None


def has(server: AppServer, *rows: dict[str, Any]) -> list[dict[str, Any]]:
    """What the conversation has from now on, the newest first."""
    date = "2026-11-20T12:00:00Z"
    messages = [{"id": f"m-{number}", "date": date, **row} for number, row in enumerate(rows)]
    server.answers["conversation_messages_list"] = {"messages": messages, "has_more": False}
    return messages


def test_an_answer_is_what_was_said_before_the_next_prompt(
    server: AppServer, target: LettaCode
) -> None:
    """Whatever is at work since. What nothing has followed is waited for."""
    has(server, says("so far"), PROMPTED)
    assert target.active_runs(SENT) == []
    busy = {"type": "update_loop_status", "loop_status": {"status": "PROCESSING"}}
    server.tell(busy, agent_id=SENT.agent_id, conversation_id=SENT.conversation)
    until(lambda: target.active_runs(SENT))
    assert target.reply(SENT, SINCE, None) is None
    has(server, CALLS, FOLLOWED, says("first"), CALLS, PROMPTED, says("before"))
    reply = target.reply(SENT, SINCE, None)
    assert reply is not None
    assert (reply.text, reply.tools) == ("first", ("Bash",))


def test_a_turn_that_was_cut_off_ends_without_words(server: AppServer, target: LettaCode) -> None:
    """Nothing is at work there, so nothing more will come."""
    has(server, CALLS, PROMPTED)
    assert target.reply(SENT, SINCE, None) == (None, ("Bash",), None)


def test_an_answer_that_was_summed_up(server: AppServer, target: LettaCode) -> None:
    """In a conversation that others use too, it may be an answer to anything."""
    has(server, says("summary"), SUMMARY)
    refusal("permanent", HISTORY_GAP, target.reply, SENT, SINCE, None)


def test_a_prompt_that_was_summed_up_in_its_turn(server: AppServer, target: LettaCode) -> None:
    """In the conversation that was made for it, what follows the summary is what the agent said to
    it, once the turn is over; unless another prompt has followed, or nothing was said since."""
    server.answers["conversation_list"] = {"conversations": [{"id": SENT.conversation}]}
    has(server, says("done"), CALLS, SUMMARY)
    assert target.reply(SENT, SINCE, None) == ("done", ("Bash",), NOON)
    for rows in ([SUMMARY], [CALLS, SUMMARY], [says("more"), FOLLOWED, says("done"), SUMMARY]):
        has(server, *rows)
        refusal("permanent", HISTORY_GAP, target.reply, SENT, SINCE, None)
    busy = {"type": "update_loop_status", "loop_status": {"status": "PROCESSING"}}
    server.answers["sync"] = lambda frame: server.tell(busy, **frame["runtime"]) or {}
    assert target.reply(SENT, SINCE, None) is None


def test_where_a_summed_up_prompt_is_found(server: AppServer, target: LettaCode) -> None:
    """In the conversation that was made for it, nothing else can have been summed up. In another
    one, it is known to be there if this process was told that a run has begun over it."""
    shared = dataclasses.replace(SENT, text="p")
    other = LettaCode(server.url, call_timeout=10, anchored=False)
    has(server, CALLS, SUMMARY)
    target.send(shared)
    refusal("permanent", HISTORY_GAP, target.find, shared, SINCE)
    begun = {"status": "PROCESSING", "active_run_ids": ["run-1"]}
    place = {"agent_id": SENT.agent_id, "conversation_id": SENT.conversation}
    server.tell({"type": "update_loop_status", "loop_status": begun}, **place)
    found = until(lambda: attempted(target.find, shared, SINCE))
    assert (found.message_id, found.answered, found.conversation_id) == ("m-1", None, None)
    refusal("permanent", HISTORY_GAP, other.find, shared, SINCE)
    refusal("permanent", HISTORY_GAP, target.find, dataclasses.replace(shared, otid="x"), SINCE)
    server.answers["conversation_list"] = {"conversations": [{"id": SENT.conversation}]}
    for asked in (shared, dataclasses.replace(shared, conversation="new")):
        found = other.find(asked, SINCE)
        assert found is not None
        assert (found.answered, found.conversation_id) == (False, SENT.conversation)
    other.close()


def test_a_conversation_that_the_server_has_lost(server: AppServer, target: LettaCode) -> None:
    """It was made for a prompt, and its file was torn. Whether the prompt was in it, only the
    process knows that was told of a run; and nobody, as long as another store is served there."""
    message = dataclasses.replace(SENT, conversation="new", text="p", tried=False)
    target.send(message)
    shared = dataclasses.replace(SENT, text="p", otid="otid-2")
    lost = {"success": False, "error": "Conversation local-conv-1 not found"}
    server.answers["conversation_messages_list"] = lost
    refusal("permanent", HISTORY_GAP, target.find, message, SINCE)
    refusal("retry", "conversation_not_found", target.find, shared, SINCE)
    begun = {"status": "PROCESSING", "active_run_ids": ["run-1"]}
    place = {"agent_id": SENT.agent_id, "conversation_id": SENT.conversation}
    server.tell({"type": "update_loop_status", "loop_status": begun}, **place)
    found = until(lambda: attempted(target.find, message, SINCE))
    assert (found.answered, found.conversation_id) == (None, SENT.conversation)
    gone = {"success": False, "error": "Agent agent-local-1 not found"}
    server.answers["agent_retrieve"] = gone
    refusal("retry", "agent_not_found", target.find, message, SINCE)


def test_an_answer_that_is_too_long(
    server: AppServer, target: LettaCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody asks for it again. The connection that it has ended is opened again."""
    monkeypatch.setattr(connection, "_MOST_BYTES", 100_000)
    has(server, says("x" * 200_000), PROMPTED)
    refusal("permanent", "reply_too_large", target.reply, SENT, SINCE, None)
    has(server, says("short"), PROMPTED)
    reply = target.reply(SENT, SINCE, None)
    assert reply is not None
    assert reply.text == "short"


def test_an_answer_beside_what_is_too_long(
    server: AppServer, target: LettaCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read message by message."""
    monkeypatch.setattr(connection, "_MOST_BYTES", 100_000)
    messages = has(server, says("short"), PROMPTED, says("x" * 200_000))

    def listed(frame: dict[str, Any]) -> dict[str, Any]:
        after = frame["query"].get("before")
        start = 0 if after is None else [row["id"] for row in messages].index(after) + 1
        rows = messages[start : start + frame["query"]["limit"]]
        return {"messages": rows, "has_more": True, "next_before": rows[-1]["id"]}

    server.answers["conversation_messages_list"] = listed
    reply = target.reply(SENT, SINCE, None)
    assert reply is not None
    assert reply.text == "short"
