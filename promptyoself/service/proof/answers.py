"""What the services that check the log answer."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, HeadText, Instant


class Head(TypedDict):
    """What ``head`` answers."""

    head: HeadText
    seq: int
    hash: str
    ts: Instant | None


class LogHead(Head):
    """The same, with what the log has lost and has stated."""

    recovered: NotRequired[list[dict[str, Any]]]


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


class LogVerified(Verified):
    """The same, with what agents aren't told of: stated losses, the newest signed head that was
    proved, and the number of these."""

    recovered: NotRequired[list[dict[str, Any]]]
    note: NotRequired[dict[str, Any]]
    notes: NotRequired[int]


class Rebuilt(TypedDict):
    """What ``rebuild`` answers. ``desires`` is their number, or what became of their index."""

    events: int
    schedules: NotRequired[int]
    desires: NotRequired[int | dict[str, Any]]
    message: AnswerMessage


class KeyPair(TypedDict):
    """What ``keygen`` answers."""

    key: str
    public_key: str
    public_key_file: str
    message: AnswerMessage


class Packed(TypedDict):
    """What ``pack`` answers. ``lost_events`` is how many it lacks, where it lacks any."""

    file: str
    months: list[str]
    events: int
    lost_events: NotRequired[int]
    bytes: int
    first: int
    head: str
    sha256: str
    message: AnswerMessage
