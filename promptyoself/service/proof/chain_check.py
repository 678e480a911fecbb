"""Reading a whole log and checking all of it: links, events, and the records of sealed months."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from promptyoself.core.errors import ChainError
from promptyoself.events.versions import VERSIONS
from promptyoself.index.schema import StateSchema
from promptyoself.ledger import START, Batch, Envelope, Gap, Position
from promptyoself.state.fold import Loss

_PROGRESS_EVERY = 500
"""The number of events after which progress is reported."""


class CheckedChain(NamedTuple):
    """A chain that was found sound."""

    position: Position  # after its last event
    hash_at: str | None  # the hash of the event that was asked for; ``None`` if there is none
    months: int  # how many have events
    sealed: int  # how many of them are sealed
    newer: str | None  # the first event that is too new to be understood
    losses: Sequence[Loss] = ()  # the losses that are stated


def check(
    schema: StateSchema[Any],
    batches: Iterable[Batch],
    seq: int,
    progress: Callable[[int], None] | None = None,
) -> CheckedChain:
    """Read the events of a whole chain, and fold them as its ``schema`` has it.

    ``seq`` is the number of an event whose hash is wanted. ``progress`` is called now and then with
    the number of events read so far.

    Raises:
        ChainError: ``corrupt_chain``, naming the first bad event, or the record of a sealed month
            that isn't what was sealed.
    """
    reading = _Reading(batches, seq, progress)
    state = schema.fold(schema.empty, reading.events())
    return CheckedChain(
        reading.position,
        reading.hash_at,
        reading.months.count,
        reading.months.sealed,
        schema.newer(state),
        schema.losses(state).recorded,
    )


class _Reading:
    """Yields the events of batches, and keeps what is asked of them at the end."""

    def __init__(
        self, batches: Iterable[Batch], seq: int, progress: Callable[[int], None] | None
    ) -> None:
        self._batches, self._seq, self._progress = batches, seq, progress
        self.position = START
        self.hash_at = START.hash if seq == 0 else None
        self.months = _Months()

    def events(self) -> Iterator[Envelope]:
        """Every event, for the fold."""
        reported = 0
        for batch in self._batches:
            for event in batch.envelopes:
                # The event has the hash of the one before it, unless a gap lies between them.
                follows = batch.gap is None or event.seq != batch.gap.first
                if event.seq == self._seq + 1 and follows:
                    self.hash_at = event.prev
            yield from batch.folded()
            self.months.add(batch)
            self.position = batch.position
            if self.position.seq == self._seq:
                self.hash_at = self.position.hash
            if self._progress is not None and self.position.seq >= reported + _PROGRESS_EVERY:
                reported = self.position.seq
                self._progress(reported)


class _Months:
    """Compares the content of each month with the record of its sealing."""

    def __init__(self) -> None:
        self.sealed = 0
        """The number of months whose record is right."""
        self._read: dict[str, tuple[int, Any]] = {}  # events and SHA-256 of each month's content
        # The gaps that are not stated yet, each with the month in which the chain goes on.
        self._open: dict[Gap, str] = {}

    @property
    def count(self) -> int:
        """How many months have events."""
        return len(self._read)

    def add(self, batch: Batch) -> None:
        """Take in the next events, and check the records among them.

        Raises:
            ChainError: ``corrupt_chain``.
        """
        month = batch.position.month
        if batch.gap is not None:
            self._open[batch.gap] = month
        for event in batch.envelopes:
            if event.type == "segment.sealed" and event.v <= VERSIONS[event.type]:
                self._check(event, month)
            elif event.type == "ledger.recovered":
                stated = tuple(event.data.get(name) for name in Gap._fields)
                self._open = {gap: month for gap, month in self._open.items() if gap != stated}
        events, content = self._read.get(month) or (0, sha256())
        content.update(batch.content)
        self._read[month] = (events + batch.content.count(b"\n"), content)

    def _check(self, event: Envelope, month: str) -> None:
        sealed = event.data.get("month")
        expected = {name: event.data.get(name) for name in ("events", "content_sha256")}
        actual: dict[str, Any] = {"events": 0, "content_sha256": None}
        if isinstance(sealed, str) and sealed != month and sealed in self._read:
            events, content = self._read[sealed]
            actual = {"events": events, "content_sha256": content.hexdigest()}
        if actual != expected and not (isinstance(sealed, str) and self._is_broken(sealed)):
            raise ChainError(
                "corrupt_chain",
                f"Event {event.seq} records that {sealed} was sealed, with another content than "
                "it has.",
                "Nothing was changed. That month or this record was rewritten, and the chain after "
                "it: compare it with a backup, which `promptyoself verify --var BACKUP` proves.",
                month=sealed,
                seq=event.seq,
                expected=expected,
                found=actual,
            )
        self.sealed += 1

    def _is_broken(self, month: str) -> bool:
        """Whether a gap that is stated only later lies in the month, or between it and its record.
        Then the month may lack events that its record counts. The links prove those that it has."""
        return any(month <= after for after in self._open.values())
