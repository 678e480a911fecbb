"""How a snapshot is spelled: one JSON object, whose first key is the SHA-256 of all that follows.

The checksum is there because a single changed digit could still be good JSON and a wrong answer.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import orjson

from promptyoself.events import VERSIONS
from promptyoself.ledger import Position
from promptyoself.schedules import OpenSlot, Schedule, State, slot_key

__all__ = ["INDEX_FORMAT", "decode_snapshot", "encode_snapshot"]

INDEX_FORMAT = 1

_PREFIX = b'{"sha256":"'
_BODY = len(_PREFIX) + 64 + len(b'",')

# Whatever changes the fold's result must change this, so that older indexes are made anew.
_SCHEMA = sha256(
    repr(
        (
            INDEX_FORMAT,
            sorted(VERSIONS.items()),
            *(form._fields for form in (Schedule, OpenSlot, State, Position)),
        )
    ).encode()
).hexdigest()[:16]


def encode_snapshot(state: State, position: Position) -> bytes:
    """The bytes of ``index.json``."""
    body = {
        "format": INDEX_FORMAT,
        "schema": _SCHEMA,
        "position": position._asdict(),
        "newer": state.newer,
        "schedules": [_brief(schedule) for schedule in state.schedules.values()],
        "open": [_brief(slot) for slot in state.open.values()],
        "spent": state.spent,
        "active": state.active,
        "counts": state.counts,
    }
    rest = orjson.dumps(body)[1:]
    return _PREFIX + sha256(rest).hexdigest().encode() + b'",' + rest


def decode_snapshot(content: bytes) -> tuple[State, Position]:
    """What :func:`encode_snapshot` wrote.

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
        schedules = [Schedule(**fields) for fields in body["schedules"]]
        slots = [OpenSlot(**fields) for fields in body["open"]]
        state = State(
            {schedule.id: schedule for schedule in schedules},
            {slot_key(slot.id, slot.slot): slot for slot in slots},
            {agent: (day, count) for agent, (day, count) in body["spent"].items()},
            body["active"],
            body["counts"],
            body["newer"],
        )
        return state, Position(**body["position"])
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{error!r}") from None


def _brief(record: Schedule | OpenSlot) -> dict[str, Any]:
    defaults = record._field_defaults
    return {
        name: value
        for name, value in record._asdict().items()
        if name not in defaults or value is not defaults[name]
    }
