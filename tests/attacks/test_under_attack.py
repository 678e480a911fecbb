"""A caller who is pinned to an agent makes nobody else late, whatever it does: with every attack
under way at the same time others' commands take at most a second longer, and their prompts arrive
at most a second later, than those of agents whose server and Letta nobody attacks."""

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import httpx
import orjson
from attackers import HEADER, MEBIBYTE, Client, attacking
from calling import call, run
from checker import check_chain
from mcp_servers import Serving, serving

from promptyoself.core.ids import schedule_id
from promptyoself.core.instants import parse_utc
from promptyoself.events.schedule_fields import CONTENT
from promptyoself.targets.http import MOST_BYTES

OTHERS = 6
SCHEDULES = 10_000
DURING = 15.0  # seconds
ATTACKS = ("executes", "swamped", "hoards", "asks")
# A Letta in a process of its own, so that its work is no work of its client's. Whatever is asked
# about one agent is answered with more than anybody reads, or a byte at a time.
LETTA = f"""
import sys
from promptyoself.sandbox import Sandbox
met = []
with Sandbox([*(f"other-{{n}}" for n in range({OTHERS})), *{ATTACKS}]) as sandbox:
    pick = sandbox._faults.pick
    def counted(*asked):
        fault = pick(*asked)
        met.append(fault is not None)
        return fault
    sandbox._faults.pick = counted
    swamped = sandbox.agents[{OTHERS + ATTACKS.index("swamped")}]
    body = "x" * {MOST_BYTES + MEBIBYTE}
    sandbox.fault("drip", route="messages", agent_id=swamped, probability=1.0)
    sandbox.fault("garbage", route="any", agent_id=swamped, probability=1.0, body=body)
    print(sandbox.url, *sandbox.agents, flush=True)
    sys.stdin.read()
    print(sum(met), flush=True)
"""


class Measured(NamedTuple):
    """Seconds: what each command took, by its door and its name; and by how much each prompt was
    late."""

    commands: dict[tuple[str, str], list[float]]
    late: list[float]

    def of(self, door: str) -> list[float]:
        """What all commands took through that door."""
        return [took for (way, _), times in self.commands.items() if way == door for took in times]


class Letta:
    """Where it is; its agents, the attackers last; and a way to end it."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None
        self.url, *self.agents = process.stdout.readline().decode().split()
        self._process = process

    def end(self) -> int:
        """How many requests were answered at length, or never to the end."""
        out, _ = self._process.communicate(timeout=60)
        return int(out)


@contextmanager
def letta() -> Iterator[Letta]:
    """A Letta that treats one of its agents badly."""
    process = subprocess.Popen(
        [sys.executable, "-c", LETTA], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield Letta(process)
    finally:
        process.kill()
        process.communicate()


def fill() -> None:
    """A log that takes a while to read, of agents that play no part here."""
    asked = ("--agent-id", "bystander", "--prompt", "Wait.", "--time", "in 30d")
    call("register", *asked).success()
    line = orjson.loads(call("export").out)
    for first in range(0, SCHEDULES, 500):
        lines = {}
        for number in range(first, first + 500):
            agent = f"bystander-{number // 50}"
            schedule = {**line["schedule"], "agent_id": agent, "prompt": f"{number}"}
            id_ = schedule_id({name: schedule.get(name) for name in CONTENT})
            lines[id_] = orjson.dumps({**line, "id": id_, "schedule": schedule})
        call("import", "-", stdin=b"\n".join(lines.values())).success()
    call("rebuild").success()


class Others:
    """Agents that use their clock as anybody does."""

    def __init__(self, server: Serving, letta: Letta, environ: dict[str, str]) -> None:
        self._port, self._url, self._agents = server.port, letta.url, letta.agents[:OTHERS]
        self._environ = environ
        self._doors = {"mcp": self._over_mcp, "shell": self._at_a_shell}
        self._commands: dict[tuple[str, str], list[float]] = {}
        self._due: dict[str, datetime] = {}

    def take_turn(self, door: str, turn: int) -> None:
        """Have the next agent register a prompt, and look at what it has."""
        agent, prompt = self._agents[turn % OTHERS], f"{door} {turn} at {time.monotonic()}"

        def timed(name: str, **asked: Any) -> dict[str, Any]:
            began = time.monotonic()
            answer = self._doors[door](agent, name, **asked)
            self._commands.setdefault((door, name), []).append(time.monotonic() - began)
            assert answer["status"] == "success", answer
            return answer

        schedule = timed("register", prompt=prompt, time="in 2s")
        self._due[prompt] = parse_utc(schedule["next_run"])
        timed("list")
        timed("show", id=schedule["id"])

    def finish(self) -> Measured:
        """Wait for the prompts that they have registered; what was measured since the last time."""
        measured = Measured(self._commands, self._await())
        self._commands, self._due = {}, {}
        return measured

    def _over_mcp(self, agent: str, name: str, **asked: Any) -> dict[str, Any]:
        with closing(Client(self._port, agent)) as client:
            return client.call(name, **asked)

    def _at_a_shell(self, agent: str, name: str, **asked: Any) -> dict[str, Any]:
        words = [f"--{option}={value}" for option, value in asked.items()]
        return run(name, *words, environ=pinned(self._environ, agent)).success()

    def _await(self) -> list[float]:
        due, until = self._due, time.monotonic() + 60
        while True:
            state = httpx.get(self._url + "/_sandbox/state", trust_env=False, timeout=60).json()
            arrived = {
                message["text"]: datetime.fromisoformat(message["date"])
                for agent in state["agents"]
                for message in agent["messages"]
            }
            if due.keys() <= arrived.keys():
                return sorted((arrived[text] - at).total_seconds() for text, at in due.items())
            assert time.monotonic() < until, due.keys() - arrived.keys()
            time.sleep(0.2)


def measure(seconds: float, *groups: Others) -> list[Measured]:
    """Let the agents of all groups call commands for that time, one at a time through each door,
    and one group right after the other: what else the machine does slows them alike."""
    end = time.monotonic() + seconds

    def go_on(door: str) -> None:
        turn = 0
        while time.monotonic() < end:
            for group in groups:
                group.take_turn(door, turn)
            turn += 1
            time.sleep(0.1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(go_on, ("mcp", "shell")))
    return [group.finish() for group in groups]


def pinned(environ: dict[str, str], agent: str) -> dict[str, str]:
    """The environment of a caller who is pinned to that agent."""
    return {
        **environ, "PROMPTYOSELF_ONLY_AGENT": agent, "PROMPTYOSELF_DEFAULT_AGENT_ID": agent,
    }  # fmt: skip


def told(name: str, attacked: list[float], quiet: list[float]) -> str:
    """A line of the figures that are printed."""
    figures = [
        f"median {median(times):.3f} s, slowest {max(times):.3f} s of {len(times)}"
        for times in (attacked, quiet)
    ]
    return f"{name}: {figures[0]}; elsewhere: {figures[1]}"


def slowest(times: list[float]) -> float:
    """The slowest, but for one, and one more in twenty: a machine that does other things stands
    still for a moment now and then, and no attack is over so soon."""
    return sorted(times)[-2 - len(times) // 20]


def require_within_a_second(attacked: list[float], quiet: list[float]) -> None:
    """What is attacked takes a second longer at most than the same that no attack concerns, at the
    same time on the same machine. Where that is busy, both vary by as much as they take."""
    assert slowest(attacked) <= 1.0 + 2 * slowest(quiet), (attacked, quiet)


def test_nobody_else_is_late(var: Path, environ: dict[str, str]) -> None:
    """The attacks: an agent that calls `execute` all the time, one whose Letta answers without an
    end, one that registers prompts of 1 MiB, and one that asks for all there is, and leaves."""
    fill()
    with ExitStack() as end:
        groups, servers, lettas, environs = [], [], [], []
        for folder in (var, Path(f"{var}-quiet")):
            lettas.append(end.enter_context(letta()))
            there = {"LETTA_BASE_URL": lettas[-1].url, "PROMPTYOSELF_VAR": str(folder)}
            environs.append({**environ, **there})
            words = ("--with-loop", "--agent-header", HEADER, "--tools", "operator")
            servers.append(end.enter_context(serving(environs[-1], *words)))
            groups.append(Others(servers[-1], lettas[-1], environs[-1]))
        measure(0.5, *groups)  # what is imported once is no part of it
        port, agents = servers[0].port, lettas[0].agents[OTHERS:]
        attacks = {
            kind: end.enter_context(attacking(kind, port, agent, pinned(environs[0], agent)))
            for kind, agent in zip(ATTACKS, agents, strict=True)
        }
        for attack in attacks.values():
            attack.begin()
        time.sleep(1.0)
        attacked, quiet = measure(DURING, *groups)
        answers = {kind: attack.end() for kind, attack in attacks.items()}
        code, _ = servers[0].end()
        long_answers = lettas[0].end()
    for (door, name), times in attacked.commands.items():
        print(told(f"{door} {name}", times, quiet.commands[door, name]))
    print(told("late", attacked.late, quiet.late))
    print(answers, long_answers)
    assert code == 0
    check_chain(var / "schedules")

    # Each attack has taken place: a busy machine has few of each.
    assert answers["executes"]["executed"] > 1
    assert answers["executes"]["executed at a shell"] > 0
    assert answers["swamped"]["executed"] > 0
    assert long_answers > 1
    assert answers["hoards"]["registered"] > 1
    assert answers["hoards"]["prompts_too_large"] > 1
    assert answers["asks"]["left"] > 1
    assert sum(answers["asks"].values()) - answers["asks"]["left"] > 0

    for door in ("mcp", "shell"):
        require_within_a_second(attacked.of(door), quiet.of(door))
    require_within_a_second(attacked.late, quiet.late)
