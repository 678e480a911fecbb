"""Reading a chain's folder from a position on, while others may append to it and seal months.

No lock is taken, so a segment may change while it is read: an append may be under way, a torn end
may be moved aside, or sealing may put another file in its place. So each month is read from one
opened file. The event before a remembered position is read again before anything after it. And at
the end of a file it is looked up whether another file has that name by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from promptyoself.core.cancellation import check
from promptyoself.core.disk import open_ours
from promptyoself.core.errors import ChainError
from promptyoself.ledger.batch import Batch, BatchAfterGap, Gap, HeadMoved, Position
from promptyoself.ledger.folder_cache import FolderCache
from promptyoself.ledger.segments import (
    BrokenMember,
    Member,
    broken_member,
    check_links,
    ends_at,
    has_member_after,
    is_foreign,
    list_segments,
    members_of,
    relocate,
    segment_name,
)

if TYPE_CHECKING:
    from promptyoself.ledger.envelope import Envelope
    from promptyoself.ledger.statements import Bridges


def read(folder: Path, cache: FolderCache, after: Position) -> Iterator[Batch]:
    """The batches after a position, as :meth:`Ledger.replay` gives them, and empty batches where
    only the position has changed.

    Raises:
        HeadMoved, ChainError: as :meth:`Ledger.replay`.
    """
    position, failed_after = after, -1
    bridges = _LazyBridges(folder)
    while True:
        try:
            for batch in _read_months(folder, cache, position, bridges):
                position = batch.position
                check()
                yield batch
            bridges.require_closed()
        except (ChainError, HeadMoved):
            # What was read half-written may be whole by now, and so may a listing that was made
            # while files changed. A second try is enough, since members become whole in order.
            if position.seq == failed_after:
                raise
            failed_after = position.seq
        else:
            return


def _read_months(
    folder: Path, cache: FolderCache, after: Position, bridges: _LazyBridges
) -> Iterator[Batch]:
    segments = list_segments(folder)
    if after.seq and after.month not in dict(segments):
        raise HeadMoved(after, 0)
    # Months before the position may have been sealed since, and so be smaller.
    earlier = sum(size for month, size in segments if month < after.month)
    position = after._replace(earlier=earlier)
    last_month = segments[-1][0] if segments else ""
    for month, _ in segments:
        if month < after.month:
            continue
        path = folder / segment_name(month)
        replaced = True
        while replaced:
            broken: BrokenMember | None = None
            try:
                file = open_ours(path)
            except FileNotFoundError:  # it was there when the folder was listed
                raise HeadMoved(position, 0) from None
            with file:
                if month == position.month:
                    # A member can be long, so one that was just verified isn't read again.
                    verified = cache.has_verified(position, file)
                    batch = Batch([], position, b"") if verified else _resume(file, position)
                    position = batch.position
                    yield batch
                try:
                    for batch in _read_members(file, month, position, bridges):
                        position = batch.position
                        yield batch
                except BrokenMember as error:
                    if month != last_month or not _may_be_torn(file, error.offset):
                        broken = error
                replaced = _is_replaced(file, path)
        if broken is not None:
            raise broken_member(month, broken.offset, position.seq + 1, broken.cause)


def _read_members(
    file: BinaryIO, month: str, position: Position, bridges: _LazyBridges
) -> Iterator[Batch]:
    """The batches of a month's file that follow from a position, which may lie in that month."""
    start, earlier = position.offset, position.earlier
    if month != position.month:
        start, earlier = 0, position.earlier + position.offset
    for member in members_of(file, start):
        gap = None
        try:
            envelopes, end = check_links(position, member, month, earlier)
        except ChainError:
            gap = bridges.over(position, member)
            if gap is None:
                raise
            position = position._replace(seq=gap.first - 1, hash=gap.first_prev)
            envelopes, end = check_links(position, member, month, earlier)
        position = end
        bridges.close(envelopes)
        batch = Batch(envelopes, position, member.content)
        yield batch if gap is None else BatchAfterGap.after(gap, batch)


def _resume(file: BinaryIO, position: Position) -> Batch:
    """The rest of the member that the position lies in, in this file. It is empty if the position
    lies at a member's end.

    Raises:
        HeadMoved: the event before the position isn't in this file.
    """
    if ends_at(file, position):
        return Batch([], position, b"")
    rest: Member | None = relocate(file, position)
    if rest is None:
        raise HeadMoved(position, 0)
    if not rest.content:
        return Batch([], position._replace(offset=rest.end, member=rest.start), b"")
    envelopes, position = check_links(position, rest, position.month, position.earlier)
    return Batch(envelopes, position, rest.content)


def _may_be_torn(file: BinaryIO, offset: int) -> bool:
    """Whether the last month can have a torn end, or an unfinished append, at an offset."""
    return not has_member_after(file, offset) and (offset > 0 or not is_foreign(file))


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Whether another file has that name by now."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


class _LazyBridges:
    """The gaps that a replay passes. They are looked up only if a line doesn't follow from the one
    before it, which is rare."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridges: Bridges | None = None

    def over(self, position: Position, member: Member) -> Gap | None:
        """See :meth:`Bridges.over`."""
        if self._bridges is None:
            from promptyoself.ledger.statements import Bridges

            self._bridges = Bridges(self._folder)
        return self._bridges.over(position, member)

    def close(self, envelopes: list[Envelope]) -> None:
        """See :meth:`Bridges.close`."""
        if self._bridges is not None:
            self._bridges.close(envelopes)

    def require_closed(self) -> None:
        """See :meth:`Bridges.require_closed`."""
        if self._bridges is not None:
            self._bridges.require_closed()
