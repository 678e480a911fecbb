"""What each event does to the schedules: the fold's step."""

from bisect import bisect_left

from promptyoself import events
from promptyoself.digests import sha256
from promptyoself.events import HANDED_BACK
from promptyoself.identity import TEMPLATES, content_hash, content_of
from promptyoself.instants import is_instant
from promptyoself.schedules import (
    CHAIN,
    FINISHED,
    SPECIFIED,
    Folded,
    OpenSlot,
    Schedule,
    State,
    place,
    slot_key,
)

__all__ = ["apply"]


def apply(state: State, event: Folded) -> None:
    """Take in one event of a known type and version; ``state`` is changed.

    Raises:
        AttributeError, KeyError, TypeError, ValueError: it contradicts those before it.
    """
    record = events.read_record(event.type, event.v, event.data)
    if event.id is None:
        if isinstance(record, events.LedgerCreated) and record.chain != CHAIN:
            raise ValueError(f"it begins another chain, {record.chain!r}")
        if isinstance(record, events.WorkerStopped):
            for left in record.in_flight or ():
                key = slot_key(left["id"], left["slot"])
                if key in state.open:
                    state.open[key] = state.open[key]._replace(run_id=left.get("run_id"))
        return
    before = state.schedules.get(event.id)
    if isinstance(record, events.ScheduleRegistered):
        _unapprove(state, before)
        after = _register(event, record, before)
    elif before is None:
        raise ValueError("its schedule was never registered")
    else:
        after = _evolve(state, event, record, before)
    if isinstance(record, events.ScheduleRegistered | events.ScheduleModified):
        _check_spec(after)
    state.schedules[event.id] = after
    if before is None:
        _count(state, after, 1)
    elif before.status != after.status or before.agent_id != after.agent_id:
        _count(state, before, -1)
        _count(state, after, 1)


def _count(state: State, schedule: Schedule, change: int) -> None:
    """Add a schedule to what is counted, or take it away."""
    count = state.statuses.get(schedule.status, 0) + change
    state.statuses[schedule.status] = count
    if not count:
        del state.statuses[schedule.status]
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
    )


def _check_spec(schedule: Schedule) -> None:
    if schedule.schedule_type not in ("once", "cron", "interval"):
        raise ValueError("its schedule_type isn't known")
    if schedule.schedule_type == "once" and not is_instant(schedule.schedule_value):
        raise ValueError("its time isn't an instant")
    if schedule.template is not None and (schedule.template not in TEMPLATES or schedule.prompt):
        raise ValueError("its template isn't known, or it has a prompt too")


def _register(
    event: Folded, record: events.ScheduleRegistered, before: Schedule | None
) -> Schedule:
    fields = record._asdict()
    first_content = fields.pop("first_content")
    fields.update(
        id=event.id,
        status="active",
        created_at=event.ts,
        registered=content_hash(dict(first_content) if first_content else content_of(record)),
        life=record.life or 1,
        envelope=bool(record.envelope),
        repetition_count=record.repetition_count or 0,
        told=place(event),
    )
    if before is not None:
        fields.update(
            last_run=before.last_run,
            last_slot=before.last_slot,
            last_trigger=before.last_trigger,
            spent_day=before.spent_day,
            spent=before.spent,
        )
    return Schedule(**fields)


def _evolve(state: State, event: Folded, record: events.Record, schedule: Schedule) -> Schedule:
    match record:  # the most frequent first
        case events.DeliveryAttempted():
            return _claim(state, event, record, schedule)
        case events.DeliveryDelivered():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            return schedule._replace(
                last_run=event.ts,
                settled_at=event.ts if slot.kind == "scheduled" else schedule.settled_at,
                failures=0,
                last_error=record.error,
            )
        case events.DeliverySkipped():
            # An open slot that is given up; or slots that never began, which moves the schedule on.
            if record.notice is not None:
                schedule = schedule._replace(noticed_at=event.ts)
            if state.open.pop(slot_key(schedule.id, record.slot), None) is not None:
                return schedule._replace(settled_at=event.ts)
            if record.kind != "scheduled":
                raise ValueError("it skips a slot that never began")
            return schedule._replace(last_slot=record.last, next_run=record.next_run)
        case events.DeliveryAbandoned():
            key = slot_key(schedule.id, record.slot)
            slot = _hindered(state.open[key], record)
            state.open[key] = slot._replace(
                worker=None, unsent=slot.unsent + (record.code in HANDED_BACK)
            )
            return schedule._replace(last_error=_said(record))
        case events.DeliveryStalled():
            key = slot_key(schedule.id, record.slot)
            if state.open[key].worker is None:
                raise ValueError("it tells of an attempt that nobody makes")
            state.open[key] = _hindered(state.open[key], record)
            return schedule._replace(last_error=_said(record))
        case events.DeliveryFailed():
            slot = state.open.pop(slot_key(schedule.id, record.slot))
            return schedule._replace(
                settled_at=event.ts if slot.kind == "scheduled" else schedule.settled_at,
                failures=schedule.failures + record.permanent,
                last_error=_said(record),
                last_code=record.code,
                status="failed" if record.parked else schedule.status,
            )
        case events.ScheduleModified():
            return _modify(state, event, schedule, record)
        case events.SchedulePaused():
            return schedule._replace(
                status="paused", next_run=record.next_run, reason=record.reason
            )
        case events.ScheduleResumed():
            return schedule._replace(
                status="active", next_run=record.next_run, reason=record.reason, failures=0
            )
        case events.ScheduleCancelled():
            return schedule._replace(status="cancelled", next_run=None, reason=record.reason)
        case events.ScheduleCompleted():
            if record.status not in FINISHED:
                raise ValueError("it ends in a status that is none")
            return schedule._replace(status=record.status, next_run=None)
        case events.ScheduleTriggered():
            key = slot_key(schedule.id, record.slot)
            state.open[key] = OpenSlot(
                schedule.id, schedule.agent_id, record.slot, "trigger", retry_at=record.slot
            )
            return schedule._replace(last_trigger=record.slot)
        case events.ApprovalGranted():
            if record.uses < 1:
                raise ValueError("it allows nothing")
            return schedule._replace(
                approval=record.grant,
                approval_content=record.content_sha256,
                approval_expires=record.expires,
                approval_uses=record.uses,
                approval_void=None,
            )
        case events.ApprovalRevoked():
            _require_grant(schedule, record.grant)
            return schedule._replace(approval_void="revoked")
        case events.ApprovalConsumed():
            return _consume(state, event, record, schedule)
        case _:
            raise ValueError("an event of the log itself bears a schedule's id")


def _hindered(
    slot: OpenSlot, record: events.DeliveryAbandoned | events.DeliveryStalled
) -> OpenSlot:
    return slot._replace(
        retry_at=record.retry_at,
        code=record.code,
        error=record.error,
        http_status=record.http_status,
        detail=record.detail,
        in_doubt=isinstance(record, events.DeliveryStalled) and record.in_doubt,
    )


def _said(
    record: events.DeliveryAbandoned | events.DeliveryStalled | events.DeliveryFailed,
) -> str:
    """The sentence of what went wrong, with what Letta said of it."""
    if record.detail is None:
        return record.error
    return f"{record.error} It said: {record.detail}"


def _claim(
    state: State, event: Folded, record: events.DeliveryAttempted, schedule: Schedule
) -> Schedule:
    if record.text is not None and sha256(record.text.encode()).hexdigest() != record.text_sha256:
        raise ValueError("its text isn't what was sent")
    key = slot_key(schedule.id, record.slot)
    earlier = state.open.get(key)
    first = record.attempt == 1
    state.open[key] = OpenSlot(
        schedule.id,
        schedule.agent_id,
        record.slot,
        record.kind,
        record.attempt,
        record.worker,
        record.otid,
        event.ts,
        event.ts if first or earlier is None else earlier.first_claimed_at,
        approved=earlier is not None and earlier.approved,
        unsent=0 if earlier is None else earlier.unsent,
    )
    if not first:
        return schedule
    day = event.ts[:10]
    agent = state.agent(schedule.agent_id)
    state.agents[schedule.agent_id] = agent._replace(
        spent_day=day, spent=agent.spent + 1 if agent.spent_day == day else 1
    )
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
    state: State, event: Folded, schedule: Schedule, record: events.ScheduleModified
) -> Schedule:
    # An approval was given to what the schedule was before.
    _unapprove(state, schedule)
    if schedule.approval is not None and schedule.approval_void is None:
        schedule = schedule._replace(approval_void="modified")
    where = place(event)
    changed = {name: where for name in record.changes if name in SPECIFIED}
    retold = {**(schedule.retold or {}), **changed} or None
    return schedule._replace(**{"reason": record.reason, **record.changes, "retold": retold})


def _unapprove(state: State, schedule: Schedule | None) -> None:
    if schedule is not None and schedule.approval is not None:
        for key, slot in state.open.items():
            if slot.id == schedule.id and slot.approved:
                state.open[key] = slot._replace(approved=False)


def _consume(
    state: State, event: Folded, record: events.ApprovalConsumed, schedule: Schedule
) -> Schedule:
    _require_grant(schedule, record.grant)
    key = slot_key(schedule.id, record.slot)
    slot = state.open[key]
    if slot.worker is None or slot.approved:
        raise ValueError("it pays for no claim")
    if schedule.approval_void or event.ts > (schedule.approval_expires or ""):
        raise ValueError("its approval is void")
    if not 0 <= record.uses_left < schedule.approval_uses:
        raise ValueError("its approval has not so many uses left")
    state.open[key] = slot._replace(approved=True)
    return schedule._replace(approval_uses=record.uses_left)


def _require_grant(schedule: Schedule, grant: str) -> None:
    if schedule.approval != grant:
        raise ValueError("no such approval was granted")
