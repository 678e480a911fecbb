"""A real Letta 0.16.8 server with a PostgreSQL of its own, for as long as somebody holds our stdin.

To be run by the Python of the environment that ``build.py`` makes. It prints one line of JSON when
the server answers, ``{"url": …}``, and then obeys a line each, told likewise when it is done:
``stop`` (SIGTERM to the server) and ``start``. The database stays up meanwhile.
When stdin ends, by whatever death of him who started us, so does everything, and nothing is left.

    python3 serve.py [PROXY]    all that Letta asks of other machines goes through that
"""

import ctypes
import json
import os
import pwd
import random
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PATIENCE = 240.0  # seconds: on a busy machine, with a cold disk, Letta alone takes a minute
INITDB = "--username postgres --auth trust --encoding UTF8 --no-locale --no-sync"
NOWHERE = "http://127.0.0.1:9"
SERVANT = "nobody"  # PostgreSQL refuses to run as root


def die_with_parent(number: signal.Signals, user: str | None) -> Callable[[], None]:
    """What a child does before it becomes the program: take another user, and be ended by the
    kernel when we die."""
    libc, entry = ctypes.CDLL(None), pwd.getpwnam(user) if user else None
    parent = os.getpid()

    def prepare() -> None:
        if entry is not None:
            os.setgroups([])
            os.setgid(entry.pw_gid)
            os.setuid(entry.pw_uid)
        libc.prctl(1, int(number), 0, 0, 0)  # PR_SET_PDEATHSIG; a change of user clears it
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def free_port() -> int:
    """A port that is free, and below those that the kernel gives to clients: it must
    still be ours when the server has been stopped and is started again."""
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(15000, 32000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


class Postgres:
    """A PostgreSQL with pgvector, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        import pgserver

        # The programs are copied, since another user can't reach into a home of root's.
        package = Path(pgserver.__file__).parent
        self._programs = folder / "pgserver" / "pginstall" / "bin"
        # The libraries are looked for by a relative path.
        for part in ("pgserver/pginstall", "pgserver.libs"):
            shutil.copytree(package.parent / part, folder / part)
        self._data = folder / "data"
        self._data.mkdir(mode=0o700)
        self._user = SERVANT if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._data, self._user)
        self._log = folder / "postgres.log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.uri = f"postgresql://postgres@127.0.0.1:{self._port}/postgres?sslmode=disable"

    def start(self) -> None:
        """Make the database and serve it. Returns at once; who connects must be patient."""
        prepare = die_with_parent(signal.SIGQUIT, self._user)
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "port": str(self._port),
            "max_connections": "100",
            "fsync": "off",  # nothing here outlives us
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        with self._log.open("ab") as log:
            subprocess.run(
                [self._programs / "initdb", *shlex.split(INITDB), "--pgdata", self._data],
                cwd="/",
                stdout=log,
                stderr=log,
                check=True,
                preexec_fn=prepare,  # there are no threads
            )
            self._process = subprocess.Popen(
                [
                    self._programs / "postgres",
                    *("-D", self._data),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=prepare,  # noqa: PLW1509  # there are no threads
            )

    def stop(self) -> None:
        """End it, without ado."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(30)


class Letta:
    """The server itself."""

    def __init__(self, folder: Path, uri: str, proxy: str) -> None:
        self._log = folder / "letta.log"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        kept = {"PATH", "LANG", "LC_ALL", "TZ", "TMPDIR"}
        environ = {
            **{name: value for name, value in os.environ.items() if name in kept},
            "HOME": str(folder),
            "LETTA_PG_URI": uri,
            # Without a pool it opens a connection for every query, of which now and then one hangs
            # for a minute.
            "LETTA_DISABLE_SQLALCHEMY_POOLING": "false",
            "OPENAI_API_KEY": "none",
            "MCP_DISABLE_STDIO": "false",  # as docs/tutorial/letta.md says
            # It would look for updates of its word lists. No test hangs on the internet.
            "http_proxy": proxy,
            "https_proxy": NOWHERE,
            "no_proxy": "127.0.0.1",
        }
        prepare = die_with_parent(signal.SIGKILL, None)
        self._process_options: dict[str, Any] = {
            "env": environ,
            "cwd": folder,
            "preexec_fn": prepare,
        }

    def create_tables(self) -> None:
        """Do what its migrations would."""
        with self._log.open("ab") as log:
            command = [sys.executable, HERE / "schema.py"]
            subprocess.run(command, stdout=log, stderr=log, check=True, **self._process_options)

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: it has ended, or doesn't answer for minutes.
        """
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", "from letta.main import app; app()"),
                    *("server", "--host", "127.0.0.1", "--port", str(self._port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                **self._process_options,
            )
        until = time.monotonic() + PATIENCE
        # Not through a proxy that the environment names.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while self._process.poll() is None and time.monotonic() < until:
            try:
                opener.open(f"{self.url}/v1/health/", timeout=10).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError(f"Letta doesn't answer; it has ended with {self._process.poll()}.")

    def stop(self, number: signal.Signals) -> None:
        """End it by a signal, and wait for that."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(60)
            self._process = None


def serve(folder: Path, proxy: str) -> None:
    """Serve until stdin ends."""
    postgres = Postgres(folder)
    letta = Letta(folder, postgres.uri, proxy)
    try:
        postgres.start()
        letta.create_tables()
        letta.start()
        print(json.dumps({"url": letta.url}), flush=True)
        for line in sys.stdin:
            match line.strip():
                case "start":
                    letta.start()
                case "stop":
                    letta.stop(signal.SIGTERM)
                case other:
                    raise ValueError(f"{other!r} is neither start nor stop")
            print(json.dumps({"done": line.strip()}), flush=True)
    except Exception:
        for log in sorted(folder.glob("*.log")):
            print(f"--- {log.name}", log.read_text(errors="replace")[-4000:], file=sys.stderr)
        raise
    finally:
        letta.stop(signal.SIGKILL)
        postgres.stop()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="promptyoself-letta-") as scratch:
        Path(scratch).chmod(0o711)
        serve(Path(scratch), *(sys.argv[1:] or [NOWHERE]))
