"""The events for what has become of deliveries since the last pass."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.events.records import Record
from promptyoself.ledger.linking import provisional_event
from promptyoself.rules.claim import Claim, Stalled
from promptyoself.rules.outcome import Outcome, outcome_events, stall_events
from promptyoself.service.delivery.activity_log import line_of
from promptyoself.state.apply import fold
from promptyoself.state.schedules import State
from promptyoself.store.store import Store


def record_outcomes(
    store: Store,
    state: State,
    worker: str,
    stalls: Sequence[tuple[Claim, Stalled]],
    outcomes: Sequence[tuple[Claim, Outcome]],
    now: datetime,
) -> tuple[list[Draft], list[dict[str, Any]], State]:
    """The events for ``stalls`` and ``outcomes``, a line per outcome, and the state after them.

    The claims of the same pass are decided on that state.
    """
    drafts: list[Draft] = []
    lines: list[dict[str, Any]] = []

    def take(claimed: Claim, records: Sequence[Record]) -> State:
        drafts.extend(store.draft(record, claimed.id, claimed.agent_id) for record in records)
        return fold(state, [provisional_event(record, claimed.id, ts) for record in records])

    ts = format_utc(now)
    for claimed, stalled in stalls:
        state = take(claimed, stall_events(state, claimed, worker, stalled))
    for claimed, outcome in outcomes:
        records, became = outcome_events(state, claimed, worker, outcome, now)
        state = take(claimed, records)
        if became != "settled":
            lines.append(line_of(state, claimed, outcome, became))
    return drafts, lines, state
