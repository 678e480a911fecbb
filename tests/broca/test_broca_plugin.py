"""The plugin in a Broca: how it is found, made, started, killed and stopped, what it refuses."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from broca.brocas import AGENT, Broca, running, wait_for
from calling import call, events_of

FIT = ("DEBUG_MODE", "USE_BACKGROUND_PROCESSING", "AGENT_ID")


@pytest.fixture
def host(
    any_broca: Path, broca: Broca, var: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Broca]:
    """A Broca with the plugin, which delivers from ``var``. It isn't started."""
    for name in FIT:
        monkeypatch.setenv(name, broca.environ[name])
    broca.environ |= {"PROMPTYOSELF_VAR": str(var), "PROMPTYOSELF_RECONCILE_GRACE": "1"}
    call("install-plugin", "--broca", str(broca.folder)).success()
    yield broca
    if broca.process is not None:
        broca.kill()


def register(prompt: str, *asked: str) -> str:
    asked = asked or ("--time", "in 1s")
    words = ("--agent-id", AGENT, "--target", "broca", "--prompt", prompt)
    return str(call("register", *words, *asked).success()["id"])


def ends(var: Path) -> list[dict[str, Any]]:
    """The events with which slots ended."""
    kinds = ("delivery.delivered", "delivery.failed", "delivery.skipped")
    return [event for event in events_of(var) if event["type"] in kinds]


def test_prompts_reach_the_agent_and_answers_the_user(host: Broca, var: Path) -> None:
    """The log says that it went through Broca's queue, by which run, and what was answered."""
    host.environ["PROMPTYOSELF_KEEP_REPLY"] = "full"
    register("Stretch.")
    register("Drink.", "--time", "in 1s", "--conversation", "sink:u2", "--keep-reply", "full")
    register("Much later.", "--time", "in 10h")
    with running(host):
        wait_for(lambda: len(ends(var)) == len(host.lines("answered")) == 2)
        (checks,) = [c for c in doctor()["checks"] if c["name"] == "broca"]
        assert checks["ok"], checks
        assert "warning" not in call("list").success()
        wait_for(lambda: len(events_of(var, "delivery.replied")) == 2)
        assert host.stop() < 40
    assert {text.rpartition("] ")[2] for text in host.lines("arrived")} == {"Stretch.", "Drink."}
    assert {event["data"]["via"] for event in ends(var)} == {"run"}
    runs = {event["data"]["run_id"] for event in ends(var)}
    assert runs == {f"broca-{item['id']}" for item in host.items()}
    assert {event["actor"]["via"] for event in ends(var)} == {"broca"}
    (stopped,) = events_of(var, "worker.stopped")
    assert stopped["data"]["why"] == "broca_stopped"
    texts = [event["data"].get("text") or "" for event in events_of(var, "delivery.replied")]
    assert all("echo: " in text for text in texts), texts
    call("audit").success()


def doctor() -> dict[str, Any]:
    """What `doctor` finds, whether that is good or bad."""
    return call("doctor", "--skip-letta", "--allow-no-loop").document


def test_every_prompt_is_in_the_queue_once_through_kills(host: Broca, var: Path) -> None:
    """Of the process that holds both the loop and the queue. Each slot has one outcome."""
    slots = 6
    for number in range(slots):
        register(f"Prompt {number}.", "--time", f"in {1 + number}s")
    for pause in (1.3, 0.9, 1.6, 0.7):
        host.start()
        time.sleep(pause)
        host.kill()
    # What a killed Broca was at stays with it for five minutes, and its own restart repeats that.
    host.change("UPDATE queue SET timestamp = '2026-01-01T00:00:00' WHERE status = 'processing'")
    with running(host):
        wait_for(lambda: len(ends(var)) == slots)
        host.stop()
    texts = [item["message"] for item in host.items()]
    assert sorted(texts) == [f"Prompt {number}." for number in range(slots)]
    assert {event["type"] for event in ends(var)} == {"delivery.delivered"}
    totals = call("audit").success()["totals"]
    assert (totals["slots"], totals["delivered"]) == (slots, slots)


@pytest.mark.parametrize(
    ("environ", "settings", "named"),
    [
        ({"DEBUG_MODE": None}, {}, "DEBUG_MODE"),
        ({"AGENT_ID": ""}, {}, "AGENT_ID"),
        ({}, {"default_route": "nobody"}, "default_route"),
        ({}, {"colour": "red"}, "colour"),
        ({"PROMPTYOSELF_INTERVAL": "soon"}, {}, "PROMPTYOSELF_INTERVAL"),
    ],
)
def test_a_plugin_that_refuses_is_harmless(
    host: Broca, var: Path, environ: dict[str, str | None], settings: dict[str, Any], named: str
) -> None:
    """It says in one line what is in the way, and Broca goes on."""
    register("Stretch.")
    host.environ.update({name: value for name, value in environ.items() if value is not None})
    for name, value in environ.items():
        if value is None:
            del host.environ[name]
    host.settings["plugins"]["promptyoself"].update(settings)
    with running(host):
        wait_for(lambda: "delivers nothing" in host.told())
        host.stop()
    (line,) = [line for line in host.told().splitlines() if "delivers nothing" in line]
    assert named in line
    assert "Traceback" not in host.told()
    assert host.items() == []
    assert events_of(var, "worker") == []


def test_a_mode_that_is_changed_meanwhile(host: Broca, var: Path) -> None:
    """Broca reads its settings again while it runs. Nothing goes into a queue that echoes."""
    with running(host):
        wait_for(lambda: events_of(var, "worker.started"))
        settings = host.folder / "settings.json"
        changed = settings.with_name("changed.json")
        changed.write_text(settings.read_text().replace('"live"', '"echo"'))
        changed.replace(settings)  # it is read all the time
        register("Stretch.")
        wait_for(lambda: events_of(var, "delivery.abandoned"))
        host.stop()
    assert events_of(var, "delivery.abandoned")[0]["data"]["code"] == "broca_unfit"
    assert host.items() == []


def test_a_database_restored_between_two_brocas(host: Broca, var: Path, tmp_path: Path) -> None:
    """What was put in before is in doubt for good, since the log tells of later items."""
    before = host.database.read_bytes()
    register("Early.")
    with running(host):
        wait_for(lambda: len(ends(var)) == 1)
        register("slow")
        wait_for(lambda: len(host.items()) == 2)
        host.kill()
    host.database.write_bytes(before)
    with running(host):
        wait_for(lambda: len(ends(var)) == 2)
        host.stop()
    assert ends(var)[1]["data"]["code"] == "unknown"
    assert "older copy" in ends(var)[1]["data"]["error"]
    assert host.items() == []
    call("audit").success()


def test_an_item_whose_turn_goes_on_is_not_repeated(host: Broca, var: Path) -> None:
    register("timeout")
    with running(host):
        wait_for(lambda: ends(var))
        host.stop()
    assert ends(var)[0]["data"]["code"] == "unknown"
    assert len(host.lines("arrived")) == len(host.items()) == 1
