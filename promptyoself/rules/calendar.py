"""Calendar recurrences: rules of RFC 5545 whose times are those of the clock on the wall.

python-dateutil expands the days. How their times become instants is the rule of a cron job of fixed
times: a time that clocks jump over is the end of the jump, and one that they show twice is the
first of the two.

A canonical rule names everything that RFC 5545 would take from its first instant. So its fires
follow from the rule and from the period in which its first instant lies, and are found without
walking through all fires since.

Pure. dateutil is imported only where a rule is expanded, because that takes 10 ms.
"""

from __future__ import annotations

import re
from calendar import monthrange
from collections.abc import Iterator
from datetime import datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND
from promptyoself.core.times import DAY, midnight, shown, to_instant, wall_time

if TYPE_CHECKING:
    from dateutil.rrule import rrule

_FREQUENCIES = ("DAILY", "WEEKLY", "MONTHLY", "YEARLY")
_DAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
# Each part that lists numbers, with the smallest and the largest of them.
_NUMBERS = {
    "BYMONTH": (1, 12),
    "BYMONTHDAY": (1, 31),
    "BYYEARDAY": (1, 366),
    "BYWEEKNO": (1, 53),
    "BYSETPOS": (1, 366),
    "BYHOUR": (0, 23),
    "BYMINUTE": (0, 59),
}
_FROM_THE_END = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
_DAY_PARTS = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYDAY")
_ORDER = ("FREQ", "INTERVAL", "WKST", "BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY",
          "BYHOUR", "BYMINUTE", "BYSETPOS")  # fmt: skip
_LONGEST = 500  # characters
_MOST_INTERVAL = 1000
_LAST_YEAR = 9990
_HINT = (
    "Write a rule of RFC 5545 such as FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9: FREQ is DAILY, WEEKLY,"
    " MONTHLY or YEARLY."
)
# What recurs most rarely, a 29 February on one weekday, comes up to 40 years later.
_RAREST = timedelta(days=366 * 41)


def canonical_rule(text: str, first: datetime) -> str:
    """The rule with everything that it leaves to its first instant, in a fixed order.

    ``first`` is the naive wall time from which it counts.

    Raises:
        PromptyoselfError: ``invalid_rrule``.
    """
    parts = _parts(text)
    frequency = parts["FREQ"]
    if "BYMINUTE" not in parts:
        # Of an hour that is named, people mean the full hour, whenever they register.
        parts["BYMINUTE"] = "0" if "BYHOUR" in parts else str(first.minute)
    if "BYHOUR" not in parts:
        parts["BYHOUR"] = str(first.hour)
    if not any(part in parts for part in _DAY_PARTS):
        if frequency == "WEEKLY":
            parts["BYDAY"] = _DAYS[first.weekday()]
        elif frequency in ("MONTHLY", "YEARLY"):
            parts["BYMONTHDAY"] = str(first.day)
            if frequency == "YEARLY" and "BYMONTH" not in parts:
                parts["BYMONTH"] = str(first.month)
    if parts.get("INTERVAL") == "1":
        del parts["INTERVAL"]
    if (frequency != "WEEKLY" and "BYWEEKNO" not in parts) or parts.get("WKST") == "MO":
        parts.pop("WKST", None)
    return ";".join(f"{name}={parts[name]}" for name in _ORDER if name in parts)


def _parts(text: str) -> dict[str, str]:
    """The parts of a rule by name, each checked. Raises ``invalid_rrule``."""

    def fault(problem: str, hint: str = _HINT) -> PromptyoselfError:
        message = f"The rule {shown(text)} {problem}."
        return PromptyoselfError("invalid_rrule", message, hint, value=text[:200])

    if len(text) > _LONGEST:
        raise fault(f"is longer than {_LONGEST} characters")
    parts: dict[str, str] = {}
    for item in text.strip().upper().removeprefix("RRULE:").split(";"):
        name, equals, value = (word.strip() for word in item.partition("="))
        if not equals or not value:
            raise fault(f"has {shown(item)}, which isn't NAME=VALUE")
        if name in parts:
            raise fault(f"has {name} twice")
        parts[name] = _checked(name, value, fault)
    if "FREQ" not in parts:
        raise fault("has no FREQ")
    months, days = parts.get("BYMONTH"), parts.get("BYMONTHDAY")
    if months and days:
        longest = max(monthrange(2024, int(month))[1] for month in months.split(","))
        if min(abs(int(day)) for day in days.split(",")) > longest:
            raise fault("names no day that there is", f"Those months have {longest} days at most.")
    return parts


def _checked(name: str, value: str, fault: Any) -> str:
    """The value of a part in its canonical spelling."""
    if name == "FREQ":
        if value not in _FREQUENCIES:
            raise fault(f"has the frequency {shown(value)}")
        return value
    if name in ("COUNT", "UNTIL", "DTSTART"):
        option = {"COUNT": "--max-repetitions", "UNTIL": "--until", "DTSTART": "--start-at"}[name]
        raise fault(f"has {name}", f"Give {option} instead.")
    if name == "INTERVAL":
        if not re.fullmatch(r"[0-9]{1,4}", value) or not 1 <= int(value) <= _MOST_INTERVAL:
            raise fault(f"has the interval {shown(value)}", f"It is from 1 to {_MOST_INTERVAL}.")
        return str(int(value))
    if name == "WKST":
        if value not in _DAYS:
            raise fault(f"begins weeks on {shown(value)}", f"Use one of {', '.join(_DAYS)}.")
        return value
    if name == "BYDAY":
        days = value.split(",")
        if not all(re.fullmatch(rf"([+-]?[1-9][0-9]?)?({'|'.join(_DAYS)})", day) for day in days):
            hint = "Write MO, 1MO for the first Monday or -1FR for the last Friday."
            raise fault(f"has the days {shown(value)}", hint)
        return ",".join(dict.fromkeys(day.removeprefix("+") for day in days))
    if name not in _NUMBERS:
        raise fault(f"has {shown(name)}", f"It may have {', '.join(_ORDER)}.")
    low, high = _NUMBERS[name]
    sign = "-?" if name in _FROM_THE_END else ""
    numbers = value.split(",")
    if not all(
        re.fullmatch(rf"{sign}[0-9]{{1,3}}", one) and low <= abs(int(one)) <= high
        for one in numbers
    ):
        raise fault(f"has {name}={value}", f"Numbers there go from {low} to {high}.")
    return ",".join(str(number) for number in sorted({int(one) for one in numbers}))


# --- fires --------------------------------------------------------------------------------------


def rule_fires(rule: str, first: datetime, zone: tzinfo, low: datetime) -> Iterator[datetime]:
    """Yield every fire of a canonical rule after ``low`` (both aware), ascending, none before
    ``first``, until no year has any more. Wall times that are one instant are one fire."""
    counted_from = wall_time(first, zone)
    # An overlap brings back a day's times.
    wall = max(wall_time(low, zone) - DAY, counted_from) - MICROSECOND
    latest = max(low, first - MICROSECOND)
    while wall.year < _LAST_YEAR:
        end = wall
        for named in _expansion(rule, _period_before(rule, counted_from, wall)).xafter(wall):
            end = named
            fire = to_instant(named, zone)
            if fire > latest:
                yield fire
                latest = fire
        if end == wall:
            return
        wall = end


@lru_cache(maxsize=256)
def _expansion(rule: str, start: datetime) -> rrule:
    """The wall times of a rule from a period's beginning on, for as long as the rarest one takes to
    come: without an end, dateutil looks for a 30 February until the year 9999."""
    from dateutil.rrule import rrulestr

    end = min(start + _RAREST, datetime(_LAST_YEAR, 1, 1))  # noqa: DTZ001
    expanded: rrule = rrulestr(f"RRULE:{rule};BYSECOND=0;UNTIL={end:%Y%m%dT%H%M%S}", dtstart=start)
    return expanded


def _period_before(rule: str, first: datetime, wall: datetime) -> datetime:
    """The midnight that begins the latest period of the rule, counted from that of ``first``, which
    begins before ``wall``."""
    parts = dict(part.split("=") for part in rule.split(";"))
    interval, day = int(parts.get("INTERVAL", "1")), midnight(first)
    match parts["FREQ"]:
        case "DAILY":
            return day + (wall - day).days // interval * interval * DAY
        case "WEEKLY":
            monday = day - (day.weekday() - _DAYS.index(parts.get("WKST", "MO"))) % 7 * DAY
            return monday + (wall - monday).days // (7 * interval) * 7 * interval * DAY
        case "MONTHLY":
            months = (wall.year - day.year) * 12 + wall.month - day.month
            year, month = divmod(day.year * 12 + day.month - 1 + months // interval * interval, 12)
            return datetime(year, month + 1, 1)  # noqa: DTZ001
        case _:
            year = day.year + (wall.year - day.year) // interval * interval
            return datetime(year, 1, 1)  # noqa: DTZ001
