"""What was registered out of a file, as a table: what, when, whose; then what was left out, and
why."""

from pathlib import Path

import pytest
from calling import AGENT, call
from conftest import Clock
from terminals import picture

from promptyoself.doors.agent_names import remember_names

_MANY = f"""
[[schedule]]
agent_id = "{AGENT}"
name = "plan"
prompt = "Plan the day."
when = "every weekday at 9"

[[schedule]]
agent_id = "Bo"
prompt = "Write the invoices of the month."
cron = "0 18 L * *"
tz = "Europe/London"
"""
_CRONTAB = f"""
0 9 * * MON-FRI letta --agent {AGENT} -p "Plan the day."

*/5 * * * * /usr/local/bin/backup --to /mnt/{"a-disk-" * 12}
"""


def _rows(shown: str) -> list[list[str]]:
    """The cells of the table that comes first."""
    lines = shown.split("\n\n")[1].splitlines()
    return [[cell.strip() for cell in line.split("  ") if cell] for line in lines]


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["real", "dry"])
def test_many_are_a_line_each(
    columns: int, dry: tuple[str, ...], var: Path, clock: Clock, tmp_path: Path
) -> None:
    """Also where nothing is registered yet: the name or the id, when, the next fire, and whose."""
    remember_names(var, {AGENT: "Ada"})
    file = tmp_path / "many.toml"
    file.write_text(_MANY)
    shown = picture("register", "--from", str(file), *dry, columns=columns)
    heading, plan, invoices = _rows(shown)
    mark = "·" if dry else "✓"
    assert heading == ["NAME", "WHEN", "NEXT", "AGENT"]
    assert plan == [mark, "plan", "weekdays at 09:00", "Mon 23 Nov 09:00 (in 2 d)", "Ada"]
    assert invoices[1].startswith("sch_")
    assert invoices[-1] == "Bo"
    assert "--cron '0 9 * * MON-FRI' --tz UTC" in shown
    assert max(map(len, shown.splitlines())) <= columns
    again = picture("register", "--from", str(file), *dry, columns=columns)
    assert [row[-4:] for row in _rows(again)] == [row[-4:] for row in _rows(shown)]


@pytest.mark.parametrize("columns", [80, 120])
def test_a_crontabs_lines_are_taken_or_left(
    columns: int, var: Path, clock: Clock, tmp_path: Path
) -> None:
    """What was taken has its line, so that it can be taken out; what was left has line and
    reason."""
    file = tmp_path / "crontab"
    file.write_text(_CRONTAB)
    shown = picture("import-crontab", str(file), columns=columns)
    _, plan = _rows(shown)
    assert plan[1] == "2"
    assert "weekdays at 09:00" in plan
    assert "  line 4  It isn't a prompt: no agent and no text are given.\n" in shown
    assert call("import-crontab", str(file)).success()["left"][0]["line"] == 4


def test_tasks_of_letta_code_are_a_line_each(var: Path, clock: Clock) -> None:
    """With the task, which is what Letta Code deletes by; what is said of one names it."""
    file = str(Path(__file__).parents[2] / "testdata" / "crons-of-letta-0.34.12.json")
    taken = call("import-letta-cron", file, "--dry-run").success()["taken"]
    shown = picture("import-letta-cron", file, columns=120)
    rows = _rows(shown)[1:]
    assert [row[1] for row in rows] == [line["task"] for line in taken]
    assert [row[2] for row in rows] == [line["name"] for line in taken]
    assert "\n  plan      Its description, " in shown


def test_what_was_there_and_differs_is_told(var: Path, clock: Clock, tmp_path: Path) -> None:
    """It stays as it is, and the keys are named."""
    file = tmp_path / "many.toml"
    file.write_text(_MANY)
    call("register", "--from", str(file)).success()
    file.write_text(_MANY.replace('name = "plan"', 'name = "plan"\ntier = 1'))
    shown = picture("register", "--from", str(file))
    assert "plan  It is there already, with another tier; it stays as it is." in shown
