"""Audit packs and signed heads, made and opened."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calling import AGENT, Answer, call
from checker import members

from promptyoself.service.proof import pack_verifier

if TYPE_CHECKING:
    import pytest
    from conftest import Clock

MONTHS = ["2026-09", "2026-10", "2026-12"]
REGISTER = ("register", "--agent-id", AGENT, "--every", "1h", "--prompt")
Lines = dict[str, list[bytes]]


def made(out: Path, *arguments: str) -> dict[str, Any]:
    return call("pack", "--out", str(out), *arguments).success()


def unpacked(out: Path, folder: Path) -> Path:
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        archive.extractall(folder)
    return folder


def packed(folder: Path, *arguments: str) -> tuple[dict[str, Any], Path]:
    """Make a pack and unpack it: what `pack` answered, and where the pack's files are."""
    answer = made(folder / "pack.zip", *arguments)
    return answer, unpacked(folder / "pack.zip", folder / "pack")


def check(folder: Path, *arguments: str, prepare: Callable[[], None] | None = None) -> Answer:
    """Run a pack's own verifier as somebody who has nothing else."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(folder / "verify.py"), *arguments],
        cwd="/",
        env={},
        preexec_fn=prepare,
        capture_output=True,
        check=False,
        timeout=200,
    )
    assert b"Traceback" not in done.stderr, done.stderr
    verdicts = [line for line in done.stdout.splitlines() if not line.startswith(b"lost ")]
    assert len(verdicts) == (done.returncode < 2)
    return Answer(done.returncode, done.stdout, done.stderr.decode())


def verdict(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """The same within this process, for the many times."""
    code = pack_verifier.main([*arguments, str(folder)])
    return code, capsys.readouterr().out


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the verifier says of a pack that isn't sound: one plain line."""
    code, said = verdict(folder, capsys, *arguments)
    assert (code, said[:4], said.count("\n"), said.isascii()) == (1, "bad ", 1, True), said
    return said


def lines_in(folder: Path) -> Lines:
    return {
        path.name[:7]: b"".join(members(path.read_bytes())).splitlines()
        for path in sorted((folder / "schedules").glob("*.gz"))
    }


def put(folder: Path, month: str, lines: list[bytes], *, single: bool = False) -> None:
    """Write a month again, as one member for each line, or for all."""
    parts = [b"".join(line + b"\n" for line in lines)] if single else [x + b"\n" for x in lines]
    (folder / "schedules" / f"{month}.ndjson.gz").write_bytes(b"".join(map(gzip.compress, parts)))


def heads_of(lines: Lines) -> bytes:
    """heads.json for a chain of these lines."""
    ends = []
    for month, each in lines.items():
        last = json.loads(each[-1])
        digest = hashlib.sha256(each[-1]).hexdigest()
        place = {"seq": last["seq"], "hash": digest, "ts": last["ts"]}
        ends.append({"month": month, "events": len(each), **place})
    before = {"seq": 0, "hash": "0" * 64, "ts": None}
    return json.dumps({"format": 1, "before": before, "months": ends, "head": ends[-1]}).encode()


def changes_of(value: Any) -> Iterator[Any]:
    """A JSON document with one thing in it another way, each in turn."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield {name: each for name, each in value.items() if name != key}
            yield from ({**value, key: other} for other in changes_of(item))
    elif isinstance(value, list):
        yield []
        yield value[::-1]
        yield value + value[-1:]
        for at, item in enumerate(value):
            yield value[:at] + value[at + 1 :]
            yield from ([*value[:at], other, *value[at + 1 :]] for other in changes_of(item))
    elif isinstance(value, str):
        yield from ("", value + "0", value[:-1], value[:-1] + "x", None, 0, [], "\ud800", "../x")
    elif isinstance(value, int):
        yield from (value + 1, value - 1, -1, str(value), None, value + 0.5, True, 10**30, [])
    else:
        yield from (0, "2026-01-01T00:00:00.000000Z", [], {})


def register(*every: str) -> None:
    """A schedule for each interval."""
    for interval in every:
        call("register", "--agent-id", AGENT, "--prompt", "Hello", "--every", interval).success()


def register_monthly(clock: Clock, *days: int) -> None:
    """A schedule on each of these days of each of the months."""
    dates = [f"{month}-{day:02}" for month in MONTHS for day in days]
    for number, date in enumerate(dates, 1):
        clock.set(f"{date}T12:00:00")
        call(*REGISTER, f"prompt {number}", "--reason", "x" * number).success()


def note_of(*arguments: str) -> bytes:
    """What `head --note` prints."""
    answer = call("head", "--note", *arguments)
    assert answer.code == 0, answer
    assert answer.out.count(b"\n") == 1
    return answer.out
