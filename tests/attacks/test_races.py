"""P5 under attack: commands, loops and locks of many processes on one data directory."""

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import loops
import pytest
from actors import Actor, Dead
from calling import Answer, clean_environ, run
from checker import check_chain
from crashes import in_threads
from storm import Storm
from tally import chance, count, rounds
from world import check_deliveries

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import load_settings
from promptyoself.events.draft import FOR
from promptyoself.events.kinds import FINISHED, PROBLEMS
from promptyoself.index.index import Index
from promptyoself.index.schedule_schema import SCHEDULE_SCHEMA
from promptyoself.rules.due import due
from promptyoself.rules.policy import approval_in_log
from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.report import audit
from promptyoself.service.proof.verify import head, verify
from promptyoself.service.schedules.approval_tokens import Tokens
from promptyoself.service.schedules.change import cancel
from promptyoself.service.schedules.history import history
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.views import list_schedules, show, stats
from promptyoself.store.store import Store

AT_ONCE = 1.0  # seconds: far less than anybody waits for others here, and more than work takes
STUCK = 60  # the lock's time limit where a test would rather hang than be saved by it
REGISTER = ("register", "--agent-id", "a", "--every", "1h", "--prompt")
Cast = Callable[[dict[str, str]], Actor]
wait_for = partial(loops.wait_for, timeout=60)


@pytest.fixture
def cast() -> Iterator[Cast]:
    """Starts actors, and ends them with the test."""
    with ExitStack() as started:

        def start(environ: dict[str, str]) -> Actor:
            count("processes racing")
            return started.enter_context(Actor(environ))

        yield start


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox([f"agent-{n}" for n in range(6)], latency=0.02) as sandbox:
        yield sandbox


def environ_for(var: Path, sandbox: Sandbox | None = None, **more: str) -> dict[str, str]:
    url = {} if sandbox is None else {"LETTA_BASE_URL": sandbox.url}
    return {**clean_environ(var), **url, **more}


def store_in(environ: dict[str, str]) -> Store:
    return Store(load_settings(environ), {"via": "test", "who": "t"}, warn=lambda _: None)


# --- a crowd --------------------------------------------------------------------------------------

# Why a command may be refused, because another one came first.
REFUSED: dict[str, set[str]] = {
    "cancel": {"already_cancelled", "already_finished"},
    "pause": {"already_paused", "not_active", "nothing_left"},
    "resume": {"not_paused", "nothing_left"},
    "modify": {"not_active", "nothing_left"},
    "trigger": {"not_active"},
    "approve": {"not_active", "no_approval_needed"},
    "revoke": {"no_approval"},
}
# What else than the usual answer says that an event was written, and which.
WRITTEN = {
    "Prompt scheduled.": "schedule.registered",
    "Prompt scheduled again.": "schedule.registered",
    "Schedule paused.": "schedule.paused",
    "Schedule resumed.": "schedule.resumed",
    "Schedule resumed as it last was. It was cancelled.": "schedule.registered",
    "Schedule resumed as it last was. It was completed.": "schedule.registered",
    "Schedule modified.": "schedule.modified",
    "Schedule modified. It has failed and has no time left: give it a new --time.": (
        "schedule.modified"
    ),
    "Schedule modified. It stays failed until it is resumed: `promptyoself resume`.": (
        "schedule.modified"
    ),
}
DONE = {
    "cancel": "schedule.cancelled",
    "trigger": "schedule.triggered",
    "approve": "approval.granted",
    "revoke": "approval.revoked",
}
KINDS = {
    "register": 30, "cancel": 12, "pause": 6, "resume": 6, "modify": 6, "trigger": 8, "list": 8,
    "show": 8, "history": 3, "stats": 3, "head": 2, "verify": 3, "audit": 3, "rebuild": 3,
    "seal": 3, "next": 2, "execute": 2, "approve": 12, "revoke": 3, "approvals": 2, "budgets": 2,
}  # fmt: skip


class Crowd:
    """What people in many shells do to one data directory, and what they were told."""

    def __init__(self, storm: Storm, seed: random.Random) -> None:
        self.storm, self.random = storm, seed
        self.ids: list[str] = []
        self.told: Counter[tuple[str, str]] = Counter()
        self.faults: list[Any] = []
        self.unknown = 0  # commands that were killed before they had answered
        self.threads: list[threading.Thread] = []

    def join_in(self, commands: int, do: Callable[..., Answer]) -> None:
        """One more of them, with that number of commands to run."""
        mine = random.Random(self.random.random())
        thread = threading.Thread(target=self._live, args=(mine, commands, do), daemon=True)
        self.threads.append(thread)

    def let_loose(self, meanwhile: Callable[[], None]) -> None:
        """All at once; returns when all have done."""
        for thread in self.threads:
            thread.start()
        while any(thread.is_alive() for thread in self.threads):
            meanwhile()
        if self.faults:
            raise self.faults[0]

    def _live(self, mine: random.Random, commands: int, do: Callable[..., Answer]) -> None:
        try:
            for number in range(commands):
                arguments = self._choose(mine, number)
                try:
                    answer = do(*arguments)
                except Dead:
                    self.unknown += 1
                else:
                    self._take(arguments, answer)
        except BaseException as error:
            self.faults.append(error)

    def _choose(self, mine: random.Random, number: int) -> list[str]:
        (kind,) = mine.choices(list(KINDS), list(KINDS.values()))
        agent = mine.choice(self.storm.sandbox.agents)
        if kind == "register" or (kind in (*REFUSED, "show", "next") and not self.ids):
            # Every other content is everybody's, so that they meet in it.
            common = mine.random() < 0.5
            prompt = f"common {mine.randrange(4)}" if common else f"{number} {mine.random()}"
            when = mine.choice(
                [["--every", "1s"], ["--every", "2h"], ["--cron", "* * * * *"]]
                + [["--time", "in 1s"]] * (not common)
            )
            outside = ["--tier", "2"] * (mine.random() < 0.4)
            return ["register", "--agent-id", agent, "--prompt", prompt, *when, *outside]
        if kind in (*REFUSED, "show", "next"):
            more = {
                "modify": ["--every", f"{mine.randint(1, 9)}s"],
                "next": ["--count", "3"],
                "approve": ["--uses", f"{mine.randint(1, 3)}", "--ttl", "1h"],
            }
            return [kind, "--id", mine.choice(self.ids), *more.get(kind, [])]
        more = {"list": ["--status", "all"], "execute": ["--deadline", "20"]}
        return [kind, *more.get(kind, [])]

    def _take(self, arguments: Sequence[str], answer: Answer) -> None:
        count("commands raced")
        kind, document = arguments[0], answer.document
        if document["status"] == "error":
            bad = [line for line in document.get("undelivered", ()) if line["outcome"] in PROBLEMS]
            explained = f"{arguments}: {document['message']} {bad} {answer.err}"
            assert document["code"] in REFUSED.get(kind, ()), explained
            return
        assert "Traceback" not in answer.err
        id_ = document.get("id") or document.get("cancelled_id") or ""
        if kind == "register" and document["created"]:
            self.ids.append(id_)
        type_ = DONE.get(kind) or WRITTEN.get(document.get("message", ""))
        if type_ is not None:
            self.told[type_, id_] += 1

    def settle(self, one: Actor) -> None:
        """Once enough has been delivered: cancel everything, and let the loops deliver what is
        under way."""
        agents, often = self.storm.sandbox.agents, ("--every", "1s")
        self._call(one, "register", "--agent-id", agents[0], "--prompt", "last", *often)
        outside = ("--prompt", "approved", *often, "--tier", "2")
        answer = self._call(one, "register", "--agent-id", agents[-1], *outside)
        approved = answer.success()["id"]
        self._call(one, "approve", "--id", approved, "--uses", "3")
        wait_for(lambda: self.storm.store.read().state.schedules[approved].approval_uses < 3)
        wait_for(lambda: len(self.storm.sandbox.deliveries) >= rounds(20))
        for schedule in self.storm.store.read().state.schedules.values():
            if schedule.status not in FINISHED or schedule.status == "failed":
                self._call(one, "cancel", "--id", schedule.id)
        wait_for(self.storm.all_settled)

    def _call(self, one: Actor, *arguments: str) -> Answer:
        answer = one.call(*arguments)
        self._take(arguments, answer)
        return answer

    def check(self, tmp_path: Path) -> list[dict[str, Any]]:
        """Everything that must hold now that all is settled, whatever has happened."""
        storm, store = self.storm, self.storm.store
        events = check_chain(store.settings.var / "schedules")
        check_deliveries(SimpleNamespace(**event) for event in events)
        types = {type_ for type_, _ in self.told}
        logged = Counter(
            (event["type"], event["id"])
            for event in events
            if event["type"] in types and event["actor"].get(FOR) != "before"
        )
        assert not self.told - logged, "acknowledged, and not in the log"
        assert (logged - self.told).total() <= self.unknown, "in the log, and never acknowledged"
        copies, delivered = storm.copies(), storm.delivered()
        assert set(copies.values()) <= {1}, "a prompt arrived twice"
        assert set(copies) == delivered, "the log and the histories disagree"
        assert storm.sandbox.overlaps == 0, "an agent got a prompt while it was busy"
        claims = Counter(
            (event["id"], event["data"]["slot"], event["data"]["attempt"])
            for event in events
            if event["type"] == "delivery.attempted"
        )
        assert set(claims.values()) <= {1}, "a slot was claimed twice"
        answer = audit(store, now=datetime.now(UTC))
        totals = answer["totals"]
        assert totals["delivered"] == len(delivered) > 0
        assert totals["delivered"] + totals["failed"] + totals["skipped"] == totals["slots"]
        count("slots audited", totals["slots"])
        replayed = Index(tmp_path / "none", SCHEDULE_SCHEMA, store._ledger, lambda _: None).load()
        assert store_in(storm.environ).read() == replayed, "the index isn't what the log says"
        assert verify(store)["events"] == len(events)
        now, tokens = format_utc(datetime.now(UTC)), Tokens(store.settings.var, Disk())
        for schedule in replayed.state.schedules.values():
            granted = approval_in_log(schedule, now)
            if granted.grant is not None:
                assert tokens.judge(schedule, now) == granted, "an approval is lost"
        assert any(event["type"] == "approval.consumed" for event in events)
        return events


def test_a_crowd_on_one_log(tmp_path: Path, sandbox: Sandbox, cast: Cast) -> None:
    """P5: eight processes that change, read, check and rebuild the same schedules, and three loops
    that deliver them: what each was told is in the log exactly once, none is refused for the
    others' sake, and no slot is claimed or sent twice."""
    environ = environ_for(tmp_path / "var", sandbox, PROMPTYOSELF_MIN_INTERVAL="1")
    storm = Storm(tmp_path / "var", sandbox, **environ)
    crowd = Crowd(storm, chance("crowd"))
    people = [cast(environ) for _ in range(6)]
    for actor in people:
        crowd.join_in(rounds(25), actor.call)
    for _ in range(2):
        crowd.join_in(rounds(3), partial(run, environ=environ))
    storm.start_loops(3)
    count("processes racing", 3 + 2 * rounds(3))
    crowd.let_loose(lambda: time.sleep(0.05))
    crowd.settle(people[0])
    storm.stop_loops()
    assert crowd.unknown == 0
    crowd.check(tmp_path)


def test_a_crowd_that_dies_while_months_are_sealed(
    tmp_path: Path, sandbox: Sandbox, cast: Cast
) -> None:
    """P1, P2, P5: the same, while loops and commands are killed with SIGKILL, agents are slow, and
    three months that are over are sealed by the first that comes."""
    environ = environ_for(tmp_path / "var", sandbox, PROMPTYOSELF_MIN_INTERVAL="1",
                          PROMPTYOSELF_RECONCILE_GRACE="1.5", PROMPTYOSELF_CALL_TIMEOUT="2",
                          PROMPTYOSELF_DEFAULT_AGENT_ID="before")  # fmt: skip
    elder = cast(environ)
    for days in (100, 70, 40):
        elder.set_ahead(-timedelta(days=days))
        agents = [["--prompt", f"{days} {n}", "--every", "2h"] for n in range(15)]
        ids = [elder.call("register", *agent).success()["id"] for agent in agents]
        for id_ in ids:
            elder.call("cancel", "--id", id_).success()
    elder.set_ahead(timedelta(0))
    environ["PROMPTYOSELF_DEFAULT_AGENT_ID"] = ""
    sandbox.latency = 0.4
    storm = Storm(tmp_path / "var", sandbox, **environ)
    crowd = Crowd(storm, chance("dying crowd"))
    lives: list[Actor] = []

    def mortal(place: int, *arguments: str) -> Answer:
        try:
            return lives[place].call(*arguments)
        except Dead:
            lives[place] = cast(environ)
            raise

    for place in range(6):
        lives.append(cast(environ))
        crowd.join_in(rounds(20), partial(mortal, place))
    for _ in range(2):
        crowd.join_in(rounds(2), partial(run, environ=environ))
    storm.start_loops(3)

    def meanwhile() -> None:
        time.sleep(crowd.random.random() * 0.6)
        if crowd.random.random() < 0.6:
            storm.kill_one()
        else:
            crowd.random.choice(lives).signal(signal.SIGKILL)
        count("kills by SIGKILL")

    crowd.let_loose(meanwhile)
    crowd.settle(cast(environ))
    storm.stop_loops()
    cast(environ).call("seal").success()
    events = crowd.check(tmp_path)
    sealed = [event["data"]["month"] for event in events if event["type"] == "segment.sealed"]
    assert len(sealed) == len(set(sealed)) >= 3
    assert verify(storm.store)["sealed"] == len(sealed)


# --- those who read don't wait --------------------------------------------------------------------


def readings(environ: dict[str, str], id_: str) -> dict[str, Callable[[], object]]:
    """What reading commands do, each by a process that has read nothing yet."""

    def fresh(read: Callable[[Store], object]) -> Callable[[], object]:
        return lambda: read(store_in(environ))

    now = datetime.now(UTC)
    return {
        "list": fresh(lambda store: list_schedules(store, status="all", now=now)),
        "show": fresh(lambda store: show(store, id_, now=now)),
        "history": fresh(lambda store: list(history(store, now=now))),
        "stats": fresh(stats),
        "head": fresh(head),
        "audit": fresh(lambda store: audit(store, now=now)),
        "verify": fresh(verify),
    }


def quickest(read: Callable[[], object], tries: int) -> float:
    """How long it takes where the machine has nothing better to do."""
    took = []
    for _ in range(tries):
        began = time.monotonic()
        read()
        took.append(time.monotonic() - began)
    count("commands raced", tries)
    return min(took)


@pytest.mark.parametrize("index", ["there", "missing", "damaged"])
def test_readers_do_not_wait_for_a_writer_that_hangs(var: Path, index: str, cast: Cast) -> None:
    """P5: while a process that has the log's lock is stopped, whatever only reads answers at once,
    whatever state the index is in; what writes waits, and succeeds when it may."""
    environ = environ_for(var, PROMPTYOSELF_LOCK_TIMEOUT=str(STUCK))
    holder, writer = cast(environ), cast(environ)
    id_ = writer.call(*REGISTER, "first").success()["id"]
    holder.hold()
    holder.signal(signal.SIGSTOP)
    path = var / "schedules" / "index.json"
    if index == "missing":
        path.unlink()
    elif index == "damaged":
        path.write_bytes(b"{")
    for name, read in readings(environ, id_).items():
        assert quickest(read, 5) < AT_ONCE, name
    writer.begin(*REGISTER, "second")
    assert not writer.answers_within(0.3)
    holder.signal(signal.SIGCONT)
    holder.release()
    assert writer.end().success()["created"]
    assert len(check_chain(var / "schedules")) == 3


def test_readers_do_not_wait_for_a_delivery(var: Path, sandbox: Sandbox, cast: Cast) -> None:
    """P5: while agents are at work on their prompts for a long time, whatever only reads answers at
    once, and so does what writes."""
    sandbox.latency = 1e6
    environ = environ_for(var, sandbox, PROMPTYOSELF_LOCK_TIMEOUT=str(STUCK))
    storm, actor = Storm(var, sandbox, **environ), cast(environ)
    storm.start_loop()
    try:
        for agent in sandbox.agents:
            asked = ("--agent-id", agent, "--prompt", "p", "--time", "in 1s")
            id_ = actor.call("register", *asked).success()["id"]
        wait_for(lambda: all(agent["active_runs"] for agent in sandbox.state()["agents"]))
        for name, read in readings(environ, id_).items():
            # A delay that comes and goes must not hide between two reads that are quick.
            slowest = min(max(quickest(read, 1) for _ in range(10)) for _ in range(5))
            assert slowest < AT_ONCE, name
        write = partial(actor.call, "trigger", "--id", id_)
        assert quickest(write, 5) < AT_ONCE
        assert all(agent["active_runs"] for agent in sandbox.state()["agents"])
    finally:
        sandbox.finish_runs()
        sandbox.latency = 0.0
        wait_for(storm.all_settled)
        storm.stop_loops()
    assert set(storm.copies().values()) == {1}


# --- locks of the dead and of the living ----------------------------------------------------------


def test_the_lock_of_a_process_that_was_killed_is_free(var: Path, cast: Cast) -> None:
    """P5: a holder killed inside the lock leaves its files behind, and those who wait go on."""
    environ = environ_for(var, PROMPTYOSELF_LOCK_TIMEOUT=str(STUCK))
    writer = cast(environ)
    for number in range(rounds(3)):
        holder = cast(environ)
        holder.hold()
        writer.begin(*REGISTER, f"prompt {number}")
        assert not writer.answers_within(0.1)
        holder.signal(signal.SIGKILL)
        count("kills by SIGKILL")
        assert writer.answers_within(STUCK / 2)
        assert writer.end().success()["created"]
        assert {"lock", "lock.holder"} <= {path.name for path in (var / "schedules").iterdir()}
    check_chain(var / "schedules")


def contents(var: Path) -> dict[str, bytes]:
    """Every file but the locks."""
    return {
        str(path): path.read_bytes()
        for path in sorted(var.rglob("*"))
        if path.is_file() and not path.name.startswith(("lock", "sealing"))
    }


def test_the_holder_of_the_lock_is_named(var: Path, sandbox: Sandbox, cast: Cast) -> None:
    """P5, P7: where a living process keeps the lock for too long, every command that writes gives
    up with one JSON error that names it, and changes nothing; afterwards they succeed."""
    environ = environ_for(var, sandbox, PROMPTYOSELF_LOCK_TIMEOUT="0.2")
    holder, writer = cast(environ), cast(environ)
    agent = sandbox.agents[0]
    register_ = ("register", "--agent-id", agent, "--every", "1h", "--prompt")
    writer.set_ahead(-timedelta(days=40))
    active = writer.call(*register_, "active").success()["id"]
    paused = writer.call(*register_, "paused").success()["id"]
    writer.call("pause", "--id", paused).success()
    writer.set_ahead(timedelta(0))
    commands = [
        ("trigger", "--id", active), ("resume", "--id", paused), (*register_, "new"),
        ("modify", "--id", active, "--every", "2h"), ("rebuild",), ("seal",), ("execute",),
        ("pause", "--id", active), ("cancel", "--id", active),
    ]  # fmt: skip
    holder.hold()
    before = contents(var)
    for arguments in commands:
        answer = writer.call(*arguments)
        document = answer.error("lock_timeout")
        assert document["holder"] == {"pid": holder.pid, "command": "actors.py"}
        assert f"process {holder.pid} (actors.py)" in document["message"]
        count("commands raced")
    document = run(*commands[0], environ=environ).error("lock_timeout")
    assert document["holder"]["pid"] == holder.pid
    assert contents(var) == before
    assert not sandbox.deliveries
    holder.release()
    for arguments in commands:
        writer.call(*arguments).success()
    check_chain(var / "schedules")


# --- the same thing at the same instant -----------------------------------------------------------


def at_once(actors: list[Actor], *arguments: str) -> list[Answer]:
    """The same command by all of them, as nearly at one time as can be."""
    for actor in actors:
        actor.begin(*arguments)
    count("commands raced", len(actors))
    return [actor.end() for actor in actors]


def test_the_same_change_by_several_at_once(var: Path, cast: Cast) -> None:
    """P5, P6: of several processes that register the same content at one time, one creates it and
    all get its id; of several that pause, resume or cancel it, one succeeds."""
    environ = environ_for(var)
    actors = [cast(environ) for _ in range(4)]
    for number in range(rounds(8)):
        asked = ("register", "--agent-id", "a", "--prompt", f"p{number}", "--every", "1h")
        for life in (1, 2):
            answers = [answer.success() for answer in at_once(actors, *asked)]
            (id_,) = {answer["id"] for answer in answers}
            assert Counter(answer["created"] for answer in answers) == {True: 1, False: 3}
            assert [answer.get("life", 1) for answer in answers if answer["created"]] == [life]
            for what, refusal in [
                ("pause", "already_paused"),
                ("resume", "not_paused"),
                ("cancel", "already_cancelled"),
            ]:
                codes = Counter(
                    answer.document.get("code", "success")
                    for answer in at_once(actors, what, "--id", id_)
                )
                assert codes == {"success": 1, refusal: 3}, what
    events = check_chain(var / "schedules")
    assert Counter(event["type"].partition(".")[2] for event in events[1:]) == dict.fromkeys(
        ("registered", "paused", "resumed", "cancelled"), 2 * rounds(8)
    )


def test_the_same_change_by_several_threads_at_once(var: Path) -> None:
    """P5, P6: the same among the threads of one process, each with a store of its own."""
    environ, threads = environ_for(var), 4
    stores = [store_in(environ) for _ in range(threads)]
    now = datetime.now(UTC)

    def together(do: Callable[[Store], dict[str, Any]]) -> list[Any]:
        barrier = threading.Barrier(threads, timeout=STUCK)

        def work(store: Store) -> Any:
            barrier.wait()
            try:
                return do(store)
            except PromptyoselfError as error:
                return error.code

        count("commands raced", threads)
        return in_threads(*(partial(work, store) for store in stores))

    for number in range(rounds(10)):
        request = Request(agent_id="a", prompt=f"p{number}", every="1h")
        answers = together(lambda store, request=request: register(store, request, now))
        (id_,) = {answer["id"] for answer in answers}
        assert Counter(answer["created"] for answer in answers) == {True: 1, False: 3}
        ended = together(lambda store, id_=id_: cancel(store, id_, None, now))
        assert ended.count("already_cancelled") == 3
    assert len(check_chain(var / "schedules")) == 1 + 2 * rounds(10)


def test_a_slot_that_many_want_is_claimed_by_one(var: Path, sandbox: Sandbox, cast: Cast) -> None:
    """P2, P5: several `execute` and two loops that all look at the instant in which prompts come
    due: each is claimed once, and told as delivered by one of them."""
    environ = environ_for(var, sandbox)
    actors = [cast(environ) for _ in range(3)]
    storm = Storm(var, sandbox, **environ)
    storm.start_loops(2)
    at_once(actors, "execute")  # imports what it needs
    delivered: Counter[str] = Counter()
    store, agents = store_in(environ), len(sandbox.agents)
    try:
        for turn in range(rounds(3)):
            for agent in sandbox.agents:
                asked = Request(agent_id=agent, prompt=f"p{turn}", time="in 2s")
                instant = register(store, asked, datetime.now(UTC))["next_run"]
            wait_for(lambda until=instant: format_utc(datetime.now(UTC)) >= until)
            for answer in at_once(actors, "execute"):
                delivered.update(
                    one["id"] for one in answer.success()["executed"] if one["delivered"]
                )
            wait_for(storm.all_settled)
    finally:
        storm.stop_loops()
    events = check_chain(var / "schedules")
    claims = Counter(event["id"] for event in events if event["type"] == "delivery.attempted")
    assert len(claims) == agents * rounds(3)
    assert set(claims.values()) == {1}
    assert set(sandbox.deliveries.values()) == {1}
    assert set(delivered.values()) <= {1}
    assert not list(due(store.read().state, format_utc(datetime.now(UTC))))
    audit(store, now=datetime.now(UTC))
