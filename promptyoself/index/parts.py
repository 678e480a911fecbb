"""The parts of a table, each in a file of its own that is named after its content."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import orjson

from promptyoself.core.disk import Disk, read_ours
from promptyoself.state.overlay import Summary

V = TypeVar("V")

_MOST_CACHED_PARTS = 512


class DamagedPart(Exception):
    """The file of a part is missing or damaged."""


class TableSchema(NamedTuple, Generic[V]):
    """How a table's values are written and summarized."""

    name: str
    path: Callable[[str], str]  # the path of a key: 8 hexadecimal digits
    to_json: Callable[[str, V], dict[str, Any]]
    from_json: Callable[[dict[str, Any]], tuple[str, V]]
    summarize: Callable[[V], Summary]
    estimate_bytes: Callable[[V], int]  # how many bytes a value takes, about


class Branch(NamedTuple):
    """A part that consists of other parts."""

    parts: dict[str, tuple[str, Summary]]  # by the next digit: the file's name, and its summary


class Leaf(dict[str, V]):
    """A part that has values by key. It never changes, so the results computed from it are kept."""

    __slots__ = ("_json", "_rows")

    def rows(self, table: TableSchema[V]) -> list[tuple[str, str, Summary, str]]:
        """The instant ahead, the path, the summary and the key of each value that has one."""
        try:
            return self._rows
        except AttributeError:
            summaries = ((table.summarize(value), key) for key, value in self.items())
            self._rows: list[tuple[str, str, Summary, str]] = [
                (summary.first, table.path(key), summary, key)
                for summary, key in summaries
                if summary.first is not None
            ]
            return self._rows

    def to_json(
        self, table: TableSchema[V], before: Leaf[V] | None = None
    ) -> list[orjson.Fragment]:
        """Each value's JSON, in the order of the keys, so that the same values make the same file.
        Values that haven't changed since the leaf ``before`` aren't encoded again."""
        try:
            fragments = self._json
        except AttributeError:
            fragments = {}
            old = getattr(before, "_json", {})
            for key, value in self.items():
                if before is not None and key in old and before[key] is value:
                    fragments[key] = old[key]
                else:
                    fragments[key] = orjson.Fragment(orjson.dumps(table.to_json(key, value)))
            self._json: dict[str, orjson.Fragment] = fragments
        return [fragments[key] for key in sorted(fragments)]


Node = Leaf[V] | Branch
"""A part."""


class PartFiles:
    """The files of the parts of all tables. Those that were used last are kept in memory."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk
        self._cache: OrderedDict[str, Node[Any]] = OrderedDict()
        self.written: set[str] = set()

    def read(self, table: TableSchema[V], file: str) -> Node[V]:
        """The part that a file holds.

        Raises:
            DamagedPart: it can't be read, or isn't what its name says.
        """
        name = f"{table.name}/{file}"
        node = self._cache.get(name)
        if node is None:
            try:
                content = read_ours(self._folder / f"{name}.json")
            except OSError as error:
                raise DamagedPart(f"A part of it can't be read ({error.strerror})") from None
            if sha256(content).hexdigest()[:16] != file.rpartition("-")[2]:
                raise DamagedPart("A part of it is damaged")
            try:
                node = node_from_json(table, orjson.loads(content)[table.name])
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise DamagedPart(f"A part of it is damaged ({error!r})") from None
            self._remember(name, node)
        else:
            self._cache.move_to_end(name)
        return node

    def write(
        self, table: TableSchema[V], prefix: str, node: Node[V], before: Node[V] | None
    ) -> str:
        """Write a part; returns its file's name. Values that are as in the part ``before`` aren't
        encoded again.

        Raises:
            OSError: the disk refused.
        """
        content = orjson.dumps({table.name: node_to_json(table, node, before)})
        file = f"{prefix}-{sha256(content).hexdigest()[:16]}"
        name = f"{table.name}/{file}"
        path = self._folder / f"{name}.json"
        self._disk.make_directory(path.parent)
        self._disk.replace(path, content, durable=False)
        self.written.add(name)
        self._remember(name, node)
        return file

    def remove(self, names: Iterable[str]) -> None:
        """Remove files that no root names any more; no matter if that fails."""
        for name in names:
            self._cache.pop(name, None)
            self._disk.discard(self._folder / f"{name}.json")

    def sweep(self, table: TableSchema[Any]) -> None:
        """Remove a table's files that were not written just now: no root names them."""
        with suppress(OSError):
            for name in os.listdir(self._folder / table.name):
                if f"{table.name}/{name.removesuffix('.json')}" not in self.written:
                    self._disk.discard(self._folder / table.name / name)

    def _remember(self, name: str, node: Node[Any]) -> None:
        self._cache[name] = node
        if len(self._cache) > _MOST_CACHED_PARTS:
            self._cache.popitem(last=False)


def node_to_json(table: TableSchema[V], node: Node[V], before: Node[V] | None = None) -> Any:
    """The JSON of a part: a list of values, or an object with the parts that it consists of. Values
    that are as in ``before`` aren't encoded again."""
    if isinstance(node, Branch):
        return {digit: [file, *summary] for digit, (file, summary) in sorted(node.parts.items())}
    return node.to_json(table, None if isinstance(before, Branch) else before)


def node_from_json(table: TableSchema[V], value: Any) -> Node[V]:
    """The part that :func:`node_to_json` wrote.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it isn't one.
    """
    if isinstance(value, dict):
        parts = {}
        for digit, (file, number, first, ready, statuses, failing) in value.items():
            parts[digit] = (str(file), Summary(number, first, ready, tuple(statuses), failing))
        return Branch(parts)
    return Leaf(map(table.from_json, value))
