"""The words of the grammar, and a text as a row of them.

Another language would be another table of this kind. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from typing import TypeVar

T = TypeVar("T")

WEEKDAYS = {
    name: number
    for number, names in enumerate(
        (
            ("monday", "mon"),
            ("tuesday", "tue", "tues"),
            ("wednesday", "wed", "weds"),
            ("thursday", "thu", "thur", "thurs"),
            ("friday", "fri"),
            ("saturday", "sat"),
            ("sunday", "sun"),
        )
    )
    for name in (*names, f"{names[0]}s")
}
"""Each name of a weekday, and its plural, with its number: Monday is 0."""

FULL_WEEKDAYS = [day for day in WEEKDAYS if len(day) > 5 and not day.endswith("s")]
"""Those of their names that aren't shortened."""

MONTHS = {
    name: number
    for number, names in enumerate(
        (
            ("january", "jan"),
            ("february", "feb"),
            ("march", "mar"),
            ("april", "apr"),
            ("may",),
            ("june", "jun"),
            ("july", "jul"),
            ("august", "aug"),
            ("september", "sep", "sept"),
            ("october", "oct"),
            ("november", "nov"),
            ("december", "dec"),
        ),
        start=1,
    )
    for name in names
}

ORDINALS = {"first": 1, "second": 2, "third": 3, "fourth": 4, "fifth": 5}

NUMBERS = {
    "a": 1,
    "an": 1,
    "one": 1,
    "two": 2,
    "three": 3,
    "four": 4,
    "five": 5,
    "six": 6,
    "seven": 7,
    "eight": 8,
    "nine": 9,
    "ten": 10,
    "eleven": 11,
    "twelve": 12,
}

UNITS = {
    name: unit
    for unit, names in {
        "s": ("second", "seconds", "sec", "secs", "s"),
        "m": ("minute", "minutes", "min", "mins", "m"),
        "h": ("hour", "hours", "hr", "hrs", "h"),
        "d": ("day", "days", "d"),
        "w": ("week", "weeks", "w"),
        "mo": ("month", "months"),
        "y": ("year", "years"),
    }.items()
    for name in names
}
"""Each name of a unit of time with the unit's short name."""

DAY_PARTS = ("morning", "afternoon", "evening", "night")

_TOKEN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}|[0-9]+:[0-9]{2}|[0-9]+|[a-z]+|\S"
_LONGEST = 200  # characters; what people say takes 80


class OutsideGrammarError(Exception):
    """The text, or the rest of it, isn't a phrase that this grammar has."""

    def __init__(self, hint: str = "") -> None:
        super().__init__(hint)
        self.hint = hint  # what to write instead, where that is known


class AmbiguousError(Exception):
    """The phrase can mean more than one thing."""

    def __init__(self, *readings: str) -> None:
        super().__init__(*readings)
        self.readings = readings  # each a phrase that means one thing


def nearest(text: str, examples: Iterable[str]) -> str:
    """An example that is spelled much like the text; empty where there is none."""
    from difflib import get_close_matches

    return "".join(get_close_matches(text.strip().lower()[:40], list(examples), 1, 0.85))


def is_number(word: str) -> bool:
    """Whether a word is digits."""
    return word.isascii() and word.isdigit()


class Words:
    """A text as words, read from left to right."""

    def __init__(self, text: str) -> None:
        """Raises :class:`OutsideGrammarError` for a text that no phrase is as long as."""
        if len(text) > _LONGEST:
            raise OutsideGrammarError
        plain = re.sub(r"\b([ap])\.\s?m\b\.?", r"\1m", text.lower())
        plain = re.sub(r"o.?clock", " oclock ", plain)
        self._words: list[str] = re.findall(_TOKEN, plain.replace(",", " , "))
        self._next = 0

    @property
    def over(self) -> bool:
        """Whether every word was read."""
        return self._next == len(self._words)

    def peek(self, ahead: int = 0) -> str:
        """The next word, or one that many words after or before it; empty where there is none."""
        place = self._next + ahead
        return self._words[place] if 0 <= place < len(self._words) else ""

    def take(self, *choices: str) -> str:
        """Read the next word where it is one of these; empty, and nothing read, where it isn't."""
        word = self.peek()
        if not word or word not in choices:
            return ""
        self._next += 1
        return word

    def take_all(self, phrase: str) -> bool:
        """Read these words where they come next, in this order, and say whether they did."""
        words = phrase.split()
        if self._words[self._next : self._next + len(words)] != words:
            return False
        self._next += len(words)
        return True

    def take_from(self, table: Collection[str]) -> str:
        """Read the next word where the table has it; empty where it hasn't."""
        return self.take(*table)

    def number(self) -> int | None:
        """Read a number in digits, of at most four of them, or in words up to twelve."""
        word = self.peek()
        if is_number(word) and len(word) <= 4:
            self._next += 1
            return int(word)
        return NUMBERS[self.take_from(NUMBERS)] if word in NUMBERS else None

    def ordinal(self) -> int | None:
        """Read ``1st`` to ``31st``, or ``first`` to ``fifth``."""
        if word := self.take_from(ORDINALS):
            return ORDINALS[word]
        if is_number(self.peek()) and self.peek(1) in ("st", "nd", "rd", "th"):
            number = int(self.peek())
            if number <= 31:
                self._next += 2
                return number
        return None

    def attempt(self, read: Callable[..., T | None], *arguments: object) -> T | None:
        """What ``read`` gives for these words; where that is ``None``, nothing was read."""
        begin = self._next
        result = read(self, *arguments)
        if result is None:
            self._next = begin
        return result
