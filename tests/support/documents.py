"""The pages of the documentation, read as a person types them: commands and their answers."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any, NamedTuple

from installed import install

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTED_URL = "http://127.0.0.1:8283"
DOCUMENTED_MCP = "http://127.0.0.1:8765/mcp"
SERVERS = ("promptyoself sandbox", "promptyoself execute --loop", "promptyoself mcp")
SERVERS += ("promptyoself letta-code up",)
TELLING = tuple(f"promptyoself {name}" for name in ("history", "replies", "show", "list", "audit"))
LOOSE = {"host", "value", "origin", "detail", "who", "pid", "software", "version", "bytes", "size"}
LOOSE |= {"message", "hint", "error"}
"""Keys whose values depend on the machine, or are wording: they must be there, no more."""


class Block(NamedTuple):
    """A fenced block: where it begins, what it is, what it holds, and why it isn't run."""

    line: int
    language: str
    content: str
    reason: str | None


class Step(NamedTuple):
    """One command, and what is shown as its answer."""

    line: int
    command: str
    shown: str
    exact: bool


def blocks(text: str) -> Iterator[Block]:
    """The fenced blocks of a document."""
    lines = text.split("\n")
    start = -1
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start < 0:
            start = number
            continue
        before = next((found for found in reversed(lines[:start]) if found.strip()), "")
        reason = re.fullmatch(r"<!-- not run: (.*) -->", before)
        content = "\n".join(lines[start + 1 : number])
        yield Block(start + 1, lines[start][3:].strip(), content, reason and reason[1])
        start = -1
    assert start < 0, f"the fence at line {start + 1} is never closed"


def steps(text: str, reason: str | None = None) -> Iterator[Step]:
    """What a document's ``console`` and ``sh`` blocks tell a reader to type: those that are run
    here, or those that aren't for this reason."""
    for block in blocks(text):
        if block.reason != reason:
            continue
        if block.language == "sh":
            yield Step(block.line, f"set -e\n{block.content}", "", exact=False)
        if not block.language.startswith("console"):
            continue
        command, shown = "", []
        at = block.line
        going_on = False
        for number, line in enumerate(block.content.split("\n"), block.line + 1):
            if going_on or line.startswith("$ "):
                if not going_on:
                    if command:
                        yield Step(at, command, "\n".join(shown), "exact" in block.language)
                    command, shown, at = "", [], number
                command += line.removeprefix("$ ") + "\n"
                going_on = line.endswith("\\")
            else:
                shown.append(line)
        yield Step(at, command, "\n".join(shown), "exact" in block.language)


class Reader:
    """Someone who reads a document and types what it shows, in a folder of his own."""

    def __init__(self, folder: Path, url: str, patience: float = 60) -> None:
        """``patience``: how many seconds an answer may take."""
        self.url = url
        self._patience = patience
        self.mcp_url = DOCUMENTED_MCP
        self._folder = folder
        self._variables = folder / ".variables"
        self._place = folder / ".place"
        self._place.write_text(str(folder))
        self._remembered = f"set -a; [ ! -f {self._variables} ] || . {self._variables}\n"
        self._servers: list[subprocess.Popen[str]] = []
        (folder / "docs").symlink_to(ROOT / "docs")
        kept = {"LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT"}
        self.environ = {
            **{name: value for name, value in os.environ.items() if name in kept},
            "HOME": str(folder),
            "PYTHONPATH": str(install(folder)),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "LETTA_BASE_URL": url,
            "PROMPTYOSELF_VAR": str(folder / "var"),
        }

    def type(self, step: Step) -> tuple[str, int]:
        """Run one command; its output, and its exit code (0 of a server that goes on)."""
        command = step.command.replace(DOCUMENTED_URL, self.url)
        command = command.replace(DOCUMENTED_MCP, self.mcp_url)
        if command.startswith(SERVERS) and not command.rstrip().endswith("&"):
            return self._serve(command.strip(), len(_documents(step.shown) or [])), 0
        script = (
            f"trap 'code=$?; export -p >{self._variables}; pwd >{self._place}; exit $code' EXIT\n"
            f'{self._remembered}cd "$(cat {self._place})"\n{command}'
        )
        done = subprocess.run(
            ["bash", "-c", script],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60 + self._patience,
            check=False,
        )
        return done.stdout.replace(self.url, DOCUMENTED_URL), done.returncode

    def follow(self, step: Step) -> None:
        """Run a command, and require that it answers as the document shows. One that only tells
        what has come of others is asked again for a while: a busy machine needs longer for that
        than the document waits."""
        end = time.monotonic() + self._patience
        while True:
            output, code = self.type(step)
            try:
                check(step, output, code)
            except AssertionError:
                if not step.command.startswith(TELLING) or time.monotonic() > end:
                    raise
                time.sleep(0.5)
            else:
                return

    def _serve(self, command: str, lines: int) -> str:
        if "execute" not in command and "letta-code" not in command:
            command += " --port 0"
        environ = self.environ | {"LETTA_BASE_URL": self.url}
        # A process group of its own, since bash stands between us and the server.
        server = subprocess.Popen(
            ["bash", "-c", f"{self._remembered}cd {self._folder}; exec {command}"],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._servers.append(server)
        said: Queue[str] = Queue()
        threading.Thread(target=_listen, args=(server, said), daemon=True).start()
        output = "".join(said.get(timeout=self._patience) for _ in range(lines))
        if "execute" in command and not lines:
            self._wait_for_a_loop()
        if "sandbox" in command:
            self.url = json.loads(output)["url"]
            self.environ["LETTA_BASE_URL"] = self.url
        if "mcp" in command:
            self.mcp_url = json.loads(output)["url"]
        output = output.replace(self.mcp_url, DOCUMENTED_MCP)
        return output.replace(self.url, DOCUMENTED_URL)

    def _wait_for_a_loop(self) -> None:
        """A loop that has nothing to tell is there once it has its lock."""
        end = time.monotonic() + self._patience
        while not list(self._folder.glob("var/workers/wrk_*")) and time.monotonic() < end:
            time.sleep(0.05)

    def leave(self) -> None:
        """Stop the servers, as Ctrl-C would, and see them end in order."""
        for server in reversed(self._servers):
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=60) == 0, server.args

    def abandon(self) -> None:
        """Leave nothing running, however the test went."""
        for server in self._servers:
            server.terminate()  # a kill would leave what it has started itself
            try:
                server.wait(timeout=60)
            except subprocess.TimeoutExpired:
                server.kill()


def _listen(server: subprocess.Popen[str], said: Queue[str]) -> None:
    assert server.stdout is not None
    for line in server.stdout:
        said.put(line)


def _documents(text: str) -> list[Any] | None:
    """The JSON documents that a text consists of; ``None`` where it is something else."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        try:
            document, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return None
        found.append(document)
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return found if all(isinstance(item, dict) for item in found) else None


def _plain(text: str) -> str:
    """Without what differs from one time to the next: hex digits, numbers, times."""
    text = re.sub(r"\b[0-9a-f]{64}\b", "HASH", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID", text)
    text = re.sub(r"\b(sch|des|wrk|ntc)_[0-9a-f]+", r"\1_ID", text)
    text = re.sub(r"/tmp/\S+", "PATH", text)
    return re.sub(r"\d+", "0", text)


def differences(shown: Any, found: Any, where: str = "") -> Iterator[str]:
    """How an answer differs in form from the one shown. ``…`` stands for any more of the same."""
    if isinstance(shown, dict) and isinstance(found, dict):
        shown = {_plain(key): value for key, value in shown.items()}
        found = {_plain(key): value for key, value in found.items()}
        keys = [key for key in shown if key != "…"]
        if missing := [key for key in keys if key not in found]:
            yield f"{where}: shown, but not found: {missing}"
        if "…" not in shown and (extra := [key for key in found if key not in keys]):
            yield f"{where}: found, but not shown: {extra}"
        for key in keys:
            if key in found and key not in LOOSE:
                yield from differences(shown[key], found[key], f"{where}.{key}")
    elif isinstance(shown, list) and isinstance(found, list):
        open_end = bool(shown) and shown[-1] == "…"
        items = shown[:-1] if open_end else shown
        if len(found) < len(items) or (not open_end and len(found) > len(items)):
            yield f"{where}: {len(items)} shown, {len(found)} found"
        for number, (one, other) in enumerate(zip(items, found, strict=False)):
            yield from differences(one, other, f"{where}[{number}]")
    elif isinstance(shown, str) and isinstance(found, str):
        head, cut, _ = shown.partition("…")
        matches = _plain(found).startswith(_plain(head)) if cut else _plain(shown) == _plain(found)
        if not matches:
            yield f"{where}: {shown!r} shown, {found!r} found"
    elif type(shown) is not type(found):
        yield f"{where}: {shown!r} shown, {found!r} found"
    elif isinstance(shown, bool) and shown != found:
        yield f"{where}: {shown} shown, {found} found"


def check(step: Step, output: str, code: int) -> None:
    """Assert that a command answered as the document shows."""
    what = f"line {step.line}: {step.command.strip()}\n{output}"
    shown = _documents(step.shown)
    failing = bool(shown) and any(item.get("status") == "error" for item in shown)
    assert (code != 0) == failing, f"exit {code}: {what}"
    if step.exact:
        assert output.strip() == step.shown.strip(), what
    elif shown:
        found = _documents(output)
        assert found is not None, what
        wrong = list(differences(shown, found))
        assert not wrong, "\n".join([*wrong, what])
    elif step.shown.strip():
        assert list(differences(step.shown.strip(), output.strip())) == [], what


def table(document: str, heading: str) -> dict[str, list[str]]:
    """The rows of the table under a heading, by the name in their first cell."""
    (page,) = (ROOT / "docs").rglob(document)
    text = page.read_text()
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)
    assert len(section) == 2, f"{document} has no heading {heading!r}"
    rows = re.split(r"^#", section[1], maxsplit=1, flags=re.MULTILINE)[0]
    return {
        match[1]: [cell.strip() for cell in match[2].split("|")]
        for match in re.finditer(r"^\| `([^`]+)` \|(.*)\|$", rows, re.MULTILINE)
    }
