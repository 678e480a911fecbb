"""What a process remembers of a chain's folder, so that nothing is read twice without need.

It rests on two facts. A change to a file changes the file's state: which file it is, its size, or
its times. A file that is added, removed or replaced changes the folder's times.

The kernel counts times in ticks, so a folder can change twice within a tick and look the same. So a
listing is trusted only if the folder had already looked the same for a while when it was made.
"""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from promptyoself.core.disk import is_ours, open_ours
from promptyoself.ledger import segments
from promptyoself.ledger.batch import START, Position

_MARKS = frozenset((segments.QUARANTINE, segments.UNSETTLED))
_TRUSTED_AFTER_SECONDS = 0.1  # ten of the longest tick that Linux is built with


class FileState(NamedTuple):
    """A change to a file changes at least one of these."""

    device: int
    inode: int
    size: int  # bytes
    modified: int  # nanoseconds since 1970, in steps of the kernel's ticks
    changed: int  # likewise


class Listing(NamedTuple):
    """A chain's folder at one moment."""

    months: Sequence[tuple[str, FileState]]  # that have an event, oldest first, with their files
    marks: frozenset[str]  # QUARANTINE and UNSETTLED, if they are there


class _Kept(NamedTuple):
    """A listing that is kept. The last month's file grows, so its state is looked up each time."""

    folder: FileState  # the folder's state before it was listed
    listing: Listing
    last_path: str  # "" if there is no month
    since: float  # when the folder was first seen in this state, by the monotonic clock
    trusted: bool


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
                return kept.listing
            with suppress(FileNotFoundError):
                last = state_of(is_ours(os.lstat(kept.last_path), kept.last_path))
                if last.size:
                    *earlier, (last_month, _) = kept.listing.months
                    return Listing((*earlier, (last_month, last)), kept.listing.marks)
        return self._list(folder)

    def _list(self, folder: FileState) -> Listing:
        stats, names = segments.stat_segments(self._folder)
        months = tuple((month, state_of(stat)) for month, stat in stats)
        listing = Listing(months, _MARKS.intersection(names))
        last_path = f"{self._name}/{segments.segment_name(months[-1][0])}" if months else ""
        since, trusted = time.monotonic(), False
        if self._kept is not None and self._kept.folder == folder:
            # A crash can leave an empty file for a month. When that month gets its first event, it
            # becomes the last one without any change to the folder.
            has_empty = sum(name.endswith(segments.SUFFIX) for name in names) > len(months)
            trusted = since - self._kept.since > _TRUSTED_AFTER_SECONDS and not has_empty
            since = self._kept.since
        self._kept = _Kept(folder, listing, last_path, since, trusted)
        return listing

    def holds(self, position: Position, listing: Listing | None = None) -> bool:
        """Whether the position lies on the chain: the earlier months have the sizes they had, and
        its event ends where it says. Reads one member, unless it did so since the file changed."""
        if position == START:
            return True
        earlier, state = 0, None
        for month, file_state in (listing or self.listing()).months:
            if month < position.month:
                earlier += file_state.size
            elif month == position.month:
                state = file_state
        if earlier != position.earlier or state is None or state.size < position.offset:
            return False
        if self._verified == (position, state):
            return True
        try:
            with open_ours(self._folder / segments.segment_name(position.month)) as file:
                if not segments.ends_at(file, position):
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
        if appended is None or appended[0] != position:
            return False
        if kept is None or not kept.trusted or kept.listing.marks:
            return False
        try:
            return (
                state_of(os.stat(self._name)) == kept.folder
                and state_of(os.lstat(kept.last_path)) == appended[1]
            )
        except FileNotFoundError:
            return False


def state_of(stat: os.stat_result) -> FileState:
    """The state of a file, of what ``stat`` says."""
    # The constructor of a named tuple costs an append a percent.
    return tuple.__new__(
        FileState, (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
    )
