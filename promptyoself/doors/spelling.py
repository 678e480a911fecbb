"""Turns arguments as programs and models write them into those that Click takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.parameters import (
    Parameter,
    argument_name,
    parameters,
    parse_boolean,
    parse_list,
)
from promptyoself.doors.registry import AGENT_FACING

_WRITTEN = {"true": True, "false": False, "True": True, "False": False}


class _Use(NamedTuple):
    """An option and its value, or a single word that is neither. ``words`` are what Click takes."""

    words: list[str]
    option: str = ""
    value: str | None = None
    flag: bool = False


def normalise_flags(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--agent_id`` as ``--agent-id``, ``--flag true`` as ``--flag``, and
    ``--flag false`` as the flag's opposite, or left out where it has none."""
    if len(_options(command)) < len(command.params):  # a flag's neighbour may be an argument
        return list(arguments)
    return [word for use in _uses(command, arguments, _WRITTEN.get) for word in use.words]


def from_host(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments that a Sanctum host makes of a call, as Click takes them.

    They may be those that were described to the host, and no others. An empty text counts as not
    given, unless the parameter unsets something.

    Raises:
        WrongUsage: ``unknown_option``; or ``invalid_value``, of a flag.
    """
    offered = list(parameters(command))
    by_option = {f"--{name}": offer for offer in offered for name in (offer.name, *offer.aliases)}
    by_option |= {f"--{offer.opposite}": offer for offer in offered if offer.opposite is not None}
    words: list[str] = []
    before = _Use([])
    for use in _uses(command, arguments, parse_boolean):
        parameter = by_option.get(use.option)
        if parameter is None and use.words[0].startswith("-"):
            raise _unknown(command, use.words[0], [argument_name(offer.name) for offer in offered])
        if parameter is None and before.flag and before.value is None:
            raise WrongUsage(
                "invalid_value",
                f"The parameter {argument_name(before.option[2:])} is {shown(use.words[0])}, "
                "which is neither true nor false.",
                "Give true or false.",
            )
        words += use.words if parameter is None else _given(parameter, use)
        before = use
    return words


def _given(parameter: Parameter, use: _Use) -> list[str]:
    """The words for a parameter, none for an empty text. Several values get a word each, also where
    a model wrote them as a list in JSON, which a host passes on as it is."""
    if use.value == "" and not parameter.unsets:
        return []
    if parameter.items is None or use.value is None:
        return use.words
    values = parse_list(use.value)
    if not all(isinstance(value, str | int | float) for value in values):
        return use.words
    return [word for value in values if value != "" for word in (use.option, str(value))]


def refuse_other_than_agents(name: str) -> None:
    """Refuse a command that agents don't have. Raises ``unknown_command``."""
    if name not in AGENT_FACING:
        raise WrongUsage(
            "unknown_command",
            f"There is no tool {shown(name)}.",
            f"There are: {', '.join(AGENT_FACING)}.",
        )


def _uses(
    command: click.Command, arguments: Sequence[str], truth_of: Callable[[str], bool | None]
) -> Iterator[_Use]:
    """The arguments, an option with its value at a time."""
    options = {
        name: option
        for option in _options(command)
        for name in (*option.opts, *option.secondary_opts)
    }
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            yield from (_Use([word]) for word in arguments[position - 1 :])
            return
        name, has_value, value = word.partition("=")
        if name not in options and name.startswith("--"):
            name = name.replace("_", "-")
        option = options.get(name)
        if option is None:
            yield _Use([word])
        elif option.is_flag:
            following = value if has_value else "".join(arguments[position : position + 1])
            on = truth_of(following)
            position += on is not None and not has_value
            words = [name] if on is None and not has_value else _flag(option, name, on, word)
            yield _Use(words, name, None if on is None else str(on), flag=True)
        elif has_value or position == len(arguments):
            yield _Use([name + has_value + value], name, value if has_value else None)
        else:
            yield _Use([name, arguments[position]], name, arguments[position])
            position += 1


def _flag(option: click.Option, name: str, on: bool | None, word: str) -> list[str]:
    """A flag with a value, as a flag without one: where it is off, its opposite."""
    if on is None:
        return [word]  # Click says that it takes no value
    if on:
        return [name]
    return [] if name in option.secondary_opts else option.secondary_opts[:1]


def _options(command: click.Command) -> list[click.Option]:
    return [option for option in command.params if isinstance(option, click.Option)]


def _unknown(command: click.Command, word: str, names: Sequence[str]) -> WrongUsage:
    name = argument_name(word.partition("=")[0].lstrip("-"))
    hint = f"There are: {', '.join(names)}." if names else "It takes none."
    more = f"See `promptyoself {command.name} --help`."
    return WrongUsage("unknown_option", f"There is no parameter {shown(name)}.", f"{hint} {more}")
