"""Calling the command line from tests: in this process, where it costs milliseconds, or in one of
its own, as a user does."""

from __future__ import annotations

import gzip
import io
import os
import pty
import resource
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import orjson

from promptyoself import cli
from promptyoself.core.setting_values import SETTINGS
from promptyoself.doors.output import emit
from promptyoself.ledger.envelope import hash_line

if TYPE_CHECKING:
    import pytest

AGENT = "agent-00000000-0000-4000-8000-000000000001"


class Answer(NamedTuple):
    """What a command left behind: its exit code, and what it wrote."""

    code: int
    out: bytes
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout; fails where there is none, or anything else."""
        assert self.out.endswith(b"\n"), (self.out, self.err)
        assert self.out.count(b"\n") == 1, self.out
        found: dict[str, Any] = orjson.loads(self.out)
        return found

    def success(self) -> dict[str, Any]:
        """The document of a command that must have succeeded."""
        document = self.document
        assert (self.code, document["status"]) == (0, "success"), (document, self.err)
        return document

    def error(self, code: str, exit_code: int = 1) -> dict[str, Any]:
        """The document of a command that must have refused, with everything that an error has."""
        document = self.document
        assert document["status"] == "error", document
        assert (document["code"], self.code) == (code, exit_code), (document, self.err)
        assert list(document)[:5] == ["status", "code", "message", "hint", "error"]
        assert document["error"] == document["message"]
        assert document["message"].endswith((".", "?"))
        assert isinstance(document["hint"], str)
        assert "Traceback" not in self.err
        return document


def latest(arguments: Sequence[str]) -> list[str]:
    """The arguments with the last of each option that may be given once: a test adds to a base what
    is another way in its case."""
    command = cli.cli.get_command(click.Context(cli.cli), arguments[0]) if arguments else None
    if command is None:
        return list(arguments)
    known = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    uses: list[tuple[object, list[str]]] = []
    rest = iter(arguments[1:])
    for number, word in enumerate(rest):
        option = known.get(word.partition("=")[0])
        if word == "--":
            uses.append((number, [word, *rest]))
        elif option is None or option.multiple or option.is_flag or "=" in word:
            uses.append((option if option and not option.multiple else number, [word]))
        else:
            uses.append((option, [word, *islice(rest, 1)]))
    last = {key: at for at, (key, _) in enumerate(uses)}
    words = [word for at, (key, use) in enumerate(uses) if last[key] == at for word in use]
    return [arguments[0], *words]


def call(*arguments: str, stdin: bytes | None = b"", verbatim: bool = False) -> Answer:
    """Run a command in this process, with the :func:`latest` of its options unless ``verbatim``.
    ``stdin`` of ``None`` is a closed one."""
    before = sys.stdin, sys.stdout, sys.stderr
    out, err = io.BytesIO(), io.StringIO()
    sys.stdin = None if stdin is None else io.TextIOWrapper(io.BytesIO(stdin))  # type: ignore
    sys.stdout, sys.stderr = io.TextIOWrapper(out, encoding="utf-8", write_through=True), err
    try:
        code = cli._run(list(arguments) if verbatim else latest(arguments))
        return Answer(code, out.getvalue(), err.getvalue())
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


def add(*asked: str, agent: str = AGENT, prompt: str = "p") -> str:
    """Register a prompt, by default an hourly one; its id."""
    asked = asked or ("--every", "1h")
    return str(call("register", "--agent-id", agent, "--prompt", prompt, *asked).success()["id"])


def run(
    *arguments: str | bytes,
    environ: dict[str, str],
    stdin: Any = subprocess.DEVNULL,
    prepare: Callable[[], object] | None = None,
) -> Answer:
    """Run a command in a process of its own; ``prepare`` is called in it before Python starts."""
    words = latest(arguments) if all(isinstance(each, str) for each in arguments) else arguments
    done = subprocess.run(
        [sys.executable, "-m", "promptyoself", *words],
        env=environ,
        stdin=stdin,
        capture_output=True,
        preexec_fn=prepare,
        check=False,
        timeout=300,
    )
    return Answer(done.returncode, done.stdout, done.stderr.decode())


def run_at_a_terminal(*arguments: str, environ: dict[str, str], typed: bytes = b"") -> Answer:
    """Run a command in a process of its own, at a terminal at which somebody has typed that: what
    the terminal shows is the answer's ``err``. Stdout is no terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "promptyoself", *arguments],
        env={**environ, "TERM": "xterm", "COLUMNS": "80"},
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        os.write(ours, typed)
        shown = all_shown(ours)
        out, _ = process.communicate(timeout=200)
    os.close(ours)
    return Answer(process.returncode, out, shown.decode())


def all_shown(terminal: int) -> bytes:
    """What is written to a terminal until its other side is closed."""
    shown = b""
    with suppress(OSError):  # the other side is closed
        while piece := os.read(terminal, 1 << 16):
            shown += piece
    return shown


def little_memory() -> None:
    """For a process that is to do with 200 MiB: the ``prepare`` of :func:`run`."""
    resource.setrlimit(resource.RLIMIT_AS, (200 * 1024**2, 200 * 1024**2))


def clean_environ(var: Path) -> dict[str, str]:
    """This process's environment, with that data directory, every setting at its default, and
    times in UTC."""
    environ = dict(os.environ)
    for setting in SETTINGS:
        environ.pop(setting.name, None)
        if setting.name == "PROMPTYOSELF_TZ":  # under whichever clocks the tests run
            environ[setting.name] = "UTC"
        elif setting.name == "PROMPTYOSELF_KEEP_REPLY":  # the tests of answers say otherwise
            environ[setting.name] = "none"
        elif setting.default:  # said out loud, so that a developer's .env changes nothing
            environ[setting.name] = setting.default
    return {**environ, "PROMPTYOSELF_VAR": str(var)}


def use_environ(patch: pytest.MonkeyPatch, var: Path) -> None:
    """Give this process the settings of :func:`clean_environ`."""
    environ = clean_environ(var)
    for setting in SETTINGS:
        patch.delenv(setting.name, raising=False)
        if setting.name in environ:
            patch.setenv(setting.name, environ[setting.name])


def log_of(var: Path) -> dict[str, bytes]:
    """The bytes of everything that belongs to the chain."""
    folder = var / "schedules"
    if not folder.is_dir():
        return {}
    found = [*folder.glob("*.ndjson.gz"), *folder.glob("quarantine/*")]
    return {str(path.relative_to(var)): path.read_bytes() for path in found if path.is_file()}


def lines_of(var: Path) -> list[bytes]:
    """The lines as zcat shows them. A loop may be in the middle of an append, which then has ten
    seconds to end."""
    end = time.monotonic() + 10
    while True:
        paths = sorted((var / "schedules").glob("*.ndjson.gz"))
        try:
            return b"".join(gzip.decompress(path.read_bytes()) for path in paths).splitlines()
        except (EOFError, OSError, zlib.error):
            if time.monotonic() > end:
                raise


def events_of(var: Path, type_: str = "") -> list[dict[str, Any]]:
    """The events in the log whose type begins so."""
    events = map(orjson.loads, lines_of(var))
    return [event for event in events if event["type"].startswith(type_)]


def append_foreign(var: Path, **changes: Any) -> None:
    """Add an event with a good link that another version might have written."""
    last = lines_of(var)[-1]
    event = orjson.loads(last)
    event.update(seq=event["seq"] + 1, prev=hash_line(last), **changes)
    path = max((var / "schedules").glob("*.ndjson.gz"))
    with path.open("ab") as file:
        file.write(gzip.compress(orjson.dumps(event) + b"\n"))


def served_to_agents(_door: object, transport: Any, _loop: object = None) -> None:
    """For an MCP server's `serve`: it ends as soon as it serves. Over HTTP it says that it is
    ready; over stdio, where nothing but the protocol is printed, it prints a document of its own.
    """
    if type(transport).__name__ == "Stdio":
        emit({"status": "success"})
    else:
        transport._ready()


FORBIDDEN = {
    "approve", "approvals", "revoke", "rebuild", "recover", "seal", "import", "import-sqlite",
    "export", "keygen", "pack", "mcp", "sandbox", "demo", "doctor", "install-plugin", "metrics",
    "agenda", "report", "init", "config", "notify", "service", "completion",
    "undo", "edit", "import-crontab", "import-letta-cron", "install-skill", "letta-code",
}  # fmt: skip
"""The commands that no agent has, through whichever door it comes."""
