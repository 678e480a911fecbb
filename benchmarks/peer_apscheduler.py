"""APScheduler's side of the comparisons, one process for each number; it runs in ``.venv/peers``.

``register FILE N`` prints the milliseconds that N calls of ``add_job`` take, with
SQLAlchemyJobStore on SQLite; ``fill FILE N`` makes such a file with N jobs; ``pass FILE N`` prints
the milliseconds of one round of its own with nothing due, the median of N; ``memory - N`` holds N
jobs in a MemoryJobStore until it is ended, and prints a line when it has them.
"""

import logging
import pickle
import statistics
import sys
import time
from datetime import UTC, datetime, timedelta

from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.jobstores.sqlalchemy import SQLAlchemyJobStore
from apscheduler.schedulers.base import STATE_RUNNING
from apscheduler.schedulers.blocking import BlockingScheduler
from apscheduler.util import datetime_to_utc_timestamp


def nothing(_agent: str, _prompt: str) -> None:
    """What a job calls."""


def scheduler(store: object) -> BlockingScheduler:
    """One that hasn't been started."""
    return BlockingScheduler(jobstores={"default": store}, timezone="UTC")


def sqlite(path: str) -> SQLAlchemyJobStore:
    """Jobs in a file."""
    return SQLAlchemyJobStore(url=f"sqlite:///{path}")


def add(made: BlockingScheduler, number: int, **trigger: object) -> None:
    """Schedule what ``register`` would."""
    prompt = f"Look at the inbox ({number})."
    made.add_job(
        nothing, "interval", args=[f"agent-{number // 100}", prompt], id=f"job-{number}", **trigger
    )


def prepared(made: BlockingScheduler) -> BlockingScheduler:
    """As ``start`` prepares it, so that jobs go to their store at once; its own thread isn't
    started, which would take part in what is measured."""
    made._event = __import__("threading").Event()
    super(BlockingScheduler, made).start(paused=True)
    return made


def register(path: str, count: int) -> float:
    """One process, one job after the other, each committed."""
    made = prepared(scheduler(sqlite(path)))
    began = time.perf_counter()
    for number in range(count):
        add(made, number, minutes=5)
    return (time.perf_counter() - began) * 1000


def fill(path: str, count: int) -> float:
    """In one transaction, the rows that ``add_job`` would write."""
    made, store = scheduler(MemoryJobStore()), sqlite(path)
    prepared(made)
    start = datetime.now(UTC) + timedelta(days=1)
    for number in range(count):
        add(made, number, days=1, start_date=start + timedelta(seconds=number % 86_400))
    store.start(made, "sqlite")
    rows = [
        {
            "id": job.id,
            "next_run_time": datetime_to_utc_timestamp(job.next_run_time),
            "job_state": pickle.dumps(job.__getstate__(), store.pickle_protocol),
        }
        for job in made.get_jobs()
    ]
    with store.engine.begin() as connection:
        connection.execute(store.jobs_t.insert(), rows)
    return len(rows)


def looking(path: str, count: int) -> float:
    """What its thread does each time it wakes."""
    made = prepared(scheduler(sqlite(path)))
    made.state = STATE_RUNNING
    taken = []
    for _ in range(count + 1):
        began = time.perf_counter()
        assert made._process_jobs() is not None
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:]) * 1000


def memory(_path: str, count: int) -> float:
    """Run it until somebody ends the process."""
    made = scheduler(MemoryJobStore())
    start = datetime.now(UTC) + timedelta(days=1)
    for number in range(count):
        add(made, number, days=1, start_date=start + timedelta(seconds=number % 86_400))
    made.add_listener(lambda _: print("ready", flush=True), 1)  # EVENT_SCHEDULER_STARTED
    made.start()
    return 0.0


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    kind, where, jobs = sys.argv[1:]
    kinds = {"register": register, "fill": fill, "pass": looking, "memory": memory}
    print(kinds[kind](where, int(jobs)))
