"""Sealing and repacking beside a loop's deliveries."""

import threading
import time
from collections.abc import Callable
from datetime import datetime

from promptyoself.core.errors import PromptyoselfError, sentence
from promptyoself.core.instants import format_utc
from promptyoself.service.upkeep.seal import has_unsealed, repack, seal
from promptyoself.store.store import Store, chains

_TRY_AGAIN_SECONDS = 3600.0
"""When months that are over are sealed after all, where that failed or another process was at it.
Repacking waits until the running month has grown again."""

_CHECK_SIZE_SECONDS = 600.0
"""Time between two checks of how much the running month has grown."""

_COUNT_FROM_BYTES = 4 * 1024 * 1024
"""How much it must have grown for its members to be counted."""

_PATIENCE_SECONDS = 2.0
"""For sealing under way when the loop ends, so that a month just rewritten gets its record."""


class Sealer:
    """Seals months that are over, and repacks the running one, in a thread of its own.

    That takes many seconds, in which deliveries must go on. The thread shares only files with them,
    as another process would. If the process dies at any point of it, no harm is done.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._thread: threading.Thread | None = None
        self._month = ""  # in which it was last checked for months to seal
        self._seal_again_at = 0.0  # by the monotonic clock
        self._check_size_at = 0.0  # by the monotonic clock
        self._checked_size = 0  # bytes of the running month when they were last checked

    def seal_if_due(self, now: datetime) -> None:
        """Begin, if there is something to seal or to repack.

        It costs nothing but for the first call in a month, and after a failure.

        Raises:
            ChainError, OSError: the log can't be read.
        """
        month, clock = format_utc(now)[:7], time.monotonic()
        if month == self._month and clock < min(self._seal_again_at, self._check_size_at):
            return
        if self._thread is not None and self._thread.is_alive():
            return
        snapshot = self._store.snapshot()
        work: list[Callable[..., object]] = []
        if month != self._month or clock >= self._seal_again_at:
            if has_unsealed(self._store, snapshot, now):
                work.append(seal)
            if self._desires_have_unsealed(now):
                work.append(_seal_desires)
            self._month, self._seal_again_at = month, float("inf")
        size = snapshot.position.offset
        if size < self._checked_size or size >= self._checked_size + _COUNT_FROM_BYTES:
            work.append(repack)
            self._checked_size = size
        self._check_size_at = clock + _CHECK_SIZE_SECONDS
        if work:
            self._thread = threading.Thread(target=self._run, args=(work, now), daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Wait a little for what is under way."""
        if self._thread is not None:
            self._thread.join(_PATIENCE_SECONDS)

    def _desires_have_unsealed(self, now: datetime) -> bool:
        try:
            return any(
                has_unsealed(chain, chain.snapshot(), now) for chain in chains(self._store)[1:]
            )
        except (PromptyoselfError, OSError):  # the commands about desires tell of it
            return False

    def _run(self, work: list[Callable[..., object]], now: datetime) -> None:
        store = Store(self._store.settings, self._store.actor, warn=self._store.warn)
        for job in work:
            try:
                done = job(store, now, timeout=0.0)
            except Exception as error:  # whatever it is, deliveries go on
                self._seal_again_at = time.monotonic() + _TRY_AGAIN_SECONDS
                if not (
                    isinstance(error, PromptyoselfError)
                    and error.code in ("lock_timeout", "head_moved")
                ):
                    self._store.seldom.warn(
                        "sealing", f"The log could not be sealed or compacted: {sentence(error)}"
                    )
                continue
            for month in done["sealed"] if isinstance(done, dict) else ():
                self._store.log.record("sealed", state="sealed", **month)
            if job is repack and done:
                self._store.log.record("compacted", state="compacted", members=done)


def _seal_desires(store: Store, now: datetime, *, timeout: float) -> object:
    return seal(store.desires, now, timeout=timeout)
