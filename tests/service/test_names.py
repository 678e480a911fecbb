"""A schedule is named by its id, a beginning of it, or its name; never by what means two."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, add, call, events_of, log_of, use_environ
from world import World

from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.agent_names import remember_names
from promptyoself.service.schedules.change import modify, resume
from promptyoself.service.schedules.request import Request

OTHER = "agent-00000000-0000-4000-8000-000000000002"


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, tmp_path)
        yield tmp_path


def test_a_schedule_is_named_in_every_way(var: Path) -> None:
    """The id, its first digits, and the name mean the same schedule, as --id and without it."""
    id_ = add("--every", "1h", "--name", "Plan")
    for word in (id_, id_[:8], id_[4:], id_[4:8].upper(), "Plan", "plan", "PLAN"):
        for arguments in (["--id", word], [word]):
            shown = call("show", *arguments).success()
            assert (shown["id"], shown["schedule"]["id"]) == (id_, id_)
    for command in ("next", "history", "trigger", "pause", "resume", "modify"):
        more = ["--every", "2h"] if command == "modify" else []
        call(command, "plan", *more).success()
    assert call("cancel", id_[4:9], "--reason", "done").success()["cancelled_id"] == id_
    assert call("show", "plan").success()["schedule"]["status"] == "cancelled"
    assert {event["id"] for event in events_of(var, "schedule.")} == {id_}


def test_what_names_several_is_refused(var: Path) -> None:
    """Where a word means two schedules, nothing is changed, and the error lists them."""
    first = add("--every", "1h", "--name", "plan")
    second = add("--every", "2h", "--name", "plan", agent=OTHER)
    before = log_of(var)
    error = call("cancel", "plan").error("ambiguous_schedule")
    assert all(part in error["message"] for part in (first, second, OTHER, "'p'"))
    listed = sorted(candidate["id"] for candidate in error["candidates"])
    assert listed == sorted([first, second])
    assert log_of(var) == before
    call("cancel", first).success()
    assert call("cancel", "plan").success()["cancelled_id"] == second  # the one that isn't over
    call("resume", "Plan").error("ambiguous_schedule")  # both are over now


def test_a_name_of_digits_and_an_id_that_begins_so_are_two(var: Path) -> None:
    id_ = add("--every", "1h")
    named = add("--every", "2h", "--name", id_[4:9])
    error = call("pause", id_[4:9]).error("ambiguous_schedule")
    assert {candidate["id"] for candidate in error["candidates"]} == {id_, named}
    assert call("pause", id_[:9]).success()["id"] == id_  # a name doesn't begin with sch_


@pytest.mark.parametrize("word", ["plan", "", "sch_", "sch_1234", "dead", "bcd", "a b", "sch_zzzz"])
def test_an_unknown_word_is_an_unknown_id(var: Path, word: str) -> None:
    add("--every", "1h", "--name", "abcd x")
    for command in ("show", "cancel", "next", "history", "approve", "revoke"):
        error = call(command, "--id", word).error("unknown_id")
        assert error["message"] == f"There is no schedule {word!r}."
        assert error["hint"] == "`promptyoself list --status all` shows the ids there are."


def test_a_pinned_caller_names_its_own_alone(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to another agent can't be matched, not even to make a word ambiguous."""
    own = add("--every", "1h", "--name", "plan")
    other = add("--every", "2h", "--name", "plan", agent=OTHER)
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    assert call("show", "plan").success()["id"] == own
    call("show", other[4:]).error("unknown_id")
    call("show", other).error("forbidden_agent")


def test_a_schedule_is_named_once(var: Path) -> None:
    id_ = add("--every", "1h", "--name", "plan")
    call("show", "plan", "--id", id_).error("conflicting_options", 2)
    call("show", "plan", "plan").error("wrong_usage", 2)
    call("show", "--id", id_, "--id", id_, verbatim=True).error("repeated_option", 2)
    call("show").error("missing_option", 2)


def test_a_flag_before_a_name_keeps_its_value(var: Path) -> None:
    """`--flag true` is understood beside a plain argument, as it is without one."""
    id_ = add("--every", "1h", "--name", "plan")
    call("modify", "--envelope", "true", "plan").success()
    assert call("show", id_).success()["schedule"]["envelope"] is True


def test_names_that_are_in_use_are_unique(var: Path) -> None:
    """No two schedules of an agent that aren't over get the same name."""
    first = add("--every", "1h", "--name", "plan")
    again = ("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--name", "plan")
    assert call(*again).success()["created"] is False
    error = call(*again[:6], "2h", "--name", "plan").error("name_taken")
    assert error["taken_by"] == first
    assert first in error["message"]
    call(*again[:6], "2h", "--name", "plan", "--dry-run").error("name_taken")
    add("--every", "2h", "--name", "plan", agent=OTHER)
    second = add("--every", "3h", "--name", "Plan")
    call("modify", second, "--name", "plan").error("name_taken")
    call("modify", first, "--name", "plan").success()
    call("modify", "plan", "--agent-id", OTHER).error("ambiguous_schedule")
    call("modify", first, "--agent-id", OTHER).error("name_taken")
    call("cancel", first).success()
    call("modify", second, "--name", "plan").success()
    call(*again).error("name_taken")  # which would bring the cancelled one back


def test_a_failed_schedule_does_not_come_back_beside_its_name() -> None:
    """What has failed is over, so its name may be taken meanwhile; then `resume` refuses it."""
    world = World()
    store: Any = world
    failed = world.register(name="plan", grace="1h")
    world.advance(days=1)
    world.claim()
    modify(store, failed, Request(every="1h"), world.now)
    assert world.state.schedules[failed].status == "failed"
    other = world.register(name="plan", every="2h")
    with pytest.raises(PromptyoselfError) as refused:
        resume(store, failed, None, world.now)
    assert (refused.value.code, refused.value.details["taken_by"]) == ("name_taken", other)
    modify(store, failed, Request(name="plan 2"), world.now)
    resume(store, failed, None, world.now)
    assert world.state.schedules[failed].status == "active"


def test_too_short_a_beginning_is_told(var: Path) -> None:
    id_ = add("--every", "1h")
    for word in (id_[:7], id_[:5].upper()):
        assert "needs four of its digits" in call("show", word).error("unknown_id")["hint"]
    assert "four" not in call("show", "sch_0000").error("unknown_id")["hint"]


@pytest.mark.parametrize(
    ("word", "similar"),
    [
        ("morn", "'morning-plan' or 'morning-walk'"),
        ("Moring-plan", "'morning-plan'"),
        ("mornin-walk", "'morning-walk'"),
        ("evening", None),
        ("over", None),
    ],
)
def test_names_that_are_similar_are_told(var: Path, word: str, similar: str | None) -> None:
    """Where a word names nothing, a few names that begin so, or are spelled much like it. Those of
    schedules that are over aren't among them."""
    for name in ("morning-plan", "morning-walk", "overdue"):
        add("--every", "1h", "--name", name)
    call("cancel", "overdue").success()
    hint = call("show", word).error("unknown_id")["hint"]
    listed = "`promptyoself list --status all` shows the ids there are."
    assert hint == (f"Did you mean {similar}? {listed}" if similar else listed)


@pytest.mark.parametrize("name", ["sch_deadbeef", "sch_8b9", "SCH_8B9A", "sch_deadbeef00"])
def test_a_name_is_no_id(var: Path, name: str) -> None:
    """A name that could be taken for another schedule's id is refused."""
    id_ = add("--every", "1h")
    before = log_of(var)
    words = ("register", "--agent-id", AGENT, "--prompt", "p", "--every", "2h", "--name")
    assert name in call(*words, name).error("invalid_name")["message"]
    call("modify", id_, "--name", name).error("invalid_name")
    assert log_of(var) == before
    for fine in ("sch_plan", "sch_", "deadbeef"):
        call("modify", id_, "--name", fine).success()


def test_an_agent_goes_by_the_name_that_letta_told(var: Path) -> None:
    """The name of one agent stands for its id; a person is told of what is neither."""
    remember_names(var, {AGENT: "echo-1", OTHER: "twin", "agent-3": "twin"})
    words = ("register", "--prompt", "p", "--every", "1h", "--agent-id")
    id_ = call(*words, "echo-1").success()["id"]
    assert call("show", id_).success()["schedule"]["agent_id"] == AGENT
    id_ = call(*words, "twin").success()["id"]
    assert call("show", id_).success()["schedule"]["agent_id"] == "twin"
    assert "look like" not in call(*words, "echo-8").success().get("warning", "")


def test_a_person_is_warned_of_an_unlikely_agent_each_time(var: Path) -> None:
    """That a schedule has such an id doesn't make it an agent's; that Letta told of it does."""

    def shown(*words: str) -> str:
        return " ".join(call(*words, "--format", "table").out.decode().split())

    remember_names(var, {"agent-3": "echo-3", "agent-4": "twin", "agent-5": "twin"})
    hint = "doesn't look like an agent's id (agent- and a UUID), and {} that name. `promptyoself"
    unknown, twice = hint.format("no agent is known by"), hint.format("2 agents have")
    id_ = add("--every", "2h")
    for words in (("register", "--prompt", "p", "--every", "1h"), ("modify", id_)):
        for _ in range(2):
            assert unknown in shown(*words, "--agent-id", "echo-9"), words
            assert unknown in shown(*words, "--agent-id", "agent-9"), words
        assert twice in shown(*words, "--agent-id", "twin")
        for likely in (AGENT, "agent-3", "echo-3"):
            assert "look like" not in shown(*words, "--agent-id", likely)
    assert call("show", id_).success()["schedule"]["agent_id"] == "agent-3"


def test_a_person_is_warned_of_an_unlikely_conversation(var: Path) -> None:
    """Each target has its own form of ids. Programs aren't warned, since the ids are Letta's
    business."""
    remark = "is neither new nor default, and doesn't look like a conversation's id"
    of_server = "conv-00000000-0000-4000-8000-000000000001"
    words = ("--prompt", "p", "--every", "1h", "--agent-id")
    id_ = add("--every", "2h")

    def shown(*words: str) -> str:
        return " ".join(call(*words, "--format", "table").out.decode().split())

    for conversation, of_letta, of_letta_code in (
        ("neww", False, False),
        ("local-conv-", False, False),
        ("local-conv-12", False, True),
        ("conv-12", False, True),
        (of_server, True, True),
        *((word, True, True) for word in ("new", "Default")),
    ):
        said = f"'{conversation}' {remark}"
        given = ("--conversation", conversation)
        for command in ("register", "idle"):
            text = words if command == "register" else words[2:]
            of_server_told = shown(command, *text, AGENT, *given)
            of_code_told = shown(command, *text, "agent-local-1", *given)
            assert (said not in of_server_told) == of_letta, (command, conversation)
            assert (said not in of_code_told) == of_letta_code, (command, conversation)
        assert (said in shown("modify", id_, *given)) == (not of_letta_code)
        assert "look like" not in call("register", *words, AGENT, *given).out.decode()
    assert "look like" not in shown("modify", id_, "--conversation", "")
