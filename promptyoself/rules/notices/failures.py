"""Notices: whom a schedule names with ``--on-failure`` is told when that has failed.

That is an agent, or a destination. How an agent is told: :mod:`.to_agents`. What a destination is
told is sent once the event is in the log, which names the notice.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from promptyoself.core.ids import notice_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.setting_values import Destination
from promptyoself.core.settings import Caps
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import MISSED
from promptyoself.events.records import (
    DeliveryFailed,
    DeliveryReplied,
    DeliverySkipped,
    DeliveryUnanswered,
    Record,
    ScheduleCompleted,
)
from promptyoself.rules.notices.to_agents import AgentNotices, agent_of, answer_text
from promptyoself.rules.slots import MISFIRE_TOLERANCE
from promptyoself.state.schedules import Schedule, State, slot_key

_ONE_INCIDENT = timedelta(hours=1)
"""Slots that are missed within this time of a notice make no other, so that a loop that goes up and
down makes one notice."""


def with_notices(
    state: State,
    drafts: Sequence[Draft],
    now: datetime,
    caps: Caps,
    destinations: Mapping[str, Destination],
    warn: Callable[[str], None],
) -> list[Draft]:
    """What was decided on a state, and the notices that it calls for.

    There is one notice for each schedule that is parked, that ends as failed, or whose slots were
    missed. It tells the worst of these. Answers that go to a destination name their notice already;
    where that destination is an agent, the notice is a schedule. ``warn`` gets a sentence for each
    notice that can't be given.
    """
    worst: dict[str, int] = {}  # per schedule, the position of the draft that says it
    gravities = [_gravity(state, draft, now) for draft in drafts]
    for index, draft in enumerate(drafts):
        id_ = draft.id or ""
        if gravities[index] > (gravities[worst[id_]] if id_ in worst else 0):
            worst[id_] = index
    noticed = list(drafts)
    to_agents = AgentNotices(state, now, caps, warn)
    for id_, index in worst.items():
        schedule, record, to = state.schedules[id_], drafts[index].record, None
        agent_id = schedule.on_failure
        if agent_id is None:
            to = schedule.failure_to
            agent_id = agent_of(destinations, to)
        if agent_id is None:
            # By its time: a slot that a clock passed too early may be missed a second time.
            name = notice_id(to or "", "failure", id_, format_utc(now))
        else:
            own = [draft.record for draft in drafts if draft.id == id_]
            text = failure_text(id_, schedule.agent_id, own, record)
            name = to_agents.give(schedule, agent_id, text, "on_failure", to)
        noticed[index] = noticed[index]._replace(record=_with_name(record, name, to))
    for index, draft in enumerate(drafts):
        record = draft.record
        if isinstance(record, DeliveryReplied | DeliveryUnanswered):
            agent_id = agent_of(destinations, record.to)
            if agent_id is not None:
                schedule = _as_it_was(state, state.schedules[draft.id or ""], record.slot)
                text = answer_text(schedule, record)
                name = to_agents.give(schedule, agent_id, text, "reply_to", record.to)
                noticed[index] = draft._replace(record=record._replace(notice=name))
    return [*noticed, *to_agents.drafts]


def _as_it_was(state: State, schedule: Schedule, slot: str) -> Schedule:
    """The schedule with the agent who had the prompt of a slot, and where that is. It may be
    another agent's by now."""
    awaited = state.replies.get(slot_key(schedule.id, slot))
    if awaited is None:
        return schedule
    return schedule._replace(agent_id=awaited.agent_id, target=awaited.target)


def _gravity(state: State, draft: Draft, now: datetime) -> int:
    """How bad it is for the schedule. 3: it has failed; 2: it is parked; 1: slots were missed; 0:
    nobody is to be told."""
    record = draft.record
    if not isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted):
        return 0
    schedule = state.schedules.get(draft.id or "")
    if schedule is None or record.notice is not None:
        return 0
    if schedule.on_failure is None and schedule.failure_to is None:
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


def failure_text(id_: str, agent_id: str, own: Sequence[Record], worst: Record) -> str:
    """What has happened, in words that no user can change. ``own`` are the events of the schedule
    that were decided at once."""
    whose = f"The schedule {id_} of {agent_id}"
    if isinstance(worst, ScheduleCompleted):
        return f"{whose}, which was to be delivered once, has failed: {_reason(own)}."
    if isinstance(worst, DeliveryFailed):
        return (
            f"{whose} is parked: its deliveries keep failing, the last one with {worst.code}. "
            f"`promptyoself resume --id {id_}` lets it run again."
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


def _with_name(record: Record, name: str, to: str | None) -> Record:
    assert isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted)
    return record._replace(notice=name, to=to)
