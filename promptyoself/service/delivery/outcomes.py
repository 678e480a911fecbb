"""What a pass has to write of deliveries that are under way, or over."""

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

__all__ = ["record_outcomes"]


def record_outcomes(
    store: Store,
    state: State,
    worker: str,
    stalls: Sequence[tuple[Claim, Stalled]],
    outcomes: Sequence[tuple[Claim, Outcome]],
    now: datetime,
) -> tuple[list[Draft], list[dict[str, Any]], State]:
    """The events for what deliveries have met on their way and for outcomes, a line for people for
    each of these, and the state after them."""
    drafts: list[Draft] = []
    lines: list[dict[str, Any]] = []
    left, ts = list(outcomes), format_utc(now)
    for made, stalled in stalls:
        met = stall_events(state, made, worker, stalled)
        drafts += [store.draft(record, made.id, made.agent_id) for record in met]
        state = fold(state, [provisional_event(record, made.id, ts) for record in met])
    while left:
        # A fold costs something, so one for all, but for a schedule's second outcome.
        seen: set[str] = set()
        later: list[tuple[Claim, Outcome]] = []
        settled: list[tuple[Claim, Outcome, str]] = []
        events: list[Envelope] = []
        for made, outcome in left:
            if made.id in seen:
                later.append((made, outcome))
                continue
            seen.add(made.id)
            records, became = outcome_events(state, made, worker, outcome, now)
            drafts += [store.draft(record, made.id, made.agent_id) for record in records]
            events += [provisional_event(record, made.id, ts) for record in records]
            if became != "settled":
                settled.append((made, outcome, became))
        state = fold(state, events)
        lines += [line_of(state, *each) for each in settled]
        left = later
    return drafts, lines, state
