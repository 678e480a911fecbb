"""What would happen, and what is left of today's deliveries."""

from typing import Any

import click

from promptyoself.doors.command import command
from promptyoself.doors.options import Seconds, limit_option, only_agent_option, tag_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("simulate", shows_times=True)
@click.option("--until", required=True, metavar="T", help="How far: 2027-01-31; 'in 7d'.")
@only_agent_option
@click.option(
    "--latency",
    type=Seconds(min=0, max=86400),
    default=0.0,
    metavar="S",
    help="How long each delivery takes, in seconds.",
)
def simulate_command(
    session: Session, until: str, agent_id: str | None, latency: float
) -> Document:
    """Show what would be delivered and skipped until some time.

    It assumes that every delivery succeeds. It says which limits would stop what, and by how much
    the log would grow. It sends and writes nothing. Use it to see how full the days ahead are, or
    whether a budget is too small; `next` shows when a single schedule fires. Answers with fired,
    skipped, agents (by day) and stopped.
    """
    from promptyoself.service.forecast.simulate import simulate

    store = session.reading(agent_id=agent_id)
    answer = simulate(store, until, session.now(), agent_id=agent_id, latency=latency)
    session.add_names(store, (stopped["id"] for stopped in answer["stopped"]))
    return answer


@command("budgets", shows_times=True)
@only_agent_option
def budgets_command(session: Session, agent_id: str | None) -> Document:
    """Show what of today's deliveries is left, and spent.

    Use it when slots are skipped as `budget` or `agent_cap`, or before planning many prompts.
    Answers with agents and schedules, each with spent, limit, left and resets_at (midnight UTC).
    """
    from promptyoself.service.schedules.budgets import budgets

    return budgets(session.reading(agent_id=agent_id), agent_id, session.now())


@command("agenda", shows_times=True)
@click.option(
    "--for", "length", default="24h", metavar="DURATION", help="How far ahead: 24h, 3d, 1w."
)
@only_agent_option
@tag_option
@limit_option
def agenda_command(session: Session, length: str, agent_id: str | None, **options: Any) -> Document:
    """List what fires in the hours or days ahead, by day.

    It assumes that every delivery succeeds. A schedule that fires often has one line a day. Paused
    schedules, and what a limit stops, are said beside it. There are 200 lines at most, unless
    --limit says another number.
    """
    from promptyoself.service.forecast.agenda import agenda_for

    store = session.reading(agent_id=agent_id)
    answer = agenda_for(store, length, session.now(), agent_id=agent_id, **options)
    if answer["fires"]:
        session.warn_if_nothing_delivers(store)
    return answer
