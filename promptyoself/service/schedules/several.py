"""Changing several schedules in one append: those that are named, those of an agent or a tag, or
those that have failed for the same reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from promptyoself.core.errors import ChainError, PromptyoselfError
from promptyoself.core.instants import format_utc
from promptyoself.core.text_limits import MAX_REASON, check_agent_id, check_tags, check_text
from promptyoself.core.times import shown
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import STATUSES, Status
from promptyoself.ledger.linking import provisional_event
from promptyoself.service.schedules import change
from promptyoself.service.schedules.resumption import resumption
from promptyoself.service.schedules.transition import after_pause, with_notice
from promptyoself.state.apply import fold_on
from promptyoself.state.schedules import OpenSlot, Schedule, State, open_by_id, unfinished
from promptyoself.store.access import find_schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import LeftAsItIs, Resumed, SeveralChanged

_FAILED = STATUSES.index("failed")
_TOLD = ("next_run", "slot", "resume_at", "under_way")  # of what is answered of a single one

Decide = Callable[[State, str, Sequence[OpenSlot]], tuple[list[Draft], Any]]
"""The events that change the schedule with an id, and what to answer, from the state and the
schedule's open slots."""


class Verb(NamedTuple):
    """What is done to several schedules."""

    done: str
    """What has happened to them then: also the key of the answer."""
    statuses: tuple[Status, ...]
    """The statuses of those that are chosen without being named."""


VERBS = {
    "cancel": Verb("cancelled", ("active", "paused")),
    "pause": Verb("paused", ("active", "paused")),
    "resume": Verb("resumed", ("paused",)),
    "trigger": Verb("triggered", ("active", "paused")),
}
"""By the names of their commands."""


def choose(store: Store, command: str, agent_id: str | None, tags: Sequence[str]) -> list[str]:
    """The ids of the schedules of an agent, or of all, that have all these tags and that the
    ``command`` is for.

    Raises:
        PromptyoselfError: ``nothing_chosen``; ``forbidden_agent``; ``invalid_agent_id``,
            ``invalid_tag``.
    """
    if agent_id is not None:
        check_agent_id(agent_id)
    agent, wanted = store.require_agent(agent_id), set(check_tags(tags))
    state = store.read().state
    own = [
        schedule
        for schedule in unfinished(state, agent)
        if schedule.status in VERBS[command].statuses
    ]
    chosen = [schedule for schedule in own if wanted <= set(schedule.tags or ())]
    if not chosen:
        raise _nothing_chosen(VERBS[command].statuses, agent_id, wanted, own)
    return sorted(schedule.id for schedule in chosen)


def _nothing_chosen(
    statuses: Collection[Status], agent_id: str | None, tags: set[str], own: list[Schedule]
) -> PromptyoselfError:
    what = f"No schedule that is {' or '.join(statuses)}"
    if agent_id is not None:
        what += f" and belongs to {shown(agent_id)}"
    hint = "`promptyoself list --status all` shows what there is."
    if tags:
        several = "tag" if len(tags) == 1 else "tags"
        what += f" has the {several} {', '.join(map(shown, sorted(tags)))}"
        used = sorted({tag for schedule in own for tag in schedule.tags or ()})
        hint = f"There are: {', '.join(used[:50])}." if used else "None has a tag."
        return PromptyoselfError("nothing_chosen", f"{what}.", hint)
    return PromptyoselfError("nothing_chosen", f"{what} was found.", hint)


def change_several(
    store: Store,
    command: str,
    ids: Sequence[str],
    reason: str | None,
    now: datetime,
    *,
    until: str | None = None,
) -> SeveralChanged:
    """Do to each of these schedules what the ``command`` does, in one append. One that it can't be
    done to is listed with the reason and left as it is.

    Raises:
        PromptyoselfError: ``unknown_id`` or ``forbidden_agent`` of any of them, and nothing is
            changed; ``invalid_reason``; ``invalid_time``, ``past_time``.
    """
    check_text("reason", reason, MAX_REASON)
    back = change.end_of_pause_at(until, store, now)
    changes: dict[str, Decide] = {
        "cancel": lambda state, id_, slots: change.cancelling(
            store, id_, reason, now, state, slots
        ),
        "pause": lambda state, id_, slots: change.pausing(
            store, id_, reason, now, back, state, slots
        ),
        "resume": lambda state, id_, _: change.resuming(store, id_, reason, now, state),
        "trigger": lambda state, id_, _: change.triggering(store, id_, reason, now, state),
    }
    ends_pauses = command != "resume"

    def chosen(state: State) -> list[Schedule]:
        return [find_schedule(state, id_) for id_ in dict.fromkeys(ids)]

    chosen(store.read().state)  # refused before the lock, which would make folders
    decide = partial(_decide, store, VERBS[command].done, chosen, changes[command], now)
    answer = store.transact(now, partial(decide, ends_pauses))
    return cast("SeveralChanged", answer)


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
    _failed_with(code, store.read().state)  # refused before the lock, which would make folders

    def decide_one(state: State, id_: str, _: Sequence[OpenSlot]) -> tuple[list[Draft], Any]:
        return resumption(store, state, state.schedules[id_], reason, now)

    decide = partial(_decide, store, "resumed", partial(_failed_with, code), decide_one, now, False)
    return cast("Resumed", {"failed_with": code, **store.transact(now, decide)})


def _decide(
    store: Store,
    done: str,
    choose_from: Callable[[State], Iterable[Schedule]],
    decide: Decide,
    now: datetime,
    ends_pauses: bool,
    state: State,
) -> tuple[list[Draft], dict[str, Any]]:
    """The events of all changes, and what to answer. Each change is decided on the state that those
    before it lead to."""
    before, ts, slots = state, format_utc(now), open_by_id(state)
    chosen, state = choose_from(state), state.copy()
    drafts: list[Draft] = []
    changed: list[dict[str, Any]] = []
    left: list[LeftAsItIs] = []
    for schedule in chosen:
        whose = {"id": schedule.id, "agent_id": schedule.agent_id}
        further: list[Draft] = []
        after = state
        if ends_pauses:
            further, after = after_pause(store, state, schedule.id, now)
        try:
            own, answer = decide(after, schedule.id, slots.get(schedule.id, ()))
        except ChainError:
            raise
        except PromptyoselfError as error:
            left.append({**whose, "code": error.code, "message": error.message})  # type: ignore[typeddict-item]
            continue
        state = fold_on(after, [provisional_event(draft.record, draft.id, ts) for draft in own])
        drafts += [*further, *own]
        changed.append({**whose, **{name: answer[name] for name in _TOLD if name in answer}})
    count = len(changed)
    message = f"{count} {'schedule' if count == 1 else 'schedules'} {done}"
    if left:
        message += f", {len(left)} left as they are"
    answer = {done: changed, "left": left, "count": count, "message": message + "."}
    return with_notice(store, before, drafts, now), answer


def _failed_with(code: str, state: State) -> list[Schedule]:
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
