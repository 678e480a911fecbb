"""What a process remembers of a chain's folder, so that nothing is read twice without need.

It rests on two facts. A change to a file changes the file's state: which file it is, its size, or
its times. A file that is added, removed or replaced changes the folder's times.

The kernel counts times in ticks, so a folder can change twice within a tick and look the same. So a
listing is trusted only if the folder had already looked the same for a while when it was made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from promptyoself.core.disk import is_ours, open_ours
from promptyoself.ledger.batch import START, Position
from promptyoself.ledger.segments import (
    QUARANTINE,
    SUFFIX,
    UNSETTLED,
    ends_at,
    segment_name,
    stat_segments,
)

_MARKS = frozenset((QUARANTINE, UNSETTLED))
_TRUSTED_AFTER_SECONDS = 0.1  # ten of the longest tick that Linux is built with


class FileState(NamedTuple):
    """A change to a file changes at least one of these."""

    device: int
    inode: int
    size: int  # bytes
    modified: int  # nanoseconds since 1970, in steps of the kernel's ticks
    changed: int  # likewise


Month = tuple[str, FileState]
"""A month such as ``2026-11`` and the state of its file."""


class Listing(NamedTuple):
    """A chain's folder at one moment."""

    months: Sequence[Month]  # that have a file with anything in it, oldest first
    marks: frozenset[str]  # QUARANTINE and UNSETTLED, if they are there


class _Kept:
    """A listing that is kept. The last month's file grows, so its state is looked up each time."""

    __slots__ = ("earlier", "folder", "last_month", "last_path", "marks", "since", "trusted")

    def __init__(self, folder: FileState, listing: Listing, last_path: str) -> None:
        self.folder = folder  # the folder's state before it was listed
        self.earlier = tuple(listing.months[:-1])
        self.last_month = listing.months[-1][0] if listing.months else ""
        self.last_path = last_path  # "" if there is no month
        self.marks = listing.marks
        self.since = time.monotonic()  # when the folder was first seen in this state
        self.trusted = False


class FolderCache:
    """Tells how a chain's folder is, with as few syscalls as are needed to be certain."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._name = str(folder)
        self._kept: _Kept | None = None
        # The last position that was found in its file, and the file's state before it was read.
        self._verified: tuple[Position, FileState] | None = None
        # The end of this process's last append, and the file's state after it.
        self._appended: tuple[Position, FileState] | None = None

    def listing(self) -> Listing:
        """The folder as it is: two ``stat`` calls if it hasn't changed for a while.

        Raises:
            OSError: a month isn't a regular file.
        """
        try:
            folder = state_of(os.stat(self._name))
        except FileNotFoundError:
            return Listing((), frozenset())
        kept = self._kept
        if kept is not None and kept.trusted and kept.folder == folder:
            if not kept.last_path:
                return Listing((), kept.marks)
            with suppress(FileNotFoundError):
                last = state_of(is_ours(os.lstat(kept.last_path), kept.last_path))
                if last.size:
                    return Listing((*kept.earlier, (kept.last_month, last)), kept.marks)
        return self._list(folder)

    def _list(self, folder: FileState) -> Listing:
        segments, names = stat_segments(self._folder)
        months = tuple((month, state_of(found)) for month, found in segments)
        listing = Listing(months, _MARKS.intersection(names))
        last_path = f"{self._name}/{segment_name(months[-1][0])}" if months else ""
        before, self._kept = self._kept, _Kept(folder, listing, last_path)
        if before is not None and before.folder == folder:
            # A crash can leave an empty file for a month. When that month gets its first event, it
            # becomes the last one without any change to the folder.
            has_empty = sum(name.endswith(SUFFIX) for name in names) > len(months)
            old = time.monotonic() - before.since > _TRUSTED_AFTER_SECONDS
            self._kept.since, self._kept.trusted = before.since, old and not has_empty
        return listing

    def holds(self, position: Position, listing: Listing | None = None) -> bool:
        """Whether the position lies on the chain: the earlier months have the sizes they had, and
        its event ends where it says. Reads one member, unless it did so since the file changed."""
        if position == START:
            return True
        earlier, state = 0, None
        for month, found in (listing or self.listing()).months:
            if month < position.month:
                earlier += found.size
            elif month == position.month:
                state = found
        if earlier != position.earlier or state is None or state.size < position.offset:
            return False
        if self._verified == (position, state):
            return True
        try:
            with open_ours(self._folder / segment_name(position.month)) as file:
                if not ends_at(file, position):
                    return False
        except FileNotFoundError:
            return False
        self._verified = position, state
        return True

    def has_verified(self, position: Position, file: BinaryIO) -> bool:
        """Whether :meth:`holds` has found the position in this very file since it last changed."""
        return self._verified == (position, state_of(os.fstat(file.fileno())))

    def note_append(self, end: Position, descriptor: int) -> None:
        """Remember that this process has appended up to a position, durably; ``descriptor`` is that
        of the month's file."""
        self._appended = self._verified = end, state_of(os.fstat(descriptor))

    def is_own_end(self, position: Position) -> bool:
        """Whether this process's last append ended there, so that all before it is durable."""
        return self._appended is not None and self._appended[0] == position

    def is_unchanged(self, position: Position) -> bool:
        """Whether this process's last append ended there, and nobody has changed anything since,
        nor left anything to be done. It may say no though that is so. Two ``stat`` calls."""
        kept, appended = self._kept, self._appended
        if appended is None or appended[0] != position or kept is None or kept.marks:
            return False
        if not kept.trusted or kept.last_month != position.month:
            return False
        try:
            return (
                state_of(os.stat(self._name)) == kept.folder
                and state_of(os.lstat(kept.last_path)) == appended[1]
            )
        except FileNotFoundError:
            return False


def state_of(found: os.stat_result) -> FileState:
    """The state of a file, of what ``stat`` says."""
    # A loop asks this often, and the constructor takes as long as all the rest.
    return tuple.__new__(
        FileState,
        (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns),
    )
