"""The errors a caller can meet, each with a stable code, a sentence, and what to do about it.

They are raised where the fault is found and turned into the one JSON document only at the doors
(``cli`` and ``mcp_server``). The codes are part of the public contract:
``docs/reference/json.md`` lists them.
"""

import errno
from typing import Any

EXTRAS = {
    "fast": "isal>=1.7",
    "letta-code": "websockets>=15",
    "mcp": "mcp>=2.2,<3",
    "metrics": "prometheus-client>=0.20",
    "notes": "cryptography>=42",
    "notify": "apprise>=2.3",
}
"""The package that each extra installs, as ``pyproject.toml`` has it."""


class PromptyoselfError(Exception):
    """Something was refused, and nothing was changed by the refusal.

    ``code`` is stable snake_case, ``message`` says what was wrong with which value, ``hint`` what
    to do next, and ``details`` are further JSON-able facts for a program to read.
    """

    exit_code = 1

    def __init__(self, code: str, message: str, hint: str = "", **details: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = details

    def document(self) -> dict[str, Any]:
        """The one form of every error, as JSON."""
        head = {
            "status": "error",
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "error": self.message,
        }
        return head | self.details | head  # first in order, and not to be overridden


class WrongUsage(PromptyoselfError):
    """The command line itself is wrong: an option missing, unknown, or in conflict (exit 2)."""

    exit_code = 2


class ChainError(PromptyoselfError):
    """The log on disk is not what a chain must be; it is neither read past nor written over."""


def impossible_event(seq: int, problem: str) -> ChainError:
    """The error for event ``seq`` of a log, which has a ``problem`` that none of ours can have.

    ``problem`` is the whole first sentence.
    """
    return ChainError(
        "corrupt_chain",
        problem,
        "No version of promptyoself writes this: run `promptyoself verify`, and compare it "
        "with a backup.",
        seq=seq,
    )


def sentence(what: BaseException | str) -> str:
    """What went wrong, as a sentence with its full stop, to which others may be added."""
    if isinstance(what, OSError) and what.strerror:
        where = f" ({what.filename})" if what.filename else ""
        text = f"{what.strerror}{where}"
    elif isinstance(what, str | PromptyoselfError):
        text = str(what)
    else:
        text = f"{type(what).__name__}: {what}"
    text = text.rstrip()
    return text if text.endswith((".", "?", "!")) else f"{text}."


def cannot_listen(host: str, port: int, error: Exception) -> PromptyoselfError:
    """What a server says that could not listen there: ``port_in_use``, or ``cannot_listen``."""
    taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    return PromptyoselfError(
        "port_in_use" if taken else "cannot_listen",
        f"Cannot listen on {host}:{port}: {error}.",
        "Choose another --port; 0 takes any that is free.",
    )


def missing_package(what: str, extra: str) -> PromptyoselfError:
    """``missing_package``: a command needs the package of an extra, which isn't installed.

    ``what`` is what needs it, with its verb: ``Metrics need``. The hint names the package and not
    the extra, since promptyoself itself need not be on the index that pip asks.
    """
    import shlex  # few commands ever need these two
    import sys

    requirement = EXTRAS[extra]
    name = requirement.partition(">")[0]
    return PromptyoselfError(
        "missing_package",
        f"{what} the package {name}, which isn't installed for {sys.executable}.",
        f"Install it there: `{shlex.quote(sys.executable)} -m pip install '{requirement}'`.",
    )
