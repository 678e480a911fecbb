"""What became of slots, as the audit found it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from promptyoself.events.kinds import Outcome, SlotKind

OUTCOMES_BY_TYPE: Mapping[str, Outcome] = {
    "delivery.delivered": "delivered",
    "delivery.failed": "failed",
    "delivery.skipped": "skipped",
}
"""The outcome that an event of a type gives to its slot."""


class SlotVerdict(NamedTuple):
    """The outcome of some slots of a schedule that follow one another."""

    id: str  # the schedule's
    agent_id: str
    kind: SlotKind
    first: datetime
    last: datetime
    slots: int  # how many; below zero, the verdict takes back one that was the same but for that
    outcome: Outcome
    why: str | None  # the reason of a skip or a failure, or what a pending slot waits for
    seq: int  # the number of the event that decided it
