"""What a registration or a change asks for, as the doors receive it, and the checks of it.

Nothing here looks at the schedules there are: that is decided under the lock, in
:mod:`promptyoself.service.schedules.register`.
"""

from collections import namedtuple
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc
from promptyoself.core.settings import Settings, default_zone
from promptyoself.core.times import (
    format_duration,
    parse_bound,
    parse_duration,
    parse_time,
    parse_zone,
    require_future,
    shown,
)
from promptyoself.core.validation import (
    MAX_NAME,
    MAX_REASON,
    check_agent_id,
    check_prompt,
    check_text,
)
from promptyoself.events.schedule_fields import FIELDS, POLICY, TEMPLATES, Field
from promptyoself.rules.slots import trigger_from_fields
from promptyoself.rules.triggers import Trigger, next_fire_time, parse_cron, slots
from promptyoself.store.access import forbidden

__all__ = [
    "Request",
    "anchor_for",
    "check_jitter",
    "checked",
    "first_fire",
    "trigger_fields",
]


_OPTIONS = ("time", "cron", "every", *(name for name in FIELDS if FIELDS[name].help), "reason")
_new_class: Any = namedtuple  # mypy can't know its fields, since they follow from the table
_Options: Any = _new_class("_Options", _OPTIONS, defaults=(None,) * len(_OPTIONS))


class Request(_Options):  # type: ignore[misc]
    """What was asked for, as the doors received it; ``None`` where nothing was said.

    Times and durations are text as a person writes them.
    """

    __slots__ = ()


def checked(
    request: Request, settings: Settings, now: datetime, *, own_zone: str | None = None
) -> dict[str, Any]:
    """The checked fields of everything but the trigger's kind; only what was given.

    ``own_zone`` is that of the schedule that is to be changed. Times are read in it where no other
    is given; that it is known on this machine is only asked where a time needs it.
    """
    fields: dict[str, Any] = {}
    if request.agent_id is not None:
        fields["agent_id"] = check_agent_id(request.agent_id)
        if settings.only_agent is not None and request.agent_id != settings.only_agent:
            what = f"--agent-id {shown(request.agent_id)} is not"
            raise forbidden(what, settings.only_agent)
    if request.template is not None:
        fields.update(prompt="", template=_check_template(request))
    elif request.prompt is not None:
        fields.update(prompt=check_prompt(request.prompt), template=None)
    if request.conversation_id is not None:
        fields["conversation_id"] = _check_conversation(request.conversation_id)
    check_text("name", request.name, MAX_NAME)
    if request.name is not None:
        fields["name"] = request.name or None
    check_text("reason", request.reason, MAX_REASON)
    if request.reason is not None:
        fields["reason"] = request.reason
    if request.timezone is not None:
        fields["timezone"] = parse_zone(request.timezone)
    for name in ("start_at", "until"):
        text = getattr(request, name)
        if text is not None:
            zone = _zone_of(request, settings, own_zone) if text else ""
            bound = parse_bound(text, zone, now, end=name == "until") if text else None
            fields[name] = None if bound is None else format_utc(bound)
    if request.max_repetitions is not None:
        fields["max_repetitions"] = request.max_repetitions
        if request.max_repetitions not in FIELDS["max_repetitions"].values:
            raise _invalid(FIELDS["max_repetitions"], request.max_repetitions)
    fields.update(_policy_of(request, settings))
    return fields


def _check_conversation(text: str) -> str | None:
    """What is to be the conversation; ``None`` where an empty text unsets it."""
    if not text:
        return None
    if text.casefold() in _NO_CONVERSATIONS:
        raise PromptyoselfError(
            "invalid_conversation_id",
            f"--conversation-id {shown(text)} is a word of other tools' for a conversation, and no "
            "id: Letta would refuse it each time.",
            "Make the conversation in Letta first, and give its id (conv-…); or leave the option "
            "out, for the agent's own conversation.",
        )
    return check_agent_id(text, "--conversation-id")


_NO_CONVERSATIONS = frozenset({"new", "self"})


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
            "conflicting_options",
            "Both --prompt and --template were given.",
            "Give one of them.",
        )
    return name


def _policy_of(request: Request, settings: Settings) -> dict[str, Any]:
    """The checked policy, as the log is to have it; only what was given."""
    given = {name: getattr(request, name) for name in POLICY}
    return {
        name: _value_of(FIELDS[name], value, settings)
        for name, value in given.items()
        if value is not None
    }


def _value_of(field: Field, value: Any, settings: Settings) -> Any:
    """What the log is to have of a policy; ``None`` where it is unset."""
    if field.type is bool or (field.can_be_unset and not value):
        return value or None
    if field.form == "duration":
        return parse_duration(value)
    if field.form == "agent":
        option = _option(field.name)
        if settings.only_agent not in (None, check_agent_id(value, option)):
            raise forbidden(f"{option} {shown(value)} is not", settings.only_agent or "")
    elif value not in field.values:
        raise _invalid(field, value)
    return value


def _zone_of(request: Request, settings: Settings, own_zone: str | None) -> str:
    """The zone in which a request's times are read."""
    if request.timezone is not None:
        return parse_zone(request.timezone)
    return default_zone(settings) if own_zone is None else own_zone


def trigger_fields(
    request: Request, settings: Settings, now: datetime, *, own_zone: str | None = None
) -> dict[str, Any] | None:
    """The kind, value and zone of the trigger asked for, checked; ``None`` where none was. Its
    bounds, and ``own_zone``, are :func:`checked`'s."""
    given = [name for name in ("time", "cron", "every") if getattr(request, name) is not None]
    if not given:
        return None
    if len(given) > 1:
        raise WrongUsage(
            "conflicting_options",
            f"Both --{given[0]} and --{given[1]} were given.",
            "Give exactly one of --time, --cron and --every.",
        )
    zone = _zone_of(request, settings, own_zone)
    fields: dict[str, Any] = {"timezone": zone}
    if request.time is not None:
        instant = parse_time(request.time, zone, now)
        require_future(instant, now, zone)
        fields.update(schedule_type="once", schedule_value=format_utc(instant))
    elif request.cron is not None:
        expression = parse_cron(request.cron)
        _require_apart(expression, request.cron, settings.caps.min_interval)
        fields.update(schedule_type="cron", schedule_value=expression)
    else:
        seconds = parse_duration(request.every or "")
        least = settings.caps.min_interval
        if seconds < least:
            raise _too_short(f"--every {shown(request.every or '')} is shorter than", least)
        fields.update(schedule_type="interval", schedule_value=format_duration(seconds))
    return fields


def _require_apart(expression: str, asked: str, least: int) -> None:
    """Refuse a cron expression with two fires closer than ``least`` seconds. Raises
    ``interval_too_short``."""
    if least <= 60:  # which no two are
        return
    if _closest(expression) < least:
        raise _too_short(f"--cron {shown(asked)} has fires closer together than", least)


def _closest(expression: str) -> float:
    """The fewest seconds between two fires of a cron expression, going by the clock on the wall: at
    a change of clocks, any two may be closer."""
    trigger = Trigger("cron", expression, "UTC", _A_MONDAY)
    fires = islice(slots(trigger, _A_MONDAY, _A_MONDAY + timedelta(days=9 * 366)), _FIRES)
    gaps = ((later - fire).total_seconds() for fire, later in pairwise(fires))
    return min(gaps, default=float("inf"))


_FIRES = 3000
"""So many fires show how close two can be: a year's, where there are eight a day."""

_A_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)  # of a leap year


def _too_short(what: str, least: int) -> PromptyoselfError:
    return PromptyoselfError(
        "interval_too_short",
        f"{what} {format_duration(least)}, the shortest allowed.",
        "Take a longer one; PROMPTYOSELF_MIN_INTERVAL sets the limit.",
    )


def check_jitter(fields: dict[str, Any]) -> None:
    """Refuse a jitter that would mix up slots or outlast the grace. Raises ``invalid_jitter``."""
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
    if fields["schedule_type"] == "once":
        return
    if fields["schedule_type"] == "interval":
        shortest, what = float(parse_duration(fields["schedule_value"])), "the interval of"
    else:
        shortest = _closest(fields["schedule_value"])
        what = f"the time between two fires of {shown(fields['schedule_value'])}, which can be"
    if jitter >= shortest:
        raise PromptyoselfError(
            "invalid_jitter",
            f"A jitter of {format_duration(jitter)} is not shorter than {what} "
            f"{format_duration(int(shortest))}.",
            "Take a shorter one, so that slots keep their order.",
        )


def first_fire(fields: dict[str, Any], now: datetime) -> datetime:
    """The first fire after ``now``. Raises ``never_fires`` or ``start_after_until``."""
    start_at, until = fields.get("start_at"), fields.get("until")
    if start_at and until and start_at > until:
        raise PromptyoselfError(
            "start_after_until",
            f"--start-at ({start_at}) is later than --until ({until}).",
            "Exchange or change them.",
        )
    first = next_fire_time(trigger_from_fields(fields), now)
    if first is None:
        raise PromptyoselfError(
            "never_fires",
            "Nothing would ever fire: there is no slot between now and --until.",
            "Check --start-at, --until and the trigger; `promptyoself next` shows fires.",
        )
    return first


def anchor_for(now: datetime) -> str:
    """Where an interval counts from: now, in whole seconds, not to fire before it is over."""
    return format_utc(now + timedelta(microseconds=-now.microsecond % 1_000_000))


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
