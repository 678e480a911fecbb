"""What a machine tells of itself to a person who sets promptyoself up."""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig


def letta_code() -> str | None:
    """The path of the program of Letta Code, where that is installed."""
    return shutil.which("letta")


def own_program() -> list[str]:
    """How this installation is started, whatever the folder and the environment."""
    called = os.path.abspath(sys.argv[0])
    beside = os.path.join(sysconfig.get_path("scripts"), "promptyoself")
    for path in (called, beside):
        if os.path.basename(path) == "promptyoself" and os.access(path, os.X_OK):
            return [path]
    return [sys.executable, "-m", "promptyoself"]
