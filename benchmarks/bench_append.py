"""One durable append against ``write`` and ``fsync`` of the same bytes (at most 1.3 times), and
against one commit of SQLite (at most 0.85 times)."""

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from calls import compare
from pairs import PAIRS, Figure
from sample_log import registration
from sqlite_log import SqliteLog

from promptyoself.ledger import START, Batch, FileLedger, Position

_NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
_APPENDS_PER_PAIR = 10


def run(pairs: int = PAIRS) -> Iterator[Figure]:
    """Ten appends for each of ``pairs``: they are short."""
    count = pairs * _APPENDS_PER_PAIR
    with tempfile.TemporaryDirectory(prefix="promptyoself-bench-") as scratch:
        folder = Path(scratch)
        appender = _Appender(folder / "schedules", count)
        segment = folder / "schedules" / "2026-11.ndjson.gz"
        descriptor = os.open(folder / "floor", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        member = _last_member(segment, appender.position)

        def floor(_: object) -> None:
            os.write(descriptor, member)
            os.fsync(descriptor)

        yield compare(
            "one durable append",
            "`write` and `fsync` of as many bytes",
            appender.append,
            floor,
            count,
            1.3,
        )
        os.close(descriptor)
        with closing(SqliteLog(folder / "peer.db")) as peer:
            appender = _Appender(folder / "again", count)
            yield compare(
                "one durable append",
                "one commit of SQLite (WAL, synchronous=FULL), a row of the same line",
                appender.append,
                lambda batch: peer.append([cast(Batch, batch).content]),
                count,
                0.85,
                ours_first=True,
            )


class _Appender:
    """What registers one schedule after another, as far as the log is concerned."""

    def __init__(self, folder: Path, count: int) -> None:
        self._ledger = FileLedger(folder, "schedules")
        self._drafts = [registration(number) for number in range(count + 2)]
        self.position: Position = START
        self.append(-1)  # makes the log
        self.append(-1)
        time.sleep(0.3)  # as long as it hasn't seen the folder unchanged, it lists it
        self.append(-1)

    def append(self, number: int) -> Batch:
        with self._ledger.exclusive():
            batch = self._ledger.append([self._drafts[number]], _NOW, self.position)
        self.position = batch.position
        return batch


def _last_member(segment: Path, position: Position) -> bytes:
    return segment.read_bytes()[position.member :]


if __name__ == "__main__":
    for figure in run(int(sys.argv[1]) if len(sys.argv) > 1 else PAIRS):
        print(figure)
