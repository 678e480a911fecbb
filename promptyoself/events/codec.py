"""From a record to the type, the version and the ``data`` of an event in the log, and back."""

from collections.abc import Collection, Mapping
from functools import cache
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from promptyoself.core.instants import is_instant
from promptyoself.events.records import CLASSES, Record, ScheduleModified, ScheduleRegistered
from promptyoself.events.schedule_fields import Instant
from promptyoself.events.versions import VERSIONS, version_of

# Of each class the name of its type, its fields, and those that may be left out.
_LAYOUTS = {
    cls: (
        type_,
        cls._fields,
        tuple(field for field, default in cls._field_defaults.items() if default is None),
    )
    for type_, cls in CLASSES.items()
}


def is_known(type_: str, version: int) -> bool:
    """Whether this software can read an event of that type and version."""
    return 1 <= version <= VERSIONS.get(type_, 0)


def type_of(record: Record) -> str:
    """The name that the log has for the type of a record."""
    return _LAYOUTS[type(record)][0]


def write_event(record: Record) -> tuple[int, str, dict[str, Any]]:
    """The version, the type and the ``data`` of an event, without the fields that are ``None``."""
    type_, fields, optional = _LAYOUTS[type(record)]
    # Removing the absent fields is faster than choosing the others, and makes a smaller dict. And
    # `strict=True` would cost a tenth of the event.
    data: dict[str, Any] = dict(zip(fields, record))  # noqa: B905
    for name in optional:
        if data[name] is None:
            del data[name]
    return version_of(type_, data), type_, data


def read_record(type_: str, version: int, data: Mapping[str, Any]) -> Record:
    """The record that an event holds, brought up to the newest version of its type.

    Raises:
        KeyError: the type isn't known (ask :func:`is_known` first).
        TypeError: ``data`` lacks a field of its version, or has one too many, or of another type,
            or is of a lower version than it needs.
        ValueError: an instant isn't one.
    """
    record: Record = CLASSES[type_](**data)
    if version < version_of(type_, data):
        raise TypeError("it says what its version can't")
    _check_values(type(record), data)
    if isinstance(record, ScheduleModified):
        # A registration always has a next slot, but a modification may leave none.
        changes = record.changes.items()
        new = {name: value for name, value in changes if (name, value) != ("next_run", None)}
        _check_values(ScheduleRegistered, new)
    return record


def _check_values(cls: Any, values: Mapping[str, Any]) -> None:
    fields = _fields_of(cls)
    for name, value in values.items():
        classes, has_instants = fields.get(name, ((), False))
        if type(value) not in classes:
            raise TypeError(f"{name} is a {type(value).__name__}")
        if has_instants and value is not None and not is_instant(value):
            raise ValueError(f"{name} isn't an instant")


@cache
def _fields_of(cls: Any) -> dict[str, tuple[Collection[Any], bool]]:
    """The classes that the values of each field may have, and whether these are instants."""
    return {
        name: (_classes_of(annotation), annotation == Instant or Instant in get_args(annotation))
        for name, annotation in cls.__annotations__.items()
    }


def _classes_of(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return set().union(*map(_classes_of, get_args(annotation)))
    if origin is Annotated:
        return {get_args(annotation)[0]}
    if origin is Literal:
        return {str}  # a later version may write a word that this one doesn't know
    # What a list or a dict holds is checked by those who use it.
    return {origin or annotation}
