"""1,000 events in one append against 1,000 rows in one commit of SQLite (at most as long)."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from calls import compare
from pairs import PAIRS, Figure
from sample_log import claims
from sqlite_log import SqliteLog

from promptyoself.ledger import GENESIS_HASH, START, Batch, FileLedger, encode_line
from promptyoself.ledger.envelope import hash_line

__all__ = ["run"]

_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_EVENTS = 1000


def run(pairs: int = PAIRS) -> Iterator[Figure]:
    """A thousand claims at a time. The first peer gets the lines ready made, the second makes each
    from the event, with its number and the hash of the one before, as anybody would have to who
    keeps such a log there."""
    drafts = claims(_EVENTS)
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        ledger = FileLedger(Path(scratch) / "schedules", "schedules")
        position = START

        def ours(_: int) -> Batch:
            nonlocal position
            with ledger.exclusive():
                batch = ledger.append(drafts, _NOW, position)
            position = batch.position
            return batch

        ours(0)
        with closing(SqliteLog(Path(scratch) / "ready.db")) as peer:
            yield compare(
                "1,000 events in one append",
                "1,000 rows in one commit of SQLite, of the same lines, ready made",
                ours,
                lambda batch: peer.append(cast(Batch, batch).content.splitlines()),
                pairs,
                1.0,
                ours_first=True,
            )
        with closing(SqliteLog(Path(scratch) / "made.db")) as peer:
            yield compare(
                "1,000 events in one append",
                "1,000 rows in one commit of SQLite, whose lines it makes and links, too",
                ours,
                lambda batch: peer.append(_made(cast(Batch, batch))),
                pairs,
                ours_first=True,
            )


def _made(batch: Batch) -> list[bytes]:
    lines, head = [], GENESIS_HASH
    for envelope in batch.envelopes:
        line = encode_line(envelope._replace(prev=head))
        head = hash_line(line)
        lines.append(line)
    return lines


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
