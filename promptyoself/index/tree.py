"""A table too large for one file: parts by the first digits of where a key stands, each in a file
of its own, and with each part what is needed to leave it unread.

A part's file is named after its content and never changes: an update writes the parts that differ,
up to the root, which says which parts are current. So whoever has a root has all of one moment, and
a part that was damaged, or never reached the disk, can't be taken for the right one.
"""

from __future__ import annotations

import heapq
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from promptyoself.core.disk import Disk, read_ours
from promptyoself.state.overlay import Overlay, Summary, Wanted

__all__ = [
    "Inner",
    "Kind",
    "Leaf",
    "Node",
    "Parts",
    "Tree",
    "Unfit",
    "read_node",
    "spell_node",
    "update",
]

V = TypeVar("V")

PART_BYTES = 32 * 1024
"""About the most that a part has, in bytes; one value may have more. Below it a part is read and
written in less time than it takes to look for smaller ones."""

ROOT_BYTES = 128 * 1024
"""About the most of a table that is kept in the root itself: some 300 schedules."""

_DIGITS = 8
_CACHED = 512


class Unfit(Exception):
    """A part isn't what the root says."""


class Kind(NamedTuple, Generic[V]):
    """What a table holds. ``path`` is where a key stands: 8 hexadecimal digits; ``weigh`` is about
    how many bytes a value takes."""

    name: str
    path: Callable[[str], str]
    spell: Callable[[str, V], dict[str, Any]]
    read: Callable[[dict[str, Any]], tuple[str, V]]
    summarize: Callable[[V], Summary]
    weigh: Callable[[V], int]


class Inner(NamedTuple):
    """The parts of a part, by the next digit: the file of each, and what it holds."""

    parts: dict[str, tuple[str, Summary]]


class Leaf(dict[str, V]):
    """Values by key. It is never changed, so what was once made of it is kept."""

    __slots__ = ("_rows", "_spelled")

    def rows(self, kind: Kind[V]) -> list[tuple[str, str, Summary, str]]:
        """The instant ahead, the path, the summary and the key of each value that has one."""
        try:
            return self._rows
        except AttributeError:
            found = ((kind.summarize(value), key) for key, value in self.items())
            self._rows: list[tuple[str, str, Summary, str]] = [
                (summary.first, kind.path(key), summary, key)
                for summary, key in found
                if summary.first is not None
            ]
            return self._rows

    def spelled(self, kind: Kind[V], before: Leaf[V] | None = None) -> list[orjson.Fragment]:
        """Each value's JSON, in the order of the keys, so that the same values make the same file.
        What hasn't changed since the leaf ``before`` isn't spelled again."""
        try:
            known = self._spelled
        except AttributeError:
            known = {}
            old = getattr(before, "_spelled", {})
            for key, value in self.items():
                if before is not None and key in old and before[key] is value:
                    known[key] = old[key]
                else:
                    known[key] = orjson.Fragment(orjson.dumps(kind.spell(key, value)))
            self._spelled: dict[str, orjson.Fragment] = known
        return [known[key] for key in sorted(known)]


Node = Leaf[V] | Inner
"""Values, or further parts."""


class Parts:
    """The files of the parts, of all tables. What was read lately is remembered."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._cache: OrderedDict[str, Node[Any]] = OrderedDict()
        self._made: set[Path] = set()
        self.written: set[str] = set()

    def read(self, kind: Kind[V], file: str) -> Node[V]:
        """Raises :class:`Unfit`."""
        name = f"{kind.name}/{file}"
        found = self._cache.get(name)
        if found is None:
            try:
                content = read_ours(self._folder / f"{name}.json")
            except OSError as error:
                raise Unfit(f"A part of it can't be read ({error.strerror})") from None
            if sha256(content).hexdigest()[:16] != file.rpartition("-")[2]:
                raise Unfit("A part of it is damaged")
            try:
                found = read_node(kind, orjson.loads(content)[kind.name])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise Unfit(f"A part of it is damaged ({error!r})") from None
            self._remember(name, found)
        else:
            self._cache.move_to_end(name)
        return found

    def write(self, kind: Kind[V], prefix: str, node: Node[V], before: Node[V] | None) -> str:
        """Raises :class:`OSError`. What is as ``before`` isn't spelled again."""
        content = orjson.dumps({kind.name: spell_node(kind, node, before)})
        file = f"{prefix}-{sha256(content).hexdigest()[:16]}"
        name = f"{kind.name}/{file}"
        path = self._folder / f"{name}.json"
        if path.parent not in self._made:
            self._disk.make_directory(path.parent)
            self._made.add(path.parent)
        self._disk.replace(path, content, durable=False)
        self.written.add(name)
        self._remember(name, node)
        return file

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that no root speaks of any more; no matter if that fails."""
        for name in names:
            self._cache.pop(name, None)
            self._disk.discard(self._folder / f"{name}.json")

    def sweep(self, kind: Kind[Any]) -> None:
        """Remove all files that were not written just now: nobody knows what else is there."""
        with suppress(OSError):
            for name in os.listdir(self._folder / kind.name):
                if f"{kind.name}/{name.removesuffix('.json')}" not in self.written:
                    self._disk.discard(self._folder / kind.name / name)

    def _remember(self, name: str, node: Node[Any]) -> None:
        self._cache[name] = node
        if len(self._cache) > _CACHED:
            self._cache.popitem(last=False)


class Tree(Generic[V]):
    """A table as the root has it; see :class:`~promptyoself.state.overlay.Base`.

    Where a part turns out to be unfit, ``instead`` makes the same table from the log, and the
    answers come from there.
    """

    def __init__(
        self,
        kind: Kind[V],
        root: Node[V],
        parts: Parts,
        instead: Callable[[Unfit], Overlay[V]],
    ) -> None:
        self.root = root
        self._kind = kind
        self._parts = parts
        self._make = instead
        self._instead: Overlay[V] | None = None
        self._wake: tuple[str, str | None] | None = None
        self._ready: _Ready[V] | None = None

    def path(self, key: str) -> str:
        """See :class:`~promptyoself.state.overlay.Base`."""
        return self._kind.path(key)

    def get(self, key: str) -> V | None:
        """See :class:`~promptyoself.state.overlay.Base`."""
        if self._instead is None:
            try:
                node = self.root
                for digit in self._kind.path(key):
                    if not isinstance(node, Inner):
                        break
                    part = node.parts.get(digit)
                    if part is None:
                        return None
                    node = self._parts.read(self._kind, part[0])
                return None if isinstance(node, Inner) else node.get(key)
            except Unfit as error:
                self._instead = self._make(error)
        return self._instead.get(key)

    def __len__(self) -> int:
        return _sum_up(self._kind, self.root).number

    def walk(self, wanted: Wanted, under: str = "") -> Iterator[tuple[str, V]]:
        """See :class:`~promptyoself.state.overlay.Base`."""
        last = ("", "")
        if self._instead is None:
            try:
                for path, key, value in self._walk(self.root, wanted, under):
                    last = (path, key)
                    yield key, value
                return
            except Unfit as error:
                self._instead = self._make(error)
        found = ((self.path(key), key, value) for key, value in self._instead.items(wanted))
        for path, key, value in sorted(found, key=lambda each: each[:2]):
            if (path, key) > last:
                yield key, value

    def soonest(self, wanted: Wanted) -> Iterator[tuple[str, str, V]]:
        """See :class:`~promptyoself.state.overlay.Base`."""
        last = ("", "")
        if self._instead is None:
            try:
                for found in self._soonest(wanted):
                    last = found[:2]
                    yield found
                return
            except Unfit as error:
                self._instead = self._make(error)
        yield from (found for found in self._instead.soonest(wanted) if found[:2] > last)

    def ready_by(self, now: str) -> Iterator[tuple[str, str, V]]:
        """See :class:`~promptyoself.state.overlay.Base`.

        What was found before, for an earlier instant, isn't looked for again: where much is due,
        each pass of a loop asks for it.
        """
        last = ("", "")
        if self._instead is None:
            if self._ready is None or not self._ready.holds(now):
                self._ready = _Ready(now, self._soonest)
            try:
                for found in self._ready.each(now):
                    last = found[:2]
                    yield found
                return
            except Unfit as error:
                self._instead = self._make(error)
        yield from (found for found in self._instead.ready_by(now) if found[:2] > last)

    def next_ready(self, after: str) -> str | None:
        """See :class:`~promptyoself.state.overlay.Base`."""
        if self._wake is not None:
            asked, found = self._wake
            if asked <= after and (found is None or found > after):
                return found
        if self._instead is None:
            try:
                self._wake = (after, self._next_ready(after))
                return self._wake[1]
            except Unfit as error:
                self._instead = self._make(error)
        return self._instead.next_ready(after)

    def _walk(self, node: Node[V], wanted: Wanted, under: str) -> Iterator[tuple[str, str, V]]:
        if isinstance(node, Inner):
            for digit, (file, summary) in sorted(node.parts.items()):
                if under[:1] in ("", digit) and wanted(summary):
                    part = self._parts.read(self._kind, file)
                    yield from self._walk(part, wanted, under[1:])
            return
        for path, key in sorted((self.path(key), key) for key in node):
            yield path, key, node[key]

    # Best first: what is known of a part is no later than anything in it, so a part is read only
    # when its turn has come. Among equals by place, or all parts with that instant would be read
    # before the first value.

    def _soonest(self, wanted: Wanted) -> Iterator[tuple[str, str, V]]:
        numbers = count()
        heap: list[tuple[str, str, int, str | None, str, V | None]] = []

        def push(node: Node[V], prefix: str) -> None:
            if isinstance(node, Inner):
                for digit, (file, summary) in node.parts.items():
                    if summary.first is not None and wanted(summary):
                        place = prefix + digit
                        heapq.heappush(heap, (summary.first, place, next(numbers), file, "", None))
                return
            for first, place, summary, key in node.rows(self._kind):
                if wanted(summary):
                    heapq.heappush(heap, (first, place, next(numbers), None, key, node[key]))

        push(self.root, "")
        while heap:
            first, place, _, file, key, value = heapq.heappop(heap)
            if file is not None:
                push(self._parts.read(self._kind, file), place)
            elif value is not None:
                yield first, key, value

    def _next_ready(self, after: str) -> str | None:
        heap: list[tuple[str, str]] = []

        def push(node: Node[V]) -> None:
            if isinstance(node, Inner):
                for file, summary in node.parts.values():
                    if summary.ready is not None:
                        heapq.heappush(heap, (summary.ready, file))
                return
            for _, _, summary, _ in node.rows(self._kind):
                if summary.ready is not None and summary.ready > after:
                    heapq.heappush(heap, (summary.ready, ""))

        push(self.root)
        while heap:
            ready, file = heapq.heappop(heap)
            if ready > after:
                return ready
            push(self._parts.read(self._kind, file))
        return None


class _Ready(Generic[V]):
    """Those of a table's values that may begin by some instant, by their instants ahead, as far as
    anybody has asked; good for later instants too, until one of those that were passed over may
    begin."""

    def __init__(self, now: str, soonest: Callable[[Wanted], Iterator[tuple[str, str, V]]]) -> None:
        self._now = now
        self._until: str | None = None
        self._found: list[tuple[str, str, V]] = []
        self._rest = soonest(self._is_ready)

    def holds(self, now: str) -> bool:
        """Whether nothing that was passed over may begin by then."""
        return self._now <= now and (self._until is None or now < self._until)

    def each(self, now: str) -> Iterator[tuple[str, str, V]]:
        """All of them; ``now`` is an instant for which it :meth:`holds`."""
        self._now = now
        at = 0
        while True:
            while at < len(self._found):
                yield self._found[at]
                at += 1
            more = next(self._rest, None)
            if more is None:
                return
            self._found.append(more)

    def _is_ready(self, summary: Summary) -> bool:
        ready = summary.ready
        if ready is None or ready <= self._now:
            return ready is not None
        if self._until is None or ready < self._until:
            self._until = ready
        return False


def update(
    kind: Kind[V], parts: Parts, root: Node[V], changes: Mapping[str, V]
) -> tuple[Node[V], list[str]]:
    """Write the parts that differ with these changes: the root from then on, and the files of which
    it no longer speaks.

    Raises:
        OSError: the disk refused; the old root still holds.
        Unfit: a part can't be read.
    """
    superseded: list[str] = []

    def put(node: Node[V], prefix: str, before: Node[V]) -> tuple[str, Summary]:
        return parts.write(kind, prefix, node, before), _sum_up(kind, node)

    def apply(node: Node[V], prefix: str, changes: Mapping[str, V], most: int) -> Node[V]:
        if not isinstance(node, Inner):
            values = Leaf({**node, **changes})
            if len(prefix) == _DIGITS or len(values) < 2:
                return values
            if sum(map(kind.weigh, values.values())) <= most:
                return values
            node, changes = Inner({}), values
        found = dict(node.parts)
        for digit, group in _by_digit(changes, len(prefix)).items():
            old = found.get(digit)
            before: Node[V] = Leaf() if old is None else parts.read(kind, old[0])
            now = apply(before, prefix + digit, group, PART_BYTES)
            found[digit] = put(now, prefix + digit, before)
            if old is not None and old[0] != found[digit][0]:
                superseded.append(f"{kind.name}/{old[0]}")
        return Inner(found)

    def _by_digit(values: Mapping[str, V], at: int) -> dict[str, dict[str, V]]:
        groups: dict[str, dict[str, V]] = {}
        for key, value in values.items():
            groups.setdefault(kind.path(key)[at], {})[key] = value
        return groups

    return apply(root, "", changes, ROOT_BYTES) if changes else root, superseded


def spell_node(kind: Kind[V], node: Node[V], before: Node[V] | None = None) -> Any:
    """A list of values, or an object of parts. What is as ``before`` isn't spelled again."""
    if isinstance(node, Inner):
        return {digit: [file, *summary] for digit, (file, summary) in sorted(node.parts.items())}
    return node.spelled(kind, None if isinstance(before, Inner) else before)


def read_node(kind: Kind[V], spelled: Any) -> Node[V]:
    """What :func:`spell_node` made. Raises ``ValueError``, ``TypeError``, … for anything else."""
    if isinstance(spelled, dict):
        parts = {}
        for digit, (file, number, first, ready, statuses, failing) in spelled.items():
            parts[digit] = (str(file), Summary(number, first, ready, tuple(statuses), failing))
        return Inner(parts)
    return Leaf(map(kind.read, spelled))


def _sum_up(kind: Kind[V], node: Node[V]) -> Summary:
    if isinstance(node, Inner):
        found = [summary for _, summary in node.parts.values()]
    else:
        found = [kind.summarize(value) for value in node.values()]
    return Summary(
        sum(summary.number for summary in found),
        min((summary.first for summary in found if summary.first is not None), default=None),
        min((summary.ready for summary in found if summary.ready is not None), default=None),
        tuple(map(sum, zip(*(summary.statuses for summary in found), strict=True))),
        sum(summary.failing for summary in found),
    )
