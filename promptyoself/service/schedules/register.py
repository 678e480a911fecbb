"""Registering and changing schedules: decide on the state as it is, and append."""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.core.times import local_time, shown
from promptyoself.core.validation import MAX_REASON, check_text
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED, MISSED, SkipReason, SlotKind
from promptyoself.events.records import (
    DeliverySkipped,
    ScheduleCancelled,
    ScheduleCompleted,
    ScheduleModified,
    SchedulePaused,
    ScheduleRegistered,
    ScheduleResumed,
    ScheduleTriggered,
)
from promptyoself.events.schedule_fields import FIELDS, FLAGS, POLICY, TIMING, content_of
from promptyoself.rules.daily_rate import exceeded
from promptyoself.rules.placement import place
from promptyoself.rules.policy import APPROVED_TIER, approval_in_log
from promptyoself.rules.slots import (
    CLOCK_TOLERANCE,
    SkippedRange,
    is_ahead,
    missed_slots,
    schedule_trigger,
    skip_event,
    trigger_from_fields,
)
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.service.schedules.request import (
    Request,
    anchor_for,
    check_jitter,
    checked,
    first_fire,
    trigger_fields,
)
from promptyoself.state.schedules import OpenSlot, Schedule, State, prompt_size
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

__all__ = [
    "MAX_WAITING_TRIGGERS",
    "cancel",
    "modify",
    "pause",
    "preview",
    "register",
    "require_room",
    "require_space",
    "resume",
    "resumption",
    "trigger",
]


MAX_WAITING_TRIGGERS = 100
"""The most deliveries that were asked for and wait, of one agent."""

_SPREAD = frozenset({"jitter", "grace", "schedule_type", "schedule_value"})
_PACE = frozenset(
    {"schedule_type", "schedule_value", "timezone", "until", "daily_budget", "agent_id"}
    | {"max_repetitions"}
)
_SPACE = frozenset({"agent_id", "prompt", "template"})


def register(
    store: Store, request: Request, now: datetime, *, dry_run: bool = False
) -> dict[str, Any]:
    """Register a prompt; the same content again changes nothing and returns the same id.

    Raises:
        PromptyoselfError: one of the codes of bad input, with nothing changed.
    """
    settings = store.settings
    agent_id = request.agent_id
    if agent_id is None:
        agent_id = store.pinned_to or settings.default_agent
    if agent_id is None:
        raise WrongUsage(
            "missing_option",
            "No agent was named.",
            "Give --agent-id, or set PROMPTYOSELF_DEFAULT_AGENT_ID.",
        )
    if request.prompt is None and request.template is None:
        raise WrongUsage(
            "missing_option",
            "No prompt was given.",
            "Give --prompt or --template. At a shell, --prompt-file reads it from a file.",
        )
    fields = checked(request._replace(agent_id=agent_id), settings, now)
    given = trigger_fields(request, settings, now)
    if given is None:
        raise WrongUsage(
            "missing_option",
            "None of --time, --cron and --every was given.",
            "Say when: --time '2027-01-31 09:00', --cron '0 9 * * MON' or --every 2h.",
        )
    fields.update(given)
    fields["anchor"] = fields.get("start_at") or anchor_for(now)
    for name in POLICY:
        if FIELDS[name].default is not None:
            fields.setdefault(name, FIELDS[name].default)
    check_jitter(fields)
    first = first_fire(fields, now)
    record = ScheduleRegistered(next_run=format_utc(first), **fields)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        id_, salt, existing = place(store.unpinned_state(state), record)
        if existing is not None and existing.status not in FINISHED:
            return [], _already_there(existing, record, request)
        require_room(state, record.agent_id, settings)
        require_space(state, record.agent_id, record.prompt, settings)
        life = None if existing is None else existing.life + 1
        new = record._replace(salt=salt or None, life=life)
        drafts: list[Draft] = []
        if existing is not None:
            spec = fields
            if is_ahead(existing, now):
                again = _reopened(store, id_, trigger_from_fields(fields), now)
                new = new._replace(**again)
                spec = {**fields, "without": again["without"]}
                drafts += _give_up_ahead(store, state, existing, now)
            first_again = first_fire(spec, _high_water(existing, now, trigger_from_fields(spec)))
            new = new._replace(next_run=format_utc(first_again))
        answer: dict[str, Any] = {
            "id": id_,
            "created": True,
            **_fires(new.next_run, new.timezone),
            "message": "Prompt scheduled." if life is None else "Prompt scheduled again.",
        }
        warnings = list(exceeded(state, settings.caps, new._asdict(), id_))
        if new.tier >= 2:
            warnings.append(
                "Tier 2 needs an approval for each delivery, which a person gives. "
                f"At a shell: `promptyoself approve --id {id_}`. Slots without one are skipped."
            )
        answer.update(_warning(warnings))
        if life is not None:
            answer["life"] = life
        return [*drafts, store.draft(new, id_, new.agent_id)], answer

    if dry_run:
        _, answer = decide(store.read().state)
        return {**answer, "dry_run": True, "message": "Nothing was scheduled: this was a dry run."}
    return store.transact(now, decide)


def modify(store: Store, id_: str, request: Request, now: datetime) -> dict[str, Any]:
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
    asked = checked(request, settings, now, own_zone=current.timezone)
    reason = asked.pop("reason", None)
    for name in FLAGS:  # a schedule has them as False where they are off
        if getattr(request, name) is not None:
            asked[name] = getattr(request, name)
    asked.update(trigger_fields(request, settings, now, own_zone=current.timezone) or {})

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_, allow_failed=True)
        fields = {**schedule._asdict(), **asked}
        changes = {name: fields[name] for name in asked if fields[name] != getattr(schedule, name)}
        drafts: list[Draft] = []
        again: dict[str, Any] = {}
        uncounted: str | None = None
        if not _SPREAD.isdisjoint(changes):
            check_jitter(fields)
        ahead = is_ahead(schedule, now) and any(name in asked for name in TIMING)
        if ahead or any(name in changes for name in TIMING):
            _require_repetitions_left(schedule, fields["max_repetitions"])
            if any(name in changes for name in ("schedule_type", "schedule_value", "start_at")):
                changes["anchor"] = fields["anchor"] = fields["start_at"] or anchor_for(now)
            if ahead:
                again = _reopened(store, id_, trigger_from_fields(fields), now)
                fields["without"] = again["without"]
                drafts += _give_up_ahead(store, state, schedule, now)
            first = format_utc(
                first_fire(fields, _high_water(schedule, now, trigger_from_fields(fields)))
            )
            skipped, uncounted = _passed(schedule, now, _gap_reason(schedule))
            drafts += _skip(store, schedule, skipped, first)
            if first != schedule.next_run:
                changes["next_run"] = first
        if "agent_id" in changes and schedule.status == "active":
            require_room(state, changes["agent_id"], settings)
        if schedule.status not in FINISHED and not _SPACE.isdisjoint(changes):
            own = schedule if fields["agent_id"] == schedule.agent_id else None
            require_space(state, fields["agent_id"], fields["prompt"], settings, own)
        if changes or again:
            record = ScheduleModified(changes, reason, uncounted, **again)
            drafts.append(store.draft(record, id_, fields["agent_id"]))
        next_run = changes.get("next_run", schedule.next_run)
        answer = {
            "id": id_,
            "modified": sorted(name for name in changes if name not in ("next_run", "anchor")),
            **_fires(next_run, fields["timezone"]),
            "message": _what_was_modified(changes, counts=bool(again)),
        }
        if schedule.status == "active" and not _PACE.isdisjoint(changes):
            pace = exceeded(state, settings.caps, {**fields, "next_run": next_run}, id_)
            answer.update(_warning(pace))
        return _telling(store, state, drafts, now), answer

    return store.transact(now, decide)


def pause(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Hold an active schedule. Raises ``not_active`` or ``already_paused``, among others."""

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_)
        if schedule.status == "paused":
            raise PromptyoselfError(
                "already_paused", f"{id_} is paused already.", "`resume` lets it run again."
            )
        if schedule.next_run is None:
            raise PromptyoselfError(
                "nothing_left",
                f"{id_} has no slot left to fire; its last delivery is under way.",
                "`cancel` ends it; a prompt already sent may still arrive.",
            )
        skipped, uncounted = _passed(schedule, now, "paused")
        if uncounted is None:
            trigger = schedule_trigger(schedule)
            high = _high_water(schedule, now, trigger)
            if schedule.last_slot:  # until `resume`, it stays where a clock has put it
                high = max(high, parse_utc(schedule.last_slot))
            following = next_fire_time(trigger, high)
            next_run = None if following is None else format_utc(following)
        else:  # whoever resumes it will be able to tell what has passed since this one
            skipped, next_run = [], schedule.next_run
        drafts = _skip(store, schedule, skipped, next_run)
        drafts += _give_up(store, state, schedule, "paused", kinds={"scheduled"})
        paused = SchedulePaused(next_run, reason, uncounted)
        drafts.append(store.draft(paused, id_, schedule.agent_id))
        return drafts, {"id": id_, "message": "Schedule paused."}

    return _change(store, id_, reason, now, decide)


def resume(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Let a paused or failed schedule run on, or one that a clock that was ahead has left in the
    future. Raises ``not_paused``, ``nothing_left``, or why its times can't be computed."""

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = find_schedule(state, id_)
        ahead = is_ahead(schedule, now)
        if schedule.status not in ("paused", "failed") and not (
            ahead and schedule.status == "active"
        ):
            raise PromptyoselfError(
                "not_paused",
                f"{id_} is {schedule.status}, not paused.",
                "`resume` is for schedules that are paused, or failed and stopped.",
            )
        return resumption(store, state, schedule, reason, now)

    return _change(store, id_, reason, now, decide)


def resumption(
    store: Store, state: State, schedule: Schedule, reason: str | None, now: datetime
) -> tuple[list[Draft], dict[str, Any]]:
    """The events that let a paused or failed schedule run on, and what to answer.

    Raises:
        PromptyoselfError: ``nothing_left``, ``too_many_schedules``, or why its times can't be
            computed on this machine.
    """
    again: dict[str, Any] = {}
    trigger, ahead = _computable(schedule), is_ahead(schedule, now)
    if ahead:
        again = _reopened(store, schedule.id, trigger, now)
        trigger = trigger_from_fields({**schedule._asdict(), "without": again["without"]})
    following = next_fire_time(trigger, _high_water(schedule, now, trigger))
    if following is None or schedule.next_run is None:
        if schedule.status == "failed":
            raise PromptyoselfError(
                "nothing_left",
                f"{schedule.id} has no slot left to fire.",
                "Register it again with a new time.",
            )
        drafts = _skip(store, schedule, missed_slots(schedule, now, "paused"), None)
        once = schedule.schedule_type == "once"
        end = (
            ScheduleCompleted("once", "failed") if once else ScheduleCompleted("until", "completed")
        )
        drafts.append(store.draft(end, schedule.id, schedule.agent_id))
        message = "Its last slot passed while it was paused; nothing is left to fire."
        return drafts, {"id": schedule.id, "next_run": None, "message": message}
    require_room(state, schedule.agent_id, store.settings)
    if schedule.status in FINISHED:
        require_space(state, schedule.agent_id, schedule.prompt, store.settings)
    next_run = format_utc(following)
    drafts = _skip(store, schedule, missed_slots(schedule, now, _gap_reason(schedule)), next_run)
    drafts += _give_up_ahead(store, state, schedule, now) if ahead else []
    resumed = ScheduleResumed(next_run, reason, **again)
    drafts.append(store.draft(resumed, schedule.id, schedule.agent_id))
    answer = {
        "id": schedule.id,
        **_fires(next_run, schedule.timezone),
        "message": "Schedule resumed.",
    }
    fields = schedule._replace(next_run=next_run)._asdict()
    answer.update(_warning(exceeded(state, store.settings.caps, fields, schedule.id)))
    return drafts, answer


def cancel(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """End a schedule. Raises ``already_cancelled`` or ``already_finished``."""

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = find_schedule(state, id_)
        if schedule.status == "cancelled":
            raise PromptyoselfError(
                "already_cancelled", f"{id_} is cancelled already.", "Nothing is left to do."
            )
        if schedule.status == "completed":
            raise PromptyoselfError(
                "already_finished", f"{id_} is completed.", "There is nothing left to cancel."
            )
        gap = _gap_reason(schedule, "cancelled")
        skipped, uncounted = _passed(schedule, now, gap)
        drafts = _skip(store, schedule, skipped, None)
        drafts += _give_up(store, state, schedule, "cancelled", kinds={"scheduled", "trigger"})
        ended = ScheduleCancelled(reason, uncounted)
        drafts.append(store.draft(ended, id_, schedule.agent_id))
        under_way = sum(1 for slot in _open_slots(state, id_) if slot.worker is not None)
        answer: dict[str, Any] = {"cancelled_id": id_, "message": "Schedule cancelled."}
        if under_way:
            answer["under_way"] = under_way
            answer["message"] = "Schedule cancelled; one delivery under way may still arrive."
        return drafts, answer

    return _change(store, id_, reason, now, decide)


def trigger(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Ask for one delivery now, beside the scheduled ones. Raises ``too_many_triggers``, among
    others."""

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_)
        _require_patience(state, schedule.agent_id)
        # A slot of its own, so its instant must be no other slot's, nor that of a trigger before.
        instant, tick = now, timedelta(microseconds=1)
        taken = {schedule.next_run, schedule.last_slot}
        if schedule.last_trigger is not None:
            latest = parse_utc(schedule.last_trigger)
            if latest - now > CLOCK_TOLERANCE:  # by a clock that was ahead
                from promptyoself.service.schedules.clock_rollback import claimed_after

                taken |= claimed_after(store, id_, now)
            else:
                instant = max(now, latest + tick)
        while format_utc(instant) in taken or _is_slot(schedule, instant):
            instant += tick
        slot = format_utc(instant)
        message = "It will be delivered by the loop, or by the next `promptyoself execute`."
        answer = {"id": id_, "slot": slot, "message": message}
        if schedule.tier >= APPROVED_TIER:
            verdict = approval_in_log(schedule, format_utc(now))
            if verdict.grant is None or not schedule.approval_triggers:
                answer["warning"] = (
                    "As things stand it will be skipped, since no approval of the schedule is for "
                    "triggers. A person may give one: "
                    f"`promptyoself approve --id {id_} --allow-trigger`."
                )
        return [store.draft(ScheduleTriggered(slot, reason), id_, schedule.agent_id)], answer

    return _change(store, id_, reason, now, decide)


def _change(
    store: Store,
    id_: str,
    reason: str | None,
    now: datetime,
    decide: Callable[[State], tuple[list[Draft], dict[str, Any]]],
) -> dict[str, Any]:
    check_text("reason", reason, MAX_REASON)
    # An unknown id is refused before the lock, which would make folders where there are none.
    find_schedule(store.read().state, id_)

    def telling(state: State) -> tuple[list[Draft], dict[str, Any]]:
        drafts, answer = decide(state)
        return _telling(store, state, drafts, now), answer

    return store.transact(now, telling)


def preview(store: Store, request: Request, now: datetime) -> tuple[Trigger, int | None]:
    """The trigger that a registration would make, and its largest number of repetitions."""
    fields = trigger_fields(request, store.settings, now)
    if fields is None:
        raise WrongUsage(
            "missing_option",
            "Neither --id nor one of --time, --cron and --every was given.",
            "Name a schedule, or say when.",
        )
    fields.update(checked(request, store.settings, now))
    fields["anchor"] = fields.get("start_at") or anchor_for(now)
    first_fire(fields, now)
    return trigger_from_fields(fields), request.max_repetitions


def _already_there(
    existing: Schedule, record: ScheduleRegistered, request: Request
) -> dict[str, Any]:
    # Only what was asked for can differ: leaving an option out is no wish to change it.
    asked = {name for name in POLICY if getattr(request, name) is not None}
    differs = [
        name
        for name in (*content_of(record), *POLICY)
        if (name in asked or name not in POLICY)
        and _said(getattr(existing, name)) != _said(getattr(record, name))
    ]
    answer: dict[str, Any] = {
        "id": existing.id,
        "created": False,
        **_fires(existing.next_run if existing.status == "active" else None, existing.timezone),
        "message": "This prompt is scheduled already; nothing was changed.",
    }
    if existing.status == "paused":
        answer["message"] = "This prompt is scheduled already, and paused; nothing was changed."
    if differs:
        answer["differs"] = differs
        answer["hint"] = f"`promptyoself modify --id {existing.id}`, with new values, changes it."
    return answer


def _said(value: object) -> object:
    """A registration leaves out what is off; a schedule says False."""
    return None if value is False else value


def require_room(state: State, agent_id: str, settings: Settings) -> None:
    """Refuse one more active schedule than an agent may have. Raises ``too_many_schedules``."""
    most = settings.caps.max_active_per_agent
    if state.agent(agent_id).active >= most:
        raise PromptyoselfError(
            "too_many_schedules",
            f"{shown(agent_id)} has {most} active schedules, the most allowed.",
            "Cancel one first; PROMPTYOSELF_MAX_ACTIVE_PER_AGENT sets the limit.",
        )


def require_space(
    state: State, agent_id: str, prompt: str, settings: Settings, instead: Schedule | None = None
) -> None:
    """Refuse a prompt where an agent's have as many bytes as they may; not one that is no longer
    than what it is ``instead`` of. Raises ``prompts_too_large``."""
    most, size = settings.caps.max_prompt_bytes_per_agent, len(prompt.encode())
    before = 0 if instead is None else prompt_size(instead)
    together = state.agent(agent_id).prompt_bytes - before + size
    if together > most and size > before:
        raise PromptyoselfError(
            "prompts_too_large",
            f"The prompts of {shown(agent_id)} would have {together} bytes together; {most} is the "
            "most allowed.",
            "Shorten them, or cancel one first; PROMPTYOSELF_MAX_PROMPT_BYTES_PER_AGENT sets the "
            "limit.",
            bytes=together,
            limit=most,
        )


def _require_patience(state: State, agent_id: str) -> None:
    """Refuse one more trigger than may wait for an agent. Raises ``too_many_triggers``."""
    waiting = sum(
        1
        for slot in state.open.values()
        if slot.agent_id == agent_id and slot.kind == "trigger" and slot.worker is None
    )
    if waiting >= MAX_WAITING_TRIGGERS:
        raise PromptyoselfError(
            "too_many_triggers",
            f"{shown(agent_id)} has {waiting} triggered deliveries that wait, the most allowed.",
            "See with `promptyoself doctor` that a loop is running; each that it delivers makes "
            "room for another.",
        )


def _require_repetitions_left(schedule: Schedule, most: int | None) -> None:
    if most is not None and schedule.repetition_count >= most:
        raise PromptyoselfError(
            "nothing_left",
            f"{schedule.id} has fired {schedule.repetition_count} times, of at most {most}.",
            "Raise --max-repetitions, or cancel it.",
        )


def _unfinished(state: State, id_: str, *, allow_failed: bool = False) -> Schedule:
    schedule = find_schedule(state, id_)
    if schedule.status in FINISHED and not (allow_failed and schedule.status == "failed"):
        raise PromptyoselfError(
            "not_active",
            f"{id_} is {schedule.status}.",
            "Register the same prompt again to bring it back.",
        )
    return schedule


def _gap_reason(schedule: Schedule, otherwise: SkipReason = "modified") -> SkipReason:
    """Why slots passed unclaimed up to a change of this schedule, where they were on time."""
    if schedule.status == "paused":
        return "paused"
    return "parked" if schedule.status == "failed" else otherwise


def _high_water(schedule: Schedule, now: datetime, trigger: Trigger) -> datetime:
    """No slot of ``trigger`` up to here may come again; nor one at the instant of a slot that was
    asked for, whose name it would have. Where a clock that was ahead has decided later ones, those
    that don't come again are left out of the trigger itself."""
    high, asked = now, schedule.last_trigger
    if schedule.last_slot and parse_utc(schedule.last_slot) - now <= CLOCK_TOLERANCE:
        high = max(now, parse_utc(schedule.last_slot))
    if asked is not None and next_fire_time(trigger, high) == parse_utc(asked):
        return parse_utc(asked)
    return high


def _reopened(store: Store, id_: str, trigger: Trigger, now: datetime) -> dict[str, Any]:
    # Few ever need it.
    from promptyoself.service.schedules.clock_rollback import reopened

    return reopened(store, id_, trigger, now)


def _is_slot(schedule: Schedule, instant: datetime) -> bool:
    """Whether the schedule fires at that instant, as far as this machine can tell."""
    try:
        return next_fire_time(schedule_trigger(schedule), instant - instant.resolution) == instant
    except PromptyoselfError:
        return False


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


def _passed(
    schedule: Schedule, now: datetime, why: SkipReason
) -> tuple[list[SkippedRange], str | None]:
    """The slots that have passed unclaimed. Where this machine can't tell which they are, the code
    of the error that says so, and of them only the one that the log has promised."""
    try:
        next_fire_time(schedule_trigger(schedule), now)
        return missed_slots(schedule, now, why), None
    except PromptyoselfError as error:
        if schedule.next_run is None or parse_utc(schedule.next_run) > now:
            return [], error.code
        first = parse_utc(schedule.next_run)
        return [SkippedRange(first, first, 1, why)], error.code


def _give_up_ahead(store: Store, state: State, schedule: Schedule, now: datetime) -> list[Draft]:
    """Skip what a clock that was ahead has begun, and would try again only when its time comes."""
    text = format_utc(now)
    return [
        store.draft(DeliverySkipped(slot.slot, slot.slot, 1, "clock", slot.kind), schedule.id)
        for slot in _open_slots(state, schedule.id)
        if slot.worker is None and slot.slot > text
    ]


def _what_was_modified(changes: dict[str, Any], *, counts: bool) -> str:
    if counts:
        return "Schedule modified. It counts from now, though a clock that was ahead had passed it."
    return "Schedule modified." if changes else "Nothing differs; nothing was changed."


def _skip(
    store: Store, schedule: Schedule, skipped: list[SkippedRange], next_run: str | None
) -> list[Draft]:
    # Each says what comes next: the range that follows, or what lies ahead.
    upcoming = [*(format_utc(item.first) for item in skipped[1:]), next_run]
    return [
        store.draft(skip_event(item, after), schedule.id, schedule.agent_id)
        for item, after in zip(skipped, upcoming, strict=False)
    ]


def _telling(store: Store, state: State, drafts: list[Draft], now: datetime) -> list[Draft]:
    """The same, and a notice where slots had been missed that somebody is to be told of."""
    whys = {each.record.why for each in drafts if isinstance(each.record, DeliverySkipped)}
    if whys.isdisjoint(MISSED):
        return drafts
    from promptyoself.rules.notices import with_notices

    return with_notices(store.unpinned_state(state), drafts, now, store.settings.caps, store.warn)


def _open_slots(state: State, id_: str) -> list[OpenSlot]:
    return [slot for slot in state.open.values() if slot.id == id_]


def _give_up(
    store: Store, state: State, schedule: Schedule, why: SkipReason, *, kinds: set[SlotKind]
) -> list[Draft]:
    """Skip the slots that have begun but are with nobody: known not to have arrived."""
    return [
        store.draft(
            DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind), schedule.id, schedule.agent_id
        )
        for slot in _open_slots(state, schedule.id)
        if slot.worker is None and slot.kind in kinds
    ]


def _warning(sentences: Iterable[str]) -> dict[str, str]:
    """The key under which an answer has them, if there are any."""
    warning = " ".join(sentences)
    return {"warning": warning} if warning else {}


def _fires(next_run: str | None, zone: str) -> dict[str, Any]:
    if next_run is None:
        return {"next_run": None}
    local = local_time(parse_utc(next_run), zone)
    return {"next_run": next_run, "next_run_local": local, "timezone": zone}
