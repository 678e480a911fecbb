"""``register``, ``show``, ``cancel`` and more with a million schedules against a hundred: the same
command as a whole process, in two data directories.

A million take minutes to make: ``bench_scale.py 20 100000`` takes fewer (pairs, schedules).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from filling import id_of, many
from pairs import PAIRS, Figure, environment, measure, promptyoself, registration

FEW, MANY = 100, 1_000_000
COMMANDS: dict[str, Callable[[int], Sequence[str]]] = {
    "register": lambda number: registration(number + 10**7),
    "show": lambda number: ["show", "--id", id_of(number % FEW)],
    "cancel": lambda number: ["cancel", "--id", id_of(number % FEW)],
    "list --limit 20": lambda _: ["list", "--limit", "20"],
    "execute": lambda _: ["execute"],
}


def run(pairs: int = PAIRS, schedules: int = 0) -> Iterator[Figure]:
    """A figure per command; each schedule is cancelled once, so there are at most 90 pairs."""
    schedules = schedules or int(os.environ.get("SCHEDULES", MANY))
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        large, small = (many(Path(scratch) / str(n), n) for n in (schedules, FEW))

        def calling(var: Path, name: str) -> Callable[[int], Sequence[str]]:
            return lambda number: [*promptyoself(), *COMMANDS[name](number), "--var", str(var)]

        for name in COMMANDS:
            yield measure(
                f"`{name}` with {schedules:,} schedules",
                f"the same with {FEW}",
                calling(large, name),
                calling(small, name),
                environment(large),
                min(pairs, 90),
                1.5,
            )


if __name__ == "__main__":
    numbers = [int(each) for each in sys.argv[1:]]
    for figure in run(*(numbers or [PAIRS])):
        print(figure)
