"""Registering and changing schedules, as a user meets them."""

import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
from calling import AGENT, call, events_of, log_of
from conftest import Clock
from samples import MEETING
from world import World

from promptyoself.core import ids as identity
from promptyoself.core.errors import PromptyoselfError
from promptyoself.service.schedules.change import run_now
from promptyoself.service.schedules.limits import MAX_WAITING_RUNS

pytestmark = pytest.mark.usefixtures("var", "clock")

BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")
EVERY = (*BASE, "--every", "1h")


def skips(var: Path) -> list[str]:
    """Why slots were skipped, in order."""
    return [event["data"]["why"] for event in events_of(var, "delivery.")]


def shown(id_: str) -> dict[str, Any]:
    """The schedule as `show` has it."""
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


# register


def test_a_date_bounds_a_schedule_by_its_beginning_and_its_end() -> None:
    """`--start-at 2027-01-01` is when that day begins in the schedule's zone, `--until` when it
    ends; `modify` reads it in the zone that the schedule has."""
    bounds = ("--start-at", "2027-01-01", "--until", "2027-12-31")
    id_ = call(*EVERY, "--tz", "America/New_York", *bounds).success()["id"]
    schedule = shown(id_)
    assert schedule["start_at"] == "2027-01-01T05:00:00.000000Z"
    assert schedule["until"] == "2028-01-01T04:59:59.999999Z"
    call("modify", "--id", id_, "--until", "2027-06-30").success()
    assert shown(id_)["until"] == "2027-07-01T03:59:59.999999Z"


def test_jitter_is_checked_where_it_or_the_times_change() -> None:
    """A cron expression whose fires come closer than the jitter there is, is refused; what has
    nothing to do with either can be changed."""
    id_ = call(*BASE, "--cron", "0 * * * *", "--jitter", "30m").success()["id"]
    call("modify", "--id", id_, "--cron", "*/10 * * * *").error("invalid_jitter")
    call("modify", "--id", id_, "--jitter", "1h").error("invalid_jitter")
    call("modify", "--id", id_, "--cron", "*/10 * * * *", "--jitter", "9m").success()
    call("modify", "--id", id_, "--prompt", "Other").success()
    assert shown(id_)["jitter"] == 540


def test_durations_are_seconds_where_no_unit_is_given() -> None:
    """`--grace 90` is 90 seconds, as `--grace 90s` is."""
    id_ = call(*BASE, "--every", "3600", "--grace", "90", "--jitter", "10").success()["id"]
    schedule = shown(id_)
    assert (schedule["schedule_value"], schedule["grace"], schedule["jitter"]) == ("1h", 90, 10)
    table = call("show", "--id", id_, "--format", "table").out.decode()
    assert "up to 1 min 30 s late" in table
    assert "up to 10 s later" in table


def test_register_answers_as_the_contract_says() -> None:
    """A registration answers with its id, when it fires first in UTC and locally, and a message."""
    answer = call(*BASE, "--cron", "0 9 * * *", "--tz", "Europe/Paris").success()
    assert list(answer) == [
        "status", "id", "created", "next_run", "next_run_local", "timezone", "message", "warning",
    ]  # fmt: skip
    assert answer["created"] is True
    assert answer["next_run"] == "2026-11-21T08:00:00.000000Z"
    assert answer["next_run_local"] == "2026-11-21T09:00:00+01:00"
    assert answer["message"] == "Prompt scheduled."


@pytest.mark.parametrize("microsecond", [0, 1, 500_000, 999_999])
def test_an_interval_first_fires_a_whole_interval_later(clock: Clock, microsecond: int) -> None:
    """`--every 5m` never fires sooner than five minutes from now, and within a second of that,
    also in what `next` foretells, and after a pause that lasted no time."""
    clock.now = clock.now.replace(microsecond=microsecond)
    expected = f"2026-11-20T12:05:0{1 if microsecond else 0}.000000Z"
    answer = call(*BASE, "--every", "5m").success()
    assert answer["next_run"] == expected
    assert call("next", "--every", "5m", "--count", "1").success()["fires"][0]["utc"] == expected
    call("pause", "--id", answer["id"]).success()
    assert call("resume", "--id", answer["id"]).success()["next_run"] == expected


def test_registering_again_changes_nothing(var: Path, clock: Clock) -> None:
    """P6: the same content again gives the same id, created false, and no event."""
    first = call(*EVERY).success()
    clock.advance(minutes=7)
    before = log_of(var)
    again = call(*EVERY).success()
    assert (again["id"], again["created"]) == (first["id"], False)
    assert again["next_run"] == first["next_run"]
    assert "differs" not in again
    assert log_of(var) == before


@pytest.mark.parametrize(
    ("options", "differs"),
    [
        (("--tier", "1"), ["tier"]),
        (("--daily-budget", "0"), ["daily_budget"]),
        (("--misfire", "skip", "--grace", "1h"), ["misfire", "grace"]),
        (("--jitter", "1m", "--envelope"), ["jitter", "envelope"]),
        (("--tier", "0", "--misfire", "coalesce", "--grace", "24h", "--no-envelope"), []),
        (("--reason", "just because"), []),
        (("--every", "60m"), []),  # another spelling of the same interval
    ],
)
def test_policy_is_not_content(var: Path, options: tuple[str, ...], differs: list[str]) -> None:
    """P6: another policy for the same content is the same schedule; the answer lists what differs,
    and its hint names modify."""
    id_ = call(*EVERY).success()["id"]
    answer = call(*EVERY, *options).success()
    assert (answer["id"], answer["created"]) == (id_, False)
    assert answer.get("differs", []) == differs
    assert (f"modify --id {id_}" in answer.get("hint", "")) is bool(differs)
    assert len(events_of(var, "schedule.")) == 1


@pytest.mark.parametrize(
    "options",
    [
        ("--name", "n"),
        ("--conversation-id", "c"),
        ("--tz", "Europe/London"),
        ("--start-at", "2027-01-01T00:00"),
        ("--until", "2027-01-01T00:00"),
        ("--max-repetitions", "3"),
        ("--prompt", "Hello "),
        ("--agent-id", "another"),
        ("--every", "2h"),
    ],
)
def test_content_makes_the_id(options: tuple[str, ...]) -> None:
    """P6: whatever is content makes another schedule."""
    first = call(*EVERY).success()["id"]
    assert call(*EVERY, *options).success()["id"] != first


def test_the_canonical_content_is_pinned() -> None:
    """P6: an id is the first 8 hex digits of the SHA-256 of the content as JSON with sorted keys
    and no spaces, without what isn't set. Were this to change, every id in every log would."""
    content = (
        b'{"agent_id":"agent-7","name":"caf\xc3\xa9","prompt":"Water the plants.",'
        b'"schedule_type":"interval","schedule_value":"5m","timezone":"UTC"}'
    )
    answer = call(
        "register", "--agent-id", "agent-7", "--prompt", "Water the plants.", "--name", "café",
        "--every", "300s",
    ).success()  # fmt: skip
    assert answer["id"] == "sch_" + sha256(content).hexdigest()[:8] == "sch_a2ba8603"


def short_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave ids one hex digit of the hash, so that they collide at once: finding two contents with
    the same 32 bits takes some 80,000 tries, one of the same 4 bits none."""
    whole = identity.schedule_id
    for module in ("core.ids", "rules.placement"):
        monkeypatch.setattr(
            f"promptyoself.{module}.schedule_id",
            lambda content, salt=0: f"sch_0000000{whole(content, salt)[4]}",
        )


def test_a_collision_is_salted(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """P6: where another content has the id, a salt is hashed in until one is free; the event keeps
    it, and registering either content again finds its own schedule, also after a rebuild."""
    short_ids(monkeypatch)
    ids = {}
    for number in range(12):
        answer = call(*BASE, "--every", f"{number + 1}h").success()
        assert answer["created"] is True
        ids[number] = answer["id"]
    assert len(set(ids.values())) == 12
    salts = [event["data"].get("salt") for event in events_of(var, "schedule.registered")]
    assert salts[0] is None
    assert any(salt for salt in salts)
    (var / "schedules" / "index.json").unlink()
    for number, id_ in ids.items():
        answer = call(*BASE, "--every", f"{number + 1}h").success()
        assert (answer["id"], answer["created"]) == (id_, False)


def test_a_real_collision_is_salted(var: Path) -> None:
    """P6: two contents whose hashes begin with the same 32 bits get two ids of the usual form."""
    one, two = (call(*EVERY, "--prompt", prompt).success() for prompt in MEETING)
    content = {"agent_id": AGENT, "schedule_type": "interval", "schedule_value": "1h"}
    content |= {"prompt": MEETING[1], "timezone": "UTC"}
    assert one["id"] == identity.schedule_id(content)
    assert two["created"] is True
    assert two["id"] == identity.schedule_id(content, 1) != one["id"]
    assert events_of(var, "schedule.registered")[1]["data"]["salt"] == 1


def test_registering_revives_what_was_cancelled(clock: Clock) -> None:
    """P6: a cancelled schedule's content registered again is the same id in its next life, with a
    new policy where one is given, and its history shows all lives."""
    id_ = call(*EVERY, "--tier", "1").success()["id"]
    for life in (2, 3):
        clock.advance(minutes=10)
        call("cancel", "--id", id_).success()
        answer = call(*EVERY).success()
        assert (answer["id"], answer["created"], answer["life"]) == (id_, True, life)
        schedule = shown(id_)
        assert [schedule[name] for name in ("life", "tier", "repetition_count")] == [life, 0, 0]
    types = [event["type"] for event in call("history", "--id", id_).success()["events"]]
    assert types == ["schedule.registered", "schedule.cancelled"] * 2 + ["schedule.registered"]


def test_a_new_life_counts_from_now(var: Path, clock: Clock) -> None:
    """P2: where the clock has run back, a schedule that comes back counts from now: a slot that an
    earlier life skipped by a clock that was ahead comes again, once."""
    for when in (("--time", "2026-11-20T13:00"), ("--cron", "0 * * * *")):
        id_ = call(*BASE, *when).success()["id"]
        clock.set("2026-11-20T15:30")
        call("cancel", "--id", id_).success()
        clock.set("2026-11-20T12:30")
        assert call(*BASE, *when).success()["next_run"] == "2026-11-20T13:00:00.000000Z"
    said = events_of(var, "schedule.registered")[-1]["data"]
    assert (said["counts_from"], said["without"]) == ("2026-11-20T12:30:00.000000Z", [])


def test_a_dry_run_changes_nothing(var: Path) -> None:
    """`--dry-run` answers as the registration would, and leaves not even a folder behind."""
    answer = call(*EVERY, "--dry-run").success()
    assert (answer["created"], answer["dry_run"]) == (True, True)
    assert not var.exists()
    assert call(*EVERY).success()["id"] == answer["id"]
    assert call(*EVERY, "--dry-run").success()["created"] is False
    call(*BASE, "--every", "1s", "--dry-run").error("interval_too_short")


def test_there_is_a_most_of_active_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The active schedules of an agent are limited; what is cancelled or paused makes room, and
    coming back needs room again."""
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "2")
    first = call(*BASE, "--every", "1h").success()["id"]
    second = call(*BASE, "--every", "2h").success()["id"]
    assert "2" in call(*BASE, "--every", "3h").error("too_many_schedules")["message"]
    call(*BASE, "--every", "1h").success()  # known already, so it needs none
    call(*BASE, "--every", "3h", "--agent-id", "another").success()
    call("pause", "--id", first).success()
    call(*BASE, "--every", "3h").success()
    call("resume", "--id", first).error("too_many_schedules")
    call("cancel", "--id", second).success()
    call("resume", "--id", first).success()
    call(*BASE, "--every", "2h").error("too_many_schedules")


def test_the_prompt_is_kept_verbatim() -> None:
    """A prompt is what was said, white space and all; only the last newline of a file isn't."""
    text = '  "é\u2028\U0001f600"\r\n\ttabs\n\n'
    id_ = call(*EVERY, "--prompt", text).success()["id"]
    assert shown(id_)["prompt"] == text
    answer = call(*BASE[:3], "--prompt-file", "-", "--every", "1h", stdin=(text + "\n").encode())
    assert answer.success()["id"] == id_


def test_agents_have_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no agent is named: PROMPTYOSELF_DEFAULT_AGENT_ID, then LETTA_AGENT_ID."""
    anonymous = ("register", "--prompt", "Hello", "--every", "1h")
    call(*anonymous).error("missing_option", 2)
    monkeypatch.setenv("LETTA_AGENT_ID", "letta")
    assert shown(call(*anonymous).success()["id"])["agent_id"] == "letta"
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", "default")
    assert shown(call(*anonymous).success()["id"])["agent_id"] == "default"
    assert shown(call(*EVERY).success()["id"])["agent_id"] == AGENT


def test_every_event_says_who_and_why(var: Path) -> None:
    """Each change bears its actor and, where one was given, a reason."""
    id_ = call(*EVERY, "--reason", "first").success()["id"]
    for command in ("pause", "resume", "trigger", "cancel"):
        call(command, "--id", id_, "--reason", f"to {command}").success()
    found = events_of(var, "schedule.")
    assert found[0]["actor"]["for_agent"] == AGENT
    assert all(event["actor"]["via"] == "cli" and event["actor"]["who"] for event in found)
    reasons = ["first", "to pause", "to resume", "to trigger", "to cancel"]
    assert [event["data"]["reason"] for event in found] == reasons


def test_of_two_that_register_one_creates(var: Path, environ: dict[str, str]) -> None:
    """P5, P6: of commands that race to register the same content, exactly one creates it."""
    command = [sys.executable, "-m", "promptyoself", *EVERY]
    racing = [subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) for _ in range(4)]
    answers = [orjson.loads(process.communicate(timeout=60)[0]) for process in racing]
    assert sorted(answer["created"] for answer in answers) == [False, False, False, True]
    assert len({answer["id"] for answer in answers}) == 1
    assert len(events_of(var, "schedule.registered")) == 1
    call("verify").success()


# modify


def test_modify_changes_only_what_is_given(var: Path, clock: Clock) -> None:
    """What isn't named stays, the next fire too; the answer lists what changed."""
    id_ = call(*EVERY, "--name", "n", "--tier", "1", "--jitter", "1m").success()["id"]
    before = shown(id_)
    clock.advance(minutes=10)
    answer = call("modify", "--id", id_, "--prompt", "Other", "--grace", "2h").success()
    assert answer["modified"] == ["grace", "prompt"]
    after = shown(id_)
    assert after.pop("content_sha256") != before.pop("content_sha256")
    assert after == {**before, "prompt": "Other", "grace": 7200}
    assert len(events_of(var, "delivery.")) == 0


def test_modify_to_the_same_changes_nothing(var: Path) -> None:
    """Modifying to what is already so writes no event."""
    id_ = call(*EVERY, "--tier", "1").success()["id"]
    before = log_of(var)
    answer = call("modify", "--id", id_, "--every", "60m", "--tier", "1", "--no-envelope").success()
    assert answer["modified"] == []
    assert log_of(var) == before


def test_modify_keeps_the_zone_of_the_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time or cron expression given to modify is read in the schedule's own zone."""
    id_ = call(*BASE, "--cron", "0 9 * * *", "--tz", "Asia/Kathmandu").success()["id"]
    monkeypatch.setenv("PROMPTYOSELF_TZ", "America/New_York")
    answer = call("modify", "--id", id_, "--cron", "0 10 * * *").success()
    assert answer["next_run_local"] == "2026-11-21T10:00:00+05:45"
    answer = call("modify", "--id", id_, "--time", "2026-12-24T18:00").success()
    assert answer["next_run"] == "2026-12-24T12:15:00.000000Z"
    assert shown(id_)["schedule_type"] == "once"


def test_modify_unsets_with_an_empty_text() -> None:
    """An empty text takes away a name, a conversation, a bound or a jitter."""
    id_ = call(
        *EVERY, "--name", "n", "--conversation-id", "c", "--jitter", "1m",
        "--start-at", "2026-11-25T00:00", "--until", "2026-12-01T00:00", "--envelope",
    ).success()["id"]  # fmt: skip
    call(
        "modify", "--id", id_, "--name", "", "--conversation-id", "", "--jitter", "",
        "--start-at", "", "--until", "", "--no-envelope",
    ).success()  # fmt: skip
    schedule = shown(id_)
    unset = ("name", "conversation_id", "start_at", "until")
    assert [schedule[name] for name in unset] == [None] * 4
    assert (schedule["jitter"], schedule["envelope"]) == (0, False)
    assert schedule["next_run"] == "2026-11-20T13:00:00.000000Z"


def test_registering_the_original_after_modify() -> None:
    """P6: an id belongs to the content it was made of, whatever was modified since: registering
    that again creates nothing and says what differs."""
    id_ = call(*EVERY).success()["id"]
    call("modify", "--id", id_, "--prompt", "Other", "--every", "2h").success()
    answer = call(*EVERY).success()
    assert (answer["id"], answer["created"]) == (id_, False)
    assert answer["differs"] == ["prompt", "schedule_value"]
    assert f"modify --id {id_}" in answer["hint"]


def test_modify_accounts_for_slots_that_passed(var: Path, clock: Clock) -> None:
    """P2: slots that were due under the old times and weren't delivered are skipped, with the
    reason that they had: nobody was there in time."""
    id_ = call(*EVERY).success()["id"]
    clock.advance(hours=3, minutes=30)
    answer = call("modify", "--id", id_, "--every", "2h").success()
    assert answer["next_run"] == "2026-11-20T17:30:00.000000Z"
    (skipped,) = events_of(var, "delivery.")
    assert skipped["data"] == {
        "slot": "2026-11-20T13:00:00.000000Z",
        "last": "2026-11-20T15:00:00.000000Z",
        "slots": 3,
        "why": "misfire",
        "kind": "scheduled",
        "next_run": "2026-11-20T17:30:00.000000Z",
    }


@pytest.mark.parametrize("change", ["pause", "cancel", "modify"])
def test_a_change_before_the_loop_is_back_hides_nothing(
    var: Path, clock: Clock, change: str
) -> None:
    """P9: slots that had been missed when a schedule was changed are told of as missed, with the
    notice that was asked for; only one that was still on time has the change as its reason."""
    asked = ("--every", "1h", "--on-failure", "agent-watch", "--grace", "90m")
    id_ = call(*BASE, *asked).success()["id"]
    clock.advance(hours=3, seconds=30)
    more = ("--every", "2h") if change == "modify" else ()
    call(change, "--id", id_, *more).success()
    why = {"pause": "paused", "cancel": "cancelled", "modify": "modified"}[change]
    skips = [event["data"] for event in events_of(var, "delivery.skipped")]
    assert [(skip["slot"][11:16], skip["slots"], skip["why"]) for skip in skips] == [
        ("13:00", 2, "misfire"),
        ("15:00", 1, why),
    ]
    (notice,) = call("list", "--agent-id", "agent-watch", "--full").success()["schedules"]
    assert skips[0]["notice"] == notice["id"]
    assert f"{id_} of" in notice["prompt"]
    assert "missed 2 slots from 2026-11-20T13:00" in notice["prompt"]
    assert "notice" not in skips[1]
    totals = call("audit", "--agent-id", AGENT).success()["totals"]
    assert totals["skipped_why"] == {"misfire": 2, why: 1}


def test_what_was_past_its_grace_stays_so(var: Path, clock: Clock) -> None:
    """P9: and slots that were too late to deliver are past their grace."""
    id_ = call(*BASE, "--every", "1h", "--grace", "10m").success()["id"]
    clock.advance(hours=2, minutes=30)
    call("pause", "--id", id_).success()
    (skipped,) = events_of(var, "delivery.skipped")
    assert (skipped["data"]["why"], skipped["data"]["slots"]) == ("grace", 2)
    clock.advance(hours=2)
    call("resume", "--id", id_).success()
    assert skips(var) == ["grace", "paused"]


def test_modify_moves_to_another_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule may be given to another agent, where that has room for it."""
    monkeypatch.setenv("PROMPTYOSELF_MAX_ACTIVE_PER_AGENT", "1")
    id_ = call(*EVERY).success()["id"]
    call(*EVERY, "--agent-id", "full").success()
    call("modify", "--id", id_, "--agent-id", "full").error("too_many_schedules")
    call("modify", "--id", id_, "--agent-id", "free").success()
    assert call("list", "--agent-id", "free").success()["count"] == 1
    call(*BASE, "--every", "2h").success()


# pause, resume, cancel, trigger


def test_pause_and_resume_account_for_every_slot(var: Path, clock: Clock) -> None:
    """P2: slots that were missed before a pause are skipped as that, and those during it with the
    reason paused; none is saved up, and the schedule goes on at its next time."""
    id_ = call(*EVERY).success()["id"]
    clock.advance(hours=1, minutes=30)
    answer = call("pause", "--id", id_).success()
    assert answer == {"status": "success", "id": id_, "message": "Schedule paused."}
    schedule = shown(id_)
    assert (schedule["status"], schedule["active"], schedule["next_run"]) == ("paused", False, None)
    assert call("next", "--id", id_).success()["fires"] == []
    clock.advance(hours=2)
    answer = call("resume", "--id", id_).success()
    assert answer["next_run"] == "2026-11-20T16:00:00.000000Z"
    skipped = [event["data"] for event in events_of(var, "delivery.skipped")]
    assert [(data["slot"][11:13], data["last"][11:13], data["why"]) for data in skipped] == [
        ("13", "13", "misfire"),
        ("14", "15", "paused"),
    ]


def test_what_ended_during_a_pause_is_completed(var: Path, clock: Clock) -> None:
    """P2: resuming a schedule whose last slot passed meanwhile accounts for it and ends it: a
    one-off that was never delivered as failed, a series as completed."""
    once = call(*BASE, "--time", "in 1h").success()["id"]
    series = call(*EVERY, "--until", "2026-11-20T14:00").success()["id"]
    call("pause", "--id", once).success()
    call("pause", "--id", series).success()
    clock.advance(hours=5)
    for id_, status, slots in ((once, "failed", 1), (series, "completed", 2)):
        assert call("resume", "--id", id_).success()["next_run"] is None
        assert shown(id_)["status"] == status
        found = [event for event in events_of(var, "delivery.skipped") if event["id"] == id_]
        assert sum(event["data"]["slots"] for event in found) == slots


def test_a_one_off_paused_too_late_ends(var: Path, clock: Clock) -> None:
    """P2: pausing a one-off that is overdue skips its only slot; resuming it ends it."""
    id_ = call(*BASE, "--time", "in 1h").success()["id"]
    clock.advance(hours=2)
    call("pause", "--id", id_).success()
    assert skips(var) == ["misfire"]
    call("resume", "--id", id_).success()
    assert shown(id_)["status"] == "failed"


def test_cancel_answers_as_the_contract_says(var: Path, clock: Clock) -> None:
    """Cancelling says which; what is due now is skipped with the reason cancelled."""
    id_ = call(*EVERY).success()["id"]
    clock.advance(hours=2)
    answer = call("cancel", "--id", id_).success()
    message = "Schedule cancelled."
    assert answer == {"status": "success", "cancelled_id": id_, "message": message}
    skipped = [event["data"] for event in events_of(var, "delivery.skipped")]
    assert [(data["slots"], data["why"]) for data in skipped] == [(1, "misfire"), (1, "cancelled")]
    assert shown(id_)["next_run"] is None


def test_cancelling_what_is_paused(var: Path, clock: Clock) -> None:
    """P2: a paused schedule can be cancelled; what passed in the pause stays paused's."""
    id_ = call(*EVERY).success()["id"]
    call("pause", "--id", id_).success()
    clock.advance(hours=2)
    call("cancel", "--id", id_).success()
    assert skips(var) == ["paused"]


@pytest.mark.parametrize("trigger", ["13:00", "in 1h"])
def test_a_trigger_is_a_slot_of_its_own(clock: Clock, trigger: str) -> None:
    """`trigger` asks for one delivery more: the next scheduled one stays, even where both would
    fall on the same instant, and triggering twice at once makes two."""
    once = call(*BASE, "--time", trigger).success()["id"]
    hourly = call(*BASE, "--cron", "0 * * * *", "--misfire", "all").success()["id"]
    clock.set("2026-11-20T15:00")
    slots = [call("trigger", "--id", id_).success()["slot"] for id_ in (once, hourly, hourly)]
    assert slots[0].endswith("15:00:00.000000Z")
    assert slots[1].endswith("15:00:00.000001Z")  # 15:00 itself is a slot of the schedule
    assert slots[2].endswith("15:00:00.000002Z")
    assert len(shown(hourly)["open"]) == 2
    assert shown(hourly)["next_run"] == "2026-11-20T13:00:00.000000Z"
    assert shown(hourly)["repetition_count"] == 0


def test_cancel_gives_up_triggers_that_wait(var: Path) -> None:
    """P2: a trigger that nobody has claimed yet is skipped when its schedule is cancelled."""
    id_ = call(*EVERY).success()["id"]
    call("trigger", "--id", id_).success()
    call("cancel", "--id", id_).success()
    (skipped,) = events_of(var, "delivery.")
    assert (skipped["data"]["kind"], skipped["data"]["why"]) == ("trigger", "cancelled")
    assert shown(id_)["open"] == []


# PROMPTYOSELF_ONLY_AGENT


def test_one_agent_cannot_touch_another(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PROMPTYOSELF_ONLY_AGENT pins every command to that agent: others' schedules are neither
    shown nor changed, and its own can't be given away."""
    other = call(*EVERY, "--agent-id", "other").success()["id"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", AGENT)
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", "other")
    before = log_of(var)
    for command in ("show", "cancel", "pause", "resume", "trigger", "next", "history"):
        assert call(command, "--id", other).error("forbidden_agent")["hint"]
    call("modify", "--id", other, "--prompt", "Mine").error("forbidden_agent")
    call(*EVERY, "--agent-id", "other").error("forbidden_agent")
    call("list", "--agent-id", "other").error("forbidden_agent")
    call("history", "--agent-id", "other").error("forbidden_agent")
    call("show", "--id", other, "--at", "2").error("forbidden_agent")
    assert call("list", "--status", "all").success()["count"] == 0
    assert call("list", "--at", "2").success()["count"] == 0
    assert call("history").success()["count"] == 0
    assert log_of(var) == before
    mine = call("register", "--prompt", "Hello", "--every", "1h").success()["id"]
    assert shown(mine)["agent_id"] == AGENT
    call("modify", "--id", mine, "--agent-id", "other").error("forbidden_agent")
    call("modify", "--id", mine, "--agent-id", AGENT, "--tier", "1").success()
    assert [event["id"] for event in call("history").success()["events"]] == [mine] * 2
    assert call("list", "--agent-id", AGENT).success()["count"] == 1


def test_triggers_that_wait_are_limited() -> None:
    """P7: an agent's triggers that wait are bounded; one that is delivered makes room."""
    world: Any = World()
    first, second = world.register(prompt="One", every="1h"), world.register(prompt="Two")
    other = world.register("agent-b", every="1h")
    for number in range(MAX_WAITING_RUNS):
        run_now(world, (first, second)[number % 2], None, world.now)
    for id_ in (first, second):
        with pytest.raises(PromptyoselfError, match="100 triggered deliveries that wait") as raised:
            run_now(world, id_, None, world.now)
        assert raised.value.code == "too_many_triggers"
    run_now(world, other, None, world.now)
    world.advance(seconds=1)
    world.claim()
    run_now(world, first, None, world.now)
