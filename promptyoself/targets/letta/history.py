"""Looking for a message by its otid in what an agent has said and been told."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from promptyoself.targets.api import Found
from promptyoself.targets.letta.calls import Calls, text_of
from promptyoself.targets.turn_messages import instant_of

_NOT_ANSWERS = ("user_message", "system_message")


def look_for(
    calls: Calls,
    page: Callable[..., list[dict[str, Any]]],
    otid: str,
    since: datetime,
    *,
    made_for_it: str | None = None,
) -> Found | None:
    """The user message with this otid since then, if it is there.

    ``page`` takes a ``limit`` and perhaps a ``before``, and returns a page of messages, newest
    first. ``made_for_it`` is the conversation that these are of, if it was made for the message:
    then whatever comes after the message is an answer to it.

    Raises:
        DeliveryError: what ``page`` raises, and ``doubt`` if there is no end to the pages.
    """
    answered = False
    for row in rows_since(calls, page, since):
        kind = text_of(row, "message_type")
        if row.get("otid") == otid and kind == "user_message":
            return Found(
                row["id"],
                text_of(row, "run_id"),
                instant_of(row, "date"),
                conversation_id=made_for_it,
                answered=None if made_for_it is None else answered,
            )
        answered = answered or kind not in _NOT_ANSWERS
    return None


def rows_since(
    calls: Calls, page: Callable[..., list[dict[str, Any]]], since: datetime
) -> Iterator[dict[str, Any]]:
    """The messages since then, and some older ones, the newest first. ``page`` is as for
    :func:`look_for`, and what that raises is raised here."""
    # The server tells whole seconds. Its order is that of arrival in the history, in which a
    # long turn's question can come after a younger one: so a page must be too old as a whole.
    oldest = since - timedelta(seconds=1)

    def enough(rows: list[dict[str, Any]]) -> bool:
        dates = [instant_of(row, "date") for row in rows]
        return all(date is not None and date < oldest for date in dates)

    return calls.pages(page, "before", enough)
