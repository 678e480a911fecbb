"""What a recovery finds in a damaged chain: what is sound, what isn't, and what it moves aside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from promptyoself.ledger.batch import Gap
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope

__all__ = ["Line", "Piece", "Quarantined", "Survey"]


class Line(NamedTuple):
    """One line that reads as an event. ``place`` counts lines and pieces in the order of the files;
    ``month`` is that of the file, ``member`` where its member begins there. ``aside`` where it lies
    in the quarantine, moved there by a recovery that was killed."""

    seq: int
    hash: str
    prev: str
    ts: str
    month: str
    member: int
    place: int
    checked: bool
    aside: bool


class Piece(NamedTuple):
    """Bytes of a segment that aren't taken over as they are; ``place`` as in :class:`Line`.
    ``at_end`` where nothing lay behind them."""

    month: str
    offset: int
    content: bytes
    place: int
    at_end: bool


class Survey(NamedTuple):
    """What is sound: ``islands`` in the order of the chain. What isn't: ``pieces`` in the order of
    the files. ``broken`` are the months whose files must be written again. ``statements`` are the
    sound ones of earlier recoveries. ``inside`` are the hashes of the lines in each piece and each
    copy of one, by its SHA-256."""

    islands: list[list[Line]]
    pieces: list[Piece]
    broken: set[str]
    statements: list[Envelope]
    inside: dict[str, set[str]]

    @property
    def last(self) -> Line | None:
        """The last sound line."""
        return self.islands[-1][-1] if self.islands else None

    def in_turn(self) -> Iterator[tuple[Gap | None, list[Line]]]:
        """Each island, with the gap before it; None where it follows without one."""
        after, hash_ = 0, GENESIS_HASH
        for island in self.islands:
            gap = Gap(after, hash_, island[0].seq, island[0].prev)
            follows = (gap.first, gap.first_prev) == (after + 1, hash_)
            yield None if follows else gap, island
            after, hash_ = island[-1].seq, island[-1].hash

    def gaps(self) -> list[Gap]:
        """The gaps between islands, and before the first one, that aren't stated yet."""
        names = Gap._fields
        stated = {tuple(event.data.get(name) for name in names) for event in self.statements}
        return [gap for gap, _ in self.in_turn() if gap is not None and gap not in stated]


class Quarantined(NamedTuple):
    """Damaged bytes that were moved aside, which lay in a ``month`` at an ``offset``, behind the
    sound event number ``after``."""

    month: str
    offset: int
    bytes: int
    sha256: str
    file: str
    after: int

    def said(self) -> dict[str, Any]:
        """As ``ledger.recovered`` has it."""
        fields = self._asdict()
        del fields["after"]
        return fields
