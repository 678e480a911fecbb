"""What a request says of when to fire: read, checked, and said back."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise
from typing import Any

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.times import (
    DAY,
    format_duration,
    is_zone,
    offset_of,
    parse_duration,
    require_future,
    shown,
    wall_time,
    zone_named,
)
from promptyoself.events.kinds import ScheduleType
from promptyoself.events.schedule_fields import ScheduleRegistered
from promptyoself.rules.triggers import Trigger, next_fire_time, slots
from promptyoself.state.schedules import Schedule

TIMES = ("time", "cron", "every", "rrule", "when")
"""The options that say when; a request has one of them."""


def times_of(
    request: Any, zone: str, now: datetime, least: int, *, keep_intervals: bool = False
) -> dict[str, str]:
    """The kind, the value and the zone of the times; nothing where the request names no times.

    ``least`` is the fewest seconds that may lie between two fires. ``keep_intervals`` leaves an
    interval of whole days what it is, as a log has it.

    Raises:
        WrongUsage: ``conflicting_options``.
        PromptyoselfError: ``invalid_time``, ``past_time``, ``nonexistent_time``, ``invalid_cron``,
            ``cron_never_fires``, ``invalid_duration``, ``interval_too_short``, ``invalid_rrule``,
            ``invalid_when``.
    """
    given = [name for name in TIMES if getattr(request, name) is not None]
    if not given:
        return {}
    if len(given) > 1:
        raise WrongUsage(
            "conflicting_options",
            f"Both --{given[0]} and --{given[1]} were given.",
            "Give exactly one of --time, --cron and --every."
            if set(given) <= {"time", "cron", "every"}
            else "Give exactly one of --time, --cron, --every, --rrule and --when.",
        )
    name, text = given[0], str(getattr(request, given[0]))
    kind, value = name, text
    if name == "when":
        kind, value = _said_as(text, zone, now)
    elif name == "every" and not _is_length(text):
        kind, value = _said_as(f"every {text.strip().lower().removeprefix('every ')}", zone, now)
    read = _READERS[kind](value, f"--{name} {shown(text)}", zone, now, least)
    if kind == "every" and not keep_intervals:
        read = _by_the_calendar(read, zone, now)
    return {"timezone": zone, "schedule_type": read[0], "schedule_value": read[1]}


def _once(text: str, _what: str, zone: str, now: datetime, _least: int) -> tuple[ScheduleType, str]:
    from promptyoself.phrases.moments import read_time

    instant = read_time(text, zone, now)
    require_future(instant, now, zone)
    return "once", format_utc(instant)


def _cron(text: str, what: str, _zone: str, _now: datetime, least: int) -> tuple[ScheduleType, str]:
    from promptyoself.rules.cron_expressions import parse_cron

    expression = parse_cron(text)
    # No two fires of a cron expression are closer than a minute.
    if least > 60 and closest("cron", expression) < least:
        raise _too_short(f"{what} has fires closer together than", least)
    return "cron", expression


def _rrule(
    text: str, what: str, _zone: str, _now: datetime, least: int
) -> tuple[ScheduleType, str]:
    from promptyoself.rules.calendar import parse_rule

    rule = parse_rule(text)
    if least > 60 and closest("rrule", rule) < least:
        raise _too_short(f"{what} has fires closer together than", least)
    return "rrule", rule


def _every(text: str, what: str, zone: str, now: datetime, least: int) -> tuple[ScheduleType, str]:
    if rule := _months_or_years(text):
        return _rrule(rule, what, zone, now, least)
    seconds = parse_duration(text)
    if seconds < least:
        raise _too_short(f"{what} is shorter than", least)
    return "interval", format_duration(seconds)


def needs_zone(request: Any) -> bool:
    """Whether a request has times that are read by the clocks of a place: all but an interval that
    isn't of whole days."""
    others = (*(name for name in TIMES if name != "every"), "start_at", "until")
    if any(getattr(request, name) is not None for name in others):
        return True
    if request.every is None:
        return False
    try:
        return parse_duration(request.every) % 86400 == 0
    except PromptyoselfError:
        return True


_READERS = {"time": _once, "cron": _cron, "rrule": _rrule, "every": _every}


def _is_length(text: str) -> bool:
    """Whether it is a duration, or at least no words."""
    if _months_or_years(text) or " " not in text.strip():
        return True
    try:
        parse_duration(text)
    except PromptyoselfError:
        return False
    return True


def _months_or_years(text: str) -> str:
    """The rule of ``3mo`` or ``1y``; empty for other texts."""
    words = text.strip()
    for unit, frequency in (("mo", "MONTHLY"), ("y", "YEARLY")):
        number = words.removesuffix(unit)
        if number != words and number.isascii() and number.isdigit():
            return f"FREQ={frequency};INTERVAL={number}"
    return ""


def _said_as(text: str, zone: str, now: datetime) -> tuple[str, str]:
    """The strict option, and its value, of a recurrence or an instant in words."""
    from promptyoself.phrases.moments import is_date, read_time
    from promptyoself.phrases.recurrences import EXAMPLES, read_recurrence
    from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError, nearest

    try:
        cron, every, rrule = read_recurrence(text)
    except AmbiguousError as ambiguous:
        raise _no_recurrence(
            text,
            f"can mean two things: {', or '.join(ambiguous.readings)}",
            "Write the one that you mean.",
        ) from None
    except OutsideGrammarError as outside:
        if not _recurs(text):
            try:
                # A day without a time is taken in words, as "tomorrow" is.
                when = f"{text.strip()}T09:00" if is_date(text) else text
                return "time", format_utc(read_time(when, zone, now))
            except PromptyoselfError as error:
                if error.code != "invalid_time" or not error.message.endswith("isn't a time."):
                    raise
        said, _, place = text.strip().rpartition(" ")
        if said and is_zone(place):
            hint = f"Give the zone apart: --when {said!r} --tz {place}."
            raise _no_recurrence(text, "isn't understood", hint) from None
        near = nearest(text, EXAMPLES)
        hint = outside.hint or (f"Did you mean {near!r}?" if near else _WHEN_HINT)
        raise _no_recurrence(text, "isn't understood", hint) from None
    if cron:
        return "cron", cron
    return ("every", every) if every else ("rrule", rrule)


def _recurs(text: str) -> bool:
    return text.strip().lower().startswith(("every", "each"))


_WHEN_HINT = (
    "Write 'tomorrow 9am', 'every weekday at 9', 'every other friday at 16:00', 'every 2 hours' or "
    "'last day of the month at 18:00'; or give --time, --cron, --every or --rrule."
)


def _no_recurrence(text: str, problem: str, hint: str) -> PromptyoselfError:
    return PromptyoselfError("invalid_when", f"{shown(text)} {problem}.", hint, value=text[:200])


# --- lengths that the calendar has --------------------------------------------------------------


def _by_the_calendar(
    read: tuple[ScheduleType, str], zone: str, now: datetime
) -> tuple[ScheduleType, str]:
    """An interval of whole days as a rule, where the zone's clocks change; anything else as it
    is."""
    kind, value = read
    seconds = parse_duration(value) if kind == "interval" else 0
    days, rest = divmod(seconds, 86400)
    if not days or rest or not _changes_clocks(zone, now):
        return read
    unit, number = ("WEEKLY", days // 7) if days % 7 == 0 else ("DAILY", days)
    if number > 1000:
        return read
    from promptyoself.rules.calendar import parse_rule

    return "rrule", parse_rule(f"FREQ={unit};INTERVAL={number}")


def _changes_clocks(zone: str, now: datetime) -> bool:
    """Whether clocks there change in the year to come. No change lasts less than 16 days."""
    local = zone_named(zone)
    if local is UTC:
        return False
    try:
        return len({offset_of(now + 15 * step * DAY, local) for step in range(26)}) > 1
    except OverflowError:  # the calendar's end
        return False


def former_interval(rule: str) -> str | None:
    """The interval that a log of a former version has for a rule of plain days or weeks."""
    parts = dict(part.partition("=")[::2] for part in rule.split(";"))
    days = {"DAILY": 1, "WEEKLY": 7}.get(parts.pop("FREQ", ""))
    number = parts.pop("INTERVAL", "1")
    if days is None or parts or not number.isdigit():
        return None
    return format_duration(int(number) * days * 86400)


def without_its_interval(
    asked: Mapping[str, Any], schedule: Schedule, request: Any
) -> Mapping[str, Any]:
    """What is asked for, without a rule that is the schedule's interval: the one that a former
    version has made of the same ``--every 1d``."""
    if (
        request.every is None
        or (schedule.schedule_type, asked["schedule_type"]) != ("interval", "rrule")
        or former_interval(asked["schedule_value"]) != schedule.schedule_value
    ):
        return asked
    times = ("schedule_type", "schedule_value")
    return {name: value for name, value in asked.items() if name not in times}


def anchor_of(fields: Mapping[str, Any], now: datetime) -> str:
    """What the times count from: the start; or now, in whole seconds, not to fire before an
    interval is over.

    A rule without a start counts from the first time that it names, if nothing but its frequency
    is given, from this minute. So ``every other friday`` begins with the next Friday.

    Raises:
        PromptyoselfError: ``invalid_rrule``, ``unknown_zone``.
    """
    if fields.get("start_at"):
        return str(fields["start_at"])
    if fields.get("schedule_type") != "rrule":
        return format_utc(now + timedelta(microseconds=-now.microsecond % 1_000_000))
    minute = now.replace(second=0, microsecond=0)
    rule, zone = fields["schedule_value"], fields["timezone"]
    parts = [part for part in rule.split(";") if not part.startswith("INTERVAL=")]
    if len(parts) == 1:
        return format_utc(minute)
    each = Trigger("rrule", ";".join(parts), zone, minute)
    return format_utc(next_fire_time(each, now) or minute)


def closest(kind: ScheduleType, value: str) -> float:
    """The fewest seconds between two fires of a cron expression or a rule, by the clock on the
    wall. At a change of clocks, any two may be closer."""
    trigger = Trigger(kind, value, "UTC", _A_MONDAY)
    until = _A_MONDAY + timedelta(days=9 * 366)
    fires = islice(slots(trigger, _A_MONDAY, until), _ENOUGH_FIRES)
    gaps = ((later - fire).total_seconds() for fire, later in pairwise(fires))
    return min(gaps, default=float("inf"))


_ENOUGH_FIRES = 3000
"""This many fires show how close two can be: they are a year's, where there are eight a day."""

_A_MONDAY = datetime(2024, 1, 1, tzinfo=UTC)  # of a leap year


def _too_short(what: str, least: int) -> PromptyoselfError:
    return PromptyoselfError(
        "interval_too_short",
        f"{what} {format_duration(least)}, the shortest allowed.",
        "Take a longer one; PROMPTYOSELF_MIN_INTERVAL sets the limit.",
    )


# --- what people may not expect -----------------------------------------------------------------


def warnings_of_times(request: Any, schedule: ScheduleRegistered | Schedule) -> list[str]:
    """Sentences about times that are asked for and fire otherwise than people may expect: a cron
    expression that restricts both the day of the month and the weekday, of which either is enough;
    and a rule of a day that some months don't have."""
    if all(getattr(request, name) is None for name in TIMES):
        return []
    if schedule.schedule_type == "cron":
        _, _, day, _, weekday = schedule.schedule_value.split()
        if day.startswith("*") or weekday.startswith("*"):
            return []
        return [
            f"It fires on each day of the month that is {day}, and on each weekday that is "
            f"{weekday} too: in cron, either is enough. For both, use --rrule with BYMONTHDAY and "
            "BYDAY; the first Monday of a month is MON#1."
        ]
    if schedule.schedule_type != "rrule":
        return []
    parts = dict(part.split("=") for part in completed(schedule).split(";"))
    days = [int(day) for day in parts.get("BYMONTHDAY", "0").split(",")]
    if parts["FREQ"] == "MONTHLY" and max(days) > 28:
        return [
            f"Months without a day {max(days)} are skipped. For the last day of each month, use "
            "--rrule with BYMONTHDAY=-1."
        ]
    if parts["FREQ"] == "YEARLY" and parts.get("BYMONTH") == "2" and days == [29]:
        return ["Years without a 29 February are skipped."]
    return []


def completed(schedule: ScheduleRegistered | Schedule) -> str:
    """The rule of a schedule, with everything that it leaves open.

    Raises:
        PromptyoselfError: ``invalid_rrule``, ``unknown_zone``.
    """
    from promptyoself.rules.calendar import completed_rule

    wall = wall_time(parse_utc(schedule.anchor), zone_named(schedule.timezone))
    return completed_rule(schedule.schedule_value, wall)
