"""The words of a call, made into those that Click takes.

Programs and models write ``--agent_id`` and ``--flag true``. A Sanctum host passes on what a model
wrote. Where an option is given twice, Click would take the last one and say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.options import HELP, ScheduleArgument
from promptyoself.doors.registry import AGENT_FACING

if TYPE_CHECKING:
    from promptyoself.doors.agent_parameters import Parameter

_WRITTEN = {"true": True, "false": False, "True": True, "False": False}


class _Use(NamedTuple):
    """An option and its value, or words that are neither."""

    words: list[str]
    """What Click takes."""
    name: str = ""
    option: click.Option | None = None
    value: str | None = None


def normalise_flags(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments with ``--agent_id`` as ``--agent-id``, ``--flag true`` as ``--flag``, and
    ``--flag false`` as the flag's opposite, or left out where it has none."""
    # A flag's neighbour may be the argument that the command takes.
    takes_argument = any(
        isinstance(param, click.Argument) and not isinstance(param, ScheduleArgument)
        for param in command.params
    )
    truth_of = _nothing if takes_argument else _WRITTEN.get
    return [word for use in _uses(command, arguments, truth_of) for word in use.words]


def refuse_repeats(command: click.Command, arguments: Sequence[str]) -> None:
    """Refuse an option that is given twice but may be given once. The two names of a flag are the
    same option.

    Raises:
        WrongUsage: ``repeated_option``.
    """
    given: dict[click.Option, str] = {}
    repeated: tuple[str, str] | None = None
    for use in _uses(command, arguments, _nothing):
        if use.words[0] in HELP:
            return
        if use.option is not None and not use.option.multiple:
            if use.option in given:
                repeated = repeated or (given[use.option], use.name)
            given[use.option] = use.name
    if repeated is None:
        return
    first, second = repeated
    what = f"{first} was" if first == second else f"{first} and {second} were both"
    hint = "Give it once" if first == second else "Give one of them"
    if first == "--id":
        hint += f", and call `{command.name}` again for each other id"
    raise WrongUsage(
        "repeated_option",
        f"{what} given{' more than once' if first == second else ''}; nothing was done.",
        f"{hint}.",
    )


def from_host(command: click.Command, arguments: Sequence[str]) -> list[str]:
    """The arguments that a Sanctum host makes of a call, as Click takes them.

    They may be those that were described to the host, and no others. An empty text counts as not
    given, unless the parameter unsets something.

    Raises:
        WrongUsage: ``unknown_option``; or ``invalid_value``, of a flag.
    """
    from promptyoself.doors.agent_parameters import argument_name, parameters, parse_boolean

    offered = list(parameters(command))
    by_option = {f"--{name}": offer for offer in offered for name in (offer.name, *offer.aliases)}
    by_option |= {f"--{offer.opposite}": offer for offer in offered if offer.opposite is not None}
    words: list[str] = []
    stray: list[str] = []
    before = _Use([])
    for use in _uses(command, arguments, parse_boolean):
        parameter = by_option.get(use.name)
        if parameter is not None:
            words += _given(parameter, use)
        elif use.words[0].startswith("-"):
            name = argument_name(use.words[0].partition("=")[0].lstrip("-"))
            names = ", ".join(argument_name(offer.name) for offer in offered)
            hint = f"There are: {names}." if names else "It takes none."
            raise WrongUsage(
                "unknown_option",
                f"There is no parameter {shown(name)}.",
                f"{hint} See `promptyoself {command.name} --help`.",
            )
        elif before.option is not None and before.option.is_flag and before.value is None:
            raise WrongUsage(
                "invalid_value",
                f"The parameter {argument_name(before.name[2:])} is {shown(use.words[0])}, "
                "which is neither true nor false.",
                "Give true or false.",
            )
        else:
            stray += use.words
        before = use
    if plain := [word for word in stray if word != "--"]:
        s = "" if len(plain) == 1 else "s"  # as Click says it, where a command takes none
        raise click.UsageError(f"Got unexpected extra argument{s} ({' '.join(plain)})")
    return words


def refuse_closed(name: str) -> None:
    """Refuse a command that is closed to agents. Raises ``unknown_command``."""
    if name not in AGENT_FACING:
        raise WrongUsage(
            "unknown_command",
            f"There is no tool {shown(name)}.",
            f"There are: {', '.join(AGENT_FACING)}.",
        )


def _given(parameter: Parameter, use: _Use) -> list[str]:
    """The words for a parameter, none for an empty text. Several values get a word each, also where
    a model wrote them as a list in JSON, which a host passes on as it is."""
    from promptyoself.doors.agent_parameters import parse_list

    if use.value == "" and not parameter.unsets:
        return []
    if parameter.items is None or use.value is None:
        return use.words
    values = parse_list(use.value)
    if not all(isinstance(value, str | int | float) for value in values):
        return use.words
    return [word for value in values if value != "" for word in (use.name, str(value))]


def _nothing(_: str) -> None:
    """No word after a flag is its value."""


def _uses(
    command: click.Command, arguments: Sequence[str], truth_of: Callable[[str], bool | None]
) -> Iterator[_Use]:
    """The arguments, an option with its value at a time. ``truth_of`` reads the value of a flag."""
    options = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if word == "--":
            yield _Use(list(arguments[position - 1 :]))
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
            yield _Use(words, name, option, None if on is None else str(on))
        elif has_value or position == len(arguments):
            yield _Use([name + has_value + value], name, option, value if has_value else None)
        else:
            yield _Use([name, arguments[position]], name, option, arguments[position])
            position += 1


def _flag(option: click.Option, name: str, on: bool | None, word: str) -> list[str]:
    """A flag with a value, as a flag without one: where it is off, its opposite."""
    if on is None:
        return [word]  # Click says that it takes no value
    if on:
        return [name]
    return [] if name in option.secondary_opts else option.secondary_opts[:1]
