"""Reading what an agent has answered to a message, off the messages of the run over it.

Measured with letta-client 1.12 against a Letta 0.16.8 server, and relied upon here:

- A run's messages begin with the prompt, which has its otid. ``order=desc`` tells the newest first,
  and ``before`` leads to older ones. ``limit`` counts the messages that Letta stores, of which one
  may be told as several.
- Each step of the model enters with its tools' results. So a turn of Letta's usual kind of agent is
  over once its newest message is the agent's own. Older kinds say something by a tool, which is
  told as an agent's message. What follows it is a user message without otid.
- A turn that stops for an approval goes on in another run: see
  :mod:`~promptyoself.targets.letta.approvals`.
- The run of a server that was killed stays ``created`` for ever, and the agent takes new messages.
  No step of a run takes an hour: tools and models have time limits of minutes.
- While no step is done, a run has no messages. It has none either once its conversation was
  deleted. With its agent the run is gone.
- An answer is read with one question, which took this side 1.4 ms of its processor through the
  SDK's raw client, and 1.7 ms through the SDK's method.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

from promptyoself.events.target_names import DEFAULT
from promptyoself.targets.api import HISTORY_GAP, DeliveryError, Message, Reply, Target
from promptyoself.targets.letta.approvals import (
    Continuation,
    can_be_approved,
    continuation,
    messages_in,
    too_large,
)
from promptyoself.targets.letta.calls import Calls, text_of
from promptyoself.targets.letta.failures import AnswerTooLong
from promptyoself.targets.turn_messages import Turn, instant_of, joined, turn_of

_DOING = "reading an answer"

_LIFE = timedelta(hours=1)
"""How long a run may stand still, while its conversation goes on, until it counts as dead."""


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
        turn = _whole_turn(target, calls, message, run_id)
    except DeliveryError as error:
        if error.code != "run_not_found" or error.kind != "permanent":
            raise
        _require_agent(target, message.agent_id)
        raise _gone(f"Run {run_id}, which was over the message, is gone") from None
    if turn is None:
        return None
    if turn.newest is None and not turn.has_prompt:
        _require_conversation(calls, message.conversation)
        raise _gone(f"The messages of run {run_id} are gone")
    if turn.is_shared and turn.reply.text is None:
        sentence = "Somebody gave the agent another message before it had answered this one."
        raise DeliveryError("permanent", "turn_shared", sentence)
    return turn.reply


def _whole_turn(target: Target, calls: Calls, message: Message, run_id: str) -> Turn | None:
    """The turn that began with a run, once it is over. None: it isn't."""
    turn = _first_part(target, calls, message, run_id)
    runs: set[str | None] = {run_id}
    following: str | None = run_id
    while turn is not None and turn.waits and not turn.is_shared:
        later = _next_part(target, calls, message, following, turn)
        if later is None or later.run_id in runs:
            return None
        following = later.run_id
        runs.add(following)
        part = turn_of(later.newest_first, message.otid)
        if not (part.ends_in_words or part.waits or part.is_shared):
            if following is None or _is_at_work(target, calls, message, following, part):
                return None
            # It may have gone on since.
            later = continuation(calls, message, turn) or later
            part = turn_of(later.newest_first, message.otid)
        if later.is_cut and part.reply.text is None and not part.waits:
            raise too_large(message)
        turn = joined(turn, part)
    return turn


def _first_part(target: Target, calls: Calls, message: Message, run_id: str) -> Turn | None:
    """What there is of a turn in its first run, once that has ended or waits for an approval."""
    turn, is_cut = _turn(calls, message, run_id)
    if not (turn.ends_in_words or turn.waits):
        if _is_at_work(target, calls, message, run_id, turn):
            return None
        if not is_cut:  # else that took long, and would again
            turn, is_cut = _turn(calls, message, run_id)  # it may have gone on since
    if is_cut and turn.reply.text is None and not turn.waits:
        raise too_large(message)
    return turn


def _next_part(
    target: Target, calls: Calls, message: Message, run_id: str | None, turn: Turn
) -> Continuation | None:
    """Where a turn goes on that has stopped for an approval in a run. None: it waits."""
    part = continuation(calls, message, turn)
    # A run that is told to be at work may have stopped just now.
    if part is not None or run_id is None or target.run(run_id).active:
        return part
    if can_be_approved(calls, message, turn):
        return None
    part = continuation(calls, message, turn)  # it may have been approved of since
    if part is None:
        raise _cut_off("It stopped for an approval, and the conversation went on without it.")
    return part


def _is_at_work(target: Target, calls: Calls, message: Message, run_id: str, turn: Turn) -> bool:
    if not target.run(run_id).active:
        return False
    _require_life(calls, message, run_id, turn)
    return True


def _require_life(calls: Calls, message: Message, run_id: str, turn: Turn) -> None:
    """Refuse a run that is told to be going on, while nothing has come of it for so long that its
    server must have died over it."""
    if turn.newest_row is None:
        return
    query = {"order": "desc", "after": str(turn.newest_row.get("id")), "limit": "1"}
    for row in messages_in(calls, message, query, _DOING):
        began, newest = instant_of(turn.newest_row), instant_of(row)
        is_anothers = text_of(row, "run_id") not in (None, run_id)
        if is_anothers and began is not None and newest is not None and newest - began > _LIFE:
            raise _cut_off("Its run stands still, and the agent has long gone on without it.")


def _turn(calls: Calls, message: Message, run_id: str) -> tuple[Turn, bool]:
    """The turn of a run, as far as it has come, and whether a message is too long to be read, and
    those before it with it."""
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
    return turn, cut


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


def _cut_off(why: str) -> DeliveryError:
    sentence = f"The agent's turn was cut off before it had answered. {why}"
    return DeliveryError("permanent", "turn_cut_off", sentence)


def _gone(what: str) -> DeliveryError:
    return DeliveryError("permanent", HISTORY_GAP, f"{what}, and an answer with it.")
