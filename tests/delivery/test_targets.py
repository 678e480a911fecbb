"""Several targets: one loop serves them, each in its own lanes, and one in trouble holds up only
its own. What a target that isn't a Letta server says of a turn is recorded beside the delivery."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dispatch import DOWN, FakeLetta, Place, Timewarp
from monitors import Watched

from promptyoself.core.settings import load_settings
from promptyoself.rules.claim import Claim, orphans
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, Outcome
from promptyoself.service.delivery.configured_targets import ConfiguredTargets
from promptyoself.service.delivery.delivery import Delivery, Wait
from promptyoself.service.schedules.approvals import approve
from promptyoself.service.schedules.change import modify, run_now
from promptyoself.service.schedules.request import Request
from promptyoself.service.upkeep.doctor import examine
from promptyoself.targets.api import (
    HISTORY_GAP,
    DeliveryError,
    Found,
    Message,
    Run,
    RunFailure,
    Sent,
    Traits,
)
from promptyoself.targets.unconfigured import Unconfigured

LOCAL = "agent-local-1"
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
CODE = Traits("letta-code", False, False, "letta_code_busy", timedelta(minutes=1))


class FakeCode(FakeLetta):
    """A Letta Code in memory: turns of one agent go on beside each other, each in its own
    conversation. Only the history proves that a message has arrived."""

    traits = CODE

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[Message] = []
        self.history: dict[str, Found] = {}  # by otid
        self.gap = False  # whether the history was summed up

    def active_runs(self, message: Message) -> list[Run]:
        self._enter("runs", message.agent_id)
        with self.lock:
            return [run for run in self.runs.values() if run.otid == message.otid and run.active]

    def all_active_runs(self) -> list[Run]:
        raise AssertionError("it doesn't list runs")

    def send(self, message: Message) -> Sent:
        self._enter("send", message.agent_id)
        with self.lock:
            run_id, made = f"local-{len(self.runs)}", f"local-conv-{len(self.runs)}"
            if message.conversation != "new":
                assert self.free(message.conversation), "two messages at once"
            self.sends[message.otid] += 1
            self.messages.append(message)
            self.runs[run_id] = Run(run_id, message.agent_id, "running", message.otid, None, None)
            self.history[message.otid] = Found("message-1", run_id, None, made)
            if self.ending:
                self._end(run_id)
            return Sent(run_id, made)

    def find(self, message: Message, since: datetime) -> Found | None:
        del since
        self._enter("find", message.agent_id)
        if message.otid not in self.history and self.gap:
            raise DeliveryError("permanent", HISTORY_GAP, "It was summed up.")
        return self.history.get(message.otid)

    def health(self) -> str:
        self._enter("health", "")
        return "0.34.12"

    def failure(self, run: Run) -> RunFailure:
        code = "letta_code_wedged" if "active run" in (run.error or "") else "run_failed"
        return RunFailure(code, run.error or f"The run is {run.status}.")

    def free(self, conversation: str) -> bool:
        """Whether no turn goes on in it."""
        active = {run.otid for run in self.runs.values() if run.active}
        return not any(
            message.conversation == conversation and message.otid in active
            for message in self.messages
        )

    def become(self, status: str, error: str | None = None) -> None:
        """Let what runs have come to this."""
        for run_id, run in self.runs.items():
            self.runs[run_id] = replace(run, status=status, error=error)


@pytest.fixture
def code() -> FakeCode:
    return FakeCode()


@pytest.fixture
def place(var: Path, code: FakeCode) -> Iterator[Place]:
    made = Place(var)
    made.targets["letta-code"] = code
    yield made
    made.close()


def down(call: str, agent: str) -> None:
    raise DOWN


def test_one_loop_serves_both(place: Place, code: FakeCode) -> None:
    """Each agent gets its prompts from its own target, and the log says which; an audit agrees."""
    place.add("agent-0")
    place.add(LOCAL)
    place.ahead += timedelta(seconds=2)
    place.run(place.worker())
    assert sum(place.letta.sends.values()) == sum(code.sends.values()) == 1
    events = place.events()
    attempts = [event["data"] for event in events if event["type"] == "delivery.attempted"]
    assert sorted((data["agent_id"], data.get("target")) for data in attempts) == [
        ("agent-0", None),
        (LOCAL, "letta-code"),
    ]
    versions = {
        event["data"].get("target"): event["v"] for event in events if "slot" in event["data"]
    }
    assert versions["letta-code"] == 2
    assert {e["v"] for e in events if e["data"].get("agent_id") == "agent-0"} == {1}
    (made,) = [e["data"] for e in events if e["data"].get("conversation_id")]
    assert made["via"] == "history"


@pytest.mark.parametrize("target", ["letta", "letta-code"])
def test_a_target_in_trouble_holds_up_only_its_own(
    place: Place, code: FakeCode, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """P2, P8: while one target is down, the other's prompts are delivered at once; those that wait
    cost a try a minute, and are delivered once it is back."""
    fakes: dict[str, Any] = {"letta": place.letta, "letta-code": code}
    broken = fakes.pop(target)
    (well,) = fakes.values()
    for number in range(30):
        place.add(f"agent-{number}")
        place.add(f"agent-local-{number}")
    place.ahead += timedelta(seconds=2)
    broken.before = down
    warp = Timewarp(place, monkeypatch)
    worker = place.worker(concurrency=4)
    warp.work(worker, 60)
    assert sum(well.sends.values()) == 30
    assert not broken.sends
    assert set(worker.troubles) == {target}
    warp.work(worker, 1740)
    assert place.types()["delivery.attempted"] <= 30 + 4 + 40
    broken.before = lambda *_: None
    warp.work(worker, 900)
    assert sum(broken.sends.values()) == 30
    assert worker.troubles == {}
    assert place.types()["delivery.delivered"] == 60


def test_an_agent_of_letta_code_has_several_turns_at_once(place: Place, code: FakeCode) -> None:
    """Prompts that have conversations of their own don't wait for each other. Those that share one
    do, as do all prompts of an agent of a Letta server."""
    code.ending = place.letta.ending = False
    for number in range(3):
        place.add(LOCAL, f"own {number}")
        place.add(LOCAL, f"shared {number}", time="in 1s", conversation_id="local-conv-7")
        place.add("agent-0", f"letta {number}")
    place.ahead += timedelta(seconds=2)
    worker = place.worker(concurrency=16)
    place.run(worker, until=lambda: len(code.messages) == 4 and len(place.letta.sends) == 1)
    worker.tick(place.now())
    assert (
        sorted(message.conversation for message in code.messages) == ["local-conv-7"] + ["new"] * 3
    )

    def all_sent() -> bool:
        code.become("completed")
        place.letta.end_all()
        return code.sends.total() == 6 and place.letta.sends.total() == 3

    place.run(worker, until=all_sent)
    assert max(code.sends.values()) == max(place.letta.sends.values()) == 1


def test_limits_hold_for_turns_side_by_side(var: Path, code: FakeCode) -> None:
    """Prompts of one agent that are due at once, each in a conversation of its own, are charged one
    by one to the agent's cap, to a schedule's budget and to an approval."""
    place = Place(var, PROMPTYOSELF_DAILY_PER_AGENT="7")
    place.targets["letta-code"] = code
    for number in range(5):
        place.add(LOCAL, f"p {number}")
    one_a_day = place.add(LOCAL, "budget", every="1h", daily_budget=1)
    approved = place.add(LOCAL, "approved", every="1h", tier=2)
    approve(place.store, approved, "1h", 1, None, place.now(), allow_trigger=True)
    for id_ in (one_a_day, approved):
        for _ in range(3):
            place.ahead += timedelta(seconds=0.01)
            run_now(place.store, id_, None, place.now())
    place.ahead += timedelta(seconds=2)
    place.run(place.worker(concurrency=32))
    assert code.sends.total() == 7
    skipped = Counter(e["data"]["why"] for e in place.events() if e["type"] == "delivery.skipped")
    assert skipped == {"budget": 2, "approval": 2}
    place.add(LOCAL, "one too many")
    place.add(LOCAL, "and another")
    place.ahead += timedelta(seconds=2)
    place.run(place.worker(concurrency=32))
    assert code.sends.total() == 7
    place.close()


def test_what_is_in_doubt_is_looked_for_where_it_went(place: Place, code: FakeCode) -> None:
    """P2: a schedule that has another conversation by now doesn't change where its claimed prompt
    is looked for."""
    code.ending = False
    id_ = place.add(LOCAL, "p", every="1h", conversation_id="local-conv-1")
    place.ahead += timedelta(hours=1, seconds=2)
    worker = place.worker()
    place.run(worker, until=lambda: bool(code.messages))
    place.die(worker)
    modify(place.store, id_, Request(conversation_id="local-conv-2"), place.now())
    state = place.store.snapshot().state
    (orphan,) = orphans(state, {worker._worker}, place.now())
    assert (orphan.target, orphan.conversation) == ("letta-code", "local-conv-1")
    code.become("completed")
    place.run(place.worker())
    assert sum(code.sends.values()) == 1
    assert place.types()["delivery.delivered"] == 1


class Bench:
    """One delivery to a Letta Code, and the time."""

    def __init__(self) -> None:
        self.code = FakeCode()
        self.code.ending = False
        self.now, self.monotonic = NOON, 0.0

    def delivery(self, **fields: Any) -> Delivery:
        claimed = Claim(
            "sch_00000001", LOCAL, None, "p", "2026-11-20T12:00:00.000000Z", "scheduled", "otid-1",
            1, self.now, self.now, target="letta-code",
        )  # fmt: skip
        return Delivery(
            claimed._replace(**fields), self.code, lambda: self.now,
            reconcile_grace=120.0, call_timeout=5.0, monotonic=lambda: self.monotonic,
        )  # fmt: skip

    def end(self, delivery: Delivery) -> Outcome:
        """Let it run, time passing as it waits, to its outcome."""
        for _ in range(10_000):
            then = delivery.advance().then
            if not isinstance(then, Wait):
                assert isinstance(then, Delivered | Failed | Abandoned), then
                return then
            self.now += timedelta(seconds=then.seconds)
            self.monotonic += then.seconds
        raise AssertionError("it never ends")


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize(
    ("status", "error", "turn"),
    [
        ("completed", None, None),
        ("cancelled", None, "cut_off"),
        ("failed", "the model answered 500", "failed"),
        ("waiting", None, "waits_for_approval"),
    ],
)
def test_arrived_and_what_became_of_the_turn_are_two_facts(
    bench: Bench, status: str, error: str | None, turn: str | None
) -> None:
    """P9: a prompt in the history is delivered, and it is said if its turn was cut off, failed or
    waits for somebody."""
    delivery = bench.delivery()
    delivery.advance()
    bench.code.become(status, error)
    outcome = bench.end(delivery)
    assert isinstance(outcome, Delivered)
    assert (outcome.via, outcome.turn) == ("history", turn)
    assert (outcome.error is None) is (turn is None)
    assert outcome.conversation_id == "local-conv-0"


def test_a_run_that_ends_well_proves_nothing(bench: Bench) -> None:
    """P9: accepted isn't stored. Without the message in the history nothing was delivered."""
    delivery = bench.delivery()
    delivery.advance()
    bench.code.history.clear()
    bench.code.become("completed")
    outcome = bench.end(delivery)
    assert isinstance(outcome, Abandoned)
    assert outcome.code == "run_failed"


def test_a_wedged_conversation_does_not_count_against_the_schedule(bench: Bench) -> None:
    delivery = bench.delivery()
    delivery.advance()
    bench.code.history.clear()
    bench.code.become("failed", "it already has an active run")
    outcome = bench.end(delivery)
    assert isinstance(outcome, Abandoned)
    assert outcome.code == "letta_code_wedged"


@pytest.mark.parametrize(("answered", "turn"), [(True, None), (None, None), (False, "cut_off")])
def test_in_doubt_the_history_tells_of_the_turn_too(
    bench: Bench, answered: bool | None, turn: str | None
) -> None:
    """A worker died, or the server did: what is found in the history was delivered once, and
    whether its turn came to an end is told where the history tells it."""
    bench.code.history["otid-1"] = Found("message-1", None, None, "local-conv-9", answered)
    outcome = bench.end(bench.delivery(in_doubt=True))
    assert isinstance(outcome, Delivered)
    assert (outcome.turn, outcome.conversation_id) == (turn, "local-conv-9")
    outcome = bench.end(bench.delivery(attempt=2))
    assert isinstance(outcome, Delivered)
    assert (outcome.turn, bench.code.sends.total()) == (turn, 0)


def test_a_history_that_was_summed_up_proves_nothing(bench: Bench) -> None:
    """P2: where the message may have been in what was summed up, nothing is sent again, and nobody
    says more than is known. Where no earlier attempt can have left anything, it is sent."""
    bench.code.gap = True
    for fields in ({"in_doubt": True}, {"attempt": 3, "untraced": True}):
        outcome = bench.end(bench.delivery(**fields))
        assert isinstance(outcome, Failed)
        assert (outcome.code, outcome.permanent, bench.code.sends.total()) == ("unknown", False, 0)
    late = bench.delivery(claimed_at=NOON + timedelta(hours=1), slot="2026-11-20T11:00:00.000000Z")
    bench.now += timedelta(hours=1)
    late.advance()
    assert bench.code.sends.total() == 1
    bench.code.history.clear()
    bench.code.become("completed")
    arrived = bench.end(late)
    assert isinstance(arrived, Delivered)  # a turn that ended well, and summed up what it was about


def test_what_waited_for_a_turn_that_summed_its_conversation_up_is_sent(bench: Bench) -> None:
    """P1: the attempts before found the conversation busy, so that they have left nothing there."""
    bench.code.gap = True
    delivery = bench.delivery(attempt=3)
    delivery.advance()
    assert bench.code.sends.total() == 1


def test_a_conversation_that_is_gone_takes_its_history_along(bench: Bench) -> None:
    def gone(call: str, agent: str) -> None:
        del agent
        if call == "find":
            raise DeliveryError("permanent", "conversation_not_found", "There is no such one.")

    bench.code.before = gone
    outcome = bench.end(bench.delivery(in_doubt=True))
    assert isinstance(outcome, Failed)
    assert outcome.code == "unknown"


def test_in_doubt_a_target_that_may_be_wrong_is_asked_again(bench: Bench) -> None:
    """P1: an App Server that doesn't know the agent may serve another store, for a while. What was
    sent before is found once it is back; only after two hours nobody can tell any more."""
    unknown = DeliveryError("retry", "agent_not_found", "It does not know that agent.")
    until = [NOON + timedelta(minutes=30)]

    def before(call: str, agent: str) -> None:
        del agent
        if call == "find" and bench.now < until[0]:
            raise unknown

    bench.code.before = before
    bench.code.history["otid-1"] = Found("message-1", None, None, "local-conv-9", answered=True)
    assert isinstance(bench.end(bench.delivery(in_doubt=True)), Delivered)
    until[0] = NOON + timedelta(days=1)
    outcome = bench.end(bench.delivery(in_doubt=True))
    assert isinstance(outcome, Failed)
    assert (outcome.code, bench.now >= NOON + timedelta(hours=2)) == ("unknown", True)


def test_a_target_that_is_not_configured_says_so(place: Place, var: Path) -> None:
    """P9: prompts wait for their target to be configured, each pass says why, and nothing else is
    held up."""
    settings = load_settings({"PROMPTYOSELF_VAR": str(var), "PROMPTYOSELF_LETTA_CODE_URL": "off"})
    place.targets["letta-code"] = ConfiguredTargets(settings)["letta-code"]
    place.add("agent-0")
    place.add(LOCAL)
    place.ahead += timedelta(seconds=2)
    place.run(place.worker(), until=lambda: place.types()["delivery.abandoned"] == 1)
    assert sum(place.letta.sends.values()) == 1
    (abandoned,) = [e["data"] for e in place.events() if e["type"] == "delivery.abandoned"]
    assert abandoned["code"] == "target_not_configured"
    assert any("isn't configured" in warning for warning in place.warnings)


def test_health_and_doctor_tell_targets_apart(place: Place, code: FakeCode) -> None:
    """P9: the targets that schedules go to are asked, each by itself, and no others."""
    watched = Watched(place.letta)
    watched.targets["letta-code"] = code
    assert {"letta"} == {c.name for c in watched.monitor.health()} & {"letta", "letta-code"}
    place.add(LOCAL, time="in 1h")
    unreachable = Unconfigured("letta-cloud", "")
    place.targets["letta-cloud"] = watched.targets["letta-cloud"] = unreachable
    place.store.settings = place.store.settings._replace(letta_cloud=True)
    place.add(LOCAL, "elsewhere", time="in 1h", target="letta-cloud")
    code.before = down
    health = {check.name: check for check in watched.monitor.health()}
    assert health["letta"].ok
    assert (health["letta-code"].ok, health["letta-code"].code) == (False, "letta_unreachable")
    checks = {check.name: check for check in examine(place.store, place.now(), place.targets)}
    assert checks["letta"].ok
    assert not checks["letta-code"].ok
    assert not checks["letta-cloud"].ok


def test_a_turn_whose_end_is_told_by_itself_is_looked_at_more_often() -> None:
    """No call is made for a look, so what is lost after a turn's end is half as much or less."""
    lost = {}
    for tells in (False, True):
        bench = Bench()
        bench.code.traits = CODE._replace(tells_ends=tells)  # type: ignore[misc]
        ends = 61.0

        def end(call: str, agent: str, bench: Bench = bench, ends: float = ends) -> None:
            if call == "run" and bench.monotonic >= ends:
                bench.code.become("completed")

        bench.code.before = end
        assert isinstance(bench.end(bench.delivery()), Delivered)
        lost[tells] = bench.monotonic - ends
    assert 0 <= lost[True] <= ends / 32 < lost[False] <= ends / 8
