"""`letta-code up` and `letta-code status` with a real Letta Code."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from app_servers import free_port
from calling import call, clean_environ
from letta_code.wire import Wire

from promptyoself.service.letta_code.program import find_program

TOKEN = "a-token-of-thirty-two-characters"


@pytest.fixture
def environ(
    letta_code_program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """A home with nothing in it, a free port, and a token; for this process too."""
    (tmp_path / "home").mkdir()
    environ = {
        **clean_environ(tmp_path / "var"),
        "HOME": str(tmp_path / "home"),
        "LETTA_LOCAL_BACKEND_DIR": str(tmp_path / "store"),
        "PROMPTYOSELF_LETTA_CODE_URL": f"ws://127.0.0.1:{free_port()}",
        "PROMPTYOSELF_LETTA_CODE_TOKEN": TOKEN,
        "PATH": f"{letta_code_program.parent}{os.pathsep}{os.environ['PATH']}",
    }
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return environ


def inherited_by_tools(server: int, store: Path) -> bool:
    """Whether the App Server hands its lock on to what it starts, which may outlive it."""
    flags = [
        int(
            re.search(
                r"flags:\s*(\d+)", Path("/proc", str(server), "fdinfo", link.name).read_text()
            )[1],
            8,
        )
        for link in Path("/proc", str(server), "fd").iterdir()
        if str(link.resolve()).startswith(str(store))
    ]
    assert flags, "it has no lock"
    return not all(flag & os.O_CLOEXEC for flag in flags)


def test_it_is_started_watched_and_ended(environ: dict[str, str]) -> None:
    """The real App Server takes the address, the token's digest and the lock on its store; killed,
    it is started again; at the end it is gone."""
    url = environ["PROMPTYOSELF_LETTA_CODE_URL"]
    version = find_program().version
    with subprocess.Popen(
        [sys.executable, "-m", "promptyoself", "letta-code", "up"],
        stdout=subprocess.PIPE,
        env=environ,
    ) as up:
        try:
            assert up.stdout is not None
            lines = iter(up.stdout)

            def event(name: str) -> Any:
                found = orjson.loads(next(lines))
                assert found["event"] == name, found
                return found

            first = event("started")["pid"]
            event("ready")
            status = call("letta-code", "status").success()
            assert (status["version"], status["pid"], status["ready"]) == (version, first, True)
            assert not inherited_by_tools(first, Path(environ["LETTA_LOCAL_BACKEND_DIR"]))
            with Wire(f"{url}/ws", TOKEN) as wire:
                assert wire.ask("agent_list", query={"limit": 1})["success"]
            call("letta-code", "up").error("letta_code_running")
            os.environ["PROMPTYOSELF_LETTA_CODE_TOKEN"] = "another"
            call("letta-code", "status").error("letta_code_unauthorized")
            os.kill(first, signal.SIGKILL)
            assert event("ended")["signal"] == "SIGKILL"
            assert event("started")["pid"] != first
            event("ready")
            up.send_signal(signal.SIGTERM)
            event("stopped")
            assert up.wait(60) == 0
        finally:
            up.terminate()
    call("letta-code", "status").error("letta_code_unreachable")
