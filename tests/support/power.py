"""A loss of power, as a model: everything that a file system may have kept at any instant.

:class:`Recorder` changes real files, and remembers of each syscall what of it isn't durable yet.
From that, :func:`states` gives every directory that may be found afterwards: what was synced is
there; of the rest each write may be there whole, in part, as zeros or garbage of the same length,
or not at all; each new, renamed or removed name, and each cut, may be there or not; all of these in
any combination, so also later ones without earlier ones.

Where the model ends: what a directory lists is kept or lost per name, never garbled; a file's bytes
only change where they were written; a synced byte stays.
"""

import os
import shutil
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import reduce
from hashlib import sha256
from itertools import product
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from chains import Killed, chain

from promptyoself.core.disk import Disk
from promptyoself.events.draft import Draft
from promptyoself.ledger import Batch, FileLedger, Position

Tree = dict[str, bytes | None]
"""What lies where: a file's content, or None for a folder."""

_GARBAGE = Random(20261120).randbytes(1 << 16)


class Written(NamedTuple):
    """Bytes that went to a place in a file."""

    at: int
    data: bytes


class Cut(NamedTuple):
    """A file's length was set."""

    size: int


class Named(NamedTuple):
    """In a folder, a name came to mean another file or none, and another name ended."""

    name: str
    file: int | None
    gone: str | None = None


@dataclass(frozen=True)
class File:
    """A file's durable bytes, and what was done to it since."""

    durable: bytes = b""
    pending: tuple[Written | Cut, ...] = ()


@dataclass(frozen=True)
class Folder:
    """A folder's durable names, and what was done to them since."""

    durable: tuple[tuple[str, int], ...] = ()
    pending: tuple[Named, ...] = ()


@dataclass(frozen=True)
class Point:
    """An instant: what the disk may hold, and what must be found on it.

    ``head`` is the last position that was acknowledged. ``seen`` are the chains, as tuples of
    lines, that stood in the files at any time: nothing else may be found. ``kept`` are torn ends
    that were durable: none may be dropped.
    """

    call: str
    nodes: dict[int, File | Folder]
    head: Position | None
    seen: frozenset[tuple[bytes, ...]]
    kept: tuple[bytes, ...]


@dataclass
class Recorder(Disk):
    """A disk over a real folder, whose own name counts as durable. Everything goes through it but
    locks, which mean nothing after a loss of power.

    It can die: ``die_at`` is the number of the syscall, ``when`` is before, after or half.
    """

    root: Path
    die_at: int = 0
    when: str = "before"
    calls: int = 0
    points: list[Point] = field(default_factory=list)
    nodes: dict[int, File | Folder] = field(default_factory=lambda: {0: Folder()})
    ids: dict[int, int] = field(default_factory=dict)
    seen: frozenset[tuple[bytes, ...]] = frozenset([()])
    head: Position | None = None
    kept: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        self.ids[self.root.stat().st_ino] = 0
        self._note("start")

    # What the tests say happened.

    def acknowledge(self, position: Position) -> None:
        """An append has returned."""
        self.head = position
        self._note("acknowledged")

    def plant(self, path: Path, data: bytes) -> None:
        """A torn end that is durable."""
        descriptor = self.open(path, os.O_WRONLY | os.O_APPEND)
        self.write(descriptor, data)
        self.fsync(descriptor)
        os.close(descriptor)
        self.kept += (data,)
        self._note("planted")

    @contextmanager
    def spared(self) -> Iterator[None]:
        """Nobody dies of what is done meanwhile: other histories do."""
        die_at, self.die_at = self.die_at, 0
        yield
        self.calls, self.die_at = 0, die_at

    def revive(self) -> None:
        """The next process, which doesn't die."""
        self.die_at = 0

    # Syscalls.

    def open(self, path: Path, flags: int) -> int:
        new = bool(flags & os.O_CREAT) and not path.exists()
        with self._dying("open"):
            descriptor = super().open(path, flags)
            if new:
                self.ids[os.fstat(descriptor).st_ino] = node = len(self.nodes)
                self.nodes = {**self.nodes, node: File()}
                self._name(path.parent, Named(path.name, node))
            elif flags & os.O_TRUNC:
                self._change(descriptor, Cut(0))
            return descriptor

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        half = self.calls + 1 == self.die_at and self.when == "half"
        with self._dying("write"):
            end = os.fstat(descriptor).st_size
            written = super().write(descriptor, data[: len(data) // 2] if half else data)
            # Whether appending or not, nothing of ours writes anywhere but at a file's end.
            self._change(descriptor, Written(end, bytes(data[:written])))
            return written

    def fsync(self, descriptor: int) -> None:
        with self._dying("fsync"):
            self.settle_node(self._id(descriptor))

    def settle_node(self, node: int | None) -> None:
        """What is pending there is durable. Nothing is really synced: nobody pulls the plug."""
        if node is None:
            return
        kept = self.nodes[node]
        settled: File | Folder
        if isinstance(kept, File):
            settled = File(reduce(_applied, kept.pending, kept.durable))
        else:
            settled = Folder(reduce(_renamed, kept.pending, kept.durable))
        self.nodes = {**self.nodes, node: settled}

    def ftruncate(self, descriptor: int, size: int) -> None:
        with self._dying("ftruncate"):
            super().ftruncate(descriptor, size)
            self._change(descriptor, Cut(size))

    def rename(self, source: Path, target: Path) -> None:
        node, same = self.ids[source.stat().st_ino], source.parent == target.parent
        with self._dying("rename"):
            super().rename(source, target)
            self._name(target.parent, Named(target.name, node, source.name if same else None))
            if not same:
                self._name(source.parent, Named(source.name, None))

    def unlink(self, path: Path) -> None:
        with self._dying("unlink"):
            super().unlink(path)
            self._name(path.parent, Named(path.name, None))

    def mkdir(self, path: Path) -> None:
        with self._dying("mkdir"):
            super().mkdir(path)
            self.ids[path.stat().st_ino] = node = len(self.nodes)
            self.nodes = {**self.nodes, node: Folder()}
            self._name(path.parent, Named(path.name, node))

    # The model.

    @contextmanager
    def _dying(self, call: str) -> Iterator[None]:
        """One syscall: it is noted, unless the process dies before it; or it dies right after."""
        self.calls += 1
        if self.calls == self.die_at and self.when == "before":
            raise Killed
        yield
        self._note(call)
        if self.calls == self.die_at:
            raise Killed

    def _id(self, descriptor: int) -> int | None:
        return self.ids.get(os.fstat(descriptor).st_ino)

    def _change(self, descriptor: int, change: Written | Cut) -> None:
        node = self._id(descriptor)
        assert node is not None
        file = self.nodes[node]
        assert isinstance(file, File)
        self.nodes = {**self.nodes, node: replace(file, pending=(*file.pending, change))}

    def _name(self, folder: Path, named: Named) -> None:
        node = self.ids[folder.stat().st_ino]
        kept = self.nodes[node]
        assert isinstance(kept, Folder)
        self.nodes = {**self.nodes, node: replace(kept, pending=(*kept.pending, named))}

    def _note(self, call: str) -> None:
        self.seen |= {tuple(whole_lines(self.root / "var" / chain()))}
        self.points.append(Point(call, self.nodes, self.head, self.seen, self.kept))


class FilesNotSynced(Recorder):
    """A broken disk, on which only folders are durable."""

    def fsync(self, descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            super().fsync(descriptor)


class FoldersNotSynced(Recorder):
    """A broken disk, on which only the content of files is durable."""

    def fsync(self, descriptor: int) -> None:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            super().fsync(descriptor)


class Watched(FileLedger):
    """A ledger that tells the disk what it has acknowledged."""

    def __init__(self, folder: Path, disk: Recorder) -> None:
        super().__init__(folder, chain(), disk=disk)
        self._recorder = disk

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        batch = super().append(drafts, now, expecting)
        self._recorder.acknowledge(batch.position)
        return batch


def placed_lines(folder: Path) -> list[tuple[str, bytes]]:
    """The lines of a chain up to the first member that isn't whole, each with its file's name; read
    without the package."""
    found: list[tuple[str, bytes]] = []
    for path in sorted(folder.glob("*.ndjson.gz")):
        content = path.read_bytes()
        while content:
            stream = zlib.decompressobj(31)
            try:
                text = stream.decompress(content)
            except zlib.error:
                return found
            if not stream.eof:
                return found
            found += [(path.name, line) for line in text[:-1].split(b"\n")]
            content = stream.unused_data
    return found


def whole_lines(folder: Path) -> list[bytes]:
    """The same without the names."""
    return [line for _, line in placed_lines(folder)]


def _applied(content: bytes, change: Written | Cut) -> bytes:
    if isinstance(change, Cut):
        return content[: change.size].ljust(change.size, b"\0")
    end = change.at + len(change.data)
    return content.ljust(change.at, b"\0")[: change.at] + change.data + content[end:]


def _renamed(names: tuple[tuple[str, int], ...], named: Named) -> tuple[tuple[str, int], ...]:
    renamed = dict(names)
    for name in (named.gone, named.name):
        renamed.pop(name or "", None)
    if named.file is not None:
        renamed[named.name] = named.file
    return tuple(sorted(renamed.items()))


def _cuts(size: int, fine: int) -> Iterable[int]:
    """Where to cut a write in two: in the middle; near its ends, and at ``fine`` places between;
    everywhere in a tiny one."""
    if size <= fine:
        return range(1, size)
    if not fine:
        return [size // 2]
    inner = {size * at // (fine + 1) for at in range(1, fine + 1)}
    return sorted({1, 10, size - 8, size - 1, *inner} & set(range(1, size)))


def _kept(data: bytes, fine: int) -> Iterator[bytes | None]:
    """What a file may have instead of a write that isn't durable."""
    size = len(data)
    noise = _GARBAGE[:size].ljust(size, b"\xa5")
    yield None
    yield data
    yield bytes(size)
    yield noise
    for cut in _cuts(size, fine):
        yield data[:cut]
        yield data[:cut] + bytes(size - cut)
        yield data[:cut] + noise[cut:]
        yield bytes(cut) + data[cut:]


def _contents(file: File, name: str, fine: int) -> set[bytes]:
    found = {file.durable}
    for change in file.pending:
        if isinstance(change, Cut):
            found |= {_applied(content, change) for content in found}
            continue
        if name.startswith("."):  # a temporary file: never read, only ever cut to nothing
            kept: Iterable[bytes | None] = (change.data,)
        elif name == "index.json":  # it bears a checksum, so its damages are all one
            kept = (None, change.data, _GARBAGE[: len(change.data)])
        else:
            kept = _kept(change.data, fine)
        kept = list(kept)
        found = {
            content if data is None else _applied(content, Written(change.at, data))
            for content in found
            for data in kept
        }
    return found


def states(point: Point, fine: int = 3) -> Iterator[Tree]:
    """Every directory that may be found after a loss of power at that instant."""

    def folder(node: int, prefix: str) -> list[Tree]:
        found = point.nodes[node]
        assert isinstance(found, Folder)
        outcomes = {found.durable}
        for named in found.pending:
            outcomes |= {_renamed(names, named) for names in outcomes}
        trees: list[Tree] = []
        for names in outcomes:
            choices: list[list[Tree]] = []
            for name, child in names:
                path = f"{prefix}{name}"
                there = point.nodes[child]
                if isinstance(there, Folder):
                    choices.append([{path: None, **below} for below in folder(child, f"{path}/")])
                else:
                    choices.append([{path: c} for c in _contents(there, name, fine)])
            for chosen in product(*choices):
                trees.append({path: content for part in chosen for path, content in part.items()})
        return trees

    yield from folder(0, "")


def digest(tree: Tree) -> bytes:
    """The same for the same tree."""
    total = sha256()
    for path, content in sorted(tree.items()):
        total.update(path.encode() + b"\0")
        if content is not None:
            total.update(sha256(content).digest())
    return total.digest()


def lay_out(tree: Tree, root: Path) -> Path:
    """Make the tree real."""
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)
            (root / path).chmod(0o600)
    return root


History = Callable[[Recorder], Any]


class Examiner:
    """Goes on from state after state, each once."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.done: set[bytes] = set()

    def examine(self, points: list[Point], fine: int = 0) -> None:
        """Every state at every one of these instants."""
        for point in points:
            for tree in states(point, fine):
                head = point.head.hash if point.head else ""
                key = sha256(digest(tree) + head.encode() + repr(point.kept).encode()).digest()
                if key not in self.done:
                    self.done.add(key)
                    shutil.rmtree(self.place, ignore_errors=True)
                    self.place.mkdir()
                    self.go_on(lay_out(tree, self.place) / "var" / chain(), point)

    def go_on(self, folder: Path, point: Point) -> None:
        """Use the log in that folder as the next process would, and check what comes of it."""
        raise NotImplementedError
