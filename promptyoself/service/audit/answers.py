"""What an audit and a comparison of two times answer."""

from typing import Annotated, Any, Literal, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Counts, HeadText, Instant, ScheduleId


class SlotTotals(TypedDict):
    """How many slots had each outcome."""

    slots: int
    delivered: int
    failed: int
    skipped: int
    in_flight: int
    in_doubt: int
    pending: int
    unaccounted: int
    doubled: int
    unexpected: int
    skipped_why: Counts


class Undelivered(TypedDict):
    """A range of slots of a schedule that were not delivered, all for the same reason."""

    id: ScheduleId
    agent_id: str
    slot: Instant
    last: Instant
    slots: int
    outcome: str
    why: str | None
    by: Annotated[dict[str, Any] | None, "Who did what decided it."]


class AnswerTotals(TypedDict):
    """What became of the answers that were to be read."""

    replied: int
    unanswered: int
    awaited: int


class NoticeTotals(TypedDict):
    """What became of the notices that destinations were to get."""

    sent: int
    failed: int
    owed: int


class Audit(TypedDict):
    """What ``audit`` answers."""

    since: Instant | None
    until: Instant
    totals: SlotTotals
    schedules: Annotated[list[SlotTotals], "By schedule."]
    undelivered: Annotated[list[Undelivered], "Ranges of slots that were not delivered."]
    answers: NotRequired[AnswerTotals]
    notices: NotRequired[NoticeTotals]
    loops: Annotated[list[dict[str, Any]], "The loops that ran."]
    head: HeadText
    message: AnswerMessage


class Point(TypedDict):
    """A point of the log: the last event before it. Before the first event, ``seq`` is 0."""

    seq: int
    ts: Instant | None


class ScheduleChange(TypedDict):
    """What is different in a schedule."""

    id: ScheduleId
    agent_id: str
    change: Literal["registered", "changed"]
    fields: dict[str, Any]
    events: Annotated[list[dict[str, Any]], "What made the difference."]


# ``from`` is no name in Python, so this base has it.
_From = TypedDict("_From", {"from": Point})


class Difference(_From):
    """What ``diff`` answers."""

    since: Point
    to: Point
    changes: Annotated[list[ScheduleChange], "By schedule."]
    count: int
