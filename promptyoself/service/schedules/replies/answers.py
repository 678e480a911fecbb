"""What the services about agents' answers answer."""

from typing import Annotated, NotRequired, TypedDict

from promptyoself.core.answer_types import Instant, ScheduleId, Total
from promptyoself.events.kinds import KeptReply


class ReplyView(TypedDict):
    """What an agent has said at the end of its turn over a prompt; or why that isn't known."""

    id: ScheduleId
    name: NotRequired[Annotated[str, "The schedule's name as it is now."]]
    agent_id: Annotated[str, "The agent that was prompted."]
    slot: Instant
    at: Annotated[str, "When it was recorded, in UTC."]
    replied_at: NotRequired[Annotated[str, "When the agent said it, in UTC."]]
    replied: Annotated[bool, "False where there is no answer; code and error say why."]
    kept: NotRequired[Annotated[KeptReply, "How much of it text has; hash: nothing."]]
    text: NotRequired[Annotated[str, "What the agent said, in its own words."]]
    bytes: NotRequired[Annotated[int, "The length of all of it, in UTF-8."]]
    sha256: NotRequired[Annotated[str, "The SHA-256 of all of it."]]
    tools: NotRequired[Annotated[list[str], "The tools that it called meanwhile."]]
    run_id: NotRequired[str]
    code: NotRequired[str]
    error: NotRequired[str]
    notice: NotRequired[Annotated[str, "The notice that tells a destination of it."]]
    to: NotRequired[Annotated[str, "That destination."]]


class ReportedReply(TypedDict):
    """The latest answer to a schedule's prompts, in short."""

    at: Instant
    slot: Instant
    bytes: int
    text: NotRequired[Annotated[str, "Its first line."]]


class AwaitedView(TypedDict):
    """An answer that isn't there yet."""

    id: ScheduleId
    name: NotRequired[str]
    agent_id: str
    slot: Instant
    delivered_at: Instant


class ReplyList(TypedDict):
    """What ``replies`` answers."""

    replies: Annotated[list[ReplyView], "The oldest first."]
    count: int
    total: NotRequired[Total]
    awaited: NotRequired[Annotated[list[AwaitedView], "Those that aren't there yet."]]
