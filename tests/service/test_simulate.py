"""``simulate``: what it says is what then happens, and it writes nothing."""

import heapq
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, add, call
from conftest import Clock
from damage import store_in
from hypothesis import given, settings
from hypothesis import strategies as st
from tally import chance, rounds
from world import DELIVERED, World

from promptyoself.core.errors import PromptyoselfError
from promptyoself.ledger import FileLedger
from promptyoself.rules.claim import Claim
from promptyoself.rules.outcome import Failed
from promptyoself.rules.slots import next_wake
from promptyoself.service.forecast.log_growth import LogGrowth
from promptyoself.service.forecast.simulate import simulate
from promptyoself.service.forecast.simulator import SimulatedEvent, Simulator
from promptyoself.service.schedules.views import stats
from promptyoself.service.upkeep.seal import seal

REFUSED = Failed("letta_rejected", "No.", permanent=True)
DECIDED = ("delivery.attempted", "delivery.skipped", "schedule.completed")
Seen = tuple[str, str, str, str, int, str]


def really(world: World, end: datetime, latency: timedelta) -> list[Seen]:
    """What a loop does up to ``end``, whose deliveries all succeed after ``latency``."""
    already, ends = len(world.events), []
    for slot in world.state.open.values():
        if slot.worker is not None:
            schedule = world.state.schedules[slot.id]
            claimed = Claim(slot.id, slot.agent_id, None, schedule.prompt, slot.slot, slot.kind,
                            slot.otid or "", slot.attempt, world.now, world.now)  # fmt: skip
            ends.append((world.now + latency, len(ends), claimed))
    heapq.heapify(ends)
    numbers = iter(range(len(ends), 10**9))
    while world.now <= end:
        while ends and ends[0][0] <= world.now:
            world.settle(heapq.heappop(ends)[-1])
        decision = world.claim(seats=10**6)
        for claimed in decision.claims:
            heapq.heappush(ends, (world.now + latency, next(numbers), claimed))
        if decision.records:
            continue
        wakes = [next_wake(world.state, world.now), ends[0][0] if ends else None]
        world.now = min((wake for wake in wakes if wake is not None), default=end + latency * 2)
        if wakes == [None, None]:
            break
    return sorted(
        (event.ts, event.id or "", event.type, event.data.get("slot", ""),
         event.data.get("slots", 1),
         event.data["why"] if event.type == "delivery.skipped" else "")
        for event in world.events[already:]
        if event.type in DECIDED
    )  # fmt: skip


def foretold(events: Iterable[SimulatedEvent]) -> list[Seen]:
    """The same of what was simulated."""
    return sorted(
        (event.at, event.id, event.type, event.slot, event.slots, event.why)
        for event in events
        if event.type in DECIDED
    )


def simulated(world: World, **more: Any) -> Simulator:
    """A simulator of what there is in a world."""
    return Simulator(world.state, world.settings.caps, world.now, **more)


TRIGGERS = st.one_of(
    st.sampled_from([300, 1200, 3600, 5000, 7200]).map(lambda seconds: {"every": f"{seconds}s"}),
    st.sampled_from(
        ["*/20 9-11 * * *", "0 */3 * * *", "30 1 * * *", "15 13,14 * * MON-FRI", "0 0 21 * 6"]
    ).map(lambda expression: {"cron": expression}),
    st.sampled_from(["in 1m", "in 5h", "in 30h"]).map(lambda text: {"time": text}),
)
POLICIES = st.fixed_dictionaries(
    {},
    optional={
        "agent": st.sampled_from(["agent-a", "agent-b"]),
        "timezone": st.sampled_from(["Europe/London", "Asia/Kathmandu"]),
        "tier": st.sampled_from([0, 0, 2]),
        "daily_budget": st.integers(0, 6),
        "misfire": st.sampled_from(["coalesce", "skip", "all"]),
        "grace": st.sampled_from(["10m", "2h", "24h"]),
        "jitter": st.sampled_from(["30s", "4m"]),
        "max_repetitions": st.integers(1, 9),
        "until": st.sampled_from(["in 40h", "in 50h"]),
        "start_at": st.sampled_from(["in 7h"]),
        "envelope": st.booleans(),
    },
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A few schedules of two agents, some of them overdue, triggered, waiting or under way."""
    world = World(daily_per_agent=draw(st.sampled_from([2, 9, 500])))
    asked = draw(st.lists(st.tuples(TRIGGERS, POLICIES), min_size=1, max_size=6))
    for number, (trigger, policy) in enumerate(asked):
        with suppress(PromptyoselfError):  # never_fires
            world.register(prompt=f"{number}", **{**trigger, **policy})
    for minutes in draw(st.lists(st.integers(1, 900), max_size=2)):
        world.advance(minutes=minutes)
        approved = draw(
            st.lists(st.sampled_from(sorted(world.state.schedules) or [""]), max_size=2)
        )
        for id_ in filter(None, approved):
            world.approve(id_, draw(st.integers(1, 5)), hours=draw(st.sampled_from([1, 30, 90])))
        for claimed in world.claim().claims:
            outcome = draw(st.sampled_from([None, DELIVERED, REFUSED]))
            if outcome is not None:  # else it is under way
                world.settle(claimed, outcome)
        world.advance(minutes=draw(st.sampled_from([0, 0, 1, 200])))
    return world


@settings(max_examples=200, deadline=None)
@given(
    world=worlds(),
    hours=st.integers(1, 60),
    seconds=st.sampled_from([0, 0, 7, 1500, 9000]),
    first=st.sampled_from([0, 3, 10**6]),
    every=st.sampled_from([2, 7, 10**6]),
)
def test_what_is_simulated_is_what_happens(
    world: World, hours: int, seconds: int, first: int, every: int
) -> None:
    """P2: the slots that are claimed and skipped, when, and why, are those of a loop whose
    deliveries succeed; however few of the instants were decided in full."""
    latency, end = timedelta(seconds=seconds), world.now + timedelta(hours=hours)
    simulator = simulated(world, latency=latency, sample_first=first, sample_every=every)
    events = list(simulator.until(end))
    assert [event.at for event in events] == sorted(event.at for event in events)
    assert not simulator.broken
    assert foretold(events) == really(world, end, latency)


@pytest.mark.parametrize("seconds", [0, 20, 90, 150])
@pytest.mark.parametrize("round_", range(rounds(4)))
def test_busy_agents_are_foretold(round_: int, seconds: int) -> None:
    """P2: where many schedules wait for few agents, so that slots are late, overlap and are missed,
    what is simulated is what happens, though nothing is decided in full that needn't be."""
    choose = chance(f"busy {round_} {seconds}")
    world = World(daily_per_agent=choose.choice([9, 40, 500]))
    for number in range(14):
        policy: dict[str, Any] = {
            "agent": choose.choice(["agent-a", "agent-b"]),
            "misfire": choose.choice(["coalesce", "skip", "all"]),
            "grace": choose.choice(["10m", "2h", "24h"]),
            "jitter": choose.choice([None, None, "30s", "4m"]),
            "daily_budget": choose.choice([None, None, 5]),
            "max_repetitions": choose.choice([None, None, 11]),
        }
        cron, every = ["*/20 9-11 * * *", "5 * * * *"], ["20m", "7201s"]
        kind, values = choose.choice([("cron", cron), ("every", every)])
        world.register(prompt=f"{number}", **{kind: choose.choice(values)}, **policy)
        world.advance(seconds=choose.randint(0, 600))
    end, latency = world.now + timedelta(hours=50), timedelta(seconds=seconds)
    simulator = simulated(world, latency=latency, sample_first=0, sample_every=10**9)
    events = list(simulator.until(end))
    assert any(event.record is None for event in events)
    assert foretold(events) == really(world, end, latency)


@settings(max_examples=12, deadline=None)
@given(world=worlds(), seconds=st.sampled_from([0, 40]), agent=st.sampled_from(["agent-a", None]))
def test_the_short_way_says_the_same_for_months(
    world: World, seconds: int, agent: str | None
) -> None:
    """P2: over forty days, deciding few instants in full foretells what deciding all does; so does
    looking at one agent alone."""
    end, latency = world.now + timedelta(days=40), timedelta(seconds=seconds)
    short = simulated(world, latency=latency, sample_first=0).until(end)
    whole = simulated(world, latency=latency, sample_first=10**9, agent_id=agent).until(end)
    in_full = list(whole)
    assert all(event.record is not None for event in in_full)
    assert foretold(event for event in short if agent in (None, event.agent_id)) == foretold(
        in_full
    )


# --- the command ---------------------------------------------------------------------------------


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """All that lies in a folder: when it was written, and what it is."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
        if path.exists()
    }


@pytest.fixture
def three(var: Path, clock: Clock) -> dict[str, str]:
    """Three schedules, one of which has a budget, and one of which needs approvals."""
    return {
        "budget": add("--every", "1h", "--daily-budget", "4"),
        "tier": add("--cron", "0 9 * * *", "--tier", "2"),
        "plain": add("--cron", "0 9 * * MON-FRI", agent="agent-b"),
    }


def at(day: int, hour: int) -> str:
    """An instant of November 2026, as answers have it."""
    return f"2026-11-{day}T{hour:02}:00:00.000000Z"


def test_the_answer(three: dict[str, str]) -> None:
    """What fires and what doesn't is told per agent and day, with the limits that stop it."""
    answer = call("simulate", "--until", "2026-11-23T12:00").success()
    assert (answer["from"], answer["until"]) == (at(20, 12), at(23, 12))
    assert (answer["fired"], answer["truncated"], answer["broken"]) == (17, False, [])
    assert answer["skipped"] == {"approval": 3, "budget": 56}
    assert answer["agents"] == [
        {
            "agent_id": AGENT,
            "fired": 16,
            "days": [
                {"day": "2026-11-20", "fired": 4, "skipped": {"budget": 7}},
                {"day": "2026-11-21", "fired": 4, "skipped": {"budget": 20, "approval": 1}},
                {"day": "2026-11-22", "fired": 4, "skipped": {"budget": 20, "approval": 1}},
                {"day": "2026-11-23", "fired": 4, "skipped": {"budget": 9, "approval": 1}},
            ],
        },
        {
            "agent_id": "agent-b",
            "fired": 1,
            "days": [{"day": "2026-11-23", "fired": 1, "skipped": {}}],
        },
    ]
    budget, approval = (
        {"id": three["budget"], "why": "budget", "slots": 56, "first": at(20, 17)},
        {"id": three["tier"], "why": "approval", "slots": 3, "first": at(21, 9)},
    )
    assert answer["stopped"] == [{**budget, "agent_id": AGENT}, {**approval, "agent_id": AGENT}]
    assert answer["load"] == {
        "passes": 72,
        "most_due": {"at": at(23, 9), "slots": 3},
        "busiest_hour": {"hour": "2026-11-20T13", "deliveries": 1},
    }
    assert answer["log"]["events"] == 2 * 17 + 3 + 56
    assert answer["message"] == f"17 deliveries up to {at(23, 12)}, 59 slots skipped."
    alone = call("simulate", "--until", "in 3d", "--agent-id", "agent-b").success()
    assert [agent["agent_id"] for agent in alone["agents"]] == ["agent-b"]
    assert alone["fired"] == 1
    assert alone["message"].startswith("1 delivery up to ")


def test_deliveries_may_take_time(three: dict[str, str]) -> None:
    """With a latency longer than the interval, slots are skipped since an earlier one was still
    being delivered."""
    answer = call("simulate", "--until", "2026-11-20T18:00", "--latency", "5400").success()
    assert (answer["fired"], answer["skipped"]) == (4, {"overlap": 1})
    late = add("--every", "10m", agent="agent-c")
    answer = call(
        "simulate", "--until", "in 1h", "--agent-id", "agent-c", "--latency", "1500"
    ).success()
    assert (answer["fired"], answer["skipped"]) == (3, {"overlap": 3})
    assert late not in {stop["id"] for stop in answer["stopped"]}


@pytest.mark.parametrize("damage", ["none", "no index", "no folder"])
def test_nothing_is_written(var: Path, clock: Clock, damage: str) -> None:
    """P4: not a byte in the data directory changes, and no file is made; not even an index where
    it is missing, which `list` would mend."""
    if damage != "no folder":
        add("--every", "1h")
        add("--time", "in 2h")
        clock.advance(hours=5)
    if damage == "no index":
        for path in (var / "schedules").rglob("index*"):
            path.unlink()
    before = everything(var)
    call("simulate", "--until", "in 7d").success()
    assert everything(var) == before
    assert var.exists() == (damage != "no folder")


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        ((), "missing_option", 2),
        (("--until", "2026-11-20T11:59"), "past_time", 1),
        (("--until", "2026-11-20T12:00"), "past_time", 1),
        (("--until", "soon"), "invalid_time", 1),
        (("--until", "2027-03-28T01:30"), "nonexistent_time", 1),
        (("--until", "in 1d", "--latency", "-1"), "invalid_value", 2),
        (("--until", "in 1d", "--latency", "nan"), "invalid_value", 2),
        (("--until", "in 1d", "--agent-id", "agent-b"), "forbidden_agent", 1),
    ],
)
def test_what_is_refused(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...], code: str, exit_code: int,
) -> None:  # fmt: skip
    """P7: a time that has passed or that isn't one, and somebody else's agent."""
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Europe/London")
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    call("simulate", *arguments).error(code, exit_code)
    assert not var.exists()


def test_too_much_is_cut_off(three: dict[str, str], var: Path, clock: Clock) -> None:
    """A simulation ends after a number of events, at the end of an instant, and says up to when."""
    whole = simulate(store_in(var / "schedules"), "in 3d", clock.now)
    part = simulate(store_in(var / "schedules"), "in 3d", clock.now, max_events=40)
    assert part["truncated"]
    assert part["until"] < whole["until"]
    assert 40 <= part["log"]["events"] <= 46
    again = simulate(store_in(var / "schedules"), part["until"], clock.now)
    same = ("fired", "skipped", "agents", "stopped", "until")
    assert [again[name] for name in same] == [part[name] for name in same]
    assert "ended there" in part["message"]


def test_one_that_cannot_be_decided_does_not_stop_the_others() -> None:
    """A schedule whose zone is unknown here is named; the others are foretold."""
    world = World()
    for number in range(2):
        world.register(prompt=f"{number}", cron="0 9 * * *", timezone="Europe/London")
    id_ = min(world.state.schedules)
    lost = world.state.schedules[id_]._replace(timezone="Europe/Atlantis")
    world.state.schedules[id_] = lost
    simulator = simulated(world)
    fired = {event.id for event in simulator.until(world.now + timedelta(days=2))}
    assert list(simulator.broken) == [id_]
    assert "unknown" in simulator.broken[id_] or "no time zone" in simulator.broken[id_]
    assert fired == set(world.state.schedules) - {id_}


def test_the_growth_is_that_of_a_real_log(three: dict[str, str], var: Path, clock: Clock) -> None:
    """The estimate of bytes is what the same events take in a ledger: as appended, and sealed."""
    estimate = simulate(store_in(var / "schedules"), "in 9d", clock.now)["log"]
    store, caps = store_in(var / "schedules"), store_in(var / "schedules").settings.caps
    before = stats(store)["bytes"]
    simulator = Simulator(store.read().state, caps, clock.now, sample_first=10**9)
    events = list(simulator.until(clock.now + timedelta(days=9)))
    assert estimate["events"] == len(events)
    appends = 0
    ledger = FileLedger(var / "schedules", "schedules")
    position = store.read().position
    lines = 0
    in_order = sorted(events, key=lambda event: event[:2])
    for (at, _), group in groupby(in_order, key=lambda event: event[:2]):
        drafts = [
            store.draft(event.record, event.id, event.agent_id) for event in group if event.record
        ]
        batch = ledger.append(drafts, datetime.fromisoformat(at), position)
        position, appends, lines = batch.position, appends + 1, lines + len(batch.content)
    assert estimate["appends"] == appends
    assert estimate["bytes"] == pytest.approx(lines, rel=0.01)
    assert estimate["gzipped"] == pytest.approx(
        stats(store_in(var / "schedules"))["bytes"] - before, rel=0.02
    )
    clock.advance(days=60)
    sealed = seal(store_in(var / "schedules"), clock.now)["sealed"]
    assert estimate["sealed"] == pytest.approx(
        sum(month["bytes_after"] for month in sealed), rel=0.1
    )
    assert estimate["estimated"] is True


def test_a_sample_of_the_instants_tells_the_growth(var: Path, clock: Clock) -> None:
    """P8: over a long time few events are decided in full, and the estimate is within some percent
    of what all of them come to."""
    for number in range(12):
        add("--every", f"{30 + 7 * number}m", agent=f"agent-{number % 4}")
    add("--cron", "0 9 * * *", "--daily-budget", "0")
    store = store_in(var / "schedules")
    state, end = store.read().state, clock.now + timedelta(days=40)
    events = Simulator(state, store.settings.caps, clock.now).until(end)
    in_full = Counter(event.record is not None for event in events)
    assert in_full[True] < 0.2 * in_full.total()
    sampled = simulate(store, "in 40d", clock.now)["log"]
    assert sampled["events"] == in_full.total()
    growth = LogGrowth(store.read().position.seq, store.actor)
    for event in Simulator(state, store.settings.caps, clock.now, sample_first=10**9).until(end):
        growth.add(event, 1)
    whole = growth.estimate()
    for name, error in (("bytes", 0.01), ("gzipped", 0.08), ("sealed", 0.03)):
        assert sampled[name] == pytest.approx(whole[name], rel=error)
    assert sampled["appends"] == whole["appends"]
