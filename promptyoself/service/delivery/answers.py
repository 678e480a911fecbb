"""What deliveries, and questions to Letta, answer."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Instant, ScheduleId


class AgentView(TypedDict):
    """An agent of the Letta server."""

    id: str
    name: str | None
    model: str | None
    created_at: Instant | None
    last_run_at: Instant | None


class AgentList(TypedDict):
    """What ``agents`` answers."""

    agents: Annotated[list[AgentView], "Those that the Letta server has."]
    count: int
    url: str


class LettaTest(TypedDict):
    """What ``test`` answers."""

    url: str
    version: str | None
    agents: int
    latency_ms: int
    message: AnswerMessage


class DeliveryLine(TypedDict):
    """What became of one prompt that was tried."""

    id: ScheduleId
    agent_id: str
    delivered: bool
    next_run: Instant | None
    state: str
    slot: Instant


class Executed(TypedDict):
    """What ``execute`` answers."""

    executed: Annotated[list[DeliveryLine], "A line for each prompt that was tried."]
    skipped: NotRequired[Annotated[list[dict[str, Any]], "Slots for which nothing was tried."]]
    message: AnswerMessage
