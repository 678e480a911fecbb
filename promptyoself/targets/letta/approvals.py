"""Turns that stop for an approval of a tool's call, and go on in another run once it is given.

Measured with letta-client 1.12 against a Letta 0.16.8 server, and relied upon here:

- The run ends as ``completed``, with a message that asks for the approval and names the calls.
  Until somebody answers, that conversation takes no message: the run over one fails.
- The answer, be it a yes or a no, is a message that names the calls. It is of another run, whose
  model then has the last word or asks again. It enters once the tool is done, with its result.
- A run shows only those kinds of its messages that its client asked to be told of
  (``include_return_message_types``), without a word about the others.
- An approval can be given while the request is the last message that the agent has in mind. It is
  not once that was reset, or emptied by the setting ``message_buffer_autoclear``.
- A run that is cancelled while it waits gets a denial of its own outside of conversations. Within
  one it gets none, and can still be approved of.
- ``after`` leads to younger messages, ``order=asc`` tells the oldest of them first, and
  ``conversation_id=default`` those outside of conversations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from promptyoself.events.target_names import DEFAULT
from promptyoself.targets.api import DeliveryError, Message
from promptyoself.targets.http import MOST_BYTES
from promptyoself.targets.letta.calls import Calls, text_of
from promptyoself.targets.letta.failures import AnswerTooLong
from promptyoself.targets.turn_messages import Turn

_DOING = "looking for an approval"


class Continuation(NamedTuple):
    """What has come of a turn since somebody answered its request."""

    run_id: str | None  # None: the server keeps no runs
    newest_first: list[dict[str, Any]]
    is_cut: bool  # a message that came later is too long to be read


def continuation(calls: Calls, message: Message, turn: Turn) -> Continuation | None:
    """Where a turn goes on that has stopped for an approval. None: it still waits.

    It is read off the conversation. A run shows only such kinds of messages as its client asked
    for, and that isn't ours.

    Raises:
        DeliveryError: as :meth:`~promptyoself.targets.api.Target.reply`.
    """
    request = turn.newest_row or {}
    wanted = turn.asks_for | {str(request.get("id"))}

    def page(limit: int, **cursor: str) -> list[dict[str, Any]]:
        query = {"order": "asc", "after": str(request.get("id")), "limit": str(limit), **cursor}
        return messages_in(calls, message, query, _DOING)

    part: list[dict[str, Any]] = []
    is_cut = False
    try:
        for row in calls.pages(page, "after"):
            is_of_it = row.get("run_id") == part[0].get("run_id") if part else False
            if is_of_it or (not part and _answered_calls(row) & wanted):
                part.append(row)
    except AnswerTooLong:
        is_cut = True
    if part:
        return Continuation(text_of(part[0], "run_id"), part[::-1], is_cut)
    if is_cut:
        raise too_large(message)
    return None


def can_be_approved(calls: Calls, message: Message, turn: Turn) -> bool:
    """Whether somebody can still give the approval that a turn has stopped for.

    Raises:
        DeliveryError: as :meth:`~promptyoself.targets.api.Target.reply`.
    """
    if message.conversation == DEFAULT:
        row = calls.fetch(
            "asking for an agent",
            lambda c: c.agents.with_raw_response.retrieve(message.agent_id),
            agent=message.agent_id,
        )
        ids = row.get("message_ids") if isinstance(row, dict) else None
    else:
        row = calls.fetch(
            "asking for a conversation",
            lambda c: c.conversations.with_raw_response.retrieve(message.conversation),
            conversation=message.conversation,
        )
        ids = row.get("in_context_message_ids") if isinstance(row, dict) else None
    if not isinstance(ids, list) or not ids:
        return True  # it isn't told
    return bool(ids[-1] == (turn.newest_row or {}).get("id"))


def messages_in(
    calls: Calls, message: Message, query: Mapping[str, str], doing: str
) -> list[dict[str, Any]]:
    """A page of the messages in the conversation that a message went to. ``doing`` is what a
    sentence calls that.

    Raises:
        DeliveryError: as :meth:`~promptyoself.targets.api.Target.reply`.
    """
    rows = calls.fetch(
        doing,
        lambda c: c.agents.messages.with_raw_response.list(
            message.agent_id, extra_query={"conversation_id": message.conversation, **query}
        ),
        agent=message.agent_id,
    )
    return calls.require_rows(doing, rows)


def too_large(message: Message) -> DeliveryError:
    """The refusal of an answer, or of what stands before it, that is longer than is read."""
    return DeliveryError(
        "permanent",
        "reply_too_large",
        f"An answer of {message.agent_id} has more than {MOST_BYTES} bytes, and wasn't read.",
    )


def _answered_calls(row: Mapping[str, Any]) -> set[str]:
    """The calls that a message answers, which older servers tell by the request's id."""
    if row.get("message_type") != "approval_response_message":
        return set()
    approvals = row.get("approvals")
    ids = [text_of(a, "tool_call_id") for a in (approvals if isinstance(approvals, list) else ())]
    return {id_ for id_ in (*ids, text_of(row, "approval_request_id")) if id_}
