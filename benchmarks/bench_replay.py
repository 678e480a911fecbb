"""A checked replay, the fold included, against the same of an uncompressed file (sealed: at most
1.3 times; each event a member: 2.0); and in two processes against one (at least 1.7 times as fast).

100,000 events; ``bench_replay.py PAIRS 1000000`` takes a million. Two processes are as fast as that
only on two cores that nobody else uses, so what they take of a processor is compared, too.
"""

import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from calls import compare
from pairs import PAIRS, Figure, summed_up
from sample_log import MONTH, blocks, lines, write_open, write_raw, write_sealed

from promptyoself.ledger import START, Envelope, FileLedger, Position
from promptyoself.ledger.maintenance import Share
from promptyoself.ledger.segments import Member, link
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY

__all__ = ["run"]

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
        # A fresh interpreter each, once: what it costs to start them isn't what is measured.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            name, other = (
                f"replay of {events:,} events, sealed, in two processes",
                "the same in one",
            )
            alone: list[float] = []
            longest: list[float] = []
            yield compare(
                name,
                other,
                lambda _: longest.append(_shared(pool, sealed, events)),
                lambda _: alone.append(_ours(sealed, events)),
                pairs,
                1 / 1.7,
            )
            yield summed_up(
                f"{name}: the one that takes longer",
                other,
                [(a * 1000, b * 1000) for a, b in zip(longest, alone, strict=True)][1:],
                1 / 1.7,
                "ms of a processor",
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
            envelopes, position = link(position, member, MONTH, 0)
            yield from envelopes


def _shared(pool: ProcessPoolExecutor, folder: Path, events: int) -> float:
    """What the process that takes longer takes of a processor, in seconds."""
    shares = FileLedger(folder, "schedules").shares(2)
    (first, most, longer), (second, rest, shorter) = pool.map(_share, [folder] * 2, shares)
    assert first == second
    assert first.seq == events == most + rest - 1  # the one without an id is in both
    return max(longer, shorter)


def _share(folder: Path, share: Share) -> tuple[Position, int, float]:
    began, position = time.process_time(), START

    def events() -> Iterator[Envelope]:
        nonlocal position
        for batch in FileLedger(folder, "schedules").replay_share(share):
            position = batch.position
            yield from batch.envelopes

    state = fold(EMPTY, events())
    return position, sum(state.counts.values()), time.process_time() - began


if __name__ == "__main__":
    wanted = [int(argument) for argument in sys.argv[1:]]
    for figure in run(*wanted):
        print(figure)
