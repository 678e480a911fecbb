"""P1, P2, P4, P7: every command in any order, with faults in between, against a model of plain
dictionaries that was written from the documentation; and every way to the state gives the same."""

import errno
import hashlib
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import orjson
import pytest
from calling import Answer, call, clean_environ, log_of, run, use_environ
from chains import Killed, StepDisk, die, failing_disk
from checker import check_chain
from crashes import Unsynced
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from tally import count, rounds
from world import World, check_slots, entries_of

from promptyoself.core.disk import Disk
from promptyoself.core.settings import Settings, load_settings
from promptyoself.doors.session import Session
from promptyoself.index import tree
from promptyoself.ledger import FileLedger
from promptyoself.rules.claim import Claim, claim
from promptyoself.rules.outcome import Abandoned, Delivered, Failed, outcome_events
from promptyoself.service.schedules.change import modify, resume
from promptyoself.service.schedules.request import Request
from promptyoself.state.apply import fold
from promptyoself.state.schedules import EMPTY
from promptyoself.store.store import Store

AGENTS = ("agent-a", "agent-b")
IDLE_LISTED = (
    "id", "agent_id", "name", "prompt", "schedule_type", "schedule_value", "timezone", "next_run",
    "last_run", "created_at", "status", "repetition_count", "max_repetitions", "conversation_id",
    "start_at", "until", "misfire", "grace", "jitter", "envelope", "tier", "daily_budget", "life",
    "failures", "last_error", "reason",
)  # fmt: skip
REGISTER = ("register", "--agent-id", "a")
CONTENT = (
    "agent_id", "conversation_id", "prompt", "name", "schedule_type", "schedule_value", "timezone",
    "start_at", "until", "max_repetitions",
)  # fmt: skip
DEFAULTS: dict[str, Any] = {
    "name": None, "timezone": "UTC", "until": None, "start_at": None, "max_repetitions": None,
    "misfire": "coalesce", "grace": 86400, "tier": 0, "daily_budget": None, "jitter": 0,
    "envelope": False, "reason": None, "conversation_id": None,
}  # fmt: skip
SECONDS = {"10m": 600, "1h": 3600, "1d": 86400, "2d3h": 183600}
OUTCOMES = {
    "delivered": Delivered("run", "run-1"),
    "failed": Failed("no_trace", "Nothing arrived.", permanent=False),
    "gone": Failed("agent_not_found", "Gone.", permanent=True),
    "busy": Abandoned("letta_busy", "Busy."),
    "left": None,
}


def spelled(instant: datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def read(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%f%z")


# --- the model ------------------------------------------------------------------------------------


def following(schedule: dict[str, Any], after: datetime) -> datetime | None:
    """The first slot after an instant, by docs/reference/scheduling.md."""
    start = schedule["start_at"] and read(schedule["start_at"])
    if start:
        after = max(after, start - timedelta(microseconds=1))
    slot = plainly_following(schedule, after)
    while slot is not None and spelled(slot) in schedule.get("without", ()):
        slot = plainly_following(schedule, slot)
    return slot


def plainly_following(schedule: dict[str, Any], after: datetime) -> datetime | None:
    """The same, whatever was claimed by a clock that was ahead."""
    start = schedule["start_at"] and read(schedule["start_at"])
    kind, value = schedule["schedule_type"], schedule["schedule_value"]
    if kind == "once":
        slot = read(value)
        if slot <= after:
            return None
    elif kind == "cron":
        slot = after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    elif kind == "rrule":
        slot = following_day(schedule, after)
    else:
        step, anchor = timedelta(seconds=SECONDS[value]), read(schedule["anchor"])
        slot = anchor if start else anchor + step
        if slot <= after:
            slot = anchor + ((after - anchor) // step + 1) * step
    return None if schedule["until"] and slot > read(schedule["until"]) else slot


def following_day(schedule: dict[str, Any], after: datetime) -> datetime:
    """The first slot of a rule of days: at the time on the wall that it counts from, which is no
    time in the London of March, and two in that of October."""
    zone, anchor = ZoneInfo(schedule["timezone"]), read(schedule["anchor"])
    time = anchor.astimezone(zone).time().replace(microsecond=0, fold=0)
    day = max(after, anchor).astimezone(zone).date() - timedelta(days=1)
    while True:
        wall = datetime.combine(day, time, zone)
        slot = wall.astimezone(UTC)
        if slot.astimezone(zone).time() != time:  # jumped over: right after the gap
            slot = slot.replace(minute=0, second=0)
        if slot > after and slot >= anchor:
            return slot
        day += timedelta(days=1)


def times_every(length: str, zone: str) -> dict[str, str]:
    """What `--every` makes: whole days keep the time on the wall where clocks change."""
    if length == "1d" and zone != "UTC":
        return {"schedule_type": "rrule", "schedule_value": "FREQ=DAILY"}
    return {"schedule_type": "interval", "schedule_value": length}


def counted_from(schedule: dict[str, Any], now: datetime) -> str:
    """The start; else the minute of now for a rule, and its whole second for an interval."""
    if schedule["start_at"]:
        return str(schedule["start_at"])
    if schedule["schedule_type"] == "rrule":
        return spelled(now.replace(second=0, microsecond=0))
    return spelled(now + timedelta(microseconds=-now.microsecond % 1_000_000))


def option_words(values: dict[str, Any]) -> list[str]:
    """The options that give these values; none for ``None``."""
    words = []
    for name, value in values.items():
        option = name.replace("timezone", "tz").replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            unit = "s" if name in ("grace", "jitter") else ""
            words.append(f"--{option}={value}{unit}")
    return words


def register_words(fields: dict[str, Any], kind: str, value: str, *options: str) -> tuple[str, ...]:
    """A command line that registers a schedule, with the options of these names."""
    chosen = {name: fields[name] for name in options}
    return ("register", f"--{kind}", value, *option_words(chosen))


def last_segment(var: Path) -> Path:
    """The last one that isn't empty."""
    return max(path for path in (var / "schedules").glob("*.ndjson.gz") if path.stat().st_size)


def told(instant: datetime | None) -> str | None:
    return None if instant is None else spelled(instant)


Effect = Callable[[dict[str, Any]], None]
"""What a command does to the model, by its answer."""


class Step(NamedTuple):
    """A command, the error that it must meet, and else its effect."""

    arguments: tuple[str, ...]
    code: str | None
    effect: Effect = lambda _: None


class Model:
    """What the documentation says there is: schedules by id, and slots under way."""

    def __init__(self) -> None:
        self.schedules: dict[str, dict[str, Any]] = {}
        self.open: dict[tuple[str, str], dict[str, Any]] = {}
        self.claimed: dict[str, set[str]] = {}
        self.ids: dict[tuple[Any, ...], str] = {}
        self.ts = ""

    def wrote(self, now: datetime) -> str:
        """An event's time: the clock's, or the last event's where that has run back."""
        self.ts = max(self.ts, spelled(now))
        return self.ts

    def high(self, schedule: dict[str, Any], now: datetime) -> datetime:
        """Up to here no slot comes again."""
        return max(now, read(schedule["last_slot"])) if schedule["last_slot"] else now

    def ahead(self, schedule: dict[str, Any], now: datetime) -> bool:
        """Whether a clock that was ahead has decided slots that are still to come."""
        decided = [schedule["last_slot"], schedule.get("last_trigger")]
        decided += sorted(schedule.get("without", ()))
        return any(each and read(each) - now > timedelta(minutes=1) for each in decided)

    def reopened(self, id_: str, schedule: dict[str, Any], now: datetime) -> dict[str, Any]:
        """The same schedule, counting from now: only what was claimed doesn't come again."""
        new = dict(schedule)
        claimed = self.claimed.get(id_, set())
        new["without"] = {slot for slot in claimed if slot > spelled(now)}
        for name in ("last_slot", "last_trigger"):
            if new.get(name) and new[name] > spelled(now):
                new[name] = None
        return new

    def pass_over(self, schedule: dict[str, Any], now: datetime) -> None:
        """Slots that have come and gone unclaimed are skipped."""
        slot = schedule["next_run"] and read(schedule["next_run"])
        while slot and slot <= now:
            schedule["last_slot"] = spelled(slot)
            slot = following(schedule, slot)

    def give_up(self, id_: str, *kinds: str, after: str = "") -> None:
        """Slots after an instant that wait for another attempt are given up."""
        for key, slot in list(self.open.items()):
            waits = slot["state"] == "waiting" and slot["kind"] in kinds
            if key[0] == id_ and waits and key[1] > after:
                del self.open[key]

    def put_off(self, id_: str, now: datetime) -> None:
        """What was begun by a clock that was ahead is given up."""
        self.give_up(id_, "scheduled", "trigger", after=spelled(now))

    def event(self, type_: str, id_: str, data: dict[str, Any], now: datetime) -> None:
        """An event of a delivery, by docs/reference/format.md."""
        schedule, ts = self.schedules[id_], self.wrote(now)
        key = (id_, data.get("slot", ""))
        if type_ == "delivery.attempted":
            self.claimed.setdefault(id_, set()).add(data["slot"])
            kind = data["kind"]
            self.open[key] = {"kind": kind, "state": "claimed", "attempt": data["attempt"]}
            if data["attempt"] == 1 and kind == "scheduled":
                schedule["repetition_count"] += 1
                schedule["last_slot"] = data["slot"]
                most = schedule["max_repetitions"]
                over = most is not None and schedule["repetition_count"] >= most
                after = None if over else following(schedule, read(data["slot"]))
                schedule["next_run"] = told(after)
                assert data.get("next_run") == schedule["next_run"]
        elif type_ == "delivery.skipped":
            if self.open.pop(key, None) is None:
                schedule["last_slot"] = data["last"]
                schedule["next_run"] = told(following(schedule, read(data["last"])))
                assert data.get("next_run") == schedule["next_run"]
        elif type_ == "delivery.abandoned":
            self.open[key]["state"] = "waiting"
            schedule["last_error"] = data["error"]
        elif type_ == "delivery.delivered":
            del self.open[key]
            schedule.update(last_run=ts, failures=0, last_error=data.get("error"))
        elif type_ == "delivery.failed":
            del self.open[key]
            schedule["failures"] += data["permanent"]
            schedule["last_error"] = data["error"]
            going_on = schedule["status"] == "active" and schedule["next_run"] is not None
            parks = schedule["failures"] >= 5 and data["permanent"] and going_on
            assert bool(data.get("parked")) == parks
            if parks:
                schedule["status"] = "failed"
        elif type_ == "schedule.completed":
            once = schedule["schedule_type"] == "once"
            assert data["status"] in (("completed", "failed") if once else ("completed",))
            schedule.update(status=data["status"], next_run=None)

    def shown(self) -> list[dict[str, Any]]:
        """What `list --status all --full` must say."""
        listed = []
        for id_, schedule in self.schedules.items():
            line = {name: schedule[name] for name in IDLE_LISTED if name != "id"}
            line["id"] = id_
            line["next_run"] = schedule["next_run"] if schedule["status"] == "active" else None
            line["open"] = sorted(
                (slot, each["kind"], each["state"], each["attempt"])
                for (owner, slot), each in self.open.items()
                if owner == id_
            )
            listed.append(line)
        return sorted(listed, key=lambda line: (line["next_run"] or "~", line["id"]))


# --- the machine ----------------------------------------------------------------------------------


prompts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20
).filter(lambda text: bool(text.strip()))
some = st.sampled_from
reasons = st.none() | prompts
numbers = st.integers(0, 99)
laters = some([0, 0, 11, 61, 61, 1441])


class Machine(RuleBasedStateMachine):
    """One data directory, its model, and a store that is kept open all the time."""

    def __init__(self) -> None:
        super().__init__()
        memory = Path("/dev/shm")
        self.root = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))
        self.var = self.root / "var"
        self.now = datetime(2026, 11, 20, 12, tzinfo=UTC)
        self.disk: Disk = Unsynced()
        self.model = Model()
        self.left: list[Claim] = []
        self.copies: list[bytes] = []
        self.settled = True
        self.steps = 0
        self.patch = pytest.MonkeyPatch()
        use_environ(self.patch, self.var)
        self.patch.setattr(Session, "now", lambda _: self.now)
        opened = lambda session, _=None: self.store(session.settings, session.log.warn)  # noqa: E731
        self.patch.setattr(Session, "store", opened)
        self.kept = self.store()

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.root)
        count("steps of the model", self.steps)

    def store(
        self, chosen_settings: Settings | None = None, warn: Callable[[str], None] = lambda _: None
    ) -> Store:
        chosen = chosen_settings or load_settings(var=str(self.var))
        return Store(chosen, {"via": "cli", "who": "model"}, warn=warn, disk=self.disk)

    # What is on the disk, by gzip and JSON alone.

    def on_disk(self) -> tuple[list[bytes], int]:
        """The lines, and how many bytes follow the last whole member."""
        lines: list[bytes] = []
        rest = b""
        for path in sorted((self.var / "schedules").glob("*.ndjson.gz")):
            content = path.read_bytes()
            assert not (rest and content), "a torn end in the middle"
            rest = content or rest
            while rest:
                stream = zlib.decompressobj(31)
                try:
                    content = stream.decompress(rest)
                except zlib.error:
                    break
                if not stream.eof:
                    break
                lines += content[:-1].split(b"\n")
                rest = stream.unused_data
        return lines, len(rest)

    # Commands.

    def pick(self, number: int) -> str:
        ids = sorted(self.model.schedules)
        return ids[number % len(ids)] if ids else "sch_00000000"

    def do(self, step: Step) -> None:
        """Call it; it must do what the model does, or refuse and change nothing."""
        before, known = log_of(self.var), len(self.on_disk()[0])
        answer = call(*step.arguments)
        if step.code is not None:
            document = answer.error(step.code)
            assert document["message"]
            assert log_of(self.var) == before, "P7: an error has changed the log"
        else:
            step.effect(answer.success())
            # What lies in the quarantine unrecorded is recorded by the next append.
            self.settled = self.settled or len(self.on_disk()[0]) > known
        self.agree()

    def agree(self) -> None:
        """Every way to the state gives the same, and the same as the model; the chain and the
        slots are audited."""
        self.steps += 1
        lines, torn = self.on_disk()
        kept = self.kept.read()
        ledger = FileLedger(self.var / "schedules", "schedules")
        events = [event for batch in ledger.replay() for event in batch.envelopes]
        assert len(events) == len(lines)
        full = fold(EMPTY, events)
        assert kept.state == full, "P4: the store that was kept open has another state"
        schedules = self.model.schedules.values()
        active = Counter(one["agent_id"] for one in schedules if one["status"] == "active")
        counted = {id_: agent.active for id_, agent in full.agents.items() if agent.active}
        assert (counted, sum(full.counts.values())) == (dict(active), len(lines))
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            copied = Path(folder) / "var"
            if self.var.exists():
                shutil.copytree(self.var, copied)
                call("rebuild", "--var", str(copied)).success()
                if lines:
                    warnings: list[str] = []
                    rebuilt = self.store(load_settings(var=str(copied)), warnings.append).read()
                    assert rebuilt.state == full, "P4: rebuilt, it differs"
                    assert rebuilt.position.seq == len(lines)
                    assert not any("rebuilt" in warning for warning in warnings)
                if torn:
                    last = last_segment(copied)
                    last.write_bytes(last.read_bytes()[:-torn])
                check_chain(copied / "schedules", settled=self.settled and not torn)
        fresh = self.store().read()
        assert fresh == kept, "P4: a store that was just opened has another state"
        self.compare(call("list", "--status", "all", "--full").success()["schedules"])
        check_slots(events, self.now)
        for entry in entries_of(events, self.now):
            waits = (entry.id, spelled(entry.first)) in self.model.open
            if entry.outcome == "pending" and not waits:
                status = self.model.schedules[entry.id]["status"]
                assert status == "active", f"the audit awaits slots of what is {status}"

    def compare(self, listed: list[dict[str, Any]]) -> None:
        expected = self.model.shown()
        found = []
        for line in listed:
            opened = sorted((o["slot"], o["kind"], o["state"], o["attempt"]) for o in line["open"])
            found.append({name: line[name] for name in IDLE_LISTED} | {"open": opened})
        assert found == expected

    @initialize(many=st.integers(0, 3))
    def begin(self, many: int) -> None:
        self.agree()
        assert not self.var.exists(), "reading has made something"
        for number in range(many):
            self.do(self.fresh(number))

    # Registering.

    @rule(
        content=st.fixed_dictionaries(
            {
                "agent_id": some(AGENTS),
                "prompt": prompts,
                "name": st.none() | prompts,
                "timezone": some(["UTC", "Europe/London"]),
                "max_repetitions": st.none() | st.integers(1, 3),
                "reason": reasons,
            }
        ),
        when=some(["10m", "1h", "1d", "cron", "once", "once"]),
        minutes=st.integers(1, 3000),
        until=st.none() | st.integers(-10, 5000),
        start=st.none() | st.integers(-90, 300),
        policy=st.fixed_dictionaries(
            {},
            optional={
                "misfire": some(["coalesce", "skip", "all"]),
                "grace": some([3600, 86400]),
                "tier": some([0, 1, 2]),
                "daily_budget": some([0, 1, 5]),
                "jitter": some([60]),
                "envelope": some([True, False]),
                "conversation_id": some(["conv-1"]),
            },
        ),
    )
    def register(
        self,
        content: dict[str, Any],
        when: str,
        minutes: int,
        until: int | None,
        start: int | None,
        policy: dict[str, Any],
    ) -> None:
        fields = {**DEFAULTS, **content, **policy}
        if when == "once":
            trigger = ("time", spelled(self.now + timedelta(minutes=minutes)))
            fields.update(schedule_type="once", schedule_value=trigger[1])
        elif when == "cron":
            trigger = ("cron", "@hourly")
            fields.update(schedule_type="cron", schedule_value="0 * * * *", timezone="UTC")
        else:
            trigger = ("every", when)
            fields.update(times_every(when, fields["timezone"]))
        for name, offset in (("until", until), ("start_at", start)):
            if offset is not None:
                fields[name] = spelled(self.now + timedelta(minutes=offset))
        words = register_words(fields, *trigger, "until", "start_at", *content, *policy)
        self.do(self.registration(words, fields))

    def name_is_taken(self, id_: str | None, fields: dict[str, Any]) -> bool:
        """Whether another schedule of the agent that isn't over has that name."""
        return fields["name"] is not None and any(
            other["name"] == fields["name"] and other["agent_id"] == fields["agent_id"]
            for other_id, other in self.model.schedules.items()
            if other_id != id_ and other["status"] in ("active", "paused")
        )

    def registration(self, words: tuple[str, ...], fields: dict[str, Any]) -> Step:
        now = self.now
        fields["anchor"] = counted_from(fields, now)
        if fields["start_at"] and fields["until"] and fields["start_at"] > fields["until"]:
            return Step(words, "start_after_until")
        if following(fields, now) is None:
            return Step(words, "never_fires")
        content = tuple(fields[name] for name in CONTENT)
        id_ = self.model.ids.get(content)
        existing = None if id_ is None else self.model.schedules[id_]
        if existing is not None and existing["status"] in ("active", "paused"):

            def already(answer: dict[str, Any]) -> None:
                assert (answer["id"], answer["created"]) == (id_, False)
                assert answer.get("next_run") == (
                    existing["next_run"] if existing["status"] == "active" else None
                )

            return Step(words, None, already)
        if self.name_is_taken(id_, fields):
            return Step(words, "name_taken")
        again = existing is not None and self.model.ahead(existing, now)
        before = existing or {}
        if again:
            before = self.model.reopened(str(id_), before, now)
            fields = {**fields, "without": before["without"]}
        first = following(fields, now if existing is None else self.model.high(before, now))
        if first is None:
            return Step(words, "never_fires")

        def registered(answer: dict[str, Any]) -> None:
            assert answer["created"] is True
            assert answer["next_run"] == told(first)
            assert id_ in (None, answer["id"]), "P6: the same content has another id"
            old = before
            if again:
                self.model.put_off(str(id_), now)
            self.model.ids[content] = answer["id"]
            self.model.schedules[answer["id"]] = {
                **fields,
                "status": "active",
                "next_run": told(first),
                "created_at": self.model.wrote(now),
                "last_run": old.get("last_run"),
                "last_slot": old.get("last_slot"),
                "last_trigger": old.get("last_trigger"),
                "life": old.get("life", 0) + 1,
                "repetition_count": 0,
                "failures": 0,
                "last_error": None,
            }

        return Step(words, None, registered)

    @precondition(lambda self: self.model.schedules)
    @rule(number=numbers)
    def register_again(self, number: int) -> None:
        """The same content, which a cancelled or finished schedule comes back with."""
        known = [content for content, id_ in sorted(self.model.ids.items(), key=str)]
        content = known[number % len(known)]
        fields = {**DEFAULTS, **dict(zip(CONTENT, content, strict=True))}
        kinds = {"once": "time", "cron": "cron", "interval": "every", "rrule": "every"}
        kind, value = kinds[fields["schedule_type"]], fields["schedule_value"]
        value = {"FREQ=DAILY": "1d"}.get(value, value)
        named = [name for name in CONTENT if not name.startswith("schedule_")]
        words = register_words(fields, kind, value, *named)
        if kind == "time" and read(value) <= self.now:
            self.do(Step(words, "past_time"))
        else:
            self.do(self.registration(words, fields))

    # Changing.

    def status_change(self, verb: str, id_: str, reason: str | None = None) -> Step:
        """A change of a schedule's status, or an extra delivery of it."""
        words = (verb, "--id", id_, *option_words({"reason": reason}))
        schedule = self.model.schedules.get(id_)
        if schedule is None:
            return Step(words, "unknown_id")
        effects = {
            "cancel": self.cancelling,
            "pause": self.pausing,
            "resume": self.resuming,
            "trigger": self.triggering,
        }
        result = effects[verb](id_, schedule, reason)
        return Step(words, result) if isinstance(result, str) else Step(words, None, result)

    def cancelling(self, id_: str, schedule: dict[str, Any], reason: str | None) -> str | Effect:
        if schedule["status"] in ("cancelled", "completed"):
            known = {"cancelled": "already_cancelled", "completed": "already_finished"}
            return known[schedule["status"]]

        def cancelled(answer: dict[str, Any]) -> None:
            assert answer["cancelled_id"] == id_
            self.model.wrote(self.now)
            self.model.pass_over(schedule, self.now)
            self.model.give_up(id_, "scheduled", "trigger")
            schedule.update(status="cancelled", next_run=None, reason=reason)

        return cancelled

    def pausing(self, id_: str, schedule: dict[str, Any], reason: str | None) -> str | Effect:
        if schedule["status"] != "active":
            paused = schedule["status"] == "paused"
            return "already_paused" if paused else "not_active"
        if schedule["next_run"] is None:
            return "nothing_left"

        def paused_(_: dict[str, Any]) -> None:
            self.model.wrote(self.now)
            after = following(schedule, self.model.high(schedule, self.now))
            self.model.pass_over(schedule, self.now)
            self.model.give_up(id_, "scheduled")
            schedule.update(status="paused", next_run=told(after), reason=reason)

        return paused_

    def resuming(self, id_: str, schedule: dict[str, Any], reason: str | None) -> str | Effect:
        again = self.model.ahead(schedule, self.now)
        if schedule["status"] in ("cancelled", "completed"):
            return self.reviving(id_, schedule, reason)
        if schedule["status"] not in ("paused", "failed") and not (
            again and schedule["status"] == "active"
        ):
            return "not_paused"
        new = self.model.reopened(id_, schedule, self.now) if again else schedule
        after = following(new, self.model.high(new, self.now))
        over = after is None or schedule["next_run"] is None
        if over and schedule["status"] == "failed":
            return "nothing_left"
        if schedule["status"] == "failed" and self.name_is_taken(id_, schedule):
            return "name_taken"

        def resumed(answer: dict[str, Any]) -> None:
            self.model.wrote(self.now)
            self.model.pass_over(schedule, self.now)
            if over:
                once = schedule["schedule_type"] == "once"
                schedule.update(status="failed" if once else "completed", next_run=None)
            else:
                if again:
                    self.model.put_off(id_, self.now)
                    schedule.update(self.model.reopened(id_, schedule, self.now))
                schedule.update(status="active", next_run=told(after), reason=reason, failures=0)
            assert answer["next_run"] == schedule["next_run"]

        return resumed

    def reviving(self, id_: str, schedule: dict[str, Any], reason: str | None) -> str | Effect:
        most, again = schedule["max_repetitions"], self.model.ahead(schedule, self.now)
        if most is not None and schedule["repetition_count"] >= most:
            return "nothing_left"
        if self.name_is_taken(id_, schedule):
            return "name_taken"
        new = {name: value for name, value in schedule.items() if name != "without"}
        if again:
            new = self.model.reopened(id_, new, self.now)
        first = following(new, self.model.high(new, self.now))
        if first is None:
            return "nothing_left"

        def revived(answer: dict[str, Any]) -> None:
            if again:
                self.model.put_off(id_, self.now)
            assert (answer["next_run"], answer["life"]) == (told(first), schedule["life"] + 1)
            schedule.clear()
            schedule.update(
                new,
                status="active",
                next_run=told(first),
                created_at=self.model.wrote(self.now),
                life=answer["life"],
                failures=0,
                last_error=None,
                reason=reason,
            )

        return revived

    def triggering(self, id_: str, schedule: dict[str, Any], _: str | None) -> str | Effect:
        if schedule["status"] not in ("active", "paused"):
            return "not_active"

        def triggered(answer: dict[str, Any]) -> None:
            self.model.wrote(self.now)
            key = (id_, answer["slot"])
            assert key not in self.model.open, "two triggers have one slot"
            assert answer["slot"] not in (schedule["next_run"], schedule["last_slot"])
            self.model.open[key] = {"kind": "trigger", "state": "waiting", "attempt": 0}
            self.model.claimed.setdefault(id_, set()).add(answer["slot"])
            schedule["last_trigger"] = answer["slot"]

        return triggered

    def modifying(self, id_: str, changes: dict[str, Any], reason: str | None) -> Step:
        if changes.get("until"):
            until = spelled(self.now + timedelta(minutes=changes["until"]))
            changes = {**changes, "until": until}
        elif "until" in changes:
            changes = {**changes, "until": ""}
        words = ("modify", "--id", id_, *option_words({**changes, "reason": reason}))
        schedule = self.model.schedules.get(id_)
        if not changes:
            return Step(words, "nothing_to_modify")
        if schedule is None:
            return Step(words, "unknown_id")
        if schedule["status"] in ("cancelled", "completed"):
            return Step(words, "not_active")
        new = dict(changes)
        if "every" in new:
            new.update(times_every(new.pop("every"), schedule["timezone"]))
        for name in {"until", "name"} & set(new):
            new[name] = new[name] or None  # an empty text takes it away
        new = {name: value for name, value in new.items() if value != schedule[name]}
        timing = {"schedule_type", "schedule_value", "until", "max_repetitions"} & set(new)
        after = {**schedule, **new}
        asked = {"every", "until", "max_repetitions"} & set(changes)
        again = bool(asked) and self.model.ahead(schedule, self.now)
        if again:
            after = self.model.reopened(id_, after, self.now)
        if timing or again:
            most = after["max_repetitions"]
            if most is not None and schedule["repetition_count"] >= most:
                return Step(words, "nothing_left")
            if timing & {"schedule_type", "schedule_value"}:
                after["anchor"] = counted_from(after, self.now)
            if after["start_at"] and after["until"] and after["start_at"] > after["until"]:
                return Step(words, "start_after_until")
            first = following(after, self.model.high(after, self.now))
            if first is None:
                return Step(words, "never_fires")
            after["next_run"] = told(first)
        goes_on = schedule["status"] in ("active", "paused")
        if goes_on and {"name", "agent_id"} & set(new) and self.name_is_taken(id_, after):
            return Step(words, "name_taken")

        def modified(answer: dict[str, Any]) -> None:
            assert set(answer["modified"]) == set(new), "another change than was asked for"
            if not new and not again:
                return
            self.model.wrote(self.now)
            if timing or again:
                self.model.pass_over(schedule, self.now)
                after["last_slot"] = schedule["last_slot"]
            if again:
                self.model.put_off(id_, self.now)
                after.update(self.model.reopened(id_, after, self.now))
            schedule.update(after, reason=reason)

        return Step(words, None, modified)

    verbs = some(["cancel", "pause", "pause", "resume", "resume", "trigger"])

    @rule(verb=verbs, number=numbers, reason=reasons, later=laters)
    def change(self, verb: str, number: int, reason: str | None, later: int) -> None:
        self.now += timedelta(minutes=later)
        self.do(self.status_change(verb, self.pick(number), reason))

    changes = st.fixed_dictionaries(
        {},
        optional={
            "prompt": prompts,
            "agent_id": some(AGENTS),
            "name": some(["", "Ünïcode"]),
            "every": some(["1h", "1d", "2d3h"]),
            "until": some([0, 5, 4000]),
            "max_repetitions": st.integers(1, 4),
            "tier": some([0, 1]),
            "misfire": some(["coalesce", "all"]),
            "grace": some([3600, 86400]),
            "envelope": st.booleans(),
            "daily_budget": some([0, 9]),
        },
    )

    @rule(number=numbers, changes=changes.filter(bool), reason=reasons, later=laters)
    def modify(self, number: int, changes: dict[str, Any], reason: str | None, later: int) -> None:
        self.now += timedelta(minutes=later)
        self.do(self.modifying(self.pick(number), changes, reason))

    # Delivering.

    def decide(self, make: Callable[[Any], list[tuple[Any, str]]]) -> None:
        """Append what was decided, and tell the model."""
        from promptyoself.events.codec import write_event

        written: list[tuple[Any, str]] = []

        def decided(state: Any) -> tuple[list[Any], None]:
            written[:] = make(state)
            return [self.kept.draft(record, id_) for record, id_ in written], None

        self.kept.transact(self.now, decided)
        for record, id_ in written:
            _, type_, data = write_event(record)
            self.model.event(type_, id_, data, self.now)
        self.settled = self.settled or bool(written)

    @rule(
        outcomes=st.lists(some(sorted(OUTCOMES)), min_size=1, max_size=2),
        seats=some([1, 100]),
        later=laters,
        times=some([1, 1, 3, 6]),
    )
    def deliver(self, outcomes: list[str], seats: int, later: int, times: int) -> None:
        """Passes: what is due is claimed, and each claim meets its fate, or is left in doubt."""
        for _ in range(times):
            self.now += timedelta(minutes=later)
            self.deliver_once(outcomes, seats)
        self.agree()

    @rule(more=st.integers(3, 6), number=numbers, reason=reasons)
    def fail_on(self, more: int, number: int, reason: str | None) -> None:
        """Five permanent failures in a row park a schedule; `resume` lets it start afresh."""
        for _ in range(more):
            self.now += timedelta(minutes=61)
            self.deliver_once(["gone"], 100)
        self.agree()
        parked = [id_ for id_, s in sorted(self.model.schedules.items()) if s["status"] == "failed"]
        id_ = parked[number % len(parked)] if parked else "sch_x"
        self.do(self.status_change("resume", id_, reason))

    def deliver_once(self, outcomes: list[str], seats: int) -> None:
        claims: list[Claim] = []

        def claimed(state: Any) -> list[tuple[Any, str]]:
            caps, told_at = self.kept.settings.caps, self.kept.not_before(self.now)
            decision = claim(state, self.now, "wrk_1", caps, seats, event_time=told_at)
            assert not decision.broken
            claims[:] = decision.claims
            return decision.records

        self.decide(claimed)
        agents = [claimed_slot.agent_id for claimed_slot in claims]
        assert len(agents) == len(set(agents)), "two messages at once to one agent"
        for claimed_slot, outcome in zip(claims, outcomes * len(claims), strict=False):
            self.settle(claimed_slot, outcome)

    def settle(self, claimed: Claim, name: str) -> None:
        outcome = OUTCOMES[name]
        if outcome is None:
            self.left.append(claimed)
            return

        def settled(state: Any) -> list[tuple[Any, str]]:
            records, _ = outcome_events(state, claimed, "wrk_1", outcome, self.now)
            return [(record, claimed.id) for record in records]

        self.decide(settled)

    @precondition(lambda self: self.left)
    @rule(outcome=some(sorted(set(OUTCOMES) - {"left"})))
    def settle_what_was_left(self, outcome: str) -> None:
        self.settle(self.left.pop(), outcome)
        self.agree()

    # Reading.

    @rule()
    def ask_everything(self) -> None:
        """Every reading command agrees with the log and the model, and leaves the log alone."""
        before = log_of(self.var)
        lines, torn = self.on_disk()
        head = f"{len(lines)}:{hashlib.sha256(lines[-1]).hexdigest() if lines else '0' * 64}"
        assert call("head").success()["head"] == head
        verified = call("verify", "--head", head)
        if torn and verified.code:
            verified.error("damaged_tail")
        else:
            answer = verified.success()
            assert (answer["events"], answer["contains"]) == (len(lines), head)
            assert ("torn_tail" in answer) is bool(torn)
        assert call("history", "--ndjson").out.splitlines() == lines
        statuses = Counter(schedule["status"] for schedule in self.model.schedules.values())
        stats = call("stats").success()
        assert (stats["schedules"], stats["events"]) == (dict(statuses), len(lines))
        assert call("audit").success()["head"] == head
        changes = call("diff", "--from", "0", "--to", str(len(lines))).success()["changes"]
        assert {change["id"] for change in changes} == set(self.model.schedules)
        assert all(change["change"] == "registered" for change in changes)
        then = call("list", "--at", str(len(lines)), "--status", "all", "--full").success()
        self.compare(then["schedules"])
        for status in ("active", "paused", "cancelled"):
            listed = call("list", "--status", status).success()["schedules"]
            assert len(listed) == statuses[status]
        assert call("doctor", "--skip-letta", "--quick").document["status"] in ("success", "error")
        assert log_of(self.var) == before
        self.agree()

    @rule(number=numbers, many=st.integers(1, 4))
    def ask_for_the_next(self, number: int, many: int) -> None:
        """`next` tells as many slots to come as there are, the first of which `show` has too."""
        id_ = self.pick(number)
        schedule = self.model.schedules.get(id_)
        if schedule is None:
            call("next", "--id", id_).error("unknown_id")
            return
        answer = call("next", "--id", id_, "--count", str(many)).success()
        expected: list[str] = []
        slot = schedule["next_run"] if schedule["status"] == "active" else None
        most = schedule["max_repetitions"]
        while slot and len(expected) < many:
            if most is not None and len(expected) >= most - schedule["repetition_count"]:
                break
            expected.append(slot)
            slot = told(following(schedule, read(slot)))
        assert [fire["utc"] for fire in answer["fires"]] == expected
        assert call("show", "--id", id_).success()["schedule"]["status"] == schedule["status"]

    @rule()
    def ask_a_process(self) -> None:
        """A real process, now and then, since it takes a while."""
        if self.steps % 9:
            return
        answer = run("list", "--status", "all", "--full", environ=clean_environ(self.var))
        self.compare(answer.success()["schedules"])

    @rule()
    def move_house(self) -> None:
        """What is exported and imported elsewhere is there as it is here; here nothing changes."""
        before = log_of(self.var)
        out = call("export").out
        going = [line for line in self.model.shown() if line["status"] in ("active", "paused")]
        assert call("import", "-", stdin=out).document.get("count", 0) == 0
        assert log_of(self.var) == before
        with tempfile.TemporaryDirectory(dir=self.root) as folder:
            answer = call("import", "-", "--var", folder, stdin=out)
            if not out or answer.code:  # what passed a year ago isn't taken
                return
            ids = {line["id"] for line in answer.success()["imported"]}
            assert ids <= {line["id"] for line in going}
            there = call("list", "--status", "all", "--full", "--var", folder).success()
            for line in there["schedules"]:
                (here,) = (each for each in going if each["id"] == line["id"])
                same = ("prompt", "agent_id", "name", "status", "schedule_value", "until", "tier")
                assert [line[name] for name in same] == [here[name] for name in same]
                if not here["open"]:
                    assert line["next_run"] == here["next_run"]
                    assert line["repetition_count"] == here["repetition_count"]

    # Bad input.

    bad = some(
        [
            ((*REGISTER, "--agent-id", "a b", "--prompt", "x", "--every", "1h"),
             "invalid_agent_id"),
            ((*REGISTER, "--prompt", " ", "--every", "1h"), "empty_prompt"),
            ((*REGISTER, "--prompt", "x\0", "--every", "1h"), "invalid_prompt"),
            ((*REGISTER, "--prompt", "\ud800", "--every", "1h"), "invalid_prompt"),
            ((*REGISTER, "--prompt", "x", "--every", "1s"), "interval_too_short"),
            ((*REGISTER, "--prompt", "x", "--cron", "61 * * * *"), "invalid_cron"),
            ((*REGISTER, "--prompt", "x", "--time", "2020-01-01T00:00"), "past_time"),
            ((*REGISTER, "--prompt", "x", "--every", "1h", "--tz", "X"), "unknown_zone"),
            (("cancel", "--id", "sch_zzzzzzzz"), "unknown_id"),
            (("show", "--id", ""), "unknown_id"),
            (("verify", "--head", "1:x"), "invalid_head"),
            (("seal", "--month", "x"), "invalid_month"),
            (("audit", "--since", "then"), "invalid_time"),
        ]
    )  # fmt: skip

    @rule(case=bad)
    def bad_input(self, case: tuple[tuple[str, ...], str]) -> None:
        """P7: it is refused, and the log is as it was."""
        arguments, code = case
        before = log_of(self.var)
        call(*arguments).error(code)
        assert log_of(self.var) == before
        self.agree()

    # Time, and sealing.

    @rule(
        minutes=some([0.001, 1, 7, 61, 60 * 24, 60 * 24 * 9, 60 * 24 * 40, -1, -90, -60 * 24 * 3])
    )
    def time_passes(self, minutes: float) -> None:
        self.now += timedelta(minutes=minutes)
        self.agree()

    @rule()
    def seal(self) -> None:
        """Sealing changes what the log weighs, not what it says."""
        lines, _ = self.on_disk()
        answer = call("seal").success()
        self.sealed(answer)
        sealed = answer["sealed"]
        lines_after, _ = self.on_disk()
        assert lines_after[: len(lines)] == lines
        kinds = [orjson.loads(line)["type"] for line in lines_after[len(lines) :]]
        assert kinds.count("segment.sealed") == len(sealed)
        self.settled = self.settled or bool(sealed)
        self.agree()

    # Faults.

    @rule(how=some(["delete", "truncate", "noise", "older", "older", "another"]), number=numbers)
    def index_fault(self, how: str, number: int) -> None:
        """P4: whatever becomes of the index."""
        index = self.var / "schedules" / "index.json"
        if not index.exists():
            return
        content = index.read_bytes()
        self.copies.append(content)
        if how == "delete":
            index.unlink()
        else:
            spoiled = {
                "truncate": content[: len(content) * number // 100],
                "noise": hashlib.sha256(content).digest() * number,
                "older": self.copies[number % len(self.copies)],
                "another": content.replace(b'"active"', b'"paused"'),
            }
            index.write_bytes(spoiled[how])
        count("faults injected")
        self.agree()

    @rule(number=numbers, noise=st.booleans())
    def torn_tail(self, number: int, noise: bool) -> None:
        """P1: half an append at the end, or bytes that were never one."""
        lines, torn = self.on_disk()
        if not lines or torn:
            return
        # A whole member cut short, which claims to go on where the log ends.
        compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
        member = compressor.compress(lines[-1] + b"\n") + compressor.flush()
        cut = member[: 1 + (len(member) - 2) * number // 100]
        with last_segment(self.var).open("ab") as file:
            file.write(b"\x07" * (number + 1) if noise else cut)
        count("faults injected")
        self.agree()

    @rule(name=some(["2031-05.ndjson.gz", "notes.txt", "2026-1.ndjson.gz.bak", ".index.json.tmp"]))
    def foreign_file(self, name: str) -> None:
        """Empty files that aren't ours are nobody's business."""
        folder = self.var / "schedules"
        if folder.is_dir():
            (folder / name).touch()
            count("faults injected")
            self.agree()

    def victim(self, verb: str, number: int) -> Step:
        if verb == "seal":
            return Step(("seal",), None, self.sealed)
        if verb == "register":
            return self.fresh(number)
        if verb == "modify":
            return self.modifying(self.pick(number), {"every": "2d3h", "name": f"n{number}"}, None)
        return self.status_change(verb, self.pick(number))

    def sealed(self, answer: dict[str, Any]) -> None:
        if answer["sealed"]:
            self.model.wrote(self.now)

    def fresh(self, number: int) -> Step:
        fields = {**DEFAULTS, "agent_id": AGENTS[number % 2], "prompt": f"Fault {number}"}
        fields.update(schedule_type="interval", schedule_value="1h")
        words = ("register", "--agent-id", fields["agent_id"], "--prompt", fields["prompt"])
        return self.registration((*words, "--every", "1h"), fields)

    victims = some(
        ["register", "register", "cancel", "pause", "resume", "modify", "trigger", "seal"]
    )

    @rule(
        verb=victims, number=numbers, at=st.integers(1, 14), when=some(["before", "half", "after"])
    )
    def killed(self, verb: str, number: int, at: int, when: str) -> None:
        """P1: death at any syscall: what was to be done is done, or nothing of it."""
        step = self.victim(verb, number)
        before, _ = self.on_disk()
        answer = None
        try:
            answer = self.call_on(StepDisk(at, when, die), step)
        except Killed:
            self.settled = False
            count("faults injected")
        after, _ = self.on_disk()
        assert after[: len(before)] == before
        if answer is not None and step.code is not None:
            answer.error(step.code)
        elif step.code is None and (answer is not None or len(after) > len(before)):
            self.apply_unseen(step, answer, after)
        self.agree()

    @rule(
        verb=victims,
        number=numbers,
        at=st.integers(1, 14),
        when=some(["before", "half"]),
        code=some([errno.ENOSPC, errno.EIO]),
    )
    def disk_fails(self, verb: str, number: int, at: int, when: str, code: int) -> None:
        """P1, P7: a disk that refuses once: an error, and nothing was done; or it was no matter."""
        step = self.victim(verb, number)
        before, torn = self.on_disk()
        answer = self.call_on(failing_disk(at, when, code), step)
        after, left = self.on_disk()
        assert after[: len(before)] == before
        assert left in (0, torn), "what was half-written wasn't cut off"
        document = answer.document
        if document["status"] == "error":
            known = {"disk_full", "disk_error", step.code}
            assert document["code"] in known, document
            self.settled = False
            count("faults injected")
            if verb != "seal":
                assert after == before, "an error, and yet something was done"
        else:
            assert step.code is None
            self.apply_unseen(step, answer, after)
            self.settled = False
        self.agree()

    def call_on(self, disk: Disk, step: Step) -> Answer:
        """Call it while the disk is that one."""
        self.disk = disk
        try:
            return call(*step.arguments)
        finally:
            self.disk = Unsynced()

    def apply_unseen(self, step: Step, answer: Any, after: list[bytes]) -> None:
        """The effect of a command whose answer nobody may have seen: the log has it."""
        if answer is not None:
            step.effect(answer.success())
            return
        types = {event["type"]: event for event in map(orjson.loads, after)}
        answers: dict[str, dict[str, Any]] = {
            "register": {"created": True},
            "cancel": {"cancelled_id": step.arguments[2]},
            "seal": {"sealed": [1]},
        }
        seen = answers.get(step.arguments[0], {})
        if step.arguments[0] == "register":
            event = types["schedule.registered"]
            seen.update(id=event["id"], next_run=event["data"]["next_run"])
        elif step.arguments[0] == "trigger":
            seen["slot"] = types["schedule.triggered"]["data"]["slot"]
        elif step.arguments[0] == "modify":
            changes = types["schedule.modified"]["data"]["changes"]
            seen["modified"] = [name for name in changes if name not in ("anchor", "next_run")]
        elif step.arguments[0] == "resume":
            last = orjson.loads(after[-1])
            seen["next_run"] = last["data"].get("next_run")
        step.effect(seen)


@pytest.fixture(scope="module", autouse=True)
def small_parts() -> Iterator[None]:
    """An index that lies in parts from the third schedule on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tree, "ROOT_BYTES", 1200)
        patch.setattr(tree, "PART_BYTES", 800)
        yield


@pytest.mark.timeout(300)
class TestModel(Machine.TestCase):  # type: ignore[misc]
    """P1, P2, P4, P6, P7: any sequence of commands, deliveries and faults; see :class:`Machine`."""


TestModel.settings = settings(
    max_examples=rounds(45),
    stateful_step_count=40,
    deadline=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)


def test_a_failed_one_off_with_new_times_owes_nothing() -> None:
    """P2: a one-off that failed, and was given other times, waits to be resumed: its slots are
    parked, not forgotten."""
    world = World()
    store: Any = world
    id_ = world.register(grace="1h")
    world.advance(days=1)
    world.claim()
    assert world.state.schedules[id_].status == "failed"
    modify(store, id_, Request(every="1h"), world.now)
    world.advance(hours=3)
    assert check_slots(world.events, world.now)["skipped"] == 4
    resume(store, id_, None, world.now)
    world.advance(hours=1)
    assert check_slots(world.events, world.now) == {"skipped": 4, "pending": 1}
