"""A month sealed: its size against that of its lines (at most 0.36), what it takes against a
checked replay, and what compressing takes against zlib at its default level.

100,000 events; ``bench_sealing.py PAIRS 1000000`` takes a million.
"""

import sys
import tempfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from calls import compare
from pairs import PAIRS, Figure
from sample_log import MONTH, lines, pack, write_open

from promptyoself.ledger import FileLedger
from promptyoself.ledger.segments import compress

EVENTS = 100_000
_MOST_PAIRS = 9
_LATER = datetime(2026, 12, 1, tzinfo=UTC)


def run(pairs: int = PAIRS, events: int = EVENTS) -> Iterator[Figure]:
    """At most nine pairs: one takes seconds."""
    pairs = min(pairs, _MOST_PAIRS)
    log = list(lines(events))
    contents = list(pack(log))
    raw = sum(map(len, log))
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        folder = Path(scratch) / "schedules"
        write_open(folder, log)
        del log
        ledger = FileLedger(folder, "schedules")
        with FileLedger(folder, "schedules").sealing() as sealing:
            prepared = sealing.prepare(MONTH, _LATER)
            assert prepared.events == events
            ratio = prepared.offset / raw
            yield Figure(
                f"a sealed month of {events:,} events",
                "its lines, uncompressed",
                prepared.offset / 1024,
                raw / 1024,
                ratio,
                ratio,
                ratio,
                1,
                0.36,
                "KiB",
            )
            yield compare(
                f"preparing a sealed month of {events:,} events",
                "a checked replay of it",
                lambda _: sealing.prepare(MONTH, _LATER),
                lambda _: ledger.head(),
                pairs,
            )
    yield compare(
        f"compressing a month of {events:,} events",
        "zlib at level 6",
        lambda _: [compress(content) for content in contents],
        lambda _: [zlib.compress(content, 6, 31) for content in contents],
        pairs,
    )


if __name__ == "__main__":
    wanted = [int(argument) for argument in sys.argv[1:]]
    for figure in run(*wanted):
        print(figure)
