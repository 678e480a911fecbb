"""The chain of the agents' desires."""

from promptyoself.index.desire_schema import DESIRE_SCHEMA
from promptyoself.state.desires import CHAIN, Desires
from promptyoself.store.chain import Chain


class DesireChain(Chain[Desires]):
    """The chain of the desires in one data directory."""

    name, schema = CHAIN, DESIRE_SCHEMA
