"""Idle connections keep nobody out, and no web page gets anywhere."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import httpx
import pytest

from promptyoself.connections import is_own_name, is_own_origin, most_connections
from promptyoself.sandbox import Sandbox
from promptyoself.sandbox import http as sandbox_http

if TYPE_CHECKING:
    from collections.abc import Callable


@contextmanager
def silent(port: int, number: int, begun: bytes = b"") -> Iterator[None]:
    """So many connections that say nothing, or begin to."""
    with ExitStack() as end:
        for _ in range(number):
            made = end.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            if begun:
                made.sendall(begun)
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


FEW_FILES = 256


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
