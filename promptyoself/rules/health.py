"""What isn't well about schedules and deliveries, as far as the state tells.

`doctor` and a loop's health page say it. Of many schedules, only those named are read.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import islice

from promptyoself.core.instants import format_utc
from promptyoself.events.kinds import FINISHED, STATUSES
from promptyoself.events.target_names import TargetName, implied_target, target_of
from promptyoself.state.overlay import Summary
from promptyoself.state.schedules import State, is_failing

LATE = timedelta(minutes=5)
"""A slot that could be claimed for this long, and wasn't, is overdue."""

LONG = timedelta(minutes=10)
"""A slot that was tried in vain for this long is told of."""

OFTEN = 4
"""A destination that has refused a notice this often is told of. That takes about a minute."""

_NAMED, _COUNTED = 3, 100  # schedules at most
_FAILED = STATUSES.index("failed")


def failed(state: State) -> str:
    """The schedules that have failed; empty if there are none.

    They are parked after too many failures in a row, or are one-offs that weren't delivered.
    """
    count = state.statuses.get("failed", 0)
    if not count:
        return ""
    candidates = state.schedules.values(lambda summary: bool(summary.statuses[_FAILED]))
    ids = (
        f"{schedule.id} ({'a one-off' if schedule.next_run is None else 'parked'})"
        for schedule in candidates
        if schedule.status == "failed"
    )
    return f"{count} failed: {_listed(islice(ids, _NAMED), count)}"


def failing(state: State) -> str:
    """The active schedules whose latest delivery failed; empty if there are none."""
    candidates = state.schedules.values(lambda summary: bool(summary.failing))
    failing_ids = (schedule.id for schedule in candidates if is_failing(schedule))
    ids = list(islice(failing_ids, _COUNTED))
    return f"the latest delivery failed of {_counted(ids)}" if ids else ""


def destinations_in_use(state: State, *, thorough: bool = False) -> dict[str, str]:
    """The destinations that schedules which aren't over name, or that notices are owed to, each
    with the id of one of these schedules. Schedules are read only if this is to be ``thorough``."""
    used = {notice.to: notice.id for notice in state.notices.values()}
    if thorough:
        for schedule in state.schedules.values():
            if schedule.status not in FINISHED:
                names = filter(None, (schedule.reply_to, schedule.failure_to))
                used.update(dict.fromkeys(names, schedule.id))
    return dict(sorted(used.items()))


def refusing(state: State) -> str:
    """The destinations that have refused a notice :data:`OFTEN`, and why; empty if there are
    none."""
    codes: dict[str, str] = {}
    for notice in state.notices.values():
        if notice.tries >= OFTEN and notice.code is not None:
            codes.setdefault(notice.to, notice.code)
    names = [f"{name} ({code})" for name, code in sorted(codes.items())]
    if not names:
        return ""
    waiting = sum(1 for notice in state.notices.values() if notice.to in codes)
    notices = "notice waits" if waiting == 1 else "notices wait"
    return f"{waiting} {notices} for {_listed(names[:_NAMED], len(names))}"


def targets_in_use(state: State, *, thorough: bool = False) -> frozenset[TargetName]:
    """Where the prompts of schedules go that aren't over.

    Of the agents that an id says to be a target's, schedules are read until one goes there. So a
    schedule that goes elsewhere, against its agent's id, may be overlooked, unless this is to be
    ``thorough`` and reads all of them.
    """
    used: set[TargetName] = set()
    for agent_id, agent in state.agents.items():
        if agent.unfinished and (thorough or implied_target(agent_id) not in used):
            for id_ in agent.unfinished:
                target = target_of(agent_id, state.schedules[id_].target)
                used.add(target)
                if target == implied_target(agent_id) and not thorough:
                    break
    return frozenset(used)


def brocas_in_use(state: State) -> list[str]:
    """The agents whose schedules that aren't over go through a Broca."""
    return [
        agent_id
        for agent_id, agent in sorted(state.agents.items())
        if any(state.schedules[id_].target == "broca" for id_ in agent.unfinished)
    ]


def overdue(state: State, now: datetime) -> str:
    """The schedules with an overdue slot (see :data:`LATE`); empty if there are none."""
    late = format_utc(now - LATE)

    def is_late(summary: Summary) -> bool:
        return summary.ready is not None and summary.ready < late

    waiting = (
        slot.id
        for slot in state.open.values()
        if slot.worker is None and slot.retry_at is not None and slot.retry_at < late
    )
    due = (id_ for _, id_, _ in state.schedules.soonest(is_late))
    ids = list(dict.fromkeys([*islice(due, _COUNTED), *islice(waiting, _COUNTED)]))
    return (
        f"overdue by more than {LATE // timedelta(minutes=1)} minutes: {_counted(ids[:_COUNTED])}"
        if ids
        else ""
    )


def retrying(state: State, now: datetime) -> str:
    """The schedules with a slot tried in vain for :data:`LONG`, and why; or nothing."""
    long_ago = format_utc(now - LONG)
    slots = [
        slot
        for slot in state.open.values()
        if slot.worker is None and slot.attempt and (slot.first_claimed_at or "") < long_ago
    ]
    if not slots:
        return ""
    codes = ", ".join(sorted({slot.code or "unknown" for slot in slots}))
    ids = list(dict.fromkeys(slot.id for slot in slots))[:_COUNTED]
    return f"tried in vain for more than 10 minutes ({codes}): {_counted(ids)}"


def _counted(ids: list[str]) -> str:
    """How many schedules these are, and the first of them by name.

    100 ids stand for 100 schedules or more.
    """
    count = len(ids)
    number = f"{count} or more" if count >= _COUNTED else str(count)
    several = "schedule" if count == 1 else "schedules"
    return f"{number} {several} ({_listed(ids[:_NAMED], count)})"


def _listed(names: Iterable[str], count: int) -> str:
    return ", ".join(names) + (", …" if count > _NAMED else "")
