"""`history --follow`: events as they are appended, by processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import AGENT, add, call, lines_of
from damage import store_in
from loops import wait_for

from promptyoself.core.instants import parse_utc
from promptyoself.service.upkeep.seal import seal

if TYPE_CHECKING:
    from conftest import Clock

OTHER = AGENT[:-1] + "2"

APPENDER = """
import sys
from datetime import UTC, datetime, timedelta
from promptyoself.cli import _run
from promptyoself.doors.session import Session
times = [datetime(2026, 9, 1, tzinfo=UTC) + timedelta(days=2 * number) for number in range(60)]
for number, now in enumerate(times):
    Session.now = lambda self: now
    _run(["register", "--agent-id", "a", "--prompt", f"p{number}", "--every", "90d"])
"""


class Follower:
    """`history --follow` in a process of its own, and what it has printed."""

    def __init__(self, environ: dict[str, str], *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "promptyoself", "history", "--follow", *arguments],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.lines: list[bytes] = []
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip(b"\n"))

    def has(self, count: int) -> None:
        """Wait until it has printed that many lines."""
        wait_for(lambda: len(self.lines) >= count)

    @property
    def events(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self.lines]

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it wrote to stderr, once it has ended."""
        code = self.process.wait(timeout=60)
        self.thread.join(timeout=60)
        assert self.process.stderr is not None
        return code, self.process.stderr.read().decode()

    def stop(self, number: int = signal.SIGINT) -> None:
        """Send a signal, and require that it ends as it should."""
        self.process.send_signal(number)
        assert self.end() == (0, "")


@pytest.fixture
def follow(environ: dict[str, str]) -> Iterator[Callable[..., Follower]]:
    started: list[Follower] = []

    def start(*arguments: str, **more: str) -> Follower:
        started.append(Follower({**environ, **more}, *arguments))
        return started[-1]

    yield start
    for follower in started:
        if follower.process.poll() is None:
            follower.process.kill()
        follower.end()


def test_each_event_comes_once_whatever_happens_to_its_file(
    var: Path, clock: Clock, environ: dict[str, str], follow: Callable[..., Follower]
) -> None:
    """Another process appends through four months, and a third one seals those that are over. What
    is printed is the log, byte for byte."""
    clock.set("2026-08-31T12:00")
    add("--every", "1h")
    follower = follow("--since", "2026-01-01")
    store = store_in(var / "schedules")
    with subprocess.Popen([sys.executable, "-c", APPENDER], env=environ, stdout=subprocess.DEVNULL):
        wait_for(lambda: store.snapshot().position.seq > 30)
        follower.has(10)
        last = store.snapshot().position.ts
        seal(store, store_in(var / "schedules").not_before(parse_utc(last)))
        assert store.snapshot().state.counts["segment.sealed"]
    clock.set("2026-12-31T12:00")
    seal(store, clock.now)
    add("--every", "1h")
    wait_for(lambda: follower.lines[-1:] == lines_of(var)[-1:])
    follower.stop()
    assert follower.lines == lines_of(var)
    assert {event["ts"][:7] for event in follower.events} >= {"2026-09", "2026-10", "2026-11"}


def test_the_newest_come_first(var: Path, clock: Clock, follow: Callable[..., Follower]) -> None:
    """Ten events that were there, or as many as `--limit` says, and then the new ones. It ends on
    SIGTERM as on SIGINT."""
    for number in range(14):
        add("--every", "1h", prompt=str(number))
    few, default = follow("--limit", "2"), follow()
    few.has(2)
    default.has(10)
    add("--every", "2h")
    few.has(3)
    default.has(11)
    assert few.lines == lines_of(var)[-3:]
    assert default.lines == lines_of(var)[-11:]
    few.stop(signal.SIGTERM)
    default.stop()


def test_filters_hold_for_what_is_appended(
    var: Path, clock: Clock, follow: Callable[..., Follower]
) -> None:
    """By id, type and agent; and a pinned caller gets its own alone."""
    mine, other = add("--every", "1h"), add("--every", "1h", agent=OTHER)
    by_id = follow("--id", mine)
    by_type = follow("--type", "schedule.paused")
    by_agent = follow("--agent-id", OTHER)
    pinned = follow(PROMPTYOSELF_ONLY_AGENT=OTHER)
    for follower in (by_id, by_agent, pinned):
        follower.has(1)
    time.sleep(0.3)  # the one by type has nothing to say yet
    for id_ in (mine, other):
        call("pause", "--id", id_).success()
        call("resume", "--id", id_).success()
    for follower, count in ((by_id, 3), (by_type, 2), (by_agent, 3), (pinned, 3)):
        follower.has(count)
    assert [event["id"] for event in by_id.events] == [mine] * 3
    assert [event["type"] for event in by_type.events] == ["schedule.paused"] * 2
    assert [event["id"] for event in by_agent.events] == [other] * 3
    assert pinned.lines == by_agent.lines
    for follower in (by_id, by_type, by_agent, pinned):
        follower.stop()


def test_wrong_questions_are_refused(var: Path, environ: dict[str, str]) -> None:
    add("--every", "1h")
    follow = ("history", "--follow")
    call(*follow, "--until", "now").error("conflicting_options", 2)
    call(*follow, "--id", "sch_00000000").error("unknown_id")
    call(*follow, "--type", "delivry").error("unknown_type")
    call(*follow, "--slot", "now").error("missing_option", 2)


def test_it_waits_where_there_is_no_log_yet(var: Path, follow: Callable[..., Follower]) -> None:
    follower = follow()
    assert follower.process.stderr is not None
    # Only now is it known to be there: a name that may be mistyped.
    assert b"no folder" in follower.process.stderr.readline()
    add("--every", "1h")
    follower.has(2)
    follower.stop()
    assert follower.lines == lines_of(var)


def test_damage_ends_it_with_the_error(var: Path, follow: Callable[..., Follower]) -> None:
    """What was told is gone, or what comes is damaged: the error is the last line."""
    add("--every", "1h")
    add("--every", "2h")
    follower = follow()
    follower.has(3)
    (segment,) = (var / "schedules").glob("*.gz")
    content = segment.read_bytes()
    segment.write_bytes(content[: len(content) // 2])
    code, _ = follower.end()
    assert code == 1
    assert follower.events[-1]["code"] == "head_moved"
    assert len(follower.lines) == 4


def test_it_ends_when_nobody_reads_it(var: Path, environ: dict[str, str]) -> None:
    """`history --follow | head -n 1` ends, though no event comes."""
    add("--every", "1h")
    ours, theirs = os.pipe()
    command = [sys.executable, "-m", "promptyoself", "history", "--follow"]
    with subprocess.Popen(command, env=environ, stdout=theirs) as process:
        os.close(theirs)
        assert os.read(ours, 100)
        os.close(ours)
        assert process.wait(timeout=60) == 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="there is no /proc")
def test_waiting_costs_nothing(var: Path, follow: Callable[..., Follower]) -> None:
    add("--every", "1h")
    follower = follow()
    follower.has(2)

    def ticks() -> int:
        fields = Path(f"/proc/{follower.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def waiting() -> int:
        before = ticks()
        time.sleep(1.5)
        return ticks() - before  # a hundredth of a second each

    # On a busy machine the first may have an end of its start in it.
    assert any(waiting() <= 2 for _ in range(3))
    follower.stop()


def test_people_get_lines(var: Path, clock: Clock, follow: Callable[..., Follower]) -> None:
    """In the form for people there is a line for each event, without a heading."""
    id_ = add("--every", "1h", "--name", "plan")
    follower = follow("--id", id_, "--format", "table")
    follower.has(1)
    call("pause", "--id", id_, "--reason", "holiday").success()
    follower.has(2)
    follower.stop()
    registered, paused = (line.decode() for line in follower.lines)
    assert "registered" in registered
    assert registered.index("plan") == paused.index("plan")
    assert "holiday" in paused
