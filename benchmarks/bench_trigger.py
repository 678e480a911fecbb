"""The next fire of a cron expression in a zone, against croniter's (at most as long).

Both are told the instant to start from, and have taken the expression apart beforehand.
"""

import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from croniter import croniter
from pairs import PAIRS, Figure, summed_up

from promptyoself.rules.cron_expressions import parse_cron
from promptyoself.rules.triggers import Trigger, next_fire_time

CASES = (
    ("*/5 * * * *", "UTC"),
    ("*/5 * * * *", "Europe/London"),
    ("0 9 * * MON-FRI", "America/New_York"),
    ("0 0 1 * *", "Europe/London"),
    ("30 2 29 2 *", "Europe/London"),
    ("0 9 */2 * 1", "Asia/Kathmandu"),
)
INSTANTS = [
    datetime(2026, 1, 1, 0, 30, tzinfo=UTC) + timedelta(hours=61 * step) for step in range(100)
]
"""Over most of a year, at all hours, so that no answer is that of the question before."""


def run(pairs: int = PAIRS) -> Iterator[Figure]:
    """One figure for each expression; a pair has a hundred questions to each."""
    for expression, zone in CASES:
        trigger = Trigger("cron", parse_cron(expression), zone)
        starts = [at.astimezone(ZoneInfo(zone)) for at in INSTANTS]
        other = croniter(expression, starts[0], ret_type=datetime, implement_cron_bug=True)
        for at in starts:
            theirs = other.get_next(start_time=at)
            assert next_fire_time(trigger, at) == theirs, (expression, at, theirs)
        ours = [partial(next_fire_time, trigger, at) for at in starts]
        croniters = [partial(other.get_next, start_time=at) for at in starts]
        times = [(_mean(ours), _mean(croniters)) for _ in range(pairs)]
        what = f"the next fire of `{expression}`, {zone}"
        yield summed_up(what, "croniter, with an aware datetime", times, 1.0, "µs")


def _mean(calls: list[Callable[[], object]]) -> float:
    began = time.perf_counter()
    for call in calls:
        call()
    return (time.perf_counter() - began) / len(calls) * 1e6


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
