"""The embedded ledger: one folder of monthly segments, one lock."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from promptyoself import __version__
from promptyoself.core.cancellation import check
from promptyoself.core.disk import Disk, is_ours, open_ours
from promptyoself.core.errors import ChainError
from promptyoself.events.draft import Draft
from promptyoself.ledger.lock import ExclusiveLock
from promptyoself.ledger.position import START, Position
from promptyoself.ledger.protocol import Batch, BatchAfterGap, HeadMoved, Torn
from promptyoself.ledger.segments import (
    SUFFIX,
    UNSETTLED,
    BrokenMember,
    broken_member,
    compress,
    find,
    has_member_after,
    is_foreign,
    is_month,
    link,
    list_segments,
    members_of,
    segment_name,
    stands,
    stat_segments,
)

if TYPE_CHECKING:
    from promptyoself.ledger.envelope import Envelope
    from promptyoself.ledger.lookup import Borders
    from promptyoself.ledger.maintenance import Recovery, Sealing
    from promptyoself.ledger.statements import Bridges

__all__ = ["FileLedger"]

_ACTOR = {"via": "ledger", "who": "promptyoself"}
_QUARANTINE = "quarantine"
_MARKS = frozenset((_QUARANTINE, UNSETTLED))
_TICK_SECONDS = 0.1  # ten of the longest tick that Linux is built with


class FileLedger:
    """A :class:`~promptyoself.ledger.protocol.Ledger` in a folder.

    What makes an append durable and whole: under the lock, one ``write`` of one gzip member at the
    end of the month's file, then ``fsync``, and of the folder where the file is new. A crash
    before that leaves a torn end or nothing; the next append moves a torn end to ``quarantine/``
    (a durable copy first, then the cut), and records it in its own member.
    """

    def __init__(
        self, folder: Path, chain: str, *, lock_timeout: float = 10.0, disk: Disk | None = None
    ) -> None:
        """``chain`` names it in ``ledger.created``; ``lock_timeout`` is in seconds."""
        self._folder = folder
        self._place = str(folder)
        self._chain = chain
        self._disk = disk or Disk()
        self._durable: Position | None = None  # the end of our own last append
        # What was last found to stand, and the file as it was before that was looked at. Whoever
        # changes it changes this too, so it needn't be read again while it is the same.
        self._stood: tuple[Position, _FileState] | None = None
        self._listed: _Listed | None = None
        self._tail: _Tail | None = None
        self._borders: dict[str, tuple[tuple[int, int], Borders]] = {}
        make = partial(self._disk.make_directory, folder)  # which doesn't refer to us
        self._lock = ExclusiveLock(folder / "lock", lock_timeout, make)
        self._seal_lock = ExclusiveLock(folder / "sealing", lock_timeout, make, "being sealed")

    def __del__(self) -> None:
        if self._tail is not None:
            os.close(self._tail.descriptor)

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """See :meth:`Ledger.exclusive`."""
        return self._lock.held(timeout)

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """See :meth:`Ledger.append`."""
        with self._lock:
            segments: Sequence[_Month] = ()
            marks: frozenset[str] = frozenset()
            pending: set[Path] = set()
            at_rest = bool(drafts) and self._rests_at(expecting)
            if not at_rest:
                segments, marks = self._look()
                torn = self._require_end(expecting, segments)
                if not drafts:
                    if expecting.seq:
                        self._disk.sync(self._folder / segment_name(expecting.month))
                    return Batch([], expecting, b"")
                repairs: list[Draft] = []
                if torn is not None or _QUARANTINE in marks:
                    repairs, pending = self._repairs(torn)
                if repairs or not expecting.seq:
                    first = [] if expecting.seq else [self._genesis()]
                    drafts = [*first, *repairs, *drafts]
            from promptyoself.ledger.linking import chain_up

            envelopes, content, head, ts = chain_up(drafts, now, expecting)
            data = compress(content)
            seq, month, tail = expecting.seq + len(envelopes), ts[:7], self._tail
            start, earlier = expecting.offset, expecting.earlier
            if month != expecting.month:
                start, earlier = 0, earlier + start
            if not at_rest or tail is None or tail.month != month:
                self._settle(expecting, month, marks)
                tail = self._opened(month, start, segments)
            self._disk.append_to(tail.descriptor, tail.path, data, start)
            for copy in pending:
                with suppress(OSError):  # the events are durable: the next append tries again
                    self._disk.rename(copy, copy.with_suffix(""))
            self._durable = end = Position(seq, head, ts, month, start + len(data), start, earlier)
            self._stood = end, _state_of(os.fstat(tail.descriptor))
            return Batch(envelopes, end, content)

    def _rests_at(self, position: Position) -> bool:
        """Whether all is as our last append left it, and that ended there: then nobody else has
        added anything or left anything to be done. Two ``stat`` calls, whatever there is to know.
        """
        left = self._left_at(position)
        if left is None or left[0].marks:
            return False
        known, last = left
        try:
            return (
                _state_of(os.stat(self._place)) == known.folder
                and _state_of(os.lstat(known.last)) == last
            )
        except FileNotFoundError:
            return False

    def _left_at(self, position: Position) -> tuple[_Listed, _FileState] | None:
        """What the folder and its last month were like right after our last append, if that ended
        there and the folder was at rest."""
        known, stood = self._listed, self._stood
        if stood is None or stood[0] is not self._durable or position != self._durable:
            return None
        if known is None or not known.sure or known.month != position.month:
            return None
        return known, stood[1]

    def _settle(self, expecting: Position, month: str, marks: frozenset[str]) -> None:
        """Make durable all up to the chain's end, before something is added in a month."""
        if UNSETTLED in marks:  # whoever put a month in place has died
            self._disk.fsync_directory(self._folder)
            self._disk.discard(self._folder / UNSETTLED)
        # What we build on must be durable first: its writer may have died before he had made it
        # so. In the same file too, for a disk may keep our write and not his, and a hole before
        # a whole member is damage, not a torn end.
        if not expecting.seq:
            self._disk.settle(self._folder)
        elif month != expecting.month or expecting != self._durable:
            self._disk.sync(self._folder / segment_name(expecting.month))

    def _opened(self, month: str, size: int, segments: Sequence[_Month]) -> _Tail:
        """A month's file of that size, open: as the last append left it, where it is the same."""
        tail = self._tail
        if tail is not None:
            last, found = segments[-1] if segments else ("", None)
            if found is not None and month == last == tail.month and found[:2] == tail.which:
                return tail
            self._tail = None
            os.close(tail.descriptor)
        path = self._folder / segment_name(month)
        descriptor = self._disk.open_to_append(path, size)
        which = _state_of(os.fstat(descriptor))[:2]
        self._tail = tail = _Tail(month, path, descriptor, which)
        return tail

    def replay(self, after: Position = START) -> Iterator[Batch]:
        """See :meth:`Ledger.replay`."""
        return (batch for batch in self._read(after) if batch.envelopes)

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
            which = found.st_dev, found.st_ino
            known = self._borders.get(month)
            if known is None or known[0] != which:
                known = self._borders[month] = which, Borders([], [])
            return seek(file, found.st_size, seq, known[1])

    def head(self, after: Position = START) -> Position:
        """See :meth:`Ledger.head`."""
        position = after
        for batch in self._read(after):
            position = batch.position
        return position

    # Without the lock, a segment may change while it is read: by an append under way, by a torn
    # end that is moved aside, or because sealing puts another file in its place. So each month is
    # read from one opened file; a remembered place is looked at before anything is read from
    # there; and at the end of the file one looks whether it is still the one that has that name.

    def _read(self, after: Position) -> Iterator[Batch]:
        """As :meth:`replay`, with empty batches where only the position has changed."""
        position, doubted = after, -1
        bridges = _Lazy(self._folder)
        while True:
            try:
                for batch in self._walk(position, bridges):
                    position = batch.position
                    check()
                    yield batch
                if bridges.made is not None:
                    bridges.made.require_closed()
            except (ChainError, HeadMoved):
                # What was read half-written may be whole by now, and what follows it too; and a
                # listing of names isn't made in an instant. A second look is enough, since members
                # are whole in order.
                if position.seq == doubted:
                    raise
                doubted = position.seq
            else:
                return

    def _walk(self, after: Position, bridges: _Lazy) -> Iterator[Batch]:
        position = after
        segments = list_segments(self._folder)
        if after.seq and after.month not in dict(segments):
            raise HeadMoved(after, 0)
        # Of the months before, some may have been sealed since.
        known = sum(size for month, size in segments if month < after.month)
        position = position._replace(earlier=known)
        for month, _ in segments:
            if month < after.month:
                continue
            new = month != position.month
            earlier = position.earlier + position.offset if new else position.earlier
            path = self._folder / segment_name(month)
            replaced = True
            while replaced:
                broken = None
                try:
                    file = open_ours(path)
                except FileNotFoundError:  # it was there when it was listed: look again
                    raise HeadMoved(position, 0) from None
                with file:
                    start = 0
                    if month == position.month:
                        # What `holds` has just read needn't be read again: it may be long.
                        if self._stood == (position, _state_of(os.fstat(file.fileno()))):
                            batch = Batch([], position, b"")
                        else:
                            batch = _found_again(file, position)
                        position, start = batch.position, batch.position.offset
                        yield batch
                    try:
                        for member in members_of(file, start):
                            gap = None
                            try:
                                envelopes, end = link(position, member, month, earlier)
                            except ChainError:
                                gap = bridges.make().over(position, member)
                                if gap is None:
                                    raise
                                position = position._replace(seq=gap.first - 1, hash=gap.first_prev)
                                envelopes, end = link(position, member, month, earlier)
                            position, start = end, member.end
                            if bridges.made is not None:
                                bridges.made.close(envelopes)
                            batch = Batch(envelopes, position, member.content)
                            yield batch if gap is None else BatchAfterGap.after(gap, batch)
                    except BrokenMember as error:
                        # At the very end it is a torn end, or an append under way.
                        last = month == segments[-1][0]
                        if (
                            not last
                            or has_member_after(file, start)
                            or (not start and is_foreign(file))
                        ):
                            broken = error
                    replaced = _is_replaced(file, path)
            if broken is not None:
                raise broken_member(month, start, position.seq + 1, broken.cause)

    def holds(self, position: Position) -> bool:
        """See :meth:`Ledger.holds`. Reads one member, unless it has done so since the file was last
        changed."""
        return self._holds(position, self._look()[0])

    def _holds(self, position: Position, segments: Sequence[_Month]) -> bool:
        if position == START:
            return True
        earlier, state = 0, None
        for month, found in segments:
            if month < position.month:
                earlier += found.size
            elif month == position.month:
                state = found
        if earlier != position.earlier or state is None or state.size < position.offset:
            return False
        if self._stood == (position, state):
            return True
        try:
            path = self._folder / segment_name(position.month)
            with open_ours(path) as file:
                if not stands(file, position):
                    return False
        except FileNotFoundError:
            return False
        self._stood = position, state
        return True

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
                if end and not stands(file, position):
                    continue  # the file was replaced since
                size = os.fstat(file.fileno()).st_size
                try:
                    next(members_of(file, end), None)
                except BrokenMember as broken:
                    return Torn(month, end, size - end, broken.cut_short)
                return None  # nothing, or an append that was under way, and is whole by now

    def stamp(self) -> object:
        """See :meth:`Ledger.stamp`. Two ``stat`` calls, where nothing has changed for a while."""
        return self._look()[0]

    def stamp_at(self, position: Position) -> object | None:
        """See :meth:`Ledger.stamp_at`. Right after our own append, it needn't look."""
        left = self._left_at(position)
        if left is not None:
            known, last = left
            return (*known.months, (known.month, last))
        months = self._look()[0]
        return months if self._holds(position, months) else None

    def _look(self) -> tuple[tuple[_Month, ...], frozenset[str]]:
        """Every month's file as it is, and which of :data:`_MARKS` lie in the folder.

        Where the folder hasn't changed for a while, only the last month can have.
        """
        try:
            folder = _state_of(os.stat(self._place))
        except FileNotFoundError:
            return (), frozenset()
        known = self._listed
        if known is not None and known.sure and known.folder == folder:
            if not known.last:
                return (), known.marks
            with suppress(FileNotFoundError):
                last = _state_of(is_ours(os.lstat(known.last), known.last))
                if last.size:
                    return (*known.months, (known.month, last)), known.marks
        found, names = stat_segments(self._folder)
        months = tuple((month, _state_of(it)) for month, it in found)
        marks = frozenset(_MARKS.intersection(names))
        last_path = f"{self._place}/{segment_name(months[-1][0])}" if months else ""
        listed = _Listed(folder, months, last_path, marks)
        if known is not None and known.folder == folder:
            # Within one tick of the kernel's clock, a folder can change twice and look the same.
            # And an empty month, which a crash leaves, can become the last without changing it.
            old = time.monotonic() - known.since > _TICK_SECONDS
            empty = sum(1 for name in names if name.endswith(SUFFIX)) > len(months)
            listed.since, listed.sure = known.since, old and not empty
        self._listed = listed
        return months, marks

    def months(self) -> list[str]:
        """See :meth:`Ledger.months`."""
        return [month for month, _ in list_segments(self._folder)]

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
        """See to it that the chain ends there. What is moved aside here without a record is
        recorded by the next append."""
        torn = self._require_end(expecting, self._look()[0])
        if torn is not None:
            from promptyoself.ledger.torn_ends import move_aside

            move_aside(self._folder, self._folder / _QUARANTINE, torn, self._disk)

    def _require_end(self, expecting: Position, segments: Sequence[_Month]) -> Torn | None:
        """Whether the chain ends there; what follows it, if that is but a torn end."""
        if not self._holds(expecting, segments):
            raise HeadMoved(expecting, 0)
        if not segments:
            return None
        month, found = segments[-1]
        if (month, found.size) == (expecting.month, expecting.offset):
            return None
        for batch in self.replay(expecting):
            raise HeadMoved(expecting, batch.position.seq)
        return self.torn(expecting)

    def _repairs(self, torn: Torn | None) -> tuple[list[Draft], set[Path]]:
        """What is to be recorded of torn ends, and the copies for which that stands; a new one is
        moved aside."""
        from promptyoself.ledger.torn_ends import move_aside, pending_copies, records_of

        quarantine = self._folder / _QUARANTINE
        copies = pending_copies(quarantine)
        if torn is not None:
            copies.add(move_aside(self._folder, quarantine, torn, self._disk))
        return [Draft(each, None, _ACTOR) for each in records_of(self._folder, copies)], copies

    def _genesis(self) -> Draft:
        from promptyoself.events.records import FORMAT, LedgerCreated

        record = LedgerCreated(FORMAT, self._chain, f"promptyoself {__version__}")
        return Draft(record, None, _ACTOR)


class _Lazy:
    """The gaps that a replay passes: looked for when it meets what doesn't follow, which hardly any
    does."""

    __slots__ = ("folder", "made")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: Bridges | None = None

    def make(self) -> Bridges:
        """Them, to be asked."""
        if self.made is None:
            from promptyoself.ledger.statements import Bridges

            self.made = Bridges(self.folder)
        return self.made


class _Tail:
    """A month's file that is open for appending; ``which`` is its device and inode."""

    __slots__ = ("descriptor", "month", "path", "which")

    def __init__(self, month: str, path: Path, descriptor: int, which: tuple[int, int]) -> None:
        self.month = month
        self.path = path
        self.descriptor = descriptor
        self.which = which


class _Listed:
    """The months in a folder but the last, which that is, its path, and the marks beside them:
    ``sure`` where the folder has stayed as it was for a while since it was first seen so, and was
    listed after that."""

    __slots__ = ("folder", "last", "marks", "month", "months", "since", "sure")

    def __init__(
        self, folder: _FileState, months: tuple[_Month, ...], last: str, marks: frozenset[str]
    ) -> None:
        self.folder = folder
        self.months = months[:-1]
        self.month = months[-1][0] if months else ""
        self.last = last
        self.marks = marks
        self.since = time.monotonic()
        self.sure = False


class _FileState(NamedTuple):
    """What no change to a file leaves as it was: which it is, its size, and when it was changed, in
    ticks of the kernel's clock."""

    device: int
    inode: int
    size: int
    modified: int
    changed: int


_Month = tuple[str, _FileState]


def _state_of(found: os.stat_result) -> _FileState:
    # As often as a loop looks: past the constructor, which takes as long as the rest.
    return tuple.__new__(
        _FileState,
        (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
    )


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Whether another file has that name by now."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


def _found_again(file: BinaryIO, position: Position) -> Batch:
    """The rest of the member in which the position lies in this file; nothing, where it still lies
    at a member's end."""
    if stands(file, position):
        return Batch([], position, b"")
    rest = find(file, position)
    if rest is None:
        raise HeadMoved(position, 0)
    if not rest.content:
        return Batch([], position._replace(offset=rest.end, member=rest.start), b"")
    envelopes, position = link(position, rest, position.month, position.earlier)
    return Batch(envelopes, position, rest.content)
