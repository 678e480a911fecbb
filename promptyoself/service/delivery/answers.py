"""What deliveries, and questions to Letta, answer."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Instant, ScheduleId


class Asked(TypedDict):
    """Where a target is that was asked, and which it is, if it is no Letta server."""

    url: str
    target: NotRequired[str]


class AgentView(TypedDict):
    """An agent of a target."""

    id: str
    name: str | None
    model: str | None
    created_at: Instant | None
    last_run_at: Instant | None


class AgentList(TypedDict):
    """What ``agents`` answers."""

    agents: Annotated[list[AgentView], "Those that the target has."]
    count: int
    url: str
    target: NotRequired[str]


class LettaTest(TypedDict):
    """What ``test`` answers."""

    url: str
    target: NotRequired[str]
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


class ReplyLine(TypedDict):
    """What became of the answer to one prompt. The answer itself is not in it."""

    id: ScheduleId
    agent_id: str
    slot: Instant
    replied: bool
    kept: NotRequired[str]
    bytes: NotRequired[int]
    code: NotRequired[str]
    error: NotRequired[str]


class NoticeLine(TypedDict):
    """What became of one notice for a destination. Its words are not in it."""

    notice: str
    to: str
    kind: str
    id: NotRequired[ScheduleId]
    slot: NotRequired[Instant | None]
    agent_id: str | None
    tries: int
    sent: bool
    code: NotRequired[str]
    error: NotRequired[str]
    retry_at: NotRequired[Instant]


class Executed(TypedDict):
    """What ``execute`` answers."""

    executed: Annotated[list[DeliveryLine], "A line for each prompt that was tried."]
    skipped: NotRequired[Annotated[list[dict[str, Any]], "Slots for which nothing was tried."]]
    replies: NotRequired[Annotated[list[ReplyLine], "A line for each answer that was read."]]
    notices: NotRequired[Annotated[list[NoticeLine], "A line for each notice that was sent."]]
    message: AnswerMessage
