"""When digests come: once a day by the clock on the wall, and one after however long a sleep."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptyoself.rules.notices.digest_time import due_digest, next_digest

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe")
SAMOA = datetime(2011, 12, 20, tzinfo=UTC)  # which left out a day ten days later
YEAR = datetime(2026, 1, 1, tzinfo=UTC)
EIGHT, BERLIN = time(8), ZoneInfo("Europe/Berlin")


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(
    st.integers(0, 20 * 24 * 60).map(lambda minutes: SAMOA + timedelta(minutes=minutes))
    | st.integers(0, 365 * 24 * 60).map(lambda minutes: YEAR + timedelta(minutes=minutes)),
    st.times(),
    st.sampled_from(ZONES),
    st.lists(st.floats(0.01, 60), min_size=1, max_size=20),
)
def test_digests_follow_each_other_without_a_gap(
    start: datetime, clock: time, zone_name: str, hours: list[float]
) -> None:
    """Whenever a loop looks, the digests together tell of the whole time once; each ends at the
    clock's time of the latest day; and none is due again before the next."""
    at, zone, now = clock.replace(second=0, microsecond=0), ZoneInfo(zone_name), start
    last: datetime | None = None
    for step in hours:
        now += timedelta(hours=step)
        due = due_digest(at, zone, last, now)
        later = next_digest(at, zone, now)
        assert now < later <= now + timedelta(hours=50)
        if due is None:
            assert last is None or next_digest(at, zone, last) > now
            continue
        since, until = due
        assert since < until <= now
        assert next_digest(at, zone, until) == later
        assert last is None or since == last
        assert last is not None or now - until <= timedelta(hours=1)
        local = until.astimezone(zone)
        exists = (local.hour, local.minute) == (at.hour, at.minute)
        assert (
            exists
            or local.utcoffset() != (until - timedelta(seconds=1)).astimezone(zone).utcoffset()
        )
        last = until
        assert due_digest(at, zone, last, now) is None


@pytest.mark.parametrize(
    ("now", "last", "due"),
    [
        ("2026-11-20T06:59", None, None),
        ("2026-11-20T07:00", None, ("2026-11-19T07:00", "2026-11-20T07:00")),
        ("2026-11-20T08:00", None, ("2026-11-19T07:00", "2026-11-20T07:00")),
        ("2026-11-20T08:01", None, None),
        ("2026-11-20T23:00", "2026-11-19T07:00", ("2026-11-19T07:00", "2026-11-20T07:00")),
        ("2026-11-20T23:00", "2026-11-20T07:00", None),
        ("2026-11-20T23:00", "2026-10-01T06:00", ("2026-10-01T06:00", "2026-11-20T07:00")),
        # A clock was ahead, by more than a day, or by less.
        ("2026-11-20T23:00", "2027-01-01T07:00", ("2026-11-19T07:00", "2026-11-20T07:00")),
        ("2026-11-20T23:00", "2026-11-21T07:00", None),
        ("2026-10-25T07:00", "2026-10-24T06:00", ("2026-10-24T06:00", "2026-10-25T07:00")),
    ],
)
def test_the_time_a_digest_tells_of(
    now: str, last: str | None, due: tuple[str, str] | None
) -> None:
    answer = due_digest(EIGHT, BERLIN, None if last is None else utc(last), utc(now))
    assert answer == (None if due is None else (utc(due[0]), utc(due[1])))


def test_a_time_that_clocks_jump_over_comes_after_the_jump() -> None:
    due = due_digest(time(2, 30), BERLIN, utc("2026-03-28T01:30"), utc("2026-03-29T01:00"))
    assert due == (utc("2026-03-28T01:30"), utc("2026-03-29T01:00"))
    due = due_digest(time(2, 30), BERLIN, utc("2026-10-24T00:30"), utc("2026-10-25T00:30"))
    assert due == (utc("2026-10-24T00:30"), utc("2026-10-25T00:30"))


def test_a_first_digest_that_was_tried_may_come_late() -> None:
    now = utc("2026-06-02T10:00")
    assert due_digest(EIGHT, BERLIN, None, now) is None
    due = utc("2026-06-01T06:00"), utc("2026-06-02T06:00")
    assert due_digest(EIGHT, BERLIN, None, now, late_first=True) == due
    assert due_digest(EIGHT, BERLIN, due[1], now, late_first=True) is None
