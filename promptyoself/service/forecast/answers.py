"""What a look ahead answers."""

from typing import Annotated, Any, NotRequired, TypedDict

from promptyoself.core.answer_types import AnswerMessage, Counts, Instant, ScheduleId


class DayAhead(TypedDict):
    """What would be delivered to an agent on one day."""

    day: str
    fired: int
    skipped: Counts


class AgentAhead(TypedDict):
    """What would be delivered to an agent."""

    agent_id: str
    fired: int
    days: Annotated[list[DayAhead], "By day."]


class StoppedSchedule(TypedDict):
    """A schedule some of whose slots a limit would stop."""

    id: ScheduleId
    agent_id: str
    why: str
    slots: int
    first: Instant


class BrokenSchedule(TypedDict):
    """A schedule whose times can't be computed."""

    id: ScheduleId
    problem: str


# ``from`` is no name in Python, so this base has it.
_From = TypedDict("_From", {"from": Instant})


class Simulation(_From):
    """What ``simulate`` answers."""

    since: Instant
    until: Instant
    truncated: bool
    fired: Annotated[int, "How many deliveries there would be."]
    skipped: Counts
    agents: Annotated[list[AgentAhead], "By agent."]
    stopped: Annotated[list[StoppedSchedule], "Schedules that a limit would stop."]
    log: dict[str, Any]
    load: dict[str, Any]
    broken: Annotated[list[BrokenSchedule], "What can't be told."]
    message: AnswerMessage


class AgendaLine(TypedDict):
    """A delivery that is to come, or all of one schedule on one day."""

    at: Annotated[Instant, "When it is delivered, if a loop runs."]
    local: str
    slot: Instant
    fires: Annotated[int, "How many deliveries the line stands for; the first is at `at`."]
    last: NotRequired[Annotated[Instant, "When the last of several is."]]
    id: ScheduleId
    agent_id: str
    name: str | None
    prompt: str
    template: NotRequired[str | None]
    schedule_type: str
    schedule_value: str
    timezone: str


class PausedSchedule(TypedDict):
    """A schedule that fires nothing, since it is paused."""

    id: ScheduleId
    agent_id: str
    name: str | None
    prompt: str
    resume_at: NotRequired[Annotated[Instant, "When it runs again by itself."]]


class Agenda(TypedDict):
    """What ``agenda`` answers."""

    since: Instant
    until: Instant
    timezone: str
    agenda: Annotated[list[AgendaLine], "The soonest first."]
    count: Annotated[int, "How many lines there are."]
    total: NotRequired[Annotated[int, "How many lines there would be without a limit."]]
    fires: Annotated[int, "How many deliveries there are, in all lines."]
    truncated: bool
    skipped: NotRequired[Counts]
    paused: NotRequired[list[PausedSchedule]]
    broken: NotRequired[Annotated[list[BrokenSchedule], "What can't be told."]]
    message: AnswerMessage
