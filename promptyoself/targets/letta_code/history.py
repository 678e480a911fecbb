"""What a conversation's history says of one message: whether it is there, and was answered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.targets.turn_messages import Turn, instant_of, turn_of

_NOT_THE_AGENTS = frozenset({"user_message", "system_message", "summary_message"})


class Trace(NamedTuple):
    """A user message that bears the otid, or what keeps one from telling that none does."""

    message_id: str | None  # None: it isn't there
    date: datetime | None = None
    # Whether the turn over it came to its end, which is something that the agent says: after a
    # tool's call or result the model would have gone on. None: what was summed up hides that.
    answered: bool | None = False
    summary_id: str | None = None  # it isn't there, and may be in what this stands for


def trace(newest_first: Iterable[Mapping[str, Any]], otid: str, since: datetime) -> Trace:
    """The message with this otid. No more rows are taken than it needs.

    A summary stands for all messages before it, whatever their age. So it hides the message only
    if it is younger than ``since``, before which the message wasn't sent. Then ``answered`` is that
    of the turn that was at work when it was made, if no other turn has followed.
    """
    answered: bool | None = None  # by the newest row that follows a user message
    is_followed = False
    absent = Trace(None)
    for row in newest_first:
        kind = row.get("message_type")
        if kind == "summary_message":
            date = instant_of(row)
            if date is None or date >= since:
                of_its_turn = None if is_followed else answered
                absent = Trace(None, answered=of_its_turn, summary_id=str(row.get("id")))
        elif kind == "user_message":
            if row.get("otid") == otid:
                return Trace(str(row.get("id")), instant_of(row), bool(answered))
            answered, is_followed = None, True
        elif kind not in _NOT_THE_AGENTS and answered is None:
            answered = kind == "assistant_message"
    return absent


def turn_since_summary(newest_first: Iterable[Mapping[str, Any]]) -> Turn | None:
    """The turn that was at work when its conversation was summed up, prompt and all. None: there is
    none, another one has followed, or the agent has said nothing since."""
    rows: list[Mapping[str, Any]] = []
    for row in newest_first:
        kind = row.get("message_type")
        if kind == "user_message":
            return None
        if kind == "summary_message":
            turn = turn_of(rows, "")
            return None if turn.reply.text is None else turn
        rows.append(row)
    return None


def are_older(rows: Iterable[Mapping[str, Any]], since: datetime) -> bool:
    """Whether these messages, and hence all older ones, are from before ``since``."""
    dates = [instant_of(row) for row in rows if row.get("message_type") != "summary_message"]
    return bool(dates) and all(date is not None and date < since for date in dates)
