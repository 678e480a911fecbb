"""The events of the log as they are appended."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from promptyoself.ledger import Envelope
from promptyoself.service.schedules.history import Filters, is_known_type, unknown_type
from promptyoself.state.schedules import CHAIN
from promptyoself.store.access import unknown_id, withheld
from promptyoself.store.chain import Chain

FIRST = 10
"""How many of the newest events come first, unless the caller says another number."""


def follow(
    store: Chain[Any], filters: Filters, *, limit: int | None = None, wait: Callable[[], bool]
) -> Iterator[Sequence[Envelope]]:
    """First the newest events, then those that are appended, each once, oldest first, as far as
    they match.

    First come the newest ``limit`` events of this month and the one before, by default
    :data:`FIRST`; or, if the filters have an earliest instant, all from then on, or the newest
    ``limit`` of these. ``wait`` is called whenever there is nothing more to tell: it waits a
    moment, and returns whether to go on. Then two ``stat`` calls tell whether the log has grown.

    Raises:
        PromptyoselfError: ``unknown_id``, ``unknown_type``, ``forbidden_agent``; ``head_moved``
            once events that were told are gone from the log.
        ChainError: the log is damaged, then or later.
    """
    for type_ in filters.types:
        if not is_known_type(type_):
            raise unknown_type(type_)
    if filters.id_ is not None:
        _require_known(store, filters.id_)
    months = store.months()[-2:]
    month = filters.first[:7] or (months[0] if months else "")
    most = limit or (None if filters.first else FIRST)
    stamp = store.stamp()  # before reading, so that no append slips by
    tail = store.tail(month)
    newest = deque((event for owner, event in tail.read() if filters.match(owner, event)), most)
    yield newest
    while wait():
        before, stamp = stamp, store.stamp()
        if stamp != before:
            yield [event for owner, event in tail.read() if filters.match(owner, event)]


def _require_known(store: Chain[Any], id_: str) -> None:
    """Refuse an id that neither a schedule nor a desire of this chain has."""
    table = store.schema.tables(store.read().state)[0]
    if table.get(id_) is None:
        what = "schedule" if store.name == CHAIN else "desire"
        raise withheld(table, id_) or unknown_id(what, id_)
