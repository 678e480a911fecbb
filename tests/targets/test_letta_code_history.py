"""Letta Code: what a conversation's history proves."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from promptyoself.targets.letta_code.history import Trace, are_older, trace

NOW = datetime(2026, 11, 20, 9, 0, tzinfo=UTC)


def row(kind: str, seconds: float, otid: str | None = None) -> dict[str, Any]:
    date = (NOW + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")
    name = f"msg{seconds:+g}"
    return {"id": name, "date": date, "message_type": f"{kind}_message", "otid": otid}


OURS = row("user", 1, "ours")
THERE = Trace("msg+1", NOW + timedelta(seconds=1))


@pytest.mark.parametrize(
    ("newest_first", "expected"),
    [
        ([], Trace(None)),
        ([row("assistant", 2), row("user", 1, "another's")], Trace(None)),
        ([OURS], THERE),
        ([row("assistant", 2), OURS], THERE._replace(answered=True)),
        # After a tool's call or its result, the model would have gone on.
        ([row("approval_request", 3), row("assistant", 2), OURS], THERE),
        ([row("tool_return", 3), row("approval_request", 2), OURS], THERE),
        ([row("assistant", 4), row("tool_return", 3), OURS], THERE._replace(answered=True)),
        # What was said after the next message was said to that.
        ([row("assistant", 4), row("user", 3, "another's"), OURS], THERE),
        (
            [row("tool_return", 4), row("user", 3), row("assistant", 2), OURS],
            THERE._replace(answered=True),
        ),
        # An assistant's message may bear an otid too.
        ([row("assistant", 2, "ours")], Trace(None)),
        # The summary of a younger compaction may hide it; that of an older one can't.
        ([row("user", 9), row("summary", 5)], Trace(None, answered=None, summary_id="msg+5")),
        ([row("user", 9), row("summary", -5)], Trace(None)),
        ([OURS, row("summary", 5)], THERE),
        (
            [row("summary", 0) | {"date": "yesterday"}],
            Trace(None, answered=None, summary_id="msg+0"),
        ),
        # What was at work then may have come to its end since.
        (
            [row("assistant", 4), row("tool_return", 3), row("summary", 5)],
            Trace(None, answered=True, summary_id="msg+5"),
        ),
        (
            [row("tool_return", 3), row("summary", 5)],
            Trace(None, answered=False, summary_id="msg+5"),
        ),
        (
            [row("assistant", 9), row("user", 8), row("tool_return", 3), row("summary", 5)],
            Trace(None, answered=None, summary_id="msg+5"),
        ),
    ],
)
def test_what_the_history_says(newest_first: list[dict[str, Any]], expected: Trace) -> None:
    assert trace(newest_first, "ours", NOW) == expected


def test_no_more_is_read_than_is_needed() -> None:
    rows = iter([row("assistant", 2), OURS, row("user", 0)])
    trace(rows, "ours", NOW)
    assert [left["id"] for left in rows] == ["msg+0"]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], False),
        ([row("user", -2), row("assistant", -1)], True),
        ([row("user", -2), row("assistant", 1)], False),
        # A summary has the date of the compaction, though it stands for what is older.
        ([row("user", -2), row("summary", 9)], True),
        ([row("summary", -9)], False),
        ([row("user", -2) | {"date": None}], False),
    ],
)
def test_where_older_pages_tell_nothing(rows: list[dict[str, Any]], expected: bool) -> None:
    assert are_older(rows, NOW) is expected
