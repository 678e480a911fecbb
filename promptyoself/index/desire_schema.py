"""What the desires' index holds: their state, with the desires and their owners in tables.

The paths of desires begin with digits of their agent, so that an agent's desires lie in few parts.
The paths of owners are digits of the desire's id, so that a single one is found.
"""

from typing import Any

from promptyoself.events.versions import DESIRE_VERSIONS
from promptyoself.index import schema
from promptyoself.index.parts import TableSchema
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


def _desire_path(key: str) -> str:
    id_, _, agent_id = key.partition("|")
    return neighbourhood(agent_id) + schema.id_path(id_)[:4]


def _desire_from_json(fields: dict[str, Any]) -> tuple[str, Desire]:
    desire = Desire(**fields)
    desire = desire._replace(tags=tuple(desire.tags))
    return key_of(desire.id, desire.agent_id), desire


_DESIRES = TableSchema(
    "desires",
    _desire_path,
    lambda _, desire: schema.without_defaults(desire),
    _desire_from_json,
    summarize,
    lambda desire: 250 + len(desire.text) + 15 * len(desire.tags),
)

_OWNERS = TableSchema(
    "owners",
    schema.id_path,
    lambda id_, agent_id: {"id": id_, "agent_id": agent_id},
    lambda fields: (fields["id"], fields["agent_id"]),
    lambda _: Summary(1),
    lambda agent_id: 45 + len(agent_id),
)


DESIRE_SCHEMA = schema.StateSchema(
    EMPTY,
    fold,
    (_DESIRES, _OWNERS),
    schema.common_to_json,
    lambda body: EMPTY._replace(**schema.common_from_json(body)),
    schema.fingerprint_of(DESIRE_VERSIONS, Desire, Desires),
)
