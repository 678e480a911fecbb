"""Our side of the comparisons with other schedulers, one process for each number.

``register VAR N`` prints the milliseconds that N registrations take; ``pass VAR N`` those of one
pass of the loop with nothing due, the median of N; ``import VAR N`` those of taking in what
``export`` has written of N schedules. VAR is a data directory.
"""

import io
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from filling import many
from peers import store_in

from promptyoself.service.delivery.dispatcher import Dispatcher, new_worker_name
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.service.transfer.export import export_lines
from promptyoself.service.transfer.import_lines import import_lines


def registering(var: Path, count: int) -> float:
    """As a server would: one store, one registration after the other, each durable."""
    store = store_in(var)
    requests = [
        Request(agent_id=f"agent-{n // 100}", prompt=f"Look at the inbox ({n}).", every="5m")
        for n in range(count)
    ]
    began = time.perf_counter()
    for request in requests:
        register(store, request, datetime.now(UTC))
    return (time.perf_counter() - began) * 1000


def importing(var: Path, count: int) -> float:
    """As ``import`` does: every line checked, then all in one append."""
    elsewhere = store_in(many(var.with_name(f"{var.name}-elsewhere"), count))
    lines = export_lines(elsewhere, None, datetime.now(UTC))
    exported = io.BytesIO(b"".join(line + b"\n" for line in lines))
    store = store_in(var)
    began = time.perf_counter()
    answer = import_lines(store, exported, datetime.now(UTC))
    taken = (time.perf_counter() - began) * 1000
    assert not answer["skipped"], answer["skipped"]
    return taken


def passing(var: Path, count: int) -> float:
    """What the loop does each time it looks: is anything new, is anything due, and when will it."""
    store = store_in(var)
    store.prepare_workers()
    worker = new_worker_name()
    with store.workers.alive(worker):
        dispatcher = Dispatcher(store, {}, _now, worker=worker, mode="loop", concurrency=32)
        dispatcher.announce(_now())

        def look() -> None:
            stamp = store.stamp()
            assert not dispatcher.tick(_now(), stamp=stamp)
            assert dispatcher.next_wake(_now()) is not None

        look()
        time.sleep(0.3)  # as long as it hasn't seen the folder unchanged, it lists it
        look()
        found = statistics.median(_seconds(look) for _ in range(count))
        dispatcher.close()
    return found * 1000


def _now() -> datetime:
    return datetime.now(UTC)


def _seconds(function: Callable[[], None]) -> float:
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


if __name__ == "__main__":
    kind, folder, number = sys.argv[1:]
    kinds = {"register": registering, "pass": passing, "import": importing}
    print(kinds[kind](Path(folder), int(number)))
