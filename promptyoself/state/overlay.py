"""A table that a fold changes: changes over a base that may be far larger than memory.

Single values are read from the base, or the values of the parts that a :class:`Summary` doesn't
rule out. A table without a base has all its values as changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Generic, NamedTuple, Protocol, TypeVar

V = TypeVar("V")
V_co = TypeVar("V_co", covariant=True)


class Summary(NamedTuple):
    """Facts about some values that are known without reading them."""

    number: int = 0  # how many values there are
    first: str | None = None  # the earliest instant that one of them has ahead
    ready: str | None = None  # the earliest instant at which one of them may begin
    statuses: tuple[int, ...] = ()  # how many there are of each status
    failing: int = 0  # how many are active though their latest delivery failed


PartFilter = Callable[[Summary], bool]
"""Tells from a part's summary whether the part may have a value that is wanted."""


class Base(Protocol[V_co]):
    """The values under the changes. Each key has a path, and the keys are in that order."""

    def get(self, key: str) -> V_co | None:
        """The value of a key."""

    def walk(self, wanted: PartFilter, under: str = "") -> Iterator[tuple[str, V_co]]:
        """Every key and value of the wanted parts, in the order of their paths, but only of parts
        in which a path may begin with ``under``."""

    def soonest(self, wanted: PartFilter) -> Iterator[tuple[str, str, V_co]]:
        """The instant, the key and the value of each value with an instant ahead in the wanted
        parts, in the order of the instants and then of the keys."""

    def ready_by(self, now: str) -> Iterator[tuple[str, str, V_co]]:
        """As :meth:`soonest`, of the values that may begin by an instant."""

    def next_ready(self, after: str) -> str | None:
        """The earliest instant later than ``after`` at which a value may begin."""

    def __len__(self) -> int: ...


_MOST_YOUNG = 64
"""How many changes a table has to itself. :meth:`Overlay.copy` copies these, and merges them first
if there are more; all other changes are shared between copies."""


_KEY, _INSTANT_AND_KEY = itemgetter(0), itemgetter(0, 1)


def one(_: object) -> Summary:
    """The summary of a value of which nothing is to be known without reading it."""
    return Summary(1)


class Overlay(Generic[V]):
    """A table: changes over a base. ``summarize`` gives the summary of one value."""

    __slots__ = ("_old", "_summaries", "_young", "base", "summarize")

    def __init__(
        self,
        summarize: Callable[[V], Summary],
        base: Base[V] | None = None,
        changes: dict[str, V] | None = None,
    ) -> None:
        self.summarize = summarize
        self.base = base
        # A change is young at first. The dict of old changes is shared between copies, so it is
        # never changed, only replaced.
        self._old: dict[str, V] = {}
        self._young: dict[str, V] = {} if changes is None else changes
        self._summaries: dict[str, tuple[V, Summary]] = {}

    def copy(self) -> Overlay[V]:
        """A table with the same values, whose changes leave this one as it is."""
        if len(self._young) > _MOST_YOUNG:
            self._merge()
        other = Overlay(self.summarize, self.base, dict(self._young))
        other._old = self._old
        other._summaries = self._summaries  # each belongs to a value, so it can be shared
        return other

    @property
    def changes(self) -> dict[str, V]:
        """The values that differ from the base. The caller must not change this dict."""
        if self._young:
            self._merge()
        return self._old

    def _merge(self) -> None:
        # In this order, a thread that reads meanwhile, or merges too, finds every change among the
        # young or the old ones.
        young = self._young
        self._old = {**self._old, **young}
        self._young = {}

    def get(self, key: str) -> V | None:
        """The value of a key, or ``None``."""
        value = self._young.get(key)
        if value is None:
            value = self._old.get(key)
            if value is None and self.base is not None:
                return self.base.get(key)
        return value

    def __getitem__(self, key: str) -> V:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: str, value: V) -> None:
        self._young[key] = value

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and self.get(key) is not None

    def __len__(self) -> int:
        changes = self.changes
        if self.base is None:
            return len(changes)
        return len(self.base) + sum(1 for key in changes if self.base.get(key) is None)

    def __iter__(self) -> Iterator[str]:
        return (key for key, _ in self.items())

    def values(self, wanted: PartFilter | None = None, under: str = "") -> Iterator[V]:
        """See :meth:`items`."""
        return (value for _, value in self.items(wanted, under))

    def items(self, wanted: PartFilter | None = None, under: str = "") -> Iterator[tuple[str, V]]:
        """Every key with its value, in no order. Parts of the base that ``wanted`` rules out, or in
        which no path begins with ``under``, are left out and not read."""
        changes = self.changes
        yield from (
            (key, value)
            for key, value in changes.items()
            if wanted is None or wanted(self.summarize(value))
        )
        if self.base is not None:
            for key, value in self.base.walk(wanted or (lambda _: True), under):
                if key not in changes:
                    yield key, value

    def in_order(self, wanted: PartFilter) -> Iterator[tuple[str, V]]:
        """As :meth:`items`, in the order of the keys. A part is read only when its turn comes."""
        changes = self.changes
        ours = sorted(
            (item for item in changes.items() if wanted(self.summarize(item[1]))), key=_KEY
        )
        if self.base is None:
            return iter(ours)
        theirs = (item for item in self.base.walk(wanted) if item[0] not in changes)
        return heapq.merge(ours, theirs, key=_KEY)

    def soonest(self, wanted: PartFilter) -> Iterator[tuple[str, str, V]]:
        """The instant, the key and the value of each wanted value with an instant ahead, in the
        order of the instants and then of the keys. A part is read only when its turn comes."""
        return self._in_order_of_instants(
            wanted, () if self.base is None else self.base.soonest(wanted)
        )

    def ready_by(self, now: str) -> Iterator[tuple[str, str, V]]:
        """As :meth:`soonest`, of the values that may begin by an instant."""

        def is_ready(summary: Summary) -> bool:
            return summary.ready is not None and summary.ready <= now

        return self._in_order_of_instants(
            is_ready, () if self.base is None else self.base.ready_by(now)
        )

    def _in_order_of_instants(
        self, wanted: PartFilter, of_base: Iterable[tuple[str, str, V]]
    ) -> Iterator[tuple[str, str, V]]:
        changes = self.changes
        changed = sorted(
            (summary.first, key)
            for key, summary in self._summed_up()
            if summary.first is not None and wanted(summary)
        )
        ours = ((first, key, changes[key]) for first, key in changed)
        theirs = (
            row for row in of_base if row[1] not in changes and wanted(self.summarize(row[2]))
        )
        return heapq.merge(ours, theirs, key=_INSTANT_AND_KEY)

    def next_ready(self, after: str) -> str | None:
        """The earliest instant later than ``after`` at which a value may begin. It can be too early
        if the value that began then in the base was changed since."""
        instants = [
            summary.ready
            for _, summary in self._summed_up()
            if summary.ready is not None and summary.ready > after
        ]
        if self.base is not None:
            theirs = self.base.next_ready(after)
            if theirs is not None:
                instants.append(theirs)
        return min(instants, default=None)

    def _summed_up(self) -> Iterator[tuple[str, Summary]]:
        """The summary of each change, computed once."""
        cache = self._summaries
        for key, value in self.changes.items():
            entry = cache.get(key)
            if entry is None or entry[0] is not value:
                entry = cache[key] = value, self.summarize(value)
            yield key, entry[1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overlay) and dict(self.items()) == dict(other.items())

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Overlay({dict(self.items())!r})"
