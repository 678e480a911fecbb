"""The stories that the committed data directories tell. `write.py` ran them, once, on the version
whose data they are; with another version they would tell them in that version's way."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from chains import draft
from former_version.machine import HOST, LOGIN, Machine

from promptyoself.core.ids import content_hash, schedule_id
from promptyoself.core.settings import load_settings
from promptyoself.events.draft import Draft
from promptyoself.events.records import (
    ApprovalGranted,
    DeliveryStalled,
    Record,
    ScheduleModified,
    ScheduleRegistered,
)
from promptyoself.events.schedule_fields import content_of
from promptyoself.rules.claim import claim
from promptyoself.sandbox import Sandbox
from promptyoself.store.store import Store

_ACTOR = {"via": "cli", "who": LOGIN, "kind": "login", "host": HOST}
_FORMER_ACTOR = {"via": "cli", "who": LOGIN}
"""As versions before wrote who did it."""


class Teller:
    """Somebody at a machine, with agents in a sandbox."""

    def __init__(self, machine: Machine, sandbox: Sandbox) -> None:
        self.machine, self.sandbox = machine, sandbox
        self.ids: dict[str, str] = {}

    def ask(self, *words: str) -> dict[str, Any]:
        """Call a command that must succeed."""
        return self.machine.ask(*words).success()

    def register(self, name: str, agent: str, *words: str) -> str:
        """Register a schedule under a name; its id is kept under that name too."""
        prompt = () if "--template" in words else ("--prompt", f"This is {name}.")
        answer = self.ask("register", "--agent-id", agent, "--name", name, *prompt, *words)
        self.ids[name] = answer["id"]
        return str(answer["id"])

    def execute(self, *words: str, **settings: str) -> dict[str, Any]:
        """Deliver what is due, one at a time, with settings of that pass alone."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(f"PROMPTYOSELF_{name}", value)
            return self.ask("execute", "--concurrency", "1", *words)

    @property
    def store(self) -> Store:
        """The store, for what no command does by itself."""
        return Store(load_settings(), _ACTOR, warn=lambda _: None)

    def append(self, records: Sequence[tuple[Record, str | None]], *, former: bool = False) -> None:
        """Append events that no command makes just now."""
        actor = _FORMER_ACTOR if former else _ACTOR
        drafts = [Draft(record, id_, actor) for record, id_ in records]
        self.store.transact(self.machine.now, lambda _: (drafts, None))

    def claim(self, agent: str, worker: str) -> Any:
        """Claim what is due to an agent, as a process does that dies before it sends it."""
        store = self.store
        decision = claim(
            store.read().state, self.machine.now, worker, store.settings.caps, 1, only=agent
        )
        self.append(decision.records)
        (claimed,) = decision.claims
        return claimed

    def tear(self) -> None:
        """Leave half an append at the end of the log, as a process does that is killed."""
        month = max((self.machine.var / "schedules").glob("*.ndjson.gz"))
        whole = month.read_bytes()
        month.write_bytes(whole + whole[whole.rindex(b"\x1f\x8b\x08") :][:60])


def tell_story(teller: Teller, *, troubles: bool = True) -> None:
    """Of four months, in which everything happens that a log can tell but its recovery.

    With ``troubles`` it isn't the same each time: what an agent's Letta has of them in one night
    takes seconds that really pass, and where a torn end lies depends on how well is compressed.
    """
    _september(teller)
    _october(teller, troubles=troubles)
    _november(teller)
    _december(teller)


def _september(teller: Teller) -> None:
    machine, register = teller.machine, teller.register
    echo, other, third, fourth, *_ = teller.sandbox.agents
    machine.set("2026-09-28T08:00")
    _as_before(teller, echo)
    machine.advance(minutes=1)
    register(
        "hourly", echo, "--every", "6h", "--misfire", "all", "--jitter", "5m", "--envelope",
        "--reason", "to see it work",
    )  # fmt: skip
    register("london", other, "--cron", "30 8 * * MON-FRI", "--tz", "Europe/London")
    register("newyork", third, "--cron", "30 1 * * *", "--tz", "America/New_York")
    conversation = teller.sandbox.create_conversation(fourth)
    register("once", fourth, "--time", "in 30m", "--conversation-id", conversation)
    register("twice", fourth, "--every", "1d", "--max-repetitions", "2", "--tier", "1")
    register(
        "bounded", other, "--every", "1d", "--start-at", "2026-09-29T00:00", "--until",
        "2026-10-02T12:00", "--misfire", "skip", "--grace", "2h",
    )  # fmt: skip
    register("never", echo, "--time", "2030-01-01T00:00")
    register("Ünïcode \U0001f600", other, "--cron", "0 0 1 * *", "--on-failure", echo)
    for number, words in enumerate(("Learn Danish", "Sing in a choir", "Visit the sea")):
        strength = ("--strength", str(0.9 - number / 4), "--tag", f"tag-{number}")
        answer = teller.ask("desire", "--agent-id", echo, "--text", words, *strength)
        teller.ids[f"desire{number}"] = answer["id"]
    register("idle", echo, "--template", "idle", "--every", "2d")
    register("aimless", third, "--template", "idle", "--every", "3d")
    machine.advance(minutes=30)
    teller.execute()
    machine.set("2026-09-29T09:10")
    for _ in range(4):
        teller.execute()
        machine.advance(minutes=7)
    teller.ask("trigger", "--id", teller.ids["never"], "--reason", "a rehearsal")
    teller.execute()


def _as_before(teller: Teller, agent: str) -> None:
    """What versions of before wrote: who did it without a kind, claims without the recipient, and
    approvals that don't say whether they are for triggers."""
    at = "2026-09-28T08:00:00.000000Z"
    record = ScheduleRegistered(
        agent, "This is before.", "interval", "12h", "UTC", "2026-09-28T20:00:00.000000Z", at,
        2, "coalesce", 86400, name="before",
    )  # fmt: skip
    content = content_of(record)
    id_ = teller.ids["before"] = schedule_id(content)
    teller.append([(record, id_)], former=True)
    expires = "2026-12-31T00:00:00.000000Z"
    grant = ApprovalGranted("00000000000000a1", content_hash(content), expires, 9)
    teller.append([(grant, id_)], former=True)
    lost = record._replace(prompt="This is elsewhere.", timezone="Mars/Olympus", tier=0)
    lost = lost._replace(schedule_type="cron", schedule_value="0 9 * * *", name="elsewhere")
    teller.ids["elsewhere"] = schedule_id(content_of(lost))
    teller.append([(lost, teller.ids["elsewhere"])], former=True)
    changes = ScheduleModified({"daily_budget": 4, "reason": None})
    teller.append([(changes, teller.ids["elsewhere"])], former=True)


def _october(teller: Teller, *, troubles: bool) -> None:
    machine, register, ids = teller.machine, teller.register, teller.ids
    echo, other, _, _, fifth, sixth = teller.sandbox.agents
    machine.set("2026-10-01T00:10")
    teller.execute()
    register("outside", fifth, "--every", "1d", "--tier", "2", "--on-failure", echo)
    register("thrifty", fifth, "--every", "6h", "--daily-budget", "1")
    register("doomed", "agent-00000000-0000-4000-8000-00000000dead", "--every", "1h")
    register("lost", "agent-00000000-0000-4000-8000-00000000beef", "--time", "in 1h")
    teller.ask("approve", "--id", ids["outside"], "--uses", "3", "--ttl", "40d", "--reason", "ok")
    machine.set("2026-10-02T00:11")
    for _ in range(6):
        teller.execute()
        machine.advance(hours=1, minutes=1)
    for hours in range(3):
        teller.execute()
        machine.advance(hours=3 + hours)
    teller.ask("pause", "--id", ids["hourly"], "--reason", "a rest")
    teller.ask("modify", "--id", ids["outside"], "--prompt", "This is outside, changed.")
    machine.set("2026-10-04T03:00")
    teller.execute()
    teller.ask("resume", "--id", ids["hourly"])
    teller.ask("approve", "--id", ids["outside"], "--uses", "2", "--ttl", "60d", "--allow-trigger")
    teller.ask("trigger", "--id", ids["outside"])
    teller.execute()
    teller.ask("seal")
    machine.advance(minutes=1)
    # Letta's troubles.
    for number, fault in enumerate(_FAULTS if troubles else ()):
        machine.advance(hours=1)
        register(f"trouble{number}", sixth, "--time", "in 1m")
        machine.advance(minutes=2)
        kind, params = fault
        teller.sandbox.fault(kind, agent_id=sixth, times=1, **params)
        teller.execute("--deadline", "2", RECONCILE_GRACE="0.3", CALL_TIMEOUT="0.3")
        teller.sandbox.clear_faults()
        machine.advance(minutes=10)
        teller.execute("--deadline", "2", RECONCILE_GRACE="0.3", CALL_TIMEOUT="0.3")
    machine.set("2026-10-06T09:00")
    if troubles:
        teller.tear()
    teller.ask("reinforce", "--id", ids["desire1"], "--by", "0.2", "--reason", "still")
    teller.ask("cancel", "--id", ids["london"], "--reason", "done with it")
    teller.ask(
        "register", "--agent-id", other, "--name", "london", "--prompt", "This is london.",
        "--cron", "30 8 * * MON-FRI", "--tz", "Europe/London",
    )  # fmt: skip
    for day in (24, 25, 26):  # summer time ends in London
        machine.set(f"2026-10-{day}T09:00")
        for _ in range(3):
            teller.execute()
            machine.advance(minutes=3)
    _long_prompts(teller)


_FAULTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("server_error", {"stored": True}),
    ("server_error", {}),
    ("busy", {}),
    ("run_fails_after", {}),
    ("run_fails_before", {}),
    ("out_of_credits", {"retry_after": 0}),
    ("run_stuck", {}),
)


def _long_prompts(teller: Teller) -> None:
    """Appends that are large enough to be compressed."""
    chance, agent = random.Random(7), "agent-of-long-prompts"
    for number in range(2):
        prompt = " ".join(f"{chance.getrandbits(64):x}" for _ in range(150))
        words = ("--every", "30d", "--prompt", prompt)
        answer = teller.ask("register", "--agent-id", agent, "--name", f"long{number}", *words)
        teller.ids[f"long{number}"] = answer["id"]
    teller.ask("cancel", "--id", teller.ids["long0"])


def _november(teller: Teller) -> None:
    machine, register, ids = teller.machine, teller.register, teller.ids
    _, _, third, fourth, _, sixth = teller.sandbox.agents
    for day in (1, 2):  # and in New York, where half past one comes twice
        for hour in (5, 6, 7):
            machine.set(f"2026-11-0{day}T0{hour}:31")
            teller.execute()
    teller.ask("desire", "--agent-id", third, "--text", "See snow", "--strength", "0.3")
    teller.ask("prune", "--below", "0.2", "--reason", "faded")
    teller.ask("modify", "--id", ids["thrifty"], "--every", "8h", "--daily-budget", "2")
    machine.set("2026-11-03T09:00")
    teller.execute(DAILY_PER_AGENT="1")
    machine.advance(hours=8)
    teller.execute(DAILY_PER_AGENT="1")
    # A process dies over a delivery, and the next slots pass; and another dies for good.
    register("overtaken", fourth, "--every", "1h")
    machine.advance(hours=1)
    teller.claim(fourth, "wrk_00000000000000d1")
    machine.advance(hours=3)
    teller.execute("--deadline", "60", RECONCILE_GRACE="0.2")
    machine.advance(minutes=1)
    teller.execute()
    register("late", third, "--every", "1h", "--grace", "10m")
    machine.advance(hours=2, minutes=30)
    teller.execute()
    for name, what in (("late", "pause"), ("overtaken", "cancel")):
        machine.advance(hours=1)
        machine.now = machine.now.replace(minute=1)
        teller.ask(what, "--id", ids[name])
    register("moved", third, "--every", "1h")
    machine.advance(hours=1)
    teller.ask("modify", "--id", ids["moved"], "--every", "2h", "--agent-id", fourth)
    teller.ask("approve", "--id", ids["before"], "--uses", "1", "--ttl", "30d")
    teller.ask("revoke", "--id", ids["before"], "--reason", "on second thoughts")
    teller.ask("resume", "--id", ids["doomed"], "--reason", "try again")
    machine.advance(minutes=1)
    teller.ask("pause", "--id", ids["elsewhere"])
    # A clock that is ahead, and set back.
    register("ahead", sixth, "--every", "1h")
    machine.set("2026-11-10T12:00")
    teller.sandbox.fault("out_of_credits", agent_id=sixth, times=1, retry_after=600)
    teller.execute("--deadline", "60", RECONCILE_GRACE="0.2")
    teller.sandbox.clear_faults()
    machine.set("2026-11-04T12:00")
    teller.ask("resume", "--id", ids["ahead"])
    teller.execute("--deadline", "60")
    machine.set("2026-11-11T12:00")
    teller.ask("seal", "--month", "2026-09")
    teller.ask("seal", "--month", "2026-10")
    teller.execute("--deadline", "60")


def _december(teller: Teller) -> None:
    machine, register, ids = teller.machine, teller.register, teller.ids
    _, _, third, _, _, sixth = teller.sandbox.agents
    machine.set("2026-12-01T09:00")
    for _ in range(4):
        teller.execute()
        machine.advance(minutes=2)
    teller.ask("approve", "--id", ids["outside"], "--uses", "5", "--ttl", "40d")
    register("undone", sixth, "--every", "1h")
    machine.advance(hours=1)
    teller.sandbox.fault("run_stuck", agent_id=sixth, times=1)
    teller.execute("--deadline", "3")
    teller.sandbox.clear_faults()
    register("dead", third, "--every", "1h")
    machine.advance(hours=1)
    claimed = teller.claim(third, "wrk_00000000000000d2")
    head = (claimed.slot, claimed.otid, claimed.attempt, "wrk_00000000000000d2")
    stalled = DeliveryStalled(*head, "letta_server_error", "HTTP 500.", True, 500, "Oh.")
    teller.append([(stalled, claimed.id)])
    teller.ask("trigger", "--id", ids["never"])
    teller.ask("keygen")


def tell_parts(teller: Teller) -> None:
    """Of 331 schedules, for which the index is in parts."""
    teller.machine.set("2026-12-01T09:00")
    drafts = [draft(number) for number in range(330)]
    teller.store.transact(teller.machine.now, lambda _: (drafts, None))
    teller.ask("register", "--agent-id", "agent-more", "--prompt", "One more.", "--every", "1h")


def tell_damage(teller: Teller, *, recovered: bool) -> None:
    """Of a log that lost events in its middle and at its end; ``recovered`` tells on, to where that
    was stated and the log went on."""
    machine = teller.machine
    for month, name in (("09", "first"), ("10", "second"), ("11", "third")):
        machine.set(f"2026-{month}-05T08:00")
        for number in range(3):
            teller.register(f"{name}{number}", "agent-1", "--every", f"{number + 1}d")
            machine.advance(minutes=1)
        teller.ask("pause", "--id", teller.ids[f"{name}0"], "--reason", f"{name} pause")
        teller.ask("desire", "--agent-id", "agent-1", "--text", f"A {name} wish")
    teller.ask("cancel", "--id", teller.ids["second1"])
    folder = machine.var / "schedules"
    month = folder / "2026-10.ndjson.gz"
    content = bytearray(month.read_bytes())
    content[len(content) // 2] ^= 1
    month.write_bytes(content)
    last = folder / "2026-11.ndjson.gz"
    last.write_bytes(last.read_bytes()[: last.read_bytes().rindex(b"\x1f\x8b\x08")])
    machine.set("2026-11-06T08:00")
    if recovered:
        teller.ask("recover", "--yes", "--reason", "a bad disk")
        machine.advance(hours=1)
        teller.register("after", "agent-1", "--every", "2h")
