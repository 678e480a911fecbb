"""Prompts that are all due at once, in conversations of a real App Server of Letta Code.

The floor is a bare WebSocket client that sends the same to the same server, as fast as the turns
end, and looks nothing up. The model is the tests'. It answers at once, or takes a second for a
turn. What can't be had for less is computed from that second.

The environment variable ``LETTA_CODE`` says where its program is (``tests/letta_code/build.py``
installs it, and prints that). Without it nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from math import nan
from pathlib import Path
from typing import Any

from pairs import FLOORS, Figure, environment, python, summed_up

sys.path[:0] = [str(FLOORS.parent / "tests"), str(FLOORS.parent / "tests" / "support")]

from letta_code.server import LettaCode  # noqa: E402

PROMPTS, CONVERSATIONS, AGENTS = 500, 100, 5
SEATS = 100
"""So that every conversation can be at work."""
ROUNDS = 1
"""A round takes minutes."""
LATENCIES = (0.0, 1.0)  # seconds that the model takes for a turn
BAR = 1.3
PLACES = {
    False: "in {conversations} conversations",
    True: "in a new conversation each",
}


def run(pairs: int = ROUNDS, prompts: int = PROMPTS, seats: int = SEATS) -> Iterator[Figure]:
    """Two figures for each kind of conversations and each latency: against the bare client, and
    where the model takes its time, against that."""
    program = os.environ.get("LETTA_CODE")
    rounds = min(pairs, ROUNDS)
    for is_new, places in PLACES.items():
        where = places.format(conversations=CONVERSATIONS)
        for latency in LATENCIES:
            name = (
                f"`execute --concurrency {seats}`, {prompts} prompts due to Letta Code {where}, "
                f"a model of {latency:g} s"
            )
            if program is None:
                missing = "not measured: LETTA_CODE doesn't say where its program is"
                yield Figure(name, missing, nan, nan, nan, nan, nan, 0, BAR, "s")
                continue
            found = [
                pair(Path(program), prompts, seats, latency, number, is_new=is_new)
                for number in range(rounds)
            ]
            seconds = [(ours["seconds"], floor["seconds"]) for ours, floor in found]
            yield summed_up(name, "a bare WebSocket client that sends the same", seconds, BAR, "s")
            if latency:
                turns = math.ceil(prompts / min(seats, prompts if is_new else CONVERSATIONS))
                least = turns * latency
                computed = f"computed: the model's {latency:g} s for each, and nothing else"
                yield summed_up(name, computed, [(ours, least) for ours, _ in seconds], unit="s")


def pair(
    program: Path, prompts: int, seats: int, latency: float, number: int, *, is_new: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What each side took, ours first, on a server of its own."""
    taken = {}
    for side in ("ours", "floor") if number % 2 else ("floor", "ours"):
        with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
            taken[side] = deliver(
                program, Path(scratch), side, prompts, seats, latency, is_new=is_new
            )
    return taken["ours"], taken["floor"]


def deliver(
    program: Path,
    scratch: Path,
    side: str,
    prompts: int,
    seats: int,
    latency: float,
    *,
    is_new: bool,
) -> dict[str, Any]:
    """Have one side send its prompts, from a process of its own, to a server that was just
    started. It is checked that the server has each prompt once."""
    folder = scratch / "letta-code"
    folder.mkdir()
    with LettaCode(program, folder) as server:
        server.start()
        with server.connect() as wire:
            agents = [wire.agent() for _ in range(AGENTS)]
            places: list[tuple[str, str | None]] = [(agent, None) for agent in agents]
            if not is_new:
                places = [
                    (agent, wire.conversation(agent)["conversation_id"])
                    for _ in range(CONVERSATIONS // AGENTS)
                    for agent in agents
                ]
        server.model.latency = latency
        order = {"url": server.url, "places": places, "prompts": prompts, "seats": seats}
        done = subprocess.run(
            [*python(), str(FLOORS / "letta_code_storm.py"), side],
            env=environment(scratch / "var"),
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            check=True,
        )
        stored = [message["otid"] for message in server.stored() if message.get("role") == "user"]
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["delivered"] == prompts, answer
    assert len(set(stored)) == len(stored) == prompts, (len(set(stored)), len(stored))
    return answer


def main() -> None:
    """Print what both sides took, or the figures alone."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("program", type=Path, help="the path of the `letta`")
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--latency", type=float, action="append", help="of the model, in seconds")
    parser.add_argument("--concurrency", type=int, default=SEATS)
    asked = parser.parse_args()
    for is_new, places in PLACES.items():
        for latency in asked.latency or LATENCIES:
            ours, floor = pair(
                asked.program, asked.prompts, asked.concurrency, latency, 0, is_new=is_new
            )
            print(
                f"{asked.prompts} prompts {places.format(conversations=CONVERSATIONS)}, "
                f"{asked.concurrency} at once, a model of {latency:g} s: {ours['seconds']:.1f} s, "
                f"{ours['seconds'] / floor['seconds']:.2f} of the bare client's "
                f"{floor['seconds']:.1f} s; {ours['cpu'] / asked.prompts * 1000:.1f} ms of CPU per "
                f"prompt; memory {ours['mib_before']:.0f} MiB before, {ours['mib_at_most']:.0f} at "
                f"most.",
                flush=True,
            )


if __name__ == "__main__":
    main()
