"""MCP servers as processes, over HTTP and over stdio."""

import fcntl
import http.client
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from calling import AGENT, events_of

TOKEN = "a-long-random-token"
HELLO = {"agent_id": AGENT, "prompt": "Hello", "every": "2h"}
ACCEPTED = "application/json, text/event-stream"
COMMAND = [sys.executable, "-m", "promptyoself", "mcp"]


def changed(*statements: str) -> list[str]:
    """The server's command, after some statements that change it."""
    program = "\n".join([*statements, "from promptyoself.cli import main; main()"])
    return [sys.executable, "-c", program, "mcp"]


class Serving:
    """A server over HTTP, in a process of its own, and what it printed first."""

    def __init__(self, process: subprocess.Popen[bytes], answer: dict[str, Any]) -> None:
        self.process = process
        self.answer = answer
        self.url = str(answer["url"])
        self.port = int(self.url.rpartition(":")[2].partition("/")[0])

    def ask(
        self, method: str, body: bytes | str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """One request: the status, the headers in lower case, and the body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as connection:
            connection.request(method, "/mcp", body, sent)
            answer = connection.getresponse()
            answered = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, answered, answer.read()

    def post(self, body: bytes, **headers: str) -> tuple[int, bytes]:
        """A message, as a program of any kind may send it: the status, and the answer."""
        sent = {"Content_Type": "application/json", "Accept": ACCEPTED, **headers}
        status, _, answer = self.ask("POST", body, **sent)
        return status, answer

    def end(self) -> tuple[int, str]:
        """Ask it to end: its exit code, and what it had to say."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said.decode()


@contextmanager
def serving(
    environ: dict[str, str], *words: str, command: list[str] = COMMAND, **more: str
) -> Iterator[Serving]:
    """A server on a port that is free."""
    process = subprocess.Popen(
        [*command, "--transport", "http", "--port", "0", *words],
        env={**environ, **more}, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield Serving(process, json.loads(process.stdout.readline()))
    finally:
        process.kill()
        process.communicate()


class Piped:
    """A server over stdio, in a process of its own, for a client that is no good one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process, self.into, self.out = process, process.stdin, process.stdout

    def send(self, *lines: bytes) -> None:
        self.into.write(b"".join(lines))
        self.into.flush()

    def told(self, line: bytes) -> dict[str, Any]:
        """What the server answers to a line."""
        self.send(line)
        answer: dict[str, Any] = json.loads(self.out.readline())
        return answer

    def ended(self) -> tuple[int, bytes]:
        """The exit code, and what it had to say, once it has ended by itself."""
        assert self.process.stderr is not None
        return self.process.wait(timeout=60), self.process.stderr.read()


@contextmanager
def piped(environ: dict[str, str], *words: str, greeted: bool = True) -> Iterator[Piped]:
    """A server over stdio, after the greeting."""
    process = subprocess.Popen(
        [*COMMAND, *words], env=environ,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        server = Piped(process)
        if greeted:
            assert server.told(INITIALIZE + INITIALIZED)["id"] == 0
        yield server
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()


def request(id_: int, method: str, **params: Any) -> bytes:
    """A line of the protocol."""
    message = {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def tool(id_: int, name: str, **arguments: Any) -> bytes:
    """A line that calls a tool."""
    return request(id_, "tools/call", name=name, arguments=arguments)


def modern(line: bytes) -> tuple[bytes, dict[str, str]]:
    """A tool's call as clients of the latest protocol send it over HTTP, without a session: the
    body, and its headers."""
    version = "2026-07-28"
    message = json.loads(line)
    message["params"]["_meta"] = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {"MCP_Protocol_Version": version, "Mcp_Method": "tools/call"}
    return json.dumps(message).encode(), {**headers, "Mcp_Name": message["params"]["name"]}


INITIALIZE = request(
    0, "initialize", protocolVersion="2025-06-18", capabilities={},
    clientInfo={"name": "test", "version": "1"},
)  # fmt: skip
INITIALIZED = b'{"jsonrpc":"2.0","method":"notifications/initialized"}\n'


@contextmanager
def locked(var: Path) -> Iterator[None]:
    """Somebody else is writing, so that calls that write wait."""
    with open(var / "schedules" / "lock", "ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def wait_for(var: Path, type_: str) -> list[dict[str, Any]]:
    """The events, as soon as one of that type is among them."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        events = events_of(var)
        if any(event["type"] == type_ for event in events):
            return events
        time.sleep(0.01)
    raise AssertionError(f"no {type_}")
