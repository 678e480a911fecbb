"""Answers that change nothing: schedules and their history."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import is_zone, local_time, parse_duration, shown
from promptyoself.events.kinds import FINISHED, STATUSES
from promptyoself.events.schedule_fields import FIELDS, POLICY
from promptyoself.events.target_names import target_of
from promptyoself.ledger import Position
from promptyoself.state.overlay import PartFilter
from promptyoself.state.schedules import (
    OpenSlot,
    Schedule,
    State,
    open_by_id,
    spec_hash,
    unfinished,
)
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store, chains

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import LogStats, ScheduleList, ScheduleView, Stats

_ASKED = {"": ("active", "paused"), "all": STATUSES}
_EXCERPT_CHARACTERS = 120
_SHOWN_FIRST = ("misfire", "grace", "jitter", "envelope", "on_failure")
_WHERE_SET = ("tags", "render", "resume_at")
_OF_REPLIES = ("keep_reply", "reply_to", "failure_to")
_POLICY_AS_SHOWN = tuple(
    dict.fromkeys(
        name for name in (*_SHOWN_FIRST, *POLICY) if name not in (*_WHERE_SET, *_OF_REPLIES)
    )
)
_FEW_AGENTS = 1000


def list_schedules(
    store: Store,
    *,
    agent_id: str | None = None,
    status: str | None = None,
    limit: int | None = None,
    full: bool = False,
    at: str | None = None,
    filters: Filters | None = None,
    sort: str | None = None,
    now: datetime,
) -> ScheduleList:
    """The schedules, soonest first, then those without a next run by id; or by ``sort``, one of
    :data:`ORDERS`.

    ``status`` of ``None`` means those that aren't over: active and paused. Those that have failed
    aren't among them, so the answer says how many there are. Where no schedule passes the
    ``filters``, it says why.

    Raises:
        PromptyoselfError: ``forbidden_agent``, ``invalid_time``, ``invalid_tag``.
    """
    wanted = store.require_agent(agent_id)
    state = _state(store, at, now)
    statuses = _ASKED.get(status or "", (status or "",))
    why = ""
    if filters or sort:
        own = _of_agent(state, wanted, statuses) if wanted else list(_in_order(state, statuses))
        chosen = [schedule for schedule in own if filters is None or filters.pass_(schedule)]
        if sort is not None:
            chosen.sort(key=ORDERS[sort], reverse=sort in _LATEST_FIRST)
        if filters is not None and not chosen:
            why = _why_none(state, wanted, statuses, filters, own)
        total = len(chosen)
        listed = chosen[:limit]
        failed = 0
    elif wanted is not None:
        chosen = _of_agent(state, wanted, statuses)
        total = len(chosen)
        listed = chosen[:limit]
        failed = state.agent(wanted).failed
    else:
        total = sum(state.statuses.get(wanted_status, 0) for wanted_status in statuses)
        failed = state.statuses.get("failed", 0)
        listed = list(islice(_in_order(state, statuses), limit))
    slots = open_by_id(state) if full else {}
    answer: ScheduleList = {
        "schedules": [
            _describe_in_full(store, schedule, slots.get(schedule.id, ()))
            if full
            else describe(schedule, (), full=False)
            for schedule in listed
        ],
        "count": len(listed),
    }
    if len(listed) < total:
        answer["total"] = total
    if failed and "active" in statuses and "failed" not in statuses:
        answer["not_shown"] = {"failed": failed}
        answer["message"] = f"{failed} failed, not shown."
        answer["hint"] = "`--status failed` lists them, parked ones too."
    if why:
        answer["message"] = why
    return answer


class Filters(NamedTuple):
    """What a schedule must have to be listed."""

    name: str | None = None  # a part of its name
    words: tuple[str, ...] = ()  # each in its name, its prompt or its tags
    tags: frozenset[str] = frozenset()

    def pass_(self, schedule: Schedule) -> bool:
        """Whether a schedule has all of it, in whatever capitals."""
        name, tags = (schedule.name or "").casefold(), schedule.tags or []
        if self.name is not None and self.name.casefold() not in name:
            return False
        if not self.tags <= set(tags):
            return False
        text = "\n".join((name, schedule.prompt.casefold(), *tags)) if self.words else ""
        return all(word.casefold() in text for word in self.words)


ORDERS: dict[str, Callable[[Schedule], Any]] = {
    "next": lambda schedule: (_next_run(schedule) or "~", schedule.id),
    "name": lambda schedule: (schedule.name is None, (schedule.name or "").casefold(), schedule.id),
    "agent": lambda schedule: (schedule.agent_id, _next_run(schedule) or "~", schedule.id),
    "last": lambda schedule: (schedule.last_run or "", schedule.id),
    "created": lambda schedule: (schedule.created_at, schedule.id),
}
"""By what a list can be sorted."""

_LATEST_FIRST = frozenset({"last", "created"})
_MOST_TAGS = 50


def _why_none(
    state: State,
    agent_id: str | None,
    statuses: Collection[str],
    filters: Filters,
    own: list[Schedule],
) -> str:
    """Why no schedule passes the filters: that only others do, or which tags there are."""
    others = Counter(
        schedule.status
        for schedule in state.schedules.values()
        if schedule.status not in statuses
        and agent_id in (None, schedule.agent_id)
        and filters.pass_(schedule)
    )
    if others:
        counts = ", ".join(f"{count} {status}" for status, count in sorted(others.items()))
        return f"None of these; but there are others ({counts}), which --all lists."
    used = {tag for schedule in own for tag in schedule.tags or ()}
    unknown = sorted(filters.tags - used)
    if unknown:
        several = "tag" if len(unknown) == 1 else "tags"
        there_are = ", ".join(sorted(used)[:_MOST_TAGS]) or "none"
        missing = ", ".join(map(shown, unknown))
        return f"No schedule has the {several} {missing}; there are: {there_are}."
    if not own:
        return "There are no schedules to choose from."
    are = "1 schedule was" if len(own) == 1 else f"{len(own)} schedules were"
    return f"{are} looked at, and none is as asked."


def _state(store: Store, at: str | None, now: datetime) -> State:
    """The schedules as they are, or as they were at a point of the log."""
    if at is None:
        return store.read().state
    from promptyoself.service.schedules.history import state_at  # takes 5 ms to import

    return state_at(store, at, now)


def _of_agent(state: State, agent_id: str, statuses: Collection[str]) -> list[Schedule]:
    if FINISHED.isdisjoint(statuses):
        candidates = list(unfinished(state, agent_id))
    else:
        candidates = list(state.schedules.values(_has(statuses)))
    chosen = [
        schedule
        for schedule in candidates
        if schedule.agent_id == agent_id and schedule.status in statuses
    ]
    return sorted(chosen, key=lambda schedule: (_next_run(schedule) or "~", schedule.id))


def _in_order(state: State, statuses: Collection[str]) -> Iterator[Schedule]:
    """The schedules of these statuses in the order of a list. Parts of the index that have none of
    them aren't read."""
    if "active" in statuses:
        yield from (schedule for _, _, schedule in state.schedules.soonest(_has(("active",))))
    for _, schedule in state.schedules.in_order(_has(statuses)):
        if schedule.status in statuses and _next_run(schedule) is None:
            yield schedule


def _has(statuses: Collection[str]) -> PartFilter:
    """Whether there may be schedules of these statuses."""
    places = [STATUSES.index(status) for status in statuses]
    return lambda summary: any(summary.statuses[place] for place in places)


def show(store: Store, id_: str, *, at: str | None = None, now: datetime) -> ScheduleView:
    """Everything about one schedule. Raises ``unknown_id`` or ``forbidden_agent``."""
    state = _state(store, at, now)
    schedule = find_schedule(state, id_)
    view = _describe_in_full(store, schedule, open_by_id(state).get(id_, ()))
    from promptyoself.service.schedules.replies.latest import latest_reply

    if (reply := latest_reply(store, schedule)) is not None:
        view["last_reply"] = reply
    return view


def _describe_in_full(store: Store, schedule: Schedule, slots: Iterable[OpenSlot]) -> ScheduleView:
    """A schedule with everything, and with what the settings make of what it says."""
    from promptyoself.service.schedules.replies.retention import shown_retention

    view = describe(schedule, slots, full=True)
    cast("dict[str, Any]", view).update(shown_retention(schedule, store.settings))
    return view


def excerpt(prompt: str) -> str:
    """A prompt, or its beginning if it is long."""
    return prompt if len(prompt) <= _EXCERPT_CHARACTERS else prompt[: _EXCERPT_CHARACTERS - 1] + "…"


def describe(schedule: Schedule, slots: Iterable[OpenSlot], *, full: bool) -> ScheduleView:
    """One schedule as the JSON contract has it; ``full`` adds policy, bounds and the ``slots`` that
    are open."""
    next_run = _next_run(schedule)
    view: ScheduleView = {
        "id": schedule.id,
        "agent_id": schedule.agent_id,
        "name": schedule.name,
        "prompt": schedule.prompt if full else excerpt(schedule.prompt),
        "schedule_type": schedule.schedule_type,
        "schedule_value": schedule.schedule_value,
        "timezone": schedule.timezone,
        "next_run": next_run,
        "last_run": schedule.last_run,
        "created_at": schedule.created_at,
        "status": schedule.status,
        "active": schedule.status == "active",
        "repetition_count": schedule.repetition_count,
        "max_repetitions": schedule.max_repetitions,
    }
    answer = cast("dict[str, Any]", view)
    if full or schedule.template is not None:
        answer["template"] = schedule.template
    for name in _WHERE_SET:
        if (value := getattr(schedule, name)) is not None:
            answer[name] = value
    if (problem := problem_of(schedule)) is not None:
        answer["problem"] = problem
    if not full:
        return view
    from promptyoself.core.visible import unseen

    if invisible := unseen(schedule.prompt, schedule.name, schedule.agent_id):
        answer["invisible"] = invisible
    answer.update(
        next_run_local=local_time(parse_utc(next_run), schedule.timezone) if next_run else None,
        **shown_destination(schedule),
        start_at=schedule.start_at,
        until=schedule.until,
    )
    for name in _POLICY_AS_SHOWN:
        value = getattr(schedule, name)
        answer[name] = FIELDS[name].unset if value is None else value
    answer.update(
        life=schedule.life,
        failures=schedule.failures,
        last_error=schedule.last_error,
        last_code=schedule.last_code,
        reason=schedule.reason,
        content_sha256=spec_hash(schedule),
        open=[
            {
                "slot": slot.slot,
                "kind": slot.kind,
                "state": "claimed" if slot.worker else "waiting",
                "attempt": slot.attempt,
                "worker": slot.worker,
                "retry_at": slot.retry_at,
                "code": slot.code,
                "error": slot.error,
                "http_status": slot.http_status,
                "detail": slot.detail,
                "in_doubt": slot.in_doubt,
            }
            for slot in slots
        ],
    )
    return view


def shown_destination(schedule: Schedule) -> dict[str, Any]:
    """The conversation as it is recorded; and the target, if that is no Letta server."""
    target = target_of(schedule.agent_id, schedule.target)
    elsewhere = {} if target == "letta" else {"target": target}
    return {"conversation_id": schedule.conversation_id, **elsewhere}


def problem_of(schedule: Schedule) -> str | None:
    """Why the times of a schedule that isn't over can't be computed on this machine, if they can't
    be. It says nothing against the others."""
    if schedule.status in ("completed", "cancelled"):
        return None
    try:
        if schedule.schedule_type == "cron":
            from promptyoself.rules.cron_expressions import canonical_cron

            canonical_cron(schedule.schedule_value)
        elif schedule.schedule_type == "rrule":
            from promptyoself.rules.calendar import parse_rule

            parse_rule(schedule.schedule_value)
        elif schedule.schedule_type == "interval":
            parse_duration(schedule.schedule_value)
    except PromptyoselfError as error:
        return f"{error.message} Nothing is delivered until `modify` gives it other times."
    if is_zone(schedule.timezone):
        return None
    missing = f"There is no time zone {shown(schedule.timezone)} on this machine"
    if schedule.schedule_type in ("cron", "rrule"):
        return (
            f"{missing}. Nothing is delivered until it is installed, or until `modify --tz` gives "
            "it another."
        )
    return f"{missing}, so its local times can't be told. It is delivered all the same."


def stats(store: Store) -> Stats:
    """How much there is, from the indexes alone; of desires, where there are any."""
    state, position = store.read()
    answer = cast(
        "Stats",
        {
            "schedules": state.statuses,
            "agents": sum(1 for agent in state.agents.values() if agent.schedules),
            "open_slots": {
                "claimed": sum(1 for slot in state.open.values() if slot.worker),
                "waiting": sum(1 for slot in state.open.values() if not slot.worker),
            },
            **_log_of(state.counts, position),
        },
    )
    if state.replies:
        answer["awaited_replies"] = len(state.replies)
    if state.notices:
        answer["owed_notices"] = len(state.notices)
    for chain in chains(store)[1:]:
        state, position = chain.read()
        answer["desires"] = {**state.statuses, **_log_of(state.counts, position)}
    return answer


def _log_of(counts: Mapping[str, int], position: Position) -> LogStats:
    return {
        "events": position.seq,
        "events_by_type": dict(sorted(counts.items())),
        "head": {"seq": position.seq, "hash": position.hash, "ts": position.ts or None},
        "bytes": position.earlier + position.offset,
    }


def unknown_agent(store: Store, agent_id: str | None) -> str | None:
    """What to tell a caller who named an agent that no log knows, or ``None``: a name that is
    mistyped gets an answer as empty as one that has no schedules. A caller that is pinned to
    one agent isn't told, since which other agents there are is none of its business."""
    if agent_id is None or store.pinned_to is not None:
        return None
    try:
        agents = store.read().state.agents
        if agent_id in agents:
            return None
        from promptyoself.state.desires import living

        for chain in chains(store)[1:]:
            if any(True for _ in living(chain.read().state, agent_id)):
                return None
    except (ChainError, OSError):  # of which the command itself tells more
        return None
    message = f"The log knows of no agent {shown(agent_id)}."
    if len(agents) > _FEW_AGENTS:
        return message
    from difflib import get_close_matches

    close = get_close_matches(agent_id, list(agents), 1)
    return f"{message} Did you mean {close[0]}?" if close else message


def _next_run(schedule: Schedule) -> str | None:
    return schedule.next_run if schedule.status == "active" else None
