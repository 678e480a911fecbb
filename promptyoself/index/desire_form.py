"""What the desires' index holds: their state, with the desires and their owners in tables.

The desires stand by agent, so that those of one lie in few parts, however many others there are;
the owners by id, so that a single one is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from promptyoself.events.versions import DESIRE_VERSIONS
from promptyoself.index.form import (
    Form,
    brief,
    read_losses,
    schema_of,
    sha_path,
    spell_losses,
)
from promptyoself.index.tree import Kind
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

__all__ = ["DESIRE_FORM"]

_ID = re.compile(r"des_([0-9a-f]{8})", re.ASCII).fullmatch


def _digits(id_: str) -> str:
    match = _ID(id_)
    return match[1] if match else sha_path(id_)


def _desire_path(key: str) -> str:
    id_, _, agent_id = key.partition("|")
    return neighbourhood(agent_id) + _digits(id_)[:4]


def _spell_desire(_: str, desire: Desire) -> dict[str, Any]:
    return brief(desire)


def _read_desire(fields: dict[str, Any]) -> tuple[str, Desire]:
    desire = Desire(**fields)
    desire = desire._replace(tags=tuple(desire.tags))
    return key_of(desire.id, desire.agent_id), desire


def _spell_owner(id_: str, agent_id: str) -> dict[str, Any]:
    return {"id": id_, "agent_id": agent_id}


def _read_owner(fields: dict[str, Any]) -> tuple[str, str]:
    return fields["id"], fields["agent_id"]


_DESIRES = Kind(
    "desires",
    _desire_path,
    _spell_desire,
    _read_desire,
    summarize,
    lambda desire: 250 + len(desire.text) + 15 * len(desire.tags),
)

_OWNERS = Kind(
    "owners",
    _digits,
    _spell_owner,
    _read_owner,
    lambda _: Summary(1),
    lambda agent_id: 45 + len(agent_id),
)


def _spell(state: Desires) -> dict[str, Any]:
    return {
        "newer": state.newer,
        "statuses": state.statuses,
        "counts": state.counts,
        "losses": spell_losses(state.losses),
    }


def _read(body: Mapping[str, Any]) -> Desires:
    return EMPTY._replace(
        statuses=dict(body["statuses"]),
        counts=dict(body["counts"]),
        newer=body["newer"],
        losses=read_losses(body["losses"]),
    )


DESIRE_FORM = Form(
    EMPTY, fold, (_DESIRES, _OWNERS), _spell, _read, schema_of(DESIRE_VERSIONS, Desire, Desires)
)
