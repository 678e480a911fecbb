"""Delivering, and asking Letta."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING, cast

import click
from click.core import ParameterSource

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.doors.agent_names import remember_names
from promptyoself.doors.command import command
from promptyoself.doors.options import Seconds, Whole
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session
from promptyoself.events.target_names import ASKABLE, TargetName

if TYPE_CHECKING:
    from promptyoself.core.settings import Settings
    from promptyoself.service.delivery import answers
    from promptyoself.service.delivery.loop import Heartbeat
    from promptyoself.service.delivery.report import Report
    from promptyoself.targets.api import Agent, Target

CONCURRENCY = 32
"""Deliveries at once, where nothing else is said."""

_MONITOR_TIMEOUT = 5.0
_SHOWN = 5


def deliverer(settings: Settings) -> Target:
    """The way to the Letta server that the settings name."""
    from promptyoself.service.delivery.configured_targets import target_for

    return target_for(settings, "letta")


def require_agent(settings: Settings, agent_id: str, target: TargetName) -> None:
    """Refuse an agent that its target doesn't know.

    Raises:
        PromptyoselfError: ``agent_not_found``, or why the target could not be asked.
    """
    with closing(_asked(settings, target)) as way:
        known = way.agent(agent_id)
        if known is not None:
            if settings.only_agent is None:
                remember_names(settings.var, {known.id: known.name})
            return
        only = settings.only_agent
        agents = _agents(settings, way)
        named = [agent.id for agent in _named(agents, agent_id) if only in (None, agent.id)]
    where = f"{way.traits.title} at {_address(settings, target)}"
    if named:
        raise PromptyoselfError(
            "agent_not_found",
            f"{where} has no agent with the id {agent_id!r}. "
            f"That is the name of {' and of '.join(named[:_SHOWN])}"
            f"{', …' if len(named) > _SHOWN else ''}.",
            f"Give the id: --agent-id {named[0]}"
            if len(named) == 1
            else "Give the id of the one that you mean.",
            named=named,
        )
    command = "agents" if target == "letta" else f"agents --target {target}"
    raise PromptyoselfError(
        "agent_not_found",
        f"{where} has no agent {agent_id!r}.",
        f"`promptyoself {command}` lists those it has.",
    )


def _asked(settings: Settings, target: TargetName) -> Target:
    """The way to a target that is to be asked something. Raises ``target_not_configured``."""
    from promptyoself.service.delivery.configured_targets import target_for
    from promptyoself.service.schedules.limits import require_target

    require_target(settings, target)
    return target_for(settings, target)


def _address(settings: Settings, target: TargetName) -> str:
    """Where a target is, as it may be shown."""
    return settings.letta_code_url or "" if target == "letta-code" else settings.shown_url


def _agents(settings: Settings, way: Target) -> list[Agent]:
    """The agents that a target has, which are remembered."""
    agents = way.agents()
    remember_agents(settings, agents)
    return agents


def remember_agents(settings: Settings, agents: list[Agent]) -> None:
    """Keep the names of agents for the forms that people read, unless the caller is pinned."""
    if settings.only_agent is None:
        remember_names(settings.var, {agent.id: agent.name for agent in agents})


def _named(agents: list[Agent], name: str) -> list[Agent]:
    """The agents of that name. If there are none, those of that name in other case."""
    same_case = [agent for agent in agents if agent.name == name]
    folded = name.casefold()
    return same_case or [agent for agent in agents if agent.name.casefold() == folded]


@command("execute")
@click.option("--loop", is_flag=True, help="Go on for ever, until SIGTERM or SIGINT.")
@click.option(
    "--interval",
    type=Seconds(min=0.1, max=86400),
    metavar="S",
    help="With --loop: the longest sleep, in seconds (PROMPTYOSELF_INTERVAL, 60).",
)
@click.option(
    "--concurrency",
    type=Whole(1, 256),
    default=CONCURRENCY,
    metavar="N",
    help="Deliveries at once.",
)
@click.option(
    "--deadline",
    type=Seconds(min=0.1, max=86400),
    metavar="S",
    help="Give up waiting after this many seconds (300). Not with --loop.",
)
@click.option(
    "--metrics-port",
    type=Whole(0, 65535),
    metavar="PORT",
    help="With --loop: serve /metrics and /healthz there, on 127.0.0.1; 0 is any free port.",
)
@click.option(
    "--accept-clock",
    is_flag=True,
    help="With --loop: go by the clock, even if it jumps or is behind the log.",
)
def execute_command(
    session: Session,
    loop: bool,
    interval: float | None,
    concurrency: int,
    deadline: float | None,
    metrics_port: int | None,
    accept_clock: bool,
) -> Document | None:
    """Deliver what is due now, and wait for the answers. With --loop it goes on doing so.

    Agents rarely need it: where a loop runs, every prompt is delivered when it is due. Answers with
    executed, a line for each prompt that was tried, and its state. What isn't finished at the
    deadline stays in doubt; a later pass finds out what became of it.
    """
    from promptyoself.service.delivery.configured_targets import ConfiguredTargets
    from promptyoself.service.delivery.loop import (
        Heartbeat,
        StopFlag,
        execute_once,
        run_loop,
        stop_on_signals,
    )

    for option, is_given in (
        ("--interval", interval is not None),
        ("--metrics-port", metrics_port is not None),
        ("--accept-clock", accept_clock),
    ):
        if is_given and not loop:
            message = f"{option} needs --loop."
            raise WrongUsage("conflicting_options", message, "Give both, or none.")
    if loop and deadline is not None:
        raise WrongUsage(
            "conflicting_options",
            "--deadline and --loop exclude each other.",
            "Leave out --deadline: a loop goes on until it is stopped.",
        )
    if loop:
        session.log.tell_time()
    store, targets = session.store(as_process=loop).unpinned, ConfiguredTargets(session.settings)
    stop = session.caller.stop or StopFlag()

    def print_report(report: Report) -> None:
        add_names(report)
        session.print({"status": "success", **_pass(report)}, paged=False)

    def add_names(report: Report) -> None:
        ids = (line["id"] for lines in report for line in lines if "id" in line)
        session.add_names(store, ids)

    with ExitStack() as end:
        if session.caller.stop is None:
            end.enter_context(stop_on_signals(stop))
        else:  # a program goes on: it has its own signals, and would keep the connections
            end.callback(targets.close)
        if not loop:
            report = execute_once(
                store,
                targets,
                session.now,
                concurrency=concurrency,
                deadline=300.0 if deadline is None else deadline,
                stop=stop,
            )
            add_names(report)
            return _pass(_report_for(session.settings.only_agent, report))
        heartbeat = Heartbeat()
        if metrics_port is not None:
            end.enter_context(_monitored(session, heartbeat, metrics_port))
        if session.for_people:
            message = "The loop delivers what becomes due. Ctrl-C ends it."
            session.print({"status": "success", "executed": [], "message": message}, paged=False)
        run_loop(
            store,
            targets,
            session.now,
            concurrency=concurrency,
            interval=session.settings.interval if interval is None else interval,
            stop=stop,
            emit=print_report,
            heartbeat=heartbeat,
            accept_clock=accept_clock,
        )
    return None


@contextmanager
def _monitored(session: Session, heartbeat: Heartbeat, port: int) -> Iterator[None]:
    """Serve the loop's metrics and health. Prints first where."""
    from promptyoself.doors.monitor import Monitor
    from promptyoself.service.delivery.configured_targets import ConfiguredTargets

    patience = min(_MONITOR_TIMEOUT, session.settings.call_timeout)
    quick = session.settings._replace(call_timeout=patience)
    with closing(ConfiguredTargets(quick)) as targets:
        monitor = Monitor(session.store, heartbeat, targets, session.now)
        with monitor.serving(port) as url:
            served = {"metrics": f"{url}/metrics", "health": f"{url}/healthz"}
            session.print({"status": "success", **served}, paged=False)
            yield


_target_option = click.option(
    "--target",
    type=click.Choice(ASKABLE),
    default="letta",
    help="Which target to ask; letta-cloud is untested.",
)


@command("agents")
@_target_option
def agents_command(session: Session, target: TargetName) -> answers.AgentList:
    """List the agents that Letta, or another target, has.

    Use it to find the agent_id that `register` wants. Answers with agents (id, name, model, …) and
    their count; a caller who is pinned to one agent sees that one alone.
    """
    settings = session.settings
    with _telling_of_letta_code(settings), closing(_asked(settings, target)) as way:
        agents = [
            agent for agent in _agents(settings, way) if settings.only_agent in (None, agent.id)
        ]
    return {
        "agents": [_describe(agent) for agent in agents],
        "count": len(agents),
        **_where(settings, target),
    }


@command("test")
@_target_option
def test_command(session: Session, target: TargetName) -> answers.LettaTest:
    """Ask whether a target answers, and accepts our key.

    Use it where prompts don't arrive. Answers with its url, version and latency_ms, or with an
    error that says what is in the way.
    """
    began, settings = time.monotonic(), session.settings
    with _telling_of_letta_code(settings), closing(_asked(settings, target)) as way:
        version = way.health()
        answered = time.monotonic() - began
        count = len(_agents(settings, way))  # health needs no password; this does
    return {
        **_where(settings, target),
        "version": version,
        "agents": count,
        "latency_ms": round(answered * 1000),
        "message": f"{way.traits.title} answers.",
    }


@contextmanager
def _telling_of_letta_code(settings: Settings) -> Iterator[None]:
    """Advise the other target where no target was named and no Letta server can be reached."""
    try:
        yield
    except PromptyoselfError as error:
        source = click.get_current_context().get_parameter_source("target")
        is_named = source is not ParameterSource.DEFAULT
        if error.code == "letta_unreachable" and settings.letta_code_url and not is_named:
            error.hint = f"{error.hint} For agents of Letta Code: `--target letta-code`."
        raise


def _where(settings: Settings, target: TargetName) -> answers.Asked:
    """What was asked: its address; and its name, if it is no Letta server."""
    url = _address(settings, target)
    return {"url": url} if target == "letta" else {"url": url, "target": target}


def _report_for(agent_id: str | None, report: Report) -> Report:
    """The lines of a report that a caller who is pinned to that agent may see."""
    if agent_id is None:
        return report
    mine = [[line for line in lines if line["agent_id"] == agent_id] for lines in report]
    return report._replace(**dict(zip(report._fields, mine, strict=True)))


def _pass(report: Report) -> answers.Executed:
    """A pass as the JSON contract has it. The message counts what was delivered, not tried."""
    delivered = sum(1 for line in report.executed if line["delivered"])
    message = f"{delivered} {'prompt' if delivered == 1 else 'prompts'} executed"
    others = Counter(line["state"] for line in report.executed if not line["delivered"])
    for state, count in others.items():
        message += f", {count} {state.replace('_', ' ')}"
    if slots := sum(skip["slots"] for skip in report.skipped):
        reasons = sorted({skip["why"] for skip in report.skipped})
        message += f", {slots} skipped ({', '.join(reasons)})"
    if not (report.executed or report.skipped) and (report.replies or report.notices):
        message = _of_answers(report)
    lines = cast("list[answers.DeliveryLine]", report.executed)
    answer: answers.Executed = {"executed": lines, "message": message}
    if report.skipped:
        answer["skipped"] = report.skipped
    if report.replies:
        answer["replies"] = cast("list[answers.ReplyLine]", report.replies)
    if report.notices:
        answer["notices"] = cast("list[answers.NoticeLine]", report.notices)
    return answer


def _of_answers(report: Report) -> str:
    """The message of a pass that did nothing but read answers and send notices."""
    counts = (
        (sum(line["replied"] for line in report.replies), "answer read", "answers read"),
        (sum(not line["replied"] for line in report.replies), "unanswered", "unanswered"),
        (sum(line["sent"] for line in report.notices), "notice sent", "notices sent"),
        (sum(not line["sent"] for line in report.notices), "notice not taken", "notices not taken"),
    )
    return ", ".join(
        f"{count} {one if count == 1 else many}" for count, one, many in counts if count
    )


def _describe(agent: Agent) -> answers.AgentView:
    from promptyoself.core.instants import format_utc

    return {
        "id": agent.id,
        "name": agent.name,
        "model": agent.model,
        "created_at": format_utc(agent.created_at) if agent.created_at else None,
        "last_run_at": format_utc(agent.last_run_at) if agent.last_run_at else None,
    }
