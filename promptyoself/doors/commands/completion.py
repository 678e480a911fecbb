"""Completion of commands, options and values by the user's shell."""

from __future__ import annotations

import os
import sys

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.command import command
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

completion_command = CommandGroup(
    "completion",
    "show",
    """Have your shell complete commands and ids.

    It also completes names, agents, time zones, types of events and settings, for bash, zsh and
    fish.
    """,
)

_shell_argument = click.argument("shell", metavar="SHELL", required=False)


@command("install", mends_settings=True)
@_shell_argument
def install_command(session: Session, shell: str | None) -> Document:
    """Write the script to where SHELL looks for it: bash, zsh or fish.

    Without SHELL it is the one that you log in with. For bash and zsh a line is added to the file
    that they read at their start; the answer has that line. Doing it again changes nothing.
    """
    from promptyoself.service.setup.shells import install, place_of

    del session
    name = _known(shell)
    place = place_of(name)
    changed = install(place, _script(name))
    answer: dict[str, object] = {"shell": name, "file": str(place.script), "changed": changed}
    if place.startup is not None:
        answer |= {"startup": str(place.startup), "line": place.line}
    done = "Completion is installed" if changed else "Completion is installed already"
    answer["message"] = f"{done}. It works in each {name} that is started from now on."
    return answer


@command("show", mends_settings=True)
@_shell_argument
def show_command(session: Session, shell: str | None) -> None:
    """Print the script for SHELL: bash, zsh or fish."""
    del session
    sys.stdout.write(_script(_known(shell)))


for _command in (install_command, show_command):
    completion_command.add_command(_command)


def _known(shell: str | None) -> str:
    """The shell that was named, or else the user's own.

    Raises:
        WrongUsage: ``unknown_shell``.
    """
    from promptyoself.service.setup.shells import SHELLS

    name = os.path.basename(os.environ.get("SHELL", "")) if shell is None else shell
    if name in SHELLS:
        return name
    what = f"Your shell is {shown(name)}" if shell is None else f"The shell is {shown(name)}"
    raise WrongUsage(
        "unknown_shell",
        f"{what}, which isn't one that can be served.",
        f"Name one of these: {', '.join(SHELLS)}.",
    )


def _script(shell: str) -> str:
    from promptyoself.doors.completion import script

    root = click.get_current_context().find_root().command
    assert isinstance(root, click.Group)
    return script(root, shell)
