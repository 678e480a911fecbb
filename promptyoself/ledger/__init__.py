"""The chain: an append-only, hash-linked log. It knows envelopes, never schedules."""

from promptyoself.ledger.envelope import GENESIS_HASH, Envelope, encode_line
from promptyoself.ledger.files import FileLedger
from promptyoself.ledger.lock import Liveness
from promptyoself.ledger.position import START, Position
from promptyoself.ledger.protocol import Batch, Gap, HeadMoved, Ledger, Torn

__all__ = [
    "GENESIS_HASH",
    "START",
    "Batch",
    "Envelope",
    "FileLedger",
    "Gap",
    "HeadMoved",
    "Ledger",
    "Liveness",
    "Position",
    "Torn",
    "encode_line",
]
