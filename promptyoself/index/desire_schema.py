"""What the desires' index holds: their state, with the desires and their owners in tables.

The paths of desires begin with digits of their agent, so that an agent's desires lie in few parts.
The paths of owners are digits of the desire's id, so that a single one is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from promptyoself.events.versions import DESIRE_VERSIONS
from promptyoself.index.parts import TableSchema
from promptyoself.index.schema import (
    StateSchema,
    common_from_json,
    common_to_json,
    fingerprint_of,
    sha_path,
    without_defaults,
)
from promptyoself.state.desires import (
    EMPTY,
    Desire,
    Desires,
    fold,
    key_of,
    neighbourhood,
    summarize,
)
from promptyoself.state.overlay import Summary

_ID = re.compile(r"des_([0-9a-f]{8})", re.ASCII).fullmatch


def _digits(id_: str) -> str:
    match = _ID(id_)
    return match[1] if match else sha_path(id_)


def _desire_path(key: str) -> str:
    id_, _, agent_id = key.partition("|")
    return neighbourhood(agent_id) + _digits(id_)[:4]


def _desire_to_json(_: str, desire: Desire) -> dict[str, Any]:
    return without_defaults(desire)


def _desire_from_json(fields: dict[str, Any]) -> tuple[str, Desire]:
    desire = Desire(**fields)
    desire = desire._replace(tags=tuple(desire.tags))
    return key_of(desire.id, desire.agent_id), desire


def _owner_to_json(id_: str, agent_id: str) -> dict[str, Any]:
    return {"id": id_, "agent_id": agent_id}


def _owner_from_json(fields: dict[str, Any]) -> tuple[str, str]:
    return fields["id"], fields["agent_id"]


_DESIRES = TableSchema(
    "desires",
    _desire_path,
    _desire_to_json,
    _desire_from_json,
    summarize,
    lambda desire: 250 + len(desire.text) + 15 * len(desire.tags),
)

_OWNERS = TableSchema(
    "owners",
    _digits,
    _owner_to_json,
    _owner_from_json,
    lambda _: Summary(1),
    lambda agent_id: 45 + len(agent_id),
)


def _rest_from_json(body: Mapping[str, Any]) -> Desires:
    return EMPTY._replace(**common_from_json(body))


DESIRE_SCHEMA = StateSchema(
    EMPTY,
    fold,
    (_DESIRES, _OWNERS),
    common_to_json,
    _rest_from_json,
    fingerprint_of(DESIRE_VERSIONS, Desire, Desires),
)
