"""What is sent is what the log says.

Before a claim, the schedule in the index is compared with the events that it was made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from promptyoself.events.schedule_fields import FLAGS, SPECIFIED
from promptyoself.rules.claim import IndexMismatch
from promptyoself.state.schedules import Schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.ledger.envelope import Envelope
    from promptyoself.ledger.lookup import Lines

_MOST_AGREED = 4096

_specified = attrgetter(*SPECIFIED)


class LogCheck:
    """Compares schedules with the log, each once for each content that it has.

    A schedule names the event that registered it and those that last changed a field. These are
    read, and must say what the schedule says. An index that leaves out a later event of the
    schedule, and names an earlier modification, isn't noticed here. The audit notices it.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._agreed: dict[str, tuple[Any, ...]] = {}
        self._mended: set[str] = set()
        # The member that was read last, by its month, while a pass is being decided. Prompts that
        # are due together were often registered together. To read their member for each of them
        # would take the square of its size.
        self._at_hand: tuple[str, Lines] | None = None

    @contextmanager
    def within_a_pass(self) -> Iterator[LogCheck]:
        """What is read of the log in this context is read once. The next pass reads it again."""
        try:
            yield self
        finally:
            self._at_hand = None

    def __call__(self, schedule: Schedule) -> None:
        """Compare a schedule with the log.

        Raises:
            IndexMismatch: the log says something else.
            ValueError: it still does, after the index was rebuilt from the log.
        """
        content = (schedule.told, schedule.retold, _specified(schedule))
        if self._agreed.get(schedule.id) == content:
            return
        if not self._agrees(schedule):
            if schedule.id in self._mended:
                raise ValueError("the log doesn't say what it is to be sent")
            raise IndexMismatch(schedule.id)
        if len(self._agreed) >= _MOST_AGREED:
            self._agreed.clear()
        self._agreed[schedule.id] = content

    def mended(self, id_: str) -> None:
        """The index was rebuilt from the log, because of that schedule."""
        self._mended.add(id_)

    def _agrees(self, schedule: Schedule) -> bool:
        registered = self._data(schedule.told, "schedule.registered", schedule.id)
        if registered is None:
            return False
        fields = dict(registered)
        for name, where in (schedule.retold or {}).items():
            change = self._data(where, "schedule.modified", schedule.id)
            changes = {} if change is None else change.get("changes", {})
            if name not in changes:
                return False
            fields[name] = changes[name]
        fields.update((name, bool(fields.get(name))) for name in FLAGS)
        return tuple(map(fields.get, SPECIFIED)) == _specified(schedule)

    def _data(self, where: str, type_: str, id_: str) -> Mapping[str, Any] | None:
        """The data of an event, if it has that type and id."""
        month, _, seq = where.partition(":")
        if not (seq.isascii() and seq.isdigit() and len(seq) < 19):
            return None
        event = self._event(int(seq), month)
        if event is None or (event.type, event.id) != (type_, id_):
            return None
        return event.data

    def _event(self, seq: int, month: str) -> Envelope | None:
        if self._at_hand is not None and self._at_hand[0] == month:
            event = self._at_hand[1].event(seq)
            if event is not None:
                return event
        lines = self._store.lines_around(seq, month)
        self._at_hand = None if lines is None else (month, lines)
        return None if lines is None else lines.event(seq)
