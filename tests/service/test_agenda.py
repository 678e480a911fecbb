"""`agenda`: what fires in the next hours or days."""

from pathlib import Path
from typing import Any

import pytest
from calling import AGENT, add, call
from conftest import Clock

from promptyoself.service.forecast import agenda as service

OTHER = AGENT[:-1] + "2"


def agenda(*arguments: str) -> dict[str, Any]:
    return call("agenda", *arguments).success()


def lines(answer: dict[str, Any]) -> list[tuple[str, str, int]]:
    """When each line is, whose, and how many deliveries it stands for."""
    return [(line["local"][5:16], line["name"], line["fires"]) for line in answer["agenda"]]


def test_it_says_what_fires_and_when(var: Path, clock: Clock) -> None:
    """A line for each delivery of the next 24 hours, or of as long as `--for` says, the soonest
    first."""
    add("--cron", "0 9 * * *", "--name", "plan")
    add("--time", "in 2h", "--name", "once", agent=OTHER)
    answer = agenda()
    assert (answer["since"], answer["until"]) == (
        "2026-11-20T12:00:00.000000Z", "2026-11-21T12:00:00.000000Z",
    )  # fmt: skip
    assert lines(answer) == [("11-20T14:00", "once", 1), ("11-21T09:00", "plan", 1)]
    assert (answer["count"], answer["fires"]) == (2, 2)
    assert answer["message"] == "2 deliveries up to 2026-11-21T12:00:00.000000Z."
    assert "loop" in answer["warning"]
    first = answer["agenda"][0]
    assert (first["at"], first["slot"]) == ("2026-11-20T14:00:00.000000Z",) * 2
    assert (first["agent_id"], first["prompt"], first["schedule_type"]) == (OTHER, "p", "once")
    three = [("11-20T14:00", "once", 1), *((f"11-{day}T09:00", "plan", 1) for day in (21, 22, 23))]
    assert lines(agenda("--for", "3d")) == three
    assert lines(agenda("--for", "90m")) == []
    assert agenda("--for", "90m")["message"].startswith("Nothing fires up to ")
    assert lines(agenda("--agent-id", OTHER)) == [("11-20T14:00", "once", 1)]
    call("agenda", "--for", "soon").error("invalid_duration")


def test_what_fires_often_is_one_line_a_day(var: Path, clock: Clock) -> None:
    """A schedule that fires more than a few times on a day is summed up."""
    add("--every", "5m", "--name", "often")
    add("--every", "6h", "--name", "seldom")
    answer = agenda("--for", "1d")
    assert sorted(lines(answer)) == [
        ("11-20T12:05", "often", 143), ("11-20T18:00", "seldom", 1), ("11-21T00:00", "often", 145),
        ("11-21T00:00", "seldom", 1), ("11-21T06:00", "seldom", 1), ("11-21T12:00", "seldom", 1),
    ]  # fmt: skip
    summed = answer["agenda"][0]
    assert (summed["last"], summed["schedule_value"]) == ("2026-11-20T23:55:00.000000Z", "5m")
    assert (answer["count"], answer["fires"]) == (6, 143 + 145 + 4)
    assert "last" not in answer["agenda"][1]


def test_days_are_those_of_the_zone(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Asia/Tokyo")
    add("--every", "5m", "--name", "often")
    answer = agenda("--for", "6h")
    assert answer["timezone"] == "Asia/Tokyo"
    assert lines(answer) == [("11-20T21:05", "often", 35), ("11-21T00:00", "often", 37)]


def test_what_is_left_out_is_counted(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many lines those come that are soonest; the rest is counted. A day that no one can compute
    to its end is cut, and says so."""
    add("--every", "4h", "--name", "a")
    answer = agenda("--limit", "2")
    assert (answer["count"], answer["fires"], answer["total"]) == (2, 6, 6)
    assert "total" not in agenda("--limit", "6")
    monkeypatch.setattr(service, "MAX_EVENTS", 3)
    answer = agenda("--for", "3d")
    assert answer["truncated"] is True
    assert answer["fires"] == 2
    assert answer["until"] == "2026-11-20T20:00:00.000000Z"
    assert "too many" in answer["message"]


def test_what_does_not_fire_is_said(var: Path, clock: Clock) -> None:
    """Paused schedules, and what a limit stops. (Of unknown zones another test tells.)"""
    paused = add("--every", "1h", "--name", "paused")
    call("pause", "--id", paused).success()
    add("--every", "1h", "--daily-budget", "3", "--name", "poor", agent=OTHER)
    answer = agenda("--for", "6h")
    assert [line["id"] for line in answer["paused"]] == [paused]
    assert answer["paused"][0]["name"] == "paused"
    assert answer["skipped"] == {"budget": 3}
    assert "1 paused" in answer["message"]
    assert "3 slots are skipped (budget)" in answer["message"]
    assert "paused" not in agenda("--agent-id", OTHER)


def test_overdue_slots_fire_at_once(var: Path, clock: Clock) -> None:
    """What is overdue fires as soon as a loop runs; its slot says since when it waits."""
    add("--time", "in 5m", "--name", "late")
    clock.advance(hours=1)
    (line,) = agenda()["agenda"]
    assert (line["at"][11:16], line["slot"][11:16]) == ("13:00", "12:05")


def test_tags_choose(var: Path, clock: Clock) -> None:
    """Only schedules that have every tag are told, the paused ones too."""
    add("--every", "3h", "--name", "both", "--tag", "home", "--tag", "daily")
    add("--every", "3h", "--name", "home", "--tag", "home")
    paused = add("--every", "3h", "--name", "paused", "--tag", "daily")
    call("pause", "--id", paused).success()
    assert {line["name"] for line in agenda("--tag", "Home")["agenda"]} == {"both", "home"}
    answer = agenda("--tag", "home", "--tag", "daily")
    assert (answer["fires"], "paused" in answer) == (8, False)
    assert agenda("--tag", "daily")["paused"][0]["name"] == "paused"
    call("agenda", "--tag", "").error("invalid_tag")


def test_idle_prompts_are_in_it(var: Path, clock: Clock) -> None:
    """An idle prompt fires where its agent has desires."""
    call("idle", "--agent-id", AGENT, "--every", "1h").success()
    assert agenda("--for", "90m")["agenda"] == []
    call("desire", "--agent-id", AGENT, "--text", "Learn Danish.").success()
    (line,) = agenda("--for", "90m")["agenda"]
    assert line["template"] == "idle"


def test_a_pinned_caller_sees_its_own(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    add("--every", "4h")
    paused = add("--every", "4h", agent=OTHER)
    call("pause", "--id", paused).success()
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    answer = agenda("--for", "4h")
    assert [line["agent_id"] for line in answer["agenda"]] == [AGENT]
    assert "paused" not in answer
    call("agenda", "--agent-id", OTHER).error("forbidden_agent")
