"""P2, P9: a log with stated gaps is folded, audited and used. What is left stays in force. What
rests on what is lost is told as lost, and nothing else is blamed for it."""

from __future__ import annotations

import gzip
import shutil
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from calling import call
from checker import lines as lines_in
from forging import segments_of, story
from tally import SCALE, chance

if TYPE_CHECKING:
    from conftest import Clock


def gaps() -> list[tuple[int, int]]:
    """Which events are cut out of the story: each alone, and stretches of it."""
    size = len(story())
    singles = [(at, at + 1) for at in range(size)]
    pick = chance("gaps")
    stretches = []
    for _ in range(int(24 * SCALE)):
        start = pick.randrange(size - 1)
        stretches.append((start, min(size, start + pick.randint(2, 12))))
    return singles + stretches


@pytest.mark.parametrize("part", range(4))
def test_any_stretch_may_be_lost(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, part: int
) -> None:
    """A story with every type of event, from which a stretch is cut. Once it is recovered, every
    command works, the audit blames nothing but what is lost, and what comes after stays."""
    var = quick_path / "var"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(var))
    told = story()
    # Written in one go by those who make them; then a member each.
    whole = segments_of(told)
    lines = [line for name in sorted(whole) for line in gzip.decompress(whole[name]).splitlines()]
    clock.set("2027-01-02T00:00")
    for start, end in gaps()[part::4]:
        shutil.rmtree(var, ignore_errors=True)
        folder = var / "schedules"
        folder.mkdir(parents=True)
        left = [*zip(lines, told, strict=True)]
        for line, event in left[:start] + left[end:]:
            with (folder / f"{event['ts'][:7]}.ndjson.gz").open("ab") as file:
                file.write(gzip.compress(line + b"\n", 1, mtime=0))
        at_end = end == len(told)
        if not at_end:
            call("list").error("corrupt_chain")
        answer = call("recover", "--yes").success()
        assert answer["recovered"] is not at_end
        if at_end:
            continue
        assert answer["lost_events"] == end - start, (start, end)
        assert any(b'"type":"ledger.recovered"' in line for line in lines_in(folder))
        used(told[start:end])


def used(lost: list[dict[str, Any]]) -> None:
    """Every command answers, over the index and without it."""
    verified = call("verify").success()
    assert verified["recovered"][-1]["lost"] == len(lost)
    first = call("list", "--status", "all", "--full").success()
    audited = call("audit")
    if audited.code:  # a worker that lives still, by the log, and passed over what is due
        undelivered = audited.document["undelivered"]
        assert audited.document["code"] == "slots_unaccounted"
        for entry in undelivered:
            assert entry["outcome"] not in ("doubled", "unexpected"), (lost, undelivered)
            is_blamed = entry["outcome"] == "unaccounted" and entry["why"] != "forgotten"
            assert not is_blamed, (lost, entry)
        assert "broken" not in audited.document, (lost, audited.document["broken"])
    for arguments in (
        ("stats",),
        ("head",),
        ("history", "--limit", "5"),
        ("budgets",),
        ("approvals",),
        ("rebuild",),
        ("simulate", "--until", "2027-01-03"),
        ("doctor", "--skip-letta", "--allow-no-loop", "--allow-failed"),
    ):
        answer = call(*arguments).document
        assert answer.get("code") in (None, "unhealthy"), (arguments, lost, answer)
    assert call("list", "--status", "all", "--full").success() == first
    call("register", "--agent-id", "agent-z", "--prompt", "Go on.", "--every", "1h").success()


def test_lost_is_told(quick_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """A slot whose outcome is lost is lost in the audit, which says so, and names the statement."""
    var = quick_path / "var"
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(var))
    clock.set("2026-11-20T12:00")
    register = ("register", "--agent-id", "agent-a", "--prompt", "Hi", "--every", "10m")
    id_ = call(*register).success()["id"]
    for _ in range(6):
        clock.now += timedelta(minutes=10)
        call("trigger", "--id", id_).success()
        call("cancel", "--id", id_)
        call(*register).success()
    (path,) = (var / "schedules").glob("*.gz")
    content = path.read_bytes()
    cut = [at for at in range(len(content)) if content[at : at + 3] == b"\x1f\x8b\x08"]
    path.write_bytes(content[: cut[5]] + content[cut[9] :])
    call("recover", "--yes").success()
    answer = call("audit")
    assert "can't be accounted for" in answer.document.get("message", "") or answer.code
    assert answer.document["recovered"][0]["lost"] >= 1
