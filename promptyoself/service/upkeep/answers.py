"""What sealing and recovery answer."""

from typing import Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage


class SealedMonth(TypedDict):
    """What was recorded of a month, and how many bytes its file had and has."""

    month: str
    events: int
    content_sha256: str
    bytes_before: int
    bytes_after: int
    chain: NotRequired[str]


class Sealed(TypedDict):
    """What ``seal`` answers."""

    sealed: list[SealedMonth]
    message: AnswerMessage


class RecoveryPlan(TypedDict, total=False):
    """What a recovery would do, or did. Of a log that is sound, this has ``recovered`` only."""

    recovered: bool
    dry_run: bool
    sound_events: int
    head: str | None
    lost_events: int
    gaps: list[dict[str, Any]]
    unknown: list[str]
    index: int | None
    differs: list[dict[str, Any]]
    index_kept: str
    restored: int
    desires: "Recovered"


class Recovered(RecoveryPlan):
    """What ``recover`` answers, and what it shows before it begins."""

    message: AnswerMessage
