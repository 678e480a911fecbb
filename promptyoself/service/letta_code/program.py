"""The program of Letta Code: where it is, and whether it is one that prompts can be sent to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import shown
from promptyoself.targets.letta_code.failures import OLDEST

_INSTALL = (
    "`python3 -m venv ~/letta-code && ~/letta-code/bin/pip install letta` installs Letta Code, in "
    "an environment of its own. Add ~/letta-code/bin to PATH, before any other `letta`. "
    "`letta-code up` and `demo` take --program instead."
)
_PATIENCE = 60.0


class Program(NamedTuple):
    """A `letta` that is Letta Code's."""

    path: Path
    version: str


def find_program(asked: str | None = None, environ: Mapping[str, str] | None = None) -> Program:
    """The program that is ``asked`` for, else the one that PATH leads to. It is asked for its
    version, whereupon it writes its settings into the home of ``environ``, else of ours.

    Raises:
        PromptyoselfError: ``letta_code_not_installed``: there is none, or it is another program,
            such as the Letta server's; ``letta_code_too_old``.
    """
    named = asked is not None
    place = shutil.which(asked or "" if named else "letta")
    if place is None or (named and os.path.isdir(place)):
        message = (
            f"--program {shown(asked or '')} is no program that can be run."
            if named
            else "There is no program `letta` in PATH."
        )
        raise PromptyoselfError("letta_code_not_installed", message, _INSTALL)
    path = Path(place).absolute()
    version = _version_of(path, environ)
    if version is None:
        raise PromptyoselfError(
            "letta_code_not_installed",
            f"{str(path)!r} is no Letta Code. The Letta server, which is the package letta up to "
            "0.16, has a program of the same name.",
            _INSTALL,
        )
    require_version(version, f"{str(path)!r}")
    return Program(path, version)


def require_version(version: str, what: str) -> None:
    """Refuse a version of Letta Code that is too old to be sent prompts. ``what`` has it.

    Raises:
        PromptyoselfError: ``letta_code_too_old``.
    """
    if number_of(version) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise PromptyoselfError(
            "letta_code_too_old",
            f"{what} is Letta Code {version}; {oldest} is the oldest that prompts can be sent to.",
            "`pip install --upgrade letta`, with the pip of its environment, brings a newer one.",
        )


def number_of(version: str) -> tuple[int, ...]:
    """The three numbers of a version, for comparison; none where it doesn't begin with them."""
    match = re.match(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})", version)
    return tuple(map(int, match.groups())) if match else ()


def _version_of(path: Path, environ: Mapping[str, str] | None) -> str | None:
    """The version that the program tells, if it says that it is Letta Code."""
    try:
        done = subprocess.run(
            [path, "--version"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.match(rb"(\d+\.\d+\.\d+\S*) \(Letta Code\)", done.stdout)
    return match[1].decode("ascii", "replace") if match else None
