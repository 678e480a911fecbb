"""One side of ``bench_letta_code.py``, in a process of its own: ``letta_code_storm.py ours|floor``.

Stdin says as JSON where the App Server is, and what is sent where: ``{"url", "places", "prompts",
"seats"}``. A place is an agent and a conversation, or ``null`` for a new one for each prompt.
Prints what it took as JSON. The times are those of the deliveries alone.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from collections import deque
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from delivery_storm import complain, fill, prompt, told_by_the_log
from websockets.sync.client import connect

from promptyoself.core.settings import load_settings
from promptyoself.service.delivery.configured_targets import ConfiguredTargets
from promptyoself.service.delivery.loop import StopFlag, execute_once
from promptyoself.store.store import Store

Place = tuple[str, str | None]


def ours(url: str, places: list[Place], prompts: int, seats: int) -> dict[str, Any]:
    """Register, wait until it is due, deliver."""
    settings = load_settings({**os.environ, "PROMPTYOSELF_LETTA_CODE_URL": url})
    store = Store(settings, {"via": "benchmark", "who": "b"}, warn=complain)
    targets = ConfiguredTargets(settings)
    targets["letta-code"].check()  # the floor has its connection before it begins, too
    due = datetime.now(UTC) + timedelta(seconds=1 + prompts / 1000)
    fill(store, places, prompts, due)
    all_due = due + timedelta(microseconds=prompts)
    time.sleep((all_due - datetime.now(UTC)).total_seconds())  # an error where it took too long
    before = _peak()
    began, cpu = time.perf_counter(), time.process_time()
    report = execute_once(
        store,
        targets,
        lambda: datetime.now(UTC),
        concurrency=seats,
        deadline=3600.0,
        stop=StopFlag(),
    )
    answer = {
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "delivered": sum(line["delivered"] for line in report.executed),
        "others": [line for line in report.executed if not line["delivered"]][:3],
        "mib_before": before,
        "mib_at_most": _peak(),
        **told_by_the_log(store),
    }
    targets.close()
    return answer


def floor(url: str, places: list[Place], prompts: int, seats: int) -> dict[str, Any]:
    """Send the same over one bare connection, as fast as the turns end: in a conversation one after
    the other, and to as many at once as there are seats. Nothing is looked up, and nothing kept."""
    waiting: dict[Place, deque[str]] = {}
    for number in range(prompts):
        place = places[number % len(places)]
        key = place if place[1] is not None else (place[0], f"new {number}")
        waiting.setdefault(key, deque()).append(prompt(number))
    lanes = deque(waiting)
    texts: dict[str, deque[str]] = {}  # by the conversation's id
    numbers = itertools.count()
    ended = 0

    with connect(url, max_size=64 << 20, compression=None, proxy=None) as socket:

        def tell(kind: str, request_id: str, **fields: Any) -> None:
            socket.send(json.dumps({"type": kind, "request_id": request_id, **fields}))

        def say(agent_id: str, conversation_id: str) -> None:
            text = texts[conversation_id].popleft()
            message = {"role": "user", "content": text, "otid": str(uuid4())}
            tell(
                "input",
                f"input-{next(numbers)}",
                runtime={"agent_id": agent_id, "conversation_id": conversation_id},
                payload={"kind": "create_message", "messages": [message]},
            )

        def begin() -> None:
            lane = lanes.popleft()
            agent_id, conversation_id = lane
            if conversation_id is None or conversation_id.startswith("new "):
                making.append(waiting[lane])
                tell(
                    "conversation_create", f"create-{len(making) - 1}", body={"agent_id": agent_id}
                )
            else:
                texts[conversation_id] = waiting[lane]
                say(agent_id, conversation_id)

        making: list[deque[str]] = []
        tell("list_models", "models")
        while json.loads(socket.recv()).get("request_id") != "models":
            pass
        began, cpu = time.perf_counter(), time.process_time()
        for _ in range(min(seats, len(lanes))):
            begin()
        while ended < prompts:
            frame = json.loads(socket.recv(timeout=60))
            request_id = str(frame.get("request_id"))
            if request_id.startswith("create-"):
                made = frame["conversation"]
                texts[made["id"]] = making[int(request_id.partition("-")[2])]
                say(made["agent_id"], made["id"])
            elif frame["type"] == "input_accepted":
                assert frame["accepted"] is True, frame
            elif frame["type"] == "turn_finished":
                assert frame["stop_reason"] == "end_turn", frame
                ended += 1
                where = frame["runtime"]
                if texts[where["conversation_id"]]:
                    say(where["agent_id"], where["conversation_id"])
                elif lanes:
                    begin()
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "cpu": time.process_time() - cpu, "delivered": ended}


def _peak() -> float:
    """The most memory that this process has had, in MiB."""
    # Not `ru_maxrss`, which begins with what the parent had.
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def main() -> None:
    """Take the order, and print what came of it."""
    order = json.load(sys.stdin)
    places = [(agent, conversation) for agent, conversation in order["places"]]
    side = {"ours": ours, "floor": floor}[sys.argv[1]]
    print(json.dumps(side(order["url"], places, order["prompts"], order["seats"])))


if __name__ == "__main__":
    main()
