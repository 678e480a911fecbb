"""Letta's cloud, untested: the stand-in of it that we wrote ourselves takes what we send, and each
of its failures means what Letta Code takes it for."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from calling import call
from cloud import KEY, Cloud
from lettas import PROMPT, failure, fresh, since

from promptyoself.targets.api import Message, Run
from promptyoself.targets.letta_cloud import LettaCloud

ENQUEUE = "POST /conversations/*/messages/enqueue"
CREATE = "POST /conversations/"
LIST = "GET /conversations/"
SHUTTING_DOWN = {"errorCode": "cloud_api_shutting_down", "admitted": False, "retryable": True}


@pytest.fixture
def cloud() -> Iterator[Cloud]:
    with Cloud() as cloud:
        yield cloud


@pytest.fixture
def connect(cloud: Cloud) -> Iterator[Callable[..., LettaCloud]]:
    """Makes clients, each as a process of its own would."""
    clients: list[LettaCloud] = []

    def connect(token: str = KEY, **options: Any) -> LettaCloud:
        clients.append(LettaCloud(cloud.url, token, call_timeout=20, **options))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


Connect = Callable[..., LettaCloud]


def ended(client: LettaCloud, run_id: str | None) -> Run:
    """A run, when it is over."""
    assert run_id is not None
    until = time.monotonic() + 10
    while (run := client.run(run_id)).active and time.monotonic() < until:
        time.sleep(0.01)
    return run


def test_a_prompt_goes_into_a_conversation_of_its_own(cloud: Cloud, connect: Connect) -> None:
    """The conversation is made with the otid in its summary, and the message is in it once."""
    agent_id, client = cloud.agent(), connect()
    message = replace(fresh(agent_id, "new"), title="Plan the day")
    assert client.active_runs(message) == []
    assert client.find(message, since()) is None
    run_id, talk = client.send(message)
    assert ended(client, run_id).status == "completed"
    assert talk is not None
    assert cloud.talks[talk].summary == f"Plan the day [{message.otid}]"
    sighting = client.find(message, since())
    assert sighting is not None
    assert (sighting.conversation_id, sighting.answered) == (talk, True)
    assert sighting.run_id == cloud.super_runs[run_id or ""].run_id
    assert cloud.copies(agent_id) == {message.otid: 1}
    assert client.active_runs(message) == []


@pytest.mark.parametrize("own", [True, False])
def test_a_prompt_goes_into_a_conversation_that_there_is(
    cloud: Cloud, connect: Connect, own: bool
) -> None:
    """The agent's own, or one that was named; none is made."""
    agent_id, client = cloud.agent(), connect()
    talk = "default" if own else cloud.conversation(agent_id)
    message = fresh(agent_id, talk)
    run_id, made = client.send(message)
    assert made is None
    assert ended(client, run_id).otid == message.otid
    sighting = client.find(message, since())
    assert sighting is not None
    assert (sighting.conversation_id, sighting.answered) == (None, None)
    assert cloud.copies(agent_id) == {message.otid: 1}
    assert not cloud.requests[CREATE]


def test_a_conversation_must_be_the_agents_own(cloud: Cloud, connect: Connect) -> None:
    """A message for one agent is never put into another agent's conversation."""
    message = fresh(cloud.agent(), cloud.conversation(cloud.agent()))
    failure("permanent", "conversation_of_another_agent", connect().send, message)
    assert not cloud.requests[ENQUEUE]


@pytest.mark.parametrize(
    ("answer", "kind", "code"),
    [
        ((503, SHUTTING_DOWN, {"Retry-After": "7"}), "retry", "letta_shutting_down"),
        ((503, {**SHUTTING_DOWN, "admitted": True}), "doubt", "letta_server_error"),
        ((503, {"errorCode": "cloud_api_shutting_down"}), "doubt", "letta_server_error"),
        ((503, "upstream connect error"), "doubt", "letta_server_error"),
        ((500, {"detail": "oh"}), "doubt", "letta_server_error"),
        (("reset",), "doubt", "letta_connection_lost"),
        (("lost",), "doubt", "letta_connection_lost"),
        ((401, {"detail": "Unauthorized"}), "unauthorized", "letta_unauthorized"),
        ((404, {"detail": "Conversation not found"}), "permanent", "conversation_not_found"),
        ((404, {"detail": "Not Found"}), "retry", "letta_unreachable"),
        ((422, {"detail": "odd"}), "permanent", "letta_rejected"),
        ((402, {"detail": "pay"}), "retry", "letta_out_of_credits"),
        ((429, {"detail": "slowly"}, {"Retry-After": "9"}), "retry", "letta_rate_limited"),
        ((409, {"detail": "client_message_id was taken"}), "doubt", "letta_conflict"),
        ((409, {"detail": "CONFLICT: busy"}), "doubt", "letta_busy"),
        ((408, {"detail": "late"}), "doubt", "letta_timeout"),
        ((200, "<html>"), "doubt", "letta_unreadable"),
        ((200, {"super_run_id": "super-1", "workflow_id": "w"}), "doubt", "letta_unreadable"),
        ((200, [1]), "doubt", "letta_unreadable"),
    ],
)
def test_what_each_answer_means(
    cloud: Cloud, connect: Connect, answer: tuple[Any, ...], kind: str, code: str
) -> None:
    """Only a 503 that says so, and what an HTTP status says for certain, wasn't taken. The rest is
    in doubt, and what another process finds then decides."""
    agent_id = cloud.agent()
    message = fresh(agent_id, "new")
    cloud.fault(ENQUEUE, *answer)
    error = failure(kind, code, connect().send, message)
    assert PROMPT not in f"{error.message} {error.hint}"
    if len(answer) > 2:
        assert error.retry_after == float(answer[2]["Retry-After"])
    if code == "letta_unreachable":
        assert "--target letta" in error.hint
    time.sleep(0.03)
    again = connect()
    arrived = again.find(message, since())
    assert (arrived is not None) == (answer == ("lost",))
    if arrived is None:
        assert ended(again, again.send(message).run_id).status == "completed"
    assert cloud.copies(agent_id) == {message.otid: 1}
    assert len(cloud.talks) == 1


def test_a_conversation_is_made_once(cloud: Cloud, connect: Connect) -> None:
    """Whatever was lost: the answer to its creation, or the process that made it."""
    agent_id = cloud.agent()
    message = fresh(agent_id, "new")
    cloud.fault(CREATE, "reset")
    failure("doubt", "letta_connection_lost", connect().send, message)
    assert not cloud.talks
    cloud.fault(CREATE, "lost")
    failure("doubt", "letta_connection_lost", connect().send, message)
    cloud.fault(LIST, 500, {"detail": "oh"})
    failure("retry", "letta_server_error", connect().send, message)
    assert (len(cloud.talks), cloud.requests[ENQUEUE]) == (1, 0)
    assert connect().send(message).conversation_id in cloud.talks
    assert (len(cloud.talks), cloud.requests[ENQUEUE]) == (1, 1)


def test_a_list_of_all_conversations_is_searched_here(cloud: Cloud, connect: Connect) -> None:
    """Where nobody searches, a message isn't put into whatever conversation there is."""
    agent_id, client = cloud.agent(), connect()
    cloud.searches = False
    message = fresh(agent_id, "new")
    others = {cloud.conversation(agent_id), cloud.conversation(agent_id, "Tea")}
    made = client.send(message).conversation_id
    assert client.send(message).conversation_id == made
    assert set(cloud.talks) - others == {made}


def test_what_is_in_the_queue_is_followed_by_another_process(
    cloud: Cloud, connect: Connect
) -> None:
    """The super run of a conversation that was made for a message is that message's, even if its
    sender has died; elsewhere it keeps others waiting."""
    agent_id = cloud.agent()
    cloud.latency = 3600
    message, another = fresh(agent_id, "new"), fresh(agent_id, cloud.conversation(agent_id))
    for sent in (message, another):
        cloud.fault(ENQUEUE, "lost")
        failure("doubt", "letta_connection_lost", connect().send, sent)
    client = connect()
    (run,) = client.active_runs(message)
    assert (run.otid, run.status) == (message.otid, "created")
    assert client.run(run.run_id) == run
    (run,) = client.active_runs(another)
    assert (run.otid, run.active) == (None, True)
    failure("permanent", "run_not_found", client.run, run.run_id)


@pytest.mark.parametrize(
    ("outcome", "status", "code", "error", "arrives"),
    [
        ("errored", "failed", "run_failed", "sandbox_start: The sandbox didn't start.", False),
        ("cancelled", "cancelled", "run_failed", "The run is cancelled.", False),
        ("silent", "completed", "run_failed", "The run is completed.", False),
        ("run_failed", "failed", "run_failed", "the model is gone", True),
    ],
)
def test_how_a_turn_ends(
    cloud: Cloud,
    connect: Connect,
    outcome: str,
    status: str,
    code: str,
    error: str,
    arrives: bool,
) -> None:
    """A super run says whether it came to a turn, and the turn's own run how that ended. Whether
    the message has arrived, only the history says."""
    message, client = fresh(cloud.agent(), "new"), connect()
    cloud.outcome = outcome
    run = ended(client, client.send(message).run_id)
    assert (run.status, client.failure(run)[:2]) == (status, (code, error))
    sighting = client.find(message, since())
    assert (sighting is not None) == arrives
    if sighting is not None:
        assert sighting.answered is False


def test_an_agent_that_is_gone(cloud: Cloud, connect: Connect) -> None:
    """It can't be sent to, and takes its history with it."""
    message, client = fresh("agent-11111111-1111-4111-8111-111111111111", "new"), connect()
    failure("permanent", "agent_not_found", client.send, message)
    failure("permanent", "agent_not_found", client.find, message, since())
    assert client.active_runs(message) == []
    assert client.agent(message.agent_id) is None


def test_it_says_that_it_is_untested() -> None:
    """What people are told when it is first used, and what sentences call it."""
    assert "untested" in LettaCloud.traits.title
    assert "untested" in LettaCloud.traits.caution


def test_nobody_is_called_with_another_key(cloud: Cloud, connect: Connect) -> None:
    """A wrong key is a refusal of the whole target."""
    message: Message = fresh(cloud.agent(), "new")
    failure("unauthorized", "letta_unauthorized", connect("wrong").send, message)
    failure("unauthorized", "letta_unauthorized", connect("wrong").check)
    assert not cloud.talks


def test_from_a_registration_to_the_outcome(
    cloud: Cloud, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the setting a prompt is delivered into a conversation of its own, and each place says
    that this is untested. Without it nothing goes there, and a loop says why."""
    agent_id = cloud.agent()
    for name, value in (("LETTA_BASE_URL", cloud.url), ("LETTA_API_KEY", KEY)):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "untested")
    asked = ("--agent-id", agent_id, "--prompt", PROMPT, "--every", "1d", "--name", "plan")
    id_ = call("register", *asked, "--target", "letta-cloud").success()["id"]
    assert call("agents", "--target", "letta-cloud").success()["agents"][0]["id"] == agent_id
    checks = call("doctor", "--quick").document["checks"]
    (check,) = [check for check in checks if check["name"] == "letta-cloud"]
    assert (check["ok"], "untested" in check["detail"]) == (True, True)
    for code, reset in (("delivered", False), ("delivered", True)):
        if reset:
            cloud.fault(ENQUEUE, "lost")
        call("trigger", id_).success()
        executed = call("execute")
        assert [line["state"] for line in executed.success()["executed"]] == [code]
        assert executed.err.count("The target letta-cloud is untested") == 1
    deliveries = call("history", "--id", id_, "--type", "delivery.delivered").success()["events"]
    made = [event["data"]["conversation_id"] for event in deliveries]
    assert sorted(made) == sorted(cloud.talks)
    assert all(cloud.talks[talk].summary.startswith("plan [") for talk in made)  # type: ignore[union-attr]
    assert set(cloud.copies(agent_id).values()) == {1}

    monkeypatch.setenv("PROMPTYOSELF_LETTA_CLOUD", "off")
    call("trigger", id_).success()
    (line,) = call("execute").success()["executed"]
    assert (line["state"], line["code"]) == ("retrying", "target_not_configured")
    assert len(cloud.talks) == 2


def test_an_answer_without_a_super_run_is_waited_for(cloud: Cloud, connect: Connect) -> None:
    """Until the agent's own words are the newest, or another prompt has followed: then the turn is
    over."""
    agent_id, client = cloud.agent(), connect()
    talk = cloud.talks[cloud.conversation(agent_id)]
    message = fresh(agent_id, talk.id)

    def add(kind: str, otid: str, **content: Any) -> None:
        date = datetime.now(UTC).isoformat()
        row = {"id": f"message-{len(talk.messages)}", "date": date, "otid": otid}
        talk.messages.append({**row, "message_type": kind, **content})

    add("user_message", message.otid, content="p")
    add("tool_call_message", "o-1", tool_call={"name": "look", "arguments": "{}"})
    assert client.reply(message, since(), None) is None
    add("assistant_message", "o-2", content="Done.")
    reply = client.reply(message, since(), None)
    assert reply is not None
    assert (reply.text, reply.tools) == ("Done.", ("look",))
    talk.messages.pop()
    add("user_message", "another", content="q")
    assert client.reply(message, since(), None) == (None, ("look",), None)
