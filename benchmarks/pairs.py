"""Whole processes timed in pairs, A B A B …, so that a noisy machine is as noisy for both."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import orjson

FLOORS = Path(__file__).resolve().parent
SCHEDULES = 100
PAIRS = 60
WARM_UP = 4


class Figure(NamedTuple):
    """What was measured against what: medians, in milliseconds unless ``unit`` says otherwise, and
    the ratios of the pairs; ``bar`` is the largest ratio that was aimed at."""

    name: str
    floor: str
    ours_ms: float
    floor_ms: float
    ratio: float
    lowest: float
    highest: float
    pairs: int
    bar: float | None = None
    unit: str = "ms"


def python() -> list[str]:
    """The interpreter that runs a program of ours and its floor alike."""
    return [sys.executable]


def promptyoself() -> list[str]:
    """The installed command, run by this interpreter as its first line would."""
    return [*python(), str(Path(sys.executable).with_name("promptyoself"))]


def measure(
    name: str,
    floor_name: str,
    ours: Callable[[int], Sequence[str]],
    floor: Callable[[int], Sequence[str]],
    environ: dict[str, str],
    pairs: int = PAIRS,
    bar: float | None = None,
) -> Figure:
    """Run both ``pairs`` times in turn, after a warm-up; each call gets a number of its own."""
    times: list[tuple[float, float]] = []
    for number in range(-WARM_UP, pairs):
        # Whichever goes first may find the caches colder, so they take turns at that too.
        if number % 2:
            second = _seconds(floor(number), environ)
            first = _seconds(ours(number), environ)
        else:
            first = _seconds(ours(number), environ)
            second = _seconds(floor(number), environ)
        if number >= 0:
            times.append((first * 1000, second * 1000))
    return summed_up(name, floor_name, times, bar)


def summed_up(
    name: str,
    floor_name: str,
    found: Sequence[tuple[float, float]],
    bar: float | None = None,
    unit: str = "ms",
) -> Figure:
    """The figure of pairs of numbers in that unit, ours first."""
    ratios = [first / second for first, second in found]
    return Figure(
        name,
        floor_name,
        statistics.median(first for first, _ in found),
        statistics.median(second for _, second in found),
        statistics.median(ratios),
        min(ratios),
        max(ratios),
        len(found),
        bar,
        unit,
    )


def environment(var: Path) -> dict[str, str]:
    """This process's, with a data directory and none of its settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PROMPTYOSELF_", "LETTA_"))
    }
    kept.pop("PYTHONDONTWRITEBYTECODE", None)
    limits = {"PROMPTYOSELF_MAX_ACTIVE_PER_AGENT": "100000", "PROMPTYOSELF_TZ": "UTC"}
    return {**kept, **limits, "PROMPTYOSELF_VAR": str(var)}


def fill(var: Path) -> dict[str, str]:
    """Register 100 schedules, and give the floor an index of as many; returns the environment."""
    environ = environment(var)
    for number in range(SCHEDULES):
        _seconds(register(number), environ)
    listed = subprocess.run(
        [*promptyoself(), "list"], env=environ, check=True, stdout=subprocess.PIPE
    )
    floor = var.with_name("floor")
    floor.mkdir()
    answer = orjson.loads(listed.stdout)
    assert answer["count"] == SCHEDULES, answer
    (floor / "index.json").write_bytes(orjson.dumps({"schedules": answer["schedules"]}))
    return environ


def register(number: int) -> list[str]:
    """The command line of a registration that no other has."""
    return [*promptyoself(), *registration(number)]


def registration(number: int) -> list[str]:
    """The arguments alone."""
    prompt = f"Look at the inbox, and answer what can't wait ({number})."
    return ["register", "--agent-id", "agent-1", "--prompt", prompt, "--every", "5m"]


def _seconds(command: Sequence[str], environ: dict[str, str]) -> float:
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
    )
    taken = time.perf_counter() - began
    if done.returncode or b'"status":"success"' not in done.stdout:
        raise RuntimeError(f"{command} answered {done.returncode}: {done.stdout!r}")
    return taken
