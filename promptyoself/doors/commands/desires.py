"""Desires: what an agent would like, and how much."""

from typing import Any

import click

from promptyoself.doors.command import command
from promptyoself.doors.options import (
    dry_run_option,
    limit_option,
    only_agent_option,
    reason_option,
    tag_option,
)
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("desire")
@click.option("--agent-id", metavar="AGENT", help="The agent that would like it.")
@click.option("--text", required=True, metavar="TEXT", help="What it would like.")
@click.option("--strength", type=float, default=0.5, metavar="S", help="From 0 to 1.")
@tag_option
@reason_option
def desire_command(session: Session, agent_id: str | None, **options: Any) -> Document:
    """Record something that an agent would like to do or have.

    Nothing is scheduled. Use it to keep an idea for later: it fades with time unless `reinforce`
    strengthens it. Look with `desires` first whether it is there already: the same text again is
    another desire. Answers with its id.
    """
    from promptyoself.service.desires.manage import record

    return record(session.store(), agent_id, now=session.now(), **options)


@command("desires", shows_times=True)
@only_agent_option
@click.option(
    "--min-strength", type=float, metavar="S", help="Only those of at least this strength."
)
@tag_option
@click.option("--query", metavar="WORDS", help="Only those with all these words.")
@limit_option
@click.option(
    "--at", metavar="T", help="As it was then: 2027-01-30T09:00, '2h ago', or an event's number."
)
def desires_command(session: Session, **options: Any) -> Document:
    """List desires, the strongest first.

    Each is as strong as it is now. Use it to see what an agent would like, and to find an id.
    Answers with desires (id, agent_id, text, tags, strength, …) and their count.
    """
    from promptyoself.service.desires.manage import list_desires

    return list_desires(session.reading(agent_id=options["agent_id"]), now=session.now(), **options)


@command("reinforce")
@click.option("--id", "id_", required=True, metavar="ID", help="The desire: des_… .")
@click.option(
    "--by", type=float, default=0.1, metavar="S", help="How much to add: more than 0, at most 1."
)
@reason_option
def reinforce_command(session: Session, id_: str, by: float, reason: str | None) -> Document:
    """Strengthen a desire: add to what is left of it, up to 1.

    Use it where a desire still matters. Answers with its strength before and after.
    """
    from promptyoself.service.desires.manage import reinforce

    return reinforce(session.store(), id_, by, session.now(), reason=reason)


@command("prune")
@click.option("--below", type=float, required=True, metavar="S", help="From 0 to 1.")
@only_agent_option
@reason_option
@dry_run_option
def prune_command(session: Session, below: float, **options: Any) -> Document:
    """Let go of desires that have faded below a strength.

    They are listed no more. The log keeps them. Try it with --dry-run first. Answers with those
    that were pruned.
    """
    from promptyoself.service.desires.manage import prune

    return prune(session.store(), below, session.now(), **options)
