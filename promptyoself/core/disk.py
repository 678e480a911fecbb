"""The only place that changes files for good, and the syscalls each operation makes, in order.

What is durable when a method returns is stated on it. The argument rests on POSIX as Linux's ext4,
xfs and btrfs keep it: data is on disk after ``fsync`` of the file, a new or renamed name after
``fsync`` of its directory, and ``rename`` replaces atomically. It cannot hold where a disk
acknowledges a flush it didn't make.

A file of ours is a regular file under its own name. Where a link or anything else lies in its
place, nothing is opened there: what a link points to may be somebody else's.

Tests subclass :class:`Disk` and override its single-syscall methods, to die or fail at each.
"""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EIO, ELOOP, ENOSPC, ENXIO
from pathlib import Path
from typing import BinaryIO


def is_ours(status: os.stat_result, path: str | Path) -> os.stat_result:
    """Require that the ``status`` of what lies at ``path`` is that of a regular file; returns it.

    Raises:
        OSError: ``ELOOP`` for a symbolic link, ``ENXIO`` for anything else.
    """
    if stat.S_ISREG(status.st_mode):
        return status
    if stat.S_ISLNK(status.st_mode):
        raise OSError(ELOOP, "a symbolic link lies in the place of a file", str(path))
    raise OSError(ENXIO, "not a regular file", str(path))


def open_ours(path: Path) -> BinaryIO:
    """Open a file of ours for reading, unbuffered, through no link, and without waiting where a
    pipe lies there.

    Raises:
        OSError: it isn't there, isn't a regular file, or can't be read.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    return open(_kept_if_ours(os.open(path, flags), path), "rb", buffering=0)


def _kept_if_ours(descriptor: int, path: Path) -> int:
    """The descriptor, which is closed where it isn't that of a regular file."""
    try:
        is_ours(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def read_ours(path: Path) -> bytes:
    """All that a file of ours has. Raises as :func:`open_ours`."""
    with open_ours(path) as file:
        return file.read()


@contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


class Disk:
    """File changes that survive a crash. Files are made 0600, folders 0700."""

    # One syscall each, so that a test can fail or kill at every one of them.

    def open(self, path: Path, flags: int) -> int:
        """``open(2)``, close-on-exec, mode 0600; it does not wait for a pipe that lies there."""
        return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        """``write(2)``: how many bytes went."""
        return os.write(descriptor, data)

    def fsync(self, descriptor: int) -> None:
        """``fsync(2)``."""
        os.fsync(descriptor)

    def ftruncate(self, descriptor: int, size: int) -> None:
        """``ftruncate(2)``."""
        os.ftruncate(descriptor, size)

    def rename(self, source: Path, target: Path) -> None:
        """``rename(2)``: replaces ``target`` atomically."""
        os.rename(source, target)

    def mkdir(self, path: Path) -> None:
        """``mkdir(2)``, mode 0700."""
        os.mkdir(path, 0o700)

    def unlink(self, path: Path) -> None:
        """``unlink(2)``."""
        os.unlink(path)

    # Operations.

    def fsync_directory(self, path: Path) -> None:
        """open, fsync, close: the names in ``path`` are durable."""
        with _closing(self.open(path, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
            self.fsync(descriptor)

    def make_directory(self, path: Path) -> None:
        """mkdir of each missing folder on the way, each followed by fsync of its parent."""
        if path.is_dir():
            return
        if path.parent != path:
            self.make_directory(path.parent)
        try:
            self.mkdir(path)
        except FileExistsError:
            if not path.is_dir():
                raise
            return
        self.fsync_directory(path.parent)

    def sync_parents(self, path: Path) -> None:
        """fsync of every folder above ``path`` that may be read, outermost first.

        :meth:`make_directory` syncs what it makes, but a process may have died between making a
        folder and that. Folders that may not be read weren't made by this software.
        """
        for parent in reversed(path.absolute().parents):
            with suppress(PermissionError):
                self.fsync_directory(parent)

    def open_own(self, path: Path, flags: int) -> int:
        """open of a file of ours, to write to it: through no link, and only a regular file.

        Raises:
            OSError: something else lies there, or the disk refused.
        """
        return _kept_if_ours(self.open(path, flags | os.O_NOFOLLOW), path)

    def sync(self, path: Path) -> None:
        """open, fsync, close: what anyone has written to the file is durable."""
        with _closing(self.open_own(path, os.O_WRONLY)) as descriptor:
            self.fsync(descriptor)

    def open_to_append(self, path: Path, size: int) -> int:
        """open of a file that :meth:`append_to` is to grow; it is made if it isn't there.

        Raises:
            OSError: it isn't of that ``size``, or the disk refused.
        """
        descriptor = self.open_own(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        if os.fstat(descriptor).st_size != size:
            os.close(descriptor)
            raise OSError(EIO, f"not {size} bytes long: changed from outside", str(path))
        return descriptor

    def append_to(self, descriptor: int, path: Path, data: bytes, offset: int) -> None:
        """write, fsync; if the file is empty, fsync of its directory before the write, so that a
        file with anything in it has a durable name even if its maker has died.

        ``descriptor`` is that of the file at ``path``, from :meth:`open_to_append`; ``offset`` is
        the size that it has. On return all of ``data`` is durable. Where the write fails or
        falls short, the file is cut back to ``offset`` and the error raised; if even that fails, or
        the process dies in between, a torn end stays for the next writer.

        Raises:
            OSError: the disk is full, the file system read-only, the device failing, …
        """
        if offset == 0:
            self.fsync_directory(path.parent)
        try:
            self._write_all(descriptor, data)
            self.fsync(descriptor)
        except OSError:
            # Nothing was acknowledged. After a failed fsync the kernel may have dropped the
            # pages, so what lies there isn't to be built upon either.
            self.ftruncate(descriptor, offset)
            self.fsync(descriptor)
            raise

    def append(self, path: Path, data: bytes, offset: int) -> None:
        """open, :meth:`append_to`, close. Raises as these do."""
        with _closing(self.open_to_append(path, offset)) as descriptor:
            self.append_to(descriptor, path, data, offset)

    def truncate(self, path: Path, size: int) -> None:
        """open, ftruncate, fsync, close: the cut is durable."""
        with _closing(self.open_own(path, os.O_WRONLY)) as descriptor:
            self.ftruncate(descriptor, size)
            self.fsync(descriptor)

    def replace(self, path: Path, data: bytes, *, durable: bool = True) -> None:
        """open, write, fsync, close of a temporary file; rename; fsync of the directory.

        A reader sees the old content or the new, never a mixture. With ``durable=False`` both
        syncs are left out: after a power loss the file may be old, empty or garbage, so it must be
        something that can be rebuilt. Callers hold a lock that keeps others from replacing the
        same file.

        Raises:
            OSError: as :meth:`append`; ``path`` is then as it was.
        """
        temporary = self.beside(path)
        self._write_temporary(temporary, (data,), durable)
        self.rename(temporary, path)
        if durable:
            self.fsync_directory(path.parent)

    def beside(self, path: Path) -> Path:
        """The temporary file for ``path``: of a fixed name, so that crashes leave no litter."""
        return path.with_name(f".{path.name}.tmp")

    def write_beside(self, path: Path, pieces: Iterable[bytes]) -> None:
        """open, a write per piece, fsync, close of the temporary file beside ``path``. On return
        its content is durable; its name isn't, until :meth:`put_in_place`.

        Raises:
            OSError: as :meth:`append`; ``path`` is as it was.
        """
        self._write_temporary(self.beside(path), pieces, durable=True)

    def put_in_place(self, path: Path) -> None:
        """rename of what :meth:`write_beside` wrote, fsync of the directory: ``path`` has the other
        content for good.

        A crash in between leaves the old content or the new, whole. A process that has ``path``
        open goes on reading the old content.

        Raises:
            OSError: ``path`` is as it was, or has the new content, though perhaps not for good.
        """
        self.rename(self.beside(path), path)
        self.fsync_directory(path.parent)

    def discard(self, path: Path) -> None:
        """unlink of a temporary file; no matter if that fails, or if there is none."""
        with suppress(OSError):
            self.unlink(path)

    def _write_temporary(self, path: Path, pieces: Iterable[bytes], durable: bool) -> None:
        # A file that is there is never emptied: under a second name it may be somebody else's.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        try:
            descriptor = self.open_own(path, flags)
        except FileExistsError:
            self.unlink(path)
            descriptor = self.open_own(path, flags)
        with _closing(descriptor):
            for piece in pieces:
                self._write_all(descriptor, piece)
            if durable:
                self.fsync(descriptor)

    def _write_all(self, descriptor: int, data: bytes) -> None:
        written = self.write(descriptor, data)
        if written == len(data):
            return
        view = memoryview(data)[written:]
        while view:  # more than once only after a signal, or where a disk is about to be full
            written = self.write(descriptor, view)
            if not written:
                raise OSError(ENOSPC, os.strerror(ENOSPC))
            view = view[written:]
