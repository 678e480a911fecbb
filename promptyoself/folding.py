"""What every fold has in common: it takes in events one by one, and refuses those that no writer of
ours can have written there."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from promptyoself.errors import ChainError
from promptyoself.versions import VERSIONS

__all__ = ["Folded", "take_in"]


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


def take_in(
    events: Iterable[Folded],
    known: Mapping[str, int],
    counts: dict[str, int],
    apply: Callable[[Folded], None],
) -> str | None:
    """Apply each event whose type is ``known`` in that version, and count all per type in
    ``counts``. Names the first event that this software is too old to read, if there is one.

    Raises:
        ChainError: ``corrupt_chain``: an event is of another chain, or contradicts those before
            it. Its links may hold, but no writer of ours can have written it.
    """
    newer = None
    for event in events:
        counts[event.type] = counts.get(event.type, 0) + 1
        if not 1 <= event.v <= known.get(event.type, 0):
            if event.type in VERSIONS and event.type not in known:
                raise _corrupt(event, "is of another chain")
            if newer is None:
                newer = f"event {event.seq} ({event.type}, version {event.v})"
            continue
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
