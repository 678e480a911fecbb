"""The embedded ledger: one folder of monthly segments, one lock."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from promptyoself import __version__
from promptyoself.core.disk import Disk, open_ours
from promptyoself.events.draft import Draft
from promptyoself.ledger.batch import START, Batch, HeadMoved, Position, Torn
from promptyoself.ledger.folder_cache import FolderCache, Listing, state_of
from promptyoself.ledger.lock import ExclusiveLock
from promptyoself.ledger.replay import read
from promptyoself.ledger.segments import (
    QUARANTINE,
    UNSETTLED,
    BrokenMember,
    compress,
    ends_at,
    is_month,
    list_segments,
    members_of,
    segment_name,
)

if TYPE_CHECKING:
    from promptyoself.ledger.envelope import Envelope
    from promptyoself.ledger.lookup import Borders
    from promptyoself.ledger.maintenance import Recovery, Sealing

_ACTOR = {"via": "ledger", "who": "promptyoself"}


class FileLedger:
    """A :class:`~promptyoself.ledger.protocol.Ledger` in a folder.

    An append is durable and whole because of this: under the lock, one gzip member is written with
    one ``write`` at the end of the month's file, then ``fsync`` is called, and before that on the
    folder if the file is new. A crash in between leaves a torn end or nothing. The next append
    moves a torn end to ``quarantine/`` (first a durable copy, then the cut), and records it in its
    own member.
    """

    def __init__(
        self, folder: Path, chain: str, *, lock_timeout: float = 10.0, disk: Disk | None = None
    ) -> None:
        """``chain`` names it in ``ledger.created``; ``lock_timeout`` is in seconds."""
        self._folder = folder
        self._chain = chain
        self._disk = disk or Disk()
        self._cache = FolderCache(folder)
        # The month's file that the last append has left open.
        self._open: _OpenSegment | None = None
        # For each month the device and the inode of its file, and where members start in that file.
        self._borders: dict[str, tuple[tuple[int, int], Borders]] = {}
        make = partial(self._disk.make_directory, folder)  # which doesn't refer to us
        self._lock = ExclusiveLock(folder / "lock", lock_timeout, make)
        self._seal_lock = ExclusiveLock(folder / "sealing", lock_timeout, make, "being sealed")

    def __del__(self) -> None:
        self._close_segment()

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """See :meth:`Ledger.exclusive`."""
        return self._lock.held(timeout)

    # --- appending --------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """See :meth:`Ledger.append`."""
        with self._lock:
            if drafts and self._cache.is_unchanged(expecting):
                return self._write(drafts, now, expecting)
            listing = self._cache.listing()
            if self._open is not None and not self._open.is_last_of(listing):
                self._close_segment()
            torn = self._require_end(expecting, listing)
            if not drafts:
                if expecting.seq:
                    self._disk.sync(self._folder / segment_name(expecting.month))
                return Batch([], expecting, b"")
            repairs, copies = self._repair(torn, listing)
            created = [] if expecting.seq else [self._creation()]
            self._sync_before(expecting, listing)
            batch = self._write([*created, *repairs, *drafts], now, expecting)
            for copy in copies:
                with suppress(OSError):  # the events are durable: the next append tries again
                    self._disk.rename(copy, copy.with_suffix(""))
            return batch

    def _require_end(self, expecting: Position, listing: Listing) -> Torn | None:
        """Require that the chain ends there; returns what follows, which can only be a torn end.

        Raises:
            HeadMoved: the position isn't on the chain, or events follow it.
        """
        if not self._cache.holds(expecting, listing):
            raise HeadMoved(expecting, 0)
        if not listing.months:
            return None
        month, found = listing.months[-1]
        if (month, found.size) == (expecting.month, expecting.offset):
            return None
        for batch in self.replay(expecting):
            raise HeadMoved(expecting, batch.position.seq)
        return self.torn(expecting)

    def _repair(self, torn: Torn | None, listing: Listing) -> tuple[list[Draft], set[Path]]:
        """Move a torn end aside. Returns the events that record torn ends, also earlier ones that
        have no record yet, and the copies of those."""
        if torn is None and QUARANTINE not in listing.marks:
            return [], set()
        from promptyoself.ledger.torn_ends import move_aside, pending_copies, records_of

        quarantine = self._folder / QUARANTINE
        copies = pending_copies(quarantine)
        if torn is not None:
            copies.add(move_aside(self._folder, quarantine, torn, self._disk))
        records = records_of(self._folder, copies)
        return [Draft(record, None, _ACTOR) for record in records], copies

    def _sync_before(self, expecting: Position, listing: Listing) -> None:
        """Make durable what others have left behind, up to the chain's end.

        A process may have died between writing and syncing. A disk may then keep what is appended
        to the same file and not what lies before it, and a hole before a whole member is damage,
        not a torn end.
        """
        if UNSETTLED in listing.marks:  # a process that put a month in place has died
            self._disk.fsync_directory(self._folder)
            self._disk.discard(self._folder / UNSETTLED)
        if not expecting.seq:
            self._disk.sync_parents(self._folder)
        elif not self._cache.is_own_end(expecting):
            self._disk.sync(self._folder / segment_name(expecting.month))

    def _write(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """Append the events of drafts after a position, which is the end, and make them durable."""
        from promptyoself.ledger.linking import chain_up

        envelopes, content, head, ts = chain_up(drafts, now, expecting)
        data = compress(content)
        month, start, earlier = ts[:7], expecting.offset, expecting.earlier
        if month != expecting.month:
            start, earlier = 0, earlier + start
        segment = self._open_segment(month, start)
        self._disk.append_to(segment.descriptor, segment.path, data, start)
        seq = expecting.seq + len(envelopes)
        end = Position(seq, head, ts, month, start + len(data), start, earlier)
        self._cache.note_append(end, segment.descriptor)
        return Batch(envelopes, end, content)

    def _open_segment(self, month: str, size: int) -> _OpenSegment:
        """A month's file of that size, open for appending."""
        if self._open is None or self._open.month != month:
            self._close_segment()
            path = self._folder / segment_name(month)
            descriptor = self._disk.open_to_append(path, size)
            file = state_of(os.fstat(descriptor))
            self._open = _OpenSegment(month, path, descriptor, file.device, file.inode)
        return self._open

    def _close_segment(self) -> None:
        segment, self._open = self._open, None
        if segment is not None:
            os.close(segment.descriptor)

    def _creation(self) -> Draft:
        from promptyoself.events.records import FORMAT, LedgerCreated

        record = LedgerCreated(FORMAT, self._chain, f"promptyoself {__version__}")
        return Draft(record, None, _ACTOR)

    # --- reading ----------------------------------------------------------------------------------

    def replay(self, after: Position = START) -> Iterator[Batch]:
        """See :meth:`Ledger.replay`."""
        return (batch for batch in read(self._folder, self._cache, after) if batch.envelopes)

    def head(self, after: Position = START) -> Position:
        """See :meth:`Ledger.head`."""
        position = after
        for batch in read(self._folder, self._cache, after):
            position = batch.position
        return position

    def event(self, seq: int, month: str) -> Envelope | None:
        """See :meth:`Ledger.event`."""
        from promptyoself.ledger.lookup import Borders, seek

        if not is_month(month):
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self._folder / segment_name(month), flags)
        except FileNotFoundError:
            return None
        with open(descriptor, "rb", buffering=0) as file:
            found = os.fstat(descriptor)
            identity = found.st_dev, found.st_ino
            known = self._borders.get(month)
            if known is None or known[0] != identity:
                known = self._borders[month] = identity, Borders([], [])
            return seek(file, found.st_size, seq, known[1])

    def torn(self, after: Position = START) -> Torn | None:
        """See :meth:`Ledger.torn`."""
        while True:
            position = self.head(after)
            segments = list_segments(self._folder)
            if not segments:
                return None
            month = segments[-1][0]
            end = position.offset if month == position.month else 0
            with open_ours(self._folder / segment_name(month)) as file:
                if end and not ends_at(file, position):
                    continue  # the file was replaced since
                size = os.fstat(file.fileno()).st_size
                try:
                    next(members_of(file, end), None)
                except BrokenMember as broken:
                    return Torn(month, end, size - end, broken.cut_short)
                return None  # nothing, or an append that was under way, and is whole by now

    def holds(self, position: Position) -> bool:
        """See :meth:`Ledger.holds`."""
        return self._cache.holds(position)

    def stamp(self) -> object:
        """See :meth:`Ledger.stamp`."""
        return self._cache.listing().months

    def stamp_at(self, position: Position) -> object | None:
        """See :meth:`Ledger.stamp_at`."""
        return self._cache.stamp_at(position)

    def months(self) -> list[str]:
        """See :meth:`Ledger.months`."""
        return [month for month, _ in list_segments(self._folder)]

    # --- maintenance ------------------------------------------------------------------------------

    @contextmanager
    def sealing(self, timeout: float | None = None) -> Iterator[Sealing]:
        """See :meth:`Ledger.sealing`."""
        from promptyoself.ledger.sealing import FileSealing

        sealing = FileSealing(self._folder, self._disk, self.replay, self._clear_end)
        with self._seal_lock.held(timeout), closing(sealing):
            yield sealing

    @contextmanager
    def recovering(self) -> Iterator[Recovery]:
        """See :meth:`Ledger.recovering`."""
        from promptyoself.ledger.recovery import FileRecovery

        with self._seal_lock, self._lock:
            yield FileRecovery(self._folder, self._disk)

    def _clear_end(self, expecting: Position) -> None:
        """Require that the chain ends there, and move a torn end behind it aside. The next append
        records it."""
        torn = self._require_end(expecting, self._cache.listing())
        if torn is not None:
            from promptyoself.ledger.torn_ends import move_aside

            move_aside(self._folder, self._folder / QUARANTINE, torn, self._disk)


class _OpenSegment(NamedTuple):
    """A month's file that is open for appending."""

    month: str
    path: Path
    descriptor: int
    device: int
    inode: int

    def is_last_of(self, listing: Listing) -> bool:
        """Whether this is the file of the last month. Another file may have its name by now."""
        if not listing.months:
            return False
        last = listing.months[-1][1]
        return (last.device, last.inode) == (self.device, self.inode)
