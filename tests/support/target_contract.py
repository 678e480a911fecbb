"""What every target promises, as tests: a test file imports all of this, and has the fixture
``counterpart``, which is the real thing that its target talks to."""

import contextlib
import dataclasses
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Message, Run, Target

PROMPT = "the prompt is nobody's business"
PATIENCE = 120.0  # seconds; a real server on a busy machine takes its time


class Counterpart(ABC):
    """What a target talks to, and a hand on what its agents do: they answer at once, if not told
    else."""

    target: Target
    makes_conversations = True  # `new` is a conversation of its own for each message
    has_owned_conversations = True  # a conversation is one agent's
    tells_tools = True  # an answer names the tools that were called

    @abstractmethod
    def agent(self) -> str:
        """Make an agent; returns its id."""

    @abstractmethod
    def conversation(self, agent_id: str) -> str:
        """Make a conversation of that agent; returns its id."""

    @abstractmethod
    def hold(self) -> None:
        """No agent answers until :meth:`finish`."""

    @abstractmethod
    def finish(self) -> None:
        """Those that wait for an answer get it, and from now on answers come at once."""

    @abstractmethod
    def made_for(self, message: Message) -> list[str]:
        """The conversations with the message's otid in their summaries."""

    @abstractmethod
    def failing(self, message: Message) -> Message:
        """The same message, whose turn fails at the model's first answer."""

    @abstractmethod
    def calling(self, message: Message, tool: str) -> Message:
        """The same message, in whose turn the agent calls a tool, and then says something."""

    @abstractmethod
    def wordless(self, message: Message) -> Message:
        """The same message, which arrives, and whose turn ends without a word of the agent."""

    @abstractmethod
    def another(self) -> Target:
        """A target of the same kind, which hasn't been called yet."""

    @abstractmethod
    def elsewhere(self, port: int) -> Target:
        """A target of the same kind at another port of this machine."""

    @contextmanager
    def held(self) -> Iterator[None]:
        """No agent answers within the block."""
        self.hold()
        try:
            yield
        finally:
            self.finish()

    def message(self, conversation: str | None = None, agent_id: str | None = None) -> Message:
        """A message that was never sent: to a new agent, if none is given, and in a new
        conversation of its own or in the given one."""
        agent_id = agent_id or self.agent()
        if conversation in ("new", None) and not self.makes_conversations:
            conversation = "id"
        if conversation == "id":
            conversation = self.conversation(agent_id)
        return Message(agent_id, conversation or "new", PROMPT, str(uuid.uuid4()), "Stretch")

    def since(self) -> datetime:
        """A time before now, as a delivery would ask for it."""
        return datetime.now(UTC) - self.target.traits.clock_margin

    def ended(self, run_id: str) -> Run:
        """That run, once it is over."""
        return ended(self.target, run_id)


def ended(target: Target, run_id: str | None) -> Run:
    """A run, once it is over. A question that fails for now is asked again: a real server may leave
    one unanswered while several turns begin at once."""
    assert run_id is not None

    def over() -> Run | None:
        try:
            run = target.run(run_id)
        except DeliveryError as err:
            if err.kind in ("retry", "doubt"):
                return None
            raise
        return None if run.active else run

    run: Run = until(over)
    return run


def until(happens: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What that returns, as soon as it is something."""
    latest = time.monotonic() + seconds
    while True:
        result = happens()
        if result:
            return result
        assert time.monotonic() < latest
        time.sleep(0.02)


def refusal(kind: str, code: str, call: Callable[..., Any], *arguments: Any) -> DeliveryError:
    """The error of a call, which is of that kind and has that code."""
    with pytest.raises(DeliveryError) as raised:
        call(*arguments)
    error = raised.value
    assert (error.kind, error.code) == (kind, code), error
    assert PROMPT not in repr(error.document())
    return error


@pytest.mark.parametrize("conversation", ["default", "id", "new"])
def test_what_was_accepted_is_found_by_its_otid(
    counterpart: Counterpart, conversation: str
) -> None:
    """Whatever conversation it goes to; and its run ends."""
    message, since = counterpart.message(conversation), counterpart.since()
    target = counterpart.target
    assert target.find(message, since) is None
    assert target.active_runs(message) == []
    sent = target.send(message)
    assert (sent.conversation_id is not None) is (message.conversation == "new")
    assert sent.run_id is not None
    run = counterpart.ended(sent.run_id)
    assert (run.run_id, run.agent_id, run.status) == (sent.run_id, message.agent_id, "completed")
    assert run.otid == message.otid
    found = target.find(message, since)
    assert found is not None
    assert found.conversation_id == sent.conversation_id
    assert found.answered is not False
    assert found.date is not None
    assert since <= found.date <= datetime.now(UTC) + target.traits.clock_margin
    until(lambda: not target.active_runs(message))


@pytest.mark.parametrize("conversation", ["default", "new"])
def test_what_was_never_sent_is_not_found(counterpart: Counterpart, conversation: str) -> None:
    """Though another message is there, in the same conversation if it is shared."""
    target, since = counterpart.target, counterpart.since()
    other = counterpart.message(conversation)
    counterpart.ended(str(target.send(other).run_id))
    unsent = counterpart.message(conversation, other.agent_id)
    assert target.find(unsent, since) is None
    assert target.find(other, since) is not None


def test_what_was_sent_into_another_conversation_is_found(counterpart: Counterpart) -> None:
    """A schedule may have been changed between two attempts. Which conversation was made for the
    message, a target need not look for then."""
    target, since = counterpart.target, counterpart.since()
    message = counterpart.message("new")
    sent = target.send(message)
    counterpart.ended(str(sent.run_id))
    changed = Message(message.agent_id, "default", message.text, message.otid)
    found = target.find(changed, since)
    assert found is not None
    assert found.conversation_id in (sent.conversation_id, None)


@pytest.mark.parametrize("conversation", ["default", "id", "new"])
def test_a_run_is_active_until_it_has_ended(counterpart: Counterpart, conversation: str) -> None:
    """It is told by its id, and among the active ones with the otid: also to another process."""
    message = counterpart.message(conversation)
    target = counterpart.target
    with counterpart.held():
        sent = target.send(message)
        assert sent.run_id is not None
        assert target.run(sent.run_id).active
        own = until(lambda: target.active_runs(message))
        assert [(run.run_id, run.otid) for run in own] == [(sent.run_id, message.otid)]
        assert own[0].active
        assert not own[0].waits
    counterpart.ended(sent.run_id)
    until(lambda: not target.active_runs(message))


def test_a_conversation_of_its_own_is_made_once(counterpart: Counterpart) -> None:
    """A further attempt uses the one that was made before, though it was left at any point."""
    if not counterpart.makes_conversations:
        pytest.skip("it makes none")
    message = counterpart.message("new")
    target = counterpart.target
    first = target.send(message)
    counterpart.ended(str(first.run_id))
    until(lambda: not target.active_runs(message))
    second = target.send(message)
    assert second.conversation_id == first.conversation_id
    counterpart.ended(str(second.run_id))
    assert counterpart.made_for(message) == [first.conversation_id]


def test_what_a_turn_leaves_that_has_failed(counterpart: Counterpart) -> None:
    """Either the message is there, or the failure says what follows, which isn't final; or nothing
    follows."""
    message = counterpart.failing(counterpart.message("new"))
    since = counterpart.since()
    target = counterpart.target
    run = counterpart.ended(str(target.send(message).run_id))
    assert run.status == "failed"
    assert run.error
    try:
        is_there = target.find(message, since) is not None
    except DeliveryError as refused:
        error: DeliveryError | None = refused
    else:
        error = None
        assert is_there or not target.failure(run).permanent
        assert is_there or target.failure(run).error
    assert error is None or error.code == HISTORY_GAP
    until(lambda: not target.active_runs(message))


def test_many_are_sent_at_once(counterpart: Counterpart) -> None:
    """Each is in the history once, in a conversation of its own where the target makes them."""
    agent_id, since = counterpart.agent(), counterpart.since()
    messages = [counterpart.message("new", agent_id) for _ in range(8)]
    with ThreadPoolExecutor(len(messages)) as threads:
        sent = list(threads.map(counterpart.target.send, messages))
    # By one thread: eight that ask all the time are what keeps a real server busy.
    runs = [ended(counterpart.target, accepted.run_id) for accepted in sent]
    places = {accepted.conversation_id for accepted in sent}
    assert len(places) == (len(messages) if counterpart.makes_conversations else 1)
    for message, run in zip(messages, runs, strict=True):
        # A real server that has just started may end a turn before the model's first answer.
        is_there = counterpart.target.find(message, since) is not None
        assert is_there or (run.status, counterpart.target.failure(run).permanent) == (
            "failed",
            False,
        )


# -- what comes of it


def answered(counterpart: Counterpart, message: Message) -> tuple[Message, str]:
    """Send a message; returns it as an answer is asked for, and its run, which is over."""
    sent = counterpart.target.send(message)
    run = counterpart.ended(str(sent.run_id))
    return at(message, sent.conversation_id), run.run_id


def at(message: Message, conversation_id: str | None) -> Message:
    """A message as it is known later: without its text, and with where it went to."""
    place = conversation_id or message.conversation
    return dataclasses.replace(message, text="", conversation=place, tried=True)


@pytest.mark.parametrize("conversation", ["default", "id", "new"])
def test_what_the_agent_answers_is_told(counterpart: Counterpart, conversation: str) -> None:
    """To another process too, which may know its run or not, and though the agent has answered
    others since."""
    since = counterpart.since()
    message, run_id = answered(counterpart, counterpart.message(conversation))
    reply = counterpart.target.reply(message, since, run_id)
    assert reply is not None
    assert reply.text
    assert reply.tools == ()
    assert reply.date is not None
    assert since <= reply.date <= datetime.now(UTC) + counterpart.target.traits.clock_margin
    answered(counterpart, counterpart.message(message.conversation, message.agent_id))
    other = counterpart.another()
    assert other.reply(message, since, run_id) == reply
    assert other.reply(message, since, None) == reply
    other.close()


@pytest.mark.parametrize("conversation", ["default", "new"])
def test_no_answer_is_told_before_its_turn_is_over(
    counterpart: Counterpart, conversation: str
) -> None:
    since, target = counterpart.since(), counterpart.target
    message = counterpart.message(conversation)
    other = counterpart.another()
    with counterpart.held():
        sent = target.send(message)
        message = at(message, sent.conversation_id)
        until(lambda: target.active_runs(message))
        for client in (target, other):
            with contextlib.suppress(DeliveryError):  # it may not be there yet
                assert client.reply(message, since, sent.run_id) is None
    counterpart.ended(str(sent.run_id))
    for client in (target, other):
        reply = until(lambda: client.reply(message, since, sent.run_id))  # noqa: B023
        assert reply.text
    other.close()


def test_the_tools_are_told_that_the_agent_called(counterpart: Counterpart) -> None:
    since = counterpart.since()
    message = counterpart.calling(counterpart.message("new"), "look_around")
    message, run_id = answered(counterpart, message)
    reply = counterpart.target.reply(message, since, run_id)
    assert reply is not None
    assert reply.text
    assert reply.tools == (("look_around",) if counterpart.tells_tools else ())
    assert counterpart.target.reply(message, since, None) == reply


def test_a_turn_without_words(counterpart: Counterpart) -> None:
    since = counterpart.since()
    message, run_id = answered(counterpart, counterpart.wordless(counterpart.message("new")))
    reply = counterpart.target.reply(message, since, run_id)
    assert reply is not None
    assert reply.text is None


def test_an_answer_to_what_was_never_sent(counterpart: Counterpart) -> None:
    other, _ = answered(counterpart, counterpart.message("default"))
    unsent = counterpart.message(other.conversation, other.agent_id)
    refusal("permanent", HISTORY_GAP, counterpart.target.reply, unsent, counterpart.since(), None)


# -- what isn't known


def test_an_unknown_run(counterpart: Counterpart) -> None:
    run_id = f"run-{uuid.uuid4()}"
    refusal("permanent", "run_not_found", counterpart.target.run, run_id)


@pytest.mark.parametrize("conversation", ["default", "new"])
def test_an_unknown_agent(counterpart: Counterpart, conversation: str) -> None:
    unknown = f"agent-{uuid.uuid4()}"
    message = counterpart.message(conversation, unknown)
    target = counterpart.target
    # A target that learns of new agents only when it is started can't say that there is none.
    kind = "retry" if target.traits.name == "letta-code" else "permanent"
    error = refusal(kind, "agent_not_found", target.send, message)
    assert unknown in error.message
    refusal(kind, "agent_not_found", target.find, message, counterpart.since())
    assert target.active_runs(message) == []
    assert target.agent(unknown) is None


def test_an_unknown_conversation(counterpart: Counterpart) -> None:
    message = counterpart.message(f"conv-{uuid.uuid4()}")
    refusal("permanent", "conversation_not_found", counterpart.target.send, message)


def test_a_conversation_of_another_agent(counterpart: Counterpart) -> None:
    if not counterpart.has_owned_conversations:
        pytest.skip("its conversations are nobody's")
    conversation = counterpart.conversation(counterpart.agent())
    message = counterpart.message(conversation)
    target = counterpart.target
    error = refusal("permanent", "conversation_of_another_agent", target.send, message)
    assert conversation in error.message


# -- the target itself


def test_its_agents(counterpart: Counterpart) -> None:
    target = counterpart.target
    ids = [counterpart.agent() for _ in range(2)]
    agents = {agent.id: agent for agent in target.agents()}
    assert set(ids) <= set(agents)
    assert target.agent(ids[0]) == agents[ids[0]]
    assert target.agent("") is None


def test_it_tells_its_version(counterpart: Counterpart) -> None:
    assert counterpart.target.health()[0].isdigit()
    counterpart.target.check()


def test_it_lists_runs_or_none(counterpart: Counterpart) -> None:
    """A target that doesn't list runs says so."""
    target = counterpart.target
    message = counterpart.message("new")
    with counterpart.held():
        run_id = target.send(message).run_id
        active = target.all_active_runs()
        if target.traits.lists_runs:
            assert active is not None
            assert run_id in [run.run_id for run in active]
        else:
            assert active is None
    counterpart.ended(str(run_id))
    ended = [run.run_id for run in target.ended_runs(10)]
    assert (run_id in ended) is target.traits.lists_runs


def test_nobody_answers(counterpart: Counterpart) -> None:
    """Then nothing was received, so it is tried again."""
    target = counterpart.elsewhere(1)
    message = counterpart.message("new", "agent-1")
    for call in (target.send, target.active_runs):
        with pytest.raises(DeliveryError) as raised:
            call(message)
        assert raised.value.kind == "retry"
    target.close()


def test_after_closing_it_opens_again(counterpart: Counterpart) -> None:
    counterpart.target.close()
    message, since = counterpart.message("new"), counterpart.since()
    counterpart.ended(str(counterpart.target.send(message).run_id))
    assert counterpart.target.find(message, since)
