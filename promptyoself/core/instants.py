"""Instants in UTC and their one spelling in the log: ``2026-11-20T20:30:00.123456Z``.

The spelling has a fixed width, so that text order is time order for ``sort`` and ``grep`` too.
"""

import re
from datetime import UTC, datetime, timedelta

MICROSECOND = timedelta(microseconds=1)
"""The resolution of the log, and the smallest difference of two datetimes: "at or after t" is
"after t - MICROSECOND"."""

_SPELLED = re.compile(r"\d{4}-\d\d-\d\dT(?!24)\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII).fullmatch


def format_utc(instant: datetime) -> str:
    """Spell an aware datetime in UTC with six decimals and a ``Z``."""
    return instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def parse_utc(text: str) -> datetime:
    """Read what :func:`format_utc` wrote.

    Raises:
        ValueError: the text isn't an ISO 8601 instant with an offset.
    """
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError(f"no offset in {text!r}")
    return instant.astimezone(UTC)


def is_instant(text: str) -> bool:
    """Whether it is an instant as :func:`format_utc` spells it, and one that exists."""
    if not _SPELLED(text):
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
