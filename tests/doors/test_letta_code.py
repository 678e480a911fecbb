"""`letta-code up` and `letta-code status`, with a `letta` that is Letta Code's on the outside."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from app_servers import NEW, calls, free_port, make_letta, serving
from calling import call, clean_environ

from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.letta_code import supervisor
from promptyoself.service.letta_code.program import find_program
from promptyoself.service.letta_code.supervisor import Plan, supervise


class Place:
    """A home with a Letta Code of its own."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.letta = make_letta(folder / "bin")
        self.store = folder / "store"
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.environ = {
            **clean_environ(folder / "var"),
            "HOME": str(self.home),
            "LETTA_LOCAL_BACKEND_DIR": str(self.store),
            "PROMPTYOSELF_LETTA_CODE_URL": self.url,
            "PATH": f"{self.letta.parent}{os.pathsep}{os.environ['PATH']}",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, **more: str) -> None:
        """Let commands of this process have that environment."""
        for name, value in {**self.environ, **more}.items():
            monkeypatch.setenv(name, value)

    def plan(self, **more: Any) -> Plan:
        """What is to run."""
        program = find_program(str(self.letta))
        return Plan(program, self.url, None, self.store, self.environ)._replace(**more)

    @contextmanager
    def up(self, *options: str, **more: str) -> Iterator["Running"]:
        """`letta-code up` in a process of its own, which is told to stop at the end."""
        with subprocess.Popen(
            [sys.executable, "-m", "promptyoself", "letta-code", "up", *options],
            env={**self.environ, **more},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            try:
                yield Running(process)
            finally:
                if process.poll() is None:
                    process.terminate()


class Running:
    """An `up` at work."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process

    def next(self) -> dict[str, Any]:
        """The next event that it tells."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        event: dict[str, Any] = orjson.loads(line)
        return event

    def end(self, number: signal.Signals = signal.SIGTERM) -> list[dict[str, Any]]:
        """Send it a signal; the events until its end."""
        self.process.send_signal(number)
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0
        return [orjson.loads(line) for line in out.splitlines()]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def gone(pid: int) -> bool:
    """Whether that process has ended."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_it_starts_watches_and_ends_an_app_server(place: Place) -> None:
    """Each event is a line of JSON. The App Server is told the address, runs quietly, and ends with
    `up`, which then ends well."""
    with place.up() as running:
        started, ready = running.next(), running.next()
        assert [started["event"], ready["event"]] == ["started", "ready"]
        assert (started["version"], started["url"]) == (NEW, place.url)
        assert started["store"] == str(place.store)
        server = started["pid"]
        (made,) = calls(place.letta)
        assert made["pid"] == server == ready["pid"]
        assert made["arguments"] == ["--backend", "local", "server", "--listen", place.url]
        environ = made["environ"]
        assert isinstance(environ, dict)
        quiet = {"LETTA_CODE_TELEM": "0", "DO_NOT_TRACK": "1", "DISABLE_AUTOUPDATER": "1"}
        assert {**environ, **quiet, "LETTA_SKIP_KEYCHAIN_CHECK": "1"} == environ
        assert environ["PROMPTYOSELF_VAR"] == place.environ["PROMPTYOSELF_VAR"]
        (stopped,) = running.end()
    assert stopped["event"] == "stopped"
    assert gone(server)


def test_ctrl_c_ends_it_too(place: Place) -> None:
    with place.up() as running:
        server = running.next()["pid"]
        running.next()
        assert running.end(signal.SIGINT)[-1]["event"] == "stopped"
    assert gone(server)


def test_an_app_server_that_dies_is_started_again(place: Place) -> None:
    """Killed, it is back after a pause. It says by what it ended."""
    with place.up() as running:
        first = running.next()["pid"]
        running.next()
        os.kill(first, signal.SIGKILL)
        ended, again, ready = running.next(), running.next(), running.next()
        assert (ended["event"], ended["pid"], ended["signal"]) == ("ended", first, "SIGKILL")
        assert ended["retry_in"] == 1
        assert (again["event"], ready["event"]) == ("started", "ready")
        assert again["pid"] != first


def run_here(plan: Plan, until: Callable[[list[dict[str, Any]]], bool], **more: Any) -> list[Any]:
    """Supervise in this process until the events are so."""
    events: list[dict[str, Any]] = []

    def wait() -> bool:
        time.sleep(0.02)
        return not until(events)

    supervise(plan, events.append, wait, **more)
    return events


def test_one_that_keeps_dying_is_given_up(place: Place) -> None:
    """After some quick deaths the error says so, with how it ended. The pauses grow."""
    place.letta.with_name("broken").write_text("3")
    events: list[dict[str, Any]] = []
    with pytest.raises(PromptyoselfError) as error:
        supervise(place.plan(), events.append, lambda: True, pauses=(0.01, 0.02))
    assert error.value.code == "letta_code_died"
    assert "3 times" in error.value.message
    assert "exit code 3" in error.value.message
    assert [event["event"] for event in events] == ["started", "ended"] * 3
    assert [event.get("retry_in") for event in events[1::2]] == [0.01, 0.02, None]


def test_long_lives_between_deaths_are_forgiven(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only quick deaths in a row count."""
    monkeypatch.setattr(supervisor, "QUICK_SECONDS", 0.0)
    place.letta.with_name("broken").write_text("3")
    events = run_here(place.plan(), lambda events: len(events) >= 9, pauses=(0.01,))
    assert {event.get("retry_in", 0.01) for event in events} == {0.01}


def test_one_that_is_never_ready_is_ended(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It doesn't hang for ever over an App Server that answers nothing."""
    monkeypatch.setattr(supervisor, "READY_SECONDS", 0.3)
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.1)
    place.letta.with_name("deaf").touch()
    events: list[dict[str, Any]] = []
    with pytest.raises(PromptyoselfError) as error:
        supervise(place.plan(), events.append, lambda: True, pauses=())
    assert error.value.code == "letta_code_died"
    assert "wasn't ready" in error.value.message
    assert gone(events[0]["pid"])


def test_one_that_falls_silent_is_told_of(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't ended, since that would cut the turns under way. That it answers again is told."""
    monkeypatch.setattr(supervisor, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.1)
    deaf = place.letta.with_name("deaf")

    def until(events: list[dict[str, Any]]) -> bool:
        names = [event["event"] for event in events]
        if names == ["started", "ready"]:
            deaf.touch()
        if names == ["started", "ready", "silent"]:
            deaf.unlink(missing_ok=True)
        return len(names) > 3

    events = run_here(place.plan(), until)
    assert [event["event"] for event in events] == [
        *("started", "ready", "silent", "ready", "stopped")
    ]
    assert len({event["pid"] for event in events[:4]}) == 1


def test_one_that_does_not_end_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is frozen, so it hears of nothing. `up` ends all the same."""
    monkeypatch.setattr(supervisor, "_END_SECONDS", 0.1)

    def until(events: list[dict[str, Any]]) -> bool:
        is_ready = events[-1]["event"] == "ready"
        if is_ready:
            os.kill(events[0]["pid"], signal.SIGSTOP)
        return is_ready

    events = run_here(place.plan(), until)
    assert events[-1]["event"] == "stopped"
    assert gone(events[0]["pid"])


def test_two_on_one_store_are_refused(place: Place) -> None:
    """Also on another port; and also while the first App Server outlives its `up`."""
    with place.up() as running:
        server = running.next()["pid"]
        running.next()
        other = place.plan(url=f"ws://127.0.0.1:{free_port()}")
        with pytest.raises(PromptyoselfError) as error:
            supervise(other, lambda _: None, lambda: True)
        assert error.value.code == "letta_code_running"
        assert error.value.details == {"pid": server, "url": place.url}
        with pytest.raises(PromptyoselfError, match=f"runs at {place.url} already"):
            supervise(place.plan(), lambda _: None, lambda: True)
        running.process.kill()
        running.process.wait()
        assert not gone(server)
        with pytest.raises(PromptyoselfError, match=str(place.store)):
            supervise(other, lambda _: None, lambda: True)
        os.kill(server, signal.SIGTERM)
    supervise(other, lambda _: None, lambda: False)  # the lock went with it


def test_an_app_server_on_that_port_runs_already(place: Place, tmp_path: Path) -> None:
    """Nothing is started beside it, whether it tells its version or wants a token first."""
    with serving(place.port, tmp_path), pytest.raises(PromptyoselfError) as error:
        supervise(place.plan(), lambda _: None, lambda: True)
    assert error.value.code == "letta_code_running"
    assert NEW in error.value.message
    with serving(place.port, tmp_path, token="hush"), pytest.raises(PromptyoselfError) as error:
        supervise(place.plan(), lambda _: None, lambda: True)
    assert error.value.code == "letta_code_running"
    assert calls(place.letta) == []


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="only Linux tells who listens")
def test_what_else_has_the_port_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "ANSWER_SECONDS", 0.1)
    listening = socket.create_server(("127.0.0.1", place.port))
    with listening, pytest.raises(PromptyoselfError) as error:
        supervise(place.plan(), lambda _: None, lambda: True)
    assert error.value.code == "port_in_use"
    assert f"process {os.getpid()}" in error.value.message


def test_a_token_is_asked_of_clients_and_never_shown(place: Place) -> None:
    """The App Server gets its digest alone, and none of our secrets: agents' tools have its
    environment."""
    secrets = {"PROMPTYOSELF_LETTA_CODE_TOKEN": "hush-hush", "LETTA_SERVER_PASSWORD": "quiet-pw"}
    with place.up(**secrets) as running:
        assert [running.next()["event"], running.next()["event"]] == ["started", "ready"]
        (made,) = calls(place.letta)
        words = made["arguments"]
        assert isinstance(words, list)
        digest = sha256(b"hush-hush").hexdigest()
        assert words[-4:] == ["--ws-auth", "capability-token", "--ws-token-sha256", digest]
        assert "hush-hush" not in str(made)
        assert "quiet-pw" not in str(made)


def test_agents_find_our_program(place: Place) -> None:
    """Where PATH doesn't lead to `promptyoself`, its folder is added at the end."""
    with place.up("--program", str(place.letta), PATH="/usr/bin:/bin") as running:
        running.next()
        running.next()
    (made,) = calls(place.letta)
    environ = made["environ"]
    assert isinstance(environ, dict)
    assert environ["PATH"] == f"/usr/bin:/bin:{Path(sys.executable).parent}"


def test_up_warns_where_nothing_could_be_delivered(place: Place, tmp_path: Path) -> None:
    """It starts without the package that a delivery needs, and names it once."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['websockets'] = None\n")
    with place.up(PYTHONPATH=str(tmp_path)) as running:
        running.next()
        running.next()
        running.process.terminate()
        _, said = running.process.communicate()
    assert said.count(b"pip install 'websockets>=15'") == 1


def test_without_git_it_warns(place: Place, tmp_path: Path) -> None:
    """Letta Code starts without it, and then can't make an agent."""
    with place.up("--program", str(place.letta), PATH=str(tmp_path)) as running:
        running.next()
        running.next()
        running.process.terminate()
        _, said = running.process.communicate()
    assert b"no program `git`" in said


@pytest.mark.parametrize(
    ("version", "code", "said"),
    [
        ("0.32.12 (Letta Code)", "letta_code_too_old", "0.32.13"),
        ("0.9.9 (Letta Code)", "letta_code_too_old", "0.9.9"),
        ("0.34.12", "letta_code_not_installed", "is no Letta Code"),
        ("No such option: --version", "letta_code_not_installed", "is no Letta Code"),
        ("", "letta_code_not_installed", "is no Letta Code"),
    ],
)
def test_another_letta_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch, version: str, code: str, said: str
) -> None:
    """The server has a program of the same name; and what is too old would lose prompts."""
    make_letta(place.letta.parent, version=version)
    place.use(monkeypatch)
    error = call("letta-code", "up").error(code)
    assert said in error["message"]
    assert str(place.letta) in error["message"]
    assert "pip install" in error["hint"]
    assert not place.store.exists()


def test_without_letta_code_it_says_how_to_get_it(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.use(monkeypatch, PATH=str(tmp_path))
    error = call("letta-code", "up").error("letta_code_not_installed")
    assert "pip install" in error["hint"]
    for odd in ("nowhere/letta", str(tmp_path), ""):
        error = call("letta-code", "up", "--program", odd).error("letta_code_not_installed")
        assert "--program" in error["message"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("off", "target_not_configured"),
        ("wss://127.0.0.1:4500", "invalid_value"),
        ("ws://127.0.0.1", "invalid_value"),
        ("ws://0.0.0.0:4500", "missing_token"),
        ("ws://192.0.2.7:4500", "missing_token"),
    ],
)
def test_where_none_can_listen(
    place: Place, monkeypatch: pytest.MonkeyPatch, url: str, code: str
) -> None:
    """Each is refused before anything is started."""
    place.use(monkeypatch, PROMPTYOSELF_LETTA_CODE_URL=url)
    assert call("letta-code", "up").error(code)["hint"]
    if url != "off":
        place.use(monkeypatch)
        call("letta-code", "up", "--listen", url).error(code)
    assert calls(place.letta) == []


def test_status_says_what_answers(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.use(monkeypatch)
    with serving(place.port, tmp_path):
        answer = call("letta-code", "status").success()
        assert answer == call("letta-code").success() | {"latency_ms": answer["latency_ms"]}
    assert (answer["url"], answer["version"], answer["backend"]) == (place.url, NEW, "local")
    assert answer["ready"] is True
    assert "pid" not in answer
    assert "warning" not in answer


def test_status_warns_where_nothing_could_be_delivered(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It answers without the package that a delivery needs, and names it."""
    place.use(monkeypatch)
    monkeypatch.setitem(sys.modules, "websockets", None)
    with serving(place.port, tmp_path):
        warning = call("letta-code", "status").success()["warning"]
    assert "pip install 'websockets>=15'" in warning


def test_status_names_the_up_that_starts_it(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where `up` is at work, another isn't advised. One that was killed is no help."""
    place.use(monkeypatch)
    place.letta.with_name("broken").write_text("3")
    with place.up() as running:
        assert [running.next()["event"], running.next()["event"]] == ["started", "ended"]
        hint = call("letta-code", "status").error("letta_code_unreachable")["hint"]
        assert f"`promptyoself letta-code up` (pid {running.process.pid}) is starting it." in hint
        running.end(signal.SIGTERM)
    hint = call("letta-code", "status").error("letta_code_unreachable")["hint"]
    assert "is starting" not in hint


def test_status_knows_the_one_that_up_has_started(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And doesn't take another for that."""
    place.use(monkeypatch)
    with place.up() as running:
        server = running.next()["pid"]
        running.next()
        assert call("letta-code", "status").success()["pid"] == server
        port = free_port()
        place.use(monkeypatch, PROMPTYOSELF_LETTA_CODE_URL=f"ws://127.0.0.1:{port}")
        with serving(port, tmp_path):
            assert "pid" not in call("letta-code", "status").success()


def test_status_says_what_is_wrong(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each failure has its code and an advice; nothing hangs."""
    place.use(monkeypatch)
    error = call("letta-code", "status").error("letta_code_unreachable")
    assert "`promptyoself letta-code up`" in error["hint"]
    with serving(place.port, tmp_path, token="hush"):
        call("letta-code", "status").error("letta_code_unauthorized")
        place.use(monkeypatch, PROMPTYOSELF_LETTA_CODE_TOKEN="wrong")
        call("letta-code", "status").error("letta_code_unauthorized")
        place.use(monkeypatch, PROMPTYOSELF_LETTA_CODE_TOKEN="hush")
        call("letta-code", "status").success()
    with serving(place.port, tmp_path, version="0.31.0"):
        assert "0.31.0" in call("letta-code", "status").error("letta_code_too_old")["message"]
    place.use(monkeypatch, PROMPTYOSELF_CALL_TIMEOUT="0.1")
    (tmp_path / "deaf").touch()
    with serving(place.port, tmp_path):
        call("letta-code", "status").error("letta_code_timeout")
        (tmp_path / "deaf").unlink()
    place.use(monkeypatch, PROMPTYOSELF_LETTA_CODE_URL="off")
    call("letta-code", "status").error("target_not_configured")


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (b"", "letta_code_connection_lost"),
        (b"what?\r\n\r\n", "letta_code_unreadable"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "letta_code_unreadable"),
        (b"HTTP/1.1 200 OK\r\n\r\n[]", "letta_code_unreadable"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"letta_code_version":"soon"}', "letta_code_unreadable"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "letta_code_unreadable"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "letta_code_unreadable"),
    ],
)
def test_status_understands_garbage(
    place: Place, monkeypatch: pytest.MonkeyPatch, said: bytes, code: str
) -> None:
    """What answers need not be an App Server."""
    place.use(monkeypatch)

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", place.port)) as listener:
        threading.Thread(target=answer, args=(listener,), daemon=True).start()
        assert place.url in call("letta-code", "status").error(code)["message"]
