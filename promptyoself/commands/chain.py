"""The log: its history, its proof, its index."""

from __future__ import annotations

import sys
from collections import deque
from functools import partial
from itertools import chain
from typing import Any

import click

from promptyoself.commands.answering import Document, Session, Whole, answers
from promptyoself.errors import WrongUsage

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
@click.option("--slot", metavar="T", help="Only what decided the slot of --id at this time.")
@click.option("--limit", type=Whole(1, 10**9), metavar="N", help="Only the newest N.")
@click.option("--ndjson", is_flag=True, help="Stream the events, a line each, as stored.")
@answers
def history_command(
    session: Session, limit: int | None, ndjson: bool, **options: Any
) -> Document | None:
    """Show what happened, oldest first: events, as they are in the log.

    Use it to find out whether a prompt was delivered, when, and why not: with --id, and --limit 10,
    say. Answers with events (seq, ts, type, id, data, …).
    """
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
@click.option("--note", metavar="FILE", help="Prove it of every signed head in FILE; - is stdin.")
@click.option("--key", metavar="PUB", help="The public key of --note: its file, or ed25519:….")
@answers
def verify_command(
    session: Session, head: str | None, note: str | None, key: str | None
) -> Document:
    """Check every event of the log; names the first bad one and exits 1.

    Use it where the history is in question; it reads the whole log. Answers with valid, how many
    events there are, and the head; damage is an error that says where it is.
    """
    from promptyoself.service.keeping import verify

    if note is not None and head is not None:
        raise WrongUsage("conflicting_options", "Both --head and --note were given.", "Give one.")
    if (note is None) != (key is None):
        raise WrongUsage(
            "missing_option",
            "--note and --key go together.",
            "Give the notes, and the public key of whoever signed them.",
        )
    store = session.store()
    check = partial(verify, store, head)
    if note is not None and key is not None:
        from promptyoself.commands.proof import read_notes
        from promptyoself.service.notes import verify_notes

        check = partial(verify_notes, store, read_notes(note, key))
    if not session.watched:
        return check()
    from promptyoself.commands.tables import progress_of

    # By the index as it lies there: reading the log would mend it, and so take away what bears
    # witness where the end was cut off.
    with progress_of("events", store.index.known_seq()) as progress:
        return check(progress)


@click.command("head")
@click.option("--note", is_flag=True, help="Print it as one signed line instead of JSON.")
@click.option("--key", metavar="FILE", help="The private key for --note (else keys/head.key).")
@answers
def head_command(session: Session, note: bool, key: str | None) -> Document | None:
    """Print the log's last event as SEQ:HASH; kept elsewhere, it proves nothing was cut off.

    Use it to note down how far the log has come; `verify` takes it as --head later on. Answers with
    head, seq, hash and ts.
    """
    from promptyoself.service.keeping import head

    if note:
        from promptyoself.commands.proof import print_note

        print_note(session, key)
        return None
    if key is not None:
        raise WrongUsage("missing_option", "--key is for --note.", "Give --note too.")
    return head(session.store())


@click.command("rebuild")
@answers
def rebuild_command(session: Session) -> Document:
    """Make the index anew from the log."""
    from promptyoself.service.keeping import rebuild

    return rebuild(session.store())


@click.command("seal")
@click.option("--month", metavar="YYYY-MM", help="Only this one; else every month that is over.")
@answers
def seal_command(session: Session, month: str | None) -> Document:
    """Rewrite months that are over into large gzip members: the same lines, a third of the size."""
    from promptyoself.service.sealing import seal

    return seal(session.store(), session.now(), month)


@click.command("stats")
@answers
def stats_command(session: Session) -> Document:
    """Count schedules, events and bytes.

    Use it for an overview; `list` names the schedules. Answers with schedules by status, agents,
    open_slots, events, events_by_type and bytes.
    """
    from promptyoself.service.querying import stats

    return stats(session.store())
