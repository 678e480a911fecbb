"""Registering a prompt, and looking at what a registration would fire at."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, cast

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import Settings
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import POLICY, content_of
from promptyoself.events.target_names import DEFAULT
from promptyoself.rules.daily_rate import exceeded
from promptyoself.rules.placement import id_for_content
from promptyoself.rules.policy import APPROVED_TIER
from promptyoself.rules.slots import is_ahead, schedule_trigger
from promptyoself.service.schedules.limits import require_free_name, require_room, require_space
from promptyoself.service.schedules.request import Request, first_fire, parse
from promptyoself.service.schedules.times.asked import (
    former_interval,
    warnings_of_times,
)
from promptyoself.service.schedules.times.fires import say_back
from promptyoself.service.schedules.transition import drop_ahead, high_water, next_run_fields
from promptyoself.state.schedules import Schedule, State
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import Scheduled


def register(store: Store, request: Request, now: datetime, *, dry_run: bool = False) -> Scheduled:
    """Register a prompt; the same content again changes nothing and returns the same id.

    Raises:
        PromptyoselfError: one of the codes of bad input, with nothing changed.
    """
    settings = store.settings
    if request.agent_id is None:
        request = request._replace(agent_id=store.pinned_to or settings.default_agent)
    asked = parse(request, settings, now)

    formers = list(_as_formerly(asked, request, settings))
    warnings_of_replies = []
    if asked.keep_reply is not None or asked.reply_to is not None:
        from promptyoself.service.schedules.replies.retention import checked_retention

        warnings_of_replies = checked_retention(asked, settings)

    def decide(state: State) -> tuple[list[Draft], Scheduled]:
        id_, salt, existing = id_for_content(store.unpinned_state(state), asked)
        if existing is not None and existing.status not in FINISHED:
            answer = _already_there(existing, asked, request)
            say_back(answer, request, existing, now)
            return [], answer
        for former in formers:
            _, _, as_interval = id_for_content(store.unpinned_state(state), former)
            if as_interval is not None and as_interval.status not in FINISHED:
                return [], _already_there(as_interval, former, request)
        require_room(state, asked.agent_id, settings)
        require_space(state, asked.agent_id, asked.prompt, settings)
        require_free_name(state, asked.agent_id, asked.name, id_)
        record = asked._replace(salt=salt or None)
        drafts: list[Draft] = []
        if existing is not None:
            record, drafts = next_life(store, state, existing, record, now)
        answer = cast(
            "Scheduled",
            {
                "id": id_,
                "created": True,
                **next_run_fields(record.next_run, record.timezone),
                "message": "Prompt scheduled." if existing is None else "Prompt scheduled again.",
            },
        )
        warnings = warnings_of_times(request, record)
        warnings += exceeded(state, settings.caps, record, id_)
        if record.tier >= APPROVED_TIER:
            warnings.append(
                "Tier 2 needs an approval for each delivery, which a person gives. "
                f"At a shell: `promptyoself approve --id {id_}`. Slots without one are skipped."
            )
        warnings += warnings_of_replies
        if warnings:
            answer["warning"] = " ".join(warnings)
        if record.life is not None:
            answer["life"] = record.life
        say_back(answer, request, record, now)
        return [*drafts, store.draft(record, id_, record.agent_id)], answer

    if dry_run:
        _, answer = decide(store.read().state)
        return {**answer, "dry_run": True, "message": "Nothing was scheduled: this was a dry run."}
    return store.transact(now, decide)


def _as_formerly(
    record: ScheduleRegistered, request: Request, settings: Settings
) -> Iterator[ScheduleRegistered]:
    """The registrations that a former version may have made of ``--conversation-id default``, which
    was content; and of ``--every 1d``: an interval, and one in UTC where no zone was named."""
    if request.conversation_id == DEFAULT and record.conversation_id is None:
        yield record._replace(conversation_id=DEFAULT)
    interval = former_interval(record.schedule_value)
    if request.every is None:
        return
    if record.schedule_type == "rrule" and interval is not None:
        record = record._replace(schedule_type="interval", schedule_value=interval)
        yield record
    if record.schedule_type == "interval" and request.timezone is None and not settings.timezone:
        yield record._replace(timezone="UTC")


def next_life(
    store: Store, state: State, existing: Schedule, record: ScheduleRegistered, now: datetime
) -> tuple[ScheduleRegistered, list[Draft]]:
    """The registration that brings back a schedule that has ended, and the events before it. None
    of the slots of its earlier lives comes again.

    Raises:
        PromptyoselfError: ``never_fires``, or why its times can't be computed on this machine.
    """
    record, trigger = record._replace(life=existing.life + 1), schedule_trigger(record)
    drafts: list[Draft] = []
    # The new life starts without ranges, and they may tell of slots that `last_slot` doesn't.
    if is_ahead(existing, now) or existing.without:
        # Imported here since few schedules ever need it.
        from promptyoself.service.schedules.times.clock_rollback import recount

        counted = recount(store, existing.id, trigger, now)
        record = record._replace(counts_from=counted.counts_from, without=counted.without)
        trigger = schedule_trigger(record)
        drafts = drop_ahead(store, state, existing, now)
    first = first_fire(trigger, high_water(existing, now, trigger))
    return record._replace(next_run=format_utc(first)), drafts


def _already_there(existing: Schedule, record: ScheduleRegistered, request: Request) -> Scheduled:
    # A policy that the request doesn't name is no wish to change it.
    named = [name for name in POLICY if getattr(request, name, None) is not None]
    differs = [
        name
        for name in (*content_of(record), *named)
        if _none_if_off(getattr(existing, name)) != _none_if_off(getattr(record, name))
        or (name == "on_failure" and existing.failure_to != record.failure_to)
    ]
    next_run = existing.next_run if existing.status == "active" else None
    paused = ", and paused" if existing.status == "paused" else ""
    answer = cast(
        "Scheduled",
        {
            "id": existing.id,
            "created": False,
            **next_run_fields(next_run, existing.timezone),
            "message": f"This prompt is scheduled already{paused}; nothing was changed.",
        },
    )
    if differs:
        answer["differs"] = differs
        answer["hint"] = f"`promptyoself modify --id {existing.id}`, with new values, changes it."
    return answer


def _none_if_off(value: object) -> object:
    """A registration leaves out a flag that is off; a schedule says ``False``."""
    return None if value is False else value
