"""Notices: who a schedule names with ``--on-failure`` is told when it has failed, or missed slots.

A notice is a prompt like any other, registered in the same append as what it tells of: so it has an
id, a history and an audit, waits its turn, and is charged to whoever is told. It names nobody to be
told of its own failure, so none makes another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

from promptyoself.core.ids import schedule_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Caps
from promptyoself.events.draft import FOR, Draft
from promptyoself.events.kinds import MISSED
from promptyoself.events.records import (
    DeliveryFailed,
    DeliverySkipped,
    Record,
    ScheduleCompleted,
    ScheduleRegistered,
)
from promptyoself.events.schedule_fields import DEFAULT_GRACE, content_of
from promptyoself.rules.placement import id_for_content
from promptyoself.rules.slots import MISFIRE_TOLERANCE
from promptyoself.state.schedules import Schedule, State, slot_key

__all__ = ["with_notices"]

ACTOR = {"via": "loop", "who": "promptyoself"}

_ONE_INCIDENT = timedelta(hours=1)
"""Slots missed within this time of a notice are part of what it told: of a loop that goes up and
down, say."""


def with_notices(
    state: State, drafts: Sequence[Draft], now: datetime, caps: Caps, warn: Callable[[str], None]
) -> list[Draft]:
    """What was decided on a state, and the notices that it calls for: one for each schedule that is
    parked, that ends as failed, or whose slots were missed. ``warn`` gets a sentence for each that
    could not be given, since whoever is to be told has no room for another schedule."""
    incidents: dict[str, int] = {}  # per schedule, the place of the worst that befell it
    for at, draft in enumerate(drafts):
        worst = incidents.get(draft.id or "")
        if _gravity(state, draft, now) > (
            0 if worst is None else _gravity(state, drafts[worst], now)
        ):
            incidents[draft.id or ""] = at
    found = list(drafts)
    added: dict[str, int] = {}  # per agent
    taken: set[str] = set()
    for id_, at in incidents.items():
        schedule = state.schedules[id_]
        agent_id = schedule.on_failure or ""
        notice = _notice(schedule, agent_id, _told(schedule, drafts, at), now)
        name, salt, existing = id_for_content(state, notice)
        while existing is None and name in taken:
            salt += 1
            name = schedule_id(content_of(notice), salt)
        if existing is None:
            active = state.agent(agent_id).active + added.get(agent_id, 0)
            if active >= caps.max_active_per_agent:
                name = "too_many_schedules"
                warn(
                    f"{agent_id} could not be told of {id_}: it has as many active schedules as "
                    "are allowed."
                )
            else:
                added[agent_id] = added.get(agent_id, 0) + 1
                taken.add(name)
                found.append(
                    Draft(notice._replace(salt=salt or None), name, {**ACTOR, FOR: agent_id})
                )
        found[at] = found[at]._replace(record=_with_notice(drafts[at].record, name))
    return found


def _gravity(state: State, draft: Draft, now: datetime) -> int:
    """How bad it is, 0 if nobody is to be told."""
    record = draft.record
    if not isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted):
        return 0
    schedule = state.schedules.get(draft.id or "")
    if schedule is None or schedule.on_failure is None or record.notice is not None:
        return 0
    if isinstance(record, ScheduleCompleted):
        return 3 if record.status == "failed" else 0
    if isinstance(record, DeliveryFailed):
        return 2 if record.parked else 0
    return 1 if _is_missed(state, schedule, record, now) else 0


def _is_missed(state: State, schedule: Schedule, record: DeliverySkipped, now: datetime) -> bool:
    if record.kind != "scheduled" or record.why not in MISSED:
        return False
    if slot_key(schedule.id, record.slot) in state.open:  # it was tried
        return False
    if now - parse_utc(record.slot) <= MISFIRE_TOLERANCE:
        return False
    told = schedule.noticed_at
    return told is None or now >= parse_utc(told) + _ONE_INCIDENT


def _told(schedule: Schedule, drafts: Sequence[Draft], at: int) -> str:
    """What has happened, in words that nobody else could put there."""
    whose = f"The schedule {schedule.id} of {schedule.agent_id}"
    record = drafts[at].record
    mine = [draft.record for draft in drafts if draft.id == schedule.id]
    if isinstance(record, ScheduleCompleted):
        return f"{whose}, which was to be delivered once, has failed: {_reason(mine)}."
    if isinstance(record, DeliveryFailed):
        return (
            f"{whose} is parked: its deliveries keep failing, the last one with {record.code}. "
            f"`promptyoself resume --id {schedule.id}` lets it run again."
        )
    missed = [each for each in mine if isinstance(each, DeliverySkipped) and each.why in MISSED]
    slots = sum(each.slots for each in missed)
    first, last = min(each.slot for each in missed), max(each.last for each in missed)
    which = f"its slot of {first}" if slots == 1 else f"{slots} slots from {first} to {last}"
    return f"{whose} missed {which}: nothing delivered in time."


def _reason(records: Iterable[Record]) -> str:
    """Why the last slot came to nothing."""
    why = "not delivered"
    for record in records:
        if isinstance(record, DeliveryFailed):
            why = record.code
        elif isinstance(record, DeliverySkipped):
            why = f"{record.why}, {record.detail}" if record.detail else record.why
    return why


def _notice(schedule: Schedule, agent_id: str, text: str, now: datetime) -> ScheduleRegistered:
    at = format_utc(now)
    return ScheduleRegistered(
        agent_id,
        f"[promptyoself] {text}",
        "once",
        at,
        "UTC",
        at,
        at,
        tier=0,
        misfire="coalesce",
        grace=DEFAULT_GRACE,
        reason=f"on_failure of {schedule.id}",
    )


def _with_notice(record: Record, name: str) -> Record:
    assert isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted)
    return record._replace(notice=name)
