"""Reading a chain's folder from a position on, while others may append to it and seal months.

No lock is taken, so a segment may change while it is read: an append may be under way, a torn end
may be moved aside, or sealing may put another file in its place. So each month is read from one
opened file. The event before a remembered position is read again before anything after it. And at
the end of a file it is looked up whether another file has that name by now.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from promptyoself.core.disk import open_ours
from promptyoself.core.errors import ChainError
from promptyoself.core.long_work import check, tell
from promptyoself.ledger import segments
from promptyoself.ledger.batch import Batch, Gap, HeadMoved, Position
from promptyoself.ledger.envelope import Envelope, event_of
from promptyoself.ledger.folder_cache import FolderCache


def read(folder: Path, cache: FolderCache, after: Position) -> Iterator[Batch]:
    """The batches after a position, as :meth:`FileLedger.replay` gives them, and empty batches
    where only the position has changed.

    Raises:
        HeadMoved, ChainError: as :meth:`FileLedger.replay`.
    """
    position, failed_after = after, -1
    bridges = Bridges(folder)
    try:
        while True:
            try:
                for batch in _read_months(folder, cache, position, bridges):
                    position = batch.position
                    check()
                    tell("events", position.seq)
                    yield batch
                bridges.require_closed()
            except (ChainError, HeadMoved):
                # What was read half-written may be whole by now, and so may a listing that was made
                # while files changed. A second try is enough: members become whole in order.
                if position.seq == failed_after:
                    raise
                failed_after = position.seq
            else:
                return
    finally:
        tell("events", None)


def _read_months(
    folder: Path, cache: FolderCache, after: Position, bridges: Bridges
) -> Iterator[Batch]:
    sizes = dict(segments.list_segments(folder))
    if after.seq and after.month not in sizes:
        raise HeadMoved(after, 0)
    # Months before the position may have been sealed since, and so be smaller.
    earlier = sum(size for month, size in sizes.items() if month < after.month)
    position = after._replace(earlier=earlier)
    for month in sizes:
        if month < after.month:
            continue
        path = folder / segments.segment_name(month)
        replaced = True
        while replaced:
            broken: segments.BrokenMember | None = None
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
                except segments.BrokenMember as error:
                    if month != max(sizes) or not _may_be_torn(file, error.offset):
                        broken = error
                replaced = _is_replaced(file, path)
        if broken is not None:
            raise segments.broken_member(month, broken.offset, position.seq + 1, broken.cause)


def _read_members(
    file: BinaryIO, month: str, position: Position, bridges: Bridges
) -> Iterator[Batch]:
    """The batches of a month's file that follow from a position, which may lie in that month."""
    start, earlier = position.offset, position.earlier
    if month != position.month:
        start, earlier = 0, position.earlier + position.offset
    for member in segments.members_of(file, start):
        envelopes, position, gap = bridges.follow(position, member, month, earlier)
        bridges.close(envelopes)
        yield Batch(envelopes, position, member.content, gap)


def _resume(file: BinaryIO, position: Position) -> Batch:
    """The rest of the member that the position lies in, in this file. It is empty if the position
    lies at a member's end.

    Raises:
        HeadMoved: the event before the position isn't in this file.
    """
    if segments.ends_at(file, position):
        return Batch([], position, b"")
    rest: segments.Member | None = segments.relocate(file, position)
    if rest is None:
        raise HeadMoved(position, 0)
    if not rest.content:
        return Batch([], position._replace(offset=rest.end, member=rest.start), b"")
    envelopes, position = segments.check_links(position, rest, position.month, position.earlier)
    return Batch(envelopes, position, rest.content)


def _may_be_torn(file: BinaryIO, offset: int) -> bool:
    """Whether the last month can have a torn end, or an unfinished append, at an offset."""
    if segments.has_member_after(file, offset):
        return False
    return offset > 0 or not segments.is_foreign(file)


def _is_replaced(file: BinaryIO, path: Path) -> bool:
    """Whether another file has that name by now."""
    try:
        return not os.path.samestat(os.fstat(file.fileno()), path.lstat())
    except FileNotFoundError:
        return False


class Bridges:
    """The gaps that one replay of a folder passes. Each must have a statement, and the replay must
    come to that statement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stated: dict[tuple[Gap, Any], int] | None = None
        self._open: dict[int, Gap] = {}

    def follow(
        self, position: Position, member: segments.Member, month: str, earlier: int
    ) -> tuple[list[Envelope], Position, Gap | None]:
        """As :func:`check_links`, but also over a gap that the chain has a statement for. Returns
        that gap, too.

        Raises:
            ChainError: ``corrupt_chain``.
        """
        try:
            return *segments.check_links(position, member, month, earlier), None
        except ChainError:
            gap = self._over(position, member)
            if gap is None:
                raise
        position = position._replace(seq=gap.first - 1, hash=gap.first_prev)
        return *segments.check_links(position, member, month, earlier), gap

    def _over(self, position: Position, member: segments.Member) -> Gap | None:
        """The gap between a position and a member, if the chain has a statement for it."""
        first = event_of(member.content.partition(b"\n")[0])
        if first is None:
            return None
        gap = Gap(position.seq, position.hash, first.seq, first.prev)
        statement = self.statement_of(gap)
        if statement is None:
            return None
        self._open[statement] = gap
        return gap

    def statement_of(self, gap: Gap) -> int | None:
        """The number of the first event that states the gap with the right number of lost events,
        or ``None``. If no number is missing, an alteration broke the link, which is no gap."""
        if self._stated is None:
            from promptyoself.ledger.statements import statements

            self._stated = {}
            for event in statements(self._folder, "ledger.recovered"):
                stated_gap = Gap._make(event.data.get(name) for name in Gap._fields)
                with suppress(TypeError):  # no key, so no gap
                    self._stated.setdefault((stated_gap, event.data.get("lost")), event.seq)
        missing = gap.first - gap.after - 1
        statement = self._stated.get((gap, missing))
        return statement if missing > 0 and statement and statement > gap.first else None

    def close(self, envelopes: list[Envelope]) -> None:
        """Close the gaps that these events, to which the replay has come, state."""
        if self._open:
            for event in envelopes:
                if event.type == "ledger.recovered":
                    self._open.pop(event.seq, None)

    def require_closed(self) -> None:
        """Check, at the end of the replay, that each gap was stated.

        Raises:
            ChainError: ``corrupt_chain``: a gap was passed, and its statement isn't on the chain.
        """
        for statement, gap in self._open.items():
            raise ChainError(
                "corrupt_chain",
                f"The log has a gap between events {gap.after} and {gap.first}, and event "
                f"{statement}, which is to state it, isn't on the chain.",
                "Nothing was changed. Run `promptyoself verify` for the details.",
                seq=gap.after + 1,
                expected=f"event {gap.after + 1}",
                found=f"event {gap.first}",
            )
