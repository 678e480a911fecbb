"""Whether a loop can trust its clock: it can't if the clock has leapt, or if the log is far ahead.

A loop that doesn't trust its clock claims nothing. It says so, and leaves a file for ``doctor``,
which runs in another process.
"""

from contextlib import suppress
from datetime import datetime, timedelta

from promptyoself.core.clocks import LEAP
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import format_duration
from promptyoself.store.store import Store


def behind(store: Store, now: datetime, stamp: object = None) -> str:
    """A sentence about a clock that is far behind the log's last event; ``""`` if it isn't.

    Raises:
        ChainError: the log is damaged.
    """
    ts = store.snapshot(stamp).position.ts
    if not ts or parse_utc(ts) - now <= LEAP:
        return ""
    ahead = format_duration(int((parse_utc(ts) - now).total_seconds()))
    return (
        f"The log's last event is of {ts}, {ahead} after now ({format_utc(now)}): this clock is "
        "behind, or one that wrote was ahead."
    )


class ClockTrust:
    """Warns once when one loop's clock goes wrong, and once when it is right again."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._path = store.settings.var / "workers" / f"{worker}.clock"
        self._reported = ""  # the way in which the clock was last reported to be wrong

    def check(self, now: datetime, leap: timedelta, stamp: object) -> str:
        """What is wrong with the clock, or ``""``. ``now`` is the trusted time. ``leap`` is how far
        the clock has leapt from it. ``stamp`` is the ledger's.

        Raises:
            ChainError: the log is damaged.
        """
        why, way = "", ""
        if leap:
            direction = "forward" if leap > timedelta(0) else "back"
            by = format_duration(max(int(abs(leap).total_seconds()), 1))
            why = f"The clock has leapt {direction} by {by}; by the machine's uptime it is "
            why += f"{format_utc(now)[:19]}Z."
            way = "leap" if leap > timedelta(0) else "leap back"
        elif why := behind(self._store, now, stamp):
            way = "behind"
        if way != self._reported:
            self._report(why, way)
        return why

    def leave(self) -> None:
        """Remove the file that is for ``doctor``."""
        with suppress(OSError):
            self._store.disk.discard(self._path)

    def _report(self, why: str, way: str) -> None:
        self._reported = way
        if not way:
            self._store.warn("The clock is right again; deliveries go on.")
            self.leave()
            return
        what = "start the loop again" + ("." if way == "leap" else " with --accept-clock.")
        warning = f"{why} Nothing is claimed. Set it right; or, if it is right, {what}"
        self._store.warn(warning)
        with suppress(OSError):
            self._store.disk.replace(self._path, warning.encode(), durable=False)


def held_loops(store: Store, living: list[str]) -> str:
    """The warning of a living loop that doesn't trust its clock; ``""`` if each does."""
    for worker in living:
        with suppress(OSError, ValueError):
            path = store.settings.var / "workers" / f"{worker}.clock"
            return path.read_text("utf-8")[:1000]
    return ""
