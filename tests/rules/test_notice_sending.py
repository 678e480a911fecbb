"""When notices are sent again, which goes first, and what of that is in the log."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from world import NOON

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.rules.notices.sending import (
    PATIENCE,
    Refusal,
    failed_record,
    heads,
    is_worth_recording,
    pause_after,
)
from promptyoself.state.schedules import OwedNotice

HOUR = timedelta(hours=1)


def owed(number: int = 0, **changes: Any) -> OwedNotice:
    at = format_utc(NOON)
    notice = OwedNotice(f"ntc_{number:016x}", "ops", "reply", "sch_1", "a", at, "2026-11:1", at)
    return notice._replace(**changes)


def test_pauses_double_up_to_an_hour() -> None:
    pauses = [pause_after(tries).total_seconds() for tries in range(1, 13)]
    assert pauses == [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600]
    assert pause_after(10**9) == HOUR


@given(st.integers(1, 100), st.floats(0, 1e300))
def test_what_a_destination_asks_for_is_respected(tries: int, wish: float) -> None:
    """It waits at least as long as it is asked to, up to a day, and never less than by itself."""
    pause = pause_after(tries, wish)
    assert pause >= pause_after(tries)
    assert pause.total_seconds() >= min(wish, 86400) - 1e-5
    assert pause <= max(timedelta(days=1), HOUR)


@given(st.lists(st.sampled_from(["timeout", "refused"]), min_size=1, max_size=5), st.booleans())
def test_a_notice_that_is_never_taken_is_given_up(codes: list[str], restarts: bool) -> None:
    """After three days, once; the log has each first failure with a code, and few others; with
    loops that forget what they waited for, too."""
    notice, now, tries = owed(), NOON, 0
    records = []
    while True:
        tries += 1
        code = codes[tries * len(codes) // 100 % len(codes)]
        failed = failed_record(notice, tries, Refusal(code, "No."), now)
        if is_worth_recording(notice, failed):
            records.append(failed)
            notice = notice._replace(tries=failed.tries, retry_at=failed.retry_at, code=failed.code)
        if failed.retry_at is None:
            break
        assert parse_utc(failed.retry_at) > now
        now = parse_utc(failed.retry_at)
        if restarts and tries % 7 == 0:
            tries = notice.tries
        assert tries < 1000
    assert PATIENCE < now - NOON <= PATIENCE + HOUR
    assert [record.retry_at is None for record in records] == [False] * (len(records) - 1) + [True]
    assert records[0].tries == 1
    assert len(records) <= (12 + 2 * len(codes)) * (1 + 4 * restarts)


def test_what_is_refused_for_good_is_given_up_at_once() -> None:
    failed = failed_record(owed(), 1, Refusal("destination_refused", "Gone.", True, 410), NOON)
    assert (failed.retry_at, failed.http_status) == (None, 410)
    assert is_worth_recording(owed(code="destination_refused", tries=2), failed)


def test_a_digest_is_never_given_up() -> None:
    """It tells of more the next day."""
    old: datetime = NOON + PATIENCE * 2
    assert failed_record(owed(kind="digest"), 3, Refusal("x", "X."), old).retry_at is not None
    assert failed_record(owed(), 3, Refusal("x", "X."), old).retry_at is None


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3))))
def test_of_each_schedule_and_destination_the_oldest_goes_first(
    pairs: list[tuple[str, str, int]],
) -> None:
    notices = [
        owed(number, to=to, id=id_, tries=tries) for number, (to, id_, tries) in enumerate(pairs)
    ]
    chosen = list(heads(notices))
    for notice in chosen:
        same = [other for other in notices if (other.to, other.id) == (notice.to, notice.id)]
        assert same[0] == notice
    assert {(n.to, n.id) for n in chosen} == {(n.to, n.id) for n in notices}
    assert len(chosen) == len({(n.to, n.id) for n in notices})
    assert [n.tries for n in chosen] == sorted(n.tries for n in chosen)
