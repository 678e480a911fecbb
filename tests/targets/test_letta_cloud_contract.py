"""The target `letta-cloud` keeps what all targets promise: to the stand-in of Letta's cloud that is
ours, and to nobody else yet."""

from collections.abc import Iterator

import pytest
from cloud import KEY, Cloud
from target_contract import *  # noqa: F403
from target_contract import Counterpart

from promptyoself.targets.api import Message
from promptyoself.targets.letta_cloud import LettaCloud


class CloudCounterpart(Counterpart):
    """The stand-in."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self.target = LettaCloud(cloud.url, KEY)

    def agent(self) -> str:
        return self._cloud.agent()

    def conversation(self, agent_id: str) -> str:
        return self._cloud.conversation(agent_id)

    def hold(self) -> None:
        self._cloud.latency = 3600

    def finish(self) -> None:
        self._cloud.finish()

    def made_for(self, message: Message) -> list[str]:
        return [t.id for t in self._cloud.talks.values() if message.otid in (t.summary or "")]

    def failing(self, message: Message) -> Message:
        self._cloud.outcome = "run_failed"
        return message

    def calling(self, message: Message, tool: str) -> Message:
        self._cloud.tools = [tool]
        return message

    def wordless(self, message: Message) -> Message:
        self._cloud.outcome = "run_failed"
        return message

    def another(self) -> LettaCloud:
        return LettaCloud(self._cloud.url, KEY)

    def elsewhere(self, port: int) -> LettaCloud:
        return LettaCloud(f"http://127.0.0.1:{port}", KEY, call_timeout=20)


@pytest.fixture
def counterpart() -> Iterator[CloudCounterpart]:
    with Cloud() as cloud:
        counterpart = CloudCounterpart(cloud)
        yield counterpart
        counterpart.target.close()
