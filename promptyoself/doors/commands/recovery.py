"""`recover`: bring a damaged or cut log back into service."""

from __future__ import annotations

import sys
from typing import Any

import click

from promptyoself.doors.command import command
from promptyoself.doors.options import reason_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("recover")
@click.option(
    "--chain",
    "name",
    type=click.Choice(["schedules", "desires"]),
    help="Only this log: that of the schedules, or that of the desires.",
)
@click.option("--dry-run", is_flag=True, help="Say what is lost and what would be done.")
@click.option("--yes", is_flag=True, help="Don't ask before the log is changed.")
@click.option(
    "--from-index",
    is_flag=True,
    help="Put back, by new events, what the index still knows and the log has lost.",
)
@reason_option
def recover_command(session: Session, yes: bool, reason: str | None, **options: Any) -> Document:
    """Bring a damaged or cut log back into service. Everything sound stays in force.

    Use it where commands refuse with events_missing or corrupt_chain, and no backup has what is
    missing. It states in the log what is lost, and keeps the damaged bytes in the quarantine.
    `verify` tells of it from then on. Look at it with --dry-run first.
    """
    from promptyoself.core.text_limits import MAX_REASON, check_text
    from promptyoself.service.upkeep.recover import recover

    check_text("reason", reason, MAX_REASON)

    def agree(shown: Document) -> bool:
        return yes or _is_confirmed(session, shown)

    return recover(session.store().unpinned, session.now(), reason=reason, agree=agree, **options)


def _is_confirmed(session: Session, shown: Document) -> bool:
    """Ask the person at the terminal; nobody is there to ask elsewhere."""
    if session.caller.stop is not None or sys.stdin is None or not sys.stdin.isatty():
        return False
    print(f"promptyoself: {shown['message']}", file=sys.stderr)
    for gap in shown["gaps"]:
        until = f"event {gap['first']}" if "first" in gap else "the end"
        print(f"  {gap['lost']} lost between event {gap['after']} and {until}", file=sys.stderr)
    print("Bring the log back into service like that? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
