"""The delivery protocol, step by step: a clock turned by hand, the real SDK, and a sandbox that
answers when it is told to. Every test counts the copies in the agent's history at its end."""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from lettas import about

from promptyoself.core.ids import slot_otid
from promptyoself.core.instants import format_utc
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, Outcome
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.delivery import Delivery, Step, Wait
from promptyoself.service.delivery.job_pool import JobError
from promptyoself.targets.api import Message
from promptyoself.targets.letta import LettaClient, calls
from promptyoself.targets.run_snapshot import RunSnapshot, take_run_snapshot

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRACE = 120.0
NEVER = 1e6  # a latency that no test waits for: `finish_runs` ends the runs


class Bench:
    """A sandbox, the way to it, and the time."""

    def __init__(self, call_timeout: float = 5.0) -> None:
        self.now = NOON
        self.monotonic = 0.0
        self.steps: list[Step] = []
        self.sandbox = Sandbox(("echo", "other"), latency=NEVER, clock=lambda: self.now).start()
        self.agent, self.other = self.sandbox.agents
        self.letta = LettaClient(self.sandbox.url, call_timeout=call_timeout)
        self.call_timeout = call_timeout

    def close(self) -> None:
        self.letta.close()
        self.sandbox.stop()

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds

    def claim(self, number: int = 1, **fields: Any) -> Claim:
        slot = format_utc(self.now)
        base = Claim(
            f"sch_{number:08x}",
            self.agent,
            None,
            f"prompt {number}",
            slot,
            "scheduled",
            "",
            1,
            self.now,
            self.now,
        )
        claimed = base._replace(**fields)
        return claimed._replace(otid=slot_otid(claimed.id, claimed.slot))

    def delivery(self, claimed: Claim) -> Delivery:
        return Delivery(
            claimed,
            self.letta,
            lambda: self.now,
            reconcile_grace=GRACE,
            call_timeout=self.call_timeout,
            monotonic=lambda: self.monotonic,
        )

    def begun(self, claimed: Claim) -> Delivery:
        """A delivery that has taken its first step, which sends it if its agent is free."""
        delivery = self.delivery(claimed)
        self.step(delivery)
        return delivery

    def step(self, delivery: Delivery) -> Step:
        """Let it take one step, which isn't its last."""
        step = delivery.advance()
        assert isinstance(step.then, Wait)
        self.steps.append(step)
        return step

    def go(
        self,
        delivery: Delivery,
        until: Callable[[], bool] = lambda: False,
        *,
        most: float = 4 * 3600,
    ) -> Outcome | None:
        """Let it run, time passing as it waits, to its outcome or until something holds."""
        end = self.monotonic + most
        while self.monotonic < end:
            step = delivery.advance()
            self.steps.append(step)
            if not isinstance(step.then, Wait):
                assert not isinstance(step.then, JobError), step.then.text
                return step.then
            assert 0.05 <= step.then.seconds <= 10
            self.pass_(step.then.seconds)
            if until():
                return None
        raise AssertionError("it never ends")

    def end(self, delivery: Delivery, kind: type[Outcome], copies: int | None = None) -> Any:
        """Let it run to its outcome, and count the copies in the end if a number is given."""
        outcome = self.go(delivery)
        assert isinstance(outcome, kind)
        assert copies is None or self.copies(delivery.claim) == copies
        return outcome

    def waits(self, delivery: Delivery, seconds: float) -> None:
        """It has no outcome for so long."""
        end = self.monotonic + seconds
        assert self.go(delivery, lambda: self.monotonic >= end) is None

    @property
    def stalls(self) -> list[Stalled]:
        """What was met in all steps."""
        return [stalled for step in self.steps for stalled in step.stalls]

    def finish(self) -> None:
        self.sandbox.finish_runs()

    def copies(self, claimed: Claim) -> int:
        """How many there are in the end, when nothing is under way any more."""
        self.sandbox.clear_faults()
        self.sandbox.finish_runs()
        assert sum(self.sandbox.deliveries.values()) == len(self.sandbox.deliveries), "doubled"
        return self.sandbox.deliveries[claimed.agent_id, claimed.otid]

    def look(self, *followed: str | None) -> RunSnapshot:
        """What all runs look like now."""
        seen = take_run_snapshot(
            self.letta, [run for run in followed if run], lambda: self.monotonic
        )
        assert seen is not None
        self.sandbox.requests.clear()
        return seen

    def occupy(self, agent: str | None = None, *, stuck: bool = False) -> None:
        """Someone else's run, at which the agent is busy."""
        if stuck:
            self.sandbox.fault("run_stuck")
        self.letta.send(Message(agent or self.agent, "default", "somebody else's", "other-otid"))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.close()


@pytest.fixture
def hasty() -> Iterator[Bench]:
    """One whose calls time out soon, for servers that don't answer."""
    bench = Bench(call_timeout=0.3)
    bench.letta.health()
    yield bench
    bench.close()


# --- the usual ------------------------------------------------------------------------------------


def test_a_free_agent_gets_it_at_once(bench: Bench) -> None:
    """Sent in the first step, followed until its run has completed, and there once."""
    claimed = bench.claim()
    delivery = bench.begun(claimed)
    assert delivery.may_have_arrived
    assert delivery.run_id is not None
    assert delivery.wait.holds_seat
    bench.waits(delivery, 60)
    bench.finish()
    assert bench.go(delivery) == Delivered("run", delivery.run_id)
    assert bench.copies(delivery.claim) == 1
    assert bench.sandbox.messages(bench.agent)[0].text == claimed.text


def test_polling_slows_down(bench: Bench) -> None:
    """A run that takes long is asked after ever more rarely, and costs no seat after a while."""
    delivery = bench.delivery(bench.claim())
    waits = []
    while bench.monotonic < 3600:
        waits.append(bench.step(delivery).then.seconds)
        bench.pass_(waits[-1])
    assert waits[0] == 0.05
    assert waits[-1] == 10
    assert len(waits) < 410
    assert not delivery.wait.holds_seat


def test_it_waits_for_a_busy_agent(bench: Bench) -> None:
    """While another run of the agent is active nothing is sent; as soon as it has ended, it is."""
    bench.occupy()
    delivery = bench.delivery(bench.claim())
    bench.waits(delivery, 60)
    assert not delivery.may_have_arrived
    assert not delivery.wait.holds_seat
    bench.finish()
    assert bench.go(delivery, lambda: delivery.may_have_arrived) is None
    assert delivery.wait.holds_seat
    bench.finish()
    bench.end(delivery, Delivered, copies=1)
    assert bench.sandbox.overlaps == 0


def test_it_makes_way_when_the_agent_stays_busy(bench: Bench) -> None:
    """After two minutes it gives its place up, unsent, to come again."""
    bench.occupy()
    claimed = bench.claim()
    outcome = bench.go(bench.delivery(claimed))
    assert outcome == Abandoned("letta_busy", "The agent is busy with another run.")
    assert 120 <= bench.monotonic <= 135
    assert bench.copies(claimed) == 0


def test_a_leftover_run_is_ignored(bench: Bench) -> None:
    """A run that is still active after two hours is a killed server's, and nobody's concern."""
    bench.occupy(stuck=True)
    bench.pass_(2 * 3600 - 60)
    delivery = bench.delivery(bench.claim())
    bench.waits(delivery, 30)
    assert bench.go(delivery, lambda: len(bench.letta.active_runs(about(bench.agent))) > 1) is None
    assert bench.sandbox.overlaps == 0, "nobody works on it"
    bench.finish()
    bench.end(delivery, Delivered, copies=1)


def test_a_process_that_was_held_up_does_not_send(bench: Bench) -> None:
    """P2: what wasn't sent soon after its claim isn't sent: its worker may count as dead."""
    delivery = bench.delivery(bench.claim())
    bench.now += timedelta(seconds=151)  # suspended: it took no time
    outcome = bench.end(delivery, Abandoned, copies=0)
    assert outcome.code == "too_slow"


def test_what_was_withdrawn_is_not_sent(bench: Bench) -> None:
    """P2: once a worker has handed a slot back, nothing of it leaves any more."""
    delivery = bench.delivery(bench.claim())
    bench.occupy()
    bench.step(delivery)
    assert delivery.withdraw()
    bench.finish()
    assert bench.go(delivery) == Abandoned(
        "worker_stopped", "The worker was stopped before it was sent."
    )
    assert bench.copies(delivery.claim) == 0


def test_what_was_sent_cannot_be_withdrawn(bench: Bench) -> None:
    """Withdrawing tells that it may have arrived, and following it goes on."""
    delivery = bench.begun(bench.claim())
    assert not delivery.withdraw()
    bench.finish()
    bench.end(delivery, Delivered)


# --- sends that go wrong --------------------------------------------------------------------------

QUOTA = "RATE_LIMIT_EXCEEDED: Error code: 429 - {'error': {'code': 'insufficient_quota'}}"

# fault, its parameters -> the outcome's class, its code or way, how many copies
NOT_SENT = [
    ("rate_limit", {"retry_after": 90}, Abandoned, "letta_rate_limited", 0),
    ("conflict", {}, Abandoned, "letta_conflict", 0),
    ("unauthorized", {}, Abandoned, "letta_unauthorized", 0),
    ("status", {"status": 408}, Abandoned, "letta_timeout", 0),
    ("not_found", {}, Failed, "agent_not_found", 0),
    ("unprocessable", {}, Failed, "letta_rejected", 0),
    ("status", {"status": 400}, Failed, "letta_rejected", 0),
    ("model_401", {}, Failed, "model_refused", 0),
    ("model_402", {}, Abandoned, "letta_out_of_credits", 0),
    ("out_of_credits", {"retry_after": 90}, Abandoned, "letta_out_of_credits", 0),
    ("status", {"status": 302}, Abandoned, "letta_unreachable", 0),
    ("run_fails_before", {"error": QUOTA}, Abandoned, "letta_out_of_credits", 0),
    ("run_fails_after", {"error": QUOTA}, Delivered, "history", 1),
    ("run_fails_before", {}, Abandoned, "run_failed", 0),
    ("run_pending_approval", {}, Abandoned, "letta_busy", 0),
    ("run_fails_after", {}, Delivered, "history", 1),
    ("slow", {"seconds": 0.05}, Delivered, "run", 1),
    ("pending_approval", {}, Delivered, "run", 1),  # one 409 is waited out
    ("busy", {}, Delivered, "run", 1),
]


@pytest.mark.parametrize(("fault", "params", "kind", "code", "copies"), NOT_SENT)
def test_what_a_fault_comes_to(
    bench: Bench, fault: str, params: dict[str, Any], kind: Any, code: str, copies: int
) -> None:
    """P2: each fault of a send has its outcome; nothing is called delivered that isn't there."""
    claimed = bench.claim()
    bench.sandbox.latency = 0
    bench.sandbox.fault(fault, **params)
    outcome = bench.end(bench.delivery(claimed), kind)
    assert (outcome.via if isinstance(outcome, Delivered) else outcome.code) == code
    if isinstance(outcome, Failed):
        assert outcome.permanent
    if params.get("retry_after"):
        assert outcome.retry_after == 90  # type: ignore[union-attr]
    if fault == "run_fails_after":
        assert outcome.error == params.get("error", "INTERNAL_SERVER_ERROR: a fault on demand")
    assert bench.copies(claimed) == copies


@pytest.mark.parametrize("fault", ["busy", "pending_approval"])
def test_an_occupied_agent_is_waited_for_but_not_for_ever(bench: Bench, fault: str) -> None:
    """P9: 409 for an approval or a busy agent is no failure and no doubt. It is told at once, and
    once, and waited out; then the delivery makes way."""
    bench.sandbox.fault(fault, times=1000)
    delivery = bench.begun(bench.claim())
    (stalled,) = bench.stalls
    assert (stalled.code, stalled.http_status, stalled.in_doubt) == ("letta_busy", 409, False)
    assert stalled.retry_at == bench.now + timedelta(seconds=120)
    outcome = bench.end(delivery, Abandoned, copies=0)
    assert (outcome.code, outcome.http_status) == ("letta_busy", 409)
    assert bench.stalls == [stalled]
    assert 120 <= bench.monotonic <= 140


DOUBTFUL: list[tuple[str, dict[str, Any], bool]] = [
    ("refuse", {}, False),
    ("lost_reply", {}, True),
    ("server_error", {}, False),
    ("server_error", {"stored": True}, True),
    ("hang", {}, False),
    ("hang", {"stored": True}, True),
    ("garbage", {}, False),
    ("garbage", {"stored": True}, True),
    ("wrong_shape", {}, False),
    ("wrong_shape", {"stored": True}, True),
    ("drip", {"where": "headers"}, True),
    ("drip", {"where": "body"}, True),
]


@pytest.mark.parametrize("conversation", [False, True])
@pytest.mark.parametrize(("fault", "params", "stored"), DOUBTFUL)
def test_what_is_in_doubt_is_found_out(
    hasty: Bench, fault: str, params: dict[str, Any], stored: bool, conversation: bool
) -> None:
    """P2: after an answer that says nothing, the tagged run or the lack of any trace decides; never
    a second send."""
    claimed = hasty.claim(
        conversation_id=hasty.sandbox.create_conversation(hasty.agent) if conversation else None
    )
    hasty.sandbox.fault(fault, **params)
    delivery = hasty.begun(claimed)
    (stalled,) = hasty.stalls
    assert stalled.in_doubt
    assert stalled.retry_at == hasty.now + timedelta(seconds=GRACE)
    statuses = {"server_error": 500, "garbage": 200, "wrong_shape": 200}
    assert stalled.http_status == statuses.get(fault)
    hasty.sandbox.clear_faults()
    assert not delivery.wait.holds_seat
    if stored:
        hasty.waits(delivery, 600)
        hasty.finish()
        outcome = hasty.end(delivery, Delivered)
    else:
        hasty.waits(delivery, GRACE - 11)
        outcome = hasty.end(delivery, Abandoned)
        assert (outcome.code, outcome.at_once) == ("no_trace", True)
        assert GRACE <= hasty.monotonic < GRACE + 20
        waited = int(re.findall(r"No trace of it (\d+) s after", outcome.error)[0])
        assert abs(waited - hasty.monotonic) <= 11, "the time that it really took"
        assert outcome.error.endswith(stalled.error)
    assert (outcome.http_status, outcome.detail) == (stalled.http_status, stalled.detail)
    assert hasty.copies(delivery.claim) == stored


def test_the_run_of_a_lost_reply_may_be_over_at_once(hasty: Bench) -> None:
    """P2: (a) a message that is in the history already counts as delivered, by that."""
    hasty.sandbox.latency = 0
    hasty.sandbox.fault("lost_reply")
    outcome = hasty.end(hasty.delivery(hasty.claim()), Delivered, copies=1)
    assert outcome.via == "history"


# --- what is met on the way -----------------------------------------------------------------------


def test_what_a_server_said_is_told_before_anything_is_asked(bench: Bench) -> None:
    """P9: the answer that leaves it in doubt is there in the next step, without another call, and
    without the prompt that it quotes."""
    claimed = bench.claim(text="Call the dentist about Tuesday.")
    detail = f"could not store {claimed.text!r}:\nno space left"
    bench.sandbox.fault("server_error", detail=detail)
    delivery = bench.begun(claimed)
    (stalled,) = bench.stalls
    assert (stalled.code, stalled.http_status) == ("letta_server_error", 500)
    assert stalled.in_doubt
    assert stalled.detail == "could not store '…': no space left"
    assert sum(bench.sandbox.requests.values()) == bench.sandbox.requests["send"] + 1
    bench.waits(delivery, 60)
    assert bench.stalls == [stalled], "it is told once"


def test_another_attempt_waits_where_a_server_asks_for_patience(bench: Bench) -> None:
    """P2: after a 503 with Retry-After nothing is sent before that and the doubt are over."""
    bench.sandbox.fault("status", status=503, retry_after=600)
    outcome = bench.end(bench.delivery(bench.claim()), Abandoned, copies=0)
    assert (outcome.code, outcome.at_once) == ("no_trace", False)
    assert outcome.retry_after is not None
    assert 470 <= outcome.retry_after <= 480


@pytest.mark.parametrize(
    ("route", "fault", "params", "code", "status"),
    [
        ("run", "server_error", {"status": 503}, "letta_server_error", 503),
        ("run", "garbage", {}, "letta_unreadable", 200),
        ("run", "unauthorized", {}, "letta_unauthorized", 401),
        ("run", "rate_limit", {}, "letta_rate_limited", 429),
        ("run", "status", {"status": 402}, "letta_out_of_credits", 402),
        ("run", "status", {"status": 404, "detail": "Run not found"}, "run_not_found", 404),
        ("messages", "refuse", {}, "letta_connection_lost", None),
        ("messages", "server_error", {}, "letta_server_error", 500),
    ],
)
def test_what_cannot_be_asked_is_told(
    bench: Bench, route: str, fault: str, params: dict[str, Any], code: str, status: int | None
) -> None:
    """P9: a server that doesn't say what became of it leaves a trace, too, while it is asked on."""
    bench.sandbox.latency = 0 if route == "messages" else NEVER
    if route == "messages":
        bench.sandbox.fault("run_fails_before")
    delivery = bench.begun(bench.claim())
    bench.sandbox.fault(fault, route=route, times=3, **params)
    for _ in range(5):
        step = delivery.advance()
        bench.pass_(step.then.seconds if isinstance(step.then, Wait) else 10)
        if step.stalls:
            break
    assert [(s.code, s.http_status, s.in_doubt) for s in step.stalls] == [(code, status, True)]
    bench.copies(delivery.claim)


def test_the_dead_leave_word_of_what_they_had_met(bench: Bench) -> None:
    """P9: the outcome of a delivery that was adopted has the answer that its sender had got."""
    met = Stalled("letta_server_error", "It answered with HTTP 500.", True, 500, "boom")
    claimed = bench.claim(in_doubt=True, stalled=met)
    bench.pass_(400)
    outcome = bench.end(bench.delivery(claimed), Abandoned)
    assert (outcome.code, outcome.http_status, outcome.detail) == ("no_trace", 500, "boom")
    assert met.error in outcome.error


# --- in doubt -------------------------------------------------------------------------------------


def sent_by_the_dead(bench: Bench, number: int = 1, **fields: Any) -> Claim:
    """A worker claims, sends, and dies before it can record anything."""
    claimed = bench.claim(number, **fields)
    bench.letta.send(Message(claimed.agent_id, claimed.conversation, claimed.text, claimed.otid))
    return claimed


@pytest.mark.parametrize(
    ("seconds", "clock_set", "in_doubt", "changes"),
    [
        pytest.param(5, 0, True, {}, id="(a) in doubt"),
        pytest.param(0, -5, True, {}, id="in doubt, and the clock was set back"),
        pytest.param(0, 5, True, {}, id="in doubt, and the clock was set forward"),
        pytest.param(0, 0, True, {"conversation_id": "conv-1"}, id="in doubt, since changed"),
        pytest.param(60, 0, False, {"attempt": 2}, id="a further attempt"),
        pytest.param(20 * 3600, 0, False, {}, id="a late slot of a log that was restored"),
    ],
)
def test_what_arrived_is_found_in_the_history(
    bench: Bench,
    monkeypatch: pytest.MonkeyPatch,
    seconds: int,
    clock_set: int,
    in_doubt: bool,
    changes: dict[str, Any],
) -> None:
    """P2: what a dead worker's agent has in its history was delivered, and isn't sent again;
    whichever way the clock was turned since, in hours, and whatever conversation its schedule names
    by now."""
    monkeypatch.setattr(calls, "PAGE", 1)  # so that the search ends where it may
    talking = "conversation_id" in changes
    talk = bench.sandbox.create_conversation(bench.agent) if talking else None
    claimed = sent_by_the_dead(bench, conversation_id=talk)
    bench.finish()
    bench.pass_(seconds)
    bench.now += timedelta(hours=clock_set)
    later = claimed._replace(in_doubt=in_doubt, **changes)
    if not in_doubt:
        later = later._replace(claimed_at=bench.now, since=bench.now)
    delivery = bench.delivery(later)
    assert bench.end(delivery, Delivered, copies=1).via == "history"
    assert delivery.may_have_arrived is in_doubt


UNKNOWN_RUN = "run-00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"in_doubt": True}, id="(b) in doubt"),
        pytest.param({"in_doubt": True, "run_id": UNKNOWN_RUN}, id="its run is not known any more"),
        pytest.param({"attempt": 2}, id="a further attempt, which isn't sent beside it"),
    ],
)
def test_an_active_run_that_bears_our_tag_is_followed(bench: Bench, fields: dict[str, Any]) -> None:
    """P2: it is waited for; (c) when it has ended, it decides."""
    claimed = sent_by_the_dead(bench, **fields)
    delivery = bench.delivery(claimed)
    bench.waits(delivery, 3600)
    assert delivery.may_have_arrived
    bench.finish()
    assert bench.end(delivery, Delivered, copies=1).via == "run"


@pytest.mark.parametrize("left", ["sent", "under way", "over", "made", "nothing"])
def test_the_conversation_that_was_made_for_it_is_in_the_outcome(bench: Bench, left: str) -> None:
    """P2: whatever a dead worker has left: there is one conversation, with one copy in it, and the
    outcome says which."""
    claimed = bench.claim(conversation_id="new", in_doubt=left != "sent")
    message = Message(bench.agent, "new", claimed.text, claimed.otid)
    if left in ("under way", "over"):
        bench.letta.send(message)
    if left == "made":
        bench.sandbox.create_conversation(bench.agent, f"Stretch [{claimed.otid}]")
    if left == "over":
        bench.finish()
    if left in ("made", "nothing"):
        assert bench.end(bench.delivery(claimed), Abandoned, copies=0).code == "no_trace"
        claimed = claimed._replace(in_doubt=False, attempt=2, claimed_at=bench.now)
    delivery = bench.delivery(claimed) if left == "over" else bench.begun(claimed)
    bench.finish()
    outcome = bench.end(delivery, Delivered, copies=1)
    assert outcome.via == ("history" if left == "over" else "run")
    assert [outcome.conversation_id] == list(bench.sandbox.conversations)


def test_in_doubt_with_a_run_that_fails(bench: Bench) -> None:
    """P2: (c) a tagged run that ends without having read the prompt leaves the slot to be tried
    again."""
    bench.sandbox.fault("run_fails_before")
    claimed = sent_by_the_dead(bench, in_doubt=True)
    delivery = bench.delivery(claimed)
    bench.waits(delivery, 10)
    bench.finish()
    outcome = bench.end(delivery, Abandoned, copies=0)
    assert outcome.code == "run_failed"


def test_in_doubt_with_a_run_that_never_ends(bench: Bench) -> None:
    """P2: (b) after two hours an active run is a leftover: failed, and said to be unknown."""
    bench.sandbox.fault("run_stuck")
    claimed = sent_by_the_dead(bench, in_doubt=True)
    outcome = bench.end(bench.delivery(claimed), Failed, copies=0)
    assert (outcome.code, outcome.permanent) == ("unknown", False)
    assert 7200 <= bench.monotonic <= 7220


def test_a_suspended_machine_loses_no_patience(bench: Bench) -> None:
    """P2: three hours asleep are not three hours of waiting: a run that goes on is still followed,
    and the lack of a trace still proves nothing."""
    delivery = bench.begun(bench.claim())
    bench.now += timedelta(hours=3)
    bench.waits(delivery, 60)
    bench.finish()
    bench.end(delivery, Delivered, copies=1)
    bench.sandbox.fault("refuse")
    lost = bench.begun(bench.claim(2))
    bench.now += timedelta(hours=3)
    bench.waits(lost, 100)
    assert bench.copies(lost.claim) == 0


def test_a_log_that_is_ahead_of_the_clock_finds_the_message(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: where the clock was set back, the log's claim lies in the future; the message doesn't."""
    monkeypatch.setattr(calls, "PAGE", 1)  # so that the search ends where it may
    ahead = bench.now + timedelta(hours=6)
    claimed = sent_by_the_dead(
        bench, in_doubt=True, claimed_at=ahead, since=ahead, slot=format_utc(ahead)
    )
    bench.finish()
    bench.end(bench.delivery(claimed), Delivered, copies=1)


def test_in_doubt_without_a_trace(bench: Bench) -> None:
    """P2: (d) without any trace for the whole grace, it may be sent again, under the same otid;
    and then there is one."""
    claimed = bench.claim(in_doubt=True)
    outcome = bench.end(bench.delivery(claimed), Abandoned)
    assert outcome.at_once
    assert GRACE <= bench.monotonic < GRACE + 11
    again = claimed._replace(in_doubt=False, attempt=2, claimed_at=bench.now)
    delivery = bench.begun(again)
    bench.finish()
    bench.end(delivery, Delivered, copies=1)


def test_an_old_doubt_is_settled_at_once(bench: Bench) -> None:
    """P2: (d) where the dead worker's time to send was over long ago, nobody need wait any more."""
    claimed = bench.claim(in_doubt=True)
    bench.pass_(3600)
    began = bench.monotonic
    bench.end(bench.delivery(claimed), Abandoned)
    assert bench.monotonic == began


@pytest.mark.parametrize("fault", ["server_error", "garbage", "unauthorized", "refuse"])
def test_a_server_that_does_not_answer_leaves_it_in_doubt(bench: Bench, fault: str) -> None:
    """P2: (e) as long as nobody can be asked, nothing is concluded, for hours."""
    claimed = sent_by_the_dead(bench, in_doubt=True)
    bench.finish()
    bench.sandbox.fault(fault, route="any", times=100_000)
    delivery = bench.delivery(claimed)
    bench.waits(delivery, 3 * 3600)
    bench.sandbox.clear_faults()
    bench.end(delivery, Delivered, copies=1)


def test_a_server_that_is_down_leaves_it_in_doubt(bench: Bench) -> None:
    """P2: (e) the same where nobody listens; and when it is back, its history tells."""
    delivery = bench.begun(bench.claim())
    bench.finish()
    bench.sandbox.stop()
    bench.waits(delivery, 3 * 3600)
    bench.sandbox.start()
    bench.end(delivery, Delivered, copies=1)


@pytest.mark.parametrize("route", ["runs", "messages"])
def test_half_an_answer_proves_nothing(bench: Bench, route: str) -> None:
    """P2: without the runs or without the history there is no telling, and nothing is concluded."""
    claimed = bench.claim(in_doubt=True)
    bench.sandbox.fault("server_error", route=route, times=1000)
    bench.waits(bench.delivery(claimed), 3600)
    assert bench.copies(claimed) == 0


def test_a_server_that_lost_its_runs(bench: Bench) -> None:
    """P2: a killed server leaves the run active for ever: after two hours it is unknown."""
    delivery = bench.begun(bench.claim())
    bench.sandbox.stop(lose_runs=True)
    bench.sandbox.start()
    outcome = bench.end(delivery, Failed, copies=0)
    assert outcome.code == "unknown"


def test_a_run_that_its_worker_noted(bench: Bench) -> None:
    """What a stopping worker left word of is asked for directly."""
    claimed = bench.claim(in_doubt=True)
    run_id = bench.letta.send(Message(bench.agent, "default", claimed.text, claimed.otid)).run_id
    bench.finish()
    outcome = bench.go(bench.delivery(claimed._replace(run_id=run_id)))
    assert outcome == Delivered("run", run_id)
    assert bench.copies(claimed) == 1


def test_a_deleted_agent_takes_the_evidence_with_it(bench: Bench) -> None:
    """P2: in doubt about an agent that is gone, it is failed, and said to be unknown."""
    delivery = bench.begun(bench.claim())
    bench.sandbox.delete_agent(bench.agent)
    outcome = bench.end(delivery, Failed)
    assert (outcome.code, outcome.permanent) == ("unknown", False)
    assert bench.monotonic < 10


def test_another_servers_404_is_not_letta_s(bench: Bench) -> None:
    """P2: a proxy's 404 while Letta is down neither fails a slot for good nor settles a doubt."""
    body = {"status": 404, "detail": "Not Found"}
    bench.sandbox.fault("status", **body)
    outcome = bench.end(bench.delivery(bench.claim()), Abandoned, copies=0)
    assert outcome.code == "letta_unreachable"
    doubtful = sent_by_the_dead(bench, 2, in_doubt=True)
    bench.finish()
    bench.sandbox.fault("status", route="any", times=100_000, **body)
    delivery = bench.delivery(doubtful)
    bench.waits(delivery, 3 * 3600)
    bench.sandbox.clear_faults()
    bench.end(delivery, Delivered, copies=1)


# --- further attempts -----------------------------------------------------------------------------


def test_one_that_ends_between_the_two_questions_is_seen(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2: a run that ends while we ask is in the history when we have asked for the runs first."""
    claimed = sent_by_the_dead(bench)
    bench.pass_(10)
    ask = bench.letta.active_runs

    def just_missed(agent_id: str) -> Any:
        bench.finish()
        return ask(agent_id)

    monkeypatch.setattr(bench.letta, "active_runs", just_missed)
    for claim in (claimed._replace(attempt=2), claimed._replace(in_doubt=True)):
        bench.end(bench.delivery(claim), Delivered, copies=1)


@pytest.mark.parametrize("fault", ["server_error", "garbage", "refuse"])
def test_without_knowing_whether_it_is_free_nothing_is_sent(bench: Bench, fault: str) -> None:
    """Where the runs can't be read, the attempt is given up, certainly unsent."""
    bench.sandbox.fault(fault, route="runs")
    delivery = bench.delivery(bench.claim())
    bench.end(delivery, Abandoned, copies=0)
    assert not delivery.may_have_arrived


def test_it_says_that_letta_has_answered(bench: Bench) -> None:
    """A delivery tells whether the server has answered it, which ends a pause of the others."""
    claimed = bench.claim()
    delivery = bench.delivery(claimed)
    bench.sandbox.stop()
    bench.end(delivery, Abandoned)
    assert not any(step.heard for step in bench.steps)
    bench.sandbox.start()
    delivery = bench.delivery(claimed)
    assert bench.step(delivery).heard


# --- looks that are shared ------------------------------------------------------------------------


def test_a_look_spares_the_question(bench: Bench) -> None:
    """P8: upon a look that shows its agent free, it sends, and asks nothing else."""
    bench.occupy(bench.other)
    delivery = bench.delivery(bench.claim())
    assert delivery.wait.wants == "agent"
    assert delivery.use(bench.look()) is False
    assert bench.step(delivery).heard
    assert bench.sandbox.requests == {"send": 1}
    assert bench.copies(delivery.claim) == 1


def test_a_look_asked_for_before_the_claim_is_not_believed(bench: Bench) -> None:
    """P2: a run that began since isn't in it: it asks by itself, and waits."""
    seen = bench.look()
    bench.occupy()
    bench.pass_(0.01)
    delivery = bench.delivery(bench.claim())
    assert delivery.use(seen) is None
    bench.waits(delivery, 30)
    assert not delivery.may_have_arrived
    assert bench.copies(delivery.claim) == 0
    assert bench.sandbox.overlaps == 0


def test_a_look_that_lay_about_is_not_sent_upon(bench: Bench) -> None:
    """P2: where the thread that was to send was held up, the agent is asked for again."""
    delivery = bench.delivery(bench.claim())
    assert delivery.use(bench.look()) is False
    bench.occupy()
    bench.pass_(1.1)
    bench.waits(delivery, 30)
    assert not delivery.may_have_arrived
    assert bench.sandbox.overlaps == 0


def test_a_look_is_used_once(bench: Bench) -> None:
    """P2: what showed the agent busy, or a send refused, is asked for again."""
    delivery = bench.delivery(bench.claim())
    assert delivery.use(bench.look()) is False
    bench.sandbox.fault("busy")
    bench.step(delivery)
    bench.occupy()
    bench.sandbox.requests.clear()
    bench.step(delivery)
    assert bench.sandbox.requests == {"runs": 1}
    assert not delivery.may_have_arrived


def test_a_look_shows_the_agent_busy(bench: Bench) -> None:
    """P2: what it shows is heeded as an answer of its own would be: another's run is waited for,
    one's own followed, a leftover ignored."""
    bench.occupy()
    claimed = bench.claim()
    delivery = bench.delivery(claimed)
    assert delivery.use(bench.look()) is False
    bench.step(delivery)
    assert not delivery.wait.holds_seat
    assert delivery.wait.wants
    assert bench.sandbox.requests == {}
    bench.finish()
    bench.pass_(1)
    assert delivery.use(bench.look()) is False
    bench.step(delivery)
    assert bench.sandbox.requests == {"send": 1}
    again = bench.delivery(claimed._replace(attempt=2))
    assert again.use(bench.look()) is False
    bench.step(again)
    assert again.run_id == delivery.run_id
    assert bench.copies(delivery.claim) == 1


def followed(bench: Bench) -> Delivery:
    """A delivery that was sent."""
    delivery = bench.begun(bench.claim())
    assert delivery.wait.wants == "run"
    bench.pass_(0.1)
    return delivery


def test_a_look_tells_how_the_run_stands(bench: Bench) -> None:
    """P8: as long as it goes on, and where it has completed, no call is made at all."""
    delivery = followed(bench)
    for _ in range(3):
        assert delivery.use(bench.look(delivery.run_id)) is True
        bench.pass_(bench.step(delivery).then.seconds)
        assert delivery.wait.wants == "run"
    bench.finish()
    assert delivery.use(bench.look(delivery.run_id)) is True
    assert bench.go(delivery) == Delivered("run", delivery.run_id)
    assert bench.sandbox.requests == {}
    assert bench.copies(delivery.claim) == 1


def test_a_look_asked_for_before_the_send_tells_nothing(bench: Bench) -> None:
    """P2: that it lacks the run doesn't mean that this is over."""
    seen = bench.look()
    bench.pass_(0.01)
    delivery = bench.begun(bench.claim())
    assert delivery.use(seen) is None
    bench.waits(delivery, 60)


def test_a_run_that_a_look_lacks_is_asked_for(bench: Bench) -> None:
    """P2: whether it is over, and how it ended, its own answer says."""
    delivery = followed(bench)
    bench.finish()
    assert delivery.use(bench.look()) is False
    assert bench.go(delivery) == Delivered("run", delivery.run_id)
    assert bench.sandbox.requests == {"run": 1}
    assert not any(step.contradicts for step in bench.steps)


def test_a_look_that_lacks_an_active_run_is_contradicted(bench: Bench) -> None:
    """P2: nothing is concluded from it, and it is noted that such lists can't be relied upon."""
    delivery = followed(bench)
    assert delivery.use(RunSnapshot(bench.monotonic, bench.monotonic, {}, {})) is False
    step = bench.step(delivery)
    assert step.contradicts
    bench.pass_(step.then.seconds)
    bench.finish()
    bench.end(delivery, Delivered, copies=1)


@pytest.mark.parametrize(("fault", "copies"), [("run_fails_before", 0), ("run_fails_after", 1)])
def test_a_failed_run_in_a_look_is_no_outcome_yet(bench: Bench, fault: str, copies: int) -> None:
    """P2: the agent's history is looked through before anything is said of a run that failed."""
    bench.sandbox.fault(fault)
    delivery = followed(bench)
    bench.finish()
    assert delivery.use(bench.look(delivery.run_id)) is False
    outcome = bench.go(delivery)
    assert isinstance(outcome, Delivered if copies else Abandoned)
    assert set(bench.sandbox.requests) == {"messages"}
    assert bench.copies(delivery.claim) == copies


def test_in_doubt_no_look_is_believed(hasty: Bench) -> None:
    """P2: where it isn't known whether it was sent, a delivery asks by itself, at every step."""
    orphan = hasty.delivery(hasty.claim(in_doubt=True))
    assert orphan.wait.wants is None
    assert orphan.use(hasty.look()) is None
    hasty.sandbox.fault("hang")
    delivery = hasty.delivery(hasty.claim(2))
    for _ in range(5):
        hasty.pass_(hasty.step(delivery).then.seconds)
        assert delivery.wait.wants is None
        assert delivery.use(hasty.look()) is None
