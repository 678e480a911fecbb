"""New files under names of the caller's choice: whole or not there, and never over another."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedRandom
from pathlib import Path
from secrets import token_hex

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError

_NAMED_WRONGLY = {
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
_NO_HARD_LINKS = {errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


class FileTaken(PromptyoselfError):
    """Something has the name ``path`` already, be it a symbolic link to nowhere."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            "file_exists",
            f"There is something at {str(path)!r} already.",
            "Nothing is overwritten: name a new file.",
        )
        self.path = path


@contextmanager
def new_file(disk: Disk, path: Path) -> Iterator[tuple[BufferedRandom, Path]]:
    """A file to write, and the name it has meanwhile; it gets the name ``path`` at the end.

    It is made 0600 beside ``path``, and durable before it gets its name. A process that is killed
    meanwhile leaves ``.<name>.<8 hex digits>.tmp``. Of two that make the same file, one wins.

    Raises:
        FileTaken: ``file_exists``.
        PromptyoselfError: ``unwritable_file``: the folder isn't there, or may not be written to.
        OSError: the disk is full or fails; nothing has that name then.
    """
    if os.path.lexists(path):
        raise FileTaken(path)
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.tmp")
    try:
        descriptor = disk.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW)
    except (OSError, ValueError) as error:  # the latter where no file can have that name
        if isinstance(error, OSError) and error.errno not in _NAMED_WRONGLY:
            raise
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise PromptyoselfError(
            "unwritable_file",
            f"{str(path)!r} can't be made: {reason}.",
            "Name a new file in a folder that exists and that you may write to.",
        ) from None
    try:
        with open(descriptor, "w+b") as file:
            yield file, temporary
            file.flush()
            disk.fsync(file.fileno())
        _name(disk, temporary, path)
    finally:
        disk.discard(temporary)
    disk.fsync_directory(path.parent)


def _name(disk: Disk, temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)  # which, unlike a rename, never replaces
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS | {errno.EEXIST}:
            raise
        if os.path.lexists(path):
            raise FileTaken(path) from None
        disk.rename(temporary, path)
