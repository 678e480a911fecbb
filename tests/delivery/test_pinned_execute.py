"""A caller who is pinned to an agent delivers for that agent alone (P2): with `execute` it neither
holds others' slots, nor hands them back, nor settles what others have left in doubt."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from calling import call, lines_of
from checker import check_chain
from loops import add

from promptyoself.sandbox import Sandbox

if TYPE_CHECKING:
    import pytest
    from conftest import Clock


def attempted(var: Path) -> list[str]:
    events = check_chain(var / "schedules")
    return [event["id"] for event in events if event["type"] == "delivery.attempted"]


def test_it_claims_nothing_of_others(
    sandbox: Sandbox, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attack: while the server is slow, a pinned agent calls `execute` with a short deadline,
    again and again. Others' prompts with a short grace are delivered all the same."""
    own, other = sandbox.agents
    mine, theirs = (
        add(own, "p", "--time", "in 1m"),
        add(other, "p", "--time", "in 1m", "--grace", "30s"),
    )
    clock.advance(minutes=1)
    sandbox.fault("hang", route="runs", times=5)
    with monkeypatch.context() as pinned:
        pinned.setenv("PROMPTYOSELF_ONLY_AGENT", own)
        for _ in range(4):
            call("execute", "--deadline", "0.2").success()
            clock.advance(seconds=5)
    assert set(attempted(var)) == {mine}
    sandbox.clear_faults()
    answer = call("execute").success()
    assert {line["id"] for line in answer["executed"]} == {mine, theirs}
    assert all(line["delivered"] for line in answer["executed"])
    assert set(sandbox.deliveries.values()) == {1}
    assert call("audit").success()["totals"]["delivered"] == 2


def test_it_leaves_what_others_have_in_doubt(
    sandbox: Sandbox, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that a dead worker has left is adopted by a pass that delivers for that agent."""
    own, other = sandbox.agents
    theirs = add(other)
    clock.advance(minutes=1)
    sandbox.latency = 60.0
    answer = call("execute", "--deadline", "3").success()
    assert [line["state"] for line in answer["executed"]] == ["in_doubt"]
    before = lines_of(var)
    with monkeypatch.context() as pinned:
        pinned.setenv("PROMPTYOSELF_ONLY_AGENT", own)
        assert call("execute").success()["executed"] == []
    assert lines_of(var) == before
    sandbox.finish_runs()
    answer = call("execute").success()
    assert [(line["id"], line["delivered"]) for line in answer["executed"]] == [(theirs, True)]


def test_its_own_trouble_delays_nobody(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass of the pinned agent has left hanging isn't in the way of a pass for all."""
    own, other = sandbox.agents
    add(own)
    theirs = add(other)
    clock.advance(minutes=1)
    sandbox.fault("hang", route="runs", agent_id=own, times=50)
    sandbox.fault("hang", route="send", agent_id=own, times=50)
    with monkeypatch.context() as pinned:
        pinned.setenv("PROMPTYOSELF_ONLY_AGENT", own)
        call("execute", "--deadline", "0.2").success()
    began = time.monotonic()
    answer = call("execute", "--deadline", "4").success()
    assert time.monotonic() - began < 60
    lines = {line["id"]: line["delivered"] for line in answer["executed"]}
    assert lines[theirs] is True
