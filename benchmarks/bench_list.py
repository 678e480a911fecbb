"""``list`` of 100 schedules against a bare program that reads and prints as much (at most 1.25
times)."""

import sys
import tempfile
from pathlib import Path

from pairs import FLOORS, PAIRS, Figure, fill, measure, promptyoself, python


def run(pairs: int = PAIRS) -> list[Figure]:
    """The same answer each time."""
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        var = Path(scratch) / "var"
        environ = fill(var)
        floor = [*python(), str(FLOORS / "floor_list.py"), "--var", str(var.with_name("floor"))]
        return [
            measure(
                "`list`, 100 schedules",
                "click + orjson: read and print as much",
                lambda _: [*promptyoself(), "list"],
                lambda _: floor,
                environ,
                pairs,
                1.25,
            )
        ]


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
