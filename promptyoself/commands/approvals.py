"""Approvals, which are for people alone: give one, see what there are, take one back."""

from __future__ import annotations

import click

from promptyoself.commands.answering import Document, Session, Whole, answers

__all__: list[str] = []

_id = click.option("--id", "id_", required=True, metavar="ID", help="The schedule: sch_… .")
_reason = click.option("--reason", metavar="TEXT", help="Why; kept in the history.")


@click.command("approve")
@_id
@click.option(
    "--ttl",
    metavar="DURATION",
    help="How long it holds; by default until as many slots as there are uses are over.",
)
@click.option("--uses", type=Whole(), default=1, show_default=True, help="So many deliveries.")
@_reason
@answers
def approve_command(
    session: Session, id_: str, ttl: str | None, uses: int, reason: str | None
) -> Document:
    """Allow deliveries of a schedule of tier 2, as it now is.

    Look at it first with `show`. Changing the schedule voids the approval. Agents can't call this.
    """
    from promptyoself.service.approving import approve

    store = session.store()
    answer = approve(store, id_, ttl, uses, reason, session.now())
    session.tell_absence(store)
    return answer


@click.command("approvals")
@answers
def approvals_command(session: Session) -> Document:
    """List approvals: what is left of each, until when, and whether it counts."""
    from promptyoself.service.approving import list_approvals

    return list_approvals(session.reading(), session.now())


@click.command("revoke")
@_id
@_reason
@answers
def revoke_command(session: Session, id_: str, reason: str | None) -> Document:
    """Take back what is left of a schedule's approval."""
    from promptyoself.service.approving import revoke

    return revoke(session.store(), id_, reason, session.now())
