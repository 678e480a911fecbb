"""What a ledger promises to those who rewrite its months, or bring it back into service.

Apart from the rest of the protocol, since of all commands only a few ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from promptyoself.core.errors import PromptyoselfError
from promptyoself.ledger.batch import Position
from promptyoself.ledger.envelope import Envelope

if TYPE_CHECKING:
    from promptyoself.ledger.survey import Quarantined, Survey


class Prepared(NamedTuple):
    """A month in larger members, ready to be put in place of the old file."""

    month: str
    events: int
    content_sha256: str  # of all its lines, newlines included
    end: Position  # its last event, and where the old file ended when it was read
    offset: int  # where the new file ends, in bytes
    member: int  # where the last member of the new file begins
    growing: bool = False  # the old file may have grown since; that is added to the new one


class UnknownMonth(PromptyoselfError):
    """The chain has no event of that month."""

    def __init__(self, month: str) -> None:
        super().__init__(
            "unknown_month",
            f"The log has no event of {month}.",
            "Nothing was changed. `promptyoself seal` without --month seals what there is to seal.",
        )


class Recovery(Protocol):
    """The one right to bring a damaged chain back into service. Nobody appends meanwhile, and
    nobody seals."""

    def survey(self, witness: tuple[int, str] | None) -> Survey:
        """What is sound and what isn't; reads everything and changes nothing. ``witness`` is the
        number and the hash of the latest event that an index has seen.

        Raises:
            OSError: a segment can't be read.
        """
        ...

    def events(self, found: Survey) -> Iterator[Envelope]:
        """The sound events as a fold takes them in, with what stands for each gap."""
        ...

    def pieces_of(self, found: Survey, *, adopt: bool = False) -> list[Quarantined]:
        """The damaged bytes that :meth:`repair` moves aside, and those that a recovery has moved
        that was killed before it could record them; with ``adopt`` also those whose record is
        lost. Changes nothing."""
        ...

    def repair(self, found: Survey) -> Position:
        """Leave only what is sound in its place. Returns the end of the chain.

        Every piece is kept first, durably. It may die anywhere: then a survey finds the same sound
        lines, and all is done again. Until the gaps have their statement, which the caller appends
        at the end, readers stop at them.

        Raises:
            OSError: the disk refused. What was kept and what is sound is there.
        """
        ...

    def confirm_copies(self) -> None:
        """Give the copies of which the chain has a record their names for good."""
        ...

    def keep(self, path: Path, name: str) -> Path:
        """Copy a file or a folder to the quarantine, durably; returns where it lies there."""
        ...


class Sealing(Protocol):
    """The one right to seal: to rewrite months that are over into large members, the same lines."""

    def recorded(self) -> set[str]:
        """The months that a ``segment.sealed`` stands for. Reads the whole chain, without checking
        its links."""
        ...

    def prepare(self, month: str, now: datetime) -> Prepared:
        """Write the month in larger members, beside the old file, and check that it has the same
        lines.

        Takes no lock and changes nothing that anybody reads; it takes time that grows with the
        month. Every line of the month is checked first, and its link to the month before. What is
        returned is durable. Several can't be prepared at once: each undoes the one before.

        Raises:
            PromptyoselfError: ``unknown_month``; ``month_not_over``, where an event appended at
                ``now`` could still lie in it.
            ChainError: the month is damaged.
            OSError: the disk refused. In every case nothing was changed.
        """
        ...

    def repack(self, until: Position) -> Prepared:
        """As :meth:`prepare`, of the running month up to a position: a month needn't be over to be
        repacked, only to be recorded as sealed.

        Raises:
            PromptyoselfError: ``unknown_month``.
            ChainError, OSError: as :meth:`prepare`.
        """
        ...

    def count_small_members(self, month: str) -> int:
        """How many small members a month has: what repacking it would put together."""
        ...

    def put_in_place(
        self, prepared: Prepared, expecting: Position, before: Callable[[Position], None]
    ) -> Position:
        """Put the prepared month in the place of the old one; returns where ``expecting``, the
        chain's end, lies from now on. The caller holds :meth:`Ledger.exclusive`, and records it
        before he lets go: what is appended then lies in a later month, so nobody can add to the
        sealed one any more.

        ``before`` gets that position when all is checked, right before it comes true: an index
        that is written then fits at once, and no reader has to do without one meanwhile.

        When it returns the new one is durable. A crash before or after leaves either of them,
        whole, and perhaps without a record: then sealing again does what is missing. A torn end is
        moved aside first, and recorded by the next append. Readers that have the old one open go
        on with it, and find their place in the new one afterwards.

        Raises:
            HeadMoved: ``expecting`` is not the end of the chain, or the month has grown since it
                was prepared: prepare it again.
            ChainError: the chain is damaged.
            OSError: the disk refused; the old one is in place, or the new one.
        """
        ...
