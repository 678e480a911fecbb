"""Bringing over the schedules of a promptyoself that kept them in SQLite.

Its database is only read, and left as it is to the byte. What its rows mean was never written
down, so each is taken for what it most likely meant; one that can't be is reported and left out.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import quote

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import format_utc, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.core.times import format_duration, parse_duration, parse_zone, shown
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import DEFAULT_GRACE
from promptyoself.rules.slots import trigger_from_fields
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.schedules.request import (
    Request,
    anchor_for,
    checked,
    first_fire,
    trigger_fields,
)
from promptyoself.service.transfer.admission import (
    MAX_BYTES,
    Admission,
    Arrival,
    admit,
    outcome,
    take_in,
    too_much,
)
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

__all__ = ["import_sqlite"]

_TABLES = ("schedules", "unified_reminders")
_PROMPTS = ("prompt_text", "prompt", "message", "text")
_NEEDED = ("agent_id", "schedule_type", "schedule_value")
_OTHERS = ("id", "next_run", "active", "max_repetitions", "repetition_count")

_LARGEST_VALUE = 4 * 1024 * 1024  # bytes; SQLite refuses a larger one before it is read
_BUSY_SECONDS = 5.0
_MAGIC = b"SQLite format 3\0"

_TICK = timedelta(microseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)
_GRACE = timedelta(seconds=DEFAULT_GRACE)
_WORDS = re.compile(
    r"(?:every +)?([0-9]{1,12}) *(seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?)"
)
_WHYS = {
    "too_many_schedules": "too_many",
    "prompts_too_large": "too_large",
    "forbidden_agent": "forbidden",
}
_ROW_HINT = "Register it by hand, with what it was meant to be."


class _Row(NamedTuple):
    """A row as SQLite has it: texts as bytes, anything else by its own type."""

    table: str
    number: Any
    columns: Mapping[str, Any]


class _Skip(NamedTuple):
    why: str
    detail: str


def import_sqlite(
    store: Store, path: str, zone: str | None, now: datetime, *, dry_run: bool = False
) -> dict[str, Any]:
    """Take in the schedules of its tables ``schedules`` and ``unified_reminders``.

    ``zone`` is that of its cron expressions; UTC where ``None``. Times without an offset are UTC.
    Every row is in the answer, imported or skipped. The same rows give the same ids, so a second
    run takes nothing.

    Raises:
        PromptyoselfError: ``unreadable_file``, ``not_sqlite``, ``no_schedules_table``,
            ``database_locked``, ``database_damaged``, ``import_too_large``, ``unknown_zone``; what
            :func:`~promptyoself.service.transfer.admission.take_in` raises.
    """
    zone = parse_zone(zone or "UTC")
    arrivals: list[Arrival] = []
    skipped: list[dict[str, Any]] = []
    for row in _rows(path):
        where = {"row": _name(row.number), "table": row.table}
        try:
            found = _converted(row, store.settings, zone, now)
        except PromptyoselfError as error:
            skipped.append({**where, **_refused(error)})
            continue
        if isinstance(found, _Skip):
            skipped.append({**where, **found._asdict()})
        else:
            arrivals.append(Arrival(where, found))

    def decide(state: State) -> Admission:
        return admit(store, state, arrivals, now)

    if dry_run or not arrivals:
        admission = decide(store.read().state)
    else:
        admission = take_in(store, now, decide)
    skipped += admission.skipped
    skipped += [{**where, **_refused(error)} for where, error in admission.refused]
    return {
        "imported": admission.imported,
        "skipped": skipped,
        "count": len(admission.imported),
        **({"dry_run": True} if dry_run else {}),
        "message": outcome(admission, len(skipped), dry_run=dry_run),
    }


def _refused(error: PromptyoselfError) -> dict[str, Any]:
    return {"why": _WHYS.get(error.code, "invalid"), "detail": error.message, "code": error.code}


# --- reading the database -----------------------------------------------------------------------


def _rows(path: str) -> Iterator[_Row]:
    """Every row of the tables, all as of one moment."""
    try:
        with _opened(path) as connection:
            tables = [table for table in _TABLES if _columns(connection, table)]
            if not tables:
                raise PromptyoselfError(
                    "no_schedules_table",
                    f"{shown(path)} has neither a table {' nor '.join(_TABLES)}.",
                    "Name the database of an SQLite-based promptyoself; see its "
                    "PROMPTYOSELF_DB_PATH.",
                )
            total = 0
            for table in tables:
                for row in _table_rows(connection, path, table):
                    total += sum(len(v) for v in row.columns.values() if isinstance(v, bytes))
                    if total > MAX_BYTES:
                        raise too_much(shown(path))
                    yield row
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter of a name in its schema
        raise _from_sqlite(path, error) from None


@contextmanager
def _opened(path: str) -> Iterator[sqlite3.Connection]:
    """A connection that can't change the file, in a transaction.

    In WAL mode even a reader makes files beside the database, so where no writer can be using it,
    it is opened as immutable, or, where a dead one has left a WAL without its index, as a copy.
    """
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
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE)
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
    found = connection.execute("SELECT name FROM pragma_table_info(?)", (real,))
    return {name.lower(): name for (name,) in found}


def _table_rows(connection: sqlite3.Connection, path: str, table: str) -> Iterator[_Row]:
    columns = _columns(connection, table)
    missing = [name for name in _NEEDED if name not in columns]
    if not set(_PROMPTS) & set(columns):
        missing.append(_PROMPTS[0])
    if missing:
        raise PromptyoselfError(
            "no_schedules_table",
            f"The table {table} of {shown(path)} has no column {', '.join(missing)}.",
            "Name the database of an SQLite-based promptyoself.",
        )
    wanted = [name for name in (*_NEEDED, *_PROMPTS, *_OTHERS) if name in columns]
    chosen = ", ".join('"' + columns[name].replace('"', '""') + '"' for name in wanted)
    numbered = _row_number(connection, table, columns)
    query = f"SELECT {numbered or 'NULL'}, {chosen} FROM {table}"
    if numbered:
        query += f" ORDER BY {numbered}"
    with _texts_as_bytes(connection):
        for place, values in enumerate(_each(connection, query), 1):
            if values is None:
                number = _number_at(connection, table, numbered, place)
                yield _Row(table, number, {})
                continue
            found = dict(zip(wanted, values[1:], strict=True))
            number = place if values[0] is None else values[0]
            yield _Row(table, found.pop("id", None) or number, found)


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


def _each(connection: sqlite3.Connection, query: str) -> Iterator[tuple[Any, ...] | None]:
    """Each row of a query; ``None`` for one with a value that is too large.

    Such a value ends the statement that meets it, and takes the row before it along. So that one
    and the next are asked for by themselves, and the rest by a new statement.
    """
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


def _number_at(connection: sqlite3.Connection, table: str, numbered: str, place: int) -> int:
    """SQLite's own number of the row in that place, else the place."""
    if not numbered:
        return place
    query = f"SELECT {numbered} FROM {table} ORDER BY 1 LIMIT 1 OFFSET ?"
    (number,) = connection.execute(query, (place - 1,)).fetchone()
    return int(number)


@contextmanager
def _texts_as_bytes(connection: sqlite3.Connection) -> Iterator[None]:
    """What isn't UTF-8 is a matter of its row, not of the whole table."""
    connection.text_factory = bytes
    try:
        yield
    finally:
        connection.text_factory = str


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


# --- what a row means ---------------------------------------------------------------------------


def _converted(
    row: _Row, settings: Settings, zone: str, now: datetime
) -> ScheduleRegistered | _Skip:
    if not row.columns:
        raise _invalid(f"A value in it is larger than {_LARGEST_VALUE // 1024**2} MiB.")
    if not _is_active(row.columns.get("active")):
        return _Skip("inactive", "It isn't active.")
    most = _count(row, "max_repetitions")
    done = _count(row, "repetition_count") or 0
    if done < 0:
        raise _invalid(f"Its repetition_count is {done}.")
    if most is not None and done >= most > 0:
        return _Skip("finished", f"It has fired {done} times, of at most {most}.")
    prompts = (row.columns.get(name) for name in _PROMPTS)
    prompt = next((prompt for prompt in prompts if prompt is not None), None)
    request = Request(
        agent_id=_text("agent_id", row.columns["agent_id"]),
        prompt=_text("prompt", prompt),
        max_repetitions=most,
        reason=f"import-sqlite: {row.table} row {_name(row.number)}",
    )
    next_run = _instant("next_run", row.columns.get("next_run"))
    value = row.columns["schedule_value"]
    kind = (_text("schedule_type", row.columns["schedule_type"])).strip().lower()
    if kind == "once":
        due = next_run or _instant("schedule_value", value)
        if due is None:
            raise _invalid("It says no time.")
        if due < now - _GRACE:
            return _Skip("overdue", f"Its time, {format_utc(due)}, has passed by more than 24 h.")
        request = request._replace(time=format_utc(due), timezone="UTC")
    elif kind == "cron":
        request = request._replace(cron=_text("schedule_value", value), timezone=zone)
    elif kind == "interval":
        request = request._replace(every=_interval(value), timezone="UTC")
    else:
        raise PromptyoselfError(
            "invalid_schedule_type",
            f"The schedule_type {shown(kind)} is none of once, cron, interval.",
            _ROW_HINT,
        )
    fields = checked(request, settings, now)
    fields.update(trigger_fields(request, settings, _BEGINNING) or {})
    fields.update(tier=0, misfire="coalesce", grace=DEFAULT_GRACE, anchor=anchor_for(now))
    first = _first(fields, next_run, now)
    return ScheduleRegistered(next_run=format_utc(first), repetition_count=done, **fields)


def _first(fields: dict[str, Any], next_run: datetime | None, now: datetime) -> datetime:
    """The next slot: the row's, where it is one. One that has passed stays due; those that are too
    late to be delivered are left out. An interval's ``anchor`` is set so as to keep its phase."""
    if fields["schedule_type"] == "once":
        return parse_utc(fields["schedule_value"])
    after = now
    if fields["schedule_type"] == "interval" and next_run is not None:
        step = timedelta(seconds=parse_duration(fields["schedule_value"]))
        with suppress(OverflowError):  # in the year 1: it has no phase to keep
            fields["anchor"] = format_utc(next_run - step)
            after = max(next_run, now - _GRACE) - _TICK
    elif next_run is not None:
        before = max(next_run, now - _GRACE) - _TICK
        is_slot = next_fire_time(trigger_from_fields(fields), next_run - _TICK) == next_run
        after = before if is_slot else now
    return first_fire(fields, after)


def _interval(value: Any) -> str:
    """A duration in our spelling: of a number of seconds, of our own, or of words as ``30
    minutes``."""
    text = _text("schedule_value", value).strip().lower()
    if seconds := re.fullmatch(r"([0-9]{1,12})(\.0+)?", text):
        return format_duration(int(seconds[1]))
    if words := _WORDS.fullmatch(text):
        text = words[1] + words[2][0]
    return format_duration(parse_duration(text.removeprefix("every ").strip()))


def _instant(name: str, value: Any) -> datetime | None:
    """A time: ISO 8601, in UTC where it has no offset, or seconds or milliseconds since 1970."""
    if isinstance(value, bytes):
        value = _text(name, value).strip()
    if value in (None, ""):
        return None
    try:
        if isinstance(value, str) and not re.fullmatch(r"-?[0-9]{9,14}(\.[0-9]+)?", value):
            found = datetime.fromisoformat(value)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
        seconds = float(value)
        return datetime.fromtimestamp(seconds / 1000 if abs(seconds) >= 1e11 else seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise PromptyoselfError(
            "invalid_time", f"Its {name} {shown(str(value))} is not a time.", _ROW_HINT
        ) from None


def _is_active(value: Any) -> bool:
    if isinstance(value, bytes):
        return value.strip().lower() not in (b"", b"0", b"0.0", b"f", b"false", b"n", b"no", b"off")
    return value is None or bool(value)


def _count(row: _Row, name: str) -> int | None:
    value = row.columns.get(name)
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace").strip() or None
    if value is None:
        return None
    text = str(value).removesuffix(".0")
    if not re.fullmatch(r"-?[0-9]{1,10}", text, re.ASCII):
        raise _invalid(f"Its {name} {shown(text)} is not a number.")
    return int(text)


def _text(name: str, value: Any) -> str:
    if value is None:
        raise _invalid(f"Its {name} is empty.")
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"Its {name} is not UTF-8 at byte {error.start}.") from None


def _name(number: Any) -> int | str:
    """What a row is called: its id, which can be anything."""
    if isinstance(number, bytes):
        return number[:80].decode("utf-8", "backslashreplace")
    return number if isinstance(number, int) else str(number)


def _invalid(message: str) -> PromptyoselfError:
    return PromptyoselfError("invalid_row", message, _ROW_HINT)
