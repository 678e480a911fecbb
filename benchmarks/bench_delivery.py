"""Prompts that are all due at once, against agents that are never kept waiting, and against
letta-client alone.

The floor isn't measured but computed: each agent takes ``LATENCY`` seconds for a prompt, and has
one at a time. As many agents are at work as there are seats. That is all that must take time. The
peer is measured in turns with ours: it tells how far a processor keeps letta-client from the floor.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pairs import FLOORS, Figure, environment, promptyoself, python, summed_up

LATENCY = 0.2  # seconds that the model takes
PROMPTS, AGENTS = 500, 100
BARS = {32: 1.15, 64: 1.3}
"""The largest ratio that is aimed at for prompts, by the number of deliveries at once, whether
their answers are kept or not."""
ROUNDS = 5
STORM = (10_000, 1_000)


def run(pairs: int = ROUNDS, prompts: int = PROMPTS, agents: int = AGENTS) -> Iterator[Figure]:
    """Figures for each concurrency; a round takes seconds, so there are few of them."""
    rounds = min(pairs, ROUNDS)
    # Until `execute` has ended; the same with answers; and then until the last prompt was there.
    taken: dict[tuple[int, str], list[float]] = {}
    against: dict[int, list[tuple[float, float]]] = {}  # ours and letta-client's, in milliseconds
    for _ in range(rounds):
        for seats in BARS:
            plain = deliver(prompts, agents, seats)
            alone = deliver_by_letta_client(prompts, agents, seats)
            answered = deliver(prompts, agents, seats, "excerpt")
            against.setdefault(seats, []).append((plain["seconds"] * 1000, alone * 1000))
            for what, seconds in (
                ("", plain["seconds"]),
                (", answers kept: the prompts", answered["due to delivered"][-1]),
                (", answers kept: and the answers", answered["seconds"]),
            ):
                taken.setdefault((seats, what), []).append(seconds)
    for (seats, what), times in taken.items():
        ideal = floor(prompts, agents, seats)
        yield summed_up(
            f"`execute`, {prompts} prompts due to {agents} agents, `--concurrency {seats}`{what}",
            f"computed: {LATENCY * 1000:g} ms of each agent's time for a prompt, and nothing else",
            [(seconds * 1000, ideal * 1000) for seconds in times],
            None if what.endswith("answers") else BARS[seats],
        )
    for seats, times_of_both in against.items():
        yield summed_up(
            f"`execute`, {prompts} prompts due to {agents} agents, `--concurrency {seats}`",
            f"letta-client alone, {seats} threads that send, and ask for their runs every 50 ms",
            times_of_both,
        )


def floor(prompts: int, agents: int, seats: int) -> float:
    """Seconds that the agents need, kept busy without a pause."""
    return max(prompts * LATENCY / seats, math.ceil(prompts / agents) * LATENCY)


def deliver(prompts: int, agents: int, seats: int, keep: str = "none") -> dict[str, Any]:
    """Have prompts delivered by a process of its own, from a server in another; and answers read,
    where ``keep`` says that they are kept."""
    settings = {"PROMPTYOSELF_KEEP_REPLY": keep}
    answer = _measured("delivery_storm.py", prompts, agents, seats, settings)
    assert answer["replied"] == (0 if keep == "none" else prompts), answer
    return answer


def deliver_by_letta_client(prompts: int, agents: int, seats: int) -> float:
    """Seconds that letta-client alone takes for as many prompts, from a server of the same kind."""
    settings = {"LETTA_API_KEY": "unused"}
    return float(_measured("peer_letta_client.py", prompts, agents, seats, settings)["seconds"])


def _measured(
    program: str, prompts: int, agents: int, seats: int, settings: dict[str, str]
) -> dict[str, Any]:
    """What a program of this folder prints after it has delivered all prompts to a new server."""
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        environ = environment(Path(scratch) / "var")
        with sandbox(agents, environ) as url:
            done = subprocess.run(
                [*python(), str(FLOORS / program), str(prompts), str(seats)],
                env={**environ, "LETTA_BASE_URL": url, **settings},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                check=True,
            )
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["delivered"] == prompts, answer
    return answer


@contextmanager
def sandbox(agents: int, environ: dict[str, str]) -> Iterator[str]:
    """A stand-in Letta in a process of its own; its URL."""
    options = ["--agents", str(agents), "--latency", str(LATENCY), "--port", "0"]
    server = subprocess.Popen(
        [*promptyoself(), "sandbox", *options],
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())["url"]
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    """Print the figures; with ``--storm`` the lateness of a large one too."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=ROUNDS)
    parser.add_argument("--prompts", type=int)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--concurrency", type=int, default=64, help="of the storm")
    parser.add_argument("--storm", action="store_true", help="one round, and who waits how long")
    asked = parser.parse_args()
    if not asked.storm:
        for figure in run(asked.rounds, asked.prompts or PROMPTS, asked.agents or AGENTS):
            print(figure)
        return
    prompts, agents = asked.prompts or STORM[0], asked.agents or STORM[1]
    answer = deliver(prompts, agents, asked.concurrency)
    ideal = floor(prompts, agents, asked.concurrency)
    print(
        f"{prompts} prompts due to {agents} agents, {asked.concurrency} at once: "
        f"{answer['seconds']:.1f} s, {answer['seconds'] / ideal:.2f} of the {ideal:.1f} s that the "
        f"agents need; {answer['cpu'] / prompts * 1000:.2f} ms of CPU per prompt; "
        f"{answer['passes']} passes."
    )
    print("| seconds | p50 | p99 | max |\n|---|---:|---:|---:|")
    for name in ("due to delivered", "claimed to delivered"):
        p50, p99, most = answer[name]
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {most:.2f} |")
    print(f"Prompts that an agent got before another got its first: {answer['ahead']}.")


if __name__ == "__main__":
    main()
