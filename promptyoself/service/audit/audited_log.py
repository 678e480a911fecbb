"""What the audit knows of a log besides its schedules: open slots, agents, loops, and clocks."""

from collections import Counter
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.events.kinds import Outcome, PendingReason, SlotKind
from promptyoself.events.target_names import TargetName, lane_of, target_of
from promptyoself.service.audit.loop_history import LoopHistory
from promptyoself.state.fold import Folded
from promptyoself.state.schedules import slot_key


class Recipient(NamedTuple):
    """To whom a schedule's prompts go, and what they may have to wait for."""

    agent_id: str
    target: TargetName
    lane: str | None  # see `lane_of`
    lists_desires: bool  # whether the prompt lists the agent's desires, or may do so


def recipient_of(fields: Mapping[str, Any]) -> Recipient:
    """The recipient, by the fields of a schedule's registration as they are now."""
    agent_id = str(fields["agent_id"])
    target = target_of(agent_id, fields.get("target"))
    lane = lane_of(agent_id, target, fields.get("conversation_id"))
    names_desires = "desires" in fields["prompt"]
    lists_desires = bool(fields.get("template") or (fields.get("render") and names_desires))
    return Recipient(agent_id, target, lane, lists_desires)


class OpenSlot(NamedTuple):
    """A slot that was begun and has no outcome yet."""

    id: str  # the schedule's
    recipient: Recipient
    slot: str
    kind: SlotKind
    worker: str | None  # who has claimed it, ``None`` while it waits
    retry_at: str  # not before this may it be claimed
    seq: int  # the number of the latest event about it


class AuditEnd(NamedTuple):
    """The circumstances in which the audit ends."""

    now: datetime
    living: Collection[str]  # the workers that are alive
    desires_unreadable: bool  # nobody can tell the agents' desires, so idle prompts have to wait


class DailyCount:
    """Counts slots that were claimed on the last day (UTC) on which any were."""

    def __init__(self) -> None:
        self.day = ""
        self.claims = 0

    def add(self, event: Folded) -> None:
        """Count a claim, on the day whose budgets it is charged to. By a clock that is behind the
        log, that is no day before the last one with a claim."""
        own_time = event.data.get("at")
        day = event.ts[:10] if own_time is None else max(str(own_time)[:10], self.day)
        self.day, self.claims = day, self.claims + 1 if day == self.day else 1

    def reset_after(self, day: str) -> None:
        """Forget claims of days after ``day``, which a clock that was ahead has counted."""
        if self.day > day:
            self.day, self.claims = "", 0


class AuditedLog:
    """A log up to the event that is being audited."""

    def __init__(self) -> None:
        self.loops = LoopHistory()
        self.exact = False
        """Whether all that was due by the event's time should have been decided before it."""
        self.own_time = False
        """Whether the event's time is certainly its writer's own."""
        self.under_way = 0
        """The number of slots that are claimed."""
        self.busiest: dict[str, tuple[int, str]] = {}
        """The most claims of a day that an agent had, and that day, by the agent's id."""
        self.open: dict[str, OpenSlot] = {}
        """Every open slot by its key, in the order in which they were begun."""
        self._claimed: Counter[str] = Counter()  # the slots that are claimed, by their lane
        self._free_since: dict[str, str] = {}  # when a lane's latest delivery ended
        self._daily: dict[str, DailyCount] = {}  # by the agent's id
        self._ts = ""  # of the latest event
        self._latest = ("", "")  # its type and its schedule's id

    def advance(self, event: Folded) -> bool:
        """Go on to an event. Returns whether it is later than the one before it."""
        later = event.ts > self._ts
        # All events of an append bear the time of the first. Before a change, an append has nothing
        # of the same schedule but what was skipped.
        goes_on = self._latest == ("delivery.skipped", event.id)
        self.exact = later or (self.exact and goes_on)
        self.own_time = later or (self.own_time and self._latest[0] == "worker.started")
        self._ts, self._latest = event.ts, (event.type, event.id or "")
        return later

    # Open slots.

    def open_slot(self, id_: str, slot: str) -> OpenSlot | None:
        """The open slot of a schedule at that time, if there is one."""
        return self.open.get(slot_key(id_, slot))

    def begin(
        self,
        id_: str,
        recipient: Recipient,
        slot: str,
        kind: SlotKind | None,
        worker: str | None,
        event: Folded,
    ) -> None:
        """A slot was begun, claimed or handed back. Without a ``kind``, it has the one it had."""
        key = slot_key(id_, slot)
        earlier = self.open.get(key)
        kind = kind or (earlier.kind if earlier else "scheduled")
        # The command that asked for a slot may have waited for the lock: no loop could claim the
        # slot before the event.
        retry_at = max(event.data.get("retry_at", slot), event.ts)
        self._count(earlier, -1)
        self.open[key] = OpenSlot(id_, recipient, slot, kind, worker, retry_at, event.seq)
        self._count(self.open[key], 1)

    def end(self, id_: str, slot: str) -> OpenSlot | None:
        """A slot has its outcome. Returns the slot as it was open, if it was."""
        open_slot = self.open.pop(slot_key(id_, slot), None)
        self._count(open_slot, -1)
        return open_slot

    def end_scheduled(self, id_: str) -> None:
        """The outcomes of a schedule's open slots are lost; runs that were asked for stay open."""
        for open_slot in list(self.open.values()):
            if open_slot.id == id_ and open_slot.kind == "scheduled":
                self.end(id_, open_slot.slot)

    def _count(self, open_slot: OpenSlot | None, change: int) -> None:
        if open_slot is not None and open_slot.worker is not None:
            if open_slot.recipient.lane is not None:
                self._claimed[open_slot.recipient.lane] += change
            self.under_way += change

    # Agents.

    def free_lane(self, recipient: Recipient, ts: str) -> None:
        """A delivery in a lane ended."""
        if recipient.lane is not None:
            self._free_since[recipient.lane] = ts

    def daily_count(self, agent_id: str) -> DailyCount:
        """The count of an agent's claims."""
        return self._daily.setdefault(agent_id, DailyCount())

    def count_claim(self, agent_id: str, event: Folded) -> None:
        """Charge a claim to its agent."""
        count = self.daily_count(agent_id)
        count.add(event)
        busiest = self.busiest.get(agent_id, (0, ""))
        self.busiest[agent_id] = max(busiest, (count.claims, count.day))

    def unclaimed_outcome(
        self, recipient: Recipient, ready: str, end: AuditEnd
    ) -> tuple[Outcome, str, datetime]:
        """The outcome of something that could have been claimed since ``ready``, and wasn't.
        Returns the outcome, the reason, and until when a loop has shown that it left it alone."""
        lane, target, agent_id = recipient.lane or "", recipient.target, recipient.agent_id
        since = parse_utc(max(ready, self._free_since.get(lane, "")))
        waits_for: PendingReason | None = None
        if self._claimed.get(lane):
            waits_for = "busy"
        elif end.desires_unreadable and recipient.lists_desires:
            waits_for = "desires"
        if waits_for is not None:
            return "pending", waits_for, since
        left_alone_until = self.loops.left_alone_until(since, end.now, end.living, target, agent_id)
        if left_alone_until > since:
            return "unaccounted", "forgotten", left_alone_until
        return "pending", self.loops.pending_reason(end.living, target, agent_id), since
