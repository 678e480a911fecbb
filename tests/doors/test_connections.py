"""Idle connections keep nobody out, and no web page gets anywhere."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from mcp_servers import COMMAND, INITIALIZE, serving, wait_for

from promptyoself.core.connections import is_own_name, is_own_origin, most_connections
from promptyoself.sandbox import Sandbox
from promptyoself.sandbox import http as sandbox_http

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@contextmanager
def silent(port: int, number: int, begun: bytes = b"") -> Iterator[None]:
    """So many connections that say nothing, or begin to."""

    def connect(_: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=20)
        connection.sendall(begun)
        return connection

    # Several at a time: where a server's queue is full, the kernel tries again a second later.
    with ExitStack() as end, ThreadPoolExecutor(16) as pool:
        for connection in pool.map(connect, range(number)):
            end.enter_context(connection)
        yield


@pytest.mark.parametrize("begun", [b"", b"GET /v1/health/ HTTP/1.1\r\nHo"])
def test_the_sandbox_has_room_for_who_asks(begun: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox_http, "MOST_CONNECTIONS", 20)
    with Sandbox() as sandbox, silent(int(sandbox.url.rpartition(":")[2]), 60, begun):
        for _ in range(30):
            began = time.monotonic()
            assert httpx.get(sandbox.url + "/v1/health/", trust_env=False).status_code == 200
            assert time.monotonic() - began < 5
        assert sandbox._server is not None
        assert len(sandbox._server.open) <= 20


def test_half_of_the_files_are_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    soft: Callable[[int], object] = lambda files: monkeypatch.setattr(  # noqa: E731
        resource, "getrlimit", lambda _: (files, files)
    )
    for files, most in ((1024, 512), (256, 128), (20, 16), (10**6, 512), (-1, 512)):
        soft(files)
        assert most_connections(512) == most


@pytest.mark.parametrize(
    ("host", "own"),
    [
        (None, True), ("", True), ("localhost", True), ("localhost:8283", True),
        ("127.0.0.1:8283", True), ("[::1]:8283", True), ("10.0.0.7", True), ("letta:8283", True),
        ("box.localhost", True), ("evil.example", False), ("evil.example:8283", False),
        ("127.0.0.1.evil.example", False), ("localhost.evil.example", False), ("[::1", False),
        ("evil.example.", False), ("user@evil.example", False), ("0x7f.1.evil", False),
    ],
)  # fmt: skip
def test_which_names_are_this_machines(host: str | None, own: bool) -> None:
    assert is_own_name(host) is own


def test_which_pages_are_ours() -> None:
    assert is_own_origin(None, None, "localhost:8283")
    assert is_own_origin("http://localhost:8283", "same-origin", "localhost:8283")
    assert not is_own_origin("http://localhost:8283", "same-site", "localhost:8283")
    assert not is_own_origin("http://evil.example", None, "localhost:8283")
    assert not is_own_origin("null", None, "localhost:8283")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "application/json"}, 200),
        ({"Content-Type": "application/json; charset=utf-8"}, 200),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
        ({"Content-Type": "application/json", "Origin": "http://evil.example"}, 403),
        ({"Content-Type": "application/json", "Origin": "null"}, 403),
        ({"Content-Type": "application/json", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Content-Type": "application/json", "Host": "evil.example"}, 421),
    ],
)
def test_no_web_page_sets_a_fault(headers: dict[str, str], status: int) -> None:
    """The attack: a form of any page, sent to the sandbox on the reader's machine."""
    with Sandbox() as sandbox:
        url = sandbox.url + "/_sandbox/"
        content = b'{"kind": "busy", "times": 9}'
        sent = httpx.post(url + "faults", content=content, headers=headers, trust_env=False)
        assert sent.status_code == status
        assert len(sandbox.state()["faults"]) == (status == 200)
        headers.pop("Content-Type", None)
        if headers and status != 415:
            for method, what in (("POST", "finish"), ("DELETE", "faults"), ("GET", "state")):
                asked = httpx.request(method, url + what, headers=headers, trust_env=False)
                assert asked.status_code == status


def test_the_sandbox_is_asked_for_by_a_name_of_this_machine() -> None:
    """DNS rebinding: a page's own name leads here, and it would be of the same origin."""
    with Sandbox() as sandbox:
        headers = {"Host": "evil.example"}
        url = sandbox.url + "/v1/agents/"
        assert httpx.get(url, headers=headers, trust_env=False).status_code == 421
        assert httpx.get(url, headers={"Host": "letta:8283"}, trust_env=False).status_code == 200


# A server whose process may open 256 files.
FEW = ["bash", "-c", 'ulimit -n 256; exec "$@"', "bash", *COMMAND]


@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_idle_connections_keep_no_client_out(
    begun: bytes, var: Path, environ: dict[str, str]
) -> None:
    """The attack: more connections than the process may have files, none of which shows a token.
    Clients get in at once, the loop beside goes on delivering, and little is said."""
    with Sandbox(("echo",), latency=0.02) as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        token = {"PROMPTYOSELF_MCP_TOKEN": "0123456789abcdef-test"}
        server = end.enter_context(serving(environ, "--with-loop", command=FEW, **token))
        end.enter_context(silent(server.port, 400, begun))
        bearer = f"Bearer {token['PROMPTYOSELF_MCP_TOKEN']}"
        arguments = {"agent_id": sandbox.agents[0], "prompt": "Now.", "time": "in 1s"}
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "clientInfo": {"name": "c", "version": "1"},
            },
        }
        times = []
        for _ in range(10):
            began = time.monotonic()
            status, _ = server.post(call, Authorization=bearer)
            times.append(time.monotonic() - began)
            assert status == 200
        assert sorted(times)[5] < 1.0, times
        made = call_as_a_person(environ, arguments)
        assert made["status"] == "success"
        wait_for(var, "delivery.delivered")
        code, said = server.end()
        assert code == 0
        assert len(said) < 2000, said


# The full figure: more connections than a process of 1,024 files, as most are, can have open.
MANY, FILES = 1100, 1024
LIMITED = [
    "bash",
    "-c",
    f'ulimit -n {FILES}; exec "$@"',
    "bash",
    sys.executable,
    "-m",
    "promptyoself",
]


@pytest.fixture
def many_files() -> Iterator[None]:
    """The test itself needs a file for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MANY
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"this process may open {hard} files at most, and {wanted} are needed")
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def limited_process(
    environ: dict[str, str], *words: str
) -> Iterator[tuple[dict[str, Any], Callable[[], str]]]:
    """A server whose process may open 1,024 files: what it printed first; and what ends it, and
    tells what it had to say."""
    process = subprocess.Popen(
        [*LIMITED, *words], env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def end() -> str:
        process.terminate()
        _, said = process.communicate(timeout=30)
        assert process.returncode == 0, said
        return said.decode()

    try:
        assert process.stdout is not None
        yield orjson.loads(process.stdout.readline()), end
    finally:
        process.kill()
        process.communicate()


def require_quick(ask: Callable[[], int]) -> None:
    """Every client is answered, and most of them at once."""
    times = []
    for _ in range(10):
        began = time.monotonic()
        assert ask() == 200
        times.append(time.monotonic() - began)
    assert sorted(times)[5] < 1.0, times


def deliver(var: Path, environ: dict[str, str], agent: str) -> None:
    """A prompt is registered, and the loop delivers it."""
    arguments = {"agent_id": agent, "prompt": "Now.", "time": "in 1s"}
    assert call_as_a_person(environ, arguments)["status"] == "success"
    wait_for(var, "delivery.delivered")


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_1100_connections_keep_nobody_out_of_mcp(
    begun: bytes, var: Path, environ: dict[str, str]
) -> None:
    """None of them shows a token. Those who do get in, the loop beside delivers, and stderr doesn't
    grow with the connections."""
    token = "0123456789abcdef-test"
    with Sandbox(("echo",), latency=0.02) as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        words = ("--with-loop",)
        server = end.enter_context(
            serving(environ, *words, command=[*LIMITED, "mcp"], PROMPTYOSELF_MCP_TOKEN=token)
        )
        end.enter_context(silent(server.port, MANY, begun))
        require_quick(lambda: server.post(INITIALIZE, Authorization=f"Bearer {token}")[0])
        deliver(var, environ, sandbox.agents[0])
        code, said = server.end()
    assert code == 0
    assert len(said) < 2000, said


@pytest.mark.usefixtures("many_files")
def test_1100_connections_keep_nobody_from_the_metrics(var: Path, environ: dict[str, str]) -> None:
    """The same of a loop that serves its metrics, which has no token at all."""
    with Sandbox(("echo",), latency=0.02) as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        words = ("execute", "--loop", "--metrics-port", "0")
        urls, ended = end.enter_context(limited_process(environ, *words))
        port = int(urls["metrics"].split(":")[2].partition("/")[0])
        end.enter_context(silent(port, MANY, b"GET /met"))
        for name in ("metrics", "health"):
            require_quick(lambda url=urls[name]: httpx.get(url, trust_env=False).status_code)
        deliver(var, environ, sandbox.agents[0])
        said = ended()
    assert len(said) < 2000, said


@pytest.mark.usefixtures("many_files")
def test_1100_connections_keep_nobody_from_the_sandbox(var: Path, environ: dict[str, str]) -> None:
    """The same of the sandbox: a loop still delivers to its agents."""
    with ExitStack() as end:
        answer, ended = end.enter_context(limited_process(environ, "sandbox", "--port", "0"))
        environ = {**environ, "LETTA_BASE_URL": answer["url"]}
        end.enter_context(silent(int(answer["url"].rpartition(":")[2]), MANY))
        url = answer["url"] + "/v1/health/"
        require_quick(lambda: httpx.get(url, trust_env=False).status_code)
        _, loop_ended = end.enter_context(
            limited_process(environ, "execute", "--loop", "--metrics-port", "0")
        )
        deliver(var, environ, answer["agents"][0])
        assert loop_ended() == ""
        said = ended()
    assert len(said) < 2000, said


def call_as_a_person(environ: dict[str, str], asked: dict[str, str]) -> dict[str, object]:
    words = [f"--{name.replace('_', '-')}={value}" for name, value in asked.items()]
    command = [sys.executable, "-m", "promptyoself", "register", *words]
    answer = subprocess.run(command, env=environ, capture_output=True, check=True, timeout=30)
    found: dict[str, object] = orjson.loads(answer.stdout)
    return found


def test_a_head_and_a_body_have_a_time_limit(
    var: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte at a time holds a connection no longer than silence does."""
    program = (
        "from promptyoself.doors.mcp import connections as b; "
        "b.HEAD_SECONDS = b.BODY_SECONDS = 0.5; "
        "from promptyoself.cli import main; main()"
    )
    command = [sys.executable, "-c", program, "mcp"]
    heads = (
        b"",
        b"GET /mcp HTTP/1.1\r\nX: ",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    )
    with serving(environ, command=command) as server:
        for head in heads:
            with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
                slow.sendall(head)
                began, gone = time.monotonic(), False
                while not gone and time.monotonic() - began < 15:
                    try:
                        slow.sendall(b"x" if head else b"")
                        slow.settimeout(0.1)
                        gone = slow.recv(65536) == b""
                    except TimeoutError:
                        continue
                    except OSError:
                        gone = True
                assert gone, head


def test_a_silent_connection_does_not_delay_health(
    sandbox_and_loop: tuple[Sandbox, str],
) -> None:
    """Eighteen that say nothing made it wait for 89 seconds."""
    _, url = sandbox_and_loop
    with silent(int(url.rpartition(":")[2]), 100, b"GET /hea"):
        for _ in range(5):
            began = time.monotonic()
            assert httpx.get(url + "/healthz", trust_env=False).json()["checks"]
            assert time.monotonic() - began < 4
        refused = httpx.get(url + "/metrics", headers={"Host": "evil.example"}, trust_env=False)
        assert refused.status_code == 421
        assert refused.json()["code"] == "forbidden_host"


@pytest.fixture
def sandbox_and_loop(var: Path, environ: dict[str, str]) -> Iterator[tuple[Sandbox, str]]:
    """A loop that serves its health."""
    with Sandbox() as sandbox:
        command = [sys.executable, "-m", "promptyoself", "execute", "--loop", "--metrics-port", "0"]
        loop = subprocess.Popen(
            command, env={**environ, "LETTA_BASE_URL": sandbox.url}, stdout=subprocess.PIPE
        )
        try:
            assert loop.stdout is not None
            health = str(orjson.loads(loop.stdout.readline())["health"])
            yield sandbox, health.removesuffix("/healthz")
        finally:
            loop.kill()
            loop.communicate()
