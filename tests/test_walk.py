"""The script for auditors finds what the package finds, without any of its code."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chains import ledger_in, three_months
from test_damage import ANSWERS, DAMAGED, verdict

SCRIPT = Path(__file__).parent.parent / "docs" / "walk_chain.py"


def walk(folder: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", "-O", str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.strip()


def test_good_chain(tmp_path: Path) -> None:
    """P3: on a good chain of three months it prints the head that the package has."""
    head = three_months(tmp_path / "s").head()
    assert walk(tmp_path / "s") == (0, f"ok {head.seq} {head.hash}")


def test_no_chain(tmp_path: Path) -> None:
    """An empty folder is a chain of no events."""
    assert walk(tmp_path) == (0, "ok 0 " + "0" * 64)


def test_needs_nothing_of_ours() -> None:
    """It is short, and imports only what every Python has."""
    text = SCRIPT.read_text()
    assert "promptyoself" not in text.replace("promptyoself/", "")
    assert len(text.splitlines()) <= 50


@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_named_damage(tmp_path: Path, name: str) -> None:
    """P3: on every damaged file it names the event that the package names; a torn end, which the
    package reads up to, is bad to it as well."""
    for path in (DAMAGED / name).glob("*.ndjson.gz"):
        shutil.copy(path, tmp_path)
    position, error = verdict(tmp_path)
    code, said = walk(tmp_path)
    if error is None and ledger_in(tmp_path).torn() is None:
        assert (code, said) == (0, f"ok {position.seq} {position.hash}")
    else:
        torn = ledger_in(tmp_path).torn() if error is None else None
        seq = position.seq + 1 if error is None else error.details["seq"]
        month = torn.month if torn is not None else error and error.details["month"]
        assert code == 1
        assert said.startswith(f"bad event {seq} in {month}.ndjson.gz: ")


def test_month_removed(tmp_path: Path) -> None:
    """P3: a missing month is named at the first event after it."""
    three_months(tmp_path)
    (tmp_path / "2026-10.ndjson.gz").unlink()
    code, said = walk(tmp_path)
    assert code == 1
    assert said == "bad event 4 in 2026-11.ndjson.gz: its number is 6"
