"""The way to an agent: what a delivery calls (:class:`LettaApi`), and how that calls Letta.

Nothing else in the package knows ``letta_client``, and importing this doesn't load it.
"""

from __future__ import annotations

from promptyoself.targets.api import (
    Agent,
    DeliveryError,
    Found,
    Kind,
    LettaApi,
    Message,
    Run,
    run_failure_is_busy,
    run_failure_is_permanent,
    run_failure_lacks_credits,
)
from promptyoself.targets.letta.client import LettaClient
from promptyoself.targets.letta.failures import UNFIT_CLIENTS
from promptyoself.targets.letta.run_snapshot import RunSnapshot, SnapshotQueue, take_run_snapshot

__all__ = [
    "UNFIT_CLIENTS",
    "Agent",
    "DeliveryError",
    "Found",
    "Kind",
    "LettaApi",
    "LettaClient",
    "Message",
    "Run",
    "RunSnapshot",
    "SnapshotQueue",
    "run_failure_is_busy",
    "run_failure_is_permanent",
    "run_failure_lacks_credits",
    "take_run_snapshot",
]
