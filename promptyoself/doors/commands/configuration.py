"""Settings: which there are, where each comes from, and changing those in the file."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import WrongUsage, sentence
from promptyoself.core.setting_values import destination_of
from promptyoself.core.settings import Source, find_setting, read_sources, settings_path
from promptyoself.doors.command import command
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.core.setting_values import Setting


def visible_sources(session: Session) -> list[Source]:
    """The settings that the caller may see. One who is pinned to an agent sees none of those of
    destinations, whose names are in them."""
    sources = list(read_sources(var=session.var))
    if not is_pinned(session, sources):
        return sources
    return [source for source in sources if destination_of(source.setting.name) is None]


def is_pinned(session: Session, sources: Iterable[Source]) -> bool:
    """Whether the caller is pinned to an agent, also where the settings can't be read."""
    return session.settings.only_agent is not None or any(
        source.value for source in sources if source.setting.name == "PROMPTYOSELF_ONLY_AGENT"
    )


config_command = CommandGroup(
    "config",
    "list",
    """Show the settings, and change those in the file.

    Without a command it lists all settings, as `config list` does.
    """,
)


@command("list", mends_settings=True)
def list_command(session: Session) -> Document:
    """List every setting with its value and where that came from.

    A key or a password is shown as ***. The origin is the environment, the file of settings, or
    the default.
    """
    path = settings_path()
    listed = []
    for source in visible_sources(session):
        entry: dict[str, object] = {
            "name": source.setting.name,
            "value": source.shown,
            "origin": source.origin,
        }
        if source.line is not None:
            entry["line"] = source.line
        listed.append(entry)
    if session.problem is not None:
        session.add_warning(f"{sentence(session.problem)} {session.problem.hint}".strip())
    return {"settings": listed, "file": str(path), "exists": path.exists()}


@command("path", mends_settings=True)
def path_command(session: Session) -> Document:
    """Name the file of settings, and say whether it is there."""
    del session
    path = settings_path()
    return {"file": str(path), "exists": path.exists()}


@command("set", mends_settings=True)
@click.argument("name", metavar="NAME")
@click.argument("value", metavar="VALUE", required=False)
def set_command(session: Session, name: str, value: str | None) -> Document:
    """Write a setting into the file, which is made if it isn't there.

    NAME is the setting's name, or the part of it that matters: tz means PROMPTYOSELF_TZ. The VALUE
    is checked first. For - it is read from stdin. If it is left out, you are asked for it, and
    nothing that you type is shown of a key or a password.
    """
    from promptyoself.service.setup.settings_file import change_settings

    setting = find_setting(name)
    if value == "-":
        value = sys.stdin.readline()
    elif value is None:
        value = _asked(session, setting)
    path = settings_path()
    value = value.strip()
    changed = change_settings(path, {setting.name: value})
    shown = Source(setting, value, str(path)).shown
    state = f"{'now' if changed else 'already'} {'set' if setting.secret else shown}"
    if setting.name in os.environ:
        session.add_warning(
            f"{setting.name} is set in the environment too, and the environment comes first."
        )
    return {
        "name": setting.name,
        "value": shown,
        "file": str(path),
        "changed": changed != [],
        "message": f"{setting.name} is {state}.",
    }


def _asked(session: Session, setting: Setting) -> str:
    """The value that a person types."""
    if not session.at_terminal:
        raise WrongUsage(
            "missing_option",
            f"There is no value for {setting.name}.",
            f"`promptyoself config set {setting.name} VALUE` sets it; with - for VALUE, the value "
            "is read from stdin.",
        )
    value: str = click.prompt(
        f"{setting.name} ({setting.help.rstrip('.')})", hide_input=setting.secret, err=True
    )
    return value


@command("unset", mends_settings=True)
@click.argument("name", metavar="NAME")
def unset_command(session: Session, name: str) -> Document:
    """Take the setting NAME out of the file, so that its default counts."""
    from promptyoself.service.setup.settings_file import change_settings

    setting = find_setting(name)
    path = settings_path()
    changed = change_settings(path, {setting.name: None})
    if setting.name in os.environ:
        session.add_warning(f"{setting.name} is still set in the environment.")
    state = "isn't set there any more" if changed else "isn't set there"
    return {
        "name": setting.name,
        "file": str(path),
        "changed": changed != [],
        "message": f"{setting.name} {state}.",
    }


for _command in (list_command, set_command, unset_command, path_command):
    config_command.add_command(_command)
