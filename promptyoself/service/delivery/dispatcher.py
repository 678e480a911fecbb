"""Many deliveries at once: claims and outcomes in groups, one thread per call under way.

One thread, the caller's, decides and writes the log; a few others do nothing but talk to Letta.
A delivery that waits (for its agent, for its run, in doubt) holds no thread, and after a while not
even a seat, so that no number of stuck agents can keep the others from their prompts. Where
several wonder about runs, one look at all runs is taken for them together.
"""

from __future__ import annotations

import heapq
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from math import ceil, floor, log2
from typing import Any, NamedTuple

from promptyoself import __version__
from promptyoself.core.errors import sentence
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import WorkerMode
from promptyoself.events.records import WorkerStarted, WorkerStopped
from promptyoself.rules.claim import Claim, Decision, IndexMismatch, Stalled, claim, orphans
from promptyoself.rules.notices import with_notices
from promptyoself.rules.outcome import Abandoned, Outcome
from promptyoself.rules.policy import Approvals
from promptyoself.rules.slots import next_wake
from promptyoself.service.delivery.activity_log import ActivityLog, alarms, line_of
from promptyoself.service.delivery.delivery import Delivery, DeliverySteps
from promptyoself.service.delivery.letta_pool import Job, JobError, LettaPool, Result, result_of
from promptyoself.service.delivery.log_check import LogCheck
from promptyoself.service.delivery.outcomes import record_outcomes
from promptyoself.service.desires.idle_source import desire_ranking
from promptyoself.service.schedules.approvals import Asked
from promptyoself.state.schedules import State, slot_key
from promptyoself.store.store import Store
from promptyoself.targets.api import LettaApi
from promptyoself.targets.letta import RunSnapshot, SnapshotQueue, take_run_snapshot

__all__ = ["Dispatcher", "Report", "Trouble", "new_worker_name"]

_LOOK_FOR_DEAD_EVERY = 5.0
_TRY_BROKEN_EVERY = timedelta(seconds=60)
_FIRST_HOLD, _LONGEST_HOLD = 5.0, 60.0
_SERVER_TROUBLE = frozenset({"letta_unreachable", "letta_unauthorized"})
_PERHAPS_TROUBLE = frozenset(
    {"letta_timeout", "letta_server_error", "letta_unreadable", "letta_connection_lost"}
    | {"letta_client_unfit"}
)
_TROUBLED_AGENTS = 3
"""When so many agents' deliveries get no answer and nobody's gets one, it is the server's fault."""


class Report(NamedTuple):
    """What a pass did: a line per slot that was settled or tried, and per range skipped."""

    executed: list[dict[str, Any]]
    skipped: list[dict[str, Any]]

    def __bool__(self) -> bool:
        return bool(self.executed or self.skipped)


class Trouble(NamedTuple):
    """The code of what keeps Letta from us, believable ``until`` then (by the monotonic clock)."""

    code: str
    until: float


class Dispatcher:
    """The deliveries of one worker. Only one thread may call its methods."""

    def __init__(
        self,
        store: Store,
        letta: LettaApi,
        clock: Callable[[], datetime],
        *,
        worker: str,
        mode: WorkerMode,
        concurrency: int,
        only: str | None = None,
    ) -> None:
        """``worker`` must be alive (in ``store.workers``) while this is used;
        ``mode`` is ``loop`` or ``once``. ``only`` that agent is delivered to."""
        self._store = store
        self._letta = letta
        self._clock = clock
        self._worker, self._mode = worker, mode
        self._concurrency, self._only = concurrency, only
        self._live: dict[str, tuple[Delivery, DeliverySteps]] = {}
        self._outcomes: list[tuple[Claim, Outcome]] = []
        self._stalls: list[tuple[Claim, Stalled]] = []
        self._timers: list[tuple[float, int, str]] = []
        self._timer_of: dict[str, int] = {}
        self._stepping: set[str] = set()
        self._looks = SnapshotQueue()
        self._looking = True
        self._numbers = count()
        self._slow: set[str] = set()
        self._pool = LettaPool()
        self._quiet: tuple[State | None, datetime | None] = (None, None)
        self._was_quiet = False
        self._looked_for_dead = float("-inf")
        self._hold_until = float("-inf")
        self._hold = 0.0
        self._unanswered: set[str] = set()
        self._told: frozenset[str] = frozenset()  # those that were broken the last time
        self._trouble = ""
        self._story = ActivityLog(store.log, worker, prompts=store.settings.log_prompts)
        self._announced = False
        self._holds = False
        self._broken = False  # whether there was something about which nothing could be decided
        self._strongest = desire_ranking(store)
        self._vouched = LogCheck(store.ledger)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._live and not self._outcomes and not self._stalls

    @property
    def trouble(self) -> bool:
        """Whether Letta refused us, or could not be reached, when last asked."""
        return self._hold > 0

    @property
    def latest_trouble(self) -> Trouble | None:
        """What that trouble is, if there is any."""
        until = self._hold_until + _LONGEST_HOLD  # when somebody should have tried again
        return Trouble(self._trouble, until) if self.trouble else None

    def announce(self, now: datetime) -> None:
        """Record that this worker is up. The first pass that does anything would do it too."""
        self._store.transact(now, lambda _: (self._announcement(), None))
        self._is_announced()

    def tick(self, now: datetime, until: datetime | None = None, stamp: object = None) -> Report:
        """See :meth:`_tick`. An index that doesn't say what the log says is made anew first."""
        try:
            return self._tick(now, until, stamp)
        except IndexMismatch as forged:
            self._store.distrust(str(forged))
            self._vouched.mended(forged.id)
            return self._tick(now, until)

    def _tick(self, now: datetime, until: datetime | None = None, stamp: object = None) -> Report:
        """One pass, without waiting: take in what has finished, adopt what the dead have left,
        write down outcomes and claims in one append, and start what was claimed.

        ``until`` leaves alone what became due only after it; ``stamp`` is the ledger's, where the
        caller has just asked for it.

        Raises:
            PromptyoselfError, OSError: the log could not be written; outcomes are kept for the
                next pass, and nothing was claimed.
        """
        self._collect()
        self._was_quiet = self._is_quiet(now, stamp)
        if self._was_quiet:
            return Report([], [])
        adopts = time.monotonic() - self._looked_for_dead >= _LOOK_FOR_DEAD_EVERY
        to_record = self._outcomes or self._stalls
        if adopts or not to_record:
            state = self._store.index.load().state
            if adopts:
                self._adopt(state, now)
            seats = self._seats()
            if not to_record and not (
                seats and self._claim(state, now, seats, until, Asked(self._store, now)).records
            ):
                self._look_or_go_on()
                return Report([], [])
        seats, outcomes, approvals = self._seats(), self._outcomes[:], Asked(self._store, now)
        stalls = self._stalls[:]
        caps = self._store.settings.caps

        told: list[str] = []

        def decide(state: State) -> tuple[list[Draft], tuple[Report, list[Claim]]]:
            drafts, lines, after = record_outcomes(
                self._store, state, self._worker, stalls, outcomes, now
            )
            decision = self._claim(after, now, seats, until, approvals)
            drafts += [
                self._store.draft(record, id_, after.schedules[id_].agent_id)
                for record, id_ in decision.records
            ]
            drafts = with_notices(state, drafts, now, caps, self._warn_once)
            told[:] = alarms(state, drafts)
            if drafts:
                drafts = [*self._announcement(), *drafts]
            return drafts, (Report(lines, decision.skipped), decision.claims)

        report, claims = self._store.transact(now, decide)
        self._is_announced()
        del self._outcomes[: len(outcomes)], self._stalls[: len(stalls)]
        self._story.outcomes(report.executed, outcomes)
        self._story.skipped(report.skipped)
        self._alarm(told)
        for key in [self._enter(made) for made in claims]:
            self._go_on(key)
        approvals.settle()
        self._look_or_go_on()
        return report

    def wait(self, seconds: float) -> bool:
        """Sleep until there is something to decide (an outcome came, a seat got free, Letta is
        back), at most so long; whether there is."""
        end = time.monotonic() + seconds
        while True:
            self._fire_timers()
            wake = min(end, self._looks.wake())
            if self._timers:
                wake = min(wake, self._timers[0][0])
            answer = self._pool.next_result(wake - time.monotonic())
            if answer is None:
                if time.monotonic() >= end:
                    return False
            elif self._take(*answer):
                return True

    def next_wake(self, now: datetime) -> datetime | None:
        """When to make the next pass, as far as the clock decides: something becomes due, a hold
        ends, or it is time to see whether another worker has died over its claims."""
        if self._was_quiet:  # a moment ago; what was appended since, the loop's own stamp tells
            return self._quiet[1]
        state = self._store.index.load().state
        wakes = [next_wake(state, now)]
        if (hold := self._hold_until - time.monotonic()) > 0:
            wakes.append(now + timedelta(seconds=hold))
        if self._broken:  # whatever the matter is, the log of the schedules needn't tell its end
            wakes.append(now + _TRY_BROKEN_EVERY)
        if any(True for _ in self._claimed_elsewhere(state)):
            wakes.append(now + timedelta(seconds=_LOOK_FOR_DEAD_EVERY))
        wake = min((wake for wake in wakes if wake is not None), default=None)
        self._quiet = (state if self.idle else None, wake)
        return wake

    def _is_quiet(self, now: datetime, stamp: object) -> bool:
        """Whether there is nothing to do until the known wake, since nothing was and the log hasn't
        grown: then a pass costs no more than that question."""
        state, wake = self._quiet
        return (
            state is not None
            and self.idle
            and (wake is None or now < wake)
            and self._store.index.load(stamp).state is state
        )

    def stop(self, why: str, patience: float) -> Report:
        """Claim no more; give what has been sent ``patience`` seconds to end, hand back what
        hasn't, and record it all. What then has no outcome is left in doubt, for the next worker.

        Raises:
            PromptyoselfError, OSError: the log could not be written.
        """
        deadline = time.monotonic() + patience
        self._hand_back()
        while True:
            self._collect()
            left = deadline - time.monotonic()
            # What was adopted in doubt can go on being in doubt.
            if left <= 0 or all(delivery.claim.in_doubt for delivery, _ in self._live.values()):
                break
            self.wait(left)
        now, outcomes, caps = self._clock(), self._outcomes[:], self._store.settings.caps
        stalls = self._stalls[:]
        left_over = [delivery for delivery, _ in self._live.values()]
        told: list[str] = []

        def decide(state: State) -> tuple[list[Draft], tuple[list[dict[str, Any]], State]]:
            drafts, lines, after = record_outcomes(
                self._store, state, self._worker, stalls, outcomes, now
            )
            drafts = with_notices(state, drafts, now, caps, self._warn_once)
            told[:] = alarms(state, drafts)
            if self._announced or drafts:
                in_flight = [
                    {"id": delivery.claim.id, "slot": delivery.claim.slot, "run_id": run_id}
                    for delivery in left_over
                    if (run_id := delivery.run_id) is not None and _is_open(after, delivery.claim)
                ]
                stopped = WorkerStopped(self._worker, why, in_flight or None)
                drafts = [*self._announcement(), *drafts, self._store.draft(stopped, None, None)]
            return drafts, (lines, after)

        lines, after = self._store.transact(now, decide)
        self._outcomes.clear()
        self._stalls.clear()
        lines += [line_of(after, delivery.claim, None, "in_doubt") for delivery in left_over]
        self._story.outcomes(lines, outcomes)
        self._alarm(told)
        if self._announced:
            self._story.worker("stopped", why=why)
        return Report(lines, [])

    def close(self) -> None:
        """Send nothing from now on, and let the threads end. What was sent is left in doubt."""
        self._hand_back()
        self._pool.close()

    def _hand_back(self) -> None:
        for key, (delivery, _) in list(self._live.items()):
            if delivery.withdraw():
                error = "The worker was stopped before it was sent."
                self._finish(key, Abandoned("worker_stopped", error, at_once=True))

    # Deciding.

    def _claim(
        self, state: State, now: datetime, seats: int, until: datetime | None, approvals: Approvals
    ) -> Decision:
        caps, strongest = self._store.settings.caps, self._strongest
        asked = (caps, seats, until, strongest, approvals, self._vouched)
        decision = claim(state, now, self._worker, *asked, self._store.not_before(now), self._only)
        self._broken = bool(decision.broken)
        for id_, problem in decision.broken.items():
            if id_ not in self._told:
                told = f"{id_} can't be delivered: {sentence(problem)} The others go on."
                self._store.seldom.warn(f"broken {id_}", told)
        self._told = frozenset(decision.broken)
        return decision

    def _warn_once(self, message: str) -> None:
        # What is decided on a disk that refuses is decided again and again.
        self._store.seldom.warn(message, message)

    def _alarm(self, told: Sequence[str]) -> None:
        for message in told:
            self._store.warn(message)

    def hold(self, *, claims: bool) -> None:
        """Claim nothing, or claim again; outcomes are recorded all the same."""
        if claims != self._holds:
            self._holds = claims
            self._quiet = (None, None)  # what was due meanwhile is looked at

    def _seats(self) -> int:
        if self._holds:
            return 0
        if time.monotonic() < self._hold_until:
            return 0
        taken = len(self._live) - len(self._slow)
        most = 1 if self.trouble else self._concurrency  # one try tells whether it is over
        return max(most - taken, 0)

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
        return [self._store.draft(record, None, None)]

    def _is_announced(self) -> None:
        if not self._announced:
            self._announced = True
            self._story.worker("started", mode=self._mode, concurrency=self._concurrency)

    def _adopt(self, state: State, now: datetime) -> None:
        """Take over what nobody alive is delivering: claims of the dead; and such as the log has
        under our own name though we know of none, because an append failed and yet was made."""
        self._looked_for_dead = time.monotonic()
        workers = set(self._claimed_elsewhere(state))
        is_alive = self._store.workers.is_alive
        dead = {w for w in workers if w == self._worker or not is_alive(w)}
        if not dead:
            return
        # Asked again after the locks: a worker may have settled its last slot, and only then ended.
        unrecorded = self._unrecorded()
        for orphan in orphans(self._store.index.load().state, dead, now):
            key = _key(orphan)
            if (
                self._only in (None, orphan.agent_id)
                and key not in self._live
                and key not in unrecorded
            ):
                self._story.step("adopted", orphan)
                self._go_on(self._enter(orphan))

    def _claimed_elsewhere(self, state: State) -> Iterator[str]:
        """The workers of the claims that aren't under way here."""
        unrecorded = self._unrecorded()
        for key, slot in state.open.items():
            if slot.worker is not None and self._only in (None, slot.agent_id):
                name = f"{key}|{slot.attempt}"
                if name not in self._live and name not in unrecorded:
                    yield slot.worker

    def _unrecorded(self) -> set[str]:
        return {_key(made) for made, _ in self._outcomes}

    # Moving deliveries along.

    def _enter(self, made: Claim) -> str:
        settings = self._store.settings
        delivery = Delivery(
            made,
            self._letta,
            self._clock,
            reconcile_grace=settings.reconcile_grace,
            call_timeout=settings.call_timeout,
            monotonic=time.monotonic,  # the clock of the looks
        )
        key = _key(made)
        if not made.in_doubt:
            self._story.step("claimed", made)
        self._live[key] = (delivery, delivery.steps())
        if delivery.slow:
            self._slow.add(key)
        return key

    def _go_on(self, key: str) -> None:
        """Let a delivery take its next step: upon a look together with others, or by itself."""
        delivery, _ = self._live[key]
        alone = len(self._live) == 1
        if alone or not (delivery.looks and self._looking and self._looks.usable(time.monotonic())):
            self._step(key)
        else:
            self._looks.join(key, urgent=not delivery.follows)

    def _step(self, key: str) -> None:
        self._stepping.add(key)
        self._dispatch(key, self._turn(key))

    def _turn(self, key: str) -> Job:
        """A delivery's next step, for any thread; what would have caused it otherwise is void."""
        delivery, steps = self._live[key]
        self._timer_of.pop(key, None)
        if delivery.run_id is not None:
            self._looks.followed.pop(delivery.run_id, None)
        return partial(next, steps)

    def _dispatch(self, key: str, job: Job) -> None:
        most = min(len(self._stepping) + self._looks.under_way, self._concurrency)
        self._pool.submit(key, job, most)

    def _collect(self) -> None:
        while (answer := self._pool.next_result(0.0)) is not None:
            self._take(*answer)
        self._fire_timers()

    def _take(self, key: str, result: Result) -> bool:
        """Take in what a step has led to; whether there is something new to decide."""
        if key == _LOOK:
            return self._take_look(result)
        self._stepping.discard(key)
        if key not in self._live:  # handed back in the meantime
            return False
        delivery, _ = self._live[key]
        news = delivery.heard and self.trouble
        if delivery.heard:
            delivery.heard = False
            self._hold, self._hold_until = 0.0, float("-inf")
            self._unanswered.clear()
        if delivery.contradicted and self._looking:
            self._looking = False
            self._store.warn(
                "Letta's list of all active runs lacks some. Each is asked for by itself from now "
                "on, which takes longer."
            )
        if delivery.may_have_arrived and not delivery.claim.in_doubt:
            self._story.sent(key, delivery.claim, delivery.run_id)
        for stalled in delivery.take_stalls():
            news = True
            self._stalls.append((delivery.claim, stalled))
            self._story.stalled(delivery.claim, stalled)
            if stalled.in_doubt:
                told = f"{delivery.claim.id} is in doubt: {sentence(stalled.error)}"
                self._store.seldom.warn(f"in doubt {stalled.code}", told)
        if isinstance(result, float | int):
            self._set_timer(key, result)
            if delivery.follows and delivery.run_id is not None:
                self._looks.followed[delivery.run_id] = key
            if not delivery.slow:
                self._slow.discard(key)
            elif key not in self._slow:
                self._slow.add(key)
                news = True  # a free seat
            return news
        if isinstance(result, JobError):
            text = self._story.broken(result.text, delivery.claim)
            self._store.seldom.warn(
                f"broke off {delivery.claim.id}", f"A delivery broke off: {text}"
            )
            if delivery.may_have_arrived:
                made = delivery.claim._replace(in_doubt=True, run_id=delivery.run_id)
                self._set_timer(self._enter(made), _LONGEST_HOLD)
                return True
            result = Abandoned("internal_error", "A bug kept it from being sent.")
        if not isinstance(result, RunSnapshot | None):
            self._finish(key, result)
        return True

    def _take_look(self, result: Result) -> bool:
        """Let those go on to whom a look has something to say; whether that decides anything."""
        look = result if isinstance(result, RunSnapshot) else None
        if isinstance(result, JobError) and not result.expected:
            self._store.seldom.warn("look", f"A look at the runs broke off: {result.text}")
        waited, over = self._looks.end(time.monotonic(), look)
        news = False
        for key in (*waited, *over):
            if key not in self._live or key in self._stepping:
                continue
            told = None if look is None else self._live[key][0].take(look)
            if told:
                news = self._take(key, result_of(self._turn(key))) or news
            elif told is not None or key in waited:
                self._step(key)
        return news

    def _finish(self, key: str, outcome: Outcome) -> None:
        self._turn(key)
        delivery, _ = self._live.pop(key)
        self._slow.discard(key)
        self._story.over(key)
        self._outcomes.append((delivery.claim, outcome))
        if not isinstance(outcome, Abandoned):
            return
        if outcome.code in _PERHAPS_TROUBLE:
            self._unanswered.add(delivery.claim.agent_id)
        if outcome.code in _SERVER_TROUBLE or len(self._unanswered) >= _TROUBLED_AGENTS:
            if time.monotonic() < self._hold_until:
                return
            self._hold = min(max(self._hold * 2, _FIRST_HOLD), _LONGEST_HOLD)
            self._hold_until = time.monotonic() + self._hold
            self._trouble = outcome.code
            self._story.held(outcome.code, self._hold)
            self._store.seldom.warn(
                f"held {outcome.code}",
                f"{sentence(outcome.error)} No delivery for {self._hold:g} s.",
            )

    def _set_timer(self, key: str, seconds: float) -> None:
        """Let a delivery go on after so many seconds, or up to a quarter more: timers meet on a
        grid, so that one look serves several."""
        grid = 2.0 ** floor(log2(seconds / 4)) if seconds > 0 else 1.0
        number = self._timer_of[key] = next(self._numbers)
        due = ceil((time.monotonic() + seconds) / grid) * grid
        heapq.heappush(self._timers, (due, number, key))

    def _fire_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, number, key = heapq.heappop(self._timers)
            if self._timer_of.get(key) == number:
                del self._timer_of[key]
                self._go_on(key)
        self._look_or_go_on()

    def _look_or_go_on(self) -> None:
        """Begin a look, if it is time for one; where one takes too long, go on without it."""
        now = time.monotonic()
        for key in self._looks.overdue(now):
            if key in self._live and key not in self._stepping:
                self._step(key)
        followed = self._looks.begin(now)
        if followed is not None:
            self._dispatch(_LOOK, partial(take_run_snapshot, self._letta, followed, time.monotonic))


_LOOK = ""
"""In place of a delivery's key."""


def new_worker_name() -> str:
    """A name that no other worker has had or will have."""
    return f"wrk_{os.urandom(8).hex()}"


def _key(made: Claim) -> str:
    # With the attempt, because a slot that was adopted here may be settled elsewhere, and claimed
    # here anew, before the adopted attempt has found that out.
    return f"{slot_key(made.id, made.slot)}|{made.attempt}"


def _is_open(state: State, made: Claim) -> bool:
    slot = state.open.get(slot_key(made.id, made.slot))
    return slot is not None and slot.worker is not None and slot.attempt == made.attempt
