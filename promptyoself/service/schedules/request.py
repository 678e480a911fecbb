"""What a registration or a change asks for, as the doors receive it; how it is read and checked.

Nothing here looks at the schedules there are: :mod:`promptyoself.service.schedules.register` and
:mod:`promptyoself.service.schedules.change` do that, under the log's lock.
"""

from collections import namedtuple
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from promptyoself.core import text_limits
from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.core.setting_values import other_destinations, shown_name
from promptyoself.core.settings import Settings, default_zone
from promptyoself.core.times import (
    format_duration,
    parse_duration,
    parse_zone,
    seconds_of,
    shown,
)
from promptyoself.events.schedule_fields import (
    FIELDS,
    POLICY,
    RENDERERS,
    TEMPLATES,
    Field,
    ScheduleRegistered,
)
from promptyoself.events.target_names import DEFAULT, NEW, TARGETS, target_of
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import Trigger, next_fire_time
from promptyoself.service.schedules.limits import require_route, require_target
from promptyoself.service.schedules.times.asked import (
    TIMES,
    anchor_of,
    closest,
    needs_zone,
    times_of,
)
from promptyoself.service.schedules.transition import registered_destination
from promptyoself.state.schedules import Schedule
from promptyoself.store.access import forbidden

_OPTIONS = (*TIMES, *(name for name in FIELDS if FIELDS[name].help), "reason")
_new_class: Any = namedtuple  # mypy can't know its fields, since they follow from the table
_Options: Any = _new_class("_Options", _OPTIONS, defaults=(None,) * len(_OPTIONS))


class Request(_Options):  # type: ignore[misc]
    """What was asked for, as the doors received it; ``None`` where nothing was said. Times and
    durations are text as a person writes them."""

    __slots__ = ()


_IN_ZONE = (*TIMES, "start_at", "until")


def parse(request: Request, settings: Settings, now: datetime) -> ScheduleRegistered:
    """The registration that a request asks for, checked, with no text of a caller left to read. Its
    ``next_run`` is the first slot from now on. An interval without a start counts from ``now``.

    Raises:
        WrongUsage: ``missing_option``, ``conflicting_options``.
        PromptyoselfError: what :func:`validate`, :func:`check_rendering`, :func:`check_jitter`,
            :func:`check_order` and :func:`first_fire` raise; ``target_not_configured``.
    """
    if request.agent_id is None:
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
    fields = validate(request, settings, now)
    if "schedule_type" not in fields:
        raise WrongUsage(
            "missing_option",
            "None of --time, --cron and --every was given.",
            "Say when: --time '2027-01-31 09:00', --cron '0 9 * * MON' or --every 2h.",
        )
    record = _first_registration(fields, now)
    target = target_of(record.agent_id, record.target)
    require_target(settings, target)
    require_route(target, record.conversation_id)
    return record


def parse_times(request: Request, settings: Settings, now: datetime) -> ScheduleRegistered:
    """The registration that a request of times alone asks for, of no agent and no prompt.

    Raises:
        WrongUsage: ``missing_option``, ``conflicting_options``.
        PromptyoselfError: as :func:`parse`.
    """
    fields = validate(request, settings, now)
    if "schedule_type" not in fields:
        raise WrongUsage(
            "missing_option",
            "Neither --id nor one of --time, --cron and --every was given.",
            "Name a schedule, or say when.",
        )
    return _first_registration({"agent_id": "", "prompt": "", **fields}, now)


def _first_registration(fields: dict[str, Any], now: datetime) -> ScheduleRegistered:
    record = registration(fields, now)
    check_rendering(record)
    check_jitter(record)
    check_order(record)
    return record._replace(next_run=format_utc(first_fire(schedule_trigger(record), now)))


def registration(fields: dict[str, Any], now: datetime) -> ScheduleRegistered:
    """The event of a registration of these fields, with the policy that nothing was said of. Its
    ``next_run`` is yet to be set."""
    defaults = {name: FIELDS[name].default for name in POLICY}
    anchor = anchor_of(fields, now)
    destination = registered_destination(fields)
    return ScheduleRegistered(
        **{**defaults, "next_run": "", "anchor": anchor, **fields, **destination}
    )


def validate(
    request: Request,
    settings: Settings,
    now: datetime,
    *,
    own_zone: str | None = None,
    keep_intervals: bool = False,
) -> dict[str, Any]:
    """The fields of a registration that a request names, as the log is to have them, and its
    ``reason``. What a request unsets is ``None``.

    ``own_zone`` is that of the schedule that is to be changed. Times are read in it where the
    request names no other. Whether this machine knows that zone is only asked where a time needs
    it. ``keep_intervals`` leaves an interval of whole days what it is, as a log has it.

    Raises:
        WrongUsage: ``conflicting_options``.
        PromptyoselfError: the code of what is wrong with a value.
    """
    fields: dict[str, Any] = {}
    if request.agent_id is not None:
        fields["agent_id"] = text_limits.check_agent_id(request.agent_id)
        if settings.only_agent is not None and request.agent_id != settings.only_agent:
            what = f"--agent-id {shown(request.agent_id)} is not"
            raise forbidden(what, settings.only_agent)
    if request.template is not None:
        fields.update(prompt="", template=_check_template(request), render=None)
    elif request.prompt is not None:
        fields.update(prompt=text_limits.check_prompt(request.prompt), template=None)
    if request.render is not None:
        fields["render"] = _check_renderer(request)
    if request.conversation_id is not None:
        fields["conversation_id"] = _check_conversation(request.conversation_id)
    if request.target is not None:
        fields["target"] = request.target or None
        if request.target and request.target not in TARGETS:
            raise _invalid(FIELDS["target"], request.target)
    text_limits.check_name(request.name)
    if request.name is not None:
        fields["name"] = request.name or None
    text_limits.check_text("reason", request.reason, text_limits.MAX_REASON)
    if request.reason is not None:
        fields["reason"] = request.reason
    if request.timezone is not None:
        own_zone = fields["timezone"] = parse_zone(request.timezone)
    if own_zone is None and any(getattr(request, name) is not None for name in _IN_ZONE):
        own_zone = default_zone(settings) if needs_zone(request) or settings.timezone else "UTC"
    zone = own_zone or ""
    if request.start_at is not None:
        fields["start_at"] = _bound(request.start_at, zone, now, end=False)
    if request.until is not None:
        fields["until"] = _bound(request.until, zone, now, end=True)
    if request.max_repetitions is not None:
        fields["max_repetitions"] = request.max_repetitions
        if request.max_repetitions not in FIELDS["max_repetitions"].values:
            raise _invalid(FIELDS["max_repetitions"], request.max_repetitions)
    for name in POLICY:
        if (value := getattr(request, name, None)) is not None:
            fields[name] = _value_of(FIELDS[name], value, settings)
    if "on_failure" in fields:
        fields.update(_whom_to_tell(fields["on_failure"], settings))
    least = settings.caps.min_interval
    fields.update(times_of(request, zone, now, least, keep_intervals=keep_intervals))
    return fields


_CONVERSATIONS = (
    "Give a conversation's id (conv-…); or new, for a conversation of its own at each fire; or "
    "default, for the agent's own."
)


def _check_conversation(text: str) -> str | None:
    """What is to be the conversation; ``None`` where an empty text unsets it."""
    if not text:
        return None
    word = text.casefold()
    if word in (NEW, DEFAULT):
        return word
    if word == "self":
        raise PromptyoselfError(
            "invalid_conversation_id",
            f"--conversation-id {shown(text)} is a word of other tools' for a conversation, and no "
            "id: it would be refused each time.",
            _CONVERSATIONS,
        )
    return text_limits.check_agent_id(text, "--conversation-id", _CONVERSATIONS)


def _check_template(request: Request) -> str:
    name = request.template or ""
    if name not in TEMPLATES:
        raise PromptyoselfError(
            "invalid_template",
            f"--template {shown(name)} isn't known.",
            f"There is: {', '.join(TEMPLATES)}.",
        )
    if request.prompt:
        raise WrongUsage(
            "conflicting_options", "Both --prompt and --template were given.", "Give one of them."
        )
    return name


def _check_renderer(request: Request) -> str | None:
    """The language of a prompt with values; ``None`` where an empty text says that it has none."""
    if request.render and request.render not in RENDERERS:
        raise PromptyoselfError(
            "invalid_render",
            f"The render {shown(request.render)} isn't known.",
            f"There is: {', '.join(RENDERERS)}.",
        )
    if request.render and request.template:
        raise WrongUsage(
            "conflicting_options",
            "Both --render and --template were given.",
            "Give one of them: a template has no values.",
        )
    return request.render or None


def _value_of(field: Field, value: Any, settings: Settings) -> Any:
    """What the log is to have of a policy; ``None`` where it is unset."""
    if field.form == "tags":
        return text_limits.check_tags([tag for tag in value if tag]) or None
    if field.form == "destination":
        require_may_choose(settings, field.name)
    if field.type is bool or (field.can_be_unset and not value):
        return value or None
    if field.form == "duration":
        return parse_duration(value)
    if field.form == "destination":
        return require_destination(settings, value, _option(field.name))
    if field.form == "agent":
        if settings.only_agent is None and value in settings.destinations:
            return value
        option = _option(field.name)
        if "://" in value:  # which the log would keep
            return require_destination(settings, value, option)
        if settings.only_agent not in (None, text_limits.check_agent_id(value, option)):
            raise forbidden(f"{option} {shown(value)} is not", settings.only_agent or "")
    elif value not in field.values:
        raise _invalid(field, value)
    return value


def _whom_to_tell(whom: str | None, settings: Settings) -> dict[str, str | None]:
    """The fields that ``--on-failure`` gives: a destination, if there is one of that name, else an
    agent. A caller who is pinned to an agent names agents alone."""
    if settings.only_agent is None and whom is not None and whom in settings.destinations:
        return {"on_failure": None, "failure_to": whom}
    return {"on_failure": whom, "failure_to": None}


def require_may_choose(settings: Settings, name: str) -> None:
    """Refuse a caller who is pinned to an agent and gives a field that names a destination.

    Raises:
        PromptyoselfError: ``forbidden_destination``.
    """
    if settings.only_agent is not None:
        raise PromptyoselfError(
            "forbidden_destination",
            f"{_option(name)} can't be given by a caller who is pinned to {settings.only_agent!r}.",
            "Where answers go is the operator's choice, and so is what a destination gets.",
        )


def require_may_change(settings: Settings, schedule: Schedule, changes: Mapping[str, Any]) -> None:
    """Refuse a caller who is pinned to an agent and would have a schedule tell another destination,
    or none.

    Raises:
        PromptyoselfError: ``forbidden_destination``.
    """
    if settings.only_agent is None:
        return
    for name, what in (("reply_to", "answers"), ("failure_to", "failures")):
        if name in changes:
            now = getattr(schedule, name) or "none"
            raise PromptyoselfError(
                "forbidden_destination",
                f"The destination of the {what} of {schedule.id} is {now}, and a caller who is "
                f"pinned to {settings.only_agent!r} can't change it.",
                "Where notices go is the operator's choice.",
            )


def require_destination(settings: Settings, name: str, option: str) -> str:
    """Refuse the name of no destination.

    Raises:
        PromptyoselfError: ``unknown_destination``.
    """
    if name not in settings.destinations:
        raise PromptyoselfError(
            "unknown_destination",
            f"{option} {shown_name(name)} is the name of no destination.",
            other_destinations(settings.destinations, name),
        )
    return name


def _bound(text: str, zone: str, now: datetime, *, end: bool) -> str | None:
    """A bound of the times as an instant; ``None`` where an empty text unsets it."""
    if not text:
        return None
    from promptyoself.phrases.moments import read_bound

    return format_utc(read_bound(text, zone, now, end=end))


def check_rendering(schedule: ScheduleRegistered | Schedule) -> None:
    """Refuse a prompt with values that could never be filled in.

    Raises:
        PromptyoselfError: ``invalid_template``, ``unknown_variable``.
    """
    if schedule.render is not None:
        from promptyoself.rules.templates import check_template

        check_template(schedule.prompt)


def check_jitter(schedule: ScheduleRegistered | Schedule) -> None:
    """Refuse a jitter that would mix up slots or outlast the grace.

    Raises:
        PromptyoselfError: ``invalid_jitter``.
    """
    jitter = schedule.jitter
    if not jitter:
        return
    if jitter >= schedule.grace:
        raise PromptyoselfError(
            "invalid_jitter",
            f"A jitter of {format_duration(jitter)} is not shorter than the grace of "
            f"{format_duration(schedule.grace)}.",
            "Take a shorter one, or a longer --grace; else slots would be too late to deliver.",
        )
    if schedule.schedule_type == "once":
        return
    if schedule.schedule_type == "interval":
        shortest, what = float(seconds_of(schedule.schedule_value)), "the interval of"
    else:
        shortest = closest(schedule.schedule_type, schedule.schedule_value)
        what = f"the time between two fires of {shown(schedule.schedule_value)}, which can be"
    if jitter >= shortest:
        raise PromptyoselfError(
            "invalid_jitter",
            f"A jitter of {format_duration(jitter)} is not shorter than {what} "
            f"{format_duration(int(shortest))}.",
            "Take a shorter one, so that slots keep their order.",
        )


def check_order(schedule: ScheduleRegistered | Schedule) -> None:
    """Refuse bounds of which the first is later than the last.

    Raises:
        PromptyoselfError: ``start_after_until``.
    """
    start_at, until = schedule.start_at, schedule.until
    if start_at and until and start_at > until:
        raise PromptyoselfError(
            "start_after_until",
            f"--start-at ({start_at}) is later than --until ({until}).",
            "Exchange or change them.",
        )


def first_fire(trigger: Trigger, after: datetime) -> datetime:
    """The first fire after an instant.

    Raises:
        PromptyoselfError: ``never_fires``.
    """
    first = next_fire_time(trigger, after)
    if first is None:
        raise PromptyoselfError(
            "never_fires",
            "Nothing would ever fire: there is no slot between now and --until.",
            "Check --start-at, --until and the trigger; `promptyoself next` shows fires.",
        )
    return first


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def _invalid(field: Field, value: object) -> PromptyoselfError:
    values = field.values
    if isinstance(values, range):
        wanted = f"a whole number from {values[0]} to {values[-1]}"
    elif field.type is int:
        wanted = f"{', '.join(map(str, values[:-1]))} or {values[-1]}"
    else:
        wanted = "one of " + ", ".join(values)
    return PromptyoselfError(
        f"invalid_{field.name}",
        f"{_option(field.name)} is {value}; it must be {wanted}.",
        "Change it.",
    )
