"""Where a real Letta is installed: once, whole, and where nobody else's is."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from runpy import run_path

import pytest

BUILD = Path(__file__).parents[1] / "letta_server" / "build.py"


@pytest.fixture
def builder(tmp_path: Path) -> Path:
    """The script, with a list of nothing to be installed."""
    for script in (BUILD, BUILD.parents[1] / "support" / "environments.py"):
        folder = tmp_path / script.parent.name
        folder.mkdir()
        shutil.copy(script, folder)
    (tmp_path / "letta_server" / "requirements.txt").write_text("# nothing\n")
    return tmp_path / "letta_server" / "build.py"


def start(builder: Path, *arguments: str, **environ: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TEST_LETTA_ENV"}
    return subprocess.Popen(
        [sys.executable, builder, *arguments],
        env={**kept, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_is_installed_once_and_whole(builder: Path, tmp_path: Path) -> None:
    """Of two that want it at once, one makes it and the other waits; what a killed installation
    left is made again, and what is whole is left alone."""
    cache = tmp_path / "cache"
    builders = [start(builder, XDG_CACHE_HOME=str(cache)) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in builders]
    assert [process.returncode for process in builders] == [0, 0], outputs
    assert sorted("Installing" in err for _, err in outputs) == [False, True]
    python = Path(outputs[0][0].strip())
    assert outputs[0][0] == outputs[1][0]
    assert python.is_relative_to(cache / "promptyoself")
    subprocess.run([python, "-c", ""], check=True)

    folder = python.parent.parent
    (folder / "left").touch()
    again = start(builder, XDG_CACHE_HOME=str(cache))
    assert again.communicate(timeout=300) == (outputs[0][0], "")
    assert (folder / "left").exists()
    (folder / ".ready").unlink()
    rebuilding = start(builder, XDG_CACHE_HOME=str(cache))
    out, err = rebuilding.communicate(timeout=300)
    assert (out, "Installing" in err) == (outputs[0][0], True)
    assert not (folder / "left").exists()


def test_another_list_is_another_place(builder: Path, tmp_path: Path) -> None:
    """The folder is named after the list; where one is chosen, it is that one."""
    places = []
    for text in ("one==1\n", "one==2\n"):
        builder.with_name("requirements.txt").write_text(text)
        places.append(run_path(str(builder))["place"]())
    assert places[0] != places[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_LETTA_ENV", str(tmp_path / "chosen"))
        assert run_path(str(builder))["place"]() == tmp_path / "chosen"


def test_a_python_that_will_not_do_is_told(builder: Path, tmp_path: Path) -> None:
    """Without a Python of the right version nothing is made, and the error says how to name one."""
    odd = tmp_path / "bin" / "python9"
    odd.parent.mkdir()
    odd.write_text("#!/bin/sh\necho 9.9\n")
    odd.chmod(0o755)
    cache = tmp_path / "cache"
    environ = {"XDG_CACHE_HOME": str(cache), "PATH": str(odd.parent)}
    process = start(builder, "--python", str(odd), **environ)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert "LETTA_PYTHON" in err
    assert not list((cache / "promptyoself").glob("*/bin"))
