"""The target `letta` keeps what every target promises: with the sandbox, and with ``make
test-letta`` with a real server too."""

from collections.abc import Iterator

import pytest
from lettas import Letta
from target_contract import *  # noqa: F403
from target_contract import Counterpart, Message

from promptyoself.targets.letta import LettaClient


class AnyLetta(Counterpart):
    """A Letta, of whatever kind."""

    def __init__(self, letta: Letta) -> None:
        self._letta = letta
        # A real one on a busy machine may take longer than people are asked to wait for.
        self.target = LettaClient(letta.url, call_timeout=60)

    def agent(self) -> str:
        return self._letta.agent()

    def conversation(self, agent_id: str) -> str:
        return self._letta.conversation(agent_id)

    def hold(self) -> None:
        self._letta.hold()

    def finish(self) -> None:
        self._letta.finish()

    def made_for(self, message: Message) -> list[str]:
        summaries = self._letta.conversations(message.agent_id)
        return [id_ for id_, text in summaries.items() if message.otid in (text or "")]

    def failing(self, message: Message) -> Message:
        self._letta.fail(message.agent_id, after_a_step=False)
        return message

    def calling(self, message: Message, tool: str) -> Message:
        self._letta.calls(message.agent_id, tool)
        return message

    def wordless(self, message: Message) -> Message:
        self._letta.fail(message.agent_id, after_a_step=True)
        return message

    def another(self) -> LettaClient:
        return LettaClient(self._letta.url)

    def elsewhere(self, port: int) -> LettaClient:
        return LettaClient(f"http://127.0.0.1:{port}", call_timeout=20)


@pytest.fixture
def counterpart(any_letta: Letta) -> Iterator[AnyLetta]:
    counterpart = AnyLetta(any_letta)
    yield counterpart
    counterpart.finish()
    counterpart.target.close()
