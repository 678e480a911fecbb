"""One schedule as the audit follows it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from promptyoself.rules.slots import trigger_from_fields
from promptyoself.rules.triggers import Trigger, next_fire_time

__all__ = ["Account", "Run", "Skip"]

_INSTANT = timedelta(microseconds=1)


class Run(NamedTuple):
    """Slots of a trigger from ``first`` to ``last``, none left out."""

    trigger: Trigger
    first: datetime
    last: datetime


class Skip(NamedTuple):
    """Slots that were skipped, as their entry has them."""

    first: datetime
    last: datetime
    slots: int
    why: str | None
    seq: int


class Account:
    """A schedule as the audit follows it. None of its slots up to ``cursor`` is still to come;
    ``high`` is the last one that was decided."""

    def __init__(
        self, fields: dict[str, Any], high: datetime, cursor: datetime, seq: int, ts: str
    ) -> None:
        self.fields = fields
        self.high = high
        self.cursor = cursor
        self.trigger: Trigger = trigger_from_fields(fields)
        self.promised: str | None = fields["next_run"]
        self.claims: int = fields.get("repetition_count") or 0
        self.status = "active"
        self.begun = seq  # the event that registered it
        self.decided = seq  # the event that made the status what it is
        self.ready = ts  # not before this could its next slot be claimed
        # Its name, its end, its uses left, and whether triggers may spend it.
        self.approval: tuple[str, str, int, bool] | None = None
        self.paid: set[str] = set()  # the slots on which one was spent
        self.unpaid: tuple[dict[str, Any], int] | None = None  # the claim that needs one now
        self.spent = ("", 0)  # the last day on which slots were first claimed, and how many
        self.claimed: list[Run] = []  # the slots that were claimed, in runs of neighbours
        self.skipped: list[Skip] = []

    @property
    def exhausted(self) -> bool:
        """Whether as many slots were claimed as may be."""
        most = self.fields.get("max_repetitions")
        return most is not None and self.claims >= most

    def was_claimed(self, slot: datetime) -> bool:
        """Whether a slot was claimed before, in whichever life and by whichever clock."""
        return any(
            slot in (run.first, run.last) or next_fire_time(run.trigger, slot - _INSTANT) == slot
            for run in self.claimed
            if run.first <= slot <= run.last
        )

    def claim(self, slot: datetime) -> None:
        """Take in a claim; where the slot follows on the latest that was claimed, in its run."""
        if self.claimed:
            run = self.claimed[-1]
            if run.trigger is self.trigger and next_fire_time(run.trigger, run.last) == slot:
                self.claimed[-1] = run._replace(last=slot)
                return
        self.claimed.append(Run(self.trigger, slot, slot))
