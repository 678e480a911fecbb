"""Letta Code: whatever is killed, each prompt is in one conversation once, and has one outcome."""

import contextlib
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from calling import run
from checker import check_chain
from letta_code.server import LettaCode as AppServer
from storm import Loops
from tally import SCALE, SEED, count, rounds

from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request

pytestmark = pytest.mark.timeout(600)

PATIENCE = 300.0 * max(SCALE, 1)  # seconds, on a busy machine


class Storm(Loops):
    """Loops that deliver to an App Server, all of which may be killed."""

    def __init__(self, var: Path, server: AppServer, environ: dict[str, str], seed: int) -> None:
        settings = {
            "PROMPTYOSELF_LETTA_CODE_URL": server.url,
            "PROMPTYOSELF_RECONCILE_GRACE": "4",
            "PROMPTYOSELF_CALL_TIMEOUT": "10",
            "PROMPTYOSELF_KEEP_REPLY": "excerpt",
        }
        super().__init__(var, "http://127.0.0.1:1", seed, **settings)
        self.environ = {**environ, **self.environ}
        self.server = server
        self._var = var

    def register(self, agents: list[str], places: list[str | None], prompts: int) -> None:
        """One-off prompts, due within the next seconds, whose turns take most of a second. They go
        to conversations of their own where the place is None."""
        now = datetime.now(UTC)
        for number in range(prompts):
            request = Request(
                agent_id=agents[number % len(agents)],
                conversation_id=places[number % len(places)],
                prompt=f"This is number {number}. [[slow:0.3]] [[drip:0.4]]",
                time=(now + timedelta(seconds=1 + 3 * self.random.random())).isoformat(),
            )
            register(self.store, request, now)

    def anchors(self) -> list[int]:
        """The processes that keep turns going."""
        mine = f"PROMPTYOSELF_VAR={self._var}".encode()
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    command = (process / "cmdline").read_bytes()
                    environ = (process / "environ").read_bytes().split(b"\0")
                    if b"letta_code.anchor" in command and mine in environ:
                        found.append(int(process.name))
        return found

    def kill_an_anchor(self) -> None:
        """SIGKILL to one of those, if there is one."""
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.kill(self.random.choice(self.anchors()), signal.SIGKILL)
            self.kills += 1

    def kill_the_server(self) -> None:
        """SIGKILL to the App Server, which is started again soon."""
        self.server.kill()
        time.sleep(self.random.random() * 0.5)
        self.server.start()
        self.kills += 1

    def rage(self, kills: int, weapons: list[Callable[[], None]]) -> None:
        """Kill so often, with these in turn; and let the others settle everything."""
        end = time.monotonic() + PATIENCE
        while self.kills < kills or not (self.all_settled() and self.all_answered()):
            assert time.monotonic() < end, f"not settled in time: {self.unsettled()}"
            if self.kills < kills:
                time.sleep(self.random.random() * 2)
                self.random.choice(weapons)()
            else:
                time.sleep(0.2)

    def conversations(self) -> Counter[str]:
        """How many were made for each otid."""
        with self.server.connect() as wire:
            rows = wire.ask("conversation_list", query={"limit": 100_000})["conversations"]
        marks = (re.search(r"\[([0-9a-f-]{36})\]$", row["summary"] or "") for row in rows)
        return Counter(mark[1] for mark in marks if mark)

    def unknown(self) -> set[str]:
        """The otids of which the log says that nobody can tell whether they have arrived."""
        return {
            event.data["otid"]
            for batch in self.store.replay()
            for event in batch.envelopes
            if event.type == "delivery.failed" and event.data["code"] == "unknown"
        }

    def said(self, delivered: set[str]) -> dict[str, str | None]:
        """What the transcripts have as the answer to each, if there is one."""
        said: dict[str, str | None] = dict.fromkeys(delivered)
        otid = ""
        for message in self.server.stored():  # conversation by conversation
            if message["role"] == "user":
                otid = message.get("otid") or ""
            elif message["role"] == "assistant" and otid in said:
                said[otid] = "".join(part.get("text", "") for part in message["content"]) or None
        return said

    def check(self, prompts: int) -> None:
        """All that was sent is in the transcripts once, as far as the server can tell, and all were
        told once what came of it. Of a torn conversation that may be that nobody knows."""
        outcomes = self.outcomes()
        delivered, unknown = self.delivered(), self.unknown()
        assert set(outcomes.values()) == {1}
        assert len(outcomes) == len(delivered) + len(unknown) == prompts
        assert len(unknown) <= self.server.torn
        stored = Counter(message.get("otid") for message in self.server.stored())
        torn = Counter(message.get("otid") for message in self.server.stored(torn_only=True))
        assert all(stored[otid] >= 1 for otid in delivered)
        assert {otid for otid in delivered if stored[otid] - torn[otid] > 1} == set()
        ends = self.answers()
        assert set(ends) == delivered, "an answer is lost"
        assert {len(events) for events in ends.values()} == {1}, "an answer is in the log twice"
        told = {otid: data.get("text") for otid, (data,) in ends.items() if not torn[otid]}
        assert told == self.said(set(told))
        made = self.conversations()
        assert set(made.values()) <= {1}, "two conversations were made for one prompt"
        assert set(made) <= delivered
        totals = run("audit", environ=self.environ).success()["totals"]
        assert totals["delivered"] == len(delivered)
        assert not totals["unaccounted"] + totals["doubled"] + totals["unexpected"]
        assert run("verify", environ=self.environ).success()["valid"]
        check_chain(self._var / "schedules")
        count("kills by SIGKILL", self.kills)
        count("slots audited", prompts)
        count("answers recorded", prompts)


@pytest.fixture
def storm(
    var: Path, environ: dict[str, str], new_letta_code: Callable[..., AppServer]
) -> Iterator[Storm]:
    storm = Storm(var, new_letta_code(), environ, SEED)
    yield storm
    for loop in storm.loops:
        loop.kill()
        loop.wait()
    for anchor in storm.anchors():
        with contextlib.suppress(ProcessLookupError):
            os.kill(anchor, signal.SIGKILL)


def test_senders_are_killed(storm: Storm) -> None:
    """Into conversations that several prompts share, and into new ones. Turns outlive their loops,
    and nothing that was started is left in the end."""
    agents = [storm.server.agent() for _ in range(3)]
    with storm.server.connect() as wire:
        shared = [str(wire.conversation(agents[0])["conversation_id"]) for _ in range(2)]
    prompts = rounds(16)
    storm.register(agents[:1], [*shared, None], prompts // 2)
    storm.register(agents, [None], prompts - prompts // 2)
    storm.start_loops(2)
    storm.rage(rounds(8), [storm.kill_one])
    storm.stop_loops()
    storm.check(prompts)
    # One whose sender was killed right before its send waits a minute for the turn.
    until = time.monotonic() + PATIENCE
    while storm.anchors():
        assert time.monotonic() < until, "an anchor is left"
        time.sleep(0.1)


def test_senders_anchors_and_the_server_are_killed(storm: Storm) -> None:
    """Into conversations of their own, which nothing can block."""
    agents = [storm.server.agent() for _ in range(3)]
    prompts = rounds(16)
    storm.register(agents, [None], prompts)
    storm.start_loops(2)
    storm.rage(rounds(8), [storm.kill_one, storm.kill_an_anchor, storm.kill_the_server])
    storm.stop_loops()
    storm.check(prompts)
