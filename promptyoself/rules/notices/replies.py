"""What becomes of an agent's answer: the event that has it, as far as it is to be kept."""

from datetime import datetime
from hashlib import sha256
from typing import NamedTuple

from promptyoself.core.ids import notice_id
from promptyoself.core.instants import format_utc
from promptyoself.core.text_limits import MAX_REPLY_BYTES, REPLY_EXCERPT_BYTES
from promptyoself.core.texts import json_safe
from promptyoself.events.kinds import KEEP_REPLY, KeepReply, KeptReply
from promptyoself.events.records import DeliveryReplied, DeliveryUnanswered
from promptyoself.events.schedule_fields import ScheduleRegistered
from promptyoself.state.schedules import AwaitedReply, Schedule, State, slot_key

_MOST_TOOLS, _LONGEST_TOOL = 50, 100


class Answer(NamedTuple):
    """What an agent has said last in its turn."""

    text: str
    tools: tuple[str, ...] = ()  # the names of the tools that it called
    date: datetime | None = None


class NoAnswer(NamedTuple):
    """Nothing is to be had, and why."""

    code: str
    error: str
    tools: tuple[str, ...] = ()


def kept_of_reply(schedule: Schedule | ScheduleRegistered, most: KeepReply) -> KeptReply | None:
    """How much of an answer is to be kept; ``None`` where it isn't asked for. A schedule can ask
    for less than ``most``, and gets ``most`` where it says nothing."""
    keep = _least(schedule.keep_reply or most, most)
    return None if keep == "none" else keep


def _least(*amounts: KeepReply) -> KeepReply:
    """The smallest of these. A word in the log that isn't known stands for nothing: what somebody
    may have wanted to be left out isn't kept."""
    if not all(amount in KEEP_REPLY for amount in amounts):
        return "none"
    return min(amounts, key=KEEP_REPLY.index)


def reply_event(
    state: State, awaited: AwaitedReply, worker: str, answer: Answer | NoAnswer, most: KeepReply
) -> DeliveryReplied | DeliveryUnanswered | None:
    """The event of an answer. ``None`` where the log has it already, or no answer is awaited.

    ``most`` is how much of an answer may be kept now. That, and what the schedule asks for, may be
    less than when the prompt was sent.
    """
    if state.replies.get(slot_key(awaited.id, awaited.slot)) != awaited:
        return None
    schedule = state.schedules[awaited.id]
    keep = _least(awaited.keep, most, schedule.keep_reply or most)
    if keep == "none" and isinstance(answer, Answer):
        # Not even its hash: that of a short answer tells which it was.
        answer = NoAnswer("not_kept", "By now, nothing is kept of its answers.")
    to = schedule.reply_to
    notice = None if to is None else notice_id(to, "reply", awaited.id, awaited.slot)
    tools = [json_safe(name)[:_LONGEST_TOOL] for name in answer.tools[:_MOST_TOOLS]] or None
    where = (awaited.slot, awaited.otid, worker)
    if isinstance(answer, NoAnswer):
        error = json_safe(answer.error)
        return DeliveryUnanswered(*where, answer.code, error, awaited.run_id, tools, to, notice)
    content = json_safe(answer.text).encode()
    size = {"full": MAX_REPLY_BYTES, "excerpt": REPLY_EXCERPT_BYTES}.get(keep, 0)
    # A character that the cut would go through is left out.
    text = content[:size].decode("utf-8", "ignore") if size else None
    kept: KeptReply = "hash"
    if text is not None:
        kept = "full" if len(content) <= size else "excerpt"
    return DeliveryReplied(
        *where,
        kept,
        len(content),
        sha256(content).hexdigest(),
        text,
        awaited.run_id,
        tools,
        None if answer.date is None else format_utc(answer.date),
        to,
        notice,
    )
