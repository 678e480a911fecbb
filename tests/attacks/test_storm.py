"""P2 under attack: loops are killed, Letta misbehaves, and every prompt still arrives once."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
from storm import Storm
from tally import count

from promptyoself.sandbox import Sandbox
from promptyoself.service.audit.report import audit

# Each fault with its probability for a send. A run that is stuck takes two hours to give up, by
# the clock, so it has a test of its own without one.
FAULTS = {
    "slow": 0.05,
    "refuse": 0.05,
    "rate_limit": 0.05,
    "server_error": 0.05,
    "lost_reply": 0.05,
    "hang": 0.02,
    "garbage": 0.03,
    "wrong_shape": 0.03,
    "drip": 0.02,
    "pending_approval": 0.03,
    "busy": 0.03,
    "conflict": 0.03,
    "run_pending_approval": 0.02,
    "run_fails_before": 0.03,
    "run_fails_after": 0.03,
    "model_401": 0.02,
}


@pytest.mark.timeout(600)
def test_every_slot_has_one_outcome_and_every_prompt_arrives_once(tmp_path: Path) -> None:
    """P2 and P10: 200 prompts to 50 agents, with every fault, and 20 loops killed with SIGKILL:
    each slot has one outcome in the log, and what was delivered is once in its agent's history.
    Every fourth has a conversation of its own, and never two. Each answer is in the log once."""
    with Sandbox([f"agent-{n}" for n in range(50)], latency=0.1, seed=7) as sandbox:
        storm = Storm(tmp_path / "var", sandbox, seed=7, PROMPTYOSELF_KEEP_REPLY="excerpt")
        storm.register(200)
        for kind, probability in FAULTS.items():
            sandbox.fault(kind, probability=probability)
        for kind in ("server_error", "garbage"):
            sandbox.fault(kind, probability=0.05, stored=True)
        for route in ("runs", "run", "messages", "conversations", "conversation_list"):
            sandbox.fault("server_error", route=route, probability=0.03)
        for kind in ("server_error", "garbage", "wrong_shape", "refuse", "hang"):
            sandbox.fault(kind, route="run_messages", probability=0.05)
        for kind in ("lost_reply", "refuse"):
            sandbox.fault(kind, route="conversations", probability=0.1)
        storm.start_loops(2)
        storm.rage(20, every=1.0, timeout=500)
        storm.stop_loops()

        outcomes = storm.outcomes()
        assert len(outcomes) == 200
        assert set(outcomes.values()) == {1}
        copies, delivered = storm.copies(), storm.delivered()
        assert set(copies.values()) == {1}, "a prompt arrived twice"
        assert set(copies) == delivered, "the log and the histories disagree"
        made = Counter(talk.summary for talk in sandbox.conversations.values())
        assert set(made.values()) == {1}, "a prompt got two conversations"
        assert sandbox.overlaps == 0, "an agent got a prompt while it was busy"
        assert len(delivered) > 150
        ends = storm.answers()
        assert set(ends) == delivered, "an answer is lost"
        assert {len(events) for events in ends.values()} == {1}, "an answer is in the log twice"
        read = {otid: (data.get("text"), data.get("code")) for otid, (data,) in ends.items()}
        said = {otid: (text, None if text else "no_answer") for otid, text in storm.said().items()}
        assert read == said
        answer = audit(storm.store, now=datetime.now(UTC))
        assert answer["totals"]["slots"] == 200
        assert answer["totals"]["delivered"] == len(delivered)
        count("kills by SIGKILL", storm.kills)
        count("slots audited", 200)
        count("answers recorded", len(ends))
