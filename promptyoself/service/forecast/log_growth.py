"""How much longer the log would be after a simulation."""

from collections.abc import Mapping
from typing import Any

from promptyoself.events.draft import FOR
from promptyoself.events.records import Record
from promptyoself.ledger import encode_line
from promptyoself.ledger.envelope import hash_line
from promptyoself.ledger.linking import provisional_event
from promptyoself.ledger.sealing import MEMBER_BYTES
from promptyoself.ledger.segments import compress
from promptyoself.service.forecast.simulator import SimulatedEvent


class LogGrowth:
    """Counts events and appends, and estimates their bytes from a sample of the instants. The
    events of the sample are encoded, linked and compressed as the ledger does it."""

    def __init__(self, seq: int, actor: Mapping[str, str]) -> None:
        """``seq`` is the number of the log's last event. ``actor`` is recorded with each event."""
        self._seq, self._actor, self._hash = seq, actor, hash_line(b"")
        self._at = ""  # the current instant
        self._weight = 0  # the number of instants for which it stands in the sample
        self._last_append = -1  # the number of its latest append
        self._sample: dict[int, list[SimulatedEvent]] = {}  # its sampled events, by append
        self._events = self._appends = 0  # altogether
        # Of the sample, each instant as often as it stands for others: events, and bytes.
        self._sampled_events = self._bytes = self._gzipped = 0
        self._text = b""  # the sampled lines, up to those of one member of a sealed month

    def add(self, event: SimulatedEvent, weight: int) -> None:
        """Count an event. Its instant stands for ``weight`` instants; 0 if it isn't sampled."""
        self._events += 1
        if event.at != self._at:
            self._end_instant()
            self._at, self._weight = event.at, weight
        self._last_append = max(self._last_append, event.append)
        if weight and event.record is not None:
            self._sample.setdefault(event.append, []).append(event)

    def estimate(self) -> dict[str, Any]:
        """Events and appends, and bytes: as text, as appended, and once the months are sealed."""
        self._end_instant()
        scale = self._events / self._sampled_events if self._sampled_events else 0.0
        sealed = len(compress(self._text)) / len(self._text) if self._text else 0.0
        return {
            "estimated": True,
            "events": self._events,
            "appends": self._appends,
            "bytes": round(self._bytes * scale),
            "gzipped": round(self._gzipped * scale),
            "sealed": round(self._bytes * scale * sealed),
        }

    def _end_instant(self) -> None:
        self._appends += self._last_append + 1
        self._last_append = -1
        for events in self._sample.values():
            content = b"".join(self._line(event.record, event) for event in events if event.record)
            self._sampled_events += self._weight * len(events)
            self._bytes += self._weight * len(content)
            self._gzipped += self._weight * len(compress(content))
            if len(self._text) < MEMBER_BYTES:
                self._text += content
        self._sample.clear()

    def _line(self, record: Record, event: SimulatedEvent) -> bytes:
        self._seq += 1
        envelope = provisional_event(record, event.id, self._at)
        actor = {**self._actor, FOR: event.agent_id}
        line = encode_line(envelope._replace(seq=self._seq, actor=actor, prev=self._hash))
        self._hash = hash_line(line)
        return line + b"\n"
