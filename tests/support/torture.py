"""Attack the log for longer than `make test` does: `make torture SCALE=20 SEED=…`.

Runs the tests that kill, cut, flip, race and fuzz, with many more rounds, and prints how often each
was tried. The same seed makes the same choices: which byte, which bit, which order, how long until
a kill. It can't repeat what the machine decides: how far a process has come when the kill arrives,
and who wins a race.
"""

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

import tally

TESTS = Path(__file__).resolve().parents[1]
ROOT = TESTS.parent

FILES = (
    "test_crash", "test_power", "test_damage", "test_resources", "test_sealing",
    "test_sealing_crash", "test_repack", "test_ledger", "test_index", "test_index_parts",
    "test_proving", "test_storm", "test_races", "test_clocks", "test_model", "test_fuzz",
    "test_audit", "test_packing", "test_notes", "test_moving", "test_desiring", "test_approvals",
    "test_limits", "test_letta_deliveries", "test_letta_code_storm",
    "test_recovering", "test_recovering_crash", "test_recovering_power",
    "test_packing_gaps", "test_notice_storm",
)  # fmt: skip

ORDER = (
    "kills by SIGKILL", "losses of power", "writes cut", "bits flipped", "lines altered",
    "members and months altered", "logs recovered", "crafted logs recovered", "disk errors",
    "processes racing", "clock jumps", "inputs fuzzed", "steps of the model", "slots audited",
    "answers recorded",
)  # fmt: skip

ZEROS = (
    "acknowledged events lost", "prompts doubled", "slots unaccounted", "alterations undetected",
)  # fmt: skip
"""What the tests assert never to have happened. They are printed only where every test has passed,
so they are what was asserted, not what was counted."""


def main(files: Sequence[str]) -> int:
    """Run them; the exit code."""
    scale = os.environ.get("SCALE") or "20"
    seed = os.environ.get("SEED") or str(secrets.randbelow(2**32))
    print(f"torture: SCALE={scale} SEED={seed}", flush=True)
    paths = list(files) or [
        str(path) for path in sorted(TESTS.rglob("test_*.py")) if path.stem in FILES
    ]
    with TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        began = time.monotonic()
        done = subprocess.run(
            [
                sys.executable, "-m", "pytest", "-q", "--dist=worksteal",
                f"--numprocesses={os.environ.get('WORKERS') or 2}",
                f"--timeout={max(600, int(600 * float(scale)))}", f"--hypothesis-seed={seed}",
                "--rootdir", str(ROOT), "-c", str(ROOT / "pyproject.toml"),
                "-o", "junit_family=xunit1",
                f"--junitxml={report}", "-p", "no:cacheprovider", *_letta_code(), *paths,
            ],
            env={**_environ(), "TEST_SCALE": scale, "TEST_SEED": seed,
                 tally.FOLDER: folder},
            check=False,
        )  # fmt: skip
        minutes = (time.monotonic() - began) / 60
        tried = tally.summed(Path(folder))
        whole = report.exists()  # a process that just ended, even with 0, leaves none
        failed = list(_failed(report)) if whole else []
    if done.returncode or failed or not whole:
        _print_failure(done.returncode, failed, scale, seed)
        return 1
    if not tried:
        print("\nNothing was tried: no test has counted anything.")
        return 1
    known = {name: place for place, name in enumerate(ORDER)}
    print(f"\nSCALE={scale} SEED={seed}, {minutes:.0f} min\n")
    print(f"| {'what was tried':<28} | {'how often':>11} |\n|{'-' * 30}|{'-' * 12}:|")
    for name in sorted(tried, key=lambda name: (known.get(name, len(known)), name)):
        print(f"| {name:<28} | {tried[name]:>11,} |")
    for name in ZEROS:
        print(f"| **{name}**{' ' * (24 - len(name))} | {'**0**':>11} |")
    return 0


def _letta_code() -> list[str]:
    """The option that names a real Letta Code, if the environment does; `make torture` does."""
    program = os.environ.get("LETTA_CODE")
    return ["--letta-code", program] if program else []


def _environ() -> dict[str, str]:
    # Within a test, this would take itself for a worker of the one who runs the tests.
    return {name: text for name, text in os.environ.items() if not name.startswith("PYTEST_")}


def _failed(report: Path) -> Iterator[str]:
    """The tests that failed, each as pytest wants it named."""
    for case in ElementTree.parse(report).iter("testcase"):
        if any(child.tag in ("failure", "error") for child in case):
            file, name = case.get("file") or "", case.get("name") or ""
            module = file.removesuffix(".py").replace("/", ".")
            below = (case.get("classname") or "").removeprefix(module).strip(".")
            yield "::".join(part for part in (file, below, name) if part)


def _print_failure(code: int, failed: Sequence[str], scale: str, seed: str) -> None:
    print(f"\nFAILED, with SCALE={scale} SEED={seed}")
    if not failed:
        print(f"  pytest ended with {code}, and said nothing of a test")
    for name in failed:
        print(f"  {name}")
        print(
            f"    again: TEST_SCALE={scale} TEST_SEED={seed} "
            f".venv/bin/python -m pytest --hypothesis-seed={seed} '{name}'"
        )
    print(f"  all of it again: make torture SCALE={scale} SEED={seed}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
