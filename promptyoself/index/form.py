"""How a snapshot is spelled: one JSON object, whose first key is the SHA-256 of all that follows.

The checksum is there because a single changed digit could still be good JSON and a wrong answer.
What a chain's state consists of, its :class:`Form` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import Any, Generic, NamedTuple, TypeVar, cast

import orjson

from promptyoself.index.tree import Kind, Node, read_node, spell_node
from promptyoself.ledger import Position
from promptyoself.state.fold import Folded, Loss, Losses
from promptyoself.state.overlay import Overlay, Summary

__all__ = [
    "INDEX_FORMAT",
    "Form",
    "Root",
    "brief",
    "decode_root",
    "encode_root",
    "position_of",
    "read_losses",
    "schema_of",
    "sha_path",
    "spell_losses",
]

S = TypeVar("S")

INDEX_FORMAT = 2

_PREFIX = b'{"sha256":"'
_BODY = len(_PREFIX) + 64 + len(b'",')


class Form(NamedTuple, Generic[S]):
    """What the index of a chain holds: a state, which is a named tuple, and how that is made.

    ``kinds`` are its tables, under their names the state's fields; ``spell`` and ``read`` are for
    all the other fields, and ``read`` leaves the tables ``empty``.
    """

    empty: S
    fold: Callable[[S, Iterable[Folded]], S]
    kinds: tuple[Kind[Any], ...]
    spell: Callable[[S], dict[str, Any]]
    read: Callable[[Mapping[str, Any]], S]
    schema: str

    def tables(self, state: S) -> tuple[Overlay[Any], ...]:
        """The tables of a state."""
        return tuple(getattr(state, kind.name) for kind in self.kinds)

    def with_tables(self, state: S, tables: Iterable[Overlay[Any]]) -> S:
        """The same state but for its tables."""
        names = (kind.name for kind in self.kinds)
        return cast(S, cast(Any, state)._replace(**dict(zip(names, tables, strict=True))))

    def losses(self, state: S) -> Losses:
        """The gaps in the log."""
        found: Losses = cast(Any, state).losses
        return found

    def newer(self, state: S) -> str | None:
        """The first event that this software is too old to read."""
        found: str | None = cast(Any, state).newer
        return found


def schema_of(versions: Mapping[str, int], *forms: Any) -> str:
    """Whatever changes a fold's result must change this, so that older indexes are made anew."""
    fields = (form._fields for form in (*forms, Position, Summary))
    text = repr((INDEX_FORMAT, sorted(versions.items()), *fields))
    return sha256(text.encode()).hexdigest()[:16]


class Root(NamedTuple, Generic[S]):
    """What ``index.json`` says: the state at a position, but for the ``tables``, parts of which lie
    elsewhere; and the files, per save, that it no longer needs, though a reader with an older root
    may."""

    position: Position
    tables: tuple[Node[Any], ...]
    rest: S
    superseded: list[list[str]]


def encode_root(form: Form[S], root: Root[S], before: Root[S] | None = None) -> bytes:
    """The bytes of ``index.json``. What is as in the root ``before`` isn't spelled again."""
    known: tuple[Node[Any] | None, ...] = before.tables if before else (None,) * len(form.kinds)
    body = {
        "format": INDEX_FORMAT,
        "schema": form.schema,
        "position": root.position._asdict(),
        **{
            kind.name: spell_node(kind, node, old)
            for kind, node, old in zip(form.kinds, root.tables, known, strict=True)
        },
        **form.spell(root.rest),
        "superseded": root.superseded,
    }
    rest = orjson.dumps(body)[1:]
    return _PREFIX + sha256(rest).hexdigest().encode() + b'",' + rest


def decode_root(form: Form[S], content: bytes) -> Root[S]:
    """What :func:`encode_root` wrote.

    Raises:
        ValueError: it isn't that, or was written by a version with another form.
    """
    body = _body_of(content)
    if body.get("schema") != form.schema:
        raise ValueError("another version wrote it")
    try:
        return Root(
            Position(**body["position"]),
            tuple(read_node(kind, body[kind.name]) for kind in form.kinds),
            form.read(body),
            [list(files) for files in body["superseded"]],
        )
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{error!r}") from None


def position_of(content: bytes) -> Position:
    """The position of an index, whichever version wrote it, in whatever form.

    Raises:
        ValueError: it is damaged, or tells no position.
    """
    try:
        return Position(**_body_of(content)["position"])
    except (TypeError, KeyError) as error:
        raise ValueError(f"{error!r}") from None


def _body_of(content: bytes) -> dict[str, Any]:
    rest = content[_BODY:]
    if content[:_BODY] != _PREFIX + sha256(rest).hexdigest().encode() + b'",':
        raise ValueError("its checksum does not match")
    body: dict[str, Any] = orjson.loads(b"{" + rest)
    return body


def spell_losses(losses: Losses) -> list[list[Any]]:
    """The gaps in the log that are recorded, for an index."""
    return [list(loss) for loss in losses.recorded]


def read_losses(spelled: list[list[Any]]) -> Losses:
    """What :func:`spell_losses` spelled."""
    return Losses([Loss(*each) for each in spelled], {}, {}, {})


def sha_path(key: str) -> str:
    """Where a key stands that has no hexadecimal digits of its own."""
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def brief(record: Any) -> dict[str, Any]:
    """The fields of a named tuple that aren't at their defaults."""
    defaults = record._field_defaults
    return {
        name: value
        for name, value in record._asdict().items()
        if name not in defaults or value is not defaults[name]
    }
