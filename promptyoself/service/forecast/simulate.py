"""What would happen until some time: how much would be delivered and skipped, what the log would
grow by, and what a loop would have to do."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import parse_bound, require_future
from promptyoself.events.draft import FOR
from promptyoself.events.records import Record
from promptyoself.ledger import encode_line
from promptyoself.ledger.envelope import hash_line
from promptyoself.ledger.linking import as_if
from promptyoself.ledger.sealing import MEMBER_BYTES
from promptyoself.ledger.segments import compress
from promptyoself.service.desires.idle_source import desire_ranking
from promptyoself.service.forecast.simulator import Foreseen, Future
from promptyoself.service.schedules.approval_tokens import Tokens
from promptyoself.store.access import pinned
from promptyoself.store.store import Store

__all__ = ["MOST_EVENTS", "simulate"]

MOST_EVENTS = 10_000_000
"""After so many events a simulation ends: they take minutes, and nobody asks for more of them but
by mistake."""

_LIMITS = frozenset({"approval", "budget", "agent_cap"})


def simulate(
    store: Store,
    until: str,
    now: datetime,
    *,
    agent_id: str | None = None,
    latency: float = 0.0,
    most: int = MOST_EVENTS,
) -> dict[str, Any]:
    """What would be delivered and skipped from ``now`` to ``until`` (a time as ``register`` reads
    it), per agent and day (UTC) of the decision; which limits would stop what; by how much the log
    would grow, estimated from the encoding of these events; and how much a loop would have to do.

    Each delivery takes ``latency`` seconds. It ends early after ``most`` events.

    Raises:
        PromptyoselfError: ``invalid_time``, ``nonexistent_time``, ``past_time``;
            ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    zone = default_zone(store.settings)
    end = parse_bound(until, zone, now, end=True)
    require_future(end, now, zone)
    only = pinned(store, agent_id) or agent_id
    state, position = store.index.load()  # not `read`, which mends an index
    store.mention_newer(state)
    tokens = Tokens(store.settings.var, store.disk)
    future = Future(
        state,
        store.settings.caps,
        now,
        agent_id=only,
        latency=timedelta(seconds=latency),
        strongest=desire_ranking(store),
        judge=lambda at, schedule: tokens.judge(schedule, max(at, position.ts)),
    )
    tally, growth = _Tally(), _Growth(position.seq, store.actor)
    truncated = False
    for event in future.until(end):
        if tally.events >= most and event.at != tally.at:
            truncated = True
            break
        tally.take(event)
        growth.take(event, future.weight)
    reached = tally.at if truncated else format_utc(end)
    message = (
        f"{tally.fired} deliveries up to {reached}, {sum(tally.skipped.values())} slots skipped."
    )
    if truncated:
        message += f" It was ended there, after {tally.events} events."
    return {
        "from": format_utc(now),
        "since": format_utc(now),
        "until": reached,
        "truncated": truncated,
        **tally.answer(),
        "log": growth.estimate(),
        "load": {
            "passes": tally.passes,
            "most_due": {"at": future.most_due[0], "slots": future.most_due[1]},
            "busiest_hour": {"hour": tally.busiest[0], "deliveries": tally.busiest[1]},
        },
        "broken": [{"id": id_, "problem": why} for id_, why in sorted(future.broken.items())],
        "message": message,
    }


class _Day:
    """What is decided about an agent's slots on one day."""

    __slots__ = ("fired", "skipped")

    def __init__(self) -> None:
        self.fired = 0
        self.skipped: dict[str, int] = {}


class _Tally:
    """What is fired and skipped, by whom and when."""

    def __init__(self) -> None:
        self.events = self.passes = self.fired = 0
        self.skipped: dict[str, int] = {}
        self.busiest: tuple[str | None, int] = (None, 0)
        self.at = ""
        self._hour, self._in_hour = "", 0
        self._days: dict[str, dict[str, _Day]] = {}
        self._stopped: dict[tuple[str, str], dict[str, Any]] = {}

    def take(self, event: Foreseen) -> None:
        at = event.at
        self.events += 1
        if at != self.at:
            self.at = at
            self.passes += 1
            if at[:13] != self._hour:
                self._hour, self._in_hour = at[:13], 0
        if event.type == "delivery.attempted":
            self._day(event).fired += 1
            self.fired += 1
            self._in_hour += 1
            if self._in_hour > self.busiest[1]:
                self.busiest = self._hour, self._in_hour
        elif event.why:
            for counts in (self.skipped, self._day(event).skipped):
                counts[event.why] = counts.get(event.why, 0) + event.slots
            if event.why in _LIMITS:
                self._stop(event)

    def _day(self, event: Foreseen) -> _Day:
        days, day = self._days.setdefault(event.agent_id, {}), event.at[:10]
        found = days.get(day)
        if found is None:
            found = days[day] = _Day()
        return found

    def _stop(self, event: Foreseen) -> None:
        key = event.id, event.why
        if key not in self._stopped:
            self._stopped[key] = {
                "id": event.id,
                "agent_id": event.agent_id,
                "why": event.why,
                "slots": 0,
                "first": event.slot,
            }
        self._stopped[key]["slots"] += event.slots

    def answer(self) -> dict[str, Any]:
        return {
            "fired": self.fired,
            "skipped": dict(sorted(self.skipped.items())),
            "agents": [
                {
                    "agent_id": agent_id,
                    "fired": sum(each.fired for each in days.values()),
                    "days": [
                        {"day": day, "fired": each.fired, "skipped": each.skipped}
                        for day, each in days.items()
                    ],
                }
                for agent_id, days in sorted(self._days.items())
            ],
            "stopped": sorted(
                self._stopped.values(), key=lambda found: (-found["slots"], found["id"])
            ),
        }


class _Growth:
    """How much longer the log would be. Events and appends are counted; their bytes are those of
    the instants that were decided in full, encoded, linked and compressed as in earnest."""

    def __init__(self, seq: int, actor: Mapping[str, str]) -> None:
        self._seq, self._actor, self._hash = seq, actor, hash_line(b"")
        self._at, self._weight, self._last = "", 0, -1
        self._events = self._appends = 0
        self._appended: dict[int, list[Foreseen]] = {}
        self._sampled = self._bytes = self._gzipped = 0
        self._text = b""  # of one member of a sealed month

    def take(self, event: Foreseen, weight: int) -> None:
        self._events += 1
        if event.at != self._at:
            self._measure()
            self._at, self._weight = event.at, weight
        self._last = max(self._last, event.append)
        if weight and event.record is not None:
            self._appended.setdefault(event.append, []).append(event)

    def _measure(self) -> None:
        self._appends += self._last + 1
        self._last = -1
        for drafts in self._appended.values():
            content = b"".join(self._line(event.record, event) for event in drafts if event.record)
            self._sampled += self._weight * len(drafts)
            self._bytes += self._weight * len(content)
            self._gzipped += self._weight * len(compress(content))
            if len(self._text) < MEMBER_BYTES:
                self._text += content
        self._appended.clear()

    def _line(self, record: Record, event: Foreseen) -> bytes:
        self._seq += 1
        envelope = as_if(record, event.id, self._at)
        actor = {**self._actor, FOR: event.agent_id}
        line = encode_line(envelope._replace(seq=self._seq, actor=actor, prev=self._hash))
        self._hash = hash_line(line)
        return line + b"\n"

    def estimate(self) -> dict[str, Any]:
        """In bytes: as text, as appended, and once the months are sealed."""
        self._measure()
        scale = self._events / self._sampled if self._sampled else 0.0
        sealed = len(compress(self._text)) / len(self._text) if self._text else 0.0
        return {
            "estimated": True,
            "events": self._events,
            "appends": self._appends,
            "bytes": round(self._bytes * scale),
            "gzipped": round(self._gzipped * scale),
            "sealed": round(self._bytes * scale * sealed),
        }
