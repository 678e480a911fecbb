"""What speaks against a loop's clock: that it has leapt, or that the log is far ahead of it. Then
the loop claims nothing, and says so, also to ``doctor``, which runs in another process."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from promptyoself.core.clocks import LEAP
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import format_duration
from promptyoself.store.store import Store

__all__ = ["Distrust", "behind", "held_loops"]

_TELL = "Set it right; or, if it is right, "


def behind(store: Store, now: datetime, stamp: object = None) -> str:
    """What is wrong where the log's last event is far in the future; else nothing.

    Raises:
        ChainError: the log is damaged.
    """
    ts = store.index.load(stamp).position.ts
    if not ts or parse_utc(ts) - now <= LEAP:
        return ""
    ahead = format_duration(int((parse_utc(ts) - now).total_seconds()))
    return (
        f"The log's last event is of {ts}, {ahead} after now ({format_utc(now)}): this clock is "
        "behind, or one that wrote was ahead."
    )


class Distrust:
    """Tells of one loop's clock: once when it goes wrong, and once when it is right again."""

    def __init__(self, store: Store, worker: str) -> None:
        self._store = store
        self._path = store.settings.var / "workers" / f"{worker}.clock"
        self._told = ""

    def look(self, now: datetime, leap: timedelta, stamp: object) -> str:
        """What is wrong now, if anything; ``now`` is the time that is trusted, by which the clock
        has leapt.

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
        if way != self._told:
            self._tell(why, way)
        return why

    def leave(self) -> None:
        """Take away what was left for ``doctor``."""
        with suppress(OSError):
            self._store.disk.discard(self._path)

    def _tell(self, why: str, way: str) -> None:
        self._told = way
        if not way:
            self._store.warn("The clock is right again; deliveries go on.")
            self.leave()
            return
        what = "start the loop again" + ("." if way == "leap" else " with --accept-clock.")
        told = f"{why} Nothing is claimed. {_TELL}{what}"
        self._store.warn(told)
        with suppress(OSError):
            self._store.disk.replace(self._path, told.encode(), durable=False)


def held_loops(store: Store, living: list[str]) -> str:
    """What loops that are alive say of their clocks, where something is wrong with one."""
    for worker in living:
        with suppress(OSError, ValueError):
            path = store.settings.var / "workers" / f"{worker}.clock"
            return path.read_text("utf-8")[:1000]
    return ""
