"""The way to agents of Letta Code in Letta's cloud. It is untested: nobody here has an account."""

from promptyoself.targets.letta_cloud.client import LettaCloud

__all__ = ["LettaCloud"]
