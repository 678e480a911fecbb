"""What fires in the hours or days ahead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import default_zone
from promptyoself.core.text_limits import check_tags
from promptyoself.core.times import in_zone, is_zone, parse_duration, parse_moment, wall_time
from promptyoself.core.times import zone_named as zone_of
from promptyoself.service.desires.idle_source import desire_ranking
from promptyoself.service.forecast.simulator import Simulator
from promptyoself.service.schedules.approval_tokens import Tokens
from promptyoself.service.schedules.views import describe, problem_of
from promptyoself.state.schedules import Schedule, State, comes_back_at, unfinished
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.ledger import Position
    from promptyoself.service.forecast import answers

MAX_DELIVERIES = 200
"""A longer agenda ends after this number of deliveries, and says so."""

MAX_LINES = 200
"""How many lines the answer has, unless the caller says another number."""

MAX_EVENTS = 500_000
"""An agenda ends after this number of events, and says so. They take seconds."""

MOST_A_DAY = 8
"""A schedule that fires more often than this on a day has one line for that day."""


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
    day = wall_time(now, zone_of(zone)).date().isoformat()
    end = parse_moment(day, zone, now, end=True)
    state, position = store.read()
    deliveries: list[dict[str, Any]] = []
    truncated = False
    for event in _simulator(store, state, position, now, only).until(end):
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


def agenda_for(
    store: Store,
    length: str,
    now: datetime,
    *,
    agent_id: str | None = None,
    tags: Sequence[str] = (),
    limit: int | None = None,
) -> answers.Agenda:
    """The deliveries from ``now`` on, for as long as the duration ``length`` says, the soonest
    first; and what doesn't fire meanwhile.

    They are those that a loop would make if all succeed. A schedule that fires more than
    :data:`MOST_A_DAY` times on a day has one line for that day. Days are those in the zone of
    PROMPTYOSELF_TZ. Only schedules that have all of ``tags`` are told. There are ``limit`` lines at
    most, by default :data:`MAX_LINES`.

    Raises:
        PromptyoselfError: ``forbidden_agent``, ``invalid_duration``, ``invalid_tag``.
        ChainError: the log is damaged.
    """
    only = store.require_agent(agent_id)
    wanted_tags = frozenset(check_tags(tags))
    end = now + timedelta(seconds=parse_duration(length))
    state, position = store.read()
    simulator = _simulator(store, state, position, now, only)
    zone = default_zone(store.settings)
    days: dict[tuple[str, str], _FiresOfDay] = {}  # by the day, and by the schedule's id
    skipped: Counter[str] = Counter()  # slots, by reason
    fires, at, truncated = 0, "", False
    for number, event in enumerate(simulator.until(end)):
        if number >= MAX_EVENTS and event.at != at:
            truncated = True
            break
        at = event.at
        if not wanted_tags <= set(state.schedules[event.id].tags or ()):
            continue
        if event.type == "delivery.attempted":
            fires += 1
            day = in_zone(parse_utc(at), zone)[:10]
            days.setdefault((day, event.id), _FiresOfDay()).add(at, event.slot)
        elif event.why:
            skipped[event.why] += event.slots
    reached = at if truncated else format_utc(end)
    lines = [
        line
        for (_, id_), fires_of_day in days.items()
        for line in _lines(state, id_, fires_of_day, zone)
    ]
    lines.sort(key=lambda line: (line["at"], line["id"]))
    limit = limit or MAX_LINES
    schedules = [
        schedule for schedule in unfinished(state, only) if wanted_tags <= set(schedule.tags or ())
    ]
    paused = [
        schedule
        for schedule in schedules
        if schedule.status == "paused" and (comes_back_at(schedule) or "~") > reached
    ]
    answer: answers.Agenda = {
        "since": format_utc(now),
        "until": reached,
        "timezone": zone,
        "agenda": lines[:limit],
        "count": min(len(lines), limit),
        "fires": fires,
        "truncated": truncated,
        "message": _message(fires, reached, skipped, len(paused), truncated=truncated),
    }
    if len(lines) > limit:
        answer["total"] = len(lines)
    if skipped:
        answer["skipped"] = dict(sorted(skipped.items()))
    if paused:
        answer["paused"] = [_describe_paused(schedule) for schedule in paused[:limit]]
    if broken := _broken(schedules, simulator):
        answer["broken"] = broken
    return answer


def _simulator(
    store: Store, state: State, position: Position, now: datetime, only: str | None
) -> Simulator:
    tokens = Tokens(store.settings.var, store.disk)
    return Simulator(
        state,
        store.settings.caps,
        now,
        agent_id=only,
        rank_desires=desire_ranking(store),
        judge=lambda at, schedule: tokens.judge(schedule, max(at, position.ts)),
    )


@dataclass
class _FiresOfDay:
    """The deliveries of one schedule on one day."""

    fires: int = 0
    last: str = ""  # when the last one is
    first: list[tuple[str, str]] = field(default_factory=list)
    """When the first few are, each with its slot."""

    def add(self, at: str, slot: str) -> None:
        self.fires += 1
        self.last = at
        if self.fires <= MOST_A_DAY:
            self.first.append((at, slot))


def _lines(
    state: State, id_: str, fires_of_day: _FiresOfDay, zone: str
) -> Iterator[answers.AgendaLine]:
    """The lines for one schedule on one day: one for each delivery, or one for all of them."""
    schedule = describe(state.schedules[id_], (), full=False)
    often = fires_of_day.fires > MOST_A_DAY
    for at, slot in fires_of_day.first[:1] if often else fires_of_day.first:
        line: answers.AgendaLine = {
            "at": at,
            "local": in_zone(parse_utc(at), zone),
            "slot": slot,
            "fires": fires_of_day.fires if often else 1,
            "id": id_,
            "agent_id": schedule["agent_id"],
            "name": schedule["name"],
            "prompt": schedule["prompt"],
            "schedule_type": schedule["schedule_type"],
            "schedule_value": schedule["schedule_value"],
            "timezone": schedule["timezone"],
        }
        if often:
            line["last"] = fires_of_day.last
        if "template" in schedule:
            line["template"] = schedule["template"]
        yield line


def _describe_paused(schedule: Schedule) -> answers.PausedSchedule:
    paused: answers.PausedSchedule = {
        "id": schedule.id,
        "agent_id": schedule.agent_id,
        "name": schedule.name,
        "prompt": describe(schedule, (), full=False)["prompt"],
    }
    if schedule.resume_at is not None:
        paused["resume_at"] = schedule.resume_at
    return paused


def _broken(schedules: Iterable[Schedule], simulator: Simulator) -> list[answers.BrokenSchedule]:
    """The schedules whose times can't be told, or not all of them."""
    broken = {}
    for schedule in schedules:
        if schedule.id in simulator.broken:
            broken[schedule.id] = simulator.broken[schedule.id]
        elif not is_zone(schedule.timezone) and (problem := problem_of(schedule)):
            broken[schedule.id] = problem
    return [{"id": id_, "problem": problem} for id_, problem in sorted(broken.items())]


def _message(
    fires: int, reached: str, skipped: Counter[str], paused: int, *, truncated: bool
) -> str:
    if fires:
        message = f"{fires:,} {'delivery' if fires == 1 else 'deliveries'} up to {reached}."
    else:
        message = f"Nothing fires up to {reached}."
    if truncated:
        message += " It ends there, since there are too many."
    if slots := sum(skipped.values()):
        are = "slot is" if slots == 1 else "slots are"
        message += f" {slots:,} {are} skipped ({', '.join(sorted(skipped))})."
    if paused:
        message += (
            f" {paused:,} paused {'schedule is' if paused == 1 else 'schedules are'} left out."
        )
    return message
