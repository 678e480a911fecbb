"""A schedule as a table of keys and values, and the request that it makes.

The keys are the options of ``register``, with ``_`` or ``-``. TOML and JSON have the types.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime, time
from difflib import get_close_matches
from typing import Any, NamedTuple

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import shown
from promptyoself.events.schedule_fields import FIELDS, RENDERERS
from promptyoself.service.schedules.request import Request


class BadKey(NamedTuple):
    """What is wrong with a table, and the key that it is about, as it is written there."""

    key: str | None  # ``None``: it is about no key in particular
    error: PromptyoselfError


def name_of(field: str) -> str:
    """How the key of a field is written."""
    is_single = field in FIELDS and FIELDS[field].type is not list
    option = FIELDS[field].option if is_single else ""
    return option.removeprefix("--").replace("-", "_") or field


KEYS: dict[str, str] = {name_of(field): field for field in Request._fields}
"""The field of a request that each key sets."""

_SPELLINGS = {
    **{field: field for field in Request._fields},
    **KEYS,
    "tag": "tags",
    **{
        alias.removeprefix("--").replace("-", "_"): name
        for name, field in FIELDS.items()
        for alias in field.aliases
    },
}
_TIMES = ("time", "start_at", "until")


def request_of(table: Mapping[str, Any]) -> tuple[Request, list[BadKey]]:
    """The request that a table makes, and every key of it that is wrong. Values are checked for
    their types alone."""
    asked: dict[str, Any] = {}
    bad: list[BadKey] = []
    for key, value in table.items():
        field = _SPELLINGS.get(key.replace("-", "_"))
        if field is None:
            bad.append(BadKey(key, _unknown(key)))
        elif field in asked:
            message = f"{key} is there twice, in two spellings."
            bad.append(BadKey(key, PromptyoselfError("repeated_key", message, "Remove one.")))
        else:
            try:
                asked[field] = _value_of(key, field, value)
            except PromptyoselfError as error:
                asked[field] = None
                bad.append(BadKey(key, error))
    return Request(**asked), bad


def key_of(error: PromptyoselfError, table: Mapping[str, Any]) -> str | None:
    """The key of a table that an error is about, as far as the error tells."""
    return next(_candidates(error, table), None)


def _candidates(error: PromptyoselfError, table: Mapping[str, Any]) -> Iterator[str]:
    fields = {key: _SPELLINGS.get(key.replace("-", "_"), "") for key in table}
    words = f"{error.message} ".replace("-", "_")
    for key, field in fields.items():
        if error.code == f"invalid_{field}" or f"__{name_of(field)} " in words:
            yield key
    for key, field in fields.items():
        if field in _CODES.get(error.code, ()):
            yield key


_CODES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("empty_prompt", "prompt_too_long", "invalid_template", "unknown_variable"), ("prompt",)
    ),
    **dict.fromkeys(
        ("invalid_time", "past_time", "nonexistent_time", "ambiguous_time"), ("time", "until")
    ),
    "unknown_zone": ("timezone",),
    "interval_too_short": ("every", "cron"),
    "cron_never_fires": ("cron",),
    "never_fires": ("until", "start_at"),
    "start_after_until": ("start_at",),
    "invalid_duration": ("every", "grace", "jitter"),
    "name_taken": ("name",),
}
"""The fields that a code may be about."""


def _value_of(key: str, field: str, value: Any) -> Any:
    """A value as a request has it. Raises ``wrong_type``."""
    form = FIELDS[field].form if field in FIELDS else ""
    type_ = FIELDS[field].type if field in FIELDS else str
    if form == "renderer" and isinstance(value, bool):
        return RENDERERS[0] if value else ""
    if form == "tags":
        value = [value] if isinstance(value, str) else value
        if isinstance(value, list) and all(isinstance(tag, str) for tag in value):
            return value
        raise _wrong_type(key, value, "a list of texts")
    if field in _TIMES and isinstance(value, datetime | date | time):
        return _text_of(value)
    if (form == "duration" or field == "every") and type(value) is int:
        return str(value)
    if type_ is int and form != "duration":
        return _of_type(key, value, int, "a whole number")
    if type_ is bool:
        return _of_type(key, value, bool, "true or false")
    return _of_type(key, value, str, "a text")


def _of_type(key: str, value: Any, type_: Callable[[Any], Any], what: str) -> Any:
    if type(value) is not type_:
        raise _wrong_type(key, value, what)
    return value


def _text_of(value: datetime | date | time) -> str:
    """A date or time of TOML's as a caller writes it."""
    if isinstance(value, time):
        return value.strftime("%H:%M:%S" if value.second else "%H:%M")
    return value.isoformat()


def _wrong_type(key: str, value: Any, what: str) -> PromptyoselfError:
    given = str(value).lower() if isinstance(value, bool) else str(value)
    hint = "Put it in quotes." if what == "a text" else "Write it as in `promptyoself show`."
    return PromptyoselfError("wrong_type", f"{key} is {shown(given)}; it must be {what}.", hint)


def _unknown(key: str) -> PromptyoselfError:
    close = get_close_matches(key.replace("-", "_"), KEYS, 1)
    hint = f"Did you mean {close[0]}?" if close else f"There are {', '.join(sorted(KEYS))}."
    if key.replace("-", "_") == "prompt_file":
        hint = "Write the text itself: prompt = '''…'''."
    return PromptyoselfError("unknown_key", f"There is no key {shown(key)}.", hint)
