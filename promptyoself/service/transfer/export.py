"""Moving house, out: schedules as lines of a file, for another data directory.

An id is made of the content at registration, whatever was modified since (decision 7), so a line
holds that content too where it differs from today's. Everything else is carried over as it is.
"""

from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import orjson

from promptyoself.core.ids import content_hash, schedule_id
from promptyoself.core.instants import MICROSECOND, format_utc, parse_utc
from promptyoself.events.schedule_fields import (
    CONTENT,
    FIELDS,
    FLAGS,
    SPECIFIED,
    ScheduleRegistered,
    content_of,
)
from promptyoself.service.schedules.request import Request, validate
from promptyoself.state.schedules import OpenSlot, Schedule, State, unfinished
from promptyoself.store.store import Store

EXPORT = 1
"""The version of the format; each line states it."""

FieldTypes = dict[str, tuple[type, bool]]
"""Fields by their names: the type of each, and whether it may be left out."""

LINE_TYPES: FieldTypes = {
    "export": (int, False),
    "id": (str, False),
    "salt": (int, True),
    "status": (str, False),
    "next_run": (str, True),
    "repetition_count": (int, False),
    "last_slot": (str, True),
    "without": (list, True),
    "resume_at": (str, True),
    "schedule": (dict, False),
    "registered": (dict, True),
}


def _types_of(names: Iterable[str]) -> FieldTypes:
    optional = ScheduleRegistered._field_defaults
    return {
        name: (FIELDS[name].type if name in FIELDS else str, name in optional) for name in names
    }


CONTENT_TYPES = _types_of(CONTENT)
POLICY_TYPES = _types_of(
    name
    for name in ScheduleRegistered._fields
    if name in (*SPECIFIED, "reason") and name not in CONTENT
)
"""The order of these is that of a line: it is that of the event of a registration."""


def export_lines(store: Store, agent_id: str | None, now: datetime) -> list[bytes]:
    """Every schedule that isn't over, of one agent or of all, as a line without its newline, in the
    order of their ids.

    A slot that is under way, or waits to be tried again, becomes the schedule's next one again. The
    machine that imports it looks for it in the agent's history before it sends it once more. A
    warning tells what can't be carried over.

    Raises:
        PromptyoselfError: ``invalid_agent_id``, ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    validate(Request(agent_id=agent_id), store.settings, now)
    wanted = store.require_agent(agent_id)
    state = store.read().state
    chosen = list(unfinished(state, wanted))
    changed = {
        schedule.id
        for schedule in chosen
        if content_hash(content_of(schedule)) != schedule.registered
    }
    contents = _registrations(store, changed) if changed else {}
    lines: list[bytes] = []
    for schedule in sorted(chosen, key=lambda schedule: schedule.id):
        content = contents.get(schedule.id)
        if content is not None and store.pinned_to not in (None, content["agent_id"]):
            store.warn(f"{schedule.id} is left out: it was registered for another agent.")
            continue
        if schedule_id(content or content_of(schedule), schedule.salt or 0) != schedule.id:
            store.warn(
                f"{schedule.id} is left out: what it was registered with is lost, and its id can't "
                "be proved without. Register it again where it is to go."
            )
            continue
        moved = _with_open_slots(store, schedule, state)
        if moved.next_run is None and moved.status == "active":
            store.warn(f"{schedule.id} is left out: it has no slot left to fire.")
            continue
        lines.append(orjson.dumps(_line(moved, content)))
    with suppress(OSError):
        if lines and (living := store.workers.living()):
            store.warn(
                f"A loop is running ({', '.join(living)}). Stop it and export again before these "
                "are imported elsewhere, or both will deliver."
            )
    return lines


def _registrations(store: Store, ids: set[str]) -> dict[str, dict[str, Any]]:
    """The content with which these schedules were last registered, as the log has it."""
    contents = {}
    for batch in store.unpinned.replay():
        for event in batch.envelopes:
            if event.type == "schedule.registered" and event.id in ids:
                first = event.data.get("first_content") or event.data
                contents[event.id] = {name: first.get(name) for name in CONTENT}
    return contents


def _with_open_slots(store: Store, schedule: Schedule, state: State) -> Schedule:
    for slot in state.open.values():
        if slot.id == schedule.id:
            if slot.kind == "scheduled" and slot.slot == schedule.last_slot:
                schedule = back_to(schedule, slot)
            else:
                store.warn(
                    f"{slot.id} has a delivery under way, of {slot.slot}, that isn't carried over."
                )
    return schedule


def back_to(schedule: Schedule, slot: OpenSlot) -> Schedule:
    """The schedule as it was before it claimed this slot, its latest."""
    return schedule._replace(
        next_run=slot.slot,
        last_slot=format_utc(parse_utc(slot.slot) - MICROSECOND),
        repetition_count=schedule.repetition_count - 1,
    )


def _line(schedule: Schedule, registered: Mapping[str, Any] | None) -> dict[str, Any]:
    fields = schedule._asdict()
    fields.update((name, fields[name] or None) for name in FLAGS)
    specified = without_none({name: fields[name] for name in (*CONTENT_TYPES, *POLICY_TYPES)})
    original = registered and without_none(registered)
    line = {**fields, "export": EXPORT, "schedule": specified, "registered": original}
    return without_none({name: line[name] for name in LINE_TYPES})


def without_none(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a value: a line leaves out the others."""
    return {name: value for name, value in fields.items() if value is not None}
