"""P1, P3: nothing of ours is opened through a link, nor where no regular file of ours lies. What a
link points to may be somebody else's: it is neither read as a log nor changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from calling import AGENT, call

if TYPE_CHECKING:
    from conftest import Clock

VICTIM = b"Somebody else's file.\n" * 40


def _register(number: int = 0) -> list[str]:
    return ["register", "--agent-id", AGENT, "--prompt", f"Hi {number}", "--every", "5m"]


WRITERS = [_register(7), ["seal"], ["rebuild"], ["execute"], ["desire", "--text", "Sing"]]
LINKS = {"symbolic": Path.symlink_to, "hard": Path.hardlink_to}
TEMPORARIES = [
    "schedules/.index.json.tmp",
    "schedules/.2026-09.ndjson.gz.tmp",
    "schedules/index/schedules/.x.tmp",
    "schedules/lock.holder",
    ".metrics.json.tmp",
]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file that isn't ours."""
    path = tmp_path / "theirs"
    path.write_bytes(VICTIM)
    return path


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", TEMPORARIES)
def test_a_temporary_that_is_a_link(
    var: Path, clock: Clock, victim: Path, name: str, kind: str
) -> None:
    """What lies in the place of a temporary file or a note isn't emptied or written to."""
    if kind == "hard" and name == "schedules/lock.holder":
        pytest.skip("changed in place: a second name of it is of our own making")
    clock.set("2026-09-02T12:00")
    call(*_register()).success()
    clock.set("2026-11-20T12:00")
    place = var / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.unlink(missing_ok=True)
    LINKS[kind](place, victim)
    for arguments in WRITERS:
        call(*arguments)
        assert victim.read_bytes() == VICTIM, arguments
    assert call("list").success()["count"] == 2
    assert call("verify").success()["valid"]


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("month", ["2026-11", "2026-12"])
def test_a_month_that_is_a_link(
    var: Path, clock: Clock, victim: Path, month: str, kind: str
) -> None:
    """A month's file that is a link, or somebody else's file under a month's name, is refused by
    all who read or write it. It isn't emptied, cut as a torn end, or read as an empty month."""
    clock.set("2026-11-20T12:00")
    call(*_register()).success()
    clock.set("2026-12-01T12:00")
    place = var / "schedules" / f"{month}.ndjson.gz"
    place.unlink(missing_ok=True)
    LINKS[kind](place, victim)
    for arguments in [*WRITERS[:4], ["list"], ["verify"], ["history"], ["audit"], ["export"]]:
        answer = call(*arguments)
        assert victim.read_bytes() == VICTIM, arguments
        assert answer.code == 1, (arguments, answer)
        assert answer.document["code"] in ("var_unusable", "corrupt_chain"), arguments
        assert answer.document["hint"]
    assert os.path.lexists(place)
    assert not (var / "schedules" / "quarantine").exists()


def test_a_log_behind_a_link(var: Path, clock: Clock, tmp_path: Path) -> None:
    """A sound month behind a link isn't read: an append would change a file that lies elsewhere."""
    call(*_register()).success()
    (month,) = (var / "schedules").glob("*.gz")
    elsewhere = tmp_path / "elsewhere.gz"
    shutil.move(month, elsewhere)
    month.symlink_to(elsewhere)
    content = elsewhere.read_bytes()
    for arguments in (_register(1), ["list"], ["verify"], ["execute"]):
        call(*arguments).error("var_unusable")
    assert elsewhere.read_bytes() == content


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["pipe", "folder"])
def test_no_regular_file(var: Path, clock: Clock, make: Callable[[Path], None]) -> None:
    """A pipe or a folder in the place of a month: refused at once, nobody waits for it."""
    call(*_register()).success()
    (month,) = (var / "schedules").glob("*.gz")
    month.unlink()
    make(month)
    for arguments in (_register(1), ["list"], ["verify"], ["execute"]):
        assert call(*arguments).document["code"] == "var_unusable"


def test_a_data_directory_behind_a_link(
    var: Path, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data directory itself may be a link: that is where its owner has put it."""
    other = tmp_path / "link"
    var.mkdir()
    other.symlink_to(var)
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(other))
    call(*_register()).success()
    assert call("list").success()["count"] == 1
