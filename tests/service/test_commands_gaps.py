"""P3, P7: every command works on a log that has lost events and says so."""

import json
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
from calling import Answer, add, call
from checker import check_chain, lines
from gaps import drop

from promptyoself.doors.registry import COMMANDS
from promptyoself.sandbox import Sandbox

NOT_ABOUT_A_LOG = {"agents", "test", "keygen", "install-plugin", "sandbox", "demo"}
NOT_ABOUT_A_LOG |= {"init", "config", "service", "completion", "letta-code", "install-skill"}
SERVES_OTHERS = {"mcp"}  # whose tools are the other commands
NEVER = {"corrupt_chain", "internal_error", "events_missing", "newer_events", "chain_missing"}


class World:
    """A log of three months, with deliveries, changes, approvals and desires in each."""

    def __init__(self, var: Path, clock: Any, sandbox: Sandbox) -> None:
        self.var, self.clock = var, clock
        self.agent = sandbox.agents[0]
        self.ids: list[str] = []
        self.desires: list[str] = []
        clock.set("2026-09-03T12:00:00")
        self.often = self._registered("often", "--every", "1h", "--max-repetitions", "500")
        self.guarded = self._registered("guarded", "--every", "1d", "--tier", "2")
        self.changed = self._registered("changed", "--cron", "0 9 * * *", "--daily-budget", "9")
        call("approve", "--id", self.guarded, "--uses", "9", "--ttl", "80d").success()
        for _ in range(2):
            answer = call("desire", "--agent-id", self.agent, "--text", f"d{len(self.desires)}")
            self.desires.append(answer.success()["id"])
        for month in (9, 10, 11):
            clock.set(f"2026-{month:02}-10T12:30:00")
            self._registered(f"of month {month}", "--every", "7d")
            for _ in range(2):
                clock.advance(hours=25)
                call("execute").success()
            call("modify", "--id", self.changed, "--prompt", f"changed in {month}").success()
            call("trigger", "--id", self.often).success()
            call("execute").success()
            call("pause", "--id", self.changed).success()
            call("resume", "--id", self.changed).success()
            for desire in self.desires:
                call("reinforce", "--id", desire, "--by", "0.1").success()
        call("cancel", "--id", self._registered("called off", "--every", "3d")).success()
        call("list").success()
        call("desires").success()  # both indexes have seen the end

    def _registered(self, prompt: str, *when: str) -> str:
        self.ids.append(add(*when, agent=self.agent, prompt=prompt))
        return self.ids[-1]

    def numbers(self, chosen: Callable[[dict[str, Any]], bool], chain: str) -> list[int]:
        """The events of a chain that are chosen."""
        events = map(json.loads, lines(self.var / chain))
        return [event["seq"] for event in events if chosen(event)]


@pytest.fixture
def world(var: Path, clock: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with Sandbox(("echo",), latency=0.0) as sandbox:
        monkeypatch.setenv("LETTA_BASE_URL", sandbox.url)
        yield World(var, clock, sandbox)


def _registration(world: World) -> None:
    """Of a schedule that later events speak of, and of a desire that was reinforced."""

    ids = (world.often, world.guarded, world.changed)

    def chosen(event: dict[str, Any]) -> bool:
        return event["type"] == "schedule.registered" and event["id"] in ids

    numbers = world.numbers(chosen, "schedules")
    drop(world.var / "schedules", *numbers[1:])
    first = world.numbers(lambda event: event["id"] == world.desires[1], "desires")
    drop(world.var / "desires", first[0])


def _deliveries(world: World) -> None:
    """Of one month, and what else was appended with them."""

    def chosen(event: dict[str, Any]) -> bool:
        return event["ts"].startswith("2026-10") and event["type"].startswith("delivery.")

    assert drop(world.var / "schedules", *world.numbers(chosen, "schedules"))
    drop(world.var / "desires", *world.numbers(lambda event: event["seq"] == 4, "desires"))


def _claims(world: World) -> None:
    """Those alone whose outcome is there."""
    claims = world.numbers(lambda event: event["type"] == "delivery.attempted", "schedules")
    assert drop(world.var / "schedules", *claims[1::3])


def _outcomes(world: World) -> None:
    """Those alone of slots that were claimed."""
    ends = world.numbers(lambda event: event["type"] == "delivery.delivered", "schedules")
    assert drop(world.var / "schedules", *ends[::3])


def _others(world: World) -> None:
    """Changes and approvals, one in two of them."""

    def chosen(event: dict[str, Any]) -> bool:
        return event["type"].startswith(("schedule.", "approval.")) and event["seq"] > 6

    assert drop(world.var / "schedules", *world.numbers(chosen, "schedules")[::2])


def _month(world: World) -> None:
    """All of one."""
    for chain in ("schedules", "desires"):
        (world.var / chain / "2026-10.ndjson.gz").unlink()


def _first(world: World) -> None:
    """With the first event of all."""
    for chain in ("schedules", "desires"):
        (world.var / chain / "2026-09.ndjson.gz").unlink()


def _end(world: World) -> None:
    """The last events, of which the index has seen."""
    for chain, most in (("schedules", 9), ("desires", 2)):
        last = len(lines(world.var / chain))
        drop(world.var / chain, *range(last - most, last + 1))


LOSSES = (_registration, _deliveries, _claims, _outcomes, _others, _month, _first, _end)


READING = (
    "list", "list --full", "list --agent-id AGENT", "show --id ID", "next --id ID",
    "simulate --until 2026-12-10T12:00", "simulate --until 2026-12-10T12:00 --agent-id AGENT",
    "desires", "desires --agent-id AGENT", "history", "history --id ID",
    "history --agent-id AGENT", "history --type delivery", "history --chain desires",
    "verify", "verify --head HEAD", "stats", "export", "export --agent-id AGENT", "approvals",
    "budgets", "metrics", "audit", "audit --agent-id AGENT",
    "audit --since 2026-10-01T00:00 --until 2026-10-31T00:00", "diff --from 2026-09-01T00:00",
    "pack --out OUT", "doctor", "rebuild", "agenda", "agenda --agent-id AGENT --for 9d",
    "report --since 2026-09-01T00:00", "report --agent-id AGENT", "notify list", "replies --id ID",
    "replies --since 2026-10-01T00:00", "replies --agent-id AGENT",
)  # fmt: skip
"""Every command that only reads, about a schedule or an agent where it can be."""
WRITING = (
    "trigger --id ID", "execute", "modify --id ID --prompt Another", "pause --id ID",
    "resume --id ID", "undo --id ID --dry-run", "edit --id ID",
    "approve --id ID --uses 2", "revoke --id ID",
    "register --agent-id AGENT --prompt often --every 1h",
    "register --agent-id AGENT --prompt new --every 1h", "desire --agent-id AGENT --text Another",
    "idle --agent-id AGENT --every 5h", "reinforce --id DESIRE --by 0.1", "prune --below 0.01",
    "seal", "recover --yes", "cancel --id ID",
)  # fmt: skip
"""Every command that writes."""


def filled_in(command: str, **words: str) -> tuple[str, ...]:
    """The arguments of a command that is written with such words."""
    return tuple(words.get(word, word) for word in command.split())


def tried(arguments: tuple[str, ...], used: set[str], stdin: bytes = b"") -> Answer:
    """Call a command, which must answer as it ordinarily does."""
    answer = call(*arguments, stdin=stdin)
    used.add(arguments[0])
    assert "Traceback" not in answer.err
    if arguments[0] in ("metrics", "history", "export") and answer.code == 0:
        return answer
    document = answer.document
    assert document.get("code") not in NEVER, (arguments, document)
    assert document["status"] == "success" or answer.code in (1, 2), (arguments, document)
    return answer


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["open", "sealed", "from the index"])
@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__.strip("_"))
def test_every_command_over_a_recovered_log(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[World], None], how: str,
) -> None:  # fmt: skip
    """P3, P7: whatever of a log is lost, once that is stated each command works or refuses as it
    does ordinarily: for what is there and for what is lost, at any event, before and after the
    months are sealed, and with or without what the index knew. The chains are sound at the end."""
    used: set[str] = set()
    lose(world)
    world.clock.set("2026-12-01T12:00:00")
    before = call("recover", "--dry-run").success()
    assert before["gaps"]
    more = ()
    if how == "from the index":
        if not (before["differs"] or before.get("desires", {}).get("differs")):
            pytest.skip("the index knows no more")
        more = ("--from-index",)
    if more and not (before["differs"] and before["desires"].get("differs")):
        known = "schedules" if before["differs"] else "desires"
        other = "desires" if before["differs"] else "schedules"
        call("recover", "--yes", "--chain", known, *more).success()
        call("recover", "--yes", "--chain", other).success()
    else:
        call("recover", "--yes", *more).success()
    if how == "sealed":
        assert call("seal").success()["sealed"]
    for chain in ("schedules", "desires"):
        check_chain(world.var / chain)
    call("verify").success()
    events = [json.loads(line) for line in lines(world.var / "schedules")]
    ends = [event["seq"] for event in events]
    for at in {*ends[::5], *range(1, ends[-1], 11), ends[-1]}:
        tried(("list", "--at", str(at)), used).success()
        tried(("show", "--at", str(at), "--id", world.often), used)
        tried(("diff", "--from", str(at)), used).success()
    for at in range(1, len(lines(world.var / "desires")) + 4):
        tried(("desires", "--at", str(at)), used).success()
    there = {event["id"] for event in events if event["type"] == "schedule.registered"}
    head, out = call("head").success()["head"], str(tmp_path / "pack.zip")
    for id_ in world.ids:
        for command in READING:
            if id_ != world.ids[0] and "--id" not in command:
                continue
            arguments = filled_in(command, ID=id_, AGENT=world.agent, HEAD=head, OUT=out)
            known = id_ in there or arguments[:2] not in (("show", "--id"), ("replies", "--id"))
            answer = tried(arguments, used)
            if arguments[0] not in ("history", "export", "metrics", "doctor", "audit", "next"):
                assert (answer.document["status"] == "success") == known, answer.document
    exported = call("export").out
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "elsewhere"))
    tried(("import", "-"), used, exported).success()
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(world.var))
    tried(("import-sqlite", str(tmp_path / "none.db")), used)
    tried(("import-crontab", "-"), used, b"0 9 * * * true\n")
    tried(("import-letta-cron", "-"), used, b'{"version": 1, "tasks": []}')
    for id_, desire in zip(world.ids, cycle(world.desires), strict=False):
        for command in WRITING:
            tried(filled_in(command, ID=id_, AGENT=world.agent, DESIRE=desire), used)
        world.clock.advance(hours=26)
        tried(("execute",), used).success()
    assert used | NOT_ABOUT_A_LOG | SERVES_OTHERS | {"head"} == set(COMMANDS)
    for chain in ("schedules", "desires"):
        check_chain(world.var / chain)
    call("verify").success()
    assert len(lines(world.var / "schedules")) > len(events)
