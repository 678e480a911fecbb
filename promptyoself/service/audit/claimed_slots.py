"""Which slots of a schedule were claimed."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from promptyoself.core.instants import MICROSECOND
from promptyoself.rules.triggers import Trigger, next_fire_time


class _Run(NamedTuple):
    """Claimed slots of a trigger from ``first`` to ``last``, none left out."""

    trigger: Trigger
    first: datetime
    last: datetime


class ClaimedSlots:
    """The slots that were claimed, in every incarnation of a schedule and by every clock."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def __contains__(self, slot: datetime) -> bool:
        return any(
            slot in (run.first, run.last) or next_fire_time(run.trigger, slot - MICROSECOND) == slot
            for run in self._runs
            if run.first <= slot <= run.last
        )

    def add(self, slot: datetime, trigger: Trigger) -> None:
        """Take in a claim. If its slot follows the latest one, it joins that one's run."""
        if self._runs:
            run = self._runs[-1]
            if run.trigger is trigger and next_fire_time(run.trigger, run.last) == slot:
                self._runs[-1] = run._replace(last=slot)
                return
        self._runs.append(_Run(trigger, slot, slot))
