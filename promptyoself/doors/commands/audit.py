"""Answering for every slot, and for every change."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.command import command
from promptyoself.doors.options import limit_option, only_agent_option, tag_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.store.store import Store


@command("audit", shows_times=True)
@click.option("--since", metavar="T", help="Only slots from then on: 2027-01-30, '7d ago'.")
@click.option("--until", metavar="T", help="Only slots up to then: 2027-01-31, '1h ago' (now).")
@click.option("--agent-id", metavar="AGENT", help="Only slots of this agent's schedules.")
@click.option("--id", "id_", metavar="ID", help="Only slots of this schedule.")
def audit_command(session: Session, **options: Any) -> Document:
    """Account for every slot that should have been.

    It exits 1 where a slot has no outcome. Computes the slots from the schedules' own times, as
    they stood, and finds each one's outcome in the log: delivered, failed, skipped and why, in
    flight, in doubt, pending; or unaccounted. Use it to learn what didn't arrive in a while:
    --since '2027-01-30'. Answers with totals, schedules, and undelivered, the slots that weren't
    delivered and why.
    """
    from promptyoself.service.audit.report import audit

    store = session.reading(agent_id=options["agent_id"])
    if options["id_"] is not None:
        options["id_"] = session.schedule_id(options["id_"], store)
    if session.for_people:
        with suppress(PromptyoselfError, OSError):  # the audit says what is wrong with the log
            session.beside["retries"] = retries_of(store)
    try:
        answer: Document = audit(store, now=session.now(), **options)
    except PromptyoselfError as error:
        session.add_names(store, _ids(error.details, "schedules"))
        raise
    session.add_names(store, _ids(answer, "schedules"))
    return answer


def retries_of(store: Store) -> dict[str, str]:
    """When slots are tried again that have begun and are claimed by no worker, by their keys."""
    slots = store.read().state.open.items()
    return {key: slot.retry_at for key, slot in slots if slot.retry_at and not slot.worker}


@command("diff", shows_times=True)
@click.option(
    "--since",
    "--from",
    "from_",
    required=True,
    metavar="T",
    help="2027-01-30T09:00, '2h ago', or an event's number.",
)
@click.option("--to", metavar="T", help="The same (now).")
def diff_command(session: Session, from_: str, to: str | None) -> Document:
    """Say who changed what between two points of the log.

    Use it to see what happened to schedules since some time: --since '2027-01-30T09:00'. Answers
    with changes, a line for each schedule: its fields before and after, and the events.
    """
    from promptyoself.service.audit.diff import diff

    store = session.reading()
    answer = diff(store, from_=from_, to=to, now=session.now())
    session.add_names(store, _ids(answer, "changes"))
    return answer


def _ids(answer: Document, key: str) -> list[str]:
    return [record["id"] for record in answer.get(key, ())]


@command("report", shows_times=True)
@click.option("--since", default="yesterday", metavar="T", help="From then on: 'last night', 2h.")
@click.option("--until", metavar="T", help="Up to then: 'this morning', '1h ago' (now).")
@only_agent_option
@tag_option
@limit_option
def report_command(session: Session, **options: Any) -> Document:
    """Say what was delivered, failed and skipped in a while.

    It adds up by agent and by schedule, and tells the last error of each. It also tells what still
    waits and what is in doubt. Each list has 200 lines at most, unless --limit says another number.
    """
    from promptyoself.service.schedules.outcomes import report

    return report(session.reading(agent_id=options["agent_id"]), now=session.now(), **options)
