"""How a Letta behaves, which is what the deliverer relies upon: the sandbox, and with ``make
test-letta`` a real server too, through the real SDK over real HTTP."""

import uuid
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from lettas import Letta, RealLetta, about, failure, fresh, since
from target_contract import ended

from promptyoself.targets.api import HISTORY_GAP, Message
from promptyoself.targets.letta import LettaClient, calls, client


@pytest.fixture
def deliverer(any_letta: Letta) -> Iterator[LettaClient]:
    deliverer = LettaClient(any_letta.url, call_timeout=60)
    yield deliverer
    deliverer.close()


def test_health_tells_the_version(deliverer: LettaClient) -> None:
    """The server says which Letta it is."""
    assert deliverer.health().split(".")[0].isdigit()


def test_a_message_arrives_with_its_otid(any_letta: Letta, deliverer: LettaClient) -> None:
    """A send answers at once with a run, whose message is in the history when it has completed."""
    message = fresh(any_letta.agent())
    run_id = deliverer.send(message).run_id
    run = ended(deliverer, run_id)
    assert (run.status, run.otid, run.agent_id) == ("completed", message.otid, message.agent_id)
    assert run.error is None
    assert run.created_at is not None
    in_history = deliverer.find(about(message.agent_id, message.otid), since())
    assert in_history is not None
    assert in_history.run_id == run_id
    assert in_history.date is not None
    assert abs(in_history.date - run.created_at) < timedelta(seconds=30)


def test_in_flight_only_the_run_tells(any_letta: Letta, deliverer: LettaClient) -> None:
    """Before the model has answered, the otid is on the active run and not in the history."""
    message = fresh(any_letta.agent())
    any_letta.hold()
    run_id = deliverer.send(message).run_id
    active = deliverer.active_runs(about(message.agent_id))
    assert [(r.run_id, r.otid, r.active) for r in active] == [(run_id, message.otid, True)]
    assert deliverer.find(about(message.agent_id, message.otid), since()) is None
    any_letta.finish()
    ended(deliverer, run_id)
    assert deliverer.active_runs(about(message.agent_id)) == []


def test_find_sees_only_its_own(any_letta: Letta, deliverer: LettaClient) -> None:
    """Another otid, another agent's history and an older message are not found."""
    message = fresh(any_letta.agent())
    ended(deliverer, deliverer.send(message).run_id)
    assert deliverer.find(about(message.agent_id, "other"), since()) is None
    assert deliverer.find(about(any_letta.agent(), message.otid), since()) is None


def test_find_turns_pages(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A message that is many pages back is found, and a missing one ends the search."""
    monkeypatch.setattr(calls, "PAGE", 3)
    agent_id = any_letta.agent()
    messages = [fresh(agent_id) for _ in range(4)]
    for message in messages:
        ended(deliverer, deliverer.send(message).run_id)
    for message in messages:
        in_history = deliverer.find(about(agent_id, message.otid), since())
        assert in_history is not None
    assert deliverer.find(about(agent_id, "missing"), since()) is None


def test_active_runs_turns_pages(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More active runs than one page are told, newest first."""
    monkeypatch.setattr(calls, "PAGE", 2)
    agent_id = any_letta.agent()
    any_letta.hold()
    runs = [deliverer.send(fresh(agent_id)).run_id for _ in range(5)]
    assert [r.run_id for r in deliverer.active_runs(about(agent_id))] == runs[::-1]
    any_letta.finish()
    for run in runs:
        ended(deliverer, run)


def test_runs_of_all_agents_at_once(any_letta: Letta, deliverer: LettaClient) -> None:
    """The active runs of all agents, in conversations or not, newest first, and afterwards those
    that ended: each as it is by itself."""
    plain, talking = any_letta.agent(), any_letta.agent()
    messages = (fresh(plain), fresh(talking, any_letta.conversation(talking)))
    any_letta.hold()
    mine = [deliverer.send(message).run_id for message in messages]
    listed = deliverer.all_active_runs()
    assert listed is not None
    assert [run.run_id for run in listed if run.run_id in mine] == mine[::-1]
    assert [run.agent_id for run in listed if run.run_id in mine] == [talking, plain]
    assert all(run.active for run in listed)
    any_letta.finish()
    runs = [ended(deliverer, run_id) for run_id in mine]
    over = deliverer.ended_runs(100)
    assert [run for run in over if run.run_id in mine] == runs[::-1]
    assert not any(run.active for run in over)
    assert len(deliverer.ended_runs(1)) == 1
    listed = deliverer.all_active_runs()
    assert listed is not None
    assert not {run.run_id for run in listed} & set(mine)


def test_more_runs_than_one_answer_holds(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of active runs that may have been cut short isn't taken for all of them."""
    agent_id = any_letta.agent()
    any_letta.hold()
    runs = [deliverer.send(fresh(agent_id)).run_id for _ in range(2)]
    monkeypatch.setattr(client, "_MOST_ACTIVE", 2)
    assert deliverer.all_active_runs() is None
    any_letta.finish()
    for run in runs:
        ended(deliverer, run)


def test_agents_turns_pages(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More agents than one page are listed, each once, oldest first."""
    monkeypatch.setattr(calls, "PAGE", 2)
    ids = [any_letta.agent() for _ in range(5)]
    listed = [a.id for a in deliverer.agents()]
    assert listed[-5:] == ids
    assert len(listed) == len(set(listed))


def test_an_agent_is_known_or_not(any_letta: Letta, deliverer: LettaClient) -> None:
    """An agent is told with its name; one that is missing or impossible is None."""
    agent_id = any_letta.agent()
    agent = deliverer.agent(agent_id)
    assert agent is not None
    assert (agent.id, agent.name[:5], agent.last_run_at) == (agent_id, "test-", None)
    assert agent.created_at is not None
    assert deliverer.agent(f"agent-{uuid.uuid4()}") is None
    assert deliverer.agent("nobody") is None


def test_unknown_things_are_permanent(any_letta: Letta, deliverer: LettaClient) -> None:
    """What the server does not know is refused for good, with a code that says which it was."""
    unknown, agent_id = f"agent-{uuid.uuid4()}", any_letta.agent()
    elsewhere = fresh(agent_id, f"conv-{uuid.uuid4()}")
    for call, arguments, code, status in (
        (deliverer.send, [fresh(unknown)], "agent_not_found", 404),
        (deliverer.send, [fresh("nobody")], "agent_not_found", 422),
        (deliverer.find, [about(unknown, "o"), since()], "agent_not_found", 404),
        (deliverer.run, [f"run-{uuid.uuid4()}"], "run_not_found", 404),
        (deliverer.send, [elsewhere], "conversation_not_found", 404),
    ):
        assert failure("permanent", code, call, *arguments).status == status
    assert deliverer.active_runs(about(unknown)) == []


def test_a_conversation_is_sent_to_by_a_stream_that_is_let_go(
    any_letta: Letta, deliverer: LettaClient
) -> None:
    """The run is named before the agent answers, goes on without us, and leaves the otid."""
    agent_id = any_letta.agent()
    message = fresh(agent_id, any_letta.conversation(agent_id))
    any_letta.hold()
    run_id = deliverer.send(message).run_id
    assert [(r.run_id, r.otid) for r in deliverer.active_runs(about(agent_id))] == [
        (run_id, message.otid)
    ]
    any_letta.finish()
    run = ended(deliverer, run_id)
    assert (run.status, run.otid, run.agent_id) == ("completed", message.otid, agent_id)
    in_history = deliverer.find(about(agent_id, message.otid), since())
    assert in_history is not None
    assert in_history.run_id == run_id


def test_a_conversation_must_be_the_agents_own(any_letta: Letta, deliverer: LettaClient) -> None:
    """A message for one agent is never put into another agent's conversation."""
    agent_id, other = any_letta.agent(), any_letta.agent()
    for _ in range(2):
        message = fresh(agent_id, any_letta.conversation(other))
        failure("permanent", "conversation_of_another_agent", deliverer.send, message)


def test_the_text_arrives_verbatim(any_letta: Letta, deliverer: LettaClient) -> None:
    """Line ends, quotes and letters beyond ASCII come back as they were sent."""
    text = ' "é" 🙂\n\tdone\\n '
    message = Message(any_letta.agent(), "default", text, str(uuid.uuid4()))
    ended(deliverer, deliverer.send(message).run_id)
    rows = httpx.get(
        f"{any_letta.url}/v1/agents/{message.agent_id}/messages", trust_env=False
    ).json()
    assert [r["content"] for r in rows if r["otid"] == message.otid] == [text]


def test_an_answer_turns_pages(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tools are told that were called before the newest page."""
    monkeypatch.setattr(calls, "PAGE", 2)
    message = fresh(any_letta.agent())
    any_letta.calls(message.agent_id, "look_around")
    run = ended(deliverer, deliverer.send(message).run_id)
    reply = deliverer.reply(message, since(), run.run_id)
    assert reply is not None
    assert reply.text
    assert reply.tools == ("look_around",)


def test_a_turn_that_fails_after_its_tool(any_letta: Letta, deliverer: LettaClient) -> None:
    """It has ended without words, and the tool is told."""
    message = fresh(any_letta.agent())
    any_letta.fail(message.agent_id, after_a_step=True)
    run = ended(deliverer, deliverer.send(message).run_id)
    reply = deliverer.reply(message, since(), run.run_id)
    assert reply is not None
    assert reply.text is None
    assert len(reply.tools) == 1


def test_an_answer_of_what_is_gone(any_letta: Letta, deliverer: LettaClient) -> None:
    """Nobody needs to ask again."""
    agent_id = any_letta.agent()
    messages = [fresh(agent_id, any_letta.conversation(agent_id)) for _ in range(2)]
    runs = [ended(deliverer, deliverer.send(message).run_id).run_id for message in messages]
    any_letta.delete_conversation(messages[0].conversation)
    failure("permanent", "conversation_not_found", deliverer.reply, messages[0], since(), runs[0])
    assert deliverer.reply(messages[1], since(), runs[1]) is not None
    any_letta.delete(agent_id)
    failure("permanent", "agent_not_found", deliverer.reply, messages[1], since(), runs[1])
    failure("permanent", "agent_not_found", deliverer.reply, messages[1], since(), None)
    unknown = f"run-{messages[0].otid}"
    other = fresh(any_letta.agent())
    failure("permanent", HISTORY_GAP, deliverer.reply, other, since(), unknown)


def test_agents_of_older_kinds_say_it_by_a_tool(any_letta: Letta, deliverer: LettaClient) -> None:
    """`send_message` is how they speak, so it is no tool of theirs."""
    if not isinstance(any_letta, RealLetta):
        pytest.skip("the sandbox has agents of the usual kind alone")
    message = fresh(any_letta.agent("memgpt_v2_agent"))
    any_letta.calls(message.agent_id, "send_message", message="Good morning.")
    run = ended(deliverer, deliverer.send(message).run_id)
    reply = deliverer.reply(message, since(), run.run_id)
    assert reply is not None
    assert (reply.text, reply.tools) == ("Good morning.", ())
