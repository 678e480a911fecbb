"""What an agent may give to a command, read from Click's own tree."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import click

from promptyoself.doors.registry import TOOLS

_COMMON = frozenset(
    {"var", "format", "no-pager", "help"}
)  # options of all commands, which agents don't have
_TYPES: dict[str, str] = {
    "integer": "integer",
    "integer range": "integer",
    "float": "number",
    "float range": "number",
    "boolean": "boolean",
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


class Parameter(NamedTuple):
    """One parameter of a command, as hosts and schemas want it."""

    name: str
    """The option's name, without its dashes."""
    type: str
    """Its type in JSON Schema. It is ``array`` where the option may be given several times."""
    description: str
    required: bool
    default: Any
    flag: bool
    """Whether it takes no value on the command line."""
    items: str | None = None
    """The type of an array's values."""
    opposite: str | None = None
    """The option that turns a flag off, so that both values of the flag mean something."""
    choices: tuple[str, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    """The least and the greatest value."""
    unsets: bool = False
    """Whether an empty text unsets something. Elsewhere an empty text counts as none."""
    aliases: tuple[str, ...] = ()
    """Other names that it has."""


def commands_of(group: click.Group, names: Iterable[str]) -> dict[str, click.Command]:
    """Those commands of a group that it has, of these names."""
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in names}
    return {name: command for name, command in commands.items() if command is not None}


def parameters(command: click.Command) -> Iterator[Parameter]:
    """Each option of a command that agents have, by the first of its names."""
    tool = TOOLS.get(command.name or "")
    people_only = _COMMON | tool.people_only if tool else _COMMON
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        if option.hidden or option.name is None or _long_name(option.opts) in people_only:
            continue
        name, kind, flag = _long_name(option.opts), option.type, option.is_flag
        value_type = "boolean" if flag else _TYPES.get(kind.name, "string")
        opposite = _long_name(option.secondary_opts) if option.secondary_opts else None
        yield Parameter(
            name,
            "array" if option.multiple else value_type,
            option.help or "",
            option.required,
            False if flag and opposite is None else _default_of(option),
            flag,
            items=value_type if option.multiple else None,
            opposite=opposite,
            choices=tuple(map(str, kind.choices)) if isinstance(kind, click.Choice) else (),
            bounds=(getattr(kind, "min", None), getattr(kind, "max", None)),
            unsets=tool is not None and name in tool.unset_by_empty,
            aliases=tuple(
                alias[2:] for alias in option.opts if alias[:2] == "--" and alias[2:] != name
            ),
        )


def argument_name(name: str) -> str:
    """An option's name as agents have it: hosts make ``--agent-id`` of ``agent_id``."""
    return name.replace("-", "_")


def parse_boolean(text: str) -> bool | None:
    """The boolean that a text means, as models and hosts write it; else ``None``."""
    return _BOOLEANS.get(text.strip().lower())


def parse_list(text: str) -> list[Any]:
    """The values in a text where there may be several: a list in JSON, or the text itself."""
    if text.lstrip().startswith("["):
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(value, list):
            return value
    return [text]


def _long_name(names: Sequence[str]) -> str:
    """An option's name, without its dashes."""
    return next((name for name in names if name.startswith("--")), names[0]).lstrip("-")


def _default_of(option: click.Option) -> Any:
    default = option.default if not (option.multiple or callable(option.default)) else None
    return default if isinstance(default, str | int | float | bool) else None
