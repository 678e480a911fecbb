"""Claims and outcomes that a test writes to a log itself, with neither a loop nor a Letta."""

from datetime import datetime
from typing import Any

from world import DELIVERED

from promptyoself.events.kinds import KeepReply
from promptyoself.rules.claim import Claim, Decision, claim
from promptyoself.rules.notices.replies import Answer, NoAnswer, reply_event
from promptyoself.rules.outcome import Outcome, outcome_events
from promptyoself.rules.policy import Approvals, no_approvals
from promptyoself.store.store import Store

WORKER = "wrk_1"


def claim_due(store: Store, now: datetime, approvals: Approvals = no_approvals) -> Decision:
    """Claim everything that is due."""

    def decide(state: Any) -> Any:
        caps = store.settings.caps
        decision = claim(state, now, WORKER, caps, seats=1000, approvals=approvals)
        return [store.draft(*record) for record in decision.records], decision

    decision: Decision = store.transact(now, decide)
    return decision


def settle(
    store: Store,
    claimed: Claim,
    now: datetime,
    outcome: Outcome = DELIVERED,
    keep: KeepReply = "none",
) -> str:
    """Write down how a delivery ended, whose answer is to be kept as far as that; what became of
    its slot."""

    def decide(state: Any) -> Any:
        records, became = outcome_events(state, claimed, WORKER, outcome, now, keep)
        return [store.draft(record, claimed.id) for record in records], became

    return str(store.transact(now, decide))


def deliver_due(store: Store, now: datetime, keep: KeepReply = "none") -> list[Claim]:
    """Claim everything that is due, and write down that it was delivered."""
    claims = claim_due(store, now).claims
    for claimed in claims:
        settle(store, claimed, now, keep=keep)
    return list(claims)


def answer_all(
    store: Store, now: datetime, answer: Answer | NoAnswer, most: KeepReply = "full"
) -> None:
    """Write down that answer to everything whose answer is awaited."""

    def decide(state: Any) -> Any:
        drafts = []
        for awaited in list(state.replies.values()):
            record = reply_event(state, awaited, WORKER, answer, most)
            assert record is not None
            drafts.append(store.draft(record, awaited.id, awaited.agent_id))
        return drafts, None

    store.transact(now, decide)
