"""What a machine tells of itself to a person who sets promptyoself up."""

from __future__ import annotations

import shutil


def letta_code() -> str | None:
    """The path of the program of Letta Code, where that is installed."""
    return shutil.which("letta")
