"""Resuming all schedules that have failed for the same reason, once that is mended: credits were
topped up, say."""

from collections import Counter
from datetime import datetime

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.text_limits import MAX_REASON, check_text
from promptyoself.core.times import shown
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import STATUSES
from promptyoself.service.schedules.answers import LeftAsItIs, Resumed, ResumedOne
from promptyoself.service.schedules.resumption import resumption
from promptyoself.state.schedules import Schedule, State
from promptyoself.store.store import Store

_FAILED = STATUSES.index("failed")


def resume_failed(store: Store, code: str, reason: str | None, now: datetime) -> Resumed:
    """Resume every failed schedule whose latest failure had this ``code``, in one append.

    A caller who is pinned to an agent resumes that agent's schedules alone. A schedule that can't
    be resumed, because no slot is left or its agent has no room, is listed with the reason and left
    as it is.

    Raises:
        PromptyoselfError: ``nothing_to_resume``: none has failed with that code;
            ``invalid_reason``; ``lock_timeout``; ``newer_events``.
    """
    check_text("reason", reason, MAX_REASON)
    _chosen(store.read().state, code)  # refused before the lock, which would make folders

    def decide(state: State) -> tuple[list[Draft], Resumed]:
        state = state.copy()
        drafts: list[Draft] = []
        resumed: list[ResumedOne] = []
        not_resumed: list[LeftAsItIs] = []
        for schedule in _chosen(state, code):
            try:
                further, answer = resumption(store, state, schedule, reason, now)
            except PromptyoselfError as error:
                not_resumed.append(
                    {
                        "id": schedule.id,
                        "agent_id": schedule.agent_id,
                        "code": error.code,
                        "message": error.message,
                    }
                )
                continue
            drafts += further
            resumed.append(
                {"id": schedule.id, "agent_id": schedule.agent_id, "next_run": answer["next_run"]}
            )
            agent = state.agent(schedule.agent_id)
            state.agents[schedule.agent_id] = agent._replace(active=agent.active + 1)
        count = len(resumed)
        message = f"{count} {'schedule' if count == 1 else 'schedules'} resumed"
        if not_resumed:
            message += f", {len(not_resumed)} left as they are"
        return drafts, {
            "failed_with": code,
            "resumed": resumed,
            "left": not_resumed,
            "count": count,
            "message": message + ".",
        }

    return store.transact(now, decide)


def _chosen(state: State, code: str) -> list[Schedule]:
    candidates = state.schedules.values(lambda summary: bool(summary.statuses[_FAILED]))
    failed = [schedule for schedule in candidates if schedule.status == "failed"]
    chosen = [schedule for schedule in failed if schedule.last_code == code]
    if not chosen:
        codes = Counter(schedule.last_code for schedule in failed if schedule.last_code)
        failures = ", ".join(f"{name} ({count})" for name, count in sorted(codes.items()))
        raise PromptyoselfError(
            "nothing_to_resume",
            f"No schedule has failed with {shown(code)}.",
            f"They have failed with: {failures}." if failures else "None has failed at all.",
        )
    return sorted(chosen, key=lambda schedule: schedule.id)
