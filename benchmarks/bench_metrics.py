"""A scrape: after 100 new events, against counting the whole log again (at most 0.1 times); and one
that looks at 10,000 agents, which all got a delivery today, against 100.

``bench_metrics.py PAIRS EVENTS`` takes a log of another length.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pairs import PAIRS, Figure, summed_up
from peers import store_in
from sample_log import lines, registration, write_sealed

from promptyoself.core.instants import format_utc
from promptyoself.events.records import DeliveryAttempted
from promptyoself.service.metrics.collect import Measurer
from promptyoself.service.metrics.prometheus import render
from promptyoself.store.store import Store

EVENTS, NEW = 100_000, 100
FEW, MANY = 100, 10_000
_MOST_PAIRS = 15
_GROUP = 1000
_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def run(pairs: int = PAIRS, events: int = EVENTS) -> Iterator[Figure]:
    """Both within one process, as a loop scrapes itself."""
    pairs = min(pairs, _MOST_PAIRS)
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        yield _following(Path(scratch) / "log", pairs, events)
        yield _agents(Path(scratch), pairs)


def _following(var: Path, pairs: int, events: int) -> Figure:
    var.mkdir()
    write_sealed(var / "schedules", lines(events))
    store = store_in(var)
    kept = Measurer(store)
    render(kept.measure(_NOW))
    found = []
    for number in range(-1, pairs):
        drafts = [registration((number + 1) * NEW + at) for at in range(NEW)]
        store.transact(_NOW, lambda _, drafts=drafts: (drafts, None))
        ours = _seconds(lambda: render(kept.measure(_NOW)))
        (var / "metrics.json").unlink(missing_ok=True)
        fresh = Measurer(store)
        theirs = _seconds(lambda fresh=fresh: render(fresh.measure(_NOW)))
        if number >= 0:
            found.append((ours * 1000, theirs * 1000))
    name = f"a scrape after {NEW} new events"
    return summed_up(name, f"counting all of {events:,} again", found, 0.1)


def _agents(scratch: Path, pairs: int) -> Figure:
    sides = []
    for number in (MANY, FEW):
        store = store_in(scratch / str(number))
        _fill(store, number)
        measurer = Measurer(store)
        render(measurer.measure(_NOW))
        sides.append((store, measurer))
    found = []
    for number in range(-1, pairs):
        times = []
        for store, measurer in sides:
            draft = registration(10**6 + number)
            store.transact(_NOW, lambda _, draft=draft: ([draft], None))  # so that it looks again
            measurer._look_again = 0.0  # which it doesn't always do
            times.append(_seconds(lambda measurer=measurer: render(measurer.measure(_NOW))) * 1000)
        if number >= 0:
            found.append((times[0], times[1]))
    return summed_up(f"a scrape that looks at {MANY:,} agents", f"the same with {FEW}", found)


def _fill(store: Store, agents: int) -> None:
    """This number of agents, each with a schedule that was claimed today."""
    slot, following = format_utc(_NOW), format_utc(_NOW + timedelta(minutes=5))
    for start in range(0, agents, _GROUP):
        drafts = []
        for at in range(start, min(start + _GROUP, agents)):
            draft = registration(at)
            drafts.append(draft._replace(record=draft.record._replace(agent_id=f"agent-{at}")))
            claimed = DeliveryAttempted(
                slot, f"otid-{at}", 1, "wrk_1", "0" * 64, next_run=following
            )
            drafts.append(draft._replace(record=claimed))
        store.transact(_NOW, lambda _, drafts=drafts: (drafts, None))


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


if __name__ == "__main__":
    for figure in run(*([int(each) for each in sys.argv[1:]] or [PAIRS])):
        print(figure)
