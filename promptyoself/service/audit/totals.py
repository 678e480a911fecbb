"""Sums of verdicts, and the slots that were not delivered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import orjson

from promptyoself.core.instants import format_utc
from promptyoself.events.kinds import OUTCOMES
from promptyoself.ledger import Envelope
from promptyoself.service.audit.slot_verdicts import SlotVerdict


class EventActors:
    """The actor of every event. There are few different ones, so each is kept once."""

    def __init__(self) -> None:
        self._different: dict[bytes, Mapping[str, Any]] = {}  # by its JSON
        self._by_number: list[Mapping[str, Any] | None] = []  # ``None`` for lost events

    def add(self, event: Envelope) -> None:
        """Take in the next event."""
        self._by_number += [None] * (event.seq - 1 - len(self._by_number))
        actor = self._different.setdefault(orjson.dumps(event.actor), event.actor)
        self._by_number.append(actor)

    def of(self, seq: int) -> Mapping[str, Any] | None:
        """The actor of an event by its number; ``None`` if there is no such event."""
        return self._by_number[seq - 1] if 1 <= seq <= len(self._by_number) else None


class AuditTotals:
    """Adds up verdicts, for each schedule and altogether, and keeps those not delivered."""

    def __init__(self, agent_id: str | None, actors: EventActors) -> None:
        """``agent_id`` leaves out the verdicts on all other agents' slots."""
        self._agent_id, self._actors = agent_id, actors
        self._sums: dict[tuple[str, str], Counter[str]] = {}  # by schedule and agent
        self._undelivered: list[dict[str, Any]] = []

    def add(self, verdict: SlotVerdict) -> None:
        """Count a verdict."""
        if self._agent_id not in (None, verdict.agent_id):
            return
        if verdict.slots < 0 and not self._withdraw(verdict):
            return
        sums = self._sums.setdefault((verdict.id, verdict.agent_id), Counter())
        sums[verdict.outcome] += verdict.slots
        if verdict.outcome == "skipped":
            sums[f"skipped {verdict.why}"] += verdict.slots
        if verdict.outcome not in ("doubled", "unexpected"):  # those are beside a slot's outcome
            sums["slots"] += verdict.slots
        if verdict.outcome != "delivered" and verdict.slots > 0:
            self._undelivered.append(
                {
                    "id": verdict.id,
                    "agent_id": verdict.agent_id,
                    "slot": format_utc(verdict.first),
                    "last": format_utc(verdict.last),
                    "slots": verdict.slots,
                    "kind": verdict.kind,
                    "outcome": verdict.outcome,
                    "why": verdict.why,
                    "seq": verdict.seq,
                    "by": self._actors.of(verdict.seq),
                }
            )

    def _withdraw(self, verdict: SlotVerdict) -> bool:
        """Remove the line of a verdict that doesn't hold any more. Returns whether it was there."""
        key = (verdict.id, verdict.seq, format_utc(verdict.first), format_utc(verdict.last))
        for number, line in enumerate(self._undelivered):
            if (line["id"], line["seq"], line["slot"], line["last"]) == key:
                del self._undelivered[number]
                return True
        return False

    def answer(self) -> dict[str, Any]:
        """The keys of the answer that have sums and lines."""
        total: Counter[str] = Counter()
        for sums in self._sums.values():
            total.update(sums)
        self._undelivered.sort(key=lambda line: (line["slot"], line["id"], line["seq"]))
        return {
            "totals": _described(total),
            "schedules": [
                {"id": id_, "agent_id": agent_id, **_described(sums)}
                for (id_, agent_id), sums in sorted(self._sums.items())
            ],
            "undelivered": self._undelivered,
        }


def _described(sums: Mapping[str, int]) -> dict[str, Any]:
    reasons = {
        key.removeprefix("skipped "): slots
        for key, slots in sorted(sums.items())
        if key.startswith("skipped ")
    }
    outcomes: dict[str, int] = {
        outcome: sums.get(outcome, 0)
        for outcome in OUTCOMES
        if outcome != "lost" or sums.get(outcome)  # hardly any log has lost slots
    }
    return {"slots": sums.get("slots", 0), **outcomes, "skipped_why": reasons}
