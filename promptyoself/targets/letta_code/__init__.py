"""The way to Letta Code's App Server. Nothing else in the package knows ``websockets``, and
importing this doesn't load it."""

from promptyoself.targets.letta_code.client import LettaCode

__all__ = ["LettaCode"]
