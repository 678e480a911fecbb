"""Moving house, in: the lines of an export become schedules with the same ids, which go on where
they stopped."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, BinaryIO

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.ids import schedule_id
from promptyoself.core.instants import MICROSECOND, format_utc, is_instant, parse_utc
from promptyoself.core.long_work import tell
from promptyoself.core.setting_values import is_destination_name
from promptyoself.core.settings import Settings
from promptyoself.core.texts import BOM, foreign_encoding
from promptyoself.core.times import format_duration, shown, zone_named
from promptyoself.events.records import Record, SchedulePaused, ScheduleRegistered
from promptyoself.events.schedule_fields import CONTENT, DESTINATIONS, FIELDS, POLICY
from promptyoself.events.target_names import target_of
from promptyoself.rules.placement import MAX_SALT
from promptyoself.rules.slots import schedule_trigger
from promptyoself.service.schedules.limits import require_route, require_target
from promptyoself.service.schedules.request import (
    Request,
    check_jitter,
    check_order,
    check_rendering,
    first_fire,
    require_may_choose,
    validate,
)
from promptyoself.service.transfer import admission, export
from promptyoself.service.transfer.answers import BadLine, BadLines, Imported
from promptyoself.state.schedules import State
from promptyoself.store.store import Store

_LONGEST_LINE_BYTES = 16 * 1024 * 1024
"""Two prompts of 1 MiB in which every character is written as six, and the rest of the line."""

_MOST_LISTED = 1000
"""The most bad lines that are listed. Of some other file entirely, the rest are only counted."""

_OLDEST = timedelta(days=366)
"""How far back slots are still accounted for one by one."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)  # nothing in a file is earlier
_MOST_REPETITIONS = 1_000_000_000

_OPTIONS = {"once": "time", "cron": "cron", "interval": "every", "rrule": "rrule"}

_MADE_BY_EXPORT = "Take the line as `promptyoself export` wrote it."


class _BadLines:
    """The lines that can't be imported. All are counted, and the first of them listed."""

    def __init__(self) -> None:
        self.count = 0
        self._listed: list[BadLine] = []

    def add(self, line: int, error: PromptyoselfError) -> None:
        self.count += 1
        if len(self._listed) < _MOST_LISTED:
            self._listed.append(
                {"line": line, "code": error.code, "message": error.message, "hint": error.hint}
            )

    def answer(self) -> BadLines:
        in_order = sorted(self._listed, key=lambda bad: bad["line"])
        return {"bad": in_order, "bad_count": self.count}


def import_lines(
    store: Store, file: BinaryIO, now: datetime, *, partial: bool = False, dry_run: bool = False
) -> Imported:
    """Import what :mod:`promptyoself.service.transfer.export` wrote, with the same ids.

    Every line is checked before any is imported. Where one is bad, nothing is imported; with
    ``partial``, the good ones are. A schedule that is known here is skipped, whatever its status.
    A destination that isn't defined here stays in a schedule, with a warning: the operator can
    define it later, and what was exported is nowhere else.

    Raises:
        PromptyoselfError: ``bad_lines``, listing them in its details as ``bad``;
            ``not_an_export``, ``newer_export``, ``import_too_large``; what
            :func:`~promptyoself.service.transfer.admission.append_admitted` raises.
    """
    arrivals: list[admission.Arrival] = []
    bad = _BadLines()
    for number, line in _read(file):
        tell("lines", number)
        try:
            arrivals.append(_arrival(number, line, store.settings, now))
        except PromptyoselfError as error:
            if error.code == "newer_export":
                raise
            bad.add(number, error)
    tell("lines", None)

    def decide(state: State) -> admission.Admission:
        decided = admission.admit(store, state, arrivals, now)
        for where, error in decided.refused:
            bad.add(where["line"], error)
        good = len(decided.imported) + len(decided.skipped)
        if bad.count and not (partial and good):
            raise _bad_lines(bad, good)
        return decided

    if not arrivals and not bad.count:
        decided = admission.Admission([], [], [], [])
    elif dry_run or not arrivals or (bad.count and not partial):
        decided = decide(store.read().state)
    else:
        decided = admission.append_admitted(store, now, decide)
    answer = admission.answer_of(decided, decided.skipped, bad.answer(), dry_run=dry_run)
    if (warning := _warning(decided, store.settings)) is not None:
        answer["warning"] = warning
    return answer


def _bad_lines(bad: _BadLines, good: int) -> PromptyoselfError:
    answer = bad.answer()
    first = answer["bad"][0]
    others = "no other line is good" if not good else f"{good} are good"
    return PromptyoselfError(
        "bad_lines",
        f"{bad.count} {'line' if bad.count == 1 else 'lines'} can't be imported, {others}. "
        f"Line {first['line']}: {first['message']}",
        "Nothing was imported. Mend or remove the lines listed as `bad`; or give --partial, which "
        "takes the others.",
        **answer,
    )


def _read(file: BinaryIO) -> Iterator[tuple[int, bytes | None]]:
    """The lines that aren't blank, with their numbers; ``None`` for one that is too long, of which
    no more than the allowed length is held in memory."""
    total = number = 0
    while piece := file.readline(_LONGEST_LINE_BYTES + 1):
        number += 1
        line = piece if len(piece) <= _LONGEST_LINE_BYTES else None
        if number == 1:
            _require_lines(piece)
            line = line and line.removeprefix(BOM.encode())
        total += len(piece)
        while not piece.endswith(b"\n") and len(piece) > _LONGEST_LINE_BYTES:
            if not (piece := file.readline(_LONGEST_LINE_BYTES + 1)):
                break
            total += len(piece)
            if total > admission.MAX_BYTES:
                break
        if total > admission.MAX_BYTES:
            raise admission.too_much("The file")
        if line is None or line.strip():
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


def _arrival(
    number: int, line: bytes | None, settings: Settings, now: datetime
) -> admission.Arrival:
    """The schedule that a line describes, checked as a registration is."""
    if line is None:
        raise PromptyoselfError(
            "line_too_long",
            f"The line has more than {_LONGEST_LINE_BYTES // 1024**2} MiB.",
            _MADE_BY_EXPORT,
        )
    fields = _parsed(line)
    current = _typed(
        fields["schedule"], {**export.CONTENT_TYPES, **export.POLICY_TYPES}, "schedule"
    )
    content = {name: current[name] for name in CONTENT}
    original = content
    if fields["registered"] is not None:
        original = _typed(fields["registered"], export.CONTENT_TYPES, "registered")
        _require_as_exported(original, _unlimited(settings))
    _require_as_exported(current, settings)
    zone_named(current["timezone"])
    next_run = fields["next_run"]
    registered = ScheduleRegistered(
        **current,
        # Where none is left, the pause that follows says so.
        next_run=next_run or current["anchor"],
        salt=fields["salt"],
        repetition_count=fields["repetition_count"],
        last_slot=fields["last_slot"],
        without=fields["without"],
        first_content=export.without_none(original) if original != content else None,
    )
    check_jitter(registered)
    check_rendering(registered)
    target = target_of(registered.agent_id, registered.target)
    require_target(settings, target)
    require_route(target, registered.conversation_id)
    _require_id(fields, original)
    _require_position(fields, registered, now)
    further: list[Record] = []
    if fields["status"] == "paused":
        further.append(SchedulePaused(next_run, current["reason"], resume_at=fields["resume_at"]))
    return admission.Arrival({"line": number}, registered, further, str(fields["id"]))


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise _invalid(f"It isn't JSON: {error}.") from None
    version: Any = fields.get("export") if isinstance(fields, dict) else None
    if type(version) is not int or version < 1:
        raise _invalid("It has no schedule in it.")
    if version > export.EXPORT:
        raise PromptyoselfError(
            "newer_export",
            f"A newer promptyoself wrote this: its version is {version}, and {export.EXPORT} is "
            "known here.",
            "Nothing was imported. Upgrade promptyoself.",
        )
    return _typed(fields, export.LINE_TYPES, "line")


def _typed(given: Mapping[str, Any], types: export.FieldTypes, what: str) -> dict[str, Any]:
    """The fields of a line or of a part of it, checked for their types; ``None`` where left out.
    ``what`` names the part in an error."""
    if unknown := sorted(set(given) - set(types)):
        raise _invalid(f"Its {what} has a field {shown(unknown[0])}, which isn't known.")
    for name, (type_, optional) in types.items():
        value = given.get(name)
        if not (type(value) is type_ or (optional and value is None)):
            raise _invalid(f"The field {name!r} of its {what} is missing, or of the wrong type.")
    return {name: given.get(name) for name in types}


def _require_as_exported(fields: Mapping[str, Any], settings: Settings) -> None:
    """Check what a registration checks, but for the zone, and that each value is as in the log."""
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
    request, zone = Request(**{**asked, "timezone": None, "reply_to": None}), fields["timezone"]
    # Which destinations there are is another matter on each machine, and may change.
    settings = settings._replace(destinations={})
    read = validate(request, settings, _BEGINNING, own_zone=zone, keep_intervals=True)
    for name in DESTINATIONS:
        read[name] = to = fields.get(name)
        if to is None:
            continue
        require_may_choose(settings, name)
        if not is_destination_name(to):
            raise _invalid(f"Its {name} {shown(to)} can't be the name of a destination.")
    for name, value in fields.items():
        if name != "anchor" and read.get(name) != value:
            raise _invalid(f"Its {name} isn't spelled as in the log: {shown(str(value))}.")


def _warning(decided: admission.Admission, settings: Settings) -> str | None:
    """What to tell of imported schedules whose notices go nowhere, as things stand here."""
    new = [draft.record for drafts, _ in decided.groups for draft in drafts]
    registered = [record for record in new if isinstance(record, ScheduleRegistered)]
    named = {getattr(record, name) for record in registered for name in DESTINATIONS} - {None}
    warnings = []
    if unknown := sorted(named - settings.destinations.keys()):
        names = ", ".join(unknown)
        is_are = "destination is" if len(unknown) == 1 else "destinations are"
        warnings.append(
            f"The {is_are} not defined here: {names}. Until `promptyoself notify add NAME` defines "
            "what is missing, nothing can be sent there."
        )
    if any(record.reply_to is not None for record in registered):
        from promptyoself.service.schedules.replies.retention import without_text

        if textless := sum(without_text(record, settings) for record in registered):
            schedules = "1 schedule" if textless == 1 else f"{textless} schedules"
            warnings.append(
                f"No text is kept here of the answers that {schedules} would send on: see "
                "PROMPTYOSELF_KEEP_REPLY."
            )
    return " ".join(warnings) or None


def _unlimited(settings: Settings) -> Settings:
    """The settings for content that isn't in force any more, which no limit of this machine
    concerns."""
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


def _require_position(
    fields: Mapping[str, Any], registered: ScheduleRegistered, now: datetime
) -> None:
    """Check what the schedule has done and what comes next."""
    next_run, last_slot = fields["next_run"], fields["last_slot"]
    for name, text in (
        ("anchor", registered.anchor),
        ("next_run", next_run),
        ("last_slot", last_slot),
        ("resume_at", fields["resume_at"]),
    ):
        if text is not None and not is_instant(text):
            raise _invalid(f"Its {name} {shown(text)} isn't an instant as in the log.")
    for span in fields["without"] or ():
        if not (
            type(span) is list
            and len(span) == 2
            and all(type(end) is str and is_instant(end) for end in span)
            and span[0] <= span[1]
        ):
            raise _invalid("A range in its 'without' isn't two instants as in the log.")
    if fields["status"] not in ("active", "paused"):
        raise _invalid(f"Its status {shown(fields['status'])} is neither active nor paused.")
    if next_run is None and fields["status"] == "active":
        raise _nothing_left("It has no slot left to fire.")
    count, most = fields["repetition_count"], registered.max_repetitions
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
            "Register it again.",
            time=next_run,
            now=format_utc(now),
        )
    check_order(registered)
    first_fire(schedule_trigger(registered._replace(without=None)), first - MICROSECOND)


def _nothing_left(message: str) -> PromptyoselfError:
    return PromptyoselfError("nothing_left", message, "Leave it where it is.")


def _invalid(message: str) -> PromptyoselfError:
    return PromptyoselfError("invalid_line", message, _MADE_BY_EXPORT)
