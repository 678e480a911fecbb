"""Desires: how strength fades, what the fold makes of their events, and what it refuses."""

import itertools
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from chains import ACTOR
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.errors import ChainError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.ledger import Envelope
from promptyoself.state import apply, schedules
from promptyoself.state.desires import (
    EMPTY,
    Desire,
    after_reinforcing,
    fold,
    living,
    strength_at,
    strongest,
)

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
AT = format_utc(NOON)
DAY = 86400.0
HALF_LIFE = 30 * DAY

strengths = st.floats(0, 1)
seconds = st.floats(0, 10 * 365 * DAY)
half_lives = st.floats(1, 100 * 365 * DAY)


def wish(strength: float = 0.5, at: datetime = NOON, id_: str = "des_00000001") -> Desire:
    text = format_utc(at)
    return Desire(id_, "agent-a", "Learn Danish", strength, text, text, text)


def event(seq: int, type_: str, id_: str | None, data: dict[str, Any], at: str = AT) -> Envelope:
    return Envelope(1, seq, at, type_, id_, ACTOR, data, "")


def recorded(seq: int = 1, id_: str = "des_00000001", **changes: Any) -> Envelope:
    data = {"agent_id": "agent-a", "text": "Learn Danish", "strength": 0.5, "recorded_at": AT}
    return event(seq, "desire.recorded", id_, {**data, **changes})


# --- decay ----------------------------------------------------------------------------------------


def test_half_is_left_after_a_half_life() -> None:
    """After one half-life half is left, after two a quarter; before it was recorded, all."""
    desire = wish(0.8)
    later = [NOON + timedelta(days=days) for days in (-5, 0, 30, 60)]
    assert [strength_at(desire, when, HALF_LIFE) for when in later] == [0.8, 0.8, 0.4, 0.2]


@given(strengths, seconds, seconds, half_lives)
def test_decay_is_monotone(strength: float, one: float, other: float, half_life: float) -> None:
    """The later, the weaker; never more than it was, and never less than nothing."""
    first, second = sorted((one, other))
    left = [
        strength_at(wish(strength), NOON + timedelta(seconds=each), half_life)
        for each in (first, second)
    ]
    assert strength >= left[0] >= left[1] >= 0


@given(strengths, st.integers(0, 10**9), st.integers(0, 10**9), half_lives)
def test_decay_composes(strength: float, one: int, other: int, half_life: float) -> None:
    """Two spans in a row leave what one leaves that is as long as both."""
    between, end = NOON + timedelta(seconds=one), NOON + timedelta(seconds=one + other)
    at_once = strength_at(wish(strength), end, half_life)
    in_steps = strength_at(
        wish(strength_at(wish(strength), between, half_life), between), end, half_life
    )
    assert in_steps == pytest.approx(at_once, rel=1e-9, abs=1e-300)


@given(
    st.lists(st.tuples(st.floats(0.01, 1), st.integers(0, 10**6)), min_size=2, max_size=8),
    st.integers(10**6, 10**7),
)
def test_time_changes_no_order(wishes: list[tuple[float, int]], later: int) -> None:
    """Which of two is the stronger never changes by itself, but for what rounding may exchange."""
    desires = [
        wish(strength, NOON + timedelta(seconds=at), f"des_{number:08x}")
        for number, (strength, at) in enumerate(wishes)
    ]
    start, end = NOON + timedelta(seconds=10**6), NOON + timedelta(seconds=10**6 + later)
    before = strongest(desires, start, HALF_LIFE)
    after = {each.desire.id: each.strength for each in strongest(desires, end, HALF_LIFE)}
    for one, other in itertools.pairwise(before):
        assert after[one.desire.id] >= after[other.desire.id] * (1 - 1e-9)


@given(strengths, st.floats(1e-9, 1), seconds)
def test_reinforcing_adds_to_what_is_left(strength: float, by: float, elapsed: float) -> None:
    """It is added to what has faded until then, and 1 is the most."""
    now = NOON + timedelta(seconds=elapsed)
    left = strength_at(wish(strength), now, HALF_LIFE)
    assert after_reinforcing(wish(strength), by, now, HALF_LIFE) == min(1.0, left + by)


def test_equals_stand_by_age_and_id() -> None:
    """Of equally strong desires the older comes first, then the smaller id."""
    older = wish(0.5, NOON - timedelta(days=1), "des_0000000f")._replace(at=AT)
    desires = [wish(0.5, NOON, f"des_{n:08x}") for n in (3, 1, 2)]
    ranked = strongest([*desires, older], NOON, HALF_LIFE)
    assert [each.desire.id[-1] for each in ranked] == ["f", "1", "2", "3"]
    assert strongest(desires, NOON, HALF_LIFE, at_least=0.51) == []


# --- the fold -------------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["record", "record", "reinforce", "prune"]),
        st.integers(0, 5),
        st.floats(0.001, 1),
        st.integers(0, 10 * 86400),
    ),
    max_size=25,
)


@given(OPERATIONS, st.integers(0, 25))
def test_the_fold_is_a_recomputation(operations: Sequence[Any], cut: int) -> None:
    """Whatever happens, the fold says what plain dictionaries say; cut anywhere, folding on from
    there gives the same, and what was folded before is left as it was."""
    truth: dict[str, dict[str, Any]] = {}
    events: list[Envelope] = []
    now = NOON
    for what, number, amount, elapsed in operations:
        now += timedelta(seconds=elapsed)
        id_, at, seq = f"des_{number:08x}", format_utc(now), len(events) + 1
        mine = truth.get(id_)
        if what == "record" and mine is None:
            truth[id_] = {"strength": amount, "at": now, "reinforced": 0, "pruned": None}
            data = {"agent_id": f"agent-{number % 2}", "text": "x", "recorded_at": at}
            events.append(event(seq, "desire.recorded", id_, {**data, "strength": amount}, at))
        elif mine is None or mine["pruned"]:
            continue
        elif what == "reinforce":
            faded = mine["strength"] * 2 ** (-(now - mine["at"]).total_seconds() / HALF_LIFE)
            mine.update(strength=min(1.0, faded + amount), at=now)
            mine["reinforced"] += 1
            data = {"by": amount, "strength": mine["strength"]}
            events.append(event(seq, "desire.reinforced", id_, data, at))
        elif what == "prune":
            mine["pruned"] = at
            events.append(event(seq, "desire.pruned", id_, {"strength": 0.1, "below": 0.2}, at))
    state = fold(EMPTY, events)
    for id_, mine in truth.items():
        desire = state.find(id_)
        assert desire is not None
        assert (desire.strength, parse_utc(desire.at)) == (mine["strength"], mine["at"])
        assert (desire.reinforced, desire.pruned_at) == (mine["reinforced"], mine["pruned"])
    alive = {id_ for id_, mine in truth.items() if mine["pruned"] is None}
    assert {desire.id for desire in living(state)} == alive
    for agent in ("agent-0", "agent-1"):
        theirs = {id_ for id_ in alive if f"agent-{int(id_[4:], 16) % 2}" == agent}
        assert {desire.id for desire in living(state, agent)} == theirs
    counts = {"living": len(alive), "pruned": len(truth) - len(alive)}
    assert state.statuses == {name: number for name, number in counts.items() if number}
    before = fold(EMPTY, events[:cut])
    kept = fold(EMPTY, events[:cut])
    assert fold(before, events[cut:]) == state
    assert before == kept


PRUNED = event(2, "desire.pruned", "des_00000001", {"strength": 0.1, "below": 0.2})
CONTRADICTIONS: dict[str, list[Envelope]] = {
    "recorded twice": [recorded(), recorded(2)],
    "of nobody": [event(1, "desire.recorded", None, dict(recorded().data))],
    "reinforced before": [event(1, "desire.reinforced", "des_1", {"by": 0.1, "strength": 0.1})],
    "reinforced when pruned": [
        recorded(), PRUNED,
        event(3, "desire.reinforced", "des_00000001", {"by": 0.1, "strength": 0.1}),
    ],
    "pruned twice": [recorded(), PRUNED, PRUNED._replace(seq=3)],
    "too strong": [recorded(strength=1.5)],
    "too weak": [recorded(strength=-0.1)],
    "strong as a word": [recorded(strength="strong")],
    "a whole number": [recorded(strength=1)],
    "no instant": [recorded(recorded_at="2026-11-31T00:00:00.000000Z")],
    "a tag that is none": [recorded(tags=[1])],
    "tags that are none": [recorded(tags="old")],
    "a field too many": [recorded(mood="good")],
    "below what": [recorded(), PRUNED._replace(data={"strength": 0.1, "below": 7.0})],
    "a schedule's": [event(1, "schedule.paused", "des_00000001", {})],
    "a worker's": [event(1, "worker.stopped", None, {"worker": "wrk_1", "why": "done"})],
    "another chain": [
        event(1, "ledger.created", None, {"format": 1, "chain": "schedules", "software": "x"})
    ],
    "the log's": [
        event(1, "segment.sealed", "des_1", {"month": "x", "events": 1, "content_sha256": ""})
    ],
}  # fmt: skip


@pytest.mark.parametrize("what", CONTRADICTIONS)
def test_contradictions_are_refused(what: str) -> None:
    """P3: an event that no writer of ours can have written there is refused, and named."""
    with pytest.raises(ChainError) as refused:
        fold(EMPTY, CONTRADICTIONS[what])
    assert refused.value.code == "corrupt_chain"
    assert refused.value.details["seq"] == CONTRADICTIONS[what][-1].seq


@pytest.mark.parametrize(
    "foreign",
    [
        recorded(),
        event(1, "desire.pruned", None, {"strength": 0.1, "below": 0.2}),
        event(1, "ledger.created", None, {"format": 1, "chain": "desires", "software": "x"}),
    ],
)
def test_the_schedules_have_no_desires(foreign: Envelope) -> None:
    """P3: nor does the schedules' log take a desire's event, nor the beginning of their log."""
    with pytest.raises(ChainError, match=r"another chain|'desires'"):
        apply.fold(schedules.EMPTY, [foreign])


def test_what_is_newer_is_named() -> None:
    """An event of a later version, or of a type that isn't known anywhere, is named and passed."""
    for type_, version in (("desire.recorded", 2), ("desire.fulfilled", 1)):
        newer = recorded()._replace(type=type_, v=version)
        state = fold(EMPTY, [newer, recorded(2, "des_00000002")])
        assert state.newer == f"event 1 ({type_}, version {version})"
        assert state.statuses == {"living": 1}
