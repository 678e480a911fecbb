"""The compact JSON index: the folded state and the position in the chain that it reflects.

It is never the only copy of anything. Whatever is wrong with it, it is made anew from the chain.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from promptyoself.durable import Disk
from promptyoself.errors import ChainError
from promptyoself.index.form import decode_snapshot, encode_snapshot
from promptyoself.ledger import START, Envelope, Ledger, Position
from promptyoself.schedules import EMPTY, State, fold

__all__ = ["Index", "Snapshot"]


_LOOKS = (0.0, 0.0, 0.005, 0.05)
"""Sealing replaces the index and a part of the log, one right after the other. Whoever looks in
between looks again, after so many seconds, before he reads the whole log."""


class Snapshot(NamedTuple):
    """The state at a position of the chain."""

    state: State
    position: Position


class _Complaint(NamedTuple):
    """What is wrong with the index file, whether there is one, and the event it claims to be at."""

    text: str
    exists: bool
    seq: int = 0


class Index:
    """Answers "how do things stand?" without reading the whole chain."""

    def __init__(
        self, path: Path, ledger: Ledger, warn: Callable[[str], None], disk: Disk | None = None
    ) -> None:
        """``warn`` gets one sentence when the index had to be made anew."""
        self._path = path
        self._ledger = ledger
        self._warn = warn
        self._disk = disk or Disk()
        self._latest: Snapshot | None = None
        self._saved = 0  # the event up to which the file is good; -1 where it isn't

    @property
    def is_stale(self) -> bool:
        """Whether the file is missing or bad, though there is something to write down; but not
        where it knows of events that the log has lost: then it is the one witness of that."""
        if self._saved >= 0 or self._latest is None or self._latest.position == START:
            return False
        return self.known_seq() <= self._latest.position.seq

    def load(self) -> Snapshot:
        """The state at the chain's end, from the index where it fits, else by a full replay.

        Raises:
            ChainError: the chain is damaged, or gone while the index is still there.
        """
        start, complaint = self._start()
        snapshot = self._replay(start)
        if complaint:
            self._require_chain(snapshot.position, complaint)
            if snapshot.position.seq < complaint.seq:
                self._warn(
                    f"The index knew of {complaint.seq} events, but the log ends at event "
                    f"{snapshot.position.seq}: something has cut it off. Restore it from a backup "
                    "before anything is written here."
                )
            elif snapshot.position != START:
                self._warn(f"{complaint.text}; it was made anew from the log.")
        self._latest = snapshot
        return snapshot

    def known_seq(self) -> int:
        """The event up to which the file has seen the chain; 0 where it can't tell.

        A witness, not a proof: it is written after the events are durable, so a chain that is
        shorter was cut off since.
        """
        try:
            return decode_snapshot(_read(self._path))[1].seq
        except (OSError, ValueError):
            return 0

    def rebuild(self) -> Snapshot:
        """The state by a full replay, whatever the index says.

        Raises:
            ChainError: the chain is damaged, or gone while the index is still there.
        """
        snapshot = self._replay(Snapshot(EMPTY, START))
        self._require_chain(snapshot.position, _Complaint("", self._path.exists()))
        self._latest = snapshot
        self._saved = -1
        return snapshot

    def save(self, snapshot: Snapshot, *, moved: bool = False) -> None:
        """Write it down, where that is worth it. The caller holds the ledger's lock.

        A large index isn't rewritten for every event: readers catch up with a few thousand events
        faster than anyone writes down a hundred thousand schedules. ``moved`` says that the file's
        position fits no longer, so that it is worth it in any case. A disk that refuses is no
        error, since what the caller did is already in the log.
        """
        self._latest = snapshot
        behind = snapshot.position.seq - self._saved
        worth = moved or self._saved < 0 or behind >= len(snapshot.state.schedules) // 16 - 64
        if not worth:
            return
        try:
            self._disk.replace(self._path, encode_snapshot(*snapshot), durable=False)
        except OSError as error:
            self._warn(
                f"The index could not be written ({error.strerror}); the log has everything."
            )
            return
        self._saved = snapshot.position.seq

    def _start(self) -> tuple[Snapshot, _Complaint | None]:
        if self._latest is not None and self._ledger.holds(self._latest.position):
            return self._latest, None
        nothing = Snapshot(EMPTY, START)
        seen = self._latest.position.seq if self._latest else 0
        self._saved = -1
        complaint = ""
        for pause in _LOOKS:
            if pause:
                time.sleep(pause)
            try:
                content = _read(self._path)
            except FileNotFoundError:
                return nothing, _Complaint("The index is missing", False, seen)
            except OSError as error:
                complaint = f"The index can't be read ({error.strerror})"
                return nothing, _Complaint(complaint, True, seen)
            try:
                found = Snapshot(*decode_snapshot(content))
            except ValueError as error:
                return nothing, _Complaint(f"The index is damaged ({error})", True, seen)
            if self._ledger.holds(found.position):
                self._saved = found.position.seq
                return found, None
            seen = max(seen, found.position.seq)
            complaint = f"The index (at event {found.position.seq}) does not fit the log"
        return nothing, _Complaint(complaint, True, seen)

    def _require_chain(self, position: Position, complaint: _Complaint) -> None:
        """An index is written after the first event is durable: a chain that isn't there, though
        an index is, or was seen by this process, has been taken away; it isn't new."""
        if position == START and (complaint.exists or complaint.seq):
            raise _chain_is_gone(self._path, complaint.seq)

    def _replay(self, start: Snapshot) -> Snapshot:
        position = start.position

        def envelopes() -> Iterator[Envelope]:
            nonlocal position
            for batch in self._ledger.replay(start.position):
                yield from batch.envelopes
                position = batch.position

        return Snapshot(fold(start.state, envelopes()), position)


def _read(path: Path) -> bytes:
    # Without waiting for somebody to write, should a pipe lie there.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _chain_is_gone(path: Path, events: int) -> ChainError:
    known = f"its index knows of {events} events" if events else "it has an index"
    return ChainError(
        "chain_missing",
        f"There is no readable log in {path.parent}, but {known}.",
        "Look at --var and PROMPTYOSELF_VAR with `promptyoself doctor`. If it is the right place, "
        "restore the *.ndjson.gz files from a backup and run `promptyoself verify`. To start anew, "
        "remove the index too.",
        events=events,
    )
