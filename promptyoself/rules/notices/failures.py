"""Notices: the agent that a schedule names with ``--on-failure`` is told when that has failed.

A notice is a prompt like any other, registered in the same append as the event that it tells of. So
it has an id, a history and an audit, waits its turn, and is charged to the agent that is told. It
names nobody to be told of its own failure, so no notice makes another.
"""

from collections import Counter
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

ACTOR = {"via": "loop", "who": "promptyoself"}

_ONE_INCIDENT = timedelta(hours=1)
"""Slots that are missed within this time of a notice make no other, so that a loop that goes up and
down makes one notice."""


def with_notices(
    state: State, drafts: Sequence[Draft], now: datetime, caps: Caps, warn: Callable[[str], None]
) -> list[Draft]:
    """What was decided on a state, and the notices that it calls for.

    There is one notice for each schedule that is parked, that ends as failed, or whose slots were
    missed. It tells the worst of these. ``warn`` gets a sentence for each notice that can't be
    given, because the agent that is to be told has no room for another schedule.
    """
    worst: dict[str, int] = {}  # per schedule, the position of the draft that says it
    gravities = [_gravity(state, draft, now) for draft in drafts]
    for index, draft in enumerate(drafts):
        id_ = draft.id or ""
        if gravities[index] > (gravities[worst[id_]] if id_ in worst else 0):
            worst[id_] = index
    noticed = list(drafts)
    registrations: dict[str, Draft] = {}  # by id
    added: Counter[str] = Counter()  # per agent
    for id_, index in worst.items():
        schedule = state.schedules[id_]
        agent_id = schedule.on_failure or ""
        notice = _notice(schedule, agent_id, _message(schedule, drafts, drafts[index].record), now)
        name, salt, existing = id_for_content(state, notice)
        while existing is None and name in registrations:
            salt += 1
            name = schedule_id(content_of(notice), salt)
        if existing is None:
            if state.agent(agent_id).active + added[agent_id] >= caps.max_active_per_agent:
                name = "too_many_schedules"
                warn(
                    f"{agent_id} could not be told of {id_}: it has as many active schedules as "
                    "are allowed."
                )
            else:
                added[agent_id] += 1
                actor = {**ACTOR, FOR: agent_id}
                registrations[name] = Draft(notice._replace(salt=salt or None), name, actor)
        noticed[index] = noticed[index]._replace(record=_with_name(drafts[index].record, name))
    return [*noticed, *registrations.values()]


def _gravity(state: State, draft: Draft, now: datetime) -> int:
    """How bad it is for the schedule. 3: it has failed; 2: it is parked; 1: slots were missed; 0:
    nobody is to be told."""
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
    noticed_at = schedule.noticed_at
    return noticed_at is None or now >= parse_utc(noticed_at) + _ONE_INCIDENT


def _message(schedule: Schedule, drafts: Sequence[Draft], worst: Record) -> str:
    """What has happened, in words that no user can change."""
    whose = f"The schedule {schedule.id} of {schedule.agent_id}"
    own = [draft.record for draft in drafts if draft.id == schedule.id]
    if isinstance(worst, ScheduleCompleted):
        return f"{whose}, which was to be delivered once, has failed: {_reason(own)}."
    if isinstance(worst, DeliveryFailed):
        return (
            f"{whose} is parked: its deliveries keep failing, the last one with {worst.code}. "
            f"`promptyoself resume --id {schedule.id}` lets it run again."
        )
    missed = [
        record for record in own if isinstance(record, DeliverySkipped) and record.why in MISSED
    ]
    slots = sum(record.slots for record in missed)
    first, last = min(record.slot for record in missed), max(record.last for record in missed)
    which = f"its slot of {first}" if slots == 1 else f"{slots} slots from {first} to {last}"
    return f"{whose} missed {which}: nothing delivered in time."


def _reason(records: Iterable[Record]) -> str:
    """Why the last slot wasn't delivered."""
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
        # Of another agent, its id alone tells where it is.
        target=schedule.target if agent_id == schedule.agent_id else None,
    )


def _with_name(record: Record, name: str) -> Record:
    assert isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted)
    return record._replace(notice=name)
