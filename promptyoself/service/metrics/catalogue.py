"""The metrics that a Prometheus is shown: their names, kinds, labels and words."""

from typing import NamedTuple


class Metric(NamedTuple):
    """One metric."""

    kind: str  # ``counter``, ``gauge`` or ``histogram``
    help: str  # its meaning, for people
    labels: tuple[str, ...] = ()
    source: str = "log"
    """``log``, of which every process on a data directory says the same, after a restart too;
    ``files``, for the files beside the log; or ``loop``, for the running loop alone."""


_TOP = "those with the least left today, 20 at most"

METRICS: dict[str, Metric] = {
    "promptyoself_build_info": Metric("gauge", "Always 1.", ("version",), "files"),
    "promptyoself_slots_total": Metric(
        "counter",
        "Slots that have their outcome: delivered (reason: found by its run or in the history), "
        "failed (the code) or skipped (why).",
        ("outcome", "reason"),
    ),
    "promptyoself_delivery_attempts_total": Metric(
        "counter", "Claims of slots; a retry counts again."
    ),
    "promptyoself_delivery_failures_total": Metric(
        "counter",
        "Attempts that came to nothing. Class: retried (to be tried again), permanent, given_up "
        "(past its grace), unknown (it can't be told whether it arrived).",
        ("class", "code"),
    ),
    "promptyoself_delivery_lateness_seconds": Metric(
        "histogram", "From when a slot was due until the log had it as delivered."
    ),
    "promptyoself_deliveries_in_flight": Metric("gauge", "Claimed by a worker that lives."),
    "promptyoself_deliveries_in_doubt": Metric("gauge", "Claimed by a worker that died over it."),
    "promptyoself_deliveries_waiting": Metric("gauge", "Begun, and to be tried (again) later."),
    "promptyoself_oldest_due_seconds": Metric(
        "gauge",
        "For how long the oldest slot that could be claimed has been due, even if its agent is "
        "busy; 0 if there is none.",
    ),
    "promptyoself_notices_owed": Metric("gauge", "Notices that a destination is yet to take."),
    "promptyoself_notices_failing": Metric(
        "gauge", "Those of them that a destination has refused, or that didn't reach it."
    ),
    "promptyoself_schedules": Metric("gauge", "Schedules by how they stand.", ("status",)),
    "promptyoself_schedule_events_total": Metric(
        "counter",
        "Changes of schedules, by what was done and through which door (cli, sanctum, mcp).",
        ("event", "door"),
    ),
    "promptyoself_schedules_parked_total": Metric(
        "counter", "Times that a schedule was parked after permanent failures in a row."
    ),
    "promptyoself_agents_spending": Metric("gauge", "Agents that got a delivery today (UTC)."),
    "promptyoself_agents_out_of_budget": Metric("gauge", "Those that get no more today."),
    "promptyoself_agent_budget": Metric("gauge", "Deliveries that an agent may get in a day."),
    "promptyoself_agent_budget_left": Metric(
        "gauge",
        f"Deliveries that an agent may still get today: {_TOP}. With 10,000 agents or more, of "
        "some seconds ago.",
        ("agent_id",),
    ),
    "promptyoself_schedules_out_of_budget": Metric(
        "gauge", "Schedules whose own daily budget is spent."
    ),
    "promptyoself_schedule_budget": Metric(
        "gauge", f"The daily budget of a schedule: {_TOP}.", ("id",)
    ),
    "promptyoself_schedule_budget_left": Metric(
        "gauge", f"What is left of a schedule's daily budget: {_TOP}.", ("id",)
    ),
    "promptyoself_events_total": Metric(
        "counter", "Events in the log, by type.", ("chain", "type")
    ),
    "promptyoself_chain_events": Metric("gauge", "The number of the last event.", ("chain",)),
    "promptyoself_chain_bytes": Metric("gauge", "Bytes of the log's months.", ("chain",)),
    "promptyoself_workers": Metric("gauge", "Workers that live: loops, and passes.", (), "files"),
    "promptyoself_health": Metric(
        "gauge", "1 where a check of /healthz is well, else 0.", ("check",), "loop"
    ),
    "promptyoself_loop_passes_total": Metric(
        "counter", "Passes of this loop since it was started.", (), "loop"
    ),
    "promptyoself_loop_last_pass_timestamp_seconds": Metric(
        "gauge", "When this loop made its last pass.", (), "loop"
    ),
}
"""Every metric, by name, in the order in which they are shown."""
