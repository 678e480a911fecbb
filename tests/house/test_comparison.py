"""The page that compares this with Letta Code's own schedules: each point says how it is known, and
names a test that holds what is said of promptyoself."""

import re

import pytest
from documents import ROOT

PAGE = (ROOT / "docs" / "explanation" / "letta-code-schedules.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and "| held by |" not in line
]
TEST = r"`(tests/[\w/]+\.py)::(test_\w+)`"
KNOWN_FROM = rf"(run|source|issue)(, (run|source|issue))*|run: {TEST}"


def test_there_are_points() -> None:
    assert len(ROWS) > 15
    assert len({row[0] for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_point_is_known_and_held(row: list[str]) -> None:
    _, theirs, known_from, ours, held_by = row
    assert theirs
    assert ours
    assert re.fullmatch(KNOWN_FROM, known_from)
    assert re.fullmatch(rf"{TEST}(, {TEST})*", held_by)
    for file, name in re.findall(TEST, f"{known_from} {held_by}"):
        text = (ROOT / file).read_text()
        assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE), f"{file}::{name}"
