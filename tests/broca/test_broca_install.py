"""Writing the plugin into a checkout of Broca, and what is said of prompts that wait for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from broca.brocas import AGENT, Broca
from calling import call

if TYPE_CHECKING:
    from conftest import Clock

FIT = {"DEBUG_MODE": "false", "USE_BACKGROUND_PROCESSING": "false", "AGENT_ID": AGENT}


@pytest.fixture
def checkout(any_broca: Path, broca: Broca, var: Path, monkeypatch: pytest.MonkeyPatch) -> Broca:
    """A checkout whose settings are in its ``.env`` file, without the plugin."""
    for name in (*FIT, "DB_PATH", "TEST_DB_PATH"):
        monkeypatch.delenv(name, raising=False)
    lines = [f"{name}={value}\n" for name, value in {**FIT, "DB_PATH": "broca.db"}.items()]
    (broca.folder / ".env").write_text("".join(lines))
    (broca.folder / "settings.json").write_text('{"message_mode": "live", "debug_mode": false}')
    return broca


def install(broca: Broca, *options: str) -> tuple[str, ...]:
    return ("install-plugin", "--broca", str(broca.folder), *options)


def test_it_is_written_once(checkout: Broca) -> None:
    """It compiles, and is written again over an older one."""
    answer = call(*install(checkout)).success()
    path = checkout.folder / "plugins" / "promptyoself" / "plugin.py"
    assert (answer["path"], answer["changed"]) == (str(path), True)
    subprocess.run([sys.executable, "-m", "py_compile", path], check=True)
    assert call(*install(checkout)).success()["changed"] is False
    path.write_text(path.read_text() + "# of an older version\n")
    assert call(*install(checkout)).success()["changed"] is True


def test_it_refuses_a_broca_that_would_echo_or_repeat(checkout: Broca) -> None:
    """It says of each setting what to set, and writes nothing."""
    (checkout.folder / ".env").write_text("DEBUG_MODE=true\n")
    (checkout.folder / "settings.json").write_text('{"message_mode": "echo"}')
    error = call(*install(checkout)).error("broca_unfit")
    for name in ("DEBUG_MODE=false", '"message_mode": "live"', "USE_BACKGROUND_PROCESSING=false"):
        assert name in error["hint"]
    assert len(error["misfits"]) == 3
    assert not (checkout.folder / "plugins" / "promptyoself").exists()


def test_what_the_environment_says_counts_too(
    checkout: Broca, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service may set it, and the file needn't."""
    (checkout.folder / ".env").unlink()
    call(*install(checkout)).error("broca_unfit")
    for name, value in FIT.items():
        monkeypatch.setenv(name, value)
    call(*install(checkout)).success()


def test_what_it_refuses(checkout: Broca, tmp_path: Path) -> None:
    call("install-plugin", "--broca", str(tmp_path)).error("not_broca", 2)
    call(*install(checkout, "--plugins-dir", str(tmp_path))).error("conflicting_options", 2)
    call("install-plugin").error("missing_option", 2)
    (checkout.folder / "settings.json").write_text("{")
    call(*install(checkout)).error("broca_unfit")
    (checkout.folder / "settings.json").write_text("[]")
    call(*install(checkout)).error("broca_unfit")
    (checkout.folder / "settings.json").unlink()
    checkout.change("ALTER TABLE queue RENAME COLUMN status TO state")
    call(*install(checkout)).error("broca_unsupported")
    checkout.database.unlink()  # a Broca that was never started has none
    other = checkout.folder / "plugins" / "promptyoself"
    other.mkdir()
    call(*install(checkout)).error("plugin_exists")


def test_doctor_looks_at_a_checkout(checkout: Broca) -> None:
    def checks() -> dict[str, bool]:
        answer = call("doctor", "--skip-letta", "--broca", str(checkout.folder)).document
        return {c["name"]: c["ok"] for c in answer["checks"] if c["name"].startswith("broca")}

    names = ("broca_settings", "broca_database", "broca_plugin")
    assert checks() == dict(zip(names, (True, True, False), strict=True))
    call(*install(checkout)).success()
    assert checks() == dict.fromkeys(names, True)
    (checkout.folder / ".env").write_text("")
    plugin = checkout.folder / "plugins" / "promptyoself" / "plugin.py"
    plugin.write_text(plugin.read_text() + "\n")
    assert checks() == dict.fromkeys(names, False)


# -- without a loop inside a Broca


def test_what_waits_for_brocas_loop_is_told(var: Path, clock: Clock) -> None:
    """By everything that looks at schedules; and `execute` leaves it alone."""
    words = ("--agent-id", AGENT, "--prompt", "p", "--target", "broca")
    answer = call("register", *words, "--time", "in 1s").success()
    assert f"inside the Broca of {AGENT}" in answer["warning"]
    call("register", "--agent-id", AGENT, "--prompt", "p", "--every", "1h").success()
    assert "inside the Broca" in call("list").success()["warning"]
    clock.advance(seconds=5)
    executed = call("execute").success()
    assert executed["executed"] == []
    (line,) = call("audit").success()["undelivered"]
    assert (line["outcome"], line["why"]) == ("pending", "no_broca_loop")
    checks = call("doctor", "--skip-letta", "--allow-no-loop").error("unhealthy")["checks"]
    assert {check["name"]: check["ok"] for check in checks}["broca"] is False
    call("cancel", "--id", answer["id"]).success()
    assert "inside the Broca" not in call("list", "--status", "all").success().get("warning", "")


def test_what_is_to_come_through_a_broca_is_forecast(var: Path, clock: Clock) -> None:
    """A forecast takes every loop for running."""
    words = ("--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--target", "broca")
    call("register", *words).success()
    assert call("simulate", "--until", "in 3h").success()["fired"] == 3
    assert call("agenda").success()["count"] > 0


def test_people_read_whom_the_answers_go_to(var: Path) -> None:
    words = ("--agent-id", AGENT, "--every", "1h", "--target", "broca", "--format", "table")
    shown = call("register", *words, "--prompt", "a", "--conversation", "telegram:1").out.decode()
    assert "Broca, telegram:1\n" in shown
    shown = call("register", *words, "--prompt", "b").out.decode()
    assert "Broca, the user of its plugin's settings\n" in shown


@pytest.mark.parametrize("conversation", ["new", "conv-1", "telegram", "telegram: 1", ":1"])
def test_a_conversation_there_is_a_user(var: Path, conversation: str) -> None:
    words = ("--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--target", "broca")
    code = "invalid_conversation_id"
    call("register", *words, "--conversation", conversation).error(code)
    id_ = call("register", *words, "--conversation", "telegram:1").success()["id"]
    call("modify", "--id", id_, "--conversation", conversation).error(code)
    call("modify", "--id", id_, "--conversation", "").success()


def test_a_change_to_that_target_needs_a_user(var: Path) -> None:
    """The conversation of before is kept, which is none there."""
    words = ("--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--conversation", "conv-1")
    id_ = call("register", *words).success()["id"]
    call("modify", "--id", id_, "--target", "broca").error("invalid_conversation_id")
    to = ("--target", "broca", "--conversation", "telegram:1")
    call("modify", "--id", id_, *to).success()
    assert call("show", "--id", id_).success()["schedule"]["target"] == "broca"


def test_nobody_outside_can_ask_it(var: Path) -> None:
    call("agents", "--target", "broca").error("invalid_value", 2)
    words = ("--agent-id", AGENT, "--prompt", "p", "--every", "1h", "--target", "broca", "--check")
    call("register", *words).error("target_not_configured")
