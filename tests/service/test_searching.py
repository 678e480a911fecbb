"""`list` finds schedules by name, words and tags, in an order; and says why it finds none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import AGENT, add, call, use_environ

OTHER = "agent-00000000-0000-4000-8000-000000000002"


@pytest.fixture
def ids(tmp_path: Path) -> Iterator[list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, tmp_path)
        yield [
            add("--every", "3h", "--name", "Plan A", "--tag", "work", prompt="Plan the day"),
            add("--every", "2h", "--name", "plan b", "--tag", "home", prompt="Plan dinner"),
            add("--every", "1h", "--tag", "work", agent=OTHER, prompt="Stretch. The day is long."),
        ]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--name", "plan"], [1, 0]),
        (["--name", "PLAN A"], [0]),
        (["--query", "day plan"], [0]),
        (["--query", "day"], [2, 0]),
        (["--query", "work"], [2, 0]),
        (["--tag", "Work"], [2, 0]),
        (["--tag", "work", "--tag", "home"], []),
        (["--tag", "work", "--agent-id", AGENT], [0]),
        (["--sort", "next"], [2, 1, 0]),
        (["--sort", "name"], [0, 1, 2]),
        (["--sort", "agent"], [1, 0, 2]),
        (["--sort", "created"], [2, 1, 0]),
        (["--sort", "name", "--limit", "2"], [0, 1]),
    ],
)
def test_what_is_found(ids: list[str], words: list[str], found: list[int]) -> None:
    answer = call("list", *words, verbatim=True).success()
    assert [each["id"] for each in answer["schedules"]] == [ids[number] for number in found]
    if "--limit" in words:
        assert answer["total"] == 3


def test_what_is_over_is_found_too(ids: list[str]) -> None:
    call("cancel", ids[0]).success()
    assert call("list", "--all", "--name", "plan").success()["count"] == 2
    assert call("list", "--all").success()["count"] == 3
    call("list", "--all", "--status", "paused").error("conflicting_options", 2)
    message = call("list", "--name", "plan a").success()["message"]
    assert message == "None of these; but there are others (1 cancelled), which --all lists."


def test_why_nothing_is_found(ids: list[str]) -> None:
    message = call("list", "--tag", "wrok").success()["message"]
    assert message == "No schedule has the tag 'wrok'; there are: home, work."
    message = call("list", "--query", "nothing like it").success()["message"]
    assert message == "3 schedules were looked at, and none is as asked."
    assert "message" not in call("list", "--status", "paused").success()
