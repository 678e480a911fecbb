"""Calendar recurrences: rules of RFC 5545 whose times are those of the clock on the wall.

How its times become instants is the rule of a cron job of fixed times
(:mod:`promptyoself.rules.clock_changes`): a time that clocks jump over comes right after the jump,
and one that they show twice comes the first time.

The log has a rule as it was given, in one spelling. What it leaves open follows from the wall time
that it counts from: ``FREQ=WEEKLY`` is on that time's weekday, at its hour. So the same rule given
twice is the same content, as ``--every 1d`` is.

The days are computed here and not by python-dateutil, which looks through all years up to 9999
where no day matches, and can't go back. The tests compare the two. Pure.
"""

from __future__ import annotations

import re
from calendar import isleap, monthrange
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import DAY, midnight, shown

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
    "BYSECOND": (0, 59),
}
_FROM_THE_END = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYSETPOS")
_DAY_PARTS = ("BYMONTHDAY", "BYYEARDAY", "BYWEEKNO", "BYDAY")
_TIME_PARTS = ("BYHOUR", "BYMINUTE", "BYSECOND")
_ORDER = ("FREQ", "INTERVAL", "WKST", "BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYDAY",
          *_TIME_PARTS, "BYSETPOS")  # fmt: skip
_LONGEST = 500  # characters
_MOST_INTERVAL = 1000
_LAST_DAY = datetime(9989, 12, 31)  # noqa: DTZ001
_HINT = (
    "Write a rule of RFC 5545 such as FREQ=MONTHLY;BYDAY=1MO;BYHOUR=9: FREQ is DAILY, WEEKLY,"
    " MONTHLY or YEARLY."
)
_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
# How many periods may go by without a day: what recurs most rarely, a 29 February on one weekday,
# comes up to 40 years later.
_RAREST = {"DAILY": 41 * 366, "WEEKLY": 41 * 53, "MONTHLY": 41 * 12, "YEARLY": 41}


class _Days(NamedTuple):
    """Which days of a period a rule names. An empty set leaves its part open."""

    months: frozenset[int]
    weeks: frozenset[int]
    year_days: frozenset[int]
    month_days: frozenset[int]
    weekdays: frozenset[int]  # Monday is 0
    numbered: frozenset[tuple[int, int]]  # a weekday and which of them; -1 is the last
    positions: frozenset[int]  # of the days of a period that the other parts name
    week_start: int
    of_year: bool  # whether weekdays are numbered in the year

    def of(self, period: list[datetime]) -> list[datetime]:
        """The named ones of a period's days, ascending."""
        named = [day for day in period if self._has(day)]
        if not self.positions:
            return named
        count = len(named)
        return [
            day
            for position, day in enumerate(named, 1)
            if position in self.positions or position - count - 1 in self.positions
        ]

    def _has(self, day: datetime) -> bool:
        if self.months and day.month not in self.months:
            return False
        length = _MONTH_LENGTHS[day.month - 1] + (day.month == 2 and isleap(day.year))
        if self.month_days and self.month_days.isdisjoint((day.day, day.day - length - 1)):
            return False
        number, count = day.day, length
        if self.year_days or self.of_year:
            number, count = day.timetuple().tm_yday, 365 + isleap(day.year)
        if self.year_days and self.year_days.isdisjoint((number, number - count - 1)):
            return False
        if self.weeks and self.weeks.isdisjoint(self._week_of(day)):
            return False
        if not self.weekdays and not self.numbered:
            return True
        weekday = day.weekday()
        if weekday in self.weekdays or not self.numbered:
            return weekday in self.weekdays
        if not self.of_year:
            number, count = day.day, length
        places = {(weekday, (number - 1) // 7 + 1), (weekday, -((count - number) // 7 + 1))}
        return not self.numbered.isdisjoint(places)

    def _week_of(self, day: datetime) -> tuple[int, int]:
        """The number of the day's week in the year that has most of it, and counted from behind."""
        middle = day + (3 - (day.weekday() - self.week_start) % 7) * DAY
        number = (middle.timetuple().tm_yday - 1) // 7 + 1
        left = (365 + isleap(middle.year) - middle.timetuple().tm_yday) // 7
        return number, -left - 1


class CalendarRule(NamedTuple):
    """The times that a rule names, by the clock on the wall."""

    text: str  # with everything that it leaves open, in a fixed order
    days: _Days
    frequency: str
    interval: int
    first: datetime  # the midnight of the period that the rule counts from
    counted_from: datetime  # the midnight of the day that it counts from; no day is earlier
    times: tuple[timedelta, ...]  # the named times of a day, since its midnight, ascending

    def days_from(self, day: datetime, back: bool = False) -> Iterator[datetime]:
        """Yield the named days, naive midnights, from ``day`` on, or back from it, included; until
        there are no more of them."""
        day = min(day, _LAST_DAY) if back else max(day, self.counted_from)
        empty, period = 0, self._periods_until(day)
        while period >= 0 and empty < _RAREST[self.frequency]:
            begin = self._start_of(period)
            if begin > _LAST_DAY:
                return
            days = self.days.of(self._days_of_period(begin))
            for named in reversed(days) if back else days:
                if named <= day if back else named >= day:
                    if named < self.counted_from:
                        return
                    yield named
            empty = 0 if days else empty + 1
            period += -1 if back else 1

    def _days_of_period(self, begin: datetime) -> list[datetime]:
        """The days of the period that begins there, without those of months that aren't named."""
        if self.frequency == "DAILY":
            return [begin]
        if self.frequency == "WEEKLY":
            return [begin + number * DAY for number in range(7)]
        months = [begin.month] if self.frequency == "MONTHLY" else range(1, 13)
        year = begin.year
        return [
            datetime(year, month, number)  # noqa: DTZ001
            for month in months
            if not self.days.months or month in self.days.months
            for number in range(1, monthrange(year, month)[1] + 1)
        ]

    def _periods_until(self, day: datetime) -> int:
        """How many periods lie between the first one and that of ``day``; negative before it."""
        first = self.first
        if self.frequency == "DAILY":
            units = (day - first).days
        elif self.frequency == "WEEKLY":
            units = (day - first).days // 7
        elif self.frequency == "MONTHLY":
            units = (day.year - first.year) * 12 + day.month - first.month
        else:
            units = day.year - first.year
        return units // self.interval

    def _start_of(self, period: int) -> datetime:
        """The midnight that begins a period; no later than that of the last year."""
        first, units = self.first, period * self.interval
        last = _LAST_DAY + DAY
        if self.frequency in ("DAILY", "WEEKLY"):
            days = units * (7 if self.frequency == "WEEKLY" else 1)
            return first + days * DAY if days < (last - first).days else last
        months = units * (1 if self.frequency == "MONTHLY" else 12)
        year, month = divmod(first.year * 12 + first.month - 1 + months, 12)
        return datetime(year, month + 1, 1) if year < last.year else last  # noqa: DTZ001


@lru_cache(maxsize=1024)
def read_rule(text: str, counted_from: datetime) -> CalendarRule:
    """Expand a rule that counts from a naive wall time.

    Raises:
        PromptyoselfError: ``invalid_rrule``. A rule that never fires is no error here.
    """
    parts = _completed(text, counted_from)
    frequency, day = parts["FREQ"], midnight(counted_from)
    first = day
    if frequency == "WEEKLY":
        first -= (day.weekday() - _DAYS.index(parts.get("WKST", "MO"))) % 7 * DAY
    elif frequency != "DAILY":
        first = first.replace(day=1, month=day.month if frequency == "MONTHLY" else 1)
    hours, minutes, seconds = (
        [int(number) for number in parts.get(name, "0").split(",")] for name in _TIME_PARTS
    )
    return CalendarRule(
        _spelled(parts),
        _days_named(parts),
        frequency,
        int(parts.get("INTERVAL", "1")),
        first,
        day,
        tuple(
            timedelta(hours=hour, minutes=minute, seconds=second)
            for hour in hours
            for minute in minutes
            for second in seconds
        ),
    )


def _days_named(parts: dict[str, str]) -> _Days:
    months, weeks, year_days, month_days, positions = (
        frozenset(int(number) for number in parts.get(name, "").split(",") if number)
        for name in ("BYMONTH", "BYWEEKNO", "BYYEARDAY", "BYMONTHDAY", "BYSETPOS")
    )
    named = [day for day in parts.get("BYDAY", "").split(",") if day]
    return _Days(
        months,
        weeks,
        year_days,
        month_days,
        frozenset(_DAYS.index(day) for day in named if len(day) == 2),
        frozenset((_DAYS.index(day[-2:]), int(day[:-2])) for day in named if len(day) > 2),
        positions,
        _DAYS.index(parts.get("WKST", "MO")),
        parts["FREQ"] == "YEARLY" and not months,
    )


def parse_rule(text: str) -> str:
    """Check a rule, and return it in its one spelling.

    Raises:
        PromptyoselfError: ``invalid_rrule``.
    """
    return _spelled(_parts(text))


def completed_rule(text: str, counted_from: datetime) -> str:
    """The rule with everything that it leaves to the naive wall time that it counts from.

    Raises:
        PromptyoselfError: ``invalid_rrule``.
    """
    return _spelled(_completed(text, counted_from))


def _completed(text: str, counted_from: datetime) -> dict[str, str]:
    parts = dict(_parts(text))
    frequency = parts["FREQ"]
    if "BYHOUR" not in parts:
        parts["BYHOUR"] = str(counted_from.hour)
        if "BYMINUTE" not in parts:
            parts["BYMINUTE"] = str(counted_from.minute)
            if "BYSECOND" not in parts and counted_from.second:
                parts["BYSECOND"] = str(counted_from.second)
    # Of an hour that is named, people mean the full hour, whenever they register.
    parts.setdefault("BYMINUTE", "0")
    if not any(part in parts for part in _DAY_PARTS):
        if frequency == "WEEKLY":
            parts["BYDAY"] = _DAYS[counted_from.weekday()]
        elif frequency in ("MONTHLY", "YEARLY"):
            parts["BYMONTHDAY"] = str(counted_from.day)
            if frequency == "YEARLY" and "BYMONTH" not in parts:
                parts["BYMONTH"] = str(counted_from.month)
    return parts


def _spelled(parts: dict[str, str]) -> str:
    return ";".join(f"{name}={parts[name]}" for name in _ORDER if name in parts)


@lru_cache(maxsize=1024)
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
    frequency = parts["FREQ"]
    if re.search(r"[0-9]", parts.get("BYDAY", "")) and (
        frequency not in ("MONTHLY", "YEARLY") or "BYWEEKNO" in parts
    ):
        hint = "That is for FREQ=MONTHLY or YEARLY, and without BYWEEKNO."
        raise fault(f"numbers its weekdays ({parts['BYDAY']})", hint)
    if "BYSETPOS" in parts and any("," in parts.get(name, "") for name in _TIME_PARTS):
        hint = "BYSETPOS picks days here. Register a schedule for each time of day."
        raise fault("has BYSETPOS and several times of day", hint)
    months, days = parts.get("BYMONTH"), parts.get("BYMONTHDAY")
    if months and days:
        longest = max(monthrange(2024, int(month))[1] for month in months.split(","))
        if min(abs(int(day)) for day in days.split(",")) > longest:
            raise fault("names no day that there is", f"Those months have {longest} days at most.")
    if parts.get("INTERVAL") == "1":
        del parts["INTERVAL"]
    if (frequency != "WEEKLY" and "BYWEEKNO" not in parts) or parts.get("WKST") == "MO":
        parts.pop("WKST", None)
    return parts


def _checked(name: str, value: str, fault: Callable[..., PromptyoselfError]) -> str:
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
    if name == "BYSECOND" and len(numbers) > 1:
        raise fault("has several seconds", "Give one: two fires are never within a minute.")
    if not all(
        re.fullmatch(rf"{sign}[0-9]{{1,3}}", one) and low <= abs(int(one)) <= high
        for one in numbers
    ):
        raise fault(f"has {name}={value}", f"Numbers there go from {low} to {high}.")
    return ",".join(str(number) for number in sorted({int(one) for one in numbers}))
