"""P1, P7: disks that are full, fail or lie in the way: one JSON error, an intact log, no hang, and
the next command works."""

from __future__ import annotations

import errno
import gc
import json
import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import AGENT, Answer, call, clean_environ, log_of, run
from chains import StepDisk, failing_disk
from checker import check_chain, lines
from crashes import Report, in_child, ways
from remains import open_files
from tally import SCALE, chance, count
from world import check_deliveries

from promptyoself.core.disk import Disk
from promptyoself.core.settings import load_settings
from promptyoself.ledger import FileLedger
from promptyoself.sandbox import Sandbox
from promptyoself.service.desires.manage import record
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from conftest import Clock

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")
SYSCALLS = ("open", "write", "fsync", "ftruncate", "rename", "mkdir", "unlink")
CODES = {errno.ENOSPC: "disk_full", errno.EIO: "disk_error"}


@contextmanager
def disk_that_acts(step: StepDisk) -> Iterator[None]:
    """Every Disk made meanwhile is that one."""
    with pytest.MonkeyPatch.context() as patch:
        for name in SYSCALLS:
            plain = getattr(Disk, name)

            def through(_: Disk, *arguments: Any, name: str = name, plain: Any = plain) -> Any:
                return acted(step, name, lambda: plain(step, *arguments), arguments)

            patch.setattr(Disk, name, through)
        yield


def acted(step: StepDisk, name: str, do: Callable[[], Any], arguments: tuple[Any, ...]) -> Any:
    """One syscall, with what the step has in store for it."""

    def do_it() -> Any:
        mine = step.count == step._at
        if mine and step._when == "half" and name == "write":
            os.write(arguments[0], arguments[1][: len(arguments[1]) // 2])
            step._act()
        result = do()
        if mine and step._when == "after" and name == "open":
            os.close(result)
        return result

    return step._step(name, do_it)


def prepared(var: Path, clock: Clock) -> dict[str, str]:
    """A data directory with something for every command to do; the ids of its schedules."""
    clock.set("2026-10-20T12:00")
    ids = {"active": call(*BASE, "--every", "5m").success()["id"]}
    ids["paused"] = call(*BASE, "--every", "6m").success()["id"]
    call("pause", "--id", ids["paused"]).success()
    clock.set("2026-11-20T12:00")
    call(*BASE, "--every", "7m").success()
    return ids


# In an order in which all of them work, one after the other.
COMMANDS: dict[str, Callable[[dict[str, str]], tuple[str, ...]]] = {
    "register": lambda _: (*BASE, "--every", "9m"),
    "resume": lambda ids: ("resume", "--id", ids["paused"]),
    "modify": lambda ids: ("modify", "--id", ids["active"], "--every", "8m"),
    "trigger": lambda ids: ("trigger", "--id", ids["active"]),
    "pause": lambda ids: ("pause", "--id", ids["active"]),
    "cancel": lambda ids: ("cancel", "--id", ids["active"]),
    "rebuild": lambda _: ("rebuild",),
    "seal": lambda _: ("seal",),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_errors_at_every_syscall_of_a_command(
    name: str, var: Path, quick_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P7: whichever syscall of a command finds the disk full or failing, having done nothing,
    half or all of its work, the answer is one JSON document; after an error the log is what it was,
    or has the events whole; and the command works as soon as the disk does."""
    template, place = quick_path / "template", quick_path / "var"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(place))
    ids = prepared(place, clock)
    place.rename(template)
    arguments = COMMANDS[name](ids)

    def begin() -> list[bytes]:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        return lines(place / "schedules")

    begin()
    dry = StepDisk()
    with disk_that_acts(dry):
        call(*arguments).success()
    assert len(dry.log) >= 3
    refused = 0
    for (at, when), (number, code) in product(ways(dry.log), CODES.items()):
        before = begin()
        with disk_that_acts(failing_disk(at, when, number)):
            answer = call(*arguments)
        count("disk errors")
        where = (at, dry.log[at - 1], when, code)
        assert "Traceback" not in answer.err, where
        changed = lines(place / "schedules") != before
        if answer.document["status"] == "error":
            refused += 1
            assert answer.error(code)["hint"], where
            assert lines(place / "schedules")[: len(before)] == before, where
        again = call(*arguments)
        if not changed:
            again.success()
        assert "Traceback" not in again.err, where
        check_chain(place / "schedules")
        call("verify").success()
        assert call("list", "--status", "all").success()["count"] >= 3, where
    assert refused or name == "rebuild"


def test_errors_at_the_syscalls_of_a_delivery(
    var: Path, quick_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P2, P7: `execute` whose disk fails at any syscall (by chance some, in a torture all)
    answers with one JSON document, and the next one brings what is due to its end: one outcome, one
    copy."""
    monkeypatch.setenv("PROMPTYOSELF_RECONCILE_GRACE", "0.2")
    with Sandbox(("echo",), latency=0.02) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)

        def begin(name: str) -> tuple[Path, str]:
            agent, place = sandbox.create_agent(name), quick_path / name
            monkeypatch.setenv("PROMPTYOSELF_VAR", str(place))
            clock.set("2026-11-20T12:00")
            arguments = ("register", "--agent-id", agent, "--prompt", "Hi", "--time", "in 1m")
            call(*arguments).success()
            clock.advance(minutes=2)
            return place, agent

        begin("dry")
        dry = StepDisk()
        with disk_that_acts(dry):
            call("execute").success()
        steps = list(enumerate(dry.log, 1))
        chosen = steps if SCALE > 1 else chance("steps of a delivery").sample(steps, 8)
        for at, syscall in chosen:
            number = (errno.EIO, errno.ENOSPC)[at % 2]
            place, agent = begin(f"{at}-{syscall}")
            with disk_that_acts(failing_disk(at, "before", number)):
                answer = call("execute")
            count("disk errors")
            if answer.document["status"] == "error":
                answer.error(CODES[number])
            for _ in range(20):
                clock.advance(minutes=3)  # past every wait before another attempt
                call("execute").success()
                events = check_chain(place / "schedules")
                delivered = [e for e in events if e["type"] == "delivery.delivered"]
                if delivered:
                    break
            assert len(delivered) == 1, (at, syscall)
            check_deliveries(
                event
                for batch in FileLedger(place / "schedules", "schedules").replay()
                for event in batch.envelopes
            )
            otids = [m.otid for m in sandbox.messages(agent) if m.kind == "user_message"]
            assert otids == [delivered[0]["data"]["otid"]], (at, syscall)


# What is really in the way. Each command in a child, so that a hang is noticed.


def nothing() -> None:
    """Nothing to prepare."""


def call_in_child(*arguments: str, prepare: Callable[[], None] = nothing) -> Answer:
    """A command in a forked child, which must not hang; its answer has no traceback."""

    def ask(report: Report) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(5)
        prepare()
        answer = call(*arguments)
        report(json.dumps([answer.code, answer.out.decode(), answer.err]))

    count("disk errors")
    reported, ended_by = in_child(ask)
    assert not ended_by, f"{arguments[0]} hangs"
    code, out, err = json.loads(reported[0])
    assert "Traceback" not in err, err
    return Answer(code, out.encode(), err)


def _make_a_folder(path: Path) -> None:
    path.mkdir()
    (path / "file").touch()


OBSTACLES: dict[str, Callable[[Path], object]] = {
    "a folder": _make_a_folder,
    "a file": lambda path: path.write_bytes(b"precious"),
    "a pipe": os.mkfifo,
    "a loop of links": lambda path: path.symlink_to(path.name),
    "a link to nowhere": lambda path: path.symlink_to("/nonexistent/place"),
}
PLACES = (
    "schedules", "schedules/2026-11.ndjson.gz", "schedules/2026-12.ndjson.gz",
    "schedules/index.json", "schedules/.index.json.tmp", "schedules/lock", "schedules/lock.queue",
    "schedules/lock.holder", "schedules/quarantine", "workers",
)  # fmt: skip
CALLS: tuple[tuple[str, ...], ...] = (
    ("list",), (*BASE, "--every", "9m"), ("verify",), ("rebuild",), ("execute",),
    ("doctor", "--skip-letta"),
)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "obstacle"),
    [
        (place, obstacle)
        for place, obstacle in product(PLACES, OBSTACLES)
        # Bytes in a new month are a torn end, and a folder for the quarantine is one.
        if (place, obstacle)
        not in (("schedules/2026-12.ndjson.gz", "a file"), ("schedules/quarantine", "a folder"))
    ],
)
def test_what_lies_in_the_way(
    place: str,
    obstacle: str,
    quick_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P4, P7: where a folder, a file, a pipe, a loop of links or a link to nowhere lies in place of
    something that the log needs, each command answers with one JSON document, none hangs, no byte
    of the log is changed by one that refuses, and all is well once it is taken away."""
    var = quick_path / "var"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(var))
    clock.set("2026-11-20T12:00")
    call(*BASE, "--every", "5m").success()
    segment = var / "schedules" / "2026-11.ndjson.gz"
    if place.endswith("quarantine"):
        with segment.open("ab") as file:
            file.write(b"\x1f\x8b\x08torn")
    if "12" in place:
        clock.set("2026-12-20T12:00")
    path, aside = var / place, quick_path / "aside"
    if path.exists():
        path.rename(aside)
    OBSTACLES[obstacle](path)
    for arguments in CALLS:
        before = log_of(var)
        answer = call_in_child(*arguments)
        assert answer.out.count(b"\n") == 1, arguments
        document = answer.document
        if document["status"] == "error":
            assert answer.code == 1
            assert document["code"] not in ("internal_error", "os_error"), document
            assert document["hint"], document
            assert log_of(var) == before, arguments
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if aside.exists():
        aside.rename(path)
    call(*BASE, "--every", "11m").success()
    call("verify").success()
    check_chain(var / "schedules")
    assert call("list", "--status", "all").success()["count"] >= 2


def refused_and_unharmed(
    place: Path, ids: dict[str, str], codes: set[str], prepare: Callable[[], None] = nothing
) -> int:
    """Try every command that writes; how many refused. What they leave is what there was, or more
    by whole events."""
    refused = 0
    for name, arguments_of in COMMANDS.items():
        files, before = log_of(place), lines(place / "schedules")
        answer = call_in_child(*arguments_of(ids), prepare=prepare)
        if answer.document["status"] == "error":
            refused += 1
            assert answer.document["code"] in codes, (name, answer.document)
            assert answer.document["hint"]
            assert lines(place / "schedules") == before, name
            assert name == "seal" or log_of(place) == files  # which may rewrite a month
    return refused


def all_works_again(place: Path, ids: dict[str, str]) -> None:
    for arguments_of in COMMANDS.values():
        document = call(*arguments_of(ids)).document
        done_before = {"already_paused", "not_paused", "not_active", "already_cancelled"}
        assert document["status"] == "success" or document["code"] in done_before, document
    call("verify").success()
    check_chain(place / "schedules")


@pytest.mark.parametrize("spare", range(7))
def test_too_few_file_handles(spare: int, var: Path, clock: Clock) -> None:
    """P7: a process that may open only a few more files is told so, or does its work; either way
    the log is whole, and all works once it may."""
    ids = prepared(var, clock)
    for arguments_of in COMMANDS.values():  # so that no child dies of an import in the test's code
        call(*arguments_of(dict.fromkeys(ids, "sch_00000000")))

    def few() -> None:
        top = max(int(name) for name in os.listdir("/dev/fd"))
        while (filled := os.dup(0)) < top:
            pass
        os.close(max(filled, top))
        resource.setrlimit(resource.RLIMIT_NOFILE, (filled + spare, 4096))

    refused = refused_and_unharmed(var, ids, {"too_many_files"}, few)
    assert refused or spare
    all_works_again(var, ids)


def test_a_limit_on_the_size_of_files(var: Path, clock: Clock) -> None:
    """P1, P7: a limit that cuts every write short, at any byte of it, is a full disk; what was
    written of an event is taken back."""
    ids = prepared(var, clock)
    segment = var / "schedules" / "2026-11.ndjson.gz"
    for room in (1, 9, 60, 150):
        most = segment.stat().st_size + room

        def limit(most: int = most) -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        assert refused_and_unharmed(var, ids, {"disk_full"}, limit) >= 5
    all_works_again(var, ids)


@pytest.fixture
def small(var: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A data directory on a file system of its own, with little room, where one may be mounted."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(place)]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode
    ):
        pytest.skip("no file system may be mounted here")
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(place / "var"))
    try:
        yield place / "var"
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_a_file_system_without_room(small: Path, clock: Clock) -> None:
    """P1, P7: on a file system that is really full each command that needs room says so; those that
    read answer; and all works once there is room."""
    ids = prepared(small, clock)
    # A page that is in use has room for small events: big ones, so that each append needs a page.
    text = os.urandom(6000).hex()
    with small.with_name("filler").open("wb", buffering=0) as filler, suppress(OSError):
        while filler.write(b"x" * 512):
            pass
    before = log_of(small)
    for arguments in (
        ("register", "--agent-id", AGENT, "--prompt", text, "--every", "9m"),
        ("modify", "--id", ids["active"], "--prompt", text),
    ):
        call_in_child(*arguments).error("disk_full")
        assert log_of(small) == before
    refused_and_unharmed(small, ids, {"disk_full"})
    call("list").success()
    call("verify").success()
    small.with_name("filler").unlink()
    all_works_again(small, ids)


def test_a_file_system_that_turns_read_only(small: Path, clock: Clock) -> None:
    """P1, P7: where the kernel has made the file system read-only, as after an error, writers say
    so and readers answer."""
    ids = prepared(small, clock)
    gc.collect()  # what those commands had open, which were run in this process
    subprocess.run(["mount", "-o", "remount,ro", str(small.parent)], check=True)
    try:
        assert refused_and_unharmed(small, ids, {"var_not_writable"}) == len(COMMANDS)
        assert call("list", "--status", "all").success()["count"] == 3
        assert call("verify").success()["events"] == len(lines(small / "schedules"))
        call("execute").error("var_not_writable")
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small.parent)], check=True)
    all_works_again(small, ids)


@pytest.mark.parametrize("files", range(4, 16))
def test_too_few_file_handles_from_the_start(files: int, var: Path, clock: Clock) -> None:
    """P1, P7: a process that may open few files answers with JSON, or not at all. Whether it says
    that it has written is what the log says."""
    ids = prepared(var, clock)
    before = lines(var / "schedules")

    def few() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    answer = run(*BASE, "--every", "13m", environ=clean_environ(var), prepare=few)
    count("disk errors")
    if answer.out and answer.document["status"] == "error":
        assert answer.document["code"] == "too_many_files"
    has_written = bool(answer.out) and answer.document["status"] == "success"
    assert len(lines(var / "schedules")) == len(before) + has_written
    all_works_again(var, ids)


def test_nobodys_files_are_closed_at_once(var: Path, clock: Clock) -> None:
    """A store that nobody refers to any more keeps no file open until garbage is looked for."""
    gc.collect()
    gc.disable()
    try:
        before = open_files()
        for number in range(20):
            store = Store(load_settings(), {"via": "cli", "who": "t"}, warn=lambda _: None)
            for text in ("one", "another"):
                request = Request(agent_id="a", prompt=f"{text} {number}", every="1h")
                register(store, request, clock.now)
            record(store, "a", f"wish {number}", 0.5, (), clock.now)
            del store
        assert open_files() <= before
    finally:
        gc.enable()
