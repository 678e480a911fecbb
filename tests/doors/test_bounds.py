"""What uses every package that promptyoself needs: tests/bounds.py runs this with the lowest and
the highest version of each."""

import time
from importlib.metadata import version
from pathlib import Path

import pytest
from bounds import requirements
from calling import run
from checker import check_chain

from promptyoself.sandbox import Sandbox


@pytest.mark.parametrize("requirement", requirements(), ids=lambda each: each.name)
def test_what_is_installed_is_allowed(requirement: object) -> None:
    """Every package has a lowest version, and the one that is installed is within the bounds."""
    assert any(bound.operator == ">=" for bound in requirement.specifier), requirement.name
    assert requirement.specifier.contains(version(requirement.name)), requirement.name


def test_from_a_registration_to_its_proof(var: Path, environ: dict[str, str]) -> None:
    """A prompt is registered, listed, delivered over the real SDK, told of in each form, and the
    log is sealed and proved."""
    with Sandbox(["a"], latency=0.05) as sandbox:
        environ = {**environ, "LETTA_BASE_URL": sandbox.url}
        (agent,) = sandbox.agents
        asked = ("--agent-id", agent, "--prompt", "Stretch.", "--check")
        for when in (("--time", "in 1s"), ("--cron", "0 9 * * MON-FRI"), ("--every", "1h")):
            run("register", *asked, *when, "--tz", "Europe/London", environ=environ).success()
        assert run("list", environ=environ).success()["count"] == 3
        assert "Stretch." in run("list", "--format", "table", environ=environ).out.decode()
        until = time.monotonic() + 60
        while not (done := run("execute", environ=environ).success())["executed"]:
            assert time.monotonic() < until
        assert [line["delivered"] for line in done["executed"]] == [True]
        hourly = run("register", *asked, "--every", "2h", environ=environ).success()
        run("trigger", "--id", hourly["id"], environ=environ).success()
        assert run("execute", environ=environ).success()["executed"][0]["delivered"]
        assert set(sandbox.deliveries.values()) == {1}
        checks = run("doctor", "--allow-no-loop", environ=environ).success()["checks"]
        assert all(check["ok"] for check in checks)
        assert b"promptyoself_slots_total" in run("metrics", environ=environ).out
        run("audit", environ=environ).success()
    run("seal", environ=environ).success()
    assert run("verify", environ=environ).success()["valid"] is True
    check_chain(var / "schedules")
