"""What only the target `letta-code` promises, with a real App Server: turns outlive their senders,
and each way for a turn to end badly is told apart."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from letta_code.server import LettaCode as AppServer
from target_contract import refusal, until

from promptyoself.targets.api import HISTORY_GAP, Found, Message, Reply, Run
from promptyoself.targets.letta_code import LettaCode

Servers = Callable[..., AppServer]
CALLS = "approval_request_message"
ASK = '[[tool:Bash {"command":"touch it","description":"touch"}]]'


@pytest.fixture
def target(letta_code: AppServer) -> Iterator[LettaCode]:
    client = LettaCode(letta_code.url)
    yield client
    client.close()


@pytest.fixture
def agent(letta_code: AppServer) -> str:
    return letta_code.agent()


def fresh(agent_id: str, text: str = "Hello.", conversation: str = "new") -> Message:
    return Message(agent_id, conversation, text, str(uuid.uuid4()), "Stretch")


def since() -> datetime:
    return datetime.now(UTC) - timedelta(minutes=1)


def shared(server: AppServer, agent_id: str, *, mode: str | None = None) -> str:
    with server.connect() as wire:
        fields = {"mode": mode} if mode else {}
        return str(wire.conversation(agent_id, **fields)["conversation_id"])


def begun(target: LettaCode, message: Message) -> Found:
    """The message is in the history, so its turn has begun."""
    found = until(lambda: target.find(message, since()))
    assert isinstance(found, Found)
    return found


def ended(target: LettaCode, message: Message) -> Run:
    """The turn over that message, which is sent and followed to its end."""
    return over(target, str(target.send(message).run_id))


def over(target: LettaCode, run_id: str) -> Run:
    def end() -> Run | None:
        run = target.run(run_id)
        return None if run.active else run

    run = until(end)
    assert isinstance(run, Run)
    return run


# -- the sender dies

SENDER = """
import sys, time
from promptyoself.targets.api import Message
from promptyoself.targets.letta_code import LettaCode

url, agent_id, conversation, text, otid, anchored = sys.argv[1:]
target = LettaCode(url, anchored=anchored == "anchored")
print(target.send(Message(agent_id, conversation, text, otid)), flush=True)
time.sleep(60)
"""


def killed_sender(
    url: str, message: Message, anchored: str, when: Callable[[], object] = lambda: None
) -> None:
    """A process that sends the message, and is killed after it was accepted, and after that."""
    what = (message.agent_id, message.conversation, message.text, message.otid, anchored)
    with subprocess.Popen(
        [sys.executable, "-c", SENDER, url, *what], stdout=subprocess.PIPE, text=True
    ) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline().startswith("Sent(")
        when()
        sender.kill()


@pytest.mark.parametrize("conversation", ["new", "shared"])
def test_a_turn_outlives_its_sender(
    letta_code: AppServer, target: LettaCode, agent: str, conversation: str
) -> None:
    """Another process finds it at work, and later answered."""
    place = shared(letta_code, agent) if conversation == "shared" else "new"
    message = fresh(agent, "Take your time. [[slow:4]] [[drip:0.5]]", place)
    killed_sender(letta_code.url, message, "anchored")
    (run,) = target.active_runs(message)
    assert run.active
    assert run.otid == (message.otid if place == "new" else None)
    until(lambda: not target.active_runs(message))
    assert begun(target, message).answered
    assert letta_code.copies(message.otid) == 1
    assert ended(target, fresh(agent, conversation=place)).status == "completed"


def test_a_conversation_that_was_renamed_is_found(
    letta_code: AppServer, target: LettaCode, agent: str
) -> None:
    """A person gives the conversation that was made for a prompt another title. A process that
    knows nothing of the send finds the prompt all the same, and would send it nowhere else."""
    message = fresh(agent)
    made = target.send(message).conversation_id
    until(lambda: not target.active_runs(message))
    with letta_code.connect() as wire:
        renamed = wire.ask("conversation_update", conversation_id=made, body={"summary": "Mine."})
        assert renamed["success"], renamed
    another = LettaCode(letta_code.url)
    again = dataclasses.replace(message, tried=True)
    found = another.find(again, since())
    assert found is not None
    assert found.conversation_id == made
    assert another.send(again).conversation_id == made
    another.close()


def test_without_an_anchor_it_is_cut_off(
    letta_code: AppServer, target: LettaCode, agent: str
) -> None:
    """That is what the anchor is for: here the conversation takes no message until the server is
    started again, and that has a reason of its own. Version 0.32 goes on all the same."""
    place = shared(letta_code, agent)
    message = fresh(agent, "Take your time. [[drip:1]]", place)
    # Not by asking the target, whose connection would keep the turn going as an anchor does.
    killed_sender(
        letta_code.url, message, "not", lambda: until(lambda: letta_code.copies(message.otid) == 1)
    )
    until(lambda: not target.active_runs(message))
    time.sleep(1.2)  # until the model's answer is over
    following = fresh(agent, conversation=place)
    run = ended(target, following)
    if run.status == "completed":
        assert letta_code.version.startswith("0.32.")
        return
    assert run.status == "failed"
    failure = target.failure(run)
    assert (failure.code, failure.permanent) == ("letta_code_wedged", False)
    assert ") The" not in failure.error
    assert "restart" in failure.error
    assert target.find(following, since()) is None
    assert letta_code.copies(message.otid) == 1


# -- a person is there too


def test_after_a_person_has_interrupted(
    letta_code: AppServer, target: LettaCode, agent: str
) -> None:
    """The interrupted turn is told as cancelled. Then the conversation is idle, and refuses input
    with an otid alone: the message goes in all the same, once, and its turn is told by its run."""
    place = shared(letta_code, agent)
    first = fresh(agent, "Take your time. [[drip:0.5]]", place)
    run_id = str(target.send(first).run_id)
    with letta_code.connect() as wire:
        runtime = {"agent_id": agent, "conversation_id": place}
        begun(target, first)
        time.sleep(0.2)
        wire.ask("abort_message", runtime=runtime)
    second = fresh(agent, conversation=place)
    run = ended(target, second)
    assert run.status == "completed"
    assert over(target, run_id).status == "cancelled"
    found = begun(target, second)
    assert found.answered
    assert [letta_code.copies(message.otid) for message in (first, second)] == [1, 1]
    # And from then on it is as before.
    until(lambda: not target.active_runs(second))
    assert ended(target, fresh(agent, conversation=place)).status == "completed"


def test_a_conversation_at_work(letta_code: AppServer, target: LettaCode, agent: str) -> None:
    """It takes no message; and another one does, at the same time."""
    place = shared(letta_code, agent)
    first = fresh(agent, "Take your time. [[slow:5]]", place)
    run_id = str(target.send(first).run_id)
    refused = fresh(agent, conversation=place)
    refusal("busy", "letta_code_busy", target.send, refused)
    assert [run.otid for run in target.active_runs(refused)] == [first.otid]
    assert target.active_runs(fresh(agent, conversation="default")) == []
    assert ended(target, fresh(agent, conversation="default")).status == "completed"
    assert target.run(run_id).active
    assert over(target, run_id).status == "completed"
    assert letta_code.copies(refused.otid) == 0


def test_a_turn_that_waits_for_an_approval(new_letta_code: Servers) -> None:
    """It is told as such, and the conversation takes no message."""
    server = new_letta_code()
    agent = server.agent()
    target = LettaCode(server.url)
    place = shared(server, agent, mode="standard")
    message = fresh(agent, ASK, place)
    run_id = str(target.send(message).run_id)
    until(lambda: target.run(run_id).waits)
    assert [run.status for run in target.active_runs(message)] == ["waiting"]
    error = refusal("busy", "letta_code_busy", target.send, fresh(agent, conversation=place))
    assert "approval" in error.message
    assert begun(target, message).answered is None
    target.close()


@pytest.mark.parametrize("behavior", ["allow", "deny"])
def test_what_it_says_after_an_approval_is_the_answer(
    letta_code: AppServer, target: LettaCode, agent: str, behavior: str
) -> None:
    """Be it a yes or a no that somebody gives over a connection of his own."""
    place = shared(letta_code, agent, mode="standard")
    message = fresh(agent, ASK, place)
    run_id = str(target.send(message).run_id)
    until(lambda: target.run(run_id).waits)
    assert target.reply(message, since(), run_id) is None
    runtime = {"agent_id": agent, "conversation_id": place}
    with letta_code.connect() as wire:
        (device,) = [f for f in wire.sync(runtime) if f["type"] == "update_device_status"]
        (request,) = device["device_status"]["pending_control_requests"]
        decision = {"behavior": behavior, "message": "No."}
        said = {"kind": "approval_response", "request_id": request["request_id"]}
        answer = wire.ask("input", runtime=runtime, payload={**said, "decision": decision})
        assert answer["accepted"], answer
        reply = until(lambda: target.reply(message, since(), run_id))
    assert isinstance(reply, Reply)
    assert (bool(reply.text), reply.tools) == (True, ("Bash",))


def test_a_turn_whose_server_died_while_it_waited(new_letta_code: Servers) -> None:
    """Nobody can approve of it any more, which is told at once."""
    server = new_letta_code()
    agent = server.agent()
    target = LettaCode(server.url)
    message = fresh(agent, ASK, shared(server, agent, mode="standard"))
    run_id = str(target.send(message).run_id)
    until(lambda: target.run(run_id).waits)
    server.kill()
    server.start()
    reply = until(lambda: target.reply(message, since(), run_id))
    assert reply == Reply(None, ("Bash",))
    target.close()


def test_the_conversation_was_summed_up(
    letta_code: AppServer, target: LettaCode, agent: str
) -> None:
    """Then its absence proves nothing to a process that wasn't told of its turn; unless that was
    before it can have been sent."""
    place = shared(letta_code, agent)
    message = fresh(agent, conversation=place)
    before = since()
    ended(target, message)
    for text in ("One.", "Two.", "Three."):
        ended(target, fresh(agent, text, place))
    with letta_code.connect() as wire:
        done = wire.ask("conversation_compact", conversation_id=place, body={"agent_id": agent})
        assert done["success"], done
    another = LettaCode(letta_code.url)
    refusal("permanent", HISTORY_GAP, another.find, message, before)
    another.close()
    assert target.find(message, before) is not None
    assert letta_code.copies(message.otid) == 1
    assert target.find(fresh(agent, conversation=place), datetime.now(UTC)) is None


def test_a_model_that_fails_after_the_first_step(
    letta_code: AppServer, target: LettaCode, agent: str
) -> None:
    """The prompt has arrived, its turn has failed, and what its tool has done was done once."""
    message = fresh(agent)
    call = json.dumps({"command": f"echo x >>{message.otid}", "description": "note"})
    message = dataclasses.replace(message, text=f"Note it. [[tool:Bash {call}]] [[late:500]]")
    run = ended(target, message)
    assert (run.status, "a failure on demand" in (run.error or "")) == ("failed", True)
    found = begun(target, message)
    assert found.answered is False
    assert (letta_code.work / message.otid).read_text() == "x\n"
    assert letta_code.copies(message.otid) == 1


def waiting(otid: str) -> str:
    """A prompt whose turn calls a tool that waits for a file of that name, and then goes on."""
    program = f"import os, time\nwhile not os.path.exists('{otid}'): time.sleep(0.02)"
    call = {"command": f'python3 -c "{program}"', "description": "wait"}
    return f"Wait. [[tool:Bash {json.dumps(call)}]]"


@pytest.mark.parametrize(("conversation", "interrupted"), [("new", False), ("shared", True)])
def test_a_turn_in_which_its_conversation_is_summed_up(
    letta_code: AppServer, target: LettaCode, agent: str, conversation: str, *, interrupted: bool
) -> None:
    """Its prompt isn't listed any more, and yet it is known that it has arrived, and what became of
    its turn. Another process knows that of a conversation of its own alone."""
    place = shared(letta_code, agent) if conversation == "shared" else "new"
    message = fresh(agent, "", place)
    message = dataclasses.replace(message, text=waiting(message.otid))
    before = since()
    sent = target.send(message)
    runtime = {"agent_id": agent, "conversation_id": sent.conversation_id or place}
    with letta_code.connect() as wire:
        until(lambda: CALLS in [row["message_type"] for row in wire.history(runtime)])
        body = {"agent_id": agent, "compaction_settings": {"mode": "all"}}
        asked = {"conversation_id": runtime["conversation_id"], "body": body}
        assert wire.ask("conversation_compact", **asked)["success"]
        assert wire.otids(runtime) == []
        if interrupted:
            wire.ask("abort_message", runtime=runtime)
    (letta_code.work / message.otid).touch()
    assert over(target, str(sent.run_id)).status == ("cancelled" if interrupted else "completed")
    found = target.find(message, before)
    assert found is not None
    assert found.answered is not interrupted
    another = LettaCode(letta_code.url)
    kept = dataclasses.replace(message, text="", conversation=runtime["conversation_id"])
    if conversation == "shared":
        refusal("permanent", HISTORY_GAP, another.find, message, before)
        refusal("permanent", HISTORY_GAP, another.reply, kept, before, None)
    else:
        assert another.find(message, before) == found
        reply = another.reply(kept, before, None)
        assert reply is not None
        assert (reply.text or "").startswith("done: ")
    another.close()
    assert letta_code.copies(message.otid) == 1


# -- the server ends


def test_the_server_is_killed_in_a_turn(new_letta_code: Servers) -> None:
    """The message is there once, unanswered; and nothing comes of its turn any more. The same
    target goes on as soon as the server is back. A conversation that was torn at the kill is gone
    for the server: its sender knows that the message was in it, another process knows nothing."""
    server = new_letta_code()
    agent = server.agent()
    target = LettaCode(server.url, call_timeout=30)
    message, torn = (fresh(agent, "Take your time. [[drip:30]]") for _ in range(2))
    run_id = str(target.send(message).run_id)
    torn_place = target.send(torn).conversation_id
    begun(target, message)
    until(lambda: target._was_stored(torn, str(torn_place)))
    time.sleep(0.3)
    server.kill()
    server.tear(str(torn_place))
    until(lambda: target._connection is None or not target._connection.alive)
    refusal("retry", "letta_code_unreachable", target.send, fresh(agent))
    refusal("permanent", "run_not_found", target.run, run_id)
    server.start()
    assert target.active_runs(message) == []
    found = begun(target, message)
    assert found.answered is False
    assert found.conversation_id is not None
    assert ended(target, fresh(agent)).status == "completed"
    assert server.copies(message.otid) == 1
    found = begun(target, torn)
    assert (found.conversation_id, found.answered) == (torn_place, None)
    another = LettaCode(server.url)
    again = dataclasses.replace(torn, text="Again.", tried=True)
    assert another.find(again, since()) is None
    assert another.send(again).conversation_id not in (None, torn_place)
    assert begun(another, again).conversation_id != torn_place
    another.close()
    target.close()


def test_the_first_turns_after_a_start(new_letta_code: Servers) -> None:
    """A server that was just started fails turns that begin at once, unless its models were listed
    before."""
    server = new_letta_code()
    agent = server.agent()
    server.kill()
    server.start()
    target = LettaCode(server.url)
    with ThreadPoolExecutor(8) as pool:
        runs = list(pool.map(lambda _: ended(target, fresh(agent)), range(8)))
    assert [(run.status, run.error) for run in runs] == [("completed", None)] * 8
    target.close()


def test_the_server_hangs(new_letta_code: Servers) -> None:
    """Nobody knows then; and once it goes on, the history tells."""
    server = new_letta_code()
    message = fresh(server.agent(), conversation="default")
    target = LettaCode(server.url, call_timeout=3.0, anchored=False)
    target.active_runs(message)
    put = target._put

    def put_into_a_void(*arguments: str) -> str | None:
        server.pause()
        return put(*arguments)  # type: ignore[arg-type]

    target._put = put_into_a_void  # type: ignore[method-assign, assignment]
    try:
        refusal("doubt", "letta_code_timeout", target.send, message)
        refusal("doubt", "letta_code_timeout", target.find, message, since())
    finally:
        server.resume()
    until(lambda: begun(target, message).answered)
    assert server.copies(message.otid) == 1
    target.close()


def test_a_server_with_a_token(new_letta_code: Servers, tmp_path: Path) -> None:
    secret = f"token-{uuid.uuid4()}"
    file = tmp_path / "token"
    file.write_text(secret)
    server = new_letta_code("--ws-auth", "capability-token", "--ws-token-file", str(file))
    for token in (None, "another"):
        client = LettaCode(server.url, token)
        for call in (client.check, client.agents):
            error = refusal("unauthorized", "letta_code_unauthorized", call)
            assert error.status == 401
    with server.connect(secret) as wire:
        agent = wire.agent()
    target = LettaCode(server.url, secret)
    assert ended(target, fresh(agent, conversation="default")).status == "completed"
    target.close()


def test_the_anchor_is_killed(letta_code: AppServer, agent: str) -> None:
    """Nothing comes of that, as long as the sender lives."""
    target = LettaCode(letta_code.url)
    message = fresh(agent, "Take your time. [[slow:0.5]] [[drip:0.5]]")
    run_id = str(target.send(message).run_id)
    assert target._anchor is not None
    assert target._anchor._running is not None
    os.kill(target._anchor._running._process.pid, signal.SIGKILL)
    assert over(target, run_id).status == "completed"
    assert ended(target, fresh(agent, conversation="default")).status == "completed"
    target.close()
