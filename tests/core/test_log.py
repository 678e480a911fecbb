"""The log for people: where it goes, what its lines say, and what is never in it."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core import diagnostics as module
from promptyoself.core.diagnostics import LEVELS, Log, Seldom, redact_prompt, redact_secrets
from promptyoself.core.disk import Disk


def lines_of(*paths: Path) -> list[dict[str, Any]]:
    """Every line of the files, each of which must be whole."""
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def test_warnings_go_to_stderr_without_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Without PROMPTYOSELF_LOG_FILE a warning is a line on stderr, and a note is nothing."""
    log = Log(None)
    log.warn("look out")
    log.record("done", id="sch_1a2b3c4d")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "promptyoself: look out\n"


def test_a_process_that_lasts_tells_the_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Each line of a loop on stderr begins with the time in UTC, to the second."""
    log = Log(None)
    log.tell_time()
    log.warn("look out")
    told = capsys.readouterr().err
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ promptyoself: look out\n", told)


def test_what_lasts_is_told_once_a_minute() -> None:
    """P9: a warning that is repeated is told at most once a minute for each kind, whatever its
    words; another kind isn't kept back by it."""
    told: list[str] = []
    now = 0.0
    seldom = Seldom(told.append, lambda: now)
    for half_second in range(241):
        now = half_second / 2
        seldom.warn("disk", f"full at {now:g}")
        if half_second == 3:
            seldom.warn("lock", "held")
    assert told == ["full at 0", "held", "full at 60", "full at 120"]


def test_a_full_disk_under_the_log_file_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    """P9: a log file that can't be written is told of once a minute, not with every line; a warning
    goes to stderr instead, and a line that is none is lost."""
    log = Log(Path("/dev/full"))
    for _ in range(20):
        log.record("delivery", state="sent")
    log.warn("look out")
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "promptyoself: The log file can't be written: No space left on device.",
        "promptyoself: look out",
    ]


def test_stderr_can_have_json(capsys: pytest.CaptureFixture[str]) -> None:
    """With PROMPTYOSELF_LOG_FORMAT=json everything is told on stderr, as JSON lines."""
    log = Log(None, form="json")
    log.bind(worker="wrk_1")
    log.warn("look out")
    log.record("delivery", state="sent", id="sch_1", slot="s", attempt=2)
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = (json.loads(line) for line in captured.err.splitlines())
    assert (first["level"], first["message"], first["worker"]) == ("warning", "look out", "wrk_1")
    assert list(second) == [
        "ts", "level", "message", "pid", "worker", "state", "id", "slot", "attempt",
    ]  # fmt: skip


def test_the_file_has_json_lines_and_is_private(tmp_path: Path) -> None:
    """With a file, warnings and notes are JSON lines in it, and only its owner may read it."""
    path = tmp_path / "loop.log"
    log = Log(path)
    log.warn("look out")
    log.record("delivery", id="sch_1a2b3c4d", delivered=True)
    first, second = lines_of(path)
    assert (first["level"], first["message"]) == ("warning", "look out")
    assert (second["level"], second["id"], second["delivered"]) == ("info", "sch_1a2b3c4d", True)
    assert first["ts"].endswith("Z")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("least", LEVELS)
def test_lines_below_the_level_are_left_out(tmp_path: Path, least: str) -> None:
    """PROMPTYOSELF_LOG_LEVEL: what matters less than that isn't written."""
    log = Log(tmp_path / "log", level=least)
    for level in LEVELS:
        log.record("x", level=level)
    assert [line["level"] for line in lines_of(tmp_path / "log")] == list(
        LEVELS[LEVELS.index(least) :]
    )


def test_it_costs_nothing_when_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """P8: without a file, and with stderr for people, a note spells nothing and asks no clock."""
    monkeypatch.setattr(module, "_encoded", None)
    monkeypatch.setattr(module, "datetime", None)
    Log(None).record("x", id="y")


def test_the_file_is_rotated(tmp_path: Path) -> None:
    """It doesn't grow for ever: full files are kept aside, five of them at most."""
    path = tmp_path / "loop.log"
    log = Log(path)
    for _ in range(70):
        log.record("x" * 1_000_000)
    assert len(list(tmp_path.iterdir())) == 6
    assert path.stat().st_size < 6_000_000


def test_a_folder_a_pipe_or_a_device_is_no_trap(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What can't be written to a folder, or to a pipe that nobody reads, is told on stderr at once.
    A device is written to, and never moved."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        Log(path).warn("look out")
        assert "look out" in capsys.readouterr().err
    log = Log(Path("/dev/null"))
    log.warn("look out")
    log.warn("look out")
    assert not capsys.readouterr().err
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_a_file_taken_away_is_made_again(tmp_path: Path) -> None:
    """Where somebody moves or removes the file (logrotate, say), another one gets its name."""
    path = tmp_path / "log"
    log = Log(path)
    log.record("one")
    path.rename(tmp_path / "moved")
    log.record("two")
    path.unlink()
    log.record("three")
    assert [line["message"] for line in lines_of(tmp_path / "moved", path)] == ["one", "three"]


def test_a_file_system_that_tells_two_inodes_of_one_file_is_no_trap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9: some shared folders do. Each line is written, and no call goes on for ever."""
    log = Log(tmp_path / "log")
    monkeypatch.setattr(module.os.path, "samestat", lambda *_: False)
    for number in range(3):
        log.record("line", number=number)
    assert [line["number"] for line in lines_of(tmp_path / "log")] == [0, 1, 2]


def test_a_line_written_into_a_removed_file_is_written_again(tmp_path: Path) -> None:
    """Held up between looking and writing, for as long as five rotations take, it loses nothing."""
    path = tmp_path / "log"

    class Slow(Disk):
        removed = False

        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            if not Slow.removed and path.exists():
                Slow.removed = True
                path.unlink()
            return super().write(descriptor, data)

    log = Log(path, disk=Slow())
    log.record("one")
    assert Slow.removed
    assert [line["message"] for line in lines_of(path)] == ["one"]


def test_what_json_cannot_hold_is_told_all_the_same(tmp_path: Path) -> None:
    """A lone surrogate in somebody's answer, or an object, is spelled somehow, on one line."""
    log = Log(tmp_path / "log")
    log.record("a\ud800b\nc", error="\udfff", path=tmp_path, nested={"x": ["\ud800"]})
    log.record("next")
    first, second = lines_of(tmp_path / "log")
    assert "ud800" in first["message"]
    assert second["message"] == "next"


# --- many at once ---------------------------------------------------------------------------------

WRITER = """
import sys
from pathlib import Path
from promptyoself.core import diagnostics as module
module._ROTATE_BYTES = 10_000
module._ROTATED_FILES = 200
log = module.Log(Path(sys.argv[1]))
sys.stdout.write("ready\\n"); sys.stdout.flush(); sys.stdin.readline()
for number in range(int(sys.argv[3])):
    log.record("x" * (number % 300), who=int(sys.argv[2]), number=number)
"""


def writer(path: Path, who: int, lines: int) -> subprocess.Popen[bytes]:
    """A process that is ready, and writes these lines as soon as it gets one itself."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), str(who), str(lines)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def begin(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    process.stdin.flush()


def test_many_processes_share_a_rotated_file(tmp_path: Path) -> None:
    """P5: four processes write and rotate as fast as they can. Each line is there once, whole."""
    writers = [writer(tmp_path / "log", who, 1500) for who in range(4)]
    for process in writers:
        begin(process)
    for process in writers:
        process.communicate(timeout=100)
        assert process.returncode == 0
    files = list(tmp_path.iterdir())
    assert len(files) > 5
    written = Counter((line["who"], line["number"]) for line in lines_of(*files))
    assert written == {(who, number): 1 for who in range(4) for number in range(1500)}


def test_a_writer_that_is_stopped_stops_no_other(tmp_path: Path) -> None:
    """P5: a process that was suspended, wherever that met it, isn't waited for."""
    path = tmp_path / "log"
    stopped = writer(path, 0, 1_000_000)
    begin(stopped)
    try:
        while not path.exists():
            pass
        stopped.send_signal(signal.SIGSTOP)
        log = Log(path)
        for _ in range(30):
            log.record("y" * 1_000_000)
    finally:
        stopped.kill()
        stopped.communicate()


def test_threads_share_a_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads of a process write through one log: nothing is lost or torn."""
    monkeypatch.setattr(module, "_ROTATE_BYTES", 5_000)
    monkeypatch.setattr(module, "_ROTATED_FILES", 500)
    log = Log(tmp_path / "log")

    def write(who: int) -> None:
        for number in range(200):
            log.record("x", who=who, number=number)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(4)))
    assert len(lines_of(*tmp_path.iterdir())) == 800


# --- what is never in it --------------------------------------------------------------------------


def test_secrets_are_taken_out_of_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A key or a password that came along in a text, a field or within one is replaced; also one
    with characters that JSON spells otherwise, and a short one, which leaves the lines readable."""
    path, secrets = tmp_path / "log", ('s3cr"et\\key', "e")
    log = Log(path, secrets=(*secrets, ""))
    log.warn('Bearer s3cr"et\\key', header={"authorization": ['Bearer s3cr"et\\key']}, ok=True)
    (line,) = lines_of(path)
    assert "***" in line["message"]
    assert 's3cr"et\\key' not in json.dumps(line)
    assert "e" not in line["message"] + str(line["header"]["authorization"])
    assert line["ok"] is True
    Log(None).warn('Bearer s3cr"et\\key')
    assert "s3cr" not in capsys.readouterr().err
    assert redact_secrets("e") == "***"


@pytest.mark.parametrize(
    ("text", "prompt", "expected"),
    [
        ("It said: buy milk and eggs, no.", "buy milk and eggs", "It said: …, no."),
        ("It said: buy milk and eg", "Please buy milk and eggs today", "It said:…"),
        ("It failed.", "buy milk and eggs", "It failed."),
        ("Hi? no", "Hi?", "Hi? no"),
        ("quoted 'stand up' there", "stand up", "quoted '…' there"),
        ("anything", "x" * 100_000, "…"),
        ("", "", ""),
    ],
)
def test_what_quotes_a_prompt_is_cut(text: str, prompt: str, expected: str) -> None:
    """Others' texts lose what they quote of a prompt, in part too."""
    assert redact_prompt(text, prompt) == expected


@given(st.text("ab c", max_size=60), st.text("ab c", min_size=4, max_size=30), st.integers(0, 60))
def test_no_run_of_a_prompt_is_left(text: str, prompt: str, at: int) -> None:
    """However the text is put together, no 12 characters of the prompt stay in a row."""
    redacted = redact_prompt(text[:at] + prompt + text[at:], prompt)
    window = min(12, len(prompt))
    assert not any(
        prompt[start : start + window] in redacted for start in range(len(prompt) - window + 1)
    )
