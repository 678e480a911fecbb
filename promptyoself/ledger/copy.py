"""Copying segments as they are, while others append and rewrite, and checking the copies.

What is copied of a segment comes from one opened file, so it is never a mixture of the file and of
one that was put in its place meanwhile. Whether it is what it should be is told by checking the
copy; where it isn't, though the log is sound, the file was replaced since its end was looked up,
and another copy comes out right.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from promptyoself.core.disk import open_ours
from promptyoself.ledger import segments
from promptyoself.ledger.batch import Gap, Position
from promptyoself.ledger.replay import Bridges

_PIECE_BYTES = 1 << 20


@contextmanager
def open_segment(folder: Path, end: Position, month: str) -> Iterator[tuple[BinaryIO, int]]:
    """A month's segment, and how many of its bytes lie before ``end``.

    In the month of ``end`` an append may be under way, or have followed; an earlier one is closed,
    and all of it counts.

    Raises:
        OSError: it can't be opened.
    """
    with open_ours(folder / segments.segment_name(month)) as file:
        size = end.offset if month == end.month else os.fstat(file.fileno()).st_size
        yield file, size


def pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """The next ``size`` bytes, or as many as there are, in memory bounded by a MiB."""
    while size and (piece := file.read(min(size, _PIECE_BYTES))):
        yield piece
        size -= len(piece)


class Copied(NamedTuple):
    """What a copy of a segment holds."""

    end: Position
    events: int  # how many there are
    gaps: list[tuple[Gap, int]]  # each with the number of the event that states it


def check_copy(
    path: Path, start: int, size: int, month: str, after: Position, bridges: Bridges
) -> Copied:
    """Check that the ``size`` bytes of ``path`` from ``start`` on are the segment of a month, whose
    events follow from ``after``, but for gaps that the log states: ``bridges`` knows these. Offsets
    are those in the segment.

    Raises:
        ChainError: ``corrupt_chain``.
    """
    position, offset, events = after, 0, 0
    gaps: list[tuple[Gap, int]] = []
    members = segments.read_members(path, start)
    while offset < size:
        try:
            member = next(members, None)
        except segments.BrokenMember as broken:
            raise segments.broken_member(month, offset, position.seq + 1, broken.cause) from None
        if member is None or member.end - start > size:
            raise segments.broken_member(month, offset, position.seq + 1, "it ends in the middle")
        member = segments.Member(offset, member.end - start, member.content)
        envelopes, position, gap = bridges.follow(position, member, month, after.earlier)
        if gap is not None and (statement := bridges.statement_of(gap)) is not None:
            gaps.append((gap, statement))
        events += len(envelopes)
        offset = member.end
    return Copied(position, events, gaps)
