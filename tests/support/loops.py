"""Loops as processes, and the data directory that they share."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import call, events_of

from promptyoself.sandbox import Sandbox
from promptyoself.service.delivery.loop import StopFlag, run_loop
from promptyoself.service.delivery.report import Report

if TYPE_CHECKING:
    from dispatch import Place


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch, var: Path) -> Iterator[Sandbox]:
    with Sandbox([f"a{n}" for n in range(10)], latency=0.02) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        monkeypatch.setenv("PROMPTYOSELF_RECONCILE_GRACE", "1.5")
        yield sandbox


class Loop:
    """A loop in a process of its own."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-X", "faulthandler", "-m", "promptyoself", "execute", "--loop"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.pid = self.process.pid

    def stop(self, number: int = signal.SIGTERM) -> list[dict[str, Any]]:
        """End it; what it has printed."""
        self.process.send_signal(number)
        try:
            out, err = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            raise AssertionError(f"It goes on: {self.process.communicate()[1].decode()}") from None
        assert self.process.returncode == 0, err
        assert b"Traceback" not in err
        return [orjson.loads(line) for line in out.splitlines()]

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def loops(sandbox: Sandbox, var: Path) -> Iterator[Callable[..., Loop]]:
    """Starts loops, each of which is up when it is returned."""
    started: list[Loop] = []

    def start(*arguments: str) -> Loop:
        before = len(events(var, "worker.started"))
        started.append(Loop(*arguments))
        wait_for(lambda: len(events(var, "worker.started")) > before)
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.kill()


def events(var: Path, type_: str = "") -> list[dict[str, Any]]:
    return events_of(var, type_)


def wait_for(holds: Callable[[], Any], timeout: float = 60) -> float:
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < timeout, "it never came to pass"
        time.sleep(0.01)
    return time.monotonic() - began


def add(agent: str, prompt: str = "p", *asked: str) -> str:
    asked = asked or ("--time", "in 1s")
    return str(call("register", "--agent-id", agent, "--prompt", prompt, *asked).success()["id"])


class Here:
    """A loop in a thread of this process, on a fake Letta. Where the place's clock is turned, the
    machine has slept for as long."""

    def __init__(self, place: Place, **options: Any) -> None:
        self.place, self.stop = place, StopFlag()
        self.reports: list[Report] = []
        self.error: BaseException | None = None
        self.options = {
            "concurrency": 8,
            "interval": 60.0,
            "emit": self.reports.append,
            "elapsed": lambda: time.monotonic() + place.ahead.total_seconds(),
            **options,
        }
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            run_loop(
                self.place.store, self.place.targets, self.place.now, stop=self.stop, **self.options
            )
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Here:
        self.thread.start()
        wait_for(lambda: self.error or self.place.types()["worker.started"])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set("test")
        self.thread.join(timeout=60)
        assert not self.thread.is_alive()
