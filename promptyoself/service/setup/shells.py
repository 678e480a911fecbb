"""Where shells look for what completes a command, and the line that has them read it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.disk import Disk

SHELLS = ("bash", "zsh", "fish")


class Place(NamedTuple):
    """The files of one shell for one user."""

    script: Path
    """Where the script goes."""
    startup: Path | None
    """The file that the shell reads at its start; ``None`` where it finds the script by itself."""
    line: str
    """What has to stand in that file."""


def place_of(shell: str) -> Place:
    """Where this user's ``shell``, one of :data:`SHELLS`, keeps such things."""
    home = Path(os.path.expanduser("~"))
    data = _folder("XDG_DATA_HOME", home / ".local" / "share")
    if shell == "fish":
        config = _folder("XDG_CONFIG_HOME", home / ".config")
        return Place(config / "fish" / "completions" / "promptyoself.fish", None, "")
    if shell == "zsh":
        script = data / "zsh" / "site-functions" / "_promptyoself"
        start = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }; "
        folder = Path(os.environ.get("ZDOTDIR") or home)
        return Place(script, folder / ".zshrc", f"{start}. {shlex.quote(str(script))}")
    # The folder that the package bash-completion looks into; the line serves those without it.
    script = data / "bash-completion" / "completions" / "promptyoself"
    return Place(script, home / ".bashrc", f". {shlex.quote(str(script))}")


def install(place: Place, text: str, disk: Disk | None = None) -> bool:
    """Write the script, and add the line where it isn't yet. Returns whether anything changed.

    Raises:
        OSError: a file can't be written.
    """
    disk = disk or Disk()
    changed = False
    if not place.script.exists() or place.script.read_text(encoding="utf-8") != text:
        disk.make_directory(place.script.parent)
        disk.replace(place.script, text.encode())
        changed = True
    if place.startup is not None:
        before = place.startup.read_bytes() if place.startup.exists() else b""
        if place.line.encode() not in before.splitlines():
            gap = b"" if before.endswith(b"\n") or not before else b"\n"
            with place.startup.open("ab") as file:  # in place: it may be a link, and is the user's
                file.write(gap + place.line.encode() + b"\n")
            changed = True
    return changed


def _folder(variable: str, otherwise: Path) -> Path:
    named = os.environ.get(variable, "")
    return Path(named) if os.path.isabs(named) else otherwise
