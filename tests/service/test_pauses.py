"""A paused prompt comes back at its time, and none is lost or sent twice."""

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from world import DELIVERED, NOON, World, check_deliveries, check_slots

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.rules.due import due
from promptyoself.rules.slots import next_wake
from promptyoself.service.forecast.simulator import Simulator
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.times.fires import next_fires
from promptyoself.state.schedules import Schedule


def paused(world: World, until: str = "in 3h30m", **asked: Any) -> str:
    """An hourly schedule, paused until a time; its slots are at the full hours."""
    id_ = world.register(**{"cron": "0 * * * *", **asked})
    world.advance(minutes=1)
    answer = pause(world, id_, None, world.now, until=until)  # type: ignore[arg-type]
    assert answer["resume_at"] == world.state.schedules[id_].resume_at
    return id_


def schedule(world: World, id_: str) -> Schedule:
    return world.state.schedules[id_]


def check(world: World, **outcomes: int) -> None:
    """Nothing is lost or sent twice, and the slots have these outcomes."""
    check_deliveries(world.events)
    assert check_slots(world.events, world.now) == outcomes


def test_it_comes_back_at_its_time() -> None:
    """Slots up to that time are skipped as paused, and the first one after it is delivered."""
    world = World()
    id_ = paused(world)
    back = world.now + timedelta(hours=3, minutes=30)
    assert next_wake(world.state, world.now) == back
    world.now = back - timedelta(seconds=1)
    assert world.claim_records() == []
    world.now = back
    world.deliver()
    assert (schedule(world, id_).status, schedule(world, id_).resume_at) == ("active", None)
    assert world.types(id_) == ["paused", "skipped", "resumed"]
    assert world.last("delivery.skipped").slots == 3
    assert next_wake(world.state, world.now) == NOON + timedelta(hours=4)
    world.now = NOON + timedelta(hours=4)
    world.deliver()
    check(world, skipped=3, delivered=1)


def test_a_slot_at_that_very_time_is_delivered() -> None:
    world = World()
    paused(world, "2026-11-20T15:00Z")
    world.now = NOON + timedelta(hours=3)
    (made,) = world.claim().claims
    assert made.slot == "2026-11-20T15:00:00.000000Z"
    world.settle(made, DELIVERED)
    check(world, skipped=2, delivered=1)


@pytest.mark.parametrize(
    ("misfire", "sent", "why"), [("coalesce", 1, 2), ("skip", 0, 3), ("all", 3, 0)]
)
def test_a_late_pass_misses_slots_by_the_policy(misfire: str, sent: int, why: int) -> None:
    """What came due since that time counts as missed, not as paused."""
    world = World()
    id_ = paused(world, misfire=misfire)
    world.now = NOON + timedelta(hours=6, minutes=30)  # 13, 14, 15 were paused; 16, 17, 18 missed
    for _ in range(5):
        world.deliver()
        world.advance(minutes=2)
    whys = [event.data["why"] for event in world.events if event.type == "delivery.skipped"]
    assert whys[0] == "paused"
    assert set(whys[1:]) <= {"misfire"}
    skipped = sum(e.data["slots"] for e in world.events if e.type == "delivery.skipped")
    assert skipped == 3 + why
    assert world.types(id_).count("delivered") == sent
    expected = {"skipped": 3 + why, "delivered": sent}
    check(world, **{name: number for name, number in expected.items() if number})


def test_the_audit_knows_before_anything_passes() -> None:
    """With no loop, slots up to that time are skipped, and those after it are pending."""
    world = World()
    paused(world)
    world.now = NOON + timedelta(hours=5, minutes=30)
    check(world, skipped=3, pending=2)


def test_resuming_it_early_ends_the_pause() -> None:
    world = World()
    id_ = paused(world)
    world.now = NOON + timedelta(hours=1, minutes=30)
    answer = resume(world, id_, None, world.now)  # type: ignore[arg-type]
    assert answer["next_run"] == "2026-11-20T14:00:00.000000Z"
    world.now = NOON + timedelta(hours=5)
    world.deliver()
    check(world, skipped=4, delivered=1)


CHANGES = {
    "resume": (resume, "active"),
    "cancel": (cancel, "cancelled"),
    "trigger": (run_now, "active"),
    "modify": (partial(modify, request=Request(cron="30 * * * *")), "active"),
    "pause": (pause, "paused"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_after_that_time_comes_after_the_pause(what: str) -> None:
    """Where no loop ran, a change finds the schedule as if one had resumed it."""
    world = World()
    id_ = paused(world)
    world.now = NOON + timedelta(hours=5, minutes=10)
    change, status = CHANGES[what]
    reason = {} if what == "modify" else {"reason": None}
    change(world, id_, now=world.now, **reason)  # type: ignore[operator]
    assert world.types(id_)[:3] == ["paused", "skipped", "resumed"]
    assert schedule(world, id_).status == status
    whys = [event.data["why"] for event in world.events if event.type == "delivery.skipped"]
    assert whys[0] == "paused"
    assert "paused" not in whys[1:-1]
    world.deliver()
    check_deliveries(world.events)
    check_slots(world.events, world.now)


def test_it_can_be_paused_until_another_time() -> None:
    world = World()
    id_ = paused(world)
    world.advance(hours=1)
    pause(world, id_, None, world.now, until="in 1h")  # type: ignore[arg-type]
    with pytest.raises(PromptyoselfError, match="paused already"):
        pause(world, id_, None, world.now)  # type: ignore[arg-type]
    world.now = NOON + timedelta(hours=3)
    world.deliver()
    check(world, skipped=2, delivered=1)


@pytest.mark.parametrize(
    ("asked", "until", "code"),
    [
        ({}, "2026-11-20T11:00Z", "past_time"),
        ({}, "whenever", "invalid_time"),
        ({"time": "in 1h", "cron": None}, "in 2h", "nothing_left"),
        ({"until": "in 2h"}, "in 3h", "nothing_left"),
    ],
)
def test_a_time_that_makes_no_sense_is_refused(asked: Any, until: str, code: str) -> None:
    world = World()
    asked = {name: value for name, value in {"cron": "0 * * * *", **asked}.items() if value}
    id_ = world.register(**asked)
    before = len(world.events)
    with pytest.raises(PromptyoselfError) as refusal:
        pause(world, id_, None, world.now, until=until)  # type: ignore[arg-type]
    assert (refusal.value.code, len(world.events)) == (code, before)


def test_a_busy_agent_gets_it_afterwards() -> None:
    """A delivery that was under way when it was paused goes on, and the next one waits for it."""
    world = World()
    id_ = world.register(cron="0 * * * *")
    world.now = NOON + timedelta(hours=1)
    under_way = world.claim_one()
    pause(world, id_, None, world.now, until="in 90m")  # type: ignore[arg-type]
    world.now = NOON + timedelta(hours=3, minutes=10)
    assert world.claim_records() == []
    world.settle(under_way, DELIVERED)
    world.advance(seconds=1)
    world.deliver()
    world.now = NOON + timedelta(hours=4)
    world.deliver()
    check_deliveries(world.events)
    sums = check_slots(world.events, world.now)
    assert sums["delivered"] + sums["skipped"] == 4


def test_it_keeps_its_place() -> None:
    """No other schedule takes the place to which a paused one comes back."""
    world = World(max_active_per_agent=2)
    id_ = paused(world)
    world.register(prompt="second", every="1h")
    with pytest.raises(PromptyoselfError, match="2 active schedules"):
        world.register(prompt="third", every="1h")
    world.advance(hours=1)
    resume(world, id_, None, world.now)  # type: ignore[arg-type]
    assert world.state.agent("agent-a").active == 2


def test_the_last_slot_passed_meanwhile() -> None:
    """A schedule that was given fewer times while it was paused ends when the pause does."""
    world = World()
    id_ = paused(world)
    modify(world, id_, Request(until="in 2h"), world.now)  # type: ignore[arg-type]
    world.advance(hours=4)
    world.deliver()
    assert schedule(world, id_).status == "completed"
    check(world, skipped=2)


def test_a_simulation_and_next_know_of_it() -> None:
    world = World()
    id_ = paused(world)
    fires = next_fires(world, id_, 2)  # type: ignore[arg-type]
    assert [fire["utc"][11:16] for fire in fires] == ["16:00", "17:00"]
    end = NOON + timedelta(hours=6)
    for sample in (100, 0):  # the whole way, and the short one
        simulator = Simulator(
            world.state, world.settings.caps, world.now, sample_first=sample, sample_every=10**9
        )
        events = [(event.at[11:16], event.type) for event in simulator.until(end)]
        assert [at for at, type_ in events if type_ == "delivery.attempted"] == [
            "16:00", "17:00", "18:00",
        ]  # fmt: skip
        assert ("15:31", "schedule.resumed") in events


def test_others_that_are_paused_cost_nothing() -> None:
    """Only those that come back by themselves are among what may begin."""
    world = World()
    for number in range(5):
        id_ = world.register(prompt=f"p{number}", every="1h")
        pause(world, id_, None, world.now)  # type: ignore[arg-type]
    late: datetime = parse_utc("2030-01-01T00:00:00.000000Z")
    assert list(due(world.state, format_utc(late))) == []
    assert next_wake(world.state, world.now) is None


def test_other_times_that_end_before_the_pause_are_refused() -> None:
    """A prompt that would come once, within its pause, would never come."""
    world = World()
    id_ = world.register(time="in 3h")
    world.advance(minutes=1)
    pause(world, id_, None, world.now, until="in 2h")  # type: ignore[arg-type]
    with pytest.raises(PromptyoselfError) as refusal:
        modify(world, id_, Request(time="in 1h"), world.now)  # type: ignore[arg-type]
    assert refusal.value.code == "nothing_left"
    modify(world, id_, Request(time="in 4h"), world.now)  # type: ignore[arg-type]
