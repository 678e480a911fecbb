"""Many deliveries at once: bounds, isolation, groups, and what is kept when the disk refuses."""

import errno
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from checker import members
from dispatch import DOWN, Place, Timewarp
from loops import wait_for

from promptyoself.core.errors import PromptyoselfError
from promptyoself.rules import claim
from promptyoself.service.delivery import dispatcher as dispatching
from promptyoself.service.delivery import in_flight
from promptyoself.service.schedules.change import cancel
from promptyoself.targets.api import DeliveryError, Message, Run

REFUSED = DeliveryError("unauthorized", "letta_unauthorized", "It wants another token.")


def before_asking(event: threading.Event, but: str = "") -> Callable[[str, str], None]:
    """Lets each delivery ask by itself whether its agent is free, and puts an event in the way, but
    for some of the agents."""

    def before(call: str, agent: str) -> None:
        if call == "look":
            raise DOWN
        if call == "runs" and agent > but:
            event.wait(60)

    return before


def raising(error: Exception) -> Callable[[str, str], None]:
    """Lets every call fail."""

    def before(call: str, agent: str) -> None:
        raise error

    return before


@pytest.fixture
def look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for dead workers in every pass."""
    monkeypatch.setattr(dispatching, "_ADOPT_EVERY", 0.0)


# --- bounds and isolation -------------------------------------------------------------------------


def test_no_more_than_the_concurrency_at_once(place: Place) -> None:
    """The bound on concurrency holds for claims, for calls and for threads."""
    place.register(20)
    place.letta.before = lambda *_: time.sleep(0.005)
    worker = place.worker(concurrency=4)
    most = 0

    def settled() -> bool:
        nonlocal most
        claimed = sum(1 for slot in place.store.read().state.open.values() if slot.worker)
        most = max(most, claimed)
        return worker.idle

    place.run(worker, until=settled)
    assert most == 4
    assert place.letta.most_at_once <= 4
    assert worker._in_flight._pool._threads <= 4
    assert place.types()["delivery.delivered"] == 20


def test_a_hung_agent_does_not_delay_the_others(place: Place) -> None:
    """One agent whose calls hang costs the others nothing."""
    release = threading.Event()
    place.register(10)
    place.letta.before = lambda _, agent: agent == "agent-0" and release.wait(60)
    worker = place.worker(concurrency=2)
    began = time.monotonic()
    place.run(worker, until=lambda: sum(place.letta.sends.values()) == 9)
    assert time.monotonic() - began < 30
    release.set()
    place.run(worker)
    assert place.types()["delivery.delivered"] == 10


def test_those_that_wait_give_up_their_seats(place: Place) -> None:
    """Agents that are busy with something else hold no seats: all the others get through."""
    for agent in ("agent-0", "agent-1"):
        place.letta.runs[f"run-of-{agent}"] = Run(
            f"run-of-{agent}", agent, "running", None, datetime.now(UTC), None
        )
    place.register(10)
    worker = place.worker(concurrency=2)
    place.run(worker, until=lambda: sum(place.letta.sends.values()) == 8)
    place.letta.end_all()
    place.run(worker)
    assert place.types()["delivery.delivered"] == 10


def test_a_bug_in_one_delivery_does_not_stop_the_others(place: Place) -> None:
    """An exception before the send is one attempt's failure, said with its traceback; and one in
    what is done for all of them is nobody's."""

    def before(call: str, agent: str) -> None:
        if call == "look" or agent == "agent-0":
            raise ZeroDivisionError("a bug")

    place.register(3)
    place.letta.before = before
    reports = place.run(place.worker())
    lines = [line for report in reports for line in report.executed]
    assert Counter(line["state"] for line in lines) == {"delivered": 2, "retrying": 1}
    assert [line["code"] for line in lines if not line["delivered"]] == ["internal_error"]
    assert any("ZeroDivisionError: a bug" in warning for warning in place.warnings)
    assert any(warning.startswith("A look at the runs broke off") for warning in place.warnings)


def test_a_bug_in_the_send_leaves_it_in_doubt(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: an exception that isn't Letta's may have come after the send, so it is looked for."""
    monkeypatch.setattr(in_flight, "_PAUSE_AFTER_A_BUG", 0.1)
    send = place.letta.send

    def buggy(message: Message) -> str:
        send(message)
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(place.letta, "send", buggy)
    place.register(1)
    place.run(place.worker())
    place.check_delivered(1)


def test_a_schedule_that_cannot_be_decided_is_told_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schedule whose slots can't be worked out holds up nobody, and is complained about once."""
    broken, *_ = place.register(3)
    decide = claim.due_slots

    def fragile(schedule: Any, now: Any) -> Any:
        if schedule.id == broken:
            raise KeyError("no such zone")
        return decide(schedule, now)

    monkeypatch.setattr(claim, "due_slots", fragile)
    place.sound = False
    place.run(place.worker())
    assert place.types()["delivery.delivered"] == 2
    assert sum(broken in warning for warning in place.warnings) == 1


def test_waiting_ends_for_decisions_only(place: Place) -> None:
    """A run that is merely asked after again and again causes no passes."""
    place.register(1)
    place.letta.ending = False
    worker = place.begun()
    began = time.monotonic()
    assert not worker.wait(0.8)
    assert time.monotonic() - began >= 0.8
    place.letta.end_all()
    assert worker.wait(60)


def test_threads_end_with_their_worker(place: Place) -> None:
    """A process that delivers now and then keeps no threads of it."""
    place.register(8)
    before = threading.active_count()
    worker = place.worker()
    place.run(worker)
    place.die(worker)
    wait_for(lambda: threading.active_count() <= before)


# --- the log --------------------------------------------------------------------------------------


def test_claims_are_written_in_one_append(place: Place) -> None:
    """P8: everything that is claimed in one pass is one gzip member, hence one fsync."""
    place.register(30)
    worker = place.begun(concurrency=32)
    (segment,) = (place.var / "schedules").glob("*.ndjson.gz")
    last = members(segment.read_bytes())[-1]
    assert last.count(b'"delivery.attempted"') == 30
    assert last.count(b'"worker.started"') == 1
    place.run(worker)


def test_outcomes_are_kept_while_the_disk_is_full(place: Place, look_often: None) -> None:
    """P2: an outcome that can't be written is kept, isn't sought again, and is written later."""
    place.register(3)
    worker = place.begun()
    place.disk.full = True
    place.wait(worker, lambda: len(worker._in_flight.outcomes) == 3)
    for _ in range(5):
        with pytest.raises(OSError, match="No space"):
            worker.tick(place.now())
    assert len(worker._in_flight.outcomes) == 3
    assert place.types()["delivery.delivered"] == 0
    place.disk.full = False
    place.run(worker)
    place.check_delivered(3)


def test_outcomes_are_kept_while_the_log_is_locked(tmp_path: Path) -> None:
    """P5: a process that sits on the lock delays the record of an outcome, and loses none."""
    place = Place(tmp_path / "var", PROMPTYOSELF_LOCK_TIMEOUT="0.05")
    place.register(1)
    worker = place.begun()
    assert worker.wait(60)
    with place.another_store().exclusive(), ThreadPoolExecutor(1) as another_thread:
        error = another_thread.submit(worker.tick, place.now()).exception()
    assert isinstance(error, PromptyoselfError)
    assert error.code == "lock_timeout"
    place.run(worker)
    assert place.types()["delivery.delivered"] == 1
    place.close()


def test_nothing_is_sent_where_the_claim_cannot_be_written(place: Place) -> None:
    """P2: no claim in the log, no send."""
    place.register(3)
    place.disk.full = True
    worker = place.worker()
    for _ in range(3):
        with pytest.raises(OSError, match="No space"):
            worker.tick(place.now())
        worker.wait(0.02)
    assert not place.letta.sends
    place.disk.full = False
    place.run(worker)
    assert set(place.letta.sends.values()) == {1}


def test_a_claim_that_was_written_though_the_append_failed_is_found(
    place: Place, look_often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: where a failed append is in the log after all, its claims aren't forgotten by the worker
    in whose name they are."""
    place.register(1)
    worker = place.worker()
    transact = place.store.transact

    def interrupted(*arguments: Any) -> Any:
        transact(*arguments)
        raise OSError(errno.EIO, "the disk said no, but did it")

    monkeypatch.setattr(place.store, "transact", interrupted)
    with pytest.raises(OSError, match="said no"):
        worker.tick(place.now())
    monkeypatch.setattr(place.store, "transact", transact)
    place.run(worker)
    place.ahead += timedelta(hours=1)
    place.run(worker)
    place.check_delivered(1)


def test_a_restored_backup_sends_nothing_twice(place: Place, tmp_path: Path) -> None:
    """P2: where the log is put back to before its deliveries, the agents' histories still know."""
    place.register(2)
    shutil.copytree(place.var, tmp_path / "backup")
    worker = place.worker()
    place.run(worker)
    place.die(worker)
    shutil.rmtree(place.var)
    shutil.copytree(tmp_path / "backup", place.var)
    place.store = place.another_store()
    place.ahead += timedelta(hours=3)
    place.run(place.worker())
    place.check_delivered(2)


# --- a server in trouble --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [DOWN, REFUSED])
def test_a_server_in_trouble_is_tried_rarely(
    place: Place, monkeypatch: pytest.MonkeyPatch, error: DeliveryError
) -> None:
    """P8: while Letta is down or refuses us, one delivery a minute tries it; the log hardly grows,
    and all are delivered when it is back."""

    place.register(60)
    place.letta.before = raising(error)
    warp = Timewarp(place, monkeypatch)
    worker = place.worker(concurrency=16)
    warp.work(worker, 3600)
    tries = place.types()["delivery.attempted"]
    assert 16 + 50 <= tries <= 16 + 80
    assert worker.troubles
    assert any(error.message in warning for warning in place.warnings)
    place.letta.before = lambda *_: None
    warp.work(worker, 1200)
    assert not worker.troubles
    place.check_delivered(60)


def test_a_server_that_answers_nobody_is_in_trouble_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: a proxy's 502 to everyone is a server that is down; to one agent, that agent's matter."""
    bad = {f"agent-{n}" for n in range(30)}

    def before(call: str, agent: str) -> None:
        if agent in bad or (call == "look" and len(bad) == 30):
            raise DeliveryError("doubt", "letta_server_error", "HTTP 502.", status=502)

    place.register(30)
    place.letta.before = before
    warp = Timewarp(place, monkeypatch)
    worker = place.worker(concurrency=8)
    warp.work(worker, 1800)
    assert place.types()["delivery.attempted"] <= 8 + 45
    assert worker.troubles
    bad.intersection_update({"agent-0", "agent-1"})
    warp.work(worker, 900)
    assert not worker.troubles
    assert place.types()["delivery.delivered"] == 28


def test_a_busy_agent_is_no_trouble(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage the first answer of any kind lets everything go on, though the agent that
    gave it stays busy."""
    place.register(10)
    place.letta.before = raising(DOWN)
    warp = Timewarp(place, monkeypatch)
    worker = place.worker(concurrency=4)
    warp.work(worker, 20)
    assert worker.troubles
    for n in range(9):
        place.letta.runs[f"r{n}"] = Run(f"r{n}", f"agent-{n}", "running", None, None, None)
    place.letta.before = lambda *_: None
    warp.work(worker, 200)
    assert not worker.troubles
    assert sum(place.letta.sends.values()) == 1


# --- the dead and the living ----------------------------------------------------------------------


def test_what_the_dead_have_left_is_adopted(place: Place, look_often: None) -> None:
    """P2: a killed worker's deliveries are found out about by the next: what was delivered is
    recorded, what was unsent sent, each once."""
    place.register(6)
    block = threading.Event()
    place.letta.before = before_asking(block, "agent-2")
    dead = place.begun()
    place.wait(dead, lambda: sum(place.letta.sends.values()) == 3)
    place.die(dead)
    block.set()
    place.run(place.worker(), until=lambda: place.types()["delivery.delivered"] == 6)
    assert set(place.letta.sends.values()) == {1}


def test_two_workers_may_adopt_the_same(place: Place, look_often: None) -> None:
    """P5: where several loops find the same claim of a dead one, it is settled once, sent once."""
    place.register(5)
    place.letta.before = lambda *_: time.sleep(0.002)
    dead = place.begun()
    place.die(dead)
    stores = [place.another_store() for _ in range(3)]
    workers = [place.worker(store=store) for store in stores]
    place.run(*workers, until=lambda: place.types()["delivery.delivered"] == 5)
    place.run(*workers)
    place.check_delivered(5)


def test_the_living_are_left_alone(place: Place, look_often: None) -> None:
    """P5: a claim whose worker lives is nobody else's, however long it takes."""
    place.register(2)
    place.letta.ending = False
    first = place.begun()
    first.wait(0.1)
    second = place.worker(store=place.another_store())
    place.ahead += timedelta(hours=1)
    second.tick(place.now())
    assert second.idle
    assert second.next_wake(place.now()) is not None
    place.letta.end_all()
    place.run(first)
    assert place.types()["delivery.attempted"] == 2


def test_a_worker_that_stops_hands_back_what_it_did_not_send(place: Place) -> None:
    """P2: at a stop the unsent is free for others at once, and isn't sent by a thread that was just
    about to."""
    place.register(3)
    block = threading.Event()
    place.letta.before = before_asking(block)
    worker = place.begun()
    place.wait(worker, lambda: place.letta.at_once == 3)
    report = worker.stop("SIGTERM", 0.0)
    assert [line["code"] for line in report.executed] == ["worker_stopped"] * 3
    block.set()
    place.die(worker)
    time.sleep(0.1)
    assert not place.letta.sends
    assert place.events()[-1]["type"] == "worker.stopped"
    place.run(place.worker(), until=lambda: place.types()["delivery.delivered"] == 3)
    assert set(place.letta.sends.values()) == {1}


def test_a_worker_that_stops_leaves_word_of_what_it_sent(place: Place, look_often: None) -> None:
    """P2: what is under way at the end of patience stays in doubt, with its run, for the next."""
    place.register(2)
    place.letta.ending = False
    worker = place.begun()
    place.wait(worker, lambda: all(delivery.run_id for delivery in worker._in_flight))
    began = time.monotonic()
    report = worker.stop("SIGTERM", 0.3)
    assert time.monotonic() - began >= 0.3
    assert [line["state"] for line in report.executed] == ["in_doubt"] * 2
    stopped = place.events()[-1]["data"]
    assert {left["run_id"] for left in stopped["in_flight"]} == {"run-0", "run-1"}
    place.die(worker)
    place.letta.end_all()
    place.run(place.worker(), until=lambda: place.types()["delivery.delivered"] == 2)
    assert {e["data"].get("via") for e in place.events() if e["type"] == "delivery.delivered"} == {
        "run"
    }
    assert set(place.letta.sends.values()) == {1}


def test_a_stop_waits_for_what_is_about_to_end(place: Place) -> None:
    """A delivery that ends within the patience of a stop is recorded as delivered."""
    place.register(1)
    place.letta.ending = False
    worker = place.begun()
    place.wait(worker, lambda: place.letta.runs)
    threading.Timer(0.1, place.letta.end_all).start()
    report = worker.stop("SIGTERM", 60.0)
    assert [line["state"] for line in report.executed] == ["delivered"]


def test_an_idle_worker_writes_nothing(place: Place) -> None:
    """P8: a pass without work appends nothing, nor does the end of a worker that did none."""
    place.register(1, time="in 1h")
    before = place.types()
    worker = place.worker()
    assert not worker.tick(place.now())
    assert not worker.stop("done", 1.0)
    assert place.types() == before


def test_a_cancel_during_a_delivery_is_no_contradiction(place: Place) -> None:
    """P2: cancelled while under way, it is delivered, and the schedule stays cancelled."""
    (id_,) = place.register(1)
    place.letta.ending = False
    worker = place.begun()
    place.wait(worker, lambda: place.letta.runs)
    cancel(place.store, id_, None, place.now())
    place.letta.end_all()
    place.run(worker)
    assert place.types()["delivery.delivered"] == 1
    assert place.store.read().state.schedules[id_].status == "cancelled"


# --- clocks ---------------------------------------------------------------------------------------


def test_what_comes_due_during_a_pass_is_claimed_by_the_next(place: Place) -> None:
    """P1: between a pass's look at the clock and the question when to wake, a slot comes due."""
    id_ = place.add("agent-0", every="1h")
    worker = place.begun()
    slot = datetime.fromisoformat(place.store.read().state.schedules[id_].next_run or "")
    moment = timedelta(milliseconds=1)
    worker.wait(0)
    assert not worker.tick(slot - moment)
    wake = worker.next_wake(slot + moment)
    assert wake is not None
    assert wake <= slot
    place.ahead = slot + moment - datetime.now(UTC)
    place.run(worker)
    place.check_delivered(1)


@pytest.mark.parametrize("hours", [-7, 7])
def test_a_clock_that_jumps_neither_repeats_nor_loses_a_slot(place: Place, hours: int) -> None:
    """P2: the clock set by hours between claim and outcome, and between slots, changes no count."""
    ids = place.register(2, every="1h")
    place.letta.ending = False
    worker = place.worker()
    place.ahead += timedelta(hours=1)
    worker.tick(place.now())
    worker.wait(0.2)
    place.ahead += timedelta(hours=hours)
    worker.tick(place.now())
    worker.wait(0.2)
    place.letta.end_all()
    place.letta.ending = True
    place.run(worker)
    place.ahead += timedelta(hours=12)
    for _ in range(3):
        place.run(worker)
    assert set(place.letta.sends.values()) == {1}
    events = place.events()
    for id_ in ids:
        mine = [event for event in events if event["id"] == id_]
        slots: list[str] = []
        for event in mine:
            if event["type"] == "delivery.attempted":
                slots.append(event["data"]["slot"])
            elif event["type"] == "delivery.skipped":
                slots += [event["data"]["slot"]] * event["data"]["slots"]
        anchor = datetime.fromisoformat(mine[0]["data"]["anchor"])
        last = datetime.fromisoformat(mine[-1]["data"]["slot"])
        assert len(slots) == (last - anchor) / timedelta(hours=1)
