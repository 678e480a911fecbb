"""One schedule as a text to edit, and the change that an edited text asks for."""

import re
from datetime import datetime
from itertools import dropwhile
from textwrap import wrap
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.instants import parse_utc
from promptyoself.core.times import format_duration, local_time
from promptyoself.events.draft import Draft
from promptyoself.events.schedule_fields import FIELDS, Field
from promptyoself.service.files.registrations import lines_of_keys, parsed_toml
from promptyoself.service.files.tables import key_of, name_of, request_of
from promptyoself.service.schedules.change import modify
from promptyoself.service.schedules.request import Request
from promptyoself.service.schedules.times.asked import TIMES
from promptyoself.state.schedules import Schedule, State, spec_hash
from promptyoself.store.access import find_schedule
from promptyoself.store.composition import Composition
from promptyoself.store.store import Store

if TYPE_CHECKING:
    from promptyoself.service.schedules.answers import Modified

_TRIGGERS = {"once": "time", "cron": "cron", "interval": "every", "rrule": "rrule"}
_FIRST = ("name", "prompt", "template", "render")
_TRIGGER = "schedule_value"
_ORDER = (
    *_FIRST,
    _TRIGGER,
    *(
        name
        for name in FIELDS
        if name not in (*_FIRST, _TRIGGER, "schedule_type") and FIELDS[name].help
    ),
)
_COMPLAINT = "#! "


class Original(NamedTuple):
    """A schedule that somebody edits, as it was before."""

    id: str
    text: str
    content_sha256: str  # the hash of its content


def original_of(store: Store, id_: str) -> Original:
    """What somebody is to edit.

    Raises:
        PromptyoselfError: ``unknown_id``, ``forbidden_agent``.
    """
    schedule = find_schedule(store.read().state, id_)
    return Original(id_, text_of_schedule(schedule), spec_hash(schedule))


def text_of_schedule(schedule: Schedule) -> str:
    """A schedule in TOML, with comments that say what each key takes."""
    lines = [
        f"# {schedule.id}, which is {schedule.status}. What you change here is changed in it.",
        "# A key that is taken out is unset. Lines that begin with # say nothing.",
    ]
    for name in _ORDER:
        field = FIELDS[name]
        if name == "template" and schedule.template is None:
            continue
        if name in ("prompt", "render") and schedule.template is not None:
            continue
        value = _value_of(schedule, name)
        key = _TRIGGERS[schedule.schedule_type] if name == _TRIGGER else name_of(name)
        help_ = _HELP[schedule.schedule_type] if name == _TRIGGER else _help_of(field)
        lines += ["", *(f"# {part}" for part in wrap(help_, 96))]
        if value is None:
            lines.append(f"# {key} = {_example(field)}")
        else:
            lines.append(f"{key} = {_written(value)}")
    return "\n".join(lines) + "\n"


_INSTEAD = "Instead there may be one of time, cron, every, rrule, or when = 'every weekday at 9'."
_HELP = {
    "once": f"When: once at this time. {_INSTEAD}",
    "cron": f"When: a cron expression. {_INSTEAD}",
    "interval": f"When: an interval, such as 90s, 2h30m or 1d. {_INSTEAD}",
    "rrule": f"When: a recurrence rule of RFC 5545. {_INSTEAD}",
}


def with_complaint(text: str, error: PromptyoselfError) -> str:
    """An edited text, with what is wrong with it on top. A line that this names is counted with
    what is on top."""
    rest, said = without_complaint(text), f"{error.message} {error.hint}"
    moved_by = len(_complaint(said)) - (text.count("\n") - rest.count("\n"))
    said = re.sub(_LINE_NUMBER, lambda match: str(int(match[0]) + moved_by), said)
    return "\n".join([*_complaint(said), rest])


_LINE_NUMBER = r"(?<=^Line )\d+|(?<=\(at line )\d+"


def _complaint(said: str) -> list[str]:
    return [f"{_COMPLAINT}{part}" for line in said.split("\n") for part in wrap(line, 96)]


def without_complaint(text: str) -> str:
    """An edited text without what was said of it. Below, such a line is a part of a prompt."""
    lines = text.splitlines(keepends=True)
    return "".join(dropwhile(lambda line: line.startswith(_COMPLAINT.strip()), lines))


def with_place(error: PromptyoselfError, text: str) -> PromptyoselfError:
    """An error of an edited text, with the line and the key that it is about, as far as they are
    known."""
    try:
        table = parsed_toml(text)
    except PromptyoselfError:  # whose message has the line
        return error
    wrong = (bad.key for bad in request_of(table)[1] if bad.error.message == error.message)
    key = next(wrong, None) or key_of(error, table)
    line = lines_of_keys(text).get(key or "")
    if line is None:
        return error
    message = f"Line {line}, {key}: {error.message}"
    return PromptyoselfError(error.code, message, error.hint, **error.details)


def asked_by(before: str, after: str) -> Request:
    """The change that turns one text of a schedule into the other.

    Raises:
        PromptyoselfError: ``invalid_toml``, ``unknown_key``, ``wrong_type``, ``repeated_key``,
            ``cannot_be_unset``.
    """
    old, _ = request_of(parsed_toml(before))
    table = parsed_toml(after)
    new, bad = request_of(table)
    if bad:
        raise bad[0].error
    asked = {
        name: value
        for name, value in new._asdict().items()
        if value is not None and value != getattr(old, name)
    }
    gone = [
        name
        for name, value in old._asdict().items()
        if value is not None and getattr(new, name) is None
    ]
    has_times = any(getattr(new, name) is not None for name in TIMES)
    for name in gone:
        if name in TIMES and has_times:
            continue
        if name == "prompt" and new.template is not None:
            continue
        if name == "template" and new.prompt is not None:
            continue
        asked[name] = _unset(name)
    return Request(**asked)


def apply_edit(
    store: Store, original: Original, request: Request, now: datetime, *, dry_run: bool = False
) -> "Modified":
    """Change a schedule that is still what somebody has edited.

    Raises:
        PromptyoselfError: ``changed_meanwhile``; what :func:`modify` raises. Nothing was changed.
    """

    def decide(state: State) -> tuple[list[Draft], "Modified"]:
        id_ = original.id
        if spec_hash(find_schedule(state, id_)) != original.content_sha256:
            raise PromptyoselfError(
                "changed_meanwhile",
                f"{id_} was changed by somebody else meanwhile. Nothing was changed.",
                f"`promptyoself show --id {id_}` shows it; `promptyoself edit` begins again.",
            )
        composition = Composition(store, state)
        answer = modify(composition.store, id_, request, now)
        return composition.drafts, answer

    if dry_run:
        return decide(store.read().state)[1]
    answer: Modified = store.transact(now, decide)
    return answer


def _value_of(schedule: Schedule, name: str) -> Any:
    """A field as a person writes it; ``None`` where it isn't set."""
    value = getattr(schedule, name)
    if name == "on_failure":  # either of them; the key takes both
        value = value or schedule.failure_to
    field = FIELDS[name]
    if value is None or value == field.unset:
        return None
    if field.form == "duration":
        return format_duration(value)
    if field.form == "renderer":
        return True
    is_instant = name in ("start_at", "until") or schedule.schedule_type == "once"
    if is_instant and name in ("start_at", "until", _TRIGGER):
        return local_time(parse_utc(value), schedule.timezone) or value
    return value


def _help_of(field: Field) -> str:
    """What a field is, and the words that it may be."""
    words = ", ".join(map(str, field.values)) if field.type is str else ""
    return f"{field.help} One of {words}." if words else field.help


def _written(value: Any) -> str:
    """A value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_written, value))}]"
    if "\n" in value and _stands_as_it_is(value):
        return f"'''\n{value}'''"
    quoted = orjson.dumps(value).decode()
    return re.sub("[\x7f-\x9f]", lambda match: f"\\u{ord(match[0]):04x}", quoted)


def _stands_as_it_is(text: str) -> bool:
    """Whether a text of several lines may stand between three quotes."""
    return (
        "'''" not in text and text[-1] != "'" and not re.search("[^\n\t -~\xa0-\U0010ffff]", text)
    )


def _example(field: Field) -> str:
    if field.type is list:
        return '["…"]'
    if field.type is bool or field.form == "renderer":
        return "true"
    return "1" if field.type is int and field.form != "duration" else '"…"'


def _unset(name: str) -> Any:
    """What asks that a field be unset. Raises ``cannot_be_unset``."""
    field = FIELDS.get(name)
    if field is not None and field.type is bool:
        return False
    if field is not None and field.form == "tags":
        return [""]
    can_be_unset = field is not None and (field.can_be_unset or name in _UNSET_BY_EMPTY)
    if not can_be_unset:
        raise PromptyoselfError(
            "cannot_be_unset",
            f"{name_of(name)} was taken out, but a schedule always has it, or keeps it once it is "
            "set.",
            "Put it back, and give it another value.",
        )
    return ""


_UNSET_BY_EMPTY = frozenset({"name", "conversation_id", "start_at", "until", "render"})
