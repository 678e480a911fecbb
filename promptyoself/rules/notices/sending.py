"""When notices are sent, and sent again: which is next, how long is waited, and when one is given
up. Pure."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.texts import json_safe
from promptyoself.events.records import NoticeFailed
from promptyoself.state.schedules import OwedNotice

PATIENCE = timedelta(days=3)
"""How long a notice is sent again and again."""

_FIRST_PAUSE, _LONGEST_PAUSE = timedelta(seconds=5), timedelta(hours=1)

LONGEST_WISH = timedelta(days=1)
"""The longest pause that a destination can ask for."""

_LONGEST_ERROR = 1000  # characters


class Refusal(NamedTuple):
    """Why a destination has not taken a notice, as far as is known."""

    code: str
    error: str
    permanent: bool = False
    http_status: int | None = None
    retry_after: float | None = None  # seconds, where the destination asked for them


def pause_after(tries: int, retry_after: float | None = None) -> timedelta:
    """How long is waited after that number of failures in a row."""
    pause: timedelta = min(_FIRST_PAUSE * 2.0 ** min(max(tries - 1, 0), 20), _LONGEST_PAUSE)
    if retry_after is None:
        return pause
    wish = timedelta(seconds=min(retry_after, LONGEST_WISH.total_seconds()))
    return max(pause, wish)


def is_held(until: datetime | None, now: datetime) -> bool:
    """Whether a destination is let alone ``until`` later than now. No pause is that long that a
    clock set which was ahead."""
    return until is not None and now < until <= now + LONGEST_WISH


def retry_time(retry_at: str, now: datetime) -> datetime | None:
    """When a notice is sent again that was refused; ``None``: now, since no pause is that long. It
    was refused when the clock was ahead."""
    instant = parse_utc(retry_at)
    return None if instant > now + LONGEST_WISH else instant


def failed_record(owed: OwedNotice, tries: int, refusal: Refusal, now: datetime) -> NoticeFailed:
    """What has become of a notice that was not taken at its latest try: it is sent again later, or
    it is given up."""
    given_up = refusal.permanent or (owed.kind != "digest" and is_too_old(owed, now))
    retry_at = None if given_up else format_utc(now + pause_after(tries, refusal.retry_after))
    return NoticeFailed(
        owed.notice,
        owed.to,
        owed.kind,
        tries,
        refusal.code,
        json_safe(refusal.error)[:_LONGEST_ERROR],
        owed.slot,
        http_status=refusal.http_status,
        retry_at=retry_at,
    )


def is_worth_recording(owed: OwedNotice, failed: NoticeFailed) -> bool:
    """Whether the log is to have a failure: the first, one with another code, the last one, and of
    the others the second, the fourth, the eighth, and so on. So the log stays small, and a loop
    that starts knows about how long to wait."""
    if failed.retry_at is None or failed.code != owed.code:
        return True
    return failed.tries & (failed.tries - 1) == 0


def is_too_old(owed: OwedNotice, now: datetime) -> bool:
    """Whether a notice isn't sent again any more."""
    return now - parse_utc(owed.at) > PATIENCE


def heads(notices: Iterable[OwedNotice]) -> Iterator[OwedNotice]:
    """The notices that may be sent: of each schedule and destination, the oldest. Those that were
    tried less often come first, so that one that is refused again and again holds no other up."""
    firsts: dict[tuple[str, str], OwedNotice] = {}
    for owed in notices:
        firsts.setdefault((owed.to, owed.id), owed)
    return iter(sorted(firsts.values(), key=lambda owed: owed.tries))
