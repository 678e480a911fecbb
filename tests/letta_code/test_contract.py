"""The target `letta-code` keeps what every target promises, with a real App Server."""

import dataclasses
from collections.abc import Iterator

import pytest
from letta_code.server import LettaCode as AppServer
from target_contract import *  # noqa: F403
from target_contract import Counterpart, Message

from promptyoself.targets.letta_code import LettaCode


class RealLettaCode(Counterpart):
    """A real App Server."""

    def __init__(self, server: AppServer) -> None:
        self._server = server
        self.target = LettaCode(server.url)

    def agent(self) -> str:
        return self._server.agent()

    def conversation(self, agent_id: str) -> str:
        with self._server.connect() as wire:
            return str(wire.conversation(agent_id)["conversation_id"])

    def hold(self) -> None:
        self._server.model.hold()

    def finish(self) -> None:
        self._server.model.finish()

    def made_for(self, message: Message) -> list[str]:
        with self._server.connect() as wire:
            query = {"agent_id": message.agent_id, "limit": 1000}
            listed = wire.ask("conversation_list", query=query)["conversations"]
        return [row["id"] for row in listed if message.otid in (row["summary"] or "")]

    def failing(self, message: Message) -> Message:
        return dataclasses.replace(message, text=f"{message.text} [[err:500]]")

    def calling(self, message: Message, tool: str) -> Message:
        return dataclasses.replace(message, text=f"{message.text} [[tool:{tool} {{}}]]")

    def wordless(self, message: Message) -> Message:
        word = message.otid.replace("-", "")
        return dataclasses.replace(message, text=f"{message.text} [[flaky:empty:{word}]]")

    def another(self) -> LettaCode:
        return LettaCode(self._server.url)

    def elsewhere(self, port: int) -> LettaCode:
        return LettaCode(f"ws://127.0.0.1:{port}", call_timeout=20)


@pytest.fixture
def counterpart(letta_code: AppServer) -> Iterator[RealLettaCode]:
    real = RealLettaCode(letta_code)
    yield real
    real.finish()
    real.target.close()
