"""Broca's database: what we need of it, and what goes wrong with it, as errors.

Each call opens a connection of its own, so that none is shared between threads, and a database that
was replaced by another file is seen at once.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from promptyoself.targets.api import DeliveryError, Kind

NEEDED: dict[str, frozenset[str]] = {
    "platform_profiles": frozenset({"id", "letta_user_id", "platform", "platform_user_id"}),
    "messages": frozenset(
        {"id", "letta_user_id", "platform_profile_id", "role", "message", "timestamp"}
        | {"processed", "agent_response"}
    ),
    "queue": frozenset({"id", "letta_user_id", "message_id", "status", "attempts", "timestamp"}),
}
"""The tables and columns of Broca that are read or written here."""

SENT = "promptyoself_sent"
"""Our own table in Broca's database: which prompts were put into its queue, and as what."""

_MAKE_SENT = f"""
    CREATE TABLE IF NOT EXISTS {SENT} (
        otid TEXT PRIMARY KEY,
        queue_id INTEGER NOT NULL,
        message_id INTEGER NOT NULL,
        agent_id TEXT NOT NULL,
        at TEXT NOT NULL
    )
"""

_LOCKED = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})


class BrocaDatabase:
    """The file that Broca keeps its queue in."""

    def __init__(self, path: str, *, timeout: float) -> None:
        """``timeout`` seconds is the longest that one call waits for a lock."""
        self.path = Path(path).absolute()
        self._timeout = timeout

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that shows the tables as they are at one instant.

        Raises:
            DeliveryError: ``retry`` with ``broca_missing``, ``broca_locked``, ``broca_unsupported``
                or ``broca_unreadable``.
        """
        with self._telling("retry"), self._connected() as connection:
            connection.execute("BEGIN")
            self._require_tables(connection)
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A connection in a transaction that is all or nothing: it is committed where the block
        ends well.

        Raises:
            DeliveryError: as for reading, when nothing was written; ``doubt`` with
                ``broca_unreadable`` where the commit itself failed in a way that leaves it open.
        """
        with self._telling("retry"), self._connected() as connection:
            connection.execute("BEGIN IMMEDIATE")
            self._require_tables(connection)
            connection.execute(_MAKE_SENT)
            yield connection
            try:
                connection.execute("COMMIT")
            except sqlite3.Error as error:
                if _is_locked(error):
                    raise
                with self._telling("doubt"):
                    raise

    def has_sent_table(self, connection: sqlite3.Connection) -> bool:
        """Whether anything was ever put into this database from here."""
        return bool(_columns(connection, SENT))

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        if not self.path.is_file():
            raise DeliveryError(
                "retry",
                "broca_missing",
                f"Broca's database {str(self.path)!r} isn't there.",
                "Start Broca once, which makes it; DB_PATH says where it is.",
            )
        connection = sqlite3.connect(
            f"{self.path.as_uri()}?mode=rw",
            uri=True,
            timeout=self._timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            yield connection
        finally:
            connection.close()  # rolls back what wasn't committed

    def _require_tables(self, connection: sqlite3.Connection) -> None:
        for table, needed in NEEDED.items():
            columns = _columns(connection, table)
            if missing := sorted(needed - columns):
                what = f"no column {missing[0]} in its table {table}" if columns else None
                raise DeliveryError(
                    "retry",
                    "broca_unsupported",
                    f"Broca's database has {what or f'no table {table}'}, so it is of another "
                    "version than this can deliver to.",
                    "Install a promptyoself that knows this Broca, or the Broca that this one "
                    "knows (3.0.0).",
                )

    @contextmanager
    def _telling(self, kind: Kind) -> Iterator[None]:
        """Say what SQLite's errors mean."""
        try:
            yield
        except sqlite3.Error as error:
            if _is_locked(error):
                raise DeliveryError(
                    "retry",
                    "broca_locked",
                    f"Broca's database was locked for {self._timeout:g} s. Nothing was written.",
                    "It is tried again. If that lasts, see which process holds "
                    f"{os.path.basename(self.path)}.",
                ) from None
            raise DeliveryError(
                kind,
                "broca_unreadable",
                f"Broca's database can't be used: {error}.",
                "Check the file and its disk; `sqlite3 FILE 'PRAGMA integrity_check'` tells more.",
            ) from None


def _columns(connection: sqlite3.Connection, table: str) -> frozenset[str]:
    return frozenset(row[1] for row in connection.execute(f"PRAGMA table_info({table})"))


def _is_locked(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF in _LOCKED
