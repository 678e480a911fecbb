"""The compact JSON index: the folded state and the position in the chain that it reflects.

It is never the only copy of anything. If anything is wrong with it, it is rebuilt from the chain.

Up to some 300 schedules ``index.json`` has all of it. With more, the schedules and the agents lie
in parts under ``index/``, and a command reads and writes only the parts that it needs. Each chain
has such an index; its :class:`~promptyoself.index.schema.StateSchema` says what its state has.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar
from weakref import ref

from promptyoself.core.diagnostics import Seldom
from promptyoself.core.disk import Disk, read_ours
from promptyoself.core.errors import ChainError
from promptyoself.index.parts import Branch, DamagedPart, Leaf, Node, PartFiles
from promptyoself.index.schema import Root, StateSchema, decode_root, encode_root, position_of
from promptyoself.index.tree import Tree, update
from promptyoself.index.witness import HashOfEvent, Witness, chain_is_gone
from promptyoself.ledger import START, Batch, Envelope, FileLedger, Position
from promptyoself.state.fold import Loss
from promptyoself.state.overlay import Overlay

S = TypeVar("S")

_RETRY_PAUSES = (0.0, 0.0, 0.005, 0.05)
"""Sealing replaces the index and a part of the log, one right after the other. A reader that comes
in between tries again after these pauses, in seconds, before it reads the whole log."""

_ENTRIES_PER_EVENT = 32
"""Reading one event again costs as much as writing this number of schedules. An index in one file
that was written a moment ago is written again when reading what it lacks would cost more."""

_WRITE_AFTER_EVENTS = 128
"""An index in parts is written when it lacks this number of events. Readers read these in a few
milliseconds, and one save of many events writes each part once."""

_BURST_SECONDS, _WRITE_IN_BURST_AFTER_EVENTS = 1.0, 2048
"""An index in parts that was written less than a second ago is written again only when it lacks
this number of events."""

_WRITE_AFTER_BYTES, _WRITE_IN_BURST_AFTER_BYTES = 256 * 1024, 4 * 1024 * 1024
"""The same, by the size of the lines of these events: a few long prompts take as long to read again
as a thousand short ones."""

_SAVES_THAT_KEEP_PARTS = 2
"""A part that is replaced is kept for this number of saves, for those that are still reading it."""

_MOST_KEPT_PARTS = 1000


class Snapshot(NamedTuple, Generic[S]):
    """The state at a position of the chain."""

    state: S
    position: Position


class _Complaint(NamedTuple):
    """The fault of an index file."""

    text: str
    exists: bool  # whether there is a file
    seq: int = 0  # the event that it stands at, as far as is known


class Index(Generic[S]):
    """Gives the state at the chain's end without reading the whole chain."""

    def __init__(
        self,
        path: Path,
        schema: StateSchema[S],
        ledger: FileLedger,
        warn: Callable[[str], None],
        disk: Disk | None = None,
    ) -> None:
        """``warn`` gets one sentence when the index had to be rebuilt."""
        self.path = path
        self._schema = schema
        self._ledger = ledger
        self._warn = warn
        self._seldom = Seldom(warn)
        self._disk = disk or Disk()
        self._parts = PartFiles(path.parent / "index", self._disk)
        self._witness = Witness(warn)
        # The newest state that is known here, and the log's stamp when that was as new as the log.
        self._latest: Snapshot[S] | None = None
        self._stamp: object = None
        # The file's content, its identity, and the event it stands at, which is -1 if it is bad.
        self._root: Root[S] | None = None
        self._file_identity: tuple[int, ...] | None = None
        self._saved_seq = 0
        # How many bytes the lines have that the file lacks, and when it was last written here.
        self._unsaved_bytes = 0
        self._written_at = float("-inf")

    @property
    def missing(self) -> ChainError | None:
        """The error ``events_missing`` if the log had lost events that were seen when the state was
        last loaded. Then nobody may write."""
        return self._witness.missing

    @property
    def is_stale(self) -> bool:
        """Whether the file is missing or bad and is to be written. It isn't if it knows of events
        that the log has lost: then it is the only witness of that."""
        if self._saved_seq >= 0 or self._latest is None or self._latest.position == START:
            return False
        return self.missing is None

    def load(self, stamp: object = None) -> Snapshot[S]:
        """The state at the chain's end, from the index if that fits, else by a full replay.

        ``stamp`` is the ledger's, if the caller has just read it.

        Raises:
            ChainError: the chain is damaged, or gone while the index is still there.
        """
        if stamp is None:
            with suppress(OSError):  # reading raises it again
                stamp = self._ledger.stamp()  # before reading, so that no append slips by
        unchanged = stamp is not None and stamp == self._stamp
        if self._latest is not None and unchanged and not self._is_replaced():
            return self._latest
        start, complaint = self._start()
        snapshot, event = self._replay(start)
        if start.position != START and len(self._losses(snapshot)) > len(self._losses(start)):
            # The log states a loss, so from now on only the log counts.
            snapshot, event = self._replay(Snapshot(self._schema.empty, START))
        if complaint:
            self._require_chain(snapshot.position, complaint)
        self._witness.judge(snapshot.position, self._losses(snapshot), event.hash)
        if complaint and self.missing is None and snapshot.position != START:
            self._warn(f"{complaint.text}; it was rebuilt from the log.")
        self._latest = snapshot
        self._stamp = stamp
        return snapshot

    def _replay(self, start: Snapshot[S]) -> tuple[Snapshot[S], HashOfEvent]:
        event = HashOfEvent(self._witness.seq)

        def pass_over(batch: Batch) -> None:
            event.pass_over(batch.envelopes)
            self._unsaved_bytes += len(batch.content)

        return _replay(self._ledger, self._schema, start, pass_over=pass_over), event

    def prepare(self) -> None:
        """Read the index file and the events since, if nothing was read yet. Call it before taking
        the lock, since others wait while something is read under the lock. If the file doesn't fit,
        this does nothing: :meth:`load` then reads the whole log, which only one process at a time
        should do, and warns of the fault."""
        if self._latest is not None:
            return
        start, complaint = self._start()
        if complaint is None:
            self._latest = start
            with suppress(ChainError, OSError):  # it may pass once nobody else writes
                self.load()

    def _losses(self, snapshot: Snapshot[S]) -> list[Loss]:
        return self._schema.losses(snapshot.state).recorded

    def known(self) -> Snapshot[S] | None:
        """The file's state, whether or not it fits the chain; ``None`` if it can't be read. Its
        tables raise :class:`~promptyoself.index.tree.DamagedPart` if a part is missing."""
        try:
            root = decode_root(self._schema, read_ours(self.path))
        except (OSError, ValueError):
            return None

        def refuse(_: int, error: DamagedPart) -> Overlay[Any]:
            raise error

        return self._snapshot_of(root, refuse)

    def witness(self) -> tuple[int, str] | None:
        """The number and the hash of the event at which the file stands; ``None`` if they are
        unknown. A shorter chain was cut off since: the file is written after its events are
        durable."""
        try:
            position = position_of(read_ours(self.path))
        except (OSError, ValueError):
            return None
        return position.seq, position.hash

    def rebuild(self) -> Snapshot[S]:
        """The state by a full replay, whatever the index says.

        Raises:
            ChainError: the chain is damaged; it is gone while the index is still there; or it has
                lost events that were seen.
        """
        with suppress(OSError, ValueError):
            self._witness.see(position_of(read_ours(self.path)))
        snapshot, event = self._replay(Snapshot(self._schema.empty, START))
        self._require_chain(snapshot.position, _Complaint("", self.path.exists()))
        self._witness.judge(snapshot.position, self._losses(snapshot), event.hash)
        if self.missing is not None:
            raise self.missing
        self._latest = snapshot
        self._saved_seq = -1
        return snapshot

    def save(self, snapshot: Snapshot[S], *, moved: bool = False, grown: int = 0) -> None:
        """Keep a state, and write it to the file if that is worth it. The caller holds the ledger's
        lock.

        ``grown`` is how many bytes the lines have that the caller has just appended. With
        ``moved``, the file's position doesn't fit any more, so that it is written in any case. A
        disk that refuses is no error, since the log already has the events.
        """
        self._latest = snapshot
        self._unsaved_bytes += grown
        self._witness.note_append(snapshot.position)
        self._stamp = None
        with suppress(OSError):  # the events are in the log even if this fails
            # The lock keeps others from appending. But the log may have been removed.
            self._stamp = self._ledger.stamp_at(snapshot.position)
        behind = snapshot.position.seq - self._saved_seq
        if not (moved or self._saved_seq < 0 or self._is_worth_writing(behind)):
            return
        try:
            self._write(snapshot)
        except OSError as error:
            self._seldom.warn(
                "unwritable",
                f"The index could not be written ({error.strerror}); the log has everything.",
            )

    def _is_worth_writing(self, events_behind: int) -> bool:
        if self._root is None:
            return True
        in_burst = time.monotonic() - self._written_at < _BURST_SECONDS
        if self._in_parts:
            least_bytes = _WRITE_IN_BURST_AFTER_BYTES if in_burst else _WRITE_AFTER_BYTES
            least_events = _WRITE_IN_BURST_AFTER_EVENTS if in_burst else _WRITE_AFTER_EVENTS
            return self._unsaved_bytes >= least_bytes or events_behind >= least_events
        cost = len(self._root.tables[0]) // _ENTRIES_PER_EVENT
        return events_behind >= (max(1, cost) if in_burst else 1)

    def _is_replaced(self) -> bool:
        """Whether another process has written an index in parts since. It may have removed parts
        that ours names."""
        return self._in_parts and _identity(self.path) != self._file_identity

    @property
    def _in_parts(self) -> bool:
        return self._root is not None and any(
            isinstance(node, Branch) for node in self._root.tables
        )

    def _write(self, snapshot: Snapshot[S]) -> None:
        """Write the parts, each under a new name, and then the root, which makes them count."""
        state, position = snapshot
        old = self._root if self._saved_seq >= 0 else None
        kept = old.superseded if old else []
        for names in kept[: 1 - _SAVES_THAT_KEEP_PARTS]:
            self._parts.remove(names)
        self._parts.written.clear()
        try:
            nodes, replaced = self._update(state, old)
        except DamagedPart:  # it is needed to write another; the state has all that is in it
            old, kept, replaced = None, [], []
            nodes, _ = self._update(state, None)
        superseded = [
            [name for name in names if name not in self._parts.written]
            for names in [*kept[1 - _SAVES_THAT_KEEP_PARTS :], replaced[:_MOST_KEPT_PARTS]]
            if names
        ]
        bare_state = self._schema.with_tables(state, self._schema.tables(self._schema.empty))
        root = Root(position, nodes, bare_state, superseded)
        self._disk.replace(self.path, encode_root(self._schema, root, old), durable=False)
        self._saved_seq, self._unsaved_bytes = position.seq, 0
        self._written_at = time.monotonic()
        self._latest = self._snapshot(root)
        self._file_identity = _identity(self.path)
        self._parts.remove(replaced[_MOST_KEPT_PARTS:])
        if old is None:
            for table_schema in self._schema.table_schemas:
                self._parts.sweep(table_schema)

    def _update(self, state: S, old: Root[S] | None) -> tuple[tuple[Node[Any], ...], list[str]]:
        """Write the parts that have changed since the root ``old``: the tables' nodes, and the
        files that they don't name any more."""
        nodes: list[Node[Any]] = []
        replaced: list[str] = []
        tables = zip(self._schema.table_schemas, self._schema.tables(state), strict=True)
        for number, (table_schema, table) in enumerate(tables):
            root = old and old.tables[number]
            if root is None or not isinstance(table.base, Tree) or table.base.root is not root:
                changes: Mapping[str, Any] = dict(table.items())
                node, files = update(table_schema, self._parts, Leaf(), changes)
            else:
                node, files = update(table_schema, self._parts, root, table.changes)
            nodes.append(node)
            replaced += files
        return tuple(nodes), replaced

    def _snapshot(self, root: Root[S]) -> Snapshot[S]:
        """The state of a root. Its parts are read when they are needed; if one is damaged, its
        table is made from the log."""
        self._root = root
        replayed: list[S] = []
        # A state refers to the ledger and not to this index, so that the ledger's files are closed
        # as soon as nothing refers to it; a circle would have to wait for the garbage collector.
        ledger, schema, seldom, this = self._ledger, self._schema, self._seldom, ref(self)

        def replay(number: int, error: DamagedPart) -> Overlay[Any]:
            if not replayed:
                if (index := this()) is not None:
                    index._saved_seq = -1
                seldom.warn("part", f"{error}; what it says was read from the log.")
                start = Snapshot(schema.empty, START)
                replayed.append(_replay(ledger, schema, start, root.position.seq).state)
            return schema.tables(replayed[0])[number]

        return self._snapshot_of(root, replay)

    def _snapshot_of(
        self, root: Root[S], replay: Callable[[int, DamagedPart], Overlay[Any]]
    ) -> Snapshot[S]:
        nodes = zip(self._schema.table_schemas, root.tables, strict=True)
        tables = (
            Overlay(table.summarize, Tree(table, node, self._parts, partial(replay, number)))
            for number, (table, node) in enumerate(nodes)
        )
        return Snapshot(self._schema.with_tables(root.bare_state, tables), root.position)

    def _start(self) -> tuple[Snapshot[S], _Complaint | None]:
        if (
            self._latest is not None
            and not self._is_replaced()
            and self._ledger.holds(self._latest.position)
        ):
            return self._latest, None
        nothing = Snapshot(self._schema.empty, START)
        seen = self._latest.position.seq if self._latest else 0
        self._saved_seq = -1
        complaint = ""
        for pause in _RETRY_PAUSES:
            if pause:
                time.sleep(pause)
            try:
                self._file_identity = _identity(self.path)
                content = read_ours(self.path)
                with suppress(ValueError):
                    self._witness.see(position_of(content))
            except FileNotFoundError:
                return nothing, _Complaint("The index is missing", False, seen)
            except OSError as error:
                complaint = f"The index can't be read ({error.strerror})"
                return nothing, _Complaint(complaint, True, seen)
            try:
                root = decode_root(self._schema, content)
            except ValueError as error:
                return nothing, _Complaint(f"The index is damaged ({error})", True, seen)
            if self._ledger.holds(root.position):
                self._saved_seq, self._unsaved_bytes = root.position.seq, 0
                return self._snapshot(root), None
            seen = max(seen, root.position.seq)
            complaint = f"The index (at event {root.position.seq}) does not fit the log"
        return nothing, _Complaint(complaint, True, seen)

    def _require_chain(self, position: Position, complaint: _Complaint) -> None:
        """Refuse a chain that is empty though an index is there, or was seen by this process. It
        isn't new: an index is written only after the first event is durable."""
        if position == START and (complaint.exists or complaint.seq):
            raise chain_is_gone(self.path, complaint.seq)


def _replay(
    ledger: FileLedger,
    schema: StateSchema[S],
    start: Snapshot[S],
    until: int | None = None,
    pass_over: Callable[[Batch], None] = lambda _: None,
) -> Snapshot[S]:
    """The state after the events that follow ``start``, up to event ``until``. ``pass_over`` gets
    each batch before it is folded."""
    position = start.position

    def envelopes() -> Iterator[Envelope]:
        nonlocal position
        for batch in ledger.replay(start.position):
            if until is not None and batch.position.seq >= until:
                yield from (event for event in batch.folded() if event.seq <= until)
                return
            pass_over(batch)
            yield from batch.folded()
            position = batch.position

    return Snapshot(schema.fold(start.state, envelopes()), position)


def _identity(path: Path) -> tuple[int, ...] | None:
    """A value that differs once another file has that name."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return state.st_ino, state.st_mtime_ns, state.st_size
