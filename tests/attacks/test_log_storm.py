"""The log of loops in a storm: what it tells, and that no prompt and no key is in it."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from calling import Answer, call, run
from dispatch import Place
from loops import wait_for
from storm import Storm

from promptyoself.core.diagnostics import Log
from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.sealer import Sealer
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.targets.api import DeliveryError

PROMPT = "canary-prompt-5b1f0c the quick brown fox, whispered"
KEY = "canary-key-9e21d7"
PASSWORD = "canary-password-771a"
STEPS = {
    "claimed", "sent", "stalled", "delivered", "retrying", "failed", "in_doubt", "adopted",
}  # fmt: skip
TROUBLE = {"retrying", "failed", "adopted", "in_doubt"}


def states(log: Path) -> set[str]:
    """What the whole lines of a log say that deliveries have come to."""
    content = log.read_bytes() if log.exists() else b""
    lines = map(json.loads, content[: content.rfind(b"\n") + 1].splitlines())
    return {line["state"] for line in lines if line["message"] == "delivery"}


@pytest.mark.parametrize("form", ["file", "stderr"])
def test_a_storm_leaves_no_prompt_and_no_key_in_any_log(tmp_path: Path, form: str) -> None:
    """Loops that share a log file or write JSON to stderr, with the SDK's own debugging on, killed
    while Letta misbehaves and quotes prompts in its errors: each line is whole, bears the schedule,
    slot, attempt and worker, and nowhere is there anything of a prompt, a key or a password."""
    errors = tmp_path / "stderr"
    log = tmp_path / "loop.log" if form == "file" else errors
    settings = (
        {"PROMPTYOSELF_LOG_FILE": str(log)}
        if form == "file"
        else {"PROMPTYOSELF_LOG_FORMAT": "json"}
    )
    with (
        Sandbox([f"agent-{n}" for n in range(8)], latency=0.1, seed=3, token=KEY) as sandbox,
        errors.open("ab") as stderr,
    ):
        storm = Storm(
            tmp_path / "var",
            sandbox,
            seed=3,
            prompt=PROMPT,
            stderr=stderr.fileno(),
            LETTA_API_KEY=KEY,
            LETTA_SERVER_PASSWORD=PASSWORD,
            LETTA_LOG="debug" if form == "file" else "",
            PROMPTYOSELF_LOG_LEVEL="debug",
            **settings,
        )
        storm.register(32)
        quoting = f"INTERNAL_SERVER_ERROR: the model said no to {PROMPT} with {KEY}"
        for kind, params in {
            "run_fails_before": {"error": quoting},
            "run_fails_after": {"error": quoting},
            "server_error": {},
            "lost_reply": {},
            "garbage": {"body": f"<html>{PROMPT} {KEY}"},
            "model_401": {},
            "unprocessable": {},
        }.items():
            sandbox.fault(kind, probability=0.08, **params)
        storm.start_loops(2)
        # A busy machine may kill them all before they deliver, and then there are no faults left.
        wait_for(lambda: states(log) & TROUBLE)
        storm.rage(3, every=0.7, timeout=200)
        storm.stop_loops()

    everything = log.read_text() + errors.read_text()
    for canary in (PROMPT[:18], PROMPT[23:40], KEY, PASSWORD):
        assert canary not in everything, [
            line for line in everything.splitlines() if canary in line
        ]
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line for line in lines if line["message"] == "delivery"]
    seen = states(log)
    assert {"claimed", "sent", "delivered"} <= seen <= STEPS | {"skipped"}
    assert len(seen & TROUBLE) > 1, seen
    ids = set(storm.store.read().state.schedules)
    for line in steps:
        assert line["id"] in ids
        assert line["attempt"] >= 1
        assert line["slot"].endswith("Z")
        assert line["worker"].startswith("wrk_")
        assert line["pid"] > 0
    delivered = {(line["id"], line["slot"]) for line in steps if line["state"] == "delivered"}
    assert len(delivered) > 10
    assert {line["level"] for line in lines} >= {"info", "warning"}
    if form == "file":
        assert oct(log.stat().st_mode & 0o777) == "0o600"


def test_prompts_are_told_where_the_settings_allow_it_and_keys_never(
    tmp_path: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTYOSELF_LOG_PROMPTS=1 is for prompts only."""
    log = tmp_path / "loop.log"
    with Sandbox(("a",), latency=0.02, token=KEY) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        monkeypatch.setenv("LETTA_API_KEY", KEY)
        monkeypatch.setenv("PROMPTYOSELF_LOG_FILE", str(log))
        monkeypatch.setenv("PROMPTYOSELF_LOG_PROMPTS", "1")
        sandbox.fault("run_fails_after", error=f"no to {PROMPT} with {KEY}")
        call("register", "--agent-id", sandbox.agents[0], "--prompt", PROMPT, "--time", "in 1h")
        (id_,) = (each["id"] for each in call("list").document["schedules"])
        call("trigger", "--id", id_).success()
        call("execute").success()
    text = log.read_text()
    assert KEY not in text
    lines = [json.loads(line) for line in text.splitlines()]
    assert {line["prompt"] for line in lines if line["message"] == "delivery"} == {PROMPT}
    (last,) = (line for line in lines if line.get("state") == "delivered")
    assert last["error"] == f"no to {PROMPT} with ***"


def test_a_bug_is_told_without_the_prompt(place: Place) -> None:
    """The traceback of a bug goes into the log, and what it quotes of the prompt doesn't."""
    place.register(2, prompt_of=PROMPT)

    def before(name: str, agent: str) -> None:
        if name == "look" or agent == "agent-0":
            raise ValueError(f"cannot send {PROMPT[3:]!r}")

    place.letta.before = before
    place.run(place.worker())
    (warning,) = (each for each in place.warnings if each.startswith("A delivery broke off"))
    assert "ValueError" in warning
    assert PROMPT[6:20] not in warning


def test_a_traceback_of_a_command_has_no_key_and_no_prompt(
    environ: dict[str, str], var: Path, tmp_path: Path
) -> None:
    """A bug's traceback, on stderr and in the log, and its message on stdout, have no key in them,
    and not the prompt that the command was given."""
    script = tmp_path / "sitecustomize.py"
    script.write_text(
        "import promptyoself.store.store as store\n"
        f"def broken(*_): raise ZeroDivisionError('{KEY} in a bug: {PROMPT}')\n"
        "store.Store.read = store.Store.transact = broken\n"
    )
    log = tmp_path / "log"
    path = os.pathsep.join([str(tmp_path), *os.environ.get("PYTHONPATH", "").split(os.pathsep)])
    environ = {
        **environ, "PYTHONPATH": path, "LETTA_API_KEY": KEY, "PROMPTYOSELF_LOG_FILE": str(log)
    }  # fmt: skip
    register = ("register", "--agent-id", "a", "--every", "1h", "--prompt", PROMPT)
    answer: Answer = run(*register, environ=environ)
    assert answer.document["code"] == "internal_error"
    assert "ZeroDivisionError: *** in a bug" in answer.err
    (line,) = (json.loads(line) for line in log.read_text().splitlines())
    assert (line["level"], line["message"]) == ("error", "internal_error")
    assert "ZeroDivisionError" in line["traceback"]
    for canary in (KEY, PROMPT):
        assert canary not in answer.err + answer.out.decode() + line["traceback"]


def test_what_the_loop_holds_back_and_seals_is_told(tmp_path: Path, place: Place) -> None:
    """A hold is told with its code, and a month that was sealed with its name."""
    place.store.log = Log(tmp_path / "log", level="debug")
    then, now = datetime(2026, 9, 20, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    for instant in (then, now):
        register(place.store, Request(agent_id="a", prompt=f"p{instant}", every="1h"), instant)
    sealer = Sealer(place.store)
    sealer.seal_if_due(now)
    assert sealer._thread is not None
    sealer._thread.join(60)

    def refused(*_: Any) -> Any:
        raise DeliveryError("unauthorized", "letta_unauthorized", "No.")

    place.letta.active_runs = place.letta.all_active_runs = refused
    place.register(1)
    worker = place.worker()
    worker.tick(place.now())
    for _ in range(100):
        worker.wait(0.1)
        if worker.troubles:
            break
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (sealed,) = (line for line in lines if line["message"] == "sealed")
    assert sealed["month"] == "2026-09"
    (held,) = (line for line in lines if line["message"] == "held")
    assert (held["code"], held["worker"][:4]) == ("letta_unauthorized", "wrk_")
