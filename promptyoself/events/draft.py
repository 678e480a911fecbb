"""An event before it has its place in the chain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from promptyoself.events.records import Record


FOR = "for_agent"
"""Under this name an event's actor has the agent for whom it was done."""


class Draft(NamedTuple):
    """An event that hasn't got its place in the chain yet."""

    record: Record
    id: str | None
    actor: Mapping[str, str]
