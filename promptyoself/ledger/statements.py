"""Statements that the chain makes about itself, found by a look at the bytes.

A reader of the chain meets some of them too late: that a gap is known, that a torn end is recorded,
that a month was sealed. So they are looked for without checking the links between events. Such a
statement counts only once a replay that checks the links has come to it, too.
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

__all__ = ["Bridges", "statements"]


def statements(folder: Path, type_: str) -> Iterator[Envelope]:
    """Every event of a type in a folder's segments. Nothing is checked but that each is an event in
    a whole member. What lies behind damage in a segment isn't looked at."""
    mark = b'"type":"' + type_.encode() + b'"'  # within a text, the quotes would be escaped
    for month, _ in list_segments(folder):
        with suppress(BrokenMember):
            for member in read_members(folder / segment_name(month)):
                if mark in member.content:
                    yield from _events(member.content, mark, type_)


def _events(content: bytes, mark: bytes, type_: str) -> Iterator[Envelope]:
    for line in content.split(b"\n"):
        if mark in line:
            with suppress(ValueError):
                envelope = decode_line(line)
                if envelope.type == type_:
                    yield envelope


class Bridges:
    """The gaps that one replay of a folder passes. Each must have its statement, and the replay
    must come to that."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[tuple[Gap, Any], int] | None = None
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
        """The number of the first event that states the gap, if one does. It must count right what
        is lost: where no number is missing, nothing but an alteration breaks the link."""
        if self._known is None:
            self._known = {}
            for event in statements(self._folder, "ledger.recovered"):
                said = Gap._make(event.data.get(name) for name in Gap._fields)
                with suppress(TypeError):  # no key, so no gap
                    self._known.setdefault((said, event.data.get("lost")), event.seq)
        missing = gap.first - gap.after - 1
        statement = self._known.get((gap, missing))
        return statement if missing > 0 and statement and statement > gap.first else None

    def close(self, envelopes: list[Envelope]) -> None:
        """The replay has come to these events."""
        if self._open:
            for event in envelopes:
                if event.type == "ledger.recovered":
                    self._open.pop(event.seq, None)

    def require_closed(self) -> None:
        """The replay has come to the end.

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
