"""The chain: an append-only, hash-linked log. It knows envelopes, never schedules."""

from promptyoself.ledger.batch import Batch, Gap, HeadMoved, Torn
from promptyoself.ledger.envelope import GENESIS_HASH, Envelope, encode_line
from promptyoself.ledger.files import FileLedger
from promptyoself.ledger.position import START, Position

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
