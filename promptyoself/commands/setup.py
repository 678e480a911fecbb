"""Setting up: what is wrong with this installation, a sandbox, a demonstration."""

from __future__ import annotations

import click

from promptyoself.commands.answering import Document, Seconds, Session, answers, emit
from promptyoself.errors import PromptyoselfError

__all__: list[str] = []


@click.command("doctor")
@click.option("--skip-letta", is_flag=True, help="Don't ask the Letta server.")
@click.option("--require-loop", is_flag=True, help="Fail unless a loop is running.")
@click.option("--quick", is_flag=True, help="Check the end of the log, not all of it.")
@answers
def doctor_command(session: Session, skip_letta: bool, require_loop: bool, quick: bool) -> Document:
    """Say what is wrong with this installation, and where each setting came from.

    Exits 1 where a check fails. It changes nothing.
    """
    from promptyoself.commands.delivery import deliverer
    from promptyoself.service.checking import examine
    from promptyoself.settings import read_sources

    letta = None if skip_letta else deliverer(session.settings)
    try:
        checks = examine(
            session.store(), session.now(), letta, require_loop=require_loop, quick=quick
        )
    finally:
        if letta is not None:
            letta.close()
    settings = [
        {
            "name": source.setting.name,
            "value": "***" if source.setting.secret and source.value else source.value,
            "origin": source.origin,
        }
        for source in read_sources(var=session.var)
    ]
    listed = [check._asdict() for check in checks]
    failed = [check for check in checks if not check.ok]
    if failed:
        raise PromptyoselfError(
            "unhealthy",
            f"{len(failed)} of {len(checks)} checks failed: "
            + "; ".join(f"{check.name} ({check.detail})" for check in failed)
            + ".",
            failed[0].hint,
            checks=listed,
            settings=settings,
        )
    return {"checks": listed, "settings": settings, "message": "Nothing is wrong."}


@click.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8283,
    show_default=True,
    help="Port; 0 takes any that is free.",
)
@click.option(
    "--agents",
    "count",
    type=click.IntRange(1, 10_000),
    default=3,
    show_default=True,
    help="How many agents it has.",
)
@click.option(
    "--latency",
    type=Seconds(0, 3600),
    default=1.0,
    show_default=True,
    metavar="S",
    help="Seconds that an agent takes to answer.",
)
@answers
def sandbox_command(session: Session, host: str, port: int, count: int, latency: float) -> None:
    """Serve a stand-in Letta with agents that echo, for trying things out, until Ctrl-C.

    Prints its URL and its agents first. Faults are injected over HTTP: see docs/sandbox.md.
    """
    from promptyoself.sandbox import Sandbox, serve_forever

    def ready(sandbox: Sandbox) -> None:
        url = sandbox.url
        message = f"Set LETTA_BASE_URL={url} to use it; Ctrl-C ends it."
        document = {"url": url, "agents": sandbox.agents, "message": message}
        emit({"status": "success", **document}, session.format)

    names = [f"echo-{number}" for number in range(1, count + 1)]
    serve_forever(names, host=host, port=port, latency=latency, ready=ready)


@click.command("demo")
@answers
def demo_command(session: Session) -> Document:
    """Show the whole of it: register three prompts, deliver two, and prove it from the log.

    Works on a sandbox of its own, or, with LETTA_BASE_URL set, with that server's agents; always
    in a data directory of its own, unless --var names one. What happens is told on stderr.
    """
    from promptyoself.commands.demonstration import demonstrate

    return demonstrate(session)
