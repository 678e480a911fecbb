"""Moving house: schedules out of one data directory, and into another."""

from __future__ import annotations

import io
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from promptyoself.core.errors import PromptyoselfError, WrongUsage
from promptyoself.doors.command import command
from promptyoself.doors.options import dry_run_option, only_agent_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from datetime import datetime

    from promptyoself.service.files.registrations import Tell
    from promptyoself.store.store import Store

_file = click.argument("file", metavar="FILE")


@command("export")
@only_agent_option
@click.option("--answers", is_flag=True, help="What agents have answered instead, for other tools.")
@click.option("--out", metavar="FILE", help="Write to this file, which must be new, not to stdout.")
def export_command(
    session: Session, agent_id: str | None, answers: bool, out: str | None
) -> Document | None:
    """Write every schedule that isn't over, for `import`.

    Each is a line of JSON. Stop the loop first: a prompt that two machines have is delivered by
    both.
    """
    from promptyoself.core.disk import Disk
    from promptyoself.core.new_file import new_file
    from promptyoself.service.transfer.export import export_lines

    store = session.reading(agent_id=agent_id)
    lines = (_answer_lines if answers else export_lines)(store, agent_id, session.now())
    content = b"".join(line + b"\n" for line in lines)
    if out is None:
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()
        return None
    if not out:
        raise WrongUsage("invalid_value", "--out is empty.", "Name a new file, or leave it out.")
    with new_file(Disk(), Path(out)) as (file, _):
        file.write(content)
    count = len(lines)
    what = ("answer" if answers else "schedule") + ("" if count == 1 else "s")
    message = f"{count} {what} exported."
    return {"file": out, "count": count, "message": message}


def _answer_lines(store: Store, agent_id: str | None, now: datetime) -> list[bytes]:
    """The lines that `replies --ndjson` prints."""
    import orjson

    from promptyoself.service.schedules.replies.listing import filters_of_replies, replies

    filters = filters_of_replies(store, None, agent_id=agent_id, since=None, until=None, now=now)
    return [orjson.dumps(reply) for reply in replies(store, filters)]


@command("import")
@_file
@click.option("--partial", is_flag=True, help="Take the good lines even if others are bad.")
@dry_run_option
def import_command(session: Session, file: str, partial: bool, dry_run: bool) -> Document:
    """Take in the schedules that `export` wrote to FILE.

    For stdin, FILE is -. The ids stay. Known ones are skipped, so it can be run again. All lines
    are checked first; where one is bad, nothing is imported.
    """
    from promptyoself.service.transfer.import_lines import import_lines

    def import_file(store: Store) -> Document:
        with opened(file) as content:
            return import_lines(store, content, session.now(), partial=partial, dry_run=dry_run)

    return session.scheduled(import_file)


@command("import-sqlite")
@_file
@click.option(
    "--tz", "timezone", metavar="ZONE", help="Time zone of the cron expressions in it (UTC)."
)
@dry_run_option
def import_sqlite_command(
    session: Session, file: str, timezone: str | None, dry_run: bool
) -> Document:
    """Bring over the schedules of an SQLite-based promptyoself.

    FILE is its database. That is only read. Known schedules are skipped, so it can be run again.
    Rows that can't be taken are listed, each with the reason.
    """
    from promptyoself.service.transfer.import_sqlite import import_sqlite

    return session.scheduled(
        lambda store: import_sqlite(store, file, timezone, session.now(), dry_run=dry_run)
    )


@command("import-crontab")
@_file
@click.option("--system", is_flag=True, help="Each line names a user, as in /etc/crontab.")
@click.option(
    "--tz", "timezone", metavar="ZONE", help="Zone of lines for which it sets no CRON_TZ."
)
@dry_run_option
def import_crontab_command(
    session: Session, file: str, system: bool, timezone: str | None, dry_run: bool
) -> Document:
    """Register what a crontab tells agents.

    For stdin, FILE is -, as in `crontab -l | promptyoself import-crontab -`. A line is taken if its
    command gives an agent and a text: --agent-id and --prompt, say, or a curl of an agent's
    messages. Every other line is reported with the reason. The crontab itself stays as it is.
    """
    from promptyoself.service.files.crontab import MAX_BYTES, import_crontab

    with opened(file) as source:
        content = source.read(MAX_BYTES + 1)
    now = session.now()
    return session.scheduled(
        lambda store: import_crontab(
            store,
            content,
            timezone,
            now,
            system=system,
            dry_run=dry_run,
            tell=beside(session),
        )
    )


@command("import-letta-cron")
@_file
@only_agent_option
@dry_run_option
def import_letta_cron_command(
    session: Session, file: str, agent_id: str | None, dry_run: bool
) -> Document:
    """Bring over the schedules of `letta cron`.

    FILE is Letta Code's ~/.letta/crons.json; - is stdin. That is only read. A task is taken if it
    can be said here. Every other task is reported with the reason, and so is what is different
    afterwards. Known schedules are left as they are, so it can be run again.
    """
    from promptyoself.service.files.letta_cron import MAX_BYTES, import_letta_cron

    with opened(file) as source:
        content = source.read(MAX_BYTES + 1)
    now = session.now()
    return session.scheduled(
        lambda store: import_letta_cron(
            store, content, agent_id, now, dry_run=dry_run, tell=beside(session)
        )
    )


def beside(session: Session) -> Tell | None:
    """Puts what people are shown of schedules beside the answer, where a person reads it."""
    if not session.for_people:
        return None
    return lambda schedules: session.beside.update(schedules=schedules)


def opened(source: str) -> AbstractContextManager[BinaryIO]:
    """A file that a caller names; - is stdin. Raises ``unreadable_file``."""
    if source == "-":
        return nullcontext(sys.stdin.buffer if sys.stdin is not None else io.BytesIO())
    try:
        return open(source, "rb")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{source!r} can't be read: {reason}."
        raise PromptyoselfError(
            "unreadable_file", message, "Check the path; - means stdin."
        ) from None
