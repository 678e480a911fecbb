"""What an index still knows and the log has lost, and the events that put it back.

Only what is to come is put back: schedules that aren't over, and desires that are alive. An
approval has to be given again. What was spent of a day's budget counts from what is left.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.kinds import FINISHED, CompletionReason
from promptyoself.events.records import (
    DesirePruned,
    DesireRecorded,
    DesireReinforced,
    Record,
    ScheduleCancelled,
    ScheduleCompleted,
    ScheduleModified,
    SchedulePaused,
    ScheduleRegistered,
    ScheduleResumed,
    ScheduleTriggered,
)
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.transfer.export import back_to
from promptyoself.state.desires import Desire, Desires
from promptyoself.state.schedules import CHAIN, Schedule, State, slot_key

__all__ = ["Difference", "corrections", "differences"]

_WHY = "Put back from the index, since the log had lost it."
_CORRECTED = "Moved past the slots that later events tell of, since the log had lost their claims."

_FIELDS = tuple(
    name
    for name in ScheduleRegistered._fields
    if name in Schedule._fields
    and name not in ("salt", "life", "first_content", "reason", "next_run")
)


class Difference(NamedTuple):
    """One schedule or desire of which the index knows more; the ``fields`` that differ, and the
    ``records`` that put it back."""

    id: str
    agent_id: str
    fields: list[str]
    records: list[Record]

    def shown(self) -> dict[str, Any]:
        """The same for people and programs."""
        return {"id": self.id, "agent_id": self.agent_id, "fields": self.fields}


def differences(chain: str, log: Any, truth: Any) -> list[Difference]:
    """What the ``truth`` has, as an index knew it, that isn't in what follows from the ``log``."""
    found = _of_schedules(log, truth) if chain == CHAIN else _of_desires(log, truth)
    return sorted(found, key=lambda each: each.id)


def corrections(log: Any) -> Iterator[tuple[str, Record]]:
    """What must be corrected where later events tell of slots whose claims are lost: else the next
    slot of their schedules would be one that is over."""
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
        yield schedule.id, ScheduleModified(changes, _CORRECTED)


def _of_schedules(log: State, truth: State) -> Iterator[Difference]:
    for id_, known in truth.schedules.items():
        schedule = known
        for slot in truth.open.values():
            lost = slot.id == id_ and slot_key(id_, slot.slot) not in log.open
            if lost and slot.kind == "scheduled" and slot.slot == schedule.last_slot:
                schedule = back_to(schedule, slot)  # its claim is lost, so it is to be claimed
        left = log.schedules.get(id_)
        records: list[Record] = []
        if left is None:
            fields = ["registered"]
            if schedule.next_run is not None:
                records = [_registration(schedule), *_status(schedule, "active")]
        else:
            fields, records = _changed(left, schedule)
        for slot in truth.open.values():
            waits = slot.id == id_ and slot.kind == "trigger" and not slot.attempt
            if waits and slot_key(id_, slot.slot) not in log.open:
                fields.append("trigger")
                records.append(ScheduleTriggered(slot.slot, _WHY))
        if records:
            yield Difference(id_, known.agent_id, fields, records)


def _registration(schedule: Schedule) -> ScheduleRegistered:
    fields = {name: getattr(schedule, name) for name in _FIELDS}
    fields["envelope"] = schedule.envelope or None
    fields["repetition_count"] = schedule.repetition_count or None
    return ScheduleRegistered(
        **fields,
        next_run=schedule.next_run or "",
        salt=schedule.salt,
        life=schedule.life if schedule.life > 1 else None,
        reason=_WHY,
    )


def _changed(left: Schedule, known: Schedule) -> tuple[list[str], list[Record]]:
    changes = {
        name: getattr(known, name)
        for name in _FIELDS
        if getattr(known, name) != getattr(left, name)
    }
    if known.status not in FINISHED and known.next_run != left.next_run:
        changes["next_run"] = known.next_run
    records: list[Record] = [ScheduleModified(changes, _WHY)] if changes else []
    fields = sorted(changes)
    if known.status != left.status:
        fields.append("status")
        records += _status(known, left.status)
    return fields, records


def _status(known: Schedule, now: str) -> list[Record]:
    """The events that bring a schedule to the status that is known of it."""
    if known.status == now:
        return []
    if known.status == "active":
        return [ScheduleResumed(known.next_run, _WHY)] if known.next_run else []
    if known.status == "cancelled":
        return [ScheduleCancelled(_WHY)]
    if known.status == "paused":
        return [SchedulePaused(known.next_run, _WHY)]
    if known.status == "failed" and known.next_run is not None:
        return [SchedulePaused(known.next_run, f"{_WHY} It had failed too often.")]
    why: CompletionReason = "once" if known.schedule_type == "once" else "until"
    return [ScheduleCompleted(why, known.status)]


def _of_desires(log: Desires, truth: Desires) -> Iterator[Difference]:
    for known in truth.desires.values():
        left = log.find(known.id)
        if left is None and known.pruned_at is None:
            yield Difference(known.id, known.agent_id, ["recorded"], [_recorded(known)])
        elif left is not None and left.pruned_at is None:
            if known.pruned_at is not None:
                pruned = DesirePruned(0.0, 0.0, _WHY)
                yield Difference(known.id, known.agent_id, ["pruned_at"], [pruned])
            elif (known.strength, known.at) != (left.strength, left.at):
                grown = DesireReinforced(0.0, known.strength, _WHY)
                yield Difference(known.id, known.agent_id, ["strength"], [grown])


def _recorded(known: Desire) -> DesireRecorded:
    return DesireRecorded(
        known.agent_id,
        known.text,
        known.strength,
        known.recorded_at,
        list(known.tags) or None,
        known.salt,
        _WHY,
    )
