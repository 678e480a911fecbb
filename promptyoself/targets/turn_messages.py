"""What the messages of an agent's turn say that it has said and done. Letta, its cloud and Letta
Code write them alike."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Reply

_SAYS = "send_message"
"""The tool by which agents of older kinds say something."""

_CALLS = frozenset({"tool_call_message", "approval_request_message"})


class Turn(NamedTuple):
    """A turn, as far as it has come."""

    reply: Reply
    newest: str | None  # the kind of the newest message; None: there is none but the prompt
    has_prompt: bool  # whether the prompt is there
    # The newest message but those that the server wrote itself, as it does when it sums up.
    newest_row: Mapping[str, Any] | None = None
    # Another message came into it, and the agent had answered neither. What it said after that is
    # not in `reply`.
    is_shared: bool = False

    @property
    def ends_in_words(self) -> bool:
        """Whether the agent has said something, and has done nothing since. So the turn is over."""
        return self.newest == "assistant_message"

    @property
    def waits(self) -> bool:
        """Whether it has stopped for somebody to approve of a tool's call."""
        row = self.newest_row
        return row is not None and row.get("message_type") == "approval_request_message"

    @property
    def asks_for(self) -> frozenset[str]:
        """The ids of the calls that are to be approved of, if it waits."""
        calls = _calls_of(self.newest_row) if self.newest_row is not None and self.waits else []
        return frozenset(filter(None, map(_call_id, calls)))


def turn_of(newest_first: Iterable[Mapping[str, Any]], otid: str) -> Turn:
    """The turn over the prompt with this otid, whose messages are given, the newest first. No more
    of them are taken than back to the prompt.

    What was said last counts, even if the agent has called tools since.
    """
    newest: str | None = None
    newest_row: Mapping[str, Any] | None = None
    text: str | None = None
    date: datetime | None = None
    tools: list[str] = []
    calls: set[str] = set()
    has_prompt = is_shared = False
    for row in newest_first:
        kind = row.get("message_type")
        if kind == "user_message" and row.get("otid") is not None:
            if row.get("otid") == otid:
                has_prompt = True
                break
            newest = newest_row = text = date = None
            is_shared, tools = True, []
            continue
        newest = newest or (kind if isinstance(kind, str) else "unknown")
        newest_row = newest_row or (None if kind == "user_message" else row)
        words: str | None = None
        if kind == "assistant_message":
            words = text_of_content(row.get("content"))
        elif kind in _CALLS:
            for call in reversed(_calls_of(row)):
                words = words or _said_by_call(call)
                call_id = _call_id(call)
                # A call that was approved of is told twice.
                if call_id not in calls and call.get("name") != _SAYS:
                    tools.append(str(call.get("name") or "unnamed"))
                calls.update([call_id] if call_id else [])
        if text is None and words and words.strip():
            text, date = words, instant_of(row)
    reply = Reply(text, tuple(reversed(tools)), date)
    return Turn(reply, newest, has_prompt, newest_row, is_shared)


def joined(earlier: Turn, later: Turn) -> Turn:
    """A turn that came in two parts."""
    said = later.reply if later.reply.text is not None else earlier.reply
    tools = earlier.reply.tools + later.reply.tools
    return later._replace(reply=said._replace(tools=tools), has_prompt=earlier.has_prompt)


def turn_after(newest_first: Iterable[Mapping[str, Any]], otid: str) -> tuple[Turn, bool]:
    """The turn over the prompt with this otid, and whether another prompt has followed that. The
    messages are those of its conversation. No more of them are taken than that needs.

    Raises:
        DeliveryError: ``permanent`` with :data:`~promptyoself.targets.api.HISTORY_GAP` if the
            prompt isn't there.
    """
    rows: list[Mapping[str, Any]] = []
    is_followed = False
    for row in newest_first:
        rows.append(row)
        if row.get("message_type") == "user_message":
            if row.get("otid") == otid:
                return turn_of(rows, otid), is_followed
            rows, is_followed = [], True
    raise DeliveryError(
        "permanent",
        HISTORY_GAP,
        "The message isn't in its conversation any more, nor is what followed it.",
    )


def text_of_content(content: object) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "".join(text for text in texts if isinstance(text, str))


def instant_of(row: Mapping[str, Any], key: str = "date") -> datetime | None:
    """When something was, if the row tells that. A time without a zone is taken for UTC."""
    try:
        date = datetime.fromisoformat(str(row.get(key)))
    except ValueError:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)


def _calls_of(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The calls of a message, which newer servers tell as a list too."""
    several = row.get("tool_calls")
    calls = several if isinstance(several, list) and several else [row.get("tool_call")]
    return [call for call in calls if isinstance(call, dict)]


def _call_id(call: Mapping[str, Any]) -> str:
    return str(call.get("tool_call_id") or "")


def _said_by_call(call: Mapping[str, Any]) -> str | None:
    if call.get("name") != _SAYS:
        return None
    try:
        arguments = json.loads(str(call.get("arguments")))
    except (ValueError, RecursionError):
        return None
    message = arguments.get("message") if isinstance(arguments, dict) else None
    return message if isinstance(message, str) else None
