"""What the schedules' index holds: their state, with the schedules and the agents in tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from promptyoself.events.versions import SCHEDULE_VERSIONS
from promptyoself.index.form import (
    Form,
    brief,
    read_losses,
    schema_of,
    sha_path,
    spell_losses,
)
from promptyoself.index.tree import Kind
from promptyoself.state.fold import Folded
from promptyoself.state.overlay import Summary
from promptyoself.state.schedules import (
    EMPTY,
    AgentState,
    OpenSlot,
    Schedule,
    State,
    branch,
    slot_key,
    summarize,
)

__all__ = ["AGENTS", "SCHEDULES", "SCHEDULE_FORM"]

_ID = re.compile(r"sch_([0-9a-f]{8})", re.ASCII).fullmatch


def _fold(state: State, envelopes: Iterable[Folded]) -> State:
    """See :func:`promptyoself.state.apply.fold`, which is imported where there is an event: the
    records of the events take 3 ms to import."""
    events = iter(envelopes)
    first = next(events, None)
    if first is None:
        return branch(state)
    from promptyoself.state.apply import fold

    return fold(state, chain((first,), events))


def _schedule_path(id_: str) -> str:
    match = _ID(id_)
    return match[1] if match else sha_path(id_)


def _spell_schedule(_: str, schedule: Schedule) -> dict[str, Any]:
    return brief(schedule)


def _read_schedule(fields: dict[str, Any]) -> tuple[str, Schedule]:
    schedule = Schedule(**fields)
    return schedule.id, schedule


def _spell_agent(id_: str, agent: AgentState) -> dict[str, Any]:
    return {"id": id_, **brief(agent)}


def _read_agent(fields: dict[str, Any]) -> tuple[str, AgentState]:
    agent = AgentState(**{name: value for name, value in fields.items() if name != "id"})
    return fields["id"], agent._replace(unfinished=tuple(agent.unfinished))


SCHEDULES = Kind(
    "schedules",
    _schedule_path,
    _spell_schedule,
    _read_schedule,
    summarize,
    lambda schedule: 450 + len(schedule.prompt),
)

AGENTS = Kind(
    "agents",
    sha_path,
    _spell_agent,
    _read_agent,
    lambda _: Summary(1),
    lambda agent: 120 + 15 * len(agent.unfinished),
)


def _spell(state: State) -> dict[str, Any]:
    return {
        "newer": state.newer,
        "open": [brief(slot) for slot in state.open.values()],
        "statuses": state.statuses,
        "counts": state.counts,
        "losses": spell_losses(state.losses),
    }


def _read(body: Mapping[str, Any]) -> State:
    slots = [OpenSlot(**fields) for fields in body["open"]]
    return EMPTY._replace(
        open={slot_key(slot.id, slot.slot): slot for slot in slots},
        statuses=dict(body["statuses"]),
        counts=dict(body["counts"]),
        newer=body["newer"],
        losses=read_losses(body["losses"]),
    )


SCHEDULE_FORM = Form(
    EMPTY,
    _fold,
    (SCHEDULES, AGENTS),
    _spell,
    _read,
    schema_of(SCHEDULE_VERSIONS, Schedule, OpenSlot, AgentState, State),
)
