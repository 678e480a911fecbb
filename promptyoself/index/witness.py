"""What an index bears witness to: the latest event that was durable, which the log must still have.

An index is written after its events are durable. So a log that lacks an event which an index has
seen was cut off, damaged or replaced since, unless the log itself states the loss.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from promptyoself.core.errors import ChainError
from promptyoself.ledger import START, Envelope, Position
from promptyoself.state.fold import Loss


class Witness:
    """The latest event that is known to have been durable."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        """``warn`` gets a sentence when the log lacks the event."""
        self._warn = warn
        self.seq = 0
        self._hash = START.hash
        # This process has appended the event. Otherwise an index's file has told of it, and that
        # file may be another log's.
        self._is_own = False
        self.missing: ChainError | None = None  # ``events_missing``, if the log lacks the event

    def see(self, position: Position) -> None:
        """An index's file stands at this position."""
        if position.seq > self.seq:
            self.seq, self._hash, self._is_own = position.seq, position.hash, False

    def note_append(self, position: Position) -> None:
        """This process has appended up to this position."""
        self.seq, self._hash, self._is_own = position.seq, position.hash, True

    def judge(self, end: Position, losses: Sequence[Loss], hash_: str | None) -> None:
        """Set :attr:`missing` for a log that was read up to ``end`` and states these losses.

        ``hash_`` is the hash of the event with this number in that log, if it was met.
        """
        if end.seq == self.seq:
            hash_ = end.hash
        before, self.missing = self.missing, None
        if end.seq >= self.seq and not (self._is_own and hash_ not in (None, self._hash)):
            return
        for loss in losses:
            # If this process has appended the event, its number is enough: an index may have seen
            # more since, and then the statement names that.
            if loss.excuses(self.seq, self._hash) or (self._is_own and loss.covers(self.seq)):
                return
        self.missing = events_missing(self.seq, end.seq)
        if before is None or before.message != self.missing.message:
            text = self.missing.message
            if end.seq < self.seq:
                text = (
                    f"The index knew of {self.seq} events, but the log ends at event {end.seq}: "
                    "something has cut it off."
                )
            self._warn(f"{text} Nothing is written here until it is restored, or recovered.")


class HashOfEvent:
    """Finds the hash of one event while a log is replayed: the ``prev`` of the event after it."""

    def __init__(self, seq: int) -> None:
        self._next = seq + 1
        self.hash: str | None = None

    def pass_over(self, envelopes: Sequence[Envelope]) -> None:
        """The replay has come to these events."""
        if envelopes and envelopes[0].seq <= self._next <= envelopes[-1].seq:
            self.hash = envelopes[self._next - envelopes[0].seq].prev


def events_missing(seen: int, end: int) -> ChainError:
    """The error for a log that ends at event ``end``, or goes on, without event ``seen``."""
    if end < seen:
        message = f"The log ends at event {end}, but its index has seen event {seen}."
    else:
        message = f"Event {seen} of the log is another than the one that its index has seen."
    return ChainError(
        "events_missing",
        message,
        "Nothing is written here until that is settled. The log was cut off, damaged or replaced "
        "after the event was acknowledged. Restore it from a backup that has the event; or run "
        "`promptyoself recover` to go on without what is lost, which is then recorded. If you have "
        "restored an older backup on purpose, remove index.json beside it.",
        seq=min(seen, end + 1),
        expected=f"event {seen}",
        found="the end of the log" if end < seen else "another event",
    )


def chain_is_gone(path: Path, events: int) -> ChainError:
    """The error for a log of which nothing is left, though the index at ``path`` has seen more."""
    known = f"its index knows of {events} events" if events else "it has an index"
    return ChainError(
        "chain_missing",
        f"There is no readable log in {path.parent}, but {known}.",
        "Look at --var and PROMPTYOSELF_VAR with `promptyoself doctor`. If it is the right place, "
        "restore the *.ndjson.gz files from a backup and run `promptyoself verify`. To start "
        "again, remove the index too.",
        events=events,
    )
