"""A service of systemd, by default that of the loop: installing it, looking at it, removing it."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.setup.units import NAME

_BOOTED = Path("/run/systemd/system")
"""A folder that is there where systemd runs the machine, as sd_booted(3) says."""

_PATIENCE = 10.0
_POLL = 0.1


class Status(NamedTuple):
    """What systemd says of the service."""

    enabled: bool
    """Whether it starts with the machine, or with the user's manager."""
    state: str
    """``active``, ``activating``, ``failed``, ``inactive``, …"""
    restarts: int
    """How often systemd has started it again."""


class Manager:
    """systemd's manager of the user's own services, or of those of the system."""

    def __init__(self, *, system: bool, name: str = NAME) -> None:
        self.system = system
        self._name = name
        self.folder = Path("/etc/systemd/system") if system else _user_folder()
        self.unit = self.folder / name
        self._words = ["systemctl"] if system else ["systemctl", "--user"]

    def command(self, *words: str) -> str:
        """A command of systemctl's as a person types it."""
        return " ".join([*self._words, *words])

    def install(self, text: str, disk: Disk) -> bool:
        """Write the unit, and have it started now and with the machine. Returns whether the unit
        wasn't there like that.

        Raises:
            PromptyoselfError: ``service_failed``; the unit stays where it was written.
        """
        changed = not self.unit.exists() or self.unit.read_text(encoding="utf-8") != text
        if changed:
            disk.make_directory(self.folder)
            disk.replace(self.unit, text.encode())
            self.unit.chmod(0o644)
        if not self.system:
            _wait_for(self._answers)
        self._systemctl("daemon-reload")
        self._systemctl("enable", self._name)
        self._systemctl("restart" if changed else "start", self._name)
        return changed

    def uninstall(self) -> bool:
        """Stop the service, and remove its unit. Returns whether there was one.

        Raises:
            PromptyoselfError: ``service_failed``.
        """
        if not self.unit.exists():
            return False
        self._systemctl("disable", "--now", self._name)
        self.unit.unlink()
        self._systemctl("daemon-reload")
        self._run("reset-failed", self._name)
        return True

    def status(self) -> Status:
        """What systemd says of the service."""
        names = ("UnitFileState", "ActiveState", "NRestarts")
        done = self._run("show", *(f"--property={name}" for name in names), self._name)
        found = dict(line.partition("=")[::2] for line in done.stdout.splitlines())
        restarts = found.get("NRestarts", "")
        return Status(
            enabled=found.get("UnitFileState") == "enabled",
            state=found.get("ActiveState", "unknown"),
            restarts=int(restarts) if restarts.isdigit() else 0,
        )

    def _answers(self) -> bool:
        return self._run("show-environment").returncode == 0

    def _systemctl(self, *words: str) -> None:
        done = self._run(*words)
        if done.returncode != 0:
            reason = " ".join(done.stderr.split()) or "it said nothing"
            raise PromptyoselfError(
                "service_failed",
                f"`{self.command(*words)}` failed: {reason[:500].rstrip('.')}.",
                f"`{self.command('status', self._name)}` may tell more.",
            )

    def _run(self, *words: str) -> subprocess.CompletedProcess[str]:
        # Without them `systemctl --user` finds no manager where nobody has logged in, as over sudo.
        runtime = {"XDG_RUNTIME_DIR": f"/run/user/{os.getuid()}"}
        return subprocess.run(
            [*self._words, *words],
            env={**runtime, **os.environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )


def is_here() -> bool:
    """Whether systemd runs this machine, and can be asked."""
    return _BOOTED.is_dir() and shutil.which("systemctl") is not None


def let_linger() -> bool:
    """Have the user's services started with the machine, and not only while the user is logged in.
    Returns whether that is so now."""
    if lingers():
        return True
    if shutil.which("loginctl") is not None:
        words = ["loginctl", "--no-ask-password", "enable-linger"]
        subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return lingers()


def lingers() -> bool:
    """Whether the user's services start with the machine."""
    return Path("/var/lib/systemd/linger", login()).exists()


def login() -> str:
    """The login of the user of this process."""
    return pwd.getpwuid(os.getuid()).pw_name


def _user_folder() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(home):
        home = os.path.join(os.path.expanduser("~"), ".config")
    return Path(home, "systemd", "user")


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds, but not for long."""
    end = time.monotonic() + _PATIENCE
    while not condition() and time.monotonic() < end:
        time.sleep(_POLL)
