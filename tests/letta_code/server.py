"""One real App Server of Letta Code, with a home, a store, a port and a model of its own."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from letta_code.model import Model
from letta_code.wire import Wire

GUARD = Path(__file__).with_name("guard.py")
PATIENCE = 60.0  # seconds: on a busy machine it takes ten to start
# It says nothing to anybody but the model, looks for no newer version and needs no keychain.
QUIET = {
    "LETTA_CODE_TELEM": "0",
    "DO_NOT_TRACK": "1",
    "DISABLE_AUTOUPDATER": "1",
    "LETTA_SKIP_KEYCHAIN_CHECK": "1",
}
# Agents don't begin turns by themselves after some steps.
SETTINGS = {"reflectionTrigger": "off"}


def version(program: Path) -> str:
    """The version of a `letta`, as itself says it."""
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[0]


class LettaCode:
    """An App Server that can be killed and started again; it has the same port and store then.

    ``program`` is the path of its `letta`, ``folder`` an empty folder for all that it writes, and
    ``options`` are further options of `letta server`. Whatever becomes of this process, all that
    was started ends with it.
    """

    def __init__(self, program: Path, folder: Path, *options: str) -> None:
        self.program, self.folder, self.options = program, folder, options
        self.home, self.store = folder / "home", folder / "store"
        self.work = folder / "work"  # where the agents' tools run
        for part in (self.home / ".letta", self.work):
            part.mkdir(parents=True)
        (self.home / ".letta" / "settings.json").write_text(json.dumps(SETTINGS))
        self.model = Model()
        self._command = (str(program), "--backend", "local")
        self._process: subprocess.Popen[bytes] | None = None
        # The port stays bound, so that the system gives it to nobody else while the server is down.
        self._port = socket.socket()
        self._port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._port.bind(("127.0.0.1", 0))
        self.port = int(self._port.getsockname()[1])
        self._guard = subprocess.Popen(
            [sys.executable, "-S", GUARD], stdin=subprocess.PIPE, start_new_session=True
        )
        base = ("--base-url", self.model.url, "--api-key", "none")
        self.command("connect", "openai-compatible", *base)

    def __enter__(self) -> "LettaCode":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def address(self) -> str:
        """Where it listens, as one would give it to `letta server --listen`."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where its WebSocket is."""
        return f"{self.address}/ws"

    @property
    def environ(self) -> dict[str, str]:
        """The environment of it and of whatever is to see its store."""
        return {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(self.home),
            "LETTA_LOCAL_BACKEND_DIR": str(self.store),
            **QUIET,
        }

    @property
    def version(self) -> str:
        """The version that the running server tells."""
        return str(self.info()["letta_code_version"])

    def info(self) -> dict[str, Any]:
        """What the running server tells of itself."""
        status, body = self._get("/app-server-info")
        assert status == 200, body
        return dict(json.loads(body))

    def command(self, *arguments: str) -> str:
        """Run a command of `letta` on the store; returns its stdout."""
        done = subprocess.run(
            [*self._command, *arguments],
            env=self.environ,
            cwd=self.work,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, (arguments, done.stdout[-2000:], done.stderr[-2000:])
        return done.stdout

    def start(self) -> "LettaCode":
        """Start it, and wait until it is ready."""
        assert not self.alive, "it runs already"
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._command, "server", "--listen", self.address, *self.options],
                env=self.environ,
                cwd=self.work,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._tell_guard("+", self._process.pid)
        until = time.monotonic() + PATIENCE
        while not self.ready:
            assert self.alive, f"it ended: {self.log[-2000:]}"
            assert time.monotonic() < until, f"it isn't ready: {self.log[-2000:]}"
            time.sleep(0.02)
        return self

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self._get("/readyz")[0] == 200
        return False

    @property
    def log(self) -> str:
        """What it has written to its terminal."""
        return (self.folder / "server.log").read_text(errors="replace")

    def kill(self) -> None:
        """End it, and all that it has started, with SIGKILL."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._reap()

    def terminate(self) -> None:
        """End it as a service manager does, with SIGTERM to its process."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(PATIENCE)
        self.kill()

    def pause(self) -> None:
        """Stop it in its tracks, with all that it has started, until :meth:`resume`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it run on."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def close(self) -> None:
        """End everything."""
        self.kill()
        self.model.close()
        self._port.close()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()

    def connect(self, token: str | None = None) -> Wire:
        """A connection to it."""
        return Wire(self.url, token)

    def agent(self) -> str:
        """Make an agent; returns its id."""
        with self.connect() as wire:
            return wire.agent()

    def stored(self, *, torn_only: bool = False) -> Iterator[dict[str, Any]]:
        """The messages in all stored transcripts, as the files have them. First come those of torn
        conversations: a server that is killed while it writes a ``conversation.json`` leaves that
        empty, and no server lists that conversation again."""
        files = self.store.glob("conversations/*/messages.jsonl")
        for is_sound, file in sorted((_is_sound(file.parent), file) for file in files):
            if is_sound and torn_only:
                return
            for line in file.read_text().splitlines():
                with contextlib.suppress(ValueError):  # a torn end of a server that was killed
                    entry = json.loads(line)
                    if entry["type"] == "message":
                        yield entry["message"]

    def tear(self, conversation_id: str) -> None:
        """Leave a conversation as a server does that is killed while it writes its file: empty."""
        for file in self.store.glob("conversations/*/conversation.json"):
            if json.loads(file.read_text())["id"] == conversation_id:
                file.write_text("")

    @property
    def torn(self) -> int:
        """How many conversations are torn."""
        return sum(not _is_sound(folder) for folder in self.store.glob("conversations/*"))

    def copies(self, otid: str) -> int:
        """How often a message with this otid is in the stored transcripts."""
        return sum(message.get("otid") == otid for message in self.stored())

    def _get(self, path: str) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with contextlib.closing(connection):
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait(PATIENCE)
        self._tell_guard("-", self._process.pid)
        self._process = None

    def _tell_guard(self, sign: str, group: int) -> None:
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{sign}{group}\n".encode())
        self._guard.stdin.flush()


def _is_sound(folder: Path) -> bool:
    file = folder / "conversation.json"
    with contextlib.suppress(ValueError):
        return not file.exists() or bool(json.loads(file.read_text()))
    return False
