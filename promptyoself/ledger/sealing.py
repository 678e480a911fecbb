"""Sealing: a month that is over is repacked into large gzip members.

An append makes a member of its own, so that it can be made durable by itself, and so a month
consists of members of a few hundred bytes, which compress badly and cost time to open, each of
them. Once nothing is added to the month any more, there is no reason for that: the same lines, in
the same order, with the same hashes, fit into a third of the bytes.

The order of the steps, and why each is safe to die after:

1. The month is written beside the old file, under a name that no reader looks at, and synced.
   Nothing has changed; the next try writes over it.
2. It is read back and compared. Nothing has changed.
3. Under the lock of those who append: a torn end, which only the last month can have, is moved
   aside, as before any append. A process that dies here leaves a copy; the next append records it.
4. The caller writes an index that will fit the new file. A process that dies here leaves one that
   doesn't fit the old file: it is rebuilt.
5. A file named ``.unsettled`` is made. A process that dies between here and its removal leaves it
   for the next append, which does what step 7 does.
6. The new file takes the old one's name. That is atomic, the new content was durable before, and
   both have the same lines: whichever a crash leaves, nothing is lost.
7. The folder is synced: the new file has its name for good, and that file goes.
8. The event is appended (by the caller, as any other). A process that dies before it leaves a
   sealed month without a record. The next sealing finds it, rewrites it to the same bytes, and
   records it. Until then the month may even grow, if it is the last one: appends go behind the
   large members.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from promptyoself.core.disk import Disk, open_ours
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.ledger.batch import START, Batch, HeadMoved, Position
from promptyoself.ledger.envelope import decode_line, hash_line
from promptyoself.ledger.maintenance import Prepared, UnknownMonth
from promptyoself.ledger.segments import (
    UNSETTLED,
    BrokenMember,
    compress,
    ends_at,
    list_segments,
    read_members,
    segment_name,
)
from promptyoself.ledger.statements import statements

MEMBER_BYTES = 128 * 1024
"""How much a member of a sealed month holds, uncompressed, but for a longer line, which has one of
its own. Four times the window of gzip: larger ones are hardly smaller (1.5 % at twice the size),
and it is what a reader must read to find its place again."""

_SMALL_MEMBER_BYTES = MEMBER_BYTES // 8


class FileSealing:
    """A :class:`~promptyoself.ledger.maintenance.Sealing` of a folder. Its maker holds the lock."""

    def __init__(
        self,
        folder: Path,
        disk: Disk,
        replay: Callable[[Position], Iterable[Batch]],
        clear_end: Callable[[Position], None],
    ) -> None:
        """``replay`` is the ledger's; ``clear_end`` leaves nothing behind a position, which must be
        the end, or raises."""
        self._folder = folder
        self._disk = disk
        self._replay = replay
        self._clear_end = clear_end
        self._beside: Path | None = None

    def close(self) -> None:
        """Leave nothing beside: what was prepared for nothing may be what has filled the disk."""
        if self._beside is not None:
            self._disk.discard(self._beside)
        self._beside = None

    def recorded(self) -> set[str]:
        """See :meth:`Sealing.recorded`."""
        # Damage in a segment is found when that is sealed, or by `verify`.
        sealed = statements(self._folder, "segment.sealed")
        return {str(event.data.get("month")) for event in sealed}

    def prepare(self, month: str, now: datetime) -> Prepared:
        """See :meth:`Sealing.prepare`."""
        months = [month for month, _ in list_segments(self._folder)]
        if month not in months:
            raise UnknownMonth(month)
        if month >= max(months[-1], format_utc(now)[:7]):
            raise PromptyoselfError(
                "month_not_over",
                f"{month} isn't over: events may still be added to it.",
                f"Nothing was changed. Run `promptyoself seal --month {month}` when it is (UTC).",
            )
        return self._write_beside(month, None)

    def repack(self, until: Position) -> Prepared:
        """See :meth:`Sealing.repack`."""
        return self._write_beside(until.month, until.seq)

    def count_small_members(self, month: str) -> int:
        """See :meth:`Sealing.count_small_members`."""
        count = 0
        with suppress(BrokenMember, FileNotFoundError):
            for member in read_members(self._folder / segment_name(month)):
                count += len(member.content) < _SMALL_MEMBER_BYTES
        return count

    def _write_beside(self, month: str, until: int | None) -> Prepared:
        self.close()
        source = _Source(self._replay(self._before(month)), month, until)
        path = self._folder / segment_name(month)
        self._beside = self._disk.beside(path)
        self._disk.write_beside(path, source.members())
        if source.end is None:  # nothing but the torn end of what would have been its first append
            raise UnknownMonth(month)
        content, count, member, end = sha256(), 0, 0, 0
        for written in read_members(self._beside):
            content.update(written.content)
            count += written.content.count(b"\n")
            member, end = written.start, written.end
        # Each line was checked as it was read, and this hash is of those bytes: what has the same
        # hash has the same lines.
        if (count, content.digest()) != (source.events, source.content.digest()):
            raise OSError(
                f"{self._beside} doesn't read as it was written: a failing disk or memory"
            )
        growing = until is not None
        return Prepared(month, count, content.hexdigest(), source.end, end, member, growing)

    def put_in_place(
        self, prepared: Prepared, expecting: Position, before: Callable[[Position], None]
    ) -> Position:
        """See :meth:`Sealing.put_in_place`."""
        month, old = prepared.month, prepared.end
        path = self._folder / segment_name(month)
        last = month == expecting.month
        added = expecting.offset - old.offset if last else 0
        if added and not prepared.growing:
            raise HeadMoved(old, expecting.seq)
        self._clear_end(expecting)
        since = self._since(path, old, old.offset + added)
        if since:  # as it is, behind what was prepared; durable
            self._disk.append(self._disk.beside(path), since, prepared.offset)
        gain = old.offset - prepared.offset
        if not last:
            moved = expecting._replace(earlier=expecting.earlier - gain)
        elif added:
            moved = expecting._replace(
                offset=expecting.offset - gain, member=expecting.member - gain
            )
        else:
            moved = expecting._replace(offset=prepared.offset, member=prepared.member)
        mark = self._folder / UNSETTLED
        os.close(self._disk.open_own(mark, os.O_WRONLY | os.O_CREAT))
        before(moved)
        self._disk.put_in_place(path)
        self._disk.discard(mark)
        self._beside = None
        return moved

    def _since(self, path: Path, old: Position, size: int) -> bytes:
        """What was appended after a position, in a month that must be ``size`` bytes long."""
        with open_ours(path) as file:
            # Its last event may have been read before it was durable, and taken back since, with
            # another of the same size in its place.
            if path.stat().st_size != size or not ends_at(file, old):
                raise HeadMoved(old, 0)
            file.seek(old.offset)
            return file.read()

    def _before(self, month: str) -> Position:
        """Where the month begins, by reading the end of the one before it, or all where that end
        can't be read."""
        position = START
        earlier = [each for each, _ in list_segments(self._folder) if each < month]
        if not earlier:
            return START
        with suppress(BrokenMember, ValueError):
            for member in read_members(self._folder / segment_name(earlier[-1])):
                line = member.content[:-1].rpartition(b"\n")[2]
                start, end = member.start, member.end
            last = decode_line(line)
            return Position(last.seq, hash_line(line), last.ts, earlier[-1], end, start, 0)
        for batch in self._replay(START):
            if batch.position.month >= month:
                break
            position = batch.position
        return position


class _Source:
    """A month's checked lines, on their way into larger members."""

    def __init__(self, batches: Iterable[Batch], month: str, until: int | None) -> None:
        self._batches = batches
        self._month = month
        self._until = until
        self.content = sha256()
        self.events = 0
        self.end: Position | None = None

    def members(self) -> Iterator[bytes]:
        """The gzip members of the sealed month."""
        return (compress(content) for content in packed(self._lines()))

    def _lines(self) -> Iterator[bytes | None]:
        for batch in self._batches:
            if batch.position.month != self._month:
                return
            if batch.gap is not None:  # which stays at a member's border
                yield None
            self.content.update(batch.content)
            self.events += len(batch.envelopes)
            self.end = batch.position
            yield from (line + b"\n" for line in batch.content.split(b"\n")[:-1])
            if self.end.seq == self._until:
                return


def packed(lines: Iterable[bytes | None]) -> Iterator[bytes]:
    """Lines put together to contents of at most ``MEMBER_BYTES``, or of a single line. ``None``
    among them ends a content."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        if held and (line is None or size + len(line) > MEMBER_BYTES):
            yield b"".join(held)
            held, size = [], 0
        if line is not None:
            held.append(line)
            size += len(line)
    if held:
        yield b"".join(held)
