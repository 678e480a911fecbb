"""P9: nothing says that all is well while a prompt isn't delivered, or nothing is there that would
deliver it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, add, append_foreign, call
from damage import store_in
from dispatch import FakeLetta
from loops import Loop, loops, wait_for
from monitors import Watched

from promptyoself.index.parts import Branch, PartFiles
from promptyoself.index.tree import Tree
from promptyoself.service.upkeep.doctor import examine
from promptyoself.state.schedules import ready_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Clock

    from promptyoself.sandbox import Sandbox

__all__ = ["loops"]

pytestmark = pytest.mark.usefixtures("var")

DOCTOR = ("doctor", "--skip-letta")
WITHOUT = (*DOCTOR, "--allow-no-loop")


def park(clock: Clock, id_: str, every: timedelta = timedelta(hours=1)) -> None:
    """Let a schedule of an agent that doesn't exist fail until it is parked."""
    for _ in range(5):
        clock.advance(seconds=every.total_seconds())
        call("execute").success()
    assert call("show", "--id", id_).success()["schedule"]["status"] == "failed"


def failed_checks(*arguments: str) -> dict[str, dict[str, Any]]:
    """The checks of `doctor` that fail, by name."""
    checks = call(*(arguments or DOCTOR)).error("unhealthy")["checks"]
    return {check["name"]: check for check in checks if not check["ok"]}


def check_of(name: str, *arguments: str) -> dict[str, Any]:
    """One check of `doctor`."""
    checks = call(*arguments).document["checks"]
    return dict(next(check for check in checks if check["name"] == name))


# --- doctor ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("quick", [(), ("--quick",)])
def test_a_parked_schedule_is_no_health(
    sandbox: Sandbox, clock: Clock, quick: tuple[str, ...]
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


def test_a_one_off_that_failed_is_no_health(sandbox: Sandbox, clock: Clock) -> None:
    """P9: nor is a one-off that came to nothing; `--allow-failed` only tells of it."""
    id_ = add("--time", "in 1m")
    clock.advance(minutes=1)
    call("execute").success()
    assert failed_checks()["failures"]["detail"] == f"1 failed: {id_} (a one-off)"
    call(*DOCTOR, "--allow-failed").success()
    assert check_of("failures", *DOCTOR, "--allow-failed")["detail"].startswith("1 failed")
    call("cancel", "--id", id_).success()
    call(*DOCTOR).success()


def test_a_resumed_schedule_is_well_with_its_next_delivery(sandbox: Sandbox, clock: Clock) -> None:
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


def test_many_failures_are_counted_and_some_named(sandbox: Sandbox, clock: Clock) -> None:
    """P9: of many, three are named and all are counted."""
    for number in range(5):
        add("--time", "in 1m", prompt=f"p{number}")
    clock.advance(minutes=1)
    for _ in range(5):
        call("execute").success()
    detail = failed_checks()["failures"]["detail"]
    assert detail.startswith("5 failed: sch_")
    assert detail.count("sch_") == 3
    assert detail.endswith(", …")


def test_prompts_without_a_loop_are_no_health(clock: Clock) -> None:
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


def test_a_loop_that_is_there_is_health(sandbox: Sandbox, loops: Callable[..., Loop]) -> None:
    """P9: with a loop all is well, and what is registered draws no warning; once the loop is
    killed, neither is so."""
    register = ("register", "--agent-id", sandbox.agents[0], "--every", "1h", "--prompt")
    assert warning_of(*register, "1")
    loop = loops()
    wait_for(lambda: check_of("loop", *DOCTOR)["ok"])
    assert call(*DOCTOR).success()["message"] == "Nothing is wrong."
    assert not warning_of(*register, "2")
    loop.kill()
    assert list(failed_checks()) == ["loop"]
    assert warning_of(*register, "3")


def test_what_is_in_doubt_needs_somebody(sandbox: Sandbox, loops: Callable[..., Loop]) -> None:
    """P9: of what a dead loop left in doubt nobody is said to find out, unless one is there."""
    sandbox.latency = 1e6
    add("--time", "in 1s", agent=sandbox.agents[0])
    loop = loops()
    wait_for(lambda: sandbox.state()["agents"][0]["active_runs"])
    loop.kill()
    found = failed_checks(*WITHOUT)
    assert found["deliveries"]["detail"] == "1 in doubt, of workers that died"
    assert found["deliveries"]["hint"].startswith("Run `promptyoself execute --loop`")
    loops()
    wait_for(lambda: check_of("loop", *DOCTOR)["ok"])
    assert check_of("deliveries", *DOCTOR)["hint"] in (
        "The loop is finding out what became of them.", "")  # fmt: skip
    sandbox.finish_runs()


def test_trying_in_vain_is_no_health(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: a slot that is tried again and again is told of, with what is in the way."""
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9")  # where nobody listens
    id_ = add("--time", "in 1m")
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
    add("--every", "2h", "--jitter", "110m")
    listed = call("list", "--full").success()["schedules"][0]
    schedule = store_in(var / "schedules").read().state.schedules[listed["id"]]
    assert ready_at(schedule, listed["next_run"]) > "2026-11-20T14:10"
    clock.advance(hours=2, minutes=7)
    call(*WITHOUT).success()


def test_quick_reads_no_more_for_many(var: Path, clock: Clock) -> None:
    """P8: of many schedules, `doctor --quick` reads none that it needn't name."""
    for number in range(300):
        add(agent=f"agent-{number}", prompt="p" * 400)
    store = store_in(var / "schedules")
    state = store.read().state  # which catches up with what isn't in the index yet
    assert isinstance(state.schedules.base, Tree)
    assert isinstance(state.schedules.base.root, Branch)
    read: list[str] = []
    original = PartFiles.read

    def counted(self: PartFiles, kind: Any, file: str) -> Any:
        read.append(file)
        return original(self, kind, file)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartFiles, "read", counted)
        examine(store, clock.now, None, quick=True)
    assert not read


# --- /healthz -------------------------------------------------------------------------------------


def test_the_health_of_a_loop_tells_of_failures(sandbox: Sandbox, clock: Clock) -> None:
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
    other = add(agent=sandbox.agents[0])
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


# --- registering where nothing delivers -----------------------------------------------------------

NO_LOOP = "No loop is running"


def warning_of(*arguments: str) -> str:
    """The warning of a command that succeeds; empty where there is none."""
    return str(call(*arguments).success().get("warning", ""))


def test_what_asks_for_deliveries_says_that_nothing_makes_any(
    sandbox: Sandbox, tmp_path: Path, clock: Clock
) -> None:
    """P9: every command that makes or revives something to deliver says that nothing delivers; none
    does within the hour after a pass, and one that ends something never does."""
    base = ("--agent-id", sandbox.agents[0], "--every", "1h")
    register = ("register", *base, "--prompt")
    exported = tmp_path / "exported.ndjson"

    def all_of(turn: str) -> list[str]:
        id_ = call(*register, turn).success()["id"]
        found = [warning_of(*register, turn), warning_of("trigger", "--id", id_)]
        found.append(warning_of("modify", "--id", id_, "--every", "2h"))
        assert not warning_of("pause", "--id", id_)
        found.append(warning_of("resume", "--id", id_))
        exported.write_bytes(call("export").out)
        assert not warning_of("cancel", "--id", id_)
        found.append(warning_of(*register, turn))
        found.append(warning_of("idle", *base, "--name", turn))
        clock.advance(seconds=1)
        return found

    assert all(each.startswith(NO_LOOP) for each in all_of("first"))
    assert warning_of("import", str(exported), "--var", str(tmp_path / "b")).startswith(NO_LOOP)
    assert warning_of("import", str(exported), "--var", str(tmp_path / "b")) == ""  # nothing new
    call("execute").success()
    assert not any(all_of("second"))
    clock.advance(minutes=59)
    assert not any(all_of("third"))
    clock.advance(minutes=2)
    assert all(each.startswith(NO_LOOP) for each in all_of("fourth"))


def test_a_pass_leaves_word_and_nothing_else(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8: `execute` with nothing due writes an empty file's time; where there is no data directory,
    or for one agent alone, not even that; and nothing through a link."""
    call("execute").success()
    assert not var.exists()
    add()
    mark = var / "last-pass"
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    call("execute").success()
    assert not mark.exists()
    monkeypatch.delenv("PROMPTYOSELF_ONLY_AGENT")
    call("execute").success()
    assert (mark.stat().st_size, mark.stat().st_mtime) == (0, clock.now.timestamp())
    assert mark.stat().st_mode & 0o777 == 0o600
    other = var / "other"
    other.write_text("")
    before = other.stat().st_mtime_ns
    mark.unlink()
    mark.symlink_to(other)
    call("execute").success()
    assert other.stat().st_mtime_ns == before


# --- registering more than a day allows -----------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("--every", "2m"), "It fires up to 720 times a day, and its agent gets at most 500"),
        (("--every", "3m"), ""),
        (("--every", "2m", "--max-repetitions", "400"), ""),
        (("--every", "2m", "--until", "in 10h"), ""),
        (("--every", "2m", "--daily-budget", "500"), "of which its daily budget allows 500"),
        (("--every", "1h", "--daily-budget", "24"), ""),
        (("--every", "1h", "--daily-budget", "5"), "of which its daily budget allows 5"),
        (("--cron", "* * * * MON"), "It fires up to 1440 times a day"),
        (("--cron", "*/5 * * * *"), ""),
        # A day there lies on two days in UTC, which are those that count.
        (("--cron", "* 0-13 * * MON", "--tz", "Pacific/Auckland"), "It fires up to 780 times a"),
        (("--cron", "* 5-20 * * MON", "--tz", "Pacific/Auckland"), ""),
        (("--time", "in 1h", "--daily-budget", "0"), "up to once a day, of which its daily budget"),
    ],
)
def test_a_registration_beyond_a_days_budget_is_told(
    clock: Clock, asked: tuple[str, ...], told: str
) -> None:
    """P9: what the loop would skip day by day is told when it is registered."""
    call("execute").success()
    found = warning_of("register", "--agent-id", AGENT, "--prompt", "p", *asked)
    found = found.partition(NO_LOOP)[0]
    assert (told in found) if told else not found, found


def test_schedules_that_together_exceed_a_day_are_told(clock: Clock) -> None:
    """P9: nor does it take one alone; changes and resumptions are told likewise."""
    add("--every", "3m", prompt="first")
    for agent, told in (("other", False), (AGENT, True)):
        found = warning_of("register", "--agent-id", agent, "--prompt", "2", "--every", "30m",
                           "--dry-run")  # fmt: skip
        assert ("With the agent's other schedules that makes up to 528 a day" in found) is told
    second = call("register", "--agent-id", AGENT, "--prompt", "2", "--every", "1d").success()
    assert "other schedules" not in second["warning"]
    modify = ("modify", "--id", second["id"])
    assert "up to 528 a day" in warning_of(*modify, "--every", "30m")
    assert "other schedules" not in warning_of(*modify, "--prompt", "two")
    call("pause", "--id", second["id"]).success()
    assert "up to 528 a day" in warning_of("resume", "--id", second["id"])
    approved = warning_of("register", "--agent-id", AGENT, "--prompt", "3", "--every", "1h",
                          "--tier", "2")  # fmt: skip
    assert "other schedules" in approved
    assert "Tier 2" in approved
    assert NO_LOOP in approved


# --- names that nothing has -----------------------------------------------------------------------

READING = [
    ("list",), ("history",), ("verify",), ("head",), ("stats",), ("audit",), ("budgets",),
    ("desires",), ("approvals",), ("simulate", "--until", "in 1d"), ("diff", "--from", "1"),
    ("export",), ("history", "--ndjson"),
]  # fmt: skip


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_a_mistyped_folder_is_told(
    var: Path, tmp_path: Path, clock: Clock, arguments: tuple[str, ...]
) -> None:
    """P9: of a folder that --var names and that isn't there nothing is said but that; of one that
    the environment names, the answer is empty and says why. Nothing is made there."""
    typed = str(tmp_path / "typed")
    document = call(*arguments, "--var", typed).error("var_missing")
    assert typed in document["message"]
    found = call(*arguments)
    assert found.err == (
        f"promptyoself: There is no folder '{var}', which PROMPTYOSELF_VAR or --var names.\n"
    )
    if found.out:
        assert str(var) in found.success()["warning"]
    assert not var.exists()
    add()
    again = call(*arguments)
    assert again.err == ""
    assert b'"warning"' not in again.out


def test_a_folder_without_a_log_is_told(var: Path, clock: Clock) -> None:
    """P9: a folder that is there, but has no log, is no empty log either."""
    var.mkdir()
    assert "There is no log yet in" in call("list").success()["warning"]
    document = call("show", "--id", "sch_00000000").error("unknown_id")
    assert "There is no log yet in" in document["warning"]


@pytest.mark.parametrize(
    "arguments",
    [("list",), ("history",), ("audit",), ("budgets",), ("desires",), ("export",),
     ("simulate", "--until", "in 1d")],
    ids=" ".join,
)  # fmt: skip
def test_a_mistyped_agent_is_told(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """P9: an agent that no log knows is told of; one that has ended its schedules, or has desires
    alone, is known; and who is pinned to an agent isn't told of others."""
    call("cancel", "--id", add(agent="agent-seven")).success()
    call("desire", "--agent-id", "agent-wish", "--text", "t").success()
    found = call(*arguments, "--agent-id", "agent-sevn")
    told = "The log knows of no agent 'agent-sevn'. Did you mean agent-seven?"
    assert found.err == f"promptyoself: {told}\n"
    if found.out:
        assert found.success()["warning"] == told
    for known in ("agent-seven", "agent-wish"):
        assert call(*arguments, "--agent-id", known).err == ""
    if arguments != ("simulate", "--until", "in 1d"):
        monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", "agent-sevn")
        assert call(*arguments, "--agent-id", "agent-sevn").err == ""


def test_a_type_that_there_is_none_of_is_refused(var: Path, clock: Clock) -> None:
    """P9: a mistyped type is an error that names the close ones; one of which there is no event yet
    is none; and what a newer version has written can be asked for."""
    add()
    document = call("history", "--type", "delivery.delivred").error("unknown_type")
    assert document["hint"].startswith("Did you mean delivery.delivered")
    assert "schedule.registered" in call("history", "--type", "xyz").error("unknown_type")["hint"]
    call("history", "--type", "delivery.", "--ndjson").error("unknown_type")
    for known in ("delivery", "delivery.failed", "desire", "desire.pruned", "worker"):
        assert call("history", "--type", known).success()["count"] == 0
    append_foreign(var, type="moon.landed", ts="2026-11-20T12:00:01.000000Z")
    assert call("history", "--type", "moon").success()["count"] == 1


def test_a_failed_schedule_that_is_modified_says_that_it_stays_failed(
    clock: Clock, sandbox: Sandbox
) -> None:
    """Another agent alone doesn't let it run again; the answer says what does."""
    once = add("--time", "in 1h", agent="agent-ghost")
    hourly = add("--every", "1h", agent="agent-ghost")
    park(clock, hourly)
    words = ("--agent-id", sandbox.agents[0])
    assert "and has no time left" in call("modify", once, *words).success()["message"]
    assert "It stays failed until" in call("modify", hourly, *words).success()["message"]
    assert "It stays failed until" in call("modify", once, "--time", "in 1h").success()["message"]
    for id_ in (once, hourly):
        call("resume", id_).success()
        assert call("show", id_).success()["schedule"]["status"] == "active"
        assert call("modify", id_, "--name", id_[4:]).success()["message"] == "Schedule modified."
