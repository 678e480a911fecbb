"""How a snapshot is spelled: one JSON object, whose first key is the SHA-256 of all that follows.

The checksum is there because a single changed digit could still be good JSON and a wrong answer.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import orjson

from promptyoself.digests import sha256
from promptyoself.index.tree import Kind, Node, read_node, spell_node
from promptyoself.ledger import Position
from promptyoself.overlay import Summary
from promptyoself.schedules import AgentState, OpenSlot, Schedule, State, slot_key, summarize
from promptyoself.versions import VERSIONS

__all__ = ["AGENTS", "INDEX_FORMAT", "SCHEDULES", "Root", "decode_root", "encode_root"]

INDEX_FORMAT = 2

_PREFIX = b'{"sha256":"'
_BODY = len(_PREFIX) + 64 + len(b'",')
_ID = re.compile(r"sch_([0-9a-f]{8})", re.ASCII).fullmatch

# Whatever changes the fold's result must change this, so that older indexes are made anew.
_SCHEMA = sha256(
    repr(
        (
            INDEX_FORMAT,
            sorted(VERSIONS.items()),
            *(form._fields for form in (Schedule, OpenSlot, AgentState, State, Position, Summary)),
        )
    ).encode()
).hexdigest()[:16]


class Root(NamedTuple):
    """What ``index.json`` says: the state at a position, but for the parts that lie elsewhere; and
    the files, per save, that it no longer needs, though a reader with an older root may."""

    position: Position
    newer: str | None
    schedules: Node[Schedule]
    agents: Node[AgentState]
    open: dict[str, OpenSlot]
    statuses: dict[str, int]
    counts: dict[str, int]
    superseded: list[list[str]]


def encode_root(root: Root, before: Root | None = None) -> bytes:
    """The bytes of ``index.json``. What is as in the root ``before`` isn't spelled again."""
    body = {
        "format": INDEX_FORMAT,
        "schema": _SCHEMA,
        "position": root.position._asdict(),
        "newer": root.newer,
        "schedules": spell_node(SCHEDULES, root.schedules, before and before.schedules),
        "agents": spell_node(AGENTS, root.agents, before and before.agents),
        "open": [_brief(slot) for slot in root.open.values()],
        "statuses": root.statuses,
        "counts": root.counts,
        "superseded": root.superseded,
    }
    rest = orjson.dumps(body)[1:]
    return _PREFIX + sha256(rest).hexdigest().encode() + b'",' + rest


def decode_root(content: bytes) -> Root:
    """What :func:`encode_root` wrote.

    Raises:
        ValueError: it isn't that, or was written by a version with another form.
    """
    rest = content[_BODY:]
    if content[:_BODY] != _PREFIX + sha256(rest).hexdigest().encode() + b'",':
        raise ValueError("its checksum does not match")
    body = orjson.loads(b"{" + rest)
    if body.get("schema") != _SCHEMA:
        raise ValueError("another version wrote it")
    try:
        slots = [OpenSlot(**fields) for fields in body["open"]]
        return Root(
            Position(**body["position"]),
            body["newer"],
            read_node(SCHEDULES, body["schedules"]),
            read_node(AGENTS, body["agents"]),
            {slot_key(slot.id, slot.slot): slot for slot in slots},
            dict(body["statuses"]),
            dict(body["counts"]),
            [list(files) for files in body["superseded"]],
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{error!r}") from None


def _schedule_path(id_: str) -> str:
    match = _ID(id_)
    return match[1] if match else _agent_path(id_)


def _agent_path(id_: str) -> str:
    return sha256(id_.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def _spell_schedule(_: str, schedule: Schedule) -> dict[str, Any]:
    return _brief(schedule)


def _read_schedule(fields: dict[str, Any]) -> tuple[str, Schedule]:
    schedule = Schedule(**fields)
    return schedule.id, schedule


def _spell_agent(id_: str, agent: AgentState) -> dict[str, Any]:
    return {"id": id_, **_brief(agent)}


def _read_agent(fields: dict[str, Any]) -> tuple[str, AgentState]:
    agent = AgentState(**{name: value for name, value in fields.items() if name != "id"})
    return fields["id"], agent._replace(unfinished=tuple(agent.unfinished))


def _brief(record: Schedule | OpenSlot | AgentState) -> dict[str, Any]:
    defaults = record._field_defaults
    return {
        name: value
        for name, value in record._asdict().items()
        if name not in defaults or value is not defaults[name]
    }


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
    _agent_path,
    _spell_agent,
    _read_agent,
    lambda _: Summary(1),
    lambda agent: 120 + 15 * len(agent.unfinished),
)
