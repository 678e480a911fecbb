"""An installation of promptyoself, as a user has it: outside of a checkout, with an empty home."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from calling import Answer

import promptyoself
from promptyoself.core import settings
from promptyoself.core.setting_values import SETTINGS

SOURCE = Path(promptyoself.__file__).parent


def install(folder: Path) -> Path:
    """Copy the package there; the folder for PYTHONPATH. Processes with that believe to be
    installed, so they read the settings of their home, and not those of this checkout."""
    place = folder / "site-packages"
    if not place.exists():
        shutil.copytree(SOURCE, place / "promptyoself")
    return place


def environ_of(place: Path, home: Path) -> dict[str, str]:
    """The environment of somebody who has just logged in, and has set nothing."""
    kept = {"LANG", "LC_ALL", "TMPDIR"}
    return {
        **{name: value for name, value in os.environ.items() if name in kept},
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(place),
    }


def converse(*arguments: str, environ: dict[str, str], replies: list[tuple[str, str]]) -> Answer:
    """Run a command at a terminal, and type each reply once its question is on the screen. What the
    screen shows is the answer's ``err``; stdout is no terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "promptyoself", *arguments],
        env={**environ, "TERM": "xterm", "COLUMNS": "80"},
        cwd=environ["HOME"],  # in the folder of a checkout, Python would run that
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        start_new_session=True,  # else a hidden question would go to the developer's terminal
    ) as process:
        os.close(theirs)
        shown, seen, left = "", 0, list(replies)
        with suppress(OSError):  # the other side is closed
            while piece := os.read(ours, 1 << 16):
                shown += piece.decode()
                if left and (at := shown.find(left[0][0], seen)) >= 0:
                    seen = at + len(left[0][0])
                    os.write(ours, left.pop(0)[1].encode() + b"\n")
        out, _ = process.communicate(timeout=200)
    os.close(ours)
    assert not left, (left, shown, out)
    return Answer(process.returncode, out, shown)


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation that tests share."""
    return install(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, for commands that are called in this process, which then believe to be
    installed, and have no setting in their environment."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(settings, "_ROOT", tmp_path / "site-packages")
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "TZ", *(each.name for each in SETTINGS)):
        monkeypatch.delenv(name, raising=False)
    return home
