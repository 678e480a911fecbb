"""Bringing over the schedules of a promptyoself that kept them in SQLite.

The database is only read. What its rows mean was never written down, so each is read as what it
most likely meant. A row that can't be read is reported and left out.
"""

import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import MICROSECOND, format_utc
from promptyoself.core.settings import Settings
from promptyoself.core.times import format_duration, parse_duration, parse_zone, seconds_of, shown
from promptyoself.events.records import ScheduleRegistered
from promptyoself.events.schedule_fields import DEFAULT_GRACE
from promptyoself.rules.slots import schedule_trigger
from promptyoself.rules.triggers import next_fire_time
from promptyoself.service.schedules.request import Request, first_fire, registration, validate
from promptyoself.service.transfer import admission
from promptyoself.service.transfer.answers import Imported, SkippedSchedule, Where, WhySkipped
from promptyoself.service.transfer.sqlite_rows import (
    MAX_VALUE_BYTES,
    PROMPT_COLUMNS,
    Row,
    read_rows,
)
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

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


def import_sqlite(
    store: Store, path: str, zone: str | None, now: datetime, *, dry_run: bool = False
) -> Imported:
    """Import the schedules of the tables ``schedules`` and ``unified_reminders``.

    ``zone`` is that of the cron expressions; UTC if ``None``. Times without an offset are UTC.
    Every row is in the answer, imported or skipped. The same rows give the same ids, so a second
    run imports nothing.

    Raises:
        PromptyoselfError: ``unreadable_file``, ``not_sqlite``, ``no_schedules_table``,
            ``database_locked``, ``database_damaged``, ``import_too_large``, ``unknown_zone``; what
            :func:`~promptyoself.service.transfer.admission.append_admitted` raises.
    """
    zone = parse_zone(zone or "UTC")
    arrivals: list[admission.Arrival] = []
    skipped: list[SkippedSchedule] = []
    for row in read_rows(path):
        where: Where = {"row": _name(row.number), "table": row.table}
        try:
            converted = _convert(row, store.settings, zone, now)
        except PromptyoselfError as error:
            converted = _refused(error)
        if isinstance(converted, ScheduleRegistered):
            arrivals.append(admission.Arrival(where, converted))
        else:
            skipped.append({**where, **converted})

    def decide(state: State) -> admission.Admission:
        return admission.admit(store, state, arrivals, now)

    if dry_run or not arrivals:
        decided = decide(store.read().state)
    else:
        decided = admission.append_admitted(store, now, decide)
    skipped += decided.skipped
    skipped += [{**where, **_refused(error)} for where, error in decided.refused]
    return admission.answer_of(decided, skipped, dry_run=dry_run)


def _refused(error: PromptyoselfError) -> WhySkipped:
    return {"why": _WHYS.get(error.code, "invalid"), "detail": error.message, "code": error.code}


def _convert(
    row: Row, settings: Settings, zone: str, now: datetime
) -> ScheduleRegistered | WhySkipped:
    """The schedule that a row describes, or why there is none, though nothing is wrong with it."""
    if not row.columns:
        raise _invalid(f"A value in it is larger than {MAX_VALUE_BYTES // 1024**2} MiB.")
    if not _is_active(row.columns.get("active")):
        return {"why": "inactive", "detail": "It isn't active."}
    most = _count(row, "max_repetitions")
    done = _count(row, "repetition_count") or 0
    if done < 0:
        raise _invalid(f"Its repetition_count is {done}.")
    if most is not None and done >= most > 0:
        return {"why": "finished", "detail": f"It has fired {done} times, of at most {most}."}
    prompts = (row.columns.get(name) for name in PROMPT_COLUMNS)
    prompt = next((prompt for prompt in prompts if prompt is not None), None)
    request = Request(
        agent_id=_text("agent_id", row.columns["agent_id"]),
        prompt=_text("prompt", prompt),
        max_repetitions=most,
        reason=f"import-sqlite: {row.table} row {_name(row.number)}",
    )
    next_run = _instant("next_run", row.columns.get("next_run"))
    value = row.columns["schedule_value"]
    kind = _text("schedule_type", row.columns["schedule_type"]).strip().lower()
    if kind == "once":
        due = next_run or _instant("schedule_value", value)
        if due is None:
            raise _invalid("It says no time.")
        if due < now - _GRACE:
            passed = f"Its time, {format_utc(due)}, has passed by more than 24 h."
            return {"why": "overdue", "detail": passed}
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
    fields = validate(request, settings, _BEGINNING)
    record = registration(fields, now)._replace(repetition_count=done)
    return _with_next_run(record, next_run, now)


def _with_next_run(
    record: ScheduleRegistered, next_run: datetime | None, now: datetime
) -> ScheduleRegistered:
    """The registration with its next slot. That is the row's ``next_run`` where it is a slot. One
    that has passed stays due; slots that are too late to be delivered are left out. The ``anchor``
    of an interval is set so as to keep its phase."""
    if record.schedule_type == "once":
        return record._replace(next_run=record.schedule_value)
    after = now
    if next_run is not None:
        due = max(next_run, now - _GRACE) - MICROSECOND
        if record.schedule_type == "interval":
            step = timedelta(seconds=seconds_of(record.schedule_value))
            with suppress(OverflowError):  # in the year 1: it has no phase to keep
                record = record._replace(anchor=format_utc(next_run - step))
                after = due
        elif next_fire_time(schedule_trigger(record), next_run - MICROSECOND) == next_run:
            after = due
    return record._replace(next_run=format_utc(first_fire(schedule_trigger(record), after)))


def _interval(value: Any) -> str:
    """A duration as `--every` has it. The row may have a number of seconds, a duration of the same
    form, or words such as ``30 minutes``."""
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
            instant = datetime.fromisoformat(value)
            return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).astimezone(UTC)
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


def _count(row: Row, name: str) -> int | None:
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
