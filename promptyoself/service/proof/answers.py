"""What the services that check the log answer."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, HeadText, Instant


class Head(TypedDict):
    """What ``head`` answers."""

    head: HeadText
    seq: int
    hash: str
    ts: Instant | None


class Verified(TypedDict):
    """What ``verify`` answers."""

    valid: bool
    events: int
    segments: int
    head: HeadText
    seq: int
    hash: str
    ts: Instant | None
    contains: NotRequired[str]
    sealed: NotRequired[int]
    newer: NotRequired[str]
    torn_tail: NotRequired[dict[str, Any]]
    message: NotRequired[AnswerMessage]
    desires: NotRequired[
        Annotated[dict[str, Any], "The same of the desires' log, if there is one."]
    ]
