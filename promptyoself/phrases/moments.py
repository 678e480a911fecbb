"""The moments that people name: in the strict forms, else in words. Pure.

The grammar is loaded only where a strict form was not given.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TypeVar

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import parse_bound, parse_moment, parse_time, shown

T = TypeVar("T")


def read_moment(text: str, zone: str, now: datetime, *, end: bool = False) -> datetime:
    """Read a time that has passed, as :func:`~promptyoself.core.times.parse_moment` does, or in
    words: ``yesterday``, ``last night``, ``2 hours ago``, ``friday at 17:00``.

    A day, or a part of one, is its first instant, or its last instant if ``end`` is true.

    Raises:
        PromptyoselfError: ``invalid_time``; ``nonexistent_time`` for a time that clocks in ``zone``
            jumped over; ``unknown_zone``.
    """
    try:
        return parse_moment(text, zone, now, end=end)
    except PromptyoselfError as error:
        from promptyoself.phrases.past import EXAMPLES, read_past
        from promptyoself.phrases.words import OutsideGrammarError

        def read(words: str) -> tuple[datetime, datetime]:
            try:
                return read_past(words, zone, now)
            except OutsideGrammarError:
                if not _is_to_come(words, zone, now):
                    raise
            raise _on_the_wrong_side(words, "future", _PAST_HINT)

        first, last = _in_words(text, error, EXAMPLES, read)
        return last if end else first


def read_time(text: str, zone: str, now: datetime) -> datetime:
    """Read a time to come, as :func:`~promptyoself.core.times.parse_time` does, or in words:
    ``tomorrow 9am``, ``friday at 17:00``, ``in 2 hours``. It may be past: then it was said so.

    Raises:
        PromptyoselfError: ``invalid_time``; ``nonexistent_time`` for a time that clocks in ``zone``
            jump over; ``unknown_zone``.
    """
    try:
        return parse_time(text, zone, now)
    except PromptyoselfError as error:
        if is_date(text):
            raise
        from promptyoself.phrases.instants import EXAMPLES, read_instant

        def read(words: str) -> datetime:
            from promptyoself.phrases.past import read_past
            from promptyoself.phrases.words import OutsideGrammarError

            try:
                return read_instant(words, zone, now)
            except OutsideGrammarError as outside:
                try:
                    first, last = read_past(words, zone, now)
                except OutsideGrammarError:
                    raise outside from None
                if last >= now:  # all of today, or of this week
                    raise
                return first

        return _in_words(text, error, EXAMPLES, read)


def read_bound(text: str, zone: str, now: datetime, *, end: bool) -> datetime:
    """Read a bound of a schedule, as :func:`~promptyoself.core.times.parse_bound` does, or in
    words. A day without a time, as ``friday`` or ``the 1st``, is its first instant in ``zone``, or
    its last instant if ``end`` is true.

    Raises:
        PromptyoselfError: as :func:`read_time`.
    """
    try:
        return parse_bound(text, zone, now, end=end)
    except PromptyoselfError as error:
        from promptyoself.phrases.instants import EXAMPLES, read_day, read_instant

        strict_hint = error.hint

        def read(words: str) -> datetime:
            from promptyoself.phrases.past import read_past
            from promptyoself.phrases.words import OutsideGrammarError

            try:
                day = read_day(words, zone, now)
                if day is None:
                    return read_instant(words, zone, now)
            except OutsideGrammarError as outside:
                try:
                    _, last = read_past(words, zone, now)
                except OutsideGrammarError:
                    raise outside from None
                if last >= now:
                    raise
                raise _on_the_wrong_side(words, "past", strict_hint) from None
            return parse_bound(day.isoformat(), zone, now, end=end)

        return _in_words(text, error, EXAMPLES, read)


_PAST_HINT = (
    "Write yesterday, 'last night', '2 hours ago', 2h for two hours ago, 2026-11-21, or"
    " 2026-11-21T09:00:00+01:00; or 09:00 for the last time the clock showed it."
)


def _is_to_come(text: str, zone: str, now: datetime) -> bool:
    """Whether words say a time to come, or a part of one."""
    from promptyoself.phrases.instants import read_instant
    from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError

    try:
        return read_instant(text, zone, now) > now
    except AmbiguousError:
        return True
    except OutsideGrammarError as outside:
        return bool(outside.hint)


def _on_the_wrong_side(text: str, side: str, hint: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_time", f"{shown(text)} lies in the {side}.", hint, value=text[:200]
    )


def is_date(text: str) -> bool:
    """Whether it is a date without a time, such as ``2027-01-31``."""
    return re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text.strip()) is not None


def _in_words(
    text: str, error: PromptyoselfError, examples: Iterable[str], read: Callable[[str], T]
) -> T:
    """What words say where the strict forms were refused with ``error``."""
    if error.code != "invalid_time":
        raise error
    from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError, nearest

    try:
        return read(text)
    except AmbiguousError as ambiguous:
        raise PromptyoselfError(
            "invalid_time",
            f"{shown(text)} can mean two things: {', or '.join(ambiguous.readings)}.",
            "Write the one that you mean.",
            value=text[:200],
        ) from None
    except OutsideGrammarError as outside:
        if outside.hint:
            raise PromptyoselfError(
                "invalid_time", f"{shown(text)} has no time of day.", outside.hint, value=text[:200]
            ) from None
        if near := _with_at(text, read) or nearest(text, examples):
            error.hint = f"Did you mean {near!r}? {error.hint}"
        raise error from None


def _with_at(text: str, read: Callable[[str], object]) -> str:
    """The same words with the ``at`` before their last number that makes a time of them, as in
    ``monday at 12``; empty where it doesn't."""
    from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError

    words, count = re.subn(r"(?<=[a-z])\s+([0-9]{1,2})$", r" at \1", text.strip().lower()[:80])
    if not count:
        return ""
    try:
        read(words)
    except (AmbiguousError, OutsideGrammarError, PromptyoselfError):
        return ""
    return words
