"""The deliveries that are still to come today."""

from datetime import datetime
from typing import Any

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.times import in_zone, parse_moment, wall_time, zone_named
from promptyoself.service.forecast.simulator import Simulator
from promptyoself.service.schedules.views import describe
from promptyoself.store.store import Store

MAX_DELIVERIES = 200
"""A longer agenda ends after this number of deliveries, and says so."""


def agenda(store: Store, now: datetime, *, agent_id: str | None = None) -> dict[str, Any]:
    """The deliveries from ``now`` to the end of the day, the soonest first.

    The day is that in the zone of PROMPTYOSELF_TZ. The deliveries are those that a loop would make
    if all succeed. A delivery that a limit will stop isn't among them.

    Raises:
        PromptyoselfError: ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    only = store.require_agent(agent_id)
    zone = default_zone(store.settings)
    day = wall_time(now, zone_named(zone)).date().isoformat()
    end = parse_moment(day, zone, now, end=True)
    state = store.read().state
    deliveries: list[dict[str, Any]] = []
    truncated = False
    for event in Simulator(state, store.settings.caps, now, agent_id=only).until(end):
        if event.type != "delivery.attempted":
            continue
        if len(deliveries) == MAX_DELIVERIES:
            truncated = True
            break
        schedule = describe(state.schedules[event.id], (), full=False)
        deliveries.append(
            {
                "at": event.slot,
                "local": in_zone(parse_utc(event.slot), zone),
                **{key: schedule[key] for key in ("id", "agent_id", "name", "prompt")},
            }
        )
    return {
        "day": day,
        "timezone": zone,
        "from": format_utc(now),
        "since": format_utc(now),
        "until": format_utc(end),
        "agenda": deliveries,
        "count": len(deliveries),
        "truncated": truncated,
    }
