"""Turns that stop for an approval of a tool: on the sandbox, and with ``make test-letta`` on a real
server too, through the real SDK. What the agent says once somebody has answered is the answer to
that prompt, and to no other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from lettas import Letta, failure, fresh, since
from target_contract import ended

from promptyoself.targets.api import Message, Reply
from promptyoself.targets.letta import LettaClient, replies

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def deliverer(any_letta: Letta) -> Iterator[LettaClient]:
    deliverer = LettaClient(any_letta.url, call_timeout=60)
    yield deliverer
    deliverer.close()


def asked(
    letta: Letta, deliverer: LettaClient, times: int = 1, *, talking: bool = False
) -> tuple[Message, str]:
    """A prompt over which the agent has asked for an approval, and its run."""
    agent_id = letta.agent()
    message = fresh(agent_id, letta.conversation(agent_id) if talking else "default")
    letta.asks(agent_id, times)
    run = ended(deliverer, deliverer.send(message).run_id)
    assert run.status == "completed"
    assert deliverer.reply(message, since(), run.run_id) is None
    return message, run.run_id


def answered(deliverer: LettaClient, message: Message, run_id: str | None) -> Reply:
    """The answer, once it is there. On a busy machine a real tool takes long."""
    return until(lambda: deliverer.reply(message, since(), run_id))


def until(look: Callable[[], Reply | None]) -> Reply:
    end = time.monotonic() + 120
    while (reply := look()) is None:
        assert time.monotonic() < end
        time.sleep(0.05)
    return reply


@pytest.mark.parametrize("talking", [False, True], ids=["agent", "conversation"])
@pytest.mark.parametrize("approve", [True, False], ids=["approved", "denied"])
def test_what_it_says_after_an_approval_is_the_answer(
    any_letta: Letta, deliverer: LettaClient, approve: bool, talking: bool
) -> None:
    """Whether its run is known or has to be looked for."""
    message, run_id = asked(any_letta, deliverer, talking=talking)
    any_letta.answer(message, approve=approve)
    reply = answered(deliverer, message, run_id)
    assert reply.text
    assert reply.tools == ("wave",)
    assert reply.date is not None
    assert deliverer.reply(message, since(), None) == reply


def test_it_asks_more_than_once(any_letta: Letta, deliverer: LettaClient) -> None:
    """Each time it waits, and the answer comes after the last time."""
    message, run_id = asked(any_letta, deliverer, times=2)
    any_letta.answer(message, approve=False)
    end = time.monotonic() + 60
    while len(any_letta.rows(message, "approval_request")) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert deliverer.reply(message, since(), run_id) is None
    any_letta.answer(message, approve=False)
    reply = answered(deliverer, message, run_id)
    assert (bool(reply.text), reply.tools) == (True, ("wave", "wave"))


def test_prompts_that_wait_behind_it(any_letta: Letta, deliverer: LettaClient) -> None:
    """Each prompt has its own answer, in whichever order they are read."""
    message, run_id = asked(any_letta, deliverer)
    refused = ended(deliverer, deliverer.send(fresh(message.agent_id)).run_id)
    assert deliverer.failure(refused).code == "letta_busy"
    elsewhere = fresh(message.agent_id, any_letta.conversation(message.agent_id))
    other_run = ended(deliverer, deliverer.send(elsewhere).run_id).run_id
    any_letta.answer(message, approve=False)
    first = answered(deliverer, message, run_id)
    later = replace(fresh(message.agent_id), text="Another.")
    last_run = ended(deliverer, deliverer.send(later).run_id).run_id
    assert deliverer.reply(message, since(), run_id) == first
    last = deliverer.reply(later, since(), last_run)
    other = deliverer.reply(elsewhere, since(), other_run)
    assert last is not None
    assert other is not None
    assert (last.text, last.tools) == ("You said: Another.", ())
    assert other.tools == ()
    assert first.text != last.text


@pytest.mark.parametrize("talking", [False, True], ids=["agent", "conversation"])
def test_another_message_with_the_approval(
    any_letta: Letta, deliverer: LettaClient, talking: bool
) -> None:
    """What the agent says then may be about that one."""
    message, run_id = asked(any_letta, deliverer, talking=talking)
    any_letta.answer(message, "And what is the time?", approve=False)

    def look() -> Reply | None:
        return deliverer.reply(message, since(), run_id)

    with pytest.raises(Exception, match="another message") as caught:
        until(look)
    assert caught.value.code == "turn_shared"  # type: ignore[attr-defined]


def test_an_approval_that_nobody_can_give_any_more(
    any_letta: Letta, deliverer: LettaClient
) -> None:
    """It is told at once."""
    message, run_id = asked(any_letta, deliverer)
    any_letta.forget(message.agent_id)
    failure("permanent", "turn_cut_off", deliverer.reply, message, since(), run_id)
    ended(deliverer, deliverer.send(fresh(message.agent_id)).run_id)
    failure("permanent", "turn_cut_off", deliverer.reply, message, since(), run_id)


def test_a_turn_that_a_dead_server_left(
    any_letta: Letta, deliverer: LettaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as cut off once the conversation has gone on without it for long."""
    message = fresh(any_letta.agent())
    any_letta.die_over(message.agent_id, lambda: deliverer.send(message))
    found = deliverer.find(message, since())
    assert found is not None
    run_id = found.run_id
    assert deliverer.reply(message, since(), run_id) is None
    later = fresh(message.agent_id)
    later_run = ended(deliverer, deliverer.send(later).run_id).run_id
    assert deliverer.reply(message, since(), run_id) is None
    monkeypatch.setattr(replies, "_LIFE", timedelta(seconds=-1))
    failure("permanent", "turn_cut_off", deliverer.reply, message, since(), run_id)
    assert deliverer.reply(later, since(), later_run) is not None
