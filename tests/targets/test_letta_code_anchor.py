"""Letta Code: the process that keeps turns going whose sender dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from false_app_servers import AppServer, app_server
from remains import is_running

from promptyoself.targets.api import DeliveryError, Message
from promptyoself.targets.letta_code import LettaCode
from promptyoself.targets.letta_code.anchor import Kept, is_over
from promptyoself.targets.letta_code.anchor_process import AnchorProcess
from promptyoself.targets.letta_code.failures import require_address
from promptyoself.targets.letta_code.watch import IDLE, Watch

TOKEN = "a-token-that-is-nobodys-business"
AGENT = "agent-local-1"


@pytest.fixture
def server() -> Iterator[AppServer]:
    with app_server() as running:
        yield running


@pytest.fixture
def anchor(server: AppServer) -> Iterator[AnchorProcess]:
    process = AnchorProcess(require_address(server.url), TOKEN, 60.0)
    yield process
    process.close()


def pid_of(anchor: AnchorProcess) -> int:
    assert anchor._running is not None
    return anchor._running._process.pid


def wait_until(happens: Callable[[], bool], seconds: float = 60.0) -> None:
    until = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < until
        time.sleep(0.02)


def loop(status: str) -> dict[str, object]:
    return {"type": "update_loop_status", "loop_status": {"status": status}}


@pytest.mark.parametrize(
    ("told", "age", "expected"),
    [
        ([], 59.0, False),  # its turn may still begin
        ([], 61.0, True),
        ([IDLE], 59.0, False),
        ([IDLE], 61.0, True),
        (["PROCESSING_API_RESPONSE"], 61.0, False),
        (["PROCESSING_API_RESPONSE", IDLE], 1.0, True),
        (["WAITING_ON_APPROVAL"], 899.0, False),
        (["WAITING_ON_APPROVAL"], 901.0, True),
    ],
)
def test_how_long_a_conversation_is_kept_going(told: list[str], age: float, expected: bool) -> None:
    watch = Watch(AGENT, "conv-1")
    for status in told:
        watch.see(loop(status), 0.0)
    assert is_over(Kept(AGENT, "conv-1", 0.0), watch, age) is expected


def test_it_outlives_its_sender_until_the_turn_is_over(
    server: AppServer, anchor: AnchorProcess
) -> None:
    assert anchor.keep(AGENT, "conv-1")
    pid = pid_of(anchor)
    server.tell(loop("PROCESSING_API_RESPONSE"), agent_id=AGENT, conversation_id="conv-1")
    anchor.close()
    os.kill(pid, signal.SIGTERM)  # as a service manager ends all processes of a service
    time.sleep(1.5)
    assert is_running(pid)
    server.tell(loop(IDLE), agent_id=AGENT, conversation_id="conv-1")
    wait_until(lambda: not is_running(pid))


def test_it_ends_with_its_sender_where_nothing_is_left(
    server: AppServer, anchor: AnchorProcess
) -> None:
    assert anchor.keep(AGENT, "conv-1")
    pid = pid_of(anchor)
    server.drop()
    anchor.close()
    wait_until(lambda: not is_running(pid))


def test_another_is_started_after_it_was_killed(server: AppServer, anchor: AnchorProcess) -> None:
    assert anchor.keep(AGENT, "conv-1")
    first = pid_of(anchor)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first))
    assert anchor.keep(AGENT, "conv-2")
    assert pid_of(anchor) != first
    assert not Path(f"/proc/{first}").exists()  # nobody's zombie


def test_it_tells_when_it_cannot_keep(server: AppServer, anchor: AnchorProcess) -> None:
    server.drops.add("remove_queue_item")
    assert not anchor.keep(AGENT, "conv-1")
    server.drops.clear()
    assert anchor.keep(AGENT, "conv-1")


def test_the_token_is_in_no_list_of_processes(server: AppServer, anchor: AnchorProcess) -> None:
    assert anchor.keep(AGENT, "conv-1")
    assert server.headers[0]["Authorization"] == f"Bearer {TOKEN}"
    for what in ("cmdline", "environ"):
        assert TOKEN.encode() not in Path(f"/proc/{pid_of(anchor)}/{what}").read_bytes()


def test_a_shared_conversation_is_sent_to_only_if_it_is_kept(server: AppServer) -> None:
    """A turn that is cut off there would block it; in a conversation of its own it blocks none."""
    server.drops.add("remove_queue_item")
    target = LettaCode(server.url, call_timeout=60)
    with pytest.raises(DeliveryError) as raised:
        target.send(Message(AGENT, "local-conv-1", "hello", "otid-1"))
    assert (raised.value.kind, raised.value.code) == ("retry", "letta_code_no_anchor")
    assert not server.kinds["input"]
    assert target.send(Message(AGENT, "new", "hello", "otid-1")).run_id
    target.close()


SENDER = """
import sys
from promptyoself.targets.api import Message
from promptyoself.targets.letta_code import LettaCode
target = LettaCode(sys.argv[1], call_timeout=60)
target.send(Message("agent-local-1", "new", "hello", "otid-1"))
print(target._anchor._running._process.pid)
"""


def test_it_holds_no_file_of_its_sender(server: AppServer, tmp_path: Path) -> None:
    """So `promptyoself execute | cat` ends when promptyoself does, and locks are free."""
    held = tmp_path / "held"
    with held.open("w") as file:
        done = subprocess.run(
            [sys.executable, "-c", SENDER, server.url],
            pass_fds=[file.fileno()],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
    pid = int(done.stdout)
    assert is_running(pid)
    links = {link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()}
    assert held not in links
    assert os.getsid(pid) == pid
    server.tell(loop("PROCESSING_API_RESPONSE"), agent_id=AGENT, conversation_id="local-conv-1")
    server.tell(loop(IDLE), agent_id=AGENT, conversation_id="local-conv-1")
    wait_until(lambda: not is_running(pid))
