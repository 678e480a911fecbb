"""Letta Code's own scheduler, as far as it can be seen without waiting for it: that what it writes
is what `import-letta-cron` reads, and that the page that compares the two tells the truth."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from calling import call
from letta_code.server import LettaCode

AGENT = "agent-local-00000000-0000-4000-8000-000000000001"


@pytest.fixture
def crons(letta_code: LettaCode) -> Iterator[Path]:
    """The file of a scheduler that has no tasks."""
    path = letta_code.home / ".letta" / "crons.json"
    yield path
    path.unlink(missing_ok=True)


def add(server: LettaCode, name: str, *when: str) -> dict[str, Any]:
    """Add a task; returns what `letta cron add` says of it."""
    texts = ("--name", name, "--description", name, "--prompt", f"It is time for {name}.")
    added: dict[str, Any] = json.loads(
        server.command("cron", "add", "--agent", AGENT, *texts, *when)
    )
    return added


def test_what_it_writes_comes_over(letta_code: LettaCode, crons: Path, var: Path) -> None:
    """Its tasks become schedules; once they are deleted there, nothing is left to import."""
    added = [
        add(letta_code, "plan", "--cron", "0 9 * * 1-5"),
        add(letta_code, "mail", "--every", "2h", "--conversation", "default"),
        add(letta_code, "birthday", "--at", "2099-12-10T09:00:00+01:00"),
    ]
    answer = call("import-letta-cron", str(crons)).success()
    assert answer["left"] == []
    assert [(line["task"], line["name"]) for line in answer["taken"]] == [
        (task["id"], name) for task, name in zip(added, ("plan", "mail", "birthday"), strict=True)
    ]
    schedules = call("list", "--full").success()["schedules"]
    told = {each["name"]: (each["schedule_value"], each["conversation_id"]) for each in schedules}
    assert told == {
        "plan": ("0 9 * * 1-5", None),
        "mail": ("0 */2 * * *", "default"),
        "birthday": ("2099-12-10T08:00:00.000000Z", None),
    }
    for line in answer["taken"]:
        letta_code.command("cron", "delete", line["task"])
    assert call("import-letta-cron", str(crons)).success()["taken"] == []


def test_a_torn_file_is_empty_to_it(letta_code: LettaCode, crons: Path, var: Path) -> None:
    """Its next task is written over all others. Here such a file is refused."""
    add(letta_code, "plan", "--every", "1h")
    crons.write_bytes(crons.read_bytes()[:-20])
    call("import-letta-cron", str(crons)).error("invalid_letta_cron")
    assert json.loads(letta_code.command("cron", "list", "--agent", AGENT)) == []
    add(letta_code, "mail", "--every", "1h")
    assert [task["name"] for task in json.loads(crons.read_bytes())["tasks"]] == ["mail"]


def test_what_it_makes_of_intervals(letta_code: LettaCode, crons: Path) -> None:
    """It rounds those that don't divide an hour or a day, and knows no names of weekdays."""
    assert add(letta_code, "stretch", "--every", "7m")["cron"] == "*/6 * * * *"
    assert add(letta_code, "mail", "--every", "25h")["cron"] == "0 0 * * *"
    with pytest.raises(AssertionError, match="invalid cron expression"):
        add(letta_code, "plan", "--cron", "0 9 * * MON-FRI")


def test_it_fires_early_or_late_by_its_own_choice(letta_code: LettaCode, crons: Path) -> None:
    """A one-off at a full or half hour comes up to 90 s early, a recurring task up to 60 s late."""
    add(letta_code, "mail", "--every", "1h")
    add(letta_code, "birthday", "--at", "2099-12-10T09:00:00Z")
    late, early = (task["jitter_offset_ms"] for task in json.loads(crons.read_bytes())["tasks"])
    assert 0 < late < 60_000
    assert -90_000 < early < 0
