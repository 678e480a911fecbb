"""`resume` brings back a schedule that is over, as it last was."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from calling import AGENT, add, call, events_of, log_of, use_environ
from world import World, check_slots

from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.schedules.change import cancel, resume

BASE = ("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h")
KEPT = (
    "prompt",
    "name",
    "tags",
    "schedule_value",
    "jitter",
    "tier",
    "envelope",
    "agent_id",
    "until",
)


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, tmp_path)
        yield tmp_path


def test_it_comes_back_as_it_last_was(var: Path) -> None:
    """With the modified fields, under its id, in a next life; and the first content still is it."""
    id_ = add("--every", "1h", "--name", "plan", "--tag", "work")
    call(
        "modify", id_, "--prompt", "New", "--every", "2h", "--jitter", "5m", "--envelope"
    ).success()
    before = call("show", id_).success()["schedule"]
    for life in (2, 3):
        call("cancel", "plan").success()
        answer = call("resume", "plan", "--reason", "again").success()
        assert (answer["id"], answer["life"]) == (id_, life)
        after = call("show", id_).success()["schedule"]
        assert (after["status"], after["life"]) == ("active", life)
        assert {name: after.get(name) for name in KEPT} == {name: before.get(name) for name in KEPT}
        assert after["next_run"] == answer["next_run"]
    again = call(*BASE, "--name", "plan").success()
    assert (again["id"], again["created"]) == (id_, False)
    assert set(again["differs"]) == {"prompt", "schedule_value"}
    call("rebuild").success()
    assert call("show", id_).success()["schedule"] == after
    call("audit").success()
    call("verify").success()
    (line,) = call("export").out.splitlines()
    assert b'"registered"' in line


def test_one_that_was_never_modified_needs_no_first_content(var: Path) -> None:
    id_ = add("--every", "1h")
    call("cancel", id_).success()
    call("resume", id_).success()
    assert "first_content" not in events_of(var, "schedule.registered")[-1]["data"]


def test_what_cannot_come_back_is_refused(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is changed where its time has passed, its name is taken, or a limit stands there."""
    once = add("--time", "2027-01-31T09:00", "--until", "2027-01-31T09:00")
    named = add("--every", "2h", "--name", "plan")
    call("cancel", once, named).success()
    add("--every", "3h", "--name", "plan")
    before = log_of(var)
    assert call("resume", named).error("name_taken")["taken_by"] != named
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "1")
    call("resume", once).error("too_many_schedules")
    assert log_of(var) == before
    monkeypatch.delenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT")
    answer = call("resume", once).success()
    assert answer["next_run"] == "2027-01-31T09:00:00.000000Z"


def test_an_approval_does_not_come_back(var: Path) -> None:
    id_ = add("--every", "1h", "--tier", "2")
    content = call("show", id_).success()["schedule"]["content_sha256"]
    call("approve", id_, "--content", content).success()
    call("cancel", id_).success()
    assert "approve" in call("resume", id_).success()["warning"]
    assert not [a for a in call("approvals").success()["approvals"] if a["state"] == "live"]


def test_its_repetitions_and_slots_stay_spent() -> None:
    """No slot comes twice, and what it has fired counts."""
    world = World()
    id_ = world.register(cron="0 * * * *", max_repetitions=3)
    world.advance(hours=1)
    world.deliver()
    cancel(world, id_, None, world.now)  # type: ignore[arg-type]
    answer = resume(world, id_, None, world.now)  # type: ignore[arg-type]
    assert answer["next_run"] == "2026-11-20T14:00:00.000000Z"
    for _ in range(2):
        world.advance(hours=1)
        world.deliver()
    assert world.state.schedules[id_].status == "completed"
    with pytest.raises(PromptyoselfError, match="fired 3 times, of at most 3"):
        resume(world, id_, None, world.now)  # type: ignore[arg-type]
    world.advance(hours=2)
    assert check_slots(world.events, world.now) == {"delivered": 3}


def test_a_one_off_that_has_passed(var: Path) -> None:
    world = World()
    id_ = world.register()
    world.advance(minutes=1)
    world.deliver()
    with pytest.raises(PromptyoselfError, match="last slot has passed") as refusal:
        resume(world, id_, None, world.now + timedelta(hours=1))  # type: ignore[arg-type]
    assert refusal.value.code == "nothing_left"
