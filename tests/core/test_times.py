"""Durations, zones and times."""

import re
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typed_texts import HOSTILE, INSTANTS, NOW, refusal, utc

from promptyoself.core import times
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 36500 * 86400))
def test_durations_round_trip(seconds: int) -> None:
    """A duration's canonical text reads back as the same number of seconds."""
    assert times.parse_duration(times.format_duration(seconds)) == seconds


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
    assert times.format_duration(times.parse_duration(text)) == canonical


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
    assert says in refusal("invalid_duration", times.parse_duration, text).message


@pytest.mark.parametrize(
    "name", ["UTC", "Europe/London", "Etc/GMT+2", "CET", "America/Port-au-Prince"]
)
def test_zones_are_known(name: str) -> None:
    """An IANA name is accepted as it is."""
    assert times.parse_zone(name) == name


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
    assert hint in refusal("unknown_zone", times.parse_zone, name).hint


@pytest.mark.parametrize("sign", ["+", "-"])
@pytest.mark.parametrize("form", ["GMT{}2", "utc{}2", "Etc/UTC{}2", "UTC{}02:00", "{}2", "Z{}02"])
def test_the_zone_that_is_suggested_for_an_offset_is_at_that_offset(form: str, sign: str) -> None:
    """The sign in Etc/GMT-2 is the other way round, which nobody expects who writes GMT+2."""
    hint = refusal("unknown_zone", times.parse_zone, form.format(sign)).hint
    (name,) = re.findall(r"write (\S+):", hint)
    assert times.in_zone(NOW, name).endswith(f"{sign}02:00")


@pytest.mark.parametrize(
    "name", ["localtime", "LOCALTIME", "local", "/etc/localtime", "posixrules"]
)
def test_the_machines_own_zone_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for this machine's zone is told its name, and never the same word again."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    hint = refusal("unknown_zone", times.parse_zone, name).hint
    assert "Asia/Tokyo" in hint
    assert "mean" not in hint


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
    assert times.parse_time(text, zone, NOW) == utc(expected)


def test_from_now_is_rounded_up() -> None:
    """``in 45m`` is never less than 45 minutes, and falls on a whole second."""
    now = NOW + timedelta(microseconds=1)
    assert times.parse_time("in 45m", "UTC", now) == NOW + timedelta(minutes=45, seconds=1)


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
    hint = refusal("invalid_time", times.parse_time, text, "UTC", NOW).hint
    assert any(char.isdigit() for char in hint)


def test_a_time_that_clocks_jump_over_is_refused() -> None:
    """A local time inside a gap is refused, with the zone, the gap and the nearest times."""
    now = utc("2026-03-28T23:30")
    for text in ("2026-03-29T01:30", "01:30", "2026-03-29T01:00:00.5"):
        error = refusal("nonexistent_time", times.parse_time, text, "Europe/London", now)
        for part in ("Europe/London", "2026-03-29T01:00:00", "2026-03-29T02:00:00"):
            assert part in error.message
        assert error.details["before"] == "2026-03-29T00:59:59+00:00"
        assert error.details["after"] == "2026-03-29T02:00:00+01:00"


def test_a_clock_time_takes_the_next_pass_of_an_overlap() -> None:
    """``01:30`` asked between the two passes is the second one, and after both tomorrow's."""
    now = utc("2026-10-25T00:00")
    for expected in ("2026-10-25T00:30", "2026-10-25T01:30", "2026-10-26T01:30"):
        now = times.parse_time("01:30", "Europe/London", now)
        assert now == utc(expected)


def test_the_past_is_refused_in_full() -> None:
    """A past time is refused with the year and both spellings of it and of the present."""
    times.require_future(NOW + timedelta(microseconds=1), NOW, "UTC")
    error = refusal(
        "past_time", times.require_future, utc("2025-11-21T09:00"), NOW, "Europe/Berlin"
    )
    for part in ("2025-11-21T10:00:00+01:00", "2025-11-21T09:00:00", "2026-11-20T21:30:00+01:00"):
        assert part in error.message
    refusal("past_time", times.require_future, NOW, NOW, "UTC")


def test_local_spelling() -> None:
    """An instant is echoed as local time with its offset, with decimals only if it has any."""
    assert times.in_zone(utc("2026-11-21T08:00"), "Europe/Berlin") == "2026-11-21T09:00:00+01:00"
    assert times.in_zone(utc("2026-11-21T08:00:00.5"), "UTC") == "2026-11-21T08:00:00.500000+00:00"
    assert times.in_zone(datetime.max.replace(tzinfo=UTC), "Asia/Tokyo").startswith(
        "9999-12-31T23:59"
    )


PARSERS = {
    "duration": (times.parse_duration, {"invalid_duration"}, 400),
    "time": (
        lambda text: times.parse_time(text, "Europe/London", NOW),
        {"invalid_time", "nonexistent_time"},
        400,
    ),
    "zone": (times.parse_zone, {"unknown_zone"}, 40),
}
"""Each with the codes of its errors, and how many texts it gets."""


@pytest.mark.parametrize("what", PARSERS)
def test_no_text_breaks_a_parser(what: str) -> None:
    """Whatever is typed, a parser returns a value or raises one of our errors with its code."""
    parse, codes, examples = PARSERS[what]

    @settings(max_examples=examples, deadline=None)
    @given(HOSTILE)
    def check(text: str) -> None:
        try:
            parse(text)
        except PromptyoselfError as error:
            assert error.code in codes  # noqa: PT017

    check()


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
    assert format_utc(times.parse_moment(text, zone, NOW, end=end)) == expected


@pytest.mark.parametrize(
    "text", ["", "ago", "5x ago", "10000-01-01", "5", "2026-02-30", "25:00", "soon"]
)
def test_what_is_no_moment_is_refused(text: str) -> None:
    """P7: neither a time nor a date nor a duration: one error, with what to write."""
    assert refusal("invalid_time", partial(times.parse_moment, end=True), text, "UTC", NOW).hint


@settings(max_examples=200)
@given(HOSTILE, INSTANTS)
def test_any_text_is_a_moment_or_refused(text: str, now: datetime) -> None:
    """P7: whatever is given as a moment, it is one, or an error with its code."""
    code = ""
    try:
        assert times.parse_moment(text, "Europe/London", now).utcoffset() == timedelta(0)
    except PromptyoselfError as error:
        code = error.code
    assert code in ("", "invalid_time", "nonexistent_time")


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("5 minutes", "5m"), ("2 hours 30 minutes", "2h30m"), ("1 hour, 5 min", "1h5m"),
        ("5 m", "5m"), ("1 day and 2 hrs", "1d2h"), ("3 months", ""), ("5 mean", ""),
        ("30 minutes 2 hours", ""), ("an hour", ""),
    ],
)  # fmt: skip
def test_a_duration_in_words_is_told_how_to_write_it(words: str, meant: str) -> None:
    with pytest.raises(PromptyoselfError) as refused:
        times.parse_duration(words)
    assert refused.value.code == "invalid_duration"
    assert refused.value.hint.startswith(f"Did you mean {meant}? " if meant else "Write 90s")
