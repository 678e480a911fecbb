"""A pass with nothing due against APScheduler's on SQLite, which has a tenth of the schedules (at
most a twentieth of its time).

    python bench_peer_pass.py [ROUNDS [SCHEDULES]]
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filling import many
from pairs import Figure
from peers import ROUNDS, apscheduler, compare, has, missing, solo

BAR = 1 / 20
PASSES = 100  # of which each process tells the median


def run(pairs: int = ROUNDS, count: int = 1_000_000) -> Iterator[Figure]:
    """Both are filled once; each round opens them again."""
    name = f"a pass with nothing due, {count} schedules"
    peer = f"APScheduler 3, {count // 10} jobs in SQLAlchemyJobStore on SQLite"
    if not has("apscheduler"):
        yield missing(name, peer, BAR)
        return
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        var, jobs = Path(scratch) / "var", Path(scratch) / "jobs.db"
        many(var, count)
        apscheduler("fill", jobs, count // 10)
        yield compare(
            name,
            peer,
            lambda _: solo("pass", var, PASSES),
            lambda _: apscheduler("pass", jobs, PASSES),
            pairs,
            BAR,
        )


if __name__ == "__main__":
    for figure in run(*map(int, sys.argv[1:])):
        print(figure)
