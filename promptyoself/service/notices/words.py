"""What a notice of an answer or of a failure says, in words and as data, from the log's events.

Everything that isn't ours is quoted in the words, or without effect: what an agent answered, what
a target said of an error, the name that somebody gave a schedule, and the id of an agent that need
not exist.
"""

from collections.abc import Sequence
from typing import Any

from promptyoself.events.codec import read_record
from promptyoself.events.records import (
    DeliveryFailed,
    DeliveryReplied,
    DeliverySkipped,
    DeliveryUnanswered,
    Record,
    ScheduleCompleted,
)
from promptyoself.ledger import Envelope
from promptyoself.rules.notices.failures import failure_text
from promptyoself.service.notices.notice import Notice
from promptyoself.service.notices.quotes import on_a_line, quoted
from promptyoself.state.schedules import OwedNotice

MOST_QUOTED = 4096
"""How many characters of an answer the words of a notice have. Its data have all that was kept."""

_MOST_OF_A_NAME, _MOST_OF_AN_ID, _MOST_OF_AN_ERROR = 100, 300, 500

_LOST = "The log has lost what it tells of."


def notice_of(owed: OwedNotice, name: str | None, events: Sequence[Envelope]) -> Notice:
    """The notice that is owed. ``name`` is the schedule's, if it has one. ``events`` are those of
    the schedule that were appended with the one that it tells of, in order; none, where they are
    lost."""
    told = next((event for event in events if event.data.get("notice") == owed.notice), None)
    record = None if told is None else read_record(told.type, told.v, told.data)
    own = [read_record(event.type, event.v, event.data) for event in events]
    document: dict[str, Any] = {
        "id": owed.notice,
        "kind": owed.kind,
        "at": owed.at,
        "schedule": {"id": owed.id, "name": name, "agent_id": owed.agent_id},
        "slot": owed.slot,
    }
    who = owed.id if name is None else f"{harmless(name)} ({owed.id})"
    title, text, more = _told(owed, who, record, own)
    return Notice(owed.notice, owed.kind, owed.at, title, text, document | more)


def harmless(name: str) -> str:
    """A name that somebody chose, on one line, without effect in a chat."""
    return quoted(" ".join(name.split()), _MOST_OF_A_NAME).removeprefix("> ")


def harmless_id(agent_id: str) -> str:
    """An agent's id, which a caller may have made up, without effect in a chat."""
    return on_a_line(agent_id, _MOST_OF_AN_ID)


def _told(
    owed: OwedNotice, who: str, record: Record | None, own: Sequence[Record]
) -> tuple[str, str, dict[str, Any]]:
    """The title, the text, and what the data say besides."""
    agent_id = harmless_id(owed.agent_id)
    if isinstance(record, DeliveryReplied):
        head = f"{agent_id} has answered the prompt of {who} for {record.slot}."
        return f"{agent_id} answered {who}", _with_answer(head, record), {"reply": _reply(record)}
    if isinstance(record, DeliveryUnanswered):
        text = f"{agent_id} gave no answer to the prompt of {who} for {record.slot}: {record.code}."
        reason = {"code": record.code, "error": record.error, "tools": record.tools or []}
        return (
            f"No answer of {agent_id} to {who}",
            f"{text}\n{quoted(record.error, _MOST_OF_AN_ERROR)}",
            {"unanswered": reason},
        )
    if not isinstance(record, DeliveryFailed | DeliverySkipped | ScheduleCompleted):
        what = "An answer" if owed.kind == "reply" else "A failure"
        return f"{what} of {who}", f"{what} of {who} of {agent_id}. {_LOST}", {"lost": True}
    failed = next((other for other in own if isinstance(other, DeliveryFailed)), None)
    text = on_a_line(failure_text(owed.id, owed.agent_id, own, record), MOST_QUOTED)
    if failed is not None:
        error = failed.error if failed.detail is None else f"{failed.error} {failed.detail}"
        text += f"\n{quoted(error, _MOST_OF_AN_ERROR)}"
    return f"{_what_failed(record)}: {who} of {agent_id}", text, {"failure": _failure(record, own)}


def _with_answer(head: str, record: DeliveryReplied) -> str:
    if record.text is None:
        return f"{head} Of its answer, only the length ({record.bytes} bytes) and a hash are kept."
    text = f"{head}\n{quoted(record.text, MOST_QUOTED)}"
    if record.kept == "excerpt" or len(record.text) > MOST_QUOTED:
        text += f"\nThat was the beginning of {record.bytes} bytes."
    return text


def _reply(record: DeliveryReplied) -> dict[str, Any]:
    return {
        "text": record.text,
        "bytes": record.bytes,
        "sha256": record.sha256,
        "kept": record.kept,
        "truncated": record.kept != "full",
        "tools": record.tools or [],
    }


def _what_failed(record: DeliveryFailed | DeliverySkipped | ScheduleCompleted) -> str:
    if isinstance(record, DeliverySkipped):
        return "Missed"
    return "Failed" if isinstance(record, ScheduleCompleted) else "Parked"


def _failure(
    worst: DeliveryFailed | DeliverySkipped | ScheduleCompleted, own: Sequence[Record]
) -> dict[str, Any]:
    """Why the schedule failed: the code of its last slot, and what was said of it."""
    what = {"Missed": "missed", "Failed": "failed", "Parked": "parked"}[_what_failed(worst)]
    failure: dict[str, Any] = {"what": what, "code": None, "error": None}
    for record in own:
        if isinstance(record, DeliveryFailed):
            failure |= {"code": record.code, "error": record.error}
            if record.detail is not None:
                failure["detail"] = record.detail
            if record.http_status is not None:
                failure["http_status"] = record.http_status
        elif isinstance(record, DeliverySkipped):
            failure |= {"code": record.why, "error": record.detail}
            failure["slots"] = failure.get("slots", 0) + record.slots
            failure.setdefault("first", record.slot)
            failure["last"] = record.last
    return failure
