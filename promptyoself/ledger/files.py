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
from promptyoself.ledger import segments
from promptyoself.ledger.batch import START, Batch, HeadMoved, Position, Torn
from promptyoself.ledger.folder_cache import FolderCache, Listing, state_of
from promptyoself.ledger.lock import ExclusiveLock
from promptyoself.ledger.replay import read

if TYPE_CHECKING:
    from promptyoself.ledger.envelope import Envelope
    from promptyoself.ledger.lookup import Borders, Lines
    from promptyoself.ledger.recovery import Recovery
    from promptyoself.ledger.sealing import Sealing

_ACTOR = {"via": "ledger", "who": "promptyoself"}


class FileLedger:
    """Events in a folder, hash-linked and never changed. Any number of processes share it.

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
        """Hold the one right to append, among all processes and threads; re-entrant in a thread.
        ``timeout`` is how many seconds to wait for it, if not the ledger's own time limit.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the holder, where another keeps it for
                longer.
        """
        # A context manager that is a generator costs an append a percent.
        return self._lock if timeout is None else self._lock.held(timeout)

    # --- appending --------------------------------------------------------------------------------

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """Add events after ``expecting``, all or none of them, at the time ``now``.

        When it returns they are durable: no crash or loss of power can undo them. When it raises,
        none of them is acknowledged; a reader may meet all or none of them afterwards only if the
        process died, or the device failed, in between. All get one ``ts``: ``now``, or the last
        event's where the clock has run back.
        The returned batch starts with the ledger's own events, where it had some to add.

        Without any ``drafts`` nothing is written, but everything up to ``expecting`` is durable
        when it returns: another writer may have died between writing it and making it so, and
        a caller that acknowledges what it found there ("exists already") vouches for it.

        Raises:
            HeadMoved: ``expecting`` is not the end of the chain.
            PromptyoselfError: ``lock_timeout``, ``event_too_large``.
            ChainError: the chain is damaged.
            OSError: the disk refused; the chain is as it was.
        """
        with self._lock:
            if drafts and self._cache.is_unchanged(expecting):
                return self._write(drafts, now, expecting)
            listing = self._cache.listing()
            if self._open is not None and not self._open.is_last_of(listing):
                self._close_segment()
            torn = self._require_end(expecting, listing)
            if not drafts:
                if expecting.seq:
                    self._disk.sync(self._folder / segments.segment_name(expecting.month))
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
        month, file = listing.months[-1]
        if (month, file.size) == (expecting.month, expecting.offset):
            return None
        for batch in self.replay(expecting):
            raise HeadMoved(expecting, batch.position.seq)
        return self.torn(expecting)

    def _repair(self, torn: Torn | None, listing: Listing) -> tuple[list[Draft], set[Path]]:
        """Move a torn end aside. Returns the events that record torn ends, also earlier ones that
        have no record yet, and the copies of those."""
        if torn is None and segments.QUARANTINE not in listing.marks:
            return [], set()
        from promptyoself.ledger.torn_ends import move_aside, pending_copies, records_of

        quarantine = self._folder / segments.QUARANTINE
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
        if segments.UNSETTLED in listing.marks:  # a process that put a month in place has died
            self._disk.fsync_directory(self._folder)
            self._disk.discard(self._folder / segments.UNSETTLED)
        if not expecting.seq:
            self._disk.sync_parents(self._folder)
        elif not self._cache.is_own_end(expecting):
            self._disk.sync(self._folder / segments.segment_name(expecting.month))

    def _write(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """Append the events of drafts after a position, which is the end, and make them durable."""
        from promptyoself.ledger.linking import chain_up

        envelopes, content, head, ts = chain_up(drafts, now, expecting)
        data = segments.compress(content)
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
            path = self._folder / segments.segment_name(month)
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
        """Every event after a position, each checked for its hash link, sequence, time and month.

        Takes no lock. Sees at least everything acknowledged before the call; an append under way
        is seen whole or not at all. Where the month of ``after`` has been sealed since, the place
        is found again, by its event: nothing is left out or given twice, and the first batch may
        be the rest of a larger one. Over a gap it goes on where the chain has a statement for
        exactly that gap, and says so in the batch.

        Raises:
            HeadMoved: ``after`` isn't on the chain (any more).
            ChainError: the chain is damaged; the batches before the damage have been yielded.
        """
        return (batch for batch in read(self._folder, self._cache, after) if batch.envelopes)

    def head(self, after: Position = START) -> Position:
        """The position after the last event, reading on from a known one. Where that has been
        sealed since, it is returned as it is now.

        Raises:
            HeadMoved, ChainError: as :meth:`replay`.
        """
        position = after
        for batch in read(self._folder, self._cache, after):
            position = batch.position
        return position

    def event(self, seq: int, month: str) -> Envelope | None:
        """The event of that number, which bears a time in that month; ``None`` where there is none.
        Reads a few members, however many events there are, and checks each by its checksum, not by
        its link: that is :meth:`replay`'s part.

        Raises:
            OSError: the disk refused.
        """
        lines = self.lines_around(seq, month)
        return None if lines is None else lines.event(seq)

    def lines_around(self, seq: int, month: str) -> Lines | None:
        """The member that has the event of that number, read as by :meth:`event`: for a caller who
        asks for other events of it next.

        Raises:
            OSError: the disk refused.
        """
        from promptyoself.ledger.lookup import Borders, seek

        if not segments.is_month(month):
            return None
        try:
            file = open_ours(self._folder / segments.segment_name(month))
        except FileNotFoundError:
            return None
        with file:
            state = os.fstat(file.fileno())
            identity = state.st_dev, state.st_ino
            known = self._borders.get(month)
            if known is None or known[0] != identity:
                known = self._borders[month] = identity, Borders([], [])
            return seek(file, state.st_size, seq, known[1])

    def newest_events(self, month: str) -> list[Envelope]:
        """Some of the last events of a month, oldest first. Each is checked by its checksum, not by
        its link.

        Raises:
            OSError: the disk refused.
        """
        from promptyoself.ledger.lookup import newest

        try:
            file = open_ours(self._folder / segments.segment_name(month))
        except FileNotFoundError:
            return []
        with file:
            return newest(file, os.fstat(file.fileno()).st_size)

    def end_before(self, month: str) -> Position:
        """The position after the last event before a month, to read on from there. It costs reading
        one month's file, and none of its events. A file that can't be read counts as none.

        Raises:
            OSError: the disk refused.
        """
        from promptyoself.ledger.lookup import end_before

        return end_before(self._folder, month)

    def torn(self, after: Position = START) -> Torn | None:
        """The half-written end, if there is one; the next append moves it aside. Without the lock
        held, it may be an append under way."""
        while True:
            position = self.head(after)
            months = self.months()
            if not months:
                return None
            month = months[-1]
            end = position.offset if month == position.month else 0
            with open_ours(self._folder / segments.segment_name(month)) as file:
                if end and not segments.ends_at(file, position):
                    continue  # the file was replaced since
                size = os.fstat(file.fileno()).st_size
                try:
                    next(segments.members_of(file, end), None)
                except segments.BrokenMember as broken:
                    return Torn(month, end, size - end, broken.cut_short)
                return None  # nothing, or an append that was under way, and is whole by now

    def holds(self, position: Position) -> bool:
        """Whether the position lies on this chain, as far as a bounded read can tell: its event is
        where it says, and the earlier segments have the size they had. False is always safe, and
        what one gets where something has been sealed since: the caller then replays from the
        start, which tells for certain."""
        return self._cache.holds(position)

    def stamp(self) -> object:
        """Something that differs whenever events have been appended since; as cheap as can be."""
        return self._cache.listing().months

    def stamp_at(self, position: Position) -> object | None:
        """The stamp of the chain, whose end a position is, where that :meth:`holds`; else ``None``.
        The caller holds the lock."""
        listing = self._cache.listing()
        return listing.months if self._cache.holds(position, listing) else None

    def months(self) -> list[str]:
        """The months that have events, oldest first; as cheap as :meth:`stamp`."""
        return [month for month, _ in segments.list_segments(self._folder)]

    # --- maintenance ------------------------------------------------------------------------------

    @contextmanager
    def sealing(self, timeout: float | None = None) -> Iterator[Sealing]:
        """Hold the one right to seal, among all processes and threads. It is another one than
        :meth:`exclusive`, so that nobody who appends has to wait for a month to be prepared; who
        holds that one must not ask for this one.

        ``timeout`` is how many seconds to wait for it, if not the ledger's own time limit.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the holder, where another keeps it for
                longer.
        """
        from promptyoself.ledger.sealing import Sealing

        sealing = Sealing(self._folder, self._disk, self.replay, self._clear_end)
        with self._seal_lock.held(timeout), closing(sealing):
            yield sealing

    @contextmanager
    def recovering(self) -> Iterator[Recovery]:
        """Hold the right to append and that to seal, and bring the chain back into service.

        Raises:
            PromptyoselfError: ``lock_timeout``.
        """
        from promptyoself.ledger.recovery import Recovery

        with self._seal_lock, self._lock:
            yield Recovery(self._folder, self._disk)

    def _clear_end(self, expecting: Position) -> None:
        """Require that the chain ends there, and move a torn end behind it aside. The next append
        records it."""
        torn = self._require_end(expecting, self._cache.listing())
        if torn is not None:
            from promptyoself.ledger.torn_ends import move_aside

            move_aside(self._folder, self._folder / segments.QUARANTINE, torn, self._disk)


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
