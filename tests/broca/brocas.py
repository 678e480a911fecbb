"""Brocas for tests: a copy of a checkout or of the stand-in, its database, and a process of it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy, deepcopy
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

AGENT = "agent-00000000-0000-4000-8000-00000000b0ca"
USER = "sink:u1"

_FIT = {"DEBUG_MODE": "false", "USE_BACKGROUND_PROCESSING": "false", "AGENT_ID": AGENT}
_LEFT_OUT = (".git", "core.*", "*.db", ".env", ".venv", "venv", "logs", "run", "tests*", "docs")
_MAKE_TABLES = (
    "import asyncio; from database.operations.shared import initialize_database as make; "
    "asyncio.run(make())"
)
_SINK = '''
import json
from plugins import Plugin


class Sink(Plugin):
    """A platform: each answer is a line in a file."""

    async def start(self): ...
    async def stop(self): ...
    def get_name(self): return "sink"
    def get_platform(self): return "sink"
    def get_message_handler(self): return self.handle
    def register_event_handler(self, event_type, handler): ...
    def emit_event(self, event): ...

    async def handle(self, response, profile, message_id):
        with open("answered", "a") as file:
            file.write(json.dumps(response) + "\\n")
'''


class Broca:
    """A copy of a Broca in a folder of its own, with two users of the platform ``sink``."""

    def __init__(self, origin: Path, folder: Path, python: str = sys.executable) -> None:
        self.folder, self.python = folder, python
        self.database = folder / "broca.db"
        self.environ = {**os.environ, **_FIT, "DB_PATH": str(self.database)}
        self.settings: dict[str, Any] = {
            "debug_mode": False, "queue_refresh": 5, "max_retries": 3, "message_mode": "live",
            "plugins": {"promptyoself": {"default_route": USER}},
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        shutil.copytree(origin, folder, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        for plugin in (folder / "plugins").iterdir():
            if plugin.is_dir():  # those of the checkout want accounts
                shutil.rmtree(plugin)
        (folder / "plugins" / "sink").mkdir()
        (folder / "plugins" / "sink" / "plugin.py").write_text(_SINK)
        command = [python, "-c", _MAKE_TABLES]
        subprocess.run(command, cwd=folder, env=self.environ, check=True, capture_output=True)
        for user in ("u1", "u2"):
            self.add_user("sink", user)

    def copy(self, folder: Path) -> Broca:
        """The same, in another folder. It doesn't run."""
        shutil.copytree(self.folder, folder)
        other = copy(self)
        other.folder, other.database = folder, folder / "broca.db"
        other.environ = {**self.environ, "DB_PATH": str(other.database)}
        other.settings = deepcopy(self.settings)
        return other

    def add_user(self, platform: str, user: str) -> None:
        """Somebody who has written to the agent there."""
        with self.connect() as database:
            id_ = database.execute(
                "INSERT INTO letta_users (last_active, letta_identity_id, letta_block_id) "
                "VALUES ('2026-11-01', 'identity-1', 'block-0001')"
            ).lastrowid
            database.execute(
                "INSERT INTO platform_profiles "
                "(letta_user_id, platform, platform_user_id, username, display_name, last_active) "
                "VALUES (?, ?, ?, ?, ?, '2026-11-01')",
                (id_, platform, user, user, user),
            )

    def connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.database, timeout=60)
        connection.row_factory = sqlite3.Row
        return connection

    def rows(self, question: str, *values: object) -> list[dict[str, Any]]:
        connection = self.connect()
        try:
            return [dict(row) for row in connection.execute(question, values)]
        finally:
            connection.close()

    def change(self, statement: str, *values: object) -> None:
        connection = self.connect()
        with connection:
            connection.execute(statement, values)
        connection.close()

    def items(self) -> list[dict[str, Any]]:
        """The items of the queue with their texts, oldest first."""
        return self.rows(
            "SELECT q.*, m.message, m.agent_response FROM queue q "
            "LEFT JOIN messages m ON m.id = q.message_id ORDER BY q.id"
        )

    def lines(self, name: str) -> list[str]:
        """What has reached the agent (``arrived``), or the user (``answered``)."""
        path = self.folder / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    # -- its process

    def start(self) -> None:
        (self.folder / "settings.json").write_text(json.dumps(self.settings))
        self.log = (self.folder / "log").open("ab")
        host = Path(__file__).parent / "host.py"
        self.process = subprocess.Popen(
            [self.python, str(host)],
            cwd=self.folder, env=self.environ, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"up\n", self.told()

    def told(self) -> str:
        return (self.folder / "log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self._ended()

    def stop(self) -> float:
        """Stop it in order; how many seconds that took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self._ended() == 0, self.told()
        return time.monotonic() - began

    def _ended(self) -> int:
        assert self.process is not None
        self.process.communicate(timeout=60)
        self.log.close()
        code, self.process = self.process.returncode, None
        return code


_made: dict[Path, Broca] = {}  # those of this process, by what they are a copy of


def new_broca(origin: Path, folder: Path, python: str) -> Broca:
    """A Broca in that folder, which isn't there yet: of a checkout, or of the stand-in."""
    if origin not in _made:
        _made[origin] = Broca(origin, Path(mkdtemp()) / "checkout", python)
        atexit.register(shutil.rmtree, _made[origin].folder.parent, ignore_errors=True)
    return _made[origin].copy(folder)


class Turner:
    """Stands for the processor of the queue where no process is wanted."""

    def __init__(self, broca: Broca) -> None:
        self.broca, self.held, self.fails, self._ended = broca, False, False, False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Turner:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        self._thread.join()

    def _run(self) -> None:
        connection = self.broca.connect()
        while not self._ended:
            if not self.held:
                self._turn(connection)
            time.sleep(0.01)
        connection.close()

    def _turn(self, database: sqlite3.Connection) -> None:
        status = "failed" if self.fails else "completed"
        with database:
            database.execute("BEGIN IMMEDIATE")
            pending = "SELECT message_id FROM queue WHERE status = 'pending'"
            if not self.fails:
                database.execute(
                    "UPDATE messages SET processed = 1, agent_response = 'echo: ' || message "
                    f"WHERE id IN ({pending})"
                )
            database.execute(f"UPDATE queue SET status = '{status}' WHERE status = 'pending'")


@contextmanager
def running(broca: Broca) -> Iterator[Broca]:
    """That Broca, while a process of it runs."""
    broca.start()
    try:
        yield broca
    finally:
        if broca.process is not None:
            broca.kill()


def wait_for(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Wait until that holds."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came to pass"
        time.sleep(0.02)
