"""The deliveries of one worker that have begun, each moved along to its outcome.

One thread, the caller's, decides what is next; a few others do nothing but talk to targets. A
delivery that waits (for its agent, for its run, in doubt) holds no thread. One that waits for
something else than its agent's answer leaves its seat too, so that stuck agents can't keep the
others from their prompts, however many they are. Where several deliveries wait for runs of a target
that lists them, one snapshot of all runs is taken for them.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import partial
from math import ceil, floor, log2

from promptyoself.core.errors import sentence
from promptyoself.events.target_names import TargetName, recorded_target
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Abandoned, Outcome
from promptyoself.service.delivery.activity_log import ActivityLog
from promptyoself.service.delivery.delivery import Delivery, Step, Wait
from promptyoself.service.delivery.job_pool import JobError, JobPool
from promptyoself.service.delivery.reply_reader import REPLY, Read, ReplyReader
from promptyoself.service.delivery.route import Route
from promptyoself.service.delivery.target_trouble import Trouble
from promptyoself.state.schedules import slot_key
from promptyoself.store.store import Store
from promptyoself.targets.api import Targets
from promptyoself.targets.run_snapshot import RunSnapshot, take_run_snapshot

_PAUSE_AFTER_A_BUG = 60.0
"""Seconds after which a delivery that a bug broke off, and that may have arrived, is looked for."""

_SNAPSHOT = "snapshot of "
"""In place of a delivery's key, before a target's name."""


class InFlight:
    """What this worker has claimed. Only one thread may call its methods."""

    def __init__(
        self,
        store: Store,
        targets: Targets,
        clock: Callable[[], datetime],
        concurrency: int,
        activity: ActivityLog,
    ) -> None:
        """There are ``concurrency`` seats, and at most as many calls are made at once."""
        self.outcomes: list[tuple[Claim, Outcome]] = []  # to be recorded
        self.stalls: list[tuple[Claim, Stalled]] = []  # to be recorded
        self._store, self._targets, self._clock = store, targets, clock
        self._routes: dict[TargetName, Route] = {}  # of targets that were needed
        self._concurrency = concurrency
        self._activity = activity
        self._live: dict[str, Delivery] = {}
        self._seated: set[str] = set()  # deliveries that hold a seat
        self._stepping: set[str] = set()  # deliveries that a thread is at work on
        self._timers: dict[str, float] = {}  # when each goes on that waits, by the monotonic clock
        self._pool: JobPool[Step | RunSnapshot | Read | None] = JobPool()
        self._readers: JobPool[Step | RunSnapshot | Read | None] = JobPool(self._pool)
        self.replies = ReplyReader(store, clock, self._route, self._readers)

    def __contains__(self, key: str) -> bool:
        """Whether an attempt, by its :func:`key_of`, is under way or has an unrecorded outcome."""
        return key in self._live or any(key_of(claimed) == key for claimed, _ in self.outcomes)

    def __iter__(self) -> Iterator[Delivery]:
        """The deliveries without an outcome."""
        return iter(self._live.values())

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, to be recorded, or expected within moments."""
        return not (self._live or self.outcomes or self.stalls or self.replies.busy)

    @property
    def has_news(self) -> bool:
        """Whether there is something to be recorded."""
        return bool(self.outcomes or self.stalls or self.replies.answers)

    def free_seats(self) -> int:
        """How many more deliveries may begin."""
        return max(self._concurrency - len(self._seated), 0)

    def limits(self) -> dict[TargetName, int]:
        """How many more deliveries may begin to each target in trouble: none for a while, and then
        one, which tells whether the trouble is over."""
        now, limits = time.monotonic(), {}
        for name, route in self._routes.items():
            if route.trouble:
                seated = sum(self._live[key].claim.target == name for key in self._seated)
                limits[name] = 0 if route.trouble.seconds_left(now) > 0 else max(1 - seated, 0)
        return limits

    def troubles(self) -> dict[TargetName, Trouble]:
        """What keeps targets from us, if they refused us, or could not be reached, when last
        called."""
        latest = ((name, route.trouble.latest) for name, route in self._routes.items())
        return {name: trouble for name, trouble in latest if trouble is not None}

    def hold_seconds(self) -> float | None:
        """In how many seconds the first hold of a target ends; ``None`` if there is none."""
        now = time.monotonic()
        holds = [route.trouble.seconds_left(now) for route in self._routes.values()]
        return min((hold for hold in holds if hold > 0), default=None)

    def begin(self, claims: Iterable[Claim]) -> None:
        """Send what was claimed, or look for what is in doubt."""
        for key in [self._enter(claimed) for claimed in claims]:
            self._go_on(key)

    def collect(self) -> None:
        """Handle the results that have come meanwhile, without waiting."""
        while (done := self._pool.next_result(0.0)) is not None:
            self._handle_result(*done)
        self._fire_timers()

    def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for something to decide. Returns whether there is something.

        That is an outcome, a seat that was set free, or an answer of a target after trouble.
        """
        end = time.monotonic() + seconds
        while True:
            self._fire_timers()
            # A seat that an outcome has set free may be filled by the next pass.
            seats = self.free_seats() > 0 and not self.outcomes
            self.replies.seek(seats=seats)
            wakes = [route.snapshots.wake() for route in self._routes.values()]
            wakes += self.replies.wake(seats=seats), self.replies.record_by
            wake = min([end, *wakes, *self._timers.values()])
            done = self._pool.next_result(wake - time.monotonic())
            if done is None:
                if time.monotonic() >= self.replies.record_by:
                    return True
                if time.monotonic() >= end:
                    return False
            elif self._handle_result(*done):
                return True

    def hand_back(self) -> None:
        """Give up what hasn't been sent, so that any worker can claim it at once."""
        for key, delivery in list(self._live.items()):
            if delivery.withdraw():
                error = "The worker was stopped before it was sent."
                self._finish(key, Abandoned("worker_stopped", error, at_once=True))

    def close(self) -> None:
        """Send nothing from now on, and let the threads end. What was sent is left in doubt."""
        self.hand_back()
        self._pool.close()
        self._readers.close()

    def seek_snapshot(self) -> None:
        """Take snapshots of runs, where it is time. Go on without one that takes too long."""
        now = time.monotonic()
        for name, route in self._routes.items():
            for key in route.snapshots.overdue(now):
                if key in self._live and key not in self._stepping:
                    self._step(key)
            followed = route.snapshots.begin(now)
            if followed is not None:
                look = partial(take_run_snapshot, route.target, followed, time.monotonic)
                self._submit(f"{_SNAPSHOT}{name}", look)

    def _route(self, name: TargetName) -> Route:
        route = self._routes.get(name)
        if route is None:
            route = self._routes[name] = Route(self._targets[name])
            if route.target.traits.caution:
                self._store.warn(route.target.traits.caution)
        return route

    def _enter(self, claimed: Claim) -> str:
        settings = self._store.settings
        delivery = Delivery(
            claimed,
            self._route(claimed.target).target,
            self._clock,
            reconcile_grace=settings.reconcile_grace,
            call_timeout=settings.call_timeout,
            monotonic=time.monotonic,  # the clock of the snapshots
        )
        key = key_of(claimed)
        if not claimed.in_doubt:
            self._activity.step("claimed", claimed)
        self._live[key] = delivery
        self._note_seat(key, holds_seat=delivery.wait.holds_seat)
        return key

    def _note_seat(self, key: str, *, holds_seat: bool) -> bool:
        """Note whether a delivery holds a seat; whether that has set one free."""
        if holds_seat:
            self._seated.add(key)
            return False
        held_seat = key in self._seated
        self._seated.discard(key)
        return held_seat

    def _go_on(self, key: str) -> None:
        """Let a delivery take its next step: upon a snapshot that others need too, or at once."""
        wants, alone = self._live[key].wait.wants, len(self._live) == 1
        route = self._route(self._live[key].claim.target)
        if wants is None or alone or not route.is_snapshot_worth_it(time.monotonic()):
            self._step(key)
        else:
            route.snapshots.join(key, urgent=wants == "agent")

    def _step(self, key: str) -> None:
        self._stepping.add(key)
        self._submit(key, self._cancel_wakes(key).advance)

    def _cancel_wakes(self, key: str) -> Delivery:
        """Cancel what would wake a delivery up: its timer, and the snapshots of its run."""
        delivery = self._live[key]
        self._timers.pop(key, None)
        if delivery.run_id is not None:
            self._route(delivery.claim.target).snapshots.followed.pop(delivery.run_id, None)
        return delivery

    def _submit(self, key: str, job: Callable[[], Step | RunSnapshot | None]) -> None:
        looks = sum(route.snapshots.under_way for route in self._routes.values())
        most_threads = min(len(self._stepping) + looks, self._concurrency)
        self._pool.submit(key, job, most_threads)

    def _handle_result(self, key: str, result: Step | RunSnapshot | Read | JobError | None) -> bool:
        """Handle the result of a job. Returns whether there is something new to decide."""
        if key.startswith(REPLY):
            assert isinstance(result, Read | JobError)
            self.replies.handle(key, result, beside_deliveries=bool(self._live))
            return False
        if key.startswith(_SNAPSHOT):
            assert not isinstance(result, Step | Read)
            return self._handle_snapshot(
                self._route(recorded_target(key[len(_SNAPSHOT) :])), result
            )
        self._stepping.discard(key)
        if key not in self._live:  # handed back in the meantime
            return False
        assert isinstance(result, Step)
        return self._handle_step(key, result)

    def _handle_step(self, key: str, step: Step) -> bool:
        delivery = self._live[key]
        claimed = delivery.claim
        route = self._route(claimed.target)
        to_decide = bool(step.stalls) or (step.heard and bool(route.trouble))
        if step.heard:
            route.trouble.answered()
        if step.contradicts and route.trusts_snapshots:
            route.trusts_snapshots = False
            self._store.warn(
                "Letta's list of all active runs lacks some. Each is asked for by itself from now "
                "on, which takes longer."
            )
        if delivery.may_have_arrived and not claimed.in_doubt:
            self._activity.sent(key, claimed, delivery.run_id)
        for stalled in step.stalls:
            self.stalls.append((claimed, stalled))
            self._activity.stalled(claimed, stalled)
            if stalled.in_doubt:
                self._store.seldom.warn(
                    f"in doubt {stalled.code}",
                    f"{claimed.id} is in doubt: {sentence(stalled.error)}",
                )
        if isinstance(step.then, Wait):
            return self._handle_wait(key, step.then) or to_decide
        if isinstance(step.then, JobError):
            self._handle_bug(key, step.then)
        else:
            self._finish(key, step.then)
        return True

    def _handle_wait(self, key: str, wait: Wait) -> bool:
        """Let a delivery wait. Returns whether it has set a seat free."""
        self._start_timer(key, wait.seconds)
        run_id = self._live[key].run_id
        if wait.wants == "run" and run_id is not None:
            self._route(self._live[key].claim.target).snapshots.followed[run_id] = key
        return self._note_seat(key, holds_seat=wait.holds_seat)

    def _handle_bug(self, key: str, error: JobError) -> None:
        delivery = self._live[key]
        text = self._activity.broken(error.text, delivery.claim)
        self._store.seldom.warn(f"broke off {delivery.claim.id}", f"A delivery broke off: {text}")
        if delivery.may_have_arrived:
            in_doubt = delivery.claim._replace(in_doubt=True, run_id=delivery.run_id)
            self._start_timer(self._enter(in_doubt), _PAUSE_AFTER_A_BUG)
        else:
            self._finish(key, Abandoned("internal_error", "A bug kept it from being sent."))

    def _handle_snapshot(self, route: Route, result: RunSnapshot | JobError | None) -> bool:
        """Let the deliveries go on that waited for a snapshot, or whose runs it shows to be over.

        Returns whether there is something new to decide then.
        """
        snapshot = result if isinstance(result, RunSnapshot) else None
        if isinstance(result, JobError) and not result.expected:
            self._store.seldom.warn("snapshot", f"A look at the runs broke off: {result.text}")
        waited, over = route.snapshots.end(time.monotonic(), snapshot)
        to_decide = False
        for key in (*waited, *over):
            if key not in self._live or key in self._stepping:
                continue
            makes_no_call = None if snapshot is None else self._live[key].use(snapshot)
            if makes_no_call:
                to_decide = self._handle_step(key, self._cancel_wakes(key).advance()) or to_decide
            elif makes_no_call is not None or key in waited:
                self._step(key)
        return to_decide

    def _finish(self, key: str, outcome: Outcome) -> None:
        claimed = self._cancel_wakes(key).claim
        del self._live[key]
        self._note_seat(key, holds_seat=False)
        self._activity.over(key)
        self.outcomes.append((claimed, outcome))
        if not isinstance(outcome, Abandoned):
            return
        route = self._route(claimed.target)
        seconds = route.trouble.failed(claimed.agent_id, outcome.code, time.monotonic())
        if seconds is not None:
            self._store.log.record("held", state="held", code=outcome.code, seconds=seconds)
            self._store.seldom.warn(
                f"held {outcome.code}",
                f"{sentence(outcome.error)} No delivery to {route.target.traits.title} for "
                f"{seconds:g} s.",
            )

    def _start_timer(self, key: str, seconds: float) -> None:
        """Let a delivery go on after ``seconds``, or up to a quarter more.

        Timers meet on a grid, so that one snapshot of the runs serves several deliveries.
        """
        grid = 2.0 ** floor(log2(seconds / 4))
        self._timers[key] = ceil((time.monotonic() + seconds) / grid) * grid

    def _fire_timers(self) -> None:
        now = time.monotonic()
        for key in [key for key, due in self._timers.items() if due <= now]:
            del self._timers[key]
            self._go_on(key)
        self.seek_snapshot()


def key_of(claimed: Claim) -> str:
    """The key of an attempt.

    The slot alone isn't enough: an attempt that was adopted here may get its outcome elsewhere, and
    the slot may be claimed here again, before the adopted attempt has found that out.
    """
    return f"{slot_key(claimed.id, claimed.slot)}|{claimed.attempt}"
