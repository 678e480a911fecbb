"""What the fold knows of answers: which are awaited, and which notices are owed to destinations."""

from promptyoself.core.ids import NOTICE_PREFIX
from promptyoself.events import records
from promptyoself.events.kinds import KEEP_REPLY, NoticeKind
from promptyoself.state.fold import Folded, add
from promptyoself.state.schedules import (
    AwaitedReply,
    OpenSlot,
    OwedNotice,
    Schedule,
    State,
    slot_key,
    told_key,
)


def place_of(event: Folded) -> str:
    """Where an event stands in the log: its month and its number, as ``2026-11:42``."""
    return f"{event.ts[:7]}:{event.seq}"


def await_reply(
    state: State, event: Folded, record: records.DeliveryDelivered, slot: OpenSlot
) -> None:
    """A prompt has arrived, whose answer is to be read."""
    if record.keep_reply is None:
        return
    if record.keep_reply not in KEEP_REPLY[1:]:
        raise ValueError("what is to be kept of its answer isn't known")
    state.replies[slot_key(slot.id, slot.slot)] = AwaitedReply(
        slot.id,
        slot.agent_id,
        slot.slot,
        record.otid,
        record.keep_reply,
        record.worker,
        slot.first_claimed_at or event.ts,
        event.ts,
        record.run_id or slot.run_id,
        record.conversation_id or slot.conversation_id,
        slot.target,
    )


def settle_reply(
    state: State,
    event: Folded,
    record: records.DeliveryReplied | records.DeliveryUnanswered,
    schedule: Schedule,
) -> Schedule:
    """The answer is there, or won't come. It is that of the agent who had the prompt, even if the
    schedule is another agent's by now."""
    awaited = state.replies.pop(slot_key(schedule.id, record.slot))
    answering = schedule._replace(agent_id=awaited.agent_id)
    owe(state, event, "reply", answering, record.slot, record.to, record.notice)
    return schedule._replace(replied=place_of(event))


def owe(
    state: State,
    event: Folded,
    kind: NoticeKind,
    schedule: Schedule,
    slot: str | None,
    to: str | None,
    notice: str | None,
) -> None:
    """From this event on, a destination is to be told of it, if it names one."""
    if to is None or notice is None:
        return
    if not notice.startswith(NOTICE_PREFIX):
        _count_for_agent(state, event, schedule, to)
        return
    where = place_of(event)
    state.notices[notice] = OwedNotice(
        notice, to, kind, schedule.id, schedule.agent_id, slot, where, event.ts
    )


def _count_for_agent(state: State, event: Folded, schedule: Schedule, to: str) -> None:
    """Those that were refused count too, so that the first refusal can be told from the others."""
    hour = event.ts[:13]
    if not next(iter(state.told_agents), hour).startswith(hour):
        state.told_agents.clear()
    add(state.told_agents, told_key(event.ts, schedule.agent_id, to), 1)


def settle_notice(state: State, record: records.NoticeSent | records.NoticeFailed) -> None:
    """A destination has taken a notice, or hasn't."""
    if isinstance(record, records.NoticeFailed) and record.retry_at is not None:
        if record.kind != "digest":
            state.notices[record.notice] = state.notices[record.notice]._replace(
                tries=record.tries, retry_at=record.retry_at, code=record.code
            )
    elif record.kind != "digest":
        del state.notices[record.notice]
    elif record.until is None:
        raise ValueError("it is a digest of no time")
    else:
        state.digests[record.to] = record.until
