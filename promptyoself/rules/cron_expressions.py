"""What a cron expression may contain, and which times on which days it names.

croniter expands the fields. It also takes seconds, hashed fields and steps longer than their field,
which are refused here. It reads three kinds of range otherwise than cron does, so these are spelled
out for it. At which instants a schedule fires by these times is in
:mod:`promptyoself.rules.triggers`.

A day matches where its month does, and its day of the month and of the week: both of them where
one of the two fields starts with ``*``, else either (Vixie's rule). What recurs most rarely, a 29
February on one weekday, comes up to 40 years later. Only the named months are visited, so that
takes 40 steps.

Pure, and croniter is imported only where an expression is expanded, because that takes 30 ms.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import DAY, shown

FIRST_DAY, LAST_DAY = datetime(1, 1, 3), datetime(9999, 12, 24)  # noqa: DTZ001
"""Days are computed from the first of these (naive midnights) to before the last, so that no step
of the arithmetic leaves datetime's range, in any zone."""

_MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()  # noqa: SIM905
_WEEKDAYS = "SUN MON TUE WED THU FRI SAT".split()  # noqa: SIM905
_MONTH_LENGTHS = ((31,), (28, 29), (31,), (30,), (31,), (30,), (31,), (31,), (30,), (31,), (30,),
                  (31,))  # fmt: skip

_LONGEST_CRON = 1000  # characters; listing all 60 minutes takes 169
_CRON_HINT = (
    "Write five fields: minute, hour, day of the month, month, day of the week; for example"
    " '30 9 * * MON-FRI', or a macro such as @daily."
)
_ITEM_HINT = (
    "Use *, numbers, ranges (1-5), steps (*/15), lists (1,3) and three-letter names of months and"
    " weekdays. A day may be L, the month's last; a weekday MON#1, its first Monday, or L5, its"
    " last Friday. W, ?, H and R aren't taken."
)
# Patterns are compiled where they are used first: most commands use none of them.
_RANGE = r"(\*|[0-9]{1,4}|[A-Z]{3})(?:(?<!\*)-([0-9]{1,4}|[A-Z]{3}|L))?(?:/([0-9]{1,4}))?"
_IN_MONTH = r"L[0-9]?|(?:[0-9]{1,4}|[A-Z]{3}(?:-[A-Z]{3})?)#[0-9]"
_LEADING_ZEROS = r"(?<![0-9])0+(?=[0-9])"


class _Field(NamedTuple):
    """One of the five fields."""

    name: str  # as messages call it
    low: int  # its smallest value
    high: int  # its largest value, as written: 7 is Sunday too
    size: int  # how many different values there are
    names: dict[str, int]  # words that stand for a value


_FIELDS = (
    _Field("minute", 0, 59, 60, {}),
    _Field("hour", 0, 23, 24, {}),
    _Field("day of the month", 1, 31, 31, {"L": 31}),
    _Field("month", 1, 12, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of the week", 0, 7, 7, {name: number for number, name in enumerate(_WEEKDAYS)}),
)


class MonthDays(NamedTuple):
    """Which days an expression names, where it doesn't name every day."""

    months: tuple[int, ...]  # ascending
    days: tuple[int, ...]  # days of the month, ascending
    last_day: bool  # whether the last day of the month is named too
    weekdays: tuple[int, ...]  # Sunday is 0
    nth: dict[int, set[int | str]]  # which of a weekday's days in the month: 1 to 5, or "l" the
    # last. Where there are none, all days of ``weekdays`` are named.
    both: bool  # whether the day of the month and of the week must match, or one of them
    cache: dict[tuple[int, int], tuple[int, ...]]  # earlier answers of ``of_layout``

    def of(self, year: int, month: int) -> tuple[int, ...]:
        """The named days of a month that is named, ascending."""
        # 1 January of the year 1 was a Monday.
        first_weekday = date(year, month, 1).toordinal() % 7
        common = month == 2 and (year % 4 or (year % 100 == 0 and year % 400))
        return self.of_layout(first_weekday, _MONTH_LENGTHS[month - 1][0 if common else -1])

    def of_layout(self, first_weekday: int, length: int) -> tuple[int, ...]:
        """The named days of a month that begins on this weekday and has ``length`` days."""
        days = self.cache.get((first_weekday, length))
        if days is None:
            by_number = {day for day in self.days if day <= length}
            if self.last_day:
                by_number.add(length)
            by_weekday = self._by_weekday(first_weekday, length)
            days = tuple(sorted(by_number & by_weekday if self.both else by_number | by_weekday))
            self.cache[first_weekday, length] = days
        return days

    def _by_weekday(self, first_weekday: int, length: int) -> set[int]:
        named: set[int] = set()
        for weekday in self.weekdays:
            days = range(1 + (weekday - first_weekday) % 7, length + 1, 7)
            if not self.nth:
                named.update(days)
                continue
            for n in self.nth[weekday]:
                number = len(days) if n == "l" else int(n)
                if number <= len(days):
                    named.add(days[number - 1])
        return named

    def are_none(self) -> bool:
        """Whether no month of any year has a day that is named."""
        return not any(
            self.of_layout(first_weekday, length)
            for month in self.months
            for length in _MONTH_LENGTHS[month - 1]
            for first_weekday in range(7)
        )


class CronExpression(NamedTuple):
    """The times that a cron expression names, by the clock on the wall."""

    text: str  # canonical
    is_fixed: bool  # whether neither the minute nor the hour field starts with ``*``
    times: tuple[timedelta, ...]  # the named times of a day, since its midnight, ascending
    days: MonthDays | None  # None: every day is named

    def days_from(self, day: datetime, back: bool = False) -> Iterator[datetime]:
        """Yield the named days, naive midnights, from ``day`` on, or back from it, included."""
        step = -1 if back else 1
        if back:
            day = min(day, LAST_DAY - DAY)
        if self.days is None:
            while FIRST_DAY <= day < LAST_DAY:
                yield day
                day += step * DAY
            return
        for year in range(day.year, 0 if back else LAST_DAY.year + 1, step):
            for month in self.days.months[::step]:
                if year == day.year and (month > day.month if back else month < day.month):
                    continue
                numbers = self.days.of(year, month)
                if (year, month) == (day.year, day.month):
                    here = bisect_left(numbers, day.day + back)
                    numbers = numbers[:here] if back else numbers[here:]
                for number in numbers[::step]:
                    named_day = datetime(year, month, number)  # noqa: DTZ001
                    if not FIRST_DAY <= named_day < LAST_DAY:
                        return
                    yield named_day


def parse_cron(text: str) -> str:
    """Check a cron expression and return it canonical, as :func:`canonical_cron` does.

    Raises:
        PromptyoselfError: ``invalid_cron``, or ``cron_never_fires`` for a day that no month has.
    """
    expression = read_cron(text)
    days = expression.days
    if days is not None and days.are_none():
        longest = max(_MONTH_LENGTHS[month - 1][-1] for month in days.months)
        day = f"a day {days.days[0]}" if min(days.days, default=0) > longest else "such a day"
        raise PromptyoselfError(
            "cron_never_fires",
            f"The cron expression {expression.text!r} never fires: no month it names has {day}.",
            "Choose a day of the month that exists, or other months.",
            value=expression.text,
        )
    return expression.text


def canonical_cron(text: str) -> str:
    """Return a cron expression canonical: single spaces, capitals, no leading zeros, and a macro's
    five fields. Two spellings of one value stay different (``MON`` isn't ``1``).

    It reads without croniter, so a weekday such as ``XYZ#1``, which only croniter refuses, passes.

    Raises:
        PromptyoselfError: ``invalid_cron``.
    """
    return " ".join(canonical for canonical, _ in _canonical_forms(text))


@lru_cache(maxsize=1024)
def read_cron(text: str) -> CronExpression:
    """Expand a cron expression, once for each text.

    Raises:
        PromptyoselfError: ``invalid_cron``. An expression that never fires is no error here, since
            a log may hold one.
    """
    fields = _canonical_forms(text)
    minutes, hours, days, months, weekdays = (
        _expand(text, canonical, for_croniter, index)
        for index, (canonical, for_croniter) in enumerate(fields)
    )
    minute, hour, day, month, weekday = (canonical for canonical, _ in fields)
    is_star = (day[0] == "*", month[0] == "*", weekday[0] == "*")
    named_days = None
    if (
        not all(is_star)
        or len(days.values) * len(months.values) * len(weekdays.values) < 31 * 12 * 7
    ):
        named_days = MonthDays(
            months.values,
            days.values,
            days.has_last,
            weekdays.values,
            weekdays.nth,
            is_star[0] or is_star[2],
            {},
        )
    return CronExpression(
        " ".join((minute, hour, day, month, weekday)),
        minute[0] != "*" and hour[0] != "*",
        tuple(timedelta(hours=h, minutes=m) for h in hours.values for m in minutes.values),
        named_days,
    )


class _Expansion(NamedTuple):
    """What croniter makes of one field."""

    values: tuple[int, ...]  # ascending
    has_last: bool  # whether ``L`` is among the days of the month
    nth: dict[int, set[int | str]]  # as in :class:`MonthDays`


def _expand(text: str, canonical: str, for_croniter: str, index: int) -> _Expansion:
    """Let croniter expand the field at ``index``. Raises ``invalid_cron``."""
    field = _FIELDS[index]
    everything = tuple(range(field.low, field.low + field.size))
    if for_croniter == "*":
        return _Expansion(everything, False, {})
    from croniter import CroniterError, croniter

    words = ["*"] * len(_FIELDS)
    words[index] = for_croniter
    try:
        expanded, nth = croniter.expand(" ".join(words))
    except CroniterError:
        raise _field_error(text, shown(canonical), canonical, field) from None
    values = expanded[index]
    if "*" in values:
        return _Expansion(everything, False, nth)
    numbers = tuple(value for value in values if value != "l")
    return _Expansion(numbers, "l" in values, nth)


def _canonical_forms(text: str) -> list[tuple[str, str]]:
    """Each field of an expression in its canonical spelling and in croniter's."""
    if len(text) > _LONGEST_CRON:
        raise _cron_error(text, f"is longer than {_LONGEST_CRON} characters")
    words = text.upper().split()
    if re.match(r"\s*(?:CRON_)?TZ=", text, re.IGNORECASE):
        zone, _, fields = text.strip().partition("=")[2].strip("\"'").partition(" ")
        zone, fields = zone.strip("\"'")[:80], fields.strip()[:80]
        hint = f"Give the zone as an option of its own: --tz {zone or 'ZONE'} --cron '{fields}'."
        raise _cron_error(text, "names a zone", hint)
    if words and words[0].startswith("@EVERY"):
        length = "".join(text.split())[len("@every") :][:80].lower()
        hint = f"That is an interval, which counts from its start: --every {length or '5m'}."
        raise _cron_error(text, "is an interval", hint)
    if len(words) == 1 and words[0].startswith("@"):
        macro = _MACROS.get(words[0].lower())
        if macro is None:
            macros = ", ".join(sorted(_MACROS))
            raise _cron_error(text, "isn't a known macro", f"The macros are {macros}.")
        words = macro.split()
    if len(words) != 5:
        many = (
            "no fields" if not words else "1 field" if len(words) == 1 else f"{len(words)} fields"
        )
        seconds = "; seconds and years aren't supported" if len(words) in (6, 7) else ""
        raise _cron_error(text, f"has {many}, not five{seconds}")
    return [_canonical_field(text, word, field) for word, field in zip(words, _FIELDS, strict=True)]


def _canonical_field(text: str, word: str, field: _Field) -> tuple[str, str]:
    """One field in its canonical spelling and in croniter's. Raises ``invalid_cron``."""
    items = word.split(",")
    in_month = [item for item in items if re.fullmatch(_IN_MONTH, item)]
    if field.high == 7 and in_month and len(in_month) < len(items):
        hint = "Register a schedule of its own for the other days."
        raise _field_error(text, f"{in_month[0]} beside other days", word, field, hint)
    for_croniter = [
        item if item in in_month else _range_for_croniter(text, item, word, field) for item in items
    ]
    return re.sub(_LEADING_ZEROS, "", word), ",".join(for_croniter)


def _range_for_croniter(text: str, item: str, word: str, field: _Field) -> str:
    """Check ``*``, a value or a range, with or without a step, and spell it for croniter."""
    match = re.fullmatch(_RANGE, item)
    ends = [end for end in match.group(1, 2) if end] if match else []
    if not match or not all(end.isdigit() or end == "*" or end in field.names for end in ends):
        raise _field_error(text, shown(item) if item else "an empty item", word, field)
    step = int(match.group(3) or 1)
    if not 1 <= step <= field.size:
        # Others accept `*/90` for the minute, and fire at minute 0 only; nobody means that.
        hint = f"Steps there go from 1 to {field.size}; for any other length use an interval."
        raise _field_error(text, f"the step {step}", word, field, hint)
    if ends == ["*"]:
        return item
    values = [field.names[end] if end in field.names else int(end) for end in ends]
    for end, value in zip(ends, values, strict=True):
        if not field.low <= value <= field.high:
            hint = f"Values there go from {field.low} to {field.high}."
            raise _field_error(text, end, word, field, hint)
    if match.group(3) and len(ends) == 1:
        if field.high == 7:  # up to Saturday in some crons, to the next Sunday in others
            hint = f"Say where it ends: {ends[0]}-SAT/{step}."
            raise _field_error(text, f"the open range {item}", word, field, hint)
        values.append(field.high)
    first, last = (value - field.low for value in (values[0], values[-1]))
    distance = (last - first) % field.size
    if distance == 0 and last == first + field.size:
        return item  # from Sunday to Sunday is the whole week
    if distance == 0 or (step > 1 and distance != last - first):
        # croniter reads `5-5` as every minute, as it reads `59/5` before version 6.1, and it counts
        # one too many from the end of a field to its beginning: `22-4/3` as 22, 2.
        steps = range(first, first + distance + 1, step)
        return ",".join(str(number % field.size + field.low) for number in steps)
    return item


def _field_error(
    text: str, problem: str, word: str, field: _Field, hint: str = _ITEM_HINT
) -> PromptyoselfError:
    return _cron_error(text, f"has {problem} in its {field.name} field {shown(word)}", hint)


def _cron_error(text: str, problem: str, hint: str = "") -> PromptyoselfError:
    message = f"The cron expression {shown(text)} {problem}."
    return PromptyoselfError("invalid_cron", message, hint or _CRON_HINT, value=text[:200])
