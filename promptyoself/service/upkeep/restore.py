"""What an index still knows and the log has lost, and the events that put it back.

Only schedules that aren't over and living desires are put back. An approval has to be given again.
What was spent of a day's budget is counted from the events that are left.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events import records
from promptyoself.events.kinds import FINISHED, CompletionReason
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.transfer.export import back_to
from promptyoself.state.desires import Desire, Desires
from promptyoself.state.schedules import CHAIN, Schedule, State, slot_key

_WHY = "Put back from the index, since the log had lost it."
_CORRECTED = "Moved past the slots that later events tell of, since the log had lost their claims."

_FIELDS = tuple(
    name
    for name in records.ScheduleRegistered._fields
    if name in Schedule._fields
    and name not in ("salt", "life", "first_content", "reason", "next_run")
)


class Difference(NamedTuple):
    """One schedule or desire of which the index knows more than the log."""

    id: str
    agent_id: str
    fields: list[str]  # the names of those that differ
    records: list[records.Record]  # the events that put them back


def differences(chain: str, log: Any, truth: Any) -> list[Difference]:
    """What the state ``truth`` of an index has, and the state ``log`` that the log gives lacks."""
    unsorted = _of_schedules(log, truth) if chain == CHAIN else _of_desires(log, truth)
    return sorted(unsorted, key=lambda difference: difference.id)


def corrections(log: Any) -> Iterator[tuple[str, records.Record]]:
    """The events that move schedules past slots that are over. The claims of these slots are lost,
    but later events name them."""
    for id_ in log.losses.moved:
        schedule = log.schedules[id_]
        last, next_run = schedule.last_slot, schedule.next_run
        if last is None or next_run is None or next_run > last:
            continue
        try:
            following = next_fire_time(schedule_trigger(schedule), parse_utc(last))
        except Exception:  # a zone that isn't known here, say: the claim will complain of it
            continue
        changes = {"next_run": None if following is None else format_utc(following)}
        yield schedule.id, records.ScheduleModified(changes, _CORRECTED)


def _of_schedules(log: State, truth: State) -> Iterator[Difference]:
    for id_, indexed in truth.schedules.items():
        schedule = indexed
        for slot in truth.open.values():
            lost = slot.id == id_ and slot_key(id_, slot.slot) not in log.open
            if lost and slot.kind == "scheduled" and slot.slot == schedule.last_slot:
                schedule = back_to(schedule, slot)  # its claim is lost, so it is to be claimed
        logged = log.schedules.get(id_)
        events: list[records.Record] = []
        if logged is None:
            fields = ["registered"]
            if schedule.next_run is not None:
                events = [_registration(schedule), *_status(schedule, "active")]
        else:
            fields, events = _changed(logged, schedule)
        for slot in truth.open.values():
            waits = slot.id == id_ and slot.kind == "trigger" and not slot.attempt
            if waits and slot_key(id_, slot.slot) not in log.open:
                fields.append("trigger")
                events.append(records.ScheduleTriggered(slot.slot, _WHY))
        if events:
            yield Difference(id_, indexed.agent_id, fields, events)


def _registration(schedule: Schedule) -> records.ScheduleRegistered:
    fields = {name: getattr(schedule, name) for name in _FIELDS}
    fields["envelope"] = schedule.envelope or None
    fields["repetition_count"] = schedule.repetition_count or None
    return records.ScheduleRegistered(
        **fields,
        next_run=schedule.next_run or "",
        salt=schedule.salt,
        life=schedule.life if schedule.life > 1 else None,
        reason=_WHY,
    )


def _changed(logged: Schedule, indexed: Schedule) -> tuple[list[str], list[records.Record]]:
    changes = {
        name: getattr(indexed, name)
        for name in _FIELDS
        if getattr(indexed, name) != getattr(logged, name)
    }
    if indexed.status not in FINISHED and indexed.next_run != logged.next_run:
        changes["next_run"] = indexed.next_run
    events: list[records.Record] = [records.ScheduleModified(changes, _WHY)] if changes else []
    fields = sorted(changes)
    paused_until_another_time = indexed.status == "paused" and indexed.resume_at != logged.resume_at
    if indexed.status != logged.status or paused_until_another_time:
        fields.append("status")
        events += _status(indexed, logged.status)
    return fields, events


def _status(indexed: Schedule, logged_status: str) -> list[records.Record]:
    """The events that bring a schedule from its status in the log to that in the index."""
    if indexed.status == logged_status != "paused":
        return []
    if indexed.status == "active":
        return [records.ScheduleResumed(indexed.next_run, _WHY)] if indexed.next_run else []
    if indexed.status == "cancelled":
        return [records.ScheduleCancelled(_WHY)]
    if indexed.status == "paused":
        return [records.SchedulePaused(indexed.next_run, _WHY, resume_at=indexed.resume_at)]
    if indexed.status == "failed" and indexed.next_run is not None:
        return [records.SchedulePaused(indexed.next_run, f"{_WHY} It had failed too often.")]
    why: CompletionReason = "once" if indexed.schedule_type == "once" else "until"
    return [records.ScheduleCompleted(why, indexed.status)]


def _of_desires(log: Desires, truth: Desires) -> Iterator[Difference]:
    for indexed in truth.desires.values():
        logged = log.find(indexed.id)
        if logged is None and indexed.pruned_at is None:
            yield Difference(indexed.id, indexed.agent_id, ["recorded"], [_recorded(indexed)])
        elif logged is not None and logged.pruned_at is None:
            if indexed.pruned_at is not None:
                pruned = records.DesirePruned(0.0, 0.0, _WHY)
                yield Difference(indexed.id, indexed.agent_id, ["pruned_at"], [pruned])
            elif (indexed.strength, indexed.at) != (logged.strength, logged.at):
                grown = records.DesireReinforced(0.0, indexed.strength, _WHY)
                yield Difference(indexed.id, indexed.agent_id, ["strength"], [grown])


def _recorded(desire: Desire) -> records.DesireRecorded:
    return records.DesireRecorded(
        desire.agent_id,
        desire.text,
        desire.strength,
        desire.recorded_at,
        list(desire.tags) or None,
        desire.salt,
        _WHY,
    )
