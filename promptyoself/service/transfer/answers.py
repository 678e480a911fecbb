"""What exports and imports answer."""

from typing import Annotated, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Instant, ScheduleId
from promptyoself.events.kinds import ScheduleType, Status


class Exported(TypedDict):
    """What ``export --out`` answers."""

    file: str
    count: int
    message: AnswerMessage


class Where(TypedDict):
    """Where a schedule was: in a line of an export, or in a row of a table."""

    line: NotRequired[int]
    row: NotRequired[int | str]
    table: NotRequired[str]


class ImportedSchedule(Where):
    """A schedule that was imported."""

    id: ScheduleId
    agent_id: str
    schedule_type: ScheduleType
    status: Status
    next_run: Instant | None


class WhySkipped(TypedDict):
    """Why a schedule wasn't imported."""

    id: NotRequired[ScheduleId]
    why: str
    detail: str
    code: NotRequired[str]


class SkippedSchedule(Where, WhySkipped):
    """A schedule that wasn't imported."""


class BadLine(TypedDict):
    """A line of an export that can't be imported."""

    line: int
    code: str
    message: str
    hint: str


class BadLines(TypedDict):
    """The lines of an export that can't be imported."""

    bad: Annotated[list[BadLine], "The first of them."]
    bad_count: int


class Imported(TypedDict):
    """What ``import`` and ``import-sqlite`` answer."""

    imported: list[ImportedSchedule]
    skipped: list[SkippedSchedule]
    bad: NotRequired[list[BadLine]]
    bad_count: NotRequired[int]
    count: int
    dry_run: NotRequired[bool]
    message: AnswerMessage
    warning: NotRequired[str]
