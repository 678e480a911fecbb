"""The peer of an append: the same lines as rows of a SQLite table, one durable commit at a time."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


class SqliteLog:
    """In WAL mode with ``synchronous=FULL``: a commit is one write to the WAL and one ``fsync``."""

    def __init__(self, path: Path, busy_timeout: float = 5.0) -> None:
        """``busy_timeout`` is how many seconds a transaction waits for others."""
        self._database = sqlite3.connect(path, timeout=busy_timeout, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS log (seq INTEGER PRIMARY KEY, line BLOB NOT NULL)"
        )

    def append(self, lines: Sequence[bytes]) -> None:
        """All of them in one commit."""
        if len(lines) == 1:
            self.insert(lines[0])
            return
        with self.transaction():
            self._database.executemany(
                "INSERT INTO log (line) VALUES (?)", [(line,) for line in lines]
            )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """One that writes, from its start to its commit."""
        self._database.execute("BEGIN IMMEDIATE")
        yield
        self._database.execute("COMMIT")

    def insert(self, line: bytes) -> None:
        """One of them, in a commit of its own unless there is a transaction."""
        self._database.execute("INSERT INTO log (line) VALUES (?)", [line])

    def close(self) -> None:
        """Close the database."""
        self._database.close()
