"""Run every ``bench_*.py`` here, ``PAIRS`` pairs if that is given; print one Markdown table."""

import os
import platform
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from pairs import PAIRS

_LIBRARIES = ("promptyoself", "click", "filelock", "orjson")


def main() -> None:
    """Print the figures, and on what they were measured."""
    pairs = int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS
    libraries = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    print(
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {libraries}.\n"
    )
    print("| what | measured against | ours | theirs | ratio (median) | aim | min to max | pairs |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for path in sorted(Path(__file__).resolve().parent.glob("bench_*.py")):
        for figure in import_module(path.stem).run(pairs):
            print(
                f"| {figure.name} | {figure.floor} | {figure.ours_ms:.4g} {figure.unit} "
                f"| {figure.floor_ms:.4g} {figure.unit} | {figure.ratio:.3g} "
                f"| {'' if figure.bar is None else f'{figure.bar:g}'} "
                f"| {figure.lowest:.3g} to {figure.highest:.3g} | {figure.pairs} |",
                flush=True,
            )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


if __name__ == "__main__":
    main()
