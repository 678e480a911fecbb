"""Reading the whole chain in several processes, each of which decodes the events of its share.

Nearly all that an event costs, it costs after its line has been told from the next: decoding,
hashing, folding. What follows from one schedule's events doesn't depend on another's, so the
schedules are shared out, and each process reads all lines, but looks at those of the others only
for the id, and for the time where one of its own follows.

Every line is decoded by the one process whose share it is in, or by all where it has no id, and is
checked there for all that :func:`~promptyoself.ledger.segments.link` checks, and that the look at
its bytes has seen what it says; the hash and the time of the line before it are had from the bytes.
So where no process finds anything wrong, nothing is; where one does, a replay tells what the first
damage is, if there is any.
"""

from __future__ import annotations

from hashlib import sha256

from promptyoself.ledger.envelope import Envelope
from promptyoself.ledger.maintenance import Share
from promptyoself.ledger.position import Position
from promptyoself.ledger.segments import Link, Member, check_line, damaged, lines_of

__all__ = ["sharing"]

_TS = b'"ts":"'
_TS_BYTES = 27
_ID = b'","id":"'


def sharing(share: Share) -> Link:
    """What steps over a chain's lines from the first on, and gives the events of a share, and those
    that have no id.

    It raises what :func:`~promptyoself.ledger.segments.link` raises, and for a line that isn't
    written as ours are.
    """
    owners: dict[bytes, int] = {}  # by ids in their order, which is the same in every process

    def link_share(
        position: Position, member: Member, month: str, earlier: int
    ) -> tuple[list[Envelope], Position]:
        seq, head, ts = position.seq, position.hash, position.ts
        before, passed = b"", False  # the line before, and whether it is of another share
        envelopes = []
        for line in lines_of(member, month, seq):
            seq += 1
            at = line.find(_ID)
            id_ = None
            if at >= 0:
                at += len(_ID)
                id_ = line[at : line.find(b'"', at)]
                owner = owners.get(id_)
                if owner is None:
                    owner = owners[id_] = len(owners) % share.of
                if owner != share.number:
                    before, passed = line, True
                    continue
            if before:
                head = sha256(before).hexdigest()
                if passed:
                    ts = _ts_of(before)
            envelope = check_line(line, seq, head, ts, month, member.start)
            before, passed, ts = line, False, envelope.ts
            at = line.find(_TS) + len(_TS)
            if (None if envelope.id is None else envelope.id.encode()) != id_ or line[
                at : at + _TS_BYTES
            ] != ts.encode():
                what = "it isn't written as promptyoself writes"
                raise damaged(month, member.start, seq, what, "its time and id, once", "others")
            envelopes.append(envelope)
        head = sha256(before).hexdigest()
        if passed:
            ts = _ts_of(before)
        return envelopes, Position(seq, head, ts, month, member.end, member.start, earlier)

    return link_share


def _ts_of(line: bytes) -> str:
    """The time, as far as a look tells."""
    at = line.find(_TS) + len(_TS)
    return line[at : at + _TS_BYTES].decode("ascii", "replace")
