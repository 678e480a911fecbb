"""A person's own editor, and what differs between two texts."""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from difflib import unified_diff
from pathlib import Path

from promptyoself.core.errors import PromptyoselfError

_USUAL = ("vi", "nano")


def editor_command() -> list[str]:
    """The editor that VISUAL or EDITOR names, or one that most systems have. Empty: there is
    none."""
    named = named_editor()
    if named:
        return shlex.split(named)
    return [found] if (found := next(filter(None, map(shutil.which, _USUAL)), None)) else []


def named_editor() -> str:
    """The editor that the environment names; empty if it names none."""
    return os.environ.get("VISUAL", "").strip() or os.environ.get("EDITOR", "").strip()


def new_draft(text: str) -> Path:
    """A file of the caller's alone, with that text, to be edited.

    Raises:
        OSError: it can't be written.
    """
    descriptor, name = tempfile.mkstemp(prefix="promptyoself-", suffix=".toml")
    with open(descriptor, "w", encoding="utf-8", newline="") as file:
        file.write(text)
    return Path(name)


def edit(command: list[str], path: Path) -> str:
    """Let a person edit a file; its text afterwards.

    Raises:
        PromptyoselfError: ``editor_failed``: there is no such editor, it failed, or what it left
            is no text.
    """
    sys.stdout.flush()
    try:
        code = subprocess.run([*command, str(path)], check=False).returncode
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise _failed(command, str(why)) from None
    if code:
        raise _failed(command, f"it ended with {code}")
    return text


def _failed(command: list[str], why: str) -> PromptyoselfError:
    return PromptyoselfError(
        "editor_failed",
        f"The editor {command[0]!r} failed: {why}. Nothing was changed.",
        "VISUAL or EDITOR in the environment names the editor.",
    )


def differences(before: str, after: str, *, coloured: bool) -> str:
    """The lines that differ, with some around them, as `diff -u` shows them."""
    lines = unified_diff(before.splitlines(), after.splitlines(), "before", "after", lineterm="")
    return "\n".join(_in_colour(line) if coloured else line for line in lines)


def _in_colour(line: str) -> str:
    code = {"+": "32", "-": "31", "@": "36"}.get(line[:1])
    return f"\x1b[{code}m{line}\x1b[0m" if code else line
