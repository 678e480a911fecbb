"""Delivering: one pass, or one pass after another for ever.

The bodies are functions called with a time and a clock; waiting, signals and wake-ups are here.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from types import FrameType
from typing import Any

from promptyoself.core.clocks import TrustedClock
from promptyoself.core.errors import ChainError, PromptyoselfError, sentence
from promptyoself.core.instants import format_utc
from promptyoself.service.delivery.dispatcher import Dispatcher, Report, Trouble, new_worker_name
from promptyoself.service.upkeep.attendance import note_pass
from promptyoself.service.upkeep.clock_trust import Distrust
from promptyoself.service.upkeep.seal import has_unsealed, repack, seal
from promptyoself.state.schedules import due
from promptyoself.store.store import Store, chains
from promptyoself.targets.api import LettaApi

__all__ = ["BEAT_EVERY", "Heartbeat", "StopFlag", "execute_once", "run_loop", "stop_on_signals"]

_LOOK_EVERY = 0.5
"""Seconds between looks at the log's size, so that another's append is seen within a second."""

BEAT_EVERY = 10.0
"""Seconds between two signs of life of a loop whose passes succeed."""

_TROUBLE_PAUSE = 5.0

_STOP_PATIENCE = 5.0
"""Seconds for deliveries under way when the loop is asked to stop; Docker kills after 10."""

_SEAL_AGAIN = 3600.0
"""Seconds until months that are over are sealed after all, where that failed or somebody else was
at it. Compacting waits until the running month has grown again."""

_LOOK_AGAIN = 600.0
"""Seconds between looks at how much the running month has grown."""

_WORTH_A_LOOK = 4 * 1024 * 1024
"""Bytes by which it must have grown for its members to be counted."""

_SEAL_PATIENCE = 2.0
"""Seconds for sealing under way at the end, so that a month just rewritten gets its record."""


class StopFlag:
    """Whether the loop was asked to stop, and by what."""

    def __init__(self) -> None:
        self.why: str | None = None

    def ask(self, why: str) -> None:
        """Ask for it. May be called from a signal handler or another thread."""
        self.why = why


class Heartbeat:
    """What a loop shows of itself to other threads.

    ``next_by`` is when it means to have made its next pass, by the monotonic clock; ``trouble``
    what keeps Letta from us, if anything does; ``error`` why the latest pass failed, if it did;
    ``clock`` what is wrong with the clock, for which nothing is claimed.
    """

    def __init__(self) -> None:
        self.passes = 0
        self.last: datetime | None = None
        self.next_by = time.monotonic()
        self.trouble: Trouble | None = None
        self.error = ""
        self.clock = ""

    def passed(self, now: datetime, sleep: float) -> None:
        """A pass is over, and the next one comes in so many seconds, or sooner."""
        self.passes += 1
        self.last = now
        self.error = ""
        self.next_by = time.monotonic() + max(sleep, 0.0)


@contextmanager
def stop_on_signals(stop: StopFlag) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask for it, once; a second one does what it always did."""

    def handler(number: int, _frame: FrameType | None) -> None:
        stop.ask(signal.Signals(number).name)
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
    letta: LettaApi,
    clock: Callable[[], datetime],
    *,
    concurrency: int,
    deadline: float,
    stop: StopFlag,
) -> Report:
    """Deliver what is due now, and settle what is in doubt; give up after ``deadline`` seconds. A
    caller who is pinned to an agent does so for that agent alone: others' slots are never held by
    it, and wait for nothing that it does.

    Where there is nothing to do, it reads one file, and leaves word that it was there.

    Raises:
        PromptyoselfError, OSError: the log could not be read or written.
    """
    began = clock()
    state = store.read().state
    store.require_whole()
    only = store.settings.only_agent
    claimed = any(slot.worker and only in (None, slot.agent_id) for slot in state.open.values())
    if not claimed and next(due(state, format_utc(began), only), None) is None:
        note_pass(store, began)
        return Report([], [])
    store.prepare_workers()
    worker = new_worker_name()
    total = Report([], [])
    with store.workers.alive(worker):
        dispatcher = Dispatcher(
            store,
            letta,
            clock,
            worker=worker,
            mode="once",
            concurrency=concurrency,
            only=only,
        )
        end = time.monotonic() + deadline
        try:
            while stop.why is None:
                report = dispatcher.tick(clock(), until=began)
                _add(total, report)
                if dispatcher.idle and not report:
                    break
                left = end - time.monotonic()
                if left <= 0:
                    break
                if not dispatcher.idle:
                    dispatcher.wait(min(left, _LOOK_EVERY))
            why = stop.why or ("done" if dispatcher.idle else "deadline")
            _add(total, dispatcher.stop(why, 0.0 if stop.why is None else _STOP_PATIENCE))
        finally:
            dispatcher.close()  # before our lock goes, after which we count as dead
    note_pass(store, began)  # not before: a pass that fails is none
    return total


def run_loop(
    store: Store,
    letta: LettaApi,
    clock: Callable[[], datetime],
    *,
    concurrency: int,
    interval: float,
    stop: StopFlag,
    emit: Callable[[Report], None],
    pulse: Heartbeat | None = None,
    accept_clock: bool = False,
    elapsed: Callable[[], float] | None = None,
) -> None:
    """Deliver until asked to stop. ``interval`` is the longest sleep in seconds; ``emit`` gets the
    report of every pass that did anything; ``pulse`` is kept up to date.

    Where the clock leaps, by comparison with ``elapsed`` (by default, the machine's uptime), or is
    far behind the log, nothing is claimed until it is back; with ``accept_clock`` it is taken as it
    is.

    Where the log is damaged or has lost events that were seen, the loop stays up, delivers nothing
    and says so once. It goes on once the log is whole again.

    Raises:
        ChainError: ``newer_events``; or the log is damaged at the end.
        PromptyoselfError, OSError: the log could not be written at the start or at the end.
    """
    store.prepare_workers()
    worker = new_worker_name()
    trusted = None if accept_clock else TrustedClock(clock, elapsed or _uptime)
    clock = trusted or clock
    with store.workers.alive(worker):
        dispatcher = Dispatcher(
            store, letta, clock, worker=worker, mode="loop", concurrency=concurrency
        )
        distrust = Distrust(store, worker)
        sealer = _Sealer(store)
        pulse = pulse or Heartbeat()
        beat = _Beat(store, worker, clock)
        beat()
        announced, troubles = False, _Troubles(store, pulse)
        try:
            while stop.why is None:
                wake, stamp, pause = None, None, interval
                try:
                    if not announced:
                        dispatcher.announce(clock())
                        announced = True
                    stamp = store.ledger.stamp()  # before looking, so that no append slips by
                    store.require_whole(stamp)
                    if trusted is not None:
                        pulse.clock = distrust.look(clock(), trusted.leap, stamp)
                        dispatcher.hold(claims=pulse.clock != "")
                    _tell(store, dispatcher.tick(clock(), stamp=stamp), emit)
                    sealer.look(clock())
                    wake = dispatcher.next_wake(clock())
                    now = clock()
                    left = interval if wake is None else (wake - now).total_seconds()
                    pulse.passed(now, min(interval, left))
                    beat()
                    troubles.over()
                except (PromptyoselfError, OSError) as error:
                    if not troubles.may_pass(error, announced=announced):
                        raise
                    # What a write that failed has left behind is no news to wake up for.
                    pause, stamp = _TROUBLE_PAUSE, None
                    troubles.tell(error, pause)
                pulse.trouble = dispatcher.latest_trouble
                _sleep(store, dispatcher, clock, pause, wake, stamp, stop, pulse, beat)
            _tell(store, dispatcher.stop(stop.why, _STOP_PATIENCE), emit)
        except PromptyoselfError as error:
            store.log.note(error.message, level="error", state="ended", code=error.code)
            raise
        finally:
            dispatcher.close()
            sealer.leave()
            distrust.leave()


def _uptime() -> float:
    """Seconds since the machine was started, those too in which it slept, where it counts them."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class _Troubles:
    """What keeps passes from being made: told, and waited out."""

    def __init__(self, store: Store, pulse: Heartbeat) -> None:
        self._store = store
        self._pulse = pulse
        self._damage = ""  # what was told of a log that isn't whole

    def may_pass(self, error: Exception, *, announced: bool) -> bool:
        """Whether it may pass by itself: a full disk or a hanging process may go away, and a log
        may be restored. What has an outcome keeps it meanwhile. At the start a loop ends over
        anything but its log, so that whoever starts it hears of it."""
        if isinstance(error, ChainError):
            return error.code != "newer_events"
        return announced

    def tell(self, error: PromptyoselfError | OSError, pause: float) -> None:
        """Tell it: of the log once, and of anything else once a minute."""
        self._pulse.error = said = sentence(error)
        if not isinstance(error, ChainError):
            self._store.seldom.warn(_kind_of(error), f"{said} Trying again in {pause:g} s.")
        elif said != self._damage:
            self._damage = said
            self._store.warn(f"{said} Nothing is delivered until that is mended.")

    def over(self) -> None:
        """A pass was made."""
        self._damage = ""


class _Beat:
    """Gives a sign of life, but no more often than that is of use to anyone. A loop whose passes
    fail gives none, and a loop that is stopped or blocked can't."""

    def __init__(self, store: Store, worker: str, clock: Callable[[], datetime]) -> None:
        self._workers = store.workers
        self._worker = worker
        self._clock = clock
        self._next = float("-inf")

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._workers.beat(self._worker, self._clock().timestamp())
            self._next = time.monotonic() + BEAT_EVERY


class _Sealer:
    """Seals months that are over, and repacks the running one, in a thread of its own: that takes
    many seconds, in which deliveries must go on. It shares nothing with them but the files, as
    another process would, and dying with the process at any point of its work does no harm."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread: threading.Thread | None = None
        self._month = ""
        self._again = 0.0
        self._look_again = 0.0
        self._compacted = 0  # the size of the running month when it was last looked at

    def look(self, now: datetime) -> None:
        """Begin, if there is something to seal. But for the first look in a month, and after a
        failure, it costs nothing.

        Raises:
            ChainError, OSError: the log can't be read.
        """
        month, clock = format_utc(now)[:7], time.monotonic()
        if month == self._month and clock < min(self._again, self._look_again):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        snapshot = self._store.index.load()
        work: list[Callable[..., object]] = []
        if month != self._month or clock >= self._again:
            if has_unsealed(self._store, snapshot, now):
                work.append(seal)
            if self._desires_have_unsealed(now):
                work.append(_seal_desires)
            self._month, self._again = month, float("inf")
        size = snapshot.position.offset
        if size < self._compacted or size >= self._compacted + _WORTH_A_LOOK:
            work.append(repack)
            self._compacted = size
        self._look_again = clock + _LOOK_AGAIN
        if work:
            self._thread = threading.Thread(target=self._run, args=(work, now), daemon=True)
            self._thread.start()

    def _desires_have_unsealed(self, now: datetime) -> bool:
        try:
            return any(
                has_unsealed(chain, chain.index.load(), now) for chain in chains(self._store)[1:]
            )
        except (PromptyoselfError, OSError):  # no concern of the schedules; who asks for one hears
            return False

    def leave(self) -> None:
        """Wait a little for what is under way."""
        if self._thread is not None:
            self._thread.join(_SEAL_PATIENCE)

    def _run(self, work: list[Callable[..., object]], now: datetime) -> None:
        store = Store(self._store.settings, self._store.actor, warn=self._store.warn)
        for each in work:
            try:
                done = each(store, now, timeout=0.0)
            except Exception as error:  # whatever it is, deliveries go on
                self._again = time.monotonic() + _SEAL_AGAIN
                if not (
                    isinstance(error, PromptyoselfError)
                    and error.code in ("lock_timeout", "head_moved")
                ):
                    self._store.seldom.warn(
                        "sealing", f"The log could not be sealed or compacted: {sentence(error)}"
                    )
                continue
            for month in done["sealed"] if isinstance(done, dict) else ():
                self._store.log.note("sealed", state="sealed", **month)
            if each is repack and done:
                self._store.log.note("compacted", state="compacted", members=done)


def _seal_desires(store: Store, now: datetime, *, timeout: float) -> dict[str, Any]:
    return seal(store.desires, now, timeout=timeout)


def _sleep(
    store: Store,
    dispatcher: Dispatcher,
    clock: Callable[[], datetime],
    seconds: float,
    wake: datetime | None,
    stamp: object,
    stop: StopFlag,
    pulse: Heartbeat,
    beat: Callable[[], None],
) -> None:
    """Until something is due, a delivery has something to say, or the log has grown.

    The wall clock is looked at every time, so that a machine that was suspended, or whose clock
    was set, goes on at once.
    """
    end = time.monotonic() + seconds
    while stop.why is None and (left := end - time.monotonic()) > 0:
        if wake is not None:
            left = min(left, (wake - clock()).total_seconds())
        if left <= 0 or dispatcher.wait(min(left, _LOOK_EVERY)):
            return
        if not pulse.error:
            beat()
        with suppress(OSError):
            if stamp is not None and store.ledger.stamp() != stamp:
                return


def _kind_of(error: PromptyoselfError | OSError) -> str:
    """What tells one trouble from another, though its words may differ."""
    return error.code if isinstance(error, PromptyoselfError) else f"errno {error.errno}"


def _tell(store: Store, report: Report, emit: Callable[[Report], None]) -> None:
    try:
        if report:
            emit(report)
    except OSError as error:  # whoever read our output is gone; deliveries go on
        store.seldom.warn("report", f"A report could not be written: {sentence(error)}")


def _add(total: Report, report: Report) -> None:
    total.executed.extend(report.executed)
    total.skipped.extend(report.skipped)
