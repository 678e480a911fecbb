"""The texts that were sent for a slot, word by word."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Any

from promptyoself.core.instants import parse_utc
from promptyoself.ledger import Envelope
from promptyoself.rules.prompts import with_header
from promptyoself.service.schedules import answers
from promptyoself.state.schedules import Schedule
from promptyoself.store.store import Store


def sent_texts(store: Store, events: Iterable[Envelope]) -> list[answers.SentText]:
    """The text of each attempt among events of one slot.

    An attempt that was rendered has its text in the log. The others' text is made again, from the
    schedule as it was then. It is told only if its SHA-256 is the one that the log has.

    Raises:
        ChainError: the log is damaged.
    """
    return [
        {
            "at": event.ts,
            "attempt": event.data["attempt"],
            "text_sha256": event.data["text_sha256"],
            "text": _text_of(store, event),
        }
        for event in events
        if event.type == "delivery.attempted"
    ]


def _text_of(store: Store, event: Envelope) -> str | None:
    data = event.data
    if data.get("text") is not None:
        return str(data["text"])
    state, _ = store.state_at(lambda before: before.seq < event.seq)
    schedule = state.schedules.get(event.id or "")
    if schedule is None:
        return None
    for text in _possible_texts(schedule, event, data):
        if sha256(text.encode()).hexdigest() == data["text_sha256"]:
            return text
    return None


def _possible_texts(schedule: Schedule, event: Envelope, data: Mapping[str, Any]) -> Iterator[str]:
    """The prompt, with the header if it has one. The header counts the fires, this one among them
    if it was the first attempt."""
    if not schedule.envelope:
        yield schedule.prompt
        return
    kind, now = data.get("kind", "scheduled"), parse_utc(event.ts)
    for fires in (schedule.repetition_count + 1, schedule.repetition_count):
        yield with_header(schedule.id, schedule._asdict(), data["slot"], kind, now, fires)
