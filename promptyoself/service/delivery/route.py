"""The way to one target: whether it is in trouble, and how its runs are asked for."""

from promptyoself.service.delivery.target_trouble import TargetTrouble
from promptyoself.targets.api import Target
from promptyoself.targets.run_snapshot import SnapshotQueue


class Route:
    """What a worker knows of one target. Each target has its own, so that one in trouble holds up
    no deliveries but its own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.trouble = TargetTrouble()
        self.snapshots = SnapshotQueue()
        self.trusts_snapshots = target.traits.lists_runs

    def is_snapshot_worth_it(self, now: float) -> bool:
        """Whether a delivery should wait for the next snapshot, at an instant of the monotonic
        clock."""
        return self.trusts_snapshots and self.snapshots.is_worth_waiting_for(now)
