"""The log for people: where it goes, and what is never in it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from promptyoself.log import Log

if TYPE_CHECKING:
    import pytest


def test_warnings_go_to_stderr_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Without PROMPTYOSELF_LOG_FILE a warning is a line on stderr, and a note is nothing."""
    log = Log(None)
    log.warn("look out")
    log.note("done", id="sch_1a2b3c4d")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "promptyoself: look out\n"


def test_the_file_has_json_lines_and_is_private(tmp_path: Path) -> None:
    """With a file, warnings and notes are JSON lines in it, and only its owner may read it."""
    path = tmp_path / "loop.log"
    log = Log(path)
    log.warn("look out")
    log.note("delivery", id="sch_1a2b3c4d", delivered=True)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert (first["level"], first["message"]) == ("warning", "look out")
    assert (second["level"], second["id"], second["delivered"]) == ("info", "sch_1a2b3c4d", True)
    assert first["ts"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_file_is_rotated(tmp_path: Path) -> None:
    """It doesn't grow for ever: full files are kept aside, five of them at most."""
    path = tmp_path / "loop.log"
    log = Log(path)
    for _ in range(70):
        log.note("x" * 1_000_000)
    assert len(list(tmp_path.iterdir())) == 6
    assert path.stat().st_size < 6_000_000


def test_a_log_file_that_cannot_be_opened_stops_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be written to the file is told on stderr, and work goes on."""
    log = Log(tmp_path)  # a folder
    log.warn("look out")
    assert "look out" in capsys.readouterr().err
