"""One answer as programs get it, and the latest of a schedule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from promptyoself.events.draft import FOR
from promptyoself.ledger import Envelope
from promptyoself.state.schedules import Schedule
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.replies.answers import ReplyView

ANSWER_TYPES = ("delivery.replied", "delivery.unanswered")
"""The types of events by which an answer is there, or won't come."""

_AS_RECORDED = (
    *("kept", "text", "bytes", "sha256", "tools", "run_id", "code", "error", "notice", "to"),
)


def view_of(event: Envelope, owner: str | None, name: str | None) -> ReplyView:
    """One of the events of :data:`ANSWER_TYPES` as programs get it. ``owner`` is the agent that was
    prompted, if the caller knows it; the event names it too."""
    data = event.data
    view: dict[str, Any] = {"id": event.id}
    if name is not None:
        view["name"] = name
    view |= {
        "agent_id": event.actor.get(FOR) or owner or "",
        "slot": data["slot"],
        "at": event.ts,
    }
    if data.get("at") is not None:
        view["replied_at"] = data["at"]
    view["replied"] = event.type == ANSWER_TYPES[0]
    view |= {key: data[key] for key in _AS_RECORDED if data.get(key) is not None}
    return cast("ReplyView", view)


def latest_reply(store: Store, schedule: Schedule) -> ReplyView | None:
    """The latest answer to a schedule's prompts; ``None`` where there is none, where the log has
    lost it, or where it is that of another agent than the one that the caller is pinned to. One
    event is read, however long the log is."""
    if schedule.replied is None:
        return None
    month, _, seq = schedule.replied.partition(":")
    event = store.event_if_seen(int(seq), month)
    if event is None or event.id != schedule.id or event.type not in ANSWER_TYPES:
        return None
    return view_of(event, schedule.agent_id, schedule.name)
