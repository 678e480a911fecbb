"""A time of day in words: ``9am``, ``at 17:00``, ``noon``, ``8 in the evening``. Pure."""

from __future__ import annotations

from datetime import time
from typing import NamedTuple

from promptyoself.phrases.words import (
    DAY_PARTS,
    AmbiguousError,
    OutsideGrammarError,
    Words,
    is_number,
)


class SpokenClock(NamedTuple):
    """A time of day as it was said."""

    hour: int
    minute: int
    mark: str = ""  # am, pm, noon, midnight or a part of the day; empty where nothing was said
    surely_24: bool = False  # whether the hour can't be one of a clock with twelve hours

    def time(self, part: str = "") -> time:
        """The time of day, where ``part`` of the day was said elsewhere in the phrase.

        An hour alone is one of a clock with 24 hours. But from 1 to 6 people may mean the
        afternoon, so these can mean two things.

        Raises:
            OutsideGrammarError: no clock shows that, or not in that part of the day.
            AmbiguousError: it can be in the morning or in the afternoon.
        """
        mark, hour = self.mark or part, self.hour
        if mark in ("noon", "midnight"):
            return time(hour)
        if not mark:
            if 1 <= hour <= 6 and not self.surely_24:
                minutes = f":{self.minute:02}" if self.minute else ""
                raise AmbiguousError(*(f"{hour}{minutes}{half}" for half in ("am", "pm")))
            return time(hour, self.minute)
        of_twelve = 1 <= hour <= 12
        if mark in ("am", "pm") and not of_twelve:
            raise OutsideGrammarError
        first, last = _HOURS_OF[mark]
        for meant in (hour % 12, hour % 12 + 12) if of_twelve else (hour,):
            if first <= meant <= last:
                return time(meant, self.minute)
        raise OutsideGrammarError


_HOURS_OF = {
    "am": (0, 11),
    "pm": (12, 23),
    "morning": (1, 11),
    "afternoon": (12, 18),
    "evening": (16, 23),
    "night": (20, 23),
}
"""The first and the last hour that each mark can have."""


def read_clock(words: Words, *, after_at: bool = False) -> SpokenClock | None:
    """Read a time of day; ``None`` where none comes next.

    A number alone is one only after ``at``, or before ``oclock``, ``am``, ``pm`` or a part of the
    day; or if ``after_at`` says that the words before it take a time.

    Raises:
        OutsideGrammarError: no clock shows that.
    """
    return words.attempt(_clock, after_at)


def read_clocks(words: Words) -> list[SpokenClock]:
    """Read a time of day, and those that follow it after ``and`` or a comma."""
    clocks = []
    clock = read_clock(words)
    while clock:
        clocks.append(clock)
        clock = words.attempt(_clock_after_and)
    return clocks


def _clock_after_and(words: Words) -> SpokenClock | None:
    if not words.take(",", "and"):
        return None
    words.take("and")
    return _clock(words, after_at=True)


def _clock(words: Words, after_at: bool) -> SpokenClock | None:
    after_at = bool(words.take("at")) or after_at
    if words.take("noon", "midday"):
        return SpokenClock(12, 0, "noon")
    if words.take("midnight"):
        return SpokenClock(0, 0, "midnight")
    hour_word, colon, minute_word = words.peek().partition(":")
    if not is_number(hour_word) or len(hour_word) > 2:
        return None
    words.take(words.peek())
    said_oclock = bool(words.take("oclock"))
    mark = words.take("am", "pm") or _part_after(words)
    if not (colon or after_at or said_oclock or mark):
        return None
    hour, minute = int(hour_word), int(minute_word or 0)
    if hour > 23 or minute > 59:
        raise OutsideGrammarError
    return SpokenClock(hour, minute, mark, surely_24=hour_word.startswith("0"))


def _part_after(words: Words) -> str:
    """The part of the day that is said after an hour: ``in the morning``, ``at night``."""
    if words.take_all("at night"):
        return "night"
    for part in DAY_PARTS:
        if words.take_all(f"in the {part}"):
            return part
    return ""
