"""What one worker claims and records: claims and outcomes of many deliveries, in groups.

The deliveries themselves are moved along by :class:`~.in_flight.InFlight`.
"""

import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from promptyoself import __version__
from promptyoself.core.errors import sentence
from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import WorkerMode
from promptyoself.events.records import Record, WorkerStarted, WorkerStopped
from promptyoself.events.target_names import TargetName, recorded_target, serves
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.claim import (
    Claim,
    Decision,
    IndexMismatch,
    Stalled,
    anything_to_claim,
    claim,
    orphans,
)
from promptyoself.rules.notices.failures import with_notices
from promptyoself.rules.outcome import Outcome, outcome_events, stall_events
from promptyoself.rules.policy import Approvals
from promptyoself.rules.slots import next_wake
from promptyoself.service.delivery.activity_log import ActivityLog, alarms, line_of
from promptyoself.service.delivery.in_flight import InFlight, key_of
from promptyoself.service.delivery.log_check import LogCheck
from promptyoself.service.delivery.reply_reader import line_of_reply
from promptyoself.service.delivery.report import Report, nothing_done
from promptyoself.service.delivery.target_trouble import Trouble
from promptyoself.service.desires.idle_source import desire_ranking
from promptyoself.service.schedules.approvals import ApprovalChecker
from promptyoself.state.apply import fold
from promptyoself.state.schedules import AwaitedReply, OpenSlot, State, slot_key
from promptyoself.store.store import Store
from promptyoself.targets.api import Targets

_ADOPT_EVERY = 5.0
"""Seconds between two searches for claims that dead workers have left."""

_ADOPT_REPLIES_EVERY = timedelta(seconds=60)
"""Time after which a loop sees whether the worker is dead that was to read an answer."""

_TRY_BROKEN_EVERY = timedelta(seconds=60)
"""Time between two tries to decide about schedules about which nothing could be decided."""


class Dispatcher:
    """The claims and the records of one worker. Only one thread may call its methods."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        clock: Callable[[], datetime],
        *,
        worker: str,
        mode: WorkerMode,
        concurrency: int,
        only: str | None = None,
    ) -> None:
        """``worker`` must be alive (in ``store.workers``) while this is used.

        With ``only``, nothing is delivered to other agents.
        """
        self._store = store
        self._clock = clock
        self._worker, self._mode = worker, mode
        self._concurrency, self._only = concurrency, only
        self._activity = ActivityLog(store.log, worker, prompts=store.settings.log_prompts)
        self._in_flight = InFlight(store, targets, clock, concurrency, self._activity)
        self._rank_desires = desire_ranking(store)
        self._log_check = LogCheck(store)
        self._adopted_at = float("-inf")  # by the monotonic clock
        self._is_announced = False
        self._claims_nothing = False  # since the clock isn't trusted
        self._broken: frozenset[str] = frozenset()  # schedules that could not be decided about
        # The state at which there was nothing to do, and until when there won't be.
        self._quiet: tuple[State | None, datetime | None] = (None, None)
        self._was_quiet = False
        self._looked_at: datetime | None = None  # the clock of the latest pass that wasn't quiet
        self._alarms: list[str] = []  # of the latest decision
        self._state: State | None = None  # of this pass, unless the pass has changed it
        self.destinations = store.settings.destinations  # as they are defined now

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._in_flight.idle

    @property
    def troubles(self) -> dict[TargetName, Trouble]:
        """What keeps targets from us, if they refused us, or could not be reached, when last
        called."""
        return self._in_flight.troubles()

    def announce(self, now: datetime) -> None:
        """Record that this worker is up. The first pass that does anything would do it too."""
        self._store.transact(now, lambda _: (self._announcement(), None))
        self._set_announced()

    def tick(self, now: datetime, until: datetime | None = None, stamp: object = None) -> Report:
        """One pass, without waiting.

        It takes in what has finished, adopts what dead workers have left, records outcomes and
        claims in one append, and sends what was claimed. An index that contradicts the log is
        rebuilt from the log first.

        ``until`` leaves alone what became due only after it; ``stamp`` is the ledger's, where the
        caller has just read it.

        Raises:
            PromptyoselfError, OSError: the log could not be written. Outcomes are kept for the next
                pass, and nothing was claimed.
        """
        try:
            return self._pass(now, until, stamp)
        except IndexMismatch as mismatch:
            self._store.distrust(str(mismatch))
            self._log_check.mended(mismatch.id)
            return self._pass(now, until, None)

    def wait(self, seconds: float) -> bool:
        """Sleep at most ``seconds``. Returns whether there is something to decide."""
        return self._in_flight.wait(seconds)

    def next_wake(self, now: datetime) -> datetime | None:
        """When to make the next pass, as far as the clock decides.

        That is when something becomes due, when a hold ends, or when it is time to see whether
        another worker has died over its claims.
        """
        if self._was_quiet:  # a moment ago; what was appended since, the loop's own stamp tells
            return self._quiet[1]
        state = self._store.snapshot().state if self._state is None else self._state
        self._state = None
        # What came due since the pass has looked at its clock has yet to be claimed.
        wakes = [next_wake(state, min(now, self._looked_at or now))]
        if (hold := self._in_flight.hold_seconds()) is not None:
            wakes.append(now + timedelta(seconds=hold))
        if self._broken:  # what is wrong with them may end without an event in the log
            wakes.append(now + _TRY_BROKEN_EVERY)
        if any(True for _ in self._claimed_elsewhere(state)):
            wakes.append(now + timedelta(seconds=_ADOPT_EVERY))
        elif any(True for _ in self._awaited_elsewhere(state)):
            wakes.append(now + _ADOPT_REPLIES_EVERY)
        wake = min((wake for wake in wakes if wake is not None), default=None)
        self._quiet = (state if self.idle else None, wake)
        return wake

    def stop(self, why: str, patience: float) -> Report:
        """Claim no more, and record what there is.

        What has been sent gets ``patience`` seconds to end, and what hasn't is handed back. A
        delivery that then has no outcome is left in doubt, for the next worker.

        Raises:
            PromptyoselfError, OSError: the log could not be written.
        """
        deadline = time.monotonic() + patience
        self._in_flight.hand_back()
        while True:
            self._in_flight.collect()
            seconds_left = deadline - time.monotonic()
            # What was adopted in doubt can go on being in doubt.
            if seconds_left <= 0 or all(delivery.claim.in_doubt for delivery in self._in_flight):
                break
            self.wait(seconds_left)
        now, outcomes, stalls = self._clock(), *self._to_record()
        unfinished = list(self._in_flight)

        def decide(state: State) -> tuple[list[Draft], tuple[Report, State]]:
            drafts, report, after = self._news(state, stalls, outcomes, now)
            drafts = self._with_notices(state, drafts, now)
            if self._is_announced or drafts:
                in_flight = [
                    {"id": delivery.claim.id, "slot": delivery.claim.slot, "run_id": run_id}
                    for delivery in unfinished
                    if (run_id := delivery.run_id) is not None and _is_open(after, delivery.claim)
                ]
                stopped = WorkerStopped(self._worker, why, in_flight or None)
                drafts = [*self._announcement(), *drafts, self._store.draft(stopped, None, None)]
            return drafts, (report, after)

        report, after = self._store.transact(now, decide)
        report.executed.extend(
            line_of(after, delivery.claim, None, "in_doubt") for delivery in unfinished
        )
        self._is_recorded(outcomes, stalls, report)
        if self._is_announced:
            self._store.log.record("worker", state="stopped", why=why)
        return report

    def close(self) -> None:
        """Send nothing from now on, and let the threads end. What was sent is left in doubt."""
        self._in_flight.close()

    def hold(self, *, claims: bool) -> None:
        """Claim nothing, or claim again; outcomes are recorded all the same."""
        if claims != self._claims_nothing:
            self._claims_nothing = claims
            self._quiet = (None, None)  # what was due meanwhile is claimed

    def _pass(self, now: datetime, until: datetime | None, stamp: object) -> Report:
        self._in_flight.collect()
        self._state = None
        self._was_quiet = self._is_quiet(now, stamp)
        if self._was_quiet:
            return nothing_done()
        self._looked_at = now
        adopts = time.monotonic() - self._adopted_at >= _ADOPT_EVERY
        has_news = self._in_flight.has_news
        if adopts or not has_news:
            state = self._store.snapshot(stamp).state
            if adopts:
                self._adopt(state, now)
            if not has_news and not self._can_claim(state, now, until):
                self._state = state
                self._in_flight.seek_snapshot()
                return nothing_done()
        seats, approvals = self._seats(), ApprovalChecker(self._store, now)
        outcomes, stalls = self._to_record()

        def decide(state: State) -> tuple[list[Draft], tuple[Report, State, list[Claim], bool]]:
            drafts, report, after = self._news(state, stalls, outcomes, now)
            decision = self._claim(after, now, seats, until, approvals)
            drafts += [
                self._store.draft(record, id_, after.schedules[id_].agent_id)
                for record, id_ in decision.records
            ]
            drafts = self._with_notices(state, drafts, now)
            if drafts:
                drafts = [*self._announcement(), *drafts]
            report.skipped.extend(decision.skipped)
            return drafts, (report, after, decision.claims, bool(drafts))

        report, after, claims, has_written = self._store.transact(now, decide)
        if has_written:
            self._set_announced()
        self._is_recorded(outcomes, stalls, report)
        self._in_flight.begin(claims)
        self._in_flight.replies.follow(
            reply for reply in self._replies(after) if reply.worker == self._worker
        )
        approvals.update_tokens()
        self._in_flight.seek_snapshot()
        return report

    def _is_quiet(self, now: datetime, stamp: object) -> bool:
        """Whether there was nothing to do until some instant, and the log hasn't grown since.

        Then a pass costs no more than this question.
        """
        state, wake = self._quiet
        return (
            state is not None
            and self.idle
            and (wake is None or now < wake)
            and self._store.snapshot(stamp).state is state
        )

    def _can_claim(self, state: State, now: datetime, until: datetime | None) -> bool:
        """Whether it is worth while to take the lock and decide about claims."""
        if not self._seats():
            return False
        limits = self._in_flight.limits()
        if anything_to_claim(state, now, until, self._only, limits, self._worker):
            return True
        self._broken = frozenset()
        return False

    def _claim(
        self, state: State, now: datetime, seats: int, until: datetime | None, approvals: Approvals
    ) -> Decision:
        with self._log_check.within_a_pass() as check:
            decision = claim(
                state,
                now,
                self._worker,
                self._store.settings.caps,
                seats,
                until,
                self._rank_desires,
                approvals,
                check,
                self._store.not_before(now),
                self._only,
                self._in_flight.limits(),
            )
        for id_, problem in decision.broken.items():
            if id_ not in self._broken:
                text = f"{id_} can't be delivered: {sentence(problem)} The others go on."
                self._store.seldom.warn(f"broken {id_}", text)
        self._broken = frozenset(decision.broken)
        return decision

    def _seats(self) -> int:
        return 0 if self._claims_nothing else self._in_flight.free_seats()

    def _to_record(self) -> tuple[list[tuple[Claim, Outcome]], list[tuple[Claim, Stalled]]]:
        return self._in_flight.outcomes[:], self._in_flight.stalls[:]

    def _news(
        self,
        state: State,
        stalls: list[tuple[Claim, Stalled]],
        outcomes: list[tuple[Claim, Outcome]],
        now: datetime,
    ) -> tuple[list[Draft], Report, State]:
        """What has become of deliveries, and what agents have answered: its events, a line for
        each, and the state after it."""
        drafts: list[Draft] = []
        report = nothing_done()
        replies = self._in_flight.replies
        ts = format_utc(now)

        def take(about: Claim | AwaitedReply, records: Sequence[Record]) -> State:
            drafts.extend(self._store.draft(record, about.id, about.agent_id) for record in records)
            return fold(state, [provisional_event(record, about.id, ts) for record in records])

        for claimed, stalled in stalls:
            state = take(claimed, stall_events(state, claimed, self._worker, stalled))
        for claimed, outcome in outcomes:
            most = replies.most(claimed.target)
            records, became = outcome_events(state, claimed, self._worker, outcome, now, most)
            state = take(claimed, records)
            if became != "settled":
                report.executed.append(line_of(state, claimed, outcome, became))
        for awaited, record in replies.records(state, self._worker):
            state = take(awaited, [record])
            report.replies.append(line_of_reply(awaited, record))
        return drafts, report, state

    def _with_notices(self, state: State, drafts: list[Draft], now: datetime) -> list[Draft]:
        caps = self._store.settings.caps
        drafts = with_notices(state, drafts, now, caps, self.destinations, self._warn_seldom)
        self._alarms = list(alarms(state, drafts))
        return drafts

    def _warn_seldom(self, message: str) -> None:
        # What is decided on a disk that refuses is decided again and again.
        self._store.seldom.warn(message, message)

    def _is_recorded(
        self,
        outcomes: list[tuple[Claim, Outcome]],
        stalls: list[tuple[Claim, Stalled]],
        report: Report,
    ) -> None:
        """After the append: what was recorded is told, and needn't be kept."""
        del self._in_flight.outcomes[: len(outcomes)], self._in_flight.stalls[: len(stalls)]
        self._in_flight.replies.recorded()
        self._activity.outcomes(report.executed, outcomes)
        for skipped in report.skipped:
            self._store.log.record("skipped", state="skipped", **skipped)
        for reply in report.replies:
            state = "replied" if reply["replied"] else "unanswered"
            self._store.log.record("reply", state=state, **reply)
        for message in self._alarms:
            self._store.warn(message)

    def _announcement(self) -> list[Draft]:
        if self._is_announced:
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

    def _set_announced(self) -> None:
        if not self._is_announced:
            self._is_announced = True
            self._store.log.record(
                "worker", state="started", mode=self._mode, concurrency=self._concurrency
            )

    def _adopt(self, state: State, now: datetime) -> None:
        """Take over what no living worker is delivering.

        These are the claims of dead workers, and claims under our own name that we don't know of.
        The log has such a claim where an append seemed to fail and yet was made.
        """
        self._adopted_at = time.monotonic()
        workers = {*self._claimed_elsewhere(state), *self._awaited_elsewhere(state)}
        is_alive = self._store.workers.is_alive
        dead = {worker for worker in workers if worker == self._worker or not is_alive(worker)}
        if not dead:
            return
        # Read again after the locks: a worker may have recorded its last outcome, and then ended.
        state = self._store.snapshot().state
        self._in_flight.replies.follow(
            reply for reply in self._replies(state) if reply.worker in dead
        )
        adopted = [
            orphan
            for orphan in orphans(state, dead, now)
            if self._is_ours(orphan) and key_of(orphan) not in self._in_flight
        ]
        for orphan in adopted:
            self._activity.step("adopted", orphan)
        self._in_flight.begin(adopted)

    def _replies(self, state: State) -> Iterator[AwaitedReply]:
        """The answers that are awaited and may be read by this worker."""
        return (reply for reply in state.replies.values() if self._is_ours(reply))

    def _is_ours(self, sent: Claim | OpenSlot | AwaitedReply) -> bool:
        """Whether this worker may take over what another has sent."""
        target = recorded_target(sent.target)
        return self._only in (None, sent.agent_id) and serves(self._worker, target, sent.agent_id)

    def _awaited_elsewhere(self, state: State) -> Iterator[str]:
        """The workers of the answers that aren't read here."""
        for reply in self._replies(state):
            if slot_key(reply.id, reply.slot) not in self._in_flight.replies:
                yield reply.worker

    def _claimed_elsewhere(self, state: State) -> Iterator[str]:
        """The workers of the claims that aren't under way here."""
        for key, slot in state.open.items():
            if (
                slot.worker is not None
                and self._is_ours(slot)
                and f"{key}|{slot.attempt}" not in self._in_flight
            ):
                yield slot.worker


def new_worker_name() -> str:
    """A name that no other worker has had or will have."""
    return f"wrk_{os.urandom(8).hex()}"


def _is_open(state: State, claimed: Claim) -> bool:
    slot = state.open.get(slot_key(claimed.id, claimed.slot))
    return slot is not None and slot.worker is not None and slot.attempt == claimed.attempt
