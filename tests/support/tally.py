"""How many kills, cuts and flips the tests tried. `make torture` prints the sum.

Each process that runs tests adds lines to a file of its own, in the folder that the environment
names; without one, the counts go nowhere.
"""

import json
import os
import random
from collections import Counter
from pathlib import Path

SCALE = float(os.environ.get("TEST_SCALE", "1"))
"""Multiplies the number of rounds of the tests that try many times."""

SEED = int(os.environ.get("TEST_SEED", "0"))
"""What every random choice of such a test is made from; another seed, another torture."""

EXPLORES = "TEST_SEED" in os.environ
"""Whether this run tries what none before has tried. `make torture` does. `make test` tries the
same in every run."""

FOLDER = "TEST_TALLY"


def rounds(count: int) -> int:
    """``count``, scaled."""
    return max(1, int(count * SCALE))


def chance(name: str) -> random.Random:
    """The random choices of one test: the same for the same name and seed."""
    return random.Random(f"{SEED}:{name}")


def count(what: str, times: int = 1) -> None:
    """Note that something was tried so often. The name is a plural: ``kills by SIGKILL``."""
    folder = os.environ.get(FOLDER)
    if folder:
        with (Path(folder) / f"{os.getpid()}.ndjson").open("a", encoding="utf-8") as file:
            file.write(json.dumps([what, times]) + "\n")


def summed(folder: Path) -> Counter[str]:
    """What all processes together have tried."""
    total: Counter[str] = Counter()
    for path in folder.glob("*.ndjson"):
        for line in path.read_text(encoding="utf-8").splitlines():
            what, times = json.loads(line)
            total[what] += times
    return total
