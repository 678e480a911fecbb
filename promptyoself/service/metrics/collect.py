"""Measuring a data directory, for a Prometheus: what its logs say, and what lies beside them.

The counts of a log are kept in memory, and now and then in ``metrics.json``, with the position that
they reflect. Only the events after that position are read. The file is as disposable as an index:
if anything is wrong with it, counting begins from the log's start.
"""

import time
from contextlib import suppress
from datetime import datetime
from hashlib import sha256
from heapq import nsmallest
from itertools import accumulate
from typing import Any, NamedTuple

import orjson

from promptyoself import __version__
from promptyoself.core.disk import read_ours
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.events.kinds import STATUSES
from promptyoself.ledger import START, HeadMoved, Position
from promptyoself.rules.due import due
from promptyoself.service.metrics.log_counts import LogCounts
from promptyoself.state.schedules import State
from promptyoself.store.chain import Chain
from promptyoself.store.store import Store, chains

_FORMAT = 1
_SAVE_EVERY = 5000
"""Events after which the file is written. To count them again takes 30 ms."""

_TOP = 20

_LONG_SECONDS = 0.02
_PAUSE_FACTOR = 50
"""If measuring all agents takes longer than that, a pause follows that is longer by this factor.

So it takes a fiftieth of a processor at most, however many agents there are."""


class Histogram(NamedTuple):
    """The distribution of some values."""

    cumulative: list[int]  # how many values lie up to each bound, and in all
    sum: float  # of all values


Value = int | float | Histogram
Measurements = dict[str, list[tuple[tuple[str, ...], Value]]]
"""Of each metric, by name: its values, each with those of its labels."""


class Measurer:
    """Measures one data directory again and again. Only one thread may use it. It takes no lock
    that a writer would wait for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._path = store.settings.var / "metrics.json"
        self._chains: dict[str, tuple[LogCounts, Position]] = {}
        self._saved = 0
        self._agents_measured: tuple[State | None, str, Measurements] = (None, "", {})
        self._agents_due = float("-inf")
        self._load()

    def measure(self, now: datetime) -> Measurements:
        """Everything but what only a running loop knows.

        Raises:
            ChainError: a log is damaged.
            OSError: one can't be read.
        """
        for chain in chains(self._store.unpinned):
            self._catch_up(chain)
        self._save()
        state = self._store.unpinned.snapshot().state
        day = format_utc(now)[:10]
        measurements: Measurements = {"promptyoself_build_info": [((__version__,), 1)]}
        measurements |= _counted(self._chains["schedules"][0])
        measurements |= self._open(state, now)
        measurements |= self._agents(state, day)
        measurements |= self._schedules(self._chains["schedules"][0], state, day)
        for name, (counts, position) in self._chains.items():
            for metric, values in _of_chain(name, counts, position).items():
                measurements.setdefault(metric, []).extend(values)
        return measurements

    def _catch_up(self, chain: Chain[Any]) -> None:
        name = chain.name
        counts, position = self._chains.pop(name, (LogCounts(), START))
        try:
            for batch in chain.replay(position):
                counts.add(batch.envelopes)
                position = batch.position
            # Where the month was rewritten, its bytes are others, though no event came. If one has
            # come meanwhile, it is to be counted the next time.
            end = chain.head(position)
            position = end if end.seq == position.seq else position
        except HeadMoved:
            if position == START:
                raise
            self._catch_up(chain)  # from the start, for it is forgotten by now
        else:
            self._chains[name] = counts, position

    def _open(self, state: State, now: datetime) -> Measurements:
        living = set(self._store.workers.living())
        claimed = [slot.worker for slot in state.open.values() if slot.worker is not None]
        in_flight = sum(1 for worker in claimed if worker in living)
        oldest = next(due(state, format_utc(now)), None)
        late = 0.0 if oldest is None else (now - parse_utc(oldest[0])).total_seconds()
        return {
            "promptyoself_deliveries_in_flight": [((), in_flight)],
            "promptyoself_deliveries_in_doubt": [((), len(claimed) - in_flight)],
            "promptyoself_deliveries_waiting": [((), len(state.open) - len(claimed))],
            **self._notices(state),
            "promptyoself_oldest_due_seconds": [((), max(late, 0.0))],
            "promptyoself_schedules": [
                ((status,), state.statuses.get(status, 0)) for status in STATUSES
            ],
            "promptyoself_workers": [((), len(living))],
        }

    def _notices(self, state: State) -> Measurements:
        """Nothing where there is nobody to be told."""
        if not state.notices and not self._store.settings.destinations:
            return {}
        failing = sum(notice.code is not None for notice in state.notices.values())
        return {
            "promptyoself_notices_owed": [((), len(state.notices))],
            "promptyoself_notices_failing": [((), failing)],
        }

    def _agents(self, state: State, day: str) -> Measurements:
        """Reads every agent, so it does so only after a change, and not all the time."""
        measured_state, measured_day, measurements = self._agents_measured
        began = time.monotonic()
        if measured_day == day and (measured_state is state or began < self._agents_due):
            return measurements
        budget = self._store.settings.caps.daily_per_agent
        budgets_left = {
            agent_id: max(budget - agent.spent, 0)
            for agent_id, agent in self._store.seen(state).agents.items()
            if agent.spent_day == day
        }
        least = nsmallest(_TOP, budgets_left.items(), key=lambda item: (item[1], item[0]))
        measurements = {
            "promptyoself_agents_spending": [((), len(budgets_left))],
            "promptyoself_agents_out_of_budget": [((), [*budgets_left.values()].count(0))],
            "promptyoself_agent_budget": [((), budget)],
            "promptyoself_agent_budget_left": [((agent_id,), left) for agent_id, left in least],
        }
        took = time.monotonic() - began
        self._agents_measured = state, day, measurements
        self._agents_due = began + (took * _PAUSE_FACTOR if took > _LONG_SECONDS else 0.0)
        return measurements

    def _schedules(self, counts: LogCounts, state: State, day: str) -> Measurements:
        least, empty = counts.budgets_left(day, _TOP)
        if self._store.pinned_to is not None:
            own = self._store.seen(state).schedules
            least = [budget for budget in least if budget[0] in own]
        return {
            "promptyoself_schedules_out_of_budget": [((), empty)],
            "promptyoself_schedule_budget": [((id_,), budget) for id_, budget, _ in least],
            "promptyoself_schedule_budget_left": [((id_,), left) for id_, _, left in least],
        }

    # The file of the counts. If several processes write it at once, its checksum is wrong.

    def _load(self) -> None:
        with suppress(OSError, AttributeError, KeyError, TypeError, ValueError):
            digest, _, content = read_ours(self._path).partition(b"\n")
            if sha256(content).hexdigest().encode() != digest:
                return
            kept = orjson.loads(content)
            if kept["format"] != _FORMAT:
                return
            names = {chain.name for chain in chains(self._store.unpinned)}
            self._chains = {
                name: (LogCounts.from_json(saved["counts"]), Position(*saved["position"]))
                for name, saved in kept["chains"].items()
                if name in names
            }
            self._saved = self._reached()

    def _save(self) -> None:
        if abs(self._reached() - self._saved) < _SAVE_EVERY:
            return
        self._saved = self._reached()
        chains = {
            name: {"position": list(position), "counts": counts.to_json()}
            for name, (counts, position) in self._chains.items()
        }
        content = orjson.dumps({"format": _FORMAT, "chains": chains})
        with suppress(OSError):
            digest = sha256(content).hexdigest().encode()
            self._store.disk.replace(self._path, digest + b"\n" + content, durable=False)

    def _reached(self) -> int:
        return sum(position.seq for _, position in self._chains.values())


def _counted(counts: LogCounts) -> Measurements:
    return {
        "promptyoself_slots_total": list(counts.slots.items()),
        "promptyoself_delivery_attempts_total": [((), counts.attempts)],
        "promptyoself_delivery_failures_total": list(counts.failures.items()),
        "promptyoself_delivery_lateness_seconds": [
            ((), Histogram(list(accumulate(counts.late)), counts.late_microseconds / 1e6))
        ],
        "promptyoself_schedule_events_total": list(counts.changes.items()),
        "promptyoself_schedules_parked_total": [((), counts.parked)],
    }


def _of_chain(name: str, counts: LogCounts, position: Position) -> Measurements:
    return {
        "promptyoself_events_total": [
            ((name, type_), count) for type_, count in counts.events.items()
        ],
        "promptyoself_chain_events": [((name,), position.seq)],
        "promptyoself_chain_bytes": [((name,), position.earlier + position.offset)],
    }
