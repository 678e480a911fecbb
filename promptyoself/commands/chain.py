"""The log: its history, its proof, its index."""

from __future__ import annotations

import sys
from collections import deque
from itertools import chain
from typing import Any

import click

from promptyoself.commands.answering import Document, Session, answers

__all__: list[str] = []


@click.command("history")
@click.option("--id", "id_", metavar="ID", help="Only this schedule's events.")
@click.option("--agent-id", metavar="AGENT", help="Only those of this agent's schedules.")
@click.option(
    "--type",
    "type_",
    metavar="TYPE",
    help="Only this type, whole or its first part: delivery, delivery.failed.",
)
@click.option("--since", metavar="T", help="Not before this time.")
@click.option("--until", metavar="T", help="Not after.")
@click.option("--limit", type=click.IntRange(1, 10**9), metavar="N", help="Only the newest N.")
@click.option("--ndjson", is_flag=True, help="Stream the events, a line each, as stored.")
@answers
def history_command(
    session: Session, limit: int | None, ndjson: bool, **options: Any
) -> Document | None:
    """Show what happened, oldest first: events, as they are in the log."""
    from promptyoself.ledger import encode_line
    from promptyoself.service.querying import history

    events = history(session.store(), now=session.now(), **options)
    if limit is not None:
        events = iter(deque(events, limit))
    if not ndjson:
        found = [event._asdict() for event in events]
        return {"events": found, "count": len(found)}
    # An error must be the only document on stdout, so nothing is printed before the first event.
    first = next(events, None)
    for event in chain([first] if first else [], events):
        sys.stdout.buffer.write(encode_line(event) + b"\n")
    sys.stdout.buffer.flush()
    return None


@click.command("verify")
@click.option("--head", metavar="SEQ:HASH", help="Prove that this head is on the chain.")
@answers
def verify_command(session: Session, head: str | None) -> Document:
    """Check every event of the log; names the first bad one and exits 1."""
    from promptyoself.service.keeping import verify

    store = session.store()
    if not sys.stderr.isatty():
        return verify(store, head)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("events", total=store.read().position.seq or None)
        return verify(store, head, lambda seen: bar.update(task, completed=seen))


@click.command("head")
@answers
def head_command(session: Session) -> Document:
    """Print the log's last event as SEQ:HASH; kept elsewhere, it proves nothing was cut off."""
    from promptyoself.service.keeping import head

    return head(session.store())


@click.command("rebuild")
@answers
def rebuild_command(session: Session) -> Document:
    """Make the index anew from the log."""
    from promptyoself.service.keeping import rebuild

    return rebuild(session.store())


@click.command("stats")
@answers
def stats_command(session: Session) -> Document:
    """Count schedules, events and bytes."""
    from promptyoself.service.querying import stats

    return stats(session.store())
