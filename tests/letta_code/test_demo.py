"""The demonstration with a real Letta Code: an agent answers, and nothing is left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from calling import clean_environ, run
from letta_code.server import version


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """Where the demonstration puts its files."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


@pytest.fixture
def environ(tmp_path: Path, scratch: Path) -> dict[str, str]:
    """The environment of somebody with an account of his own, which isn't to be used."""
    (tmp_path / "home").mkdir()
    environ = clean_environ(tmp_path / "var")
    del environ["PROMPTYOSELF_VAR"]
    own = {"HOME": str(tmp_path / "home"), "TMPDIR": str(scratch)}
    return {**environ, **own, "LETTA_API_KEY": "mine", "LETTA_BASE_URL": "http://127.0.0.1:1"}


def processes(scratch: Path) -> list[str]:
    """The command lines of the processes that have their files there."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"TMPDIR={scratch}".encode() in (process / "environ").read_bytes().split(b"\0"):
                line = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                lines += [line] if line else []  # it has ended otherwise
        except OSError:
            continue
    return lines


def test_an_agent_answers(
    letta_code_program: Path, environ: dict[str, str], scratch: Path, tmp_path: Path
) -> None:
    """Two prompts are delivered, answered and proved, by an agent without an account. The log has
    both answers. Every file is gone at the end, every process too, and the caller's home is as it
    was."""
    answer = run(
        "demo", "--target", "letta-code", "--program", str(letta_code_program), environ=environ
    )
    document = answer.success()
    assert document["answers"] == ["You said: Water the plants.", "You said: Stretch."], answer.err
    assert list(document["delivered"].values()) == [1, 1]
    assert document["valid"] is True
    assert (document["target"], document["version"]) == ("letta-code", version(letta_code_program))
    assert '"text": "You said: Stretch."\n' in answer.err
    shown = [json.loads(line) for line in answer.err.splitlines() if line.startswith('{"status"')]
    (kept,) = [line["replies"] for line in shown if "count" in line and "replies" in line]
    assert sorted(reply["text"] for reply in kept) == sorted(document["answers"])
    (audit,) = [line["totals"] for line in shown if "totals" in line]
    assert "awaited" not in str(audit)
    assert "mine" not in answer.err
    assert "Traceback" not in answer.err
    assert not processes(scratch)
    assert not list(scratch.iterdir())
    assert not list((tmp_path / "home").iterdir())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_it_leaves_no_process_behind(
    letta_code_program: Path, environ: dict[str, str], scratch: Path, number: signal.Signals
) -> None:
    """Ctrl-C ends all that was started, and removes its files. A kill ends the processes too."""
    words = ["demo", "--target", "letta-code", "--program", str(letta_code_program)]
    with subprocess.Popen(
        [sys.executable, "-m", "promptyoself", *words],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell that starts the tests in the background has them ignore it.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as demo:
        assert demo.stderr is not None
        assert any('"event":"ready"' in line for line in demo.stderr)
        assert any("server --listen" in line for line in processes(scratch))
        if number == signal.SIGINT:
            os.killpg(demo.pid, number)  # a terminal sends it to all of them
            assert demo.wait(60) == 1
            assert demo.stdout is not None
            assert json.loads(demo.stdout.read())["code"] == "interrupted"
            assert not processes(scratch)
            assert not list(scratch.iterdir())
        else:
            demo.kill()
            until = time.monotonic() + 60
            while processes(scratch):
                assert time.monotonic() < until, processes(scratch)
                time.sleep(0.1)
