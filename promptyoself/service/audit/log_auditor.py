"""The audit: every slot that should have been, and the one outcome that the log has for it.

Which slots there are follows from the schedules' own specifications. The audit also checks that
what was sent was allowed: that there was an approval where one was needed, that the daily budget
held, that the schedule was active, and that its text and its recipient were sent.

The audit shares the triggers and the prompt's header with the rest, for they say what a
specification means, and nothing else: not the fold, and not the decisions of a claim. It follows
the log's events on its own, steps from slot to slot by the trigger of then, and gives a verdict on
whatever the log passes over.

The verdict on a slot without an outcome depends on the loops that ran. If a loop passed by and left
the slot alone, it is forgotten (see :mod:`promptyoself.service.audit.loop_history`). If none ran,
the slot is still to come.
"""

from collections.abc import Iterator
from datetime import datetime
from itertools import chain

from promptyoself.core.instants import MICROSECOND, parse_utc
from promptyoself.events.kinds import PROBLEMS, Outcome
from promptyoself.rules.triggers import count_slots, last_slot, next_fire_time
from promptyoself.service.audit.audited_log import AuditedLog, AuditEnd, recipient_of
from promptyoself.service.audit.slot_verdicts import ScheduleAuditor, SlotVerdict
from promptyoself.state.fold import Folded


class LogAuditor:
    """Takes the events of a whole log in order, and gives verdicts as slots are decided."""

    def __init__(self, since: datetime, until: datetime) -> None:
        """Only slots from ``since`` to ``until`` get verdicts."""
        self._since, self._until = since, until
        self.broken: dict[str, tuple[str, str]] = {}
        """The schedules whose slots can't be computed, by id: the agent, and the problem."""
        self.log = AuditedLog()
        self._auditors: dict[str, ScheduleAuditor] = {}  # by the schedule's id
        self._uncomputed: dict[str, ScheduleAuditor] = {}  # those of the broken schedules
        self._gaps: set[int] = set()  # the first events after gaps that are not stated yet
        # The latest of these, or the latest event of the append that stated the last of them.
        self._after_gap = 0
        self._stated = ""  # the time of that append, whose other events mend the gaps

    def begin_gap(self, first: int) -> None:
        """Event ``first`` comes after a gap in the log. What then contradicts the events before the
        gap may follow from what is lost, until the gap has its statement (:meth:`state_gap`)."""
        self._gaps.add(first)
        self._after_gap, self._stated = max(self._after_gap, first), ""

    def state_gap(self, event: Folded) -> None:
        """The log states what is lost."""
        self._gaps.discard(event.data.get("first") or 0)
        if not self._gaps:
            self._after_gap, self._stated = event.seq, event.ts

    def add(self, event: Folded) -> list[SlotVerdict]:
        """The verdicts that one more event makes. A schedule whose slots can't be computed, since
        its time zone is gone for instance, is left out from there on, and named in ``broken``."""
        later = self.log.advance(event)
        if event.id is None:
            self.log.loops.add_worker_event(event, later)
            return []
        if event.id in self.broken and not self._is_mended(event):
            return []
        rests_on_loss = self._rests_on_loss(event)
        if rests_on_loss and not self._bridge_loss(event):
            return []
        verdicts: list[SlotVerdict] = []
        open_slot = self.log.open_slot(event.id, event.data.get("slot", ""))
        try:
            # One by one, for a change of times comes only after what was due before it.
            for verdict in self._verdicts(event.id, event):
                is_lost = rests_on_loss and verdict.outcome in PROBLEMS
                verdicts += self._within_window(_as_lost(verdict) if is_lost else verdict)
        except Exception as error:
            self._give_up(event.id, event.seq, error)
            return []
        if event.type.startswith("delivery.") and "worker" in event.data:
            target = open_slot.recipient.target if open_slot else "letta"
            self.log.loops.add_delivery_event(event, later, self.log.under_way, target)
        return verdicts

    def finish(self, end: AuditEnd) -> Iterator[SlotVerdict]:
        """The verdicts on slots that are due by the audit's end and have no outcome yet."""
        for slot in self.log.open.values():
            why: str | None = None
            due = parse_utc(slot.slot)
            if slot.worker is not None:
                outcome: Outcome = "in_flight" if slot.worker in end.living else "in_doubt"
            else:
                auditor = self._auditors.get(slot.id)
                recipient = slot.recipient if auditor is None else recipient_of(auditor.fields)
                outcome, why, _ = self.log.unclaimed_outcome(recipient, slot.retry_at, end)
            agent_id = slot.recipient.agent_id
            verdict = SlotVerdict(slot.id, agent_id, slot.kind, due, due, 1, outcome, why, slot.seq)
            yield from self._within_window(verdict)
        begun = {slot.id for slot in self.log.open.values() if slot.kind == "scheduled"}
        for id_, auditor in list(self._auditors.items()):
            try:
                late = auditor.remaining(end, has_open_slot=id_ in begun)
                for verdict in chain(auditor.unapproved(), late):
                    yield from self._within_window(verdict)
            except Exception as error:
                self._give_up(id_, auditor.decided, error)

    def _verdicts(self, id_: str, event: Folded) -> Iterator[SlotVerdict]:
        auditor = self._auditors.get(id_)
        if auditor is not None and event.type != "approval.consumed":
            yield from auditor.unapproved()
        if event.type == "schedule.registered":
            if auditor is not None:
                yield from auditor.end_of_incarnation(event)
            auditor = self._auditors[id_] = ScheduleAuditor(self.log, id_, event, auditor)
        if auditor is None:
            raise ValueError("it was never registered")
        yield from auditor.verdicts(event)

    def _give_up(self, id_: str, seq: int, error: Exception) -> None:
        auditor = self._auditors.pop(id_, None)
        if auditor is not None:
            self._uncomputed[id_] = auditor
        agent_id = auditor.agent_id if auditor else ""
        self.broken[id_] = (agent_id, f"at event {seq}: {type(error).__name__}: {error}")

    def _is_mended(self, event: Folded) -> bool:
        """Follow a broken schedule. Returns whether this event makes it whole again."""
        id_ = str(event.id)
        auditor = self._uncomputed.get(id_)
        if auditor is None or not auditor.follow_uncomputed(event):
            return False
        del self.broken[id_], self._uncomputed[id_]
        self._auditors[id_] = auditor
        return True

    def _rests_on_loss(self, event: Folded) -> bool:
        """Whether an event may rest on something that lies in a gap."""
        if self._stated and event.ts > self._stated:
            self._after_gap, self._stated = 0, ""
        auditor = self._auditors.get(event.id or "")
        return self._after_gap > 0 and (auditor is None or auditor.registered < self._after_gap)

    def _bridge_loss(self, event: Folded) -> bool:
        """Make up for what is lost before an event. Returns whether the event can be taken in. It
        can't if its schedule's registration is lost."""
        auditor = self._auditors.get(event.id or "")
        if auditor is None:
            return event.type == "schedule.registered"
        auditor.bridge_loss(event)
        return True

    def _within_window(self, verdict: SlotVerdict) -> Iterator[SlotVerdict]:
        """The verdict on those of its slots that lie in the window."""
        if self._since <= verdict.first and verdict.last <= self._until:
            yield verdict
            return
        overlaps = verdict.first <= self._until and self._since <= verdict.last
        if abs(verdict.slots) > 1 and overlaps:
            trigger = self._auditors[verdict.id].trigger
            first: datetime | None = verdict.first
            if verdict.first < self._since:
                first = next_fire_time(trigger, self._since - MICROSECOND)
            end = min(verdict.last, self._until)
            if first is not None and first <= end:
                last = last_slot(trigger, first, end) or first
                slots = 1 + count_slots(trigger, first, last)
                slots = -slots if verdict.slots < 0 else slots
                yield verdict._replace(first=first, last=last, slots=slots)


def _as_lost(verdict: SlotVerdict) -> SlotVerdict:
    return verdict._replace(outcome="lost", why=f"the log lost it ({verdict.why})")
