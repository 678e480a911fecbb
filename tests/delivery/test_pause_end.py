"""Loops bring paused prompts back at their time: once, whatever dies meanwhile."""

import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from calling import call
from checker import check_chain
from dispatch import Place
from loops import Loop, add, events, loops, sandbox, wait_for  # noqa: F401 (fixtures too)

from promptyoself.core.instants import parse_utc
from promptyoself.sandbox import Sandbox
from promptyoself.service.schedules.change import pause


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.close()


def _paused(place: Place, agents: int, until: str = "in 10m") -> None:
    for agent in range(agents):
        id_ = place.add(f"agent-{agent}", every="1h")
        pause(place.store, id_, None, place.now(), until=until)


def test_a_loop_wakes_up_for_it(place: Place) -> None:
    """The next pass is at that time, and until then a pass does nothing."""
    _paused(place, 3)
    worker = place.begun()
    wake = worker.next_wake(place.now())
    assert wake is not None
    assert timedelta(minutes=9) < wake - place.now() < timedelta(minutes=11)
    before = len(place.events())
    place.ahead += timedelta(minutes=9)
    place.run(worker)
    assert len(place.events()) == before
    place.ahead += timedelta(minutes=1, seconds=1)
    place.run(worker)
    assert place.types()["schedule.resumed"] == 3
    wake = worker.next_wake(place.now())
    assert wake is not None
    assert wake - place.now() > timedelta(minutes=48)
    assert not place.letta.sends


@pytest.mark.parametrize("dies", [False, True])
def test_two_loops_bring_it_back_once(place: Place, *, dies: bool) -> None:
    """Two loops, of which one may die over what it has claimed, resume and send each once."""
    _paused(place, 4)
    place.ahead += timedelta(hours=2, minutes=30)  # two slots were missed since then
    first, second = place.worker(), place.worker()
    if dies:
        first.tick(place.now())
        place.die(first)
        place.run(second, until=lambda: place.types()["delivery.delivered"] == 4)
    else:
        place.run(first, second, until=lambda: place.types()["delivery.delivered"] == 4)
    place.check_delivered(4)
    assert place.types()["schedule.resumed"] == 4
    resumed = [event for event in place.events() if event["type"] == "schedule.resumed"]
    assert {event["actor"]["who"] for event in resumed} == {"t"}


def test_a_killed_loop_brings_it_back(
    sandbox: Sandbox,
    var: Path,
    loops: Callable[..., Loop],
) -> None:
    """A prompt that is paused for two seconds comes in time, though a loop sleeps for a minute;
    and after a SIGKILL another loop brings the next one back."""
    agent, other = sandbox.agents[:2]
    running = loops("--interval", "60")
    id_ = add(agent, "p", "--time", "in 4s")
    answer = call("pause", id_, "--until", "in 2s").success()
    wait_for(lambda: len(events(var, "schedule.resumed")) == 1)
    late = parse_utc(events(var, "schedule.resumed")[0]["ts"]) - parse_utc(answer["resume_at"])
    assert timedelta(0) <= late < timedelta(seconds=20)  # the loop sleeps for a minute otherwise
    second = add(other, "p", "--time", "in 4s")
    call("pause", second, "--until", "in 1s").success()
    running.process.send_signal(signal.SIGKILL)
    running.process.wait()
    loops("--interval", "60")
    wait_for(lambda: len(events(var, "delivery.delivered")) == 2)
    assert [len(sandbox.messages(each)) for each in (agent, other)] == [1, 1]
    assert call("audit").success()["totals"]["delivered"] == 2
    check_chain(var / "schedules")


def test_a_recovered_log_keeps_the_time(var: Path) -> None:
    """Where the log has lost the pause, and an index knows of it, `recover` puts it back."""
    id_ = add("agent-1", "p", "--every", "1h")
    resume_at = call("pause", id_, "--until", "in 2h").success()["resume_at"]
    (month,) = (var / "schedules").glob("*.ndjson.gz")
    content = month.read_bytes()
    month.write_bytes(content[: content.rindex(b"\x1f\x8b\x08")])
    call("recover", "--yes", "--from-index").success()
    schedule = call("show", id_).success()["schedule"]
    assert (schedule["status"], schedule["resume_at"]) == ("paused", resume_at)
    call("audit").success()
