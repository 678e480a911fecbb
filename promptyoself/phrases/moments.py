"""The moments that people look back to: in the strict forms, else in words. Pure."""

from __future__ import annotations

from datetime import datetime

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import parse_moment, shown


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
        if error.code != "invalid_time":
            raise
        # Most calls end above, so that they needn't load the grammar.
        from promptyoself.phrases.past import nearest, read_past
        from promptyoself.phrases.words import AmbiguousError, OutsideGrammarError

        try:
            first, last = read_past(text, zone, now)
        except AmbiguousError as ambiguous:
            raise PromptyoselfError(
                "invalid_time",
                f"{shown(text)} can mean two things: {', or '.join(ambiguous.readings)}.",
                "Write the one that you mean.",
                value=text[:200],
            ) from None
        except OutsideGrammarError:
            if near := nearest(text):
                error.hint = f"Did you mean {near!r}? {error.hint}"
            raise error from None
        return last if end else first
