"""The compact JSON index: the folded state and the position in the chain that it reflects.

It is never the only copy of anything. Whatever is wrong with it, it is made anew from the chain.

``index.json`` has all of it, up to some 300 schedules. Where there are more, the schedules and the
agents lie in parts under ``index/``, of which a command reads and writes those that it needs. The
same goes for any other chain: what its state consists of, a :class:`~promptyoself.index.form.Form`
says.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar
from weakref import ref

from promptyoself.core.diagnostics import Seldom
from promptyoself.core.disk import Disk, read_ours
from promptyoself.core.errors import ChainError
from promptyoself.index.form import Form, Root, decode_root, encode_root, position_of
from promptyoself.index.tree import Inner, Kind, Leaf, Node, Parts, Tree, Unfit, update
from promptyoself.ledger import START, Envelope, Position
from promptyoself.state.overlay import Overlay

if TYPE_CHECKING:
    from promptyoself.ledger.protocol import Ledger

__all__ = ["Index", "Snapshot", "chain_is_gone", "events_missing"]

S = TypeVar("S")
V = TypeVar("V")

_LOOKS = (0.0, 0.0, 0.005, 0.05)
"""Sealing replaces the index and a part of the log, one right after the other. Whoever looks in
between looks again, after so many seconds, before he reads the whole log."""


_ENTRIES_PER_EVENT = 32
"""Reading an event again costs what writing so many entries does, so an index in one file that was
written a moment ago is written again when it is behind by as many events as that is worth."""

_EVERY = 128
"""An index in parts is written when it is so many events behind: readers catch up with these in a
few milliseconds, and one save of many events writes each part once."""

_PAUSE_SECONDS, _AT_MOST = 1.0, 2048
"""In a storm of events it is written once a second, or when it is so many events behind."""

_BYTES, _BYTES_AT_MOST = 256 * 1024, 4 * 1024 * 1024
"""The same by the size of the events' lines: a few long prompts take as long to read again as a
thousand short ones."""

_KEPT = 2
"""For so many saves the parts of older roots are kept, for those who are still reading."""

_MOST_KEPT = 1000


class Snapshot(NamedTuple, Generic[S]):
    """The state at a position of the chain."""

    state: S
    position: Position


class _Complaint(NamedTuple):
    """What is wrong with the index file, whether there is one, and the event it claims to be at."""

    text: str
    exists: bool
    seq: int = 0


class _Witness(NamedTuple):
    """The latest event that is known to have been durable: from an index's file, which may be
    another log's; or, where it is ``sure``, since this process has appended it."""

    seq: int
    hash: str
    sure: bool


_NONE_SEEN = _Witness(0, START.hash, sure=False)


class Index(Generic[S]):
    """Answers "how do things stand?" without reading the whole chain."""

    def __init__(
        self,
        path: Path,
        form: Form[S],
        ledger: Ledger,
        warn: Callable[[str], None],
        disk: Disk | None = None,
    ) -> None:
        """``warn`` gets one sentence when the index had to be made anew."""
        self.path = path
        self._form = form
        self._ledger = ledger
        self._warn = warn
        self._seldom = Seldom(warn)
        self._disk = disk or Disk()
        self._latest: Snapshot[S] | None = None
        self._saved = 0  # the event up to which the file is good; -1 where it isn't
        self._unsaved = 0  # how many bytes the lines have that come after what the file is good for
        self._parts = Parts(path.parent / "index", self._disk)
        self._root: Root[S] | None = None  # what lies in the file, if it is good
        self._seen: tuple[int, ...] | None = None  # which file that was
        self._stamp: object = None  # of the log, when the latest was as new as it
        self._written = float("-inf")  # when it was last written here
        self._witness = _NONE_SEEN
        self.missing: ChainError | None = None
        """Why nobody may write, where the log has lost events that were seen: ``events_missing``.
        As things stood when the state was last loaded."""

    @property
    def is_stale(self) -> bool:
        """Whether the file is missing or bad, though there is something to write down; but not
        where it knows of events that the log has lost: then it is the one witness of that."""
        if self._saved >= 0 or self._latest is None or self._latest.position == START:
            return False
        return self.missing is None

    def load(self, stamp: object = None) -> Snapshot[S]:
        """The state at the chain's end, from the index where it fits, else by a full replay.

        ``stamp`` is the ledger's, where the caller has just asked for it.

        Raises:
            ChainError: the chain is damaged, or gone while the index is still there.
        """
        if stamp is None:
            with suppress(OSError):  # what is the matter, reading will tell
                stamp = self._ledger.stamp()  # before reading, so that no append slips by
        unchanged = stamp is not None and stamp == self._stamp
        if self._latest is not None and unchanged and not self._is_replaced():
            return self._latest
        start, complaint = self._start()
        found = _Found(self._witness.seq)
        snapshot = _replay(self._ledger, self._form, start, found=found, told=self._count)
        if start.position != START and self._losses(snapshot) > self._losses(start):
            # What is decided from here on rests on what the log says, not on what we have seen.
            start = Snapshot(self._form.empty, START)
            found = _Found(self._witness.seq)
            snapshot = _replay(self._ledger, self._form, start, found=found, told=self._count)
        if complaint:
            self._require_chain(snapshot.position, complaint)
        self._judge(snapshot, found.hash)
        if complaint and self.missing is None and snapshot.position != START:
            self._warn(f"{complaint.text}; it was made anew from the log.")
        self._latest = snapshot
        self._stamp = stamp
        return snapshot

    def prepare(self) -> None:
        """Read the index file and the events since, where nothing was read yet. It is called before
        the lock is taken, since others wait for what is read with the lock held. Where the file
        doesn't fit, this does nothing: :meth:`load` then reads the whole log, which one process at
        a time should do, and tells what is wrong."""
        if self._latest is not None:
            return
        start, complaint = self._start()
        if complaint is None:
            self._latest = start
            with suppress(ChainError, OSError):  # it may pass once nobody else writes
                self.load()

    def _losses(self, snapshot: Snapshot[S]) -> int:
        return len(self._form.losses(snapshot.state).recorded)

    def _judge(self, snapshot: Snapshot[S], found: str | None) -> None:
        """See whether the log still has the latest event that was seen; ``found`` is the hash of
        that event, where it was met."""
        seen, position = self._witness, snapshot.position
        if position.seq == seen.seq:
            found = position.hash
        before, self.missing = self.missing, None
        if position.seq >= seen.seq and not (seen.sure and found not in (None, seen.hash)):
            return
        for loss in self._form.losses(snapshot.state).recorded:
            # A statement on the chain tells of it. Of what this process has appended the number
            # is enough: an index may have seen more since, and the statement has that.
            if loss.excuses(seen.seq, seen.hash) or (seen.sure and loss.covers(seen.seq)):
                return
        self.missing = events_missing(seen.seq, position.seq)
        if before is None or before.message != self.missing.message:
            cut = (
                f"The index knew of {seen.seq} events, but the log ends at event {position.seq}: "
                "something has cut it off."
            )
            text = cut if position.seq < seen.seq else self.missing.message
            self._warn(f"{text} Nothing is written here until it is restored, or recovered.")

    def known_seq(self) -> int:
        """The event up to which the file has seen the chain; 0 where it can't tell.

        A witness, not a proof: it is written after the events are durable, so a chain that is
        shorter was cut off since.
        """
        try:
            return position_of(read_ours(self.path)).seq
        except (OSError, ValueError):
            return 0

    def known(self) -> Snapshot[S] | None:
        """What the file says, whether or not it fits the chain; ``None`` where it can't be read.
        Reading it may raise :class:`~promptyoself.index.tree.Unfit`, where a part is missing."""
        try:
            root = decode_root(self._form, read_ours(self.path))
        except (OSError, ValueError):
            return None

        def instead(_: int, error: Unfit) -> Overlay[Any]:
            raise error

        tables = (
            Overlay(kind.summarize, Tree(kind, node, self._parts, partial(instead, at)))
            for at, (kind, node) in enumerate(zip(self._form.kinds, root.tables, strict=True))
        )
        return Snapshot(self._form.with_tables(root.rest, tables), root.position)

    def witness(self) -> tuple[int, str] | None:
        """The number and the hash of the event at which the file stands; ``None`` where it can't
        tell."""
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
            self._see(position_of(read_ours(self.path)))
        found = _Found(self._witness.seq)
        start = Snapshot(self._form.empty, START)
        snapshot = _replay(self._ledger, self._form, start, found=found)
        self._require_chain(snapshot.position, _Complaint("", self.path.exists()))
        self._judge(snapshot, found.hash)
        if self.missing is not None:
            raise self.missing
        self._latest = snapshot
        self._saved = -1
        return snapshot

    def save(self, snapshot: Snapshot[S], *, moved: bool = False, grown: int = 0) -> None:
        """Write it down, where that is worth it. The caller holds the ledger's lock.

        An index in parts isn't written for every event. ``grown`` is how many bytes the lines have
        that the caller has just appended. ``moved`` says that the file's position
        fits no longer, so that it is worth it in any case. A disk that refuses is no error, since
        what the caller did is already in the log.
        """
        self._latest = snapshot
        self._count(grown)
        self._witness = _Witness(snapshot.position.seq, snapshot.position.hash, sure=True)
        self._stamp = None
        with suppress(OSError):  # the events are in the log, whatever becomes of this
            # With the lock held, nobody can have appended since; but it may have been taken away.
            self._stamp = self._ledger.stamp_at(snapshot.position)
        behind = snapshot.position.seq - self._saved
        if not (moved or self._saved < 0 or self._is_worth_it(behind)):
            return
        try:
            self._write(snapshot)
        except OSError as error:
            self._seldom.warn(
                "unwritable",
                f"The index could not be written ({error.strerror}); the log has everything.",
            )

    def _count(self, size: int) -> None:
        self._unsaved += size

    def _is_worth_it(self, behind: int) -> bool:
        if self._root is None:
            return True
        lately = time.monotonic() - self._written < _PAUSE_SECONDS
        if self._in_parts:
            if self._unsaved >= (_BYTES_AT_MOST if lately else _BYTES):
                return True
            return behind >= (_AT_MOST if lately else _EVERY)
        most = len(self._root.tables[0]) // _ENTRIES_PER_EVENT
        return behind >= (max(1, most) if lately else 1)

    def _is_replaced(self) -> bool:
        """Whether somebody has written an index in parts since: he may have removed some that ours
        speaks of."""
        return self._in_parts and _identity(self.path) != self._seen

    @property
    def _in_parts(self) -> bool:
        return self._root is not None and any(isinstance(node, Inner) for node in self._root.tables)

    def _write(self, snapshot: Snapshot[S]) -> None:
        """Parts first, each under a new name; then the root, which makes them count."""
        state, position = snapshot
        old = self._root if self._saved >= 0 else None
        kept = old.superseded if old else []
        for names in kept[: 1 - _KEPT]:
            self._parts.remove(names)
        self._parts.written.clear()
        try:
            nodes, past = self._updated(state, old)
        except Unfit:  # a part that is needed to write another; what is in it can be had elsewhere
            old, kept, past = None, [], []
            nodes, _ = self._updated(state, None)
        superseded = [
            [name for name in names if name not in self._parts.written]
            for names in [*kept[1 - _KEPT :], past[:_MOST_KEPT]]
            if names
        ]
        rest = self._form.with_tables(state, self._form.tables(self._form.empty))
        root = Root(position, nodes, rest, superseded)
        self._disk.replace(self.path, encode_root(self._form, root, old), durable=False)
        self._saved, self._unsaved = position.seq, 0
        self._written = time.monotonic()
        self._latest = self._snapshot(root)
        self._seen = _identity(self.path)
        self._parts.remove(past[_MOST_KEPT:])
        if old is None:
            for kind in self._form.kinds:
                self._parts.sweep(kind)

    def _updated(self, state: S, old: Root[S] | None) -> tuple[tuple[Node[Any], ...], list[str]]:
        """The nodes of the tables, and the files of which they no longer speak."""
        nodes: list[Node[Any]] = []
        past: list[str] = []
        for at, (kind, table) in enumerate(
            zip(self._form.kinds, self._form.tables(state), strict=True)
        ):
            node, also_past = self._updated_table(kind, table, old and old.tables[at])
            nodes.append(node)
            past += also_past
        return tuple(nodes), past

    def _updated_table(
        self, kind: Kind[V], table: Overlay[V], root: Node[V] | None
    ) -> tuple[Node[V], list[str]]:
        if root is None or not isinstance(table.base, Tree) or table.base.root is not root:
            return update(kind, self._parts, Leaf(), dict(table.items()))
        return update(kind, self._parts, root, table.changes)

    def _snapshot(self, root: Root[S]) -> Snapshot[S]:
        """The state of a root, its parts read when they are asked for."""
        self._root = root
        made: list[S] = []
        # A state refers to the ledger, not to us: what nobody refers to closes its files at once,
        # where a circle would wait to be found.
        ledger, form, seldom, us = self._ledger, self._form, self._seldom, ref(self)

        def instead(at: int, error: Unfit) -> Overlay[Any]:
            if not made:
                if (index := us()) is not None:
                    index._saved = -1
                seldom.warn("part", f"{error}; what it says was read from the log.")
                made.append(
                    _replay(ledger, form, Snapshot(form.empty, START), root.position.seq).state
                )
            return form.tables(made[0])[at]

        tables = (
            Overlay(kind.summarize, Tree(kind, node, self._parts, partial(instead, at)))
            for at, (kind, node) in enumerate(zip(self._form.kinds, root.tables, strict=True))
        )
        return Snapshot(self._form.with_tables(root.rest, tables), root.position)

    def _start(self) -> tuple[Snapshot[S], _Complaint | None]:
        if (
            self._latest is not None
            and not self._is_replaced()
            and self._ledger.holds(self._latest.position)
        ):
            return self._latest, None
        nothing = Snapshot(self._form.empty, START)
        seen = self._latest.position.seq if self._latest else 0
        self._saved = -1
        complaint = ""
        for pause in _LOOKS:
            if pause:
                time.sleep(pause)
            try:
                self._seen = _identity(self.path)
                content = read_ours(self.path)
                with suppress(ValueError):
                    self._see(position_of(content))
            except FileNotFoundError:
                return nothing, _Complaint("The index is missing", False, seen)
            except OSError as error:
                complaint = f"The index can't be read ({error.strerror})"
                return nothing, _Complaint(complaint, True, seen)
            try:
                root = decode_root(self._form, content)
            except ValueError as error:
                return nothing, _Complaint(f"The index is damaged ({error})", True, seen)
            if self._ledger.holds(root.position):
                self._saved, self._unsaved = root.position.seq, 0
                return self._snapshot(root), None
            seen = max(seen, root.position.seq)
            complaint = f"The index (at event {root.position.seq}) does not fit the log"
        return nothing, _Complaint(complaint, True, seen)

    def _see(self, position: Position) -> None:
        if position.seq > self._witness.seq:
            self._witness = _Witness(position.seq, position.hash, sure=False)

    def _require_chain(self, position: Position, complaint: _Complaint) -> None:
        """An index is written after the first event is durable: a chain that isn't there, though
        an index is, or was seen by this process, has been taken away; it isn't new."""
        if position == START and (complaint.exists or complaint.seq):
            raise chain_is_gone(self.path, complaint.seq)


class _Found:
    """Takes note of an event's hash as a replay comes by."""

    def __init__(self, seq: int) -> None:
        self._seq = seq
        self.hash: str | None = None

    def look(self, envelopes: Sequence[Envelope]) -> None:
        """At events in their order."""
        if envelopes and envelopes[0].seq <= self._seq + 1 <= envelopes[-1].seq:
            self.hash = envelopes[self._seq + 1 - envelopes[0].seq].prev


def _replay(
    ledger: Ledger,
    form: Form[S],
    start: Snapshot[S],
    until: int | None = None,
    told: Callable[[int], None] = lambda _: None,
    found: _Found | None = None,
) -> Snapshot[S]:
    """What follows from the events after a position, up to that event. ``told`` gets the bytes of
    their lines."""
    position = start.position

    def envelopes() -> Iterator[Envelope]:
        nonlocal position
        for batch in ledger.replay(start.position):
            if until is not None and batch.position.seq >= until:
                yield from (event for event in batch.folded() if event.seq <= until)
                return
            if found is not None:
                found.look(batch.envelopes)
            told(len(batch.content))
            yield from batch.folded()
            position = batch.position

    return Snapshot(form.fold(start.state, envelopes()), position)


def _identity(path: Path) -> tuple[int, ...] | None:
    """What differs when another file has got that name."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def events_missing(seen: int, end: int) -> ChainError:
    """The error for a log that ends at event ``end``, or goes on, without event ``seen``."""
    if end < seen:
        message = f"The log ends at event {end}, but its index has seen event {seen}."
    else:
        message = f"Event {seen} of the log is another than the one that its index has seen."
    return ChainError(
        "events_missing",
        message,
        "Nothing is written here until that is settled. The log was cut off, damaged or replaced "
        "after the event was acknowledged. Restore it from a backup that has the event; or run "
        "`promptyoself recover` to go on without what is lost, which is then recorded. If you have "
        "restored an older backup on purpose, remove index.json beside it.",
        seq=min(seen, end + 1),
        expected=f"event {seen}",
        found="the end of the log" if end < seen else "another event",
    )


def chain_is_gone(path: Path, events: int) -> ChainError:
    """The error for a log of which nothing is left, though the index at ``path`` has seen more."""
    known = f"its index knows of {events} events" if events else "it has an index"
    return ChainError(
        "chain_missing",
        f"There is no readable log in {path.parent}, but {known}.",
        "Look at --var and PROMPTYOSELF_VAR with `promptyoself doctor`. If it is the right place, "
        "restore the *.ndjson.gz files from a backup and run `promptyoself verify`. To start anew, "
        "remove the index too.",
        events=events,
    )
