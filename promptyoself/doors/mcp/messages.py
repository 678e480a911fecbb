"""Messages that the SDK can't read.

The SDK drops such a message, or answers without its id, so its sender would wait for ever. Here it
is refused under its id, where one can be found. If only a tool's arguments are wrong, such as text
that is no Unicode, the tool refuses them.
"""

import json
import re
import secrets
from math import isfinite
from typing import Any

from mcp_types import INVALID_REQUEST, PARSE_ERROR, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from promptyoself.core.errors import PromptyoselfError

MAX_BODY = 8 * 1024 * 1024
"""Bytes of one message. A prompt may have 1 MiB, or six times that where a client escapes it."""

_RAW = f"promptyoself/{secrets.token_hex(8)}"
"""Under this name, which no client can know, a message's ``_meta`` has a tool's arguments as they
were sent, in ASCII."""

_LONGEST_ID = 1000  # bytes
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[{]+|[\]}]+|[^\s"\[\]{},:]+|[,:]', re.DOTALL)
_LAST_ID = re.compile(rb'"id"\s*:\s*("(?:[^"\\]|\\.)*"|-?\d+)\s*\}\s*\Z')


class _Refusal(JSONRPCError):
    """A refusal under the id that was sent, even if that is neither whole number nor text."""

    id: Any


def mended(content: bytes) -> bytes | JSONRPCError:
    """The message as it is if the SDK can read it, else a readable one that means the same, or a
    refusal."""
    try:
        jsonrpc_message_adapter.validate_json(content, by_name=False)
    except ValidationError as problem:
        unreadable = problem.errors()[0]["type"] == "json_invalid"
    else:
        return content
    document = _lenient(content) if unreadable else None
    if isinstance(document, dict) and document.get("method") == "tools/call":
        readable = _for_the_tool(document)
        try:
            jsonrpc_message_adapter.validate_json(readable, by_name=False)
        except ValidationError:
            pass
        else:
            return readable
    what = (
        "A message has text that is not valid Unicode, or is nested too deep."
        if document is not None
        else "A message is no JSON."
        if unreadable
        else "A message is JSON, but not one of JSON-RPC."
    )
    error = PromptyoselfError(
        "invalid_message", what, "Send one request or notification of JSON-RPC 2.0, in UTF-8."
    )
    return _refusal(PARSE_ERROR if unreadable else INVALID_REQUEST, error, _id_of(content))


def too_long(head: bytes, tail: bytes) -> JSONRPCError:
    """The refusal of a message of more than :data:`MAX_BODY` bytes, which begins with ``head`` and
    ends with ``tail``."""
    error = PromptyoselfError(
        "message_too_long",
        f"A message has more than {MAX_BODY} bytes.",
        "A prompt may have 1 MiB; nothing else is as long.",
    )
    id_ = _id_of(head)
    if id_ is None and (match := _LAST_ID.search(tail)):
        id_ = _value(match[1])
    return _refusal(INVALID_REQUEST, error, id_)


def arguments_of(params: Any) -> dict[str, Any]:
    """The arguments of a tool's call, as they were sent."""
    raw = (params.meta or {}).get(_RAW)
    return json.loads(raw) if isinstance(raw, str) else params.arguments or {}


def _lenient(content: bytes) -> Any:
    """A message of which only the text is wrong, read as JSON; else ``None``. Half of a pair of
    surrogates stays as it is, and a byte that is no UTF-8 becomes one."""
    try:
        return json.loads(content.decode("utf-8", "surrogateescape"), parse_constant=_none)
    except (ValueError, RecursionError):
        return None


def _none(name: str) -> Any:
    raise ValueError(name)


def _for_the_tool(message: dict[str, Any]) -> bytes:
    """A call whose arguments are put aside, and whose other texts are Unicode."""
    params = message.get("params")
    if isinstance(params, dict) and isinstance(params.get("arguments"), dict):
        meta = params.get("_meta")
        raw = json.dumps(params["arguments"])
        meta = {**(meta if isinstance(meta, dict) else {}), _RAW: raw}
        message = {**message, "params": {**params, "arguments": {}, "_meta": meta}}
    text = json.dumps(message, ensure_ascii=False)
    return text.encode("utf-8", "replace")


def _id_of(content: bytes) -> Any:
    """The id of a message that need not be JSON, or not all of it: the value of the key ``id`` that
    stands in the outermost object."""
    depth = 0
    key: bytes | None = None
    last = b""
    for token in _TOKEN.finditer(content):
        word = token[0]
        if word[:1] in b"[{":
            if depth == 0 and word[:1] != b"{":
                return None
            depth += len(word)
        elif word[:1] in b"]}":
            depth -= len(word)
        elif depth == 1 and word == b":":
            key = last
        elif depth == 1 and word == b",":
            key = None
        elif depth == 1 and key == b'"id"' and len(word) <= _LONGEST_ID:
            return _value(word)
        last = word
    return None


def _value(word: bytes) -> Any:
    """An id as it was sent; ``None`` where it could not be sent back."""
    try:
        value = json.loads(word)
        json.dumps(value, ensure_ascii=False).encode()
    except ValueError:
        return None
    return (
        value if type(value) in (str, int) or (type(value) is float and isfinite(value)) else None
    )


def _refusal(code: int, error: PromptyoselfError, id_: Any) -> JSONRPCError:
    data = ErrorData(code=code, message=error.message, data=error.document())
    return _Refusal(jsonrpc="2.0", id=id_, error=data)
