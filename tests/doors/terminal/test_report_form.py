"""The form of `report` where something waits, and where lines are left out."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from calling import add, call
from conftest import Clock
from rich.console import Console

from promptyoself.doors.terminal.forms import show
from promptyoself.doors.terminal.screen import Screen

NOW = datetime(2026, 11, 28, 11, tzinfo=UTC)
COUNTS: dict[str, Any] = {
    "delivered": 0, "failed": 0, "skipped": 0, "skipped_why": {}, "waiting": 2, "in_doubt": 1,
}  # fmt: skip


def test_what_waits_is_told_with_what_holds_it() -> None:
    """A line for each delivery that has no outcome yet. What is left out is counted."""
    line = {
        "id": "sch_1", "agent_id": "a", "attempt": 1, "code": None, "error": None,
        "retry_at": None, "name": "plan",
    }  # fmt: skip
    document = {
        "status": "success",
        "message": "Nothing was delivered from 2026-11-28T00:00:00.000000Z to "
        "2026-11-28T11:00:00.000000Z.",
        "totals": COUNTS,
        "agents": [{"agent_id": "a", **COUNTS}],
        "schedules": [
            {"id": "sch_1", "agent_id": "a", "name": "plan", "prompt": "p", "last_error": None}
            | COUNTS
        ],
        "outcomes": [],
        "open": [
            {**line, "slot": "2026-11-28T10:00:00.000000Z", "state": "in_doubt"},
            {**line, "slot": "2026-11-27T09:00:00.000000Z", "state": "due", "name": None},
            {
                **line, "slot": "2026-11-28T09:00:00.000000Z", "state": "waiting",
                "error": "Nobody answers.", "retry_at": "2026-11-28T11:05:00.000000Z",
            },
        ],
        "left_out": {"outcomes": 7},
    }  # fmt: skip
    console = Console(width=80, file=io.StringIO())
    show("report", document, Screen(console, "UTC", NOW))
    assert isinstance(console.file, io.StringIO)
    shown = [text.rstrip() for text in console.file.getvalue().splitlines()]
    assert shown == [
        "✗ Nothing was delivered from today 00:00 to today 11:00.",
        "",
        "a  2 waiting, 1 in doubt",
        "  plan  2 waiting, 1 in doubt",
        "",
        "Still waiting",
        "SLOT              SCHEDULE  WHY",
        "Fri 27 Nov 09:00  sch_1     due",
        "today 09:00       plan      waiting, Nobody answers; again today 11:05",
        "today 10:00       plan      in doubt",
        "7 earlier outcomes are left out: see --limit.",
    ]


def test_a_trigger_without_a_loop_promises_nothing(var: Path, clock: Clock) -> None:
    """People aren't told that the loop will deliver it and, below, that there is none."""
    id_ = add("--every", "1h")
    shown = call("trigger", "--id", id_, "--format", "table").out.decode()
    assert "It waits for a loop." in shown
    assert "by the loop" not in shown
    assert "No loop is running" in shown
