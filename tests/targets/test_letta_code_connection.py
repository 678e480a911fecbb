"""Letta Code: what goes wrong between us and an App Server, and what may be concluded from that."""

import dataclasses
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from false_app_servers import AppServer, app_server
from loops import wait_for

from promptyoself.core.errors import PromptyoselfError
from promptyoself.targets.api import DeliveryError, Message
from promptyoself.targets.letta_code import LettaCode, connection, failures

TOKEN = "a-token-that-is-nobodys-business"
PROMPT = "the prompt is nobody's business"
SINCE = datetime(2026, 11, 20, tzinfo=UTC)

TAKEN = {"accepted": True, "disposition": "started"}
NEW = Message("agent-local-1", "new", PROMPT, "otid-1", "Stretch")
SHARED = Message("agent-local-1", "local-conv-1", PROMPT, "otid-1")


@pytest.fixture
def server() -> Iterator[AppServer]:
    with app_server() as running:
        yield running


@pytest.fixture
def target(server: AppServer) -> Iterator[LettaCode]:
    client = LettaCode(server.url, TOKEN, call_timeout=60, anchored=False)
    yield client
    client.close()


@pytest.fixture
def hasty(server: AppServer) -> Iterator[LettaCode]:
    """One that waits no longer than a busy machine needs for an answer that does come."""
    client = LettaCode(server.url, TOKEN, call_timeout=1.5, anchored=False)
    client.check()
    yield client
    client.close()


def refusal(call: Callable[..., Any], *arguments: Any) -> DeliveryError:
    with pytest.raises(DeliveryError) as raised:
        call(*arguments)
    error = raised.value
    assert TOKEN not in repr(error.document()) + str(error.detail)
    assert PROMPT not in repr(error.document())
    assert error.__cause__ is None
    return error


@pytest.mark.parametrize("url", ["ws://127.0.0.1:{port}", "ws://nowhere.invalid:4500"])
def test_nobody_is_there(url: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        target = LettaCode(url.format(port=unused.getsockname()[1]), call_timeout=2)
        for call in (target.send, target.active_runs):
            error = refusal(call, NEW)
            assert (error.kind, error.code) == ("retry", "letta_code_unreachable")
            assert "PROMPTYOSELF_LETTA_CODE_URL" in error.hint


@pytest.mark.parametrize("status", [HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN])
def test_a_token_is_wanted(server: AppServer, target: LettaCode, status: HTTPStatus) -> None:
    server.status = status
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("unauthorized", "letta_code_unauthorized")
    assert error.status == status
    assert "another token" in error.message
    assert "a token" in refusal(LettaCode(server.url).check).message


def test_the_token_is_sent_as_a_bearer_token(server: AppServer, target: LettaCode) -> None:
    target.check()
    LettaCode(server.url).check()
    assert [sent.get("Authorization") for sent in server.headers] == [f"Bearer {TOKEN}", None]


def test_another_server_is_there(server: AppServer, target: LettaCode) -> None:
    server.status = HTTPStatus.NOT_FOUND
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("retry", "letta_code_unreadable")
    assert error.status == 404


@pytest.mark.parametrize("said", [b"220 mail\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"", b"x" * 100_000])
def test_what_is_there_speaks_otherwise(said: bytes) -> None:
    def talk(listener: socket.socket) -> None:
        with listener.accept()[0] as peer:
            peer.recv(65536)
            peer.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=talk, args=(listener,), daemon=True).start()
        target = LettaCode(f"ws://127.0.0.1:{listener.getsockname()[1]}", call_timeout=10)
        error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("retry", "letta_code_unreadable")


@pytest.mark.parametrize("garbage", ["hello", "[]", '{"runtime": {"agent_id": {}}}', "[" * 100_000])
def test_garbage(server: AppServer, target: LettaCode, garbage: str) -> None:
    server.garbage = garbage
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("retry", "letta_code_unreadable")


def test_an_echo(server: AppServer, target: LettaCode) -> None:
    server.echoes = True
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("retry", "letta_code_unreadable")


@pytest.mark.parametrize(
    ("version", "code"),
    [
        ("0.32.12", "letta_code_too_old"),
        ("0.9.99", "letta_code_too_old"),
        ("newest", "letta_code_unreadable"),
        (None, "letta_code_unreadable"),
    ],
)
def test_a_version_that_is_too_old(
    server: AppServer, target: LettaCode, version: str | None, code: str
) -> None:
    server.answers["app_server_info"] = {"letta_code_version": version}
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("retry", code)


@pytest.mark.parametrize("version", ["0.32.13", "0.34.12-rc.1", "1.0.0"])
def test_a_version_that_is_new_enough(server: AppServer, target: LettaCode, version: str) -> None:
    server.answers["app_server_info"] = {"letta_code_version": version}
    assert target.health() == version


def test_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("websockets")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "websockets", None)
    error = refusal(LettaCode("ws://127.0.0.1:1").send, NEW)
    assert (error.kind, error.code) == ("retry", "letta_code_not_installed")
    assert "pip install 'websockets>=15'" in error.hint


def test_importing_it_loads_no_library() -> None:
    code = (
        "import sys, promptyoself.targets.letta_code; "
        "assert not {'websockets', 'asyncio', 'ssl'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "url", ["", "localhost:4500", "http://localhost", "ws://", "ws://x:y", "ws://me:secret@x"]
)
def test_a_bad_address(url: str) -> None:
    with pytest.raises(PromptyoselfError) as raised:
        LettaCode(url)
    assert raised.value.code == "invalid_base_url"
    assert "PROMPTYOSELF_LETTA_CODE_URL" in raised.value.hint
    assert "secret" not in repr(raised.value.document())


def test_a_bad_token() -> None:
    with pytest.raises(PromptyoselfError) as raised:
        LettaCode("ws://localhost", "two words")
    assert raised.value.code == "invalid_token"
    assert "two" not in raised.value.message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ws://localhost:4500", ("ws://localhost:4500/ws", "ws://localhost:4500")),
        (" ws://localhost:4500/ ", ("ws://localhost:4500/ws", "ws://localhost:4500")),
        ("wss://x/letta/ws", ("wss://x/letta/ws", "wss://x/letta/ws")),
        ("ws://[::1]:4500", ("ws://[::1]:4500/ws", "ws://[::1]:4500")),
    ],
)
def test_an_address(url: str, expected: tuple[str, str]) -> None:
    assert failures.require_address(url) == expected


# -- what may be concluded


@pytest.mark.parametrize("message", [NEW, SHARED])
@pytest.mark.parametrize("how", ["silent", "drops"])
def test_before_the_message_is_sent_nothing_was_received(
    server: AppServer, hasty: LettaCode, message: Message, how: str
) -> None:
    """Whatever is lost before that, the certain answer is that nothing has arrived."""
    kinds = ["conversation_retrieve", "sync"]
    if message is NEW:
        kinds = ["conversation_list", "conversation_create"]
    for kind in kinds:
        getattr(server, how).add(kind)
        error = refusal(hasty.send, message)
        assert error.kind == "retry", kind
        assert error.code in ("letta_code_timeout", "letta_code_connection_lost"), kind
        getattr(server, how).discard(kind)
    assert not server.kinds["input"]


@pytest.mark.parametrize(
    ("how", "code"),
    [("silent", "letta_code_timeout"), ("drops", "letta_code_connection_lost")],
)
def test_once_it_is_sent_nobody_knows(
    server: AppServer, hasty: LettaCode, how: str, code: str
) -> None:
    getattr(server, how).add("input")
    error = refusal(hasty.send, NEW)
    assert (error.kind, error.code) == ("doubt", code)
    assert refusal(hasty.run, "turn-otid-1").code == "run_not_found"


def test_reading_without_an_answer(server: AppServer, hasty: LettaCode) -> None:
    server.silent.add("conversation_list")
    for call in (hasty.active_runs, lambda message: hasty.find(message, SINCE)):
        error = refusal(call, NEW)
        assert (error.kind, error.code) == ("doubt", "letta_code_timeout")


def test_a_sending_takes_no_longer_than_one_call(server: AppServer) -> None:
    """Another worker rests on that, which finds the claim of one that has died."""
    server.silent |= {"input"}
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    target.check()
    target._timeout = 1.0
    slow = server._answers

    def slowly(frame: Any) -> Any:
        time.sleep(0.4)
        return slow(frame)

    server._answers = slowly  # type: ignore[method-assign]
    error = refusal(target.send, NEW)
    assert (error.kind, server.kinds["input"]) == ("retry", 0)
    target.close()


def test_refused_by_a_conversation_that_is_idle(
    server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refusal may pass, so it is tried again; only in the end with the id that an interrupted
    conversation takes, and that a killed server would answer to with a second turn."""
    server.answers["input"] = {"accepted": False, "error": "Input was rejected by the queue"}
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    error = refusal(target.send, NEW)
    assert (error.kind, error.code) == ("busy", "letta_code_busy")
    assert error.detail == "Input was rejected by the queue"
    sent = [frame["payload"]["messages"][0] for frame in server.seen if frame["type"] == "input"]
    ids = [sorted(message.keys() - {"role", "content"}) for message in sent]
    assert ids == [["otid"]] * 4 + [["client_message_id"]]
    assert {message[name] for message, (name,) in zip(sent, ids, strict=True)} == {NEW.otid}
    assert sum(slept) > 1
    target.close()


def test_a_refusal_that_passes(server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: server.answers.update(input=TAKEN))
    server.answers["input"] = {"accepted": False, "error": "Input was rejected by the queue"}
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    assert target.send(NEW).run_id == "turn-otid-1"
    assert [frame["payload"]["messages"][0].keys() for frame in server.seen[-1:]] == [
        {"role", "content", "otid"}
    ]
    target.close()


def test_nothing_is_sent_to_a_conversation_of_another_agent(
    server: AppServer, target: LettaCode
) -> None:
    server.answers["conversation_retrieve"] = {
        "conversation": {"id": "local-conv-1", "agent_id": "agent-local-2"}
    }
    error = refusal(target.send, SHARED)
    assert (error.kind, error.code) == ("permanent", "conversation_of_another_agent")
    assert not server.kinds["input"]


def test_of_two_conversations_for_one_message_the_older_is_used(
    server: AppServer, target: LettaCode
) -> None:
    """A server that is very slow may make a second one; nothing is sent into both."""
    rows = [
        {"id": f"local-conv-{number}", "created_at": f"2026-11-20T09:00:0{second}Z"}
        for number, second in ((10, 2), (9, 1), (11, 1))
    ]
    server.answers["conversation_list"] = {"conversations": rows}
    assert target.send(NEW).conversation_id == "local-conv-9"
    assert not server.kinds["conversation_create"]


# -- many at once, and over a long time


def test_many_threads_share_a_connection(server: AppServer) -> None:
    """One connection, and its models are listed once, before anything is sent."""
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    failed: list[BaseException] = []

    def send(number: int) -> None:
        try:
            target.send(NEW.__class__(NEW.agent_id, "new", PROMPT, f"otid-{number}"))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(server.connections) == 1
    assert (server.kinds["list_models"], server.kinds["input"]) == (1, 32)
    kinds = [frame["type"] for frame in server.seen]
    assert kinds.index("list_models") < kinds.index("conversation_list")
    ids = [frame["request_id"] for frame in server.seen]
    assert len(set(ids)) == len(ids)
    target.close()


def test_models_that_cannot_be_listed_stop_nothing(
    server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_PATIENCE", 0.1)
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    server.silent.add("list_models")
    for _ in range(2):
        target.send(NEW)
    assert server.kinds["list_models"] == 1
    target.close()


def test_after_a_lost_connection_comes_another(server: AppServer, target: LettaCode) -> None:
    sent = target.send(NEW)
    assert sent.run_id is not None
    assert target.run(sent.run_id).active
    server.drop()
    wait_for(lambda: target._connection is None or not target._connection.alive)
    assert refusal(target.run, sent.run_id).code == "run_not_found"
    assert target.health() == "0.34.12"
    assert len(server.connections) == 2


def test_a_connection_serves_so_many_conversations_and_no_more(
    server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server tells of all that a connection has ever named. So it is given up, but not while a
    turn is at work that was begun over it."""
    monkeypatch.setattr(connection, "_MOST_CONVERSATIONS", 2)
    monkeypatch.setattr(connection, "_GLANCE", 0.02)
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    for number in range(4):
        server.answers["conversation_create"] = {"conversation": {"id": f"local-conv-{number}"}}
        target.send(NEW.__class__(NEW.agent_id, "new", PROMPT, f"otid-{number}"))
    assert len(server.connections) == 2
    time.sleep(0.1)
    assert target.run("turn-otid-0").status == "running"
    for number in range(4):
        server.tell(
            {"type": "turn_finished", "stop_reason": "end_turn"},
            agent_id=NEW.agent_id,
            conversation_id=f"local-conv-{number}",
        )
    wait_for(lambda: all(held.state.name != "OPEN" for held in server.connections))
    assert [target.run(f"turn-otid-{number}").status for number in range(4)] == ["completed"] * 4
    target.close()


def test_a_connection_that_nobody_uses_is_closed(
    server: AppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_UNUSED", 0.05)
    monkeypatch.setattr(connection, "_GLANCE", 0.02)
    before = threading.active_count()
    target = LettaCode(server.url, call_timeout=60, anchored=False)
    target.check()
    wait_for(lambda: server.connections[0].state.name == "CLOSED")
    wait_for(lambda: threading.active_count() <= before)
    target.check()
    assert len(server.connections) == 2
    target.close()


def test_a_turn_that_nothing_is_told_of(
    server: AppServer, target: LettaCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is asked how the conversation stands, and then the turn is taken for over."""
    monkeypatch.setattr("promptyoself.targets.letta_code.watch._ENDS_LATE", 0.05)
    run_id = target.send(NEW).run_id
    assert run_id is not None
    wait_for(lambda: not target.run(run_id).active)
    assert target.run(run_id).status == "cancelled"
    assert server.kinds["sync"] >= 1


def test_a_queue_that_stands_still_is_set_going(
    server: AppServer, target: LettaCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older server may leave a prompt in its queue, with nothing at work there."""
    monkeypatch.setattr("promptyoself.targets.letta_code.watch._ENDS_LATE", 0.05)
    server.answers["input"] = {"accepted": True, "disposition": "queued"}
    ours = dataclasses.replace(NEW, conversation="local-conv-1")
    run_id = target.send(ours).run_id
    assert run_id is not None
    until = time.monotonic() + 5
    while not server.kinds["resume_queue"]:
        assert target.run(run_id).active
        assert time.monotonic() < until
        time.sleep(0.02)


def test_no_library_logs_a_prompt_or_the_token(
    server: AppServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    target = LettaCode(server.url, TOKEN, call_timeout=60, anchored=False)
    target.send(NEW)
    target.close()
    said = [record.getMessage() for record in caplog.records if "server" not in record.name]
    assert TOKEN not in repr(said)
    assert "nobody" not in repr(said)
