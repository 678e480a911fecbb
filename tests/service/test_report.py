"""`report`: what happened in a while."""

from pathlib import Path
from typing import Any

import pytest
from by_hand import claim_due, deliver_due, settle
from calling import AGENT, add, call
from conftest import Clock
from damage import store_in

from promptyoself.rules.outcome import Abandoned, Failed
from promptyoself.service.upkeep.seal import seal
from promptyoself.store.store import Store
from promptyoself.store.tail import Tail

OTHER = AGENT[:-1] + "2"
REFUSED = Failed("letta_rejected", "The agent is gone.", permanent=True)
DOWN = Abandoned("letta_unreachable", "Nobody answers.")
NOTHING = {
    "delivered": 0, "failed": 0, "skipped": 0, "skipped_why": {}, "waiting": 0, "in_doubt": 0,
}  # fmt: skip


def report(*arguments: str) -> dict[str, Any]:
    return call("report", *arguments).success()


@pytest.fixture
def store(var: Path) -> Store:
    return store_in(var / "schedules")


@pytest.fixture
def night(var: Path, store: Store, clock: Clock) -> dict[str, str]:
    """The ids of schedules that had a night: delivered, failed, held back, paused, and overdue."""
    names = {"good": AGENT, "bad": OTHER, "down": "agent-3", "held": AGENT, "late": "agent-4"}
    ids = {
        name: add("--time", "in 6h", "--name", name, agent=agent, prompt=f"Be {name}.")
        for name, agent in names.items()
        if name not in ("held", "late")
    }
    ids["held"] = add("--every", "2h", "--name", "held")
    call("pause", "--id", ids["held"]).success()
    clock.set("2026-11-20T18:00")
    outcomes = {ids["bad"]: REFUSED, ids["down"]: DOWN}
    for claimed in claim_due(store, clock.now).claims:
        if claimed.id in outcomes:
            settle(store, claimed, clock.now, outcomes[claimed.id])
        else:
            settle(store, claimed, clock.now)
    call("resume", "--id", ids["held"]).success()
    ids["late"] = add("--time", "in 1h", "--name", "late", agent="agent-4")
    clock.set("2026-11-21T08:00")
    return ids


def test_it_tells_what_became_of_every_slot(night: dict[str, str]) -> None:
    """By agent and by schedule, with names and the last error; and what waits."""
    answer = report("--since", "last night")
    assert (answer["since"], answer["until"]) == (
        "2026-11-20T18:00:00.000000Z", "2026-11-21T08:00:00.000000Z",
    )  # fmt: skip
    assert answer["totals"] == {
        **NOTHING, "delivered": 1, "failed": 1, "skipped": 3, "skipped_why": {"paused": 3},
        "waiting": 3,
    }  # fmt: skip
    by_name = {line["name"]: line for line in answer["schedules"]}
    assert {name: line["id"] for name, line in by_name.items()} == night
    assert next(iter(by_name)) == "bad"  # the one with the most trouble
    assert by_name["bad"]["last_error"] == {
        "at": "2026-11-20T18:00:00.000000Z", "slot": "2026-11-20T18:00:00.000000Z",
        "code": "letta_rejected", "error": "The agent is gone.",
    }  # fmt: skip
    assert by_name["good"]["last_error"] is None
    assert by_name["good"]["prompt"] == "Be good."
    assert (by_name["held"]["skipped"], by_name["held"]["waiting"]) == (3, 1)
    agents = {line["agent_id"]: line for line in answer["agents"]}
    assert agents[AGENT] == {
        "agent_id": AGENT, **NOTHING, "delivered": 1, "skipped": 3, "skipped_why": {"paused": 3},
        "waiting": 1,
    }  # fmt: skip
    assert answer["message"] == (
        "1 delivered, 1 failed, 3 skipped, 3 still waiting, from 2026-11-20T18:00:00.000000Z to "
        "2026-11-21T08:00:00.000000Z."
    )


def test_each_outcome_has_a_line(night: dict[str, str]) -> None:
    """The newest outcomes with their times, and what has none yet with what holds it."""
    answer = report()
    lines = {line["name"]: line for line in answer["outcomes"]}
    assert {name: line["outcome"] for name, line in lines.items()} == {
        "good": "delivered", "bad": "failed", "held": "skipped",
    }  # fmt: skip
    assert lines["bad"]["error"] == "The agent is gone."
    assert lines["held"]["why"] == "paused"
    assert (lines["held"]["slots"], lines["held"]["last"][11:16]) == (3, "18:00")
    assert answer["count"] == 3
    waiting = {line["name"]: line for line in answer["open"]}
    assert {name: line["state"] for name, line in waiting.items()} == {
        "down": "waiting", "held": "due", "late": "due",
    }  # fmt: skip
    assert waiting["down"]["error"] == "Nobody answers."
    assert waiting["late"]["slot"] == "2026-11-20T19:00:00.000000Z"


def test_one_is_said_as_one(night: dict[str, str]) -> None:
    answer = report("--since", "1h ago", "--agent-id", "agent-4")
    assert answer["message"].endswith(" There is 1 still waiting.")


def test_the_window_counts(night: dict[str, str], clock: Clock) -> None:
    """It goes by when an outcome was recorded. What waits is told if it was due by the end."""
    answer = report("--since", "1h ago")
    assert answer["outcomes"] == []
    assert answer["totals"]["waiting"] == 3
    assert answer["message"].startswith("Nothing was delivered from ")
    assert answer["message"].endswith(" There are 3 still waiting.")
    earlier = report("--until", "2026-11-20T18:30")
    assert earlier["totals"]["failed"] == 1
    assert [line["name"] for line in earlier["open"]] == ["down"]
    call("report", "--since", "now", "--until", "2h ago").error("empty_window", 2)
    call("report", "--since", "someday").error("invalid_time")


def test_a_quiet_night_is_said(var: Path, clock: Clock) -> None:
    """With nothing in it, the report is a sentence."""
    add("--every", "2h")
    answer = report("--since", "1h ago")
    assert answer["message"] == (
        "Nothing was delivered from 2026-11-20T11:00:00.000000Z to 2026-11-20T12:00:00.000000Z, "
        "nothing failed, and nothing was skipped."
    )
    assert answer["totals"] == NOTHING
    assert answer["schedules"] == answer["agents"] == answer["outcomes"] == answer["open"] == []


def test_one_agent_alone(night: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --agent-id, and for a pinned caller, there is nothing of the others."""
    asked = report("--agent-id", OTHER)
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", OTHER)
    assert report() == asked
    assert [line["name"] for line in asked["schedules"]] == ["bad"]
    assert asked["totals"]["waiting"] == 0
    call("report", "--agent-id", AGENT).error("forbidden_agent")


def test_tags_choose(var: Path, store: Store, clock: Clock) -> None:
    """Only schedules that have every tag are told."""
    for name, tags in (("both", ("home", "daily")), ("home", ("home",)), ("none", ())):
        asked = [word for tag in tags for word in ("--tag", tag)]
        add("--every", "3h", "--name", name, *asked)
    clock.advance(hours=3)
    deliver_due(store, clock.now)
    clock.advance(hours=3)
    answer = report("--tag", "home")
    assert {line["name"] for line in answer["schedules"]} == {"both", "home"}
    assert (answer["totals"]["delivered"], answer["totals"]["waiting"]) == (1, 2)
    (one,) = report("--tag", "home", "--tag", "daily")["schedules"]
    assert one["name"] == "both"


def test_lists_are_bounded_and_what_is_left_out_is_counted(night: dict[str, str]) -> None:
    answer = report("--limit", "1")
    assert [len(answer[name]) for name in ("agents", "schedules", "outcomes", "open")] == [1] * 4
    assert answer["left_out"] == {"agents": 3, "schedules": 4, "outcomes": 2, "open": 2}
    assert answer["totals"]["skipped"] == 3
    assert "left_out" not in report()


def test_only_the_months_of_the_window_are_read(
    var: Path, store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier months aren't decoded, sealed or not; the answer is that of the whole log."""
    add("--every", "1d", "--name", "daily")
    for _ in range(100):
        clock.advance(days=1)
        deliver_due(store, clock.now)
    seal(store, clock.now)
    numbers: list[int] = []
    real = Tail.read

    def reading(self: Tail) -> Any:
        for owner, event in real(self):
            numbers.append(event.seq)
            yield owner, event

    monkeypatch.setattr(Tail, "read", reading)
    everything = report("--since", "2026-11-01")
    assert everything["totals"]["delivered"] == 100
    assert numbers[0] == 1
    numbers.clear()
    assert report("--since", "2026-12-31T13:00")["totals"]["delivered"] == 59
    assert numbers[0] > 20
    numbers.clear()
    assert report("--since", "2027-02-20")["totals"]["delivered"] == 9
    assert numbers[0] > 140


def test_a_damaged_log_has_no_report(var: Path, store: Store, clock: Clock) -> None:
    """Damage within the months of the window is an error, and so is a log whose end is missing."""
    add("--every", "1d")
    for _ in range(60):
        clock.advance(days=1)
        deliver_due(store, clock.now)
    path = var / "schedules" / "2026-12.ndjson.gz"
    content = path.read_bytes()
    path.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    call("report", "--since", "2026-12-01").error("corrupt_chain")
    path.write_bytes(content)
    report("--since", "2026-12-01")
    (var / "schedules" / "2027-01.ndjson.gz").unlink()
    call("report", "--since", "2026-12-01").error("events_missing")
