"""What each event changes in the schedules' state."""

from bisect import bisect_left
from collections.abc import Iterable
from functools import partial
from hashlib import sha256

from promptyoself.core.ids import content_hash
from promptyoself.core.instants import is_instant
from promptyoself.events import records
from promptyoself.events.codec import read_record
from promptyoself.events.kinds import FINISHED, HANDED_BACK, NO_TRACE, SCHEDULE_TYPES
from promptyoself.events.schedule_fields import FLAGS, RENDERERS, SPECIFIED, TEMPLATES, content_of
from promptyoself.events.target_names import TARGETS
from promptyoself.events.versions import SCHEDULE_VERSIONS
from promptyoself.state.answers import await_reply, owe, place_of, settle_notice, settle_reply
from promptyoself.state.fold import Folded, add, apply_events
from promptyoself.state.schedules import CHAIN, OpenSlot, Schedule, State, prompt_size, slot_key


def apply(state: State, event: Folded) -> None:
    """Apply one event of a known type and version; ``state`` is changed.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it contradicts those before it.
    """
    record = read_record(event.type, event.v, event.data)
    if event.id is None:
        if isinstance(record, records.LedgerCreated) and record.chain != CHAIN:
            raise ValueError(f"it begins another chain, {record.chain!r}")
        if isinstance(record, records.WorkerStopped):
            for left in record.in_flight or ():
                key = slot_key(left["id"], left["slot"])
                if key in state.open:
                    state.open[key] = state.open[key]._replace(run_id=left.get("run_id"))
        if isinstance(record, records.LedgerRecovered):
            state.losses.record(event)
        if isinstance(record, records.NoticeSent | records.NoticeFailed):
            settle_notice(state, record)
        return
    before = state.schedules.get(event.id)
    if isinstance(record, records.ScheduleRegistered):
        _unapprove(state, before)
        after = _register(state, event, record, before)
    elif before is None:
        if not state.losses.since:
            raise ValueError("its schedule was never registered")
        state.losses.unknown[event.id] = None
        return
    elif state.losses.excuses(before.created_at):
        from promptyoself.state.gaps import bridge

        before = bridge(state, event, record, before)
        try:
            after = _evolve(state, event, record, before)
        except (KeyError, ValueError):
            if isinstance(record, records.ApprovalRevoked | records.ApprovalConsumed):
                return  # of an approval that is lost
            raise
    else:
        after = _evolve(state, event, record, before)
    if isinstance(record, records.ScheduleRegistered | records.ScheduleModified):
        _check_spec(after)
    state.schedules[event.id] = after
    if before is None:
        _count(state, after, 1)
    elif (
        before.status != after.status
        or before.agent_id != after.agent_id
        or before.prompt is not after.prompt
    ):
        _count(state, before, -1)
        _count(state, after, 1)


def _count(state: State, schedule: Schedule, change: int) -> None:
    """Add a schedule to the counts (1), or subtract it (-1)."""
    add(state.statuses, schedule.status, change)
    agent = state.agent(schedule.agent_id)
    unfinished = agent.unfinished
    if schedule.status not in FINISHED:
        at = bisect_left(unfinished, schedule.id)
        added = (schedule.id,) if change > 0 else ()
        unfinished = unfinished[:at] + added + unfinished[at + (change < 0) :]
    state.agents[schedule.agent_id] = agent._replace(
        schedules=agent.schedules + change,
        active=agent.active + change * (schedule.status == "active"),
        unfinished=unfinished,
        failed=agent.failed + change * (schedule.status == "failed"),
        prompt_bytes=agent.prompt_bytes + change * prompt_size(schedule),
    )


def _check_spec(schedule: Schedule) -> None:
    if schedule.schedule_type not in SCHEDULE_TYPES:
        raise ValueError("its schedule_type isn't known")
    if schedule.schedule_type == "once" and not is_instant(schedule.schedule_value):
        raise ValueError("its time isn't an instant")
    if schedule.template is not None and (schedule.template not in TEMPLATES or schedule.prompt):
        raise ValueError("its template isn't known, or it has a prompt too")
    if schedule.render is not None and schedule.render not in RENDERERS:
        raise ValueError("the language of its prompt isn't known")
    if schedule.target is not None and schedule.target not in TARGETS:
        raise ValueError("its target isn't known")
    if not all(isinstance(tag, str) for tag in schedule.tags or ()):
        raise ValueError("a tag isn't a text")


_OF_ALL_LIVES = ("last_run", "last_slot", "last_trigger", "spent_day", "spent")
"""The fields that a schedule keeps when it is registered again after its end."""


def _register(
    state: State, event: Folded, record: records.ScheduleRegistered, before: Schedule | None
) -> Schedule:
    fields = record._asdict()
    del fields["counts_from"]
    first_content = fields.pop("first_content")
    fields.update(
        id=event.id,
        status="active",
        created_at=event.ts,
        registered=content_hash(dict(first_content) if first_content else content_of(record)),
        life=record.life or 1,
        **{name: bool(getattr(record, name)) for name in FLAGS},
        repetition_count=record.repetition_count or 0,
        told=place_of(event),
    )
    if before is not None:
        fields.update({name: getattr(before, name) for name in _OF_ALL_LIVES})
    return _reopen(state, Schedule(**fields), record)


def _reopen(
    state: State,
    schedule: Schedule,
    record: records.ScheduleRegistered | records.ScheduleModified | records.ScheduleResumed,
) -> Schedule:
    """If the record says so, let slots count again from an instant on, though a clock that was
    ahead has decided later ones. Those that were claimed don't come again. What the schedule and
    its agent have spent and noted on later days is forgotten, since these days are still to come.
    """
    counts_from = record.counts_from
    if counts_from is None:
        return schedule
    for first, last in record.without or ():
        if not (is_instant(first) and is_instant(last) and first <= last):
            raise ValueError("a range of slots isn't two instants")
    agent = state.agent(schedule.agent_id)
    if agent.spent_day > counts_from[:10]:
        state.agents[schedule.agent_id] = agent._replace(spent_day="", spent=0)

    def known(text: str | None) -> str | None:
        return text if text is None or text <= counts_from else None

    later = (schedule.spent_day or "") > counts_from[:10]
    return schedule._replace(
        without=record.without or None,
        last_slot=known(schedule.last_slot),
        last_trigger=known(schedule.last_trigger),
        settled_at=known(schedule.settled_at),
        noticed_at=known(schedule.noticed_at),
        spent_day=None if later else schedule.spent_day,
        spent=0 if later else schedule.spent,
    )


def _evolve(state: State, event: Folded, record: records.Record, schedule: Schedule) -> Schedule:
    match record:  # the most frequent first
        case records.DeliveryAttempted():
            return _claim(state, event, record, schedule)
        case records.DeliveryDelivered():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            await_reply(state, event, record, slot)
            settled_at = _end_of(event, slot) if slot.kind == "scheduled" else schedule.settled_at
            return schedule._replace(
                last_run=event.ts, settled_at=settled_at, failures=0, last_error=record.error
            )
        case records.DeliverySkipped():
            # An open slot that is given up; or slots that never began, which moves the schedule on.
            # A triggered slot settles its schedule only if it is given up. So a later pass may call
            # slots overlaps that were missed, and nobody gets a notice. It stays all the same: with
            # another rule, logs that are written would say something else.
            if record.notice is not None:
                schedule = schedule._replace(noticed_at=event.ts)
            owe(state, event, "failure", schedule, record.slot, record.to, record.notice)
            given_up = state.open.pop(slot_key(schedule.id, record.slot), None)
            if given_up is not None:
                return schedule._replace(settled_at=_end_of(event, given_up))
            if record.kind != "scheduled":
                raise ValueError("it skips a slot that never began")
            return schedule._replace(last_slot=record.last, next_run=record.next_run)
        case records.DeliveryAbandoned() | records.DeliveryStalled():
            key = slot_key(schedule.id, record.slot)
            state.open[key] = _hindered(state.open[key], record)
            return schedule._replace(last_error=_error_text(record))
        case records.DeliveryReplied() | records.DeliveryUnanswered():
            return settle_reply(state, event, record, schedule)
        case records.NoticeSent() | records.NoticeFailed():
            settle_notice(state, record)
            return schedule
        case records.DeliveryFailed():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            owe(state, event, "failure", schedule, record.slot, record.to, record.notice)
            settled_at = _end_of(event, slot) if slot.kind == "scheduled" else schedule.settled_at
            return schedule._replace(
                settled_at=settled_at,
                failures=schedule.failures + record.permanent,
                last_error=_error_text(record),
                last_code=record.code,
                status="failed" if record.parked else schedule.status,
                resume_at=None if record.parked else schedule.resume_at,
            )
        case records.ScheduleModified():
            return _modify(state, event, schedule, record)
        case records.SchedulePaused():
            return schedule._replace(
                status="paused",
                next_run=record.next_run,
                reason=record.reason,
                resume_at=record.resume_at,
            )
        case records.ScheduleResumed():
            return _reopen(state, schedule, record)._replace(
                status="active",
                next_run=record.next_run,
                reason=record.reason,
                failures=0,
                resume_at=None,
            )
        case records.ScheduleCancelled():
            return schedule._replace(
                status="cancelled", next_run=None, reason=record.reason, resume_at=None
            )
        case records.ScheduleCompleted():
            if record.status not in FINISHED:
                raise ValueError("it ends in a status that is none")
            owe(state, event, "failure", schedule, None, record.to, record.notice)
            return schedule._replace(status=record.status, next_run=None, resume_at=None)
        case records.ScheduleTriggered():
            key = slot_key(schedule.id, record.slot)
            state.open[key] = OpenSlot(
                schedule.id, schedule.agent_id, record.slot, "trigger", retry_at=record.slot
            )
            return schedule._replace(last_trigger=record.slot)
        case records.ApprovalGranted():
            if record.uses < 1:
                raise ValueError("it allows nothing")
            return schedule._replace(
                approval=record.grant,
                approval_content=record.content_sha256,
                approval_expires=record.expires,
                approval_uses=record.uses,
                approval_void=None,
                approval_triggers=record.allow_trigger is not False,
            )
        case records.ApprovalRevoked():
            _require_grant(schedule, record.grant)
            return schedule._replace(approval_void="revoked")
        case records.ApprovalConsumed():
            return _consume(state, event, record, schedule)
        case _:
            raise ValueError("an event of the log itself bears a schedule's id")


def _hindered(
    slot: OpenSlot, record: records.DeliveryAbandoned | records.DeliveryStalled
) -> OpenSlot:
    hindered = slot._replace(
        retry_at=record.retry_at,
        code=record.code,
        error=record.error,
        http_status=record.http_status,
        detail=record.detail,
    )
    if isinstance(record, records.DeliveryStalled):
        if slot.worker is None:
            raise ValueError("it tells of an attempt that nobody makes")
        return hindered._replace(in_doubt=record.in_doubt)
    unsent = slot.unsent + (record.code in HANDED_BACK)
    untraced = slot.untraced or record.code == NO_TRACE
    return hindered._replace(in_doubt=False, worker=None, unsent=unsent, untraced=untraced)


def _error_text(
    record: records.DeliveryAbandoned | records.DeliveryStalled | records.DeliveryFailed,
) -> str:
    """What went wrong, and what Letta said of it."""
    return record.error if record.detail is None else f"{record.error} It said: {record.detail}"


def _end_of(event: Folded, slot: OpenSlot) -> str:
    """When a slot got its outcome. If the clock is behind the log, that is when it was claimed."""
    return slot.claimed_at if slot.held and slot.claimed_at else event.ts


def _claim(
    state: State, event: Folded, record: records.DeliveryAttempted, schedule: Schedule
) -> Schedule:
    if record.text is not None and sha256(record.text.encode()).hexdigest() != record.text_sha256:
        raise ValueError("its text isn't what was sent")
    key = slot_key(schedule.id, record.slot)
    earlier = state.open.get(key)
    first, at = record.attempt == 1, record.at or event.ts
    state.open[key] = OpenSlot(
        schedule.id,
        schedule.agent_id,
        record.slot,
        record.kind,
        record.attempt,
        record.worker,
        record.otid,
        at,
        at if first or earlier is None else earlier.first_claimed_at,
        approved=earlier is not None and earlier.approved,
        unsent=0 if earlier is None else earlier.unsent,
        held=record.at is not None,
        conversation_id=record.conversation_id,
        target=record.target,
        untraced=earlier is not None and earlier.untraced,
    )
    if not first:
        return schedule
    agent = state.agent(schedule.agent_id)
    # By a clock that is behind the log, nothing is spent on a day before one that counts already.
    day = max(at[:10], agent.spent_day) if record.at else at[:10]
    state.agents[schedule.agent_id] = agent._replace(
        spent_day=day, spent=agent.spent + 1 if agent.spent_day == day else 1
    )
    day = max(at[:10], schedule.spent_day or "") if record.at else at[:10]
    spent = schedule.spent + 1 if schedule.spent_day == day else 1
    if record.kind != "scheduled":
        return schedule._replace(spent_day=day, spent=spent)
    return schedule._replace(
        spent_day=day,
        spent=spent,
        last_slot=record.slot,
        next_run=record.next_run,
        repetition_count=schedule.repetition_count + 1,
    )


def _modify(
    state: State, event: Folded, schedule: Schedule, record: records.ScheduleModified
) -> Schedule:
    # An approval was given to what the schedule was before.
    _unapprove(state, schedule)
    if schedule.approval is not None and schedule.approval_void is None:
        schedule = schedule._replace(approval_void="modified")
    schedule = _reopen(state, schedule, record)
    where = place_of(event)
    changed = {name: where for name in record.changes if name in SPECIFIED}
    retold = {**(schedule.retold or {}), **changed} or None
    return schedule._replace(**{"reason": record.reason, **record.changes, "retold": retold})


def _unapprove(state: State, schedule: Schedule | None) -> None:
    if schedule is not None and schedule.approval is not None:
        for key, slot in state.open.items():
            if slot.id == schedule.id and slot.approved:
                state.open[key] = slot._replace(approved=False)


def _consume(
    state: State, event: Folded, record: records.ApprovalConsumed, schedule: Schedule
) -> Schedule:
    _require_grant(schedule, record.grant)
    key = slot_key(schedule.id, record.slot)
    slot = state.open[key]
    if slot.worker is None or slot.approved:
        raise ValueError("it pays for no claim")
    if schedule.approval_void or event.ts > (schedule.approval_expires or ""):
        raise ValueError("its approval is void")
    if not 0 <= record.uses_left < schedule.approval_uses:
        raise ValueError("its approval has fewer uses left")
    state.open[key] = slot._replace(approved=True)
    return schedule._replace(approval_uses=record.uses_left)


def _require_grant(schedule: Schedule, grant: str) -> None:
    if schedule.approval != grant:
        raise ValueError("no such approval was granted")


def fold(state: State, envelopes: Iterable[Folded]) -> State:
    """The state after some more events; ``state`` itself is left as it was.

    Raises:
        ChainError: ``corrupt_chain``: see :func:`~promptyoself.state.fold.apply_events`.
    """
    return fold_on(state.copy(), envelopes)


def fold_on(state: State, envelopes: Iterable[Folded]) -> State:
    """As :func:`fold`, of a state that nobody else has: it is changed, and mustn't be used again.
    So a step takes as long as its events, however many slots are open.

    Raises:
        ChainError: ``corrupt_chain``.
    """
    newer = apply_events(
        envelopes, SCHEDULE_VERSIONS, state.counts, partial(apply, state), state.losses
    )
    return state if state.newer or newer is None else state._replace(newer=newer)
