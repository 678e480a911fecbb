"""The loop: in a process as people run it, and in this one, with a clock that can be turned."""

import errno
import itertools
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calling import call, run
from checker import check_chain
from dispatch import FakeLetta, Place
from loops import Here, Loop, add, events, loops, sandbox, wait_for  # noqa: F401 (fixtures too)
from world import check_deliveries, check_slots

from promptyoself.core.errors import ChainError
from promptyoself.doors.session import Session
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery import loop
from promptyoself.service.delivery.dispatcher import Dispatcher
from promptyoself.service.delivery.job_pool import JobPool
from promptyoself.service.delivery.report import Report
from promptyoself.service.proof.verify import verify

# --- a process ------------------------------------------------------------------------------------


def test_it_wakes_when_another_process_appends(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop], environ: dict[str, str]
) -> None:
    """What another process registers or triggers is delivered within a second of its time, though
    the loop may sleep for a minute; and what it did is printed, a line per pass."""
    running = loops("--interval", "60")
    add(sandbox.agents[1], "early", "--time", "in 1s")
    run("register", "--agent-id", sandbox.agents[0], "--prompt", "p", "--time", "in 2s",
        environ=environ).success()  # fmt: skip
    wait_for(lambda: len(events(var, "delivery.delivered")) == 2)
    late = [
        datetime.fromisoformat(event["ts"]) - datetime.fromisoformat(event["data"]["slot"])
        for event in events(var, "delivery.attempted")
    ]
    # A busy machine delays one of several; a loop that isn't woken delays each by its interval.
    assert min(late) < timedelta(seconds=1)
    assert max(late) < timedelta(seconds=20)
    id_, took = add(sandbox.agents[2], "p", "--time", "in 1h"), []
    for triggered in (1, 2, 3):
        call("trigger", "--id", id_).success()
        took.append(wait_for(lambda: len(sandbox.messages(sandbox.agents[2])) == triggered))  # noqa: B023
        wait_for(lambda: len(events(var, "delivery.delivered")) == 2 + triggered)  # noqa: B023
    assert min(took) < 1.5
    assert max(took) < 20
    printed = running.stop()
    assert all(line["status"] == "success" for line in printed)
    assert sum(len(line["executed"]) for line in printed) == 5
    check_chain(var / "schedules")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_in_order(var: Path, loops: Callable[..., Loop], number: signal.Signals) -> None:
    """SIGTERM and SIGINT end an idle loop in the middle of its sleep: recorded, and exit code 0."""
    running = loops("--interval", "3600")
    time.sleep(0.3)
    assert running.stop(number) == []
    (stopped,) = events(var, "worker.stopped")
    assert stopped["data"]["why"] == number.name
    assert not list((var / "workers").glob("*.lock"))


def test_a_loop_that_hangs_is_found_out(
    var: Path, loops: Callable[..., Loop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop that is stopped, its lock held all the same, is told by doctor within a minute, by
    name, and is well again when it goes on; one that was killed is no loop any more."""
    running = loops()
    (started,) = events(var, "worker.started")
    worker, look = started["data"]["worker"], ("doctor", "--quick", "--skip-letta")
    wait_for((var / "workers" / f"{worker}.alive").exists)
    monkeypatch.delenv("PROMPTYOSELF_RECONCILE_GRACE")
    call(*look, "--require-loop").success()
    running.process.send_signal(signal.SIGSTOP)
    call(*look, "--require-loop").success()
    with monkeypatch.context() as later:
        later.setattr(Session, "now", lambda _: datetime.now(UTC) + timedelta(seconds=55))
        document = call(*look).error("unhealthy")
        (failed,) = [check for check in document["checks"] if not check["ok"]]
        assert failed["name"] == "loop"
        assert f"{worker} has made no pass for 5" in failed["detail"]
        assert "Restart" in document["hint"]
        later.setattr(Session, "now", lambda _: datetime.now(UTC) - timedelta(seconds=70))
        assert call(*look).error("unhealthy")["checks"], "a clock that was set back hides nothing"
    running.process.send_signal(signal.SIGCONT)
    call(*look, "--require-loop").success()
    running.kill()
    assert "loop (none is running)" in call(*look, "--require-loop").error("unhealthy")["message"]
    assert not list((var / "workers").iterdir())


def test_it_stops_while_an_agent_is_at_work(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop]
) -> None:
    """P2: a stop doesn't wait for a slow agent: its delivery is left in doubt, with its run, and
    the next loop settles it without sending."""
    sandbox.latency = 1e6
    running = loops()
    add(sandbox.agents[0])
    wait_for(lambda: sandbox.state()["agents"][0]["active_runs"])
    time.sleep(0.3)
    printed = running.stop()
    assert printed[-1]["executed"][0]["state"] == "in_doubt"
    assert events(var, "worker.stopped")[0]["data"]["in_flight"]
    sandbox.finish_runs()
    loops()
    wait_for(lambda: events(var, "delivery.delivered"))
    assert set(sandbox.deliveries.values()) == {1}


def test_the_dead_are_survived(sandbox: Sandbox, var: Path, loops: Callable[..., Loop]) -> None:
    """P2: two loops killed while agents were at work: a third settles what they left, each once."""
    sandbox.latency = 1e6
    pair = [loops("--concurrency", "4"), loops("--concurrency", "4")]
    for agent in sandbox.agents[:6]:
        add(agent)
    wait_for(lambda: sum(len(a["active_runs"]) for a in sandbox.state()["agents"]) == 6)
    for running in pair:
        running.kill()
    sandbox.finish_runs()
    third = loops()
    wait_for(lambda: len(events(var, "delivery.delivered")) == 6)
    third.stop()
    assert set(sandbox.deliveries.values()) == {1}
    assert len(sandbox.deliveries) == 6
    logged = [SimpleNamespace(**event) for event in check_chain(var / "schedules")]
    check_deliveries(logged)
    assert check_slots(logged, datetime.now(UTC)) == {"delivered": 6}


def test_a_wait_that_runs_out_while_a_signal_is_handled_ends() -> None:
    """A loop that is asked to stop at the end of a wait wakes up and stops. CPython's SimpleQueue
    goes on for ever there."""
    pool: JobPool[None] = JobPool()
    alarms = 0

    def handler(*_: object) -> None:
        nonlocal alarms
        alarms += 1
        assert alarms == 1, "the wait goes on long after its end"
        signal.setitimer(signal.ITIMER_REAL, 5)
        time.sleep(0.1)  # past the end of the wait

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02)
        assert pool.next_result(0.05) is None
        assert alarms == 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_several_loops_share_the_work(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop]
) -> None:
    """P5: each slot is claimed by exactly one of three loops, and each agent gets one at a time."""
    three = [loops() for _ in range(3)]
    for number in range(20):
        add(sandbox.agents[number % 10], f"prompt {number}")
    wait_for(lambda: len(events(var, "delivery.delivered")) == 20)
    for running in three:
        running.stop()
    assert set(sandbox.deliveries.values()) == {1}
    assert sandbox.overlaps == 0
    claims = Counter(event["data"]["otid"] for event in events(var, "delivery.attempted"))
    assert set(claims.values()) == {1}
    check_deliveries(SimpleNamespace(**event) for event in check_chain(var / "schedules"))


def test_a_loop_that_was_suspended_goes_on(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop]
) -> None:
    """P2: stopped in the middle of a delivery, and continued after its calls have timed out: once
    in the history, once in the log."""
    os.environ["PROMPTYOSELF_CALL_TIMEOUT"] = "2"
    sandbox.latency = 0.5
    running = loops()
    add(sandbox.agents[0])
    wait_for(lambda: sandbox.state()["agents"][0]["active_runs"])
    os.kill(running.pid, signal.SIGSTOP)
    attempts = len(events(var, "delivery.attempted"))  # more than one, where its start was slow
    time.sleep(3)
    os.kill(running.pid, signal.SIGCONT)
    wait_for(lambda: events(var, "delivery.delivered"))
    running.stop()
    assert list(sandbox.deliveries.values()) == [1]
    assert len(events(var, "delivery.attempted")) == attempts


def test_an_idle_loop_costs_next_to_nothing(sandbox: Sandbox, loops: Callable[..., Loop]) -> None:
    """P8: a sleeping loop uses hardly any processor time, and asks Letta nothing."""
    add(sandbox.agents[0], "p", "--time", "in 1h")
    sandbox.fault("server_error", route="any", times=1)
    running = loops()
    time.sleep(0.5)

    def spent() -> float:
        fields = Path(f"/proc/{running.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = spent()
    time.sleep(3)
    assert spent() - before <= 0.05
    assert sandbox.state()["faults"], "it has asked Letta something"
    running.stop()


# --- in this process ------------------------------------------------------------------------------


@pytest.fixture
def ticks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When passes were made."""
    passes: list[float] = []
    tick = Dispatcher.tick

    def counted(self: Dispatcher, *arguments: Any, **more: Any) -> Report:
        passes.append(time.monotonic())
        return tick(self, *arguments, **more)

    monkeypatch.setattr(Dispatcher, "tick", counted)
    return passes


def test_a_sleeping_loop_makes_no_passes(place: Place, ticks: list[float]) -> None:
    """P8: with nothing due the loop makes a pass, or two for its own announcement, and sleeps."""
    place.register(3, time="in 1h")
    with Here(place):
        time.sleep(1.5)
        assert len(ticks) <= 2


@pytest.mark.parametrize(
    ("agents", "each"),
    [
        pytest.param(5, 1, id="agents are asked after"),
        pytest.param(1, 5, id="due prompts wait for their agent"),
    ],
)
def test_agents_at_work_cause_no_passes(
    place: Place, ticks: list[float], agents: int, each: int
) -> None:
    """P8: while agents are at work, the loop doesn't spin."""
    place.register(agents, each=each)
    place.letta.ending = False
    with Here(place):
        time.sleep(1.5)
        assert len(ticks) <= 5
        place.letta.ending = True
        place.letta.end_all()
        wait_for(lambda: place.types()["delivery.delivered"] == 5)
    assert len(ticks) <= 5 + 10 * each


def test_a_loop_gives_signs_of_life(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does while it sleeps, no more often than it must, and not while its passes fail: those
    don't deliver either. It leaves none behind."""
    monkeypatch.setattr(loop, "_TROUBLE_PAUSE", 0.2)
    monkeypatch.setattr(loop, "_POLL_SECONDS", 0.02)
    monkeypatch.setattr(loop, "BEAT_EVERY", 0.2)
    beats: list[float] = []
    beat = place.store.workers.beat

    def counted(worker: str, instant: float) -> None:
        beats.append(time.monotonic())
        beat(worker, instant)

    monkeypatch.setattr(place.store.workers, "beat", counted)
    with Here(place):
        wait_for(lambda: len(beats) >= 4)
        assert all(later - before >= 0.19 for before, later in itertools.pairwise(beats))
        (worker,) = place.store.workers.living()
        place.ahead += timedelta(seconds=100)
        before = len(beats)
        wait_for(lambda: len(beats) >= before + 2)
        silence = place.store.workers.silence(worker, place.now().timestamp())
        assert silence is not None
        assert silence < 10
        place.disk.full = True
        place.add("a", store=place.another_store())
        place.ahead += timedelta(seconds=2)
        wait_for(lambda: place.warnings)
        before = len(beats)
        time.sleep(1)
        assert len(beats) == before
        place.disk.full = False
        wait_for(lambda: len(beats) > before)
    assert place.store.workers.silence(worker, place.now().timestamp()) is None


def test_a_full_disk_is_waited_out(
    place: Place, ticks: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk neither ends the loop nor makes it spin; it says so, and goes on when it can."""
    monkeypatch.setattr(loop, "_TROUBLE_PAUSE", 0.3)
    with Here(place):
        wait_for(lambda: ticks)  # the announcement has been written whole
        place.disk.full = True
        place.add("agent-a", store=place.another_store())
        place.ahead += timedelta(seconds=2)
        time.sleep(2)
        assert len(ticks) <= 12
        assert place.warnings == ["No space left on device. Trying again in 0.3 s."]
        assert not place.letta.sends
        place.disk.full = False
        wait_for(lambda: place.types()["delivery.delivered"] == 1)


def test_a_folder_that_cannot_be_read_is_waited_out(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where even looking at the log fails, the loop neither ends nor spins."""
    monkeypatch.setattr(loop, "_TROUBLE_PAUSE", 0.2)
    place.register(1)
    stamp = place.store._ledger.stamp
    asked: list[float] = []

    def failing() -> object:
        if threading.current_thread() is threading.main_thread():  # which only looks on
            return stamp()
        asked.append(time.monotonic())
        if len(asked) <= 4:  # one of them may be the announcement's, which does without
            raise OSError(errno.EMFILE, "Too many open files")
        return stamp()

    monkeypatch.setattr(place.store._ledger, "stamp", failing)
    began = time.monotonic()
    with Here(place):
        wait_for(lambda: place.types()["delivery.delivered"] == 1)
    assert time.monotonic() - began > 0.5
    assert place.warnings == ["Too many open files. Trying again in 0.2 s."]


def _gone(_: bytes) -> bytes | None:
    return None


def _cut(content: bytes) -> bytes:
    """Without its last member, which is the worker's announcement."""
    return content[: content.rindex(b"\x1f\x8b\x08")]


def _flipped(content: bytes) -> bytes:
    return content[:-100] + bytes([content[-100] ^ 1]) + content[-99:]


@pytest.mark.parametrize("harm", [_gone, _cut, _flipped])
def test_a_loop_waits_for_what_its_log_has_lost(
    place: Place, monkeypatch: pytest.MonkeyPatch, harm: Callable[[bytes], bytes | None]
) -> None:
    """P4, P9: where the log has lost events that were seen, nothing is written over that, and
    nothing is delivered. The loop stays up, says so once, and goes on once the log is whole."""
    monkeypatch.setattr(loop, "_TROUBLE_PAUSE", 0.1)
    heartbeat = loop.Heartbeat()
    if (place.now() + timedelta(minutes=5)).month != place.now().month:
        place.ahead += timedelta(minutes=10)  # all of it is in one month's file
    place.register(1, time="in 30s")
    with Here(place, heartbeat=heartbeat) as here:
        wait_for(lambda: heartbeat.passes)  # the loop is done with the bytes that it appended
        (segment,) = (place.var / "schedules").glob("*.ndjson.gz")
        whole = segment.read_bytes()
        harmed = harm(whole)
        if harmed is None:
            segment.rename(segment.with_suffix(".away"))
        else:
            segment.write_bytes(harmed)
        place.ahead += timedelta(seconds=30)
        wait_for(lambda: heartbeat.error)
        time.sleep(0.5)
        code = "chain_missing" if harmed is None else "events_missing"
        with pytest.raises(ChainError) as caught:
            place.add("a", every="1h", store=place.another_store())
        assert caught.value.code == code
        assert (segment.read_bytes() if harmed is not None else None) == harmed
        assert not place.letta.sends
        assert not here.error
        logged = [warning for warning in place.warnings if "Nothing is delivered until" in warning]
        assert len(logged) == 1
        if harmed is None:
            segment.with_suffix(".away").rename(segment)
        else:
            segment.write_bytes(whole)
        wait_for(lambda: place.types()["delivery.delivered"] == 1)
        assert heartbeat.error == ""
    assert len(place.letta.sends) == 1
    assert verify(place.store)["valid"]


def test_nobody_reading_its_output_does_not_stop_it(place: Place) -> None:
    """Deliveries go on when the reader of the reports has gone."""

    def gone(_: Report) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    place.register(2, each=2)
    with Here(place, emit=gone):
        wait_for(lambda: place.types()["delivery.delivered"] == 4)


def test_the_wall_clock_decides(place: Place) -> None:
    """P2: a machine that wakes up after hours delivers at once what became due, once."""
    place.register(2, time="in 8h")
    with Here(place, accept_clock=True):
        time.sleep(0.2)
        place.ahead += timedelta(hours=8)
        assert wait_for(lambda: place.types()["delivery.delivered"] == 2) < 20
        place.ahead -= timedelta(hours=8)
        time.sleep(0.7)
        place.ahead += timedelta(hours=8)
        time.sleep(0.7)
    assert set(place.letta.sends.values()) == {1}


def test_a_stop_interrupts_a_long_sleep(place: Place) -> None:
    """The loop would have slept for an hour, and is awaited for a minute at its end."""
    place.register(1, time="in 1h")
    with Here(place, interval=3600.0, accept_clock=True) as here:
        pass
    assert here.error is None


def test_threads_and_memory_are_bounded(place: Place) -> None:
    """P8: many deliveries through few seats leave no more threads than seats, and no remains."""
    place.register(50, each=4)
    before = threading.active_count()
    with Here(place, concurrency=4):
        wait_for(lambda: place.types()["delivery.delivered"] == 200)
        assert threading.active_count() <= before + 1 + 4
    wait_for(lambda: threading.active_count() <= before)
    assert isinstance(place.letta, FakeLetta)
    assert set(place.letta.sends.values()) == {1}
