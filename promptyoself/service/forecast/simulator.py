"""The events to which the schedules as they stand lead, on a clock that is turned by hand, if every
delivery succeeds. Nothing is sent or written.

What decides is what decides in earnest: the claim with its policy and triggers, the settling, and
the fold of the events that they make. But where a loop looks for all that is due, here a schedule
is looked at when its own time has come, by itself: of the others, no decision depends on more than
whether their agent is free, and on what it has spent. Of the limit of deliveries at once, it is
taken that it suffices.

Even so a year of a thousand schedules would take minutes. Nearly every slot is due on time, with
nothing of its schedule open; then only the policy and the trigger are asked, and what follows from
their answers is done directly. Some instants are decided in full all the same, throughout, for
their events are what the growth of the log is estimated from; and a test holds the one way against
the other, and both against a loop.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from promptyoself.core.cancellation import check
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Caps
from promptyoself.events.codec import type_of
from promptyoself.events.records import DeliveryAttempted, DeliverySkipped, Record
from promptyoself.ledger.linking import as_if
from promptyoself.rules.claim import Claim, RankDesires, claim, orphans
from promptyoself.rules.outcome import Delivered, outcome_events
from promptyoself.rules.policy import (
    APPROVED_TIER,
    ApprovalVerdict,
    approval_in_log,
    refusal_reason,
)
from promptyoself.rules.slots import MISFIRE_TOLERANCE, schedule_trigger
from promptyoself.rules.triggers import slots
from promptyoself.state.apply import fold
from promptyoself.state.schedules import (
    OpenSlot,
    Schedule,
    State,
    agent_table,
    schedule_table,
    summarize,
)

__all__ = ["EVERY", "FIRST", "Foreseen", "Future"]

FIRST, EVERY = 100, 256
"""So many instants are decided in full, and then one of so many."""

_WORKER = "wrk_9d3f6c1a5b7e2048"  # a name like any other
_INSTANT = timedelta(microseconds=1)
_END = datetime.max.replace(tzinfo=UTC)


class Foreseen(NamedTuple):
    """An event to be appended at ``at``, in append number ``append`` (from 0) of that instant: its
    ``type``, and the ``slots`` slots from ``slot`` on that it begins, or skips because of ``why``.
    ``record`` is the event itself, where it was made."""

    at: str
    append: int
    agent_id: str
    id: str
    type: str
    slot: str = ""
    slots: int = 1
    why: str = ""
    record: Record | None = None


class Future:
    """The events to which the schedules of a state lead from ``now`` on."""

    def __init__(
        self,
        state: State,
        caps: Caps,
        now: datetime,
        *,
        agent_id: str | None = None,
        latency: timedelta = timedelta(0),
        strongest: RankDesires | None = None,
        first: int = FIRST,
        every: int = EVERY,
        judge: Callable[[str, Schedule], ApprovalVerdict] = lambda at, schedule: approval_in_log(
            schedule, at
        ),
    ) -> None:
        """``agent_id`` leaves out all other agents; each delivery takes ``latency``; ``strongest``
        tells the desires that idle prompts list, which fade and else stay as they are. After the
        ``first`` instants, only one of ``every`` is decided in full throughout. ``judge`` tells, at
        an instant, whether a schedule has an approval; nobody can tell who will yet give one."""
        self.broken: dict[str, str] = {}
        """The schedules about which nothing could be decided, and why."""
        self.most_due = (format_utc(now), 0)
        """The instant at which the most slots became due, and how many."""
        self.weight = 1
        """For how many instants the latest stands, if it was one decided in full; else 0."""
        self._caps, self._latency, self._first, self._every = caps, latency, first, every
        self._strongest = strongest
        self._judge = judge
        self._instants = 0
        self._schedules: dict[str, Schedule] = {}
        self._open: dict[str, dict[str, OpenSlot]] = {}  # by schedule
        self._state = State(schedule_table(), {}, agent_table(), state.statuses, {})  # the agents
        self._busy: set[str] = set()  # agents with a delivery under way
        self._ends: list[tuple[str, int, str, Claim | None]] = []  # when, a number, whose
        self._number = 0
        # When to look at what: the instant, that by which it has its turn, and what it is.
        self._ahead: list[tuple[str, str, str, str]] = []
        self._due: dict[str, list[tuple[str, str, str]]] = {}  # by agent, what has its turn when
        self._again: list[tuple[str, str, str]] = []  # what has its turn in the next round
        self._expected: dict[str, str] = {}  # each schedule's slot in one of these three
        self._fires: dict[str, tuple[str, Iterator[datetime]]] = {}  # what follows on a slot
        self._take_in(state, now, agent_id)

    def until(self, end: datetime) -> Iterator[Foreseen]:
        """Every event up to ``end``, oldest first. It can be asked for once."""
        last = format_utc(end)
        while self._ahead or self._ends:
            at = self._ahead[0][0] if self._ahead else self._ends[0][0]
            if self._ends and self._ends[0][0] < at:
                at = self._ends[0][0]
            if at > last:
                return
            check()
            self._instants += 1
            self.weight = 1
            if self._instants > self._first:
                self.weight = 0 if self._instants % self._every else self._every
            yield from self._pass(at)

    def _take_in(self, state: State, now: datetime, agent_id: str | None) -> None:
        start, workers = format_utc(now), set()
        for schedule in state.schedules.values():
            if agent_id is None or schedule.agent_id == agent_id:
                self._schedules[schedule.id] = schedule
                self._state.agents[schedule.agent_id] = state.agent(schedule.agent_id)
                self._expect(schedule, "", start)
        for key, slot in state.open.items():
            if slot.id not in self._schedules:
                continue
            self._open.setdefault(slot.id, {})[key] = slot
            if slot.worker is not None:
                workers.add(slot.worker)
            elif slot.retry_at is not None:
                ready = max(slot.retry_at, start)
                heapq.heappush(self._ahead, (ready, slot.retry_at, slot.id, key))
        for made in orphans(state, workers, now):  # as if they were sent only now
            if made.id in self._schedules:
                self._begin(made.agent_id, made.id, made, start)

    def _expect(self, schedule: Schedule, at: str, not_before: str = "") -> None:
        """See to it that a schedule is looked at when its next slot may begin."""
        ready, slot = summarize(schedule).ready, schedule.next_run
        if ready is None or slot is None or self._expected.get(schedule.id) == slot:
            return
        self._expected[schedule.id] = slot
        if ready <= at:
            self._again.append((slot, schedule.id, ""))
        else:
            heapq.heappush(self._ahead, (max(ready, not_before), slot, schedule.id, ""))

    def _pass(self, at: str) -> list[Foreseen]:
        """All that happens at one instant: first what ends, then what begins."""
        happened: list[Foreseen] = []
        agents: dict[str, None] = {}
        while self._ends and self._ends[0][0] == at:
            _, _, id_, made = heapq.heappop(self._ends)
            agent_id = self._schedules[id_].agent_id if made is None else made.agent_id
            self._busy.discard(agent_id)
            agents[agent_id] = agents[self._schedules[id_].agent_id] = None
            self._end(id_, made, at, 0, happened)
        count = 0
        while self._ahead and self._ahead[0][0] == at:
            _, turn, id_, key = heapq.heappop(self._ahead)
            agent_id = self._schedules[id_].agent_id
            heapq.heappush(self._due.setdefault(agent_id, []), (turn, id_, key))
            agents[agent_id] = None
            count += 1
        if count > self.most_due[1]:
            self.most_due = at, count
        for agent_id in agents:
            self._serve(agent_id, at, happened)
        return happened

    def _serve(self, agent_id: str, at: str, happened: list[Foreseen]) -> None:
        """Claim one slot of an agent after the other, until it is busy or nothing is due. As in a
        loop, each schedule has one turn in a round, which ends with a claim."""
        queue, append = self._due.setdefault(agent_id, []), 0
        while True:
            for entry in self._again:
                due = self._due.setdefault(self._schedules[entry[1]].agent_id, [])
                heapq.heappush(due, entry)
            self._again.clear()
            claimed = False
            while queue and not claimed and agent_id not in self._busy:
                claimed = self._take_turn(agent_id, *heapq.heappop(queue), at, append, happened)
            append += claimed
            if not (queue or self._again) or agent_id in self._busy:
                return

    def _take_turn(
        self,
        agent_id: str,
        turn: str,
        id_: str,
        key: str,
        at: str,
        append: int,
        happened: list[Foreseen],
    ) -> bool:
        """Decide about one schedule, or one open slot; whether it is claimed."""
        if not key and self._expected.get(id_) == turn:
            del self._expected[id_]
        following = None if key or self.weight else self._follows_plainly(id_, turn, at)
        if following is not None:
            return self._claim_plainly(id_, following, at, append, happened)
        state = self._alone(id_)
        now, approvals = parse_utc(at), partial(self._judge, at)
        decision = claim(
            state,
            now,
            _WORKER,
            self._caps,
            seats=1,
            rank_desires=self._strongest,
            approvals=approvals,
        )
        self.broken |= decision.broken
        if not decision.records:
            # It waits for what is open of it, or for its time; or nothing can be decided.
            if (summarize(self._schedules[id_]).ready or at) > at:
                self._expect(self._schedules[id_], at)
            return False
        records = [record for record, _ in decision.records]
        self._happen(state, id_, records, at, append, happened)
        for made in decision.claims:
            if self._latency:
                self._begin(agent_id, id_, made, at)
            else:
                self._end(id_, made, at, append + 1, happened)
        self._expect(self._schedules[id_], at)
        return bool(decision.claims)

    def _begin(self, agent_id: str, id_: str, made: Claim | None, at: str) -> None:
        self._busy.add(agent_id)
        self._number += 1
        end = format_utc(parse_utc(at) + self._latency)
        heapq.heappush(self._ends, (end, self._number, id_, made))

    def _end(
        self, id_: str, made: Claim | None, at: str, append: int, happened: list[Foreseen]
    ) -> None:
        """A delivery has succeeded."""
        if made is None:
            schedule = self._schedules[id_]
            self._schedules[id_] = schedule._replace(last_run=at, settled_at=at)
            event = Foreseen(at, append, schedule.agent_id, id_, "delivery.delivered")
            happened.append(event)
            return
        run_id = f"run-{sha256(made.otid.encode()).hexdigest()[:36]}"
        state = self._alone(id_)
        records, _ = outcome_events(state, made, _WORKER, Delivered("run", run_id), parse_utc(at))
        self._happen(state, id_, records, at, append, happened)
        self._expect(self._schedules[id_], at)

    # In full: by the functions that decide in earnest.

    def _alone(self, id_: str) -> State:
        """The state as if there were only this schedule and its agent."""
        schedule = self._schedules[id_]
        agents = agent_table({schedule.agent_id: self._state.agent(schedule.agent_id)})
        open_ = self._open.get(id_) or {}
        return State(schedule_table([schedule]), open_, agents, self._state.statuses, {})

    def _happen(
        self,
        state: State,
        id_: str,
        records: Sequence[Record],
        at: str,
        append: int,
        happened: list[Foreseen],
    ) -> None:
        """Take in what was decided on the state of one schedule."""
        agent_id = self._schedules[id_].agent_id
        after = fold(state, (as_if(record, id_, at) for record in records))
        self._schedules[id_] = after.schedules[id_]
        self._state.agents[agent_id] = after.agent(agent_id)
        self._state = self._state._replace(statuses=after.statuses)
        self._open[id_] = after.open
        for record in records:
            event = Foreseen(at, append, agent_id, id_, type_of(record), record=record)
            if isinstance(record, DeliverySkipped):
                event = event._replace(slot=record.slot, slots=record.slots, why=record.why)
            elif isinstance(record, DeliveryAttempted):
                event = event._replace(slot=record.slot)
            happened.append(event)

    # Plainly: a slot that is due on time, alone, with others to come, and nothing of its schedule
    # open, is claimed unless the policy says no; it is as simple as that for nearly all of them.

    def _follows_plainly(self, id_: str, slot: str, at: str) -> str | None:
        """The slot after this one, where this one is such; else ``None``."""
        schedule = self._schedules[id_]
        if schedule.next_run != slot or schedule.max_repetitions or self._open.get(id_):
            return None
        if schedule.template is not None:
            return None
        if slot != at:
            now, ready = parse_utc(at), parse_utc(summarize(schedule).ready or at)
            if ready > now:
                return None  # it makes up for what was missed, after a pause
            if now - parse_utc(slot) > timedelta(seconds=schedule.grace):
                return None
            if now - ready > MISFIRE_TOLERANCE:
                return None
        if schedule.tier >= APPROVED_TIER and self._judge(at, schedule).grant is not None:
            return None
        day, agent = at[:10], self._state.agent(schedule.agent_id)
        if agent.spent_day > day or (schedule.spent_day or "") > day:
            return None  # the clock was set back
        reached, fires = self._fires.get(id_, ("", None))
        try:
            if fires is None or reached != slot:
                fires = slots(schedule_trigger(schedule), parse_utc(slot) - _INSTANT, _END)
                if next(fires, None) != parse_utc(slot):
                    return None
            following = next(fires, None)
        except PromptyoselfError:
            return None  # in full, it will be told
        text = "" if following is None else format_utc(following)
        if text <= at:
            return None
        self._fires[id_] = text, fires
        return text

    def _claim_plainly(
        self, id_: str, following: str, at: str, append: int, happened: list[Foreseen]
    ) -> bool:
        """What :func:`claim`, :func:`settle` and the fold would make of it; whether it fires."""
        schedule, day = self._schedules[id_], at[:10]
        agent_id, slot = schedule.agent_id, schedule.next_run or ""
        self._expected[id_] = following
        ready = following
        if schedule.jitter:
            ready = summarize(schedule._replace(next_run=following)).ready or following
        heapq.heappush(self._ahead, (ready, following, id_, ""))
        why = refusal_reason(schedule, self._state, self._caps, day)
        if why is not None:
            self._schedules[id_] = schedule._replace(last_slot=slot, next_run=following)
            happened.append(Foreseen(at, append, agent_id, id_, "delivery.skipped", slot, 1, why))
            return False
        agent = self._state.agent(agent_id)
        self._state.agents[agent_id] = agent._replace(
            spent_day=day, spent=agent.spent + 1 if agent.spent_day == day else 1
        )
        if schedule.failures or schedule.last_error:
            schedule = schedule._replace(failures=0, last_error=None)
        self._schedules[id_] = schedule._replace(
            last_slot=slot,
            next_run=following,
            repetition_count=schedule.repetition_count + 1,
            spent_day=day,
            spent=schedule.spent + 1 if schedule.spent_day == day else 1,
            last_run=at,
            settled_at=at,
        )
        happened.append(Foreseen(at, append, agent_id, id_, "delivery.attempted", slot))
        if self._latency:
            self._begin(agent_id, id_, None, at)
        else:
            happened.append(Foreseen(at, append + 1, agent_id, id_, "delivery.delivered"))
        return True
