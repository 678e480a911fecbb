"""``register --every 5m`` against a bare program with the same I/O (at most 1.25 times)."""

import sys
import tempfile
from pathlib import Path

from pairs import FLOORS, PAIRS, Figure, fill, measure, python, register, registration


def run(pairs: int = PAIRS) -> list[Figure]:
    """A new schedule each time, beside 100 others."""
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        var = Path(scratch) / "var"
        environ = fill(var)
        floor = [*python(), str(FLOORS / "floor_register.py"), "--var", str(var.with_name("floor"))]
        return [
            measure(
                "`register --every 5m`",
                "click + filelock + orjson: lock, read 100 entries, append a gzip member, fsync",
                lambda number: register(1000 + number),
                lambda number: [*floor, *registration(1000 + number)[1:]],
                environ,
                pairs,
                1.25,
            )
        ]


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
