"""A data directory with many schedules, made as fast as the log takes them: in groups of 1,000.

None of them is due for a day. There are 50 to an agent.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from promptyoself.core.ids import schedule_id
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import load_settings
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import content_of
from promptyoself.ledger import START
from promptyoself.store.store import Store

_GROUP = 1000
_PER_AGENT = 50


def registered(number: int, now: datetime) -> ScheduleRegistered:
    """The registration of that number: ``--every 1d``, spread over a day."""
    return ScheduleRegistered(
        agent_id=f"agent-{number // _PER_AGENT}",
        prompt=f"Look at the inbox, and answer what can't wait ({number}).",
        schedule_type="interval",
        schedule_value="1d",
        timezone="UTC",
        next_run=format_utc(now + timedelta(seconds=86_400 + number % 80_000)),
        anchor=format_utc(now + timedelta(seconds=number % 80_000)),
        tier=0,
        misfire="coalesce",
        grace=86_400,
    )


def id_of(number: int) -> str:
    """The id of the schedule of that number."""
    return schedule_id(content_of(registered(number, datetime(2026, 1, 1, tzinfo=UTC))))


def many(var: Path, number: int) -> Path:
    """Fill a new data directory with this number of schedules, and write its index."""
    store = Store(load_settings(var=str(var)), {"via": "cli", "who": "benchmark"}, warn=_tell)
    now = datetime.now(UTC)
    with store.exclusive():
        position = START
        for at in range(0, number, _GROUP):
            records = [registered(n, now) for n in range(at, min(at + _GROUP, number))]
            drafts = [store.draft(each, schedule_id(content_of(each))) for each in records]
            position = store._ledger.append(drafts, now, position).position
        store._index.save(store.snapshot())
    return var


def _tell(warning: str) -> None:
    if "rebuilt" not in warning:
        print(warning, file=sys.stderr)
