"""Statements that the chain makes about itself, found without checking links between events.

A replay comes to some statements too late: those of a gap, a torn end or a sealed month. So they
are searched for in the bytes. Such a statement counts only once a replay, which checks the links,
has come to it, too.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from promptyoself.ledger import segments
from promptyoself.ledger.envelope import Envelope, event_of


def statements(folder: Path, type_: str) -> Iterator[Envelope]:
    """Every event of a type in a folder's segments. It is only checked that each is an event in a
    whole member. The bytes behind damage in a segment aren't read."""
    type_field = b'"type":"' + type_.encode() + b'"'  # within a text, the quotes would be escaped
    for month, _ in segments.list_segments(folder):
        with suppress(segments.BrokenMember):
            for member in segments.read_members(folder / segments.segment_name(month)):
                if type_field in member.content:
                    yield from _events(member.content, type_field, type_)


def _events(content: bytes, type_field: bytes, type_: str) -> Iterator[Envelope]:
    for line in content.split(b"\n"):
        if type_field in line:
            event = event_of(line)
            if event is not None and event.type == type_:
                yield event
