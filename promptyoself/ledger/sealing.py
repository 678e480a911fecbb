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

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import Disk, open_ours
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.ledger import segments
from promptyoself.ledger.batch import START, Batch, HeadMoved, Position, end_before
from promptyoself.ledger.envelope import decode_line, hash_line
from promptyoself.ledger.statements import statements

MEMBER_BYTES = 128 * 1024
"""How much a member of a sealed month holds, uncompressed, but for a longer line, which has one of
its own. Four times the window of gzip: larger ones are hardly smaller (1.5 % at twice the size),
and it is what a reader must read to find its place again."""

_SMALL_MEMBER_BYTES = MEMBER_BYTES // 8


class Prepared(NamedTuple):
    """A month in larger members, ready to be put in place of the old file."""

    month: str
    events: int
    content_sha256: str  # of all its lines, newlines included
    end: Position  # its last event, and where the old file ended when it was read
    offset: int  # where the new file ends, in bytes
    member: int  # where the last member of the new file begins
    growing: bool = False  # the old file may have grown since; that is added to the new one


class UnknownMonth(PromptyoselfError):
    """The chain has no event of that month."""

    def __init__(self, month: str) -> None:
        super().__init__(
            "unknown_month",
            f"The log has no event of {month}.",
            "Nothing was changed. `promptyoself seal` without --month seals what there is to seal.",
        )


class Sealing:
    """The one right to seal: to rewrite months that are over into large members, the same lines.
    Its maker holds the lock."""

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
        """The months that a ``segment.sealed`` stands for. Reads the whole chain, without checking
        its links."""
        # Damage in a segment is found when that is sealed, or by `verify`.
        sealed = statements(self._folder, "segment.sealed")
        return {str(event.data.get("month")) for event in sealed}

    def prepare(self, month: str, now: datetime) -> Prepared:
        """Write the month in larger members, beside the old file, and check that it has the same
        lines.

        Takes no lock and changes nothing that anybody reads; it takes time that grows with the
        month. Every line of the month is checked first, and its link to the month before. What is
        returned is durable. Several can't be prepared at once: each undoes the one before.

        Raises:
            PromptyoselfError: ``unknown_month``; ``month_not_over``, where an event appended at
                ``now`` could still lie in it.
            ChainError: the month is damaged.
            OSError: the disk refused. In every case nothing was changed.
        """
        months = [month for month, _ in segments.list_segments(self._folder)]
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
        """As :meth:`prepare`, of the running month up to a position: a month needn't be over to be
        repacked, only to be recorded as sealed.

        Raises:
            PromptyoselfError: ``unknown_month``.
            ChainError, OSError: as :meth:`prepare`.
        """
        return self._write_beside(until.month, until.seq)

    def count_small_members(self, month: str) -> int:
        """How many small members a month has: what repacking it would put together."""
        count = 0
        with suppress(segments.BrokenMember, FileNotFoundError):
            for member in segments.read_members(self._folder / segments.segment_name(month)):
                count += len(member.content) < _SMALL_MEMBER_BYTES
        return count

    def _write_beside(self, month: str, until: int | None) -> Prepared:
        self.close()
        source = _Source(self._replay(self._before(month)), month, until)
        path = self._folder / segments.segment_name(month)
        self._beside = self._disk.beside(path)
        self._disk.write_beside(path, source.members())
        if source.end is None:  # nothing but the torn end of what would have been its first append
            raise UnknownMonth(month)
        content, count, member, end = sha256(), 0, 0, 0
        for written in segments.read_members(self._beside):
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
        """Put the prepared month in the place of the old one; returns where ``expecting``, the
        chain's end, lies from now on. The caller holds :meth:`FileLedger.exclusive`, and records it
        before he lets go: what is appended then lies in a later month, so nobody can add to the
        sealed one any more.

        ``before`` gets that position when all is checked, right before it comes true: an index
        that is written then fits at once, and no reader has to do without one meanwhile.

        When it returns the new one is durable. Readers that have the old one open go on with it,
        and find their place in the new one afterwards.

        Raises:
            HeadMoved: ``expecting`` is not the end of the chain, or the month has grown since it
                was prepared: prepare it again.
            ChainError: the chain is damaged.
            OSError: the disk refused; the old one is in place, or the new one.
        """
        month, old = prepared.month, prepared.end
        path = self._folder / segments.segment_name(month)
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
        with segments.unsettled(self._folder, self._disk):
            before(moved)
            self._disk.put_in_place(path)
        self._beside = None
        return moved

    def _since(self, path: Path, old: Position, size: int) -> bytes:
        """What was appended after a position, in a month that must be ``size`` bytes long."""
        with open_ours(path) as file:
            # Its last event may have been read before it was durable, and taken back since, with
            # another of the same size in its place.
            if path.stat().st_size != size or not segments.ends_at(file, old):
                raise HeadMoved(old, 0)
            file.seek(old.offset)
            return file.read()

    def _before(self, month: str) -> Position:
        """Where the month begins, by reading the end of the one before it, or all where that end
        can't be read."""
        earlier = [name for name, _ in segments.list_segments(self._folder) if name < month]
        if not earlier:
            return START
        with suppress(segments.BrokenMember, ValueError):
            path = self._folder / segments.segment_name(earlier[-1])
            if (member := segments.last_member(path)) is not None:
                hash_, last = hash_line(member.last_line), decode_line(member.last_line)
                return Position(last.seq, hash_, last.ts, earlier[-1], member.end, member.start, 0)
        return end_before(self._replay(START), month)


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
        return (segments.compress(content) for content in packed(self._lines()))

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
