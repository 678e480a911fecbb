"""What a look ahead answers."""

from typing import Annotated, Any, TypedDict

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
