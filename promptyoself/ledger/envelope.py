"""One event as one line of JSON, its hash, and the rules that link a line to the one before it."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from promptyoself.core.instants import is_instant

GENESIS_HASH = "0" * 64
"""What the first line has for ``prev``."""

MAX_LINE_BYTES = 16 * 1024 * 1024
"""The most that a line may have. A prompt of 1 MiB escapes to at most 6 MiB, and an event holds two
of them at most. A crafted line of this size takes half a gigabyte to read; a larger one could take
all the memory there is."""


class Envelope(NamedTuple):
    """An event with its place in the chain, the fields in the order of the line's keys.

    ``id`` is the schedule's (or desire's); ``None`` for events of the log or of a worker.
    """

    v: int
    seq: int
    ts: str
    type: str
    id: str | None
    actor: Mapping[str, str]
    data: Mapping[str, Any]
    prev: str


_new = tuple.__new__
_FIELDS = Envelope._fields
_TYPES = (int, int, str, str, str, dict, dict, str)
_LOG_TYPES = (int, int, str, str, type(None), dict, dict, str)  # an event without an id


def encode_line(envelope: Envelope) -> bytes:
    """The exact bytes that are hashed and stored, without the newline.

    Raises:
        TypeError: the data isn't JSON-able (a lone surrogate in a text, say).
    """
    v, seq, ts, type_, id_, actor, data, prev = envelope
    return orjson.dumps(
        {
            "v": v,
            "seq": seq,
            "ts": ts,
            "type": type_,
            "id": id_,
            "actor": actor,
            "data": data,
            "prev": prev,
        }
    )


def decode_line(line: bytes) -> Envelope:
    """Read one line.

    A line has one reading. JSON can spell one object in many ways (a key twice, spaces, escapes,
    ``1.0`` and ``1``), and readers differ in what they make of some of them. So only the one
    spelling that :func:`encode_line` writes is an event.

    Raises:
        ValueError: it isn't a JSON object with exactly the keys of an envelope, in their order and
            of their types; :func:`encode_line` spells it in another way; or it has more than
            :data:`MAX_LINE_BYTES`.
    """
    if len(line) > MAX_LINE_BYTES:
        raise ValueError(f"it has more than {MAX_LINE_BYTES} bytes")
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(fields, dict) or tuple(fields) != _FIELDS:
        raise ValueError(f"its keys aren't {', '.join(_FIELDS)}, in this order")
    values = tuple(fields.values())
    types = tuple(map(type, values))
    if types not in (_TYPES, _LOG_TYPES):
        pairs = enumerate(zip(_TYPES, _LOG_TYPES, strict=True))
        wrong = next(number for number, allowed in pairs if types[number] not in allowed)
        raise ValueError(f"{_FIELDS[wrong]} is of another type")
    if orjson.dumps(fields) != line:
        raise ValueError("it is spelled in another way than the format has it")
    if not is_instant(values[2]):
        raise ValueError("ts isn't an instant")
    return _new(Envelope, values)


def event_of(line: bytes) -> Envelope | None:
    """The event of a line; ``None`` where :func:`decode_line` refuses it."""
    try:
        return decode_line(line)
    except ValueError:
        return None


def hash_line(line: bytes) -> str:
    """SHA-256 of the line's bytes without its newline, in hex: the next line's ``prev``."""
    return sha256(line).hexdigest()
