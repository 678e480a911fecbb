"""Approvals, which are for people alone: give one, see what there are, take one back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.visible import visible
from promptyoself.doors.command import command
from promptyoself.doors.options import Whole, reason_option, schedule_option
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.store.store import Store


@command("approve")
@schedule_option()
@click.option(
    "--ttl", metavar="DURATION", help="How long it holds. Default: until --uses slots are over."
)
@click.option("--uses", type=Whole(), default=1, help="How many deliveries it allows.")
@click.option(
    "--content",
    metavar="SHA256",
    help="The content_sha256 from `show`. A schedule that was changed since is refused.",
)
@click.option("--allow-trigger", is_flag=True, help="Deliveries that `trigger` asks for count too.")
@reason_option
def approve_command(
    session: Session,
    id_: str,
    ttl: str | None,
    uses: int,
    content: str | None,
    allow_trigger: bool,
    reason: str | None,
) -> Document:
    """Allow deliveries of a schedule of tier 2, as it now is.

    Look at it first with `show`, and give its content_sha256 as --content: what was changed since
    is then refused. Without it, at a terminal, the schedule is shown, and you are asked. Changing
    the schedule voids the approval. Agents can't call this.
    """
    from promptyoself.service.schedules.approvals import approve

    store = session.store()
    id_ = session.schedule_id(id_, store)
    if content is None and session.at_terminal:
        content = _read_and_asked(session, store, id_)
    answer = approve(
        store, id_, ttl, uses, reason, session.now(), content=content, allow_trigger=allow_trigger
    )
    session.warn_if_nothing_delivers(store)
    return answer


def _read_and_asked(session: Session, store: Store, id_: str) -> str:
    """The hash of the schedule, once a person has read it and said yes."""
    from promptyoself.service.schedules.approvals import require_person
    from promptyoself.service.schedules.views import show

    require_person(store)
    schedule = show(store, id_, now=session.now())
    fields: Mapping[str, object] = schedule
    for name in _READ:
        if fields.get(name) not in (None, False, 0):
            told = visible(_in_words(session, name, fields[name]), one_line=True)
            click.echo(f"{name.replace('_', ' ')}: {told}", err=True)
    if schedule.get("invisible"):
        click.echo(f"invisible characters: {schedule['invisible']}, shown as escapes", err=True)
    template = schedule["template"]
    text = f"template {template}" if template else visible(schedule["prompt"])
    click.echo(f"\n{text}\n", err=True)
    if not click.confirm(f"Approve {id_} as shown?", err=True):
        raise PromptyoselfError("not_confirmed", "Nothing was approved.", "")
    return str(schedule["content_sha256"])


def _in_words(session: Session, name: str, value: object) -> str:
    """A field of a schedule as people say it."""
    from promptyoself.doors.terminal.moments import length_of_seconds

    if name in ("grace", "jitter"):
        return length_of_seconds(float(str(value))) or str(value)
    if re.fullmatch(_INSTANT, str(value)):
        return session.moment(str(value))
    return str(value)


_INSTANT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{6}Z"

_READ = (
    *("id", "agent_id", "target", "conversation_id", "name"),
    *("schedule_type", "schedule_value", "timezone"),
    *("next_run", "start_at", "until", "max_repetitions", "misfire", "grace", "jitter"),
    *("envelope", "on_failure", "failure_to", "tier", "daily_budget", "keep_reply", "reply_to"),
)


@command("approvals", shows_times=True)
def approvals_command(session: Session) -> Document:
    """List approvals, and what is left of each.

    It says until when each holds, and whether it counts.
    """
    from promptyoself.service.schedules.approvals import list_approvals

    store = session.reading()
    answer = list_approvals(store, session.now())
    session.add_names(store, (approval["id"] for approval in answer["approvals"]))
    return answer


@command("revoke")
@schedule_option()
@reason_option
def revoke_command(session: Session, id_: str, reason: str | None) -> Document:
    """Take back what is left of a schedule's approval."""
    from promptyoself.service.schedules.approvals import revoke

    store = session.store()
    return revoke(store, session.schedule_id(id_, store), reason, session.now())
