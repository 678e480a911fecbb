"""Prompts, all due at once, delivered in this process: ``delivery_storm.py PROMPTS SEATS``.

Prints what it took as JSON. The time is that of the deliveries alone. Importing the Letta client
comes before, which takes half a second of any command that needs it, and so does importing the lock
by which a worker is known to be alive, which takes a tenth.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from promptyoself.core.ids import schedule_id
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import load_settings
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import content_of
from promptyoself.service.delivery.loop import StopFlag, execute_once
from promptyoself.store.store import Store
from promptyoself.targets.letta import LettaClient


def main() -> None:
    """Register, wait until it is due, deliver; print the figures."""
    prompts, seats = (int(argument) for argument in sys.argv[1:3])
    importlib.import_module("filelock")
    settings = load_settings(dict(os.environ))
    store = Store(settings, {"via": "benchmark", "who": "b"}, warn=complain)
    letta = LettaClient(settings.base_url, settings.token, call_timeout=settings.call_timeout)
    places = [(agent.id, None) for agent in letta.agents()]
    due = datetime.now(UTC) + timedelta(seconds=2 + prompts / 1000)
    fill(store, places, prompts, due)
    all_due = due + timedelta(microseconds=prompts)
    time.sleep((all_due - datetime.now(UTC)).total_seconds())  # an error where it took too long
    began, cpu = time.perf_counter(), time.process_time()
    report = execute_once(
        store,
        {"letta": letta},
        lambda: datetime.now(UTC),
        concurrency=seats,
        deadline=3600.0,
        stop=StopFlag(),
    )
    answer = {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "delivered": sum(line["delivered"] for line in report.executed),
        "replied": sum(line["replied"] for line in report.replies),
        **told_by_the_log(store),
    }
    letta.close()
    print(json.dumps(answer))


def prompt(number: int) -> str:
    """The text of the prompt of that number."""
    return f"Look at the inbox, and answer what can't wait ({number})."


def fill(
    store: Store, places: Sequence[tuple[str, str | None]], prompts: int, due: datetime
) -> None:
    """Register them in one append. Each place, an agent and a conversation of its, has its turn
    again when all have had theirs."""
    drafts = []
    for number in range(prompts):
        at = format_utc(due + timedelta(microseconds=number))
        agent_id, conversation_id = places[number % len(places)]
        record = ScheduleRegistered(
            agent_id=agent_id,
            conversation_id=conversation_id,
            prompt=prompt(number),
            schedule_type="once",
            schedule_value=at,
            timezone="UTC",
            next_run=at,
            anchor=at,
            tier=0,
            misfire="coalesce",
            grace=86400,
        )
        drafts.append(store.draft(record, schedule_id(content_of(record))))
    # The first 8 digits of a hash may meet; one prompt less then, rather than a rule of its own.
    only = {draft.id: draft for draft in drafts}
    assert len(only) == prompts, "two prompts with one id: take another number of them"
    store.transact(datetime.now(UTC), lambda _: (drafts, None))


def told_by_the_log(store: Store) -> dict[str, Any]:
    """How long prompts waited, in how many passes, and how fair it was."""
    late: list[float] = []
    held: list[float] = []
    turns: Counter[str] = Counter()
    agent_of: dict[str, str] = {}
    passes = ahead = 0
    waiting: set[str] = set()
    for batch in store.replay():
        passes += any(event.type.startswith("delivery.") for event in batch.envelopes)
        for event in batch.envelopes:
            if event.type == "schedule.registered":
                agent_of[str(event.id)] = event.data["agent_id"]
                waiting.add(event.data["agent_id"])
            elif event.type == "delivery.attempted":
                agent = agent_of[str(event.id)]
                turns[agent] += 1
                if agent in waiting:
                    waiting.discard(agent)
                elif waiting:
                    ahead = max(ahead, turns[agent])
            elif event.type == "delivery.delivered":
                at = parse_utc(event.ts)
                late.append((at - parse_utc(event.data["slot"])).total_seconds())
                held.append(event.data["latency_ms"] / 1000)
    return {
        "due to delivered": quantiles(late),
        "claimed to delivered": quantiles(held),
        "passes": passes,
        "ahead": ahead,
    }


def quantiles(values: list[float]) -> tuple[float, float, float]:
    """The median, the 99th percentile and the largest."""
    values = sorted(values)
    return (
        values[len(values) // 2],
        values[min(len(values) * 99 // 100, len(values) - 1)],
        values[-1],
    )


def complain(text: str) -> None:
    """Say what the store warns of."""
    print(text, file=sys.stderr)


if __name__ == "__main__":
    main()
