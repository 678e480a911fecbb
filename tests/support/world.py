"""Schedules in memory, with a clock that is turned by hand: a store without a disk, for testing
what is decided; and a check of what must hold for every log of deliveries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from checker import check_chain
from tally import count

from promptyoself.core.ids import content_hash
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import Destination
from promptyoself.core.settings import Caps, load_settings
from promptyoself.events.codec import read_record, write_event
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import PROBLEMS, KeepReply
from promptyoself.events.records import ApprovalGranted, Record
from promptyoself.events.schedule_fields import content_of
from promptyoself.index.index import Snapshot
from promptyoself.ledger import START, Envelope, Position
from promptyoself.rules.claim import Claim, Decision, RankDesires, claim
from promptyoself.rules.notices.failures import with_notices
from promptyoself.rules.notices.replies import Answer, NoAnswer, reply_event
from promptyoself.rules.outcome import Delivered, Outcome, outcome_events
from promptyoself.rules.policy import ApprovalVerdict, approval_in_log
from promptyoself.service.audit.answer_tally import AnswerTally
from promptyoself.service.audit.audited_log import AuditEnd
from promptyoself.service.audit.log_auditor import LogAuditor
from promptyoself.service.audit.slot_verdicts import SlotVerdict
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY, Schedule, State, slot_key

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
DELIVERED = Delivered("run", "run-1")
ACTOR = {"via": "test", "who": "tester"}
FINAL = ("delivery.delivered", "delivery.failed", "delivery.skipped")


class World:
    """Stands in for a :class:`~promptyoself.store.store.Store`."""

    def __init__(self, **caps: int) -> None:
        self.now = NOON
        self.state: State = EMPTY
        self.events: list[Envelope] = []
        self.warned: list[str] = []
        settings = load_settings({"PROMPTYOSELF_VAR": "/nowhere"})
        me = {"me": Destination("me", "https://example.org/hook")}
        caps_ = Caps(**{"min_interval": 1, **caps})
        self.settings = settings._replace(caps=caps_, destinations=me)
        self.strongest: RankDesires | None = None
        self.keep_reply: KeepReply = "none"

    # What a store offers.

    def read(self) -> Snapshot:
        return Snapshot(self.state, START)

    pinned_to = None
    actor: ClassVar = ACTOR

    @property
    def unpinned(self) -> World:
        return self

    def unpinned_state(self, state: State) -> State:
        return state

    def require_agent(self, agent_id: str | None) -> str | None:
        return agent_id

    def seen(self, state: State) -> State:
        return state

    def replay(self, after: Position = START) -> list[Any]:
        last = START._replace(seq=len(self.events))
        return [SimpleNamespace(envelopes=self.events[after.seq :], position=last)]

    def event(self, seq: int, _month: str) -> Envelope:
        return self.events[seq - 1]

    def state_at(self, covers: Callable[[Envelope], bool]) -> tuple[State, str]:
        return fold(EMPTY, filter(covers, self.events)), ""

    def draft(self, record: Record, id_: str | None, _: str | None = None) -> Draft:
        return Draft(record, id_, ACTOR)

    def transact(
        self, _now: datetime, decide: Callable[[State], tuple[Sequence[Draft], Any]]
    ) -> Any:
        drafts, result = decide(self.state)
        self.add((draft.record, draft.id) for draft in drafts)
        return result

    # What a test does.

    def add(self, records: Iterable[tuple[Record, str | None]]) -> None:
        """Append events now, and the notices that they call for."""
        ts, drafts = self.ts, [Draft(record, id_, ACTOR) for record, id_ in records]
        settings = self.settings
        drafts = with_notices(
            *(self.state, drafts, self.now, settings.caps, settings.destinations),
            self.warned.append,
        )
        for record, id_, actor in drafts:
            version, type_, data = write_event(record)
            event = Envelope(version, len(self.events) + 1, ts, type_, id_, actor, data, "")
            self.state = fold(self.state, [event])
            self.events.append(event)

    def register(self, agent: str = "agent-a", prompt: str | None = "Hi", **asked: Any) -> str:
        """Register a prompt, by default one that is due in a minute; returns its id."""
        if not {"time", "cron", "every"} & set(asked):
            asked["time"] = "in 1m"
        request = Request(agent_id=agent, prompt=prompt, **asked)
        return str(register(self, request, self.now)["id"])  # type: ignore[arg-type]

    def warn(self, message: str) -> None:
        """What people should know."""
        self.warned.append(message)

    @property
    def ts(self) -> str:
        """The time of an event that happens now; as in the chain, it doesn't run backwards."""
        return max(format_utc(self.now), self.events[-1].ts if self.events else "")

    def approve(self, id_: str, uses: int = 1, **ttl: float) -> str:
        """Approve deliveries, by default for a day; returns the grant."""
        grant = f"{len(self.events):016x}"
        expires = format_utc(parse_utc(self.ts) + timedelta(**ttl or {"days": 1}))
        content = content_hash(content_of(self.state.schedules[id_]))
        self.add([(ApprovalGranted(grant, content, expires, uses), id_)])
        return grant

    def judge(self, schedule: Schedule) -> ApprovalVerdict:
        """Whether it is approved, as if every token were there and in order."""
        return approval_in_log(schedule, self.ts)

    def advance(self, **duration: float) -> datetime:
        """Let time pass."""
        self.now += timedelta(**duration)
        return self.now

    def claim(self, seats: int = 100, worker: str = "wrk_1", **more: Any) -> Decision:
        """Claim what is due, for good."""
        decision = self._decide(seats, worker, **more)
        self.add(decision.records)
        return decision

    def claim_records(self) -> list[tuple[Record, str]]:
        """What a loop would write now."""
        return self._decide(100, "wrk_1").records

    def _decide(self, seats: int, worker: str, **more: Any) -> Decision:
        more = {"rank_desires": self.strongest, "approvals": self.judge, **more}
        more.setdefault("event_time", parse_utc(self.ts))
        return claim(self.state, self.now, worker, self.settings.caps, seats, **more)

    def claim_only(self, agent: str) -> list[tuple[Record, str]]:
        """What a loop that has forgotten all other agents would write."""
        decision = claim(self.state, self.now, "wrk_1", self.settings.caps, 100)
        ids = {made.id for made in decision.claims if made.agent_id == agent}
        return [(record, id_) for record, id_ in decision.records if id_ in ids]

    def claim_one(self) -> Claim:
        """Claim the only thing that is due."""
        (made,) = self.claim().claims
        return made

    def claimed(self, agent: str = "agent-a", **asked: Any) -> Claim:
        """Register a prompt, and claim its first slot when that is due."""
        id_ = self.register(agent, **asked)
        self.now = parse_utc(str(self.state.schedules[id_].next_run))
        return self.claim_one()

    def deliver(self, outcome: Outcome = DELIVERED) -> None:
        """Claim what is due, and record that outcome of all of it."""
        for made in self.claim().claims:
            self.settle(made, outcome)

    def settle(self, made: Claim, outcome: Outcome = DELIVERED, worker: str = "wrk_1") -> str:
        """Record an outcome; returns what became of the slot."""
        keep = self.keep_reply
        records, became = outcome_events(self.state, made, worker, outcome, self.now, keep)
        self.add((record, made.id) for record in records)
        return became

    def answer(self, answer: Answer | NoAnswer) -> None:
        """Record that answer to everything whose answer is awaited."""
        for awaited in list(self.state.replies.values()):
            event = reply_event(self.state, awaited, "wrk_1", answer, self.keep_reply)
            assert event is not None
            self.add([(event, awaited.id)])

    def types(self, id_: str) -> list[str]:
        """What has happened to a schedule, without its registration."""
        return [event.type.partition(".")[2] for event in self.events if event.id == id_][1:]

    def last(self, type_: str) -> Any:
        """The latest event of a type, as its record."""
        event = next(event for event in reversed(self.events) if event.type == type_)
        return read_record(event.type, event.v, event.data)


def check_deliveries(events: Iterable[Any]) -> None:
    """What holds in every log: slots only move forward, an agent has one delivery at a time, a slot
    has one final outcome, and nothing happens to it after that."""
    passed: dict[str, str] = {}  # the last slot of each schedule that is over or under way
    opened: dict[str, bool] = {}  # open slots, and whether they are claimed
    final: set[str] = set()
    awaited: set[str] = set()  # slots whose answer is to come
    skipped: dict[str, list[str]] = {}  # the slots at which a range of skipped ones begins
    for event in events:
        data = event.data
        key = slot_key(event.id or "", data.get("slot", ""))
        if event.type in ("delivery.replied", "delivery.unanswered"):
            assert key in awaited, f"event {event.seq} answers what isn't awaited"
            awaited.remove(key)
            continue
        if not event.type.startswith("delivery.") and event.type != "schedule.triggered":
            if "counts_from" in data:  # what a clock that was ahead had skipped may come again
                passed[event.id] = data["counts_from"]
                again = {s for s in skipped.get(event.id, ()) if s > data["counts_from"]}
                final -= {slot_key(event.id, slot) for slot in again}
            continue
        if data.get("keep_reply"):
            awaited.add(key)
        assert key not in final, f"{key} was settled before event {event.seq}"
        new = key not in opened
        if event.type == "schedule.triggered":
            assert new
            opened[key] = False
            continue
        if new and event.type in ("delivery.attempted", "delivery.skipped"):
            assert data.get("kind", "scheduled") == "scheduled"
            assert data["slot"] > passed.get(event.id, ""), f"event {event.seq} goes back"
            passed[event.id] = data.get("last", data["slot"])
            if event.type == "delivery.skipped":
                skipped.setdefault(event.id, []).append(data["slot"])
            assert data.get("next_run") is None or data["next_run"] > passed[event.id]
        if event.type == "delivery.attempted":
            assert not opened.get(key), f"{key} is claimed twice"
            opened[key] = True
        elif event.type == "delivery.abandoned":
            assert opened[key]
            opened[key] = False
        if event.type in FINAL:
            assert event.type == "delivery.skipped" or not new
            opened.pop(key, None)
            final.add(key)


def check_log(folder: Path, now: datetime, *, settled: bool = True) -> list[dict[str, Any]]:
    """What holds in every log in files; returns its events. ``settled`` is for ``check_chain``."""
    events = check_chain(folder, settled=settled)
    envelopes = [SimpleNamespace(**event) for event in events]
    check_deliveries(envelopes)
    check_slots(envelopes, now)
    answers = AnswerTally("0", "9", None, None)
    for envelope in envelopes:
        answers.add(envelope)  # type: ignore[arg-type]
    assert not answers.problems
    return events


def entries_of(
    events: Iterable[Any], now: datetime, living: Iterable[str] = ()
) -> list[SlotVerdict]:
    """What the audit says of each slot up to now."""
    auditor = LogAuditor(datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC))
    entries = [entry for event in events for entry in auditor.add(event)]
    entries += auditor.finish(AuditEnd(now, set(living), False))
    assert not auditor.broken, auditor.broken
    return entries


def check_slots(events: Iterable[Any], now: datetime, living: Iterable[str] = ()) -> Counter[str]:
    """P2: no slot is forgotten, doubled or invented. How many have which outcome."""
    entries = entries_of(events, now, living)
    wrong = [entry for entry in entries if entry.outcome in PROBLEMS]
    assert not wrong, wrong
    count("slots audited", sum(entry.slots for entry in entries))
    return sums_of(entries)


def sums_of(verdicts: Iterable[SlotVerdict]) -> Counter[str]:
    """How many slots have which outcome."""
    sums: Counter[str] = Counter()
    for verdict in verdicts:
        sums[verdict.outcome] += verdict.slots
    return sums
