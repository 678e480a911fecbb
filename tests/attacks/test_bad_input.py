"""P7: bad input changes nothing, and is answered with one JSON document."""

import ctypes
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from calling import AGENT, Answer, append_foreign, call, log_of, run

from promptyoself.core.text_limits import MAX_PROMPT_BYTES

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")
EVERY = (*BASE, "--every", "5m")
NO_PROMPT = ("register", "--agent-id", AGENT, "--every", "5m")
WRONG_USAGE = {
    "conflicting_options", "invalid_value", "missing_option", "nothing_to_modify",
    "unknown_command", "unknown_option", "wrong_usage",
}  # fmt: skip
"""The codes for which a command exits with 2."""

# name: (arguments, code, what the sentence must name)
REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "past time": ((*BASE, "--time", "2020-01-01T00:00"), "past_time", "2020-01-01"),
    "no trigger": (BASE, "missing_option", "--cron"),
    "time and cron": (
        (*BASE, "--time", "in 5m", "--cron", "* * * * *"), "conflicting_options", "--cron",
    ),
    "all three triggers": (
        (*BASE, "--time", "in 5m", "--cron", "* * * * *", "--every", "5m"),
        "conflicting_options", "--time",
    ),
    "cron that never fires": ((*BASE, "--cron", "0 0 31 2 *"), "cron_never_fires", "0 0 31 2 *"),
    "six fields": ((*BASE, "--cron", "0 0 9 * * *"), "invalid_cron", "0 0 9 * * *"),
    "empty cron": ((*BASE, "--cron", ""), "invalid_cron", "''"),
    "cron out of range": ((*BASE, "--cron", "61 * * * *"), "invalid_cron", "61"),
    "zero interval": ((*BASE, "--every", "0s"), "invalid_duration", "0s"),
    "negative interval": ((*BASE, "--every", "-5m"), "invalid_duration", "-5m"),
    "interval of seconds": ((*BASE, "--every", "5"), "interval_too_short", "'5'"),
    "interval with half a unit": ((*BASE, "--every", "5x"), "invalid_duration", "'5x'"),
    "empty interval": ((*BASE, "--every", ""), "invalid_duration", "''"),
    "interval below the least": ((*BASE, "--every", "9s"), "interval_too_short", "9s"),
    "interval beyond a century": ((*BASE, "--every", "99999999d"), "invalid_duration", "9999d"),
    "unknown zone": ((*EVERY, "--tz", "Europe/Lundon"), "unknown_zone", "Europe/Lundon"),
    "zone as a path": ((*EVERY, "--tz", "../../etc/passwd"), "unknown_zone", "../../etc/passwd"),
    "time in a spring gap": (
        (*BASE, "--time", "2031-03-30T01:30", "--tz", "Europe/London"),
        "nonexistent_time", "2031-03-30T01:30",
    ),
    "day that a year hasn't": ((*BASE, "--time", "2027-02-29T09:00"), "invalid_time", "2027-02-29"),
    "day that a century hasn't": (
        (*BASE, "--time", "2100-02-29T09:00"), "invalid_time", "2100-02-29",
    ),
    "leap second": ((*BASE, "--time", "2026-12-31T23:59:60Z"), "invalid_time", "59:60"),
    "second after the last": ((*BASE, "--time", "2026-12-31T24:00:01"), "invalid_time", "24:00:01"),
    "no time": ((*BASE, "--time", "someday"), "invalid_time", "someday"),
    "start after end": (
        (*EVERY, "--start-at", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "start_after_until", "2031-01-02",
    ),
    "end in the past": ((*EVERY, "--until", "2020-01-01T00:00"), "never_fires", "--until"),
    "time after the end": (
        (*BASE, "--time", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "never_fires", "--until",
    ),
    "zero repetitions": ((*EVERY, "--max-repetitions", "0"), "invalid_max_repetitions", "is 0"),
    "negative repetitions": ((*EVERY, "--max-repetitions", "-3"), "invalid_max_repetitions", "-3"),
    "repetitions that are no number": (
        (*EVERY, "--max-repetitions", "many"), "invalid_value", "many",
    ),
    "unknown tier": ((*EVERY, "--tier", "3"), "invalid_tier", "3"),
    "unknown misfire": ((*EVERY, "--misfire", "some"), "invalid_value", "some"),
    "negative budget": ((*EVERY, "--daily-budget", "-1"), "invalid_daily_budget", "-1"),
    "zero grace": ((*EVERY, "--grace", "0s"), "invalid_duration", "0s"),
    "jitter as long as the interval": ((*EVERY, "--jitter", "5m"), "invalid_jitter", "5m"),
    "jitter longer than a cron expression's gap": (
        (*BASE, "--cron", "* * * * *", "--jitter", "4m"), "invalid_jitter", "* * * * *",
    ),
    "jitter as long as a cron expression's shortest gap": (
        (*BASE, "--cron", "0,50 9 * * *", "--jitter", "50m"), "invalid_jitter", "50m",
    ),
    "jitter of a cron expression whose days meet": (
        (*BASE, "--cron", "5,55 0,23 31,1 * *", "--jitter", "10m"), "invalid_jitter", "10m",
    ),
    "cron with a zone before it": (
        (*BASE, "--cron", "CRON_TZ=Europe/London 0 9 * * *"), "invalid_cron", "names a zone",
    ),
    "cron that is an interval": ((*BASE, "--cron", "@every 5m"), "invalid_cron", "interval"),
    "zone that is an offset": ((*EVERY, "--tz", "GMT+2"), "unknown_zone", "GMT"),
    "zone without summer time": ((*EVERY, "--tz", "EST"), "unknown_zone", "without summer time"),
    "a date where a time is wanted": (
        (*BASE, "--time", "2031-01-01"), "invalid_time", "without a time",
    ),
    "jitter as long as the grace": (
        (*BASE, "--cron", "@daily", "--jitter", "2h", "--grace", "1h"), "invalid_jitter", "2h",
    ),
    "no prompt": (NO_PROMPT, "missing_option", "prompt"),
    "empty prompt": ((*NO_PROMPT, "--prompt", ""), "empty_prompt", "empty"),
    "blank prompt": ((*NO_PROMPT, "--prompt", " \n\t\u3000"), "empty_prompt", "blank"),
    "NUL": ((*NO_PROMPT, "--prompt", "a\0b"), "invalid_prompt", "position 1"),
    "lone surrogate": ((*NO_PROMPT, "--prompt", "ab\ud800"), "invalid_prompt", "position 2"),
    "prompt that is too long": (
        (*NO_PROMPT, "--prompt", "x" * (MAX_PROMPT_BYTES + 1)), "prompt_too_long", "1048577",
    ),
    "prompt and file": ((*EVERY, "--prompt-file", "-"), "conflicting_options", "--prompt-file"),
    "file that isn't there": (
        (*NO_PROMPT, "--prompt-file", "/nonexistent/file"),
        "unreadable_prompt_file", "/nonexistent/file",
    ),
    "file that is a folder": ((*NO_PROMPT, "--prompt-file", "/"), "unreadable_prompt_file", "'/'"),
    "file with a NUL in its name": (
        (*NO_PROMPT, "--prompt-file", "a\0b"), "unreadable_prompt_file", "x00",
    ),
    "no agent": (("register", "--prompt", "Hello", "--every", "5m"), "missing_option", "agent"),
    "empty agent": ((*EVERY, "--agent-id", ""), "invalid_agent_id", "''"),
    "agent with white space": ((*EVERY, "--agent-id", "a b"), "invalid_agent_id", "a b"),
    "agent with a surrogate": ((*EVERY, "--agent-id", "a\udcff"), "invalid_agent_id", "udcff"),
    "endless agent": ((*EVERY, "--agent-id", "a" * 201), "invalid_agent_id", "aaaa"),
    "conversation with white space": (
        (*EVERY, "--conversation-id", "a b"), "invalid_conversation_id", "a b",
    ),
    "endless name": ((*EVERY, "--name", "n" * 201), "invalid_name", "201"),
    "endless reason": ((*EVERY, "--reason", "n" * 2001), "invalid_reason", "2001"),
    "reason with a surrogate": (
        ("cancel", "--id", "sch_00000000", "--reason", "\ud800"), "invalid_reason", "surrogate",
    ),
    "unknown command": (("regsiter",), "unknown_command", "regsiter"),
    "unknown option": (("list", "--agent", "x"), "unknown_option", "--agent"),
    "option without its value": (("register", "--every"), "wrong_usage", "--every"),
    "option that must be given": (("show",), "missing_option", "--id"),
    "argument too many": (("list", "extra"), "wrong_usage", "extra"),
    "unknown format": (("list", "--format", "xml"), "invalid_value", "xml"),
    "empty data directory": (("list", "--var", ""), "invalid_value", "--var"),
    "NUL in the data directory": (("list", "--var", "a\0b"), "invalid_setting", "x00"),
    "surrogate in the data directory": (("list", "--var", "\ud800"), "invalid_setting", "ud800"),
    "endless data directory": (("list", "--var", "x" * 5000), "var_unusable", "xxx"),
    "unknown status": (("list", "--status", "done"), "invalid_value", "done"),
    "limit of zero": (("list", "--limit", "0"), "invalid_value", "0"),
    "limit beyond measure": (("history", "--limit", "9" * 30), "invalid_value", "999"),
    "list at no time": (("list", "--at", "then"), "invalid_time", "then"),
    "list at an endless number": (("list", "--at", "9" * 5000), "invalid_time", "999"),
    "history since nothing": (("history", "--since", ""), "invalid_time", "''"),
    "history until someday": (("history", "--until", "someday"), "invalid_time", "someday"),
    "head that is none": (("verify", "--head", "12"), "invalid_head", "12"),
    "head with a word for a number": (("verify", "--head", "٣:" + "0" * 64), "invalid_head", "000"),
    "next of nothing": (("next",), "missing_option", "--every"),
    "next of too much": (
        ("next", "--id", "sch_00000000", "--every", "5m"), "conflicting_options", "--id",
    ),
    "next with negative repetitions": (
        ("next", "--every", "5m", "--max-repetitions", "-1"), "invalid_max_repetitions", "-1",
    ),
    "next from an end to a start": (
        ("next", "--every", "5m", "--start-at", "2031-01-02T00:00", "--until", "2031-01-01T00:00"),
        "start_after_until", "2031-01-01",
    ),
    "interval of the loop without the loop": (
        ("execute", "--interval", "5"), "conflicting_options", "--loop",
    ),
    "deadline of the loop": (
        ("execute", "--loop", "--deadline", "5"), "conflicting_options", "--deadline",
    ),
    "not a number": (("execute", "--deadline", "nan"), "invalid_value", "nan"),
    "modify nothing": (("modify", "--id", "sch_00000000"), "nothing_to_modify", "change"),
    "modify ../../x": (("modify", "--id", "../../x", "--every", "5m"), "unknown_id", "../../x"),
    "approval of nothing": (("approve", "--id", "sch_00000000"), "unknown_id", "sch_00000000"),
    "approval of ../../x": (("approve", "--id", "../../x"), "unknown_id", "../../x"),
    "approval of no id": (("approve",), "missing_option", "--id"),
    "revoking nothing": (("revoke", "--id", "sch_00000000"), "unknown_id", "sch_00000000"),
    "notice to nobody": ((*EVERY, "--on-failure", "a b"), "invalid_on_failure", "a b"),
    "history ../../x": (("history", "--id", "../../x"), "unknown_id", "../../x"),
}  # fmt: skip
for _command in ("show", "cancel", "pause", "resume", "trigger", "next"):
    for _id in ("sch_00000000", "../../x", "", "sch_\ud800", "x" * 5000):
        named_id = ascii(_id[:70])[1:-1]
        REFUSED[f"{_command} {_id[:12]!r}"] = ((_command, "--id", _id), "unknown_id", named_id)


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_changes_nothing(case: str, var: Path) -> None:
    """P7: each kind of bad input has its code, names the wrong value, hints at a way out, and
    leaves the log as it was: missing where there was none, byte for byte the same where one was."""
    arguments, code, named = REFUSED[case]
    for _ in range(2):
        before = log_of(var)
        document = call(*arguments).error(code, 2 if code in WRONG_USAGE else 1)
        said = document["message"].encode("ascii", "backslashreplace").decode()
        named = named.encode("ascii", "backslashreplace").decode().replace("\\\\", "\\")
        assert named in said.replace("\\\\", "\\"), (named, said)
        assert document["hint"] or code == "conflicting_options"
        assert log_of(var) == before
        assert var.exists() == bool(before)
        call(*BASE, "--cron", "0 9 * * *").success()


@pytest.fixture
def registered(var: Path) -> str:
    """The id of a schedule that has just been registered."""
    id_: str = call(*EVERY).success()["id"]
    return id_


def refuse(var: Path, code: str, *arguments: str) -> dict[str, object]:
    """Call it; it must refuse, and change nothing."""
    before = log_of(var)
    document = call(*arguments).error(code, 2 if code in WRONG_USAGE else 1)
    assert document["hint"]
    assert log_of(var) == before
    return document


def test_what_is_over_cannot_end_again(var: Path, registered: str) -> None:
    """P7: cancelling twice, and anything else that a cancelled schedule can't do, is refused. What
    brings it back is another matter."""
    call("cancel", "--id", registered).success()
    refuse(var, "already_cancelled", "cancel", "--id", registered)
    refuse(var, "not_active", "pause", "--id", registered)
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
    refuse(var, code, "modify", "--id", registered, *options)


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
        path = tmp_path / "prompt.txt"
        path.write_bytes(text.encode() + b"\n")  # an editor's last newline doesn't count
        given = {
            "argument": ("--prompt", text),
            "stdin": ("--prompt-file", "-"),
            "file": ("--prompt-file", str(path)),
        }[through]
        answer = call(*NO_PROMPT, "--every", f"{number + 1}h", *given, stdin=text.encode())
        if fits:
            id_ = answer.success()["id"]
            assert call("show", "--id", id_).success()["schedule"]["prompt"] == text
        else:
            assert str(most) in answer.error("prompt_too_long")["message"]


def test_a_file_that_is_not_utf8_is_refused(var: Path, tmp_path: Path) -> None:
    """P7: the sentence names the file and the first bad byte."""
    path = tmp_path / "prompt.txt"
    path.write_bytes(b"caf\xe9")
    document = refuse(var, "invalid_prompt", *NO_PROMPT, "--prompt-file", str(path))
    assert "byte 3" in str(document["message"])
    assert str(path) in str(document["message"])


def test_a_closed_stdin_is_an_empty_prompt(var: Path, environ: dict[str, str]) -> None:
    """P7: a host that closes stdin, as Sanctum does, gets an answer and no traceback."""
    call(*NO_PROMPT, "--prompt-file", "-", stdin=None).error("empty_prompt")
    answer = run(
        *NO_PROMPT, "--prompt-file", "-", environ=environ, stdin=None, prepare=lambda: os.close(0)
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
    document = call(*EVERY).error("invalid_setting")
    assert name in document["message"]
    said = document["message"].encode("ascii", "backslashreplace").decode()
    assert ascii(value[:100])[1:-1] in said
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


@pytest.mark.parametrize(
    "changes", [{"type": "schedule.dreamed"}, {"v": 99}, {"type": "schedule.modified", "v": 3}]
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
        EVERY,
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
    for arguments in (("list",), EVERY, ("rebuild",)):
        assert str(var) in call(*arguments).error("var_unusable")["message"]
    call("doctor", "--skip-letta").error("unhealthy")
    assert var.read_text() == "precious"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(var / "below"))
    call("list").error("var_unusable")
    call(*EVERY).error("var_unusable")


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
    answer = run(*NO_PROMPT, "--prompt", b"caf\xe9", environ=environ)
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
        [sys.executable, "-m", "promptyoself", *NO_PROMPT, "--prompt-file", str(fifo)],
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
    answer = run(*arguments, environ=environ, prepare=partial(os.dup2, write, 1))
    os.close(write)
    assert (answer.code, answer.err) == (1, "")


def test_without_a_stdout_nothing_is_done(var: Path, environ: dict[str, str]) -> None:
    """A command that can't answer does nothing: with a closed stdout the log stays as it is."""
    answer = run(*EVERY, environ=environ, prepare=lambda: os.close(1))
    assert answer.code == 1
    assert "Traceback" not in answer.err
    assert not log_of(var)


def test_a_closed_stderr_leaves_stdout_alone(
    var: Path, registered: str, environ: dict[str, str]
) -> None:
    """Warnings never end up among the JSON, even where there is no stderr."""
    (var / "schedules" / "index.json").write_bytes(b"noise")
    answer = run("list", environ=environ, prepare=lambda: os.close(2))
    assert answer.document["count"] == 1


def test_an_answer_that_cannot_be_written_is_no_traceback(
    var: Path, registered: str, environ: dict[str, str]
) -> None:
    """A full disk under stdout is told on stderr in one line."""
    with open("/dev/full", "wb") as full:
        answer = run("list", environ=environ, prepare=partial(os.dup2, full.fileno(), 1))
    assert answer.code == 1
    assert answer.err.count("\n") == 1, answer.err


def test_a_table_may_hold_anything(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--format table` shows a prompt's control characters instead of obeying them, and doesn't
    take its brackets for markup."""
    prompt = "[red]x[/red] \x1b[2J\x07 \u202egnp.exe [/nothing]"
    call(*NO_PROMPT, "--prompt", prompt).success()
    monkeypatch.setenv("COLUMNS", "200")
    answer = call("list", "--format", "table")
    assert answer.code == 0
    shown = answer.out.decode()
    assert "[red]x[/red]" in shown
    assert "\\x1b[2J" in shown
    assert not {"\x1b", "\x07", "\u202e"} & set(shown)


def test_errors_are_json_for_programs(var: Path) -> None:
    """Through a pipe an error is JSON, unless the form for people is asked for: what is wrong, and
    what to do."""
    call("show", "--id", "x").error("unknown_id")
    told = call("show", "--id", "x", "--format", "table")
    what, todo = told.out.decode().split("\n")[:2]
    assert (told.code, what) == (1, "error: There is no schedule 'x'.  unknown_id")
    assert todo.startswith("  try: ")
