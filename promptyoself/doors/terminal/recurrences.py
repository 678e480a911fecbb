"""How schedules recur, in words. Pure."""

from __future__ import annotations

import re
from calendar import day_name, month_abbr
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache


def recurrence(kind: str, value: str, zone: str, home: str) -> str:
    """How a schedule recurs, in words. The zone of the clocks that it goes by is named where it
    isn't ``home``, the reader's own."""
    if kind == "once":
        return "once"
    if kind == "interval":
        return f"every {value}"
    words = in_words(value) if kind == "cron" else rule_in_words(value)
    return words + ("" if zone == home else f" ({zone})")


@lru_cache(maxsize=4096)
def in_words(expression: str) -> str:
    """A cron expression in words: ``weekdays at 09:00``. It stays as it is where words would
    mislead: cron-descriptor joins a day of the month and a weekday by "and", but cron fires on
    either."""
    from cron_descriptor import (
        FormatError,
        MissingFieldError,
        Options,
        WrongArgumentError,
        get_description,
    )

    fields = expression.split()
    if len(fields) != 5 or not (fields[2].startswith("*") or fields[4].startswith("*")):
        return expression
    # Told of no locale, it would look for the machine's, and warn where there is none.
    options = Options(use_24hour_time_format=True, locale_code="en_US")
    try:
        words: str = get_description(expression, options)
    except (FormatError, MissingFieldError, WrongArgumentError, ValueError, IndexError):
        return expression
    for day in day_name[:7]:
        words = words.replace(day, day[:3])
    for long, short in _SHORTER:
        words = words.replace(long, short)
    if match := re.fullmatch(r"At ([0-9:]{5}(?:(?:,| and|, and) [0-9:]{5})*)(?:, (.*))?", words):
        words = f"{match[2] or 'daily'} at {match[1]}"
    return words[:1].lower() + words[1:] if words.startswith(("Every", "At", "On")) else words


def rule_in_words(rule: str) -> str:
    """A recurrence rule of RFC 5545 in words: ``every 2 weeks, Fri at 16:00``. One that says more
    than days and times stays as it is. One that leaves its time open, such as ``FREQ=DAILY``, is
    said without."""
    with suppress(ValueError, IndexError):  # of another version, perhaps
        return _rule_in_words(rule)
    return rule


def _rule_in_words(rule: str) -> str:
    parts = dict(part.partition("=")[::2] for part in rule.split(";"))
    unit = _FREQUENCIES.get(parts.pop("FREQ", ""))
    hours, minutes = (parts.pop(name, "") for name in ("BYHOUR", "BYMINUTE"))
    days = [*_days_of(parts), *_month_days_of(parts)]
    months = [
        month_abbr[int(month)] for month in parts.pop("BYMONTH", "").split(",") if month.isdigit()
    ]
    every = parts.pop("INTERVAL", "1")
    parts.pop("WKST", None)
    if unit is None or parts or (minutes and not hours):
        return rule
    times = [
        f"{int(hour):02}:{int(minute):02}"
        for hour in (hours.split(",") if hours else ())
        for minute in (minutes or "0").split(",")
    ]
    often = {"1": f"every {unit}", "2": f"every other {unit}"}.get(every, f"every {every} {unit}s")
    if unit == "week" and every == "1" and days:
        often = ""
    elif unit == "week" and every == "2" and len(days) == 1:
        often, days = f"every other {days[0]}", []
    elif (unit, every) == ("day", "1"):
        often = "daily"
    named = [often, _listed(days), "in " + _listed(months) if months else ""]
    words = ", ".join(part for part in named if part)
    return f"{words} at {_listed(times)}" if times else words


def _days_of(parts: dict[str, str]) -> Iterator[str]:
    """The weekdays that a rule names, as ``Mon``, or ``first Mon``."""
    for day in filter(None, parts.pop("BYDAY", "").split(",")):
        name = day_name[_WEEKDAYS.index(day[-2:])][:3]
        place = _PLACES.get(day[:-2], f"{day[:-2]}.") if day[:-2] else ""
        yield f"{place} {name}".strip()


def _month_days_of(parts: dict[str, str]) -> Iterator[str]:
    for day in filter(None, parts.pop("BYMONTHDAY", "").split(",")):
        yield {"-1": "last day"}.get(day, f"day {day}")


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""]))


_FREQUENCIES = {"DAILY": "day", "WEEKLY": "week", "MONTHLY": "month", "YEARLY": "year"}
_WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
_PLACES = {"1": "first", "2": "second", "3": "third", "4": "fourth", "-1": "last"}

_SHORTER = (
    (", and ", " and "),
    (" through ", " to "),
    ("Mon to Fri", "weekdays"),
    (", only on ", ", "),
    (", only in ", " in "),
    (", on the ", ", "),
    (", on day ", ", day "),
    (", between ", " between "),
    (" minutes", " min"),
)
