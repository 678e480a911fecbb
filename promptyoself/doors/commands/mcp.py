"""Serving agents: the MCP server."""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import WrongUsage, missing_package
from promptyoself.core.times import shown
from promptyoself.doors.command import call_command, command
from promptyoself.doors.commands.delivery import CONCURRENCY
from promptyoself.doors.options import Whole
from promptyoself.doors.output import Document, error_document, to_json
from promptyoself.doors.registry import AGENT_FACING, SETS
from promptyoself.doors.session import Caller, Session

if TYPE_CHECKING:
    from promptyoself.service.delivery.loop import StopFlag

_SWITCH_SECONDS = 0.0005
"""For so long a thread may compute before another gets its turn. By default it is ten times as
long, and a call that reads much would make the loop, and every other call, wait for that time at
each of their many system calls, some of them with the log's lock held."""

_HTTP_ONLY = frozenset({"host", "port", "hosts", "origins", "agent_header"})
_NAME = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"


@command("mcp")
@click.option(
    "--transport",
    type=click.Choice(["stdio", "http"]),
    default="stdio",
    help="stdio for a client that starts it, http (streamable) for others.",
)
@click.option("--host", default="127.0.0.1", help="With http: the address to listen on.")
@click.option(
    "--port",
    type=Whole(0, 65535),
    default=8765,
    help="With http: the port; 0 takes any that is free.",
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="With http: another name that clients know it by, as mcp or clock.example:8765.",
)
@click.option(
    "--allow-origin",
    "origins",
    multiple=True,
    metavar="ORIGIN",
    help="With http: a web page's origin that may call it, as https://chat.example.",
)
@click.option(
    "--agent-header",
    metavar="NAME",
    help="With http: the header that names the agent that calls, X-Agent-Id from Letta; each call "
    "is pinned to that agent, and a call without it is refused.",
)
@click.option(
    "--tool-prefix",
    default="",
    show_default=False,
    metavar="TEXT",
    help="Put before the name of each tool, where tools of many servers share their names.",
)
@click.option(
    "--tools",
    default="agent",
    metavar="NAMES",
    help="What to offer: agent (ten tools for an agent's own prompts), operator (those that look "
    "after a clock too), all, or tools by name, with commas between.",
)
@click.option("--with-loop", is_flag=True, help="Deliver what is due too, as execute --loop does.")
@click.option(
    "--accept-clock",
    is_flag=True,
    help="With --with-loop: go by the clock, even if it jumps or is behind the log.",
)
def mcp_command(
    session: Session,
    transport: str,
    host: str,
    port: int,
    hosts: tuple[str, ...],
    origins: tuple[str, ...],
    agent_header: str | None,
    tool_prefix: str,
    tools: str,
    with_loop: bool,
    accept_clock: bool,
) -> None:
    """Serve the commands for agents as tools of an MCP server.

    Over stdio it ends when its client does, and stdout is the protocol's; over HTTP it prints its
    URL once it listens, and goes on until SIGTERM or Ctrl-C. Beyond this machine it wants a token,
    in PROMPTYOSELF_MCP_TOKEN.
    """
    _check_name("--tool-prefix", tool_prefix, 32, "promptyoself_")
    if agent_header is not None:
        _check_name("--agent-header", agent_header or " ", 64, "X-Agent-Id")
    if transport == "stdio":
        _refuse_options_of_http()
    offered = commands_offered(tools)
    try:
        from promptyoself.doors.mcp import http, lifecycle
        from promptyoself.doors.mcp.stdio import Stdio
        from promptyoself.doors.mcp.tools import Door
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("promptyoself"):
            raise
        raise missing_package("The MCP server needs", "mcp") from None
    # What a call leaves behind has files open. It is looked for as often as in any long program,
    # but not among all the modules.
    gc.freeze()
    gc.set_threshold(700, 10, 10)
    sys.setswitchinterval(_SWITCH_SECONDS)
    settings = session.settings
    door = Door(
        _group(),
        partial(_answer, _group(), session.var),
        partial(_answer, _agenda_command, session.var),
        agent=settings.only_agent or settings.default_agent,
        only_agent=settings.only_agent,
        prefix=tool_prefix,
        header=agent_header,
        tools=offered,
    )
    if accept_clock and not with_loop:
        message = "--accept-clock needs --with-loop."
        raise WrongUsage("conflicting_options", message, "Give both, or none.")
    loop = partial(_deliver, session, accept_clock) if with_loop else None
    if transport == "http":
        listener = http.listen(host, port, settings.mcp_token)
        message = "It wants a token." if settings.mcp_token else "It wants no token."

        def ready() -> None:
            session.print({"status": "success", "url": way.url, "message": message})

        with closing(listener):
            way = http.HTTP(
                listener,
                token=settings.mcp_token,
                hosts=hosts,
                origins=origins,
                ready=ready,
                warn=session.log.warn,
            )
            lifecycle.serve(door, way, loop)
        return
    if sys.stdin is not None and sys.stdin.isatty():
        print("promptyoself: waiting for a client's messages; Ctrl-C ends it.", file=sys.stderr)
    try:
        lifecycle.serve(door, Stdio(), loop)
    except Exception as error:  # stdout is the protocol's, to the end
        document, code = error_document(error)
        print(to_json(document).decode(), file=sys.stderr)
        click.get_current_context().exit(code)


@command("agenda")
@click.option("--agent-id")
def _agenda_command(session: Session, agent_id: str | None) -> Document:
    """What a resource of the MCP server has; no command of the command line."""
    from promptyoself.service.forecast.agenda import agenda

    settings = session.settings
    agent_id = agent_id or settings.only_agent or settings.default_agent
    return agenda(session.reading(), session.now(), agent_id=agent_id)


def commands_offered(text: str) -> list[str]:
    """The commands that ``--tools`` names: sets and tools, with commas between.

    Raises:
        WrongUsage: ``invalid_value``.
    """
    offered: set[str] = set()
    for word in text.split(","):
        name = word.strip().replace("_", "-")
        if name not in SETS and name not in AGENT_FACING:
            raise WrongUsage(
                "invalid_value",
                f"--tools has {shown(word.strip())}, which is neither a set nor a tool.",
                f"There are the sets {', '.join(SETS)}; and the tools {', '.join(AGENT_FACING)}.",
            )
        offered.update(SETS.get(name, (name,)))
    return [name for name in AGENT_FACING if name in offered]


def _answer(command: click.Command, var: str | None, words: Sequence[str], caller: Caller) -> bytes:
    """Make a client's call, on the server's data directory."""
    where = [] if var is None else [f"--var={var}"]
    name = words[:1] if isinstance(command, click.Group) else []
    return call_command(command, [*name, *where, *words[len(name) :]], caller)


def _deliver(session: Session, accept_clock: bool, stop: StopFlag) -> None:
    from promptyoself.service.delivery.configured_targets import ConfiguredTargets
    from promptyoself.service.delivery.loop import run_loop

    store = session.store(as_process=True)
    with closing(ConfiguredTargets(session.settings)) as targets:
        run_loop(
            store,
            targets,
            session.now,
            concurrency=CONCURRENCY,
            interval=session.settings.interval,
            stop=stop,
            accept_clock=accept_clock,
            emit=lambda _: None,  # stdout isn't the loop's; what it does is in the log file
        )


def _group() -> click.Group:
    group = click.get_current_context().find_root().command
    assert isinstance(group, click.Group)
    return group


def _check_name(option: str, text: str, longest: int, example: str) -> None:
    if len(text) > longest or not set(text) <= set(_NAME):
        raise WrongUsage(
            "invalid_value",
            f"{option} {shown(text)} has more than {longest} characters, or others than letters, "
            "digits, - and _.",
            f"Give one such as {example}.",
        )


def _refuse_options_of_http() -> None:
    context = click.get_current_context()
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in _HTTP_ONLY and source is click.core.ParameterSource.COMMANDLINE:
            raise WrongUsage(
                "conflicting_options",
                f"{parameter.opts[0]} is for HTTP, and this would be stdio.",
                "Add --transport http.",
            )
