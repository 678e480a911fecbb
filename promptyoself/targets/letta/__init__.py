"""The way to Letta. Nothing else in the package knows ``letta_client``, and importing this doesn't
load it."""

from promptyoself.targets.letta.client import LettaClient
from promptyoself.targets.letta.failures import (
    UNFIT_CLIENTS,
    run_failure_is_busy,
    run_failure_is_permanent,
    run_failure_lacks_credits,
)
from promptyoself.targets.letta.run_snapshot import RunSnapshot, SnapshotQueue, take_run_snapshot

__all__ = [
    "UNFIT_CLIENTS",
    "LettaClient",
    "RunSnapshot",
    "SnapshotQueue",
    "run_failure_is_busy",
    "run_failure_is_permanent",
    "run_failure_lacks_credits",
    "take_run_snapshot",
]
