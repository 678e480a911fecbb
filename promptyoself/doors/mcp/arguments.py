"""A tool's arguments as models write them, made into those of its command.

Models send ``"5"`` for 5, ``"true"`` for true, ``""`` or null for what they leave out, and a single
value for a list. All of that has one meaning, so it is taken; what could mean something else isn't.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from math import isfinite
from typing import Any

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.agent_parameters import Parameter, argument_name, parse_boolean, parse_list

_NUMBER = re.compile(r"[+-]?[0-9]{1,300}(\.[0-9]{0,300})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def to_argv(
    parameters: Mapping[str, Parameter], required: Collection[str], given: Mapping[str, Any]
) -> list[str]:
    """The arguments as the command wants them. What is null wasn't given, nor was an empty text,
    unless it unsets something.

    Raises:
        WrongUsage: ``unknown_option``, ``missing_option`` or ``invalid_value``.
    """
    words: list[str] = []
    given_as: dict[str, str] = {}
    names = {argument_name(alias): key for key, one in parameters.items() for alias in one.aliases}
    for called, value in given.items():
        name = names.get(called, called)
        parameter = parameters.get(name)
        if parameter is None:
            raise unknown(name, parameters)
        for item in _items(parameter, value):
            if item is None or (item == "" and not parameter.unsets):
                continue
            if given_as.setdefault(name, called) != called:
                raise WrongUsage(
                    "repeated_option",
                    f"{given_as[name]} and {called} were both given; nothing was done.",
                    "Give one of them.",
                )
            words += _word(parameter, _read(name, item, parameter.items or parameter.type))
    for name in required:
        if name not in given_as:
            raise missing(name)
    return words


def unknown(name: str, names: Collection[str]) -> WrongUsage:
    """The refusal of an argument that there isn't."""
    hint = f"There are: {', '.join(names)}." if names else "It takes none."
    return WrongUsage("unknown_option", f"There is no argument {shown(name)}.", hint)


def missing(name: str) -> WrongUsage:
    """The refusal of a call that lacks an argument."""
    return WrongUsage("missing_option", f"The argument {name} is missing.", f"Give {name}.")


def _items(parameter: Parameter, value: Any) -> Iterator[Any]:
    """The given values: each of a list's, also where the list was written as JSON."""
    if parameter.items is None:
        yield value
        return
    if isinstance(value, str):
        value = parse_list(value)
    if isinstance(value, dict) and set(value) == {"item"}:  # as some clients make it of XML
        value = value["item"]
    yield from value if isinstance(value, list) else [value]


def _word(parameter: Parameter, value: Any) -> list[str]:
    if not parameter.flag:
        return [f"--{parameter.name}={_to_text(value)}"]
    name = parameter.name if value else parameter.opposite
    return [] if name is None else [f"--{name}"]


def _read(name: str, value: Any, kind: str) -> Any:
    """The value as one of that kind, converted if it was written as a text."""
    converted = _converted(value, kind) if isinstance(value, str) and kind != "string" else value
    if kind == "boolean":
        right = isinstance(converted, bool)
    elif kind == "string":
        right = isinstance(converted, str)
    else:
        right = isinstance(converted, int | float) and not isinstance(converted, bool)
    if isinstance(converted, float):
        right = right and isfinite(converted) and (kind == "number" or converted.is_integer())
    if not right:
        article = "an" if kind[0] in "aeiou" else "a"
        raise WrongUsage(
            "invalid_value",
            f"The argument {name} is {shown(_to_text(value))}, which is not {article} {kind}.",
            f"Give {article} {kind}.",
        )
    return converted


def _converted(text: str, kind: str) -> bool | int | float | str:
    text = text.strip()
    if kind == "boolean":
        truth = parse_boolean(text)
        return text if truth is None else truth
    if not _NUMBER.fullmatch(text):
        return text
    try:
        return int(text)
    except ValueError:
        return float(text)


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)
