"""Which loops were there, and what that proves of a slot that has no outcome.

A pass of a loop deals with everything that is due, oldest first, so what a pass left where it was,
though it was due and its agent free, has been forgotten. A pass shows in the log as an event that
its worker wrote at a time of its own: one whose ``ts`` is later than that of the event before it.
(Where the clock has run back, ``ts`` is held, and tells nothing of the writer's clock.) And so has
what was due for a long time while a loop was up, by its own start and what it wrote last.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.events.kinds import PendingReason
from promptyoself.state.schedules import Folded
from promptyoself.targets.api import TROUBLE

__all__ = ["FORGOTTEN_AFTER", "Loop", "Presence"]

FORGOTTEN_AFTER = timedelta(minutes=10)
"""A loop that was up for so long while a slot was due, and didn't touch it, has forgotten it."""


class Loop(NamedTuple):
    """One run of a loop, as the log shows it. ``stopped`` is ``None`` where it was killed, or
    lives; ``seen`` is when it last wrote, ``up`` when it last did so at a time of its own."""

    worker: str
    host: str
    started: str
    seen: str
    up: str
    stopped: str | None
    concurrency: int
    troubled: bool


class Presence:
    """The loops that a log tells of; ``loops`` has them by their workers' names."""

    def __init__(self) -> None:
        self.loops: dict[str, Loop] = {}
        self._pass = self._pass_before = ""  # the latest that could have claimed anything

    def take(self, event: Folded, later: bool) -> None:
        """An event of the log itself; ``later`` says that its time is its writer's own."""
        data = event.data
        if event.type == "worker.started" and data["mode"] == "loop":
            ts = event.ts
            self.loops[data["worker"]] = Loop(
                data["worker"], data["host"], ts, ts, ts, None, data["concurrency"], troubled=False
            )
        elif event.type == "worker.stopped" and (loop := self.loops.get(data["worker"])):
            up = event.ts if later else loop.up
            self.loops[loop.worker] = loop._replace(seen=event.ts, up=up, stopped=event.ts)
            if self._pass == event.ts:  # what it wrote as it stopped claimed nothing more
                self._pass = self._pass_before

    def note(self, event: Folded, later: bool, claimed: int) -> None:
        """An event of a delivery that names its worker; ``claimed`` slots are under way after it.

        It is no pass where the worker had no seat left, or held back because Letta was in trouble.
        """
        loop = self.loops.get(event.data["worker"])
        if loop is None:
            return
        troubled = loop.troubled
        if event.type == "delivery.abandoned":
            troubled = troubled or event.data["code"] in TROUBLE
        elif event.type in ("delivery.delivered", "delivery.failed"):
            troubled = False
        up = event.ts if later else loop.up
        self.loops[loop.worker] = loop._replace(seen=event.ts, up=up, troubled=troubled)
        could_claim = not troubled and claimed < loop.concurrency
        if later and could_claim:
            self._pass_before, self._pass = self._pass, event.ts
        elif self._pass == event.ts and not could_claim:  # which its later events show
            self._pass = self._pass_before

    def proof(self, since: datetime, now: datetime, living: Collection[str]) -> datetime:
        """Up to when, from ``since`` on, a loop has shown that it left alone what was due."""
        found = max(since, parse_utc(self._pass)) if self._pass else since
        for loop in self.loops.values():
            if loop.troubled:
                continue
            end = now if loop.worker in living else parse_utc(loop.up)
            watched = end - FORGOTTEN_AFTER
            if watched > max(since, parse_utc(loop.started)):
                found = max(found, watched)
        return found

    def excuse(self, living: Collection[str]) -> PendingReason:
        """Why something due wasn't touched yet: ``no_loop`` is up, all is ``held`` back, or it is
        a matter of moments: ``soon``."""
        up = [loop for loop in self.loops.values() if loop.worker in living]
        if not up:
            return "no_loop"
        return "held" if any(loop.troubled for loop in up) else "soon"
