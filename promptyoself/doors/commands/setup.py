"""Setting up: what is wrong with this installation, a plugin for hosts, a sandbox, completion."""

from __future__ import annotations

import os
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.core.times import shown
from promptyoself.doors.command import command
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.options import Seconds
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("doctor")
@click.option("--skip-letta", is_flag=True, help="Don't ask the Letta server.")
@click.option("--require-loop", is_flag=True, help="Fail unless a loop is running.")
@click.option(
    "--allow-no-loop",
    is_flag=True,
    help="Don't fail without a loop: for people who run execute from cron.",
)
@click.option(
    "--allow-failed",
    is_flag=True,
    help="Only mention schedules that failed: for supervisors that restart what is unhealthy.",
)
@click.option("--quick", is_flag=True, help="Check the end of the log, not all of it.")
@click.option("--plugins-dir", metavar="DIR", help="Check that a Sanctum host finds us there.")
@click.option("--broca", metavar="DIR", help="Check that this Broca delivers prompts, and once.")
def doctor_command(
    session: Session, skip_letta: bool, plugins_dir: str | None, broca: str | None, **options: bool
) -> Document:
    """Say what is wrong with this installation.

    It also says where each setting came from. Exits 1 where a check fails: also where schedules
    have failed, and where prompts are to be delivered and no loop is running. It changes nothing.
    """
    from promptyoself.doors.commands.configuration import visible_sources
    from promptyoself.service.delivery.configured_targets import ConfiguredTargets
    from promptyoself.service.upkeep.doctor import Check, examine

    if options["require_loop"] and options["allow_no_loop"]:
        message = "Both --require-loop and --allow-no-loop were given."
        raise WrongUsage("conflicting_options", message, "Give one of them.")
    store = session.reading(needs_var=False).unpinned
    with nullcontext() if skip_letta else closing(ConfiguredTargets(session.settings)) as targets:
        checks = examine(store, session.now(), targets, **options)
    if plugins_dir is not None:
        from promptyoself.doors.sanctum import check_plugin

        checks.append(Check("plugin", *check_plugin(Path(plugins_dir))))
    if broca is not None:
        from promptyoself.service.broca import checkout

        checks += [Check(*found) for found in checkout.examine(Path(broca), os.environ)]
    settings = [
        {"name": source.setting.name, "value": source.shown, "origin": source.origin}
        for source in visible_sources(session)
    ]
    listed = [check._asdict() for check in checks]
    failed = [check for check in checks if not check.ok]
    if failed:
        raise PromptyoselfError(
            "unhealthy",
            f"{len(failed)} of {len(checks)} checks failed: "
            + "; ".join(f"{check.name} ({check.detail.rstrip('.')})" for check in failed)
            + ".",
            failed[0].hint,
            checks=listed,
            settings=settings,
        )
    return {"checks": listed, "settings": settings, "message": "Nothing is wrong."}


@command("install-plugin")
@click.option(
    "--plugins-dir",
    metavar="DIR",
    help="The Sanctum host's folder of plugins (its MCP_PLUGINS_DIR).",
)
@click.option(
    "--python",
    metavar="PATH",
    help="The interpreter that has promptyoself's packages (else: this one).",
)
@click.option("--broca", metavar="DIR", help="Instead: a checkout of Broca, to deliver through.")
def install_plugin_command(
    session: Session, plugins_dir: str | None, python: str | None, broca: str | None
) -> Document:
    """Write a plugin for a Sanctum host, or for a Broca.

    A host needs it where its interpreter lacks promptyoself's packages. If the host's own has them,
    a link to promptyoself's package folder is enough. Into a Broca's queue go prompts whose answers
    are to reach people on their platforms; its own interpreter must have promptyoself's packages.
    """
    del session
    if broca is not None:
        if plugins_dir is not None or python is not None:
            raise WrongUsage(
                "conflicting_options",
                "--broca was given with an option for Sanctum hosts.",
                "Give --broca alone.",
            )
        return _install_in_broca(broca)
    if plugins_dir is None:
        raise WrongUsage(
            "missing_option",
            "Missing option '--plugins-dir'.",
            "See `promptyoself install-plugin --help`.",
        )
    from promptyoself.doors.sanctum import install

    if not os.path.isdir(plugins_dir):
        raise WrongUsage(
            "invalid_value",
            f"--plugins-dir {plugins_dir[:200]!r} is no folder.",
            "Name the folder that the host's MCP_PLUGINS_DIR names.",
        )
    chosen = sys.executable if python is None else python
    if not os.access(chosen, os.X_OK) or os.path.isdir(chosen):
        raise WrongUsage(
            "invalid_value", f"--python {chosen[:200]!r} can't be run.", "Name an interpreter."
        )
    path, changed = install(Path(plugins_dir), chosen)
    message = "The plugin was written." if changed else "The plugin is there already."
    return {"path": str(path), "changed": changed, "message": message}


def _install_in_broca(folder: str) -> Document:
    from promptyoself.service.broca.checkout import install

    path, changed = install(Path(folder), os.environ)
    message = "The plugin was written." if changed else "The plugin is there already."
    hint = (
        "See that promptyoself is installed for the Python that runs Broca, then start Broca again."
    )
    return {"path": str(path), "changed": changed, "message": message, "hint": hint}


@command("sandbox")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8283, help="Port; 0 takes any that is free."
)
@click.option(
    "--agents", "count", type=click.IntRange(1, 10_000), default=3, help="How many agents it has."
)
@click.option(
    "--latency",
    type=Seconds(0, 3600),
    default=1.0,
    metavar="S",
    help="Seconds that an agent takes to answer.",
)
def sandbox_command(session: Session, host: str, port: int, count: int, latency: float) -> None:
    """Serve a stand-in for Letta, with agents that echo.

    It is for trying things out, and goes on until Ctrl-C. Prints its URL and its agents first.
    Faults are injected over HTTP: see docs/reference/sandbox.md.
    """
    from promptyoself.sandbox import Sandbox, serve_forever

    def ready(sandbox: Sandbox) -> None:
        url = sandbox.url
        message = f"Set LETTA_BASE_URL={url} to use it; Ctrl-C ends it."
        document = {"url": url, "agents": sandbox.agents, "message": message}
        session.print({"status": "success", **document})

    names = [f"echo-{number}" for number in range(1, count + 1)]
    serve_forever(names, host=host, port=port, latency=latency, ready=ready)


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
def install_completion_command(session: Session, shell: str | None) -> Document:
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
def show_completion_command(session: Session, shell: str | None) -> None:
    """Print the script for SHELL: bash, zsh or fish."""
    del session
    sys.stdout.write(_script(_known(shell)))


for _command in (install_completion_command, show_completion_command):
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
