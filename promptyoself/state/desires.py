"""What agents would like: the state that the events of the desires' chain add up to.

Like the schedules' state it depends on the events alone, not on a clock or on settings. A desire's
strength decays exponentially. The decay is computed whenever a strength is needed; only a
reinforcement writes a strength down. All desires have one half-life, so decay never changes which
of two is the stronger.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from promptyoself.core.instants import parse_utc
from promptyoself.events.versions import DESIRE_VERSIONS
from promptyoself.state.fold import NO_LOSSES, Folded, Losses, add, apply_events
from promptyoself.state.overlay import Overlay, Summary, one

CHAIN = "desires"
"""The name of the chain that has these events, and of its folder."""


class Desire(NamedTuple):
    """One wish. It is alive until it is pruned."""

    id: str
    agent_id: str
    text: str
    strength: float  # from 0 to 1, at the instant `at`
    at: str  # when it was recorded or last reinforced
    created_at: str
    recorded_at: str  # the instant from which, with the agent and the text, its id was made
    tags: tuple[str, ...] = ()
    salt: int | None = None
    reinforced: int = 0  # how often
    pruned_at: str | None = None
    reason: str | None = None


class Desires(NamedTuple):
    """Everything that the chain says now."""

    desires: Overlay[Desire]  # by key_of
    owners: Overlay[str]  # the agent of each desire, by the desire's id
    statuses: dict[str, int]  # how many are living, and how many pruned
    counts: dict[str, int]  # how many events there are of each type
    newer: str | None = None  # the first event that this software is too old to read
    losses: Losses = NO_LOSSES  # the gaps in the log

    def find(self, id_: str) -> Desire | None:
        """The wish of that id, alive or not."""
        agent_id = self.owners.get(id_)
        return None if agent_id is None else self.desires.get(key_of(id_, agent_id))


class Ranked(NamedTuple):
    """A wish, and how strong it is at the instant in question."""

    strength: float
    desire: Desire


def key_of(id_: str, agent_id: str) -> str:
    """The key of a desire in the table of desires."""
    return f"{id_}|{agent_id}"


def neighbourhood(agent_id: str) -> str:
    """What the paths of an agent's desires begin with, so that these lie side by side."""
    return sha256(agent_id.encode("utf-8", "surrogatepass")).hexdigest()[:4]


def summarize(desire: Desire) -> Summary:
    """One wish's part in a :class:`~promptyoself.state.overlay.Summary` of many."""
    return _LIVING if desire.pruned_at is None else _PRUNED


_LIVING, _PRUNED = Summary(1, statuses=(1, 0)), Summary(1, statuses=(0, 1))

EMPTY = Desires(Overlay(summarize), Overlay(one), {}, {})
"""Before the first event."""


def strength_at(desire: Desire, now: datetime, half_life: float) -> float:
    """How strong it is: half as strong for every ``half_life`` (in seconds) since it was recorded
    or last reinforced. Before that, as strong as then."""
    elapsed = max(0.0, (now - parse_utc(desire.at)).total_seconds())
    return float(desire.strength * 0.5 ** (elapsed / half_life))


def after_reinforcing(desire: Desire, by: float, now: datetime, half_life: float) -> float:
    """The strength that it has then: what is left of it now, and ``by``; at most 1."""
    return min(1.0, strength_at(desire, now, half_life) + by)


def living(state: Desires, agent_id: str | None = None) -> Iterator[Desire]:
    """The desires that weren't pruned, of one agent or of all. For one agent, only the parts of the
    index are read that have desires of it."""
    under = "" if agent_id is None else neighbourhood(agent_id)
    for desire in state.desires.values(lambda summary: summary.statuses[0] > 0, under):
        if desire.pruned_at is None and agent_id in (None, desire.agent_id):
            yield desire


def strongest(
    desires: Iterable[Desire],
    now: datetime,
    half_life: float,
    *,
    at_least: float = 0.0,
) -> list[Ranked]:
    """The strongest first; of equals, the older, and then the smaller id."""

    def order(ranked: Ranked) -> tuple[float, str, str]:
        return -ranked.strength, ranked.desire.created_at, ranked.desire.id

    ranked = (Ranked(strength_at(desire, now, half_life), desire) for desire in desires)
    return sorted((wish for wish in ranked if wish.strength >= at_least), key=order)


def fold(state: Desires, envelopes: Iterable[Folded]) -> Desires:
    """The state after some more events; ``state`` itself is left as it was.

    Raises:
        ChainError: ``corrupt_chain``: see :func:`~promptyoself.state.fold.apply_events`.
    """
    new = state._replace(
        desires=state.desires.copy(),
        owners=state.owners.copy(),
        statuses=dict(state.statuses),
        counts=dict(state.counts),
        losses=state.losses.copy(),
    )
    newer = apply_events(envelopes, DESIRE_VERSIONS, new.counts, partial(_apply, new), new.losses)
    return new if new.newer or newer is None else new._replace(newer=newer)


def _apply(state: Desires, event: Folded) -> None:
    """Take in one event of a known type and version; ``state`` is changed."""
    # A command that meets no event does without this import.
    from promptyoself.events import records
    from promptyoself.events.codec import read_record

    record = read_record(event.type, event.v, event.data)
    if isinstance(record, records.LedgerCreated) and record.chain != CHAIN:
        raise ValueError(f"it begins another chain, {record.chain!r}")
    if event.id is None:
        if event.type.startswith("desire."):
            raise ValueError("it is of no desire")
        if isinstance(record, records.LedgerRecovered):
            state.losses.record(event)
        return
    before = state.find(event.id)
    if isinstance(record, records.DesireRecorded):
        if before is not None:
            raise ValueError("its id is another's")
        _require_strengths(record.strength)
        if not all(type(tag) is str for tag in record.tags or ()):
            raise TypeError("a tag is no text")
        fields = {**record._asdict(), "tags": tuple(record.tags or ())}
        after = Desire(id=event.id, at=event.ts, created_at=event.ts, **fields)
        state.owners[event.id] = record.agent_id
        add(state.statuses, "living", 1)
    elif before is None:
        if not state.losses.since:
            raise ValueError("it was never recorded")
        state.losses.unknown[event.id] = None
        return
    elif before.pruned_at is not None:
        raise ValueError("it was pruned before")
    elif isinstance(record, records.DesireReinforced):
        _require_strengths(record.by, record.strength)
        after = before._replace(
            strength=record.strength, at=event.ts, reinforced=before.reinforced + 1
        )
    elif isinstance(record, records.DesirePruned):
        _require_strengths(record.strength, record.below)
        after = before._replace(pruned_at=event.ts)
        add(state.statuses, "living", -1)
        add(state.statuses, "pruned", 1)
    else:
        raise ValueError("an event of the log itself bears a desire's id")
    state.desires[key_of(after.id, after.agent_id)] = after


def _require_strengths(*strengths: float) -> None:
    if not all(0 <= strength <= 1 for strength in strengths):
        raise ValueError("a strength isn't from 0 to 1")
