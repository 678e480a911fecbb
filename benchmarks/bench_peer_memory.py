"""What ``execute --loop`` holds in memory against APScheduler with as many jobs in memory (at most
as much): what is resident of the whole process, before either has anything to do.

    python bench_peer_memory.py [ROUNDS [SCHEDULES]]
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from filling import many
from pairs import FLOORS, Figure, environment, promptyoself
from peers import PEERS, ROUNDS, compare, has, missing, store_in

BAR = 1.0
SETTLED = 3.0  # seconds after it has come up, in which the first passes are made


def run(pairs: int = ROUNDS, count: int = 100_000) -> Iterator[Figure]:
    """The same schedules each time: nothing is due."""
    name = f"memory of `execute --loop`, {count} schedules"
    peer = f"APScheduler 3, {count} jobs in MemoryJobStore"
    if not has("apscheduler"):
        yield missing(name, peer, BAR)
        return
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        var = Path(scratch) / "var"
        many(var, count)
        theirs = [PEERS / "python", FLOORS / "peer_apscheduler.py", "memory", "-", count]
        yield compare(
            name,
            peer,
            lambda _: _loop(var),
            lambda _: _resident(theirs, {}),
            min(pairs, 3),
            BAR,
            "MB",
        )


def _loop(var: Path) -> float:
    environ = {**environment(var), "LETTA_BASE_URL": "http://127.0.0.1:9"}
    return _resident([*promptyoself(), "execute", "--loop"], environ, var)


def _resident(command: Sequence[object], environ: dict[str, str], var: Path | None = None) -> float:
    """Megabytes of a process that has come up: it has said so, or written so to the log."""
    process = subprocess.Popen(
        [str(word) for word in command], env=environ or None, stdout=subprocess.PIPE
    )
    try:
        if var is None:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        else:
            store = store_in(var)
            before = store.stamp()
            while store.stamp() == before:
                if process.poll() is not None:
                    raise RuntimeError(f"{command} ended with {process.returncode}")
                time.sleep(0.05)
        time.sleep(SETTLED)
        assert process.poll() is None
        asked = ["ps", "-o", "rss=", "-p", str(process.pid)]
        return int(subprocess.run(asked, stdout=subprocess.PIPE, check=True).stdout) / 1024
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    for figure in run(*map(int, sys.argv[1:])):
        print(figure)
