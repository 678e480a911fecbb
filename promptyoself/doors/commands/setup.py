"""Setting up: what is wrong with this installation, a plugin for hosts, a sandbox."""

from __future__ import annotations

import os
import sys
from contextlib import closing, nullcontext
from pathlib import Path

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.doors.command import command
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
def doctor_command(
    session: Session, skip_letta: bool, plugins_dir: str | None, **options: bool
) -> Document:
    """Say what is wrong with this installation.

    It also says where each setting came from. Exits 1 where a check fails: also where schedules
    have failed, and where prompts are to be delivered and no loop is running. It changes nothing.
    """
    from promptyoself.core.settings import read_sources
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
    settings = [
        {"name": source.setting.name, "value": source.shown, "origin": source.origin}
        for source in read_sources(var=session.var)
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
    required=True,
    metavar="DIR",
    help="The Sanctum host's folder of plugins (its MCP_PLUGINS_DIR).",
)
@click.option(
    "--python",
    metavar="PATH",
    help="The interpreter that has promptyoself's packages (else: this one).",
)
def install_plugin_command(session: Session, plugins_dir: str, python: str | None) -> Document:
    """Write a plugin for a Sanctum host.

    It is for a host whose interpreter lacks promptyoself's packages. If the host's own has them, a
    link to promptyoself's package folder is enough.
    """
    del session
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
