"""Triggers, durations, zones and times (changes of clocks: ``test_triggers_dst.py``)."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from croniter import croniter
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.core.times import (
    format_duration,
    in_zone,
    parse_duration,
    parse_moment,
    parse_time,
    parse_zone,
    require_future,
)
from promptyoself.rules.triggers import (
    Trigger,
    count_slots,
    last_slot,
    next_fire_time,
    parse_cron,
    slots,
)

NOW = datetime(2026, 11, 20, 20, 30, tzinfo=UTC)
EPOCH = datetime(1990, 1, 1, tzinfo=UTC)
INSTANTS = st.timedeltas(timedelta(0), timedelta(36500)).map(lambda passed: EPOCH + passed)
HOSTILE = st.one_of(
    st.text(max_size=60),
    st.text("0123456789*/-,LW#?@:T +Zzinhdmsw.\u0663\x00\n", max_size=40),
    st.lists(st.text("0123456789*/-,MONJAN", max_size=8), max_size=7).map(" ".join),
)


def cron(expression: str, zone: str = "UTC", **bounds: datetime) -> Trigger:
    return Trigger("cron", parse_cron(expression), zone, **bounds)


def every(seconds: int, anchor: datetime = NOW, **bounds: datetime) -> Trigger:
    return Trigger("interval", format_duration(seconds), anchor=anchor, **bounds)


def once(instant: datetime, **bounds: datetime) -> Trigger:
    return Trigger("once", format_utc(instant), **bounds)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@st.composite
def triggers(draw: st.DrawFn) -> Trigger:
    bounds = {}
    if draw(st.booleans()):
        bounds["start_at"] = draw(INSTANTS)
    if draw(st.booleans()):
        bounds["until"] = draw(INSTANTS)
    expressions = ["0 9 * * MON-FRI", "*/20 */3 * * *", "0 0 1 */5 *", "30 1 13 * 5", "0 0 29 2 *"]
    return draw(
        st.one_of(
            INSTANTS.map(lambda at: once(at, **bounds)),
            st.builds(
                every, st.integers(1, 10**8), INSTANTS, **{k: st.just(v) for k, v in bounds.items()}
            ),
            st.builds(
                lambda e, z: cron(e, z, **bounds),
                st.sampled_from(expressions),
                st.sampled_from(["UTC", "Europe/London", "America/Havana"]),
            ),
        )
    )


# --- fires ---------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None)
@given(trigger=triggers(), after=INSTANTS, length=st.integers(0, 40 * 86400))
def test_the_answers_agree(trigger: Trigger, after: datetime, length: int) -> None:
    """Slots ascend strictly within their bounds; next, last and count say the same as they do."""
    until = after + timedelta(seconds=length)
    found = list(islice(slots(trigger, after, until), 5000))
    assert found == sorted(set(found))
    assert all(after < at <= until and at.tzinfo is UTC for at in found)
    assert all(trigger.start_at is None or at >= trigger.start_at for at in found)
    assert all(trigger.until is None or at <= trigger.until for at in found)
    following = next_fire_time(trigger, after)
    assert following is None or following > after
    if found:
        assert following == found[0]
    else:
        assert following is None or following > until
    if len(found) < 5000:
        assert count_slots(trigger, after, until) == len(found)
        assert last_slot(trigger, after, until) == (found[-1] if found else None)


@settings(max_examples=200, deadline=None)
@given(seconds=st.integers(1, 10**8), anchor=INSTANTS, after=INSTANTS)
def test_an_interval_never_drifts(seconds: int, anchor: datetime, after: datetime) -> None:
    """A fire is a whole number of lengths from the anchor, and at most one length away."""
    fire = next_fire_time(every(seconds, anchor), after)
    assert fire is not None
    assert (fire - anchor) % timedelta(seconds=seconds) == timedelta(0)
    assert fire >= anchor
    assert fire == anchor or fire - after <= timedelta(seconds=seconds)


def test_an_interval_first_fires_one_length_after_its_anchor() -> None:
    """Registered now, an interval waits its length; with a start, it fires at the start itself."""
    assert next_fire_time(every(300), NOW) == NOW + timedelta(seconds=300)
    start = NOW + timedelta(hours=1)
    assert next_fire_time(every(300, start, start_at=start), NOW) == start


def test_bounds_are_inclusive() -> None:
    """A fire exactly at ``start_at`` or ``until`` counts, for every kind."""
    at = utc("2026-11-21T09:00")
    for trigger in (cron("0 9 * * *", start_at=at, until=at), once(at, start_at=at, until=at)):
        assert list(slots(trigger, NOW, at + timedelta(days=3))) == [at]
    assert next_fire_time(cron("0 9 * * *", start_at=at), NOW - timedelta(days=9)) == at


def test_a_time_fires_once() -> None:
    """A once trigger fires at its instant and never after."""
    assert next_fire_time(once(NOW), NOW - timedelta(microseconds=1)) == NOW
    assert next_fire_time(once(NOW), NOW) is None


def test_an_interval_is_counted_without_walking_it() -> None:
    """Counting and finding the last of billions of slots is immediate."""
    start = time.perf_counter()
    until = NOW + timedelta(days=36500)
    assert count_slots(every(1), NOW, until) == 36500 * 86400
    assert last_slot(every(1), NOW, until) == until
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("trigger", [cron("* * * * *"), cron("0 0 29 2 *", "Asia/Tokyo"), every(7)])
def test_the_end_of_the_calendar_is_no_crash(trigger: Trigger) -> None:
    """At the last instant there is, and at the first, every question has an answer."""
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    assert next_fire_time(trigger, last) is None
    for days in range(15):
        at = last - timedelta(days=days)
        slots_left = count_slots(trigger, at, last) > 0
        assert slots_left == (next_fire_time(trigger, at) is not None)
        assert slots_left == (last_slot(trigger, at, last) is not None)
    assert next_fire_time(trigger, first) is not None


def test_days_of_the_month_and_of_the_week_combine_as_in_debian() -> None:
    """Both must match where either field starts with a star; else either is enough."""
    assert next_fire_time(cron("0 9 */2 * 1"), utc("2026-11-21T00:00")) == utc("2026-11-23T09:00")
    assert next_fire_time(cron("0 9 */2 * 1"), utc("2026-11-23T09:00")) == utc("2026-12-07T09:00")
    assert next_fire_time(cron("0 9 13 * 5"), utc("2026-11-21T00:00")) == utc("2026-11-27T09:00")


NUMBERS = {"day": (1, 31), "month": (1, 12), "weekday": (0, 7)}


@st.composite
def day_fields(draw: st.DrawFn) -> str:
    """The last three fields of an expression, as croniter reads them too."""
    fields = []
    for low, high in NUMBERS.values():
        numbers = st.lists(st.integers(low, high), min_size=1, max_size=4).map(
            lambda found: ",".join(map(str, found))
        )
        ranges = st.tuples(st.integers(low, high), st.integers(low, high)).map(
            lambda ends: f"{min(ends)}-{max(ends)}" if ends[0] != ends[1] else str(ends[0])
        )
        steps = st.integers(1, high).map(lambda step: f"*/{step}")
        fields.append(draw(st.one_of(st.just("*"), numbers, ranges, steps)))
    return " ".join(fields)


def is_refused(expression: str) -> bool:
    """Whether it names no day that exists, or what Debian's cron hasn't."""
    try:
        parse_cron(expression)
    except PromptyoselfError:
        return True
    return False


@settings(max_examples=400, deadline=None)
@given(days=day_fields(), start=INSTANTS, minute=st.integers(0, 59), hour=st.integers(0, 23))
def test_days_agree_with_croniter(days: str, start: datetime, minute: int, hour: int) -> None:
    """Which days match, forward and back, is what an independent implementation says."""
    expression = f"{minute} {hour} {days}"
    assume(not is_refused(expression))
    trigger, at = cron(expression), start.replace(second=0, microsecond=0)
    # The "bug" is Vixie cron's: where one of the two fields starts with `*`, both must match.
    oracle = croniter(expression, at, ret_type=datetime, implement_cron_bug=True)
    ahead = [oracle.get_next() for _ in range(12)]
    assert list(slots(trigger, at, ahead[-1])) == ahead
    assert count_slots(trigger, at, ahead[-1]) == 12
    oracle.set_current(at, force=True)
    for _ in range(12):
        found = last_slot(trigger, EPOCH - timedelta(days=36500), at - timedelta(seconds=1))
        at = oracle.get_prev()
        assert found == at


def falls_on(expression: str, day: datetime) -> bool:
    """Vixie's rule said again, of one day and a simple expression."""
    numbers, months, weekdays = (
        None if field == "*" else {int(each) for each in field.split(",")}
        for field in expression.replace("*/28", "1,29").replace("*/7", "0").split()[2:]
    )
    month = months is None or day.month in months
    by_number = numbers is None or day.day in numbers
    by_weekday = weekdays is None or day.isoweekday() % 7 in weekdays
    both = "*" in expression.split()[2] + expression.split()[4]
    return month and (by_number and by_weekday if both else by_number or by_weekday)


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 29 2 *",  # not in 1900, 2100, 2200 and 2300
        "0 0 29 2 */7",  # a Sunday: up to 40 years apart
        "0 0 */28 2 3",
        "0 0 29 2 4",  # or every Thursday of February
        "0 0 31 * *",
        "0 0 13 * 5",
        "0 0 * 3,11 0",
        "0 0 1,30 2,4 *",
    ],
)
def test_four_centuries_of_days(expression: str) -> None:
    """Every day that matches in 400 years is found, forward and back, and no other."""
    first, last = utc("1890-01-01"), utc("2310-01-01")
    days = [first + timedelta(days=number) for number in range((last - first).days)]
    expected = [day for day in days if falls_on(expression, day)]
    trigger = cron(expression)
    assert (
        list(slots(trigger, first - timedelta(seconds=1), last - timedelta(seconds=1))) == expected
    )
    for at, before in zip(expected[1:], expected, strict=False):
        assert last_slot(trigger, first - timedelta(days=1), at - timedelta(seconds=1)) == before


def test_what_never_fires_has_an_answer() -> None:
    """A day that no month has, which only a forged log can hold, comes to nothing at once."""
    never = Trigger("cron", "0 0 30 2 *")
    assert next_fire_time(never, NOW) is None
    assert last_slot(never, EPOCH, NOW) is None
    assert count_slots(never, EPOCH, NOW) == 0


def test_fields_that_croniter_would_read_otherwise() -> None:
    """``5-5`` is minute 5 only, and ``5-7`` ends on Sunday."""
    assert next_fire_time(cron("5-5 * * * *"), utc("2026-11-21T00:05")) == utc("2026-11-21T01:05")
    days = [at.weekday() for at in islice(slots(cron("0 0 * * 5-7"), NOW, utc("2027-01-01")), 3)]
    assert sorted(days) == [4, 5, 6]
    assert list(slots(cron("0 0 * * fri-sun"), NOW, utc("2027-01-01"))) == list(
        slots(cron("0 0 * * 5-7"), NOW, utc("2027-01-01"))
    )


def test_the_rarest_fires_are_found() -> None:
    """A Sunday the 29th of February comes up to 40 years later, and is found at once."""
    start = time.perf_counter()
    assert next_fire_time(cron("0 0 29 2 */7"), utc("2088-02-29")) == utc("2128-02-29")
    assert last_slot(cron("0 0 29 2 */7"), NOW, utc("2128-02-28")) == utc("2088-02-29")
    assert time.perf_counter() - start < 1


def test_a_year_of_minutes_is_quick() -> None:
    """Walking 525,600 slots takes a second or two, finding the last of them no time."""
    trigger, until = cron("* * * * *", "Europe/London"), utc("2027-01-01")
    start = time.perf_counter()
    assert count_slots(trigger, utc("2026-01-01"), until) == 525_600
    assert time.perf_counter() - start < 5
    start = time.perf_counter()
    assert last_slot(trigger, utc("2026-01-01"), until) == until
    assert time.perf_counter() - start < 0.2


def test_mistakes_of_the_caller_are_not_the_users() -> None:
    """An unknown kind, a missing anchor and a naive datetime raise ValueError."""
    with pytest.raises(ValueError, match="kind"):
        Trigger("hourly", "1h")
    with pytest.raises(ValueError, match="anchor"):
        Trigger("interval", "1h")
    with pytest.raises(ValueError, match="without a zone"):
        next_fire_time(every(60), NOW.replace(tzinfo=None))


def test_nothing_heavy_is_imported_before_it_is_needed() -> None:
    """Neither intervals nor durations nor cron expressions load anything of others, or zones."""
    script = """if True:
        import sys, datetime
        from promptyoself.core import times
        from promptyoself.rules import triggers as t
        now = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
        zone = times.parse_zone("UTC")
        times.parse_time("in 5m", zone, now), times.in_zone(now, zone), t.parse_cron("0 9 * * 1")
        t.next_fire_time(t.Trigger("interval", "5m", zone, anchor=now), now)
        t.next_fire_time(t.Trigger("cron", "0 9 29 2 1", zone), now)
        assert not {"croniter", "zoneinfo", "dateutil", "calendar"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("  0   9 * *  mon-Fri ", "0 9 * * MON-FRI"),
        ("05 09 1,15 jan */2", "5 9 1,15 JAN */2"),
        ("*/15 0/2 1-7/2 * 7", "*/15 0/2 1-7/2 * 7"),
        ("@hourly", "0 * * * *"),
        ("@Daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 31 2 1", "0 0 31 2 1"),
    ],
)
def test_cron_is_canonical(text: str, canonical: str) -> None:
    """Cron expressions come back with single spaces, capitals and no leading zeros, for good."""
    assert parse_cron(text) == canonical
    assert parse_cron(canonical) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no fields"),
        ("* * * *", "4 fields"),
        ("0 0 9 * * *", "seconds and years aren't supported"),
        ("60 * * * *", "60 in its minute field"),
        ("* 24 * * *", "24 in its hour field"),
        ("0 0 0 * *", "0 in its day of the month field"),
        ("0 0 * 13 *", "13 in its month field"),
        ("0 0 * * 8", "8 in its day of the week field"),
        ("0 0 * * MOO", "MOO"),
        ("0 0 MON * *", "MON"),
        ("*/0 * * * *", "step 0"),
        ("*/90 * * * *", "step 90"),
        ("*/9999999999 * * * *", "*/9999999999"),
        ("0 22-2 * * *", "backward range 22-2"),
        ("0 0 * * 1/2", "open range"),
        ("1,,2 * * * *", "an empty item"),
        ("*-5 * * * *", "*-5"),
        ("0 0 L * *", "L"),
        ("0 0 ? * *", "?"),
        ("0 0 15W * *", "15W"),
        ("H * * * *", "H"),
        ("0 0 * * 1#2", "1#2"),
        ("R * * * *", "R"),
        ("@reboot", "known macro"),
        ("\u0663 * * * *", "\\u0663"),
        ("1," * 5000 + "1 * * * *", "longer than"),
    ],
)
def test_bad_cron_is_refused(text: str, says: str) -> None:
    """A field that Debian's cron hasn't, or that crons read differently, is named and refused."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_cron(text)
    assert caught.value.code == "invalid_cron"
    assert says in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 400


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("CRON_TZ=Europe/London 0 9 * * *", "--tz Europe/London --cron '0 9 * * *'"),
        ("TZ=Asia/Tokyo 0 9 * * *", "--tz Asia/Tokyo --cron '0 9 * * *'"),
        (" cron_tz='Asia/Tokyo'  @daily", "--tz Asia/Tokyo --cron '@daily'"),
        ("TZ=", "--tz ZONE"),
        ("@every 5m", "--every 5m"),
        ("@every 1h 30m", "--every 1h30m"),
        ("@EVERY10s", "--every 10s"),
        ("@every", "--every 5m"),
    ],
)
def test_what_other_schedulers_put_into_a_cron_expression_has_an_option_here(
    text: str, hint: str
) -> None:
    """A zone or an interval in a cron expression is refused, with the option that says it."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_cron(text)
    assert caught.value.code == "invalid_cron"
    assert hint in caught.value.hint
    assert "fields" not in caught.value.message


@pytest.mark.parametrize("text", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 30-31 FEB */2"])
def test_cron_that_never_fires_is_refused(text: str) -> None:
    """A day that none of its months has is refused at once."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_cron(text)
    assert caught.value.code == "cron_never_fires"


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 36500 * 86400))
def test_durations_round_trip(seconds: int) -> None:
    """A duration's canonical text reads back as the same number of seconds."""
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("90s", "1m30s"),
        ("5m", "5m"),
        ("2h30m", "2h30m"),
        ("24h", "1d"),
        ("1w", "7d"),
        (" 5m ", "5m"),
        ("90", "1m30s"),
        ("10", "10s"),
    ],
)
def test_durations_are_canonical(text: str, canonical: str) -> None:
    """Equal durations have one spelling, largest unit first, days the largest."""
    assert format_duration(parse_duration(text)) == canonical


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0s", "more than zero"),
        ("-5m", "more than zero"),
        ("0", "more than zero"),
        ("5 m", "isn't"),
        ("1.5h", "isn't"),
        ("5M", "isn't"),
        ("30m2h", "isn't"),
        ("", "isn't"),
        ("\u0663m", "isn't"),
        ("999999999999d", "hundred years"),
        ("9" * 5000 + "s", "isn't"),
    ],
)
def test_bad_durations_are_refused(text: str, says: str) -> None:
    """Zero, negative, fractional, unitless and endless durations are refused with a reason."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_duration(text)
    assert caught.value.code == "invalid_duration"
    assert says in caught.value.message


@pytest.mark.parametrize(
    "name", ["UTC", "Europe/London", "Etc/GMT+2", "CET", "America/Port-au-Prince"]
)
def test_zones_are_known(name: str) -> None:
    """An IANA name is accepted as it is."""
    assert parse_zone(name) == name


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("London", "Europe/London"),
        ("europe/london", "Europe/London"),
        ("Europe/Lodnon", "Europe/London"),
        ("new york", "America/New_York"),
        ("utc", "UTC"),
        ("", "IANA"),
        ("Europe", "IANA"),
        ("../etc/passwd", "IANA"),
        ("/etc/localtime", "IANA"),
        ("right/UTC", "IANA"),
        ("localtime", "IANA"),
        ("EST", "America/New_York"),
        ("EST", "Etc/GMT+5"),
        ("HST", "Etc/GMT+10"),
        ("GMT+2", "write Etc/GMT-2"),
        ("UTC+2", "write Etc/GMT-2"),
        ("+02:00", "write Etc/GMT-2"),
        ("gmt-05:00", "write Etc/GMT+5"),
        ("UTC+5:30", "no name for the offset +05:30"),
        ("UTC+0", "Did you mean UTC?"),
        ("PST", "America/Los_Angeles or Asia/Manila"),
        ("IST", "Asia/Kolkata"),
        ("CST", "Asia/Shanghai"),
        ("AEST", "Australia/Sydney"),
        ("est", "America/New_York"),
        ("pst", "America/Los_Angeles"),
        ("XYZT", "ambiguous"),
        ("EST5EDT4", "POSIX"),
        ("EST5EDT,M3.2.0,M11.1.0", "POSIX"),
        ("CET-1CEST", "POSIX"),
        ("<+02>-2", "POSIX"),
        ("Europe/London\x00", "IANA"),
        ("a" * 10_000, "IANA"),
    ],
)
def test_unknown_zones_are_refused(name: str, hint: str) -> None:
    """A name that is no zone, a folder or a path elsewhere is refused, with the nearest names; so
    is an abbreviation, which doesn't say which place's clocks are meant."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_zone(name)
    assert caught.value.code == "unknown_zone"
    assert hint in caught.value.hint


@pytest.mark.parametrize("sign", ["+", "-"])
@pytest.mark.parametrize("form", ["GMT{}2", "utc{}2", "Etc/UTC{}2", "UTC{}02:00", "{}2", "Z{}02"])
def test_the_zone_that_is_suggested_for_an_offset_is_at_that_offset(form: str, sign: str) -> None:
    """The sign in Etc/GMT-2 is the other way round, which nobody expects who writes GMT+2."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_zone(form.format(sign))
    (name,) = re.findall(r"write (\S+):", caught.value.hint)
    assert in_zone(NOW, name).endswith(f"{sign}02:00")


@pytest.mark.parametrize(
    "name", ["localtime", "LOCALTIME", "local", "/etc/localtime", "posixrules"]
)
def test_the_machines_own_zone_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for this machine's zone is told its name, and never the same word again."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    with pytest.raises(PromptyoselfError) as caught:
        parse_zone(name)
    assert "Asia/Tokyo" in caught.value.hint
    assert "mean" not in caught.value.hint


def test_a_zone_that_the_time_zone_data_fixes_still_computes() -> None:
    """A log may have EST from before it was refused: its schedules go on as they were."""
    trigger = Trigger("cron", "0 9 * * *", "EST")
    assert next_fire_time(trigger, utc("2026-07-01T00:00")) == utc("2026-07-01T14:00")


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-11-21T09:00", "Europe/Berlin", "2026-11-21T08:00"),
        ("2026-11-21 09:00:30", "UTC", "2026-11-21T09:00:30"),
        ("2026-11-21T09:00:00Z", "Europe/Berlin", "2026-11-21T09:00"),
        ("2026-11-21T09:00+05:45", "UTC", "2026-11-21T03:15"),
        ("2026-11-21T09:00:00.250", "UTC", "2026-11-21T09:00:00.250"),
        ("2020-01-01T00:00Z", "UTC", "2020-01-01T00:00"),
        ("in 45m", "UTC", "2026-11-20T21:15"),
        ("in 2h30m", "Asia/Tokyo", "2026-11-20T23:00"),
        ("20:31", "UTC", "2026-11-20T20:31"),
        ("24:00", "UTC", "2026-11-21T00:00"),
        ("2026-11-21T24:00", "UTC", "2026-11-22T00:00"),
        ("2026-12-31 24:00:00.0Z", "Europe/Berlin", "2027-01-01T00:00"),
        ("2026-11-21T24:00+01:00", "UTC", "2026-11-21T23:00"),
        ("2026-11-21T09:00:00.123456789Z", "UTC", "2026-11-21T09:00:00.123456"),
        ("2026-11-21T09:00:00,1234567", "UTC", "2026-11-21T09:00:00.123456"),
        ("in 90", "UTC", "2026-11-20T20:31:30"),
        ("20:30", "UTC", "2026-11-21T20:30"),
        ("9:00", "Asia/Kathmandu", "2026-11-21T03:15"),
        ("23:59:59", "America/New_York", "2026-11-21T04:59:59"),
        ("2026-10-25T01:30", "Europe/London", "2026-10-25T00:30"),
    ],
)
def test_times_are_read(text: str, zone: str, expected: str) -> None:
    """Each way to write a time means one instant, read in the zone where it has no offset."""
    assert parse_time(text, zone, NOW) == utc(expected)


def test_from_now_is_rounded_up() -> None:
    """``in 45m`` is never less than 45 minutes, and falls on a whole second."""
    now = NOW + timedelta(microseconds=1)
    assert parse_time("in 45m", "UTC", now) == NOW + timedelta(minutes=45, seconds=1)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21",
        "tomorrow",
        "",
        "24:01",
        "2026-11-21T24:01",
        "2026-11-21T24:00:00.000001Z",
        "2026-11-21T09:00:00.1234567890Z",
        "9999-12-31T24:00",
        "9:60",
        "2026-13-01T00:00",
        "2026-11-21T25:00",
        "0001-01-01T00:00+14:00",
        "9999-12-31T23:59-14:00",
        "in",
        "in 5 m",
        "in 0s",
        "in 99999999w",
        "2026-11-21T09:00+25:00",
        "10000-01-01T00:00",
        "1732183200",
    ],
)
def test_bad_times_are_refused(text: str) -> None:
    """What is no time, or one that no calendar has, is refused with examples."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_time(text, "UTC", NOW)
    assert caught.value.code == "invalid_time"
    assert any(char.isdigit() for char in caught.value.hint)


def test_a_time_that_clocks_jump_over_is_refused() -> None:
    """A local time inside a gap is refused, with the zone, the gap and the nearest times."""
    now = utc("2026-03-28T23:30")
    for text in ("2026-03-29T01:30", "01:30"):
        with pytest.raises(PromptyoselfError) as caught:
            parse_time(text, "Europe/London", now)
        error = caught.value
        assert error.code == "nonexistent_time"
        for part in ("Europe/London", "2026-03-29T01:00:00", "2026-03-29T02:00:00"):
            assert part in error.message
        assert error.details["before"] == "2026-03-29T00:59:59+00:00"
        assert error.details["after"] == "2026-03-29T02:00:00+01:00"


def test_a_clock_time_takes_the_next_pass_of_an_overlap() -> None:
    """``01:30`` asked between the two passes is the second one, and after both tomorrow's."""
    first = parse_time("01:30", "Europe/London", utc("2026-10-25T00:00"))
    second = parse_time("01:30", "Europe/London", first)
    third = parse_time("01:30", "Europe/London", second)
    assert [first, second, third] == [
        utc("2026-10-25T00:30"),
        utc("2026-10-25T01:30"),
        utc("2026-10-26T01:30"),
    ]


def test_the_past_is_refused_in_full() -> None:
    """A past time is refused with the year and both spellings of it and of the present."""
    require_future(NOW + timedelta(microseconds=1), NOW, "UTC")
    with pytest.raises(PromptyoselfError) as caught:
        require_future(utc("2025-11-21T09:00"), NOW, "Europe/Berlin")
    assert caught.value.code == "past_time"
    for part in ("2025-11-21T10:00:00+01:00", "2025-11-21T09:00:00", "2026-11-20T21:30:00+01:00"):
        assert part in caught.value.message
    with pytest.raises(PromptyoselfError):
        require_future(NOW, NOW, "UTC")


def test_local_spelling() -> None:
    """An instant is echoed as local time with its offset, with decimals only if it has any."""
    assert in_zone(utc("2026-11-21T08:00"), "Europe/Berlin") == "2026-11-21T09:00:00+01:00"
    assert in_zone(utc("2026-11-21T08:00:00.5"), "UTC") == "2026-11-21T08:00:00.500000+00:00"
    assert in_zone(datetime.max.replace(tzinfo=UTC), "Asia/Tokyo").startswith("9999-12-31T23:59")


@settings(max_examples=600, deadline=None)
@given(text=HOSTILE)
def test_no_text_breaks_a_parser(text: str) -> None:
    """Whatever is typed, a parser returns a value or raises one of our errors with its code."""
    for parse, codes in (
        (parse_cron, {"invalid_cron", "cron_never_fires"}),
        (parse_duration, {"invalid_duration"}),
        (lambda text: parse_time(text, "Europe/London", NOW), {"invalid_time", "nonexistent_time"}),
    ):
        try:
            parse(text)
        except PromptyoselfError as error:
            assert error.code in codes  # noqa: PT017


@settings(max_examples=40, deadline=None)
@given(text=HOSTILE)
def test_no_text_breaks_the_zone_parser(text: str) -> None:
    """Whatever is typed as a zone is a zone or ``unknown_zone``."""
    try:
        parse_zone(text)
    except PromptyoselfError as error:
        assert error.code == "unknown_zone"  # noqa: PT017


@pytest.mark.parametrize(
    ("text", "zone", "end", "expected"),
    [
        ("now", "UTC", False, "2026-11-20T20:30:00.000000Z"),
        ("90m ago", "UTC", False, "2026-11-20T19:00:00.000000Z"),
        ("1d  AGO", "UTC", True, "2026-11-19T20:30:00.000000Z"),
        ("1h", "UTC", False, "2026-11-20T19:30:00.000000Z"),
        ("1h", "UTC", True, "2026-11-20T19:30:00.000000Z"),
        ("1h30m", "Asia/Tokyo", False, "2026-11-20T19:00:00.000000Z"),
        ("9999-12-31", "UTC", True, "9999-12-31T23:59:59.999999Z"),
        ("20:30", "UTC", False, "2026-11-20T20:30:00.000000Z"),
        ("20:31", "UTC", False, "2026-11-19T20:31:00.000000Z"),
        ("09:00", "America/New_York", False, "2026-11-20T14:00:00.000000Z"),
        ("2026-11-01", "UTC", False, "2026-11-01T00:00:00.000000Z"),
        ("2026-11-01", "UTC", True, "2026-11-01T23:59:59.999999Z"),
        ("2026-11-01", "America/New_York", True, "2026-11-02T04:59:59.999999Z"),
        ("2026-11-01T09:00", "Europe/London", True, "2026-11-01T09:00:00.000000Z"),
    ],
)
def test_moments_are_read_by_those_who_look_back(
    text: str, zone: str, end: bool, expected: str
) -> None:
    """Looking back, a clock time is the last one, and a date is its whole day."""
    assert format_utc(parse_moment(text, zone, NOW, end=end)) == expected


@pytest.mark.parametrize(
    "text", ["", "ago", "5x ago", "10000-01-01", "5", "2026-02-30", "25:00", "soon"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """P7: neither a time nor a date nor a duration: one error, with what to write."""
    with pytest.raises(PromptyoselfError) as caught:
        parse_moment(text, "UTC", NOW, end=True)
    assert caught.value.code == "invalid_time"
    assert caught.value.hint


@settings(max_examples=200)
@given(HOSTILE, INSTANTS)
def test_any_text_is_a_moment_or_refused(text: str, now: datetime) -> None:
    """P7: whatever is given as a moment, it is one, in the past where it is a clock time, or an
    error with its code."""
    code = ""
    try:
        assert parse_moment(text, "Europe/London", now).utcoffset() == timedelta(0)
    except PromptyoselfError as error:
        code = error.code
    assert code in ("", "invalid_time", "nonexistent_time")
