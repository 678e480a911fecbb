"""The embedded ledger: one folder of monthly segments, one lock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from promptyoself import __version__
from promptyoself.durable import Disk
from promptyoself.errors import PromptyoselfError
from promptyoself.events import (
    FORMAT,
    VERSIONS,
    LedgerCreated,
    Record,
    TailQuarantined,
    type_of,
    write_record,
)
from promptyoself.instants import format_utc
from promptyoself.ledger.envelope import Envelope, encode_line, hash_line
from promptyoself.ledger.lock import ExclusiveLock
from promptyoself.ledger.protocol import START, Batch, Draft, HeadMoved, Position, Torn
from promptyoself.ledger.segments import (
    MAX_MEMBER_BYTES,
    BrokenMember,
    Member,
    compress,
    damaged,
    has_member_after,
    link,
    list_segments,
    read_members,
    segment_name,
)

__all__ = ["FileLedger"]

_ACTOR = {"via": "ledger", "who": "promptyoself"}
_PENDING = ".unrecorded"


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
        self._chain = chain
        self._disk = disk or Disk()
        self._lock = ExclusiveLock(folder / "lock", lock_timeout)

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """See :meth:`Ledger.exclusive`."""
        self._disk.make_directory(self._folder)
        return self._lock.held(timeout)

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """See :meth:`Ledger.append`."""
        with self.exclusive():
            repairs = self._repair(self._require_end(expecting))
            first = [] if expecting.seq else [self._genesis()]
            envelopes, content, position = _chain_up([*first, *repairs, *drafts], now, expecting)
            if len(content) > MAX_MEMBER_BYTES:
                raise PromptyoselfError(
                    "event_too_large",
                    f"The events come to {len(content)} bytes; {MAX_MEMBER_BYTES} fit into one append.",
                    "Nothing was changed. Shorten the text, or do it in several steps.",
                )
            data = compress(content)
            month, start = position.month, position.member
            self._disk.append(self._folder / segment_name(month), data, start)
            for pending in self._pending():
                self._disk.rename(pending, pending.with_suffix(""))
            return Batch(envelopes, position._replace(offset=start + len(data)))

    def replay(self, after: Position = START) -> Iterator[Batch]:
        """See :meth:`Ledger.replay`."""
        position = after
        for member, month, earlier in self._members(after):
            envelopes, position = link(position, member, month, earlier)
            yield Batch(envelopes, position)

    def head(self, after: Position = START) -> Position:
        """See :meth:`Ledger.head`."""
        position = after
        for batch in self.replay(after):
            position = batch.position
        return position

    def holds(self, position: Position) -> bool:
        """See :meth:`Ledger.holds`. Reads one member."""
        return self._holds(position, list_segments(self._folder))

    def _holds(self, position: Position, segments: Sequence[tuple[str, int]]) -> bool:
        if position == START:
            return True
        if sum(size for month, size in segments if month < position.month) != position.earlier:
            return False
        if dict(segments).get(position.month, -1) < position.offset:
            return False
        try:
            members = read_members(self._folder / segment_name(position.month), position.member)
            member = next(members, None)
        except BrokenMember:
            return False
        return (
            member is not None
            and member.end == position.offset
            and hash_line(member.content[:-1].rpartition(b"\n")[2]) == position.hash
        )

    def torn(self, after: Position = START) -> Torn | None:
        """See :meth:`Ledger.torn`."""
        position = self.head(after)
        segments = list_segments(self._folder)
        if not segments:
            return None
        month, size = segments[-1]
        end = position.offset if month == position.month else 0
        return Torn(month, end, size - end) if size > end else None

    def _members(self, after: Position) -> Iterator[tuple[Member, str, int]]:
        """Members from a position on, each with its month and the size of all earlier segments.

        A torn end of the last segment ends it quietly; anything else that isn't a whole member
        is damage.
        """
        segments = list_segments(self._folder)
        earlier = 0
        for month, size in segments:
            if month >= after.month:
                start = after.offset if month == after.month else 0
                path = self._folder / segment_name(month)
                try:
                    for member in read_members(path, start):
                        yield member, month, earlier
                except BrokenMember as broken:
                    if month != segments[-1][0] or has_member_after(path, broken.offset):
                        seq = self._seq_before(month, broken.offset) + 1
                        raise damaged(
                            month, broken.offset, seq, f"its gzip member is broken ({broken.cause})",
                            "a whole gzip member", broken.cause,
                        ) from None
            earlier += size

    def _seq_before(self, month: str, offset: int) -> int:
        """How many events lie before a place; only asked on the way to an error."""
        lines = 0
        for name, _ in list_segments(self._folder):
            if name <= month:
                try:
                    for member in read_members(self._folder / segment_name(name)):
                        if (name, member.start) < (month, offset):
                            lines += member.content.count(b"\n")
                except BrokenMember:
                    continue
        return lines

    def _require_end(self, expecting: Position) -> Torn | None:
        """Whether the chain ends there; what follows it, if that is but a torn end."""
        segments = list_segments(self._folder)
        if not self._holds(expecting, segments):
            raise HeadMoved(expecting, 0)
        end = (expecting.month, expecting.offset) if expecting.seq else ("", 0)
        if segments[-1:] == [end] or not segments:
            return None
        moved = next(iter(self.replay(expecting)), None)
        if moved is not None:
            raise HeadMoved(expecting, moved.position.seq)
        return self.torn(expecting)

    def _genesis(self) -> Draft:
        record = LedgerCreated(FORMAT, self._chain, f"promptyoself {__version__}")
        return Draft(record, None, _ACTOR)

    # A torn end goes through three steps, each safe to die after: a durable copy named
    # `….torn.unrecorded`; the cut; the event, with the append that found it. Only then does the
    # copy lose its suffix, so one whose event was never written is recorded by the next append.

    def _repair(self, torn: Torn | None) -> list[Draft]:
        pending = self._pending()
        if torn is None and not pending:
            return []
        recorded = {
            envelope.data["file"]
            for batch in (self.replay() if pending else ())
            for envelope in batch.envelopes
            if envelope.type == "tail.quarantined"
        }
        unrecorded = {copy for copy in pending if copy.with_suffix("").name not in recorded}
        if torn is not None:
            unrecorded.add(self._move_aside(torn))
        return [Draft(_describe(copy), None, _ACTOR) for copy in sorted(unrecorded)]

    def _move_aside(self, torn: Torn) -> Path:
        path = self._folder / segment_name(torn.month)
        with path.open("rb") as file:
            file.seek(torn.offset)
            tail = file.read()
        folder = self._folder / "quarantine"
        self._disk.make_directory(folder)
        digest = sha256(tail).hexdigest()
        copy = folder / f"{torn.month}-{torn.offset}-{digest[:16]}.torn{_PENDING}"
        self._disk.replace(copy, tail)
        self._disk.truncate(path, torn.offset)
        return copy

    def _pending(self) -> list[Path]:
        return sorted((self._folder / "quarantine").glob(f"*{_PENDING}"))


def _describe(copy: Path) -> Record:
    tail = copy.read_bytes()
    name = copy.with_suffix("").name
    month, offset = name[:7], name[8:].partition("-")[0]
    return TailQuarantined(month, int(offset), len(tail), sha256(tail).hexdigest(), name)


def _chain_up(
    drafts: Sequence[Draft], now: datetime, after: Position
) -> tuple[list[Envelope], bytes, Position]:
    """Give drafts their places after a position. The result's ``offset`` isn't known yet."""
    seq, head = after.seq, after.hash
    ts = max(format_utc(now), after.ts)
    envelopes, lines = [], []
    for draft in drafts:
        seq += 1
        type_ = type_of(draft.record)
        envelope = Envelope(
            VERSIONS[type_], seq, ts, type_, draft.id, draft.actor, write_record(draft.record), head
        )
        line = encode_line(envelope)
        head = hash_line(line)
        envelopes.append(envelope)
        lines.append(line)
    same_month = ts[:7] == after.month
    start = after.offset if same_month else 0
    earlier = after.earlier if same_month else after.earlier + after.offset
    content = b"\n".join(lines) + b"\n"
    return envelopes, content, Position(seq, head, ts, ts[:7], start, start, earlier)
