"""The compact JSON index: the folded state and the position in the chain that it reflects.

It is never the only copy of anything. Whatever is wrong with it, it is made anew from the chain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from promptyoself.durable import Disk
from promptyoself.errors import ChainError
from promptyoself.index.form import decode_snapshot, encode_snapshot
from promptyoself.ledger import START, Envelope, Ledger, Position
from promptyoself.schedules import EMPTY, State, fold

__all__ = ["Index", "Snapshot"]


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
        """Whether the file is missing or bad, though there is something to write down."""
        return self._saved < 0 and self._latest is not None and self._latest.position != START

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
                    f"{snapshot.position.seq}: something has cut it off. The index was made anew."
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
            return decode_snapshot(self._path.read_bytes())[1].seq
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

    def save(self, snapshot: Snapshot) -> None:
        """Write it down, where that is worth it. The caller holds the ledger's lock.

        A large index isn't rewritten for every event: readers catch up with a few thousand events
        faster than anyone writes down a hundred thousand schedules. A disk that refuses is no
        error, since what the caller did is already in the log.
        """
        self._latest = snapshot
        behind = snapshot.position.seq - self._saved
        if self._saved >= 0 and behind < len(snapshot.state.schedules) // 16 - 64:
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
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return nothing, _Complaint("The index is missing", False, seen)
        except OSError as error:
            return nothing, _Complaint(f"The index can't be read ({error.strerror})", True, seen)
        try:
            found = Snapshot(*decode_snapshot(content))
        except ValueError as error:
            return nothing, _Complaint(f"The index is damaged ({error})", True, seen)
        if not self._ledger.holds(found.position):
            seq = found.position.seq
            complaint = f"The index (at event {seq}) does not fit the log"
            return nothing, _Complaint(complaint, True, max(seq, seen))
        self._saved = found.position.seq
        return found, None

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


def _chain_is_gone(path: Path, events: int) -> ChainError:
    known = f"its index knows of {events} events" if events else "it has an index"
    return ChainError(
        "chain_missing",
        f"There is no readable log in {path.parent}, but {known}.",
        "Restore the *.ndjson.gz files from a backup. To start anew, remove the index too.",
        events=events,
    )
