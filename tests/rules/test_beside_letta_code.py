"""Points in which this is otherwise than Letta Code's own scheduler, and that no other test holds:
docs/explanation/letta-code-schedules.md names these tests."""

from datetime import timedelta

import pytest
from world import World

from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import slots


@pytest.mark.parametrize("minutes", [6, 60, 23 * 60])
def test_a_one_off_that_was_missed_is_delivered_late(minutes: int) -> None:
    """Within its grace, which is a day where nothing is said. Letta Code gives it up after 5
    minutes."""
    world = World()
    id_ = world.register(time="in 10m")
    world.advance(minutes=10 + minutes)
    assert world.settle(world.claim_one()) == "delivered"
    assert world.types(id_) == ["attempted", "delivered", "completed"]


@pytest.mark.parametrize("late", [timedelta(seconds=59), timedelta(minutes=1, seconds=59)])
def test_a_look_that_comes_late_loses_no_minute(late: timedelta) -> None:
    """Whatever has come due since the last look is decided. Letta Code asks about the minute in
    which it looks, and about no other."""
    world = World()
    id_ = world.register(cron="5 * * * *", timezone="UTC")
    world.now = world.now.replace(minute=5) + late
    assert world.settle(world.claim_one()) == "delivered"
    assert world.types(id_) == ["attempted", "delivered"]


@pytest.mark.parametrize(("every", "seconds"), [("7m", 420), ("90s", 90), ("25h", 90_000)])
def test_an_interval_is_as_long_as_was_asked_for(every: str, seconds: int) -> None:
    """Letta Code makes 6 minutes of 7, 2 minutes of 90 seconds, and a day of 25 hours."""
    world = World()
    id_ = world.register(every=every)
    trigger = schedule_trigger(world.state.schedules[id_])
    length = timedelta(seconds=seconds)
    fires = list(slots(trigger, world.now, world.now + 100 * length))
    assert fires == [world.now + number * length for number in range(1, 101)]
