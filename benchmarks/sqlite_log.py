"""The peer of an append: the same lines as rows of a SQLite table, one durable commit at a time."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

__all__ = ["SqliteLog"]


class SqliteLog:
    """In WAL mode with ``synchronous=FULL``: a commit is one write to the WAL and one ``fsync``."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute("CREATE TABLE log (seq INTEGER PRIMARY KEY, line BLOB NOT NULL)")

    def append(self, lines: Sequence[bytes]) -> None:
        """All of them in one commit."""
        if len(lines) == 1:
            self._database.execute("INSERT INTO log (line) VALUES (?)", lines)
            return
        self._database.execute("BEGIN IMMEDIATE")
        self._database.executemany("INSERT INTO log (line) VALUES (?)", [(line,) for line in lines])
        self._database.execute("COMMIT")

    def close(self) -> None:
        """Close the database."""
        self._database.close()
