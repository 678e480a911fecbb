"""Statements that the chain makes about itself, found without checking links between events.

A replay comes to some statements too late: those of a gap, a torn end or a sealed month. So they
are searched for in the bytes. Such a statement counts only once a replay, which checks the links,
has come to it, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from promptyoself.core.errors import ChainError
from promptyoself.ledger.batch import Gap, Position
from promptyoself.ledger.envelope import Envelope, decode_line
from promptyoself.ledger.segments import (
    BrokenMember,
    Member,
    list_segments,
    read_members,
    segment_name,
)


def statements(folder: Path, type_: str) -> Iterator[Envelope]:
    """Every event of a type in a folder's segments. It is only checked that each is an event in a
    whole member. The bytes behind damage in a segment aren't read."""
    type_field = b'"type":"' + type_.encode() + b'"'  # within a text, the quotes would be escaped
    for month, _ in list_segments(folder):
        with suppress(BrokenMember):
            for member in read_members(folder / segment_name(month)):
                if type_field in member.content:
                    yield from _events(member.content, type_field, type_)


def _events(content: bytes, type_field: bytes, type_: str) -> Iterator[Envelope]:
    for line in content.split(b"\n"):
        if type_field in line:
            with suppress(ValueError):
                envelope = decode_line(line)
                if envelope.type == type_:
                    yield envelope


class Bridges:
    """The gaps that one replay of a folder passes. Each must have a statement, and the replay must
    come to that statement."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stated: dict[tuple[Gap, Any], int] | None = None
        self._open: dict[int, Gap] = {}

    def over(self, position: Position, member: Member) -> Gap | None:
        """The gap between a position and a member, if the chain has a statement for it."""
        try:
            first = decode_line(member.content.partition(b"\n")[0])
        except ValueError:
            return None
        gap = Gap(position.seq, position.hash, first.seq, first.prev)
        statement = self.statement_of(gap)
        if statement is None:
            return None
        self._open[statement] = gap
        return gap

    def statement_of(self, gap: Gap) -> int | None:
        """The number of the first event that states the gap with the right number of lost events,
        or ``None``. If no number is missing, an alteration broke the link, which is no gap."""
        if self._stated is None:
            self._stated = {}
            for event in statements(self._folder, "ledger.recovered"):
                stated_gap = Gap._make(event.data.get(name) for name in Gap._fields)
                with suppress(TypeError):  # no key, so no gap
                    self._stated.setdefault((stated_gap, event.data.get("lost")), event.seq)
        missing = gap.first - gap.after - 1
        statement = self._stated.get((gap, missing))
        return statement if missing > 0 and statement and statement > gap.first else None

    def close(self, envelopes: list[Envelope]) -> None:
        """Close the gaps that these events, to which the replay has come, state."""
        if self._open:
            for event in envelopes:
                if event.type == "ledger.recovered":
                    self._open.pop(event.seq, None)

    def require_closed(self) -> None:
        """Check, at the end of the replay, that each gap was stated.

        Raises:
            ChainError: ``corrupt_chain``: a gap was passed, and its statement isn't on the chain.
        """
        for statement, gap in self._open.items():
            raise ChainError(
                "corrupt_chain",
                f"The log has a gap between events {gap.after} and {gap.first}, and event "
                f"{statement}, which is to state it, isn't on the chain.",
                "Nothing was changed. Run `promptyoself verify` for the details.",
                seq=gap.after + 1,
                expected=f"event {gap.after + 1}",
                found=f"event {gap.first}",
            )
