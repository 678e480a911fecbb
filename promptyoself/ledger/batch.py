"""What a ledger gives: the events of an append as a batch, its position, a gap, a torn end."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.events.versions import GAP
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope


class Position(NamedTuple):
    """A place between two events: all up to ``seq``, whose line has ``hash``, lie before it.

    ``ts`` is that event's time. The rest is how this ledger finds the place again without reading
    what lies before it: the ``month`` of the segment, the byte ``offset`` in it, the offset of the
    ``member`` that ends there, and how many bytes the ``earlier`` segments have altogether.
    """

    seq: int
    hash: str
    ts: str
    month: str
    offset: int
    member: int
    earlier: int


START = Position(0, GENESIS_HASH, "", "", 0, 0, 0)
"""Before the first event."""


class Torn(NamedTuple):
    """The end of the last segment that isn't a whole member: what a crash in an append leaves.

    ``cut_short`` is true where it is the beginning of one, as a process killed in the middle of an
    append leaves it; other bytes come from a loss of power, or from damage to the last event.
    """

    month: str
    offset: int
    size: int
    cut_short: bool


class Gap(NamedTuple):
    """A stretch of the chain that is lost, for which the chain itself has a statement: between the
    event ``after`` with its hash and the event ``first`` with its ``prev``."""

    after: int
    after_hash: str
    first: int
    first_prev: str


class Batch(NamedTuple):
    """The events of one append, in order. In a sealed month a batch has those of many appends."""

    envelopes: Sequence[Envelope]
    position: Position  # after the events
    content: bytes  # their lines as stored, each with its newline
    gap: Gap | None = None  # before the first of the events

    def folded(self) -> Sequence[Envelope]:
        """The events as a fold takes them in: what stands for the gap, if there is one, and they
        themselves."""
        if self.gap is None:
            return self.envelopes
        first = self.envelopes[0]
        mark = Envelope(1, first.seq, first.ts, GAP, None, {}, self.gap._asdict(), first.prev)
        return [mark, *self.envelopes]


def end_before(batches: Iterable[Batch], month: str) -> Position:
    """The end of what lies before a month, in ``batches`` from the first event on."""
    position = START
    for batch in batches:
        if batch.position.month >= month:
            break
        position = batch.position
    return position


class HeadMoved(PromptyoselfError):
    """The chain has grown since ``expecting``: catch up, decide again, append again."""

    def __init__(self, expected: Position, found: int) -> None:
        """``found`` is an event after ``expected``, or 0 where that isn't on the chain at all."""
        super().__init__(
            "head_moved",
            f"The log has grown to at least event {found} since event {expected.seq} was read."
            if found
            else f"Event {expected.seq} is no longer where it was read in the log.",
            "Run the command again.",
        )
