"""The compact JSON index: what a chain's log says, folded, and the position that it reflects."""

from promptyoself.index.index import Index, Snapshot, chain_is_gone, events_missing

__all__ = ["Index", "Snapshot", "chain_is_gone", "events_missing"]
