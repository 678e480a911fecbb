"""What is claimed, what is skipped, and what an outcome means: decided on the state alone."""

from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from world import DELIVERED, World, check_deliveries, check_slots

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import slot_otid
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.records import WorkerStopped
from promptyoself.rules import claim
from promptyoself.rules.claim import Claim, orphans
from promptyoself.rules.outcome import PARK_AFTER, Abandoned, Delivered, Failed
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.request import Request

PERMANENT = Failed("agent_not_found", "There is no such agent.", permanent=True)
TRANSIENT = Abandoned("letta_unreachable", "Nobody answers.")


@pytest.fixture
def world() -> World:
    return World()


# --- claims ---------------------------------------------------------------------------------------


def test_nothing_is_claimed_before_it_is_due(world: World) -> None:
    """A slot is claimed at its instant and not a microsecond earlier."""
    id_ = world.register(time="in 60s")
    due = parse_utc(str(world.state.schedules[id_].next_run))
    world.now = due - timedelta(microseconds=1)
    assert world.claim().records == []
    world.now = due
    made = world.claim_one()
    assert (made.id, made.slot, made.attempt, made.kind) == (id_, format_utc(due), 1, "scheduled")
    assert made.otid == slot_otid(id_, made.slot)
    assert not made.in_doubt


def test_an_agent_gets_one_claim_at_a_time_oldest_first(world: World) -> None:
    """P2: two messages at once lose one from an agent's context, so it gets one, the oldest."""
    later = world.register(prompt="later", time="in 20s")
    sooner = world.register(prompt="sooner", time="in 10s")
    other = world.register("agent-b", time="in 30s")
    world.advance(minutes=1)
    assert [made.id for made in world.claim().claims] == [sooner, other]
    assert world.claim().records == []
    first, _ = list(orphans(world.state, ["wrk_1"], world.now))
    world.settle(first)
    assert [made.id for made in world.claim(worker="wrk_2").claims] == [later]


def test_an_agent_that_another_worker_serves_is_left_alone(world: World) -> None:
    """P5: what one worker has claimed keeps every other worker from that agent."""
    world.register(prompt="one")
    world.register(prompt="two")
    world.advance(minutes=1)
    assert len(world.claim(worker="wrk_1").claims) == 1
    assert world.claim(worker="wrk_2").records == []


def test_no_more_is_claimed_than_there_are_seats(world: World) -> None:
    """Claims stop at the number of seats, and go on with the next oldest."""
    ids = [world.register(f"agent-{n}", time=f"in {n + 1}s") for n in range(5)]
    world.advance(minutes=1)
    assert [made.id for made in world.claim(seats=2).claims] == ids[:2]
    assert [made.id for made in world.claim(seats=2).claims] == ids[2:4]
    assert world.claim(seats=0).records == []


def test_what_becomes_due_after_the_beginning_is_left_alone(world: World) -> None:
    """One pass of `execute` has an end: what is due only after it began is for the next."""
    first = world.register("agent-a", time="in 10s")
    world.register("agent-b", time="in 20s")
    began = world.advance(seconds=10)
    world.advance(seconds=30)
    assert [made.id for made in world.claim(until=began).claims] == [first]


def test_a_schedule_that_cannot_be_decided_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where deciding about one schedule fails, the others are claimed, and nothing is half done."""
    broken = world.register("agent-a", time="in 10s")
    sound = world.register("agent-b", time="in 20s")
    decide = claim.due_slots

    def fragile(schedule: Any, now: Any) -> Any:
        if schedule.id == broken:
            raise KeyError("No time zone found")
        return decide(schedule, now)

    monkeypatch.setattr(claim, "due_slots", fragile)
    world.advance(minutes=1)
    decision = world.claim()
    assert [made.id for made in decision.claims] == [sound]
    assert [id_ for _, id_ in decision.records] == [sound]
    assert list(decision.broken) == [broken]


def test_one_decision_has_a_bounded_number_of_events(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much is to be skipped, an append stays small; the rest follows in the next."""
    monkeypatch.setattr(claim, "_MOST_RECORDS", 10)
    for number in range(12):
        world.register(prompt=str(number), every="1h", tier=2)
    world.advance(hours=1)
    sizes = []
    while records := world.claim().records:
        sizes.append(len(records))
    assert sizes == [10, 2]


# --- slots that were missed -----------------------------------------------------------------------


def test_coalesce_delivers_the_latest_and_skips_the_others(world: World) -> None:
    """P2: after a pause of the loop one delivery is made, and the rest recorded, in one append."""
    id_ = world.register(every="10m")
    world.advance(minutes=65)
    decision = world.claim()
    skipped, attempted = (record for record, _ in decision.records)
    assert (skipped.why, skipped.slots) == ("misfire", 5)  # type: ignore[union-attr]
    assert skipped.slot == "2026-11-20T12:10:00.000000Z"  # type: ignore[union-attr]
    assert skipped.next_run == attempted.slot == "2026-11-20T13:00:00.000000Z"  # type: ignore
    assert world.state.schedules[id_].next_run == "2026-11-20T13:10:00.000000Z"
    assert [line["slots"] for line in decision.skipped] == [5]


def test_skip_delivers_only_what_is_on_time(world: World) -> None:
    """P2: with --misfire skip a late slot is recorded as skipped, and a punctual one delivered."""
    world.register(every="10m", misfire="skip")
    world.advance(minutes=15)
    decision = world.claim()
    assert decision.claims == []
    assert [line["why"] for line in decision.skipped] == ["misfire"]
    world.advance(minutes=5, seconds=90)
    assert world.claim_one().slot == "2026-11-20T12:20:00.000000Z"


def test_all_delivers_each_within_the_grace(world: World) -> None:
    """P2: with --misfire all each slot within the grace gets its own delivery, one by one, with a
    minute's rest after each."""
    world.register(every="10m", misfire="all", grace="25m")
    world.advance(minutes=51)
    slots = []
    while claims := world.claim().claims:
        slots.append(claims[0].slot[11:16])
        world.settle(claims[0])
        world.advance(seconds=59)
        assert not world.claim().records
        world.advance(seconds=1)
    assert slots == ["12:30", "12:40", "12:50"]
    skipped = world.last("delivery.skipped")
    assert (skipped.why, skipped.slots) == ("grace", 2)


def test_slots_during_a_long_delivery_are_overlaps(world: World) -> None:
    """P2: what came due while an earlier slot was still being delivered is skipped as overlap."""
    id_ = world.register(every="10m")
    made = world.advance(minutes=10) and world.claim_one()
    world.advance(minutes=35)
    assert world.claim().records == []
    world.settle(made)
    world.advance(minutes=6)
    assert world.claim_one().slot == "2026-11-20T12:50:00.000000Z"
    skipped = world.last("delivery.skipped")
    assert (skipped.why, skipped.slots, skipped.last[11:16]) == ("overlap", 3, "12:40")
    assert world.types(id_)[-2:] == ["skipped", "attempted"]


# --- how schedules end ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "became", "status"),
    [(DELIVERED, "delivered", "completed"), (PERMANENT, "failed", "failed")],
)
def test_a_one_off_ends_with_its_slot(world: World, outcome: Any, became: str, status: str) -> None:
    """In the same append. One that won't be delivered has failed as a whole."""
    made = world.claimed()
    assert world.settle(made, outcome) == became
    assert world.types(made.id) == ["attempted", became, "completed"]
    assert world.state.schedules[made.id].status == status
    assert world.last("schedule.completed")[:2] == ("once", status)


def test_a_one_off_missed_beyond_its_grace_is_failed(world: World) -> None:
    """P2: a one-off that nobody delivered within its grace is skipped and failed, not lost."""
    id_ = world.register(grace="1h")
    world.advance(hours=2)
    assert world.claim().claims == []
    assert world.types(id_) == ["skipped", "completed"]
    assert world.last("delivery.skipped").why == "grace"
    assert world.state.schedules[id_].status == "failed"


def test_repetitions_come_to_an_end(world: World) -> None:
    """A schedule with a largest number of repetitions is completed after the last one's outcome."""
    id_ = world.register(every="10m", max_repetitions=2)
    for _ in range(2):
        assert world.state.schedules[id_].status == "active"
        world.advance(minutes=10)
        world.settle(world.claim_one())
    assert world.last("schedule.completed")[:2] == ("max_repetitions", "completed")
    world.advance(hours=1)
    assert world.claim().records == []


def test_until_ends_a_schedule(world: World) -> None:
    """The last slot before --until ends its schedule, whether it was delivered or skipped."""
    delivered = world.register("agent-a", every="10m", until="2026-11-20T12:15Z")
    skipped = world.register("agent-b", every="10m", until="2026-11-20T12:15Z", tier=2)
    world.advance(minutes=10)
    world.settle(world.claim_one())
    for id_ in (delivered, skipped):
        assert world.state.schedules[id_].status == "completed"
    assert world.last("schedule.completed")[:2] == ("until", "completed")


def test_five_permanent_failures_in_a_row_park_a_schedule(world: World) -> None:
    """A schedule that can only fail stops after five; one success sets the count back to 0."""
    id_ = world.register(every="10m")
    for number in range(1, PARK_AFTER * 2 + 1):
        world.advance(minutes=10)
        world.settle(world.claim_one(), DELIVERED if number == PARK_AFTER else PERMANENT)
        parked = world.state.schedules[id_].status == "failed"
        assert parked is (number == PARK_AFTER * 2)
    assert world.last("delivery.failed").parked
    world.advance(hours=1)
    assert world.claim().records == []
    resume(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(minutes=10)
    assert world.claim_one().id == id_


def test_transient_failures_do_not_park(world: World) -> None:
    """Failures that may pass end their slots, never their schedule."""
    id_ = world.register(every="10m")
    for _ in range(PARK_AFTER + 2):
        world.advance(minutes=10)
        world.settle(world.claim_one(), Failed("unknown", "Nobody knows.", permanent=False))
    assert world.state.schedules[id_].status == "active"


# --- attempts -------------------------------------------------------------------------------------


def test_a_failed_attempt_is_repeated_with_the_same_otid(world: World) -> None:
    """P2: another attempt comes later, of the same slot, under the same otid, and counted."""
    first = world.claimed()
    assert world.settle(first, TRANSIENT) == "retrying"
    assert world.claim().records == []
    world.advance(seconds=7)
    second = world.claim_one()
    assert (second.slot, second.otid, second.attempt) == (first.slot, first.otid, 2)
    assert second.since == first.claimed_at
    assert second.claimed_at == world.now


def test_attempts_back_off(world: World) -> None:
    """Attempts come ever more rarely, but not less often than every ten minutes and a fifth."""
    world.register()
    world.advance(minutes=1)
    waits = []
    for _ in range(12):
        world.settle(world.claim_one(), TRANSIENT)
        (slot,) = world.state.open.values()
        waits.append((parse_utc(str(slot.retry_at)) - world.now).total_seconds())
        world.now = parse_utc(str(slot.retry_at))
    assert 4 <= waits[0] <= 6
    assert all(a < b for a, b in pairwise(waits[:7]))
    assert max(waits) <= 600


def test_the_servers_word_on_when_to_come_back_is_kept(world: World) -> None:
    """A Retry-After that is longer than our own wait prevails."""
    world.settle(world.claimed(), Abandoned("letta_rate_limited", "Slowly.", retry_after=90.0))
    world.advance(seconds=89)
    assert world.claim().records == []
    world.advance(seconds=2)
    assert world.claim_one().attempt == 2


def test_an_attempt_that_left_no_trace_is_repeated_at_once_in_its_own_place(world: World) -> None:
    """What needs no waiting is claimed in the same pass, before what was due after it."""
    older = world.register(prompt="older", time="in 10s")
    world.register(prompt="newer", time="in 20s")
    began = world.advance(minutes=1)
    made = world.claim_one()
    world.advance(minutes=2)
    world.settle(made, Abandoned("no_trace", "No trace.", at_once=True))
    (again,) = world.claim(until=began).claims
    assert (again.id, again.attempt) == (older, 2)


@pytest.mark.parametrize(("code", "expected"), [("no_trace", True), ("letta_code_busy", False)])
def test_an_attempt_that_left_no_trace_is_remembered(
    world: World, code: str, *, expected: bool
) -> None:
    """P2: what it has sent may arrive during any of the attempts that follow."""
    made = world.claimed()
    assert not made.untraced
    for hindrance in (code, "letta_code_busy", "run_failed"):
        world.settle(made, Abandoned(hindrance, "Not this time."))
        world.advance(hours=1)
        made = world.claim_one()
        assert made.untraced is expected
    (orphan,) = orphans(world.state, ["wrk_1"], world.now)
    assert orphan.untraced is expected


def test_even_at_once_is_not_for_ever(world: World) -> None:
    """P8: a slot that leaves no trace again and again is slowed down, so the log stays small."""
    world.register()
    world.advance(minutes=1)
    claimed = 0
    for _ in range(3600):
        for made in world.claim().claims:
            claimed += 1
            world.settle(made, Abandoned("no_trace", "No trace.", at_once=True))
        world.advance(seconds=1)
    assert claimed <= 15


@pytest.mark.parametrize("code", ["worker_stopped", "too_slow"])
def test_what_was_handed_back_unsent_does_not_count_as_a_try(world: World, code: str) -> None:
    """However often workers take a slot and stop, it keeps its place, and its back-off begins with
    the first attempt that says something of Letta."""
    id_ = world.register(grace="60s")
    world.advance(minutes=1)
    for _ in range(20):
        assert world.settle(world.claim_one(), Abandoned(code, "Stopped.")) == "retrying"
        world.advance(seconds=2)
    made = world.claim_one()
    assert (made.attempt, made.tries) == (21, 1)
    world.settle(made, TRANSIENT)
    waited = parse_utc(world.last("delivery.abandoned").retry_at) - world.now
    assert timedelta(seconds=4) <= waited <= timedelta(seconds=6)
    world.advance(seconds=7)
    assert world.settle(world.claim_one()) == "delivered"
    check_slots(world.events, world.now)
    assert world.state.schedules[id_].status == "completed"


def test_a_claim_for_one_agent_leaves_the_others_alone(world: World) -> None:
    """Neither their slots, nor what waits to be tried again, nor what is to be skipped."""
    own = world.register("agent-a")
    world.register("agent-b")
    world.register("agent-c", prompt="long ago", time="in 10s", grace="10s")
    again = world.register("agent-d", time="in 20s")
    world.advance(seconds=20)
    for made in world.claim(seats=9).claims:
        world.settle(made, TRANSIENT)
    world.advance(minutes=3)
    decision = world.claim(only="agent-a")
    assert [made.id for made in decision.claims] == [own]
    assert [id_ for _, id_ in decision.records] == [own]
    assert not decision.skipped
    assert again in {made.id for made in world.claim().claims}


def test_retries_end_with_the_grace(world: World) -> None:
    """P2: an attempt that could only be repeated after the grace is the last one."""
    id_ = world.register(grace="10s")
    world.advance(minutes=1, seconds=8)
    assert world.settle(world.claim_one(), TRANSIENT) == "failed"
    failed = world.last("delivery.failed")
    assert (failed.code, failed.permanent) == ("letta_unreachable", False)
    assert "grace" in failed.error
    assert world.types(id_) == ["attempted", "failed", "completed"]


def test_a_waiting_slot_beyond_its_grace_has_failed(world: World) -> None:
    """P2: a retry that nobody came to make in time ends as failed, with the last error."""
    made = world.claimed(grace="1h")
    world.settle(made, TRANSIENT)
    world.advance(hours=2)
    assert world.claim().claims == []
    assert world.types(made.id) == ["attempted", "abandoned", "failed", "completed"]
    assert world.last("delivery.failed").error.startswith("Nobody answers.")


@pytest.mark.parametrize(("change", "why"), [(cancel, "cancelled"), (pause, "paused")])
@pytest.mark.parametrize("in_flight", [True, False])
def test_a_slot_of_a_stopped_schedule_is_not_tried_again(
    world: World, change: Any, why: str, in_flight: bool
) -> None:
    """P2: a waiting slot, or one whose attempt comes to nothing, is skipped then."""
    made = world.claimed(every="10m")
    if not in_flight:
        world.settle(made, TRANSIENT)
    change(world, made.id, None, world.now)
    if in_flight:
        assert world.settle(made, TRANSIENT) == "skipped"
    assert world.last("delivery.skipped").why == why
    assert not world.state.open
    world.advance(hours=1)
    assert world.claim().claims == []


def test_a_parked_schedules_slot_is_not_tried_again(world: World) -> None:
    """A retry of a schedule that was parked meanwhile is skipped."""
    made = world.claimed(every="10m")
    schedules = world.state.schedules
    schedules[made.id] = schedules[made.id]._replace(status="failed")
    assert world.settle(made, TRANSIENT) == "skipped"
    assert world.last("delivery.skipped").why == "parked"


def test_one_that_arrived_after_the_cancel_is_delivered(world: World) -> None:
    """What was sent before the cancel is recorded as what it is."""
    made = world.claimed(every="10m")
    cancel(world, made.id, None, world.now)  # type: ignore[arg-type]
    assert world.settle(made) == "delivered"
    assert world.state.schedules[made.id].status == "cancelled"


def test_a_claim_follows_a_schedule_that_moves_to_another_agent(world: World) -> None:
    """A retry goes to the agent that the schedule has now; what is in doubt is asked of the old."""
    made = world.claimed("agent-a", every="10m")
    modify(world, made.id, Request(agent_id="agent-b"), world.now)  # type: ignore[arg-type]
    (orphan,) = orphans(world.state, ["wrk_1"], world.now)
    assert (orphan.agent_id, orphan.in_doubt) == ("agent-a", True)
    world.settle(made, TRANSIENT)
    world.advance(seconds=10)
    assert world.claim_one().agent_id == "agent-b"


def test_an_earlier_attempts_run_is_not_the_next_ones(world: World) -> None:
    """P2: the run that a stopped worker noted says nothing of the next attempt."""
    first = world.claimed()
    left = [{"id": first.id, "slot": first.slot, "run_id": "run-1"}]
    world.add([(WorkerStopped("wrk_1", "SIGTERM", left), None)])
    (orphan,) = orphans(world.state, ["wrk_1"], world.now)
    assert orphan.run_id == "run-1"
    world.settle(orphan, Abandoned("run_failed", "It failed."), worker="wrk_2")
    world.advance(seconds=10)
    assert world.claim_one().run_id is None


def test_what_is_settled_is_not_settled_again(world: World) -> None:
    """P2: a second reconciler's outcome changes nothing, after an end or a further attempt."""
    made = world.claimed()
    world.settle(made, Abandoned("no_trace", "No trace.", at_once=True), worker="wrk_2")
    assert world.settle(made, worker="wrk_3") == "settled"
    again = world.claim_one()
    assert world.settle(made, PERMANENT, worker="wrk_3") == "settled"
    assert world.settle(again) == "delivered"
    before = len(world.events)
    assert world.settle(again, worker="wrk_3") == "settled"
    assert len(world.events) == before


def test_orphans_are_those_of_the_dead_only(world: World) -> None:
    """P2: claims of the named workers are in doubt, with when they were first made; others not."""
    world.register("agent-a")
    world.register("agent-b")
    world.advance(minutes=1)
    (mine,) = world.claim(seats=1, worker="wrk_1").claims
    world.claim(worker="wrk_2")
    (orphan,) = orphans(world.state, ["wrk_1"], world.now)
    assert orphan == mine._replace(in_doubt=True)


def test_an_error_that_is_no_text_is_recorded_all_the_same(world: World) -> None:
    """A server's error with a lone surrogate doesn't keep the outcome out of the log."""
    world.settle(world.claimed(), Delivered("history", "run-1", "bad: \ud800"))
    assert world.last("delivery.delivered").error == "bad: \\ud800"


# --- triggers -------------------------------------------------------------------------------------


def test_a_trigger_is_a_slot_of_its_own(world: World) -> None:
    """A trigger is delivered beside the scheduled slots, and uses up none of them."""
    id_ = world.register(every="10m", max_repetitions=1)
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    before = world.state.schedules[id_]
    made = world.claim_one()
    assert made.kind == "trigger"
    world.settle(made)
    after = world.state.schedules[id_]
    assert (after.next_run, after.repetition_count, after.status) == (before.next_run, 0, "active")
    world.advance(minutes=10)
    assert world.claim_one().kind == "scheduled"


@pytest.mark.parametrize("how", ["modified", "registered again"])
def test_no_scheduled_slot_has_the_name_of_a_triggered_one(world: World, how: str) -> None:
    """P2: where the clock is set back after a trigger, no change brings a scheduled slot at the
    very instant of the triggered one: two outcomes of one name would contradict each other."""
    hourly = {"cron": "0 * * * *", "misfire": "all", "grace": "20m"}
    if how == "modified":
        id_ = world.register("a", every="7m", misfire="all", grace="20m")
    else:
        world.now -= timedelta(minutes=1)
        id_ = world.register("a", **hourly)
        modify(world, id_, Request(every="7m"), world.now)
        world.now += timedelta(minutes=1)
    run_now(world, id_, None, world.now)
    assert world.state.schedules[id_].last_trigger == "2026-11-20T12:00:00.000000Z"
    world.now -= timedelta(seconds=1)
    if how == "modified":
        modify(world, id_, Request(cron="0 * * * *"), world.now)
    else:
        cancel(world, id_, None, world.now)
        assert world.register("a", **hourly) == id_
    assert world.state.schedules[id_].next_run == "2026-11-20T13:00:00.000000Z"
    world.advance(days=2)
    world.claim()
    check_deliveries(world.events)


def test_a_trigger_of_a_paused_schedule_is_delivered(world: World) -> None:
    """Pausing holds the scheduled slots; who triggers one means it."""
    id_ = world.register(every="10m")
    pause(world, id_, None, world.now)  # type: ignore[arg-type]
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    assert world.claim_one().kind == "trigger"


def test_a_trigger_outlives_its_one_off(world: World) -> None:
    """A trigger that waits is delivered even after the one-off it belongs to is over."""
    made = world.claimed()
    run_now(world, made.id, None, world.now)  # type: ignore[arg-type]
    world.settle(made)
    assert world.state.schedules[made.id].status == "completed"
    world.advance(seconds=1)
    assert world.settle(world.claim_one()) == "delivered"
    assert world.types(made.id).count("completed") == 1


def test_an_old_trigger_is_given_up(world: World) -> None:
    """P2: a trigger that nobody delivered within the grace is skipped, and says so."""
    id_ = world.register(every="1h", grace="10m")
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(minutes=20)
    assert world.claim().claims == []
    skipped = world.last("delivery.skipped")
    assert (skipped.why, skipped.kind) == ("grace", "trigger")


# --- limits ---------------------------------------------------------------------------------------


def test_tier_two_needs_an_approval(world: World) -> None:
    """A schedule that reaches outside is skipped without an approval, and its next slot kept."""
    id_ = world.register(every="10m", tier=2)
    world.advance(minutes=10)
    assert [line["why"] for line in world.claim().skipped] == ["approval"]
    assert world.state.schedules[id_].next_run == "2026-11-20T12:20:00.000000Z"
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(seconds=1)
    assert [line["why"] for line in world.claim().skipped] == ["approval"]


def test_there_is_another_daily_budget_from_midnight_on(world: World) -> None:
    """A spent budget skips the rest of the day (UTC); after midnight there is a new one."""
    world.register(every="6h", daily_budget=1)
    whys = []
    for _ in range(3):  # 18:00, 00:00, 06:00
        world.advance(hours=6)
        decision = world.claim()
        whys += [line["why"] for line in decision.skipped]
        for made in decision.claims:
            whys.append(made.slot[11:16])
            world.settle(made)
    assert whys == ["18:00", "00:00", "budget"]


def test_a_budget_is_not_given_back_by_the_clock(world: World) -> None:
    """Setting the clock back to yesterday doesn't refill what today has spent."""
    id_ = world.register(every="10m", daily_budget=1)
    world.now = parse_utc("2026-11-21T00:10:00.000000Z")
    world.settle(world.claim_one())
    world.now = parse_utc("2026-11-20T23:00:00.000000Z")
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(seconds=1)
    assert [line["why"] for line in world.claim().skipped] == ["budget"]


def test_a_further_attempt_costs_no_budget(world: World) -> None:
    """A slot is paid for once, however often it has to be tried."""
    world.register(daily_budget=1)
    world.advance(minutes=1)
    for _ in range(3):
        world.settle(world.claim_one(), TRANSIENT)
        world.advance(minutes=2)
    assert world.settle(world.claim_one()) == "delivered"


# --- any sequence ---------------------------------------------------------------------------------

OUTCOMES = (
    DELIVERED,
    Delivered("history", None, "The run failed."),
    PERMANENT,
    Failed("unknown", "Nobody knows.", permanent=False),
    TRANSIENT,
    Abandoned("letta_rate_limited", "Slowly.", retry_after=300.0),
    Abandoned("no_trace", "No trace.", at_once=True),
)
REGISTRATIONS = (
    {"every": "10s"},
    {"every": "7m", "misfire": "all", "grace": "20m"},
    {"every": "1h", "misfire": "skip", "jitter": "5m"},
    {"cron": "*/5 * * * *", "max_repetitions": 3},
    {"cron": "30 1 * * *", "timezone": "Europe/London", "daily_budget": 1},
    {"time": "in 10m", "grace": "5m"},
    {"every": "1m", "tier": 2},
    {"every": "3m", "tier": 2, "on_failure": "agent-a", "daily_budget": 4},
    {"time": "in 4m", "on_failure": "agent-b"},
)


class Deliveries(RuleBasedStateMachine):
    """Any sequence of claims, outcomes, changes and steps of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(daily_per_agent=50)
        self.made: list[Claim] = []

    def _any_id(self, number: int) -> str | None:
        ids = list(self.world.state.schedules)
        return ids[number % len(ids)] if ids else None

    @rule(what=st.sampled_from(REGISTRATIONS), agent=st.sampled_from("abc"))
    def registers(self, what: dict[str, Any], agent: str) -> None:
        self.world.register(f"agent-{agent}", **what)

    @rule(number=st.integers(0, 9), uses=st.integers(1, 3))
    def approves(self, number: int, uses: int) -> None:
        if id_ := self._any_id(number):
            self.world.approve(id_, uses, hours=1)

    @rule(seconds=st.sampled_from((0.5, 5, 30, 200, 3600, 86400)))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds=seconds)

    @rule(seconds=st.sampled_from((1, 600, 7200)))
    def the_clock_is_set_back(self, seconds: float) -> None:
        self.world.advance(seconds=-seconds)

    @rule(seats=st.integers(1, 3), worker=st.sampled_from(("wrk_1", "wrk_2")))
    def claims(self, seats: int, worker: str) -> None:
        self.made += self.world.claim(seats, worker).claims

    @rule(number=st.integers(0, 9), outcome=st.sampled_from(OUTCOMES), twice=st.booleans())
    def settles(self, number: int, outcome: Any, twice: bool) -> None:
        if self.made:
            made = self.made.pop(number % len(self.made))
            self.world.settle(made, outcome)
            if twice:
                assert self.world.settle(made, DELIVERED, worker="wrk_3") == "settled"

    @rule(worker=st.sampled_from(("wrk_1", "wrk_2")), outcome=st.sampled_from(OUTCOMES))
    def a_worker_dies(self, worker: str, outcome: Any) -> None:
        for orphan in list(orphans(self.world.state, [worker], self.world.now)):
            self.world.settle(orphan, outcome, worker="wrk_3")

    @rule(number=st.integers(0, 9), change=st.sampled_from((cancel, pause, resume, run_now)))
    def changes(self, number: int, change: Any) -> None:
        if id_ := self._any_id(number):
            with suppress(PromptyoselfError):
                change(self.world, id_, None, self.world.now)

    @rule(
        number=st.integers(0, 9),
        request=st.sampled_from(
            (
                Request(every="30s"),
                Request(cron="0 * * * *"),
                Request(time="in 3m"),
                Request(agent_id="agent-a"),
                Request(max_repetitions=2),
                Request(grace="1m"),
            )
        ),
    )
    def modifies(self, number: int, request: Request) -> None:
        if id_ := self._any_id(number):
            with suppress(PromptyoselfError):
                modify(self.world, id_, request, self.world.now)  # type: ignore[arg-type]

    @invariant()
    def the_log_makes_sense(self) -> None:
        check_deliveries(self.world.events)
        claimed = [slot.agent_id for slot in self.world.state.open.values() if slot.worker]
        assert len(claimed) == len(set(claimed)), "an agent has two deliveries at once"
        for schedule in self.world.state.schedules.values():
            if schedule.next_run is not None and schedule.last_slot is not None:
                assert schedule.next_run > schedule.last_slot
            if schedule.status in ("completed", "cancelled"):
                assert schedule.next_run is None

    def teardown(self) -> None:
        """P2: in the end every slot that began has its outcome, once somebody sees to it."""
        for _ in range(400):
            for worker in ("wrk_1", "wrk_2"):
                for orphan in list(orphans(self.world.state, [worker], self.world.now)):
                    self.world.settle(orphan)
            if not self.world.state.open:
                break
            self.world.advance(hours=2)
            self.world.claim()
        assert not self.world.state.open
        self.the_log_makes_sense()


TestDeliveries = Deliveries.TestCase
TestDeliveries.__doc__ = (
    """P2: no sequence of events makes a slot fire twice, go back, or vanish."""
)
TestDeliveries.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
