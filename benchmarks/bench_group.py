"""1,000 events in one append against 1,000 rows in one commit of SQLite (at most as long)."""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from calls import compare
from pairs import PAIRS, Figure
from sample_log import claims
from sqlite_log import SqliteLog

from promptyoself.ledger import GENESIS_HASH, START, Batch, FileLedger, encode_line
from promptyoself.ledger.envelope import hash_line

_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_EVENTS = 1000


def run(pairs: int = PAIRS) -> Iterator[Figure]:
    """A thousand claims at a time. The first peer gets the lines ready made; the second makes each
    from its event, as anybody would have to who keeps events as JSON; the third links them, too."""
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
        for number, (made, what, bar) in enumerate(_PEERS):
            with closing(SqliteLog(Path(scratch) / f"{number}.db")) as peer:
                yield compare(
                    "1,000 events in one append",
                    f"1,000 rows in one commit of SQLite, {what}",
                    ours,
                    lambda batch, made=made, peer=peer: peer.append(made(batch)),
                    pairs,
                    bar,
                    ours_first=True,
                )


def _ready(batch: Batch) -> list[bytes]:
    return batch.content.splitlines()


def _spelled(batch: Batch) -> list[bytes]:
    return [encode_line(envelope) for envelope in batch.envelopes]


def _made(batch: Batch) -> list[bytes]:
    lines, head = [], GENESIS_HASH
    for envelope in batch.envelopes:
        line = encode_line(envelope._replace(prev=head))
        head = hash_line(line)
        lines.append(line)
    return lines


_PEERS: tuple[tuple[Callable[[Batch], list[bytes]], str, float | None], ...] = (
    (_ready, "of the same lines, ready made", 1.0),
    (_spelled, "of the same events, which it makes JSON of", 1.0),
    (_made, "of the same events, whose lines it makes and links, too", None),
)


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
