"""The form for people: who gets it and who doesn't, and what it can't be made to do."""

from __future__ import annotations

import stat
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
import pytest
from calling import add, call, run
from terminals import at_terminal, picture, without_codes

from promptyoself import cli
from promptyoself.doors.agent_names import known_names, remember_names
from promptyoself.doors.agent_parameters import commands_of, parameters
from promptyoself.doors.registry import TOOLS
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from conftest import Clock

    from promptyoself.sandbox import Sandbox

ROOT = Path(__file__).resolve().parents[3]
HOSTILE = "\x1b[2J\x1b]0;owned\x07[red]bold[/red]\u202egnp.exe\r\n│ sch_00000000 │\t:smile:"


WITH_A_ZONE = {
    "list": "", "show": "ID", "agenda": "", "simulate": "--until 2026-11-29T10:00Z",
    "report": "", "history": "", "replies": "", "diff": "--since 0", "stats": "", "desires": "",
    "budgets": "", "approvals": "", "audit": "", "verify": "", "head": "",
}  # fmt: skip
"""The commands that look at what there is, and a call of each."""

_WITHOUT_TIMES = {"replies", "desires", "budgets", "approvals", "verify"}
"""Those that have no time to show here."""


def environ_at(var: Path, environ: dict[str, str], **more: str) -> dict[str, str]:
    return {**environ, "TERM": "xterm-256color", **more}


def test_programs_get_json(var: Path, environ: dict[str, str]) -> None:
    """P7: where stdout is no terminal, every answer is JSON; with --format json at a terminal too,
    and the setting says the same for all calls."""
    add()
    listed = call("list").success()
    assert orjson.loads(run("list", environ=environ).out) == listed
    for arguments, setting in (
        (("list", "--format", "json"), "auto"),
        (("list",), "json"),
        (("list", "--format=json"), "table"),
    ):
        there = {**environ, "TERM": "xterm", "PROMPTYOSELF_FORMAT": setting}
        answer = at_terminal(*arguments, environ=there)
        assert orjson.loads(answer.out) == listed, arguments


def test_a_setting_asks_for_the_form(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTYOSELF_FORMAT=table gives people's form in a pipe too, of errors as well; an option
    wins, and a word that it doesn't know is refused."""
    add(prompt="Stretch.")
    monkeypatch.setenv("PROMPTYOSELF_FORMAT", "table")
    assert "Stretch." in call("list").out.decode()
    assert call("list", "--format", "json").success()["count"] == 1
    assert call("lst").out.startswith(b"error: ")
    assert call("show").out.startswith(b"error: ")
    call("show", "--format", "json").error("missing_option", 2)
    monkeypatch.setenv("PROMPTYOSELF_FORMAT", "pretty")
    call("list").error("invalid_setting")
    call("list", "--format", "pretty").error("invalid_value", 2)


def test_agents_get_json(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: through the other doors every answer is JSON, whatever the setting says."""
    from promptyoself.doors.command import call_command
    from promptyoself.doors.commands.listing import list_command
    from promptyoself.doors.session import Caller
    from promptyoself.service.delivery.loop import StopFlag

    add()
    listed = call("list").success()
    monkeypatch.setenv("PROMPTYOSELF_FORMAT", "table")
    answer = call_command(list_command, [], Caller("mcp", StopFlag()))
    assert orjson.loads(answer) == listed
    monkeypatch.setattr(cli, "_run", partial(cli._run, via="sanctum"))
    assert call("list").success() == listed
    assert call("show", "--id", "sch_00000000").document["code"] == "unknown_id"
    assert call("shw").document["code"] == "unknown_command"


def test_an_error_has_two_lines(var: Path, environ: dict[str, str]) -> None:
    """What was wrong, with the code; and what to do. On stdout and with the exit code that it has
    for programs, whether Click or we found it."""
    add()
    there = environ_at(var, environ)
    for arguments, code, exit_code in (
        (("show", "--id", "sch_00000000"), "unknown_id", 1),
        (("prune",), "missing_option", 2),
        (("shw",), "unknown_command", 2),
        (("list", "--lmit", "3"), "unknown_option", 2),
        (("list", "--var", ""), "invalid_value", 2),
    ):
        document = run(*arguments, environ=environ).error(code, exit_code)
        shown = at_terminal(*arguments, environ=there, columns=200)
        lines = without_codes(shown.out).splitlines()
        assert shown.code == exit_code
        assert lines[0] == f"error: {document['message']}  {code}"
        assert lines[1] == f"  try: {document['hint']}"
        assert len(lines) == 2


@pytest.mark.parametrize("command", ["show", "cancel", "modify"])
def test_a_person_who_names_no_schedule_is_told_how(var: Path, command: str) -> None:
    """In place of the option, which people needn't give; programs are told which one is missing."""
    answer = call(command, "--format", "table")
    assert answer.code == 2
    shown = " ".join(answer.out.decode().split())
    assert "Name a schedule: its id, its name, or the beginning of its id." in shown
    assert "missing_option" in shown
    assert call(command).error("missing_option", 2)["message"] == "Missing option '--id'."


def test_an_error_repeats_a_day_that_no_calendar_has() -> None:
    """A word of the caller's that looks like an instant, and isn't one, stays as it is."""
    answer = call("show", "2026-11-31T25:00:00.000000Z", "--format", "table")
    shown = answer.out.decode()
    assert "2026-11-31T25:00:00.000000Z" in shown
    assert "unknown_id" in shown
    assert "Traceback" not in answer.err


@pytest.mark.parametrize(
    "there", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
def test_no_codes_where_none_are_wanted(
    var: Path, environ: dict[str, str], there: dict[str, str]
) -> None:
    """With NO_COLOR, or at a terminal that has none, there are no codes; where the terminal takes
    ASCII alone, there is nothing but ASCII. The words are there all the same."""
    add("--every", "1h", "--name", "Ünïcode", prompt="Çava?")
    add("--cron", "0 9 * * *", prompt="x")
    lines = {"PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    for arguments in (("list",), ("show", "--id", "sch_00000000"), ("history",)):
        answer = at_terminal(*arguments, environ={**environ_at(var, environ), **lines, **there})
        assert b"Warning" not in answer.out, answer.out
        if "LC_ALL" in there:
            assert answer.out.isascii(), answer.out
        else:
            assert b"\x1b" not in answer.out, answer.out
        assert b"every 1h" in answer.out or arguments != ("list",)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_nothing_that_others_wrote_acts_on_the_terminal(var: Path, columns: int) -> None:
    """P7: control characters of prompts, names, reasons and agents are shown as escapes; markup is
    text; nothing can look like another line."""
    agent = "agent-[bold]x[/bold]"
    id_ = add("--every", "1h", "--name", "[red]n\u200bame[/red]", agent=agent, prompt=HOSTILE)
    call("pause", "--id", id_, "--reason", HOSTILE).success()
    remember_names(var, {agent: "\x1b[31mBo\u202e[/]"})
    for arguments in (
        ("list",),
        ("list", "--full"),
        ("show", "--id", id_),
        ("history",),
        ("budgets",),
        ("diff", "--since", "0"),
        ("audit",),
        ("cancel", "--id", HOSTILE.replace("\r\n", " ")),
        ("desire", "--agent-id", agent, "--text", HOSTILE),
        ("desires",),
    ):
        text = picture(*arguments, columns=columns)
        unseen = [c for c in text if not (c.isprintable() or c == "\n")]
        assert not unseen, (arguments, unseen)
        assert "\u202e" not in text
        assert "\n│" not in text, arguments
    assert "[red]n\\u200bame[/red]" in picture("list", columns=120)


def test_names_of_agents_are_remembered(var: Path, sandbox: Sandbox) -> None:
    """What Letta told last is shown, without asking it again; whatever is wrong with the file costs
    the names and nothing else. A caller who is pinned sees none."""
    echo, _ = sandbox.agents
    add(agent=echo)
    assert known_names(var) == {}
    call("agents").success()
    assert set(known_names(var).values()) == {"echo", "other"}
    named = call("list", "--agent-id", "echo").success()
    assert [line["agent_id"] for line in named["schedules"]] == [echo]
    assert "warning" not in call("audit", "--agent-id", "echo").success()
    assert "warning" in call("audit", "--agent-id", "nobody").success()
    file = var / "agent-names.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    remember_names(var, {"agent-9": "nine", echo: None})
    assert known_names(var) == {"agent-9": "nine", sandbox.agents[1]: "other"}
    call("register", "--agent-id", echo, "--prompt", "x", "--every", "1h", "--check").success()
    id_ = call("list").success()["schedules"][0]["id"]
    assert f"echo ({echo})" in picture("show", "--id", id_)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTYOSELF_ONLY_AGENT", echo)
        assert "echo (" not in picture("show", "--id", id_)
    for content in (b"", b"[]", b"{", b'{"format":1,"names":[1]}', b'{"format":2,"names":{}}'):
        file.write_bytes(content)
        assert known_names(var) == {}
        assert call("list").success()
        assert "every 1h" in picture("list", columns=100)
    file.unlink()
    file.mkdir()
    assert call("agents").success()
    assert known_names(var) == {}


def test_times_are_the_readers(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instants are said by the reader's clocks; a schedule that goes by others says so."""
    add("--cron", "0 9 * * MON-FRI", "--tz", "America/New_York", prompt="x")
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Asia/Tokyo")
    (line,) = picture("list", columns=100).splitlines()[1:]
    assert "weekdays at 09:00 (New_York)" in line
    assert "today 23:00 (in 2 h)" in line
    monkeypatch.setenv("PROMPTYOSELF_TZ", "America/New_York")
    (line,) = picture("list", columns=100).splitlines()[1:]
    assert "weekdays at 09:00  " in line
    assert "today 09:00 (in 2 h)" in line


@pytest.mark.parametrize("command", sorted(WITH_A_ZONE))
def test_a_reader_may_name_a_zone(
    command: str, var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--tz` wins over the setting wherever times are looked at. One that doesn't exist is one
    error, and agents have no such option."""
    id_ = add("--time", "2026-11-28T12:00Z", prompt="x")
    call("execute")
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Europe/Paris")
    words = [command, *WITH_A_ZONE[command].replace("ID", id_).split()]
    in_tokyo = picture(*words, "--tz", "Asia/Tokyo")
    assert in_tokyo != picture(*words) or command in _WITHOUT_TIMES
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Asia/Tokyo")
    assert in_tokyo == picture(*words)
    document = call(*words, "--tz", "Asia/Tokio").error("unknown_zone")
    assert "Asia/Tokyo" in document["hint"]
    assert "Asia/Tokyo" in picture(*words, "--tz", "Asia/Tokio")
    for offered in commands_of(cli.cli, {command} & TOOLS.keys()).values():
        assert "tz" not in [parameter.name for parameter in parameters(offered)]


def test_a_zone_changes_no_json(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that names one gets the same document; what it asks for is read there."""
    id_ = add("--cron", "0 9 * * *", "--tz", "Europe/Paris", prompt="x")
    for words in (("list",), ("show", id_), ("history",), ("stats",)):
        answer, there = call(*words), call(*words, "--tz", "Asia/Tokyo")
        assert there.out == answer.out, words
    since = call("report", "--since", "2026-11-28T09:00", "--tz", "Asia/Tokyo").success()
    assert since["since"] == "2026-11-28T00:00:00.000000Z"


def test_the_fires_of_a_schedule_are_shown_in_a_zone(var: Path, clock: Clock) -> None:
    """With a trigger, the zone is the trigger's, and with a schedule the reader's. A program that
    names both is refused as before."""
    id_ = add("--cron", "0 9 * * *", "--tz", "UTC", prompt="x")
    shown = picture("next", id_, "--tz", "Asia/Tokyo")
    assert "Sat 21 Nov 18:00" in shown
    assert "Asia/Tokyo" in picture("next", id_, "--tz", "Asia/Tokio")
    assert "conflicting_options" in picture("next", id_, "--tz", "Asia/Tokyo", "--every", "1h")
    call("next", "--id", id_, "--tz", "Asia/Tokyo").error("conflicting_options", 2)


@pytest.mark.skipif((ROOT / ".env").exists(), reason="a developer's settings would count")
def test_without_a_setting_times_are_the_machines(
    var: Path, clock: Clock, environ: dict[str, str]
) -> None:
    """Where PROMPTYOSELF_TZ isn't set, the reader's clocks are those of the machine."""
    add("--time", "2026-11-28T12:00Z", "--tz", "UTC", prompt="x")
    there = environ_at(var, environ, TZ="Asia/Tokyo", NO_COLOR="1")
    del there["PROMPTYOSELF_TZ"]
    assert b"today 21:00 (in 2 h)" in at_terminal("list", environ=there).out


def test_a_pager_is_for_what_is_longer_than_the_screen(
    var: Path, environ: dict[str, str], tmp_path: Path
) -> None:
    """A long answer goes through PAGER, and a short one, an error or --no-pager doesn't; a pager
    that isn't there is no reason to show nothing."""
    for number in range(12):
        add(prompt=f"number {number}")
    kept = tmp_path / "kept"
    there = environ_at(var, environ, PAGER=f"tee {kept} | tr n N")
    paged = at_terminal("list", environ=there, lines=10)
    assert b"Number 11" in paged.out
    assert b"\x1b[" in kept.read_bytes()
    kept.unlink()
    for arguments, lines in ((("list",), 40), (("list", "--no-pager"), 10)):
        shown = at_terminal(*arguments, environ=there, lines=lines)
        assert b"number 11" in shown.out
    for pager in ("", "cat", "/nonexistent/pager"):
        shown = at_terminal("list", environ={**there, "PAGER": pager}, lines=10)
        assert (shown.code, b"number 11" in shown.out) == (0, True), pager
    assert not kept.exists()


def test_help_is_asked_for_by_h(var: Path) -> None:
    """`-h` is `--help`, of the group and of every command."""
    for command in ((), ("list",), ("register",), ("show", "--id")):
        assert call(*command, "-h").out == call(*command, "--help").out or command[-1:] == ("--id",)
    assert call("list", "-h", "--limit", "1", "--limit", "2", verbatim=True).code == 0


def test_a_pipe_loads_nothing_of_it(var: Path, environ: dict[str, str]) -> None:
    """P8: where nobody looks, neither rich nor cron-descriptor nor the forms are loaded; an error
    doesn't load them either."""
    import subprocess

    add("--cron", "0 9 * * MON-FRI", prompt="x")
    code = "import sys\nfrom promptyoself import cli\ncli._run(sys.argv[1:])\n"
    code += "print(*sys.modules, file=sys.stderr)"
    for arguments in (("list",), ("history",), ("show", "--id", "nobody"), ("shw",)):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], env=environ, capture_output=True, check=True
        )
        modules = done.stderr.decode().split()
        assert "promptyoself.doors.output" in modules
        unwanted = ("rich", "cron_descriptor", "promptyoself.doors.terminal", "tzlocal")
        assert not [name for name in modules if name.startswith(unwanted)], arguments


def test_what_is_said_once_is_read_once(var: Path, environ: dict[str, str]) -> None:
    """At a terminal the warning of an answer isn't on stderr too; where stdout goes elsewhere it
    is on both, as ever."""
    add()
    there = environ_at(var, environ)
    shown = at_terminal("list", "--agent-id", "agent-nobody", environ=there).out
    assert without_codes(shown).count("knows of no agent") == 1
    piped = run("list", "--agent-id", "agent-nobody", environ=environ)
    assert "knows of no agent" in piped.err
    assert "knows of no agent" in piped.success()["warning"]


def test_long_work_tells_how_far_it_is(
    var: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a person sees stderr, each command that reads the log, or a file, tells how far it is,
    and tells when it has ended. A program isn't told."""
    told: list[tuple[str, int | None]] = []
    for number in range(3):
        add(prompt=f"number {number}")
    clock.advance(days=20)
    monkeypatch.setattr(Session, "interactive", True)
    monkeypatch.setattr(Session, "_show_progress", lambda _, *what: told.append(what))
    assert call("export", "--out", str(tmp_path / "export")).code == 0
    for arguments, what in (
        (("verify",), "events"),
        (("rebuild",), "events"),
        (("audit",), "events"),
        (("history",), "events"),
        (("pack", "--out", str(tmp_path / "pack.zip")), "events"),
        (("seal",), "events"),
        (("recover", "--dry-run"), "events"),
        (("import", str(tmp_path / "export")), "lines"),
        (("simulate", "--until", "in 1d"), "slots ahead"),
    ):
        told.clear()
        call(*arguments).success()
        assert (what, None) in told, arguments
        assert max(done or 0 for counted, done in told if counted == what) >= 3, arguments


def test_a_bar_is_for_what_takes_longer_than_a_moment(var: Path, environ: dict[str, str]) -> None:
    """What is done at once shows no bar, and leaves nothing on the terminal."""
    add()
    shown = at_terminal("verify", environ=environ_at(var, environ, NO_COLOR="1"))
    assert b"%" not in shown.out
    assert shown.out.startswith("✓ The log is intact".encode())


def test_a_pass_is_told_line_by_line(var: Path, clock: Clock, sandbox: Sandbox) -> None:
    """`execute` tells a person which schedule was delivered, by its name, and what was skipped."""
    agent = sandbox.agents[0]
    id_ = add("--every", "1h", "--name", "stretch", agent=agent)
    clock.advance(hours=3, minutes=5)
    lines = picture("execute", columns=100).splitlines()
    assert lines[0].split()[:4] == ["15:05:00", "↷", "skipped", "stretch"]
    assert lines[1].split()[:4] == ["15:05:00", "✓", "delivered", "stretch"]
    assert len(lines) == 2
    assert picture("execute").startswith("✓ 0 prompts executed")
    call("cancel", "--id", id_).success()
