"""P9: nothing says that all is well while a prompt isn't delivered, or nothing is there that would
deliver it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, call
from test_dispatching import FakeLetta
from test_loop import Loop, loops, wait_for
from test_monitor import Watched

from promptyoself.sandbox import Sandbox
from promptyoself.service.checking import examine
from promptyoself.service.store import Store
from promptyoself.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Clock

__all__ = ["loops"]

DOCTOR = ("doctor", "--skip-letta")
WITHOUT = (*DOCTOR, "--allow-no-loop")


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, var: Path) -> Iterator[Sandbox]:
    with Sandbox(("echo", "other"), latency=0) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        yield sandbox


def add(agent: str = AGENT, prompt: str = "p", *asked: str) -> str:
    """Register a prompt, by default an hourly one; its id."""
    asked = asked or ("--every", "1h")
    return str(call("register", "--agent-id", agent, "--prompt", prompt, *asked).success()["id"])


def park(clock: Clock, id_: str, every: timedelta = timedelta(hours=1)) -> None:
    """Let a schedule of an agent that doesn't exist fail until it is parked."""
    for _ in range(5):
        clock.advance(seconds=every.total_seconds())
        call("execute").success()
    assert call("show", "--id", id_).success()["schedule"]["status"] == "failed"


def failed_checks(*arguments: str) -> dict[str, dict[str, Any]]:
    """The checks of `doctor` that fail, by name."""
    found = call(*(arguments or DOCTOR)).error("unhealthy")["checks"]
    return {check["name"]: check for check in found if not check["ok"]}


def check_of(name: str, *arguments: str) -> dict[str, Any]:
    """One check of `doctor`."""
    (found,) = (each for each in call(*arguments).document["checks"] if each["name"] == name)
    return dict(found)


# --- doctor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_a_parked_schedule_is_no_health(
    sandbox: Sandbox, var: Path, clock: Clock, quick: tuple[str, ...]
) -> None:
    """P9: `doctor` fails on a parked schedule and names it with the way back; it passes again once
    that is resumed and delivered, or cancelled."""
    id_ = add()
    park(clock, id_)
    found = failed_checks(*WITHOUT, *quick)
    assert list(found) == ["failures"]
    assert found["failures"]["detail"] == f"1 failed: {id_} (parked)"
    assert "resume --id" in found["failures"]["hint"]
    assert "cancel --id" in found["failures"]["hint"]
    call("cancel", "--id", id_).success()
    assert call(*WITHOUT, *quick).success()["message"] == "Nothing is wrong."


def test_a_one_off_that_failed_is_no_health(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """P9: nor is a one-off that came to nothing; `--allow-failed` only tells of it."""
    id_ = add(AGENT, "p", "--time", "in 1m")
    clock.advance(minutes=1)
    call("execute").success()
    assert failed_checks()["failures"]["detail"] == f"1 failed: {id_} (a one-off)"
    call(*DOCTOR, "--allow-failed").success()
    assert check_of("failures", *DOCTOR, "--allow-failed")["detail"].startswith("1 failed")
    call("cancel", "--id", id_).success()
    call(*DOCTOR).success()


def test_a_resumed_schedule_is_well_with_its_next_delivery(
    sandbox: Sandbox, var: Path, clock: Clock
) -> None:
    """P9: an active schedule whose latest delivery failed is told of, until one arrives."""
    id_ = add()
    clock.advance(hours=1)
    call("execute").success()
    found = failed_checks(*WITHOUT)
    assert found["failures"]["detail"] == f"the latest delivery failed of 1 schedule ({id_})"
    assert "trigger --id" in found["failures"]["hint"]
    call("modify", "--id", id_, "--agent-id", sandbox.agents[0]).success()
    assert list(failed_checks(*WITHOUT)) == ["failures"]
    clock.advance(seconds=1)
    call("trigger", "--id", id_).success()
    call("execute").success()
    call(*WITHOUT).success()


def test_many_failures_are_counted_and_some_named(
    sandbox: Sandbox, var: Path, clock: Clock
) -> None:
    """P9: of many, three are named and all are counted."""
    for number in range(5):
        add(AGENT, f"p{number}", "--time", "in 1m")
    clock.advance(minutes=1)
    for _ in range(5):
        call("execute").success()
    detail = failed_checks()["failures"]["detail"]
    assert detail.startswith("5 failed: sch_")
    assert detail.count("sch_") == 3
    assert detail.endswith(", …")


def test_prompts_without_a_loop_are_no_health(var: Path, clock: Clock) -> None:
    """P9: with something to deliver and nothing that would, `doctor` fails at once, and not only
    once it is late; `--allow-no-loop` is for those who run `execute` from cron."""
    call(*DOCTOR).success()
    id_ = add()
    assert list(failed_checks()) == ["loop"]
    found = check_of("loop", *DOCTOR)
    assert found["detail"] == "none is running, and 1 schedule is active"
    assert "--allow-no-loop" in found["hint"]
    call(*WITHOUT).success()
    call(*WITHOUT, "--require-loop").error("conflicting_options", exit_code=2)
    call("pause", "--id", id_).success()
    call(*DOCTOR).success()
    call("trigger", "--id", id_).success()
    assert check_of("loop", *DOCTOR)["detail"] == "none is running, and 1 slot waits"
    call("execute").success()
    detail = check_of("loop", *DOCTOR)["detail"]
    assert detail.endswith("`execute` last made a pass at 2026-11-20T12:00:00.000000Z")
    clock.advance(minutes=6)
    call("resume", "--id", id_).success()
    call("trigger", "--id", id_).success()
    clock.advance(minutes=6)
    found = failed_checks(*WITHOUT)
    assert found["schedules"]["detail"] == f"overdue by more than 5 minutes: 1 schedule ({id_})"


def test_a_loop_that_is_there_is_health(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop]
) -> None:
    """P9: with a loop all is well; and once it is killed, it isn't."""
    add(sandbox.agents[0])
    one = loops()
    wait_for(lambda: check_of("loop", *DOCTOR)["ok"])
    assert call(*DOCTOR).success()["message"] == "Nothing is wrong."
    one.kill()
    assert list(failed_checks()) == ["loop"]


def test_what_is_in_doubt_needs_somebody(
    sandbox: Sandbox, var: Path, loops: Callable[..., Loop]
) -> None:
    """P9: of what a dead loop left in doubt nobody is said to find out, unless one is there."""
    sandbox.latency = 1e6
    add(sandbox.agents[0], "p", "--time", "in 1s")
    one = loops()
    wait_for(lambda: sandbox.state()["agents"][0]["active_runs"])
    one.kill()
    found = failed_checks(*WITHOUT)
    assert found["deliveries"]["detail"] == "1 in doubt, of workers that died"
    assert found["deliveries"]["hint"].startswith("Run `promptyoself execute --loop`")
    loops()
    wait_for(lambda: check_of("loop", *DOCTOR)["ok"])
    assert check_of("deliveries", *DOCTOR)["hint"] in (
        "The loop is finding out what became of them.", "")  # fmt: skip
    sandbox.finish_runs()


def test_trying_in_vain_is_no_health(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: a slot that is tried again and again is told of, with what is in the way."""
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    id_ = add(AGENT, "p", "--time", "in 1m")
    clock.advance(minutes=1)
    call("execute").success()
    assert "letta_unreachable" in check_of("deliveries", *WITHOUT)["detail"]
    assert check_of("deliveries", *WITHOUT)["ok"]
    for _ in range(12):
        clock.advance(minutes=1)
        call("execute").success()
    found = failed_checks(*WITHOUT)
    assert found["deliveries"]["detail"] == (
        f"none in doubt; tried in vain for more than 10 minutes (letta_unreachable): "
        f"1 schedule ({id_})"
    )


def test_a_slot_that_waits_for_its_jitter_is_not_overdue(var: Path, clock: Clock) -> None:
    """P9: and nothing is called late that is not to begin yet."""
    add(AGENT, "p", "--every", "2h", "--jitter", "110m")
    listed = call("list", "--full").success()["schedules"][0]
    store = Store(load_settings(), {"via": "t", "who": "t"}, warn=print)
    from promptyoself.schedules import ready_at

    schedule = store.read().state.schedules[listed["id"]]
    assert ready_at(schedule, listed["next_run"]) > "2026-11-20T14:10"
    clock.advance(hours=2, minutes=7)
    call(*WITHOUT).success()


def test_quick_reads_no_more_for_many(var: Path, clock: Clock) -> None:
    """P8: of many schedules, `doctor --quick` reads none that it needn't name."""
    from promptyoself.index.tree import Inner, Parts, Tree

    for number in range(300):
        with_agent = ("register", "--agent-id", f"agent-{number}", "--prompt", "p" * 400)
        call(*with_agent, "--every", "1h").success()
    store = Store(load_settings(), {"via": "t", "who": "t"}, warn=print)
    state = store.read().state  # which catches up with what isn't in the index yet
    assert isinstance(state.schedules.base, Tree)
    assert isinstance(state.schedules.base.root, Inner)
    read: list[str] = []
    original = Parts.read

    def counted(self: Parts, kind: Any, file: str) -> Any:
        read.append(file)
        return original(self, kind, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Parts, "read", counted)
        examine(store, clock.now, None, quick=True)
    assert not read


# --- /healthz -------------------------------------------------------------------------------------


def test_the_health_of_a_loop_tells_of_failures(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """P9: /healthz isn't green over a schedule that is parked, nor over one that is failing."""
    id_ = add()
    watched = Watched(FakeLetta())

    def schedules() -> tuple[bool, str, str]:
        (found,) = (each for each in watched.monitor.health() if each.name == "schedules")
        return found.ok, found.code, found.detail

    assert schedules() == (True, "", "")
    clock.advance(hours=1)
    call("execute").success()
    assert schedules() == (
        False, "failing", f"the latest delivery failed of 1 schedule ({id_}).")  # fmt: skip
    for _ in range(4):
        clock.advance(hours=1)
        call("execute").success()
    assert schedules()[:2] == (False, "failed")
    assert id_ in schedules()[2]


# --- list -----------------------------------------------------------------------------------------


def test_list_says_what_it_left_out(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """P9: a list without what has failed says so, for all and for one agent, then and now; nothing
    of note left out, nothing said."""
    plain = call("list").success()
    assert "not_shown" not in plain
    id_ = add()
    other = add(sandbox.agents[0])
    park(clock, id_)
    for arguments in ((), ("--agent-id", AGENT), ("--status", "active"), ("--limit", "1")):
        found = call("list", *arguments).success()
        assert found["not_shown"] == {"failed": 1}, arguments
        assert found["message"] == "1 failed, not shown."
    assert call("list").success()["schedules"][0]["id"] == other
    assert "1 failed, not shown." in call("list", "--format", "table").out.decode()
    for arguments in (("--agent-id", sandbox.agents[0]), ("--status", "all"), ("--at", "2"),
                      ("--status", "failed"), ("--status", "cancelled")):  # fmt: skip
        assert "not_shown" not in call("list", *arguments).success(), arguments
    (var / "schedules" / "index.json").unlink()
    assert call("list", "--agent-id", AGENT).success()["not_shown"] == {"failed": 1}
    call("resume", "--id", id_).success()
    assert "not_shown" not in call("list", "--agent-id", AGENT).success()
