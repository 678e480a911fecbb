"""Undo: what was changed last is as it was before, by another event, and nothing is sent twice."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from calling import add, call, events_of
from hypothesis import given, settings
from hypothesis import strategies as st
from stories import AGENTS, OUTCOMES, WHENS, Story
from tally import rounds
from world import World, check_deliveries, check_slots

from promptyoself.core.errors import PromptyoselfError
from promptyoself.events.schedule_fields import FIELDS
from promptyoself.service.schedules.change import modify, pause
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.undo import undo

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Clock


def fields_of(id_: str) -> dict[str, Any]:
    """What a schedule is, as `show` has it."""
    schedule = call("show", "--id", id_).success()["schedule"]
    return {name: value for name, value in schedule.items() if name in (*FIELDS, "anchor")}


@pytest.mark.parametrize(
    "changes",
    [
        ("--prompt", "Other words.", "--name", "other"),
        ("--every", "2h"),
        ("--cron", "0 9 * * *", "--tz", "Europe/Paris"),
        ("--until", "2030-01-01", "--max-repetitions", "9", "--daily-budget", "2"),
        ("--grace", "2h", "--jitter", "5m", "--envelope", "--misfire", "skip", "--tier", "1"),
        ("--on-failure", "agent-9", "--conversation-id", "conv-1"),
        ("--target", "letta-code", "--conversation", "new"),
        ("--template", "idle"),
        ("--prompt", "{{ name }}", "--render"),
    ],
)
def test_a_modification_is_taken_back_and_again(
    changes: tuple[str, ...], var: Path, clock: Clock
) -> None:
    """Every field is as it was; undoing that is doing it again; the log has three changes."""
    id_ = add(*("--every", "1h", "--name", "plan"))
    before = fields_of(id_)
    clock.advance(minutes=10)
    call("modify", "--id", id_, *changes).success()
    after = fields_of(id_)
    assert after != before
    clock.advance(minutes=10)
    answer = call("undo", "--id", id_).success()
    assert (answer["id"], answer["undone"]) == (id_, "schedule.modified")
    assert fields_of(id_) == before
    clock.advance(minutes=10)
    call("undo", "--id", id_).success()
    assert fields_of(id_) == after
    assert len(events_of(var, "schedule.modified")) == 3


def test_each_kind_of_change_is_taken_back(var: Path, clock: Clock) -> None:
    """Registered, paused, resumed and triggered: what they did is done the other way."""
    id_ = add()

    def status() -> str:
        clock.advance(minutes=1)
        return str(call("show", "--id", id_).success()["schedule"]["status"])

    call("pause", "--id", id_).success()
    call("undo", "--id", id_).success()
    assert status() == "active"
    call("undo", "--id", id_).success()
    assert status() == "paused"
    call("resume", "--id", id_).success()
    call("undo", "--id", id_).success()
    assert status() == "paused"
    call("resume", "--id", id_).success()
    call("trigger", "--id", id_).success()
    answer = call("undo", "--id", id_).success()
    assert answer["undone"] == "schedule.triggered"
    assert events_of(var, "delivery.skipped")[-1]["data"]["kind"] == "trigger"
    assert call("undo", "--id", id_).error("cannot_undo")["undone"] == "schedule.triggered"
    other = add(prompt="another")
    answer = call("undo").success()
    assert (answer["id"], answer["undone"]) == (other, "schedule.registered")
    assert call("show", "--id", other).success()["schedule"]["status"] == "cancelled"


def test_what_was_cancelled_comes_back_as_it_was(var: Path, clock: Clock) -> None:
    """Active or paused, with its modifications; and undoing that cancels it again."""
    id_ = add()
    call("modify", id_, "--prompt", "Other words.", "--name", "x").success()
    for status in ("active", "paused"):
        before = fields_of(id_)
        clock.advance(minutes=1)
        call("cancel", id_).success()
        clock.advance(minutes=1)
        call("undo", id_).success()
        assert (fields_of(id_), shown_status(id_)) == (before, status)
        clock.advance(minutes=1)
        call("pause", id_) if status == "active" else None
    add(prompt="another", agent="agent-2")
    call("cancel", id_).success()
    call("undo", id_).success()
    call("resume", id_).success()
    call("cancel", id_).success()
    call("undo", id_).success()
    clock.advance(minutes=1)
    assert "cancelled" in call("undo", id_).success()["message"]
    assert shown_status(id_) == "cancelled"


def shown_status(id_: str) -> str:
    return str(call("show", id_).success()["schedule"]["status"])


def test_a_pause_with_an_end_is_taken_back_to_what_it_was(var: Path, clock: Clock) -> None:
    """Another end is taken back to the first, and a pause that was resumed has its end again."""
    id_ = add()
    call("pause", id_, "--until", "2030-01-01").success()
    first = call("show", id_).success()["schedule"]["resume_at"]
    clock.advance(minutes=1)
    call("pause", id_, "--until", "2031-01-01").success()
    clock.advance(minutes=1)
    assert call("undo").success()["resume_at"] == first
    call("resume", id_).success()
    clock.advance(minutes=1)
    call("undo").success()
    schedule = call("show", id_).success()["schedule"]
    assert (schedule["status"], schedule["resume_at"]) == ("paused", first)


def test_a_pause_that_ended_by_itself_is_nobodys_change(var: Path, clock: Clock) -> None:
    """The end of a pause is written when something looks: it isn't what was changed last, and a
    pause whose time has passed isn't set up again, without an end."""
    first, second = add("--every", "1h"), add("--every", "2h")
    call("pause", second, "--until", "in 30m").success()
    call("modify", first, "--prompt", "Other words.").success()
    clock.advance(hours=1)
    call("execute")  # ends its pause, whether Letta is there or not
    assert events_of(var, "schedule.resumed")
    answer = call("undo").success()
    assert (answer["id"], answer["undone"]) == (first, "schedule.modified")
    call("undo", second).error("cannot_undo")
    assert shown_status(second) == "active"


def test_no_pause_without_an_end_comes_of_one_with_an_end(var: Path, clock: Clock) -> None:
    """What was to run again by itself isn't paused for ever by an undo after that time."""
    ids = [add(prompt=prompt) for prompt in ("a", "b", "c")]
    for id_ in ids:
        call("pause", id_, "--until", "in 2h").success()
    clock.advance(hours=1)
    call("resume", ids[0]).success()
    call("cancel", ids[1]).success()
    call("pause", ids[2], "--until", "2031-01-01").success()
    clock.advance(hours=2)
    call("undo", ids[0]).error("cannot_undo")
    call("undo", ids[1]).success()
    call("undo", ids[2]).error("cannot_undo")
    assert [shown_status(id_) for id_ in ids] == ["active", "active", "paused"]
    assert call("show", ids[2]).success()["schedule"]["resume_at"].startswith("2031")


def test_without_an_id_it_is_the_callers_last_change(var: Path, monkeypatch: Any) -> None:
    """Somebody else's later change is left alone, unless its schedule is named."""
    call("undo").error("nothing_to_undo")
    mine = add(prompt="mine")
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-2")
    theirs = add(agent="agent-2", prompt="theirs")
    call("undo", "--id", mine).error("forbidden_agent")
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    answer = call("undo", "--dry-run").success()
    assert (answer["id"], answer["dry_run"]) == (mine, True)
    assert call("undo", "--id", theirs).success()["by"] == "agent-2"
    assert call("show", "--id", mine).success()["schedule"]["status"] == "active"


def test_a_caller_who_is_pinned_cannot_give_a_schedule_away(var: Path, monkeypatch: Any) -> None:
    """A schedule that another agent had before isn't given back by the agent that has it now."""
    id_ = add(agent="agent-1")
    call("modify", "--id", id_, "--agent-id", "agent-2").success()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-2")
    call("undo", "--id", id_).error("forbidden_agent")


def test_what_cannot_be_taken_back_is_said(var: Path, clock: Clock) -> None:
    """Times that have passed, an approval that was taken back: an error says why, and the log stays
    as it is."""
    id_ = add("--time", "in 10m", "--tier", "2")
    call("modify", "--id", id_, "--time", "in 1d").success()
    clock.advance(hours=1)
    refused = call("undo", "--id", id_).error("cannot_undo")
    assert "have passed" in refused["message"]
    call("approve", "--id", id_).success()
    assert call("undo", "--id", id_).success()["undone"] == "approval.granted"
    call("undo", "--id", id_).error("cannot_undo")
    assert [event["type"] for event in events_of(var, "approval.")] == [
        "approval.granted",
        "approval.revoked",
    ]


def test_slots_that_passed_meanwhile_stay_as_they_are() -> None:
    """Nothing is sent twice, and nothing that a pause has skipped is sent later."""
    world = World()
    id_ = world.register(every="1h")
    for _ in range(3):
        world.advance(hours=1)
        world.deliver()
    pause(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(hours=3)
    undo(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(minutes=1)
    assert world.claim().claims == []
    modify(world, id_, Request(every="10m"), world.now)  # type: ignore[arg-type]
    world.advance(minutes=30)
    world.deliver()
    undo(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(hours=2)
    world.deliver()
    check_deliveries(world.events)
    check_slots(world.events, world.now)
    sent = Counter(
        event.data["slot"] for event in world.events if event.type == "delivery.delivered"
    )
    assert set(sent.values()) == {1}


def test_a_change_in_between_is_not_lost() -> None:
    """If somebody changes the schedule between the look at the log and the lock, nothing is taken
    back."""
    world = World()
    id_ = world.register(every="1h", name="a")
    modify(world, id_, Request(name="b"), world.now)  # type: ignore[arg-type]
    transact = world.transact

    def later(now: Any, decide: Any) -> Any:
        world.transact = transact  # type: ignore[method-assign]
        modify(world, id_, Request(name="c"), world.now)  # type: ignore[arg-type]
        return transact(now, decide)

    world.transact = later  # type: ignore[method-assign]
    with pytest.raises(PromptyoselfError) as refused:
        undo(world, id_, None, world.now)  # type: ignore[arg-type]
    assert refused.value.code == "changed_meanwhile"
    assert world.state.schedules[id_].name == "c"


STEPS = st.one_of(
    st.tuples(st.just("register"), st.tuples(AGENTS, WHENS)),
    st.tuples(st.just("wait"), st.integers(0, 7200)),
    st.tuples(st.just("jump"), st.integers(-3600, 3600)),
    st.tuples(st.just("pass"), st.integers(0, 1)),
    st.tuples(st.just("land"), OUTCOMES),
    st.tuples(st.just("crash"), st.integers(0, 1)),
    st.tuples(
        st.sampled_from(["pause", "resume", "cancel", "trigger", "revive"]), st.integers(0, 9)
    ),
    st.tuples(st.just("modify"), st.tuples(st.integers(0, 9), WHENS)),
    st.tuples(st.just("modify"), st.tuples(st.integers(0, 1), WHENS)),
    st.tuples(st.just("approve"), st.integers(0, 9)),
    st.tuples(st.just("undo"), st.integers(0, 1)),
    st.tuples(st.just("undo"), st.integers(0, 9)),
    st.tuples(st.just("undo"), st.none()),
)


def is_approval_last(story: Story, id_: str | None) -> bool:
    """Whether the last change, of that schedule or of any, was an approval."""
    changes = (
        event.type
        for event in reversed(story.world.events)
        if event.id and id_ in (None, event.id) and not event.type.startswith("delivery.")
    )
    return next(changes, "").startswith("approval.")


@settings(max_examples=rounds(80), deadline=None)
@given(st.lists(STEPS, min_size=8, max_size=40))
def test_the_audit_of_any_story_with_undo_is_clean(steps: list[tuple[str, Any]]) -> None:
    """Whatever was done and taken back, by any clock: each slot has its one outcome, and none was
    sent twice."""
    story = Story()
    begin = [("register", (0, {"every": "7m"})), ("register", (1, {"every": "1h", "tier": 2}))]
    for what, detail in [*begin, *steps]:
        if what != "undo":
            story.step(what, detail)
        elif detail is None or story.ids:
            id_ = None if detail is None else story.ids[detail % len(story.ids)]
            if is_approval_last(story, id_):  # whose undoing needs the files of a real store
                continue
            with suppress(PromptyoselfError):
                undo(story.world, id_, None, story.world.now)  # type: ignore[arg-type]
    story.record_outcomes()
    check_deliveries(story.world.events)
    sums = check_slots(story.world.events, story.world.now, [story.names[0]])
    assert set(sums) <= {"delivered", "failed", "skipped", "pending"}
