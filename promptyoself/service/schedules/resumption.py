"""What lets a paused or failed schedule run on, and brings back one that is over."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events import records
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.schedule_fields import CONTENT, FLAGS, SPECIFIED, content_of
from promptyoself.rules.daily_rate import exceeded
from promptyoself.rules.pause_end import end_of_pause, is_over
from promptyoself.rules.policy import APPROVED_TIER
from promptyoself.rules.slots import is_ahead, missed_slots, schedule_trigger
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.service.schedules.limits import require_free_name, require_room, require_space
from promptyoself.service.schedules.register import next_life
from promptyoself.service.schedules.times.clock_rollback import Recount, recount
from promptyoself.service.schedules.transition import (
    drop_ahead,
    high_water,
    next_run_fields,
    skip_drafts,
    skip_reason,
)
from promptyoself.state.schedules import Schedule, State, comes_back_at
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules import answers


def resumption(
    store: Store, state: State, schedule: Schedule, reason: str | None, now: datetime
) -> tuple[list[Draft], answers.Resumed]:
    """The events that let a paused or failed schedule run on, and what to answer.

    Raises:
        PromptyoselfError: ``nothing_left``, ``too_many_schedules``, ``prompts_too_large``,
            ``name_taken``, or why its times can't be computed on this machine.
    """
    if is_over(schedule, now):
        events, after = end_of_pause(state, schedule, reason)
        drafts = [store.draft(event, schedule.id, schedule.agent_id) for event in events]
        return drafts, _resumed(after)
    counted: Recount | None = None
    trigger = _computable(schedule)
    if is_ahead(schedule, now):
        counted = recount(store, schedule.id, trigger, now)
        trigger = schedule_trigger(schedule._replace(without=counted.without))
    following = next_fire_time(trigger, high_water(schedule, now, trigger))
    if following is None or schedule.next_run is None:
        if schedule.status == "failed":
            raise PromptyoselfError(
                "nothing_left",
                f"{schedule.id} has no slot left to fire.",
                "Register it again with a new time.",
            )
        drafts = skip_drafts(store, schedule, missed_slots(schedule, now, "paused"), None)
        end = records.ScheduleCompleted("until", "completed")
        if schedule.schedule_type == "once":
            end = records.ScheduleCompleted("once", "failed")
        drafts.append(store.draft(end, schedule.id, schedule.agent_id))
        return drafts, _resumed(schedule._replace(next_run=None))
    if comes_back_at(schedule) is None:  # else it has kept its place
        require_room(state, schedule.agent_id, store.settings)
    if schedule.status in FINISHED:
        require_space(state, schedule.agent_id, schedule.prompt, store.settings)
        require_free_name(state, schedule.agent_id, schedule.name, schedule.id)
    next_run = format_utc(following)
    drafts = skip_drafts(
        store, schedule, missed_slots(schedule, now, skip_reason(schedule)), next_run
    )
    if counted is not None:
        drafts += drop_ahead(store, state, schedule, now)
    since = {} if counted is None else counted._asdict()
    resumed = records.ScheduleResumed(next_run, reason, **since)
    drafts.append(store.draft(resumed, schedule.id, schedule.agent_id))
    resumed_schedule = schedule._replace(next_run=next_run)
    answer = _resumed(resumed_schedule)
    if warnings := list(exceeded(state, store.settings.caps, resumed_schedule, schedule.id)):
        answer["warning"] = " ".join(warnings)
    return drafts, answer


def stays_failed(schedule: Schedule) -> str:
    """What lets a failed schedule run again, to be added to a message; nothing of another one."""
    if schedule.status != "failed":
        return ""
    if schedule.next_run is None:
        return " It has failed and has no time left: give it a new --time."
    return " It stays failed until it is resumed: `promptyoself resume`."


def revival(
    store: Store, state: State, schedule: Schedule, reason: str | None, now: datetime
) -> tuple[list[Draft], answers.Resumed]:
    """The events that bring back a cancelled or completed schedule as it last was, and what to
    answer. Its approval doesn't come back.

    Raises:
        PromptyoselfError: ``nothing_left``: its time has passed, or it has fired as often as it
            may; ``name_taken``, ``too_many_schedules``, ``prompts_too_large``; or why its times
            can't be computed on this machine.
    """
    id_, most = schedule.id, schedule.max_repetitions
    if most is not None and schedule.repetition_count >= most:
        raise PromptyoselfError(
            "nothing_left",
            f"{id_} has fired {schedule.repetition_count} times, of at most {most}.",
            "Register the same prompt again: then it counts from 0.",
        )
    require_room(state, schedule.agent_id, store.settings)
    require_space(state, schedule.agent_id, schedule.prompt, store.settings)
    require_free_name(state, schedule.agent_id, schedule.name, id_)
    fields = {name: getattr(schedule, name) for name in SPECIFIED}
    fields.update((name, fields[name] or None) for name in FLAGS)
    record = records.ScheduleRegistered(
        **fields,
        next_run="",
        salt=schedule.salt,
        repetition_count=schedule.repetition_count or None,
        first_content=_first_content(store, schedule),
        reason=reason,
    )
    try:
        record, drafts = next_life(store, state, schedule, record, now)
    except PromptyoselfError as error:
        if error.code != "never_fires":
            raise
        raise PromptyoselfError(
            "nothing_left",
            f"{id_} is {schedule.status}, and its last slot has passed.",
            "Register its prompt with a new time.",
        ) from None
    drafts.append(store.draft(record, id_, record.agent_id))
    answer = _resumed(schedule._replace(next_run=record.next_run))
    answer["message"] = f"Schedule resumed as it last was. It was {schedule.status}."
    answer["life"] = schedule.life + 1
    warnings = list(exceeded(state, store.settings.caps, record, id_))
    if record.tier >= APPROVED_TIER:
        warnings.append(f"It needs another approval: `promptyoself approve --id {id_}`.")
    if warnings:
        answer["warning"] = " ".join(warnings)
    return drafts, answer


def _first_content(store: Store, schedule: Schedule) -> dict[str, Any] | None:
    """The content that the schedule's id was made of, if it was modified since.

    Raises:
        PromptyoselfError: ``registration_lost``.
    """
    if content_hash(content_of(schedule)) == schedule.registered:
        return None
    month, _, seq = schedule.told.partition(":")
    event = store.unpinned.event(int(seq), month) if seq.isdigit() else None
    data = {} if event is None else event.data
    first = data.get("first_content") or {name: data.get(name) for name in CONTENT}
    content = {name: value for name, value in first.items() if value is not None}
    if content_hash(content) != schedule.registered:
        raise PromptyoselfError(
            "registration_lost",
            f"The log has lost the registration of {schedule.id}, of which its id was made.",
            "Register its prompt again; `promptyoself show` has what it was.",
        )
    return content


def _resumed(schedule: Schedule) -> answers.Resumed:
    """What to answer of a schedule as it is after it was resumed."""
    message = "Schedule resumed."
    if schedule.next_run is None:
        message = "Its last slot passed while it was paused; nothing is left to fire."
    fields = next_run_fields(schedule.next_run, schedule.timezone)
    return cast("answers.Resumed", {"id": schedule.id, **fields, "message": message})


def _computable(schedule: Schedule) -> Trigger:
    """The schedule's trigger. Raises why its times can't be computed, and what mends that."""
    trigger = schedule_trigger(schedule)
    try:
        next_fire_time(trigger, parse_utc(schedule.anchor))
    except PromptyoselfError as error:
        option = "--tz ZONE" if error.code == "unknown_zone" else "--cron or --every"
        mend = f"promptyoself modify --id {schedule.id} {option}"
        error.hint = f"Give it one that this machine can compute: {mend}. {error.hint}"
        raise
    return trigger
