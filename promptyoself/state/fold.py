"""What every fold has in common. It takes in events one by one, and refuses those that no writer of
ours can have written there. And it goes on over a gap in the log, where what is lost is known."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from promptyoself.core.errors import ChainError
from promptyoself.events.versions import GAP, VERSIONS

__all__ = [
    "NO_LOSSES",
    "Folded",
    "Loss",
    "Losses",
    "take_in",
]


class Folded(Protocol):
    """What a fold reads of an envelope."""

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
    """A stretch of the log that is lost, as the ``ledger.recovered`` number ``event`` says it:
    ``lost`` events after event ``after``, up to event ``first`` if that isn't ``None``. Where the
    end of the log was lost, ``known`` is the last of them that an index had seen."""

    event: int
    after: int
    lost: int
    first: int | None = None
    known: int | None = None
    known_hash: str | None = None

    def told(self) -> dict[str, int]:
        """The same for answers: what is set of it, but for the hash."""
        fields = self._asdict()
        del fields["known_hash"]
        return {name: value for name, value in fields.items() if value is not None}

    def excuses(self, seq: int, hash_: str) -> bool:
        """Whether an event that an index has seen is among those that are lost. Where the end was
        lost, its numbers are used again, so there it must be the very event that was known."""
        if self.first is None:
            return (seq, hash_) == (self.known, self.known_hash)
        return self.covers(seq)

    def covers(self, seq: int) -> bool:
        """Whether the event of that number is among those that are lost."""
        last = self.known or self.after if self.first is None else self.first - 1
        return self.after < seq <= last


class Losses(NamedTuple):
    """What a fold knows of gaps. ``recorded`` are those that have their record. ``since`` has those
    whose record is still to come, as the number and the time of the first event after each;
    ``unknown`` are the ids that have come up since then, though what began them is lost; and
    ``moved`` those of schedules of which a claim is lost, with the next slot that it had."""

    recorded: list[Loss]
    since: dict[int, str]
    unknown: dict[str, None]
    moved: dict[str, None]

    def copy(self) -> "Losses":
        """The same, to be changed by itself."""
        return Losses(list(self.recorded), dict(self.since), dict(self.unknown), dict(self.moved))

    def pass_gap(self, gap: Folded) -> None:
        """From here on an event may follow from one that is lost."""
        self.since[gap.seq] = gap.ts

    def record(self, event: Folded) -> None:
        """A gap has its record. Where no other one still waits for its own, what comes now was
        decided by what is left."""
        data = event.data
        optional = (data.get(name) for name in ("first", "known", "known_hash"))
        loss = Loss(event.seq, data["after"], data["lost"], *optional)
        self.recorded.append(loss)
        self.since.pop(data.get("first", 0), None)
        if not self.since:
            self.unknown.clear()
            self.moved.clear()

    def excuses(self, begun: str) -> bool:
        """Whether an event may contradict those before it, of something that was ``begun`` at an
        instant: what happened to that in between may be lost."""
        return bool(self.since) and begun <= max(self.since.values())


NO_LOSSES = Losses([], {}, {}, {})
"""Those of a log from which nothing is missing. Never changed: a fold changes a branch."""


def take_in(
    events: Iterable[Folded],
    known: Mapping[str, int],
    counts: dict[str, int],
    apply: Callable[[Folded], None],
    losses: Losses,
) -> str | None:
    """Apply each event whose type is ``known`` in that version, and count all per type in
    ``counts``. Names the first event that this software is too old to read, if there is one.

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
