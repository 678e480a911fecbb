"""The demonstration: the main job, from the first prompt to the proof.

It runs the real commands in processes of their own, as a person would, so what it shows is what
one gets.
"""

import gzip
import os
import shlex
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import click
import orjson

from promptyoself.core.addresses import presentable
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import read_sources
from promptyoself.core.visible import visible
from promptyoself.doors.command import command
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

_PATIENCE = 60.0


@command("demo")
def demo_command(session: Session) -> Document:
    """Show the whole of it, from three prompts to the proof.

    It registers three prompts, delivers two, and proves that from the log. It uses a sandbox of its
    own or, with LETTA_BASE_URL set, that server's agents. The data directory is a new one, unless
    --var names one. Progress is shown on stderr.
    """
    from promptyoself.sandbox import Sandbox

    with tempfile.TemporaryDirectory(prefix="promptyoself-demo-") as scratch:
        var = Path(session.var) if session.var else Path(scratch) / "var"
        sources = {source.setting.name: source for source in read_sources(var=session.var)}
        if sources["LETTA_BASE_URL"].origin != "default":
            return _Demo(var, session.settings.base_url).run()
        _echo("No LETTA_BASE_URL is set, so a sandbox stands in for Letta, with agents that echo.")
        with Sandbox(["echo-1"], latency=1.0) as sandbox:
            return _Demo(var, sandbox.url).run()


class _Demo:
    def __init__(self, var: Path, url: str) -> None:
        self._environ = {**os.environ, "LETTA_BASE_URL": url, "PROMPTYOSELF_VAR": str(var)}
        self._environ["PROMPTYOSELF_FORMAT"] = "json"  # which is read here, and shown
        self._var = var
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

    def _deliver(self, wanted: set[str]) -> None:
        command = [sys.executable, "-m", "promptyoself", "execute", "--loop"]
        _echo("$ promptyoself execute --loop")
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=self._environ) as loop:
            assert loop.stdout is not None
            patience = threading.Timer(_PATIENCE, loop.terminate)
            patience.start()
            try:
                for line in loop.stdout:  # until it ends, at the latest when patience does
                    _echo(line.decode().rstrip())
                    executed = orjson.loads(line).get("executed", [])
                    wanted -= {item["id"] for item in executed if item["delivered"]}
                    if not wanted:
                        break
            finally:
                patience.cancel()
                loop.terminate()
                try:
                    loop.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    loop.kill()
        if wanted:
            raise PromptyoselfError(
                "demo_failed",
                f"Not delivered within {_PATIENCE:g} seconds: {', '.join(sorted(wanted))}.",
                "`promptyoself doctor` may tell why.",
            )

    def _show_log(self) -> list[dict[str, Any]]:
        _echo(f"$ zcat {self._var}/schedules/*.ndjson.gz")
        events = []
        for segment in sorted((self._var / "schedules").glob("*.ndjson.gz")):
            with gzip.open(segment) as lines:
                for line in lines:
                    _echo(line.decode().rstrip())
                    events.append(orjson.loads(line))
        return events

    def _call(self, *arguments: str) -> dict[str, Any]:
        _echo(f"$ promptyoself {shlex.join(arguments)}")
        command = [sys.executable, "-m", "promptyoself", *arguments]
        done = subprocess.run(command, env=self._environ, stdout=subprocess.PIPE, check=False)
        answer: dict[str, Any] = orjson.loads(done.stdout)
        _echo(done.stdout.decode().rstrip())
        if answer["status"] != "success":
            raise PromptyoselfError(answer["code"], answer["message"], answer["hint"])
        return answer


def _echo(text: str) -> None:
    click.echo(visible(text), err=True)
