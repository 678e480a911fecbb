"""A role that one process has: it is given back by a death, and taken over from one that is
silent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptyoself.ledger.sole_role import SILENCE, SoleRole

HOLDER = """
import sys, time
from pathlib import Path
from promptyoself.ledger.sole_role import SoleRole
role = SoleRole(Path(sys.argv[1]))
assert role.take(time.time())
print("has it", flush=True)
time.sleep(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "notices.lock"


def grow_old(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_one_has_it_at_a_time(path: Path) -> None:
    first, second = SoleRole(path), SoleRole(path)
    assert first.take(time.time())
    assert first.take(time.time())
    assert not second.take(time.time())
    assert path.stat().st_mode & 0o777 == 0o600
    first.give_back()
    assert second.take(time.time())
    assert not first.take(time.time())
    second.give_back()


def test_a_process_that_is_stopped_loses_it(path: Path) -> None:
    """After a while, and not before; and one that is killed loses it at once."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.send_signal(signal.SIGSTOP)
        other = SoleRole(path)
        assert not other.take(time.time())
        grow_old(path, SILENCE - 5)
        assert not other.take(time.time())
        grow_old(path, SILENCE + 5)
        assert other.take(time.time())
        other.give_back()
        holder.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        assert not SoleRole(path).take(time.time())
        holder.kill()
        holder.wait()
        assert SoleRole(path).take(time.time())


@pytest.mark.parametrize("age", [SILENCE + 5, -SILENCE - 5], ids=["old", "of a clock ahead"])
def test_the_one_that_was_silent_finds_out(path: Path, age: float) -> None:
    first, second, third = SoleRole(path), SoleRole(path), SoleRole(path)
    assert first.take(time.time())
    grow_old(path, age)
    assert second.take(time.time())
    assert not first.take(time.time())
    first.beat(time.time())
    assert not third.take(time.time())
    second.give_back()
    assert first.take(time.time())
    first.give_back()


def test_who_has_it_gives_signs_of_life(path: Path) -> None:
    role = SoleRole(path)
    assert role.take(time.time())
    role.beat(time.time())  # too soon for another one
    grow_old(path, 30)
    role.beat(time.time())
    assert time.time() - path.stat().st_mtime > 20
    role._beat_at = 0.0
    role.beat(time.time())
    assert time.time() - path.stat().st_mtime < 5
    role.give_back()


def test_a_link_or_a_folder_in_its_place_is_refused(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("theirs")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=r"symbolic|levels"):
        SoleRole(path).take(time.time())
    path.unlink()
    path.mkdir()
    with pytest.raises(OSError, match="directory"):
        SoleRole(path).take(time.time())
