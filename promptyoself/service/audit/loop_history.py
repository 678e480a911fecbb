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
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.events.kinds import PendingReason
from promptyoself.events.target_names import TargetName, serves
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
    troubled: frozenset[str]  # targets that it holds back from, since they are in trouble


@dataclass
class _Passes:
    """When the latest pass was that could have claimed anything, and the one before that."""

    latest: str = ""
    before: str = ""

    def add(self, ts: str) -> None:
        self.before, self.latest = self.latest, ts

    def take_back(self, ts: str) -> None:
        """If there was a pass then, it could not have claimed anything after all."""
        if self.latest == ts:
            self.latest = self.before


class LoopHistory:
    """The loops that a log tells of."""

    def __init__(self) -> None:
        self.loops: dict[str, Loop] = {}
        """Each loop, by its worker's name."""
        self._passes = {"": _Passes()}  # by the target that was in trouble; of all others, by ""

    def add_worker_event(self, event: Folded, later: bool) -> None:
        """Take in that a worker started or stopped; other events are passed over. ``later`` says
        that the event's time is later than that of the event before it."""
        data = event.data
        if event.type == "worker.started" and data["mode"] == "loop":
            ts = event.ts
            self.loops[data["worker"]] = Loop(
                data["worker"], data["host"], ts, ts, ts, None, data["concurrency"], frozenset()
            )
        elif event.type == "worker.stopped" and (loop := self.loops.get(data["worker"])):
            up = event.ts if later else loop.up
            self.loops[loop.worker] = loop._replace(seen=event.ts, up=up, stopped=event.ts)
            for passes in self._passes.values():
                passes.take_back(event.ts)  # what it wrote as it stopped claimed nothing more

    def add_delivery_event(
        self, event: Folded, later: bool, under_way: int, target: TargetName
    ) -> None:
        """Take in an event of a delivery to a target, which names its worker. ``later`` is as
        above. ``under_way`` is the number of claimed slots after it. The event shows no pass where
        the worker had no seat left, nor to a target that it held back from because of trouble."""
        loop = self.loops.get(event.data["worker"])
        if loop is None:
            return
        troubled = loop.troubled
        if event.type == "delivery.abandoned":
            if event.data["code"] in TROUBLE:
                troubled |= {target}
                self._passes.setdefault(target, replace(self._passes[""]))
        elif event.type in ("delivery.delivered", "delivery.failed"):
            troubled -= {target}
        up = event.ts if later else loop.up
        self.loops[loop.worker] = loop._replace(seen=event.ts, up=up, troubled=troubled)
        for name, passes in self._passes.items():
            if name in troubled or under_way >= loop.concurrency:
                passes.take_back(event.ts)  # which its later events show
            elif later:
                passes.add(event.ts)

    def left_alone_until(
        self,
        since: datetime,
        now: datetime,
        living: Collection[str],
        target: TargetName,
        agent_id: str,
    ) -> datetime:
        """Until when a loop has shown that it left alone what was due to an agent by a target
        ``since`` then. ``living`` are the workers that are alive. It is ``since`` where no loop has
        shown that. Single passes show nothing of a target that not all loops serve."""
        passes = self._passes.get(target, self._passes[""])
        is_shown = passes.latest and target != "broca"
        latest = max(since, parse_utc(passes.latest)) if is_shown else since
        for loop in self.loops.values():
            if target in loop.troubled or not serves(loop.worker, target, agent_id):
                continue
            end = now if loop.worker in living else parse_utc(loop.up)
            watched = end - FORGOTTEN_AFTER
            if watched > max(since, parse_utc(loop.started)):
                latest = max(latest, watched)
        return latest

    def pending_reason(
        self, living: Collection[str], target: TargetName, agent_id: str
    ) -> PendingReason:
        """Why something due to an agent by a target wasn't touched yet.

        ``no_loop``: none is up. ``no_broca_loop``: none is up inside that agent's Broca. ``held``:
        a loop holds back what goes there. ``soon``: it is a matter of moments.
        """
        up = [
            loop
            for loop in self.loops.values()
            if loop.worker in living and serves(loop.worker, target, agent_id)
        ]
        if not up:
            return "no_broca_loop" if target == "broca" else "no_loop"
        return "held" if any(target in loop.troubled for loop in up) else "soon"
