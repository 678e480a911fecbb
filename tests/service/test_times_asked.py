"""Times that keep the clock on the wall, and times in words, from a registration to its audit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from by_hand import deliver_due
from calling import AGENT, call
from chains import ACTOR

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import load_settings
from promptyoself.rules.placement import id_for_content
from promptyoself.rules.slots import schedule_trigger
from promptyoself.service.schedules.request import Request, first_fire, registration, validate
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from conftest import Clock

pytestmark = pytest.mark.usefixtures("var", "clock")

LONDON = ("--tz", "Europe/London")
BASE = ("register", "--agent-id", AGENT, "--prompt", "Hello")


def local(answer: dict[str, Any]) -> list[str]:
    return [fire["local"] for fire in answer["fires"]]


def fires(*asked: str, count: int = 3) -> list[str]:
    return local(call("next", *asked, "--count", str(count)).success())


def shown(id_: str) -> dict[str, Any]:
    schedule: dict[str, Any] = call("show", "--id", id_).success()["schedule"]
    return schedule


# lengths that the calendar has


@pytest.mark.parametrize(
    ("zone", "every", "start", "expected"),
    [
        ("Europe/London", "1d", "2027-03-27T01:30",
         ["2027-03-27T01:30:00+00:00", "2027-03-28T02:00:00+01:00", "2027-03-29T01:30:00+01:00"]),
        ("Europe/London", "2w", "2027-03-19T16:00:30",
         ["2027-03-19T16:00:30+00:00", "2027-04-02T16:00:30+01:00", "2027-04-16T16:00:30+01:00"]),
        ("America/New_York", "3d", "2027-03-12T09:00",
         ["2027-03-12T09:00:00-05:00", "2027-03-15T09:00:00-04:00", "2027-03-18T09:00:00-04:00"]),
        ("Australia/Lord_Howe", "1d", "2027-04-03T09:00",
         ["2027-04-03T09:00:00+11:00", "2027-04-04T09:00:00+10:30", "2027-04-05T09:00:00+10:30"]),
        ("Europe/London", "1mo", "2027-01-31T09:00",
         ["2027-01-31T09:00:00+00:00", "2027-03-31T09:00:00+01:00", "2027-05-31T09:00:00+01:00"]),
        ("UTC", "1y", "2028-02-29T09:00",
         ["2028-02-29T09:00:00+00:00", "2032-02-29T09:00:00+00:00", "2036-02-29T09:00:00+00:00"]),
    ],
)  # fmt: skip
def test_days_weeks_months_and_years_keep_the_time_on_the_wall(
    zone: str, every: str, start: str, expected: list[str]
) -> None:
    assert fires("--every", every, "--start-at", start, "--tz", zone) == expected


def test_an_interval_of_hours_or_without_changes_of_clocks_stays_one() -> None:
    for zone, every in (("UTC", "1d"), ("Asia/Tokyo", "2w"), ("Europe/London", "36h")):
        answer = call(*BASE, "--every", every, "--tz", zone).success()
        assert "understood" not in answer
        assert shown(answer["id"])["schedule_type"] == "interval"


def test_a_day_from_now_is_the_first_fire(clock: Clock) -> None:
    """Also where a registration falls into the last instant of a minute."""
    clock.set("2026-11-20T09:59:59.900000")
    answer = call(*BASE, "--every", "1d", *LONDON).success()
    assert answer["next_run"] == "2026-11-21T09:59:00.000000Z"
    assert answer["understood"] == ("--rrule 'FREQ=DAILY;BYHOUR=9;BYMINUTE=59' --tz Europe/London")
    assert len(answer["fires"]) == 3


def test_the_same_length_again_is_the_same_schedule(clock: Clock) -> None:
    first = call(*BASE, "--every", "1d", *LONDON).success()
    clock.advance(hours=5)
    again = call(*BASE, "--every", "24h", *LONDON).success()
    assert (again["id"], again["created"]) == (first["id"], False)
    assert again["fires"] == first["fires"]


def register_as_formerly(var: Path, clock: Clock, every: str, zone: str = "Europe/London") -> str:
    """Append the event that a former version has made of ``--every``; the schedule's id."""
    store = Store(load_settings(var=str(var)), ACTOR, warn=print)
    request = Request(agent_id=AGENT, prompt="Hello", every=every, timezone=zone)
    fields = validate(request, store.settings, clock.now, keep_intervals=True)
    record = registration(fields, clock.now)
    record = record._replace(next_run=format_utc(first_fire(schedule_trigger(record), clock.now)))
    id_, _, _ = id_for_content(store.read().state, record)
    store.transact(clock.now, lambda _: ([store.draft(record, id_, AGENT)], None))
    return id_


def test_an_interval_of_a_former_version_stays_what_it_is(var: Path, clock: Clock) -> None:
    """Registering it again finds it, and `modify` with the same length changes nothing."""
    id_ = register_as_formerly(var, clock, "2d")
    before = shown(id_)
    assert before["schedule_type"] == "interval"
    again = call(*BASE, "--every", "2d", *LONDON).success()
    assert (again["id"], again["created"]) == (id_, False)
    assert "differs" not in again
    assert call("modify", "--id", id_, "--every", "48h").success()["modified"] == []
    assert shown(id_) == before
    call("modify", "--id", id_, "--every", "3d").success()
    assert shown(id_)["schedule_value"] == "FREQ=DAILY;INTERVAL=3"


# rules


def test_a_rule_counts_from_its_first_time_or_from_its_start(clock: Clock) -> None:
    """It is Friday, 20 November 2026, 20:30."""
    clock.set("2026-11-20T20:30:00")
    rule = ("--rrule", "FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16")
    assert [fire[:10] for fire in fires(*rule)] == ["2026-11-27", "2026-12-11", "2026-12-25"]
    # As RFC 5545 has it: every other week counts from that of the start.
    started = fires(*rule, "--start-at", "2026-11-21")
    assert [fire[:10] for fire in started] == ["2026-12-04", "2026-12-18", "2027-01-01"]


def test_a_rule_lives_through_everything(var: Path, clock: Clock, tmp_path: Path) -> None:
    """Deliveries, misfires, pauses, an audit, a simulation, an export and an import."""
    answer = call(*BASE, "--rrule", "FREQ=DAILY;BYHOUR=9,17", *LONDON, "--jitter", "5m").success()
    store = Store(load_settings(var=str(var)), ACTOR, warn=print)
    clock.set("2026-11-21T09:06:00")
    assert len(deliver_due(store, clock.now)) == 1
    clock.set("2026-11-23T18:00:00")  # slots of two days were missed
    assert [claim.slot for claim in deliver_due(store, clock.now)] == [
        "2026-11-23T17:00:00.000000Z"
    ]
    call("pause", "--id", answer["id"]).success()
    clock.advance(days=1)
    resumed = call("resume", "--id", answer["id"]).success()
    assert resumed["next_run"] == "2026-11-25T09:00:00.000000Z"
    totals = call("audit").success()["totals"]
    assert (totals["slots"], totals["delivered"], totals["unaccounted"]) == (9, 2, 0)
    assert call("simulate", "--until", "in 10d").success()["fired"] == 20
    assert not [check for check in call("verify").success() if check == "problem"]
    exported = call("export").out
    elsewhere = str(tmp_path / "elsewhere")
    moved = call("import", "-", "--var", elsewhere, stdin=exported).success()
    assert [schedule["id"] for schedule in moved["imported"]] == [answer["id"]]
    assert call("export", "--var", elsewhere).out == exported


@pytest.mark.parametrize(
    ("asked", "code", "hint"),
    [
        (("--rrule", "FREQ=DAILY;COUNT=3"), "invalid_rrule", "--max-repetitions"),
        (("--rrule", "FREQ=DAILY;UNTIL=20270101T000000Z"), "invalid_rrule", "--until"),
        (("--rrule", "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30"), "invalid_rrule", "29 days"),
        (("--rrule", "FREQ=YEARLY;BYMONTH=2;BYYEARDAY=1;BYHOUR=9"), "never_fires", "--until"),
        (("--every", "0mo"), "invalid_rrule", "from 1"),
        (("--when", "every monday"), "invalid_when", "'every monday at 9'"),
        (("--when", "tonight"), "invalid_time", "tonight at 8pm"),
        (("--when", "tomorrow 9am Europe/Berlin"), "invalid_when", "--tz Europe/Berlin"),
        (("--when", "2020-01-01"), "past_time", "later"),
        (("--when", "2027-13-01"), "invalid_time", "Write"),
        (("--time", "2099-01-01"), "invalid_time", "2099-01-01T09:00"),
        (("--when", "every friday at 5"), "invalid_when", "the one that you mean"),
        (("--when", "evry weekday at 9"), "invalid_when", "'every weekday at 9'"),
        (("--when", "soon"), "invalid_when", "tomorrow 9am"),
        (("--when", "yesterday at 9"), "past_time", "later"),
        (("--time", "yesterday at 9"), "past_time", "later"),
        (("--time", "tomorow 9am"), "invalid_time", "'tomorrow 9am'"),
        (("--time", "tomorrow at 5"), "invalid_time", "the one that you mean"),
        (("--time", "2026-12-24"), "invalid_time", "T09:00"),
        (("--every", "2 fortnights"), "invalid_when", ""),
        (("--when", "every day at 9", "--every", "2h"), "conflicting_options", "--when"),
    ],
)  # fmt: skip
def test_what_is_refused_says_what_to_write(asked: tuple[str, ...], code: str, hint: str) -> None:
    refusal = call("next", *asked)
    document = refusal.error(code, 2 if code == "conflicting_options" else 1)
    assert hint in document["hint"]


def test_two_readings_are_both_said_and_a_past_time_as_it_was_understood() -> None:
    both = call(*BASE, "--time", "tomorrow at 5").error("invalid_time")
    assert "5am, or 5pm" in both["message"]
    past = call(*BASE, "--time", "yesterday at 9am", *LONDON).error("past_time")
    assert "2026-11-19T09:00:00+00:00" in past["message"]


def test_fires_may_not_come_closer_than_allowed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PROMPTYOSELF_MIN_INTERVAL", "1h")
    rule = "FREQ=DAILY;BYHOUR=9;BYMINUTE=0,30"
    call(*BASE, "--rrule", rule).error("interval_too_short")
    call(*BASE, "--rrule", "FREQ=DAILY;BYHOUR=9,10").success()
    call(*BASE, "--when", "every 30 minutes").error("interval_too_short")


# words


@pytest.mark.parametrize(
    ("words", "understood"),
    [
        ("every weekday at 9", "--cron '0 9 * * MON-FRI' --tz Europe/London"),
        ("every other friday at 16:00",
         "--rrule 'FREQ=WEEKLY;INTERVAL=2;BYDAY=FR;BYHOUR=16;BYMINUTE=0' --tz Europe/London"),
        ("every 2 days at 9",
         "--rrule 'FREQ=DAILY;INTERVAL=2;BYHOUR=9;BYMINUTE=0' --tz Europe/London"),
        ("last day of the month at 18:00", "--cron '0 18 L * *' --tz Europe/London"),
        ("every 2 hours between 9 and 17 on weekdays",
         "--cron '0 9-17/2 * * MON-FRI' --tz Europe/London"),
        ("first monday of the month at 9", "--cron '0 9 * * MON#1' --tz Europe/London"),
        ("tomorrow 9am", "--time 2026-11-21T09:00:00+00:00 --tz Europe/London"),
        ("every 5 minutes", "--every 5m --tz Europe/London"),
    ],
)  # fmt: skip
def test_words_are_said_back_in_the_strict_form(words: str, understood: str) -> None:
    """And the strict form, given again, is the same schedule."""
    answer = call(*BASE, "--when", words, *LONDON).success()
    assert answer["understood"] == understood
    assert answer["fires"][0]["utc"] == answer["next_run"]
    assert (
        call("next", "--when", words, *LONDON, "--count", "3").success()["fires"]
        == (answer["fires"])
    )
    again = call(*BASE, *shlex.split(understood)).success()
    assert (again["id"], again["created"]) == (answer["id"], False)


def test_time_and_every_take_words_too() -> None:
    """Agents have no `when`."""
    answer = call(*BASE, "--time", "tomorrow 9am", *LONDON).success()
    assert answer["understood"].startswith("--time 2026-11-21T09:00:00+00:00")
    call("modify", "--id", answer["id"], "--every", "weekday at 9").success()
    assert shown(answer["id"])["schedule_value"] == "0 9 * * MON-FRI"
    strict = call("modify", "--id", answer["id"], "--time", "2026-11-21T09:00").success()
    assert not strict.keys() & {"understood", "fires"}


def test_bounds_take_words_and_a_day_is_all_of_it() -> None:
    """It is a Friday, in London 20:30."""
    bounds = ("--start-at", "monday", "--until", "next tuesday", *LONDON)
    id_ = call(*BASE, "--every", "6h", *bounds).success()["id"]
    schedule = shown(id_)
    assert schedule["start_at"] == "2026-11-23T00:00:00.000000Z"
    assert schedule["until"] == "2026-11-24T23:59:59.999999Z"
    call("modify", "--id", id_, "--until", "tuesday at noon").success()
    assert shown(id_)["until"] == "2026-11-24T12:00:00.000000Z"


def test_idle_prompts_take_words() -> None:
    answer = call("idle", "--agent-id", AGENT, "--when", "every sunday at 10").success()
    assert shown(answer["id"])["schedule_value"] == "0 10 * * SUN"


def test_what_fires_otherwise_than_expected_is_warned_of() -> None:
    warning = call(*BASE, "--cron", "0 9 1-7 * MON").success()["warning"]
    assert "either is enough" in warning
    assert "either" not in call(*BASE, "--cron", "0 9 * * MON").success()["warning"]
    monthly = call(*BASE, "--every", "1mo", "--start-at", "2027-01-31T09:00").success()
    assert "Months without a day 31 are skipped" in monthly["warning"]
