"""What a ledger promises, whatever stores it. One contract suite tests every implementation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Protocol

from promptyoself.events.draft import Draft
from promptyoself.ledger.batch import START, Batch, Position, Torn
from promptyoself.ledger.envelope import Envelope
from promptyoself.ledger.maintenance import Recovery, Sealing


class Ledger(Protocol):
    """An append-only, hash-linked sequence of events, shared by any number of processes."""

    def exclusive(self, timeout: float | None = None) -> AbstractContextManager[None]:
        """Hold the one right to append, among all processes and threads; re-entrant in a thread.
        ``timeout`` is how many seconds to wait for it, if not the ledger's own time limit.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the holder, where another keeps it for
                longer.
        """
        ...

    def append(self, drafts: Sequence[Draft], now: datetime, expecting: Position) -> Batch:
        """Add events after ``expecting``, all or none of them, at the time ``now``.

        When it returns they are durable: no crash or loss of power can undo them. When it raises,
        none of them is acknowledged; a reader may meet all or none of them afterwards only if the
        process died, or the device failed, in between. All get one ``ts``: ``now``, or the last
        event's where the clock has run back.
        The returned batch starts with the ledger's own events, where it had some to add.

        Without any ``drafts`` nothing is written, but everything up to ``expecting`` is durable
        when it returns: another writer may have died between writing it and making it so, and
        a caller that acknowledges what it found there ("exists already") vouches for it.

        Raises:
            HeadMoved: ``expecting`` is not the end of the chain.
            PromptyoselfError: ``lock_timeout``, ``event_too_large``.
            ChainError: the chain is damaged.
            OSError: the disk refused; the chain is as it was.
        """
        ...

    def replay(self, after: Position = START) -> Iterator[Batch]:
        """Every event after a position, each checked for its hash link, sequence, time and month.

        Takes no lock. Sees at least everything acknowledged before the call; an append under way
        is seen whole or not at all. Where the month of ``after`` has been sealed since, the place
        is found again, by its event: nothing is left out or given twice, and the first batch may
        be the rest of a larger one. Over a gap it goes on where the chain has a statement for
        exactly that gap, and says so in the batch.

        Raises:
            HeadMoved: ``after`` isn't on the chain (any more).
            ChainError: the chain is damaged; the batches before the damage have been yielded.
        """
        ...

    def head(self, after: Position = START) -> Position:
        """The position after the last event, reading on from a known one. Where that has been
        sealed since, it is returned as it is now.

        Raises:
            HeadMoved, ChainError: as :meth:`replay`.
        """
        ...

    def event(self, seq: int, month: str) -> Envelope | None:
        """The event of that number, which bears a time in that month; ``None`` where there is none.
        Reads a few members, however many events there are, and checks each by its checksum, not by
        its link: that is :meth:`replay`'s part.

        Raises:
            OSError: the disk refused.
        """
        ...

    def holds(self, position: Position) -> bool:
        """Whether the position lies on this chain, as far as a bounded read can tell: its event is
        where it says, and the earlier segments have the size they had. False is always safe, and
        what one gets where something has been sealed since: the caller then replays from the
        start, which tells for certain."""
        ...

    def torn(self, after: Position = START) -> Torn | None:
        """The half-written end, if there is one; the next append moves it aside. Without the lock
        held, it may be an append under way."""
        ...

    def stamp(self) -> object:
        """Something that differs whenever events have been appended since; as cheap as can be."""
        ...

    def stamp_at(self, position: Position) -> object | None:
        """The stamp of the chain as it ends at a position, where that :meth:`holds`; else ``None``.
        For who holds the lock: of what anybody has done after that, such a stamp knows nothing."""
        ...

    def months(self) -> list[str]:
        """The months that have events, oldest first; as cheap as :meth:`stamp`."""
        ...

    def recovering(self) -> AbstractContextManager[Recovery]:
        """Hold the right to append and that to seal, and bring the chain back into service.

        Raises:
            PromptyoselfError: ``lock_timeout``.
        """
        ...

    def sealing(self, timeout: float | None = None) -> AbstractContextManager[Sealing]:
        """Hold the one right to seal, among all processes and threads. It is another one than
        :meth:`exclusive`, so that nobody who appends has to wait for a month to be prepared; who
        holds that one must not ask for this one.

        ``timeout`` is how many seconds to wait for it, if not the ledger's own time limit.

        Raises:
            PromptyoselfError: ``lock_timeout``, naming the holder, where another keeps it for
                longer.
        """
        ...
