"""A place in the chain."""

from __future__ import annotations

from typing import NamedTuple

from promptyoself.ledger.envelope import GENESIS_HASH

__all__ = ["START", "Position"]


class Position(NamedTuple):
    """A place between two events: all up to ``seq``, whose line has ``hash``, lie before it.

    ``ts`` is that event's time. The rest is how this ledger finds the place again without reading
    what lies before it: the ``month`` of the segment, the byte ``offset`` in it, the offset of the
    ``member`` that ends there, and how many bytes the ``earlier`` segments have altogether.
    """

    seq: int
    hash: str
    ts: str
    month: str
    offset: int
    member: int
    earlier: int


START = Position(0, GENESIS_HASH, "", "", 0, 0, 0)
"""Before the first event."""
