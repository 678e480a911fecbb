"""A point of the log that a caller names: an event's number, or a time."""

from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.ledger import Envelope
from promptyoself.phrases.moments import read_moment
from promptyoself.store.chain import Chain


class Cutoff(NamedTuple):
    """A point of the log that a caller has named."""

    seq: int | None  # the number of the last event before the point; None where a time was named
    ts: str  # the time up to which events lie before it; empty where a number was named

    def covers(self, event: Envelope) -> bool:
        """Whether the event lies before this point."""
        return event.ts <= self.ts if self.seq is None else event.seq <= self.seq


def cutoff(store: Chain[Any], at: str, now: datetime, *, end: bool = True) -> Cutoff:
    """The point that a caller means by ``at``: an event's number, or a time. A date means the end
    of that day, or its beginning where ``end`` is false.

    Raises:
        PromptyoselfError: ``invalid_time``.
    """
    if at.isascii() and at.isdigit() and len(at) < 19:
        return Cutoff(int(at), "")
    return Cutoff(None, format_utc(read_moment(at, default_zone(store.settings), now, end=end)))
