"""What one call over MCP or Sanctum may cost, and how many one agent may have: nobody's calls make
another's late."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import orjson
import pytest
from by_hand import answer_all, deliver_due
from calling import AGENT, add, call
from damage import store_in
from mcp import Client

from promptyoself import cli
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.long_work import check, limited
from promptyoself.doors import command as runner
from promptyoself.doors.command import MAX_ANSWER_BYTES
from promptyoself.doors.commands import mcp as mcp_command
from promptyoself.doors.mcp import shares, tools
from promptyoself.doors.mcp.shares import Shares
from promptyoself.doors.mcp.tools import Door
from promptyoself.doors.registry import AGENT_FACING, READERS, Effect
from promptyoself.doors.session import Caller
from promptyoself.rules.notices.replies import Answer
from promptyoself.service.delivery.loop import StopFlag

if TYPE_CHECKING:
    from conftest import Clock

pytestmark = pytest.mark.anyio
WRITERS = {
    "register", "modify", "cancel", "pause", "resume", "trigger", "idle", "desire", "reinforce",
    "prune", "execute", "agents", "test",
}  # fmt: skip

WRITES_LOG = sorted(WRITERS - {"execute", "agents", "test"})
CHANGES_LOG = ["cancel", "modify", "pause", "prune"]


def over_mcp(*words: str, stop: StopFlag | None = None) -> dict[str, Any]:
    """What a tool answers."""
    caller = Caller("mcp", stop or StopFlag(), client="client")
    answer = mcp_command._answer(cli.cli, None, words, caller)
    document: dict[str, Any] = orjson.loads(answer)
    return document


def test_patience_has_an_end() -> None:
    check()
    with limited(60.0, lambda: False):
        check()
        with limited(0.0, lambda: False):
            time.sleep(0.001)
            with pytest.raises(PromptyoselfError, match="took longer"):
                check()
        check()
        with limited(60.0, lambda: True), pytest.raises(PromptyoselfError) as error:
            check()
        assert error.value.code == "cancelled"
    with limited(60.0, lambda: True):  # holds in its own thread alone
        other = threading.Thread(target=lambda: passed.append(check()))
        passed: list[None] = []
        other.start()
        other.join()
        assert passed == [None]
    check()


def test_every_command_for_agents_that_only_reads_has_limits() -> None:
    assert READERS - {"agenda"} == set(AGENT_FACING) - WRITERS


EXPENSIVE = {
    "simulate": ("--until=in 3650d",),
    "history": (),
    "audit": (),
    "diff": ("--from=1",),
    "verify": (),
    "list": ("--at=in 1m",),
}


@pytest.fixture
def busy(var: Path, clock: Clock) -> None:
    """A log with something in it."""
    for number in range(20):
        call("register", "--agent-id", AGENT, "--prompt", f"{number}", "--cron", "* * * * *")
    clock.advance(minutes=2)


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("command", EXPENSIVE)
def test_a_call_that_takes_too_long_is_ended(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The attack: one call of these took minutes of a processor, and gigabytes."""
    seconds = 0.2 if command == "simulate" else 0.0
    monkeypatch.setattr(runner, "MAX_SECONDS", seconds)
    began = time.monotonic()
    assert over_mcp(command, *EXPENSIVE[command])["code"] == "took_too_long"
    assert time.monotonic() - began < 20


@pytest.mark.usefixtures("busy")
@pytest.mark.parametrize("command", EXPENSIVE)
def test_a_call_that_nobody_waits_for_any_more_ends(command: str) -> None:
    """Once the client has cancelled it, or the server is to end."""
    stop = StopFlag()
    stop.set("cancelled")
    assert over_mcp(command, *EXPENSIVE[command], stop=stop)["code"] == "cancelled"


@pytest.mark.usefixtures("busy")
def test_a_person_at_a_shell_has_all_the_time_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MAX_SECONDS", 0.0)
    assert call("history").success()["count"] == 21
    assert "total" not in call("history", "--limit", "5").success()
    assert call("verify").success()["valid"] is True


def test_history_has_a_limit_of_its_own(var: Path, clock: Clock) -> None:
    """A hundred events where none was asked for, and never more than a thousand; how many there are
    is told."""
    for number in range(55):
        asked = ("--agent-id", AGENT, "--prompt", f"{number}", "--time", "in 1d")
        id_ = call("register", *asked).success()["id"]
        call("cancel", "--id", id_)
    answer = over_mcp("history")
    assert (answer["count"], answer["total"]) == (100, 111)
    assert [event["seq"] for event in answer["events"]] == list(range(12, 112))
    answer = over_mcp("history", "--limit=1000000")
    assert answer["count"] == 111
    assert "total" not in answer


def test_answers_have_the_limit_of_events(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of agents' answers a hundred too, and never more than a thousand."""
    monkeypatch.setenv("PROMPTYOSELF_KEEP_REPLY", "excerpt")
    store = store_in(var / "schedules")
    for number in range(105):
        add("--time", "in 1m", agent=f"agent-{number}")
    clock.advance(minutes=1)
    deliver_due(store, clock.now, "excerpt")
    answer_all(store, clock.now, Answer("Done."))
    answer = over_mcp("replies")
    assert (answer["count"], answer["total"]) == (100, 105)
    assert over_mcp("replies", "--limit=1000000")["count"] == 105
    assert call("replies").success()["count"] == 105


def test_an_answer_has_a_limit_in_bytes(var: Path, clock: Clock) -> None:
    """Of events the newest that fit are shown; what can't be cut is refused with what to do."""
    for number in range(5):
        prompt = ("--agent-id", f"agent-{number}", "--prompt-file", "-", "--every", "1d")
        call("register", *prompt, stdin=b"x" * (1 << 20)).success()
    answer = over_mcp("history")
    assert (answer["count"], answer["total"]) == (1, 6)
    assert len(orjson.dumps(answer)) <= MAX_ANSWER_BYTES
    error = over_mcp("list", "--full")
    assert error["code"] == "answer_too_large"
    assert over_mcp("list", "--full", "--limit=2")["count"] == 2
    assert call("list", "--full").success()["count"] == 5


# --- shares ---------------------------------------------------------------------------------------


class Call:
    """A call that goes on until it is told to end, and counts how many do."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.at_once = self.most = self.done = 0
        self._lock = threading.Lock()

    def __call__(self) -> bytes:
        with self._lock:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.go_on.wait(120)
        with self._lock:
            self.at_once -= 1
            self.done += 1
        return b"{}"


async def until(holds: Callable[[], bool]) -> None:
    with anyio.fail_after(60):
        while not holds():
            await anyio.sleep(0.005)


@pytest.mark.parametrize(
    ("effect", "most"),
    [
        (Effect.READS, shares.CALLS_OF_ONE),
        (Effect.READS_LOG, shares.EXPENSIVE_OF_ONE),
        (Effect.WRITES, shares.WRITES_OF_ONE),
        (Effect.CHANGES, shares.WRITES_OF_ONE),
        (Effect.DELIVERS, shares.DELIVERIES_OF_ONE),
    ],
)
async def test_an_agents_calls_leave_room_for_others(effect: Effect, most: int) -> None:
    """Sixty calls of one agent hang: another's is answered at once."""
    mine = Shares()
    flood, other = Call(), Call()
    other.go_on.set()
    async with anyio.create_task_group() as tasks:
        for _ in range(60):
            tasks.start_soon(partial(mine.run, flood, "evil", effect))
        await until(lambda: flood.at_once == most)
        with anyio.fail_after(60):
            for another in Effect:
                await mine.run(other, "good", another)
        assert flood.at_once == most
        flood.go_on.set()
    assert (flood.most, flood.done) == (most, 60)
    assert not mine._shares


async def test_what_is_delivered_may_make_its_agent_write() -> None:
    """An agent that delivers its own prompt, and is made to register another by it, isn't kept from
    that until the delivery is over."""
    mine, delivery, registration = Shares(), Call(), Call()
    registration.go_on.set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(mine.run, delivery, "one", Effect.DELIVERS)
        await until(lambda: delivery.at_once == 1)
        with anyio.fail_after(60):
            await mine.run(registration, "one", Effect.WRITES)
        delivery.go_on.set()


@pytest.mark.parametrize(
    ("words", "effect"),
    [
        ([], Effect.READS), (["--agent-id=a"], Effect.READS), (["list"], Effect.READS),
        (["list", "--at=in 1m"], Effect.READS_LOG), (["history"], Effect.READS_LOG),
        (["execute"], Effect.DELIVERS),
        *(
            ([name], Effect.CHANGES if name in CHANGES_LOG else Effect.WRITES)
            for name in WRITES_LOG
        ),
    ],
)  # fmt: skip
def test_what_a_call_does_is_known(words: list[str], effect: Effect) -> None:
    assert tools._effect(words) is effect


def test_the_agent_that_a_server_is_pinned_to_is_known() -> None:
    """With PROMPTYOSELF_ONLY_AGENT every call is that agent's, and has no more than one agent's
    share; without, callers aren't known, and share what there is."""

    async def main(pinned_to: str | None) -> int:
        flood = Call()
        door = Door(cli.cli, lambda *_: flood(), lambda *_: b"{}", agent=None, only_agent=pinned_to)
        async with Client(door.server) as client, anyio.create_task_group() as tasks:
            for _ in range(2 * shares.CALLS_OF_ONE):
                tasks.start_soon(client.call_tool, "list", {})
            await until(lambda: flood.at_once >= shares.CALLS_OF_ONE)
            await anyio.sleep(0.2)
            at_once = flood.at_once
            flood.go_on.set()
            tasks.cancel_scope.cancel()
        return at_once

    assert anyio.run(main, "agent-7") == shares.CALLS_OF_ONE
    assert anyio.run(main, None) > shares.CALLS_OF_ONE


async def test_too_many_calls_are_refused() -> None:
    mine, flood = Shares(), Call()
    async with anyio.create_task_group() as tasks:
        for _ in range(shares.MOST_PENDING):
            tasks.start_soon(partial(mine.run, flood, "evil", Effect.READS))
        await until(lambda: flood.at_once == shares.CALLS_OF_ONE)
        with pytest.raises(PromptyoselfError) as error:
            await mine.run(flood, "evil", Effect.READS)
        assert error.value.code == "too_many_calls"
        flood.go_on.set()
    await mine.run(flood, "evil", Effect.READS)


async def test_cancelling_is_no_way_to_have_more() -> None:
    """A call keeps its place until its thread has ended; one that had none gives up its turn."""
    mine, flood = Shares(), Call()
    for _ in range(20):
        with anyio.move_on_after(0.02):
            await mine.run(flood, "evil", Effect.READS_LOG)
    assert flood.most == 1
    flood.go_on.set()
    await until(lambda: not mine._shares)
    assert flood.done == 1
    assert await mine.run(flood, "evil", Effect.READS_LOG) == b"{}"
