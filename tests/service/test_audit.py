"""P2: the audit answers for every slot, and finds each that the log has forgotten."""

import shutil
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, add, append_foreign, call, events_of
from checker import check_chain
from conftest import Clock
from forging import segments_of, write_segments
from gaps import drop
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import AGENTS, OUTCOMES, PERMANENT, UNREACHABLE, WHENS, Story, started, stopped
from tally import count, rounds
from timing import cpu_seconds
from world import DELIVERED, NOON, World, check_slots, entries_of, sums_of

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import Caps
from promptyoself.events.kinds import PROBLEMS
from promptyoself.events.records import ScheduleTriggered, WorkerStarted
from promptyoself.ledger import Envelope
from promptyoself.rules.claim import claim
from promptyoself.rules.outcome import outcome_events
from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.audited_log import AuditEnd
from promptyoself.service.audit.log_auditor import LogAuditor
from promptyoself.service.audit.slot_verdicts import SlotVerdict
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request


@pytest.fixture
def world() -> World:
    return World()


def in_short(entries: Iterable[SlotVerdict]) -> list[tuple[str, str, int, str, str | None, int]]:
    """Verdicts with their first and last slot as hours and minutes."""
    return [
        (f"{e.first:%H:%M}", f"{e.last:%H:%M}", e.slots, e.outcome, e.why, e.seq) for e in entries
    ]


def audited(world: World, living: Iterable[str] = ()) -> list[Any]:
    return in_short(entries_of(world.events, world.now, living))


# --- what became of a slot ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "expected", "why"),
    [(DELIVERED, "delivered", None), (PERMANENT, "failed", "agent_not_found")],
    ids=["delivered", "failed"],
)
def test_a_slot_that_has_its_outcome(
    world: World, outcome: Any, expected: str, why: str | None
) -> None:
    """P2: a slot that was claimed is delivered, or has failed with its code, by the event that
    says so."""
    world.register(every="1h")
    world.advance(hours=1)
    world.settle(world.claim_one(), outcome)
    assert audited(world) == [("13:00", "13:00", 1, expected, why, 3)]


def test_missed_slots_are_a_range(world: World) -> None:
    """P2: slots that were missed are skipped, and counted, in one line, with their reason."""
    world.register(every="1h")
    world.advance(hours=5, minutes=1)
    world.settle(world.claim_one())
    assert audited(world) == [
        ("13:00", "16:00", 4, "skipped", "misfire", 2),
        ("17:00", "17:00", 1, "delivered", None, 4),
    ]


@pytest.mark.parametrize(
    ("asked", "why"), [({"tier": 2}, "approval"), ({"daily_budget": 0}, "budget")]
)
def test_a_refused_slot(world: World, asked: dict[str, Any], why: str) -> None:
    """P2: what policy refused is skipped with that reason."""
    world.register(every="1h", **asked)
    world.advance(hours=1)
    world.claim()
    assert audited(world) == [("13:00", "13:00", 1, "skipped", why, 2)]


def test_slots_of_a_pause_are_paused_before_the_log_says_so(world: World) -> None:
    """P2: a paused schedule's slots are skipped by the pause, and by the resume's event later."""
    id_ = world.register(every="1h")
    world.advance(minutes=30)
    pause(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(hours=2)
    assert audited(world) == [("13:00", "14:00", 2, "skipped", "paused", 2)]
    resume(world, id_, None, world.now)  # type: ignore[arg-type]
    assert audited(world) == [("13:00", "14:00", 2, "skipped", "paused", 3)]


def test_slots_of_a_parked_schedule(world: World) -> None:
    """P2: after too many failures the rest is skipped as parked, also if it is then revived."""
    request = Request(agent_id="agent-a", prompt="Hi", every="1h")
    register(world, request, world.now)  # type: ignore[arg-type]
    for _ in range(5):
        world.advance(hours=1)
        world.settle(world.claim_one(), PERMANENT)
    world.advance(hours=2, minutes=5)
    parked = ("18:00", "19:00", 2, "skipped", "parked", 11)
    assert audited(world)[5:] == [parked]
    register(world, request, world.now)  # type: ignore[arg-type]
    assert audited(world)[5:] == [parked]
    world.advance(hours=1)
    assert audited(world)[5:] == [parked, ("20:05", "20:05", 1, "pending", "no_loop", 12)]


def test_a_cancelled_schedule_owes_nothing(world: World) -> None:
    """P2: after the cancel no slot is expected."""
    id_ = world.register(every="1h")
    world.advance(minutes=90)
    cancel(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(days=9)
    assert audited(world) == [("13:00", "13:00", 1, "skipped", "misfire", 2)]


def test_repetitions_end_the_expectations(world: World) -> None:
    """P2: once it has fired as often as it may, no slot is expected; raised, they are again."""
    id_ = world.register(every="1h", max_repetitions=1)
    world.advance(hours=1)
    claimed = world.claim_one()
    world.advance(hours=3)
    assert audited(world) == [("13:00", "13:00", 1, "in_doubt", None, 2)]
    modify(world, id_, Request(max_repetitions=3), world.now)  # type: ignore[arg-type]
    world.settle(claimed)
    world.advance(hours=1)
    assert audited(world)[1:] == [("17:00", "17:00", 1, "pending", "no_loop", 3)]


def test_a_modified_schedule_is_audited_by_what_it_was(world: World) -> None:
    """P2: each slot is one of the times that held then, and belongs to the agent of then."""
    id_ = world.register("agent-a", every="1h")
    world.advance(hours=1)
    world.settle(world.claim_one())
    world.advance(hours=1)
    modify(world, id_, Request(every="10m", agent_id="agent-b"), world.now)  # type: ignore[arg-type]
    world.advance(minutes=11)
    world.settle(world.claim_one())
    entries = entries_of(world.events, world.now)
    assert [(e.agent_id, f"{e.first:%H:%M}", e.outcome, e.why) for e in entries] == [
        ("agent-a", "13:00", "delivered", None),
        ("agent-a", "14:00", "skipped", "modified"),
        ("agent-b", "14:10", "delivered", None),
    ]


def test_what_was_decided_elsewhere_is_not_owed_here(world: World) -> None:
    """P2: an imported schedule's slots are expected from where it stopped elsewhere: before now if
    it was due meanwhile, after now if the other machine's clock was ahead."""
    id_ = world.register(every="1h")
    registered = world.events.pop()
    world.advance(hours=3, minutes=30)
    ts = format_utc(world.now)
    for last, first, slots in [("14:00", "15:00", 3), ("16:00", "17:00", 1)]:
        day = f"{NOON:%Y-%m-%d}T"
        moved = changed(
            registered, last_slot=f"{day}{last}:00.000000Z", next_run=f"{day}{first}:00.000000Z"
        )
        entries = entries_of([moved._replace(ts=ts)], world.now + timedelta(hours=2, minutes=-20))
        assert {entry.outcome for entry in entries} == {"pending"}, id_
        assert sum(entry.slots for entry in entries) == slots


def test_skips_are_taken_back_of_the_agent_of_then(world: World) -> None:
    """P2: where a clock was ahead, skipped slots count again for the agent they were skipped for,
    though the schedule has become another's."""
    id_ = world.register("agent-a", every="1h")
    world.advance(hours=5, minutes=1)
    world.settle(world.claim_one())
    modify(world, id_, Request(agent_id="agent-b"), world.now)  # type: ignore[arg-type]
    world.advance(hours=-4)
    pause(world, id_, None, world.now)  # type: ignore[arg-type]
    resume(world, id_, None, world.now)  # type: ignore[arg-type]
    skipped = [e for e in entries_of(world.events, world.now) if e.outcome == "skipped"]
    assert [(e.agent_id, e.slots) for e in skipped] == [("agent-a", n) for n in (4, -4, 1)]


def test_a_triggered_slot(world: World) -> None:
    """P2: a triggered slot is one of its own, beside the schedule's."""
    id_ = world.register(every="1h")
    world.advance(minutes=5)
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    assert audited(world) == [("12:05", "12:05", 1, "pending", "no_loop", 2)]
    world.settle(world.claim_one())
    world.advance(minutes=55)
    world.settle(world.claim_one())
    assert [entry.kind for entry in entries_of(world.events, world.now)] == ["trigger", "scheduled"]
    assert check_slots(world.events, world.now) == Counter(delivered=2)


def test_a_claim_without_an_outcome(world: World) -> None:
    """P2: a slot that is claimed is in flight while its worker lives, in doubt when it doesn't."""
    world.register(every="1h")
    world.advance(hours=1)
    world.claim()
    assert audited(world, ["wrk_1"]) == [("13:00", "13:00", 1, "in_flight", None, 2)]
    assert audited(world) == [("13:00", "13:00", 1, "in_doubt", None, 2)]


# --- the loop forgot, or none was running ---------------------------------------------------------


def test_no_loop_was_running(world: World) -> None:
    """P2: where no loop was up, due slots are still to come."""
    started(world)
    world.register(every="1h")
    stopped(world)
    world.advance(hours=3)
    assert audited(world) == [("13:00", "15:00", 3, "pending", "no_loop", 2)]


def test_a_loop_that_was_up_all_the_time_forgot(world: World) -> None:
    """P2: where one was up for long, by its own start and stop, they are unaccounted for, up to
    shortly before its end."""
    world.register(every="1h")
    started(world)
    world.advance(hours=3, minutes=5)
    stopped(world)
    assert audited(world) == [
        ("13:00", "14:00", 2, "unaccounted", "forgotten", 1),
        ("15:00", "15:00", 1, "pending", "soon", 1),
    ]


def test_a_loop_that_is_up_forgot(world: World) -> None:
    """P2: the same while it lives; right after a slot it still has its chance."""
    world.register(every="1h")
    started(world)
    world.advance(hours=1, minutes=5)
    assert audited(world, ["wrk_1"]) == [("13:00", "13:00", 1, "pending", "soon", 1)]
    world.advance(minutes=10)
    assert audited(world, ["wrk_1"]) == [("13:00", "13:00", 1, "unaccounted", "forgotten", 1)]


def test_a_loop_that_was_killed_proves_nothing_after_its_last_word(world: World) -> None:
    """P2: how long a killed loop was up is not known, so what came due since is still to come."""
    world.register(every="1h")
    started(world)
    world.advance(hours=3)
    assert audited(world) == [("13:00", "15:00", 3, "pending", "no_loop", 1)]
    started(world, "wrk_2")  # the next start says that the first had died, not when
    assert audited(world, ["wrk_2"]) == [("13:00", "15:00", 3, "pending", "soon", 1)]


def test_a_pass_that_left_it_alone_forgot(world: World) -> None:
    """P2: a loop that claimed something later, while this was due and its agent free, forgot it."""
    world.register("agent-a", every="1h")
    started(world)
    world.register("agent-b", prompt="Later", time="in 90m")
    world.advance(minutes=90)
    world.add(world.claim_only("agent-b"))
    assert audited(world)[1] == ("13:00", "13:00", 1, "unaccounted", "forgotten", 1)


def test_a_pass_before_a_trigger_was_written_forgot_nothing(world: World) -> None:
    """P2: a triggered slot bears the time at which it was asked for; a pass that was made while the
    one who asked still waited for the lock could not know of it."""
    started(world)
    id_ = world.register("agent-a", every="1d")
    world.register("agent-b", prompt="Due", time="in 30m")
    world.advance(minutes=30, seconds=1)
    world.claim()
    world.advance(seconds=-1)
    run_now(world, id_, None, world.now)  # type: ignore[arg-type]
    outcomes = [entry.outcome for entry in entries_of(world.events, world.now, ["wrk_1"])]
    assert sorted(outcomes) == ["in_flight", "pending"]


def test_a_loop_without_a_free_seat_forgot_nothing(world: World) -> None:
    """P2: a pass that settles one delivery and fills its seat again leaves the rest for later."""
    record = WorkerStarted("wrk_1", 1, "here", "promptyoself 0", "loop", 1)
    world.add([(record, None)])
    for agent in "abc":
        world.register(f"agent-{agent}", prompt=agent, time="in 30m")
    world.advance(minutes=30)
    (claimed,) = world.claim(seats=1).claims
    world.advance(seconds=3)
    settled, _ = outcome_events(world.state, claimed, "wrk_1", DELIVERED, world.now)
    free = [(record, claimed.id) for record in settled]
    world.add([*free, *claim(world.state, world.now, "wrk_1", Caps(), 2).records[:1]])
    outcomes = [entry.outcome for entry in entries_of(world.events, world.now, ["wrk_1"])]
    assert sorted(outcomes) == ["delivered", "in_flight", "pending"]


@pytest.mark.parametrize("outcome", ["nothing", "abandoned"])
def test_an_agent_that_is_busy_keeps_its_prompts_waiting(world: World, outcome: str) -> None:
    """P2: while an agent has a delivery under way its other prompts wait, whichever loop passes."""
    started(world)
    world.register("agent-a", every="1h")
    world.register("agent-a", prompt="Other", time="in 59m")
    world.register("agent-b", prompt="Later", time="in 90m")
    world.advance(minutes=59)
    claimed = world.claim_one()
    world.advance(minutes=31)
    world.claim()
    assert ("13:00", "13:00", 1, "pending", "busy", 2) in audited(world, ["wrk_1"])
    if outcome == "abandoned":
        world.settle(claimed, UNREACHABLE)
        world.advance(minutes=30)
        assert ("13:00", "14:00", 2, "pending", "held", 2) in audited(world, ["wrk_1"])


def test_an_earlier_slot_of_its_own_keeps_it_waiting(world: World) -> None:
    """P2: slots that come due while one of the same schedule isn't settled wait for that."""
    world.register(every="1h")
    world.advance(hours=1)
    world.settle(world.claim_one(), UNREACHABLE)
    world.advance(hours=2)
    assert audited(world)[1:] == [("14:00", "15:00", 2, "pending", "overlap", 1)]


# --- what may not be ------------------------------------------------------------------------------


def problems(events: Iterable[Any], now: datetime) -> set[str]:
    return {entry.outcome for entry in entries_of(events, now)} & PROBLEMS


def test_a_slot_that_was_passed_over(world: World) -> None:
    """P2: a later slot's claim without a word on the earlier ones leaves them unaccounted for."""
    world.register(every="1h")
    world.advance(hours=3)
    world.settle(world.claim_one())
    without = [event for event in world.events if event.type != "delivery.skipped"]
    assert in_short(entries_of(without, world.now)) == [
        ("13:00", "14:00", 2, "unaccounted", "passed over", 3),
        ("15:00", "15:00", 1, "delivered", None, 4),
    ]


def changed(event: Envelope, **data: Any) -> Envelope:
    return event._replace(data={**event.data, **data})


def test_what_may_not_be(world: World) -> None:
    """P2: a second claim, a second outcome, a slot that is none, a range miscounted, one delivery
    too many, an end too early: each is found."""
    world.register(every="1h", max_repetitions=2)
    world.advance(hours=3)
    world.settle(world.claim_one())
    world.advance(hours=1)
    world.settle(world.claim_one())
    assert not problems(world.events, world.now)
    registered, skipped, attempted, delivered, second, *rest = world.events
    off = format_utc(NOON + timedelta(hours=3, minutes=1))
    shorter = changed(skipped, last=skipped.data["slot"])
    before = [registered, skipped]
    whole = [*before, attempted, delivered]
    for altered, expected in [
        ([*before, attempted, attempted, delivered], {"doubled"}),
        ([*whole, delivered], {"doubled"}),
        ([*whole, attempted, delivered], {"doubled"}),
        ([*before, changed(attempted, slot=off), changed(delivered, slot=off)], {"unexpected"}),
        ([registered, changed(skipped, slots=1), attempted, delivered], {"unexpected"}),
        ([registered, shorter, attempted, delivered], {"unexpected", "unaccounted"}),
        ([changed(registered, max_repetitions=1), *world.events[1:]], {"unexpected"}),
        ([*before, delivered], {"unexpected"}),
        ([registered, *world.events[-1:]], {"unaccounted"}),
        ([changed(registered, next_run=second.data["slot"]), second, *rest], {"unaccounted"}),
    ]:  # fmt: skip
        assert problems(altered, world.now) == expected, altered
        count("slots forged", 1)


def test_a_schedule_that_cannot_be_audited_is_named(world: World) -> None:
    """P2: where a schedule's slots can't be computed, the audit says so; the others go on."""
    world.register("agent-a", every="1h")
    world.register("agent-b", every="1h")
    world.advance(hours=1)
    broken = [changed(world.events[0], timezone="Nowhere/Land", schedule_type="cron",
                      schedule_value="0 9 * * *"), world.events[1]]  # fmt: skip
    auditor = LogAuditor(NOON, world.now)
    entries = [entry for event in broken for entry in auditor.add(event)]
    entries += auditor.finish(AuditEnd(world.now, (), False))
    assert [entry.agent_id for entry in entries] == ["agent-b"]
    ((agent_id, problem),) = auditor.broken.values()
    assert agent_id == "agent-a"
    assert "Nowhere/Land" in problem


# --- any story, any clock -------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("register"), st.tuples(AGENTS, WHENS)),
    st.tuples(st.just("wait"), st.integers(0, 7200)),
    st.tuples(st.just("wait"), st.integers(0, 2 * 86400)),
    st.tuples(st.just("jump"), st.integers(-6 * 3600, 6 * 3600)),
    st.tuples(st.just("pass"), st.integers(0, 1)),
    st.tuples(st.just("pass"), st.integers(0, 1)),
    st.tuples(st.just("land"), OUTCOMES),
    st.tuples(st.just("land"), OUTCOMES),
    st.tuples(st.just("crash"), st.integers(0, 1)),
    st.tuples(st.just("stop"), st.integers(0, 1)),
    st.tuples(
        st.sampled_from(["pause", "resume", "cancel", "trigger", "revive"]), st.integers(0, 9)
    ),
    st.tuples(st.just("modify"), st.tuples(st.integers(0, 9), WHENS)),
    st.tuples(st.just("approve"), st.integers(0, 9)),
)


@settings(max_examples=rounds(150), deadline=None)
@given(st.lists(STEPS, max_size=40))
def test_the_audit_of_any_story_is_clean(steps: list[tuple[str, Any]]) -> None:
    """P2: whatever is asked, however the clock jumps, whichever loop runs, dies or stops: once all
    is settled each slot that has passed has its one outcome."""
    story = Story()
    for what, detail in steps:
        story.step(what, detail)
        count("clock jumps", what == "jump")
    story.record_outcomes()
    sums = check_slots(story.world.events, story.world.now, [story.names[0]])
    assert set(sums) <= {"delivered", "failed", "skipped", "pending"}


@settings(max_examples=rounds(60), deadline=None)
@given(st.lists(STEPS, max_size=30), st.data())
def test_the_audit_finds_any_outcome_that_is_taken_away(
    steps: list[tuple[str, Any]], data: st.DataObject
) -> None:
    """P2: a log from which the skip or the whole delivery of any slot is left out doesn't pass the
    audit as if nothing were missing."""
    story = Story()
    story.step("register", (0, {"every": "1h"}))
    for what, detail in [*steps, ("wait", 7200), ("pass", 0)]:
        if what != "jump":  # a clock that stands or runs back excuses much
            story.world.advance(microseconds=1)
            story.step(what, detail)
    story.record_outcomes()
    events, now = story.world.events, story.world.now
    whole = check_slots(events, now, [story.names[0]])
    decided = sorted(
        {
            (str(event.id), event.data["slot"])
            for event in events
            if event.type in ("delivery.skipped", "delivery.attempted")
            and event.data.get("kind") == "scheduled"
        }
    )
    # Without its schedule's last one, a log is that of a moment before.
    followed = [one for one, other in pairwise(decided) if one[0] == other[0]]
    if not followed:
        return
    id_, slot = data.draw(st.sampled_from(followed))
    without = [e for e in events if e.id != id_ or e.data.get("slot") != slot]
    entries = entries_of(without, now, [story.names[0]])
    count("outcomes taken away")
    left = sums_of(entries)
    assert left != whole
    assert set(left) & PROBLEMS


@settings(max_examples=rounds(40), deadline=None)
@given(st.lists(STEPS, max_size=30), st.lists(st.integers(-3600, 3 * 86400), max_size=4))
def test_windows_add_up(steps: list[tuple[str, Any]], cuts: list[int]) -> None:
    """Each slot lies in exactly one of the windows into which time is cut."""
    story = Story()
    for what, detail in steps:
        story.step(what, detail)
    events, now = story.world.events, story.world.now
    tick = timedelta(microseconds=1)
    borders = sorted({NOON + timedelta(seconds=cut) for cut in cuts})
    starts = [datetime(1, 1, 1, tzinfo=UTC), *borders]
    ends = [*(border - tick for border in borders), datetime(9999, 1, 1, tzinfo=UTC)]
    parts: Counter[tuple[str, str, str | None]] = Counter()
    for since, until in zip(starts, ends, strict=True):
        auditor = LogAuditor(since, until)
        entries = [entry for event in events for entry in auditor.add(event)]
        for entry in [*entries, *auditor.finish(AuditEnd(now, (), False))]:
            assert since <= entry.first <= entry.last <= until
            parts[entry.id, entry.outcome, entry.why] += entry.slots
    whole: Counter[tuple[str, str, str | None]] = Counter()
    for entry in entries_of(events, now):
        whole[entry.id, entry.outcome, entry.why] += entry.slots
    assert parts == whole


# --- as a command ---------------------------------------------------------------------------------


@pytest.fixture
def delivered(sandbox: Sandbox, clock: Clock) -> str:
    """An hourly prompt to the sandbox's agent, after five hours, two of them without a loop."""
    agent = sandbox.agents[0]
    id_ = add(agent=agent)
    for hours in (1, 1, 3):
        clock.advance(hours=hours)
        call("execute").success()
    return id_


def test_the_command_answers_for_every_slot(var: Path, delivered: str) -> None:
    """P2: totals, totals for each schedule, and a line for each range not delivered, with the event
    that decided it; the log isn't touched."""
    before = check_chain(var / "schedules")
    answer = call("audit").success()
    assert answer["totals"] == {
        "slots": 5, "delivered": 3, "failed": 0, "skipped": 2, "in_flight": 0, "in_doubt": 0,
        "pending": 0, "unaccounted": 0, "doubled": 0, "unexpected": 0,
        "skipped_why": {"misfire": 2},
    }  # fmt: skip
    ((schedule),) = answer["schedules"]
    assert (schedule["id"], schedule["slots"]) == (delivered, 5)
    (line,) = answer["undelivered"]
    assert (line["slot"], line["last"]) == (
        "2026-11-20T15:00:00.000000Z",
        "2026-11-20T16:00:00.000000Z",
    )
    (event,) = [event for event in before if event["seq"] == line["seq"]]
    assert (event["type"], event["data"]["why"]) == ("delivery.skipped", "misfire")
    assert answer["head"] == call("head").success()["head"]
    assert check_chain(var / "schedules") == before


def test_a_window_and_an_agent(var: Path, delivered: str) -> None:
    """Only slots of the window are counted, and of the agent; a window of nothing is refused."""
    assert call("audit", "--since", "2026-11-20T15:30Z").success()["totals"]["slots"] == 2
    assert call("audit", "--until", "2026-11-20T13:00Z").success()["totals"]["slots"] == 1
    assert call("audit", "--agent-id", "agent-x").success()["totals"]["slots"] == 0
    add("--every", "1h", prompt="another")
    one = call("audit", "--id", delivered[:8]).success()
    assert [schedule["id"] for schedule in one["schedules"]] == [delivered]
    assert one["totals"]["slots"] == 5
    call("audit", "--id", "sch_00000000").error("unknown_id")
    refused = call("audit", "--since", "2026-11-20T14:00Z", "--until", "2026-11-20T13:00Z")
    refused.error("empty_window", 2)
    call("audit", "--since", "whenever").error("invalid_time")


def test_a_pinned_caller_audits_its_own(delivered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller that is pinned to an agent gets its own slots, and none of others."""
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    answer = call("audit").success()
    assert (answer["totals"]["slots"], answer["schedules"], answer["undelivered"]) == (0, [], [])
    call("audit", "--agent-id", "agent-x").error("forbidden_agent")
    assert call("diff", "--from", "0").success()["changes"] == []


def test_a_forged_log_passes_verify_and_not_the_audit(var: Path, delivered: str) -> None:
    """P2: where somebody has written a whole new chain that leaves out the skipped slots, `verify`
    can't know; the audit exits 1, names them, and still gives the whole answer."""
    kept = [event for event in events_of(var) if event["type"] != "delivery.skipped"]
    shutil.rmtree(var / "schedules")
    write_segments(var, segments_of(kept))
    call("verify").success()
    document = call("audit").error("slots_unaccounted")
    assert document["totals"]["unaccounted"] == 2
    (line,) = document["undelivered"]
    assert (line["slots"], line["outcome"], line["why"]) == (2, "unaccounted", "passed over")
    assert "history" in document["hint"]


def test_the_events_that_decided_one_slot(var: Path, delivered: str) -> None:
    """`history --slot` shows what promised, began and ended one slot, and nothing else."""

    def types(slot: str) -> list[str]:
        events = call("history", "--id", delivered, "--slot", slot).success()["events"]
        return [event["type"] for event in events]

    begun = ["delivery.attempted", "delivery.delivered"]
    assert types("2026-11-20T13:00Z") == ["schedule.registered", *begun]
    assert types("2026-11-20T14:00:00Z") == begun
    assert types("2026-11-20T16:00Z") == ["delivery.skipped"]
    assert types("2026-11-20T17:00Z") == begun
    call("history", "--id", delivered, "--slot", "2026-11-20T13:30Z").error("unknown_slot")
    call("history", "--slot", "2026-11-20T13:00Z").error("missing_option", 2)
    call("history", "--id", "sch_00000000", "--slot", "2026-11-20T13:00Z").error("unknown_id")


def test_what_changed_between_two_points(var: Path, clock: Clock, delivered: str) -> None:
    """`diff` says what is different, field by field, and which events by whom made it so; from
    nothing to now it is everything."""
    middle = call("head").success()["seq"]
    other = add("--every", "1d", agent="b")
    call("modify", "--id", delivered, "--every", "2h", "--reason", "less").success()
    call("pause", "--id", other).success()
    call("resume", "--id", other).success()
    answer = call("diff", "--from", str(middle)).success()
    assert (answer["from"]["seq"], answer["to"]["seq"]) == (middle, middle + 4)
    changed, new = answer["changes"]
    assert (changed["id"], changed["change"]) == (delivered, "changed")
    assert changed["fields"]["schedule_value"] == {"from": "1h", "to": "2h"}
    assert set(changed["fields"]) == {"schedule_value", "anchor", "next_run", "reason"}
    (event,) = changed["events"]
    assert (event["type"], event["reason"]) == ("schedule.modified", "less")
    assert set(event["by"]) == {"via", "who", "kind", "host", "for_agent"}
    assert (new["id"], new["change"]) == (other, "registered")
    assert [e["type"].partition(".")[2] for e in new["events"]] == [
        "registered", "paused", "resumed",
    ]  # fmt: skip
    back = call("diff", "--from", str(middle + 2), "--to", str(middle + 3)).success()["changes"]
    assert [(c["id"], c["fields"]["status"]) for c in back] == [
        (other, {"from": "active", "to": "paused"})
    ]
    everything = call("diff", "--from", "0").success()
    assert everything["from"] == {"seq": 0, "ts": None}
    assert {c["change"] for c in everything["changes"]} == {"registered"}
    same = call("diff", "--from", "2026-11-20T12:30Z", "--to", "2026-11-20T12:40Z").success()
    assert (same["changes"], same["count"]) == ([], 0)
    call("diff", "--from", str(middle), "--to", "2").error("empty_window", 2)
    call("diff", "--from", "soon").error("invalid_time")


# --- what it says ---------------------------------------------------------------------------------


def test_the_sentence_counts_what_became_of_slots(sandbox: Sandbox, clock: Clock) -> None:
    """P9: "accounted for" isn't "delivered": the sentence says how many were what."""
    assert call("audit").success()["message"] == "Every slot is accounted for: there were none."
    for agent, when in ((sandbox.agents[0], "1h"), ("agent-nobody", "90m")):
        add("--every", when, agent=agent)
    for _ in range(2):
        clock.advance(minutes=90)
        call("execute").success()
    clock.advance(minutes=89)
    answer = call("audit").success()
    assert answer["message"] == (
        "Every slot is accounted for: 2 delivered, 2 failed, 1 skipped, 1 pending."
    )
    assert answer["totals"]["slots"] == 6


def test_who_decided_it_is_told_behind_a_loss_too(var: Path, clock: Clock) -> None:
    """P9: the actor in a line is that of the line's event, also where events before it are lost."""
    for agent in "abc":
        add(agent=agent)
    assert drop(var / "schedules", 3) == 1
    call("recover", "--yes").success()
    clock.advance(hours=1)
    undelivered = call("audit").success()["undelivered"]
    assert {line["agent_id"]: line["by"]["for_agent"] for line in undelivered} == {
        "a": "a", "c": "c",
    }  # fmt: skip


def test_what_is_wrong_is_said_in_sentences(var: Path, clock: Clock) -> None:
    """P7: slots without an outcome and schedules that can't be audited are counted, the one, the
    other, or both."""
    register = ("register", "--agent-id", AGENT, "--prompt", "p")
    first = call(*register, "--cron", "0 * * * *").success()["id"]
    clock.advance(minutes=10)
    away = {"changes": {"timezone": "Nowhere/Land"}, "reason": None}
    append_foreign(var, type="schedule.modified", data=away, ts="2026-11-20T12:10:00.000000Z")
    document = call("audit").error("slots_unaccounted")
    assert document["message"] == "1 schedule can't be audited."
    assert list(document["broken"]) == [first]
    second = call(*register, "--every", "1h").success()["id"]
    slot = "2026-11-20T12:30:00.000000Z"
    skipped = {"slot": slot, "last": slot, "slots": 1, "why": "budget"}
    at = "2026-11-20T12:10:01.000000Z"
    append_foreign(var, type="delivery.skipped", id=second, ts=at, data=skipped)
    clock.advance(minutes=80)
    document = call("audit").error("slots_unaccounted")
    assert document["message"].endswith("accounted for; 1 schedule can't be audited.")
    assert "1 slot is not" in document["message"]


def test_the_audit_of_waiting_triggers_takes_time_by_their_number() -> None:
    """P8: many slots that wait cost as much each as few do."""

    def seconds(number: int) -> float:
        world: Any = World()
        id_ = world.register(every="1h")
        slots = [
            ScheduleTriggered(format_utc(world.now + timedelta(microseconds=each)))
            for each in range(number)
        ]
        for at in range(0, number, 100):
            world.add((record, id_) for record in slots[at : at + 100])
        later = world.now + timedelta(minutes=1)
        took, entries = cpu_seconds(lambda: entries_of(world.events, later))
        assert len(entries) == number
        return took

    few = min(seconds(500) for _ in range(3))
    assert seconds(5000) < 40 * few


def test_an_agent_above_todays_cap_is_told_of_not_accused(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: the cap is a setting that the log doesn't have, so being above it is no problem by
    itself."""
    agent = sandbox.agents[0]
    add(agent=agent)
    for _ in range(2):
        clock.advance(hours=1)
        call("execute").success()
    assert "over_cap" not in call("audit").success()
    monkeypatch.setenv("PROMPTYOSELF_DAILY_PER_AGENT", "1")
    assert call("audit").success()["over_cap"] == [
        {"agent_id": agent, "day": "2026-11-20", "claims": 2, "cap": 1}
    ]
