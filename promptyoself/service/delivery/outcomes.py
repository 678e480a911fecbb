"""The events for what has become of deliveries since the last pass."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from promptyoself.core.instants import format_utc
from promptyoself.events.draft import Draft
from promptyoself.ledger import Envelope
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
    waiting, ts = list(outcomes), format_utc(now)
    for claimed, stalled in stalls:
        records = stall_events(state, claimed, worker, stalled)
        drafts += [store.draft(record, claimed.id, claimed.agent_id) for record in records]
        state = fold(state, [provisional_event(record, claimed.id, ts) for record in records])
    while waiting:
        # One fold for many outcomes is cheaper. A schedule's second outcome is decided after it.
        seen: set[str] = set()
        later: list[tuple[Claim, Outcome]] = []
        results: list[tuple[Claim, Outcome, str]] = []
        events: list[Envelope] = []
        for claimed, outcome in waiting:
            if claimed.id in seen:
                later.append((claimed, outcome))
                continue
            seen.add(claimed.id)
            records, became = outcome_events(state, claimed, worker, outcome, now)
            drafts += [store.draft(record, claimed.id, claimed.agent_id) for record in records]
            events += [provisional_event(record, claimed.id, ts) for record in records]
            if became != "settled":
                results.append((claimed, outcome, became))
        state = fold(state, events)
        lines += [line_of(state, *result) for result in results]
        waiting = later
    return drafts, lines, state
