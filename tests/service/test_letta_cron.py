"""`import-letta-cron`: which of Letta Code's own schedules become ours, what is different then, and
what is said of those that are left."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import Answer, call, events_of
from hypothesis import given
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Iterable

AGENT = "agent-local-00000000-0000-4000-8000-000000000001"
WRITTEN = Path(__file__).parents[1] / "testdata" / "crons-of-letta-0.34.12.json"
"""What `letta cron add` of letta 0.34.12 has written: five tasks."""

TASK: dict[str, Any] = {
    "id": "cbe12782",
    "agent_id": AGENT,
    "conversation_id": "new",
    "name": "plan",
    "description": "plan",
    "cron": "30 2 * * 1-5",
    "timezone": "Europe/Berlin",
    "recurring": True,
    "prompt": "Plan the day.",
    "status": "active",
    "created_at": "2026-11-29T05:29:16.466Z",
    "expires_at": None,
    "jitter_offset_ms": 0,
    "scheduled_for": None,
}
ONCE = {**TASK, "recurring": False, "scheduled_for": "2099-12-10T08:00:00.000Z"}


def take(content: bytes, *more: str) -> Answer:
    """Import from stdin."""
    return call("import-letta-cron", "-", *more, stdin=content)


def file_of(*tasks: dict[str, Any]) -> bytes:
    """A file of Letta Code's with these tasks."""
    return orjson.dumps(
        {"version": 1, "scheduler_owner": None, "scheduler_owners": {}, "tasks": tasks}
    )


def taken(*tasks: dict[str, Any]) -> list[dict[str, Any]]:
    """What is said of tasks that are all taken."""
    answer = take(file_of(*tasks)).success()
    assert answer["left"] == []
    found: list[dict[str, Any]] = answer["taken"]
    return found


def registered(var: Path) -> list[dict[str, Any]]:
    """What the log has of each registration."""
    return [event["data"] for event in events_of(var, "schedule.registered")]


def notes(*tasks: dict[str, Any]) -> str:
    """What is said of tasks that are taken, in one text."""
    return " ".join(note for task in taken(*tasks) for note in task.get("notes", ()))


def test_what_letta_cron_has_written_comes_over(var: Path) -> None:
    """With agents, names, prompts, times, zones and conversations, in one append."""
    answer = take(WRITTEN.read_bytes()).success()
    assert (answer["new"], answer["left"]) == (5, [])
    assert {line["agent_id"] for line in answer["taken"]} == {AGENT}
    told = [(line["task"], line["name"], line.get("cron", "")) for line in answer["taken"]]
    assert [name for _, name, _ in told] == ["plan", "stretch", "mail", "plants", "birthday"]
    assert told[0] == ("cbe12782", "plan", "30 2 * * 1-5")
    assert [
        (data["prompt"], data["schedule_value"], data["timezone"], data.get("conversation_id"))
        for data in registered(var)
    ] == [
        ("Plan the day.", "30 2 * * 1-5", "Europe/Berlin", None),
        ("Stretch.", "*/6 * * * *", "Europe/Berlin", None),
        ("Look at the mail.", "0 0 * * *", "Europe/Berlin", "default"),
        ("Water the plants.", "0 8 5,10,15,20,25,30 * *", "Europe/Berlin", "local-conv-3"),
        ("Congratulate Ada.", "2099-12-10T08:00:00.000000Z", "Europe/Berlin", None),
    ]
    assert {data["envelope"] for data in registered(var)} == {True}
    assert len({event["ts"] for event in events_of(var, "schedule.registered")}) == 1
    assert "letta cron delete" in answer["hint"]


def test_the_same_file_again_changes_nothing(var: Path) -> None:
    content = WRITTEN.read_bytes()
    assert take(content, "--dry-run").success()["new"] == 5
    assert not var.exists()
    take(content).success()
    log = events_of(var)
    again = take(content).success()
    assert (again["new"], again["existing"], again["differing"]) == (0, 5, 0)
    assert events_of(var) == log


def test_what_is_different_afterwards_is_said_once(var: Path) -> None:
    """Of clocks, missed times, the text around the prompt; and nothing if nothing was taken."""
    answer = take(WRITTEN.read_bytes(), "--dry-run").success()
    said = " ".join(answer["differences"])
    for word in ("clocks", "missed", "minutes late", "nobody is watching", "skipped"):
        assert word in said
    assert "differences" not in take(file_of()).success()
    once = " ".join(take(file_of(ONCE)).success()["differences"])
    assert "clocks" not in once


@pytest.mark.parametrize(
    ("change", "note"),
    [
        ({"jitter_offset_ms": 43699}, "43.7 s after"),
        ({**ONCE, "jitter_offset_ms": -25667}, "25.7 s before"),
        ({"description": "Each morning."}, "Each morning."),
        ({"cron": "0 8 */5 * *"}, "5,10,15,20,25,30"),
        ({"expires_at": "2099-01-01T00:00:00.000Z"}, "2099-01-01T00:00:00.000000Z"),
        ({"status": "paused"}, "paused"),
        ({"name": "sch_12345678"}, "without its name"),
        ({"agent_id": "agent-7", "conversation_id": "default"}, "LETTA_BASE_URL"),
    ],
)
def test_what_is_different_for_one_task_is_said_of_it(
    change: dict[str, Any], note: str, var: Path
) -> None:
    assert notes(TASK) == ""
    assert note in notes({**TASK, "id": "d", "prompt": "Another.", "name": "other", **change})


@pytest.mark.parametrize(
    ("agent_id", "asked", "conversation"),
    [
        (AGENT, "new", None),
        (AGENT, "default", "default"),
        (AGENT, None, "default"),
        (AGENT, "local-conv-3", "local-conv-3"),
        ("agent-7", "new", "new"),
        ("agent-7", "default", None),
        ("agent-7", "conv-3", "conv-3"),
    ],
)
def test_a_prompt_goes_into_the_conversation_that_it_went_into(
    agent_id: str, asked: str | None, conversation: str | None, var: Path
) -> None:
    """A new one for each fire is what Letta Code's own agents get without asking."""
    (told,) = taken({**TASK, "agent_id": agent_id, "conversation_id": asked})
    shown = call("show", told["id"]).success()["schedule"]
    assert shown["conversation_id"] == conversation


def test_a_target_that_is_off_takes_nothing(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTYOSELF_LETTA_CODE_URL", "off")
    answer = take(file_of(TASK)).success()
    assert [line["code"] for line in answer["left"]] == ["target_not_configured"]


def test_a_paused_task_stays_paused(var: Path) -> None:
    """And what was resumed here meanwhile isn't paused by a second import."""
    paused = {**TASK, "status": "paused"}
    (told,) = taken(paused)
    shown = call("show", told["id"]).success()["schedule"]
    assert shown["status"] == "paused"
    call("resume", told["id"]).success()
    taken(paused)
    assert call("show", told["id"]).success()["schedule"]["status"] == "active"


def test_an_expiry_to_come_is_an_end(var: Path) -> None:
    (told,) = taken({**TASK, "expires_at": "2099-01-01T00:00:00.000Z"})
    shown = call("show", told["id"]).success()["schedule"]
    assert shown["until"] == "2099-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({**ONCE, "scheduled_for": "2026-01-31T09:00:00.000Z"}, "has passed"),
        ({**ONCE, "status": "fired"}, "fired"),
        ({**ONCE, "status": "missed"}, "missed"),
        ({"status": "cancelled"}, "cancelled"),
        ({"status": "sleeping"}, "sleeping"),
        ({"expires_at": "2026-01-31T09:00:00.000Z"}, "expired"),
        ({**ONCE, "scheduled_for": None}, "no time"),
        ({"timezone": "Mars/Olympus"}, "Mars/Olympus"),
        ({"timezone": None}, "time zone"),
        ({"cron": "61 9 * * *"}, "61"),
        ({"prompt": " "}, "blank"),
        ({"prompt": None}, "prompt"),
        ({"prompt": "a\0b"}, "NUL"),
        ({"cron": 5}, "cron"),
        ({"recurring": "yes"}, "recurring"),
        ({"agent_id": ""}, "agent_id"),
        ({"agent_id": "two words"}, "two words"),
        ({**ONCE, "scheduled_for": "tomorrow"}, "tomorrow"),
        ({"expires_at": 5}, "expires_at"),
        ({"cron": "0 9 31 2 *"}, "never"),
    ],
)
def test_what_cannot_be_said_here_is_left_with_the_reason(
    change: dict[str, Any], why: str, var: Path
) -> None:
    """The others are taken all the same."""
    wrong = {**TASK, **change, "id": "bad", "name": "bad"}
    answer = take(file_of(wrong, TASK)).success()
    assert [line["task"] for line in answer["taken"]] == ["cbe12782"]
    (left,) = answer["left"]
    assert (left["task"], left["name"]) == ("bad", "bad")
    assert why in left["why"]
    assert len(registered(var)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        WRITTEN.read_bytes()[:2000],
        b"[]",
        b"5",
        b'{"version": 1}',
        b'{"version": 2, "tasks": []}',
        b'{"version": true, "tasks": []}',
        b'{"tasks": []}',
        b'{"version": 1, "tasks": {}}',
        b'{"version": 1, "tasks": [5]}',
        b'{"version": 1, "tasks": [{}]}',
        b"\xff\xfe0",
        b"0 9 * * * letta --agent agent-7 -p 'Plan.'\n",
        b"[" * 100_000,
    ],
)
def test_a_torn_or_foreign_file_is_refused_whole(content: bytes, var: Path) -> None:
    error = take(content).error("invalid_letta_cron")
    assert "Nothing was registered." in error["hint"]
    assert not var.exists()


def test_a_file_that_is_too_large_is_refused(var: Path) -> None:
    take(b" " * (4 * 1024 * 1024 + 1)).error("file_too_large")
    assert not var.exists()


def test_a_taken_name_is_left_out(var: Path) -> None:
    """Letta Code lets two tasks have one name. The second is taken without it, each time."""
    call("register", "--agent-id", AGENT, "--prompt", "x", "--every", "1h", "--name", "plan")
    for created in (True, False):
        (told,) = taken(TASK)
        assert told["created"] is created
        assert "without its name" in told["notes"][0]
    call("cancel", "--id", "plan").success()
    assert [line["created"] for line in taken(TASK)] == [False]


def test_the_same_task_twice_is_one_schedule(var: Path) -> None:
    first, second = taken(TASK, {**TASK, "id": "dc83436e"})
    assert first["id"] == second["id"]
    assert "cbe12782" in second["notes"][0]
    assert len(registered(var)) == 1


def test_only_one_agents_tasks(var: Path) -> None:
    other = {**TASK, "agent_id": f"{AGENT[:-1]}2", "id": "dc83436e"}
    answer = take(file_of(TASK, other), "--agent-id", AGENT).success()
    assert [line["task"] for line in answer["taken"]] == ["cbe12782"]
    assert [(line["task"], line["why"].split()[-1]) for line in answer["left"]] == [
        ("dc83436e", "agent's.")
    ]


def test_a_pinned_caller_gets_its_own_alone(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", f"{AGENT[:-1]}2")
    answer = take(file_of(TASK)).success()
    assert [line["code"] for line in answer["left"]] == ["forbidden_agent"]
    assert registered(var) == []


FIRES = {
    "0 0 */5 * *": "01-05 01-10 01-15 01-20 01-25 01-30 02-05",
    "0 0 */5 * 1": "01-04 01-05 01-10 01-11 01-15 01-18 01-20",
    "0 0 3 * */2": "01-02 01-03 01-05 01-07 01-09 01-10 01-12",
    "0 0 */1 * 1": "01-01 01-02 01-03 01-04 01-05 01-06 01-07",
    "0 0 1 */5 *": "05-01 10-01",
    "0 0 13 * 5": "01-01 01-08 01-13 01-15 01-22 01-29 02-05",
    "0 0 28 * *,0": "01-01 01-02 01-03 01-04 01-05 01-06 01-07",
    "0 0 * * 5-7": "01-01 01-02 01-03 01-08 01-09 01-10 01-15",
    "0 0 * * 5-7/3": "01-01 01-03 01-08 01-10 01-15 01-17 01-22",
    "0 0 * * */3": "01-02 01-03 01-06 01-09 01-10 01-13 01-16",
    "0 0 * * */9": "01-03 01-10 01-17 01-24 01-31 02-07 02-14",
    "*/61 */25 1 * *": "01-01 02-01 03-01 04-01 05-01 06-01 07-01",
}
"""The first fires from 2027 on, in UTC, as Letta Code 0.34.12 has them: those of its own function
`cronMatchesTime`, run for each midnight."""


@pytest.mark.parametrize("cron", FIRES)
def test_an_expression_means_what_it_meant(cron: str, var: Path) -> None:
    """Letta Code counts steps of days and months in another way than cron does."""
    (told,) = taken({**TASK, "cron": cron, "timezone": "UTC"})
    theirs = FIRES[cron].split()
    asked = ("next", "--cron", told["cron"], "--tz", "UTC", "--start-at", "2027-01-01")
    fires = call(*asked, "--count", f"{len(theirs)}").success()["fires"]
    assert [fire["utc"][5:16] for fire in fires] == [f"{day}T00:00" for day in theirs]


_values = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.text(max_size=5))


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={key: st.just(TASK[key]) | _values for key in TASK}),
        max_size=4,
    )
)
def test_every_task_is_told_of(changes: Iterable[dict[str, Any]]) -> None:
    """Whatever its values are, it is taken or left, and no other is lost by it."""
    tasks = [{**TASK, **change, "id": f"{n}"} for n, change in enumerate(changes)]
    answer = take(file_of(*tasks), "--dry-run").success()
    told = [line["task"] for line in answer["taken"] + answer["left"]]
    assert sorted(told) == [task["id"] for task in tasks]
    assert all(re.fullmatch(r".+\.", line["why"]) for line in answer["left"])
