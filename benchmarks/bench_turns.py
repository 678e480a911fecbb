"""Turns at the log: ten processes that append without a pause, and many commands at once.

Each of the ten waits for the lock, finds the end of the log, appends one event and syncs it, over
and over. The fastest of them should have at most 1.25 times the turns of the slowest. The peer is
SQLite (WAL, synchronous=FULL), where ten processes commit a row each, with BEGIN IMMEDIATE and a
busy timeout of 10 s, as ours have.

    python bench_turns.py [ROUNDS [WRITERS [SECONDS [REGISTRATIONS]]]]
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson
from pairs import Figure, environment, register, summed_up
from sample_log import registration
from sqlite_log import SqliteLog

from promptyoself.core.errors import PromptyoselfError
from promptyoself.ledger import FileLedger

ROUNDS = 5
BAR = 1.25
_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_LOCK_TIMEOUT = 10.0


class Turns(NamedTuple):
    """What the writers of one round had: how many turns each, how long each turn was waited for
    (milliseconds, sorted), how many were refused, and turns per second of all."""

    counts: list[int]
    waits: list[float]
    refused: int
    rate: float

    def wait(self, percent: float) -> float:
        """The wait that this percentage of the turns didn't exceed."""
        return self.waits[min(int(len(self.waits) * percent / 100), len(self.waits) - 1)]


def run(
    pairs: int = ROUNDS, writers: int = 10, seconds: float = 3.0, registrations: int = 150
) -> Iterator[Figure]:
    """At most as many rounds as by default: they are long."""
    rounds = range(min(pairs, ROUNDS))
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        folder = Path(scratch)
        found = [
            (
                _race("ours", folder / f"log-{number}", writers, seconds),
                _race("theirs", folder / f"peer-{number}.db", writers, seconds),
            )
            for number in rounds
        ]
        for who, at in (("", 0), ("SQLite's ", 1)):
            yield summed_up(
                f"{who}turns of the fastest of {writers} writers that never pause",
                "the slowest of them",
                [(max(both[at].counts), max(min(both[at].counts), 1)) for both in found],
                None if at else BAR,
                "turns",
            )
        peer = "SQLite, BEGIN IMMEDIATE with a busy timeout"
        for name, percent in (("p50", 50), ("p99", 99), ("longest", 100)):
            yield summed_up(
                f"wait for a turn among {writers} writers that never pause, {name}",
                peer,
                [(ours.wait(percent), theirs.wait(percent)) for ours, theirs in found],
            )
        yield summed_up(
            f"a turn's share of the time, {writers} writers that never pause",
            peer,
            [(1000 / ours.rate, 1000 / theirs.rate) for ours, theirs in found],
        )
        for number, (ours, _) in enumerate(found):
            if ours.refused:
                raise RuntimeError(f"{ours.refused} turns were refused in round {number}")
        yield summed_up(
            f"`register`, {registrations} processes at once, until the last has its answer",
            "the same one after the other",
            [_register_at_once(folder / f"var-{number}", registrations) for number in rounds],
            unit="s",
        )


def _race(mode: str, path: Path, writers: int, seconds: float) -> Turns:
    command = [sys.executable, __file__, mode, str(path), str(seconds)]
    children = []
    for _ in range(writers):
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()  # it is ready; one after the other, so that one makes the log
        children.append(child)
    for child in children:
        assert child.stdin is not None
        child.stdin.write(b"go\n")
        child.stdin.flush()
    answers = [orjson.loads(child.communicate()[0]) for child in children]
    counts = [len(waits) for waits, _ in answers]
    waits = sorted(wait for waits, _ in answers for wait in waits)
    return Turns(counts, waits, sum(refused for _, refused in answers), len(waits) / seconds)


def _write(mode: str, path: Path, seconds: float) -> None:
    """One of the writers."""
    turn = _our_turn(path) if mode == "ours" else _their_turn(path)
    turn()
    print("ready", flush=True)
    sys.stdin.readline()
    waits, refused = [], 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            waits.append(turn())
        except PromptyoselfError as error:
            if error.code != "lock_timeout":
                raise
            refused += 1
    sys.stdout.buffer.write(orjson.dumps([waits, refused]))


def _our_turn(folder: Path) -> Callable[[], float]:
    ledger = FileLedger(folder, "schedules", lock_timeout=_LOCK_TIMEOUT)
    position, draft = ledger.head(), registration(1)

    def turn() -> float:
        nonlocal position
        began = time.perf_counter()
        with ledger.exclusive():
            waited = time.perf_counter() - began
            position = ledger.append([draft], _NOW, ledger.head(position)).position
        return waited * 1000

    return turn


def _their_turn(path: Path) -> Callable[[], float]:
    log, line = SqliteLog(path, busy_timeout=_LOCK_TIMEOUT), b"x" * 600

    def turn() -> float:
        began = time.perf_counter()
        with log.transaction():
            waited = time.perf_counter() - began
            log.insert(line)
        return waited * 1000

    return turn


def _register_at_once(var: Path, count: int) -> tuple[float, float]:
    """The seconds that ``count`` registrations take together, and one after the other."""
    taken = []
    for together in (True, False):
        environ = environment(var / str(together))
        began = time.perf_counter()
        running: list[subprocess.Popen[bytes]] = []
        answers = []
        for number in range(count):
            child = subprocess.Popen(register(number), env=environ, stdout=subprocess.PIPE)
            running.append(child)
            if not together:
                answers.append(child.communicate()[0])
        answers = answers or [child.communicate()[0] for child in running]
        taken.append(time.perf_counter() - began)
        failed = [answer for answer in answers if orjson.loads(answer)["status"] != "success"]
        if failed:
            raise RuntimeError(f"{len(failed)} of {count} registrations failed: {failed[0]!r}")
    return taken[0], taken[1]


if __name__ == "__main__":
    if sys.argv[1:2] in (["ours"], ["theirs"]):
        _write(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))
    else:
        numbers = [int(text) for text in sys.argv[1:]]
        for figure in run(*numbers):
            print(figure)
