"""The MCP server as people run it: in a process of its own, over stdio and streamable HTTP, with
the SDK's own client; and with clients that behave badly."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import httpx2
import pytest
from calling import AGENT, append_foreign, call, log_of, run
from checker import check_chain
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_servers import (
    ACCEPTED,
    COMMAND,
    HELLO,
    INITIALIZE,
    TOKEN,
    changed,
    locked,
    modern,
    piped,
    request,
    serving,
    tool,
    wait_for,
)
from mcp_types import jsonrpc_message_adapter

from promptyoself.doors.registry import SETS
from promptyoself.sandbox import Sandbox

# An SDK that lacks what we ask it for, as those before 2.2 do.
OLD_SDK = "from mcp.server import Server; Server.streamable_http_app = lambda _, *, path: None"
TWO_SESSIONS = "from promptyoself.doors.mcp import http; http.MAX_SESSIONS = 2"


async def visit(client: Client) -> None:
    """What any client does: look at the tools, call some, well and badly."""
    assert [tool.name for tool in (await client.list_tools()).tools] == list(SETS["agent"])
    registered = await client.call_tool("register", HELLO)
    assert registered.structured_content["status"] == "success"
    id_ = registered.structured_content["id"]
    shown = await client.call_tool("show", {"id": id_})
    assert shown.structured_content["schedule"]["agent_id"] == AGENT
    wrong = await client.call_tool("register", {**HELLO, "every": "often"})
    assert wrong.is_error
    assert wrong.structured_content["code"] == "invalid_duration"
    history = await client.read_resource(f"promptyoself://schedules/{id_}/history")
    assert "schedule.registered" in str(history)
    assert (await client.get_prompt("follow_up", {"about": "tea"})).messages


def over_http(
    url: str, visited: Callable[[Client], Awaitable[None]], mode: str, **more: str
) -> None:
    """Visit a server over HTTP, with a token in a header, and maybe more, as Letta does."""

    async def connected() -> None:
        headers = {"Authorization": f"Bearer {TOKEN}", **more}
        async with httpx2.AsyncClient(headers=headers, timeout=60) as web:
            transport = streamable_http_client(url, http_client=web)
            async with Client(transport, mode=mode) as client:
                await visited(client)

    anyio.run(connected)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_over_stdio(mode: str, var: Path, environ: dict[str, str], tmp_path: Path) -> None:
    """A client that starts the server finds all of it, in both eras of the protocol, from any
    folder; the server ends with it, and has nothing to complain of."""

    async def connected() -> None:
        parameters = StdioServerParameters(
            command=sys.executable, args=COMMAND[1:], env=environ, cwd=tmp_path
        )
        async with Client(parameters, mode=mode) as client:
            await visit(client)

    anyio.run(connected)
    assert len(check_chain(var / "schedules")) == 2


def test_over_http(var: Path, environ: dict[str, str]) -> None:
    """Clients of both eras, one after the other, with a token in a header; the server says where it
    is, and ends in order when it is asked to, though a client is still there."""
    with serving(environ, PROMPTYOSELF_MCP_TOKEN=TOKEN) as server:
        assert server.answer["status"] == "success"
        for mode in ("legacy", "auto"):
            over_http(server.url, visit, mode)
        _, opening = server.post(INITIALIZE, Authorization=f"Bearer {TOKEN}")
        assert b"promptyoself" in opening
        assert server.end() == (0, "")
    assert len(check_chain(var / "schedules")) == 2


def test_only_the_protocol_comes_out(var: Path, environ: dict[str, str]) -> None:
    """P7: over stdio, what is no message is refused with a message; nothing else gets out, whatever
    libraries warn of; and what is asked after that is answered."""
    noisy = {**environ, "PYTHONWARNINGS": "always", "PYTHONDEVMODE": "1"}
    with piped(noisy) as server:
        for line, code in (
            (b"hello\n", -32700), (b'{"jsonrpc":"2.0"\n', -32700), (b"[]\n", -32600),
            (b'{"id":1}\n', -32600), (b"\xff\xfe\n", -32700), (b"\n\n7\n", -32600),
            (b'"' + b"x" * (9 << 20) + b'"\n', -32600),
        ):  # fmt: skip
            refused = server.told(line)
            id_ = 1 if b":1}" in line else None
            assert (refused["id"], refused["error"]["code"]) == (id_, code)
            assert refused["error"]["data"]["status"] == "error"
        server.send(tool(1, "approve"), tool(2, "list", colour="red"), request(3, "no/such"))
        server.send(tool(4, "register", **HELLO))
        answers = {}
        for _ in range(4):
            line = server.out.readline()
            jsonrpc_message_adapter.validate_json(line)
            answer = json.loads(line)
            answers[answer["id"]] = answer
        assert answers[1]["error"]["code"] == -32602
        assert answers[2]["result"]["structuredContent"]["code"] == "unknown_option"
        assert answers[3]["error"]["code"] == -32601
        assert answers[4]["result"]["structuredContent"]["created"] is True
        server.into.close()
        assert server.out.read() == b""
        assert server.ended()[0] == 0
    assert len(check_chain(var / "schedules")) == 2


@pytest.mark.parametrize("way", ["closes", "dies", "SIGTERM", "SIGINT"])
def test_a_stdio_server_ends(way: str, var: Path, environ: dict[str, str]) -> None:
    """It ends with its client, however that goes, and when it is told to, though input may still
    come; without a complaint."""
    with piped(environ) as server:
        if way == "closes":
            server.into.close()
        elif way == "dies":
            server.send(tool(1, "list") * 50)
            server.out.close()
            server.into.close()
        else:
            server.process.send_signal(getattr(signal, way))
        assert server.ended() == (0, b"")


def test_a_client_that_goes_in_the_middle_of_a_call(var: Path, environ: dict[str, str]) -> None:
    """P1: a call under way is done whole or not at all when its client goes: over stdio, and over
    HTTP, where the server goes on to serve others."""
    call("register", "--agent-id", "a", "--prompt", "x", "--every", "1h").success()
    before = log_of(var)
    with piped(environ) as over_stdio:
        with locked(var):
            over_stdio.send(tool(1, "register", **HELLO))
            time.sleep(1.0)
            over_stdio.into.close()
            time.sleep(0.1)
            assert log_of(var) == before
        assert over_stdio.ended()[0] == 0
    assert len(check_chain(var / "schedules")) in (2, 3)
    with serving(environ) as server:
        content, _ = modern(tool(1, "register", **{**HELLO, "prompt": "Over HTTP"}))
        with locked(var), socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(
                b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\n"
                b"Accept: %s\r\nMCP-Protocol-Version: 2026-07-28\r\nMcp-Method: tools/call\r\n"
                b"Mcp-Name: register\r\nContent-Length: %d\r\n\r\n%s"
                % (server.port, ACCEPTED.encode(), len(content), content)
            )
            time.sleep(0.3)
        over_http(server.url, visit, "auto")
        assert server.end()[0] == 0
    events = check_chain(var / "schedules")
    assert run("verify", environ=environ).success()["events"] == len(events)


def test_killed_in_the_middle_of_a_write(var: Path, environ: dict[str, str]) -> None:
    """P1: a host kills the server with SIGKILL while calls write: what was answered is there, what
    wasn't is there whole or not at all, and the next server goes on."""
    answered: set[str] = set()
    for round_ in range(4):
        with piped(environ) as server:
            for number in range(60):
                prompt = f"Hello {round_} {number}"
                server.send(tool(number, "register", **{**HELLO, "prompt": prompt}))
            lines = [server.out.readline() for _ in range(1 + 5 * round_)]
            server.process.kill()
            for line in (*lines, *server.out.read().splitlines(keepends=True)):
                if line.endswith(b"\n"):
                    answered.add(json.loads(line)["result"]["structuredContent"]["id"])
    assert len(answered) >= 34
    call("list").success()  # which mends what was torn
    call("register", "--agent-id", "a", "--prompt", "Last.", "--every", "1h").success()
    assert answered < {event["id"] for event in check_chain(var / "schedules")}


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="there is no /proc")
def test_nothing_is_left_open(var: Path, environ: dict[str, str]) -> None:
    """A server that is called and called again doesn't run out of files: what a call has opened is
    closed soon after it."""
    most = 0
    with piped({**environ, "PROMPTYOSELF_MAX_ACTIVE_PER_AGENT": "1000"}) as server:
        for number in range(1, 151):
            asked = {**HELLO, "prompt": f"Hello {number}"}
            assert server.told(tool(number, "register", **asked))["result"]["isError"] is False
            most = max(most, len(os.listdir(f"/proc/{server.process.pid}/fd")))
    assert most < 80


def test_who_is_let_in(var: Path, environ: dict[str, str]) -> None:
    """Over HTTP: no token, another one, a page of another origin, another name for this machine, a
    body that is too large: each is refused, by its status; nothing is written."""
    right = {"Authorization": f"Bearer {TOKEN}"}
    with serving(
        environ, "--allow-host", "clock.example", "--allow-origin", "https://chat.example",
        PROMPTYOSELF_MCP_TOKEN=TOKEN,
    ) as server:  # fmt: skip
        for headers, status in (
            ({}, 401), ({"Authorization": "Bearer wrong"}, 401), ({"Authorization": TOKEN}, 401),
            ({"Authorization": "Bearer "}, 401), ({"Authorization": f"Bearer {TOKEN}x"}, 401),
            ({"Authorization": "Bearer \xff"}, 401), (right, 200),
            ({**right, "Origin": "https://evil.example"}, 403),
            ({**right, "Origin": "null"}, 403),
            ({**right, "Origin": "http://127.0.0.1.evil.example"}, 403),
            ({**right, "Origin": "https://chat.example"}, 200),
            ({**right, "Origin": f"http://localhost:{server.port}"}, 200),
            ({**right, "Host": "evil.example"}, 421),
            ({**right, "Host": f"evil.example:{server.port}"}, 421),
            ({**right, "Host": "clock.example"}, 200), ({**right, "Host": "clock.example:1"}, 200),
            ({**right, "Content_Type": "text/plain"}, 400), ({**right, "Accept": "text/html"}, 406),
        ):  # fmt: skip
            answered, body = server.post(INITIALIZE, **headers)
            assert answered == status, (headers, body)
            assert body, headers
            if status == 401:
                assert json.loads(body)["error"] == "invalid_token"
        large = tool(1, "register", **{**HELLO, "prompt": "x" * (9 << 20)})
        assert server.post(large, **right)[0] == 413
        assert server.post(large)[0] == 401
        for body in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
            assert server.post(body, **right)[0] == 400
        assert server.post(INITIALIZE, **right)[0] == 200
        code, said = server.end()
    assert (code, "Traceback" in said) == (0, False), said
    assert not log_of(var)


def test_a_header_names_the_agent_that_calls(var: Path, environ: dict[str, str]) -> None:
    """With --agent-header every call is pinned to the agent of its header, whatever its arguments
    say, and agents of one server don't see each other's; a call without it is refused."""
    hello = {"prompt": "Hello", "every": "2h"}
    ids: dict[str, str] = {}

    async def by_one(client: Client) -> None:
        (register,) = [t for t in (await client.list_tools()).tools if t.name == "register"]
        assert register.input_schema["required"] == []
        registered = await client.call_tool("register", hello)
        ids["agent-1"] = registered.structured_content["id"]
        again = await client.call_tool("register", {**hello, "agent_id": "agent-1"})
        assert again.structured_content["created"] is False
        other = await client.call_tool("register", {**hello, "agent_id": "agent-2"})
        assert other.structured_content["code"] == "forbidden_agent"

    async def by_another(client: Client) -> None:
        cancelled = await client.call_tool("cancel", {"id": ids["agent-1"]})
        assert cancelled.structured_content["code"] == "forbidden_agent"
        registered = await client.call_tool("register", hello)
        ids["agent-2"] = registered.structured_content["id"]
        (listed,) = (await client.call_tool("list", {})).structured_content["schedules"]
        assert listed["id"] == ids["agent-2"]
        (content,) = (await client.read_resource("promptyoself://agenda")).contents
        assert "agent-1" not in content.text
        with pytest.raises(MCPError, match="another agent"):
            await client.read_resource(f"promptyoself://schedules/{ids['agent-1']}/history")

    def refused(code: str) -> Callable[[Client], Awaitable[None]]:
        async def by_nobody(client: Client) -> None:
            for tool_, words in (("register", {**hello, "agent_id": "a"}), ("list", {})):
                answer = await client.call_tool(tool_, words)
                assert (answer.is_error, answer.structured_content["code"]) == (True, code)
            with pytest.raises(MCPError, match="X-Agent-Id"):
                await client.read_resource("promptyoself://agenda")

        return by_nobody

    served = ("--agent-header", "X-Agent-Id")
    with serving(environ, *served, PROMPTYOSELF_MCP_TOKEN=TOKEN) as server:
        for mode in ("legacy", "auto"):
            over_http(server.url, by_one, mode, **{"x-agent-id": "agent-1"})
            over_http(server.url, by_another, mode, **{"X-Agent-Id": "agent-2"})
            over_http(server.url, refused("missing_agent_header"), mode)
            over_http(server.url, refused("missing_agent_header"), mode, **{"X-Agent-Id": ""})
            over_http(server.url, refused("invalid_agent_id"), mode, **{"X-Agent-Id": "a, b"})
    actors = [event["actor"] for event in check_chain(var / "schedules")[1:]]
    callers = [(actor["via"], actor["who"], actor["kind"]) for actor in actors]
    assert callers == [("mcp", f"agent-{number}", "agent") for number in (1, 2)]
    pinned = {"PROMPTYOSELF_MCP_TOKEN": TOKEN, "PROMPTYOSELF_ONLY_AGENT": "agent-1"}
    with serving(environ, *served, **pinned) as server:

        async def forbidden(client: Client) -> None:
            answer = await client.call_tool("list", {})
            assert answer.structured_content["code"] == "forbidden_agent"

        over_http(server.url, forbidden, "auto", **{"X-Agent-Id": "agent-2"})


def test_bad_input_over_http(var: Path, environ: dict[str, str]) -> None:
    """What JSON can't have but Python reads, NaN, is refused as well."""
    with serving(environ, "--tools", "agent,simulate") as server:
        content, headers = modern(tool(1, "simulate", until="in 1d", latency=0))
        for latency, problem in ((b"NaN", "number"), (b"Infinity", "number"), (b"-1", "range")):
            body = content.replace(b'"latency": 0', b'"latency": ' + latency)
            _, answer = server.post(body, **headers)
            document = json.loads(answer)["result"]["structuredContent"]
            assert document["code"] == "invalid_value", document
            assert problem in document["message"]


def test_sessions_are_limited(var: Path, environ: dict[str, str]) -> None:
    """Of clients that never end their sessions there are a few at most; a client that needs none is
    served all the same."""
    with serving(environ, command=changed(TWO_SESSIONS)) as server:
        assert [server.post(INITIALIZE)[0] for _ in range(4)] == [200, 200, 503, 503]
        over_http(server.url, visit, "auto")
        assert server.end()[0] == 0


@pytest.mark.parametrize(
    ("words", "more", "code", "exit_code"),
    [
        (["--transport", "http", "--host", "0.0.0.0"], {}, "missing_token", 1),
        (["--transport", "http", "--host", "::"], {}, "missing_token", 1),
        (["--transport", "http", "--host", "example.com"], {}, "missing_token", 1),
        (["--transport", "http", "--host", "192.0.2.1"], {"PROMPTYOSELF_MCP_TOKEN": TOKEN},
         "cannot_listen", 1),
        (["--transport", "http", "--host", "no such"], {"PROMPTYOSELF_MCP_TOKEN": TOKEN},
         "cannot_listen", 1),
        (["--transport", "http"], {"PROMPTYOSELF_MCP_TOKEN": "two words"}, "invalid_setting", 1),
        (["--transport", "http", "--port", "65536"], {}, "invalid_value", 2),
        (["--transport", "sse"], {}, "invalid_value", 2),
        (["--port", "8765"], {}, "conflicting_options", 2),
        (["--allow-host", "x"], {}, "conflicting_options", 2),
        (["--tool-prefix", "a b"], {}, "invalid_value", 2),
        (["--tool-prefix", "x" * 33], {}, "invalid_value", 2),
        (["--tools", "agent,approve"], {}, "invalid_value", 2),
        (["--tools", ""], {}, "invalid_value", 2),
        (["--agent-header", "X-Agent-Id"], {}, "conflicting_options", 2),
        (["--transport", "http", "--agent-header", ""], {}, "invalid_value", 2),
        (["--transport", "http", "--agent-header", "X:"], {}, "invalid_value", 2),
    ],
)  # fmt: skip
def test_what_it_will_not_start_with(
    words: list[str],
    more: dict[str, str],
    code: str,
    exit_code: int,
    var: Path,
    environ: dict[str, str],
) -> None:
    """P7: one JSON error, and nothing is served: without a token, to this machine alone."""
    answer = run("mcp", *words, environ={**environ, **more}).error(code, exit_code)
    assert TOKEN not in str(answer)
    assert "two words" not in str(answer)


@pytest.mark.parametrize(
    "token", ["x", "fifteen-letters", "a" * 64, "0101" * 16, "abcdabcdabcdabcdabcd"]
)
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])
def test_a_token_that_could_be_guessed(host: str, token: str, environ: dict[str, str]) -> None:
    """P7: a short token is refused, and so is one of hardly any different characters, wherever it
    would listen; the answer says how to make a good one, and doesn't repeat this one. Commands
    that use no token aren't kept from their work."""
    environ = {**environ, "PROMPTYOSELF_MCP_TOKEN": token}
    words = ("mcp", "--transport", "http", "--port", "0", "--host", host)
    answer = run(*words, environ=environ).error("invalid_setting", 1)
    assert answer["setting"] == "PROMPTYOSELF_MCP_TOKEN"
    assert "openssl rand -hex 32" in answer["hint"]
    assert len(token) < 5 or token not in str(answer)
    run("list", environ=environ).success()


def test_tokens_that_serve(environ: dict[str, str]) -> None:
    """What the documents tell people to make, and the shortest that is taken."""
    for token in ("0123456789abcdef" * 4, "x7Kq-0pZ_m2Lw9aB"):
        with serving(environ, PROMPTYOSELF_MCP_TOKEN=token) as server:
            assert server.post(INITIALIZE, Authorization=f"Bearer {token}")[0] == 200
            assert server.post(INITIALIZE, Authorization=f"Bearer {token[:-1]}")[0] == 401


def test_no_success_before_it_serves(environ: dict[str, str]) -> None:
    """P7: where it can't serve after all, it prints an error, and no success before that."""
    done = subprocess.run(
        [*changed(OLD_SDK), "--transport", "http", "--port", "0"],
        env=environ, stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    (document,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (document["status"], document["code"]) == ("error", "internal_error")
    assert "unexpected keyword" in document["message"], "the reason, not a group that wraps it"
    assert done.returncode == 1


def test_two_on_one_port(var: Path, environ: dict[str, str]) -> None:
    """P7: the second one says that the port is taken, and the first one serves on."""
    with serving(environ) as server:
        words = ("mcp", "--transport", "http", "--port", str(server.port))
        assert str(server.port) in run(*words, environ=environ).error("port_in_use")["message"]
        over_http(server.url, visit, "legacy")


def test_without_the_extra_it_is_said(environ: dict[str, str], tmp_path: Path) -> None:
    """P7: where the SDK isn't installed, the command says what to install, and all others
    work."""
    package = tmp_path / "without" / "mcp"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ModuleNotFoundError(name='mcp')")
    without = {**environ, "PYTHONPATH": str(package.parent)}
    hint = run("mcp", environ=without).error("missing_package")["hint"]
    assert f"{sys.executable} -m pip install 'mcp>=2" in hint
    run("list", environ=without).success()


def test_no_other_command_loads_it(environ: dict[str, str]) -> None:
    """P8: nothing but `mcp` imports the SDK, which takes longer than all the rest."""
    code = "import sys\nfrom promptyoself import cli\ncli._run(sys.argv[1:])\nprint(*sys.modules)"
    for words in (["--help"], ["--describe"], ["list"], ["mcp", "--port", "1"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], env=environ, stdout=subprocess.PIPE, check=True
        )
        modules = set(done.stdout.decode().splitlines()[-1].split())
        assert not {"mcp", "mcp_types", "anyio", "uvicorn", "starlette"} & modules, words


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_with_the_loop(transport: str, var: Path, environ: dict[str, str]) -> None:
    """--with-loop: a tool's call ends in the agent's own history, from one process; and when that
    is told to end, the loop has ended in order."""
    with Sandbox(("echo",), latency=0.02) as sandbox:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        arguments = {"agent_id": sandbox.agents[0], "prompt": "Now.", "time": "in 1s"}
        if transport == "http":
            with serving(environ, "--with-loop") as server:

                async def visited(client: Client) -> None:
                    assert not (await client.call_tool("register", arguments)).is_error

                over_http(server.url, visited, "auto")
                wait_for(var, "delivery.delivered")
                assert server.end() == (0, "")
        else:
            with piped(environ, "--with-loop") as over_stdio:
                answer = over_stdio.told(tool(1, "register", **arguments))
                assert answer["result"]["isError"] is False
                wait_for(var, "delivery.delivered")
                over_stdio.into.close()
                assert over_stdio.ended()[0] == 0
                assert over_stdio.out.read() == b""
        assert list(sandbox.deliveries.values()) == [1]
    events = check_chain(var / "schedules")
    (stopped,) = [event for event in events if event["type"] == "worker.stopped"]
    assert stopped["data"]["why"] == ("SIGTERM" if transport == "http" else "server_ended")
    registered = next(event for event in events if event["type"] == "schedule.registered")
    assert registered["actor"]["via"] == "mcp"


@pytest.mark.parametrize("transport", ["stdio", "http"])
def test_a_loop_that_fails_is_told(transport: str, var: Path, environ: dict[str, str]) -> None:
    """A server doesn't go on as if prompts were still delivered: it ends, exits 1 and says why;
    over stdio not on stdout."""
    call("register", "--agent-id", "a", "--prompt", "x", "--every", "1h").success()
    append_foreign(var, type="moon.landed")
    if transport == "http":
        with serving(environ, "--with-loop") as server:
            out, err = server.process.communicate(timeout=60)
            assert server.process.returncode == 1
            assert json.loads(out)["code"] == "newer_events"
    else:
        with piped(environ, "--with-loop", greeted=False) as over_stdio:
            out, err = over_stdio.process.communicate(timeout=60)
            assert (over_stdio.process.returncode, out) == (1, b"")
            assert json.loads(err.splitlines()[-1])["code"] == "newer_events"
    assert b"Traceback" not in err


def test_it_finds_the_data_that_it_was_given(
    var: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """--var holds for every call, and for what the server is asked besides."""
    other = tmp_path / "other"
    with serving(environ, "--var", str(other), "--tool-prefix", "promptyoself_") as server:

        async def visited(client: Client) -> None:
            # Often, so that today has a slot left at almost any time of day.
            registered = await client.call_tool("promptyoself_register", {**HELLO, "every": "10s"})
            assert registered.structured_content["created"]
            agenda = await client.read_resource("promptyoself://agenda")
            assert AGENT in str(agenda)

        over_http(server.url, visited, "auto")
    assert len(check_chain(other / "schedules")) == 2
    assert not log_of(var)
    assert not os.path.exists(var)
