"""What the services about desires answer."""

from typing import Annotated, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, DesireId, Instant, Total

_Strength = Annotated[float, "From 0 to 1."]


class DesireView(TypedDict):
    """A desire as it is listed."""

    id: DesireId
    agent_id: Annotated[str, "The agent that would like it."]
    text: Annotated[str, "What it would like."]
    tags: Annotated[list[str], "Its tags."]
    strength: Annotated[float, "How strong it is at as_of: it fades with time."]
    created_at: Instant
    reinforced: Annotated[int, "How often it was reinforced."]
    last_strength: Annotated[float, "How strong it was at last_at."]
    last_at: Annotated[str, "When it was recorded, or last reinforced."]


class Recorded(TypedDict):
    """What ``desire`` answers."""

    id: DesireId
    created: bool
    strength: NotRequired[_Strength]
    message: AnswerMessage


class DesireList(TypedDict):
    """What ``desires`` answers."""

    desires: Annotated[list[DesireView], "The strongest first."]
    count: int
    as_of: Annotated[str, "The instant that the strengths are of."]
    total: NotRequired[Total]


class Reinforced(TypedDict):
    """What ``reinforce`` answers."""

    id: DesireId
    strength: _Strength
    before: _Strength
    message: AnswerMessage


class Pruned(TypedDict):
    """What ``prune`` answers."""

    pruned: Annotated[list[DesireView], "Those that were faint enough."]
    count: int
    message: AnswerMessage
    dry_run: NotRequired[bool]
