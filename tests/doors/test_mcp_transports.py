"""The MCP server's transports: web pages that may call it and those that may not, the end of a
server with calls under way, and clients that leave."""

import json
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from calling import call, run
from checker import check_chain
from mcp_servers import (
    ACCEPTED,
    COMMAND,
    HELLO,
    INITIALIZE,
    INITIALIZED,
    TOKEN,
    Serving,
    locked,
    modern,
    piped,
    request,
    serving,
    tool,
)

from promptyoself.core.errors import WrongUsage
from promptyoself.doors.mcp import admission, lifecycle
from promptyoself.service.delivery.loop import StopFlag


def preflight(server: Serving, origin: str, **more: str) -> tuple[int, dict[str, str]]:
    """What a browser asks before a page's request; without a token, which it hasn't got."""
    wanted = "authorization,content-type,mcp-protocol-version,x-of-the-client"
    headers = {"Access_Control_Request_Headers": wanted} | more
    status, answered, body = server.ask(
        "OPTIONS", Origin=origin, Access_Control_Request_Method="POST", **headers
    )
    assert (status != 204) or body == b""
    return status, answered


def test_a_page_that_was_named_gets_in(var: Path, environ: dict[str, str]) -> None:
    """A browser lets a page call the server, and read the answers, if its origin was named: the
    preflight is answered without a token, every answer says so, errors too; and of others exactly
    those that were named."""
    words = ("--allow-origin", "https://Chat.Example", "--allow-origin", "http://dev.example:*",
             "--allow-origin", "http://[::1]:5173", "--allow-host", "Clock.Example")  # fmt: skip
    with serving(environ, *words, PROMPTYOSELF_MCP_TOKEN=TOKEN) as server:
        right = {"Authorization": f"Bearer {TOKEN}", "Content_Type": "application/json",
                 "Accept": ACCEPTED}  # fmt: skip
        for origin in (
            "https://chat.example", "http://dev.example", "http://dev.example:5173",
            "http://[::1]:5173", "https://CHAT.example", "https://chat.example:443",
        ):  # fmt: skip
            status, headers = preflight(server, origin)
            assert status == 204, (origin, headers)
            assert headers["access-control-allow-origin"] == origin
            assert {"GET", "POST", "DELETE"} == set(
                headers["access-control-allow-methods"].split(", ")
            )
            allowed = headers["access-control-allow-headers"].lower().split(",")
            assert {"authorization", "content-type", "x-of-the-client"} <= set(allowed)
            assert "origin" in headers["vary"].lower()
            assert "access-control-allow-credentials" not in headers
            status, headers, body = server.ask("POST", INITIALIZE, Origin=origin, **right)
            assert (status, headers["access-control-allow-origin"]) == (200, origin), body
            assert "mcp-session-id" in headers["access-control-expose-headers"].lower()
            assert headers["mcp-session-id"]
            # Errors too, else the page can't tell what was wrong.
            for wrong, code in ({}, 401), ({"Authorization": "Bearer x"}, 401):
                status, headers, _ = server.ask("POST", INITIALIZE, Origin=origin, **wrong)
                assert (status, headers["access-control-allow-origin"]) == (code, origin)
        private = {"Access_Control_Request_Private_Network": "true"}
        _, headers = preflight(server, "https://chat.example", **private)
        assert headers["access-control-allow-private-network"] == "true"
        for origin in (
            "https://evil.example", "http://chat.example", "https://chat.example:444", "null", "*",
            "https://chat.example.evil.example", "https://sub.chat.example", "http://dev.example:*",
            "http://dev.example:5173.evil.example", "http://dev.example:", "http://dev.example:x",
            "http://127.0.0.1:evil", "http://localhost:1.evil.example", "https://chat.example/",
            "https://chat.example, https://evil.example", "http://[::2]:5173",
            "http://dev.example:\xb9", "",
        ):  # fmt: skip
            status, headers = preflight(server, origin)
            assert status == 403, origin
            assert not [name for name in headers if name.startswith("access-control")], origin
            status, headers, _ = server.ask("POST", INITIALIZE, Origin=origin, **right)
            assert status == 403, origin
            assert not [name for name in headers if name.startswith("access-control")], origin
        # This machine's own are let through as before, and told nothing, since nobody named them.
        status, headers, _ = server.ask("POST", INITIALIZE, Origin="http://localhost:99", **right)
        assert status == 200
        assert "access-control-allow-origin" not in headers
        assert preflight(server, "http://localhost:99")[0] == 403
        for host, status in (
            ("clock.example", 200), ("CLOCK.example:80", 200), ("LocalHost:1", 200),
            (f"127.0.0.1:{server.port}", 200), ("127.0.0.1:x", 421), ("127.0.0.1:", 421),
            ("localhost:1.evil.example", 421), ("clock.example.evil", 421),
            ("clock.example:*", 421), ("clock.example:\xb9", 421),
        ):  # fmt: skip
            assert server.ask("POST", INITIALIZE, Host=host, **right)[0] == status, host
            asked = {"Host": host, "Access_Control_Request_Method": "POST"}
            answered = server.ask("OPTIONS", Origin="https://chat.example", **asked)[0]
            assert answered == (204 if status == 200 else 421)
        assert server.end() == (0, "")
    assert not (var / "schedules").exists()


@pytest.mark.parametrize(
    "text",
    ["*", "null", "chat.example", "https://", "https://a/b", "https://a/", "https://a:x", "a://*",
     "https://a b", "https://*.example", "https://user@a", "https://ü", "https://a:1:2", ""],
)  # fmt: skip
def test_what_is_no_origin(text: str, environ: dict[str, str]) -> None:
    """P7: whatever isn't one origin, whole and alone, is refused when the server starts."""
    with pytest.raises(WrongUsage) as refused:
        admission.origin_pattern(text)
    assert refused.value.code == "invalid_value"
    words = ("mcp", "--transport", "http", "--port", "0", "--allow-origin", text)
    run(*words, environ=environ).error("invalid_value", 2)


def test_what_is_no_host() -> None:
    """The same of the names by which the server is known."""
    for text in ("*", "http://a", "a/b", "a:x", "a b", "*.example", "a:1:2", "::1", "", "a:\u0661"):
        with pytest.raises(WrongUsage):
            admission.host_pattern(text)
    assert admission.host_pattern("Clock.Example:80") == ("", "clock.example", "80")


class Asking:
    """A client that calls a tool over HTTP."""

    def __init__(self, server: Serving, era: str, number: int) -> None:
        self.server = server
        self.body = tool(number, "register", **{**HELLO, "prompt": f"{era} {number}"})
        self.headers = {"Content-Type": "application/json", "Accept": ACCEPTED}
        if era == "modern":
            self.body, headers = modern(self.body)
            self.headers |= {name.replace("_", "-"): value for name, value in headers.items()}
        else:
            _, answered, _ = server.ask("POST", INITIALIZE, **self.headers)
            self.headers["Mcp-Session-Id"] = answered["mcp-session-id"]
            server.post(INITIALIZED, **self.headers)

    def answer(self) -> tuple[int, bytes]:
        """The status and the body of the answer."""
        status, _, body = self.server.ask("POST", self.body, **self.headers)
        return status, body

    def stream(self) -> socket.socket:
        """Hold open the stream on which a server may speak first, as clients do."""
        listening = socket.create_connection(("127.0.0.1", self.server.port))
        session = self.headers["Mcp-Session-Id"]
        listening.sendall(
            f"GET /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.server.port}\r\nAccept: {ACCEPTED}\r\n"
            f"Mcp-Session-Id: {session}\r\nLast-Event-ID: 7\r\n\r\n".encode()
        )
        assert listening.recv(100).startswith(b"HTTP/1.1 200")
        return listening


def test_sigterm_answers_what_is_under_way(var: Path, environ: dict[str, str]) -> None:
    """A server that is asked to end takes nobody in any more, waits for calls under way, answers
    them whole, and ends, though clients hold streams open, without a word on stderr."""
    call("register", "--agent-id", "a", "--prompt", "x", "--every", "1h").success()
    with serving(environ) as server:
        clients = [Asking(server, "legacy", 1), Asking(server, "legacy", 2),
                   Asking(server, "modern", 3)]  # fmt: skip
        streams = [client.stream() for client in clients[:2]]
        with ThreadPoolExecutor() as pool:
            with locked(var):
                answers = [pool.submit(client.answer) for client in clients]
                time.sleep(3.0)  # until the server has all three
                server.process.send_signal(signal.SIGTERM)
                time.sleep(2.0)  # longer than any library takes to cut them off
                assert server.process.poll() is None
                assert not any(answer.done() for answer in answers)
                with pytest.raises(OSError):
                    socket.create_connection(("127.0.0.1", server.port), timeout=5).close()
            for answer in answers:
                status, body = answer.result()
                assert status == 200
                assert b'"created":true' in body.replace(b" ", b"").replace(b"\\", b""), body
        began = time.monotonic()
        _, said = server.process.communicate(timeout=60)
        assert (server.process.returncode, said.decode()) == (0, "")
        assert time.monotonic() - began < 40
        for stream in streams:
            stream.close()
    assert len(check_chain(var / "schedules")) == 5


def test_a_stream_may_be_asked_for_again(var: Path, environ: dict[str, str]) -> None:
    """A client that lost its stream says what it had last: nothing was missed, so it gets one."""
    with serving(environ) as server:
        client = Asking(server, "legacy", 1)
        client.stream().close()
        assert server.end() == (0, "")


def test_the_end_of_input_is_no_end_of_answers(var: Path, environ: dict[str, str]) -> None:
    """Over stdio whatever was asked before the input's end is answered, and then the server ends:
    so a script may pipe its calls."""
    calls = [tool(number, "register", **{**HELLO, "prompt": f"x {number}"})
             for number in range(1, 9)]  # fmt: skip
    content = INITIALIZE + INITIALIZED + b"".join(calls) + request(9, "tools/list") + b"{\n"
    done = subprocess.run(
        COMMAND, env=environ, input=content.rstrip(b"\n"), capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip
    answers = {answer["id"]: answer for answer in map(json.loads, done.stdout.splitlines())}
    assert (done.returncode, done.stderr) == (0, b"")
    assert set(answers) == {*range(10), None}
    assert all(answers[n]["result"]["structuredContent"]["created"] for n in range(1, 9))
    assert len(check_chain(var / "schedules")) == 9


@pytest.mark.parametrize("way", ["closes", "SIGTERM", "cancels"])
def test_a_slow_call_is_answered_at_the_end(way: str, var: Path, environ: dict[str, str]) -> None:
    """The same of a call that waits, at the end of input and at SIGTERM; one that was called off
    keeps nobody waiting."""
    call("register", "--agent-id", "a", "--prompt", "x", "--every", "1h").success()
    with piped(environ) as server:
        with locked(var):
            server.send(tool(1, "register", **HELLO))
            if way == "cancels":
                server.send(b'{"jsonrpc":"2.0","method":"notifications/cancelled",'
                            b'"params":{"requestId":1}}\n')  # fmt: skip
            time.sleep(2.0)  # until the server has it
            if way == "SIGTERM":
                server.process.send_signal(signal.SIGTERM)
            else:
                server.into.close()
            if way == "cancels":
                assert server.process.wait(timeout=60) == 0
                return
            time.sleep(1.0)
            assert server.process.poll() is None
        answer = json.loads(server.out.readline())
        assert answer["result"]["structuredContent"]["created"], answer
        assert server.ended() == (0, b"")
    assert len(check_chain(var / "schedules")) == 3


def test_clients_that_leave(var: Path, environ: dict[str, str]) -> None:
    """Whenever a client leaves (before its request is whole, while it is being answered, in the
    middle of a stream), others are served, and stderr has no word of it."""
    call("register", "--agent-id", "a", "--prompt", "x", "--every", "1h").success()
    with serving(environ) as server:
        head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Type: " \
            f"application/json\r\nAccept: {ACCEPTED}\r\n"  # fmt: skip
        for part in (
            "POST /mcp", head, f"{head}Content-Length: 100\r\n\r\n", "\x16\x03\x01\r\n\r\n",
            f"{head}Content-Length: 100\r\n\r\n{{", f"{head}Content-Length: 9999999\r\n\r\n{{",
            f'{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{"a"',
        ):  # fmt: skip
            with socket.create_connection(("127.0.0.1", server.port)) as connection:
                connection.sendall(part.encode("latin-1"))
                time.sleep(0.1)
        clients = [Asking(server, era, n) for n, era in enumerate(("legacy", "modern"), 1)]
        streams = [clients[0].stream()]
        with locked(var):
            for client in clients:
                with socket.create_connection(("127.0.0.1", server.port)) as connection:
                    more = "".join(f"{k}: {v}\r\n" for k, v in client.headers.items())
                    connection.sendall(
                        f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{more}"
                        f"Content-Length: {len(client.body)}\r\n\r\n".encode()
                        + client.body
                    )
                    time.sleep(0.5)
        for stream in streams:
            stream.close()
        time.sleep(0.5)
        assert Asking(server, "modern", 7).answer()[0] == 200
        assert server.end() == (0, "")


class _Leaving:
    """A transport that ends the process, as uvicorn does where it can't begin."""

    async def serve(self, _: object) -> None:
        await anyio.sleep(0.2)  # the loop has begun
        raise SystemExit(3)

    async def end(self) -> None:
        """Nothing is left to end."""


def test_a_transport_that_ends_the_process_ends_the_loop() -> None:
    """P1: no loop goes on without the server that it was started beside, deaf to signals."""
    reasons: list[str | None] = []

    def loop(stop: StopFlag) -> None:
        end = time.monotonic() + 60
        while stop.why is None and time.monotonic() < end:
            time.sleep(0.01)
        reasons.append(stop.why)

    door = SimpleNamespace(server=None, stop=lambda _: None)
    with pytest.raises(BaseException):  # noqa: B017  # alone, or in a group
        lifecycle.serve(door, _Leaving(), loop)  # type: ignore[arg-type]
    assert reasons == ["server_ended"]
