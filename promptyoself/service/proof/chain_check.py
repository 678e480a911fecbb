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

__all__ = ["Checked", "check"]

_TELL_EVERY = 500


class Checked(NamedTuple):
    """A log that was found sound, up to a ``position``: the hash that was ``found`` at the event
    asked for, how many ``months`` have events, how many are ``sealed``, an event that is too new
    to be read, and the ``losses`` that are stated."""

    position: Position
    found: str | None
    months: int
    sealed: int
    newer: str | None
    losses: Sequence[Loss] = ()


def check(
    schema: StateSchema[Any],
    batches: Iterable[Batch],
    seq: int,
    progress: Callable[[int], None] | None = None,
) -> Checked:
    """Read events, and fold them as their chain's ``schema`` has it; ``seq`` is the number of one
    whose hash is wanted.

    Raises:
        ChainError: ``corrupt_chain``, naming the first bad event, or the record of a sealed month
            that isn't what was sealed.
    """
    position, found, told = START, START.hash if seq == 0 else None, 0
    months = _Months()

    def events() -> Iterator[Envelope]:
        nonlocal position, found, told
        for batch in batches:
            for event in batch.envelopes:
                if event.seq == seq + 1 and (batch.gap is None or event.seq != batch.gap.first):
                    found = event.prev
            yield from batch.folded()
            months.add(batch)
            position = batch.position
            if position.seq == seq:
                found = position.hash
            if progress is not None and position.seq >= told + _TELL_EVERY:
                told = position.seq
                progress(told)

    state = schema.fold(schema.empty, events())
    losses = schema.losses(state).recorded
    return Checked(position, found, months.count, months.sealed, schema.newer(state), losses)


class _Months:
    """What was read of each month, against what was recorded of it when it was sealed."""

    def __init__(self) -> None:
        self._read: dict[str, tuple[int, Any]] = {}
        self._open: dict[Gap, str] = {}  # not stated yet, with the month in which the chain goes on
        self.sealed = 0

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
                said = tuple(event.data.get(name) for name in Gap._fields)
                self._open = {gap: month for gap, month in self._open.items() if gap != said}
        events, content = self._read.get(month) or (0, sha256())
        content.update(batch.content)
        self._read[month] = (events + batch.content.count(b"\n"), content)

    def _check(self, event: Envelope, month: str) -> None:
        sealed = event.data.get("month")
        expected = {name: event.data.get(name) for name in ("events", "content_sha256")}
        found: dict[str, Any] = {"events": 0, "content_sha256": None}
        if isinstance(sealed, str) and sealed != month and sealed in self._read:
            events, content = self._read[sealed]
            found = {"events": events, "content_sha256": content.hexdigest()}
        if found != expected and not (isinstance(sealed, str) and self._is_broken(sealed)):
            raise ChainError(
                "corrupt_chain",
                f"Event {event.seq} records that {sealed} was sealed, with another content than "
                "it has.",
                "Nothing was changed. That month or this record was rewritten, and the chain after "
                "it: compare it with a backup, which `promptyoself verify --var BACKUP` proves.",
                month=sealed,
                seq=event.seq,
                expected=expected,
                found=found,
            )
        self.sealed += 1

    def _is_broken(self, month: str) -> bool:
        """Whether a gap that is stated only later lies in the month, or between it and its record.
        Then it may lack some of what was recorded of it; what it has is held by the links."""
        return any(month <= after for after in self._open.values())
