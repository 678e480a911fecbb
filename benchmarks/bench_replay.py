"""A checked replay, the fold included, against the same of an uncompressed file (sealed: at most
1.3 times; each event a member: 2.0).

100,000 events; ``bench_replay.py PAIRS 1000000`` takes a million.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from calls import compare
from pairs import PAIRS, Figure
from sample_log import MONTH, blocks, lines, write_open, write_raw, write_sealed

from promptyoself.ledger import START, Envelope, FileLedger
from promptyoself.ledger.segments import Member, check_links
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY

EVENTS = 100_000
_MOST_PAIRS = 9


def run(pairs: int = PAIRS, events: int = EVENTS) -> Iterator[Figure]:
    """At most nine pairs: one takes seconds."""
    pairs = min(pairs, _MOST_PAIRS)
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        raw, sealed, opened = (Path(scratch) / name for name in ("raw", "sealed", "open"))
        log = list(lines(events))
        write_raw(raw, log)
        write_sealed(sealed, log)
        write_open(opened, log)
        del log
        for folder, what, bar in ((sealed, "sealed", 1.3), (opened, "a member each", 2.0)):
            yield compare(
                f"replay of {events:,} events, {what}",
                "the same of uncompressed lines",
                lambda _, folder=folder: _ours(folder, events),
                lambda _: _floor(raw, events),
                pairs,
                bar,
            )


def _ours(folder: Path, events: int) -> float:
    began = time.process_time()
    ledger = FileLedger(folder, "schedules")
    state = fold(EMPTY, (event for batch in ledger.replay() for event in batch.envelopes))
    assert sum(state.counts.values()) == events
    return time.process_time() - began


def _floor(path: Path, events: int) -> None:
    state = fold(EMPTY, _uncompressed(path))
    assert sum(state.counts.values()) == events


def _uncompressed(path: Path) -> Iterator[Envelope]:
    position = START
    with path.open("rb") as file:
        for content in blocks(file):
            member = Member(position.offset, position.offset + len(content), content)
            envelopes, position = check_links(position, member, MONTH, 0)
            yield from envelopes


if __name__ == "__main__":
    wanted = [int(argument) for argument in sys.argv[1:]]
    for figure in run(*wanted):
        print(figure)
