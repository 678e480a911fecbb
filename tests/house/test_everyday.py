"""Everyday wishes: each is one line at the first try, and does what it says."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from documents import ROOT, Reader, Step, blocks

from promptyoself import sandbox

PAGE = (ROOT / "docs" / "howto" / "everyday.md").read_text()


def wishes() -> Iterator[tuple[str, str]]:
    """Each wish of the page, and its line."""
    lines = PAGE.split("\n")
    for block in blocks(PAGE):
        before = [line for line in lines[: block.line - 1] if line.startswith("**")]
        if block.reason is None and before and (wish := re.match(r"\*\*(.+?)\*\*", before[-1])):
            yield wish[1], block.content


class Day:
    """What there is after some of the wishes."""

    def __init__(self, reader: Reader, output: str) -> None:
        self.answer: dict[str, Any] = json.loads(output) if output else {}
        listed, _ = reader.type(Step(0, "promptyoself list --status all --full", "", exact=False))
        self.schedules = {row["name"]: row for row in json.loads(listed)["schedules"]}

    def is_due(self, name: str, wall: str) -> bool:
        """Whether a schedule is active, and next fires at that time of day."""
        local = self.schedules[name]["next_run_local"]
        return self.schedules[name]["status"] == "active" and local[11:16] == wall

    def statuses(self, *names: str) -> set[str]:
        return {self.schedules[name]["status"] for name in names}


WHAT_COMES_OF_IT: dict[str, Callable[[Day], object]] = {
    "Every weekday at nine.": lambda day: day.is_due("plan", "09:00"),
    "Once, tomorrow morning.": lambda day: day.schedules["dentist"]["schedule_type"] == "once",
    "In two hours.": lambda day: day.schedules["tea"]["next_run"],
    "Every other Friday at four, also after the clocks have changed.": lambda day: (
        day.is_due("review", "16:00") and "INTERVAL=2" in day.schedules["review"]["schedule_value"]
    ),
    "On the last day of each month.": lambda day: day.is_due("invoices", "18:00"),
    "Every two hours, while people work.": lambda day: (
        day.schedules["mail"]["next_run_local"][11:16] in {f"{h:02}:00" for h in range(9, 18, 2)}
    ),
    "With today's date in the prompt.": lambda day: day.schedules["diary"]["render"] == "jinja2",
    "What is planned?": lambda day: len(day.answer["schedules"]) == 7,
    "Only what has to do with work?": lambda day: (
        [row["name"] for row in day.answer["schedules"]] == ["mail"]
    ),
    "What comes in the next three days?": lambda day: "plan" in json.dumps(day.answer),
    "Everything about one of them?": lambda day: day.answer["schedule"]["name"] == "plan",
    "What did the agent answer?": lambda day: day.answer["replies"] == [],
    "What happened last night?": lambda day: day.answer["status"] == "success",
    "When would that be?": lambda day: (
        all(int(fire["local"][8:10]) <= 7 for fire in day.answer["fires"])
        and "first" not in day.schedules
    ),
    "Say it in other words.": lambda day: "three" in day.schedules["plan"]["prompt"],
    "No, as it was.": lambda day: day.schedules["plan"]["prompt"] == "Plan the day.",
    "An hour later.": lambda day: day.is_due("plan", "10:00"),
    "Once now, beside its times.": lambda day: day.schedules["plan"]["open"],
    "I am on holiday for two weeks.": lambda day: (
        day.statuses("plan", "review", "invoices", "mail", "diary") == {"paused"}
        and {row["id"] for row in day.answer["left"]}
        == {day.schedules[name]["id"] for name in ("tea", "dentist")}
    ),
    "I am back early.": lambda day: day.statuses(*day.schedules) == {"active"},
    "I don't need these two any more.": lambda day: day.statuses("tea", "mail") == {"cancelled"},
    "But this one after all.": lambda day: day.statuses("mail") == {"active"},
    "Many at once, from a file.": lambda day: (
        day.is_due("kickoff", "08:30") and day.is_due("retrospective", "15:00")
    ),
}
"""For each wish, what is true after its line."""


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with sandbox.Sandbox(("echo-1",)) as letta:
        yield Reader(tmp_path, letta.url)


def test_each_wish_comes_true(reader: Reader) -> None:
    """Twenty or more wishes, one line each, of which none is refused or does something else."""
    assert [wish for wish, _ in wishes()] == list(WHAT_COMES_OF_IT)
    assert len(WHAT_COMES_OF_IT) >= 20
    reader.type(Step(0, next(blocks(PAGE)).content, "", exact=False))
    for wish, line in wishes():
        assert "\n" not in line, wish
        output, code = reader.type(Step(0, line, "", exact=False))
        assert code == 0, f"{wish}: {output}"
        assert WHAT_COMES_OF_IT[wish](Day(reader, output)), wish
