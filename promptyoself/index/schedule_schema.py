"""What the schedules' index holds: their state, with the schedules and the agents in tables."""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from promptyoself.events.versions import SCHEDULE_VERSIONS
from promptyoself.index import schema
from promptyoself.index.parts import TableSchema
from promptyoself.state.fold import Folded
from promptyoself.state.overlay import Summary
from promptyoself.state.schedules import (
    EMPTY,
    AgentState,
    AwaitedReply,
    OpenSlot,
    OwedNotice,
    Schedule,
    State,
    slot_key,
    summarize,
)


def _fold(state: State, envelopes: Iterable[Folded]) -> State:
    """See :func:`promptyoself.state.apply.fold`, which is imported where there is an event: the
    records of the events take 3 ms to import."""
    events = iter(envelopes)
    first = next(events, None)
    if first is None:
        return state.copy()
    from promptyoself.state.apply import fold

    return fold(state, chain((first,), events))


def _schedule_from_json(fields: dict[str, Any]) -> tuple[str, Schedule]:
    schedule = Schedule(**fields)
    return schedule.id, schedule


def _agent_to_json(id_: str, agent: AgentState) -> dict[str, Any]:
    return {"id": id_, **schema.without_defaults(agent)}


def _agent_from_json(fields: dict[str, Any]) -> tuple[str, AgentState]:
    agent = AgentState(**{name: value for name, value in fields.items() if name != "id"})
    return fields["id"], agent._replace(unfinished=tuple(agent.unfinished))


SCHEDULES = TableSchema(
    "schedules",
    schema.id_path,
    lambda _, schedule: schema.without_defaults(schedule),
    _schedule_from_json,
    summarize,
    lambda schedule: 450 + len(schedule.prompt),
)

AGENTS = TableSchema(
    "agents",
    schema.sha_path,
    _agent_to_json,
    _agent_from_json,
    lambda _: Summary(1),
    lambda agent: 120 + 15 * len(agent.unfinished),
)


def _rest_to_json(state: State) -> dict[str, Any]:
    of_answers = {
        "replies": [schema.without_defaults(reply) for reply in state.replies.values()],
        "notices": [schema.without_defaults(notice) for notice in state.notices.values()],
        "digests": state.digests,
        "told_agents": state.told_agents,
    }
    return schema.common_to_json(
        state,
        open=[schema.without_defaults(slot) for slot in state.open.values()],
        **{name: value for name, value in of_answers.items() if value},
    )


def _rest_from_json(body: Mapping[str, Any]) -> State:
    slots = [OpenSlot(**fields) for fields in body["open"]]
    open_slots = {slot_key(slot.id, slot.slot): slot for slot in slots}
    replies = [AwaitedReply(**fields) for fields in body.get("replies", ())]
    notices = [OwedNotice(**fields) for fields in body.get("notices", ())]
    return EMPTY._replace(
        open=open_slots,
        replies={slot_key(reply.id, reply.slot): reply for reply in replies},
        notices={notice.notice: notice for notice in notices},
        digests=dict(body.get("digests", ())),
        told_agents=dict(body.get("told_agents", ())),
        **schema.common_from_json(body),
    )


SCHEDULE_SCHEMA = schema.StateSchema(
    EMPTY,
    _fold,
    (SCHEDULES, AGENTS),
    _rest_to_json,
    _rest_from_json,
    schema.fingerprint_of(
        SCHEDULE_VERSIONS, Schedule, OpenSlot, AgentState, State, AwaitedReply, OwedNotice
    ),
    older=frozenset({"249a498c824ef4ef"}),
)
