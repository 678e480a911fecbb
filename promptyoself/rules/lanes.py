"""Which prompts are in each other's way: those that share a lane of a target."""

from collections.abc import Mapping
from typing import NamedTuple

from promptyoself.events.target_names import TargetName, lane_of, recorded_target, target_of
from promptyoself.state.schedules import Schedule, State

NO_LIMITS: Mapping[TargetName, int] = {}
"""No target is in trouble."""


class Place(NamedTuple):
    """Where a schedule's prompts go."""

    target: TargetName
    lane: str | None  # see `lane_of`


def place_of(schedule: Schedule) -> Place:
    """Where the next prompt of a schedule goes."""
    target = target_of(schedule.agent_id, schedule.target)
    return Place(target, lane_of(schedule.agent_id, target, schedule.conversation_id))


def occupied_lanes(state: State) -> set[str]:
    """The lanes of claimed slots. Of a slot that is claimed, the log says where it went."""
    lanes = (
        lane_of(slot.agent_id, recorded_target(slot.target), slot.conversation_id)
        for slot in state.open.values()
        if slot.worker is not None
    )
    return {lane for lane in lanes if lane is not None}
