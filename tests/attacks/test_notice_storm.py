"""P10 under attack: loops are killed while a webhook loses, delays and refuses, and every notice
still arrives, in order, with one id; a digest too, and what an agent is told of another."""

import itertools
import random
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from storm import Storm
from tally import SEED, count, rounds
from webhooks import Answer, Fault, Received, Webhook, webhook

from promptyoself.rules.notices.to_agents import MOST_AN_HOUR, TOO_MANY_NOTICES
from promptyoself.sandbox import Sandbox
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request

FAULTS: tuple[Answer | Fault, ...] = (
    *(Answer(500), Answer(429, {"Retry-After": "1"}), Answer(204, delay=0.3)),
    *("lost", "dropped"),
)


class Unruly(Webhook):
    """Three requests in ten fare badly, until it is told to behave."""

    unruly = True

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.random = random.Random(SEED)
        self.lock = threading.Lock()

    def answer_to(self, request: Received) -> Answer | Fault:
        with self.lock:
            if self.unruly and self.random.random() < 0.3:
                answer = self.random.choice(FAULTS)
                if answer != "dropped":
                    self.received.append(request)
                return answer
            return super().answer_to(request)


def test_every_notice_arrives_with_one_id_in_order(tmp_path: Path) -> None:
    """Ten schedules fire again and again, or fail, while loops are killed. In the end every answer
    and every failure with a destination has its notice, every notice has one outcome and one id,
    and no prompt came twice. Two of them tell an agent, which is prompted once for each answer; and
    a digest is due from the beginning."""
    kills = rounds(4)
    names = [f"agent-{n}" for n in range(5)]
    with Sandbox(names, latency=0.02, seed=SEED) as sandbox, webhook(kind=Unruly) as hook:
        assert isinstance(hook, Unruly)
        now = datetime.now(UTC)
        storm = Storm(
            *(tmp_path / "var", sandbox, SEED),
            PROMPTYOSELF_DESTINATION_OPS=hook.url,
            PROMPTYOSELF_DIGEST_OPS=f"{now:%H:%M} UTC",
            PROMPTYOSELF_DESTINATION_FRIEND=f"agent:{sandbox.agents[0]}",
            PROMPTYOSELF_KEEP_REPLY="excerpt",
            PROMPTYOSELF_MIN_INTERVAL="1",
        )
        end = now + timedelta(seconds=4 + 1.5 * kills)
        for number in range(10):
            times: dict[str, Any] = {"time": (now + timedelta(seconds=2)).isoformat()}
            if number % 5:
                times = {"every": "2s", "until": end.isoformat(), "start_at": now.isoformat()}
            request = Request(
                agent_id=sandbox.agents[number % 5] if number else "agent-none",
                prompt=f"prompt {number}",
                reply_to="friend" if number in (3, 4) else "ops",
                on_failure="ops",
                **times,
            )
            register(storm.store, request, now)
        storm.start_loops(2)
        for _ in range(kills):
            time.sleep(0.5 + storm.random.random())
            storm.kill_one()
        hook.unruly = False
        deadline = time.monotonic() + 120
        while not is_over(storm):
            assert time.monotonic() < deadline, (
                storm.unsettled(),
                storm.store.read().state.notices,
            )
            time.sleep(0.2)
        storm.stop_loops()
        check(storm, hook)
        count("kills by SIGKILL", kills)


def is_over(storm: Storm) -> bool:
    state = storm.store.read().state
    return storm.all_settled() and not (state.replies or state.notices) and "ops" in state.digests


def check(storm: Storm, hook: Webhook) -> None:
    """What must hold of the log and of what the webhook got."""
    events = [event for batch in storm.store.replay() for event in batch.envelopes]
    named = [
        event for event in events if event.data.get("to") and not event.type.startswith("notice.")
    ]
    owed = [event for event in named if event.data["to"] == "ops"]
    check_agents_told([event for event in named if event.data["to"] == "friend"], events)
    told = [event for event in events if event.type.startswith("notice.")]
    answered = {"delivery.replied", "delivery.unanswered"}
    prompts = {event.data["notice"] for event in named if event.data["to"] == "friend"}
    answers = [event for event in events if event.type in answered and event.id not in prompts]
    assert all(event.data.get("notice") for event in answers)
    ids = [event.data["notice"] for event in owed]
    assert len(ids) == len(set(ids)) >= 10
    final = Counter(event.data["notice"] for event in told if "retry_at" not in event.data)
    (digest,) = {event.data["notice"] for event in told if event.data["kind"] == "digest"}
    assert final == Counter([*ids, digest]), "each has one final outcome"
    assert not [
        event for event in told if event.type == "notice.failed" and "retry_at" not in event.data
    ]
    assert set(hook.ids) == {*ids, digest}, "each arrives, and nothing else does"
    assert all(request.id == request.json["data"]["id"] for request in hook.received)
    for schedule in {event.id for event in owed}:
        mine = [event.data["notice"] for event in owed if event.id == schedule]
        first_seen = list(dict.fromkeys(id_ for id_ in hook.ids if id_ in mine))
        assert first_seen == mine, "in order"
        for earlier, later in itertools.pairwise(mine):
            last = max(n for n, id_ in enumerate(hook.ids) if id_ == earlier)
            assert last < hook.ids.index(later), "the one before is settled first"
    assert set(storm.copies().values()) == {1}, "no prompt came twice"
    assert set(storm.outcomes().values()) == {1}
    count("notices that arrived", len(ids))


def check_agents_told(answers: list[Any], events: list[Any]) -> None:
    """For each answer the agent has one prompt, registered in the same append, as long as there
    aren't too many."""
    for schedule in {event.id for event in answers}:  # of an agent each
        ids = [event.data["notice"] for event in answers if event.id == schedule]
        assert TOO_MANY_NOTICES not in ids[:MOST_AN_HOUR]
    answers = [event for event in answers if event.data["notice"] != TOO_MANY_NOTICES]
    registered = {event.id: event for event in events if event.type == "schedule.registered"}
    prompts = [registered[event.data["notice"]] for event in answers]
    assert len({prompt.id for prompt in prompts}) == len(answers) >= 1
    for answer, prompt in zip(answers, prompts, strict=True):
        assert prompt.ts == answer.ts
        assert f"the prompt of {answer.id} for {answer.data['slot']}" in prompt.data["prompt"]
    count("notices that became prompts", len(prompts))
