"""What a schedule may do by itself: tiers, budgets, caps, approvals. A refusal is a reason, never
silence.

Days are days in UTC. What has been spent is counted by the fold from the log, so that nobody can
reset it by hand.
"""

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import Caps
from promptyoself.events.kinds import ApprovalProblem, SkipReason, SlotKind
from promptyoself.state.schedules import Schedule, State

__all__ = [
    "APPROVED_TIER",
    "DEFAULT_GRACE",
    "TIERS",
    "Allowed",
    "Approvals",
    "Verdict",
    "by_the_log",
    "none_given",
    "refusal",
    "spending_day",
]

TIERS = (0, 1, 2)
APPROVED_TIER = 2
"""From this tier on, each delivery needs an approval."""


class Verdict(NamedTuple):
    """Whether a schedule's delivery is approved: by which ``grant``, with so many ``uses`` left; or
    by none, and ``detail`` says why."""

    grant: str | None = None
    uses: int = 0
    detail: ApprovalProblem | None = None


Approvals = Callable[[Schedule], Verdict]
"""Asked only about a schedule whose slot is due, and only where its tier needs an approval."""


def none_given(_: Schedule) -> Verdict:
    """The approvals where there is none."""
    return Verdict(detail="missing")


def by_the_log(schedule: Schedule, now: str) -> Verdict:
    """What the log alone says of a schedule's approval. ``now`` must not be before the time of the
    log's last event: a clock that is set back makes nothing valid again."""
    if schedule.approval is None:
        return Verdict(detail="missing")
    if schedule.approval_void:
        return Verdict(detail=schedule.approval_void)
    if schedule.approval_uses < 1:
        return Verdict(detail="used_up")
    if now > (schedule.approval_expires or ""):
        return Verdict(detail="expired")
    return Verdict(schedule.approval, schedule.approval_uses)


def refusal(
    schedule: Schedule, state: State, caps: Caps, day: str, *, approved: bool = False
) -> SkipReason | None:
    """Why a slot of this schedule may not be delivered on that ``day`` (``YYYY-MM-DD``), or
    ``None``: ``approval`` (tier 2 acts outside, and this isn't ``approved``), ``budget`` (the
    schedule's own for the day is spent), ``agent_cap`` (its agent's is)."""
    if schedule.tier >= APPROVED_TIER and not approved:
        return "approval"
    budget = schedule.daily_budget
    if budget is not None and schedule.spent_day == day and schedule.spent >= budget:
        return "budget"
    if budget == 0:
        return "budget"
    agent = state.agent(schedule.agent_id)
    spent = agent.spent if agent.spent_day == day else 0
    if spent >= caps.daily_per_agent:
        return "agent_cap"
    return None


def spending_day(today: str, *spent_days: str | None) -> str:
    """The day whose budgets count: today, but none before the last on which something was spent,
    for a clock that is set back gives nothing back."""
    return max(today, *(day or "" for day in spent_days))


class Allowed:
    """Asks about one slot at a time. Its ``kind`` is ``scheduled`` or ``trigger``."""

    def __init__(self, state: State, now: datetime, caps: Caps, approvals: Approvals) -> None:
        self._state, self._caps, self._approvals = state, caps, approvals
        self._today = format_utc(now)[:10]

    def first(self, schedule: Schedule, kind: SlotKind) -> tuple[SkipReason | None, Verdict]:
        """Why a slot may not be tried for the first time, or by what approval it may."""
        verdict = self._verdict(schedule, kind)
        agent = self._state.agent(schedule.agent_id)
        day = spending_day(self._today, schedule.spent_day, agent.spent_day)
        approved = verdict.grant is not None
        return refusal(schedule, self._state, self._caps, day, approved=approved), verdict

    def again(self, schedule: Schedule, kind: SlotKind) -> tuple[SkipReason | None, Verdict]:
        """The same of a slot that has been charged, but that no approval covers: its schedule was
        changed since, perhaps in what it says."""
        verdict = self._verdict(schedule, kind)
        refused = schedule.tier >= APPROVED_TIER and verdict.grant is None
        return "approval" if refused else None, verdict

    def _verdict(self, schedule: Schedule, kind: SlotKind) -> Verdict:
        if schedule.tier < APPROVED_TIER:
            return Verdict()
        verdict = self._approvals(schedule)
        if verdict.grant is not None and kind == "trigger" and not schedule.approval_triggers:
            return Verdict(detail="trigger_not_allowed")
        return verdict


DEFAULT_GRACE = 24 * 3600
