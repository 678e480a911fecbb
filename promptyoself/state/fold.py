"""What the folds of all chains have in common.

A fold applies one event after the other to a state. It refuses an event that contradicts those
before it, for no version of this software writes that. It goes on after a gap in the log if the log
states what is lost there.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from promptyoself.core.errors import ChainError
from promptyoself.events.versions import GAP, VERSIONS


class Folded(Protocol):
    """What a fold reads of an event in the log."""

    @property
    def v(self) -> int: ...
    @property
    def seq(self) -> int: ...
    @property
    def ts(self) -> str: ...
    @property
    def type(self) -> str: ...
    @property
    def id(self) -> str | None: ...
    @property
    def data(self) -> Mapping[str, Any]: ...


class Loss(NamedTuple):
    """A stretch of the log that is lost, as a ``ledger.recovered`` states it."""

    event: int  # the number of the event that states it
    after: int  # the last event before it
    lost: int  # how many events are lost
    first: int | None = None  # the first event after it; None if the end of the log was lost
    known: int | None = None  # then: the last lost event that an index had seen
    known_hash: str | None = None

    def to_json(self) -> dict[str, int]:
        """The loss as answers have it: the fields that are set, without the hash."""
        fields = self._asdict()
        del fields["known_hash"]
        return {name: value for name, value in fields.items() if value is not None}

    def excuses(self, seq: int, hash_: str) -> bool:
        """Whether an event that an index has seen is among those that are lost. If the end of the
        log was lost, its numbers are used again, so the hash must be that of the known event."""
        if self.first is None:
            return (seq, hash_) == (self.known, self.known_hash)
        return self.covers(seq)

    def covers(self, seq: int) -> bool:
        """Whether the event of that number is among those that are lost."""
        last = self.known or self.after if self.first is None else self.first - 1
        return self.after < seq <= last


class Losses(NamedTuple):
    """What a fold knows of gaps in the log."""

    recorded: list[Loss]  # gaps that the log has stated
    since: dict[int, str]  # gaps not stated yet: the number and the time of the first event after
    unknown: dict[str, None]  # ids of which the first event is lost, met since an unstated gap
    moved: dict[str, None]  # schedules of which a claim is lost, and so their next slot

    def copy(self) -> "Losses":
        """A copy that can be changed by itself."""
        return Losses(list(self.recorded), dict(self.since), dict(self.unknown), dict(self.moved))

    def pass_gap(self, gap: Folded) -> None:
        """The fold has come to a gap: later events may follow from lost ones."""
        self.since[gap.seq] = gap.ts

    def record(self, event: Folded) -> None:
        """The fold has come to the event that states a gap. If no other gap waits for its
        statement, what comes now was decided on what is left."""
        data = event.data
        optional = (data.get(name) for name in ("first", "known", "known_hash"))
        loss = Loss(event.seq, data["after"], data["lost"], *optional)
        self.recorded.append(loss)
        self.since.pop(data.get("first", 0), None)
        if not self.since:
            self.unknown.clear()
            self.moved.clear()

    def excuses(self, begun: str) -> bool:
        """Whether an event may contradict those before it, because events in between may be lost.
        ``begun`` is the instant at which what the event is about began."""
        return bool(self.since) and begun <= max(self.since.values())


NO_LOSSES = Losses([], {}, {}, {})
"""Of a log from which nothing is missing. It is never changed: a fold changes a copy."""


def add(counts: dict[str, int], key: str, change: int) -> None:
    """Change one of some counts. One that comes to zero is left out."""
    counts[key] = counts.get(key, 0) + change
    if not counts[key]:
        del counts[key]


def apply_events(
    events: Iterable[Folded],
    known: Mapping[str, int],
    counts: dict[str, int],
    apply: Callable[[Folded], None],
    losses: Losses,
) -> str | None:
    """Apply each event whose type is ``known`` in its version, and count all events by type in
    ``counts``. Returns the name of the first event that this software is too old to read, if any.

    Raises:
        ChainError: ``corrupt_chain``: an event is of another chain, or contradicts those before
            it. Its links may hold, but no writer of ours can have written it.
    """
    newer = None
    for event in events:
        type_ = event.type
        if not 1 <= event.v <= known.get(type_, 0):
            if type_ == GAP:
                losses.pass_gap(event)
                continue
            counts[type_] = counts.get(type_, 0) + 1
            if type_ in VERSIONS and type_ not in known:
                raise _corrupt(event, "is of another chain")
            if newer is None:
                newer = f"event {event.seq} ({type_}, version {event.v})"
            continue
        counts[type_] = counts.get(type_, 0) + 1
        try:
            apply(event)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _corrupt(event, f"contradicts those before it: {error!r}") from None
    return newer


def _corrupt(event: Folded, problem: str) -> ChainError:
    return ChainError(
        "corrupt_chain",
        f"Event {event.seq} ({event.type}) {problem}.",
        "Nothing was changed. No version of promptyoself writes this: restore the log from "
        "a backup and run `promptyoself verify`, or report it if only promptyoself ever "
        "wrote there.",
        seq=event.seq,
    )
