"""The manual page promptyoself(1), made of the commands' own help. `make docs` writes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import click

from promptyoself import __version__
from promptyoself.core.setting_values import SETTINGS
from promptyoself.doors.registry import GROUPS

NAME = "promptyoself"


def manual_page(cli: click.Group, common: frozenset[str]) -> str:
    """The text of promptyoself.1, in roff. ``common`` are the options that every command has."""
    return "\n".join([*_head(), *_summaries(cli), *_commands(cli, common), *_rest()]) + "\n"


def _head() -> Iterator[str]:
    yield r".\" Made by `make docs` from the commands themselves; a test keeps it up to date."
    yield f'.TH PROMPTYOSELF 1 "" "{NAME} {__version__}" "User Commands"'
    yield from (".nh", ".ad l", ".SH NAME")
    yield rf"{NAME} \- prompts that Letta agents get later, and a log that proves it"
    yield ".SH SYNOPSIS"
    yield rf".B {NAME}"
    yield r".I command"
    yield r"[\fIoption\fR]..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(
        "promptyoself gives Letta agents a clock of their own. Agents and people register prompts: "
        "once, on a cron expression, at an interval, or in words. Each prompt is delivered to its "
        "agent as a message when it is due. Everything that was asked, sent and not sent is in an "
        "append-only, hash-linked log.\n\n"
        "Begin with `promptyoself init`. At a terminal, answers are in a form for people. "
        "Elsewhere each command prints one JSON document."
    )


def _summaries(cli: click.Group) -> Iterator[str]:
    yield ".SH COMMANDS"
    context = click.Context(cli)
    for title, names in GROUPS.items():
        yield f".SS {_text(title)}"
        for name in names:
            command = cli.get_command(context, name)
            assert command is not None
            summary = command.get_short_help_str(1000)
            yield from _item(rf"\fB{_text(name)}\fR", summary, width=" 16")


def _commands(cli: click.Group, common: frozenset[str]) -> Iterator[str]:
    context = click.Context(cli)
    listing = cli.get_command(context, "list")
    assert listing is not None
    yield ".SH OPTIONS OF EVERY COMMAND"
    yield from _options(listing, lambda names: bool(names & common))
    yield ".SH EACH COMMAND"
    for name in (name for names in GROUPS.values() for name in names):
        command = cli.get_command(context, name)
        assert command is not None
        yield from _command(name, command, common)
        if isinstance(command, click.Group):
            for word, inner in command.commands.items():
                yield from _command(f"{name} {word}", inner, common)


def _command(words: str, command: click.Command, common: frozenset[str]) -> Iterator[str]:
    context = click.Context(command)
    arguments = [
        parameter.make_metavar(context)
        for parameter in command.params
        if isinstance(parameter, click.Argument)
    ]
    yield f".SS {_text(' '.join([NAME, words, *arguments]))}"
    yield from _paragraphs(command.help or "")
    yield from _options(command, lambda names: not names & common)


def _options(command: click.Command, wanted: Callable[[set[str]], bool]) -> Iterator[str]:
    context = click.Context(command, show_default=True)
    for option in command.get_params(context):
        if isinstance(option, click.Option) and wanted({*option.opts}):
            record = option.get_help_record(context)
            if record is not None:
                yield from _item(rf"\fB{_text(record[0])}\fR", record[1])


def _rest() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    yield from _paragraphs(
        "Each setting comes from the environment, or else from the file of settings. `promptyoself "
        "config` shows all of them, and where each comes from."
    )
    for setting in SETTINGS:
        default = f" [default: {setting.default}]" if setting.default else ""
        yield from _item(rf"\fB{_text(setting.name)}\fR", setting.help + default)
    yield ".SH FILES"
    yield from _item("~/.config/promptyoself/.env", "The file of settings.")
    yield from _item("~/.local/share/promptyoself", "The data directory, unless another is named.")
    yield ".SH EXIT STATUS"
    yield from _item("0", "It is done.")
    yield from _item("1", "It was refused, or it failed. Nothing was changed by a refusal.")
    yield from _item("2", "The command line itself is wrong.")


def _item(tag: str, text: str, width: str = "") -> Iterator[str]:
    yield f".TP{width}"
    yield tag
    yield _text(" ".join(text.split()))


def _paragraphs(text: str) -> Iterator[str]:
    for number, paragraph in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        yield _text(" ".join(paragraph.split()))


def _text(text: str) -> str:
    """Plain text as roff has it: what begins a request, or a hyphen that could be broken, isn't."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    escaped = escaped.replace("`", "\\(ga").replace("'", "\\(aq").replace("^", "\\(ha")
    return escaped.replace("~", "\\(ti")
