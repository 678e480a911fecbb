"""A store that a fixed story has made, at a fixed time; and terminals to look at it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import socket
import struct
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from calling import Answer, all_shown, call, clean_environ, use_environ

from promptyoself.doors.session import Session
from promptyoself.sandbox import Sandbox

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
"""When the store is looked at: a Saturday."""

ZONE = "Europe/Berlin"
"""Where the reader lives, an hour before UTC."""

_LETTA = ("127.0.0.1", 8283)
_CONNECT = socket.create_connection
_AT_A_TIME = """
import sys
from datetime import datetime
from promptyoself.doors.session import Session
Session.now = lambda _: datetime.fromisoformat(sys.argv[1])
from promptyoself.cli import _run
sys.exit(_run(sys.argv[2:]))
"""


class Story:
    """A data directory, the ids of what is in it by their names, and the clock of its commands."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.now = NOW
        self.ids: dict[str, str] = {}

    def at(self, text: str) -> None:
        """Turn the clock to a time in UTC."""
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def register(self, name: str, agent: str, prompt: str, *asked: str) -> None:
        """Register a prompt under a name."""
        named = () if name.startswith("-") else ("--name", name)
        words = ("register", "--agent-id", agent, "--prompt", prompt, *named, *asked)
        self.ids[name] = call(*words).success()["id"]

    def environ(self) -> dict[str, str]:
        """The environment of its commands in processes of their own."""
        return {**clean_environ(self.var), "PROMPTYOSELF_TZ": ZONE, "TERM": "xterm-256color"}


@contextmanager
def told(var: Path) -> Iterator[Story]:
    """The story of a week, and its end as the present."""
    story = Story(var)
    with Sandbox(("Ada", "Bo"), clock=lambda: story.now) as sandbox, playing(story, sandbox):
        ada, bo = sandbox.agents
        story.at("2026-11-23T06:00")
        story.register(
            "morning-plan",
            ada,
            "Plan the day: look at the calendar, and write down the three things that matter.",
            *("--cron", "30 8 * * MON-FRI", "--tz", ZONE),
        )
        story.register("stretch", ada, "Get up and stretch.", "--every", "6h", "--jitter", "5m")
        agents = call("agents").success()["agents"]
        story.ids |= {agent["name"]: agent["id"] for agent in agents}
        story.register("-water", bo, "Water the plants.", "--every", "3d")
        story.register(
            "invoices",
            bo,
            "Write this month's invoices, and send them.\nAsk where an address is missing.",
            *("--cron", "0 18 L * *", "--tz", "Europe/London", "--tier", "2"),
        )
        story.register("birthday", ada, "Wish Mary a happy birthday.", "--time", "2027-03-14T09:00")
        gone = "agent-00000000-0000-4000-8000-00000000dead"
        story.register("night-watch", gone, "Is anything burning?", "--every", "12h")
        story.register("review", bo, "Review the week.", "--cron", "0 16 * * FRI", "--tz", ZONE)
        for when in ("2026-11-27T07:31", "2026-11-27T18:05", "2026-11-28T06:05"):
            story.at(when)
            call("execute", "--concurrency", "1").success()
        story.at("2026-11-28T08:30")
        call("pause", "--id", story.ids["review"], "--reason", "on holiday").success()
        story.now = NOW
        yield story


@contextmanager
def playing(story: Story, sandbox: Sandbox) -> Iterator[None]:
    """Nothing is left to chance: who calls, when, and under which address Letta answers."""
    port = int(sandbox.url.rpartition(":")[2])

    def connect(address: Any, *rest: Any, **more: Any) -> socket.socket:
        return _CONNECT((_LETTA[0], port) if address == _LETTA else address, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, story.var)
        patch.setenv("PROMPTYOSELF_TZ", ZONE)
        patch.setenv("LETTA_BASE_URL", "http://{}:{}".format(*_LETTA))
        patch.setattr(socket, "create_connection", connect)
        patch.setattr(Session, "now", lambda _: story.now)
        patch.setattr("promptyoself.doors.session._login", lambda: "mary")
        yield


def picture(*arguments: str, columns: int = 80) -> str:
    """What a command shows on a terminal of that width, without colours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", str(columns))
        return call(*arguments, "--format", "table").out.decode()


def at_terminal(
    *arguments: str,
    environ: dict[str, str],
    columns: int = 80,
    lines: int = 60,
    typed: bytes = b"",
    now: datetime = NOW,
) -> Answer:
    """Run a command in a process of its own whose three streams are a terminal of that size; all
    that the terminal shows is the answer's ``out``."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with Popen(
        [sys.executable, "-c", _AT_A_TIME, now.isoformat(), *arguments],
        env={name: value for name, value in environ.items() if name not in ("COLUMNS", "LINES")},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        shown = all_shown(ours)
        process.wait(timeout=200)
    os.close(ours)
    return Answer(process.returncode, shown.replace(b"\r\n", b"\n"), "")


def without_codes(shown: bytes) -> str:
    """What a terminal shows, without the codes for colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode())
