"""A `letta` of our own, which is like Letta Code's on the outside: its version, and an App Server
that answers over HTTP. It takes no messages. `make test-letta-code` has the real one."""

import hashlib
import os
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import orjson

NEW = "0.34.12"


def make_letta(folder: Path, *, version: str = f"{NEW} (Letta Code)") -> Path:
    """Write the program into a folder. What it is called with and in which environment stands in
    ``calls`` there, a line each. It ends at once where there is a file ``broken``, which has its
    exit code; it answers nothing where there is a file ``deaf``."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "letta"
    program.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {os.path.dirname(__file__)!r})\n"
        f"from app_servers import main\nmain({str(folder)!r}, {version!r})\n"
    )
    program.chmod(0o755)
    return program


def calls(program: Path) -> list[dict[str, object]]:
    """What the program was called with: ``arguments``, ``environ``, ``pid``, ``folder``."""
    path = program.with_name("calls")
    lines = path.read_text().splitlines() if path.exists() else []
    return [orjson.loads(line) for line in lines]


def free_port() -> int:
    """A port of this machine that nobody listens on, below those that the kernel gives to clients:
    so no connection of another test takes it meanwhile."""
    choice = random.SystemRandom()
    while True:
        port = choice.randrange(15000, 32000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


class Answers(BaseHTTPRequestHandler):
    """What an App Server answers to a GET. The server's ``version`` is told, its ``digest`` is that
    of the token that it wants, if any, and while its ``deaf`` is there nothing is answered."""

    def do_GET(self) -> None:
        server = self.server
        while server.deaf.exists():  # type: ignore[attr-defined]
            time.sleep(0.02)
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        digest = server.digest  # type: ignore[attr-defined]
        if self.path == "/readyz":
            self._answer(200, b"ok\n")
        elif self.path != "/app-server-info":
            self._answer(404, b"")
        elif digest and hashlib.sha256(token.encode()).hexdigest() != digest:
            self._answer(401, b'{"error":"invalid authorization bearer token"}')
        else:
            info = {
                "type": "app_server_info_response",
                "success": True,
                "backend": "local",
                "letta_code_version": server.version,  # type: ignore[attr-defined]
                "protocol_version": 1,
            }
            self._answer(200, orjson.dumps(info))

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with suppress(BrokenPipeError):  # who asked may not have waited
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def serve(port: int, *, version: str = NEW, digest: str = "", deaf: Path) -> ThreadingHTTPServer:
    """An App Server that listens. The caller has to let it serve."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    server.version, server.digest, server.deaf = version, digest, deaf  # type: ignore[attr-defined]
    return server


@contextmanager
def serving(port: int, folder: Path, *, version: str = NEW, token: str = "") -> Iterator[None]:
    """An App Server that somebody else has started. It answers nothing while there is a file
    ``deaf`` in the folder."""
    digest = hashlib.sha256(token.encode()).hexdigest() if token else ""
    with serve(port, version=version, digest=digest, deaf=folder / "deaf") as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def main(folder: str, version: str) -> None:
    """Be that program."""
    here, words = Path(folder), sys.argv[1:]
    if words == ["--version"]:
        print(version)
        return
    call = {"arguments": words, "environ": dict(os.environ), "pid": os.getpid()}
    with (here / "calls").open("ab") as file:
        file.write(orjson.dumps({**call, "folder": os.getcwd()}) + b"\n")
    if (here / "broken").exists():
        print("letta: it is broken", file=sys.stderr)
        sys.exit(int((here / "broken").read_text()))
    options = dict(zip(words[3::2], words[4::2], strict=True))
    port = int(options["--listen"].rpartition(":")[2].partition("/")[0])
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    digest = options.get("--ws-token-sha256", "")
    number = version.partition(" ")[0]
    with serve(port, version=number, digest=digest, deaf=here / "deaf") as server:
        print(f"Listening on {options['--listen']}", flush=True)
        server.serve_forever(0.02)
