"""The events that follow from a state, on a clock that is turned by hand.

Every delivery succeeds but those whose prompt can't be filled in. Nothing is sent or written. The
limit of deliveries at once is never reached.

The claim, the outcome and the fold decide, as they do in a loop. But a loop looks at everything
that is due in one pass. The simulator looks at one schedule at a time, when that schedule's time
has come. That is the same, since a decision depends on no other schedule but in two ways: whether
their agent is free, and how much the agent has spent.

Most slots go the short way of :class:`~promptyoself.service.forecast.plain_slots.PlainSlots`. Some
instants go the whole way throughout, since their events are the sample from which the growth of
the log is estimated.
"""

import heapq
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.long_work import check
from promptyoself.core.settings import Caps
from promptyoself.events.codec import type_of
from promptyoself.events.records import DeliveryAttempted, DeliverySkipped, Record
from promptyoself.events.target_names import EVERY_LOOP
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.claim import Claim, RankDesires, claim, orphans
from promptyoself.rules.outcome import (
    Delivered,
    Failed,
    Outcome,
    outcome_events,
)
from promptyoself.rules.policy import ApprovalVerdict, approval_in_log, refusal_reason
from promptyoself.service.forecast.plain_slots import PlainSlots, after_claim
from promptyoself.state.apply import fold
from promptyoself.state.schedules import (
    EMPTY,
    OpenSlot,
    Schedule,
    State,
    agent_table,
    schedule_table,
    summarize,
)

SAMPLE_FIRST = 100
"""The first instants of a simulation that are all in the sample."""

SAMPLE_EVERY = 256
"""After these, one instant of this number is in the sample."""


class SimulatedEvent(NamedTuple):
    """An event that would be appended."""

    at: str  # when
    append: int  # the number of the append at that instant, from 0
    agent_id: str
    id: str  # the schedule's
    type: str
    slot: str = ""  # the first slot that it begins or skips
    slots: int = 1  # how many slots it begins or skips
    why: str = ""  # why it skips them
    record: Record | None = None  # the event itself, unless the slot went the short way


class Simulator:
    """Turns the clock, and tells the events to which a state leads from ``now`` on."""

    def __init__(
        self,
        state: State,
        caps: Caps,
        now: datetime,
        *,
        agent_id: str | None = None,
        latency: timedelta = timedelta(0),
        rank_desires: RankDesires | None = None,
        sample_first: int = SAMPLE_FIRST,
        sample_every: int = SAMPLE_EVERY,
        judge: Callable[[str, Schedule], ApprovalVerdict] = lambda at, schedule: approval_in_log(
            schedule, at
        ),
    ) -> None:
        """``agent_id`` leaves out all other agents. Each delivery takes ``latency``.

        ``rank_desires`` tells the desires that idle prompts list. They fade, and else stay as they
        are. ``judge`` tells whether a schedule has an approval at an instant; approvals that are
        not given yet are not foreseen.
        """
        self.broken: dict[str, str] = {}
        """The problem of each schedule about which nothing could be decided, by its id."""
        self.most_due = (format_utc(now), 0)
        """The instant at which the most slots became due, and their number."""
        self.weight = 1
        """For how many instants the current one stands in the sample; 0 if it isn't in it."""
        self._caps, self._latency, self._rank_desires = caps, latency, rank_desires
        self._sample_first, self._sample_every = sample_first, sample_every
        self._judge = judge
        self._plain_slots = PlainSlots(judge)
        self._instants = 0  # that have been simulated
        self._at = ""  # the current instant
        self._events: list[SimulatedEvent] = []  # of the current instant
        self._schedules: dict[str, Schedule] = {}
        self._open: dict[str, dict[str, OpenSlot]] = {}  # the open slots, by the schedule's id
        self._state = EMPTY._replace(agents=agent_table(), statuses=state.statuses)  # the agents
        self._busy: set[str] = set()  # the agents with a delivery under way
        # The deliveries under way: end, number, schedule's id, and the claim unless it was plain.
        self._deliveries: list[tuple[str, int, str, Claim | None]] = []
        self._number = 0  # of the latest delivery
        # What has a turn later: instant, slot, schedule's id, and the key if a slot is open.
        self._ahead: list[tuple[str, str, str, str]] = []
        # What has its turn now, by the agent's id: slot, schedule's id, and the key as above.
        self._due: dict[str, list[tuple[str, str, str]]] = {}
        self._next_round: list[tuple[str, str, str]] = []  # what becomes due after the next claim
        self._waiting: dict[str, str] = {}  # each schedule's slot in one of these three, by id
        self._load(state, now, agent_id)

    def until(self, end: datetime) -> Iterator[SimulatedEvent]:
        """Every event up to ``end``, the oldest first. This can be called once."""
        last = format_utc(end)
        while self._ahead or self._deliveries:
            at = min(heap[0][0] for heap in (self._ahead, self._deliveries) if heap)
            if at > last:
                return
            check()
            self._instants += 1
            self.weight = 1
            if self._instants > self._sample_first:
                self.weight = 0 if self._instants % self._sample_every else self._sample_every
            yield from self._simulate_instant(at)

    def _load(self, state: State, now: datetime, agent_id: str | None) -> None:
        self._at, workers = format_utc(now), set()
        for schedule in state.schedules.values():
            if agent_id is None or schedule.agent_id == agent_id:
                self._schedules[schedule.id] = schedule
                self._state.agents[schedule.agent_id] = state.agent(schedule.agent_id)
                self._wait_for_next_slot(schedule, begins=True)
        for key, slot in state.open.items():
            if slot.id not in self._schedules:
                continue
            self._open.setdefault(slot.id, {})[key] = slot
            if slot.worker is not None:
                workers.add(slot.worker)
            elif slot.retry_at is not None:
                ready = max(slot.retry_at, self._at)
                heapq.heappush(self._ahead, (ready, slot.retry_at, slot.id, key))
        for orphan in orphans(state, workers, now):  # as if they were sent only now
            if orphan.id in self._schedules:
                self._start_delivery(orphan.agent_id, orphan.id, orphan)

    def _wait_for_next_slot(self, schedule: Schedule, *, begins: bool = False) -> None:
        """Give a schedule its turn when its next slot may begin, unless it waits for it already.
        When the simulation ``begins``, the turn of an overdue slot is at the first instant."""
        ready, slot = summarize(schedule).ready, schedule.next_run
        if ready is None or slot is None or self._waiting.get(schedule.id) == slot:
            return
        self._waiting[schedule.id] = slot
        if begins:
            heapq.heappush(self._ahead, (max(ready, self._at), slot, schedule.id, ""))
        elif ready <= self._at:
            self._next_round.append((slot, schedule.id, ""))
        else:
            heapq.heappush(self._ahead, (ready, slot, schedule.id, ""))

    def _simulate_instant(self, at: str) -> list[SimulatedEvent]:
        """All that happens at one instant: first deliveries end, then others begin."""
        self._at, self._events = at, []
        agents: dict[str, None] = {}  # that may be served now, in order
        while self._deliveries and self._deliveries[0][0] == at:
            _, _, id_, claimed = heapq.heappop(self._deliveries)
            agent_id = self._schedules[id_].agent_id if claimed is None else claimed.agent_id
            self._busy.discard(agent_id)
            agents[agent_id] = agents[self._schedules[id_].agent_id] = None
            self._end_delivery(id_, claimed, 0)
        became_due = 0
        while self._ahead and self._ahead[0][0] == at:
            _, slot, id_, key = heapq.heappop(self._ahead)
            agent_id = self._schedules[id_].agent_id
            heapq.heappush(self._due.setdefault(agent_id, []), (slot, id_, key))
            agents[agent_id] = None
            became_due += 1
        if became_due > self.most_due[1]:
            self.most_due = at, became_due
        for agent_id in agents:
            self._serve(agent_id)
        return self._events

    def _serve(self, agent_id: str) -> None:
        """Claim one slot of an agent after the other, until it is busy or nothing is due. As in a
        loop, each schedule has one turn in a round, and a claim ends the round."""
        queue, append = self._due.setdefault(agent_id, []), 0
        while True:
            for turn in self._next_round:
                due = self._due.setdefault(self._schedules[turn[1]].agent_id, [])
                heapq.heappush(due, turn)
            self._next_round.clear()
            claimed = False
            while queue and not claimed and agent_id not in self._busy:
                claimed = self._decide(agent_id, *heapq.heappop(queue), append)
            append += claimed
            if not (queue or self._next_round) or agent_id in self._busy:
                return

    def _decide(self, agent_id: str, slot: str, id_: str, key: str, append: int) -> bool:
        """Decide about a schedule, or about its open slot with that key. True if it is claimed."""
        if not key and self._waiting.get(id_) == slot:
            del self._waiting[id_]
        schedule = self._schedules[id_]
        if not (key or self.weight or self._open.get(id_)):
            agent = self._state.agent(schedule.agent_id)
            following = self._plain_slots.next_slot(schedule, agent, slot, self._at)
            if following is not None:
                return self._decide_plainly(schedule, slot, following, append)
        state = self._state_of(id_)
        decision = claim(
            state,
            parse_utc(self._at),
            EVERY_LOOP,
            self._caps,
            seats=1,
            rank_desires=self._rank_desires,
            approvals=partial(self._judge, self._at),
        )
        self.broken |= decision.broken
        if not decision.records:
            # It waits for its open slot or for its time, or nothing can be decided about it.
            if (summarize(schedule).ready or self._at) > self._at:
                self._wait_for_next_slot(schedule)
            return False
        self._apply(state, id_, [record for record, _ in decision.records], append)
        for claimed in decision.claims:
            if self._latency:
                self._start_delivery(agent_id, id_, claimed)
            else:
                self._end_delivery(id_, claimed, append + 1)
        self._wait_for_next_slot(self._schedules[id_])
        return bool(decision.claims)

    def _decide_plainly(self, schedule: Schedule, slot: str, following: str, append: int) -> bool:
        """Decide about a slot that goes the short way. True if it is claimed."""
        id_, agent_id, at = schedule.id, schedule.agent_id, self._at
        self._waiting[id_] = following
        ready = following
        if schedule.jitter:
            ready = summarize(schedule._replace(next_run=following)).ready or following
        heapq.heappush(self._ahead, (ready, following, id_, ""))
        why = refusal_reason(schedule, self._state, self._caps, at[:10])
        if why is not None:
            self._schedules[id_] = schedule._replace(last_slot=slot, next_run=following)
            skipped = SimulatedEvent(at, append, agent_id, id_, "delivery.skipped", slot, 1, why)
            self._events.append(skipped)
            return False
        agent = self._state.agent(agent_id)
        self._schedules[id_], self._state.agents[agent_id] = after_claim(
            schedule, agent, slot, following, at
        )
        self._events.append(SimulatedEvent(at, append, agent_id, id_, "delivery.attempted", slot))
        if self._latency:
            self._start_delivery(agent_id, id_, None)
        else:
            self._end_delivery(id_, None, append + 1)
        return True

    def _start_delivery(self, agent_id: str, id_: str, claimed: Claim | None) -> None:
        self._busy.add(agent_id)
        self._number += 1
        end = format_utc(parse_utc(self._at) + self._latency)
        heapq.heappush(self._deliveries, (end, self._number, id_, claimed))

    def _end_delivery(self, id_: str, claimed: Claim | None, append: int) -> None:
        """A delivery has succeeded, or had no text to send. ``claimed`` is ``None`` if its slot
        went the short way."""
        at = self._at
        if claimed is None:
            schedule = self._schedules[id_]
            if self._latency:
                self._schedules[id_] = schedule._replace(last_run=at, settled_at=at)
            self._events.append(
                SimulatedEvent(at, append, schedule.agent_id, id_, "delivery.delivered")
            )
            return
        outcome: Outcome = Delivered("run", f"run-{sha256(claimed.otid.encode()).hexdigest()[:36]}")
        if claimed.fault is not None:
            outcome = Failed("template_failed", claimed.fault, permanent=True)
        state = self._state_of(id_)
        records, _ = outcome_events(state, claimed, EVERY_LOOP, outcome, parse_utc(at))
        self._apply(state, id_, records, append)
        self._wait_for_next_slot(self._schedules[id_])

    def _state_of(self, id_: str) -> State:
        """The state as if there were only this schedule and its agent."""
        schedule = self._schedules[id_]
        agents = agent_table({schedule.agent_id: self._state.agent(schedule.agent_id)})
        open_ = self._open.get(id_) or {}
        return self._state._replace(schedules=schedule_table([schedule]), open=open_, agents=agents)

    def _apply(self, state: State, id_: str, records: Sequence[Record], append: int) -> None:
        """Fold events that were decided on the state of one schedule, and tell of them."""
        agent_id = self._schedules[id_].agent_id
        after = fold(state, (provisional_event(record, id_, self._at) for record in records))
        self._schedules[id_] = after.schedules[id_]
        self._state.agents[agent_id] = after.agent(agent_id)
        self._state = self._state._replace(statuses=after.statuses)
        self._open[id_] = after.open
        for record in records:
            event = SimulatedEvent(self._at, append, agent_id, id_, type_of(record), record=record)
            if isinstance(record, DeliverySkipped):
                event = event._replace(slot=record.slot, slots=record.slots, why=record.why)
            elif isinstance(record, DeliveryAttempted):
                event = event._replace(slot=record.slot)
            self._events.append(event)
