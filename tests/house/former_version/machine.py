"""A machine on which nothing is left to chance: the clock is turned by hand, and every other thing
that a log or an answer takes from the machine (the host, the login, the process, random bytes, the
software's version, the folder's path) is the same each time.

Only the standard library is altered, and the one clock of the commands; so what is inside the
package may be moved about.
"""

import hashlib
import os
import pwd
import re
import secrets
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from calling import Answer, call, use_environ

from promptyoself.doors.session import Session

HERE = Path(__file__).parent
DATA = HERE / "data"
DOCUMENTS = HERE / "documents"

VERSION = "0.1.0"
"""The version that stands in the data, and that this machine's software says it has."""

HOST, LOGIN = "clock-1", "mary"
_PID = 4242
_LETTA = ("127.0.0.1", 8283)
_CONNECT = socket.create_connection


class Machine:
    """One data directory and its clock. ``letta`` is the port on which a sandbox listens, which
    commands reach under an address that is always the same: it stands in what they write."""

    def __init__(self, var: Path) -> None:
        self.var = var
        self.now = datetime(2026, 9, 28, 8, tzinfo=UTC)
        self.letta: int | None = None
        self.hidden: dict[str, str] = {str(var): "VAR", str(var.parent): "FOLDER"}

    def set(self, text: str) -> None:
        """Set the clock to a time in UTC."""
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC)

    def advance(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    def ask(self, *words: str, stdin: bytes = b"") -> Answer:
        """Call a command in this process."""
        return call(*words, stdin=stdin, verbatim=True)

    def record(self, *words: str, stdin: bytes = b"") -> str:
        """Call a command; what was called, its exit code and what it printed, byte for byte but for
        paths and addresses, which are this machine's."""
        answer = self.ask(*words, stdin=stdin)
        text = f"$ {' '.join(map(_quoted, words))}\nexit {answer.code}\n{answer.out.decode()}"
        for ours, instead in self.hidden.items():
            text = text.replace(ours, instead)
        for pattern, instead in _OF_THE_MACHINE:
            text = pattern.sub(instead, text)
        return text if text.endswith("\n") else f"{text}\n"

    def connect(self, address: Any, *rest: Any, **more: Any) -> socket.socket:
        """Connect as :func:`socket.create_connection` does; to the sandbox in Letta's place, or to
        nobody where there is none: another program may listen at that address."""
        if address == _LETTA:
            address = (_LETTA[0], self.letta or 1)
        return _CONNECT(address, *rest, **more)

    def bytes_at_random(self, size: int) -> bytes:
        """What stands for random bytes: others at each instant, and the same at the same one."""
        seed = f"{self.now.isoformat()} {size}".encode()
        return hashlib.shake_256(seed).digest(size)


_OF_THE_MACHINE = (
    # How well the installed library compresses.
    (re.compile(r'"gzipped":\d+,"sealed":\d+'), '"gzipped":…,"sealed":…'),
    # The versions of what else is installed, and where.
    (re.compile(r'(promptyoself [0-9.]+), Python [^"]*'), r"\1, Python …"),
    (re.compile(r'(alerts\.yml) in [^"]*'), r"\1 in …"),
    # An audit pack has a script and a page whose texts are among the documents of the doors.
    (re.compile(r'"bytes":\d+,("first":.*"head":.*)"sha256":"\w+"'), r'"bytes":…,\1"sha256":"…"'),
)
"""What of an answer isn't the same everywhere, though the software is."""


def _quoted(word: str) -> str:
    return word if word and not set(word) & set(" \n'\"") else repr(word)


@contextmanager
def machine(var: Path) -> Iterator[Machine]:
    """A machine whose commands use the data directory ``var``, with every setting at its default
    (but Letta's address)."""
    here = Machine(var)
    with pytest.MonkeyPatch.context() as patch:
        use_environ(patch, var)
        patch.setenv("COLUMNS", "80")
        patch.setenv("LETTA_BASE_URL", "http://127.0.0.1:8283")
        patch.setattr(Session, "now", lambda _: here.now)
        patch.setattr(os, "urandom", here.bytes_at_random)
        patch.setattr(secrets, "token_bytes", lambda size=32: here.bytes_at_random(size))
        patch.setattr(os, "getpid", lambda: _PID)
        patch.setattr(socket, "gethostname", lambda: HOST)
        patch.setattr(socket, "create_connection", here.connect)
        patch.setattr(os, "uname", lambda real=os.uname: _renamed(real()))
        patch.setattr(pwd, "getpwuid", lambda uid: pwd.struct_passwd((LOGIN, "x", uid, *_REST)))
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "promptyoself" and hasattr(module, "__version__"):
                patch.setattr(module, "__version__", VERSION)
        yield here


_REST = (0, "", "/", "/bin/sh")


def _renamed(uname: os.uname_result) -> os.uname_result:
    return os.uname_result((uname.sysname, HOST, *uname[2:]))


def copy_of(var: Path, name: str, last_pass: float | None, data: Path = DATA) -> Path:
    """A copy of one of the committed data directories, private as the software makes them, and with
    the time of its last pass (seconds since 1970), which is that of a file: git keeps neither."""
    shutil.copytree(data / name, var)
    for path in [var, *var.rglob("*")]:
        path.chmod(0o700 if path.is_dir() else 0o600)
    if last_pass is not None:
        os.utime(var / "last-pass", (last_pass, last_pass))
    return var
