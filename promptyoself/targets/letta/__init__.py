"""The way to a Letta server. Nothing else in the package knows ``letta_client``, and importing this
doesn't load it."""

from promptyoself.targets.letta.client import LettaClient
from promptyoself.targets.letta.failures import UNFIT_CLIENTS

__all__ = ["UNFIT_CLIENTS", "LettaClient"]
