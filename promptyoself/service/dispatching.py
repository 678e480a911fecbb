"""Many deliveries at once: claims and outcomes in groups, one thread per call under way.

One thread, the caller's, decides and writes the log; a few others do nothing but talk to Letta.
A delivery that waits (for its agent, for its run, in doubt) holds no thread, and after a while not
even a seat, so that no number of stuck agents can keep the others from their prompts.
"""

from __future__ import annotations

import heapq
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from promptyoself import __version__
from promptyoself.events import (
    VERSIONS,
    Record,
    WorkerStarted,
    WorkerStopped,
    type_of,
    write_record,
)
from promptyoself.instants import format_utc
from promptyoself.ledger import Draft, Envelope
from promptyoself.letta import Deliverer
from promptyoself.schedules import State, fold, slot_key
from promptyoself.service.claiming import (
    Abandoned,
    Claim,
    Delivered,
    Failed,
    Outcome,
    claim,
    orphans,
    settle,
)
from promptyoself.service.delivering import Delivery, Waits
from promptyoself.service.store import Store
from promptyoself.slots import next_wake

__all__ = ["Dispatcher", "Report", "new_worker_name"]

_LOOK_FOR_DEAD_EVERY = 5.0
_FIRST_HOLD, _LONGEST_HOLD = 5.0, 60.0
_SERVER_TROUBLE = frozenset({"letta_unreachable", "letta_unauthorized"})


class Report(NamedTuple):
    """What a pass did: a line per slot that was settled or tried, and per range skipped."""

    executed: list[dict[str, Any]]
    skipped: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.executed or self.skipped)


class Dispatcher:
    """The deliveries of one worker. Only one thread may call its methods."""

    def __init__(
        self,
        store: Store,
        letta: Deliverer,
        clock: Callable[[], datetime],
        *,
        worker: str,
        mode: str,
        concurrency: int,
    ) -> None:
        """``worker`` must be alive (see :class:`~promptyoself.ledger.Liveness`) for as long as this
        object is used; ``mode`` is ``loop`` or ``once``."""
        self._store = store
        self._letta = letta
        self._clock = clock
        self._worker = worker
        self._mode = mode
        self._concurrency = concurrency
        self._live: dict[str, tuple[Delivery, Waits]] = {}
        self._outcomes: list[tuple[Claim, Outcome]] = []
        self._timers: list[tuple[float, int, str]] = []
        self._stepping: set[str] = set()
        self._numbers = count()
        self._todo: SimpleQueue[tuple[str, Waits]] = SimpleQueue()
        self._done: SimpleQueue[tuple[str, float | Outcome | _Broken]] = SimpleQueue()
        self._threads = 0
        self._looked_for_dead = float("-inf")
        self._hold_until = float("-inf")
        self._hold = 0.0
        self._announced = False

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._live and not self._outcomes

    @property
    def trouble(self) -> bool:
        """Whether Letta refused us, or could not be reached, when last asked."""
        return self._hold > 0

    def announce(self, now: datetime) -> None:
        """Record that this worker is up. The first pass that does anything would do it too."""
        self._store.transact(now, lambda _: (self._announcement(), None))
        self._announced = True

    def tick(self, now: datetime, until: datetime | None = None) -> Report:
        """One pass, without waiting: take in what has finished, adopt what the dead have left,
        write down outcomes and claims in one append, and start what was claimed.

        ``until`` leaves alone what became due only after it.

        Raises:
            PromptyoselfError, OSError: the log could not be written; outcomes are kept for the
                next pass, and nothing was claimed.
        """
        self._collect()
        state = self._store.index.load().state
        self._adopt(state, now)
        seats = self._seats()
        if not self._outcomes and not (seats and claim(*self._asking(state, now, seats, until))[0]):
            return Report([], [])
        outcomes = self._outcomes[:]

        def decide(state: State) -> tuple[list[Draft], tuple[Report, list[Claim]]]:
            drafts, lines, after = self._settle(state, outcomes, now)
            decision = claim(*self._asking(after, now, seats, until))
            drafts += [self._store.draft(record, id_) for record, id_ in decision.records]
            if drafts:
                drafts = [*self._announcement(), *drafts]
            return drafts, (Report(lines, decision.skipped), decision.claims)

        report, claims = self._store.transact(now, decide)
        self._announced = True
        del self._outcomes[: len(outcomes)]
        for made in claims:
            self._start(made)
        return report

    def wait(self, seconds: float) -> bool:
        """Sleep until a delivery has something to say, at most so long; whether one has."""
        if self._timers:
            seconds = min(seconds, self._timers[0][0] - time.monotonic())
        try:
            key, result = self._done.get(timeout=max(seconds, 0.0))
        except Empty:
            self._fire_timers()
            return False
        self._take(key, result)
        return True

    def next_wake(self, now: datetime) -> datetime | None:
        """When to make the next pass, as far as the clock decides: something becomes due, a hold
        ends, or it is time to see whether another worker has died over its claims."""
        state = self._store.index.load().state
        wakes = [next_wake(state, now)]
        if (hold := self._hold_until - time.monotonic()) > 0:
            wakes.append(now + timedelta(seconds=hold))
        if any(slot.worker not in (None, self._worker) for slot in state.open.values()):
            wakes.append(now + timedelta(seconds=_LOOK_FOR_DEAD_EVERY))
        return min((wake for wake in wakes if wake is not None), default=None)

    def stop(self, why: str, patience: float) -> Report:
        """Claim no more; give what has been sent ``patience`` seconds to end, hand back what
        hasn't, and record it all. What then has no outcome is left in doubt, for the next worker.

        Raises:
            PromptyoselfError, OSError: the log could not be written.
        """
        deadline = time.monotonic() + patience
        while True:
            self._collect()
            for key in [key for key in self._live if key not in self._stepping]:
                delivery, steps = self._live[key]
                if not delivery.may_have_arrived:
                    steps.close()
                    error = "The worker was stopped before it was sent."
                    self._finish(key, Abandoned("worker_stopped", error, at_once=True))
            left = deadline - time.monotonic()
            if not self._live or left <= 0:
                break
            self.wait(min(left, 0.2))
        now, outcomes = self._clock(), self._outcomes[:]

        def decide(state: State) -> tuple[list[Draft], Report]:
            drafts, lines, _ = self._settle(state, outcomes, now)
            if self._announced or drafts:
                in_flight = [
                    {"id": d.claim.id, "slot": d.claim.slot, "run_id": d.run_id}
                    for d, _ in self._live.values()
                    if d.run_id is not None
                ]
                stopped = WorkerStopped(self._worker, why, in_flight or None)
                drafts = [*self._announcement(), *drafts, self._store.draft(stopped, None)]
            return drafts, Report(lines, [])

        report = self._store.transact(now, decide)
        lines = [
            _line(
                state=self._store.index.load().state, made=d.claim, outcome=None, became="in_doubt"
            )
            for d, _ in self._live.values()
        ]
        return Report(report.executed + lines, [])

    # Deciding.

    def _asking(
        self, state: State, now: datetime, seats: int, until: datetime | None
    ) -> tuple[State, datetime, str, Any, int, datetime | None]:
        return state, now, self._worker, self._store.settings.caps, seats, until

    def _seats(self) -> int:
        if time.monotonic() < self._hold_until:
            return 0
        taken = sum(1 for delivery, _ in self._live.values() if not delivery.slow)
        free = max(self._concurrency - taken, 0)
        return min(free, 1) if self.trouble else free  # a single try tells whether it is over

    def _settle(
        self, state: State, outcomes: Sequence[tuple[Claim, Outcome]], now: datetime
    ) -> tuple[list[Draft], list[dict[str, Any]], State]:
        """The events for some outcomes, a line each for people, and the state after them."""
        drafts: list[Draft] = []
        lines: list[dict[str, Any]] = []
        for made, outcome in outcomes:
            records, became = settle(state, made, self._worker, outcome, now)
            drafts += [self._store.draft(record, made.id) for record in records]
            state = fold(state, [_as_if(record, made.id, now) for record in records])
            if became != "settled":
                lines.append(_line(state, made, outcome, became))
        return drafts, lines, state

    def _announcement(self) -> list[Draft]:
        if self._announced:
            return []
        record = WorkerStarted(
            self._worker,
            os.getpid(),
            socket.gethostname(),
            f"promptyoself {__version__}",
            self._mode,
            self._concurrency,
        )
        return [self._store.draft(record, None)]

    def _adopt(self, state: State, now: datetime) -> None:
        if time.monotonic() - self._looked_for_dead < _LOOK_FOR_DEAD_EVERY:
            return
        self._looked_for_dead = time.monotonic()
        others = {slot.worker for slot in state.open.values() if slot.worker} - {self._worker}
        dead = {worker for worker in others if not self._store.workers.is_alive(worker)}
        if not dead:
            return
        # Asked again after the locks: a worker may have settled its last slot, and only then ended.
        for orphan in orphans(self._store.index.load().state, dead, now):
            if _key(orphan) not in self._live:
                self._start(orphan)

    # Moving deliveries along.

    def _start(self, made: Claim) -> None:
        self._step(self._enter(made))

    def _enter(self, made: Claim) -> str:
        settings = self._store.settings
        delivery = Delivery(
            made,
            self._letta,
            self._clock,
            reconcile_grace=settings.reconcile_grace,
            call_timeout=settings.call_timeout,
        )
        key = _key(made)
        self._live[key] = (delivery, delivery.steps())
        return key

    def _step(self, key: str) -> None:
        self._stepping.add(key)
        self._todo.put((key, self._live[key][1]))
        if self._threads < min(len(self._stepping), self._concurrency):
            self._threads += 1
            threading.Thread(target=self._work, name="letta", daemon=True).start()

    def _work(self) -> None:
        """A thread's life: advance one delivery after another to its next wait."""
        while True:
            key, steps = self._todo.get()
            try:
                self._done.put((key, next(steps)))
            except StopIteration as stop:
                self._done.put((key, stop.value))
            except BaseException as error:  # a bug, which must not take the others along
                self._done.put((key, _Broken(error)))

    def _collect(self) -> None:
        while True:
            try:
                key, result = self._done.get_nowait()
            except Empty:
                break
            self._take(key, result)
        self._fire_timers()

    def _take(self, key: str, result: float | Outcome | _Broken) -> None:
        self._stepping.discard(key)
        if isinstance(result, float | int):
            heapq.heappush(self._timers, (time.monotonic() + result, next(self._numbers), key))
        elif isinstance(result, _Broken):
            # Nobody knows how far it came, so it goes on as one in doubt.
            self._store.warn(f"A delivery broke off: {result.text}")
            self._enter(self._live[key][0].claim._replace(in_doubt=True))
            self._take(key, _LONGEST_HOLD)
        else:
            self._finish(key, result)

    def _finish(self, key: str, outcome: Outcome) -> None:
        delivery, _ = self._live.pop(key)
        self._outcomes.append((delivery.claim, outcome))
        if isinstance(outcome, Abandoned) and outcome.code in _SERVER_TROUBLE:
            if time.monotonic() >= self._hold_until:
                self._hold = min(max(self._hold * 2, _FIRST_HOLD), _LONGEST_HOLD)
                self._hold_until = time.monotonic() + self._hold
                self._store.warn(f"{outcome.error} No delivery for {self._hold:g} s.")
        elif isinstance(outcome, Delivered | Failed):
            self._hold, self._hold_until = 0.0, float("-inf")

    def _fire_timers(self) -> None:
        while self._timers and self._timers[0][0] <= time.monotonic():
            _, _, key = heapq.heappop(self._timers)
            if key in self._live and key not in self._stepping:
                self._step(key)


class _Broken:
    """An exception that escaped from a delivery, with its traceback."""

    def __init__(self, error: BaseException) -> None:
        self.text = "".join(traceback.format_exception(error)).rstrip()


def new_worker_name() -> str:
    """A name that no other worker has had or will have."""
    return f"wrk_{os.urandom(8).hex()}"


def _key(made: Claim) -> str:
    # With the attempt, because a slot that was adopted here may be settled elsewhere, and claimed
    # here anew, before the adopted attempt has found that out.
    return f"{slot_key(made.id, made.slot)}|{made.attempt}"


def _as_if(record: Record, id_: str, now: datetime) -> Envelope:
    """An event as it will be, for deciding what follows from it in the same append."""
    type_ = type_of(record)
    return Envelope(VERSIONS[type_], 0, format_utc(now), type_, id_, {}, write_record(record), "")


def _line(state: State, made: Claim, outcome: Outcome | None, became: str) -> dict[str, Any]:
    schedule = state.schedules[made.id]
    line: dict[str, Any] = {
        "id": made.id,
        "agent_id": made.agent_id,
        "delivered": became == "delivered",
        "next_run": schedule.next_run if schedule.status == "active" else None,
        "state": became,
        "slot": made.slot,
        "attempt": made.attempt,
    }
    if isinstance(outcome, Delivered | Failed) and outcome.run_id:
        line["run_id"] = outcome.run_id
    if isinstance(outcome, Failed | Abandoned):
        line["code"] = outcome.code
    if outcome is not None and outcome.error:
        line["error"] = outcome.error
    waiting = state.open.get(slot_key(made.id, made.slot))
    if became == "retrying" and waiting is not None:
        line["retry_at"] = waiting.retry_at
    return line
