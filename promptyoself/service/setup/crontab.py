"""The user's crontab, of which one line is ours."""

from __future__ import annotations

import shutil
import subprocess

from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.setup.units import CRON_MARK

_NONE = ("no crontab for", "can't open")
"""What `crontab -l` says where the user has none. Any other failure may hide lines."""


def is_here() -> bool:
    """Whether a user can have a crontab here."""
    return shutil.which("crontab") is not None


def own_line() -> str | None:
    """Our line in the user's crontab, if it is there; ``None`` also where there is no cron."""
    if not is_here():
        return None
    return next((line for line in _read() if line.endswith(CRON_MARK)), None)


def set_line(line: str | None) -> bool:
    """Put our line into the crontab, in the place of the one that is there; or take it out, for
    ``None``. Returns whether that changed anything. All other lines stay.

    Raises:
        PromptyoselfError: ``no_crontab``; ``service_failed``: crontab refused.
    """
    if not is_here():
        raise PromptyoselfError(
            "no_crontab",
            "There is no program `crontab` here.",
            "Install cron; or have a supervisor run `promptyoself execute --loop`.",
        )
    before = _read()
    after = [kept for kept in before if not kept.endswith(CRON_MARK)]
    if line is not None:
        if line in before:
            return False
        after.append(line)
    if after == before:
        return False
    _call("-", text="".join(f"{kept}\n" for kept in after))
    return True


def _read() -> list[str]:
    """The lines of the crontab; none where the user has none, which crontab calls an error."""
    done = subprocess.run(["crontab", "-l"], capture_output=True, text=True, check=False)
    if done.returncode != 0 and not any(words in done.stderr for words in _NONE):
        raise _refused("crontab -l", done.stderr)
    return done.stdout.splitlines()


def _call(*words: str, text: str) -> None:
    done = subprocess.run(
        ["crontab", *words], input=text, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise _refused(f"crontab {' '.join(words)}", done.stderr)


def _refused(command: str, said: str) -> PromptyoselfError:
    reason = " ".join(said.split()) or "it said nothing"
    return PromptyoselfError(
        "service_failed", f"`{command}` failed: {reason[:500]}.", "Run it yourself to see more."
    )
