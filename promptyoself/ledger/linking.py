"""Giving events their places in the chain: what an append adds, before it is written."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.events.codec import write_event
from promptyoself.events.draft import Draft
from promptyoself.events.records import Record
from promptyoself.ledger.batch import Position
from promptyoself.ledger.envelope import MAX_LINE_BYTES, Envelope, encode_line
from promptyoself.ledger.segments import MAX_MEMBER_BYTES


def chain_up(
    drafts: Sequence[Draft], now: datetime, after: Position
) -> tuple[list[Envelope], bytes, str, str]:
    """The events that drafts become after a position, their lines, the hash of the last and the
    time that all have: ``now``, or that of the event before where the clock has run back.

    Raises:
        PromptyoselfError: ``event_too_large``.
    """
    seq, head = after.seq, after.hash
    ts = max(format_utc(now), after.ts)
    envelopes, lines = [], []
    # A group may be a thousand: what can be done once for all of them is.
    new = tuple.__new__
    for record, id_, actor in drafts:
        seq += 1
        version, type_, data = write_event(record)
        envelope = new(Envelope, (version, seq, ts, type_, id_, actor, data, head))
        line = encode_line(envelope)
        envelopes.append(envelope)
        head = sha256(line).hexdigest()
        lines.append(line)
    lines.append(b"")
    content = b"\n".join(lines)
    if len(content) > MAX_LINE_BYTES and (most := max(map(len, lines))) > MAX_LINE_BYTES:
        raise _too_large("An event comes to", most, MAX_LINE_BYTES)
    if len(content) > MAX_MEMBER_BYTES:
        raise _too_large("The events come to", len(content), MAX_MEMBER_BYTES)
    return envelopes, content, head, ts


def provisional_event(record: Record, id_: str | None, ts: str) -> Envelope:
    """An event as it will be, but for its place in the chain: to decide what follows from it."""
    version, type_, data = write_event(record)
    return Envelope(version, 0, ts, type_, id_, {}, data, "")


def _too_large(what: str, size: int, most: int) -> PromptyoselfError:
    return PromptyoselfError(
        "event_too_large",
        f"{what} {size} bytes; {most} is the most that can be appended.",
        "Nothing was changed. Shorten the text, or do it in several steps.",
    )
