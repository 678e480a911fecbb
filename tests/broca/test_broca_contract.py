"""The target `broca` keeps what all targets promise, on the tables of Broca."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from broca.brocas import AGENT, USER, Broca, Turner
from target_contract import *  # noqa: F403
from target_contract import Counterpart

from promptyoself.targets.api import Message
from promptyoself.targets.broca import BrocaQueue


class BrocaCounterpart(Counterpart):
    """A Broca whose queue is worked off. It has one agent, and its conversations are users."""

    makes_conversations = has_owned_conversations = tells_tools = False

    def __init__(self, broca: Broca, turner: Turner) -> None:
        self._turner, self._database = turner, str(broca.database)
        self.target = self.another()

    def agent(self) -> str:
        return AGENT

    def conversation(self, agent_id: str) -> str:  # noqa: ARG002
        return "sink:u2"

    def hold(self) -> None:
        self._turner.held = True

    def finish(self) -> None:
        self._turner.held = False

    def made_for(self, message: Message) -> list[str]:  # noqa: ARG002
        return []

    def failing(self, message: Message) -> Message:
        self._turner.fails = True
        return message

    def calling(self, message: Message, tool: str) -> Message:  # noqa: ARG002
        return message

    def wordless(self, message: Message) -> Message:
        return self.failing(message)

    def another(self) -> BrocaQueue:
        return BrocaQueue(AGENT, self._database, USER, misfits=list)

    def elsewhere(self, port: int) -> BrocaQueue:
        return BrocaQueue("agent-1", f"/nowhere/{port}", USER, misfits=list)


@pytest.fixture
def counterpart(any_broca: Path, broca: Broca) -> Iterator[BrocaCounterpart]:
    with Turner(broca) as turner:
        yield BrocaCounterpart(broca, turner)
