"""What the tests of Letta Code stand on: the model does as it is told, a server keeps its port, and
nothing outlives the tests."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from chat_completions import Call, Fail
from letta_code.model import Model, Orders, orders
from letta_code.server import LettaCode
from remains import is_running

TESTS = Path(__file__).parents[1]

OWNER = """
import sys, threading, time
from pathlib import Path
from letta_code.server import LettaCode

server = LettaCode(Path(sys.argv[1]), Path(sys.argv[2]))
starting = threading.Thread(target=server.start)
starting.start()
starting.join()
server.pause()
print(server._process.pid, server._guard.pid, server.port, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Stretch.", Orders()),
        ("First [[slow:0.5]], then [[drip:2]].", Orders(slow=0.5, drip=2.0)),
        ('[[tool:Bash {"a":{"b":1}}]]', Orders(call=Call("Bash", {"a": {"b": 1}}))),
        ("[[err:401]]", Orders(fail=Fail(401, "as_told"))),
        ("[[late:500]]", Orders(late=Fail(500, "as_told"))),
        ("[[flaky:503:once]]", Orders(flaky=("503", "once"))),
        ("[[hang]]", Orders(hang=True)),
    ],
)  # fmt: skip
def test_orders_to_the_model(text: str, expected: Orders) -> None:
    """A message says what the model does."""
    assert orders(text) == expected


def test_the_model_obeys() -> None:
    """It answers, calls tools, fails, fails at first, and hangs until the end."""
    model = Model()

    def ask(text: str, **more: object) -> httpx.Response:
        body = {"model": "fake-1", "messages": [{"role": "user", "content": text}], **more}
        url = f"{model.url}/chat/completions"
        return httpx.post(url, json=body, timeout=60, trust_env=False)

    try:
        assert ask("Stretch.").json()["choices"][0]["message"]["content"] == "ok, done"
        assert '"content": "ok"' in ask("Stretch.", stream=True).text
        call = ask('[[tool:Bash {"command":"x"}]]').json()["choices"][0]["message"]["tool_calls"][0]
        assert call["function"] == {"name": "Bash", "arguments": '{"command": "x"}'}
        assert [ask("[[flaky:503:word]]").status_code for _ in range(2)] == [503, 200]
        assert ask("[[err:401]]").status_code == 401
        with pytest.raises(httpx.TransportError):
            ask("[[flaky:drop:another]]")
        assert len(model.asked()) == 7
    finally:
        model.close()


def test_a_server_keeps_its_port(new_letta_code: Callable[..., LettaCode]) -> None:
    """SIGTERM ends it. While it is down, its port refuses connections, and nobody else gets it."""
    server = new_letta_code()
    server.terminate()
    assert not server.alive
    assert not answers(server.port)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", server.port))
    server.start()
    assert server.version == server.info()["letta_code_version"]


def test_nothing_outlives_the_tests(letta_code_program: Path, tmp_path: Path) -> None:
    """A server that was started in a thread lives on when the thread ends. It ends when the process
    of the tests does, by whatever death. It is stopped here, since a running Letta Code ends by
    itself when it sees that its parent has."""
    path = os.pathsep.join(map(str, (TESTS, TESTS / "support")))
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, letta_code_program, tmp_path],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    server, guard, port = map(int, owner.stdout.readline().split())
    assert answers(port)
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until = time.monotonic() + 60
    while any(map(is_running, (server, guard))) or answers(port):
        assert time.monotonic() < until
        time.sleep(0.02)


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True
