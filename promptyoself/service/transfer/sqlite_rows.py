"""The rows of an SQLite database of schedules. The database is left as it is, to the byte."""

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import shown
from promptyoself.service.transfer.admission import MAX_BYTES, too_much

PROMPT_COLUMNS = ("prompt_text", "prompt", "message", "text")
"""The columns that may have the prompt; the first that isn't null has it."""

MAX_VALUE_BYTES = 4 * 1024 * 1024
"""SQLite refuses a larger value before it is read."""

_TABLES = ("schedules", "unified_reminders")
_NEEDED = ("agent_id", "schedule_type", "schedule_value")
_OTHERS = ("id", "next_run", "active", "max_repetitions", "repetition_count")

_BUSY_SECONDS = 5.0
_MAGIC = b"SQLite format 3\0"


class Row(NamedTuple):
    """A row as SQLite has it: texts as bytes, anything else by its own type."""

    table: str
    number: Any
    columns: Mapping[str, Any]


def read_rows(path: str) -> Iterator[Row]:
    """Every row of the tables of schedules, all as of one moment.

    Raises:
        PromptyoselfError: ``unreadable_file``, ``not_sqlite``, ``no_schedules_table``,
            ``database_locked``, ``database_damaged``, ``import_too_large``.
    """
    try:
        with _opened(path) as connection:
            columns_of = {table: _columns(connection, table) for table in _TABLES}
            if not any(columns_of.values()):
                raise PromptyoselfError(
                    "no_schedules_table",
                    f"{shown(path)} has neither a table {' nor '.join(_TABLES)}.",
                    "Name the database of an SQLite-based promptyoself; see its "
                    "PROMPTYOSELF_DB_PATH.",
                )
            connection.text_factory = bytes  # so that one that isn't UTF-8 spoils its own row only
            total = 0
            for table in filter(columns_of.get, columns_of):
                for row in _table_rows(connection, path, table, columns_of[table]):
                    total += sum(len(v) for v in row.columns.values() if isinstance(v, bytes))
                    if total > MAX_BYTES:
                        raise too_much(shown(path))
                    yield row
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of a name in its schema
        raise _from_sqlite(path, error) from None


@contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that can't change the file, in a transaction. In WAL mode even a reader makes
    files beside the database, so where no writer can be using it, it is opened as immutable, or,
    where a dead one has left a WAL without its index, as a copy."""
    file, wal = _require_database(path)
    name, shm = os.fspath(file), Path(f"{file}-shm")
    log = Path(f"{file}-wal")
    with TemporaryDirectory(prefix="promptyoself-") as folder:
        mode = "mode=ro"
        if wal and not shm.exists():
            if log.exists() and log.stat().st_size:
                name = os.path.join(folder, "copy.db")
                shutil.copyfile(file, name)
                shutil.copyfile(log, f"{name}-wal")
            else:
                mode = "mode=ro&immutable=1"
        uri = f"file:{quote(os.fsencode(name))}?{mode}"
        with closing(sqlite3.connect(uri, uri=True, timeout=_BUSY_SECONDS)) as connection:
            connection.isolation_level = None
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("BEGIN")
            yield connection


def _require_database(path: str) -> tuple[Path, bool]:
    """The file behind the path, and whether it is in WAL mode. SQLite would take an empty file for
    an empty database."""
    try:
        file = Path(path).resolve()
        regular = stat.S_ISREG(file.stat().st_mode)
        header = b""
        if regular:
            with file.open("rb") as opened:
                header = opened.read(100)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error)) from None
    if not regular:
        raise _unreadable(path, "it isn't a file")
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise _not_sqlite(path)
    return file, 2 in header[18:20]


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """The columns of a table by their names in lower case; none where there is no such table."""
    (real,) = connection.execute(
        "SELECT min(name) FROM sqlite_master WHERE type = 'table' AND lower(name) = ?", (table,)
    ).fetchone()
    if real is None:
        return {}
    names = connection.execute("SELECT name FROM pragma_table_info(?)", (real,))
    return {name.lower(): name for (name,) in names}


def _table_rows(
    connection: sqlite3.Connection, path: str, table: str, columns: Mapping[str, str]
) -> Iterator[Row]:
    missing = [name for name in _NEEDED if name not in columns]
    if not set(PROMPT_COLUMNS) & set(columns):
        missing.append(PROMPT_COLUMNS[0])
    if missing:
        raise PromptyoselfError(
            "no_schedules_table",
            f"The table {table} of {shown(path)} has no column {', '.join(missing)}.",
            "Name the database of an SQLite-based promptyoself.",
        )
    wanted = [name for name in (*_NEEDED, *PROMPT_COLUMNS, *_OTHERS) if name in columns]
    chosen = ", ".join('"' + columns[name].replace('"', '""') + '"' for name in wanted)
    numbered = _row_number(connection, table, columns)
    query = f"SELECT {numbered or 'NULL'}, {chosen} FROM {table}"
    if numbered:
        query += f" ORDER BY {numbered}"
    for index, values in enumerate(_fetch_each(connection, query), 1):
        if values is None:
            yield Row(table, _number_at(connection, table, numbered, index), {})
            continue
        row = dict(zip(wanted, values[1:], strict=True))
        number = index if values[0] is None else values[0]
        yield Row(table, row.pop("id", None) or number, row)


def _row_number(connection: sqlite3.Connection, table: str, columns: Mapping[str, str]) -> str:
    """The name by which SQLite's own number of a row can be asked for; empty where columns of the
    table have all of its names, or the table has no such number."""
    for name in ("rowid", "_rowid_", "oid"):
        if name not in columns:
            try:
                connection.execute(f"SELECT {name} FROM {table} LIMIT 0")
            except sqlite3.OperationalError:
                continue
            return name
    return ""


def _fetch_each(connection: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...] | None]:
    """Each row of a query; ``None`` for one with a value that is too large. Such a value ends the
    statement that meets it, which loses the row before it too. So the row before it and the row
    with the value are each fetched by a statement of their own, and the rest by a new one."""
    done = 0
    while True:
        try:
            for values in connection.execute(f"{query} LIMIT -1 OFFSET {done}"):
                yield values
                done += 1
        except sqlite3.DataError:
            try:
                yield connection.execute(f"{query} LIMIT 1 OFFSET {done}").fetchone()
            except sqlite3.DataError:
                yield None
            done += 1
        else:
            return


def _number_at(connection: sqlite3.Connection, table: str, numbered: str, index: int) -> int:
    """SQLite's own number of the row at an index, from 1 on; else the index."""
    if not numbered:
        return index
    query = f"SELECT {numbered} FROM {table} ORDER BY 1 LIMIT 1 OFFSET ?"
    (number,) = connection.execute(query, (index - 1,)).fetchone()
    return int(number)


def _from_sqlite(path: str, error: sqlite3.Error | UnicodeDecodeError) -> PromptyoselfError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return PromptyoselfError(
            "database_locked",
            f"{shown(path)} is locked by another process.",
            "Nothing was imported. Stop the old promptyoself, and run this again.",
        )
    if code == sqlite3.SQLITE_CORRUPT or isinstance(error, UnicodeDecodeError):
        return PromptyoselfError(
            "database_damaged",
            f"{shown(path)} is damaged: {error}.",
            "Nothing was imported. Try `sqlite3 FILE .recover | sqlite3 NEW`, and import NEW.",
        )
    if code == sqlite3.SQLITE_NOTADB:
        return _not_sqlite(path)
    return _unreadable(path, str(error))


def _not_sqlite(path: str) -> PromptyoselfError:
    return PromptyoselfError(
        "not_sqlite",
        f"{shown(path)} is not an SQLite database, or an encrypted one.",
        "Name the database's file; an export is read by `promptyoself import`.",
    )


def _unreadable(path: str, why: str) -> PromptyoselfError:
    return PromptyoselfError(
        "unreadable_file", f"{shown(path)} can't be read: {why}.", "Check the path and the mode."
    )
