"""Whether a claim sent what its schedule said, and to whom."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from promptyoself.core.instants import parse_utc
from promptyoself.rules.prompts import with_header
from promptyoself.state.fold import Folded


def sending_mistake(
    id_: str, fields: Mapping[str, Any], event: Folded, fire_number: int, *, own_time: bool
) -> str | None:
    """What is wrong with a claim's prompt or recipient, by the schedule's ``fields`` of then.

    ``fire_number`` counts the scheduled fires from 1. ``own_time`` says that the event's time is
    its writer's own.
    """
    data = event.data
    recipient = data.get("agent_id")
    expected_recipient = (fields["agent_id"], fields.get("conversation_id"))
    if recipient is not None and (recipient, data.get("conversation_id")) != expected_recipient:
        return "another recipient"
    text, has_header = data.get("text"), bool(fields.get("envelope"))
    if text is not None and _hash(text) != data["text_sha256"]:
        return "another text"
    if has_header:
        kind = data.get("kind", "scheduled")
        expected = with_header(id_, fields, data["slot"], kind, parse_utc(event.ts), fire_number)
    else:
        expected = fields["prompt"]
    if fields.get("template"):  # this log doesn't tell the desires that it listed
        return None if text is not None and text.startswith(expected) else "another text"
    if _hash(expected) == data["text_sha256"]:
        return None
    # Older versions didn't record the time in the header, where it isn't that of the event.
    time_unknown = has_header and recipient is None and not own_time
    return None if time_unknown else "another text"


def _hash(text: str) -> str:
    return sha256(text.encode()).hexdigest()
