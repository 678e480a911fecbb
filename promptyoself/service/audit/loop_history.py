"""Which loops ran, and what that proves of a slot that has no outcome.

A pass of a loop deals with everything that is due, the oldest first. So a slot that was due while
its agent was free, and that a pass didn't touch, has been forgotten. A pass shows in the log as an
event that its worker wrote at a time of its own: an event whose ``ts`` is later than that of the
event before it. Where the clock has run back, ``ts`` is held at the latest time, and tells nothing
of the writer's clock.

A slot has also been forgotten if it was due for ten minutes while a loop was up, from the loop's
start to what it wrote last.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.events.kinds import PendingReason
from promptyoself.state.fold import Folded
from promptyoself.targets.api import TROUBLE

FORGOTTEN_AFTER = timedelta(minutes=10)
"""A loop that was up for this long while a slot was due, and didn't touch it, has forgotten it."""


class Loop(NamedTuple):
    """One run of a loop, as the log shows it."""

    worker: str
    host: str
    started: str
    seen: str  # when it last wrote
    up: str  # when it last wrote at a time of its own
    stopped: str | None  # ``None`` where it was killed, or lives
    concurrency: int
    troubled: bool  # it holds back, since Letta is in trouble


class LoopHistory:
    """The loops that a log tells of."""

    def __init__(self) -> None:
        self.loops: dict[str, Loop] = {}
        """Each loop, by its worker's name."""
        self._pass = ""  # when the latest pass was that could have claimed anything
        self._pass_before = ""  # when the one before that was

    def add_worker_event(self, event: Folded, later: bool) -> None:
        """Take in that a worker started or stopped; other events are passed over. ``later`` says
        that the event's time is later than that of the event before it."""
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

    def add_delivery_event(self, event: Folded, later: bool, under_way: int) -> None:
        """Take in an event of a delivery, which names its worker. ``later`` is as above.
        ``under_way`` is the number of claimed slots after it. The event shows no pass where the
        worker had no seat left, or held back because Letta was in trouble."""
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
        could_claim = not troubled and under_way < loop.concurrency
        if later and could_claim:
            self._pass_before, self._pass = self._pass, event.ts
        elif self._pass == event.ts and not could_claim:  # which its later events show
            self._pass = self._pass_before

    def left_alone_until(self, since: datetime, now: datetime, living: Collection[str]) -> datetime:
        """Until when a loop has shown that it left alone what was due ``since`` then. ``living``
        are the workers that are alive. It is ``since`` where no loop has shown that."""
        latest = max(since, parse_utc(self._pass)) if self._pass else since
        for loop in self.loops.values():
            if loop.troubled:
                continue
            end = now if loop.worker in living else parse_utc(loop.up)
            watched = end - FORGOTTEN_AFTER
            if watched > max(since, parse_utc(loop.started)):
                latest = max(latest, watched)
        return latest

    def pending_reason(self, living: Collection[str]) -> PendingReason:
        """Why something due wasn't touched yet.

        ``no_loop``: none is up. ``held``: a loop holds everything back. ``soon``: it is a matter of
        moments.
        """
        up = [loop for loop in self.loops.values() if loop.worker in living]
        if not up:
            return "no_loop"
        return "held" if any(loop.troubled for loop in up) else "soon"
