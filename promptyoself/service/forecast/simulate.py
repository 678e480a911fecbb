"""What would happen until some time: deliveries, skips, the log's growth, and the loop's work."""

from datetime import datetime, timedelta

from promptyoself.core.instants import format_utc
from promptyoself.core.long_work import tell
from promptyoself.core.settings import default_zone
from promptyoself.core.times import require_future
from promptyoself.phrases.moments import read_bound
from promptyoself.service.desires.idle_source import desire_ranking
from promptyoself.service.forecast import answers
from promptyoself.service.forecast.log_growth import LogGrowth
from promptyoself.service.forecast.simulator import SimulatedEvent, Simulator
from promptyoself.service.schedules.approval_tokens import Tokens
from promptyoself.store.store import Store

MAX_EVENTS = 10_000_000
"""A simulation ends after this number of events. They take minutes, so more are a mistake."""

_LIMITS = frozenset({"approval", "budget", "agent_cap"})
"""The reasons for a skip that are limits, and not the schedule's own policy."""


def simulate(
    store: Store,
    until: str,
    now: datetime,
    *,
    agent_id: str | None = None,
    latency: float = 0.0,
    max_events: int = MAX_EVENTS,
) -> answers.Simulation:
    """What would be delivered and skipped from ``now`` to ``until``.

    ``until`` is a time as ``register`` reads it. Each delivery takes ``latency`` seconds. The
    simulation ends early after ``max_events`` events.

    The answer counts by agent and by day (UTC) of the decision. It says which limits would stop
    what, how much a loop would have to do, and by how much the log would grow. The growth is
    estimated from the encoding of these events.

    Raises:
        PromptyoselfError: ``invalid_time``, ``nonexistent_time``, ``past_time``;
            ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    zone = default_zone(store.settings)
    end = read_bound(until, zone, now, end=True)
    require_future(end, now, zone)
    only = store.require_agent(agent_id)
    state, position = store.snapshot()  # not `read`, which mends an index
    store.mention_newer(state)
    tokens = Tokens(store.settings.var, store.disk)
    simulator = Simulator(
        state,
        store.settings.caps,
        now,
        agent_id=only,
        latency=timedelta(seconds=latency),
        rank_desires=desire_ranking(store),
        judge=lambda at, schedule: tokens.judge(schedule, max(at, position.ts)),
    )
    counts, growth = _Counts(), LogGrowth(position.seq, store.actor)
    truncated = False
    for event in simulator.until(end):
        if counts.events >= max_events and event.at != counts.at:
            truncated = True
            break
        counts.add(event)
        tell("slots ahead", counts.events)
        growth.add(event, simulator.weight)
    tell("slots ahead", None)
    reached = counts.at if truncated else format_utc(end)
    skipped = sum(counts.skipped.values())
    deliveries = "1 delivery" if counts.fired == 1 else f"{counts.fired} deliveries"
    slots = "1 slot" if skipped == 1 else f"{skipped} slots"
    message = f"{deliveries} up to {reached}, {slots} skipped."
    if truncated:
        message += f" It was ended there, after {counts.events} events."
    return {
        "from": format_utc(now),
        "since": format_utc(now),
        "until": reached,
        "truncated": truncated,
        "fired": counts.fired,
        "skipped": dict(sorted(counts.skipped.items())),
        "agents": counts.agents(),
        "stopped": sorted(
            counts.stopped.values(), key=lambda stopped: (-stopped["slots"], stopped["id"])
        ),
        "log": growth.estimate(),
        "load": {
            "passes": counts.passes,
            "most_due": {"at": simulator.most_due[0], "slots": simulator.most_due[1]},
            "busiest_hour": {"hour": counts.busiest[0], "deliveries": counts.busiest[1]},
        },
        "broken": [
            {"id": id_, "problem": problem} for id_, problem in sorted(simulator.broken.items())
        ],
        "message": message,
    }


class _Counts:
    """Counts deliveries and skips, by agent, day and limit."""

    def __init__(self) -> None:
        self.events = 0
        self.passes = 0  # instants at which something happens
        self.fired = 0
        self.skipped: dict[str, int] = {}  # slots, by reason
        self.busiest: tuple[str | None, int] = (None, 0)  # the hour with the most deliveries
        self.at = ""  # the current instant
        self._hour, self._fired_in_hour = "", 0
        self._days: dict[str, dict[str, answers.DayAhead]] = {}  # by the agent's id, then by day
        # By the schedule's id and the limit.
        self.stopped: dict[tuple[str, str], answers.StoppedSchedule] = {}

    def add(self, event: SimulatedEvent) -> None:
        at = event.at
        self.events += 1
        if at != self.at:
            self.at = at
            self.passes += 1
            if at[:13] != self._hour:
                self._hour, self._fired_in_hour = at[:13], 0
        if event.type == "delivery.attempted":
            self._day(event)["fired"] += 1
            self.fired += 1
            self._fired_in_hour += 1
            if self._fired_in_hour > self.busiest[1]:
                self.busiest = self._hour, self._fired_in_hour
        elif event.why:
            for counts in (self.skipped, self._day(event)["skipped"]):
                counts[event.why] = counts.get(event.why, 0) + event.slots
            if event.why in _LIMITS:
                self._add_stopped(event)

    def _day(self, event: SimulatedEvent) -> answers.DayAhead:
        days, date = self._days.setdefault(event.agent_id, {}), event.at[:10]
        return days.setdefault(date, {"day": date, "fired": 0, "skipped": {}})

    def _add_stopped(self, event: SimulatedEvent) -> None:
        first: answers.StoppedSchedule = {
            "id": event.id,
            "agent_id": event.agent_id,
            "why": event.why,
            "slots": 0,
            "first": event.slot,
        }
        self.stopped.setdefault((event.id, event.why), first)["slots"] += event.slots

    def agents(self) -> list[answers.AgentAhead]:
        return [
            {
                "agent_id": agent_id,
                "fired": sum(day["fired"] for day in days.values()),
                "days": list(days.values()),
            }
            for agent_id, days in sorted(self._days.items())
        ]
