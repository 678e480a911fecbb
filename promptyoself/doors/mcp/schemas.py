"""JSON Schemas of what a tool takes and answers.

The modules named ``answers`` below ``promptyoself.service`` have the types of the answers, and the
registry of commands says which command answers what. ``docs/reference/json.md`` tells the same to
people. A test checks what the commands really answer against these schemas.
"""

import typing
from importlib import import_module
from keyword import iskeyword
from types import NoneType, UnionType
from typing import Any

from promptyoself.doors.agent_parameters import Parameter
from promptyoself.doors.registry import TOOLS

Schema = dict[str, Any]

_NO_LIMIT = 10**9  # what a number can't sensibly reach needs no word in a schema
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
_ERROR: dict[str, Schema] = {
    "code": {"type": "string", "description": "Of an error: its stable code."},
    "message": {
        "type": "string",
        "description": "What happened; of an error: what was wrong with which value.",
    },
    "hint": {"type": "string", "description": "What to do next; may be empty."},
    "error": {"type": "string", "description": "Of an error: the message again."},
}


def argument_schema(parameter: Parameter, description: str) -> Schema:
    """The schema of what may be given for a parameter."""
    schema: Schema = {"type": parameter.type, "description": description}
    value = schema
    if parameter.items is not None:
        value = schema["items"] = {"type": parameter.items}
    if parameter.choices:
        value["enum"] = list(parameter.choices)
    lowest, highest = parameter.bounds
    if lowest is not None:
        value["minimum"] = lowest
    if highest is not None and highest < _NO_LIMIT:
        value["maximum"] = highest
    if parameter.default is not None and parameter.default is not False:
        schema["default"] = parameter.default
    return schema


def output_schema(command: str) -> Schema | None:
    """The schema of all that a command may answer, or ``None`` where the registry names no type.

    All errors have one form. The schema has it, since some clients check errors too.
    """
    subject, _, name = TOOLS[command].answer.partition(":")
    if not name:
        return None
    answer = getattr(import_module(f"promptyoself.service.{subject}.answers"), name)
    keys = {
        key: schema_of(value)
        for key, value in typing.get_type_hints(answer, include_extras=True).items()
        # Some clients make a class of the schema, so it has no key such as ``from``, which can't be
        # a name in Python. Another key says the same.
        if not iskeyword(key)
    }
    return {
        "type": "object",
        "properties": {
            **_ERROR,
            "warning": {"type": "string"},
            **keys,
            "status": {"enum": ["success", "error"]},
        },
        "required": ["status"],
        "if": {"properties": {"status": {"const": "success"}}},
        "then": {"required": [key for key in keys if key in answer.__required_keys__]},
        "else": {"required": list(_ERROR)},
    }


def schema_of(annotation: Any) -> Schema:
    """The schema of a value of a type.

    Of an object within an answer it has the keys that are always there, since a model reads the
    whole of it; such an object may have more keys.

    Raises:
        TypeError: there is no schema of that type.
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in _TYPES:
        return {"type": _TYPES[annotation]}
    if origin is typing.NotRequired:
        return schema_of(arguments[0])
    if origin is typing.Annotated:
        return {**schema_of(arguments[0]), "description": arguments[1]}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        values = {} if arguments[1] is Any else {"additionalProperties": schema_of(arguments[1])}
        return {"type": "object", **values}
    if origin in (typing.Union, UnionType) and arguments[1:] == (NoneType,):
        schema = schema_of(arguments[0])
        return {**schema, "type": [schema["type"], "null"]}
    if typing.is_typeddict(annotation):
        hints = typing.get_type_hints(annotation, include_extras=True)
        keys = [key for key in hints if key in annotation.__required_keys__]
        properties = {key: schema_of(hints[key]) for key in keys}
        return {"type": "object", "properties": properties, "required": keys}
    raise TypeError(f"There is no schema of {annotation!r}.")
