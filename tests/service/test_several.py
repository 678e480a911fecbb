"""Several schedules at once: asked before, in one append; what can't be done is left."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import (
    AGENT,
    add,
    call,
    clean_environ,
    events_of,
    log_of,
    run_at_a_terminal,
    use_environ,
)

from promptyoself.service.schedules import change
from promptyoself.state.schedules import State

OTHER = "agent-00000000-0000-4000-8000-000000000002"
DONE = {"cancel": "cancelled", "pause": "paused", "resume": "resumed", "trigger": "triggered"}


@pytest.fixture
def var(tmp_path: Path) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, tmp_path)
        yield tmp_path


@pytest.fixture
def ids(var: Path) -> list[str]:
    """Three of one agent, of which two are for work, and one of another agent."""
    return [
        add("--every", "1h", "--name", "one", "--tag", "work"),
        add("--every", "2h", "--name", "two", "--tag", "work", "--tag", "daily"),
        add("--every", "3h", "--name", "three"),
        add("--every", "4h", "--name", "four", agent=OTHER),
    ]


def done(document: dict[str, Any], what: str) -> list[str]:
    return [entry["id"] for entry in document[DONE[what]]]


@pytest.mark.parametrize("what", ["pause", "cancel", "trigger"])
def test_several_that_are_named(ids: list[str], var: Path, what: str) -> None:
    """Each that is named, by whatever word, in one append; what was named twice is done once."""
    answer = call(what, "one", ids[1], ids[2][4:], "one", "--reason", "holiday").success()
    assert done(answer, what) == ids[:3]
    assert (answer["count"], answer["left"]) == (3, [])
    events = [event for event in events_of(var) if event["data"].get("reason") == "holiday"]
    assert [event["id"] for event in events] == ids[:3]
    assert len({event["ts"] for event in events}) == 1


@pytest.mark.parametrize(
    ("chosen", "which"),
    [
        (["--agent-id", AGENT], (0, 1, 2)),
        (["--tag", "work"], (0, 1)),
        (["--tag", "work", "--tag", "DAILY"], (1,)),
        (["--agent-id", AGENT, "--tag", "daily"], (1,)),
        (["--all"], (0, 1, 2, 3)),
    ],
)
def test_those_that_are_chosen(ids: list[str], var: Path, chosen: list[str], which: Any) -> None:
    """Nothing is done without a word that it is meant; then all that are chosen, and no other."""
    before = log_of(var)
    refused = call("pause", *chosen).error("confirmation_needed")
    assert refused["count"] == len(which)
    assert log_of(var) == before
    answer = call("pause", *chosen, "--yes").success()
    assert sorted(done(answer, "pause")) == sorted(ids[number] for number in which)
    active = call("list", "--status", "active").success()["schedules"]
    assert {each["id"] for each in active} == set(ids) - {ids[number] for number in which}
    back = call("resume", *chosen, "--yes").success()
    assert sorted(done(back, "resume")) == sorted(ids[number] for number in which)
    assert all(entry["next_run"] for entry in back["resumed"])


def test_what_cannot_be_done_is_left(ids: list[str]) -> None:
    call("pause", "two").success()
    answer = call("pause", "--agent-id", AGENT, "--yes").success()
    assert sorted(done(answer, "pause")) == sorted([ids[0], ids[2]])
    (left,) = answer["left"]
    assert (left["id"], left["code"]) == (ids[1], "already_paused")
    assert answer["message"] == "2 schedules paused, 1 left as they are."
    call("cancel", ids[0]).success()
    answer = call("cancel", *ids[:2]).success()
    assert (answer["count"], answer["left"][0]["code"]) == (1, "already_cancelled")


@pytest.mark.parametrize("what", ["pause", "cancel", "trigger"])
def test_each_of_many_costs_the_same(
    ids: list[str], var: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: for each, neither is the state copied, nor are the open slots of all looked through."""
    ids += [add("--every", "5h", prompt=f"Look at {number}.") for number in range(6)]
    copies = 0
    copy = State.copy

    def counted(state: State) -> State:
        nonlocal copies
        copies += 1
        return copy(state)

    monkeypatch.setattr(State, "copy", counted)
    monkeypatch.setattr(change, "open_slots", lambda *_: pytest.fail("it looks through all"))
    costs = []
    for chosen in (ids[:2], ids[2:]):
        copies = 0
        assert call(what, *chosen).success()["count"] == len(chosen)
        costs.append(copies)
    assert costs[0] == costs[1]


@pytest.mark.parametrize(("what", "dropped"), [("pause", 0), ("cancel", 2)])
def test_what_waits_ends_with_its_schedule(
    ids: list[str], var: Path, what: str, dropped: int
) -> None:
    """Each has its own open slots: a cancelled one's are dropped, a paused one's triggers stay."""
    call("trigger", "one", "four").success()
    call(what, "--all", "--yes").success()
    skipped = [event for event in events_of(var) if event["type"] == "delivery.skipped"]
    assert [event["id"] for event in skipped] == sorted([ids[0], ids[3]])[:dropped]
    assert {event["data"]["why"] for event in skipped} <= {"cancelled"}
    assert call("stats").success()["open_slots"]["waiting"] == 2 - dropped


def test_one_that_is_unknown_refuses_all(ids: list[str], var: Path) -> None:
    before = log_of(var)
    call("cancel", "one", "nowhere").error("unknown_id")
    call("cancel", ids[0], "sch_00000000").error("unknown_id")
    assert log_of(var) == before


def test_what_has_not_the_tag_is_told(ids: list[str]) -> None:
    """An empty choice says which tags, or agents, there are."""
    error = call("cancel", "--tag", "wrok", "--yes").error("nothing_chosen")
    assert "'wrok'" in error["message"]
    assert "daily, work" in error["hint"]
    error = call("pause", "--agent-id", "agent-x", "--yes").error("nothing_chosen")
    assert "'agent-x'" in error["message"]
    assert call("resume", "--all", "--yes").error("nothing_chosen")["message"].startswith("No ")


def test_ways_that_exclude_each_other(ids: list[str]) -> None:
    for words in (["one", "--all"], ["--id", "one", "two"], ["--all", "--tag", "work"],
                  ["--id", "one", "--agent-id", AGENT]):  # fmt: skip
        call("cancel", *words, "--yes").error("conflicting_options", 2)
    call("resume", "--failed-with", "x", "--all").error("conflicting_options", 2)
    call("cancel", "--yes").error("missing_option", 2)


def test_a_pause_of_all_that_ends_by_itself(ids: list[str]) -> None:
    answer = call("pause", "--all", "--yes", "--until", "in 2d").success()
    assert answer["count"] == 4
    assert len({entry["resume_at"] for entry in answer["paused"]}) == 1


def test_a_pinned_caller_chooses_among_its_own(
    ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OTHER)
    answer = call("cancel", "--all", "--yes").success()
    assert done(answer, "cancel") == [ids[3]]
    call("cancel", "--agent-id", AGENT, "--yes").error("forbidden_agent")


def test_the_rooms_of_an_agent_are_counted(ids: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several that are resumed, as many come back as there is room for."""
    call("pause", "--all", "--yes").success()
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "2")
    answer = call("resume", "--agent-id", AGENT, "--yes").success()
    assert answer["count"] == 2
    assert [left["code"] for left in answer["left"]] == ["too_many_schedules"]


@pytest.mark.parametrize(("typed", "count"), [(b"y\n", 2), (b"n\n", 0)])
def test_a_person_is_asked(ids: list[str], var: Path, typed: bytes, count: int) -> None:
    """At a terminal the question says how many, and no means no."""
    answer = run_at_a_terminal("cancel", "--tag", "work", environ=clean_environ(var), typed=typed)
    assert "2 schedules" in answer.out.decode() + answer.err
    assert len(events_of(var, "schedule.cancelled")) == count
