"""Recurrences in words: ``every weekday at 9``, ``last day of the month at 18:00``.

What is understood is a cron expression; or an interval where nothing but a length was said; or a
recurrence rule where days, weeks, months or years are left out, as in ``every other friday at
16:00``. Pure.
"""

from __future__ import annotations

import re
from datetime import time
from typing import NamedTuple

from promptyoself.phrases.clock import SpokenClock, read_clock, read_clocks
from promptyoself.phrases.words import (
    DAY_PARTS,
    FULL_WEEKDAYS,
    MONTHS,
    ORDINALS,
    UNITS,
    WEEKDAYS,
    AmbiguousError,
    OutsideGrammarError,
    Words,
    is_number,
)

_CRON_DAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
_WORKDAYS, _WEEKEND = "MON-FRI", "SAT,SUN"
_DAY_MINUTES = 24 * 60
_ONE_MINUTE = (
    "One cron expression has the same minutes at each of its hours. Register a schedule for each."
)
_LAST_HOUR = (
    "One cron expression has the same minutes at each of its hours. Let the last hour have all of"
    " them: every 30 minutes between 9:00 and 16:30."
)
_WHICH_DAY = "Say on which day: every 2 weeks on friday at 16:00, every 3 months on the 1st at 9."
_NO_DAY = "There is no such day in any year."
_ZERO = "A length of 0 isn't taken. Write a number from 1 on: every 15 minutes."
_ORDINAL = "first|second|third|fourth|fifth|[0-9]{1,2}(?:st|nd|rd|th)"
_RULE_FREQUENCIES = {"d": "DAILY", "w": "WEEKLY", "mo": "MONTHLY"}
EXAMPLES = (
    *("every day at 9", "every weekday at 9", "weekdays at 9", "daily at 9", "every morning at 8"),
    *("every 15 minutes", "every hour", "every 2 hours", "every 2 weeks", "every 3 days at 9"),
    *(f"{often} {day} at 9" for often in ("every", "every other", "first", "last")
      for day in FULL_WEEKDAYS),
    *("every 2 hours between 9 and 17 on weekdays", "last day of the month at 18:00"),
    *("first monday of the month at 9", "every month on the 1st at 9", "every 5 march at 9"),
)  # fmt: skip
"""Phrases that people write often, with which others are compared that aren't taken."""


class Recurrence(NamedTuple):
    """When something recurs. All but one are empty."""

    cron: str = ""  # five fields
    every: str = ""  # a duration, or a number of months or years: 2mo, 1y
    rrule: str = ""  # of RFC 5545


class _Days(NamedTuple):
    """Which days were said, as fields of a cron expression."""

    of_month: str = "*"
    month: str = "*"
    of_week: str = "*"
    part: str = ""  # of the day, where one was said
    every_other: bool = False  # whether every other week is left out


class _Length(NamedTuple):
    """How long it is from one time to the next."""

    number: int
    unit: str  # s, m, h, d, w, mo or y


def read_recurrence(text: str) -> Recurrence:
    """What a phrase says of when something recurs.

    Raises:
        OutsideGrammarError: the text isn't a phrase of this grammar, or no cron expression and no
            interval says that. Its hint has a phrase near it that is taken, where there is one.
        AmbiguousError: it can mean two things.
    """
    try:
        return _read(text)
    except OutsideGrammarError as outside:
        if outside.hint in (_NO_DAY, _ZERO):
            raise
        raise OutsideGrammarError(_advice(text) or outside.hint) from None


def _advice(text: str) -> str:
    """What to write instead of a phrase that leaves something out; empty where nothing is near."""
    if not text.strip() or len(text) > 80:
        return ""
    said = re.sub(r"([a-z])-([a-z])", r"\1 - \2", " ".join(text.lower().split()))
    if said in ("every second", "each second"):
        return "Say every second what: every 2 days at 9, every 2 hours. Or: every 90 seconds."
    whole = re.sub(r"(?<=[a-z])(?<! at) ([0-9]{1,2}(:[0-9]{2})?)$", r" at \1", said)
    whole = re.sub(r"^(bi-?weekly|fortnightly)\b", "every other week", whole.replace(" - ", "-"))
    whole = re.sub(r"^every other week (on )?(?=[a-z]+day)", "every other ", whole)
    if match := re.match(rf"(?:every|each) ({_ORDINAL}) (day|hour|minute|week|month)\b", whole):
        whole = f"every {Words(match[1]).ordinal()} {match[2]}s{whole[match.end() :]}"
    for ending in ("", " at 9", " on monday at 9", " on the 1st at 9", " on january 1st at 9"):
        for beginning in ("", "every "):
            phrase = f"{beginning}{whole}{ending}"
            try:
                _read(phrase)
            except (OutsideGrammarError, AmbiguousError):
                continue
            return f"Write {phrase!r}."
    return ""


def _read(text: str) -> Recurrence:
    words = Words(text)
    days: _Days | None = None
    length: _Length | None = None
    window: tuple[time, time] | None = None
    clocks: list[SpokenClock] = []
    while not words.over:
        words.take(",")
        if not length and not days and (length := words.attempt(_length)):
            continue
        if not window and (window := words.attempt(_window)):
            continue
        if not days and (days := words.attempt(_days, length is not None)):
            continue
        if clocks or not (clocks := read_clocks(words)):
            raise OutsideGrammarError
    if length and not clocks:
        return _recurring_within_days(length, days, window)
    if days and not clocks and not window:
        raise OutsideGrammarError("Say at what time, too: every monday at 9.")
    if window or not clocks or not (days or length):
        raise OutsideGrammarError
    days = days or _Days()
    spoken = {clock.time(days.part) for clock in clocks}
    times = {(one.hour, one.minute) for one in spoken}
    if days.every_other:
        length = _Length(2, "w")
    return _rule(length, days, times) if length else _cron(times, days)


def _rule(length: _Length, days: _Days, times: set[tuple[int, int]]) -> Recurrence:
    """The rule of a number of days, weeks or months. Raises where there is none."""
    of_week = days.of_week
    is_in_month = days.of_month != "*" or "#" in of_week or of_week.startswith("L")
    fitting = {"d": of_week == "*" and not is_in_month, "mo": is_in_month}
    fitting["w"] = of_week != "*" and not is_in_month
    if length.unit not in fitting or days.month != "*":
        raise OutsideGrammarError
    if not fitting[length.unit]:
        raise OutsideGrammarError(_WHICH_DAY)
    hours, minutes = _hours_and_minutes(times)
    parts = [f"FREQ={_RULE_FREQUENCIES[length.unit]}", f"INTERVAL={length.number}"]
    if days.of_month != "*":
        parts.append(f"BYMONTHDAY={days.of_month.replace('L', '-1')}")
    if of_week != "*":
        parts.append(f"BYDAY={','.join(_rule_days(of_week))}")
    parts += [f"BYHOUR={','.join(map(str, hours))}", f"BYMINUTE={','.join(map(str, minutes))}"]
    return Recurrence(rrule=";".join(parts))


def _rule_days(of_week: str) -> list[str]:
    """The weekdays of a field of a cron expression, as a rule names them."""
    if of_week.startswith("L"):
        return [f"-1{_CRON_DAYS[int(of_week[1:]) - 1][:2]}"]
    named, _, number = of_week.partition("#")
    if "-" in named:
        first, last = (_CRON_DAYS.index(name) for name in named.split("-"))
        numbers = [(first + ahead) % 7 for ahead in range((last - first) % 7 + 1)]
        return [_CRON_DAYS[day][:2] for day in numbers]
    return [f"{number}{name[:2]}" for name in named.split(",")]


def _cron(times: set[tuple[int, int]], days: _Days) -> Recurrence:
    """The expression of times of day, each an hour and a minute. Raises where there is none."""
    hours, minutes = _hours_and_minutes(times)
    fields = [_spelled(minutes, 60), _spelled(hours, 24), days.of_month, days.month, days.of_week]
    return Recurrence(cron=" ".join(fields))


def _hours_and_minutes(times: set[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """The hours of some times of day, and the minutes that each of the hours has. Raises where
    these differ."""
    hours, minutes = sorted({hour for hour, _ in times}), sorted({minute for _, minute in times})
    if len(times) != len(hours) * len(minutes):
        raise OutsideGrammarError(_ONE_MINUTE)
    return hours, minutes


def _spelled(numbers: list[int], size: int) -> str:
    """The numbers of a field as people write them: ``*``, ``*/15``, ``9-17/2`` or ``9,17``."""
    first, last = numbers[0], numbers[-1]
    if len(numbers) >= 3:
        step = numbers[1] - first
        if numbers == list(range(first, last + 1, step)):
            steps = f"/{step}" if step > 1 else ""
            return f"*{steps}" if first == 0 and last + step >= size else f"{first}-{last}{steps}"
    return ",".join(map(str, numbers))


def _recurring_within_days(
    length: _Length, days: _Days | None, window: tuple[time, time] | None
) -> Recurrence:
    """Every so often, on all days or some, all day or between two times of day."""
    if not days and not window:
        return Recurrence(every=f"{length.number}{length.unit}")
    if length.unit not in ("m", "h"):
        raise OutsideGrammarError(_WHICH_DAY)
    step = length.number * (60 if length.unit == "h" else 1)
    first, last = (one.hour * 60 + one.minute for one in window or (time(0), time(23, 59)))
    if (last < first and days) or (not window and _DAY_MINUTES % step):
        raise OutsideGrammarError
    minutes = range(first, first + (last - first) % _DAY_MINUTES + 1, step)
    times = {divmod(minute % _DAY_MINUTES, 60) for minute in minutes}
    try:
        return _cron(times, days or _Days())
    except OutsideGrammarError:
        raise OutsideGrammarError(_LAST_HOUR) from None


def _length(words: Words) -> _Length | None:
    """Read ``every 15 minutes``, ``every other hour``, ``hourly``."""
    if words.take("hourly"):
        return _Length(1, "h")
    if not words.take("every", "each"):
        return None
    if words.take_all("half hour") or words.take_all("half an hour"):
        return _Length(30, "m")
    number = 2 if words.take("other") else words.number()
    unit = UNITS.get(words.take_from(UNITS), "")
    if number is None and words.peek(-1) not in ("minute", "hour"):
        return None  # a day, or a week on some day
    if not unit:
        return None
    if number == 0:
        raise OutsideGrammarError(_ZERO)
    return _Length(number or 1, unit)


def _window(words: Words) -> tuple[time, time] | None:
    """Read ``between 9 and 17`` or ``from 9:00 to 16:30``."""
    opening = words.take("between", "from")
    first = read_clock(words, after_at=True) if opening else None
    if not first or not words.take(
        *(("and",) if opening == "between" else ("to", "until", "till"))
    ):
        return None
    last = read_clock(words, after_at=True)
    return (first.time(), last.time()) if last else None


# --- days ---------------------------------------------------------------------------------------


def _days(words: Words, recurs: bool) -> _Days | None:
    """Read which days are meant, and in which months; ``None`` where no days come next. ``recurs``
    says that the words before have said how often."""
    days = (
        words.attempt(_each_day)
        or words.attempt(_days_of_year)
        or words.attempt(_days_of_month, recurs)
        or words.attempt(_days_of_week, recurs)
    )
    if days is None:
        return None
    part = words.take(*DAY_PARTS, *(f"{part}s" for part in DAY_PARTS)).removesuffix("s")
    days = days._replace(part=days.part or part)
    if days.month == "*" and words.peek(1) in MONTHS and words.take("in"):
        months = _list(words, MONTHS)
        days = days._replace(month=",".join(str(number) for number in months))
    return days


def _each_day(words: Words) -> _Days | None:
    if words.take("daily"):
        return _Days()
    if words.take("every", "each") and (word := words.take("day", *DAY_PARTS)):
        return _Days(part="" if word == "day" else word)
    return None


def _days_of_week(words: Words, said_length: bool) -> _Days | None:
    """Read ``every monday and thursday``, ``weekdays``, ``on mondays``, ``monday to friday``."""
    if reading := words.attempt(_nth_weekday):
        raise AmbiguousError(*reading)
    if words.take_all("every other"):
        named = _list(words, WEEKDAYS)
        if not named:
            return None
        fields = ",".join(_CRON_DAYS[number] for number in sorted(set(named)))
        return _Days(of_week=fields, every_other=True)
    weekly = words.take_all("every week") or words.take_all("each week") or words.take("weekly")
    recurs = said_length or weekly or words.take("every", "each")
    words.take("on")
    if word := words.take("weekday", "weekdays", "workday", "workdays", "weekend", "weekends"):
        of_week = _WEEKEND if word.startswith("weekend") else _WORKDAYS
        return _Days(of_week=of_week) if recurs or word.endswith("s") else None
    is_plural = words.peek().endswith("days")
    named = _list(words, WEEKDAYS)
    if not named:
        return None
    if len(named) == 1 and words.take("to", "through", "until", "-"):
        last = WEEKDAYS.get(words.take_from(WEEKDAYS))
        if last is None or last == named[0]:
            raise OutsideGrammarError
        return _Days(of_week=f"{_CRON_DAYS[named[0]]}-{_CRON_DAYS[last]}")
    if not (recurs or is_plural):
        return None
    return _Days(of_week=",".join(_CRON_DAYS[number] for number in sorted(set(named))))


def _nth_weekday(words: Words) -> tuple[str, str] | None:
    """Read ``every second friday``, as the two things that it can mean."""
    number = words.ordinal() if words.take("every", "each") else None
    name = words.take_from(WEEKDAYS)
    if number is None or not name or not 2 <= number <= 5:
        return None
    spelled = next(word for word, meant in ORDINALS.items() if meant == number)
    often = f"every other {name}" if number == 2 else f"every {number} weeks on {name}"
    return often, f"the {spelled} {name} of every month"


def _days_of_month(words: Words, said_length: bool) -> _Days | None:
    """Read ``the 1st and 15th of the month``, ``every month on the last day``, ``last friday of
    every month``."""
    monthly = words.take_all("every month") or words.take_all("each month") or words.take("monthly")
    recurs = monthly or words.take("every", "each")
    words.take("on")
    words.take("the")
    last = words.take("last")
    numbers = [-1] if last else _ordinals(words)
    if not numbers:
        return None
    weekday = words.take_from(WEEKDAYS)
    if last and not weekday and not words.take("day"):
        return None
    if not (monthly or said_length) and not _of_every_month(words):
        if recurs and not last and not weekday and words.peek() not in MONTHS:
            raise OutsideGrammarError("Say of what: every 1st of the month.")
        return None
    if weekday:
        if len(numbers) > 1 or numbers[0] > 5:
            raise OutsideGrammarError
        number = WEEKDAYS[weekday]
        # In cron, Sunday is 0, and L5 is the last Friday.
        of_week = f"L{(number + 1) % 7}" if last else f"{_CRON_DAYS[number]}#{numbers[0]}"
        return _Days(of_week=of_week)
    if not last and max(numbers) > 28:
        raise AmbiguousError("the last day of the month", "a --cron that skips shorter months")
    return _Days(of_month="L" if last else ",".join(str(number) for number in numbers))


def _of_every_month(words: Words) -> bool:
    return any(words.take_all(f"of {which} month") for which in ("the", "every", "each"))


def _days_of_year(words: Words) -> _Days | None:
    """Read ``every 5 march``, ``every year on december 24th``."""
    yearly = words.take_all("every year") or words.take_all("each year")
    if not (yearly or words.take("yearly", "annually", "every", "each")):
        return None
    words.take("on")
    words.take("the")
    month = words.take_from(MONTHS)
    number = words.ordinal() or (words.number() if is_number(words.peek()) else None)
    if not month:
        words.take("of")
        month = words.take_from(MONTHS)
    if not month or not number:
        return None
    if number > _LENGTHS[MONTHS[month] - 1]:
        raise OutsideGrammarError(_NO_DAY)
    return _Days(of_month=str(number), month=str(MONTHS[month]))


_LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def _ordinals(words: Words) -> list[int]:
    """Read ``1st``, or ``1st and 15th``."""
    numbers = []
    while number := words.ordinal():
        numbers.append(number)
        if words.peek(1) in ("st", "nd", "rd", "th"):
            break
        words.take(",")
        words.take("and")
        words.take("the")
    return numbers


def _list(words: Words, table: dict[str, int]) -> list[int]:
    """Read names of a table, with commas or ``and`` between them, as their numbers."""
    numbers = []
    while name := words.take_from(table):
        numbers.append(table[name])
        if words.peek(1) in table or words.peek(2) in table:
            words.take(",")
            words.take("and")
    return numbers
