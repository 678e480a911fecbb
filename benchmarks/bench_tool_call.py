"""One tool call of an agent: through a Sanctum host, which runs a process for each, against an
interpreter that does nothing; and over an MCP server that is running, against such a process."""

import http.client
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

from calls import compare
from pairs import PAIRS, Figure, fill, python, registration

import promptyoself

_CLI = str(Path(promptyoself.__file__).with_name("cli.py"))
_VERSION = "2026-07-28"


def run(pairs: int = PAIRS) -> list[Figure]:
    """Beside 100 schedules. A host calls from a folder of its own, with stdin closed."""
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        environ = fill(Path(scratch) / "var")
        host = partial(_run, environ, scratch)
        nothing = partial(host, ["-c", "pass"])
        plugin = "a Sanctum host's call, whole process: "

        def registered(number: int) -> bytes:
            return host([_CLI, *registration(5000 + number)])

        figures = [
            compare(f"{plugin}`{name}`", "`python -c pass`", ours, lambda _: nothing(), pairs)
            for name, ours in (
                ("register", registered),
                ("list", lambda _: host([_CLI, "list"])),
            )
        ]
        with _served(environ) as call:
            figures.append(
                compare(
                    "the same `register` over an MCP server's HTTP",
                    "through a Sanctum host",
                    lambda number: call(9000 + number),
                    lambda number: registered(3000 + number),
                    pairs,
                )
            )
        return figures


def _run(environ: dict[str, str], folder: str, words: list[str]) -> bytes:
    done = subprocess.run(
        [*python(), *words],
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        check=True,
    )
    if words[0] == _CLI and b'"status":"success"' not in done.stdout:
        raise RuntimeError(f"{words} answered {done.stdout!r}")
    return done.stdout


@contextmanager
def _served(environ: dict[str, str]) -> Iterator[Callable[[int], None]]:
    """A server, and what registers over one connection to it."""
    server = subprocess.Popen(
        [*python(), "-m", "promptyoself", "mcp", "--transport", "http", "--port", "0"],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        address = json.loads(server.stdout.readline())["url"].split("/")[2]
        with closing(http.client.HTTPConnection(address, timeout=60)) as connection:
            yield partial(_register, connection)
    finally:
        server.terminate()
        server.wait()


def _register(connection: http.client.HTTPConnection, number: int) -> None:
    words = registration(number)[1:]
    names = (word.removeprefix("--").replace("-", "_") for word in words[::2])
    params = {
        "name": "register",
        "arguments": dict(zip(names, words[1::2], strict=True)),
        "_meta": {
            "io.modelcontextprotocol/protocolVersion": _VERSION,
            "io.modelcontextprotocol/clientCapabilities": {},
        },
    }
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": _VERSION,
        "Mcp-Method": "tools/call",
        "Mcp-Name": "register",
    }
    connection.request("POST", "/mcp", json.dumps(message), headers)
    answer = connection.getresponse().read()
    if not json.loads(answer)["result"]["structuredContent"]["created"]:
        raise RuntimeError(f"the server answered {answer!r}")


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
