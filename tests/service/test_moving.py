"""Moving house: `export` on one machine, `import` on another."""

from __future__ import annotations

import io
import os
import random
import signal
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from by_hand import claim_due, deliver_due, settle
from calling import AGENT, add, call, little_memory, log_of, run
from chains import ACTOR, StepDisk
from checker import check_chain
from crashes import Unsynced, in_child
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from samples import MEETING
from tally import chance, count, rounds
from world import check_deliveries

from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import schedule_id
from promptyoself.core.settings import load_settings
from promptyoself.events.schedule_fields import CONTENT
from promptyoself.rules.claim import Claim
from promptyoself.rules.outcome import Abandoned
from promptyoself.service.audit.report import audit
from promptyoself.service.schedules.change import cancel, modify, pause, resume, run_now
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.views import describe
from promptyoself.service.transfer import admission
from promptyoself.service.transfer.export import LINE_TYPES, export_lines
from promptyoself.service.transfer.import_lines import import_lines
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from conftest import Clock

    from promptyoself.sandbox import Sandbox

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
EVERY = ("register", "--agent-id", AGENT, "--prompt", "Hello", "--every", "1h")
OF_ITS_LIFE = {"created_at", "last_run", "life", "failures", "last_error", "open"}


class House:
    """A data directory on a machine of its own, with a clock that is turned by hand."""

    def __init__(self, folder: Path, disk: Disk | None = None, **caps: int) -> None:
        self.now = NOON
        self.warnings: list[str] = []
        settings = load_settings({"PROMPTYOSELF_VAR": str(folder)})
        settings = settings._replace(caps=settings.caps._replace(**caps))
        self.folder = folder / "schedules"
        self.store = Store(settings, ACTOR, warn=self.warnings.append, disk=disk or Unsynced())

    @property
    def state(self) -> State:
        return self.store.read().state

    def register(self, prompt: str = "Hi", agent: str = "agent-a", **asked: Any) -> str:
        request = Request(agent_id=agent, prompt=prompt, **asked)
        return str(register(self.store, request, self.now)["id"])

    def claim(self) -> list[Claim]:
        """Claim what is due."""
        return claim_due(self.store, self.now).claims

    def deliver(self) -> list[tuple[str, str]]:
        """Deliver all that is due; the ids and slots."""
        slots: list[tuple[str, str]] = []
        while claims := deliver_due(self.store, self.now):
            slots += ((claimed.id, claimed.slot) for claimed in claims)
        return slots

    def export(self) -> bytes:
        lines = export_lines(self.store, None, self.now)
        return b"".join(line + b"\n" for line in lines)

    def lines(self) -> dict[str, bytes]:
        """The lines of an export, by the ids of their schedules."""
        return {orjson.loads(line)["id"]: line for line in self.export().splitlines()}

    def take(self, lines: bytes, **more: Any) -> Any:
        return import_lines(self.store, io.BytesIO(lines), self.now, **more)

    def refused(self, lines: bytes) -> list[str]:
        """The codes of the lines for which an import of these is refused."""
        with pytest.raises(PromptyoselfError) as refused:
            self.take(lines)
        return [bad["code"] for bad in refused.value.details["bad"]]

    def shown(self) -> dict[str, dict[str, Any]]:
        """What `show` tells of those that aren't over, but for what is of this life only."""
        shown = {}
        for schedule in self.state.schedules.values():
            if schedule.status in ("active", "paused"):
                view = describe(schedule, (), full=True)
                position = (schedule.next_run, schedule.anchor, schedule.last_slot)
                shown[schedule.id] = {
                    **{key: value for key, value in view.items() if key not in OF_ITS_LIFE},
                    "position": (*position, schedule.registered),
                }
        return shown

    def check(self) -> list[dict[str, Any]]:
        return check_chain(self.folder)


@pytest.fixture
def old(tmp_path: Path) -> House:
    return House(tmp_path / "old")


@pytest.fixture
def new(tmp_path: Path) -> House:
    return House(tmp_path / "new")


# What is exported.


def test_an_export_is_a_line_for_each_schedule_that_is_not_over(var: Path, clock: Clock) -> None:
    """Active and paused ones, each on a line of JSON with the version of the format, and nothing
    else on stdout."""
    ids = [call(*EVERY, "--every", f"{n}h").success()["id"] for n in (1, 2, 3)]
    call("pause", "--id", ids[1]).success()
    call("cancel", "--id", ids[2]).success()
    answer = call("export")
    assert answer.code == 0
    lines = [orjson.loads(line) for line in answer.out.splitlines()]
    assert [line["id"] for line in lines] == sorted(ids[:2])
    assert {line["id"]: line["status"] for line in lines} == {ids[0]: "active", ids[1]: "paused"}
    assert all(line["export"] == 1 for line in lines)
    assert call("export", "--agent-id", "another").out == b""
    call("export", "--agent-id", "a b").error("invalid_agent_id")


def test_an_export_can_go_to_a_new_file(var: Path, clock: Clock, tmp_path: Path) -> None:
    """`--out` makes a file for its owner alone, never writes over one, and leaves none behind where
    it fails."""
    call(*EVERY).success()
    target = tmp_path / "moved.ndjson"
    answer = call("export", "--out", str(target)).success()
    assert (answer["count"], answer["file"]) == (1, str(target))
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.read_bytes() == call("export").out
    before = target.read_bytes()
    call("export", "--out", str(target)).error("file_exists")
    assert target.read_bytes() == before
    call("export", "--out", "").error("invalid_value", 2)
    for name in ("a\0b", "\ud800", str(tmp_path / "none" / "x"), "x" * 300):
        call("export", "--out", name).error("unwritable_file")
    long = tmp_path / ("x" * 253)  # it fits, but not the name that it is written under first
    call("export", "--out", str(long)).error("unwritable_file")
    call("export", "--out", "/").error("file_exists")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["moved.ndjson", "var"]


def test_a_running_loop_is_warned_of(old: House) -> None:
    """Two machines with the same schedules both deliver, so an export while a loop runs says to
    stop it."""
    old.register(every="1h")
    old.store.prepare_workers()
    with old.store.workers.alive("wrk_7"):
        assert old.export()
    assert any("wrk_7" in warning and "Stop it" in warning for warning in old.warnings)


# What comes out at the other end.

PROMPTS = st.sampled_from(["Hi", "Hi there", "Grüße\n\t\x01 \u2028", '{"a": 1}', "x" * 500])
TRIGGERS = st.sampled_from(
    [
        {"time": "in 90m"},
        {"time": "2026-11-22T09:00", "timezone": "Europe/London"},
        {"cron": "0 9 * * MON-FRI", "timezone": "America/New_York"},
        {"cron": "*/20 * * * *"},
        {"every": "1h"},
        {"every": "2h30m", "start_at": "2026-11-21T06:30"},
        {"every": "45m", "until": "2026-11-22T00:00"},
    ]
)
OTHERS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["n", "ü"]),
        "conversation_id": st.sampled_from(["conv-1", "new", "default"]),
        "target": st.sampled_from(["letta", "letta-code"]),
        "max_repetitions": st.integers(5, 9),
        "misfire": st.sampled_from(["coalesce", "skip", "all"]),
        "grace": st.sampled_from(["2h", "3d"]),
        "tier": st.sampled_from([0, 1]),
        "daily_budget": st.integers(5000, 6000),  # never spent: the new machine begins its day
        "jitter": st.just("5m"),
        "on_failure": st.just("agent-told"),
        "envelope": st.booleans(),
        "reason": st.just("why not"),
    },
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["new", "modify", "pause", "resume", "cancel", "run"]),
              PROMPTS, TRIGGERS, OTHERS, st.integers(0, 9)),
    min_size=1,
    max_size=12,
)  # fmt: skip


def live(house: House, step: tuple[str, str, dict[str, Any], dict[str, Any], int]) -> None:
    """One thing that happens on the old machine; what is refused doesn't matter."""
    what, prompt, trigger, more, number = step
    house.now += timedelta(minutes=7 * number)
    agent = f"agent-{number % 3}"
    ids = sorted(house.state.schedules)
    try:
        if what == "new" or not ids:
            house.register(prompt, agent, **trigger, **more)
        elif what == "run":
            house.deliver()
        elif what == "modify":
            asked = Request(
                agent_id=agent, prompt=prompt, **(trigger if number % 2 else {}), **more
            )
            modify(house.store, ids[number % len(ids)], asked, house.now)
        else:
            change = {"pause": pause, "resume": resume, "cancel": cancel}[what]
            change(house.store, ids[number % len(ids)], "because", house.now)
    except PromptyoselfError:
        pass


@settings(
    max_examples=rounds(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(STEPS)
def test_a_schedule_is_the_same_on_both_machines(
    tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    """P6: whatever has been registered, modified, paused and delivered, each schedule has the same
    id and the same properties after the move; and then, running on, both fire the same slots, and
    the audit of the new log finds nothing missing."""
    folder = tmp_path_factory.mktemp("move")
    old, new = House(folder / "old"), House(folder / "new")
    for step in steps:
        live(old, step)
    exported = old.export()
    assert not old.warnings
    new.now = old.now
    answer = new.take(exported)
    assert answer["count"] == exported.count(b"\n") == len(old.shown())
    assert new.shown() == old.shown()
    assert new.export() == exported
    again = new.take(exported)
    assert again["count"] == 0
    assert {skip["why"] for skip in again["skipped"]} <= {"exists"}
    for _ in range(6):
        old.now = new.now = new.now + timedelta(hours=5)
        assert sorted(new.deliver()) == sorted(old.deliver())
    new.check()
    check_deliveries(event for batch in new.store.replay() for event in batch.envelopes)
    audit(new.store, now=new.now)
    count("schedules moved", len(old.shown()))


def test_a_repetition_is_carried_over(old: House, new: House) -> None:
    """Of ten repetitions, four of which were delivered before the move, six are delivered after it;
    and the slots before it don't come again, not even where the new machine's clock is behind."""
    id_ = old.register(every="1h", max_repetitions=10)
    before = []
    for _ in range(4):
        old.now += timedelta(hours=1)
        before += old.deliver()
    new.take(old.export())
    new.now = NOON
    modify(new.store, id_, Request(every="30m", start_at="2026-11-20T12:10"), new.now)
    assert new.state.schedules[id_].next_run > before[-1][1]
    after = []
    for _ in range(30):
        new.now += timedelta(minutes=30)
        after += new.deliver()
    assert len(before) + len(after) == 10
    assert len({slot for _, slot in before + after}) == 10
    assert new.state.schedules[id_].status == "completed"
    new.check()


@pytest.mark.parametrize(("late", "delivered"), [(2, True), (30, False)])
def test_what_came_due_during_the_move_is_delivered_late(
    old: House, new: House, late: int, delivered: bool
) -> None:
    """P2: a prompt whose time came between export and import is delivered within its grace, and
    recorded as skipped after that."""
    id_ = old.register(time="in 1h")
    exported = old.export()
    new.now += timedelta(hours=late)
    new.take(exported)
    assert bool(new.deliver()) is delivered
    assert new.state.schedules[id_].status == ("completed" if delivered else "failed")
    outcomes = [event["type"] for event in new.check() if event["type"].startswith("delivery.")]
    assert outcomes[-1] == ("delivery.delivered" if delivered else "delivery.skipped")


@pytest.mark.parametrize("waiting", [True, False])
def test_a_slot_under_way_is_taken_along(old: House, new: House, waiting: bool) -> None:
    """P2: a slot that the old machine had claimed, and perhaps sent, or is to try again, is the
    first on the new one, under the same otid, so that it is found if it arrived."""
    once = old.register(time="in 1h")
    series = old.register(agent="agent-b", every="1h", max_repetitions=2)
    old.now += timedelta(hours=1)
    claims = old.claim()
    if waiting:
        for claimed in claims:
            settle(old.store, claimed, old.now, Abandoned("letta_busy", "Busy."))
    exported = old.export()
    assert not old.warnings
    new.now = old.now + timedelta(minutes=10)
    new.take(exported)
    again = new.claim()
    assert {claimed.otid for claimed in again} == {claimed.otid for claimed in claims}
    assert {claimed.id for claimed in again} == {once, series}
    assert new.state.schedules[series].repetition_count == 1
    new.check()


def test_what_cannot_be_taken_along_is_told(old: House, new: House) -> None:
    """A delivery asked for with `trigger` that is still open stays behind; a warning says so."""
    id_ = old.register(every="1h")
    run_now(old.store, id_, None, old.now)
    assert new.take(old.export())["count"] == 1
    (warning,) = old.warnings
    assert id_ in warning


def test_a_salted_id_stays(old: House, new: House) -> None:
    """P6: a schedule that needed a salt on the old machine has the same id on the new one, where
    its content is found under it, though the other content with that id isn't there."""
    one, two = (old.register(prompt, AGENT, every="1h") for prompt in MEETING)
    assert old.state.schedules[two].salt == 1
    lines = old.lines()
    assert new.take(lines[two])["imported"][0]["id"] == two
    assert new.register(MEETING[1], AGENT, every="1h") == two
    assert new.take(lines[one])["imported"][0]["id"] == one
    assert new.register(MEETING[0], AGENT, every="1h") == one
    assert new.shown() == old.shown()
    new.check()


def test_the_same_content_under_another_id_is_known(old: House, new: House) -> None:
    """P6: what needed a salt there, and none here, is the same schedule, and isn't doubled."""
    _, two = (old.register(prompt, AGENT, every="1h") for prompt in MEETING)
    here = new.register(MEETING[1], AGENT, every="1h")
    (skip,) = new.take(old.lines()[two])["skipped"]
    assert (skip["id"], skip["why"]) == (here, "exists")


def test_an_id_that_is_taken_is_refused(old: House, new: House) -> None:
    """P6: where another content has the id already, the schedule can't have it, and isn't given
    another one silently."""
    taken = new.register(MEETING[0], AGENT, every="1h")
    assert old.register(MEETING[1], AGENT, every="1h") == taken
    exported = old.export()
    assert new.refused(exported) == ["id_taken"]
    assert new.state.schedules[taken].prompt == MEETING[0]


def test_what_is_known_is_never_changed(old: House, new: House) -> None:
    """An id that the new machine knows is skipped, whatever became of it there; so an import can be
    repeated, and revives nothing."""
    ids = [old.register(every=f"{n}h") for n in (1, 2, 3)]
    exported = old.export()
    new.take(exported)
    cancel(new.store, ids[0], None, new.now)
    modify(new.store, ids[1], Request(prompt="Other"), new.now)
    before = log_of(new.folder.parent)
    answer = new.take(exported)
    assert (answer["count"], len(answer["skipped"])) == (0, 3)
    assert {skip["why"] for skip in answer["skipped"]} == {"exists"}
    assert log_of(new.folder.parent) == before
    twice = House(new.folder.parent.parent / "twice").take(exported + exported)
    assert (twice["count"], [skip["why"] for skip in twice["skipped"]]) == (3, ["duplicate"] * 3)


def test_history_moves_on_through_several_houses(old: House, new: House, tmp_path: Path) -> None:
    """P6: what was modified before one move and after it is moved again with its first id."""
    id_ = old.register("first", every="1h")
    modify(old.store, id_, Request(prompt="second"), old.now)
    new.take(old.export())
    modify(new.store, id_, Request(prompt="third", name="n"), new.now)
    third = House(tmp_path / "third")
    third.take(new.export())
    assert third.shown() == new.shown()
    assert third.register("first", every="1h") == id_
    third.check()


# Dry runs and wrong input.


def test_a_dry_run_changes_nothing(var: Path, clock: Clock, old: House, tmp_path: Path) -> None:
    """`--dry-run` says what would be imported, and makes not even a folder."""
    id_ = old.register(every="1h")
    (tmp_path / "e").write_bytes(old.export())
    answer = call("import", str(tmp_path / "e"), "--dry-run").success()
    assert (answer["dry_run"], answer["count"]) == (True, 1)
    assert not var.exists()
    done = call("import", str(tmp_path / "e")).success()
    assert done["imported"] == answer["imported"]
    assert call("show", "--id", id_).success()["schedule"]["prompt"] == "Hi"
    check_chain(var / "schedules")


def changed(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    """A line with other values in it; ``None`` leaves one out."""

    def change(line: dict[str, Any]) -> bytes:
        line = {**line, "schedule": dict(line["schedule"])}
        for name, value in changes.items():
            place = line if name in LINE_TYPES else line["schedule"]
            place[name] = value
            if value is None:
                del place[name]
        return orjson.dumps(line)

    return change


def renamed(**changes: Any) -> Callable[[dict[str, Any]], bytes]:
    """The same with the id of the new content, as a forger would make it."""

    def change(line: dict[str, Any]) -> bytes:
        fields = orjson.loads(changed(**changes)(line))
        content = {name: fields["schedule"].get(name) for name in CONTENT}
        return orjson.dumps({**fields, "id": schedule_id(content)})

    return change


def _registered_as_other(line: dict[str, Any]) -> bytes:
    content = {name: line["schedule"][name] for name in CONTENT if name in line["schedule"]}
    return changed(registered={**content, "prompt": "Other"})(line)


BAD: dict[str, tuple[Callable[[dict[str, Any]], bytes], str]] = {
    "no json": (lambda _: b"nonsense", "invalid_line"),
    "no object": (lambda _: b"[1, 2]", "invalid_line"),
    "a number": (lambda _: b"5", "invalid_line"),
    "not utf-8": (lambda _: b'{"export":1,"id":"\xff"}', "invalid_line"),
    "a lone surrogate": (lambda _: b'{"export":1,"id":"\\ud800"}', "invalid_line"),
    "deep": (lambda _: b"[" * 100_000, "invalid_line"),
    "of another tool": (lambda _: b'{"agent_id":"a","prompt":"p"}', "invalid_line"),
    "an event": (lambda _: b'{"v":1,"seq":1,"type":"schedule.registered"}', "invalid_line"),
    "version 0": (changed(export=0), "invalid_line"),
    "version true": (changed(export=True), "invalid_line"),
    "version text": (changed(export="1"), "invalid_line"),
    "no id": (changed(id=None), "invalid_line"),
    "another id": (changed(id="sch_00000000"), "id_mismatch"),
    "another prompt": (changed(prompt="Other"), "id_mismatch"),
    "an unknown field": (lambda line: orjson.dumps({**line, "more": 1}), "invalid_line"),
    "a large salt": (changed(salt=2), "invalid_line"),
    "salt 0": (changed(salt=0), "invalid_line"),
    "status failed": (changed(status="failed"), "invalid_line"),
    "no next run": (changed(next_run=None), "nothing_left"),
    "a local next run": (changed(next_run="2026-11-20T13:00:00"), "invalid_line"),
    "a next run of long ago": (changed(next_run="2020-01-01T00:00:00.000000Z"), "past_time"),
    "a next run after the end": (
        renamed(next_run="2026-12-20T13:00:00.000000Z", until="2026-12-01T00:00:00.000000Z"),
        "never_fires",
    ),
    "a bad last slot": (changed(last_slot="yesterday"), "invalid_line"),
    "a last slot ahead": (changed(last_slot="2027-01-01T00:00:00.000000Z"), "invalid_line"),
    "a bad anchor": (changed(anchor="2026"), "invalid_line"),
    "negative count": (changed(repetition_count=-1), "invalid_line"),
    "count as text": (changed(repetition_count="1"), "invalid_line"),
    "all fired": (renamed(max_repetitions=3, repetition_count=3), "nothing_left"),
    "empty prompt": (renamed(prompt=" "), "empty_prompt"),
    "NUL": (renamed(prompt="a\0b"), "invalid_prompt"),
    "long prompt": (renamed(prompt="x" * (1024**2 + 1)), "prompt_too_long"),
    "no prompt": (changed(prompt=None), "invalid_line"),
    "bad agent": (renamed(agent_id="a b"), "invalid_agent_id"),
    "bad conversation": (renamed(conversation_id="a b"), "invalid_conversation_id"),
    "empty name": (renamed(name=""), "invalid_line"),
    "long name": (renamed(name="x" * 201), "invalid_name"),
    "bad type": (renamed(schedule_type="often"), "invalid_schedule_type"),
    "bad duration": (renamed(schedule_value="soon"), "invalid_duration"),
    "duration of other spelling": (renamed(schedule_value="60m"), "invalid_line"),
    "short interval": (renamed(schedule_value="9s"), "interval_too_short"),
    "bad cron": (renamed(schedule_type="cron", schedule_value="61 * * * *"), "invalid_cron"),
    "bad time": (renamed(schedule_type="once", schedule_value="in 5m"), "invalid_line"),
    "a clock's time": (renamed(schedule_type="once", schedule_value="09:00"), "invalid_time"),
    "bad zone": (renamed(timezone="Moon/Sea"), "unknown_zone"),
    "bad until": (renamed(until="soon"), "invalid_time"),
    "max 0": (renamed(max_repetitions=0), "invalid_max_repetitions"),
    "max true": (renamed(max_repetitions=True), "invalid_line"),
    "tier 3": (changed(tier=3), "invalid_tier"),
    "bad misfire": (changed(misfire="some"), "invalid_misfire"),
    "no grace": (changed(grace=0), "invalid_duration"),
    "bad budget": (changed(daily_budget=-1), "invalid_daily_budget"),
    "long jitter": (changed(jitter=3600), "invalid_jitter"),
    "envelope false": (changed(envelope=False), "invalid_line"),
    "long reason": (changed(reason="x" * 2001), "invalid_reason"),
    "registered as nothing": (changed(registered={}), "invalid_line"),
    "registered as other": (_registered_as_other, "id_mismatch"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_changes_nothing(
    name: str, var: Path, clock: Clock, old: House, tmp_path: Path
) -> None:
    """P7: one bad line among good ones is named with its number, code and reason, and nothing at
    all is imported; `--partial` takes the others, and lists it."""
    first, second = (old.register(prompt, every="1h") for prompt in ("one", "two"))
    lines = old.lines()
    make, code = BAD[name]
    content = b"\n".join([lines[first], b"", make(orjson.loads(lines[second])), b""])
    (tmp_path / "e").write_bytes(content)
    error = call("import", str(tmp_path / "e")).error("bad_lines")
    (bad,) = error["bad"]
    assert (bad["line"], bad["code"], error["bad_count"]) == (3, code, 1)
    assert bad["message"].endswith(".")
    assert not var.exists()
    answer = call("import", str(tmp_path / "e"), "--partial").success()
    assert [done["id"] for done in answer["imported"]] == [first]
    assert answer["bad"] == error["bad"]
    check_chain(var / "schedules")


def test_a_newer_export_is_named_as_such(new: House, old: House) -> None:
    """A file of a newer version is refused as a whole, whatever else is in it."""
    old.register(every="1h")
    newer = orjson.dumps({"export": 2, "what": ["ever"]})
    for partial in (False, True):
        with pytest.raises(PromptyoselfError, match="its version is 2") as refused:
            new.take(old.export() + newer, partial=partial)
        assert refused.value.code == "newer_export"
    assert not new.folder.exists()


def test_files_that_are_no_export(var: Path, clock: Clock, tmp_path: Path) -> None:
    """P7: a folder, a missing file, one of gzip, a database, noise: each is one clear error; blank
    files hold nothing, which is no error."""
    call(*EVERY).success()
    segment = next((var / "schedules").glob("*.gz"))
    before = log_of(var)
    call("import", str(segment)).error("not_an_export")
    database = tmp_path / "old.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE schedules (id)")
    assert "import-sqlite" in call("import", str(database)).error("not_an_export")["hint"]
    for name in ("/", str(tmp_path), str(tmp_path / "none"), "a\0b", "\ud800", ""):
        call("import", name).error("unreadable_file")
    call("import", "-", stdin=random.Random(7).randbytes(20_000)).error("bad_lines")
    for blank in (b"", b"\n \n\r\n", None):
        assert call("import", "-", stdin=blank).success()["count"] == 0
    call("import").error("missing_option", 2)
    call("import", "a", "b").error("wrong_usage", 2)
    assert log_of(var) == before


def test_of_many_bad_lines_the_first_are_listed(new: House) -> None:
    """However many lines another tool's file has, the answer stays readable."""
    with pytest.raises(PromptyoselfError) as refused:
        new.take(b"{}\n" * 5000)
    details = refused.value.details
    assert (details["bad_count"], len(details["bad"])) == (5000, 1000)
    assert details["bad"][-1]["line"] == 1000


def test_a_line_without_end_takes_no_memory(environ: dict[str, str], tmp_path: Path) -> None:
    """P7: a line of 100 MB among others is one bad line, and a file without end is refused, both
    in less memory than the line would take."""
    path = tmp_path / "e"
    with path.open("wb") as file:
        file.write(b'{"export":1}\n"')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"\n{}\n')

    error = run("import", str(path), environ=environ, prepare=little_memory).error("bad_lines")
    assert [(bad["line"], bad["code"]) for bad in error["bad"]] == [
        (1, "invalid_line"), (2, "line_too_long"), (3, "invalid_line"),
    ]  # fmt: skip
    run("import", "/dev/zero", environ=environ, prepare=little_memory).error("import_too_large")


@settings(max_examples=rounds(60), deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])  # fmt: skip
@given(st.integers(0, 400), st.binary(max_size=3), st.booleans())
def test_a_damaged_export_is_never_half_understood(
    tmp_path_factory: pytest.TempPathFactory, at: int, noise: bytes, cut: bool
) -> None:
    """P7: bytes changed or missing anywhere give the schedule as it was, or a bad line."""
    folder = tmp_path_factory.mktemp("damage")
    old, new = House(folder / "old"), House(folder / "new")
    old.register("Hello", cron="0 9 * * *", max_repetitions=5)
    exported = old.export()
    at %= len(exported)
    damaged = exported[:at] + noise + (b"" if cut else exported[at + len(noise) :])
    try:
        answer = new.take(damaged)
    except PromptyoselfError as error:
        assert error.code in ("bad_lines", "newer_export", "not_an_export")  # noqa: PT017
        assert not new.folder.exists()
    else:
        new.check()
        for line in answer["imported"]:
            assert line["id"] in old.state.schedules
            assert new.state.schedules[line["id"]].prompt == "Hello"


def test_limits_hold_for_what_is_imported(old: House, tmp_path: Path) -> None:
    """The cap of active schedules counts those there are and those that come; paused ones don't
    count, as for `pause`; the shortest interval is this machine's own."""
    ids = [old.register(str(n), every="1h") for n in range(5)]
    pause(old.store, ids[0], None, old.now)
    exported = old.export()
    new = House(tmp_path / "capped", max_active_per_agent=3)
    assert new.refused(exported) == ["too_many_schedules"]
    answer = new.take(exported, partial=True)
    assert (answer["count"], answer["bad_count"]) == (4, 1)
    assert new.state.agent("agent-a").active == 3
    assert new.take(exported, partial=True)["count"] == 0
    slow = House(tmp_path / "slow", min_interval=7200)
    assert set(slow.refused(exported)) == {"interval_too_short"}
    new.check()


def test_what_is_not_in_force_any_more_is_not_limited(old: House, tmp_path: Path) -> None:
    """The shortest interval concerns what fires from now on, not the content that an id was made
    of."""
    id_ = old.register(every="10s")
    modify(old.store, id_, Request(every="3h"), old.now)
    slow = House(tmp_path / "slow", min_interval=7200)
    assert slow.take(old.export())["imported"][0]["id"] == id_


def test_a_pinned_caller_moves_only_its_own(
    var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`PROMPTYOSELF_ONLY_AGENT`: an export gives that agent's schedules alone, and nothing that was
    another's; an import refuses others' lines."""
    mine = call(*EVERY).success()["id"]
    other = (*EVERY, "--agent-id", "other", "--prompt", "Secret")
    theirs = call(*other).success()["id"]
    given = call(*other, "--name", "n").success()["id"]
    call("modify", "--id", given, "--agent-id", AGENT, "--prompt", "Public").success()
    everything = call("export").out
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    answer = call("export")
    assert [orjson.loads(line)["id"] for line in answer.out.splitlines()] == [mine]
    assert given in answer.err
    call("export", "--agent-id", "other").error("forbidden_agent")
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "new"))
    error = call("import", "-", stdin=everything).error("bad_lines")
    assert [bad["code"] for bad in error["bad"]] == ["forbidden_agent"] * 2
    answer = call("import", "-", "--partial", stdin=everything).success()
    assert [line["id"] for line in answer["imported"]] == [mine]
    assert theirs not in str(answer["imported"])
    check_chain(tmp_path / "new" / "schedules")


# Much at once, and death in the middle.


def many(number: int) -> bytes:
    """An export of so large a number of schedules, which nobody had to register."""
    lines = []
    for n in range(number):
        schedule = {
            "agent_id": f"agent-{n % 100}", "prompt": f"Prompt {n} " + "x" * 500,
            "schedule_type": "interval", "schedule_value": "1h", "timezone": "UTC",
        }  # fmt: skip
        policy = {"anchor": "2026-11-20T11:30:00.000000Z", "tier": 0, "misfire": "all", "grace": 60}
        line = {
            "export": 1, "id": schedule_id(schedule), "status": "active",
            "next_run": "2026-11-20T12:30:00.000000Z", "repetition_count": 3,
            "schedule": schedule | policy,
        }  # fmt: skip
        lines.append(orjson.dumps(line))
    return b"\n".join(lines)


def test_ten_thousand_are_one_append(tmp_path: Path) -> None:
    """P8: ten thousand schedules are one append, synced once, as one is."""
    alone, together = StepDisk(), StepDisk()
    House(tmp_path / "one", alone).take(many(1))
    new = House(tmp_path / "new", together)
    assert new.take(many(10_000))["count"] == 10_000
    folders = 3  # of the index, each synced when it is made
    assert together.log.count("fsync") == alone.log.count("fsync") + folders
    assert len(list(new.store.replay())) == 1
    assert len(new.check()) == 10_001
    active = {id_: agent.active for id_, agent in new.state.agents.items()}
    assert active == {f"agent-{n}": 100 for n in range(100)}


def test_a_large_import_is_several_appends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What doesn't fit into one append is split between schedules, never within one."""
    monkeypatch.setattr(admission, "_PART_BYTES", 5000)
    old = House(tmp_path / "old")
    for n in range(10):
        pause(old.store, old.register("x" * 700 * n + "!", every="1h"), None, old.now)
    disk = StepDisk()
    new = House(tmp_path / "new", disk)
    assert new.take(old.export())["count"] == 10
    types = [event["type"] for event in new.check()]
    assert types[1:] == ["schedule.registered", "schedule.paused"] * 10
    batches = [len(batch.envelopes) for batch in new.store.replay()]
    assert len(batches) > 3
    assert all(size % 2 == (not number) for number, size in enumerate(batches))


def test_killed_in_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1: SIGKILL at any syscall of an import, which takes several appends, loses nothing that it
    had taken, splits no schedule, and the same import again completes it."""
    monkeypatch.setattr(admission, "_PART_BYTES", 2000)
    old = House(tmp_path / "old")
    for n in range(6):
        modify(old.store, old.register(f"Prompt {n}", every="1h"), Request(name=f"n{n}"), old.now)
    exported = old.export()
    disk = StepDisk()
    House(tmp_path / "dry", disk).take(exported)
    points = [(at, when) for at in range(1, disk.count + 1) for when in ("before", "half", "after")]
    for number, (at, when) in enumerate(
        chance("import").sample(points, min(len(points), rounds(25)))
    ):
        folder = tmp_path / str(number)

        def work(report: Callable[[str], None], at: int = at, when: str = when) -> None:
            House(folder, StepDisk(at, when)).take(exported)  # noqa: B023
            report("done")

        acknowledged, ended_by = in_child(work)
        if when != "half":
            assert ended_by == signal.SIGKILL
            assert not acknowledged or at == disk.count
        new = House(folder)
        taken = new.shown()
        assert taken.items() <= old.shown().items()
        answer = new.take(exported)
        assert (answer["count"], len(answer["skipped"])) == (6 - len(taken), len(taken))
        assert new.shown() == old.shown()
        new.check()
        count("kills by SIGKILL")


def test_a_full_disk_changes_nothing(tmp_path: Path, old: House) -> None:
    """P1: where the disk refuses, the import is an error, and the next one takes everything."""

    class Full(Unsynced):
        def write(self, descriptor: int, data: bytes | memoryview) -> int:
            os.write(descriptor, data[:100])
            raise OSError(28, "No space left on device")

    old.register(every="1h")
    exported = old.export()
    with pytest.raises(OSError, match="No space"):
        House(tmp_path / "new", Full()).take(exported)
    new = House(tmp_path / "new")
    assert new.take(exported)["count"] == 1
    new.check()


def test_an_imported_prompt_is_delivered_once(
    sandbox: Sandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """P2: what the old machine has delivered isn't sent again by the new one; what it has not yet,
    is, once, on time or late."""
    agent = sandbox.agents[0]
    add("--every", "1h", "--max-repetitions", "2", agent=agent, prompt="series")
    add("--time", "in 90m", agent=agent, prompt="late")
    clock.advance(hours=1)
    call("execute").success()
    exported = call("export").out
    monkeypatch.setenv("PROMPTYOSELF_VAR", str(tmp_path / "new"))
    clock.advance(minutes=50)
    assert call("import", "-", stdin=exported).success()["count"] == 2
    call("execute").success()
    clock.advance(minutes=10)
    call("execute").success()
    clock.advance(hours=5)
    assert call("execute").success()["executed"] == []
    texts = [message.text for message in sandbox.messages(agent)]
    assert texts == ["series", "late", "series"]
    assert set(sandbox.deliveries.values()) == {1}
    check_chain(tmp_path / "new" / "schedules")
