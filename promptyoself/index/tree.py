"""A table that is too large for one file: a tree of parts, each in a file of its own.

Each key has a path of hexadecimal digits, and a part has the values whose paths begin with the same
digits. The name of a part stands in the part above it, with a summary that tells whether it needs
to be read. The topmost part stands in the root, ``index.json``.

A part's file is named after its content and never changes. An update writes the parts that differ,
up to the root. So a root names all parts of one moment, and a part that is damaged, or has never
reached the disk, can't be taken for the right one.
"""

import heapq
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Generic, TypeVar

from promptyoself.index.parts import Branch, DamagedPart, Leaf, Node, PartFiles, TableSchema
from promptyoself.state.overlay import Overlay, PartFilter, Summary

T = TypeVar("T")
V = TypeVar("V")

_Row = tuple[str, str, V]
"""A path or an instant, a key and its value."""

PART_BYTES = 32 * 1024
"""About how many bytes a part has at most, if it has more than one value. A part of this size is
read and written in less time than it takes to open several smaller ones."""

ROOT_BYTES = 128 * 1024
"""About how many bytes of a table are kept in the root itself: some 300 schedules."""

_PATH_DIGITS = 8


class Tree(Generic[V]):
    """A table as the root has it; see :class:`~promptyoself.state.overlay.Base`.

    If a part is damaged, the table is made from the log, and the answers come from there.
    """

    def __init__(
        self,
        table: TableSchema[V],
        root: Node[V],
        parts: PartFiles,
        replay: Callable[[DamagedPart], Overlay[V]],
    ) -> None:
        """``replay`` makes the same table from the log."""
        self.root = root
        self._table = table
        self._parts = parts
        self._replay = replay
        self._replayed: Overlay[V] | None = None
        # An instant and the earliest one after it at which a value may begin.
        self._wake: tuple[str, str | None] | None = None
        self._ready: _ReadyRows[V] | None = None

    def path(self, key: str) -> str:
        """See :class:`~promptyoself.state.overlay.Base`."""
        return self._table.path(key)

    def get(self, key: str) -> V | None:
        """See :class:`~promptyoself.state.overlay.Base`."""
        return self._answer(lambda: self._get(key), lambda values: values.get(key))

    def __len__(self) -> int:
        return _sum_up(self._table, self.root).number

    def walk(self, wanted: PartFilter, under: str = "") -> Iterator[tuple[str, V]]:
        """See :class:`~promptyoself.state.overlay.Base`."""

        def replayed(values: Overlay[V]) -> Iterator[_Row[V]]:
            rows = ((self.path(key), key, value) for key, value in values.items(wanted))
            return iter(sorted(rows, key=lambda row: row[:2]))

        for _, key, value in self._rows(lambda: self._walk(self.root, wanted, under), replayed):
            yield key, value

    def soonest(self, wanted: PartFilter) -> Iterator[_Row[V]]:
        """See :class:`~promptyoself.state.overlay.Base`."""
        return self._rows(lambda: self._soonest(wanted), lambda values: values.soonest(wanted))

    def ready_by(self, now: str) -> Iterator[_Row[V]]:
        """See :class:`~promptyoself.state.overlay.Base`.

        Rows that were read for an earlier instant are kept: each pass of a loop needs them, and
        there may be many.
        """

        def ready_rows() -> Iterator[_Row[V]]:
            if self._ready is None or not self._ready.holds(now):
                self._ready = _ReadyRows(now, self._soonest)
            return self._ready.rows(now)

        return self._rows(ready_rows, lambda values: values.ready_by(now))

    def next_ready(self, after: str) -> str | None:
        """See :class:`~promptyoself.state.overlay.Base`."""
        if self._wake is not None:
            earlier, ready = self._wake
            if earlier <= after and (ready is None or ready > after):
                return ready
        ready = self._answer(
            lambda: self._next_ready(after), lambda values: values.next_ready(after)
        )
        self._wake = after, ready
        return ready

    def _answer(self, from_parts: Callable[[], T], replayed: Callable[[Overlay[V]], T]) -> T:
        """The answer of the parts; if one is damaged, that of the table that the log gives."""
        if self._replayed is None:
            try:
                return from_parts()
            except DamagedPart as error:
                self._replayed = self._replay(error)
        return replayed(self._replayed)

    def _rows(
        self,
        from_parts: Callable[[], Iterator[_Row[V]]],
        replayed: Callable[[Overlay[V]], Iterator[_Row[V]]],
    ) -> Iterator[_Row[V]]:
        """The rows of the parts, which are in the order of their first two fields. If a part turns
        out to be damaged on the way, the rest comes from the table that the log gives."""
        last = ("", "")
        if self._replayed is None:
            try:
                for row in from_parts():
                    last = row[:2]
                    yield row
                return
            except DamagedPart as error:
                self._replayed = self._replay(error)
        yield from (row for row in replayed(self._replayed) if row[:2] > last)

    def _get(self, key: str) -> V | None:
        node = self.root
        for digit in self._table.path(key):
            if not isinstance(node, Branch):
                break
            part = node.parts.get(digit)
            if part is None:
                return None
            node = self._parts.read(self._table, part[0])
        return None if isinstance(node, Branch) else node.get(key)

    def _walk(self, node: Node[V], wanted: PartFilter, under: str) -> Iterator[tuple[str, str, V]]:
        if isinstance(node, Branch):
            for digit, (file, summary) in sorted(node.parts.items()):
                if under[:1] in ("", digit) and wanted(summary):
                    part = self._parts.read(self._table, file)
                    yield from self._walk(part, wanted, under[1:])
            return
        for path, key in sorted((self.path(key), key) for key in node):
            yield path, key, node[key]

    # Best first: the instant of a part is no later than any of its values', so a part is read only
    # when its turn has come. Parts and values with the same instant come in the order of their
    # paths, or all parts with that instant would be read before the first value.

    def _soonest(self, wanted: PartFilter) -> Iterator[tuple[str, str, V]]:
        numbers = count()
        heap: list[tuple[str, str, int, str | None, str, V | None]] = []

        def push(node: Node[V], prefix: str) -> None:
            if isinstance(node, Branch):
                for digit, (file, summary) in node.parts.items():
                    if summary.first is not None and wanted(summary):
                        path = prefix + digit
                        heapq.heappush(heap, (summary.first, path, next(numbers), file, "", None))
                return
            for first, path, summary, key in node.rows(self._table):
                if wanted(summary):
                    heapq.heappush(heap, (first, path, next(numbers), None, key, node[key]))

        push(self.root, "")
        while heap:
            first, path, _, file, key, value = heapq.heappop(heap)
            if file is not None:
                push(self._parts.read(self._table, file), path)
            elif value is not None:
                yield first, key, value

    def _next_ready(self, after: str) -> str | None:
        heap: list[tuple[str, str]] = []

        def push(node: Node[V]) -> None:
            if isinstance(node, Branch):
                for file, summary in node.parts.values():
                    if summary.ready is not None:
                        heapq.heappush(heap, (summary.ready, file))
                return
            for _, _, summary, _ in node.rows(self._table):
                if summary.ready is not None and summary.ready > after:
                    heapq.heappush(heap, (summary.ready, ""))

        push(self.root)
        while heap:
            ready, file = heapq.heappop(heap)
            if ready > after:
                return ready
            push(self._parts.read(self._table, file))
        return None


class _ReadyRows(Generic[V]):
    """The rows of the values that may begin by an instant, read when they are needed. They hold for
    later instants too, until one of the values that were left out may begin."""

    def __init__(
        self, now: str, soonest: Callable[[PartFilter], Iterator[tuple[str, str, V]]]
    ) -> None:
        self._now = now
        self._until: str | None = None  # when the first of those that were left out may begin
        self._rows_read: list[tuple[str, str, V]] = []
        self._unread = soonest(self._is_ready)

    def holds(self, now: str) -> bool:
        """Whether none of the values that were left out may begin by ``now``."""
        return self._now <= now and (self._until is None or now < self._until)

    def rows(self, now: str) -> Iterator[tuple[str, str, V]]:
        """All rows; ``now`` is an instant for which :meth:`holds` is true."""
        self._now = now
        number = 0
        while True:
            while number < len(self._rows_read):
                yield self._rows_read[number]
                number += 1
            row = next(self._unread, None)
            if row is None:
                return
            self._rows_read.append(row)

    def _is_ready(self, summary: Summary) -> bool:
        ready = summary.ready
        if ready is None or ready <= self._now:
            return ready is not None
        if self._until is None or ready < self._until:
            self._until = ready
        return False


def update(
    table: TableSchema[V], parts: PartFiles, root: Node[V], changes: Mapping[str, V]
) -> tuple[Node[V], list[str]]:
    """Write the parts that the changes concern. Returns the new root, and the files that it doesn't
    name any more.

    Raises:
        OSError: the disk refused; the old root still holds.
        DamagedPart: a part can't be read.
    """
    superseded: list[str] = []

    def put(node: Node[V], prefix: str, before: Node[V]) -> tuple[str, Summary]:
        return parts.write(table, prefix, node, before), _sum_up(table, node)

    def apply(node: Node[V], prefix: str, changes: Mapping[str, V], max_bytes: int) -> Node[V]:
        if not isinstance(node, Branch):
            values = Leaf({**node, **changes})
            if len(prefix) == _PATH_DIGITS or len(values) < 2:
                return values
            if sum(map(table.estimate_bytes, values.values())) <= max_bytes:
                return values
            node, changes = Branch({}), values
        children = dict(node.parts)
        for digit, group in _by_digit(changes, len(prefix)).items():
            old = children.get(digit)
            before: Node[V] = Leaf() if old is None else parts.read(table, old[0])
            now = apply(before, prefix + digit, group, PART_BYTES)
            children[digit] = put(now, prefix + digit, before)
            if old is not None and old[0] != children[digit][0]:
                superseded.append(f"{table.name}/{old[0]}")
        return Branch(children)

    def _by_digit(values: Mapping[str, V], depth: int) -> dict[str, dict[str, V]]:
        groups: dict[str, dict[str, V]] = {}
        for key, value in values.items():
            groups.setdefault(table.path(key)[depth], {})[key] = value
        return groups

    return apply(root, "", changes, ROOT_BYTES) if changes else root, superseded


def _sum_up(table: TableSchema[V], node: Node[V]) -> Summary:
    if isinstance(node, Branch):
        summaries = [summary for _, summary in node.parts.values()]
    else:
        summaries = [table.summarize(value) for value in node.values()]
    return Summary(
        sum(summary.number for summary in summaries),
        min((summary.first for summary in summaries if summary.first is not None), default=None),
        min((summary.ready for summary in summaries if summary.ready is not None), default=None),
        tuple(map(sum, zip(*(summary.statuses for summary in summaries), strict=True))),
        sum(summary.failing for summary in summaries),
    )
