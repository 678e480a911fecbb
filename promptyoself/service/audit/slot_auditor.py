"""The audit: every slot that should have been, by the schedules' own specifications, and the one
outcome that the log has for it; and that what was sent was allowed: an approval where one was
needed, the daily budget, a schedule that was active, the text and the recipient that it had.

It shares the triggers and the envelope with the rest, for they say what a specification means, and
nothing else: not the fold, not the plan of a claim. It follows the log's events on its own, steps
from slot to slot by the trigger as it stood, and notes whatever the log passes over.

What a slot without an outcome means depends on the loops that ran. Where a loop passed by and left
it where it was, it is forgotten (see :mod:`promptyoself.service.audit.loop_history`). Where none
ran, it is still to come.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import jittered
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.kinds import PROBLEMS, Outcome, PendingReason, SlotKind
from promptyoself.rules.prompts import with_header
from promptyoself.rules.slots import trigger_from_fields
from promptyoself.rules.triggers import count_slots, last_slot, next_fire_time
from promptyoself.service.audit.loop_history import Presence
from promptyoself.service.audit.schedule_trail import Account, Skip
from promptyoself.state.schedules import Folded, catch_up_pause, slot_key

__all__ = ["Accounts", "Entry"]

_APPROVED_TIER = 2

_OUTCOMES_BY_TYPE: Mapping[str, Outcome] = {
    "delivery.delivered": "delivered",
    "delivery.failed": "failed",
    "delivery.skipped": "skipped",
}
_INSTANT = timedelta(microseconds=1)
_NEVER = datetime(1, 1, 1, tzinfo=UTC)
_TIMING = frozenset(
    {"schedule_type", "schedule_value", "timezone", "anchor", "start_at", "until"}
    | {"max_repetitions", "next_run"}
)


class Entry(NamedTuple):
    """``slots`` slots of a schedule, from ``first`` to ``last``, and what became of them.

    ``why`` is a skip's or a failure's reason, or what a pending slot waits for; ``seq`` the event
    that decided it. ``kind`` is ``scheduled`` or ``trigger``. Where ``slots`` is below zero, it
    takes back the entry that was the same but for that.
    """

    id: str
    agent_id: str
    kind: SlotKind
    first: datetime
    last: datetime
    slots: int
    outcome: Outcome
    why: str | None
    seq: int


class _Open(NamedTuple):
    id: str
    agent_id: str
    slot: str
    kind: SlotKind
    worker: str | None
    retry_at: str
    seq: int


class Accounts:
    """Takes the events of a whole log in order, and gives entries as slots are decided."""

    def __init__(self, since: datetime, until: datetime) -> None:
        """Only slots from ``since`` to ``until`` get entries."""
        self._since, self._until = since, until
        self.presence = Presence()
        self.broken: dict[str, tuple[str, str]] = {}
        self._accounts: dict[str, Account] = {}
        self._open: dict[str, _Open] = {}
        self._claimed: Counter[str] = Counter()  # slots under way, by their agents
        self._flying = 0  # all of them
        self.busiest: dict[str, tuple[int, str]] = {}  # an agent's most claims of a day, and which
        self._spent: dict[str, tuple[str, int]] = {}
        self._freed: dict[str, str] = {}  # since when an agent has had no delivery under way
        self._settled: set[str] = set()  # triggered slots that have their outcome
        self._lost: dict[str, Account] = {}  # of the broken ones: how they stood
        self._ts = ""
        self._id: str | None = None
        self._type = ""
        self._exact = False
        self._own = False  # whether the time of the event is certainly its writer's
        self._unreadable = False
        self._gaps: set[int] = set()  # the first events after gaps whose statements are to come
        self._after_gap = 0  # the latest of these, and of those stated by the same append
        self._stated = ""  # when the last of them was stated; what came with that mends them

    def pass_gap(self, first: int) -> None:
        """Event ``first`` comes after a gap in the log. What then contradicts what was before it
        may follow from what is lost; until the gap has its statement (:meth:`pass_statement`)."""
        self._gaps.add(first)
        self._after_gap, self._stated = max(self._after_gap, first), ""

    def pass_statement(self, event: Folded) -> None:
        """The log states what is lost."""
        self._gaps.discard(event.data.get("first") or 0)
        if not self._gaps:
            self._after_gap, self._stated = event.seq, event.ts

    def _may_be_lost(self, event: Folded) -> bool:
        """Whether what an event rests on may lie in a gap."""
        if self._stated and event.ts > self._stated:
            self._after_gap, self._stated = 0, ""
        account = self._accounts.get(event.id or "")
        return self._after_gap > 0 and (account is None or account.begun < self._after_gap)

    def take(self, event: Folded) -> list[Entry]:
        """The entries that one more event makes.

        A schedule whose slots can't be computed (its time zone is gone, say) is left out from
        there on, and named in ``broken``, with its agent and the reason.
        """
        later = event.ts > self._ts
        # What follows within an append bears the time of what precedes it; and before a change, an
        # append has nothing of the same schedule but what was skipped.
        within = self._type == "delivery.skipped" and event.id == self._id
        self._exact = later or (self._exact and within)
        self._own = later or (self._own and self._type == "worker.started")
        self._ts, self._id, self._type = event.ts, event.id, event.type
        if event.id is None:
            self.presence.take(event, later)
            return []
        if event.id in self.broken and not self._found_again(event):
            return []
        lost = self._may_be_lost(event)
        if lost and not self._bridge(event):
            return []
        entries: list[Entry] = []
        try:
            # One by one, for a change of its times comes only after what was due before it.
            for entry in self._take_schedule(event):
                told = _as_lost(entry) if lost and entry.outcome in PROBLEMS else entry
                entries += self._within(told)
        except Exception as error:
            self._give_up(event.id, event.seq, error)
            return []
        if event.type.startswith("delivery.") and "worker" in event.data:
            self.presence.note(event, later, self._flying)
        return entries

    def finish(
        self, now: datetime, living: Collection[str], *, unreadable: bool = False
    ) -> Iterator[Entry]:
        """The entries of the slots up to ``now`` that have no outcome yet; ``living`` are the
        workers that are alive. ``unreadable`` says that nobody could tell the agents' desires, so
        that prompts which list them have to wait."""
        self._unreadable = unreadable
        for slot in self._open.values():
            why: str | None = None
            if slot.worker is not None:
                outcome: Outcome = "in_flight" if slot.worker in living else "in_doubt"
            else:
                outcome, why, _ = self._judge(slot.id, slot.agent_id, slot.retry_at, now, living)
            when = parse_utc(slot.slot)
            entry = Entry(slot.id, slot.agent_id, slot.kind, when, when, 1, outcome, why, slot.seq)
            yield from self._within(entry)
        begun = {slot.id for slot in self._open.values() if slot.kind == "scheduled"}
        for id_, account in list(self._accounts.items()):
            try:
                for entry in self._unapproved(id_, account):
                    yield from self._within(entry)
                for entry in self._remaining(id_, account, now, living, id_ in begun):
                    yield from self._within(entry)
            except Exception as error:
                self._give_up(id_, account.decided, error)

    def _give_up(self, id_: str, seq: int, error: Exception) -> None:
        account = self._accounts.pop(id_, None)
        agent_id = account.fields["agent_id"] if account else ""
        if account is not None:
            self._lost[id_] = account
        self.broken[id_] = (agent_id, f"at event {seq}: {type(error).__name__}: {error}")

    def _found_again(self, event: Folded) -> bool:
        """Follow a broken schedule until it is mended: until an event gives it times that can be
        computed here, or ends it, and says itself that what had passed could not be counted."""
        id_, data = str(event.id), event.data
        account = self._lost.get(id_)
        if account is None:
            return False
        if event.type == "delivery.attempted":
            self._begin(id_, account, data["slot"], data.get("kind"), data["worker"], event)
        elif event.type == "delivery.abandoned":
            self._begin(id_, account, data["slot"], None, None, event)
        elif event.type in ("delivery.delivered", "delivery.failed", "delivery.skipped"):
            self._count(self._open.pop(slot_key(id_, data["slot"]), None), -1)
        elif event.type == "schedule.paused":
            account.status = "paused"
        elif event.type == "schedule.resumed":
            account.status = "active"
        elif event.type == "schedule.modified":
            account.fields.update(data["changes"])
        ends = event.type in ("schedule.modified", "schedule.cancelled") and "uncounted" in data
        if not ends and event.type != "schedule.registered":
            return False
        try:
            trigger = trigger_from_fields(account.fields)
            if event.type == "schedule.modified":
                next_fire_time(trigger, parse_utc(event.ts))
        except Exception:  # not yet: it stays as it was told
            return False
        del self.broken[id_], self._lost[id_]
        account.trigger = trigger
        account.cursor = account.high = parse_utc(event.ts)
        self._accounts[id_] = account
        return True

    def _bridge(self, event: Folded) -> bool:
        """Make up for what is lost before an event; whether the event can be taken in at all, and
        isn't one of a schedule whose registration is lost."""
        account = self._accounts.get(event.id or "")
        if account is None or event.id is None:
            return event.type == "schedule.registered"
        data, key = event.data, slot_key(event.id, str(event.data.get("slot")))
        scheduled = data.get("kind", "scheduled") == "scheduled"
        if event.type == "delivery.attempted" and scheduled and data["attempt"] == 1:
            # A slot is begun when the one before it has its outcome, which is lost, then.
            for other in [key for key, slot in self._open.items() if slot.id == event.id]:
                if self._open[other].kind == "scheduled":
                    self._count(self._open.pop(other), -1)
        outcomes = ("delivery.delivered", "delivery.failed", "delivery.abandoned")
        if event.type in outcomes and key not in self._open:
            self._begin(event.id, account, data["slot"], None, data["worker"], event)
            slot = parse_utc(data["slot"])
            if slot > account.cursor and next_fire_time(account.trigger, slot - _INSTANT) == slot:
                account.cursor = account.high = slot
                account.claims += 1
                following = next_fire_time(account.trigger, slot)
                account.promised = None if following is None else format_utc(following)
        return True

    # Schedules.

    def _take_schedule(self, event: Folded) -> Iterator[Entry]:
        id_, data = str(event.id), event.data
        account = self._accounts.get(id_)
        if account is not None and event.type != "approval.consumed":
            yield from self._unapproved(id_, account)
        if event.type == "schedule.registered":
            yield from self._register(id_, account, event)
            return
        if account is None:
            raise ValueError("it was never registered")
        match event.type:
            case "schedule.modified":
                yield from self._modify(id_, account, event)
            case "schedule.paused" | "schedule.resumed":
                yield from self._close(id_, account, event)
                yield from self._reopen(id_, account, event)
                yield from self._promise(id_, account, data.get("next_run"), event)
                account.status = "paused" if event.type == "schedule.paused" else "active"
                account.decided, account.ready = event.seq, event.ts
            case "schedule.cancelled":
                yield from self._close(id_, account, event)
                account.status, account.decided = "cancelled", event.seq
            case "schedule.completed":
                account.status, account.decided = data["status"], event.seq
            case "schedule.triggered":
                self._begin(id_, account, data["slot"], "trigger", None, event)
            case "delivery.attempted":
                yield from self._attempt(id_, account, event)
            case "delivery.abandoned":
                self._free(id_, account, event)
                self._begin(id_, account, data["slot"], None, None, event)
            case "delivery.delivered" | "delivery.failed" | "delivery.skipped":
                yield from self._settle(id_, account, event)
            case "approval.granted":
                triggers = data.get("allow_trigger") is not False
                account.approval = data["grant"], data["expires"], data["uses"], triggers
            case "approval.revoked":
                account.approval = None
            case "approval.consumed":
                yield from self._consume(id_, account, event)

    def _register(self, id_: str, account: Account | None, event: Folded) -> Iterator[Entry]:
        data = event.data
        since, high = parse_utc(event.ts), _NEVER
        if account is not None:
            high = account.high
            if account.status == "parked":
                yield from self._gap(id_, account, since, account.decided, "parked")
        if "last_slot" in data:  # of an imported one: what was decided elsewhere
            high = max(high, parse_utc(data["last_slot"]))
        cursor = max(since, high)
        before = account
        account = Account(dict(data), high, cursor, event.seq, event.ts)
        if before is not None:
            account.claimed, account.skipped = before.claimed, before.skipped
            account.spent = before.spent
        self._accounts[id_] = account
        yield from self._reopen(id_, account, event)
        yield from self._promise(id_, account, data["next_run"], event)

    def _consume(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        data, unpaid = event.data, account.unpaid
        if unpaid is not None and account.approval is not None:
            grant, expires, uses, triggers = account.approval
            live = grant == data["grant"] and event.ts <= expires and uses > data["uses_left"] >= 0
            kind = unpaid[0].get("kind", "scheduled")
            allowed = live and (triggers or kind != "trigger")
            if allowed and unpaid[0]["slot"] == data["slot"]:
                account.approval = grant, expires, data["uses_left"], triggers
                account.paid.add(data["slot"])
                account.unpaid = None
        yield from self._unapproved(id_, account)

    def _unapproved(self, id_: str, account: Account) -> Iterator[Entry]:
        """A claim that needs an approval is followed at once by what it spends."""
        if account.unpaid is not None:
            data, seq = account.unpaid
            account.unpaid = None
            yield self._entry(id_, account, data, 1, "unexpected", "not approved", seq)

    def _modify(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        changes: dict[str, Any] = event.data["changes"]
        account.approval = None  # which was given to what it was before
        account.paid.clear()
        timing = not _TIMING.isdisjoint(changes)
        if timing or "counts_from" in event.data:
            yield from self._close(id_, account, event)
        account.fields.update(changes)
        if "last_slot" in changes:  # put back, since the log had lost the claims up to there
            account.high = max(account.high, parse_utc(changes["last_slot"] or event.ts))
            account.claims = account.fields.get("repetition_count") or account.claims
        if timing or "counts_from" in event.data:
            account.trigger = trigger_from_fields(account.fields)
            account.cursor = max(account.high, parse_utc(event.ts))
            yield from self._reopen(id_, account, event)
            promised = changes.get("next_run", account.promised)
            yield from self._promise(id_, account, promised, event)
            account.ready = event.ts
            if account.status == "failed":  # a one-off; with new times it waits to be resumed
                account.status, account.decided = "parked", event.seq
            elif account.status == "active":
                account.decided = event.seq

    def _attempt(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        data = event.data
        key = slot_key(id_, data["slot"])
        yield from self._forbidden(id_, account, event, new=key not in self._open)
        if key not in self._open:
            if data.get("kind", "scheduled") != "scheduled" or data["attempt"] != 1:
                yield self._entry(id_, account, data, 1, "unexpected", "never begun", event.seq)
            else:
                more = account.exhausted
                if account.was_claimed(parse_utc(data["slot"])):
                    why = "claimed before"
                    yield self._entry(id_, account, data, 1, "doubled", why, event.seq)
                yield from self._step(id_, account, data["slot"], data["slot"], event)
                account.claim(parse_utc(data["slot"]))
                account.claims += 1
                account.promised = data.get("next_run")
                if more:
                    why = "max_repetitions"
                    yield self._entry(id_, account, data, 1, "unexpected", why, event.seq)
        elif self._open[key].worker is not None:
            yield self._entry(id_, account, data, 1, "doubled", "claimed twice", event.seq)
        problem = self._mistaken(id_, account, event)
        if problem is not None:
            yield self._entry(id_, account, data, 1, "unexpected", problem, event.seq)
        self._begin(id_, account, data["slot"], data.get("kind"), data["worker"], event)
        if account.fields["tier"] >= _APPROVED_TIER and data["slot"] not in account.paid:
            account.unpaid = dict(data), event.seq

    def _forbidden(
        self, id_: str, account: Account, event: Folded, *, new: bool
    ) -> Iterator[Entry]:
        """Why a claim may not have been made, whatever its text: each slot is charged once."""
        data = event.data
        scheduled = data.get("kind", "scheduled") == "scheduled"
        ended = {"cancelled"} if not scheduled else {"cancelled", "paused", "parked"}
        if account.status in ended or (new and scheduled and account.status != "active"):
            why = f"not active: {account.status}"
            yield self._entry(id_, account, data, 1, "unexpected", why, event.seq)
        if data["attempt"] != 1:
            return
        day = _day_of(event, account.spent[0])
        account.spent = day, 1 + (account.spent[1] if account.spent[0] == day else 0)
        budget = account.fields.get("daily_budget")
        if budget is not None and account.spent[1] > budget:
            yield self._entry(id_, account, data, 1, "unexpected", "over budget", event.seq)
        agent_id = account.fields["agent_id"]
        before, number = self._spent.get(agent_id, ("", 0))
        day = _day_of(event, before)
        self._spent[agent_id] = day, number + 1 if before == day else 1
        most = self.busiest.get(agent_id, (0, ""))
        self.busiest[agent_id] = max(most, (self._spent[agent_id][1], day))

    def _mistaken(self, id_: str, account: Account, event: Folded) -> str | None:
        """What is wrong with what was sent, or to whom, going by what the schedule then said."""
        data, fields = event.data, account.fields
        to = data.get("agent_id")
        if to is not None and (to, data.get("conversation_id")) != (
            fields["agent_id"],
            fields.get("conversation_id"),
        ):
            return "another recipient"
        text, enveloped = data.get("text"), bool(fields.get("envelope"))
        if text is not None and _hash(text) != data["text_sha256"]:
            return "another text"
        if enveloped:
            kind = data.get("kind", "scheduled")
            right = with_header(
                id_, fields, data["slot"], kind, parse_utc(event.ts), account.claims
            )
        else:
            right = fields["prompt"]
        if fields.get("template"):  # of the desires that it listed, this log says nothing
            return None if text is not None and text.startswith(right) else "another text"
        if _hash(right) == data["text_sha256"]:
            return None
        # What an older version sent while the clock was set back told a time that isn't recorded.
        untold = enveloped and to is None and not self._own
        return None if untold else "another text"

    def _settle(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        data = event.data
        outcome = _OUTCOMES_BY_TYPE[event.type]
        why = data.get("why") if outcome == "skipped" else data.get("code")
        slot = self._open.pop(slot_key(id_, data["slot"]), None)
        self._count(slot, -1)
        account.paid.discard(data["slot"])
        if slot is not None:
            self._free(id_, account, event, slot)
            if slot.kind == "trigger":
                self._settled.add(slot_key(id_, slot.slot))
            if data.get("parked"):
                account.status, account.decided = "parked", event.seq
            entry = self._entry(id_, account, data, 1, outcome, why, event.seq)
            yield entry._replace(agent_id=slot.agent_id, kind=slot.kind)
        elif outcome != "skipped" or data.get("kind") == "trigger":
            passed = parse_utc(data["slot"]) <= account.cursor
            again = passed or slot_key(id_, data["slot"]) in self._settled
            problem: Outcome = "doubled" if again else "unexpected"
            yield self._entry(id_, account, data, 1, problem, outcome, event.seq)
        else:
            first, last = parse_utc(data["slot"]), parse_utc(data["last"])
            yield from self._step(id_, account, data["slot"], data["last"], event)
            found = 1 + count_slots(account.trigger, first, last) if last >= first else 0
            account.skipped.append(Skip(first, last, found, why, event.seq))
            yield self._entry(id_, account, data, found, "skipped", why, event.seq)
            if found != data["slots"]:
                wrong = f"counted as {data['slots']}, and are {found}"
                yield self._entry(id_, account, data, found, "unexpected", wrong, event.seq)
            account.promised = data.get("next_run")

    def _step(
        self, id_: str, account: Account, first: str, last: str, event: Folded
    ) -> Iterator[Entry]:
        """Move on to slots that the log has decided or begun; what lies between was passed over."""
        start, end = parse_utc(first), parse_utc(last)
        if start <= account.cursor:
            yield self._range(id_, account, start, end, 1, "doubled", "decided before", event.seq)
        elif next_fire_time(account.trigger, account.cursor) == start:
            pass
        elif next_fire_time(account.trigger, start - _INSTANT) == start:
            yield from self._gap(id_, account, start - _INSTANT, event.seq)
        elif first != account.promised:
            # What the log has promised counts, also where newer time zone data wouldn't have it.
            why = "not a slot of the schedule"
            yield self._range(id_, account, start, end, 1, "unexpected", why, event.seq)
        account.cursor = account.high = max(account.cursor, end)

    def _promise(
        self, id_: str, account: Account, next_run: str | None, event: Folded
    ) -> Iterator[Entry]:
        """From here on the slots from ``next_run`` are to come, and none before it."""
        account.promised = next_run
        if next_run is None:
            return
        before = parse_utc(next_run) - _INSTANT
        if before > account.cursor:
            if not account.exhausted:
                yield from self._gap(id_, account, before, event.seq)
            account.cursor = before
        elif event.type == "schedule.registered" or not self._exact:
            # A clock that ran back, or a prompt that was brought over after it was due.
            account.cursor = max(before, account.high)

    def _reopen(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        """Where slots count again that a clock which was ahead had skipped, they aren't skipped any
        more: their entries are taken back, with ``slots`` below zero, and what is left of them is
        entered anew."""
        counts_from = event.data.get("counts_from")
        if counts_from is None:
            return
        since = parse_utc(counts_from)
        kept = []
        for skip in account.skipped:
            if skip.last <= since:
                kept.append(skip)
                continue
            yield self._skip(id_, account, skip._replace(slots=-skip.slots))
            if skip.first <= since:
                last = last_slot(account.trigger, skip.first, since) or skip.first
                left = 1 + count_slots(account.trigger, skip.first, last)
                kept.append(skip._replace(last=last, slots=left))
                yield self._skip(id_, account, kept[-1])
        account.skipped = kept
        account.cursor = account.high = since
        if account.spent[0] > counts_from[:10]:
            account.spent = "", 0
        agent_id = account.fields["agent_id"]
        if self._spent.get(agent_id, ("", 0))[0] > counts_from[:10]:
            del self._spent[agent_id]
        without = event.data.get("without") or None
        account.fields["without"] = without
        account.trigger = trigger_from_fields(account.fields)

    def _skip(self, id_: str, account: Account, skip: Skip) -> Entry:
        first, last, slots, why, seq = skip
        return self._range(id_, account, first, last, slots, "skipped", why, seq)

    def _close(self, id_: str, account: Account, event: Folded) -> Iterator[Entry]:
        """At a change, everything that was due by then must have been decided; unless the change
        says that where it was made, nobody could tell what that was."""
        if why := event.data.get("uncounted"):
            end = parse_utc(event.ts)
            if event.type == "schedule.paused" and "next_run" in event.data:
                end = min(end, parse_utc(event.data["next_run"]) - _INSTANT)
            with suppress(PromptyoselfError):  # nor can it be told here
                yield from self._gap(id_, account, end, event.seq, why)
        elif self._exact and account.status != "cancelled" and not account.exhausted:
            yield from self._gap(id_, account, parse_utc(event.ts), event.seq)

    def _gap(
        self, id_: str, account: Account, until: datetime, seq: int, parked: str | None = None
    ) -> Iterator[Entry]:
        first = next_fire_time(account.trigger, account.cursor)
        if first is not None and first <= until:
            last = last_slot(account.trigger, account.cursor, until) or first
            slots = 1 + count_slots(account.trigger, first, until)
            outcome: Outcome = "skipped" if parked else "unaccounted"
            why = parked or "passed over"
            yield self._range(id_, account, first, last, slots, outcome, why, seq)
            account.cursor = until

    def _begin(
        self,
        id_: str,
        account: Account,
        slot: str,
        kind: SlotKind | None,
        worker: str | None,
        event: Folded,
    ) -> None:
        key = slot_key(id_, slot)
        earlier = self._open.get(key)
        kind = kind or (earlier.kind if earlier else "scheduled")
        # Whoever asks for a slot may have waited for the lock: nobody could claim it before that.
        retry_at = max(event.data.get("retry_at", slot), event.ts)
        agent_id = account.fields["agent_id"]
        self._count(earlier, -1)
        self._open[key] = _Open(id_, agent_id, slot, kind, worker, retry_at, event.seq)
        self._count(self._open[key], 1)

    def _count(self, slot: _Open | None, change: int) -> None:
        if slot is not None and slot.worker is not None:
            self._claimed[slot.agent_id] += change
            self._flying += change

    def _free(self, id_: str, account: Account, event: Folded, slot: _Open | None = None) -> None:
        slot = slot or self._open.get(slot_key(id_, event.data["slot"]))
        if slot is not None:
            self._freed[slot.agent_id] = event.ts
        account.ready = max(account.ready, event.ts)

    # What is left at the end.

    def _remaining(
        self, id_: str, account: Account, now: datetime, living: Collection[str], begun: bool
    ) -> Iterator[Entry]:
        if account.status == "cancelled" or account.exhausted:
            return
        first = next_fire_time(account.trigger, account.cursor)
        if account.promised is not None:
            promised = parse_utc(account.promised)
            first = promised if first is None else min(promised, first)
        if first is None or first > now:
            return
        last = last_slot(account.trigger, first, now) or first

        def entry(start: datetime, end: datetime, outcome: Outcome, why: str) -> Entry:
            slots = 1 + count_slots(account.trigger, start, end)
            return self._range(id_, account, start, end, slots, outcome, why, account.decided)

        if account.status in ("paused", "parked"):
            yield entry(first, last, "skipped", account.status)
            return
        if account.status in ("completed", "failed"):
            yield entry(first, last, "unaccounted", "completed too early")
            return
        if begun:
            yield entry(first, last, "pending", "overlap")
            return
        due = format_utc(jittered(id_, first, account.fields.get("jitter")))
        if account.fields["misfire"] == "all" and format_utc(first) <= account.ready:
            paused = parse_utc(account.ready) + catch_up_pause(account.fields)
            due = max(due, format_utc(paused))
        agent_id = account.fields["agent_id"]
        ready = max(due, account.ready)
        outcome, why, proved = self._judge(id_, agent_id, ready, now, living)
        if outcome == "unaccounted":
            # What came due only after that pass may still be claimed.
            end = last_slot(account.trigger, first, min(proved, now)) or first
            yield entry(first, end, outcome, why)
            following = next_fire_time(account.trigger, end)
            if following is None or following > now:
                return
            first, outcome, why = following, "pending", "soon"
        yield entry(first, last, outcome, why)

    def _judge(
        self, id_: str, agent_id: str, ready: str, now: datetime, living: Collection[str]
    ) -> tuple[Outcome, PendingReason | Literal["forgotten"], datetime]:
        """What to say of something that could have been claimed since ``ready``, and wasn't; and
        up to when a loop has shown that it left it alone."""
        since = parse_utc(max(ready, self._freed.get(agent_id, "")))
        if self._claimed.get(agent_id):
            return "pending", "busy", since
        account = self._accounts.get(id_)
        if self._unreadable and account is not None and account.fields.get("template"):
            return "pending", "desires", since
        proved = self.presence.proof(since, now, living)
        if proved > since:
            return "unaccounted", "forgotten", proved
        return "pending", self.presence.excuse(living), since

    def _within(self, entry: Entry) -> Iterator[Entry]:
        """The entry, as far as it lies in the window."""
        if self._since <= entry.first and entry.last <= self._until:
            yield entry
        elif abs(entry.slots) > 1 and entry.first <= self._until and self._since <= entry.last:
            trigger = self._accounts[entry.id].trigger
            start: datetime | None = entry.first
            if entry.first < self._since:
                start = next_fire_time(trigger, self._since - _INSTANT)
            end = min(entry.last, self._until)
            if start is not None and start <= end:
                last = last_slot(trigger, start, end) or start
                slots = 1 + count_slots(trigger, start, end)
                slots = -slots if entry.slots < 0 else slots
                yield entry._replace(first=start, last=last, slots=slots)

    # Entries.

    def _entry(
        self,
        id_: str,
        account: Account,
        data: Mapping[str, Any],
        slots: int,
        outcome: Outcome,
        why: str | None,
        seq: int,
    ) -> Entry:
        first, last = parse_utc(data["slot"]), parse_utc(data.get("last", data["slot"]))
        entry = self._range(id_, account, first, last, slots, outcome, why, seq)
        return entry._replace(kind=data.get("kind", "scheduled"))

    @staticmethod
    def _range(
        id_: str,
        account: Account,
        first: datetime,
        last: datetime,
        slots: int,
        outcome: Outcome,
        why: str | None,
        seq: int,
    ) -> Entry:
        agent_id = account.fields["agent_id"]
        return Entry(id_, agent_id, "scheduled", first, last, slots, outcome, why, seq)


def _as_lost(entry: Entry) -> Entry:
    return entry._replace(outcome="lost", why=f"the log lost it ({entry.why})")


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def _day_of(event: Folded, spent_day: str) -> str:
    """The day (UTC) whose budgets a claim is charged to; by a clock that is behind the log, none
    before the last on which something was spent."""
    at = event.data.get("at")
    return event.ts[:10] if at is None else max(str(at)[:10], spent_day)
