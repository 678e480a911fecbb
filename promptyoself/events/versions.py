"""The types of events that this version of the software knows, each with its newest version.

Apart from the records themselves, which take 3 ms to make: commands that meet no event ask no more.
"""

from collections.abc import Mapping
from typing import Any

from promptyoself.events.target_names import DEFAULT, NEW

VERSIONS: Mapping[str, int] = dict.fromkeys(
    (
        "ledger.created",
        "schedule.registered",
        "schedule.modified",
        "schedule.paused",
        "schedule.resumed",
        "schedule.cancelled",
        "schedule.completed",
        "schedule.triggered",
        "delivery.attempted",
        "delivery.delivered",
        "delivery.failed",
        "delivery.abandoned",
        "delivery.stalled",
        "delivery.skipped",
        "delivery.replied",
        "delivery.unanswered",
        "notice.sent",
        "notice.failed",
        "approval.granted",
        "approval.revoked",
        "approval.consumed",
        "worker.started",
        "worker.stopped",
        "segment.sealed",
        "tail.quarantined",
        "ledger.recovered",
        "desire.recorded",
        "desire.reinforced",
        "desire.pruned",
    ),
    1,
) | dict.fromkeys(
    (
        "schedule.registered",
        "schedule.modified",
        "schedule.paused",
        "schedule.completed",
        "delivery.attempted",
        "delivery.delivered",
        "delivery.failed",
        "delivery.skipped",
    ),
    2,
)

_SINCE_2 = {
    "delivery.attempted": frozenset({"target"}),
    "delivery.delivered": frozenset({"turn", "conversation_id", "keep_reply"}),
    "delivery.failed": frozenset({"to"}),
    "delivery.skipped": frozenset({"to"}),
    "schedule.completed": frozenset({"to"}),
}
_OF_SCHEDULES = frozenset(
    {"tags", "render", "resume_at", "target", "keep_reply", "reply_to", "failure_to"}
)


def version_of(type_: str, data: Mapping[str, Any]) -> int:
    """The lowest version of a type that can say this.

    An event is written in that version. So a log that uses nothing new can still be read by the
    software that knew nothing of it.
    """
    if VERSIONS.get(type_) != 2:
        return 1
    fields = data["changes"] if type_ == "schedule.modified" else data
    new_values = (
        fields.get("schedule_type") == "rrule" or fields.get("conversation_id") in (NEW, DEFAULT)
    ) and type_.startswith("schedule.")
    return 2 if new_values or _SINCE_2.get(type_, _OF_SCHEDULES) & fields.keys() else 1


# What each chain may have. A known event on the chain of another is one that no writer put there.
_EVERYWHERE = ("ledger.created", "segment.sealed", "tail.quarantined", "ledger.recovered")

DESIRE_VERSIONS: Mapping[str, int] = {
    type_: version
    for type_, version in VERSIONS.items()
    if type_.startswith("desire.") or type_ in _EVERYWHERE
}

SCHEDULE_VERSIONS: Mapping[str, int] = {
    type_: version for type_, version in VERSIONS.items() if not type_.startswith("desire.")
}

GAP = "ledger.gap"
"""The type of what stands for a gap among the events that a fold takes in. No log has it."""
