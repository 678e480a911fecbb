"""The types of events that this version of the software knows, each with its newest version.

Apart from the records themselves, which take 3 ms to make: commands that meet no event ask no more.
"""

from collections.abc import Mapping

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
)

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
