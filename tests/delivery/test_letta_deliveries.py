"""The main job whole: real commands and real loops, each in a process of its own, with the sandbox
and, with ``make test-letta``, a real Letta server."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from calling import Answer, call, lines_of, run
from checker import check_chain
from storm import Loops
from tally import chance, count, rounds

from promptyoself.doors.session import Session
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request

if TYPE_CHECKING:
    from lettas import Letta

pytestmark = pytest.mark.timeout(900)  # a real server on a busy machine takes its time


class House(Loops):
    """Somebody's data directory, commands, and loops."""

    def __init__(self, var: Path, letta: Letta, environ: dict[str, str]) -> None:
        patience = {
            "PROMPTYOSELF_RECONCILE_GRACE": letta.grace,
            "PROMPTYOSELF_CALL_TIMEOUT": letta.timeout,
        }
        super().__init__(var, letta.url, **patience)
        self.letta = letta
        self.environ = {**environ, **self.environ}
        self._var = var

    def call(self, *arguments: str) -> Answer:
        """Run a command in a process of its own."""
        return run(*arguments, environ=self.environ)

    def register(self, agent_id: str, prompt: str, *asked: str) -> str:
        """Register a prompt, by default one that is due in a second; returns its id."""
        asked = asked or ("--time", "in 1s")
        answer = self.call("register", "--agent-id", agent_id, "--prompt", prompt, *asked)
        return str(answer.success()["id"])

    @contextmanager
    def loop(self) -> Iterator[None]:
        """A loop, which must end in order when told."""
        self.start_loop()
        try:
            yield
            self.stop_loops()
        finally:
            for process in self.loops:
                process.kill()

    def wait_for(self, true: Callable[[], bool]) -> None:
        """Wait until something is so."""
        until = time.monotonic() + 400
        while not true():
            assert time.monotonic() < until, f"not in time: {self.unsettled()}"
            time.sleep(0.1)

    def execute(self) -> None:
        """Deliver what there is, and wait for all of it."""
        with self.loop():
            self.wait_for(self.all_settled)

    def events(self, type_: str, id_: str | None = None) -> list[dict[str, Any]]:
        """The events of a type, or of all types that begin so, from the log as it lies there."""
        logged = [orjson.loads(line) for line in lines_of(self._var)]
        return [e for e in logged if e["type"].startswith(type_) and id_ in (None, e["id"])]

    def check(self, agents: list[str], *, delivered: int) -> None:
        """P2: the log, the agents' histories and the audit agree, and the log is whole: as many
        as given were delivered, each is once in a history, and nothing else is. For none were two
        conversations made."""
        assert self.call("verify").success()["valid"]
        totals = self.call("audit").success()["totals"]
        assert totals["delivered"] == delivered
        logged = [event["data"]["otid"] for event in self.events("delivery.delivered")]
        assert len(logged) == len(set(logged)) == delivered
        copies = self.letta.copies(agents)
        assert set(copies.values()) <= {1}, "a prompt arrived twice"
        assert set(copies) == set(logged), "the log and the histories disagree"
        made = Counter(s for a in agents for s in self.letta.conversations(a).values() if s)
        assert set(made.values()) <= {1}, "a prompt got two conversations"
        assert set(self.outcomes().values()) <= {1}
        check_chain(self._var / "schedules")
        count("slots audited", totals["slots"])


@pytest.fixture
def house(var: Path, environ: dict[str, str], any_letta: Letta) -> House:
    return House(var, any_letta, environ)


def register_earlier(house: House, monkeypatch: pytest.MonkeyPatch, *asked: str) -> str:
    """Register something by a clock that is two minutes slow, and so is due without waiting."""
    with monkeypatch.context() as patch:
        for name, value in house.environ.items():
            patch.setenv(name, value)
        patch.setattr(Session, "now", lambda _: datetime.now(UTC) - timedelta(minutes=2))
        return str(call("register", *asked).success()["id"])


def test_once_and_by_cron_each_prompt_arrives_once(
    house: House, any_letta: Letta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prompt for a time and one on a cron expression are in the history once, as they were
    registered, and the agent's model has been shown just that."""
    agents = [any_letta.agent() for _ in range(2)]
    text = 'Wasser für die "Blumen" 🌻\n\t– bitte. '
    house.register(agents[0], text)
    cron = ("--cron", "* * * * *", "--max-repetitions", "1")
    register_earlier(house, monkeypatch, "--agent-id", agents[1], "--prompt", text, *cron)
    house.execute()
    house.check(agents, delivered=2)
    for agent_id in agents:
        assert [row["content"] for row in any_letta.history(agent_id)] == [text]
        assert any_letta.seen(agent_id) == [text]


def test_twenty_agents_at_once(
    house: House, any_letta: Letta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty agents have a prompt for the same instant, and each gets its own, once. Where a busy
    server's run fails, the prompt isn't in the history, and the model is shown it again."""
    agents = [any_letta.agent() for _ in range(20)]
    due = (datetime.now(UTC) - timedelta(minutes=1)).isoformat()
    ids = {}
    for agent_id in agents:
        asked = ("--agent-id", agent_id, "--prompt", f"This is for {agent_id}.", "--time", due)
        ids[agent_id] = register_earlier(house, monkeypatch, *asked)
    house.execute()
    house.check(agents, delivered=20)
    failed_runs = Counter(
        event["id"]
        for event in house.events("delivery.abandoned")
        if event["data"]["code"] == "run_failed"
    )
    for agent_id, id_ in ids.items():
        shown = any_letta.seen(agent_id)
        assert set(shown) == {f"This is for {agent_id}."}
        assert len(shown) <= 1 + failed_runs[id_]


def test_a_slow_model_is_waited_for(house: House, any_letta: Letta) -> None:
    """While an agent thinks, its slot is open and its next prompt waits; both arrive once."""
    agent_id = any_letta.agent()
    any_letta.hold()
    with house.loop():
        house.register(agent_id, "first")
        house.wait_for(lambda: bool(any_letta.active_runs(agent_id)))
        house.register(agent_id, "second")
        house.wait_for(lambda: bool(house.call("audit").success()["totals"]["pending"]))
        assert len(any_letta.active_runs(agent_id)) == 1
        assert not house.events("delivery.delivered")
        any_letta.finish()
        house.wait_for(house.all_settled)
    house.check([agent_id], delivered=2)
    assert any_letta.seen(agent_id) == ["first", "second"]


def test_a_model_that_fails(house: House, any_letta: Letta) -> None:
    """A turn that fails before its first step is tried again; one that fails later isn't, since the
    agent has the prompt: it is delivered, and the log has the error."""
    before, after = any_letta.agent(), any_letta.agent()
    any_letta.fail(before, after_a_step=False)
    any_letta.fail(after, after_a_step=True)
    ids = [house.register(agent_id, "Try.") for agent_id in (before, after)]
    house.execute()
    house.check([before, after], delivered=2)
    types = [[e["type"].partition(".")[2] for e in house.events("delivery", id_)] for id_ in ids]
    assert types[0] == ["attempted", "abandoned", "attempted", "delivered"]
    assert types[1] == ["attempted", "delivered"]
    (abandoned,) = house.events("delivery.abandoned")
    assert abandoned["data"]["code"] == "run_failed"
    (delivered,) = house.events("delivery.delivered", ids[1])
    assert "INTERNAL_SERVER_ERROR" in delivered["data"]["error"]


def test_the_server_is_stopped_and_started(house: House, any_letta: Letta) -> None:
    """What falls due while Letta is away arrives once when it is back. What it had in hand when it
    was ended is lost, as documented: the run stays active, and so does the slot's doubt, which the
    log tells at once."""
    lost, waiting = any_letta.agent(), any_letta.agent()
    any_letta.hold()
    with house.loop():
        id_ = house.register(lost, "lost")
        house.wait_for(lambda: bool(any_letta.active_runs(lost)))
        any_letta.stop()
        any_letta.finish()
        late = house.register(waiting, "late")
        house.wait_for(lambda: bool(house.events("delivery.abandoned", late)))
        any_letta.start()
        house.wait_for(lambda: bool(house.events("delivery.delivered", late)))
    house.check([lost, waiting], delivered=1)
    assert any_letta.history(lost) == []
    assert len(any_letta.active_runs(lost)) == 1
    attempted, stalled = house.events("delivery", id_)
    assert (attempted["type"], stalled["type"]) == ("delivery.attempted", "delivery.stalled")
    assert stalled["data"]["code"] == "letta_unreachable"


def test_an_agent_is_deleted(house: House, any_letta: Letta) -> None:
    """A prompt for an agent that is gone fails for good, with the agent's id; one whose agent goes
    while it thinks fails as unknown."""
    gone, going = any_letta.agent(), any_letta.agent()
    any_letta.hold()
    with house.loop():
        unknown = house.register(going, "Are you there?")
        house.wait_for(lambda: bool(any_letta.active_runs(going)))
        any_letta.delete(going)
        any_letta.delete(gone)
        permanent = house.register(gone, "Are you there?")
        any_letta.finish()
        house.wait_for(house.all_settled)
    house.check([], delivered=0)
    (failed,) = house.events("delivery.failed", permanent)
    assert (failed["data"]["permanent"], failed["data"]["code"]) == (True, "agent_not_found")
    (failed,) = house.events("delivery.failed", unknown)
    assert failed["data"]["code"] == "unknown"
    checked = ("--agent-id", gone, "--prompt", "p", "--time", "in 1h", "--check")
    house.call("register", *checked).error("agent_not_found")


def test_no_agents(house: House, any_letta: Letta) -> None:
    """A server without agents has a list of none, and answers all the same."""
    for agent_id in any_letta.agents():
        any_letta.delete(agent_id)
    answer = house.call("agents").success()
    assert (answer["agents"], answer["count"]) == ([], 0)
    answer = house.call("test").success()
    assert (answer["agents"], answer["version"]) == (0, "0.16.8")
    agent_id = any_letta.agent()
    (row,) = house.call("agents").success()["agents"]
    assert (row["id"], row["last_run_at"]) == (agent_id, None)


def test_conversations(house: House, any_letta: Letta) -> None:
    """Prompts into conversations arrive there once, beside those of the agent itself. One that is
    made for a prompt bears the schedule's name, and the log says which it is."""
    agent_id = any_letta.agent()
    talks = [any_letta.conversation(agent_id) for _ in range(2)]
    for talk in talks:
        house.register(agent_id, f"To {talk}.", "--time", "in 1s", "--conversation-id", talk)
    asked = ("--time", "in 1s", "--name", "alone", "--conversation", "new")
    id_ = house.register(agent_id, "To nobody else.", *asked)
    house.register(agent_id, "To yourself.")
    house.execute()
    house.check([agent_id], delivered=4)
    (delivered,) = house.events("delivery.delivered", id_)
    made, otid = delivered["data"]["conversation_id"], delivered["data"]["otid"]
    assert any_letta.said_in(made) == ["To nobody else."]
    assert any_letta.conversations(agent_id)[made] == f"alone [{otid}]"
    for talk in talks:
        assert any_letta.said_in(talk) == [f"To {talk}."]
    assert sorted(any_letta.seen(agent_id)) == sorted(
        [*(f"To {t}." for t in talks), "To yourself.", "To nobody else."]
    )


def test_the_envelope_as_the_model_sees_it(house: House, any_letta: Letta) -> None:
    """With --envelope the model is told what woke it, when that was due and what time it is."""
    agent_id = any_letta.agent()
    asked = ("--time", "in 1s", "--envelope", "--name", "Stretching", "--tz", "Asia/Kathmandu")
    id_ = house.register(agent_id, "Stretch.\nSlowly.", *asked)
    house.execute()
    house.check([agent_id], delivered=1)
    (text,) = any_letta.seen(agent_id)
    lines = text.split("\n")
    (attempted,) = house.events("delivery.attempted", id_)
    slot = datetime.fromisoformat(attempted["data"]["slot"]).astimezone(UTC)
    assert lines[0] == 'Scheduled task "Stretching" is firing.'
    assert lines[1] == "Timezone: Asia/Kathmandu"
    due, zone = lines[2].removeprefix("Scheduled for: ").split("[")
    assert (datetime.fromisoformat(due), zone) == (
        slot.replace(microsecond=slot.microsecond // 1000 * 1000),
        "Asia/Kathmandu]",
    )
    assert lines[3].startswith("Current time: ")
    assert lines[4:] == ["This is a one-off scheduled task.", "", "Prompt: Stretch.", "Slowly."]


def test_loops_are_killed_at_random(
    house: House, any_letta: Letta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2 and P10: loops are killed with SIGKILL at random instants (50 with a real server) while
    prompts are under way, once and by cron, into conversations or not, and each arrives just once.
    Each answer is in the log once."""
    house.environ["PROMPTYOSELF_KEEP_REPLY"] = "excerpt"
    random_ = chance("kills beside a Letta")
    kills = 50 if any_letta.real else rounds(12)
    agents = [any_letta.agent() for _ in range(20)]
    any_letta.slow(0.4)
    cron = ("--cron", "* * * * *", "--max-repetitions", "2" if any_letta.real else "1")
    for agent_id in agents[:3]:
        register_earlier(house, monkeypatch, "--agent-id", agent_id, "--prompt", "cron", *cron)
    prompts = 6 * kills // 5
    scatter(house, agents, prompts, kills * 0.9, random_)
    for _ in range(2):
        house.start_loop()
    try:
        while house.kills < kills:
            time.sleep(random_.random() * 1.8)
            house.kill_one()
        any_letta.slow(0)
        house.wait_for(house.all_settled)
        house.wait_for(house.all_answered)
        house.stop_loops()
    finally:
        for process in house.loops:
            process.kill()
    house.check(agents, delivered=prompts + 3 * int(cron[-1]))
    prompted = {row["otid"]: row["content"] for a in agents for row in any_letta.history(a)}
    answers = house.answers()
    assert {otid: [data.get("text") for data in ends] for otid, ends in answers.items()} == {
        otid: [f"You said: {text}"] for otid, text in prompted.items()
    }
    count("answers recorded", len(answers))
    count("kills by SIGKILL", kills)


def scatter(
    house: House, agents: list[str], prompts: int, seconds: float, random_: random.Random
) -> None:
    """Register prompts that are due at random within a number of seconds, every fifth into a
    conversation of its agent's, and every fifth into a new one."""
    now = datetime.now(UTC)
    talks = {agent_id: house.letta.conversation(agent_id) for agent_id in agents}
    for number in range(prompts):
        agent_id = agents[number % len(agents)]
        due = now + timedelta(seconds=5 + random_.random() * seconds)
        request = Request(
            agent_id=agent_id,
            prompt=f"prompt {number}",
            time=due.isoformat(),
            conversation_id={0: talks[agent_id], 1: "new"}.get(number % 5),
        )
        register(house.store, request, now)
