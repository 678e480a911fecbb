"""A point of the log that a caller names: an event's number, or a time."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import parse_moment
from promptyoself.ledger import Envelope
from promptyoself.store.chain import Chain

__all__ = ["Cutoff", "cutoff"]


class Cutoff(NamedTuple):
    """A point of the log: after the last event up to ``ts``, or after event ``seq``."""

    seq: int | None
    ts: str

    def covers(self, event: Envelope) -> bool:
        """Whether the event lies before this point."""
        return event.ts <= self.ts if self.seq is None else event.seq <= self.seq


def cutoff(store: Chain[Any], at: str, now: datetime, *, end: bool = True) -> Cutoff:
    """What a user means by ``at``: an event's number, or a time. Of a date it is the ``end``, or
    else the beginning. Raises ``invalid_time``."""
    if at.isascii() and at.isdigit() and len(at) < 19:
        return Cutoff(int(at), "")
    return Cutoff(None, format_utc(parse_moment(at, default_zone(store.settings), now, end=end)))
