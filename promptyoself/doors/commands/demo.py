"""The demonstration: the main job, from the first prompt to the proof.

It runs the real commands in processes of their own, as a person would, so what it shows is what
one gets.
"""

from __future__ import annotations

import gzip
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import click
import orjson

from promptyoself.core.addresses import presentable
from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.settings import read_sources
from promptyoself.core.visible import visible
from promptyoself.doors.command import command
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

_PATIENCE = 60.0


@command("demo")
@click.option(
    "--target",
    type=click.Choice(["letta", "letta-code"]),
    default="letta",
    help="Where the prompts go.",
)
@click.option("--program", metavar="PATH", help="The `letta` of Letta Code (else that of PATH).")
def demo_command(session: Session, target: str, program: str | None) -> Document:
    """Show the whole of it, from the first prompt to the proof.

    It registers three prompts, delivers two, and proves that from the log. It uses a sandbox of its
    own or, with LETTA_BASE_URL set, that server's agents. With --target letta-code, a real Letta
    Code answers two prompts. Its agent, its App Server and its model, which echoes, are there for
    this alone. The data directory is a new one, unless --var names one. Progress is shown on
    stderr.
    """
    if program is not None and target != "letta-code":
        raise WrongUsage(
            "conflicting_options",
            "--program names Letta Code, and the demonstration is of a Letta server.",
            "Add --target letta-code, or leave --program out.",
        )
    with tempfile.TemporaryDirectory(prefix="promptyoself-demo-") as scratch:
        var = Path(session.var).absolute() if session.var else Path(scratch) / "var"
        if target == "letta-code":
            return _LettaCodeDemo(var, program, Path(scratch)).run()
        from promptyoself.sandbox import Sandbox

        sources = {source.setting.name: source for source in read_sources(var=session.var)}
        if sources["LETTA_BASE_URL"].origin != "default":
            return _LettaDemo(var, session.settings.base_url).run()
        _echo("No LETTA_BASE_URL is set, so a sandbox stands in for Letta, with agents that echo.")
        with Sandbox(["echo-1"], latency=1.0) as sandbox:
            return _LettaDemo(var, sandbox.url).run()


class _Demo:
    """What is done by commands, and shown."""

    def __init__(self, var: Path, environ: Mapping[str, str]) -> None:
        # The answers are read here, and shown, so they are JSON.
        own = {"PROMPTYOSELF_VAR": str(var), "PROMPTYOSELF_FORMAT": "json"}
        self._environ = {**environ, **own}
        self._var = var

    def _deliver(self, wanted: set[str], *, until_answered: bool = False) -> None:
        """Let a loop deliver these schedules' prompts, and read what is answered if that is asked
        for."""
        unanswered = set(wanted) if until_answered else set()
        command = [sys.executable, "-m", "promptyoself", "execute", "--loop"]
        _echo("$ promptyoself execute --loop")
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=self._environ) as loop:
            try:
                with closing(_answers(loop)) as answers:
                    for answer in answers:
                        executed = answer.get("executed", [])
                        wanted -= {item["id"] for item in executed if item["delivered"]}
                        replies = answer.get("replies", [])
                        unanswered -= {item["id"] for item in replies if item["replied"]}
                        if not wanted | unanswered:
                            break
            finally:
                loop.terminate()
                try:
                    loop.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    loop.kill()
        if wanted or unanswered:
            what = "delivered" if wanted else "answered"
            ids = ", ".join(sorted(wanted or unanswered))
            raise PromptyoselfError(
                "demo_failed",
                f"Not {what} within {_PATIENCE:g} seconds: {ids}.",
                "`promptyoself doctor` may tell why.",
            )

    def _call(self, *arguments: str) -> dict[str, Any]:
        _echo(f"$ promptyoself {shlex.join(arguments)}")
        command = [sys.executable, "-m", "promptyoself", *arguments]
        done = subprocess.run(command, env=self._environ, stdout=subprocess.PIPE, check=False)
        answer: dict[str, Any] = orjson.loads(done.stdout)
        _echo(done.stdout.decode().rstrip())
        return _success(answer)


class _LettaDemo(_Demo):
    """On a Letta server."""

    def __init__(self, var: Path, url: str) -> None:
        super().__init__(var, {**os.environ, "LETTA_BASE_URL": url})
        self._url = presentable(url)

    def run(self) -> Document:
        agents = self._call("agents")["agents"]
        if not agents:
            raise PromptyoselfError(
                "demo_failed", f"Letta at {self._url} has no agents.", "Create one first."
            )
        agent = agents[0]["id"]
        base = ["register", "--agent-id", agent]
        _echo("\n1. Three prompts: once in 3 seconds, every 10 seconds, and on weekdays at nine.")
        once = self._call(*base, "--prompt", "Water the plants.", "--time", "in 3s")["id"]
        series = self._call(*base, "--prompt", "Stretch.", "--every", "10s")["id"]
        cron = self._call(
            *base, "--prompt", "Plan the day.", "--cron", "0 9 * * MON-FRI", "--tz", "Europe/London"
        )["id"]
        _echo("\n2. When will the third one fire?")
        fires = self._call("next", "--id", cron, "--count", "3")["fires"]
        _echo("\n3. The loop delivers what becomes due.")
        self._deliver({once, series})
        self._call("cancel", "--id", series, "--reason", "the demonstration is over")
        _echo("\n4. What happened is in the log; zcat shows it:")
        events = self._show_log()
        _echo("\n5. Is every event in its place, and unaltered?")
        proof = self._call("verify")
        delivered = [event["id"] for event in events if event["type"] == "delivery.delivered"]
        return {
            "url": self._url,
            "agent_id": agent,
            "delivered": {id_: delivered.count(id_) for id_ in (once, series)},
            "next_fires": fires,
            "events": len(events),
            "valid": proof["valid"],
            "head": proof["head"],
            "message": "Registered, waited, delivered, and proved.",
        }

    def _show_log(self) -> list[dict[str, Any]]:
        _echo(f"$ zcat {self._var}/schedules/*.ndjson.gz")
        events = []
        for segment in sorted((self._var / "schedules").glob("*.ndjson.gz")):
            with gzip.open(segment) as lines:
                for line in lines:
                    _echo(line.decode().rstrip())
                    events.append(orjson.loads(line))
        return events


class _LettaCodeDemo(_Demo):
    """On a real Letta Code, all of whose files are in the folder ``scratch``."""

    def __init__(self, var: Path, program: str | None, scratch: Path) -> None:
        from promptyoself.service.letta_code.program import find_program
        from promptyoself.service.letta_code.supervisor import QUIET

        self._scratch = scratch
        self._url = f"ws://127.0.0.1:{_free_port()}"
        self._work = scratch / "work"
        for folder in (scratch / "home", self._work):
            folder.mkdir()
        # Nothing of the caller's own Letta Code is used, nor of an account.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LETTA_")}
        own = {
            "HOME": str(scratch / "home"),
            "LETTA_LOCAL_BACKEND_DIR": str(scratch / "store"),
            "PROMPTYOSELF_LETTA_CODE_URL": self._url,
            "PROMPTYOSELF_KEEP_REPLY": "excerpt",  # since the answers are shown
        }
        super().__init__(var, {**kept, **QUIET, **own})
        path, self._version = find_program(program, self._environ)
        self._letta_word = "letta" if program is None else str(path)

    def run(self) -> Document:
        from promptyoself.sandbox.echo_model import HANDLE, EchoModel

        _echo(f"Letta Code {self._version} gets a home and a store of its own, for as long as this")
        _echo(f"takes, in {self._scratch}.")
        _echo("\n1. A model that echoes, which needs no account, and an agent that has it.")
        with EchoModel() as model:
            where = ["--base-url", model.url, "--api-key", "none"]
            self._letta("connect", "openai-compatible", *where)
            create = ["agents", "create", "--name", "Echo", "--model", HANDLE]
            agent = self._letta(*create, "--personality", "blank", grep='"id": "agent.*"')["id"]
            _echo("\n2. An App Server, through which prompts reach the agent.")
            with self._app_server():
                return self._prompt(agent)

    def _prompt(self, agent: str) -> Document:
        base = ["register", "--agent-id", agent]
        _echo("\n3. Two prompts in 2 seconds: one in a new conversation, one in the agent's own.")
        new = self._call(*base, "--prompt", "Water the plants.", "--time", "in 2s")["id"]
        default = self._call(
            *base, "--prompt", "Stretch.", "--time", "in 2s", "--conversation", "default"
        )["id"]
        _echo("\n4. The loop delivers what becomes due, and reads the answers.")
        self._deliver({new, default}, until_answered=True)
        _echo("\n5. What did the agent answer?")
        self._call("replies")
        _echo("\n6. Which conversation was made for the first one?")
        delivered = self._call("history", "--id", new, "--type", "delivery.delivered")["events"]
        made = delivered[0]["data"]["conversation_id"]
        _echo("\n7. What does Letta Code say of these two conversations?")
        answers = [self._last_said(agent, place) for place in (made, "default")]
        _echo("\n8. Has every prompt that was due its outcome, and its answer?")
        schedules = {line["id"]: line for line in self._call("audit")["schedules"]}
        _echo("\n9. Is every event in its place, and unaltered?")
        proof = self._call("verify")
        return {
            "url": self._url,
            "target": "letta-code",
            "version": self._version,
            "agent_id": agent,
            "delivered": {id_: schedules[id_]["delivered"] for id_ in (new, default)},
            "answers": answers,
            "events": proof["events"],
            "valid": proof["valid"],
            "head": proof["head"],
            "message": "Registered, waited, delivered, answered, and proved.",
        }

    def _last_said(self, agent: str, conversation: str) -> str:
        """What the agent has said last in a conversation."""
        where = ["--agent", agent, "--conversation", conversation, "--order", "asc"]
        rows = self._letta("messages", "list", *where, grep='"text": "[^<].*"')
        texts = [
            row["content"][-1]["text"] for row in rows if row["message_type"] == "assistant_message"
        ]
        if not texts:
            raise PromptyoselfError(
                "demo_failed",
                f"The agent hasn't answered in conversation {conversation}.",
                "What the App Server said stands above.",
            )
        return str(texts[-1])

    @contextmanager
    def _app_server(self) -> Iterator[None]:
        """An App Server that is ready, and ends with the block.

        It also ends if this process is killed, since nobody reads its events then.
        """
        words = ["letta-code", "up"]
        if self._letta_word != "letta":
            words += ["--program", self._letta_word]
        _echo(f"$ promptyoself {shlex.join(words)} &")
        command = [sys.executable, "-m", "promptyoself", *words]
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            env=self._environ,
            cwd=self._work,
            start_new_session=True,  # so that Ctrl-C reaches it through us, once
        ) as server:
            try:
                with closing(_answers(server)) as answers:
                    is_ready = any(answer["event"] == "ready" for answer in answers)
                if not is_ready:
                    raise PromptyoselfError(
                        "demo_failed",
                        f"The App Server wasn't ready within {_PATIENCE:g} seconds.",
                        "What it said stands above.",
                    )
                yield
            finally:
                server.terminate()
                server.wait()

    def _letta(self, *arguments: str, grep: str | None = None) -> Any:
        """Run a command of Letta Code; its JSON, of which only what ``grep`` finds is shown."""
        command = [self._letta_word, "--backend", "local", *arguments]
        pipe = "" if grep is None else f" | grep -o {shlex.quote(grep)}"
        _echo(f"$ {shlex.join(command)}{pipe}")
        done = subprocess.run(
            command,
            env=self._environ,
            cwd=self._work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise PromptyoselfError(
                "demo_failed",
                f"`letta {arguments[0]}` has failed, with exit code {done.returncode}.",
                "What it said stands above.",
            )
        if grep is None:
            return _echo(done.stdout.rstrip())
        _echo("\n".join(re.findall(grep, done.stdout)))
        return orjson.loads(done.stdout)


def _answers(process: subprocess.Popen[bytes]) -> Generator[dict[str, Any]]:
    """What a command answers, line by line, which is shown. If its patience ends, the process is
    told to end.

    Raises:
        PromptyoselfError: as the command says itself.
    """
    assert process.stdout is not None
    patience = threading.Timer(_PATIENCE, process.terminate)
    patience.start()
    try:
        for line in process.stdout:
            _echo(line.decode().rstrip())
            yield _success(orjson.loads(line))
    finally:
        patience.cancel()


def _success(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, if it is a success; else it is raised."""
    if answer["status"] != "success":
        raise PromptyoselfError(answer["code"], answer["message"], answer["hint"])
    return answer


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _echo(text: str) -> None:
    click.echo(visible(text), err=True)
