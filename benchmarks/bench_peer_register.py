"""Registrations in one process against APScheduler's on SQLite (at least 4 times as fast).

Both are durable when the call returns: ours after an fsync of the log, theirs after a commit. For
who has all of them at hand there is ``import``, which takes them in together; theirs has no such
call.

    python bench_peer_register.py [ROUNDS [REGISTRATIONS]]
"""

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from pairs import Figure
from peers import ROUNDS, apscheduler, compare, has, missing, solo

BAR = 1 / 4


def run(pairs: int = ROUNDS, count: int = 10_000) -> Iterator[Figure]:
    """Each round begins with nothing."""
    name = f"{count} registrations in one process"
    peer = "APScheduler 3, `add_job` with SQLAlchemyJobStore on SQLite"
    if not has("apscheduler"):
        yield missing(name, peer, BAR)
        return
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        folder = Path(scratch)
        yield compare(
            name,
            peer,
            lambda number: solo("register", folder / f"var-{number}", count),
            lambda number: apscheduler("register", folder / f"jobs-{number}.db", count),
            pairs,
            BAR,
        )
        yield compare(
            f"{count} schedules taken in by `import`",
            peer,
            lambda number: solo("import", folder / f"imported-{number}", count),
            lambda number: apscheduler("register", folder / f"again-{number}.db", count),
            pairs,
            BAR,
        )


if __name__ == "__main__":
    for figure in run(*map(int, sys.argv[1:])):
        print(figure)
