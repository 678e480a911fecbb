"""What became of each slot of one schedule, as the audit finds it.

``ScheduleAuditor._end_slot`` says that slots were delivered, failed or skipped, or ended twice.
``_claim`` finds slots that were claimed twice, or that should not have been. ``_pass_over`` finds
those that were missed. ``remaining`` says of those that are late what they wait for.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import jittered
from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.events.kinds import Outcome, SlotKind
from promptyoself.rules.slots import trigger_from_fields
from promptyoself.rules.triggers import Trigger, count_slots, last_slot, next_fire_time
from promptyoself.service.audit.audited_log import (
    AuditedLog,
    AuditEnd,
    DailyCount,
    OpenSlot,
    recipient_of,
)
from promptyoself.service.audit.claim_checks import ApprovalTrail, ClaimedSlots, sending_mistake
from promptyoself.state.fold import Folded
from promptyoself.state.schedules import catch_up_pause

_APPROVED_TIER = 2  # written down here again, since the audit doesn't rest on the policy
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_TIMING = frozenset(
    {"schedule_type", "schedule_value", "timezone", "anchor", "start_at", "until"}
    | {"max_repetitions", "next_run"}
)


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


class ScheduleAuditor:
    """Follows the events of one schedule, and gives verdicts as its slots are decided. A change of
    times takes effect meanwhile, so each verdict must be used before the next is asked for."""

    def __init__(
        self, log: AuditedLog, id_: str, event: Folded, before: ScheduleAuditor | None
    ) -> None:
        """Begin with the ``schedule.registered`` that makes the schedule, or makes it again.

        Raises:
            Exception: the schedule's times can't be computed.
        """
        self.id = id_
        self.fields: dict[str, Any] = dict(event.data)
        self.registered = self.decided = event.seq
        """The numbers of the events that registered it, and that made its status what it is."""
        self.trigger: Trigger = trigger_from_fields(self.fields)
        self._log = log
        self._status = "active"
        self._high: datetime = before._high if before else _NEVER  # the last slot that was decided
        if "last_slot" in event.data:  # an imported one: these slots were decided elsewhere
            self._high = max(self._high, parse_utc(event.data["last_slot"]))
        self._cursor = max(parse_utc(event.ts), self._high)  # no slot up to here is to come
        self._promised: str | None = self.fields["next_run"]  # the next slot as the log has it
        self._claims: int = self.fields.get("repetition_count") or 0
        self._ready = event.ts  # its next slot can't be claimed before
        self._back: str | None = None  # when it is to run again by itself, if it is paused
        self._approvals = ApprovalTrail()
        self._daily: DailyCount = before._daily if before else DailyCount()
        self._claimed: ClaimedSlots = before._claimed if before else ClaimedSlots()
        self._skips: list[SlotVerdict] = before._skips if before else []
        self._settled_runs: set[str] = before._settled_runs if before else set()
        """The slots of runs that were asked for and have their outcome."""

    @property
    def agent_id(self) -> str:
        """The agent to which it delivers."""
        return str(self.fields["agent_id"])

    @property
    def _is_exhausted(self) -> bool:
        """Whether all the slots were claimed that may be."""
        most = self.fields.get("max_repetitions")
        return most is not None and self._claims >= most

    def end_of_incarnation(self, event: Folded) -> Iterator[SlotVerdict]:
        """The verdicts on slots that are to come no more, since it is registered again."""
        if self._status == "parked":
            yield from self._pass_over(parse_utc(event.ts), self.decided, "parked")

    def verdicts(self, event: Folded) -> Iterator[SlotVerdict]:
        """The verdicts that one more event of it makes."""
        data = event.data
        match event.type:
            case "schedule.registered":
                yield from self._promise(data["next_run"], event)
            case "schedule.modified":
                yield from self._modify(event)
            case "schedule.paused" | "schedule.resumed":
                yield from self._close(event)
                yield from self._promise(data.get("next_run"), event)
                self._status = "paused" if event.type == "schedule.paused" else "active"
                self._back = data.get("resume_at")
                self.decided, self._ready = event.seq, event.ts
            case "schedule.cancelled":
                yield from self._close(event)
                self._status, self.decided = "cancelled", event.seq
            case "schedule.completed":
                self._status, self.decided = data["status"], event.seq
            case "schedule.triggered":
                self._open(event, "trigger", None)
            case "delivery.attempted":
                yield from self._claim(event)
            case "delivery.abandoned":
                self._free_agent(event, self._log.open_slot(self.id, data["slot"]))
                self._open(event, None, None)
            case "delivery.delivered":
                yield from self._end_slot(event, "delivered", None)
            case "delivery.failed":
                yield from self._end_slot(event, "failed", data.get("code"))
            case "delivery.skipped":
                yield from self._end_slot(event, "skipped", data.get("why"))
            case "approval.granted" | "approval.revoked" | "approval.consumed":
                self._approvals.follow(event)
                yield from self.unapproved()

    def unapproved(self) -> Iterator[SlotVerdict]:
        """The verdict on a claim that needs an approval, and was not followed by its spending."""
        if claim := self._approvals.pop_unpaid():
            yield self._verdict(claim, "unexpected", "not approved")

    def _modify(self, event: Folded) -> Iterator[SlotVerdict]:
        changes: dict[str, Any] = event.data["changes"]
        self._approvals.void()
        changes_times = not _TIMING.isdisjoint(changes) or "counts_from" in event.data
        if changes_times:
            yield from self._close(event)
        self.fields.update(changes)
        if "last_slot" in changes:  # put back, since the log had lost the claims up to there
            self._high = max(self._high, parse_utc(changes["last_slot"] or event.ts))
            self._claims = self.fields.get("repetition_count") or self._claims
        if changes_times:
            self.trigger = trigger_from_fields(self.fields)
            self._cursor = max(self._high, parse_utc(event.ts))
            yield from self._promise(changes.get("next_run", self._promised), event)
            self._ready = event.ts
            if self._status == "failed":  # a one-off; with new times it waits to be resumed
                self._status, self.decided = "parked", event.seq
            elif self._status == "active":
                self.decided = event.seq

    # Deliveries.

    def _claim(self, event: Folded) -> Iterator[SlotVerdict]:
        data = event.data
        open_slot = self._log.open_slot(self.id, data["slot"])
        yield from self._refused(event, is_new=open_slot is None)
        if open_slot is None:
            if data.get("kind", "scheduled") != "scheduled" or data["attempt"] != 1:
                yield self._verdict(event, "unexpected", "never begun")
            else:
                yield from self._first_claim(event)
        elif open_slot.worker is not None:
            yield self._verdict(event, "doubled", "claimed twice")
        mistake = sending_mistake(
            self.id, self.fields, event, self._claims, own_time=self._log.own_time
        )
        if mistake is not None:
            yield self._verdict(event, "unexpected", mistake)
        self._open(event, data.get("kind"), data["worker"])
        if self.fields["tier"] >= _APPROVED_TIER:
            self._approvals.claim(event)

    def _first_claim(self, event: Folded) -> Iterator[SlotVerdict]:
        was_exhausted, slot = self._is_exhausted, parse_utc(event.data["slot"])
        if slot in self._claimed:
            yield self._verdict(event, "doubled", "claimed before")
        yield from self._move_on(event)
        self._claimed.add(slot, self.trigger)
        self._claims += 1
        self._promised = event.data.get("next_run")
        if was_exhausted:
            yield self._verdict(event, "unexpected", "max_repetitions")

    def _refused(self, event: Folded, *, is_new: bool) -> Iterator[SlotVerdict]:
        """The verdicts on a claim that should have been refused. Each slot is charged once."""
        data = event.data
        is_scheduled = data.get("kind", "scheduled") == "scheduled"
        ended = {"cancelled", "paused", "parked"} if is_scheduled else {"cancelled"}
        if self._status in ended or (is_new and is_scheduled and self._status != "active"):
            yield self._verdict(event, "unexpected", f"not active: {self._status}")
        if data["attempt"] != 1:
            return
        self._daily.add(event)
        budget = self.fields.get("daily_budget")
        if budget is not None and self._daily.claims > budget:
            yield self._verdict(event, "unexpected", "over budget")
        self._log.count_claim(self.agent_id, event)

    def _open(self, event: Folded, kind: SlotKind | None, worker: str | None) -> None:
        self._log.begin(self.id, recipient_of(self.fields), event.data["slot"], kind, worker, event)

    def _free_agent(self, event: Folded, open_slot: OpenSlot | None) -> None:
        if open_slot is not None:
            self._log.free_lane(open_slot.recipient, event.ts)
        self._ready = max(self._ready, event.ts)

    def _end_slot(self, event: Folded, outcome: Outcome, why: str | None) -> Iterator[SlotVerdict]:
        data = event.data
        open_slot = self._log.end(self.id, data["slot"])
        self._approvals.end(data["slot"])
        if open_slot is not None:
            self._free_agent(event, open_slot)
            if open_slot.kind == "trigger":
                self._settled_runs.add(open_slot.slot)
            if data.get("parked"):
                self._status, self._back, self.decided = "parked", None, event.seq
            verdict = self._verdict(event, outcome, why)
            yield verdict._replace(agent_id=open_slot.recipient.agent_id, kind=open_slot.kind)
        elif outcome != "skipped" or data.get("kind") == "trigger":
            is_over = parse_utc(data["slot"]) <= self._cursor
            again = is_over or data["slot"] in self._settled_runs
            yield self._verdict(event, "doubled" if again else "unexpected", outcome)
        else:
            first, last = _span(event)
            yield from self._move_on(event)
            slots = 1 + count_slots(self.trigger, first, last) if last >= first else 0
            skip = self._verdict(event, "skipped", why, slots)
            self._skips.append(skip)
            yield skip
            if slots != data["slots"]:
                wrong = f"counted as {data['slots']}, and are {slots}"
                yield skip._replace(outcome="unexpected", why=wrong)
            self._promised = data.get("next_run")

    # The step from slot to slot.

    def _move_on(self, event: Folded) -> Iterator[SlotVerdict]:
        """Move on to slots that the log has decided or begun. Slots in between were passed over."""
        start, end = _span(event)
        if start <= self._cursor:
            yield self._verdict(event, "doubled", "decided before")
        elif next_fire_time(self.trigger, self._cursor) == start:
            pass
        elif next_fire_time(self.trigger, start - MICROSECOND) == start:
            yield from self._pass_over(start - MICROSECOND, event.seq)
        elif event.data["slot"] != self._promised:
            # What the log has promised counts, also where newer time zone data wouldn't have it.
            yield self._verdict(event, "unexpected", "not a slot of the schedule")
        self._cursor = self._high = max(self._cursor, end)

    def _promise(self, next_run: str | None, event: Folded) -> Iterator[SlotVerdict]:
        """From here on the slots from ``next_run`` are to come, and none before it."""
        yield from self._reopen(event)
        self._promised = next_run
        if next_run is None:
            return
        before = parse_utc(next_run) - MICROSECOND
        if before > self._cursor:
            if not self._is_exhausted:
                yield from self._pass_over(before, event.seq)
            self._cursor = before
        elif event.type == "schedule.registered" or not self._log.exact:
            # A clock that ran back, or a prompt that was brought over after it was due.
            self._cursor = max(before, self._high)

    def _reopen(self, event: Folded) -> Iterator[SlotVerdict]:
        """Slots count again that a clock which was ahead had skipped. Their verdicts are taken
        back, with ``slots`` below zero. Slots of theirs that stay skipped get a new verdict."""
        counts_from = event.data.get("counts_from")
        if counts_from is None:
            return
        since, day = parse_utc(counts_from), counts_from[:10]
        kept = []
        for skip in self._skips:
            if skip.last <= since:
                kept.append(skip)
                continue
            yield skip._replace(slots=-skip.slots)
            if skip.first <= since:
                last = last_slot(self.trigger, skip.first, since) or skip.first
                slots = 1 + count_slots(self.trigger, skip.first, last)
                kept.append(skip._replace(last=last, slots=slots))
                yield kept[-1]
        self._skips = kept
        self._cursor = self._high = since
        self._daily.reset_after(day)
        self._log.daily_count(self.agent_id).reset_after(day)
        self.fields["without"] = event.data.get("without") or None
        self.trigger = trigger_from_fields(self.fields)

    def _close(self, event: Folded) -> Iterator[SlotVerdict]:
        """At a change, everything that was due by then must have been decided. A change may say
        that where it was made, nobody could tell what was due."""
        end = parse_utc(event.ts)
        if why := event.data.get("uncounted"):
            if event.type == "schedule.paused" and "next_run" in event.data:
                end = min(end, parse_utc(event.data["next_run"]) - MICROSECOND)
            with suppress(PromptyoselfError):  # nor can it be told here
                yield from self._pass_over(end, event.seq, why)
        elif self._log.exact and self._status != "cancelled" and not self._is_exhausted:
            if event.type == "schedule.resumed":  # by itself, perhaps late: then slots are due
                end = min(end, parse_utc(event.data["next_run"]) - MICROSECOND)
            yield from self._pass_over(end, event.seq)

    def _pass_over(
        self, until: datetime, seq: int, skipped_why: str | None = None
    ) -> Iterator[SlotVerdict]:
        """The verdict on slots up to a time, on which the log has not a word. They are unaccounted
        for, or skipped where there is a reason, ``skipped_why``."""
        first = next_fire_time(self.trigger, self._cursor)
        if first is not None and first <= until:
            last = last_slot(self.trigger, self._cursor, until) or first
            outcome: Outcome = "skipped" if skipped_why else "unaccounted"
            yield self._verdict_on_all(first, last, outcome, skipped_why or "passed over", seq)
            self._cursor = until

    def remaining(self, end: AuditEnd, *, has_open_slot: bool) -> Iterator[SlotVerdict]:
        """The verdicts on slots that are due when the audit ends, and have not been begun."""
        if self._status == "cancelled" or self._is_exhausted:
            return
        now, first = end.now, next_fire_time(self.trigger, self._cursor)
        if self._promised is not None:
            promised = parse_utc(self._promised)
            first = promised if first is None else min(promised, first)
        if first is None or first > now:
            return
        if self._status in ("paused", "parked"):
            back = now if self._back is None else parse_utc(self._back) - MICROSECOND
            if first <= back:
                last = last_slot(self.trigger, first, min(now, back)) or first
                yield self._verdict_on_all(first, last, "skipped", self._status)
                first = next_fire_time(self.trigger, last)  # late, though nothing has resumed it
            if first is None or first > now:
                return
        last = last_slot(self.trigger, first, now) or first
        if self._status in ("completed", "failed"):
            yield self._verdict_on_all(first, last, "unaccounted", "completed too early")
        elif has_open_slot:
            yield self._verdict_on_all(first, last, "pending", "overlap")
        else:
            outcome, why, left_alone_until = self._log.unclaimed_outcome(
                recipient_of(self.fields), self._ready_at(first), end
            )
            if outcome == "unaccounted":
                # A slot that came due after that pass of a loop may still be claimed.
                left = last_slot(self.trigger, first, min(left_alone_until, now)) or first
                yield self._verdict_on_all(first, left, outcome, why)
                following = next_fire_time(self.trigger, left)
                if following is None or following > now:
                    return
                first, outcome, why = following, "pending", "soon"
            yield self._verdict_on_all(first, last, outcome, why)

    def _ready_at(self, slot: datetime) -> str:
        """When the next slot can be claimed."""
        due = format_utc(jittered(self.id, slot, self.fields.get("jitter")))
        if self.fields["misfire"] == "all" and format_utc(slot) <= self._ready:
            due = max(due, format_utc(parse_utc(self._ready) + catch_up_pause(self.fields)))
        return max(due, self._ready, self._back or "")

    # Over damage.

    def follow_uncomputed(self, event: Folded) -> bool:
        """Take in an event while the schedule's times can't be computed. Returns whether the event
        mends that. It does if it gives the schedule times that can be computed here, or ends it,
        and says itself that what had passed could not be counted."""
        data = event.data
        if event.type == "delivery.attempted":
            self._open(event, data.get("kind"), data["worker"])
        elif event.type == "delivery.abandoned":
            self._open(event, None, None)
        elif event.type in ("delivery.delivered", "delivery.failed", "delivery.skipped"):
            self._log.end(self.id, data["slot"])
        elif event.type == "schedule.paused":
            self._status = "paused"
        elif event.type == "schedule.resumed":
            self._status = "active"
        elif event.type == "schedule.modified":
            self.fields.update(data["changes"])
        ends = event.type in ("schedule.modified", "schedule.cancelled") and "uncounted" in data
        if not ends and event.type != "schedule.registered":
            return False
        try:
            trigger = trigger_from_fields(self.fields)
            if event.type == "schedule.modified":
                next_fire_time(trigger, parse_utc(event.ts))
        except Exception:  # not yet: the problem stays as it was told
            return False
        self.trigger = trigger
        self._cursor = self._high = parse_utc(event.ts)
        return True

    def bridge_loss(self, event: Folded) -> None:
        """Make up for what the log has lost before an event of the schedule."""
        data = event.data
        is_scheduled = data.get("kind", "scheduled") == "scheduled"
        if event.type == "delivery.attempted" and is_scheduled and data["attempt"] == 1:
            # A slot is begun when the one before it has its outcome, so that outcome is lost.
            self._log.end_scheduled(self.id)
        outcomes = ("delivery.delivered", "delivery.failed", "delivery.abandoned")
        if event.type in outcomes and self._log.open_slot(self.id, data["slot"]) is None:
            self._open(event, None, data["worker"])
            slot = parse_utc(data["slot"])
            if slot > self._cursor and next_fire_time(self.trigger, slot - MICROSECOND) == slot:
                self._cursor = self._high = slot
                self._claims += 1
                following = next_fire_time(self.trigger, slot)
                self._promised = None if following is None else format_utc(following)

    # Verdicts.

    def _verdict(
        self, event: Folded, outcome: Outcome, why: str | None, slots: int = 1
    ) -> SlotVerdict:
        """The verdict on the slots that an event names."""
        kind, (first, last) = event.data.get("kind", "scheduled"), _span(event)
        return SlotVerdict(
            self.id, self.agent_id, kind, first, last, slots, outcome, why, event.seq
        )

    def _verdict_on_all(
        self, first: datetime, last: datetime, outcome: Outcome, why: str, seq: int | None = None
    ) -> SlotVerdict:
        """The verdict on all slots from ``first`` to ``last``, by the event of that number, or by
        the schedule's status."""
        slots = 1 + count_slots(self.trigger, first, last)
        seq = self.decided if seq is None else seq
        return SlotVerdict(
            self.id, self.agent_id, "scheduled", first, last, slots, outcome, why, seq
        )


def _span(event: Folded) -> tuple[datetime, datetime]:
    """The first and the last of the slots that an event names."""
    slot = event.data["slot"]
    return parse_utc(slot), parse_utc(event.data.get("last", slot))
