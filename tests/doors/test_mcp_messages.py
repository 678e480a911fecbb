"""P7: whatever a client sends, it gets an answer under the id that it sent, if one can be read."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest
from calling import AGENT, log_of
from hypothesis import given
from hypothesis import strategies as st
from mcp_servers import ACCEPTED, INITIALIZE, INITIALIZED, piped, request, serving, tool
from mcp_types import JSONRPCError

from promptyoself.doors.mcp.messages import MAX_BODY, mended, too_long

HELLO = {"agent_id": AGENT, "prompt": "Hello", "every": "1h"}
LONE = "\ud800"


def line(text: str, id_: Any = 7) -> bytes:
    """A call of `register` whose prompt is written so."""
    head = f'{{"jsonrpc":"2.0","id":{json.dumps(id_)},"method":"tools/call","params":'
    arguments = f'{{"agent_id":"{AGENT}","every":"1h","prompt":{text}}}'
    text = f'{head}{{"name":"register","arguments":{arguments}}}}}\n'
    return text.encode("utf-8", "surrogateescape")


# What is sent, and the code of the tool's answer; None: the protocol's error.
SENT: list[tuple[bytes, str | None]] = [
    (tool(7, "register", **{**HELLO, "prompt": LONE}), "invalid_prompt"),
    (tool(7, "register", **{**HELLO, "prompt": "a" + "\udfff"}), "invalid_prompt"),
    (request(7, "tools/call", name="register", arguments={**HELLO, "name": LONE}), "invalid_name"),
    (tool(7, "register", **HELLO, reason=LONE), "invalid_reason"),
    (tool(7, "register", **{**HELLO, "every": LONE}), "invalid_duration"),
    (tool(7, "register", **{**HELLO, "agent_id": LONE}), "invalid_agent_id"),
    (tool(7, "register", **HELLO, **{LONE: 1}), "unknown_option"),
    (tool(7, "register", **{**HELLO, "prompt": {"a": LONE}}), "invalid_value"),
    (tool(7, "show", id=LONE), "unknown_id"),
    (tool(7, "desire", agent_id=AGENT, text="x", tag=[LONE]), "invalid_tag"),
    (line('"\udcff\udcfe"'), "invalid_prompt"),
    (line('"a\\u0000"'), "invalid_prompt"),
    (line("[" * 300 + "]" * 300), "invalid_value"),
    (tool(7, LONE), None),
    (line('"a\0"'), None),
    (line("1" * 5000), None),
    (line("[" * 100_000 + "]" * 100_000), None),
    (line('"never ended'), None),
    (request(7, "resources/read", uri=LONE), None),
    (request(7, "prompts/get", name="follow_up", arguments={"about": LONE}), None),
    (request(7, "tools/list", cursor=LONE), None),
    (request(7, LONE), None),
    (b'{"jsonrpc":"1.0","id":7,"method":"tools/list"}\n', None),
    (b'{"id":7,"method":[]}\n', None),
    (b'{"method":"tools/list","params":{"id":8,"a":"\\"id\\":9"},"id":7,]\n', None),
]


def code_of(answer: dict[str, Any]) -> str | None:
    """The code of a tool's own answer."""
    result = answer.get("result")
    code: str | None = None if result is None else result["structuredContent"]["code"]
    return code


def test_over_stdio(var: Path, environ: dict[str, str]) -> None:
    """Every line is answered under its id, in turn; and the next call works."""
    with piped(environ, "--tools", "all") as server:
        for sent, code in SENT:
            answer = server.told(sent)
            assert answer["id"] == 7, (sent[:200], answer)
            assert code_of(answer) == code, (sent[:200], answer)
            if code is None:
                assert answer["error"]["message"]
        answer = server.told(tool(8, "register", **HELLO))
        assert (answer["id"], answer["result"]["structuredContent"]["created"]) == (8, True)
    assert len(log_of(var)) == 1


@pytest.mark.parametrize("token", ["", "a-token-that-is-long-enough-to-be-one-0123456789"])
def test_over_http(token: str, var: Path, environ: dict[str, str]) -> None:
    """The same over HTTP, with and without a token; without the right one nothing is told."""
    headers = {"Content-Type": "application/json", "MCP-Protocol-Version": "2025-06-18"}
    with (
        serving(environ, "--tools", "all", PROMPTYOSELF_MCP_TOKEN=token) as server,
        httpx2.Client(headers={**headers, "Accept": ACCEPTED}, timeout=60) as web,
    ):
        if token:
            assert web.post(server.url, content=SENT[0][0]).status_code == 401
            web.headers["Authorization"] = f"Bearer {token}"
        hello = web.post(server.url, content=INITIALIZE)
        web.headers["Mcp-Session-Id"] = hello.headers["mcp-session-id"]
        assert web.post(server.url, content=INITIALIZED).status_code == 202
        for sent, code in SENT:
            text = web.post(server.url, content=sent).text
            lines = [line for line in text.splitlines() if line.startswith(("data: {", "{"))]
            answer = json.loads(lines[-1].removeprefix("data: "))
            assert answer["id"] == 7, (sent[:200], answer)
            assert code_of(answer) == code, (sent[:200], answer)
    assert not var.exists()


def test_a_line_that_is_too_long_has_an_id_too(var: Path, environ: dict[str, str]) -> None:
    """At its beginning, where most clients put it, or at its end, where some do."""
    body = "x" * (MAX_BODY + 10)
    first = tool(7, "register", **{**HELLO, "prompt": body})
    last = f'{{"method":"tools/call","params":{{"p":"{body}","id":3}},"jsonrpc":"2.0","id":7}}\n'
    with piped(environ) as server:
        for sent in (first, last.encode()):
            answer = server.told(sent)
            assert (answer["id"], answer["error"]["data"]["code"]) == (7, "message_too_long")


@pytest.mark.parametrize("id_", [7, 0, -1, "a", 'ü"\\', 1.5, 10**30, ""])
def test_an_id_comes_back_as_it_was(id_: Any) -> None:
    """Whatever JSON has for an id, within reason."""
    for sent in (line('"\0"', id_), line('"\0"', id_).replace(b",", b" ,\t")):
        refused = mended(sent)
        assert isinstance(refused, JSONRPCError)
        assert json.loads(refused.model_dump_json(by_alias=True, exclude_unset=True))["id"] == id_


def test_what_has_no_id_gets_none() -> None:
    """A list, a text, nothing, an id that is none."""
    objects = (b'{"id":[7]', b'{"id":null,', b'{"a":{"id":7}', b'{"id":NaN,')
    for sent in (b"[1,2", b'"id"', b"", *objects):
        refused = mended(sent)
        assert isinstance(refused, JSONRPCError)
        assert refused.id is None
    assert too_long(b'{"a":"', b'"id":7}}').id is None


@given(st.binary(max_size=60))
def test_any_bytes(content: bytes) -> None:
    """Nothing breaks it, and what it lets through can be read."""
    message = mended(b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":' + content)
    assert isinstance(message, bytes | JSONRPCError)
    if isinstance(message, JSONRPCError):
        json.loads(message.model_dump_json(by_alias=True, exclude_unset=True))
