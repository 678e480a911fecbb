"""What a schedule may do by itself: tiers, budgets, caps and approvals. Every refusal has a reason.

Days are days in UTC. The fold counts from the log what has been spent, so nobody can reset it.
"""

from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from promptyoself.core.instants import format_utc
from promptyoself.core.settings import Caps
from promptyoself.events.kinds import ApprovalProblem, SkipReason, SlotKind
from promptyoself.state.schedules import Schedule, State

APPROVED_TIER = 2
"""From this tier on, each delivery needs an approval."""


class ApprovalVerdict(NamedTuple):
    """Whether a schedule's delivery is approved."""

    grant: str | None = None  # the approval's name; ``None`` if there is none
    uses: int = 0  # deliveries that it still allows
    detail: ApprovalProblem | None = None  # why there is none


Approvals = Callable[[Schedule], ApprovalVerdict]
"""Tells whether a schedule's delivery is approved. It is called only where a slot is due and the
schedule's tier needs an approval."""


def no_approvals(_: Schedule) -> ApprovalVerdict:
    """Approvals of a store in which nobody approved anything."""
    return ApprovalVerdict(detail="missing")


def approval_in_log(schedule: Schedule, now: str) -> ApprovalVerdict:
    """What the log alone says of a schedule's approval.

    ``now`` must not be before the time of the log's last event, so that a clock that is set back
    makes nothing valid again.
    """
    if schedule.approval is None:
        return ApprovalVerdict(detail="missing")
    if schedule.approval_void:
        return ApprovalVerdict(detail=schedule.approval_void)
    if schedule.approval_uses < 1:
        return ApprovalVerdict(detail="used_up")
    if now > (schedule.approval_expires or ""):
        return ApprovalVerdict(detail="expired")
    return ApprovalVerdict(schedule.approval, schedule.approval_uses)


def refusal_reason(
    schedule: Schedule,
    state: State,
    caps: Caps,
    day: str,
    *,
    approved: bool = False,
    charged: int = 0,
) -> SkipReason | None:
    """Why a slot of this schedule may not be delivered on a ``day`` (``YYYY-MM-DD``).

    ``approval``: its tier needs an approval, and it isn't ``approved``. ``budget``: the schedule's
    daily budget is spent. ``agent_cap``: its agent's is. ``None``: it may be delivered.
    ``charged`` is how many slots its agent is charged beyond those in the state.
    """
    if schedule.tier >= APPROVED_TIER and not approved:
        return "approval"
    spent = schedule.spent if schedule.spent_day == day else 0
    if schedule.daily_budget is not None and spent >= schedule.daily_budget:
        return "budget"
    agent = state.agent(schedule.agent_id)
    spent_by_agent = charged + (agent.spent if agent.spent_day == day else 0)
    return "agent_cap" if spent_by_agent >= caps.daily_per_agent else None


def spending_day(today: str, *spent_days: str | None) -> str:
    """The day whose budgets count.

    It is ``today``, or the last day on which something was spent if that is later: a clock that is
    set back gives nothing back.
    """
    return max(today, *(day or "" for day in spent_days))


class PolicyCheck:
    """Whether slots may be delivered at one instant; their kind is ``scheduled`` or ``trigger``."""

    def __init__(self, state: State, now: datetime, caps: Caps, approvals: Approvals) -> None:
        self._state, self._caps, self._approvals = state, caps, approvals
        self._today = format_utc(now)[:10]
        self._charged: Counter[str] = Counter()  # by the agent's id, in the decision so far

    def charge(self, agent_id: str) -> None:
        """A slot of an agent is claimed for the first time, in the same decision as the next."""
        self._charged[agent_id] += 1

    def first_attempt(
        self, schedule: Schedule, kind: SlotKind
    ) -> tuple[SkipReason | None, ApprovalVerdict]:
        """Why a slot may not be tried for the first time, and the approval by which it may."""
        verdict = self._verdict(schedule, kind)
        agent = self._state.agent(schedule.agent_id)
        day = spending_day(self._today, schedule.spent_day, agent.spent_day)
        approved = verdict.grant is not None
        charged = self._charged[schedule.agent_id]
        why = refusal_reason(
            schedule, self._state, self._caps, day, approved=approved, charged=charged
        )
        return why, verdict

    def next_attempt(
        self, schedule: Schedule, kind: SlotKind
    ) -> tuple[SkipReason | None, ApprovalVerdict]:
        """The same for a slot that was tried before, and charged, but that no approval covers.

        Its schedule was changed after that attempt, perhaps in what it says.
        """
        verdict = self._verdict(schedule, kind)
        refused = schedule.tier >= APPROVED_TIER and verdict.grant is None
        return "approval" if refused else None, verdict

    def _verdict(self, schedule: Schedule, kind: SlotKind) -> ApprovalVerdict:
        if schedule.tier < APPROVED_TIER:
            return ApprovalVerdict()
        verdict = self._approvals(schedule)
        if verdict.grant is not None and kind == "trigger" and not schedule.approval_triggers:
            return ApprovalVerdict(detail="trigger_not_allowed")
        return verdict
