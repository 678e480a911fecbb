"""Registering and changing schedules: check what was asked, decide, append."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from promptyoself.errors import PromptyoselfError, WrongUsage
from promptyoself.events import (
    DeliverySkipped,
    ScheduleCancelled,
    ScheduleCompleted,
    ScheduleModified,
    SchedulePaused,
    ScheduleRegistered,
    ScheduleResumed,
    ScheduleTriggered,
)
from promptyoself.identity import content_hash, content_of, schedule_id
from promptyoself.instants import format_utc, parse_utc
from promptyoself.ledger import Draft
from promptyoself.policy import MISFIRES, TIERS
from promptyoself.schedules import FINISHED, OpenSlot, Schedule, State
from promptyoself.service.store import Store, find_schedule
from promptyoself.settings import Settings, default_zone
from promptyoself.slots import Skipped, passed, skip_record, trigger_from, trigger_of
from promptyoself.times import (
    format_duration,
    in_zone,
    parse_duration,
    parse_time,
    parse_zone,
    require_future,
)
from promptyoself.triggers import Trigger, next_fire_time, parse_cron

__all__ = [
    "MAX_PROMPT_BYTES",
    "Request",
    "cancel",
    "check_agent_id",
    "modify",
    "pause",
    "preview",
    "prompt_too_long",
    "register",
    "resume",
    "trigger",
]

MAX_PROMPT_BYTES = 1024 * 1024
MAX_NAME = 200
MAX_REASON = 2000
DEFAULT_GRACE = 24 * 3600

_POLICY = ("tier", "daily_budget", "misfire", "grace", "jitter", "envelope")
_TIMING = ("schedule_type", "schedule_value", "timezone", "start_at", "until", "max_repetitions")


class Request(NamedTuple):
    """What was asked for, as the doors received it; ``None`` where nothing was said.

    Times and durations are text as a person writes them.
    """

    agent_id: str | None = None
    prompt: str | None = None
    time: str | None = None
    cron: str | None = None
    every: str | None = None
    start_at: str | None = None
    until: str | None = None
    max_repetitions: int | None = None
    timezone: str | None = None
    misfire: str | None = None
    grace: str | None = None
    name: str | None = None
    conversation_id: str | None = None
    envelope: bool | None = None
    tier: int | None = None
    daily_budget: int | None = None
    jitter: str | None = None
    reason: str | None = None


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
        agent_id = settings.only_agent or settings.default_agent
    if agent_id is None:
        raise WrongUsage(
            "missing_option",
            "No agent was named.",
            "Give --agent-id, or set PROMPTYOSELF_DEFAULT_AGENT_ID.",
        )
    if request.prompt is None:
        raise WrongUsage(
            "missing_option", "No prompt was given.", "Give --prompt or --prompt-file."
        )
    fields = _check(request._replace(agent_id=agent_id), settings, now)
    given = _trigger_fields(request, settings, now)
    if given is None:
        raise WrongUsage(
            "missing_option",
            "None of --time, --cron and --every was given.",
            "Say when: --time '2027-01-31 09:00', --cron '0 9 * * MON' or --every 2h.",
        )
    fields.update(given)
    fields["anchor"] = fields.get("start_at") or _anchor(now)
    for name, default in (("tier", 0), ("misfire", "coalesce"), ("grace", DEFAULT_GRACE)):
        fields.setdefault(name, default)
    _check_jitter(fields)
    first = _first_fire(fields, now)
    record = ScheduleRegistered(next_run=format_utc(first), **fields)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        id_, salt, existing = _place(state, record)
        if existing is not None and existing.status not in FINISHED:
            return [], _already_there(existing, record, request)
        _require_room(state, record.agent_id, settings)
        life = None if existing is None else existing.life + 1
        new = record._replace(salt=salt or None, life=life)
        if existing is not None:
            again = _first_fire(fields, _high_water(existing, now))
            new = new._replace(next_run=format_utc(again))
        answer: dict[str, Any] = {
            "id": id_,
            "created": True,
            **_fires(new.next_run, new.timezone),
            "message": "Prompt scheduled." if life is None else "Prompt scheduled again.",
        }
        if life is not None:
            answer["life"] = life
        return [store.draft(new, id_)], answer

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
    current = find_schedule(store.read().state, id_, settings.only_agent)
    settings = settings._replace(timezone=current.timezone)
    asked = _check(request, settings, now)
    reason = asked.pop("reason", None)
    if request.envelope is not None:
        asked["envelope"] = request.envelope
    asked.update(_trigger_fields(request, settings, now) or {})

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_, settings, allow_failed=True)
        fields = {**schedule._asdict(), **asked}
        changes = {name: fields[name] for name in asked if fields[name] != getattr(schedule, name)}
        drafts: list[Draft] = []
        _check_jitter(fields)
        if any(name in changes for name in _TIMING):
            _require_repetitions_left(schedule, fields["max_repetitions"])
            if any(name in changes for name in ("schedule_type", "schedule_value", "start_at")):
                changes["anchor"] = fields["anchor"] = fields["start_at"] or _anchor(now)
            first = format_utc(_first_fire(fields, _high_water(schedule, now)))
            drafts += _skip(store, schedule, passed(schedule, now, _gap_reason(schedule)), first)
            if first != schedule.next_run:
                changes["next_run"] = first
        if "agent_id" in changes and schedule.status == "active":
            _require_room(state, changes["agent_id"], settings)
        if changes:
            drafts.append(store.draft(ScheduleModified(changes, reason), id_))
        next_run = changes.get("next_run", schedule.next_run)
        return drafts, {
            "id": id_,
            "modified": sorted(name for name in changes if name not in ("next_run", "anchor")),
            **_fires(next_run, fields["timezone"]),
            "message": "Schedule modified." if changes else "Nothing differs; nothing was changed.",
        }

    return store.transact(now, decide)


def pause(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Hold an active schedule. Raises ``not_active`` or ``already_paused``, among others."""
    check_text("reason", reason, MAX_REASON)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_, store.settings)
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
        following = next_fire_time(trigger_of(schedule), _high_water(schedule, now))
        next_run = None if following is None else format_utc(following)
        drafts = _skip(store, schedule, passed(schedule, now, "paused"), next_run)
        drafts += _give_up(store, state, schedule, "paused", kinds={"scheduled"})
        drafts.append(store.draft(SchedulePaused(next_run, reason), id_))
        return drafts, {"id": id_, "message": "Schedule paused."}

    return store.transact(now, decide)


def resume(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Let a paused or failed schedule run on. Raises ``not_paused`` or ``nothing_left``."""
    check_text("reason", reason, MAX_REASON)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = find_schedule(state, id_, store.settings.only_agent)
        if schedule.status not in ("paused", "failed"):
            raise PromptyoselfError(
                "not_paused",
                f"{id_} is {schedule.status}, not paused.",
                "`resume` is for schedules that are paused, or failed and stopped.",
            )
        following = next_fire_time(trigger_of(schedule), _high_water(schedule, now))
        if following is None or schedule.next_run is None:
            if schedule.status == "failed":
                raise PromptyoselfError(
                    "nothing_left",
                    f"{id_} has no slot left to fire.",
                    "Register it again with a new time.",
                )
            drafts = _skip(store, schedule, passed(schedule, now, "paused"), None)
            why = schedule.schedule_type if schedule.schedule_type == "once" else "until"
            status = "failed" if why == "once" else "completed"
            drafts.append(store.draft(ScheduleCompleted(why, status), id_))
            message = "Its last slot passed while it was paused; nothing is left to fire."
            return drafts, {"id": id_, "next_run": None, "message": message}
        _require_room(state, schedule.agent_id, store.settings)
        next_run = format_utc(following)
        drafts = _skip(store, schedule, passed(schedule, now, _gap_reason(schedule)), next_run)
        drafts.append(store.draft(ScheduleResumed(next_run, reason), id_))
        answer = {"id": id_, **_fires(next_run, schedule.timezone), "message": "Schedule resumed."}
        return drafts, answer

    return store.transact(now, decide)


def cancel(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """End a schedule. Raises ``already_cancelled`` or ``already_finished``."""
    check_text("reason", reason, MAX_REASON)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = find_schedule(state, id_, store.settings.only_agent)
        if schedule.status == "cancelled":
            raise PromptyoselfError(
                "already_cancelled", f"{id_} is cancelled already.", "Nothing is left to do."
            )
        if schedule.status == "completed":
            raise PromptyoselfError(
                "already_finished", f"{id_} is completed.", "There is nothing left to cancel."
            )
        gap = _gap_reason(schedule) if schedule.status != "active" else "cancelled"
        drafts = _skip(store, schedule, passed(schedule, now, gap), None)
        drafts += _give_up(store, state, schedule, "cancelled", kinds={"scheduled", "trigger"})
        drafts.append(store.draft(ScheduleCancelled(reason), id_))
        under_way = sum(1 for slot in _open_slots(state, id_) if slot.worker is not None)
        answer: dict[str, Any] = {"cancelled_id": id_, "message": "Schedule cancelled."}
        if under_way:
            answer["under_way"] = under_way
            answer["message"] = "Schedule cancelled; one delivery under way may still arrive."
        return drafts, answer

    return store.transact(now, decide)


def trigger(store: Store, id_: str, reason: str | None, now: datetime) -> dict[str, Any]:
    """Ask for one delivery now, beside the scheduled ones."""
    check_text("reason", reason, MAX_REASON)

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        schedule = _unfinished(state, id_, store.settings)
        # A slot of its own, so its instant must be no other slot's, nor that of a trigger before.
        instant = now
        scheduled, tick = trigger_of(schedule), timedelta(microseconds=1)
        taken = {schedule.next_run, schedule.last_slot}
        if schedule.last_trigger is not None:
            instant = max(now, parse_utc(schedule.last_trigger) + tick)
        while format_utc(instant) in taken or next_fire_time(scheduled, instant - tick) == instant:
            instant += tick
        slot = format_utc(instant)
        message = "It will be delivered by the loop, or by the next `promptyoself execute`."
        answer = {"id": id_, "slot": slot, "message": message}
        return [store.draft(ScheduleTriggered(slot, reason), id_)], answer

    return store.transact(now, decide)


def preview(store: Store, request: Request, now: datetime) -> tuple[Trigger, int | None]:
    """The trigger that a registration would make, and its largest number of repetitions."""
    fields = _trigger_fields(request, store.settings, now)
    if fields is None:
        raise WrongUsage(
            "missing_option",
            "Neither --id nor one of --time, --cron and --every was given.",
            "Name a schedule, or say when.",
        )
    fields.update(_check(request, store.settings, now))
    fields["anchor"] = fields.get("start_at") or _anchor(now)
    _first_fire(fields, now)
    return trigger_from(fields), request.max_repetitions


# Checking what was asked.


def check_agent_id(text: str, option: str = "--agent-id") -> str:
    """Agent and conversation ids are Letta's business; only their form is checked.

    Raises:
        PromptyoselfError: ``invalid_agent_id`` or ``invalid_conversation_id``.
    """
    bad = not 1 <= len(text) <= 200 or any(c.isspace() or not c.isprintable() for c in text)
    if bad:
        raise PromptyoselfError(
            "invalid_" + option.removeprefix("--").replace("-", "_"),
            f"{option} {_shown(text)} is not an id: 1 to 200 characters, without white space.",
            "`promptyoself agents` lists the agents that Letta has.",
        )
    return text


def prompt_too_long(size: str) -> PromptyoselfError:
    """The refusal of a prompt of so many bytes."""
    return PromptyoselfError(
        "prompt_too_long",
        f"The prompt has {size} bytes; {MAX_PROMPT_BYTES} (1 MiB) is the most.",
        "Put the text where the agent can read it, and prompt it to do so.",
    )


def check_prompt(text: str) -> str:
    """Refuse what Letta could not store, or would store changed.

    Raises:
        PromptyoselfError: ``empty_prompt``, ``invalid_prompt`` or ``prompt_too_long``.
    """
    if not text.strip():
        raise PromptyoselfError(
            "empty_prompt", "The prompt is empty or blank.", "Say what the agent is to be told."
        )
    if "\0" in text:
        raise PromptyoselfError(
            "invalid_prompt",
            f"The prompt has a NUL character, at position {text.index(chr(0))}.",
            "Remove it: Letta's database cannot store it.",
        )
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise PromptyoselfError(
            "invalid_prompt",
            f"The prompt is not valid Unicode: a lone surrogate at position {error.start}.",
            "Give it in UTF-8.",
        ) from None
    if size > MAX_PROMPT_BYTES:
        raise prompt_too_long(str(size))
    return text


def check_text(name: str, text: str | None, most: int) -> None:
    """Refuse a name or reason that is too long or not valid Unicode."""
    if text is None:
        return
    problem = ""
    if len(text) > most:
        problem = f"has {len(text)} characters; {most} is the most"
    elif "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        problem = "has a NUL or a lone surrogate"
    if problem:
        raise PromptyoselfError(f"invalid_{name}", f"The {name} {problem}.", "Shorten or mend it.")


def _check(request: Request, settings: Settings, now: datetime) -> dict[str, Any]:
    """The checked fields of everything but the trigger's kind; only what was given."""
    fields: dict[str, Any] = {}
    if request.agent_id is not None:
        fields["agent_id"] = check_agent_id(request.agent_id)
        if settings.only_agent is not None and request.agent_id != settings.only_agent:
            raise PromptyoselfError(
                "forbidden_agent",
                f"--agent-id {_shown(request.agent_id)} is not {settings.only_agent!r}.",
                "PROMPTYOSELF_ONLY_AGENT pins this caller to that agent.",
            )
    if request.prompt is not None:
        fields["prompt"] = check_prompt(request.prompt)
    if request.conversation_id is not None:
        text = request.conversation_id
        fields["conversation_id"] = check_agent_id(text, "--conversation-id") if text else None
    check_text("name", request.name, MAX_NAME)
    if request.name is not None:
        fields["name"] = request.name or None
    check_text("reason", request.reason, MAX_REASON)
    if request.reason is not None:
        fields["reason"] = request.reason
    if request.timezone is not None:
        fields["timezone"] = parse_zone(request.timezone)
    zone = fields.get("timezone") or default_zone(settings)
    for name in ("start_at", "until"):
        text = getattr(request, name)
        if text is not None:
            fields[name] = format_utc(parse_time(text, zone, now)) if text else None
    if request.max_repetitions is not None:
        fields["max_repetitions"] = _within(request, "max_repetitions", 1, 1_000_000_000)
    fields.update(_check_policy(request))
    return fields


def _check_policy(request: Request) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    if request.misfire is not None:
        if request.misfire not in MISFIRES:
            raise _invalid("misfire", request.misfire, "one of " + ", ".join(MISFIRES))
        fields["misfire"] = request.misfire
    if request.tier is not None:
        if request.tier not in TIERS:
            raise _invalid("tier", request.tier, "0, 1 or 2")
        fields["tier"] = request.tier
    if request.daily_budget is not None:
        fields["daily_budget"] = _within(request, "daily_budget", 0, 1_000_000)
    if request.grace is not None:
        fields["grace"] = parse_duration(request.grace)
    if request.jitter is not None:
        fields["jitter"] = parse_duration(request.jitter) if request.jitter else None
    if request.envelope is not None:
        fields["envelope"] = request.envelope or None
    return fields


def _trigger_fields(request: Request, settings: Settings, now: datetime) -> dict[str, Any] | None:
    """What the trigger options say, checked; ``None`` where none of them was given."""
    given = [name for name in ("time", "cron", "every") if getattr(request, name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise WrongUsage(
            "conflicting_options",
            f"Both --{given[0]} and --{given[1]} were given.",
            "Give exactly one of --time, --cron and --every.",
        )
    asked = request.timezone
    zone = default_zone(settings) if asked is None else parse_zone(asked)
    fields: dict[str, Any] = {"timezone": zone}
    if request.time is not None:
        instant = parse_time(request.time, zone, now)
        require_future(instant, now, zone)
        fields.update(schedule_type="once", schedule_value=format_utc(instant))
    elif request.cron is not None:
        fields.update(schedule_type="cron", schedule_value=parse_cron(request.cron))
    else:
        seconds = parse_duration(request.every or "")
        least = settings.caps.min_interval
        if seconds < least:
            raise PromptyoselfError(
                "interval_too_short",
                f"--every {_shown(request.every or '')} is shorter than {format_duration(least)}, "
                "the shortest allowed.",
                "Take a longer one; PROMPTYOSELF_MIN_INTERVAL sets the limit.",
            )
        fields.update(schedule_type="interval", schedule_value=format_duration(seconds))
    for name in ("start_at", "until"):
        text = getattr(request, name)
        if text:
            fields[name] = format_utc(parse_time(text, zone, now))
    return fields


def _check_jitter(fields: dict[str, Any]) -> None:
    jitter = fields.get("jitter")
    if not jitter:
        return
    if jitter >= fields["grace"]:
        raise PromptyoselfError(
            "invalid_jitter",
            f"A jitter of {format_duration(jitter)} is not shorter than the grace of "
            f"{format_duration(fields['grace'])}.",
            "Take a shorter one, or a longer --grace; else slots would be too late to deliver.",
        )
    if fields["schedule_type"] != "interval":
        return
    if jitter >= parse_duration(fields["schedule_value"]):
        raise PromptyoselfError(
            "invalid_jitter",
            f"A jitter of {format_duration(jitter)} is not shorter than the interval of "
            f"{fields['schedule_value']}.",
            "Take a shorter one, so that slots keep their order.",
        )


def _first_fire(fields: dict[str, Any], now: datetime) -> datetime:
    start_at, until = fields.get("start_at"), fields.get("until")
    if start_at and until and start_at > until:
        raise PromptyoselfError(
            "start_after_until",
            f"--start-at ({start_at}) is later than --until ({until}).",
            "Exchange or change them.",
        )
    first = next_fire_time(trigger_from(fields), now)
    if first is None:
        raise PromptyoselfError(
            "never_fires",
            "Nothing would ever fire: there is no slot between now and --until.",
            "Check --start-at, --until and the trigger; `promptyoself next` shows fires.",
        )
    return first


def _anchor(now: datetime) -> str:
    """Where an interval counts from: now, in whole seconds, not to fire before it is over."""
    return format_utc(now + timedelta(microseconds=-now.microsecond % 1_000_000))


def _within(request: Request, name: str, least: int, most: int) -> int:
    value: int = getattr(request, name)
    if not least <= value <= most:
        raise _invalid(name, value, f"a whole number from {least} to {most}")
    return value


def _invalid(name: str, value: object, wanted: str) -> PromptyoselfError:
    option = "--" + name.replace("_", "-")
    return PromptyoselfError(
        f"invalid_{name}", f"{option} is {value}; it must be {wanted}.", "Change it."
    )


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:80] + "…")


# Deciding.


def _place(state: State, record: ScheduleRegistered) -> tuple[str, int, Schedule | None]:
    """The id for some content, the salt it needs, and the schedule that has that content."""
    content = content_of(record)
    registered = content_hash(content)
    salt = 0
    while True:
        id_ = schedule_id(content, salt)
        existing = state.schedules.get(id_)
        if existing is None or existing.registered == registered:
            return id_, salt, existing
        salt += 1


def _already_there(
    existing: Schedule, record: ScheduleRegistered, request: Request
) -> dict[str, Any]:
    # Only what was asked for can differ: leaving an option out is no wish to change it.
    asked = {name for name in _POLICY if getattr(request, name) is not None}
    differs = [
        name
        for name in (*content_of(record), *_POLICY)
        if (name in asked or name not in _POLICY)
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
        answer["hint"] = f"To change it: promptyoself modify --id {existing.id} …"
    return answer


def _said(value: object) -> object:
    """A registration leaves out what is off; a schedule says False."""
    return None if value is False else value


def _require_room(state: State, agent_id: str, settings: Settings) -> None:
    most = settings.caps.max_active_per_agent
    if state.active.get(agent_id, 0) >= most:
        raise PromptyoselfError(
            "too_many_schedules",
            f"{_shown(agent_id)} has {most} active schedules, the most allowed.",
            "Cancel one first; PROMPTYOSELF_MAX_ACTIVE_PER_AGENT sets the limit.",
        )


def _require_repetitions_left(schedule: Schedule, most: int | None) -> None:
    if most is not None and schedule.repetition_count >= most:
        raise PromptyoselfError(
            "nothing_left",
            f"{schedule.id} has fired {schedule.repetition_count} times, of at most {most}.",
            "Raise --max-repetitions, or cancel it.",
        )


def _unfinished(
    state: State, id_: str, settings: Settings, *, allow_failed: bool = False
) -> Schedule:
    schedule = find_schedule(state, id_, settings.only_agent)
    if schedule.status in FINISHED and not (allow_failed and schedule.status == "failed"):
        raise PromptyoselfError(
            "not_active",
            f"{id_} is {schedule.status}.",
            "Register the same prompt again to bring it back.",
        )
    return schedule


def _gap_reason(schedule: Schedule) -> str:
    """Why slots passed unclaimed up to a change of this schedule."""
    return {"paused": "paused", "failed": "parked"}.get(schedule.status, "modified")


def _high_water(schedule: Schedule, now: datetime) -> datetime:
    """No slot up to here may come again, even where the clock has run back."""
    return max(now, parse_utc(schedule.last_slot)) if schedule.last_slot else now


def _skip(
    store: Store, schedule: Schedule, skipped: list[Skipped], next_run: str | None
) -> list[Draft]:
    return [store.draft(skip_record(item, next_run), schedule.id) for item in skipped]


def _open_slots(state: State, id_: str) -> list[OpenSlot]:
    return [slot for slot in state.open.values() if slot.id == id_]


def _give_up(
    store: Store, state: State, schedule: Schedule, why: str, *, kinds: set[str]
) -> list[Draft]:
    """Skip the slots that have begun but are with nobody: known not to have arrived."""
    return [
        store.draft(DeliverySkipped(slot.slot, slot.slot, 1, why, slot.kind), schedule.id)
        for slot in _open_slots(state, schedule.id)
        if slot.worker is None and slot.kind in kinds
    ]


def _fires(next_run: str | None, zone: str) -> dict[str, Any]:
    if next_run is None:
        return {"next_run": None}
    local = in_zone(parse_utc(next_run), zone)
    return {"next_run": next_run, "next_run_local": local, "timezone": zone}
