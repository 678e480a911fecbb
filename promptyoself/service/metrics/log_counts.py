"""The counts of a log that metrics show.

The counts are made event by event. They stay small however long the log is, so they can be kept
beside it, and counting goes on from where it was.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from heapq import nsmallest
from typing import Any

from promptyoself.core.errors import impossible_event
from promptyoself.core.instants import MICROSECOND, parse_utc
from promptyoself.events.codec import is_known, read_record
from promptyoself.ledger import Envelope

BUCKETS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)
"""The upper bounds of the lateness histogram, in seconds; one without a bound follows."""

_BY_PAIR = ("slots", "failures", "changes")  # the counts of which each has two words
_MOST_KEYS = 100
_OTHER = "other"
_is_word = re.compile(r"[a-z][a-z0-9_]{0,39}", re.ASCII).fullmatch


class LogCounts:
    """The counts of one chain, up to an event of it."""

    def __init__(self) -> None:
        self.events: Counter[str] = Counter()  # by type
        self.slots: Counter[tuple[str, str]] = Counter()  # by outcome and reason
        self.failures: Counter[tuple[str, str]] = Counter()  # of attempts, by class and code
        self.changes: Counter[tuple[str, str]] = Counter()  # of schedules, by event and door
        self.attempts = 0
        self.parked = 0  # how often a schedule was parked
        self.late: list[int] = [0] * (len(BUCKETS) + 1)  # delivered slots, by bucket of lateness
        self.late_microseconds = 0  # the sum of their lateness
        self.day = ""  # the last day (UTC) on which a slot was claimed
        self.spent: dict[str, int] = {}  # the claims of that day, by the schedule's id
        self.budgets: dict[str, int] = {}  # the daily budgets, by the schedule's id

    def add(self, events: Iterable[Envelope]) -> None:
        """Count more events. Events of a newer version are counted as ``other``.

        Raises:
            ChainError: ``corrupt_chain``: an event isn't one that any version of ours writes.
        """
        for event in events:
            if not is_known(event.type, event.v):
                self.events[_OTHER] += 1
                continue
            self.events[event.type] += 1
            kind, _, what = event.type.partition(".")
            if kind not in ("schedule", "delivery"):
                continue
            try:
                record: Any = read_record(event.type, event.v, event.data)
                if kind == "delivery":
                    self._delivery(what, event, record)
                else:
                    self._schedule(what, event, record)
            except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
                problem = f"Event {event.seq} ({event.type}) can't be counted: {error!r}."
                raise impossible_event(event.seq, problem) from None

    def budgets_left(self, day: str, limit: int) -> tuple[list[tuple[str, int, int]], int]:
        """The daily budgets of which some was spent on that ``day``. Returns id, budget and rest of
        the schedules with the least left, ``limit`` at most, and the number of schedules that have
        nothing left."""
        spent = self.spent if self.day == day else {}
        budgets = [
            (id_, budget, max(budget - spent[id_], 0))
            for id_, budget in self.budgets.items()
            if id_ in spent
        ]
        empty = sum(1 for _, _, left in budgets if not left)
        return nsmallest(limit, budgets, key=lambda line: (line[2], line[0])), empty

    def to_json(self) -> dict[str, Any]:
        """All counts, as JSON can hold them."""
        document = dict(vars(self))
        for name in _BY_PAIR:
            document[name] = [[*pair, count] for pair, count in document[name].items()]
        return document

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> LogCounts:
        """The counts that :meth:`to_json` described.

        Raises:
            KeyError, TypeError, ValueError: the document isn't one of these.
        """
        new = cls()
        new.events.update(document["events"])
        for name in _BY_PAIR:
            getattr(new, name).update({(a, b): int(count) for a, b, count in document[name]})
        new.attempts, new.parked = int(document["attempts"]), int(document["parked"])
        new.late, new.late_microseconds = list(document["late"]), int(document["late_microseconds"])
        if len(new.late) != len(BUCKETS) + 1:
            raise ValueError("other buckets")
        new.day, new.spent = document["day"], dict(document["spent"])
        new.budgets = dict(document["budgets"])
        return new

    def _delivery(self, what: str, event: Envelope, record: Any) -> None:
        if what == "attempted":
            self.attempts += 1
            if record.attempt == 1:
                day = event.ts[:10]
                if day != self.day:
                    self.day, self.spent = day, {}
                self.spent[str(event.id)] = self.spent.get(str(event.id), 0) + 1
        elif what == "delivered":
            _add(self.slots, "delivered", record.via)
            late = max((parse_utc(event.ts) - parse_utc(record.slot)) // MICROSECOND, 0)
            self.late[bisect_left(BUCKETS, late / 1e6)] += 1
            self.late_microseconds += late
        elif what == "failed":
            _add(self.slots, "failed", record.code)
            _add(self.failures, _class_of(record), record.code)
            self.parked += bool(record.parked)
        elif what == "abandoned":
            _add(self.failures, "retried", record.code)
        elif what == "skipped":
            _add(self.slots, "skipped", record.why, max(record.slots, 0))

    def _schedule(self, what: str, event: Envelope, record: Any) -> None:
        door = event.actor.get("via")
        _add(self.changes, what, door if isinstance(door, str) else _OTHER)
        id_ = str(event.id)
        if what == "registered":
            self._budget(id_, record.daily_budget)
        elif what == "modified" and "daily_budget" in record.changes:
            self._budget(id_, record.changes["daily_budget"])
        elif what == "cancelled" or (what == "completed" and record.status == "completed"):
            self.budgets.pop(id_, None)  # one that failed may be resumed

    def _budget(self, id_: str, budget: int | None) -> None:
        if budget is None:
            self.budgets.pop(id_, None)
        else:
            self.budgets[id_] = budget


def _class_of(record: Any) -> str:
    if record.code == "unknown":
        return "unknown"
    return "permanent" if record.permanent else "given_up"


def _add(counts: Counter[tuple[str, str]], kind: str, reason: str, number: int = 1) -> None:
    """Count something under its reason, or under ``other``. It is ``other`` if the reason is no
    word of ours, or if there are too many reasons. Else somebody who can write the log could make
    any number of series."""
    key = kind, reason
    if key not in counts and (not _is_word(reason) or len(counts) >= _MOST_KEYS):
        key = kind, _OTHER
    counts[key] += number
