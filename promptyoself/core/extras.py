"""Packages that only some commands need, and what to do where one isn't installed."""

from __future__ import annotations

import shlex
import sys

from promptyoself.core.errors import PromptyoselfError

__all__ = ["EXTRAS", "missing_package"]

EXTRAS = {
    "fast": "isal>=1.7",
    "mcp": "mcp>=2.2,<3",
    "metrics": "prometheus-client>=0.20",
    "notes": "cryptography>=42",
}
"""The package that each extra is, as ``pyproject.toml`` has it: promptyoself's own name need not be
on the index that pip asks, and theirs are."""


def missing_package(what: str, extra: str) -> PromptyoselfError:
    """What a command says that needs the package of an extra: ``missing_package``. ``what`` is what
    needs it, with its verb: ``Metrics need``."""
    requirement = EXTRAS[extra]
    name = requirement.partition(">")[0]
    return PromptyoselfError(
        "missing_package",
        f"{what} the package {name}, which isn't installed for {sys.executable}.",
        f"Install it there: `{shlex.quote(sys.executable)} -m pip install '{requirement}'`.",
    )
