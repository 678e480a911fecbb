"""The way to Letta. Nothing else in the package knows ``letta_client``, and importing this doesn't
load it."""

from promptyoself.targets.letta.client import LettaClient
from promptyoself.targets.letta.failures import UNFIT_CLIENTS
from promptyoself.targets.letta.run_snapshot import RunSnapshot, SnapshotQueue, take_run_snapshot

__all__ = ["UNFIT_CLIENTS", "LettaClient", "RunSnapshot", "SnapshotQueue", "take_run_snapshot"]
