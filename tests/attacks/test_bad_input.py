"""P7: bad input changes nothing, and is answered with one JSON document."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import click
import orjson
import pytest
from calling import AGENT, Answer, append_foreign, call, log_of, run, served_to_agents
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptyoself.cli import cli
from promptyoself.core.validation import MAX_PROMPT_BYTES
from promptyoself.doors.mcp import lifecycle
from promptyoself.doors.registry import COMMANDS

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")
NO_TRIGGER = ("register", "--agent-id", AGENT, "--every", "5m")

# name: (arguments, code, exit code, what the sentence must name)
REFUSED: dict[str, tuple[tuple[str, ...], str, int, str]] = {
    "past time": ((*BASE, "--time", "2020-01-01T00:00"), "past_time", 1, "2020-01-01"),
    "no trigger": (BASE, "missing_option", 2, "--cron"),
    "time and cron": (
        (*BASE, "--time", "in 5m", "--cron", "* * * * *"), "conflicting_options", 2, "--cron",
    ),
    "all three triggers": (
        (*BASE, "--time", "in 5m", "--cron", "* * * * *", "--every", "5m"),
        "conflicting_options", 2, "--time",
    ),
    "cron that never fires": (
        (*BASE, "--cron", "0 0 31 2 *"), "cron_never_fires", 1, "0 0 31 2 *",
    ),
    "six fields": ((*BASE, "--cron", "0 0 9 * * *"), "invalid_cron", 1, "0 0 9 * * *"),
    "empty cron": ((*BASE, "--cron", ""), "invalid_cron", 1, "''"),
    "cron out of range": ((*BASE, "--cron", "61 * * * *"), "invalid_cron", 1, "61"),
    "zero interval": ((*BASE, "--every", "0s"), "invalid_duration", 1, "0s"),
    "negative interval": ((*BASE, "--every", "-5m"), "invalid_duration", 1, "-5m"),
    "interval of seconds": ((*BASE, "--every", "5"), "interval_too_short", 1, "'5'"),
    "interval with half a unit": ((*BASE, "--every", "5x"), "invalid_duration", 1, "'5x'"),
    "empty interval": ((*BASE, "--every", ""), "invalid_duration", 1, "''"),
    "interval below the least": ((*BASE, "--every", "9s"), "interval_too_short", 1, "9s"),
    "interval beyond a century": ((*BASE, "--every", "99999999d"), "invalid_duration", 1, "9999d"),
    "unknown zone": (
        (*BASE, "--every", "5m", "--tz", "Europe/Lundon"), "unknown_zone", 1, "Europe/Lundon",
    ),
    "zone as a path": (
        (*BASE, "--every", "5m", "--tz", "../../etc/passwd"), "unknown_zone", 1, "../../etc/passwd",
    ),
    "time in a spring gap": (
        (*BASE, "--time", "2031-03-30T01:30", "--tz", "Europe/London"),
        "nonexistent_time", 1, "2031-03-30T01:30",
    ),
    "no time": ((*BASE, "--time", "tomorrow"), "invalid_time", 1, "tomorrow"),
    "start after end": (
        (*BASE, "--every", "5m", "--start-at", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "start_after_until", 1, "2031-01-02",
    ),
    "end in the past": (
        (*BASE, "--every", "5m", "--until", "2020-01-01T00:00"), "never_fires", 1, "--until",
    ),
    "time after the end": (
        (*BASE, "--time", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "never_fires", 1, "--until",
    ),
    "zero repetitions": (
        (*BASE, "--every", "5m", "--max-repetitions", "0"), "invalid_max_repetitions", 1, "is 0",
    ),
    "negative repetitions": (
        (*BASE, "--every", "5m", "--max-repetitions", "-3"), "invalid_max_repetitions", 1, "-3",
    ),
    "repetitions that are no number": (
        (*BASE, "--every", "5m", "--max-repetitions", "many"), "invalid_value", 2, "many",
    ),
    "unknown tier": ((*BASE, "--every", "5m", "--tier", "3"), "invalid_tier", 1, "3"),
    "unknown misfire": ((*BASE, "--every", "5m", "--misfire", "some"), "invalid_value", 2, "some"),
    "negative budget": (
        (*BASE, "--every", "5m", "--daily-budget", "-1"), "invalid_daily_budget", 1, "-1",
    ),
    "zero grace": ((*BASE, "--every", "5m", "--grace", "0s"), "invalid_duration", 1, "0s"),
    "jitter as long as the interval": (
        (*BASE, "--every", "5m", "--jitter", "5m"), "invalid_jitter", 1, "5m",
    ),
    "jitter longer than a cron expression's gap": (
        (*BASE, "--cron", "* * * * *", "--jitter", "4m"), "invalid_jitter", 1, "* * * * *",
    ),
    "jitter as long as a cron expression's shortest gap": (
        (*BASE, "--cron", "0,50 9 * * *", "--jitter", "50m"), "invalid_jitter", 1, "50m",
    ),
    "jitter of a cron expression whose days meet": (
        (*BASE, "--cron", "5,55 0,23 31,1 * *", "--jitter", "10m"), "invalid_jitter", 1, "10m",
    ),
    "cron with a zone before it": (
        (*BASE, "--cron", "CRON_TZ=Europe/London 0 9 * * *"), "invalid_cron", 1, "names a zone",
    ),
    "cron that is an interval": ((*BASE, "--cron", "@every 5m"), "invalid_cron", 1, "interval"),
    "zone that is an offset": ((*BASE, "--every", "5m", "--tz", "GMT+2"), "unknown_zone", 1, "GMT"),
    "zone without summer time": (
        (*BASE, "--every", "5m", "--tz", "EST"), "unknown_zone", 1, "without summer time",
    ),
    "a date where a time is wanted": (
        (*BASE, "--time", "2031-01-01"), "invalid_time", 1, "without a time",
    ),
    "jitter as long as the grace": (
        (*BASE, "--cron", "@daily", "--jitter", "2h", "--grace", "1h"), "invalid_jitter", 1, "2h",
    ),
    "no prompt": (NO_TRIGGER, "missing_option", 2, "prompt"),
    "empty prompt": ((*NO_TRIGGER, "--prompt", ""), "empty_prompt", 1, "empty"),
    "blank prompt": ((*NO_TRIGGER, "--prompt", " \n\t\u3000"), "empty_prompt", 1, "blank"),
    "NUL": ((*NO_TRIGGER, "--prompt", "a\0b"), "invalid_prompt", 1, "position 1"),
    "lone surrogate": ((*NO_TRIGGER, "--prompt", "ab\ud800"), "invalid_prompt", 1, "position 2"),
    "prompt that is too long": (
        (*NO_TRIGGER, "--prompt", "x" * (MAX_PROMPT_BYTES + 1)), "prompt_too_long", 1, "1048577",
    ),
    "prompt and file": (
        (*BASE, "--every", "5m", "--prompt-file", "-"), "conflicting_options", 2, "--prompt-file",
    ),
    "file that isn't there": (
        (*NO_TRIGGER, "--prompt-file", "/nonexistent/file"), "unreadable_prompt_file", 1,
        "/nonexistent/file",
    ),
    "file that is a folder": (
        (*NO_TRIGGER, "--prompt-file", "/"), "unreadable_prompt_file", 1, "'/'",
    ),
    "file with a NUL in its name": (
        (*NO_TRIGGER, "--prompt-file", "a\0b"), "unreadable_prompt_file", 1, "x00",
    ),
    "no agent": (("register", "--prompt", "Hello", "--every", "5m"), "missing_option", 2, "agent"),
    "empty agent": (
        ("register", "--agent-id", "", "--prompt", "Hello", "--every", "5m"),
        "invalid_agent_id", 1, "''",
    ),
    "agent with white space": (
        ("register", "--agent-id", "a b", "--prompt", "Hello", "--every", "5m"),
        "invalid_agent_id", 1, "a b",
    ),
    "agent with a surrogate": (
        ("register", "--agent-id", "a\udcff", "--prompt", "Hello", "--every", "5m"),
        "invalid_agent_id", 1, "udcff",
    ),
    "endless agent": (
        ("register", "--agent-id", "a" * 201, "--prompt", "Hello", "--every", "5m"),
        "invalid_agent_id", 1, "aaaa",
    ),
    "conversation with white space": (
        (*BASE, "--every", "5m", "--conversation-id", "a b"), "invalid_conversation_id", 1, "a b",
    ),
    "endless name": ((*BASE, "--every", "5m", "--name", "n" * 201), "invalid_name", 1, "201"),
    "endless reason": (
        (*BASE, "--every", "5m", "--reason", "n" * 2001), "invalid_reason", 1, "2001",
    ),
    "reason with a surrogate": (
        ("cancel", "--id", "sch_00000000", "--reason", "\ud800"), "invalid_reason", 1, "surrogate",
    ),
    "unknown command": (("regsiter",), "unknown_command", 2, "regsiter"),
    "unknown option": (("list", "--agent", "x"), "unknown_option", 2, "--agent"),
    "option without its value": (("register", "--every"), "wrong_usage", 2, "--every"),
    "option that must be given": (("show",), "missing_option", 2, "--id"),
    "argument too many": (("list", "extra"), "wrong_usage", 2, "extra"),
    "unknown format": (("list", "--format", "xml"), "invalid_value", 2, "xml"),
    "empty data directory": (("list", "--var", ""), "invalid_value", 2, "--var"),
    "NUL in the data directory": (("list", "--var", "a\0b"), "invalid_setting", 1, "x00"),
    "surrogate in the data directory": (("list", "--var", "\ud800"), "invalid_setting", 1, "ud800"),
    "endless data directory": (("list", "--var", "x" * 5000), "var_unusable", 1, "xxx"),
    "unknown status": (("list", "--status", "done"), "invalid_value", 2, "done"),
    "limit of zero": (("list", "--limit", "0"), "invalid_value", 2, "0"),
    "limit beyond measure": (("history", "--limit", "9" * 30), "invalid_value", 2, "999"),
    "list at no time": (("list", "--at", "then"), "invalid_time", 1, "then"),
    "list at an endless number": (("list", "--at", "9" * 5000), "invalid_time", 1, "999"),
    "history since nothing": (("history", "--since", ""), "invalid_time", 1, "''"),
    "history until noon": (("history", "--until", "noon"), "invalid_time", 1, "noon"),
    "head that is none": (("verify", "--head", "12"), "invalid_head", 1, "12"),
    "head with a word for a number": (
        ("verify", "--head", "٣:" + "0" * 64), "invalid_head", 1, "000",
    ),
    "next of nothing": (("next",), "missing_option", 2, "--every"),
    "next of too much": (
        ("next", "--id", "sch_00000000", "--every", "5m"), "conflicting_options", 2, "--id",
    ),
    "next with negative repetitions": (
        ("next", "--every", "5m", "--max-repetitions", "-1"), "invalid_max_repetitions", 1, "-1",
    ),
    "next from an end to a start": (
        ("next", "--every", "5m", "--start-at", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "start_after_until", 1, "2031-01-01",
    ),
    "interval of the loop without the loop": (
        ("execute", "--interval", "5"), "conflicting_options", 2, "--loop",
    ),
    "deadline of the loop": (
        ("execute", "--loop", "--deadline", "5"), "conflicting_options", 2, "--deadline",
    ),
    "not a number": (("execute", "--deadline", "nan"), "invalid_value", 2, "nan"),
    "modify nothing": (("modify", "--id", "sch_00000000"), "nothing_to_modify", 2, "change"),
}  # fmt: skip
for _command in ("show", "cancel", "pause", "resume", "trigger", "next"):
    for _id in ("sch_00000000", "../../x", "", "sch_\ud800", "x" * 5000):
        REFUSED[f"{_command} {_id[:12]!r}"] = (
            (_command, "--id", _id), "unknown_id", 1, ascii(_id[:70])[1:-1],
        )  # fmt: skip
REFUSED["modify ../../x"] = (
    ("modify", "--id", "../../x", "--every", "5m"), "unknown_id", 1, "../../x",
)  # fmt: skip
REFUSED |= {
    "approval of nothing": (("approve", "--id", "sch_00000000"), "unknown_id", 1, "sch_00000000"),
    "approval of ../../x": (("approve", "--id", "../../x"), "unknown_id", 1, "../../x"),
    "approval of no id": (("approve",), "missing_option", 2, "--id"),
    "revoking nothing": (("revoke", "--id", "sch_00000000"), "unknown_id", 1, "sch_00000000"),
    "notice to nobody": (
        (*BASE, "--every", "5m", "--on-failure", "a b"), "invalid_on_failure", 1, "a b",
    ),
}  # fmt: skip
REFUSED["history ../../x"] = (("history", "--id", "../../x"), "unknown_id", 1, "../../x")


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_changes_nothing(case: str, var: Path) -> None:
    """P7: each kind of bad input has its code, names the wrong value, hints at a way out, and
    leaves the log as it was: missing where there was none, byte for byte the same where one was."""
    arguments, code, exit_code, named = REFUSED[case]
    for _ in range(2):
        before = log_of(var)
        document = call(*arguments).error(code, exit_code)
        said = document["message"].encode("ascii", "backslashreplace").decode()
        named = named.encode("ascii", "backslashreplace").decode().replace("\\\\", "\\")
        assert named in said.replace("\\\\", "\\"), (named, said)
        assert document["hint"] or code == "conflicting_options"
        assert log_of(var) == before
        call(*BASE, "--cron", "0 9 * * *").success()


@pytest.fixture
def registered(var: Path) -> str:
    """The id of a schedule that has just been registered."""
    id_: str = call(*BASE, "--every", "5m").success()["id"]
    return id_


def refuse(var: Path, code: str, *arguments: str, exit_code: int = 1) -> dict[str, object]:
    """Call it; it must refuse, and change nothing."""
    before = log_of(var)
    document = call(*arguments).error(code, exit_code)
    assert document["hint"]
    assert log_of(var) == before
    return document


def test_what_is_over_cannot_end_again(var: Path, registered: str) -> None:
    """P7: cancelling twice, and anything else that a cancelled schedule can't do, is refused."""
    call("cancel", "--id", registered).success()
    refuse(var, "already_cancelled", "cancel", "--id", registered)
    refuse(var, "not_active", "pause", "--id", registered)
    refuse(var, "not_paused", "resume", "--id", registered)
    refuse(var, "not_active", "trigger", "--id", registered)
    refuse(var, "not_active", "modify", "--id", registered, "--every", "10m")


def test_only_what_is_paused_resumes(var: Path, registered: str) -> None:
    """P7: resuming what isn't paused and pausing twice are refused."""
    refuse(var, "not_paused", "resume", "--id", registered)
    call("pause", "--id", registered).success()
    refuse(var, "already_paused", "pause", "--id", registered)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--time", "2020-01-01T00:00"), "past_time"),
        (("--cron", "0 0 31 2 *"), "cron_never_fires"),
        (("--every", "5s"), "interval_too_short"),
        (("--every", "5m", "--cron", "@daily"), "conflicting_options"),
        (("--until", "2020-01-01T00:00"), "never_fires"),
        (("--start-at", "2031-01-02T00:00", "--until", "2031-01-01T00:00"), "start_after_until"),
        (("--tz", "Mars/Olympus"), "unknown_zone"),
        (("--prompt", ""), "empty_prompt"),
        (("--agent-id", ""), "invalid_agent_id"),
        (("--jitter", "10m"), "invalid_jitter"),
        (("--cron", "* * * * *", "--jitter", "4m"), "invalid_jitter"),
        (("--cron", "TZ=UTC * * * * *"), "invalid_cron"),
        (("--tz", "EST"), "unknown_zone"),
        (("--max-repetitions", "0"), "invalid_max_repetitions"),
    ],
)
def test_modify_refuses_what_register_refuses(
    var: Path, registered: str, options: tuple[str, ...], code: str
) -> None:
    """P7: modify checks its options as register does, and changes nothing where one is bad."""
    exit_code = 2 if code == "conflicting_options" else 1
    refuse(var, code, "modify", "--id", registered, *options, exit_code=exit_code)


@pytest.mark.parametrize("through", ["file", "stdin", "argument"])
def test_a_mebibyte_is_the_most(var: Path, tmp_path: Path, through: str) -> None:
    """P7: exactly 1 MiB of prompt works, one byte more doesn't, however it comes and whatever
    character the limit cuts in two."""
    most = MAX_PROMPT_BYTES
    texts = {
        "x" * most: True,
        "é" * (most // 2): True,
        "x" * (most + 1): False,
        "x" * (most - 1) + "é": False,
        "x" * (most - 1) + "\U0001f600": False,
        "x" * (3 * most): False,
    }
    for number, (text, fits) in enumerate(texts.items()):
        arguments = ("register", "--agent-id", AGENT, "--every", f"{number + 1}h")
        stdin = b""
        if through == "argument":
            arguments += ("--prompt", text)
        elif through == "stdin":
            arguments, stdin = (*arguments, "--prompt-file", "-"), text.encode()
        else:
            path = tmp_path / "prompt.txt"
            path.write_bytes(text.encode() + b"\n")  # an editor's last newline doesn't count
            arguments += ("--prompt-file", str(path))
        answer = call(*arguments, stdin=stdin)
        if fits:
            id_ = answer.success()["id"]
            assert call("show", "--id", id_).success()["schedule"]["prompt"] == text
        else:
            assert str(most) in answer.error("prompt_too_long")["message"]


def test_a_file_that_is_not_utf8_is_refused(var: Path, tmp_path: Path) -> None:
    """P7: the sentence names the file and the first bad byte."""
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"caf\xe9")
    document = refuse(var, "invalid_prompt", *NO_TRIGGER, "--prompt-file", str(path))
    assert "byte 3" in str(document["message"])
    assert str(path) in str(document["message"])


def test_a_closed_stdin_is_an_empty_prompt(var: Path, environ: dict[str, str]) -> None:
    """P7: a host that closes stdin, as Sanctum does, gets an answer and no traceback."""
    call(*NO_TRIGGER, "--prompt-file", "-", stdin=None).error("empty_prompt")
    answer = run(
        *NO_TRIGGER, "--prompt-file", "-", environ=environ, stdin=None, prepare=lambda: os.close(0)
    )
    answer.error("empty_prompt")
    assert not log_of(var)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LETTA_BASE_URL", "localhost:8283"),
        ("PROMPTYOSELF_INTERVAL", "nan"),
        ("PROMPTYOSELF_INTERVAL", "0"),
        ("PROMPTYOSELF_MIN_INTERVAL", "0"),
        ("PROMPTYOSELF_MIN_INTERVAL", "٣"),
        ("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "-1"),
        ("PROMPTYOSELF_DAILY_PER_AGENT", "many"),
        ("PROMPTYOSELF_LOCK_TIMEOUT", "inf"),
        ("PROMPTYOSELF_LOG_PROMPTS", "maybe"),
        ("PROMPTYOSELF_ONLY_AGENT", "two words"),
        ("PROMPTYOSELF_DEFAULT_AGENT_ID", "a\udcff"),
        ("LETTA_AGENT_ID", "x" * 201),
        ("PROMPTYOSELF_TZ", "Mars/Olympus"),
    ],
)
def test_a_bad_setting_is_named(
    var: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """P7: a setting that can't be used is refused by its name and value, and nothing is done."""
    monkeypatch.setenv(name, value)
    document = call(*BASE, "--every", "5m").error("invalid_setting")
    assert name in document["message"]
    assert (
        ascii(value[:100])[1:-1] in document["message"].encode("ascii", "backslashreplace").decode()
    )
    assert document["setting"] == name
    assert document["hint"]
    assert not log_of(var)


# What the disk does.


def modes_count() -> None:
    """In a child, before Python starts: let the modes of files count, for root too."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH: gone after the next exec
        if libc.prctl(24, capability, 0, 0, 0):
            os._exit(99)


@pytest.fixture
def honest(environ: dict[str, str]) -> dict[str, str]:
    """The environment, if a child can be made for which modes count."""
    done = subprocess.run([sys.executable, "-c", ""], preexec_fn=modes_count, check=False)
    if done.returncode == 99:
        pytest.skip("root here may not give up its power over the modes of files")
    return environ


def test_an_unreadable_directory_is_said_to_be(
    var: Path, registered: str, honest: dict[str, str]
) -> None:
    """P7: where var/ may not be read, readers and writers say so, and name it."""
    before = log_of(var)
    var.chmod(0o000)
    try:
        for arguments in (("list",), (*BASE, "--every", "6m"), ("cancel", "--id", registered)):
            answer = run(*arguments, environ=honest, prepare=modes_count)
            document = answer.error("var_not_accessible")
            assert str(var) in document["message"]
            assert document["hint"]
    finally:
        var.chmod(0o700)
    assert log_of(var) == before


def test_a_read_only_directory_can_be_read(
    var: Path, registered: str, honest: dict[str, str]
) -> None:
    """P7: where var/ may only be read, writers are refused, and readers answer, also without an
    index and without being able to write one."""
    folder = var / "schedules"
    (folder / "index.json").unlink()
    before = log_of(var)
    for path in folder.iterdir():
        path.chmod(0o400)
    folder.chmod(0o500)
    var.chmod(0o500)
    try:
        listed = run("list", environ=honest, prepare=modes_count).success()
        assert [schedule["id"] for schedule in listed["schedules"]] == [registered]
        for arguments in ((*BASE, "--every", "6m"), ("pause", "--id", registered), ("rebuild",)):
            answer = run(*arguments, environ=honest, prepare=modes_count)
            assert str(var) in answer.error("var_not_accessible")["message"]
        doctor = run("doctor", "--skip-letta", environ=honest, prepare=modes_count)
        assert "can't be written" in doctor.error("unhealthy")["message"]
    finally:
        var.chmod(0o700)
        folder.chmod(0o700)
    assert log_of(var) == before


def test_a_full_disk_is_said_to_be(var: Path, registered: str, environ: dict[str, str]) -> None:
    """P7, P1: a write that the system cuts short is taken back: the log is as it was, and the next
    command goes on."""
    before = log_of(var)
    room = max(len(content) for content in before.values()) + 10

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))

    for arguments in ((*BASE, "--every", "6m"), ("cancel", "--id", registered)):
        document = run(*arguments, environ=environ, prepare=limit).error("disk_full")
        assert document["hint"]
        assert log_of(var) == before
    call(*BASE, "--every", "6m").success()
    assert call("verify").success()["events"] == 3


def test_a_full_file_system_is_said_to_be(tmp_path: Path, var: Path) -> None:
    """P7, P1: the same on a file system without room, where that can be made."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("no file system may be mounted here")
    try:
        small = place / "var"
        id_ = call(*BASE, "--every", "5m", "--var", str(small)).success()["id"]
        with (place / "filler").open("wb", buffering=0) as filler:
            try:
                while filler.write(b"x" * 512):
                    pass
            except OSError:
                pass
        before = log_of(small)
        text = os.urandom(30_000).hex()  # gzip can't make it fit into the last page's rest
        arguments = ("register", "--agent-id", AGENT, "--prompt", text, "--every", "5m")
        call(*arguments, "--var", str(small)).error("disk_full")
        assert log_of(small) == before
        listed = call("list", "--var", str(small)).success()
        assert [schedule["id"] for schedule in listed["schedules"]] == [id_]
        (place / "filler").unlink()
        call(*arguments, "--var", str(small)).success()
        assert call("verify", "--var", str(small)).success()["events"] == 3
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


@pytest.mark.parametrize(
    "changes", [{"type": "schedule.dreamed"}, {"v": 99}, {"type": "schedule.modified", "v": 2}]
)
def test_a_newer_log_is_read_and_never_written(
    var: Path, registered: str, changes: dict[str, object]
) -> None:
    """P7: with an event of an unknown type or a newer version, writers refuse, and readers answer
    and say on stderr that they may not know everything."""
    append_foreign(var, **changes)
    before = log_of(var)
    for arguments in (
        (*BASE, "--every", "6m"),
        (*BASE, "--every", "5m"),
        ("cancel", "--id", registered),
        ("pause", "--id", registered),
        ("modify", "--id", registered, "--every", "6m"),
        ("trigger", "--id", registered),
    ):
        assert "event 3" in call(*arguments).error("newer_events")["message"]
    for arguments in (
        ("list",),
        ("list", "--at", "3"),
        ("show", "--id", registered),
        ("next", "--id", registered),
        ("stats",),
    ):
        answer = call(*arguments)
        answer.success()
        assert "newer" in answer.err
    assert call("history").success()["count"] == 3
    assert call("verify").success()["events"] == 3
    assert log_of(var) == before


def test_a_data_directory_that_is_a_file_is_refused(
    tmp_path: Path, var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: a file where the folder should be is named, and left alone."""
    var.write_text("precious")
    for arguments in (("list",), (*BASE, "--every", "5m"), ("rebuild",)):
        assert str(var) in call(*arguments).error("var_unusable")["message"]
    call("doctor", "--skip-letta").error("unhealthy")
    assert var.read_text() == "precious"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(var / "below"))
    call("list").error("var_unusable")
    call(*BASE, "--every", "5m").error("var_unusable")


def test_a_folder_where_the_segment_should_be_is_refused(
    var: Path, registered: str, clock: object
) -> None:
    """P7, P4: what can't be a segment is neither read as an empty one nor written over."""
    segment = next((var / "schedules").glob("*.ndjson.gz"))
    segment.rename(segment.with_suffix(".kept"))
    segment.mkdir()
    (segment / "file").touch()
    for arguments in (("list",), ("verify",), (*BASE, "--every", "6m")):
        document = call(*arguments).document
        assert document["status"] == "error"
        assert document["code"] in ("var_unusable", "chain_missing", "corrupt_chain")
        assert document["hint"]
    assert list(segment.iterdir()) == [segment / "file"]


# Processes.


def test_arguments_that_are_not_utf8_are_refused(var: Path, environ: dict[str, str]) -> None:
    """P7: raw bytes on the command line are no prompt, no agent, and no way to break the JSON."""
    answer = run(*NO_TRIGGER, "--prompt", b"caf\xe9", environ=environ)
    assert "position 3" in answer.error("invalid_prompt")["message"]
    answer = run("register", "--agent-id", b"\xff", environ=environ)
    answer.error("missing_option", 2)
    run(b"caf\xe9", environ=environ).error("unknown_command", 2)
    run("show", "--id", b"\xff", environ=environ).error("unknown_id")
    assert not log_of(var)


def test_interrupting_a_command_is_answered(
    var: Path, tmp_path: Path, environ: dict[str, str]
) -> None:
    """P7: Ctrl-C in the middle of a command gives the code interrupted, and no traceback."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    process = subprocess.Popen(
        [sys.executable, "-m", "promptyoself", *NO_TRIGGER, "--prompt-file", str(fifo)],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell that put these tests in the background would have it ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    with fifo.open("wb"):  # which returns when the command has opened it to read
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    Answer(process.returncode, out, err.decode()).error("interrupted")
    assert not log_of(var)


@pytest.mark.parametrize("arguments", [("list",), ("history", "--ndjson"), ("nonsense",)])
def test_a_reader_that_has_gone_is_no_error_to_shout_about(
    var: Path, registered: str, environ: dict[str, str], arguments: tuple[str, ...]
) -> None:
    """`promptyoself list | head -0` ends without a traceback."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "promptyoself", *arguments],
        env=environ,
        stdout=write,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (1, b"")


def test_without_a_stdout_nothing_is_done(var: Path, environ: dict[str, str]) -> None:
    """Whoever can't be answered isn't served: with a closed stdout nothing is done."""
    done = subprocess.run(
        [sys.executable, "-m", "promptyoself", *BASE, "--every", "5m"],
        env=environ,
        preexec_fn=lambda: os.close(1),
        stderr=subprocess.PIPE,
        check=False,
    )
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    assert not log_of(var)


def test_a_closed_stderr_leaves_stdout_alone(
    var: Path, registered: str, environ: dict[str, str]
) -> None:
    """Warnings never end up among the JSON, even where there is no stderr."""
    (var / "schedules" / "index.json").write_bytes(b"noise")
    done = subprocess.run(
        [sys.executable, "-m", "promptyoself", "list"],
        env=environ,
        preexec_fn=lambda: os.close(2),
        stdout=subprocess.PIPE,
        check=False,
    )
    assert orjson.loads(done.stdout)["count"] == 1


def test_an_answer_that_cannot_be_written_is_no_traceback(
    var: Path, registered: str, environ: dict[str, str]
) -> None:
    """A full disk under stdout is told on stderr in one line."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "promptyoself", "list"],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1, done.stderr


def test_a_table_may_hold_anything(var: Path) -> None:
    """`--format table` shows a prompt's control characters instead of obeying them, and doesn't
    take its brackets for markup."""
    prompt = "[red]x[/red] \x1b[2J\x07 \u202egnp.exe [/nothing]"
    call(*NO_TRIGGER, "--prompt", prompt).success()
    answer = call("list", "--format", "table")
    assert answer.code == 0
    shown = answer.out.decode()
    assert "[red]x[/red]" in shown
    assert "\\x1b[2J" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_errors_are_json_in_every_format(var: Path) -> None:
    """A program can rely on the form of an error, whatever the format of the answers."""
    call("show", "--id", "x", "--format", "table").error("unknown_id")


# Fuzzing.


class NoLetta:
    """A server without agents, so that nothing here asks a real one."""

    def agents(self) -> list[object]:
        return []

    def agent(self, _: str) -> None:
        return None

    def health(self) -> str:
        return "0"

    def close(self) -> None:
        pass


WORDS = (
    "", "-", "--", "0", "-1", "2", "5.0", "1e9", "nan", "true", "all", "json", "table", "\ud800",
    "sch_00000000", AGENT, "a\0b", "5m", "1d", "in 5m", "09:00", "* * * * *", "@daily", "36500d",
    "2031-01-01T00:00", "9999-12-31T23:59", "0001-01-01T00:00", "9999-12-31T23:59:59-23:59",
    "Europe/London", "UTC", "skip", "9" * 5000, "1:" + "0" * 64, "delivery",
)  # fmt: skip
VALUES = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=12), st.sampled_from(WORDS)
)
FUZZED = sorted(set(COMMANDS) - {"sandbox", "demo"})  # those two serve until they are stopped


@pytest.mark.parametrize("name", FUZZED)
def test_no_argument_breaks_a_command(
    name: str, var: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """P7: whatever text every flag of every command gets, the answer is one JSON document (or the
    table or the lines that were asked for), and never internal_error."""
    monkeypatch.setattr("promptyoself.doors.commands.delivery.deliverer", lambda _: NoLetta())
    monkeypatch.setattr(lifecycle, "serve", served_to_agents)
    monkeypatch.chdir(tmp_path)
    known = call(*BASE, "--cron", "0 0 29 2 *").success()["id"]
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    options = [param for param in command.params if param.name not in ("var", "loop")]

    def flags(option: click.Parameter) -> st.SearchStrategy[list[str]]:
        given_as = st.sampled_from([*option.opts, *option.secondary_opts])
        if getattr(option, "is_flag", False):
            return given_as.map(lambda flag: [flag])
        values = st.one_of(VALUES, st.just(known)) if option.name == "id_" else VALUES
        if isinstance(option.type, click.Choice):
            values = st.one_of(
                st.sampled_from([str(choice) for choice in option.type.choices]), VALUES
            )
        return st.builds(
            lambda flag, value, joined: [f"{flag}={value}"] if joined else [flag, value],
            given_as, values, st.booleans(),
        )  # fmt: skip

    some = st.lists(st.sampled_from(options).flatmap(flags), max_size=6)

    @settings(
        max_examples=100,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(some, st.lists(VALUES, max_size=1))
    def fuzz(chosen: list[list[str]], rest: list[str]) -> None:
        arguments = [name, *(word for words in chosen for word in words), *rest]
        answer = call(*arguments, stdin=b"Hello")
        assert "Traceback" not in answer.err, answer.err
        lines = {"--ndjson", "table", "--format=table", "export", "metrics"} & set(arguments)
        if answer.code or not lines:
            document = answer.document
            assert document["status"] == ("error" if answer.code else "success")
            assert document.get("code") != "internal_error"
            assert answer.code in (0, 1, 2)

    fuzz()


@settings(max_examples=60, deadline=None)
@given(st.lists(VALUES, max_size=4))
def test_no_words_break_the_command_line(words: list[str]) -> None:
    """P7: also where not even the command is one, the answer is one JSON document, or the help."""
    if words and words[0] in COMMANDS:
        return
    answer = call(*words)
    assert "Traceback" not in answer.err
    if answer.code:
        assert answer.document["status"] == "error"
