"""What a recovery finds in a damaged chain: what is sound, what isn't, and what it moves aside."""

from collections.abc import Iterator
from itertools import chain
from typing import Any, NamedTuple

from promptyoself.ledger.batch import Gap
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope


class Line(NamedTuple):
    """One line that reads as an event."""

    seq: int
    hash: str
    prev: str
    ts: str
    month: str  # of the file in which it lies
    place: int  # counts lines and pieces in the order of the files
    checked: bool  # whether its member's checksum is right
    aside: bool  # whether it lies in the quarantine, moved by a recovery that was killed


class Piece(NamedTuple):
    """Bytes of a segment that aren't taken over as they are."""

    month: str
    offset: int
    content: bytes
    place: int  # as in Line
    at_end: bool  # whether nothing lay behind them


class Survey(NamedTuple):
    """What is sound in a chain, and what isn't."""

    islands: list[list[Line]]  # the sound lines, in the order of the chain
    pieces: list[Piece]  # the damaged bytes, in the order of the files
    broken: set[str]  # the months whose files must be written again
    statements: list[Envelope]  # of earlier recoveries, as far as they are sound
    inside: dict[str, set[str]]  # the hashes of the lines in each piece, by the piece's SHA-256

    @property
    def last(self) -> Line | None:
        """The last sound line."""
        return self.islands[-1][-1] if self.islands else None

    def lines(self) -> Iterator[Line]:
        """The sound lines, in the order of the chain."""
        return chain.from_iterable(self.islands)

    def in_turn(self) -> Iterator[tuple[Gap | None, list[Line]]]:
        """Each island with the gap before it, or with None if there is no gap."""
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
    """Damaged bytes that were moved to the quarantine."""

    month: str  # where they lay
    offset: int
    bytes: int
    sha256: str
    file: str  # the name of the copy
    after: int  # the number of the sound event before them

    def to_json(self) -> dict[str, Any]:
        """The fields that a ``ledger.recovered`` has of it."""
        fields = self._asdict()
        del fields["after"]
        return fields
