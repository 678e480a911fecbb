"""Idle connections keep nobody out, and no web page gets anywhere."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from calling import run
from loops import wait_for as wait_until
from mcp_servers import INITIALIZE, changed, serving, wait_for

from promptyoself.core.connections import is_own_name, is_own_origin, most_connections
from promptyoself.sandbox import Sandbox
from promptyoself.sandbox import http as sandbox_http


@contextmanager
def silent(port: int, number: int, begun: bytes = b"") -> Iterator[None]:
    """A number of connections that say nothing, or begin to."""

    def connect(_: int) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", port), timeout=60)
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
            answer = httpx.get(sandbox.url + "/v1/health/", trust_env=False, timeout=60)
            assert answer.status_code == 200
            assert time.monotonic() - began < 20
        assert sandbox._server is not None
        assert len(sandbox._server.open) <= 20


def test_half_of_the_files_are_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    for files, most in ((1024, 512), (256, 128), (20, 16), (10**6, 512), (-1, 512)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (files, files))
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


WATCHED_LOOP = ("execute", "--loop", "--metrics-port", "0")
MANY, FILES = 1100, 1024
"""More connections than a process that may open 1,024 files, as most may, can have open."""


def limited(files: int, *words: str) -> list[str]:
    """The command, in a process that may open a number of files."""
    program = [sys.executable, "-m", "promptyoself", *words]
    return ["bash", "-c", f'ulimit -n {files}; exec "$@"', "bash", *program]


@contextmanager
def files_for(connections: int) -> Iterator[None]:
    """The test itself needs a file for each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections
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
        limited(FILES, *words), env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )

    def end() -> str:
        process.terminate()
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        return said.decode()

    try:
        assert process.stdout is not None
        yield orjson.loads(process.stdout.readline()), end
    finally:
        process.kill()
        process.communicate()


def seconds_for(ask: Callable[[], int]) -> float:
    """What most clients wait for an answer. Every client gets one."""
    times = []
    for _ in range(10):
        began = time.monotonic()
        assert ask() == 200
        times.append(time.monotonic() - began)
    return sorted(times)[5]


@contextmanager
def flooded(port: int, number: int, begun: bytes, *asks: Callable[[], int]) -> Iterator[None]:
    """Silent connections, with which clients are answered at once. A busy machine is slow without
    them too, so it has as many times more as it takes then."""
    usual = [seconds_for(ask) for ask in asks]
    with silent(port, number, begun):
        for ask, seconds in zip(asks, usual, strict=True):
            assert seconds_for(ask) < 1.0 + 10 * seconds
        yield


def deliver(var: Path, environ: dict[str, str], agent: str) -> None:
    """A prompt is registered, and the loop delivers it."""
    words = ("--agent-id", agent, "--prompt", "Now.", "--time", "in 1s")
    run("register", *words, environ=environ).success()
    wait_for(var, "delivery.delivered")


@pytest.mark.parametrize(("number", "files"), [(400, 256), (MANY, FILES)])
@pytest.mark.parametrize("begun", [b"", b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_idle_connections_keep_no_client_out(
    begun: bytes, number: int, files: int, var: Path, environ: dict[str, str]
) -> None:
    """The attack: more connections than the process may have files, none of which shows a token.
    Clients that show one get in at once, the loop beside goes on delivering, and stderr doesn't
    grow with the connections."""
    token = "0123456789abcdef-test"
    with Sandbox(("echo",), latency=0.02) as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url, "PROMPTYOSELF_MCP_TOKEN": token}
        command = limited(files, "mcp")
        end.enter_context(files_for(number))
        server = end.enter_context(serving(environ, "--with-loop", command=command))
        ask = lambda: server.post(INITIALIZE, Authorization=f"Bearer {token}")[0]  # noqa: E731
        end.enter_context(flooded(server.port, number, begun, ask))
        deliver(var, environ, sandbox.agents[0])
        code, said = server.end()
    assert code == 0
    assert len(said) < 2000, said


def test_1100_connections_keep_nobody_from_the_metrics(var: Path, environ: dict[str, str]) -> None:
    """The same of a loop that serves its metrics, which has no token at all."""
    with Sandbox(("echo",), latency=0.02) as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        end.enter_context(files_for(MANY))
        urls, ended = end.enter_context(limited_process(environ, *WATCHED_LOOP))
        port = int(urls["metrics"].split(":")[2].partition("/")[0])
        asks = [
            lambda url=urls[name]: httpx.get(url, trust_env=False, timeout=60).status_code
            for name in ("metrics", "health")
        ]
        wait_until(lambda: asks[0]() == 200)  # the log has been counted
        end.enter_context(flooded(port, MANY, b"GET /met", *asks))
        deliver(var, environ, sandbox.agents[0])
        said = ended()
    assert len(said) < 2000, said


def test_1100_connections_keep_nobody_from_the_sandbox(var: Path, environ: dict[str, str]) -> None:
    """The same of the sandbox: a loop still delivers to its agents."""
    with ExitStack() as end:
        end.enter_context(files_for(MANY))
        answer, ended = end.enter_context(limited_process(environ, "sandbox", "--port", "0"))
        environ = {**environ, "LETTA_BASE_URL": answer["url"]}
        url = answer["url"] + "/v1/health/"
        ask = lambda: httpx.get(url, trust_env=False, timeout=60).status_code  # noqa: E731
        end.enter_context(flooded(int(answer["url"].rpartition(":")[2]), MANY, b"", ask))
        _, loop_ended = end.enter_context(limited_process(environ, *WATCHED_LOOP))
        deliver(var, environ, answer["agents"][0])
        assert loop_ended() == ""
        said = ended()
    assert len(said) < 2000, said


def test_a_head_and_a_body_have_a_time_limit(
    var: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte at a time holds a connection no longer than silence does."""
    command = changed(
        "from promptyoself.doors.mcp import connections as c",
        "c.HEAD_SECONDS = c.BODY_SECONDS = 0.5",
    )
    heads = (
        b"",
        b"GET /mcp HTTP/1.1\r\nX: ",
        b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
    )
    with serving(environ, command=command) as server:
        for head in heads:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as slow:
                slow.sendall(head)
                began, gone = time.monotonic(), False
                while not gone and time.monotonic() - began < 60:
                    try:
                        slow.sendall(b"x" if head else b"")
                        slow.settimeout(0.1)
                        gone = slow.recv(65536) == b""
                    except TimeoutError:
                        continue
                    except OSError:
                        gone = True
                assert gone, head


def test_a_silent_connection_does_not_delay_health(var: Path, environ: dict[str, str]) -> None:
    """Eighteen that say nothing made it wait for 89 seconds."""
    with Sandbox() as sandbox, ExitStack() as end:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        urls, _ = end.enter_context(limited_process(environ, *WATCHED_LOOP))
        port = int(urls["health"].split(":")[2].partition("/")[0])
        end.enter_context(silent(port, 100, b"GET /hea"))
        for _ in range(5):
            began = time.monotonic()
            assert httpx.get(urls["health"], trust_env=False, timeout=60).json()["checks"]
            assert time.monotonic() - began < 20
        headers = {"Host": "evil.example"}
        refused = httpx.get(urls["metrics"], headers=headers, trust_env=False)
        assert refused.status_code == 421
        assert refused.json()["code"] == "forbidden_host"
