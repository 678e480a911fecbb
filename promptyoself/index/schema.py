"""The format of ``index.json``: one JSON object, whose first key is the SHA-256 of the rest.

The checksum is there because a single changed digit could still be good JSON and a wrong answer.
A chain's :class:`StateSchema` says what its state has.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar, cast

import orjson

from promptyoself.index.parts import Node, TableSchema, node_from_json, node_to_json
from promptyoself.ledger import Position
from promptyoself.state.fold import Folded, Loss, Losses
from promptyoself.state.overlay import Overlay, Summary

S = TypeVar("S")

INDEX_FORMAT = 2

_ID = re.compile(r"(?:sch|des)_([0-9a-f]{8})", re.ASCII).fullmatch
_PREFIX = b'{"sha256":"'
_BODY = len(_PREFIX) + 64 + len(b'",')


class StateSchema(NamedTuple, Generic[S]):
    """How the index of a chain stores its state, which is a named tuple."""

    empty: S  # the state before the first event
    fold: Callable[[S, Iterable[Folded]], S]
    table_schemas: tuple[TableSchema[Any], ...]  # named like the fields of the state
    to_json: Callable[[S], dict[str, Any]]  # of all fields but the tables
    from_json: Callable[[Mapping[str, Any]], S]  # with empty tables
    fingerprint: str  # differs between versions whose folds have different results
    # Of older versions that knew fewer events and fields, and whose folds of them were the same.
    older: frozenset[str] = frozenset()

    def tables(self, state: S) -> tuple[Overlay[Any], ...]:
        """The tables of a state."""
        return tuple(getattr(state, table.name) for table in self.table_schemas)

    def with_tables(self, state: S, tables: Iterable[Overlay[Any]]) -> S:
        """The same state with other tables."""
        names = (table.name for table in self.table_schemas)
        return cast(S, cast(Any, state)._replace(**dict(zip(names, tables, strict=True))))

    def losses(self, state: S) -> Losses:
        """The gaps in the log."""
        return cast(Losses, cast(Any, state).losses)

    def newer(self, state: S) -> str | None:
        """The first event that this software is too old to read."""
        return cast("str | None", cast(Any, state).newer)


def fingerprint_of(versions: Mapping[str, int], *schemas: Any) -> str:
    """The fingerprint of a schema. A change of a fold's result must change it, so that indexes of
    older versions are rebuilt."""
    fields = (schema._fields for schema in (*schemas, Position, Summary))
    text = repr((INDEX_FORMAT, sorted(versions.items()), *fields))
    return sha256(text.encode()).hexdigest()[:16]


class Root(NamedTuple, Generic[S]):
    """The content of ``index.json``."""

    position: Position
    tables: tuple[Node[Any], ...]  # the topmost parts
    bare_state: S  # the state with empty tables
    # The files that each of the last saves replaced. A reader with an older root may need them.
    superseded: list[list[str]]


def encode_root(schema: StateSchema[S], root: Root[S], before: Root[S] | None = None) -> bytes:
    """The bytes of ``index.json``. Values that the root ``before`` has aren't encoded again."""
    old_tables: tuple[Node[Any] | None, ...] = (
        before.tables if before else (None,) * len(schema.table_schemas)
    )
    body = {
        "format": INDEX_FORMAT,
        "schema": schema.fingerprint,
        "position": root.position._asdict(),
        **{
            table.name: node_to_json(table, node, old)
            for table, node, old in zip(schema.table_schemas, root.tables, old_tables, strict=True)
        },
        **schema.to_json(root.bare_state),
        "superseded": root.superseded,
    }
    tail = orjson.dumps(body)[1:]
    return _PREFIX + sha256(tail).hexdigest().encode() + b'",' + tail


def decode_root(schema: StateSchema[S], content: bytes) -> Root[S]:
    """The root that :func:`encode_root` wrote.

    Raises:
        ValueError: it isn't that, or was written by a version with another schema.
    """
    body = _body_of(content)
    if body.get("schema") not in (schema.fingerprint, *schema.older):
        raise ValueError("another version wrote it")
    try:
        root = Root(
            Position(**body["position"]),
            tuple(node_from_json(table, body[table.name]) for table in schema.table_schemas),
            schema.from_json(body),
            [list(files) for files in body["superseded"]],
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{error!r}") from None
    if body["schema"] in schema.older and schema.newer(root.bare_state) is not None:
        raise ValueError("an older version wrote it, which left out events that are known here")
    return root


def position_of(content: bytes) -> Position:
    """The position of an index that any version wrote.

    Raises:
        ValueError: it is damaged, or has no position.
    """
    try:
        return Position(**_body_of(content)["position"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{error!r}") from None


def _body_of(content: bytes) -> dict[str, Any]:
    tail = content[_BODY:]
    if content[:_BODY] != _PREFIX + sha256(tail).hexdigest().encode() + b'",':
        raise ValueError("its checksum does not match")
    body: dict[str, Any] = orjson.loads(b"{" + tail)
    return body


def common_to_json(state: Any, **own: Any) -> dict[str, Any]:
    """The fields that the states of all chains have, but for the tables; and a chain's own."""
    losses = [list(loss) for loss in state.losses.recorded]
    return {
        "newer": state.newer,
        **own,
        "statuses": state.statuses,
        "counts": state.counts,
        "losses": losses,
    }


def common_from_json(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that :func:`common_to_json` wrote."""
    return {
        "newer": body["newer"],
        "statuses": dict(body["statuses"]),
        "counts": dict(body["counts"]),
        "losses": Losses([Loss(*fields) for fields in body["losses"]], {}, {}, {}),
    }


def id_path(id_: str) -> str:
    """The path of a schedule's or a desire's id: its digits."""
    match = _ID(id_)
    return match[1] if match else sha_path(id_)


def sha_path(key: str) -> str:
    """The path of a key that has no hexadecimal digits of its own."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def without_defaults(record: Any) -> dict[str, Any]:
    """The fields of a named tuple that aren't at their defaults."""
    defaults = record._field_defaults
    return {
        name: value
        for name, value in record._asdict().items()
        if name not in defaults or value is not defaults[name]
    }
