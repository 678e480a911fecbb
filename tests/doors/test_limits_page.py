"""The page of limits says what holds: its numbers are the code's, and its tests are there."""

import re
from pathlib import Path

import pytest

from promptyoself.core.settings import Caps
from promptyoself.core.text_limits import MAX_PROMPT_BYTES, MAX_REPLY_BYTES, REPLY_EXCERPT_BYTES
from promptyoself.doors import command, monitor
from promptyoself.doors.commands import log
from promptyoself.doors.mcp import connections, http, shares
from promptyoself.index import index
from promptyoself.rules import templates
from promptyoself.rules.notices import sending, to_agents
from promptyoself.sandbox import http as sandbox_http
from promptyoself.service.delivery import notifier, reply_reader
from promptyoself.service.notices import digest
from promptyoself.targets import http as targets_http
from promptyoself.targets.letta import calls

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "limits.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "---" not in line and "| test |" not in line
]
NUMBERS = {
    "one prompt": (MAX_PROMPT_BYTES,),
    "an agent's prompts, of schedules that aren't over": (Caps().max_prompt_bytes_per_agent,),
    "an agent's active schedules": (Caps().max_active_per_agent,),
    "deliveries of an agent a day": (Caps().daily_per_agent,),
    "time between two slots of a schedule": (Caps().min_interval,),
    "how far the index may be behind the log": (
        index._WRITE_AFTER_BYTES,
        index._WRITE_AFTER_EVENTS,
    ),
    "a prompt with values: the template, the text that comes of it, steps of its loops": (
        templates.MAX_TEMPLATE,
        templates.MAX_TEXT,
        templates.MAX_STEPS,
    ),
    "what is kept of an answer": (REPLY_EXCERPT_BYTES, MAX_REPLY_BYTES),
    "how long an answer is read for": (reply_reader._PATIENCE.days,),
    "how long a notice is sent again": (sending.PATIENCE.days,),
    "notices of one agent's schedules for one destination that is an agent": (
        to_agents.MOST_AN_HOUR,
    ),
    "a notice for an agent": (to_agents.MOST_BYTES,),
    "notices that are sent to one destination at once": (notifier._THREADS, 1),
    "a digest": (digest.MOST_SCHEDULES, digest.MOST_BYTES),
    "a call that only reads": (int(command.MAX_SECONDS),),
    "its answer": (command.MAX_ANSWER_BYTES,),
    "events in an answer of `history`": (log._FIRST, log._MOST),
    "answers in an answer of `replies`": (log._FIRST, log._MOST, log._FIRST_FOR_PEOPLE),
    "calls at once, over MCP": (shares.CALLS_AT_ONCE, shares.CALLS_OF_ONE),
    "those of them that may read the whole log": (
        shares.EXPENSIVE_AT_ONCE,
        shares.EXPENSIVE_OF_ONE,
    ),
    "those of one agent that write, those that deliver": (
        shares.WRITES_OF_ONE,
        shares.DELIVERIES_OF_ONE,
    ),
    "calls of one agent under way or waiting": (shares.MOST_PENDING,),
    "connections over MCP": (connections.MOST_CONNECTIONS,),
    "a request's head, a request's body": (
        int(connections.HEAD_SECONDS),
        int(connections.BODY_SECONDS),
    ),
    "sessions over MCP": (http.MAX_SESSIONS, int(http.SESSION_IDLE)),
    "connections to `/metrics` and `/healthz`": (
        monitor.MOST_CONNECTIONS,
        int(monitor._REQUEST_SECONDS),
    ),
    "connections to the sandbox": (sandbox_http.MOST_CONNECTIONS,),
    "one answer": (targets_http.MOST_BYTES,),
    "rows of a page": (calls.PAGE, 10, 1),
    "one request": (30,),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_limit_is_the_codes(row: list[str]) -> None:
    numbers = tuple(int(digits) for digits in re.findall(r"\d+", row[1]))
    assert numbers == NUMBERS.get(row[0], ())


def test_every_test_that_is_named_is_there() -> None:
    named = set(re.findall(r"`(test_\w+\.py)::(test_\w+)`", PAGE))
    assert len(named) > 15
    for file, name in sorted(named):
        (path,) = (ROOT / "tests").rglob(file)
        assert re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE), name
    assert set(NUMBERS) <= {row[0] for row in ROWS}
