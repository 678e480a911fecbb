"""Changing schedules: modify, pause, resume, cancel, and one delivery now.

Each decides on the state as it is under the log's lock, and appends what follows from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, cast

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.text_limits import MAX_REASON, check_text
from promptyoself.core.times import local_time, require_future
from promptyoself.events import records
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.schedule_fields import FLAGS, TIMING
from promptyoself.rules.daily_rate import exceeded
from promptyoself.rules.policy import APPROVED_TIER, approval_in_log
from promptyoself.rules.slots import CLOCK_TOLERANCE, is_ahead, schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.schedules.limits import (
    require_few_waiting,
    require_place,
    require_room,
)
from promptyoself.service.schedules.request import (
    Request,
    check_jitter,
    check_order,
    check_rendering,
    first_fire,
    require_may_change,
    validate,
)
from promptyoself.service.schedules.resumption import resumption, revival, stays_failed
from promptyoself.service.schedules.times.asked import (
    anchor_of,
    warnings_of_times,
    without_its_interval,
)
from promptyoself.service.schedules.times.clock_rollback import Recount, claimed_after, recount
from promptyoself.service.schedules.times.fires import say_back
from promptyoself.service.schedules.transition import (
    DESTINATION,
    after_pause,
    conversation_kept,
    drop_ahead,
    drop_waiting,
    high_water,
    missed_or_uncounted,
    next_run_fields,
    open_slots,
    require_slot_from,
    skip_drafts,
    skip_reason,
    with_destination,
    with_notice,
)
from promptyoself.state.schedules import OpenSlot, Schedule, State, comes_back_at
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules import answers

Answer = TypeVar("Answer")
_Slots = Sequence[OpenSlot]
_NO_REQUEST = Request()

# The fields whose change asks for a check: of a prompt with values; of the jitter; of what is kept
# of answers; of how often it fires in a day.
_RENDERED = frozenset({"prompt", "render"})
_SPREAD = frozenset({"jitter", "grace", "schedule_type", "schedule_value"})
_OF_REPLIES = frozenset({"keep_reply", "reply_to"})
_PACE = frozenset(TIMING) - {"start_at"} | {"daily_budget", "agent_id"}

# The fields whose change lets an interval count from now.
_ANCHORING = frozenset({"schedule_type", "schedule_value", "start_at"})


def modify(store: Store, id_: str, request: Request, now: datetime) -> answers.Modified:
    """Change a schedule that isn't over. Slots already due under the old times are skipped.

    Raises:
        PromptyoselfError: one of the codes of bad input, with nothing changed.
    """
    settings = store.settings
    if request._replace(reason=None) == Request():
        raise WrongUsage(
            "nothing_to_modify",
            "No change was asked for.",
            "Name at least one option of `register` with its new value.",
        )
    # Times are read in the schedule's own zone, and before the lock is taken.
    current = find_schedule(store.read().state, id_)
    asked = validate(request, settings, now, own_zone=current.timezone)
    reason = asked.pop("reason", None)
    # A schedule has False where a registration leaves out a flag.
    asked.update((name, bool(asked[name])) for name in FLAGS if name in asked)
    return set_fields(store, id_, asked, reason, now, request)


def set_fields(
    store: Store,
    id_: str,
    asked: Mapping[str, Any],
    reason: str | None,
    now: datetime,
    request: Request = _NO_REQUEST,
) -> answers.Modified:
    """Give fields of a schedule new values, which are checked and as a schedule has them.

    An interval whose times change counts from now, unless its ``anchor`` is among the fields.
    ``request`` is what the fields were read from, where a caller has asked for times.

    Raises:
        PromptyoselfError: one of the codes of bad input, with nothing changed.
    """
    settings = store.settings

    def decide(state: State) -> tuple[list[Draft], answers.Modified]:
        schedule = _unfinished(state, id_, allow_failed=True)
        new = schedule._replace(**without_its_interval(asked, schedule, request))
        new = with_destination(new, schedule, asked, settings)
        changes = {
            name: new_value
            for name in dict.fromkeys((*asked, *DESTINATION))
            if (new_value := getattr(new, name)) != getattr(schedule, name)
        }
        drafts: list[Draft] = []
        counted: Recount | None = None
        uncounted: str | None = None
        require_may_change(settings, schedule, changes)
        _check_together(new, changes)
        ahead = is_ahead(schedule, now) and not asked.keys().isdisjoint(TIMING)
        if ahead or not changes.keys().isdisjoint(TIMING):
            _require_repetitions_left(schedule, new.max_repetitions)
            if not _ANCHORING.isdisjoint(changes):
                anchor = asked.get("anchor") or anchor_of(new._asdict(), now)
                new = new._replace(anchor=anchor)
                changes["anchor"] = new.anchor
            if ahead:
                counted = recount(store, id_, schedule_trigger(new), now)
                new = new._replace(without=counted.without)
                drafts += drop_ahead(store, state, schedule, now)
            check_order(new)
            trigger = schedule_trigger(new)
            high = high_water(schedule, now, trigger)
            first = format_utc(first_fire(trigger, high))
            back = comes_back_at(schedule)
            if back is not None and new.schedule_type == "once":
                require_slot_from(parse_utc(back), trigger, high, id_)
            skipped, uncounted = missed_or_uncounted(schedule, now, skip_reason(schedule))
            drafts += skip_drafts(store, schedule, skipped, first)
            if first != schedule.next_run:
                new = new._replace(next_run=first)
                changes["next_run"] = first
        require_place(state, schedule, new, changes, settings)
        if changes or counted:
            since = {} if counted is None else counted._asdict()
            record = records.ScheduleModified(changes, reason, uncounted, **since)
            drafts.append(store.draft(record, id_, new.agent_id))
        answer = cast(
            "answers.Modified",
            {
                "id": id_,
                "modified": sorted(name for name in changes if name not in ("next_run", "anchor")),
                **next_run_fields(new.next_run, new.timezone),
                "message": _what_was_modified(new, changes, counted)
                + conversation_kept(asked, changes),
            },
        )
        warnings = warnings_of_times(request, new)
        if not _OF_REPLIES.isdisjoint(changes):
            from promptyoself.service.schedules.replies.retention import checked_retention

            warnings += checked_retention(new, settings)
        if schedule.status == "active" and not _PACE.isdisjoint(changes):
            warnings += exceeded(state, settings.caps, new, id_)
        if warnings:
            answer["warning"] = " ".join(warnings)
        say_back(answer, request, new, now)
        return drafts, answer

    return _append(store, id_, now, decide)


def _check_together(new: Schedule, changes: Mapping[str, Any]) -> None:
    """Refuse changes that don't go with what stays."""
    if not _RENDERED.isdisjoint(changes):
        check_rendering(new)
    if not _SPREAD.isdisjoint(changes):
        check_jitter(new)


def _what_was_modified(new: Schedule, changes: dict[str, Any], counted: Recount | None) -> str:
    if counted is not None:
        return "Schedule modified. It counts from now, though a clock that was ahead had passed it."
    modified = f"Schedule modified.{stays_failed(new)}"
    return modified if changes else "Nothing differs; nothing was changed."


def _require_repetitions_left(schedule: Schedule, most: int | None) -> None:
    if most is not None and schedule.repetition_count >= most:
        raise PromptyoselfError(
            "nothing_left",
            f"{schedule.id} has fired {schedule.repetition_count} times, of at most {most}.",
            "Raise --max-repetitions, or cancel it.",
        )


def pause(
    store: Store, id_: str, reason: str | None, now: datetime, *, until: str | None = None
) -> answers.Paused:
    """Hold an active schedule, perhaps ``until`` a time. A paused one can be given such a time.

    Raises:
        PromptyoselfError: ``not_active``, ``already_paused``, or ``nothing_left`` if it has no slot
            from that time on; ``invalid_time`` or ``past_time``.
    """
    back = end_of_pause_at(until, store, now)
    return _change(
        *(store, id_, reason, now),
        lambda state: pausing(store, id_, reason, now, back, state, open_slots(state, id_)),
    )


def end_of_pause_at(until: str | None, store: Store, now: datetime) -> datetime | None:
    """The time at which a pause is to end. A date means its first instant.

    Raises:
        PromptyoselfError: ``invalid_time`` or ``past_time``, among others.
    """
    if until is None:
        return None
    zone = default_zone(store.settings)
    from promptyoself.phrases.moments import read_bound

    back = read_bound(until, zone, now, end=False)
    require_future(back, now, zone)
    return back


def pausing(
    store: Store,
    id_: str,
    reason: str | None,
    now: datetime,
    back: datetime | None,
    state: State,
    slots: _Slots,
) -> tuple[list[Draft], answers.Paused]:
    """The events that pause a schedule with these open ``slots``, and what to answer. Raises as
    :func:`pause` does."""
    schedule = _unfinished(state, id_)
    if schedule.status == "paused" and back is None:
        raise PromptyoselfError(
            "already_paused", f"{id_} is paused already.", "`resume` lets it run again."
        )
    if schedule.next_run is None:
        raise PromptyoselfError(
            "nothing_left",
            f"{id_} has no slot left to fire; its last delivery is under way.",
            "`cancel` ends it; a prompt already sent may still arrive.",
        )
    skipped, uncounted = missed_or_uncounted(schedule, now, "paused")
    if uncounted is None:
        trigger = schedule_trigger(schedule)
        high = high_water(schedule, now, trigger)
        if schedule.last_slot:  # until `resume`, it stays where a clock has put it
            high = max(high, parse_utc(schedule.last_slot))
        following = next_fire_time(trigger, high)
        next_run = None if following is None else format_utc(following)
        if back is not None:
            require_slot_from(back, trigger, high, id_)
    else:  # a machine that can compute its times will count them when it is resumed
        skipped, next_run = [], schedule.next_run
    if back is not None and schedule.status == "paused" and comes_back_at(schedule) is None:
        require_room(state, schedule.agent_id, store.settings)  # to which it will come back
    drafts = skip_drafts(store, schedule, skipped, next_run)
    scheduled = (slot for slot in slots if slot.kind == "scheduled")
    drafts += drop_waiting(store, schedule, scheduled, "paused")
    resume_at = None if back is None else format_utc(back)
    paused = records.SchedulePaused(next_run, reason, uncounted, resume_at)
    drafts.append(store.draft(paused, id_, schedule.agent_id))
    answer: answers.Paused = {"id": id_, "message": "Schedule paused."}
    if back is not None and resume_at is not None:
        answer["resume_at"] = resume_at
        answer["resume_at_local"] = local_time(back, default_zone(store.settings))
        answer["message"] = "Schedule paused. It runs again by itself."
    return drafts, answer


def resume(store: Store, id_: str, reason: str | None, now: datetime) -> answers.Resumed:
    """Let a paused or failed schedule run on, or one that a clock that was ahead has left in the
    future; bring back a cancelled or completed one. Raises ``not_paused``, ``nothing_left``, or why
    its times can't be computed, among others."""
    decide = partial(resuming, store, id_, reason, now)
    return _change(store, id_, reason, now, decide, ends_pause=False)


def resuming(
    store: Store, id_: str, reason: str | None, now: datetime, state: State
) -> tuple[list[Draft], answers.Resumed]:
    """The events that resume a schedule, and what to answer. Raises as :func:`resume` does."""
    schedule = find_schedule(state, id_)
    if schedule.status in ("cancelled", "completed"):
        return revival(store, state, schedule, reason, now)
    ahead = is_ahead(schedule, now)
    if schedule.status not in ("paused", "failed") and not (ahead and schedule.status == "active"):
        raise PromptyoselfError(
            "not_paused",
            f"{id_} is {schedule.status}, not paused.",
            "`resume` is for schedules that are paused, or failed and stopped.",
        )
    return resumption(store, state, schedule, reason, now)


def cancel(store: Store, id_: str, reason: str | None, now: datetime) -> answers.Cancelled:
    """End a schedule. Raises ``already_cancelled`` or ``already_finished``."""
    return _change(
        *(store, id_, reason, now),
        lambda state: cancelling(store, id_, reason, now, state, open_slots(state, id_)),
    )


def cancelling(
    store: Store, id_: str, reason: str | None, now: datetime, state: State, slots: _Slots
) -> tuple[list[Draft], answers.Cancelled]:
    """The events that end a schedule with these open ``slots``, and what to answer. Raises as
    :func:`cancel` does."""
    schedule = find_schedule(state, id_)
    if schedule.status == "cancelled":
        raise PromptyoselfError(
            "already_cancelled", f"{id_} is cancelled already.", "Nothing is left to do."
        )
    if schedule.status == "completed":
        raise PromptyoselfError(
            "already_finished", f"{id_} is completed.", "There is nothing left to cancel."
        )
    gap = skip_reason(schedule, "cancelled")
    skipped, uncounted = missed_or_uncounted(schedule, now, gap)
    drafts = skip_drafts(store, schedule, skipped, None)
    drafts += drop_waiting(store, schedule, slots, "cancelled")
    ended = records.ScheduleCancelled(reason, uncounted)
    drafts.append(store.draft(ended, id_, schedule.agent_id))
    under_way = sum(1 for slot in slots if slot.worker is not None)
    answer: answers.Cancelled = {"cancelled_id": id_, "message": "Schedule cancelled."}
    if under_way:
        answer["under_way"] = under_way
        answer["message"] = "Schedule cancelled; one delivery under way may still arrive."
    return drafts, answer


def run_now(store: Store, id_: str, reason: str | None, now: datetime) -> answers.Triggered:
    """Ask for one delivery now, beside the scheduled ones. Raises ``too_many_triggers``, among
    others."""
    return _change(store, id_, reason, now, partial(triggering, store, id_, reason, now))


def triggering(
    store: Store, id_: str, reason: str | None, now: datetime, state: State
) -> tuple[list[Draft], answers.Triggered]:
    """The event that asks for one delivery, and what to answer. Raises as :func:`run_now` does."""
    schedule = _unfinished(state, id_)
    require_few_waiting(state, schedule.agent_id)
    # A slot of its own, so its instant must be no other slot's, nor that of a trigger before.
    instant, tick = now, timedelta(microseconds=1)
    taken = {schedule.next_run, schedule.last_slot}
    if schedule.last_trigger is not None:
        latest = parse_utc(schedule.last_trigger)
        if latest - now > CLOCK_TOLERANCE:  # by a clock that was ahead
            taken |= claimed_after(store, id_, now)
        else:
            instant = max(now, latest + tick)
    while format_utc(instant) in taken or _is_slot(schedule, instant):
        instant += tick
    slot = format_utc(instant)
    message = "It will be delivered by the loop, or by the next `promptyoself execute`."
    answer: answers.Triggered = {"id": id_, "slot": slot, "message": message}
    if schedule.tier >= APPROVED_TIER:
        verdict = approval_in_log(schedule, format_utc(now))
        if verdict.grant is None or not schedule.approval_triggers:
            answer["warning"] = (
                "As things stand it will be skipped, since no approval of the schedule is for "
                "triggers. A person may give one: "
                f"`promptyoself approve --id {id_} --allow-trigger`."
            )
    record = records.ScheduleTriggered(slot, reason)
    return [store.draft(record, id_, schedule.agent_id)], answer


def _is_slot(schedule: Schedule, instant: datetime) -> bool:
    """Whether the schedule fires at that instant, as far as this machine can tell."""
    try:
        return next_fire_time(schedule_trigger(schedule), instant - instant.resolution) == instant
    except PromptyoselfError:
        return False


def _change(
    store: Store,
    id_: str,
    reason: str | None,
    now: datetime,
    decide: Callable[[State], tuple[list[Draft], Answer]],
    *,
    ends_pause: bool = True,
) -> Answer:
    check_text("reason", reason, MAX_REASON)
    # An unknown id is refused before the lock, which would make folders where there are none.
    find_schedule(store.read().state, id_)
    return _append(store, id_, now, decide, ends_pause=ends_pause)


def _append(
    store: Store,
    id_: str,
    now: datetime,
    decide: Callable[[State], tuple[list[Draft], Answer]],
    *,
    ends_pause: bool = True,
) -> Answer:
    """Append what is decided about a schedule, after the end of its pause if that is over."""

    def telling(state: State) -> tuple[list[Draft], Answer]:
        before: list[Draft] = []
        after = state
        if ends_pause:
            before, after = after_pause(store, state, id_, now)
        drafts, answer = decide(after)
        return with_notice(store, state, [*before, *drafts], now), answer

    return store.transact(now, telling)


def _unfinished(state: State, id_: str, *, allow_failed: bool = False) -> Schedule:
    schedule = find_schedule(state, id_)
    if schedule.status in FINISHED and not (allow_failed and schedule.status == "failed"):
        raise PromptyoselfError(
            "not_active",
            f"{id_} is {schedule.status}.",
            "Register the same prompt again to bring it back.",
        )
    return schedule
