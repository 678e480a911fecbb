"""What others are measured with: programs in an environment of their own, a process each.

``make bench`` installs them. Where they aren't there, a figure says so and has no numbers.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from math import nan
from pathlib import Path

import orjson
from pairs import FLOORS, Figure, summed_up

from promptyoself.core.settings import load_settings
from promptyoself.store.store import Store

PEERS = Path(sys.executable).parent.parent / "peers" / "bin"
"""Where the peers are installed; ``make`` knows it too."""

ROUNDS = 5
"""The most rounds of a figure whose two sides take seconds."""


def has(command: str) -> bool:
    """Whether a peer's command, or the package that a module of that name belongs to, is there."""
    if (PEERS / command).exists():
        return True
    python = PEERS / "python"
    return (
        python.exists()
        and not subprocess.run(
            [python, "-c", f"import {command}"], stderr=subprocess.DEVNULL, check=False
        ).returncode
    )


def missing(name: str, peer: str, bar: float | None) -> Figure:
    """The figure of a peer that isn't installed."""
    return Figure(name, f"{peer}: not installed", nan, nan, nan, nan, nan, 0, bar)


def solo(*arguments: object) -> float:
    """Run ``solo.py``, our side, and return the number that it prints."""
    return _number([sys.executable, FLOORS / "solo.py", *arguments])


def apscheduler(*arguments: object) -> float:
    """Run ``peer_apscheduler.py``, theirs, and return the number that it prints."""
    return _number([PEERS / "python", FLOORS / "peer_apscheduler.py", *arguments])


def compare(
    name: str,
    peer: str,
    ours: Callable[[int], float],
    theirs: Callable[[int], float],
    pairs: int,
    bar: float,
    unit: str = "ms",
) -> Figure:
    """Take two numbers in turn, :data:`ROUNDS` times at most; each call gets a number."""
    rounds = min(pairs, ROUNDS)
    found = []
    for number in range(rounds):
        if number % 2:  # whichever goes first may find the caches colder
            second = theirs(number)
            found.append((ours(number), second))
        else:
            found.append((ours(number), theirs(number)))
    return summed_up(name, peer, found, bar, unit)


def store_in(var: Path) -> Store:
    """The store of a data directory, with every setting at its default but the number of schedules
    that an agent may have."""
    environ = {"PROMPTYOSELF_VAR": str(var), "PROMPTYOSELF_MAX_ACTIVE_PER_AGENT": "1000000"}
    return Store(load_settings(environ), {"via": "cli", "who": "benchmark"}, warn=_tell)


def _tell(warning: str) -> None:
    print(warning, file=sys.stderr)


def _number(command: Sequence[object]) -> float:
    done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, check=True)
    return float(orjson.loads(done.stdout))
