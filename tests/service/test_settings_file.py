"""Changing the file of settings: only what is changed changes, and what is written is read so."""

import os
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from chains import Killed
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import read_file
from promptyoself.service.setup.settings_file import change_settings

BEFORE = (
    "# mine\r\n"
    "OTHER=1 # another program's\n"
    "export PROMPTYOSELF_TZ = 'Europe/Paris'  # home\n"
    "\n"
    "# The time in which a desire fades to half.\n"
    "#PROMPTYOSELF_DESIRE_HALF_LIFE=30d\n"
    "PROMPTYOSELF_TIMEZONE=x\n"
    "LETTA_API_KEY='a b'"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of settings that somebody has written by hand."""
    path = tmp_path / "home" / ".env"
    path.parent.mkdir()
    path.write_bytes(BEFORE.encode())
    path.chmod(0o644)
    return path


def values(path: Path) -> dict[str, str]:
    """What the file says."""
    return {name: entry.value for name, entry in read_file(path).items()}


def test_only_the_line_of_the_setting_changes(path: Path) -> None:
    """All other lines stay byte for byte, and so does a comment behind the value."""
    assert change_settings(path, {"PROMPTYOSELF_TZ": "Europe/London"}) == ["PROMPTYOSELF_TZ"]
    after = BEFORE.replace(" = 'Europe/Paris'  # home", " =Europe/London  # home")
    assert path.read_bytes() == after.encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_new_setting_goes_below_its_comment_or_to_the_end(path: Path) -> None:
    """As a person would do it in a copy of .env.example; the last line gets its end."""
    changes = {"PROMPTYOSELF_INTERVAL": "5", "PROMPTYOSELF_DESIRE_HALF_LIFE": "10d"}
    assert change_settings(path, changes) == list(changes)
    shown = "#PROMPTYOSELF_DESIRE_HALF_LIFE=30d\n"
    after = BEFORE.replace(shown, shown + "PROMPTYOSELF_DESIRE_HALF_LIFE=10d\n")
    assert path.read_bytes().decode() == after + "\nPROMPTYOSELF_INTERVAL=5\n"


def test_what_is_taken_out_leaves_the_rest(path: Path) -> None:
    """Several changes at once find their lines all the same."""
    changes = {"PROMPTYOSELF_TZ": None, "LETTA_API_KEY": None, "PROMPTYOSELF_INTERVAL": "5"}
    assert change_settings(path, changes) == list(changes)
    assert values(path) == {
        "OTHER": "1",
        "PROMPTYOSELF_TIMEZONE": "x",
        "PROMPTYOSELF_INTERVAL": "5",
    }
    assert change_settings(path, changes) == []


def test_nothing_is_written_where_nothing_changes(path: Path, tmp_path: Path) -> None:
    """Not even the time of the file; and taking out makes no file."""
    before = path.stat()
    assert change_settings(path, {"PROMPTYOSELF_TZ": "Europe/Paris", "LETTA_BASE_URL": None}) == []
    assert path.stat() == before
    assert change_settings(tmp_path / "none" / ".env", {"PROMPTYOSELF_TZ": None}) == []
    assert not (tmp_path / "none").exists()


def test_the_file_and_its_folder_are_made_private(tmp_path: Path) -> None:
    """Where there is none, it is made; nobody else may read it, since it may hold a key."""
    path = tmp_path / "config" / "promptyoself" / ".env"
    assert change_settings(path, {"LETTA_API_KEY": "sk-$x'y\\z"}) == ["LETTA_API_KEY"]
    assert values(path) == {"LETTA_API_KEY": "sk-$x'y\\z"}
    assert path.read_text().startswith("# Settings of promptyoself")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert os.listdir(path.parent) == [".env"]


def test_a_link_stays_a_link(path: Path, tmp_path: Path) -> None:
    """People keep such files elsewhere, and link to them."""
    link = tmp_path / ".env"
    link.symlink_to(path)
    change_settings(link, {"PROMPTYOSELF_INTERVAL": "5"})
    assert link.is_symlink()
    assert values(path)["PROMPTYOSELF_INTERVAL"] == "5"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROMPTYOSELF_INTERVAL", "abc"),
        ("PROMPTYOSELF_TZ", "Europe/Londn"),
        ("PROMPTYOSELF_DESIRE_HALF_LIFE", "long"),
        ("LETTA_BASE_URL", "localhost:8283"),
        ("LETTA_SERVER_URL", "localhost:8283"),
        ("LETTA_API_KEY", "two words"),
        ("PROMPTYOSELF_LOG_FILE", "~/x"),
        ("PROMPTYOSELF_VAR", "a\nLETTA_BASE_URL=http://evil"),
        ("PROMPTYOSELF_TZ", "  "),
    ],
)
def test_what_would_be_refused_later_is_refused_now(path: Path, name: str, value: str) -> None:
    """Nothing is written, and a secret isn't shown."""
    with pytest.raises(PromptyoselfError) as refused:
        change_settings(path, {"PROMPTYOSELF_LOCK_TIMEOUT": "1", name: value})
    assert refused.value.code == "invalid_setting"
    assert refused.value.details["setting"] in (name, "LETTA_BASE_URL")
    assert "two words" not in refused.value.message
    assert path.read_bytes() == BEFORE.encode()


def test_a_file_that_is_not_understood_is_left_alone(path: Path) -> None:
    """A line may be half of a setting: that is mended by hand."""
    path.write_text("PROMPTYOSELF_TZ='Europe\n")
    with pytest.raises(PromptyoselfError, match="line 1"):
        change_settings(path, {"PROMPTYOSELF_INTERVAL": "5"})
    assert path.read_text() == "PROMPTYOSELF_TZ='Europe\n"


def test_changes_at_once_do_not_undo_each_other(path: Path) -> None:
    """Two people, or two scripts; each reads the file and writes it whole."""
    names = ("INTERVAL", "LOCK_TIMEOUT", "CALL_TIMEOUT", "RECONCILE_GRACE", "MIN_INTERVAL")
    changes = [{f"PROMPTYOSELF_{name}": str(number)} for name in names for number in (7, 8, 9)]
    with ThreadPoolExecutor(5) as threads:
        list(threads.map(partial(change_settings, path), changes))
    assert values(path).keys() >= {f"PROMPTYOSELF_{name}" for name in names}


def test_a_crash_leaves_the_old_file_or_the_new(path: Path) -> None:
    """Whatever the syscall at which the process dies, the file is whole."""

    class Dying(Disk):
        left = 0

        def _count(self) -> None:
            self.left -= 1
            if self.left < 0:
                raise Killed

        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            self._count()
            return super().write(descriptor, data)

        def rename(self, source: Path, target: Path) -> None:
            self._count()
            super().rename(source, target)

        def fsync(self, descriptor: int) -> None:
            self._count()
            super().fsync(descriptor)

    seen = set()
    for syscalls in range(5):
        disk = Dying()
        disk.left = syscalls
        with pytest.raises(Killed) if syscalls < 4 else pytest.MonkeyPatch.context():
            change_settings(path, {"PROMPTYOSELF_INTERVAL": "5"}, disk)
        seen.add(path.read_bytes().decode())
    assert seen == {BEFORE, BEFORE + "\nPROMPTYOSELF_INTERVAL=5\n"}


@given(
    value=st.text(
        st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" ")
    ).filter(lambda text: text.strip() and text == text.strip() and not text.startswith("~")),
    tail=st.sampled_from(["", " # comment", "  "]),
)
def test_what_is_written_is_what_is_read(
    value: str, tail: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any path, with whatever quotes, dollars, backslashes and number signs."""
    path = tmp_path_factory.mktemp("x") / ".env"
    path.write_text(f"A=1\nPROMPTYOSELF_VAR = 'x # y'{tail}\nB=2\n")
    change_settings(path, {"PROMPTYOSELF_VAR": value})
    assert values(path) == {"A": "1", "PROMPTYOSELF_VAR": value, "B": "2"}
