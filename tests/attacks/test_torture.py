"""`make torture` says what it tried, repeats itself, and can't be green by mistake."""

import os
import re
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
from torture import FILES, ZEROS

TESTS = Path(__file__).resolve().parents[1]

COUNTS = """
from tally import chance, count, rounds

def test_it():
    count("bits flipped", rounds(3))
    count("writes cut", chance("here").randrange(10**9))
"""


def test_it_alone_explores() -> None:
    """What `make test` tries is the same in every run: a change fails at once, or never."""
    assert hypothesis.settings().derandomize is ("TEST_SEED" not in os.environ)
    assert hypothesis.settings().deadline is None


def torture(path: Path, code: str, seed: str = "7") -> tuple[int, str]:
    """Run it on one test file; its exit code and what it printed."""
    file = path / "test_tiny.py"
    file.write_text(code)
    done = subprocess.run(
        [sys.executable, str(TESTS / "support" / "torture.py"), str(file)],
        env={**os.environ, "SCALE": "2", "SEED": seed, "WORKERS": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def test_what_was_tried_is_summed_and_repeats(tmp_path: Path) -> None:
    """A run that passes prints what was counted, then the zeros; the same seed does the same."""
    code, first = torture(tmp_path, COUNTS)
    assert code == 0, first
    assert re.search(r"bits flipped +\| +6 \|", first)
    assert all(re.search(rf"\*\*{zero}\*\* +\| +\*\*0\*\*", first) for zero in ZEROS)

    def cuts(printed: str) -> list[str]:
        return re.findall(r"writes cut +\| +([\d,]+)", printed)

    assert cuts(first)
    assert cuts(torture(tmp_path, COUNTS)[1]) == cuts(first)
    assert cuts(torture(tmp_path, COUNTS, seed="8")[1]) != cuts(first)


@pytest.mark.parametrize(
    "code",
    [
        COUNTS + "    assert False\n",
        COUNTS + "raise SystemExit\n",
        "import no_such_module\n",
        "import os\n" + COUNTS + "    os._exit(0)\n",
    ],
    ids=["a test fails", "a file ends the run", "a file can't be loaded", "the process dies"],
)
def test_a_failure_is_reported(tmp_path: Path, code: str) -> None:
    """Where anything fails, it is named, with what repeats it; and no zero is printed."""
    exit_code, printed = torture(tmp_path, code)
    assert exit_code == 1
    assert "FAILED, with SCALE=2 SEED=7" in printed
    assert "make torture SCALE=2 SEED=7" in printed
    assert not any(zero in printed for zero in ZEROS)
    if "assert False" in code:
        assert "test_tiny.py::test_it'" in printed


@pytest.mark.parametrize("code", ["", "def test_it():\n    pass\n"])
def test_a_run_that_tried_nothing_fails(tmp_path: Path, code: str) -> None:
    """No tests, or none that counts anything, is a failure too."""
    exit_code, printed = torture(tmp_path, code)
    assert exit_code == 1
    assert not any(zero in printed for zero in ZEROS)


def test_every_file_that_counts_is_run() -> None:
    """No attack is left out of the torture: each test file that counts is in its list."""
    counting = {
        path.stem
        for path in TESTS.rglob("test_*.py")
        if re.search(r"^from tally import .*\bcount\b", path.read_text(), re.MULTILINE)
    } - {Path(__file__).stem}
    assert counting <= set(FILES)
