"""Schedules in the hands of people: taking back a change."""

from __future__ import annotations

from functools import partial

import click

from promptyoself.doors.command import command
from promptyoself.doors.options import dry_run_option, reason_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session


@command("undo")
@click.option("--id", "id_", metavar="ID", help="Its last change (else your own latest one).")
@reason_option
@dry_run_option
def undo_command(session: Session, id_: str | None, reason: str | None, dry_run: bool) -> Document:
    """Take back the last change of a schedule.

    A schedule that was modified is as it was before, a paused one runs again, a new one is
    cancelled, and a delivery that `trigger` asked for and that nobody has begun is dropped. The log
    keeps both changes. Undoing an undo does the change again. What was sent stays sent.
    """
    from promptyoself.service.schedules.undo import undo

    now = session.now()
    return session.scheduled(partial(undo, id_=id_, reason=reason, now=now, dry_run=dry_run))
