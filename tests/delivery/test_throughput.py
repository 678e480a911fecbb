"""Deliveries at the pace of the agents: looks that are shared, what may be concluded from one, and
who gets a seat. Nothing here is timed; work is counted."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from dispatch import DOWN, FakeLetta, Place, Timewarp

from promptyoself.core.ids import schedule_id
from promptyoself.events.schedule_fields import content_of
from promptyoself.ledger import lookup
from promptyoself.ledger.segments import Member, members_of
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.in_flight import InFlight
from promptyoself.service.schedules.request import Request, parse
from promptyoself.targets import run_snapshot
from promptyoself.targets.api import DeliveryError, Run
from promptyoself.targets.letta import LettaClient
from promptyoself.targets.run_snapshot import RunSnapshot, SnapshotQueue, take_run_snapshot


def run_of(number: int, status: str = "created", agent: str = "a") -> Run:
    return Run(f"run-{number}", agent, status, None, None, None)


def letta_with(*runs: Run) -> FakeLetta:
    letta = FakeLetta()
    letta.runs.update((run.run_id, run) for run in runs)
    return letta


def look(letta: Any, *followed: str) -> RunSnapshot:
    snapshot = take_run_snapshot(letta, followed, lambda: 0.0)
    assert snapshot is not None
    return snapshot


# --- a look ---------------------------------------------------------------------------------------


def test_a_look_asks_once_for_many() -> None:
    """P8: however many runs are followed, one question tells which of them go on; a second one what
    has become of the others, however many these are."""
    letta = letta_with(*(run_of(n, "created" if n < 50 else "completed") for n in range(100)))
    every = tuple(letta.runs)
    look(letta, *every[:50])
    assert letta.calls == {"look": 1}
    seen = look(letta, *every)
    assert letta.calls == {"look": 2, "ended": 1}
    assert seen.runs == letta.runs
    assert {run.run_id for run in seen.active["a"]} == set(every[:50])


def test_a_single_run_that_is_over_is_asked_for_by_itself() -> None:
    """A list of those that ended might be full of others'."""
    letta = letta_with(run_of(1, "failed"), run_of(2))
    assert look(letta, "run-1", "run-2").runs["run-1"].status == "failed"
    assert letta.calls == {"look": 1, "run": 1}


def test_what_a_look_does_not_find_is_not_in_it() -> None:
    """P2: a run that is in no list is unknown, not over; the same where the second question fails,
    or where the server contradicts itself."""
    letta = letta_with(run_of(1, "completed"))
    assert set(look(letta, "run-1", "run-8", "run-9").runs) == {"run-1"}

    def before(call: str, _agent: str) -> None:
        if call != "look":
            raise DOWN

    letta.before = before
    assert not look(letta, "run-1").runs
    assert not look(letta, "run-1", "run-9").runs
    forgetful = letta_with(run_of(1))
    forgetful.all_active_runs = list
    assert not look(forgetful, "run-1").runs


def test_a_list_that_was_cut_short_is_no_look(place: Place) -> None:
    """P2: where the server has more active runs than it tells at once, nothing is concluded."""
    place.letta.all_active_runs = lambda: None
    assert take_run_snapshot(place.letta, (), lambda: 0.0) is None


# --- when to look, and for whom -------------------------------------------------------------------

EMPTY = RunSnapshot(0.0, 0.0, {}, {})


@pytest.fixture
def queue() -> SnapshotQueue:
    return SnapshotQueue()


def test_who_comes_during_a_look_waits_for_the_next(queue: SnapshotQueue) -> None:
    """P2: an answer is for those alone who wanted it before it was asked for."""
    queue.join("early", urgent=True)
    assert queue.begin(0.0) == frozenset()
    queue.join("late", urgent=True)
    assert queue.begin(0.1) is None
    assert queue.end(0.2, EMPTY) == ({"early"}, set())
    assert queue.begin(0.2) is not None
    assert queue.end(0.3, EMPTY) == ({"late"}, set())
    assert queue.begin(0.3) is None


def test_a_run_that_was_not_followed_yet_is_not_over(queue: SnapshotQueue) -> None:
    """P2: a look tells only of the runs that were followed when it was asked for."""
    queue.followed["run-1"] = "one"
    queue.join("x", urgent=False)
    assert queue.begin(0.0) == {"run-1"}
    queue.followed["run-2"] = "two"
    assert queue.end(0.1, EMPTY) == ({"x"}, {"one"})


def test_a_look_tells_those_too_whose_turn_it_is_not(queue: SnapshotQueue) -> None:
    """Runs that are over are told at the next look; those that go on cost nothing."""
    queue.followed.update({f"run-{n}": f"name-{n}" for n in range(5)})
    queue.join("name-0", urgent=False)
    assert queue.begin(0.0) == set(queue.followed)
    runs = {f"run-{n}": run_of(n, "completed" if n == 3 else "created") for n in range(5)}
    assert queue.end(0.1, RunSnapshot(0.0, 0.0, {}, runs)) == ({"name-0"}, {"name-3"})


def test_looks_rest_unless_somebody_would_send(queue: SnapshotQueue) -> None:
    """P8: asking after runs takes a part of the server's time; a free agent isn't kept waiting."""
    queue.join("x", urgent=False)
    queue.begin(0.0)
    queue.end(1.0, EMPTY)
    queue.join("x", urgent=False)
    assert queue.begin(1.4) is None
    assert queue.wake() == 1.5
    queue.join("y", urgent=True)
    assert queue.begin(1.4) is not None


def test_a_look_that_takes_too_long_is_not_waited_for(queue: SnapshotQueue) -> None:
    """A call that hangs holds up nobody for long: they ask by themselves until it has ended."""
    queue.join("x", urgent=True)
    queue.begin(0.0)
    queue.join("y", urgent=True)
    assert queue.overdue(1.9) == set()
    assert queue.wake() == 2.0
    assert queue.overdue(2.0) == {"x", "y"}
    assert not queue.is_worth_waiting_for(2.0)
    assert queue.wake() == float("inf")
    assert queue.end(30.0, EMPTY) == (set(), set())
    assert queue.is_worth_waiting_for(30.0)


def test_after_a_look_that_failed_nobody_looks_for_a_while(queue: SnapshotQueue) -> None:
    """Where the list can't be read each asks by itself, those too who came later."""
    queue.join("x", urgent=True)
    queue.begin(0.0)
    queue.join("y", urgent=True)
    assert queue.end(0.1, None) == ({"x", "y"}, set())
    assert not queue.is_worth_waiting_for(5.0)
    assert queue.is_worth_waiting_for(15.0)


# --- many deliveries ------------------------------------------------------------------------------


def test_deliveries_ask_together(place: Place) -> None:
    """P8: twenty deliveries make twenty sends, and otherwise a few questions between them."""
    place.register(20)
    place.run(place.worker(concurrency=20))
    calls = place.letta.calls
    assert calls["send"] == 20
    assert calls["runs"] == 0
    assert calls["look"] + calls["ended"] + calls["run"] <= 10


def test_through_the_real_sdk_they_ask_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: the same over HTTP: no agent's runs are listed for itself. P2: an agent with many prompts
    gets them one by one, oldest first."""
    # The first look loads the SDK, which takes seconds on a busy machine.
    monkeypatch.setattr(run_snapshot, "_PATIENCE", 60.0)
    with Sandbox([f"a{n}" for n in range(20)], latency=0.05) as sandbox:
        letta = LettaClient(sandbox.url)
        place = Place(tmp_path / "var", letta)
        prompts = [f"prompt {n}" for n in range(1, 6)]
        for seconds, prompt in enumerate(prompts, 1):
            for agent in sandbox.agents:
                place.add(agent, prompt, time=f"in {seconds}s")
        place.ahead += timedelta(seconds=10)
        asked: list[str] = []
        listing = letta.active_runs
        letta.active_runs = lambda agent: asked.append(agent) or listing(agent)  # type: ignore[func-returns-value,method-assign]
        place.run(place.worker(concurrency=20))
        assert sandbox.overlaps == 0
        assert set(sandbox.deliveries.values()) == {1}
        for agent in sandbox.agents:
            assert [message.text for message in sandbox.messages(agent)] == prompts
        assert sandbox.requests["send"] == 100
        # The last of all may be alone, and asks as one alone does.
        assert len(asked) <= 1
        assert sandbox.requests["messages"] == 0
        place.close()
        letta.close()


def test_long_runs_are_asked_after_together(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: thirty runs that take an hour are asked after hardly more often than one: their timers
    meet, so one look serves several."""

    def cost(agents: int) -> int:
        place.letta.calls.clear()
        place.letta.ending = False
        place.register(agents, time="in 1s", name=f"of {agents}")
        warp = Timewarp(place, monkeypatch)
        worker = place.worker(concurrency=30)
        warp.work(worker, 3600)
        place.letta.end_all()
        warp.work(worker, 60)
        assert worker.idle
        calls = place.letta.calls
        return calls["look"] + calls["ended"] + calls["runs"] + calls["run"]

    cost_of_one = cost(1)
    assert cost(30) <= 2 * cost_of_one + 30


def test_a_claim_during_a_look_is_not_sent_upon_it(place: Place) -> None:
    """P2: a look that was under way when a slot was claimed has missed what its agent began since:
    it waits for one that was asked for afterwards."""
    letta = place.letta
    release, listed = threading.Event(), threading.Event()
    ask = letta.all_active_runs
    first = True

    def slowly() -> Any:
        nonlocal first
        answer = ask()
        if first:
            first = False
            listed.set()
            release.wait(60)
        return answer

    letta.all_active_runs = slowly
    place.register(2)
    worker = place.begun()
    assert listed.wait(60)
    letta.runs["theirs"] = Run("theirs", "agent-9", "running", None, datetime.now(UTC), None)
    place.add("agent-9")
    place.ahead += timedelta(seconds=2)
    worker.tick(place.now())
    release.set()
    place.run(
        worker,
        until=lambda: (
            sum(letta.sends.values()) == 2
            and len(list(worker._in_flight)) - len(worker._in_flight._seated) == 1
        ),
    )
    assert letta.calls["look"] >= 2
    letta.end_all()
    place.run(worker)
    assert place.types()["delivery.delivered"] == 3
    assert not place.warnings


def test_a_look_that_hangs_holds_up_nobody(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call that hangs, though it was made for all, delays no delivery for long."""
    monkeypatch.setattr(run_snapshot, "_PATIENCE", 0.05)
    release = threading.Event()

    def before(call: str, _agent: str) -> None:
        if call == "look":
            release.wait(60)

    place.letta.before = before
    place.register(6)
    worker = place.worker(concurrency=4)
    place.run(worker, until=lambda: place.types()["delivery.delivered"] == 6)
    assert place.letta.calls["look"] == 1
    assert place.letta.calls["runs"] == 6
    release.set()


@pytest.mark.parametrize("trouble", ["fails", "too many"])
def test_without_looks_each_asks_by_itself(place: Place, trouble: str) -> None:
    """P2: where the list of all runs can't be had, or not as a whole, each agent's is asked for."""

    def refuse() -> None:
        place.letta.calls["look"] += 1
        if trouble == "fails":
            raise DeliveryError("doubt", "letta_server_error", "HTTP 502.", status=502)

    place.letta.all_active_runs = refuse
    place.register(6)
    place.run(place.worker())
    assert place.letta.calls["look"] == 1
    assert place.letta.calls["runs"] == 6
    assert place.types()["delivery.delivered"] == 6


def test_a_list_that_lacks_what_is_active_is_not_believed_again(place: Place) -> None:
    """P2: where a run that is active isn't among all that are, no agent is thought free upon such a
    list any more; and it is said, once."""
    place.letta.ending = False
    place.letta.all_active_runs = lambda: place.letta.calls.update(["look"]) or []
    place.register(4)
    worker = place.worker()
    place.run(worker, until=lambda: bool(place.warnings) and not worker._in_flight._stepping)
    before = place.letta.calls["look"]
    place.register(2, time="in 1s", name="more")
    worker.tick(place.now())
    place.letta.end_all()
    place.letta.ending = True
    place.run(worker, until=lambda: place.types()["delivery.delivered"] == 6)
    assert place.letta.calls["look"] == before
    assert len(place.warnings) == 1
    assert "lacks some" in place.warnings[0]


def test_runs_that_go_on_cost_no_steps(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: a look at many runs that go on advances only the deliveries whose turn it was."""
    place.letta.ending = False
    place.register(20)
    worker = place.begun(concurrency=20)
    place.run(worker, until=lambda: len(worker._in_flight._route("letta").snapshots.followed) == 20)
    turns: list[str] = []
    turn = InFlight._cancel_wakes

    def counted(self: InFlight, key: str) -> Any:
        turns.append(key)
        return turn(self, key)

    monkeypatch.setattr(InFlight, "_cancel_wakes", counted)
    key = next(iter(worker._in_flight._live))
    worker._in_flight._timers.clear()
    worker._in_flight._route("letta").snapshots.join(key, urgent=True)
    worker._in_flight.seek_snapshot()
    answer = worker._in_flight._pool.next_result(5)
    assert answer is not None
    assert not worker._in_flight._handle_result(*answer)
    assert turns == [key]


# --- fairness -------------------------------------------------------------------------------------


def test_a_hundred_prompts_of_one_agent_keep_nobody_waiting(place: Place) -> None:
    """Oldest first, and one at a time for each agent: with a hundred prompts due to one of three,
    the others' single ones, younger than those, are in the first pass."""
    for n in range(100):
        place.add("agent-busy", f"prompt {n}")
    place.ahead += timedelta(seconds=2)
    place.register(2)
    worker = place.begun(concurrency=3)
    claimed = {slot.agent_id for slot in place.store.read().state.open.values()}
    assert claimed == {"agent-busy", "agent-0", "agent-1"}
    place.run(worker)
    assert place.types()["delivery.attempted"] == 102


def test_the_oldest_slot_comes_first(place: Place) -> None:
    """With fewer seats than agents, who has waited longest is next: nobody starves, and none gets a
    second prompt before another, who was due before that, has had its first."""
    for n in range(4):
        for agent in range(5):
            place.add(f"agent-{agent}", f"prompt {n}", time=f"in {1 + n * 5 + agent}s")
    place.ahead += timedelta(seconds=30)
    place.run(place.worker(concurrency=2))
    slots = [e["data"]["slot"] for e in place.events() if e["type"] == "delivery.attempted"]
    assert len(slots) == 20
    order = sorted(slots)
    # Two seats: at most the other one's agent can hold a slot back, by one place.
    assert all(abs(slots.index(slot) - order.index(slot)) <= 1 for slot in slots)


def test_a_pass_with_many_outcomes_is_one_append(place: Place) -> None:
    """P8: what has ended meanwhile is recorded together, with the claims that follow from it."""
    place.register(8, each=2)
    worker = place.begun(concurrency=8)
    place.wait(worker, lambda: len(worker._in_flight.outcomes) == 8)
    before = place.store.stamp()
    worker.tick(place.now())
    assert place.store.stamp() != before
    batches = [[event.type for event in batch.envelopes] for batch in place.store.replay()]
    assert batches[-1].count("delivery.delivered") == 8
    assert batches[-1].count("delivery.attempted") == 8
    place.run(worker)


def test_what_was_registered_together_is_read_back_together(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: a claim reads its schedule back from the log. What one append has registered is read once
    for a pass, and not once for each schedule in it."""
    reads: list[int] = []

    def counted(file: BinaryIO, start: int = 0) -> Iterator[Member]:
        for member in members_of(file, start):
            reads.append(member.start)
            yield member

    now = place.now()
    requests = [
        Request(agent_id=f"agent-{n}", prompt="Plan the day.", time="in 1s") for n in range(40)
    ]
    records = [parse(request, place.settings, now) for request in requests]
    drafts = [place.store.draft(record, schedule_id(content_of(record))) for record in records]
    place.store.transact(now, lambda _: (drafts, None))
    place.ahead += timedelta(seconds=2)
    monkeypatch.setattr(lookup, "members_of", counted)
    worker = place.begun(concurrency=40)
    assert len(place.store.read().state.open) == 40
    assert 0 < len(reads) < 5
    place.run(worker)
    place.check_delivered(40)
