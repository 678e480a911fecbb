"""Reading what an agent has answered to a message, off the messages of the run over it.

Measured with letta-client 1.12 against a Letta 0.16.8 server, and relied upon here:

- A run's messages begin with the prompt, which has its otid. ``order=desc`` tells the newest first,
  and ``before`` leads to older ones. ``limit`` counts the messages that Letta stores, of which one
  may be told as several.
- Each step of the model enters with its tools' results. So a turn of Letta's usual kind of agent is
  over once its newest message is the agent's own. Older kinds say something by a tool, which is
  told as an agent's message. What follows it is a user message without otid.
- While no step is done, a run has no messages. It has none either once its conversation was
  deleted. With its agent the run is gone.
- An answer is read with one question, which took this side 1.4 ms of its processor through the
  SDK's raw client, and 1.7 ms through the SDK's method.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

from promptyoself.events.target_names import DEFAULT
from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Message, Reply, Target
from promptyoself.targets.http import MOST_BYTES
from promptyoself.targets.letta.calls import Calls, text_of
from promptyoself.targets.letta.failures import AnswerTooLong
from promptyoself.targets.turn_messages import Turn, turn_of

_DOING = "reading an answer"


def read_reply(
    target: Target, calls: Calls, message: Message, since: datetime, run_id: str | None
) -> Reply | None:
    """See :meth:`~promptyoself.targets.api.Target.reply`. ``target`` and ``calls`` are of the same
    Letta.

    Raises:
        DeliveryError: as that.
    """
    if run_id is None:
        sighting = target.find(message, since)
        if sighting is None or sighting.run_id is None:
            raise _gone(f"No run over the message is in the history of {message.agent_id}")
        run_id = sighting.run_id
    try:
        turn = _turn(calls, message, run_id)
        if not turn.ends_in_words:
            if target.run(run_id).active:
                return None
            turn = _turn(calls, message, run_id)  # it may have gone on since
    except DeliveryError as error:
        if error.code != "run_not_found" or error.kind != "permanent":
            raise
        _require_agent(target, message.agent_id)
        raise _gone(f"Run {run_id}, which was over the message, is gone") from None
    if turn.newest is None and not turn.has_prompt:
        _require_conversation(calls, message.conversation)
        raise _gone(f"The messages of run {run_id} are gone")
    return None if turn.newest == "approval_request_message" else turn.reply


def _turn(calls: Calls, message: Message, run_id: str) -> Turn:
    """The turn of a run, as far as it has come."""
    path = f"/v1/runs/{quote(run_id, safe='')}/messages"

    def page(limit: int, **cursor: str) -> list[dict[str, Any]]:
        query = {"order": "desc", "limit": str(limit), **cursor}
        rows = calls.request(_DOING, "GET", path, {"run": run_id}, query=query)
        return calls.require_rows(_DOING, rows)

    def is_prompt(row: dict[str, Any]) -> bool:
        return row.get("otid") == message.otid and text_of(row, "message_type") == "user_message"

    cut = False

    def rows() -> Iterator[dict[str, Any]]:
        nonlocal cut
        try:
            yield from calls.pages(page, "before", lambda rows: any(map(is_prompt, rows)))
        except AnswerTooLong:
            cut = True

    turn = turn_of(rows(), message.otid)
    if cut and turn.reply.text is None:
        raise DeliveryError(
            "permanent",
            "reply_too_large",
            f"An answer of {message.agent_id} has more than {MOST_BYTES} bytes, and wasn't read.",
        )
    return turn


def _require_agent(target: Target, agent_id: str) -> None:
    if target.agent(agent_id) is None:
        sentence = f"Letta does not know agent {agent_id} any more."
        raise DeliveryError("permanent", "agent_not_found", sentence)


def _require_conversation(calls: Calls, conversation_id: str) -> None:
    if conversation_id != DEFAULT:
        calls.fetch(
            "asking for a conversation",
            lambda c: c.conversations.with_raw_response.retrieve(conversation_id),
            conversation=conversation_id,
        )


def _gone(what: str) -> DeliveryError:
    return DeliveryError("permanent", HISTORY_GAP, f"{what}, and an answer with it.")
