"""`promptyoself execute` and `promptyoself demo`, as commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, call, log_of, run
from checker import check_chain
from loops import wait_for
from terminals import picture

from promptyoself.sandbox import Sandbox
from promptyoself.targets.api import Message
from promptyoself.targets.letta import LettaClient

if TYPE_CHECKING:
    from conftest import Clock


def register(agent: str, prompt: str = "Hi", *asked: str) -> str:
    asked = asked or ("--time", "in 1m")
    answer = call("register", "--agent-id", agent, "--prompt", prompt, *asked).success()
    return str(answer["id"])


def start(url: str, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """A pass in a process of its own."""
    command = [sys.executable, "-m", "promptyoself", "execute"]
    environ["LETTA_BASE_URL"] = url
    return subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)


def register_due(agent: str) -> None:
    """Register a prompt, and let its time come, by the clock on the wall."""
    answer = call("register", "--agent-id", agent, "--prompt", "p", "--time", "in 1s").success()
    due = datetime.fromisoformat(answer["next_run"])
    time.sleep(max((due - datetime.now(UTC)).total_seconds(), 0) + 0.01)


def events(var: Path, type_: str = "") -> list[dict[str, Any]]:
    logged = check_chain(var / "schedules", settled=False)
    return [event for event in logged if event["type"].startswith(type_)]


def test_the_answer_is_as_the_contract_says(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """What was executed, whether it was delivered, and when it runs next."""
    once = register(sandbox.agents[0])
    series = register(sandbox.agents[1], "Hi", "--every", "1m")
    clock.advance(minutes=1)
    answer = call("execute").success()
    assert list(answer) == ["status", "executed", "message"]
    assert answer["message"] == "2 prompts executed"
    lines = {line["id"]: line for line in answer["executed"]}
    assert set(lines) == {once, series}
    assert list(lines[once])[:4] == ["id", "agent_id", "delivered", "next_run"]
    assert lines[once]["delivered"] is True
    assert lines[once]["next_run"] is None
    assert lines[series]["next_run"] == "2026-11-20T12:02:00.000000Z"
    assert lines[series]["agent_id"] == sandbox.agents[1]
    assert set(sandbox.deliveries.values()) == {1}
    stopped = events(var, "worker.stopped")
    assert [event["data"]["why"] for event in stopped] == ["done"]


def test_what_has_failed_for_good_is_told_on_stderr(sandbox: Sandbox, clock: Clock) -> None:
    """P9: stderr tells of a schedule that is parked, of a one-off that has failed, and of missed
    slots; not of a failure that isn't the last word."""
    agent = AGENT
    series = register(agent, "Hi", "--every", "1m")
    for _ in range(4):
        clock.advance(minutes=1)
        assert call("execute").err == ""
    clock.advance(minutes=1)
    assert call("execute").err == (
        f"promptyoself: {series} of {agent} is parked: its deliveries keep failing, the last one "
        f"with agent_not_found. `promptyoself resume --id {series}` lets it run again.\n"
    )
    once = register(agent, "Hello")
    clock.advance(minutes=1)
    assert call("execute").err == (
        f"promptyoself: {once} of {agent}, which was to be delivered once, has failed: "
        "agent_not_found.\n"
    )
    missed = register(sandbox.agents[0], "Hi", "--every", "1h")
    late = register(sandbox.agents[0], "Late", "--time", "in 1m", "--grace", "5m")
    clock.advance(hours=3)
    agent = sandbox.agents[0]
    assert set(call("execute").err.splitlines()) == {
        f"promptyoself: {late} of {agent}, which was to be delivered once, has failed: grace.",
        f"promptyoself: {missed} of {agent} missed 2 slots from 2026-11-20T13:06:00.000000Z "
        "to 2026-11-20T14:06:00.000000Z (misfire).",
    }


def test_a_prompt_that_has_nothing_to_say_is_skipped_everywhere(
    sandbox: Sandbox, clock: Clock
) -> None:
    """A prompt with values that is empty once they are filled in was skipped: stderr and the list
    for people say so, as the log does."""
    agent = sandbox.agents[0]
    id_ = register(agent, "{% if false %}Think!{% endif %}", "--time", "in 1m", "--render")
    clock.advance(minutes=2)
    answer = call("execute")
    assert answer.err == (
        f"promptyoself: {id_} of {agent}, which was to be delivered once, was skipped: no_text.\n"
    )
    shown = picture("list", "--all", columns=120)
    assert "↷" in shown
    assert "failed" not in shown


def test_one_prompt_is_one_prompt(sandbox: Sandbox, clock: Clock) -> None:
    """The message counts in the singular too, and says what became of the others."""
    register(sandbox.agents[0])
    register(sandbox.agents[1])
    sandbox.fault("not_found", agent_id=sandbox.agents[1])
    clock.advance(minutes=1)
    answer = call("execute").success()
    assert answer["message"] == "1 prompt executed, 1 failed"
    (failed,) = (line for line in answer["executed"] if not line["delivered"])
    assert (failed["state"], failed["code"]) == ("failed", "agent_not_found")
    assert sandbox.agents[1] in failed["error"]


def test_nothing_to_do(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle pass says so, and changes nothing, not even where there is no log yet."""
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:1")
    assert call("execute").success() == {
        "status": "success",
        "executed": [],
        "message": "0 prompts executed",
    }
    assert not var.exists()
    register("agent-a")
    before = log_of(var)
    call("execute").success()
    assert log_of(var) == before
    assert not (var / "workers").exists()


def test_an_idle_pass_costs_nothing(environ: dict[str, str]) -> None:
    """P8: without work nothing of Letta is imported, and nobody is asked anything."""
    call("register", "--agent-id", "a", "--prompt", "p", "--time", "in 1h").success()
    code = (
        "import socket, sys\n"
        "def refuse(*_, **__): raise AssertionError('a connection')\n"
        "socket.socket.connect = socket.create_connection = refuse\n"
        "from promptyoself.cli import _run\n"
        "assert _run(['execute']) == 0\n"
        "heavy = {'letta_client', 'httpx', 'httpcore', 'filelock', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"


def test_prompts_of_before_and_skips_are_told(sandbox: Sandbox, clock: Clock) -> None:
    """Slots that were missed are in the answer, with why."""
    id_ = register(sandbox.agents[0], "Hi", "--every", "10m")
    clock.advance(minutes=35)
    answer = call("execute").success()
    assert [(s["id"], s["slots"], s["why"]) for s in answer["skipped"]] == [(id_, 2, "misfire")]


def test_a_server_that_is_down_is_told(var: Path, clock: Clock) -> None:
    """P2: where nobody listens, the slot is tried again later, and the answer says why."""
    with Sandbox() as sandbox:
        url = sandbox.url
        agent = sandbox.agents[0]
    os.environ["LETTA_BASE_URL"] = url  # which the fixture puts back
    register(agent)
    clock.advance(minutes=1)
    answer = call("execute").success()
    (line,) = answer["executed"]
    assert (line["state"], line["code"]) == ("retrying", "letta_unreachable")
    assert line["retry_at"] > "2026-11-20T12:01"
    assert answer["message"] == "0 prompts executed, 1 retrying"
    assert call("execute").success()["executed"] == []


def test_at_the_deadline_it_leaves_off(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """P2: what was sent stays in doubt, what wasn't is handed back; the next pass settles both."""
    sent, unsent = register(sandbox.agents[0]), register(sandbox.agents[1])
    sandbox.latency = 1e6
    with closing(LettaClient(sandbox.url)) as somebody:
        somebody.send(Message(sandbox.agents[1], "default", "somebody else's", "other-otid"))
    clock.advance(minutes=1)
    began = time.monotonic()
    answer = call("execute", "--deadline", "3").success()
    assert time.monotonic() - began < 60
    states = {line["id"]: line["state"] for line in answer["executed"]}
    assert states == {sent: "in_doubt", unsent: "retrying"}
    assert answer["message"] == "0 prompts executed, 1 retrying, 1 in doubt"
    (stopped,) = events(var, "worker.stopped")
    assert stopped["data"]["why"] == "deadline"
    assert [left["id"] for left in stopped["data"]["in_flight"]] == [sent]
    sandbox.clear_faults()
    sandbox.finish_runs()
    sandbox.latency = 0.02
    clock.advance(minutes=1)
    answer = call("execute").success()
    assert {line["id"] for line in answer["executed"] if line["delivered"]} == {sent, unsent}
    assert list(sandbox.deliveries.values()) == [1, 1, 1]


def test_what_a_killed_pass_left_is_settled(
    sandbox: Sandbox, environ: dict[str, str], var: Path
) -> None:
    """P2: `execute` killed between send and record; the next one finds out, and sends nothing."""
    sandbox.latency = 1e6
    register_due(sandbox.agents[0])
    with start(sandbox.url, environ) as killed:
        wait_for(lambda: sandbox.state()["agents"][0]["active_runs"])
        killed.kill()
    sandbox.finish_runs()
    answer = run("execute", environ=environ).success()
    assert [line["state"] for line in answer["executed"]] == ["delivered"]
    assert set(sandbox.deliveries.values()) == {1}
    assert events(var)[-1]["type"] == "worker.stopped"


def test_a_signal_ends_a_pass_in_order(
    sandbox: Sandbox, environ: dict[str, str], var: Path
) -> None:
    """SIGTERM during a pass: an answer all the same, and what wasn't sent is handed back."""
    sandbox.fault("hang", route="runs")
    register_due(sandbox.agents[0])
    with start(sandbox.url, environ) as pass_:
        wait_for(lambda: events(var, "delivery.attempted"))
        pass_.send_signal(signal.SIGTERM)
        out, _ = pass_.communicate(timeout=60)
    assert pass_.returncode == 0
    assert orjson.loads(out)["executed"][0]["code"] == "worker_stopped"
    assert events(var)[-1]["data"]["why"] == "SIGTERM"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--interval", "5"], "conflicting_options"),
        (["--loop", "--deadline", "5"], "conflicting_options"),
        (["--concurrency", "0"], "invalid_value"),
        (["--deadline", "0"], "invalid_value"),
        (["--loop", "--interval", "x"], "invalid_value"),
    ],
)
def test_wrong_usage(var: Path, arguments: list[str], code: str) -> None:
    """P7: options that make no sense together, or at all, are refused."""
    call("execute", *arguments).error(code, exit_code=2)
    assert not var.exists()


def test_the_demonstration(environ: dict[str, str]) -> None:
    """`demo` shows the main job on a sandbox of its own, in less than two minutes anywhere."""
    environ.pop("LETTA_BASE_URL")
    began = time.monotonic()
    answer = run("demo", environ=environ)
    document = answer.success()
    assert time.monotonic() - began < 100
    assert document["valid"] is True
    assert all(count >= 1 for count in document["delivered"].values())
    assert len(document["next_fires"]) == 3
    assert '"type":"delivery.delivered"' in answer.err
    assert "Traceback" not in answer.err


def test_the_demonstration_on_a_server(
    sandbox: Sandbox, environ: dict[str, str], var: Path
) -> None:
    """With LETTA_BASE_URL set, `demo --var` delivers to that server's agents, into that folder."""
    environ["LETTA_BASE_URL"] = sandbox.url
    document = run("demo", "--var", str(var), environ=environ).success()
    assert document["url"] == sandbox.url
    assert document["agent_id"] in sandbox.agents
    assert set(sandbox.deliveries.values()) == {1}
    assert sum(document["delivered"].values()) == len(sandbox.deliveries)
    assert len(events(var)) == document["events"]


def test_the_demonstration_without_a_server(environ: dict[str, str]) -> None:
    """Where nobody listens at LETTA_BASE_URL, `demo` says so."""
    environ["LETTA_BASE_URL"] = "http://127.0.0.1:1"
    assert run("demo", environ=environ).error("letta_unreachable")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--target", "letta-cloud"], "invalid_value"),
        (["--program", "letta"], "conflicting_options"),
        (["--target", "letta-code"], "letta_code_not_installed"),
        (["--target", "letta-code", "--program", "/nowhere/letta"], "letta_code_not_installed"),
    ],
)
def test_a_demonstration_that_cannot_be(
    var: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], code: str
) -> None:
    """What isn't there is said at once, with what to do about it."""
    monkeypatch.setenv("PATH", str(var.parent))
    answer = call("demo", *arguments)
    assert answer.error(code, exit_code=1 if "installed" in code else 2)["hint"]
    assert not answer.err
    assert not var.exists()


@pytest.mark.parametrize("allowed", ["0", "1"])
def test_prompts_are_logged_only_where_allowed(
    sandbox: Sandbox, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    """The log file tells of each delivery; its prompt only with PROMPTYOSELF_LOG_PROMPTS=1."""
    log = tmp_path / "loop.log"
    monkeypatch.setenv("PROMPTYOSELF_LOG_FILE", str(log))
    monkeypatch.setenv("PROMPTYOSELF_LOG_PROMPTS", allowed)
    id_ = register(sandbox.agents[0], "a very private matter")
    clock.advance(minutes=1)
    call("execute").success()
    lines = [orjson.loads(line) for line in log.read_text().splitlines()]
    steps = [line["state"] for line in lines]
    assert steps == ["started", "claimed", "sent", "delivered", "stopped"]
    assert len({line["worker"] for line in lines}) == 1
    for line in lines[1:4]:
        assert (line["message"], line["id"], line["attempt"]) == ("delivery", id_, 1)
        assert line["slot"] == "2026-11-20T12:01:00.000000Z"
    assert lines[3]["delivered"] is True
    assert ("a very private matter" in log.read_text()) is (allowed == "1")
