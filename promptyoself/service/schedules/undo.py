"""Taking back the last change of a schedule, by another change: the log keeps both."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.text_limits import MAX_REASON, check_text
from promptyoself.events.draft import Draft
from promptyoself.events.kinds import FINISHED
from promptyoself.events.schedule_fields import SPECIFIED
from promptyoself.ledger import START, Envelope, Position
from promptyoself.service.schedules.change import cancel, pausing, resume, set_fields
from promptyoself.service.schedules.transition import DESTINATION, drop_waiting, open_slots
from promptyoself.state.schedules import Schedule, State, slot_key
from promptyoself.store.access import find_schedule
from promptyoself.store.composition import Composition
from promptyoself.store.store import Store

_CHANGES = frozenset(
    {
        "schedule.registered",
        "schedule.modified",
        "schedule.paused",
        "schedule.resumed",
        "schedule.cancelled",
        "schedule.triggered",
        "approval.granted",
        "approval.revoked",
    }
)
"""The types of events by which somebody changed a schedule."""


_ENDS_OF_PAUSES = frozenset({"schedule.resumed", "schedule.cancelled", "schedule.registered"})
"""The types of events after which a schedule doesn't wait for its pause to end."""


class _Change(NamedTuple):
    """A change that is to be taken back."""

    event: Envelope
    before: Schedule | None  # the schedule before it, if there was one


def undo(
    store: Store, id_: str | None, reason: str | None, now: datetime, *, dry_run: bool = False
) -> dict[str, Any]:
    """Take back the last change of a schedule; without an id, the last change by this caller.

    Slots that have passed meanwhile stay as they are. The answer says what was taken back.

    Raises:
        PromptyoselfError: ``nothing_to_undo``; ``cannot_undo``, for what can't be taken back;
            ``changed_meanwhile`` if somebody changed the schedule while this looked for its last
            change; what the change that takes it back raises.
        ChainError: the log is damaged.
    """
    check_text("reason", reason, MAX_REASON)
    state = store.read().state
    if id_ is not None:
        find_schedule(state, id_)
    event, position = _latest(store, _own(store, state) if id_ is None else _about(id_))
    if event is None:
        raise _nothing_to_undo(id_)
    schedule_id = event.id or ""
    seq = event.seq
    earlier, _ = store.unpinned.state_at(lambda other: other.seq < seq)
    change = _Change(event, earlier.schedules.get(schedule_id))

    def decide(state: State) -> tuple[list[Draft], dict[str, Any]]:
        if _latest(store, _about(schedule_id), position)[0] is not None:
            raise PromptyoselfError(
                "changed_meanwhile",
                f"{schedule_id} was changed while its last change was looked for.",
                f"`promptyoself history --id {schedule_id}` shows it. Then try again.",
            )
        composition = Composition(store, state)
        answer = _take_back(composition.store, change, reason, now)
        return composition.drafts, answer

    if dry_run:
        _, answer = decide(store.read().state)
        return {**answer, "dry_run": True, "message": f"{answer['message']} This was a dry run."}
    if event.type == "approval.granted":
        return _take_back(store, change, reason, now)
    return store.transact(now, decide)


def _latest(
    store: Store, wanted: Callable[[Envelope], bool], after: Position = START
) -> tuple[Envelope | None, Position]:
    """The last event after a position that is wanted, if there is one, and the log's end."""
    latest = None
    ends: dict[str | None, str] = {}  # when each paused schedule was to run again by itself
    for batch in store.unpinned.replay(after):
        after = batch.position
        for event in batch.envelopes:
            if event.type == "schedule.paused":
                ends[event.id] = event.data.get("resume_at") or ""
            # A pause that ended by itself is nobody's change.
            by_itself = event.type == "schedule.resumed" and "" < ends.get(event.id, "") <= event.ts
            if event.type in _ENDS_OF_PAUSES:
                ends.pop(event.id, None)
            if wanted(event) and not by_itself:
                latest = event
    return latest, after


def _about(id_: str) -> Callable[[Envelope], bool]:
    return lambda event: event.id == id_ and event.type in _CHANGES


def _own(store: Store, state: State) -> Callable[[Envelope], bool]:
    """Whether an event is a change by this caller of a schedule that it may see."""
    actor = store.actor
    return lambda event: (
        event.type in _CHANGES
        and all(event.actor.get(name) == actor.get(name) for name in ("who", "kind"))
        and (event.id or "") in state.schedules
    )


def _take_back(store: Store, change: _Change, reason: str | None, now: datetime) -> dict[str, Any]:
    """Take back a change, by the state of the store, and say what was done."""
    event, before = change
    schedule = find_schedule(store.read().state, event.id or "")
    undoing = _Undoing(store, schedule, before, event, reason, now)
    return {
        "id": schedule.id,
        "undone": event.type,
        "seq": event.seq,
        "at": event.ts,
        "by": str(event.actor.get("who", "")),
        **undoing.take_back(),
    }


class _Undoing(NamedTuple):
    """A change that is being taken back, and what its schedule is now."""

    store: Store
    schedule: Schedule
    before: Schedule | None
    event: Envelope
    reason: str | None
    now: datetime

    def take_back(self) -> Mapping[str, Any]:
        """Take it back. Returns what the answer says of that."""
        match self.event.type:
            case "schedule.registered":
                return self._unregister()
            case "schedule.modified":
                return self._restore()
            case "schedule.paused":
                return self._unpause()
            case "schedule.resumed":
                return self._unresume()
            case "schedule.cancelled":
                return self._revive()
            case "schedule.triggered":
                return self._drop()
            case _:
                return self._revoke()

    def _unregister(self) -> Mapping[str, Any]:
        if self.schedule.status in ("cancelled", "completed"):
            raise self._cannot(f"it is {self.schedule.status} already")
        cancelled = cancel(self.store, self.schedule.id, self.reason, self.now)
        sent = " What it has sent stays sent." if self.schedule.last_run else ""
        if self.before is not None:
            sent = f" Before it came back, it was {self.before.status}.{sent}"
        under_way = {"under_way": cancelled["under_way"]} if "under_way" in cancelled else {}
        return {**under_way, "message": f"Its registration is taken back: it is cancelled.{sent}"}

    def _restore(self) -> Mapping[str, Any]:
        changed = [name for name in self.event.data["changes"] if name in SPECIFIED]
        if not set(DESTINATION).isdisjoint(changed):  # each of them depends on the others
            changed = list(dict.fromkeys((*changed, *DESTINATION)))
        former = {name: getattr(self.before, name, None) for name in changed}
        if self.before is None or not former:
            raise self._cannot("the log doesn't say what it was before")
        if self.schedule.status in FINISHED and self.schedule.status != "failed":
            raise self._cannot(f"it is {self.schedule.status} since")
        for name in ("agent_id", "on_failure"):
            self.store.require_agent(former.get(name))
        try:
            modified = set_fields(self.store, self.schedule.id, former, self.reason, self.now)
        except PromptyoselfError as error:
            if error.code == "never_fires":
                raise self._cannot("its former times have passed") from None
            raise
        names = ", ".join(modified["modified"]) or "nothing that differs"
        return {**modified, "message": f"Its last modification is taken back: {names}."}

    def _unpause(self) -> Mapping[str, Any]:
        if self.schedule.status != "paused":
            raise self._cannot(f"it is {self.schedule.status} since")
        resumed = resume(self.store, self.schedule.id, self.reason, self.now)
        if resumed["next_run"] is None:
            return resumed
        if self.before is not None and self.before.status == "paused":
            return {**self._pause(), "message": "The pause before it is in force again."}
        return {**resumed, "message": "Its pause is taken back: it runs again."}

    def _unresume(self) -> Mapping[str, Any]:
        if self.schedule.status != "active":
            raise self._cannot(f"it is {self.schedule.status} since")
        was = "" if self.before is None else self.before.status
        if was in ("cancelled", "completed"):
            cancel(self.store, self.schedule.id, self.reason, self.now)
            return {"message": f"It is cancelled again. Before it came back, it was {was}."}
        paused = self._pause()
        if was == "failed":
            return {"message": "It is paused. It was parked before, since its deliveries failed."}
        return {**paused, "message": "It is paused again."}

    def _revive(self) -> Mapping[str, Any]:
        if self.before is not None and self.before.status == "failed":
            raise self._cannot("it had failed before, and `resume` would let it run")
        try:
            resumed = resume(self.store, self.schedule.id, self.reason, self.now)
        except PromptyoselfError as error:
            if error.code in ("not_paused", "nothing_left"):
                raise self._cannot("only registering it again brings it back") from None
            raise
        if self.before is not None and self.before.status == "paused":
            if self._pause_has_ended():
                message = (
                    "Its cancellation is taken back: it runs again, since its pause has ended."
                )
                return {**resumed, "message": message}
            paused = self._pause()
            return {**paused, "message": "Its cancellation is taken back: it is paused again."}
        return {**resumed, "message": "Its cancellation is taken back: it runs again."}

    def _pause_has_ended(self) -> bool:
        """Whether it was to run again by itself at a time that has passed."""
        ends = self.before.resume_at if self.before is not None else None
        return ends is not None and parse_utc(ends) <= self.now

    def _pause(self) -> Mapping[str, Any]:
        """Pause it again, up to the time up to which it was paused before."""
        if self._pause_has_ended():
            raise self._cannot("the pause before it was to end at a time that has passed")
        ends = self.before.resume_at if self.before is not None else None
        back = None if ends is None else parse_utc(ends)
        id_, reason, now = self.schedule.id, self.reason, self.now
        state = self.store.read().state
        slots = open_slots(state, id_)
        drafts, paused = pausing(self.store, id_, reason, now, back, state, slots)
        self.store.transact(now, lambda _: (drafts, None))
        return {name: value for name, value in paused.items() if name.startswith("resume_at")}

    def _drop(self) -> Mapping[str, Any]:
        slot = self.event.data["slot"]
        waiting = self.store.read().state.open.get(slot_key(self.schedule.id, slot))
        if waiting is None:
            raise self._cannot("that delivery has its outcome")
        if waiting.worker is not None:
            raise self._cannot("that delivery is under way")
        drafts = drop_waiting(self.store, self.schedule, [waiting], "cancelled")
        self.store.transact(self.now, lambda _: (drafts, None))
        return {"slot": slot, "message": "The delivery that was asked for is dropped."}

    def _revoke(self) -> Mapping[str, Any]:
        if self.event.type == "approval.revoked":
            raise self._cannot("an approval that was taken back isn't given again")
        data = self.event.data
        if self.schedule.approval != data["grant"] or self.schedule.approval_void is not None:
            raise self._cannot("that approval doesn't hold any more")
        if self.schedule.approval_uses != data["uses"]:
            raise self._cannot("that approval was used")
        from promptyoself.service.schedules.approvals import revoke

        revoke(self.store, self.schedule.id, self.reason, self.now)
        return {"message": "The approval is taken back."}

    def _cannot(self, why: str) -> PromptyoselfError:
        event, id_ = self.event, self.schedule.id
        return PromptyoselfError(
            "cannot_undo",
            f"The last change of {id_}, {event.type} at {event.ts}, can't be taken back: {why}.",
            f"`promptyoself show --id {id_}` shows how it stands.",
            undone=event.type,
            seq=event.seq,
        )


def _nothing_to_undo(id_: str | None) -> PromptyoselfError:
    if id_ is not None:
        message = f"The log has no change of {id_}."
        return PromptyoselfError("nothing_to_undo", message, "There is nothing to take back.")
    return PromptyoselfError(
        "nothing_to_undo",
        "The log has no change of a schedule by you.",
        "With --id, the last change of that schedule is taken back, no matter by whom.",
    )
