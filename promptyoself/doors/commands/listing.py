"""Schedules, looked at. Apart from what changes them, whose many options take a while to make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.doors.command import command
from promptyoself.doors.options import (
    limit_option,
    only_agent_option,
    schedule_option,
    tag_option,
)
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session
from promptyoself.events.kinds import FINISHED, STATUSES

if TYPE_CHECKING:
    from promptyoself.store.store import Store

_STATUSES = [*STATUSES, "all"]
_ORDERS = ["next", "name", "agent", "last", "created"]
_at = click.option(
    "--at", metavar="T", help="As it was: 2027-01-30T09:00, '2h ago' or an event's number."
)


@command("list", shows_times=True)
@only_agent_option
@click.option("--status", type=click.Choice(_STATUSES), help="Only these (active and paused).")
@click.option("--name", metavar="TEXT", help="Only those whose name has this.")
@click.option("--query", metavar="WORDS", help="Only those that have all these words.")
@tag_option
@click.option("--sort", type=click.Choice(_ORDERS), help="By what (next).")
@click.option("--all", "all_", is_flag=True, help="In every status.")
@limit_option
@click.option("--full", is_flag=True, help="Whole prompts, and all that is set.")
@_at
def list_command(
    session: Session,
    name: str | None,
    query: str | None,
    tags: tuple[str, ...],
    all_: bool,
    **options: Any,
) -> Document:
    """List schedules, the soonest first.

    Use it to see what is planned, and to find an id. Answers with schedules (id, agent_id, prompt,
    next_run, status, …) and count; long prompts are shortened unless --full is given.
    """
    from promptyoself.service.schedules.views import Filters, list_schedules

    if all_:
        if options["status"] not in (None, "all"):
            raise WrongUsage(
                "conflicting_options", "Both --all and --status were given.", "Give one of them."
            )
        options["status"] = "all"
    if name or query or tags:
        from promptyoself.core.text_limits import check_tags

        words = tuple((query or "").split())
        options["filters"] = Filters(name, words, frozenset(check_tags(tags)))
    store = session.reading(agent_id=options["agent_id"])
    if session.for_people:  # the line of each has something from all that is known of it
        session.beside["full"] = options["full"]
        options["full"] = True
    answer = list_schedules(store, now=session.now(), **options)
    _add_undefined(session, answer["schedules"])
    if session.for_people and not any(options.get(name) for name in ("status", "at", "filters")):
        session.beside["over"] = _count_over(store, options["agent_id"])
    if options["at"] is None:
        warn_of_brocas(session, store, [schedule["id"] for schedule in answer["schedules"]])
    return answer


def _count_over(store: Store, agent_id: str | None) -> int:
    """How many schedules, of an agent or of all that the caller may see, are over."""
    state, agent_id = store.read().state, store.require_agent(agent_id)
    if agent_id is None:
        return sum(state.statuses.get(status, 0) for status in FINISHED)
    agent = state.agent(agent_id)
    return agent.schedules - len(agent.unfinished)


def _add_undefined(session: Session, schedules: Iterable[Mapping[str, Any]]) -> None:
    """Put the destinations that these schedules name, and that aren't defined any more, beside the
    answer, where a person reads it."""
    if session.for_people:
        named = {schedule.get(key) for schedule in schedules for key in ("reply_to", "failure_to")}
        session.beside["undefined"] = named - {None, *session.settings.destinations}


def warn_of_brocas(session: Session, store: Store, ids: list[str]) -> None:
    """Warn where prompts that are to come go through a Broca in which no loop runs."""
    schedules = store.read().state.schedules
    shown = (schedules[id_] for id_ in ids if id_ in schedules)
    agents = {
        schedule.agent_id
        for schedule in shown
        if schedule.target == "broca" and schedule.status == "active"
    }
    if agents:
        from promptyoself.service.upkeep.running_loop import no_broca_loop_warning

        with suppress(OSError):  # what was asked for is told all the same
            session.add_warning(no_broca_loop_warning(store, agents))


@command("show", shows_times=True)
@schedule_option()
@_at
def show_command(session: Session, id_: str, at: str | None) -> Document:
    """Show everything about one schedule.

    Answers with the schedule: the whole prompt, limits, the last error, deliveries under way.
    """
    from promptyoself.service.schedules.views import show

    store = session.reading()
    id_ = session.schedule_id(id_, store)
    schedule = show(store, id_, at=at, now=session.now())
    _add_undefined(session, [schedule])
    if at is None:
        session.add_fires(store, id_, 5)
        session.add_outcomes(store, id_, 5)
    return {"id": id_, "schedule": schedule}
