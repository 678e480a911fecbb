"""The chain: an append-only, hash-linked log. It knows envelopes, never schedules."""

from promptyoself.ledger.batch import START, Batch, Gap, HeadMoved, Position, Torn
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope, encode_line
from promptyoself.ledger.files import FileLedger

__all__ = [
    "GENESIS_HASH",
    "START",
    "Batch",
    "Envelope",
    "FileLedger",
    "Gap",
    "HeadMoved",
    "Position",
    "Torn",
    "encode_line",
]
