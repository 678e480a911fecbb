"""What a conversation's history says of one message: whether it is there, and was answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.targets.turn_messages import instant_of

_NOT_THE_AGENTS = frozenset({"user_message", "system_message", "summary_message"})


class Trace(NamedTuple):
    """A user message that bears the otid, or what keeps one from telling that none does."""

    message_id: str | None  # None: it isn't there
    date: datetime | None = None
    # Whether the turn over it came to its end, which is something that the agent says: after a
    # tool's call or result the model would have gone on.
    answered: bool = False
    gap: bool = False  # it isn't there, and may have been in what was summed up


def trace(newest_first: Iterable[Mapping[str, Any]], otid: str, since: datetime) -> Trace:
    """The message with this otid. No more rows are taken than it needs.

    A summary stands for all messages before it, whatever their age. So it hides the message only
    if it is younger than ``since``, before which the message wasn't sent.
    """
    gap, answered = False, None  # by the newest row that follows a user message
    for row in newest_first:
        kind = row.get("message_type")
        if kind == "summary_message":
            date = instant_of(row)
            gap = gap or date is None or date >= since
        elif kind == "user_message":
            if row.get("otid") == otid:
                return Trace(str(row.get("id")), instant_of(row), bool(answered))
            answered = None
        elif kind not in _NOT_THE_AGENTS and answered is None:
            answered = kind == "assistant_message"
    return Trace(None, gap=gap)


def are_older(rows: Iterable[Mapping[str, Any]], since: datetime) -> bool:
    """Whether these messages, and hence all older ones, are from before ``since``."""
    dates = [instant_of(row) for row in rows if row.get("message_type") != "summary_message"]
    return bool(dates) and all(date is not None and date < since for date in dates)
