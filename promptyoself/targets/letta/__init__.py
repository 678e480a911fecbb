"""The way to an agent: what a delivery needs (:class:`Deliverer`), and how Letta is asked for it.

Nothing else in the package knows ``letta_client``, and importing this doesn't load it.
"""

from __future__ import annotations

from promptyoself.targets.api import (
    Agent,
    Deliverer,
    DeliveryError,
    Found,
    Kind,
    Message,
    Run,
    run_failure_is_busy,
    run_failure_is_permanent,
    run_failure_lacks_credits,
)
from promptyoself.targets.letta.client import LettaDeliverer
from promptyoself.targets.letta.failures import UNFIT_CLIENTS
from promptyoself.targets.letta.run_snapshot import Look, Looks, take_look

__all__ = [
    "UNFIT_CLIENTS",
    "Agent",
    "Deliverer",
    "DeliveryError",
    "Found",
    "Kind",
    "LettaDeliverer",
    "Look",
    "Looks",
    "Message",
    "Run",
    "run_failure_is_busy",
    "run_failure_is_permanent",
    "run_failure_lacks_credits",
    "take_look",
]
