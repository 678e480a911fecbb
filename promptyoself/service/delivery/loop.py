"""One pass of delivering, or one pass after another for ever.

Waiting, signals and wake-ups are here. What a pass does is in :mod:`.dispatcher`.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from types import FrameType

from promptyoself.core.clocks import TrustedClock
from promptyoself.core.errors import ChainError, PromptyoselfError, sentence
from promptyoself.core.instants import format_utc
from promptyoself.events.target_names import TargetName
from promptyoself.rules.due import due
from promptyoself.service.delivery.dispatcher import Dispatcher, new_worker_name
from promptyoself.service.delivery.notifier import Notifier
from promptyoself.service.delivery.report import Report, nothing_done, of_notices
from promptyoself.service.delivery.sealer import Sealer
from promptyoself.service.delivery.target_trouble import Trouble
from promptyoself.service.upkeep.clock_trust import ClockTrust
from promptyoself.service.upkeep.running_loop import record_pass
from promptyoself.store.store import Store
from promptyoself.targets.api import Targets

_POLL_SECONDS = 0.5
"""Seconds after which the log's size is read again, so that an append is seen within a second."""

BEAT_EVERY = 10.0
"""Seconds between two signs of life of a loop whose passes succeed."""

_TROUBLE_PAUSE = 5.0

_STOP_PATIENCE = 5.0
"""Seconds for deliveries under way when the loop is asked to stop; Docker kills after 10."""

_NOTICE_PATIENCE = 2.0
"""Then for notices under way, which would be sent again otherwise."""

_SENDING_SECONDS = 0.05
"""Seconds after which a loop looks whether a notice was taken, while one is being sent."""


class StopFlag:
    """Tells a loop to stop."""

    def __init__(self) -> None:
        self.why: str | None = None  # once it is to stop

    def set(self, why: str) -> None:
        """Let the loop stop. May be called from a signal handler or another thread."""
        self.why = why


class Heartbeat:
    """What a loop shows of itself to other threads."""

    def __init__(self) -> None:
        self.passes = 0  # that succeeded
        self.last: datetime | None = None  # when the latest of them was
        self.next_by = time.monotonic()  # when the next pass is to be over
        self.troubles: dict[TargetName, Trouble] = {}  # what keeps targets from us
        self.error = ""  # why the latest pass failed, if it did
        self.clock = ""  # what is wrong with the clock, if nothing is claimed because of it

    def passed(self, now: datetime, sleep: float) -> None:
        """A pass is over, and the next one comes in ``sleep`` seconds, or sooner."""
        self.passes += 1
        self.last = now
        self.error = ""
        self.next_by = time.monotonic() + max(sleep, 0.0)


@contextmanager
def stop_on_signals(stop: StopFlag) -> Iterator[None]:
    """Let SIGTERM and SIGINT set the flag. A second signal does what it did before."""

    def handler(number: int, _frame: FrameType | None) -> None:
        stop.set(signal.Signals(number).name)
        signal.signal(number, previous[signal.Signals(number)])

    previous = {
        number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)


def execute_once(
    store: Store,
    targets: Targets,
    clock: Callable[[], datetime],
    *,
    concurrency: int,
    deadline: float,
    stop: StopFlag,
) -> Report:
    """Deliver what is due now, and find out about what is in doubt, for ``deadline`` seconds.

    A caller who is pinned to an agent delivers to that agent alone, and claims no other's slots.
    Where there is nothing to do, one file is read. The time of the pass is left in the data
    directory.

    Raises:
        PromptyoselfError, OSError: the log could not be read or written.
    """
    began = clock()
    state = store.read().state
    store.require_whole()
    only = store.settings.only_agent
    claimed = any(slot.worker and only in (None, slot.agent_id) for slot in state.open.values())
    awaited = any(only in (None, reply.agent_id) for reply in state.replies.values())
    # Notices tell of all agents, and where they go is the operator's business.
    notifier = None if only is not None else Notifier(store, clock, lasts=False)
    owed = notifier is not None and notifier.has_work(state, began)
    is_due = next(due(state, format_utc(began), only), None) is not None
    if not (claimed or awaited or owed or is_due):
        record_pass(store, began)
        return nothing_done()
    store.prepare_workers()
    worker = new_worker_name()
    total = nothing_done()
    with store.workers.alive(worker):
        dispatcher = Dispatcher(
            store, targets, clock, worker=worker, mode="once", concurrency=concurrency, only=only
        )
        end = time.monotonic() + deadline
        try:
            while stop.why is None:
                report = dispatcher.tick(clock(), until=began)
                if notifier is not None:
                    report.notices.extend(notifier.tick(clock()))
                total.add(report)
                sending = notifier is not None and not notifier.idle
                if dispatcher.idle and not report and not sending:
                    break
                seconds_left = end - time.monotonic()
                if seconds_left <= 0:
                    break
                if not dispatcher.idle:
                    dispatcher.wait(min(seconds_left, _POLL_SECONDS))
                elif notifier is not None and sending:
                    notifier.wait(min(seconds_left, _POLL_SECONDS))
            why = stop.why or ("done" if dispatcher.idle else "deadline")
            total.add(dispatcher.stop(why, 0.0 if stop.why is None else _STOP_PATIENCE))
            if notifier is not None:
                patience = 0.0 if stop.why is None else _NOTICE_PATIENCE
                total.notices.extend(notifier.stop(patience))
        finally:
            dispatcher.close()  # before our lock goes, after which we count as dead
            if notifier is not None:
                notifier.close()
    record_pass(store, began)  # not before: a pass that fails is none
    return total


def run_loop(
    store: Store,
    targets: Targets,
    clock: Callable[[], datetime],
    *,
    concurrency: int,
    interval: float,
    stop: StopFlag,
    emit: Callable[[Report], None],
    heartbeat: Heartbeat | None = None,
    accept_clock: bool = False,
    elapsed: Callable[[], float] | None = None,
    worker: str | None = None,
) -> None:
    """Deliver until ``stop`` is set.

    ``interval`` is the longest sleep in seconds. ``emit`` gets the report of every pass that did
    anything. ``heartbeat`` is kept up to date.

    Nothing is claimed while the clock has leapt, by comparison with ``elapsed`` (by default, the
    machine's uptime), or is far behind the log. With ``accept_clock`` it is trusted.

    ``worker`` is a name that no other worker has had, where it says what this one serves.

    If the log is damaged or has lost events that were seen, the loop stays up, delivers nothing and
    says so once. It goes on once the log is whole again.

    Raises:
        ChainError: ``newer_events``; or the log is damaged at the end.
        PromptyoselfError, OSError: the log could not be written at the start or at the end.
    """
    store.prepare_workers()
    worker = worker or new_worker_name()
    trusted = None if accept_clock else TrustedClock(clock, elapsed or _uptime)
    clock = trusted or clock
    with store.workers.alive(worker):
        dispatcher = Dispatcher(
            store, targets, clock, worker=worker, mode="loop", concurrency=concurrency
        )
        clock_trust = ClockTrust(store, worker)
        sealer = Sealer(store)
        notifier = Notifier(store, clock)
        loop = _Loop(
            store, dispatcher, notifier, clock, worker, stop, emit, heartbeat or Heartbeat()
        )
        loop.beat()
        announced = False
        try:
            while stop.why is None:
                wake, stamp, pause = None, None, interval
                try:
                    if not announced:
                        dispatcher.announce(clock())
                        announced = True
                    stamp = store.stamp()  # before looking, so that no append slips by
                    store.require_whole(stamp)
                    if trusted is not None:
                        distrust = clock_trust.check(clock(), trusted.leap, stamp)
                        loop.heartbeat.clock = distrust
                        dispatcher.hold(claims=distrust != "")
                    loop.make_pass(stamp)
                    sealer.seal_if_due(clock())
                    wake = loop.next_wake()
                    loop.passed(wake, interval)
                except (PromptyoselfError, OSError) as error:
                    if not _may_pass(error, announced=announced):
                        raise
                    # What a failed write has left in the log is no reason to wake up.
                    pause, stamp = _TROUBLE_PAUSE, None
                    loop.failed(error, pause)
                loop.heartbeat.troubles = dispatcher.troubles
                loop.sleep(pause, wake, stamp)
            loop.report(dispatcher.stop(stop.why, _STOP_PATIENCE))
            loop.report(of_notices(notifier.stop(_NOTICE_PATIENCE)))
        except PromptyoselfError as error:
            store.log.record(error.message, level="error", state="ended", code=error.code)
            raise
        finally:
            dispatcher.close()
            notifier.close()
            sealer.close()
            clock_trust.leave()


@dataclass
class _Loop:
    """What a loop does between its passes, and lets others see of them."""

    store: Store
    dispatcher: Dispatcher
    notifier: Notifier
    clock: Callable[[], datetime]
    worker: str
    stop: StopFlag
    emit: Callable[[Report], None]
    heartbeat: Heartbeat
    beat_at: float = float("-inf")  # when the next sign of life is due
    damage: str = ""  # what the latest warning said of a log that isn't whole

    def make_pass(self, stamp: object) -> None:
        """Deliver what is due, and send what is owed, as far as the clock is trusted."""
        self.dispatcher.destinations = self.notifier.destinations
        self.report(self.dispatcher.tick(self.clock(), stamp=stamp))
        if not self.heartbeat.clock:
            self.report(of_notices(self.notifier.tick(self.clock(), stamp)))

    def next_wake(self) -> datetime | None:
        """When to make the next pass, as far as the clock decides."""
        wakes = [self.dispatcher.next_wake(self.clock())]
        if not self.heartbeat.clock:
            wakes.append(self.notifier.next_wake)
        return min((wake for wake in wakes if wake is not None), default=None)

    def report(self, report: Report) -> None:
        """Tell what a pass did."""
        try:
            if report:
                self.emit(report)
        except OSError as error:  # the reader of our output is gone; deliveries go on
            message = f"A report could not be written: {sentence(error)}"
            self.store.seldom.warn("report", message)

    def passed(self, wake: datetime | None, interval: float) -> None:
        """A pass has succeeded, and the next one comes at ``wake``, or within ``interval``."""
        now = self.clock()
        seconds_left = interval if wake is None else (wake - now).total_seconds()
        self.heartbeat.passed(now, min(interval, seconds_left))
        self.beat()
        self.damage = ""

    def failed(self, error: PromptyoselfError | OSError, pause: float) -> None:
        """Warn of a log that isn't whole once, and of anything else once a minute."""
        self.heartbeat.error = message = sentence(error)
        if not isinstance(error, ChainError):
            # The words of two errors of one kind may differ.
            kind = error.code if isinstance(error, PromptyoselfError) else f"errno {error.errno}"
            self.store.seldom.warn(kind, f"{message} Trying again in {pause:g} s.")
        elif message != self.damage:
            self.damage = message
            self.store.warn(f"{message} Nothing is delivered until that is mended.")

    def beat(self) -> None:
        """Give a sign of life, at most every :data:`BEAT_EVERY` seconds.

        A loop whose passes fail gives none, and a loop that is suspended or blocked can't.
        """
        if time.monotonic() >= self.beat_at:
            self.store.workers.beat(self.worker, self.clock().timestamp())
            self.notifier.beat()
            self.beat_at = time.monotonic() + BEAT_EVERY

    def sleep(self, seconds: float, wake: datetime | None, stamp: object) -> None:
        """Sleep until something is due, there is something to decide, or the log has grown.

        The clock is read again and again, so that a machine that was suspended, or whose clock was
        set, goes on at once.
        """
        end = time.monotonic() + seconds
        while self.stop.why is None and (seconds_left := end - time.monotonic()) > 0:
            if wake is not None:
                seconds_left = min(seconds_left, (wake - self.clock()).total_seconds())
            longest = _POLL_SECONDS if self.notifier.idle else _SENDING_SECONDS
            if seconds_left <= 0 or self.dispatcher.wait(min(seconds_left, longest)):
                return
            if self.notifier.has_news():
                return
            if not self.heartbeat.error:
                self.beat()
            with suppress(OSError):
                if stamp is not None and self.store.stamp() != stamp:
                    return


def _may_pass(error: Exception, *, announced: bool) -> bool:
    """Whether the loop goes on after an error.

    It does, since a full disk or a hanging process may go away, and a log may be restored. Outcomes
    are kept meanwhile. But before it was ``announced`` a loop ends over anything but its log, so
    that the person who starts it hears of it.
    """
    if isinstance(error, ChainError):
        return error.code != "newer_events"
    return announced


def _uptime() -> float:
    """Seconds since the machine was started, with those in which it slept where it counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
