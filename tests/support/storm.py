"""Loops that are killed at random and started again; a storm is that, with many prompts and a Letta
that misbehaves."""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from promptyoself.core.settings import Settings, load_settings
from promptyoself.sandbox import Sandbox
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.store.store import Store


class Loops:
    """One data directory, and loops in processes of their own that deliver to a Letta."""

    def __init__(
        self, var: Path, url: str, seed: int = 0, *, stderr: int | None = None, **settings: str
    ) -> None:
        """``stderr`` is where the loops' goes, if not ours."""
        self.stderr = stderr
        self.random = random.Random(seed)
        self.environ = {
            "PROMPTYOSELF_VAR": str(var),
            "LETTA_BASE_URL": url,
            "PROMPTYOSELF_RECONCILE_GRACE": "1.5",
            "PROMPTYOSELF_CALL_TIMEOUT": "2",
            **settings,
        }
        self.settings: Settings = load_settings(self.environ)
        self.store = Store(self.settings, {"via": "test", "who": "storm"}, warn=lambda _: None)
        self.loops: list[subprocess.Popen[bytes]] = []
        self.kills = 0

    def start_loops(self, number: int) -> None:
        """That number of loops more."""
        for _ in range(number):
            self.start_loop()

    def start_loop(self) -> None:
        """One more loop."""
        environ = {**os.environ, **self.environ}
        command = [sys.executable, "-m", "promptyoself", "execute", "--loop", "--concurrency", "16"]
        self.loops.append(
            subprocess.Popen(
                command,
                env=environ,
                stdout=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                stderr=self.stderr,
            )
        )

    def kill_one(self) -> None:
        """SIGKILL to one of the loops, and another in its place."""
        loop = self.loops.pop(self.random.randrange(len(self.loops)))
        loop.kill()
        loop.wait()
        self.kills += 1
        self.start_loop()

    def stop_loops(self) -> None:
        """SIGTERM to all, which must end in order; or at once, if it came during their start."""
        for loop in self.loops:
            loop.send_signal(signal.SIGTERM)
        for loop in self.loops:
            assert loop.wait(timeout=60) in (0, -signal.SIGTERM)
        self.loops.clear()

    def unsettled(self) -> dict[str, object]:
        """What has no outcome yet."""
        state = self.store.read().state
        return {
            "open": list(state.open.values()),
            "due": [s.id for s in state.schedules.values() if s.next_run is not None],
            "awaited": list(state.replies.values()),
        }

    def all_settled(self) -> bool:
        """Whether every schedule has had its outcome."""
        state = self.store.read().state
        return not state.open and all(s.next_run is None for s in state.schedules.values())

    def all_answered(self) -> bool:
        """Whether every answer that is to be kept is in the log, or that there is none."""
        return not self.store.read().state.replies

    def answers(self) -> dict[str, list[dict[str, Any]]]:
        """What the log says of answers, by otid: one end of each, unless something is wrong."""
        ends: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for batch in self.store.replay():
            for event in batch.envelopes:
                if event.type in ("delivery.replied", "delivery.unanswered"):
                    ends[event.data["otid"]].append(dict(event.data))
        return ends

    def outcomes(self) -> Counter[tuple[str, str]]:
        """How often each slot got a final outcome, straight from the log."""
        final = {"delivery.delivered", "delivery.failed", "delivery.skipped"}
        return Counter(
            (str(event.id), event.data["slot"])
            for batch in self.store.replay()
            for event in batch.envelopes
            if event.type in final
        )

    def delivered(self) -> set[str]:
        """The otids that the log says were delivered."""
        return {
            event.data["otid"]
            for batch in self.store.replay()
            for event in batch.envelopes
            if event.type == "delivery.delivered"
        }


class Storm(Loops):
    """Loops, and a sandbox that they deliver to."""

    def __init__(
        self,
        var: Path,
        sandbox: Sandbox,
        seed: int = 0,
        *,
        prompt: str = "prompt",
        stderr: int | None = None,
        **settings: str,
    ) -> None:
        """``prompt`` is what each begins with."""
        super().__init__(var, sandbox.url, seed, stderr=stderr, **settings)
        self.prompt, self.sandbox = prompt, sandbox

    def register(self, prompts: int) -> list[str]:
        """That number of one-off prompts, spread over the agents, due within the next seconds.
        Every fourth gets a new conversation."""
        now = datetime.now(UTC)
        ids = []
        for number in range(prompts):
            due = now + timedelta(seconds=1 + 2 * self.random.random())
            request = Request(
                agent_id=self.sandbox.agents[number % len(self.sandbox.agents)],
                prompt=f"{self.prompt} {number}",
                time=due.isoformat(),
                conversation_id="new" if number % 4 == 0 else None,
            )
            ids.append(register(self.store, request, now)["id"])
        return ids

    def rage(self, kills: int, *, every: float, timeout: float) -> None:
        """Kill that many loops at random, one about ``every`` that many seconds; then let Letta
        behave, and the others settle everything."""
        end = time.monotonic() + timeout
        while self.kills < kills or not (self.all_settled() and self.all_answered()):
            assert time.monotonic() < end, f"not settled in time: {self.unsettled()}"
            if self.kills < kills:
                time.sleep(self.random.random() * 2 * every)
                self.kill_one()
                if self.kills == kills:
                    self.sandbox.clear_faults()
            else:
                time.sleep(0.2)

    def copies(self) -> Counter[str]:
        """How often each otid stands in an agent's history."""
        return Counter(
            message.otid
            for agent in self.sandbox.agents
            for message in self.sandbox.messages(agent)
            if message.otid is not None and message.kind == "user_message"
        )

    def said(self) -> dict[str, str | None]:
        """What the agents have said to what arrived, by otid. None: they have only called tools."""
        said: dict[str, str | None] = {}
        with self.sandbox.lock:
            for run in self.sandbox.runs.values():
                for answer in run.answers:
                    words = answer.text if answer.kind == "assistant_message" else None
                    said[str(run.messages[0].otid)] = words
        return said
