"""Whatever a server answers, and however long it goes on, only so much of it is read."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lettas import about, failure

from promptyoself.targets.api import Message
from promptyoself.targets.http import MOST_BYTES
from promptyoself.targets.letta import LettaClient

AGENT = "agent-11111111-1111-4111-8111-111111111111"
MESSAGE = Message(AGENT, "default", "Hi", "11111111-1111-5111-8111-111111111111")
SLACK = 12 * 1024 * 1024  # what lies in the buffers of two sockets
CALLS: dict[str, Callable[[LettaClient], object]] = {
    "sending": lambda letta: letta.send(MESSAGE),
    "into a conversation": lambda letta: letta.send(Message(AGENT, "conv-1", "Hi", MESSAGE.otid)),
    "runs of an agent": lambda letta: letta.active_runs(about(AGENT)),
    "ended runs": lambda letta: letta.ended_runs(5),
    "a run": lambda letta: letta.run("run-1"),
    "the history": lambda letta: letta.find(about(AGENT, "o"), datetime.now(UTC)),
    "agents": lambda letta: letta.agents(),
    "an agent": lambda letta: letta.agent(AGENT),
    "its health": lambda letta: letta.health(),
}


class Server(ThreadingHTTPServer):
    """Answers every request with what ``answer`` does; counts what it could send."""

    daemon_threads = True

    def __init__(self, answer: Callable[[Handler], None]) -> None:
        self.answer = answer
        self.sent = 0
        self.asked: list[dict[str, list[str]]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """The client has gone."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append(parse_qs(urlsplit(self.path).query))
        self.server.answer(self)

    do_POST = do_GET  # noqa: N815

    def head(self, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def body(self, content: bytes) -> None:
        with suppress(OSError):
            self.wfile.write(content)
            self.server.sent += len(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def serving(answer: Callable[[Handler], None]) -> Iterator[tuple[LettaClient, Server]]:
    with Server(answer) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        letta = LettaClient(f"http://127.0.0.1:{server.server_address[1]}", call_timeout=60.0)
        yield letta, server
        letta.close()
        server.shutdown()


def endless(status: int) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.head(status)
        chunk = b'["' + b"x" * (1 << 20)
        while handler.server.sent < 64 * MOST_BYTES:
            before = handler.server.sent
            handler.body(chunk)
            if handler.server.sent == before:  # the client has gone
                return

    return answer


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("status", [200, 500])
def test_an_answer_without_an_end_is_read_so_far_and_no_further(name: str, status: int) -> None:
    """The attack: 1.7 GB within six seconds. Each call gives up by itself, and says why."""
    with serving(endless(status)) as (letta, server):
        failure("doubt", "letta_unreadable", CALLS[name], letta)
        # Lists are asked for again in smaller pages: a hundred rows, ten, one.
        assert server.sent <= (MOST_BYTES + SLACK) * len(server.asked)
        assert len(server.asked) <= 3


def test_a_look_at_all_runs_does_without_where_they_are_too_many() -> None:
    with serving(endless(200)) as (letta, server):
        assert letta.all_active_runs() is None
        assert len(server.asked) == 1


def test_what_is_not_letta_is_told() -> None:
    """A web server at the address is not taken for one that does not know the agent."""
    with serving(lambda handler: handler.send_error(404)) as (letta, _):
        for name in ("its health", "runs of an agent", "a run"):
            failure("retry", "letta_unreachable", CALLS[name], letta)


def test_what_is_packed_is_not_unpacked() -> None:
    """A little can be unpacked to anything; nor was it asked for."""

    def answer(handler: Handler) -> None:
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.head(Content_Encoding="gzip")
        handler.body(gzip.compress(b"[" + b" " * (64 * MOST_BYTES) + b"]"))

    with serving(answer) as (letta, _):
        failure("doubt", "letta_unreadable", letta.agents)


def test_what_is_nested_too_deeply_is_unreadable() -> None:
    def answer(handler: Handler) -> None:
        handler.head()
        handler.body(b"[" * 1_000_000)

    with serving(answer) as (letta, _):
        for call in ("sending", "agents", "its health"):
            failure("doubt", "letta_unreadable", CALLS[call], letta)


def test_a_history_of_long_messages_is_read_in_smaller_pages() -> None:
    """A hundred messages of 1 MiB are in no page that we would read; ten are, and the one that is
    looked for is found behind them."""
    rows = [
        {
            "id": f"message-{number}",
            "message_type": "user_message",
            "otid": f"otid-{number}",
            "date": f"2026-11-20T12:00:{59 - number:02}+00:00",
            "run_id": None,
            "content": "x" * (1 << 20),
        }
        for number in range(25)
    ]

    def answer(handler: Handler) -> None:
        asked = handler.server.asked[-1]
        limit, before = int(asked["limit"][0]), asked.get("before", [""])[0]
        start = next((n + 1 for n, row in enumerate(rows) if row["id"] == before), 0)
        handler.head()
        handler.body(json.dumps(rows[start : start + limit]).encode())

    with serving(answer) as (letta, server):
        since = datetime(2026, 11, 20, 11, tzinfo=UTC)
        in_history = letta.find(about(AGENT, "otid-24"), since)
        assert in_history is not None
        assert in_history.message_id == "message-24"
        assert letta.find(about(AGENT, "otid-25"), since) is None
        assert [asked["limit"] for asked in server.asked[:4]] == [["100"], ["10"], ["10"], ["10"]]
