"""Moving house: schedules as lines of a file, out of one data directory and into another, where
they get the same ids and go on where they stopped.

An id is made of the content at registration, whatever was modified since (decision 7), so a line
holds that content too where it differs from today's. Everything else is carried over as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO, NamedTuple

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import content_hash, schedule_id
from promptyoself.core.instants import format_utc, is_instant, parse_utc
from promptyoself.core.settings import Settings
from promptyoself.core.texts import BOM, foreign_encoding
from promptyoself.core.times import format_duration, shown, zone_named
from promptyoself.events.kinds import FINISHED
from promptyoself.events.records import Record, SchedulePaused, ScheduleRegistered
from promptyoself.events.schedule_fields import (
    CONTENT,
    FIELDS,
    FLAGS,
    POLICY,
    SPECIFIED,
    content_of,
)
from promptyoself.rules.placement import MAX_SALT
from promptyoself.service.schedules.request import (
    Request,
    check_jitter,
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
from promptyoself.state.schedules import OpenSlot, Schedule, State
from promptyoself.store.store import Store

__all__ = ["EXPORT", "back_to", "export_lines", "import_lines"]

EXPORT = 1
"""The version of the format; each line states it."""

_LONGEST_LINE = 16 * 1024 * 1024
"""Bytes: two prompts of 1 MiB in which every character is written as six, and what goes with it."""

_LISTED = 1000
"""So many bad lines are listed; the rest, of some other file entirely, are only counted."""

_OLDEST = timedelta(days=366)
"""How far back slots are still accounted for one by one."""

_TICK = timedelta(microseconds=1)
_BEGINNING = datetime.min.replace(tzinfo=UTC)  # what nothing in a file is earlier than
_MOST_REPETITIONS = 1_000_000_000

# The names of a line and of what is in it, with their types, and whether they may be left out.
_LINE = {
    "export": (int, False),
    "id": (str, False),
    "salt": (int, True),
    "status": (str, False),
    "next_run": (str, True),
    "repetition_count": (int, False),
    "last_slot": (str, True),
    "without": (list, True),
    "schedule": (dict, False),
    "registered": (dict, True),
}


def _forms(names: Iterable[str]) -> dict[str, tuple[type, bool]]:
    """The types of these fields of a registration, and whether they may be left out."""
    optional = ScheduleRegistered._field_defaults
    return {
        name: (FIELDS[name].type if name in FIELDS else str, name in optional) for name in names
    }


_CONTENT = _forms(CONTENT)
_POLICY = _forms(
    name
    for name in ScheduleRegistered._fields
    if name in (*SPECIFIED, "reason") and name not in CONTENT
)
_OPTIONS = {"once": "time", "cron": "cron", "interval": "every"}

_MADE_BY_EXPORT = "Take the line as `promptyoself export` wrote it."


# --- out ----------------------------------------------------------------------------------------


def export_lines(store: Store, agent_id: str | None, now: datetime) -> list[bytes]:
    """Every schedule that isn't over, of one agent or of all, as a line without its newline, in the
    order of their ids.

    A slot that is under way, or waits to be tried again, is the schedule's next one again: whoever
    takes over looks for it in the agent's history before sending it once more. What can't be
    carried over is told as a warning.

    Raises:
        PromptyoselfError: ``invalid_agent_id``, ``forbidden_agent``.
        ChainError: the log is damaged.
    """
    checked(Request(agent_id=agent_id), store.settings, now)
    wanted = store.require_agent(agent_id)
    state = store.read().state
    chosen = [
        schedule
        for schedule in state.schedules.values()
        if schedule.status not in FINISHED and wanted in (None, schedule.agent_id)
    ]
    changed = {
        schedule.id
        for schedule in chosen
        if content_hash(content_of(schedule)) != schedule.registered
    }
    contents = _registrations(store, changed) if changed else {}
    lines = []
    for schedule in sorted(chosen, key=lambda schedule: schedule.id):
        content = contents.get(schedule.id)
        if content is not None and store.pinned_to not in (None, content["agent_id"]):
            store.warn(f"{schedule.id} is left out: it was registered for another agent.")
            continue
        if schedule_id(content or content_of(schedule), schedule.salt or 0) != schedule.id:
            store.warn(
                f"{schedule.id} is left out: what it was registered with is lost, and its id can't "
                "be proved without. Register it anew where it is to go."
            )
            continue
        moved = _with_open_slots(store, schedule, state)
        if moved.next_run is None and moved.status == "active":
            store.warn(f"{schedule.id} is left out: it has no slot left to fire.")
            continue
        lines.append(orjson.dumps(_line(moved, content)))
    with suppress(OSError):
        if lines and (living := store.workers.living()):
            store.warn(
                f"A loop is running ({', '.join(living)}). Stop it and export again before these "
                "are imported elsewhere, or both will deliver."
            )
    return lines


def _registrations(store: Store, ids: set[str]) -> dict[str, dict[str, Any]]:
    """The content with which these schedules were last registered, out of the log."""
    found = {}
    for batch in store.unpinned.replay():
        for event in batch.envelopes:
            if event.type == "schedule.registered" and event.id in ids:
                first = event.data.get("first_content") or event.data
                found[event.id] = {name: first.get(name) for name in CONTENT}
    return found


def _with_open_slots(store: Store, schedule: Schedule, state: State) -> Schedule:
    for slot in state.open.values():
        if slot.id == schedule.id:
            if slot.kind == "scheduled" and slot.slot == schedule.last_slot:
                schedule = back_to(schedule, slot)
            else:
                store.warn(
                    f"{slot.id} has a delivery under way, of {slot.slot}, that isn't carried over."
                )
    return schedule


def back_to(schedule: Schedule, slot: OpenSlot) -> Schedule:
    """The schedule as it was before it claimed this slot, its latest."""
    return schedule._replace(
        next_run=slot.slot,
        last_slot=format_utc(parse_utc(slot.slot) - _TICK),
        repetition_count=schedule.repetition_count - 1,
    )


def _line(schedule: Schedule, registered: Mapping[str, Any] | None) -> dict[str, Any]:
    fields = schedule._asdict()
    fields.update((name, fields[name] or None) for name in FLAGS)
    line = {
        "export": EXPORT,
        **{name: fields[name] for name in ("id", "salt", "status", "next_run")},
        **{name: fields[name] for name in ("repetition_count", "last_slot", "without")},
        "schedule": _said({name: fields[name] for name in (*_CONTENT, *_POLICY)}),
        "registered": None if registered is None else _said(registered),
    }
    return _said(line)


def _said(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


# --- in -----------------------------------------------------------------------------------------


class _Bad:
    """The lines that can't be imported: all of them counted, the first of them listed."""

    def __init__(self) -> None:
        self.count = 0
        self.listed: list[dict[str, Any]] = []

    def add(self, where: Mapping[str, Any], error: PromptyoselfError) -> None:
        self.count += 1
        if len(self.listed) < _LISTED:
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            self.listed.append({**where, **told})

    def in_order(self) -> list[dict[str, Any]]:
        return sorted(self.listed, key=lambda line: int(line["line"]))


def import_lines(
    store: Store, file: BinaryIO, now: datetime, *, partial: bool = False, dry_run: bool = False
) -> dict[str, Any]:
    """Take in what :func:`export_lines` wrote, with the same ids.

    Every line is checked before any is taken. Where one is bad, nothing is imported; with
    ``partial``, the good ones are. A schedule that is known here, whatever its state, is skipped.

    Raises:
        PromptyoselfError: ``bad_lines``, listing them in its details as ``bad``;
            ``not_an_export``, ``newer_export``, ``import_too_large``; what
            :func:`~promptyoself.service.transfer.admission.take_in` raises.
    """
    arrivals: list[Arrival] = []
    bad = _Bad()
    for number, line in _read(file):
        try:
            arrivals.append(_arrival(number, line, store.settings, now))
        except PromptyoselfError as error:
            if error.code == "newer_export":
                raise
            bad.add({"line": number}, error)

    def decide(state: State) -> Admission:
        admission = admit(store, state, arrivals, now)
        for where, error in admission.refused:
            bad.add(where, error)
        good = len(admission.imported) + len(admission.skipped)
        if bad.count and not (partial and good):
            raise _bad_lines(bad, good)
        return admission

    if not arrivals and not bad.count:
        admission = Admission([], [], [], [])
    elif dry_run or not arrivals or (bad.count and not partial):
        admission = decide(store.read().state)
    else:
        admission = take_in(store, now, decide)
    return {
        "imported": admission.imported,
        "skipped": admission.skipped,
        "bad": bad.in_order(),
        "bad_count": bad.count,
        "count": len(admission.imported),
        **({"dry_run": True} if dry_run else {}),
        "message": outcome(admission, len(admission.skipped), bad.count, dry_run=dry_run),
    }


def _bad_lines(bad: _Bad, good: int) -> PromptyoselfError:
    first = bad.in_order()[0]
    others = "no other line is good" if not good else f"{good} are good"
    return PromptyoselfError(
        "bad_lines",
        f"{bad.count} {'line' if bad.count == 1 else 'lines'} can't be imported, {others}. "
        f"Line {first['line']}: {first['message']}",
        "Nothing was imported. Mend or remove the lines listed as `bad`; or give --partial, which "
        "takes the others.",
        bad=bad.in_order(),
        bad_count=bad.count,
    )


class _Line(NamedTuple):
    """A line without its end, or the beginning of one that is too long."""

    content: bytes
    whole: bool


def _read(file: BinaryIO) -> Iterator[tuple[int, _Line]]:
    """The lines that aren't blank, with their numbers, none held that is longer than allowed."""
    total = number = 0
    while piece := file.readline(_LONGEST_LINE + 1):
        number += 1
        line = _Line(piece, len(piece) <= _LONGEST_LINE)
        if number == 1:
            _require_lines(piece)
            line = line._replace(content=piece.removeprefix(BOM.encode()))
        total += len(piece)
        while not piece.endswith(b"\n") and len(piece) > _LONGEST_LINE:
            if not (piece := file.readline(_LONGEST_LINE + 1)):
                break
            total += len(piece)
            if total > MAX_BYTES:
                break
        if total > MAX_BYTES:
            raise too_much("The file")
        if line.content.strip() or not line.whole:
            yield number, line


def _require_lines(beginning: bytes) -> None:
    kinds = {
        b"\x1f\x8b": ("is compressed with gzip", "Unpack it: zcat FILE | promptyoself import -"),
        b"SQLite format 3\0": ("is an SQLite database", "Use `promptyoself import-sqlite FILE`."),
    }
    for magic, (what, hint) in kinds.items():
        if beginning.startswith(magic):
            raise PromptyoselfError("not_an_export", f"The file {what}, not an export.", hint)
    if (encoding := foreign_encoding(beginning)) is not None:
        hint = f"Convert it: iconv -f {encoding} -t UTF-8 FILE | promptyoself import -"
        raise PromptyoselfError("not_an_export", f"The file is {encoding}, not UTF-8.", hint)


def _arrival(number: int, line: _Line, settings: Settings, now: datetime) -> Arrival:
    """The schedule that a line describes, checked as a registration is."""
    if not line.whole:
        raise PromptyoselfError(
            "line_too_long",
            f"The line has more than {_LONGEST_LINE // 1024**2} MiB.",
            _MADE_BY_EXPORT,
        )
    fields = _parsed(line.content)
    current = _typed(fields["schedule"], {**_CONTENT, **_POLICY}, "schedule")
    content = {name: current[name] for name in CONTENT}
    original = content
    if fields["registered"] is not None:
        original = _typed(fields["registered"], _CONTENT, "registered")
        _require_as_exported(original, _unlimited(settings))
    _require_as_exported(current, settings)
    zone_named(current["timezone"])
    check_jitter(current)
    _require_id(fields, original)
    _require_position(fields, current, now)
    next_run = fields["next_run"]
    registered = ScheduleRegistered(
        **current,
        # Where none is left, the pause that follows says so.
        next_run=next_run or current["anchor"],
        salt=fields["salt"],
        repetition_count=fields["repetition_count"],
        last_slot=fields["last_slot"],
        without=fields["without"],
        first_content=_said(original) if original != content else None,
    )
    further: list[Record] = []
    if fields["status"] == "paused":
        further.append(SchedulePaused(next_run, current["reason"]))
    return Arrival({"line": number}, registered, further, str(fields["id"]))


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"It isn't JSON: {error}.") from None
    version: Any = found.get("export") if isinstance(found, dict) else None
    if not _is(version, int) or version < 1:
        raise _invalid("It has no schedule in it.")
    if version > EXPORT:
        raise PromptyoselfError(
            "newer_export",
            f"A newer promptyoself wrote this: its version is {version}, and {EXPORT} is known "
            "here.",
            "Nothing was imported. Upgrade promptyoself.",
        )
    return _typed(found, _LINE, "line")


def _typed(
    found: Mapping[str, Any], forms: Mapping[str, tuple[type, bool]], what: str
) -> dict[str, Any]:
    """The fields under all their names, ``None`` where left out."""
    if unknown := sorted(set(found) - set(forms)):
        raise _invalid(f"Its {what} has a field {shown(unknown[0])}, which isn't known.")
    for name, (type_, optional) in forms.items():
        value = found.get(name)
        if not (_is(value, type_) or (optional and value is None)):
            raise _invalid(f"The field {name!r} of its {what} is missing, or of the wrong type.")
    return {name: found.get(name) for name in forms}


def _is(value: object, type_: type) -> bool:
    return type(value) is type_


def _require_as_exported(fields: Mapping[str, Any], settings: Settings) -> None:
    """Check everything that a registration checks but the zone, and that it is spelled as in the
    log."""
    kind = fields["schedule_type"]
    if kind not in _OPTIONS:
        raise PromptyoselfError(
            "invalid_schedule_type",
            f"The schedule_type {shown(kind)} is none of {', '.join(_OPTIONS)}.",
            _MADE_BY_EXPORT,
        )
    asked: dict[str, Any] = {name: fields[name] for name in Request._fields if name in fields}
    for name in POLICY:
        if FIELDS[name].form == "duration" and asked.get(name) is not None:
            asked[name] = format_duration(asked[name])
    asked[_OPTIONS[kind]] = fields["schedule_value"]
    request, zone = Request(**{**asked, "timezone": None}), fields["timezone"]
    found = checked(request, settings, _BEGINNING, own_zone=zone)
    found.update(trigger_fields(request, settings, _BEGINNING, own_zone=zone) or {})
    for name, value in fields.items():
        if name != "anchor" and found.get(name) != value:
            raise _invalid(f"Its {name} isn't spelled as in the log: {shown(str(value))}.")


def _unlimited(settings: Settings) -> Settings:
    """For content that isn't in force any more: what this machine allows doesn't concern it."""
    return settings._replace(caps=settings.caps._replace(min_interval=1))


def _require_id(fields: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    salt = fields["salt"]
    if salt is not None and not 1 <= salt <= MAX_SALT:
        raise _invalid(f"Its salt is {salt}; no more than {MAX_SALT} can be imported.")
    if schedule_id(content, salt or 0) != fields["id"]:
        raise PromptyoselfError(
            "id_mismatch",
            f"The id {shown(fields['id'])} isn't that of its content.",
            "The line was changed. Take it as it was exported; change the schedule with `modify` "
            "once it is here.",
        )


def _require_position(fields: Mapping[str, Any], current: Mapping[str, Any], now: datetime) -> None:
    """Check where the schedule stands: what it has done, and what comes next."""
    next_run, last_slot = fields["next_run"], fields["last_slot"]
    for name, text in (
        ("anchor", current["anchor"]),
        ("next_run", next_run),
        ("last_slot", last_slot),
    ):
        if text is not None and not is_instant(text):
            raise _invalid(f"Its {name} {shown(text)} isn't an instant as in the log.")
    for each in fields["without"] or ():
        if not (
            type(each) is list
            and len(each) == 2
            and all(type(end) is str and is_instant(end) for end in each)
            and each[0] <= each[1]
        ):
            raise _invalid("A range in its 'without' isn't two instants as in the log.")
    if fields["status"] not in ("active", "paused"):
        raise _invalid(f"Its status {shown(fields['status'])} is neither active nor paused.")
    if next_run is None and fields["status"] == "active":
        raise _nothing_left("It has no slot left to fire.")
    count, most = fields["repetition_count"], current["max_repetitions"]
    if not 0 <= count <= _MOST_REPETITIONS:
        raise _invalid(f"Its repetition_count is {count}.")
    if most is not None and count >= most:
        raise _nothing_left(f"It has fired {count} times, of at most {most}.")
    if next_run is None:
        return
    if last_slot is not None and last_slot >= next_run:
        raise _invalid(f"Its last_slot {last_slot} isn't earlier than its next_run {next_run}.")
    first = parse_utc(next_run)
    if first < now - _OLDEST:
        raise PromptyoselfError(
            "past_time",
            f"Its next run, {next_run}, passed more than {_OLDEST.days} days ago.",
            "Register it anew.",
            time=next_run,
            now=format_utc(now),
        )
    first_fire(dict(current), first - _TICK)


def _nothing_left(message: str) -> PromptyoselfError:
    return PromptyoselfError("nothing_left", message, "Leave it where it is.")


def _invalid(message: str) -> PromptyoselfError:
    return PromptyoselfError("invalid_line", message, _MADE_BY_EXPORT)
