"""Destinations: where answers, failures and digests are told; adding, trying and removing them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

import click

from promptyoself.core.errors import WrongUsage
from promptyoself.core.settings import load_settings, read_sources, settings_path
from promptyoself.doors.command import command
from promptyoself.doors.commands.configuration import is_pinned
from promptyoself.doors.groups import CommandGroup
from promptyoself.doors.output import Document
from promptyoself.doors.session import Session

if TYPE_CHECKING:
    from promptyoself.core.setting_values import Destination

notify_command = CommandGroup(
    "notify",
    "list",
    """Say where answers, failures and digests are told.

    A destination has a name, which `--reply-to` and `--on-failure` take. It is a webhook, another
    agent, or one of the services of Apprise. Without a command it lists all, as `notify list` does.
    """,
)

_name_argument = click.argument("name", metavar="NAME")


@command("list", mends_settings=True)
def list_command(session: Session) -> Document:
    """List the destinations, with how many schedules use each.

    An address is shown without what may be a key. It is told, too, how many notices each has yet
    to take, and why it hasn't.
    """
    from promptyoself.service.notices.destinations import listed, missing, require_operator

    require_operator(session.settings)
    if session.problem is not None:
        raise session.problem
    destinations = session.settings.destinations
    state = session.store().read().state
    for warning in missing(destinations, state):
        session.add_warning(warning)
    entries = listed(destinations, state)
    return {"destinations": entries, "count": len(entries), "file": str(settings_path())}


@command("add", mends_settings=True)
@_name_argument
@click.argument("address", metavar="ADDRESS", required=False)
@click.option("--secret", metavar="TEXT", help="What a webhook is signed with (else one is made).")
@click.option("--replace", is_flag=True, help="Replace the destination that has the name.")
def add_command(
    session: Session, name: str, address: str | None, secret: str | None, replace: bool
) -> Document:
    """Add the destination NAME, by writing it into the file of settings.

    An ADDRESS of https://… is a webhook: it gets JSON, signed with a secret, which is shown once.
    agent:ID is another agent. Others are for Apprise: tgram://…, mailto://…, ntfy://…. For - it is
    read from stdin. If it is left out, you are asked for it, and nothing that you type is shown.
    """
    from promptyoself.core.diagnostics import register_secrets
    from promptyoself.core.setting_values import Destination
    from promptyoself.service.notices import destinations as service

    known = _known(session, service.require_name(name))
    if not replace:
        service.require_free(known, name)
    address = _address(session, name, address).strip()
    register_secrets(*Destination(name, address, secret).secrets)
    prefix, _, agent = address.partition(":")
    if prefix == "agent":
        address = f"agent:{session.agent_named(agent)}"
    added = service.add(settings_path(), known, name, address, secret, replace=replace)
    destination = added.destination
    _warn_of_environment(session, name)
    for warning in service.warnings(destination):
        session.add_warning(warning)
    answer: dict[str, object] = {
        "name": name,
        "kind": destination.kind,
        "address": destination.shown,
        "file": str(settings_path()),
        "changed": added.changed,
        "replaced": added.replaced,
    }
    if added.made_secret:
        answer["secret"] = destination.secret
    kept = " Its secret stays." if added.replaced and not (added.made_secret or secret) else ""
    shown_once = " The receiver needs the secret, which isn't shown again." * added.made_secret
    answer["message"] = (
        f"{name} is {'replaced' if added.replaced else 'added'}: {destination.shown}."
        f"{kept if destination.kind == 'webhook' else ''}{shown_once}"
        f"{'' if destination.kind == 'agent' else f' `promptyoself notify test {name}` tries it.'}"
    )
    return answer


@command("test")
@_name_argument
def test_command(session: Session, name: str) -> Document:
    """Send the destination NAME a notice that says that it is a test.

    Nothing is written to the log. An agent is sent nothing: it would be prompted.
    """
    from promptyoself.service.notices import destinations as service
    from promptyoself.service.notices.trial import try_out

    service.require_operator(session.settings)
    destination = service.require_defined(session.settings.destinations, name)
    return try_out(destination, session.settings.call_timeout, session.now())


@command("remove", mends_settings=True)
@_name_argument
@click.option("--yes", is_flag=True, help="Remove it though schedules use it.")
def remove_command(session: Session, name: str, yes: bool) -> Document:
    """Remove the destination NAME.

    Its address, its secret and the time of its digest are taken out of the file of settings.
    """
    from promptyoself.service.notices import destinations as service

    known = _known(session, name)
    if session.problem is None:
        service.require_defined(known, name)
        if not yes:
            service.require_unused(session.store().read().state, name)
    changed = service.remove(settings_path(), name)
    _warn_of_environment(session, name)
    if session.problem is None:
        state = session.store().read().state
        for warning in service.missing(load_settings().destinations, state, name):
            session.add_warning(warning)
    outcome = "removed" if changed else "not in the file of settings"
    return {
        "name": name,
        "file": str(settings_path()),
        "changed": changed,
        "message": f"{name} is {outcome}.",
    }


@command("digest", mends_settings=True)
@_name_argument
@click.option("--at", metavar="TIME", help="The time of day of the digest: 08:00.")
@click.option("--tz", metavar="ZONE", help="The time zone of that time (else PROMPTYOSELF_TZ).")
@click.option("--off", is_flag=True, help="Send no digest any more.")
def digest_command(
    session: Session, name: str, at: str | None, tz: str | None, off: bool
) -> Document:
    """Have the destination NAME told each day what happened.

    A digest tells of all agents: what was delivered, what failed, and what is to come.
    """
    from promptyoself.core.settings import default_zone
    from promptyoself.service.notices import destinations as service

    if off and (at is not None or tz is not None):
        message = "--off was given together with a time."
        raise WrongUsage("conflicting_options", message, "Leave out one of them.")
    if not off and at is None:
        raise WrongUsage(
            "missing_option", "There is no --at.", "Give --at 08:00, or --off for no digest."
        )
    known = _known(session, name)
    if session.problem is None:
        service.require_defined(known, name)
    digest = None if at is None else service.digest_text(at, tz)
    changed = service.set_digest(settings_path(), name, digest)
    _warn_of_environment(session, name)
    answer: dict[str, object] = {"name": name, "digest": digest, "changed": changed}
    if digest is None:
        return answer | {"message": f"{name} gets no digest."}
    zone = digest.partition(" ")[2] or default_zone(session.settings)
    moment = digest.partition(" ")[0]
    return answer | {
        "timezone": zone,
        "message": f"{name} gets a digest each day at {moment} ({zone}).",
    }


for _command in (add_command, list_command, test_command, remove_command, digest_command):
    notify_command.add_command(_command)


def _known(session: Session, name: str) -> Mapping[str, Destination]:
    """The destinations that there are, for a command that changes that one.

    Where a setting of it is what can't be read, there are none, and the change may mend it.
    """
    from promptyoself.core.setting_values import destination_of
    from promptyoself.service.notices.destinations import require_operator

    require_operator(session.settings)
    problem = session.problem
    if problem is None:
        return session.settings.destinations
    pinned = is_pinned(session, read_sources(var=session.var))
    if destination_of(str(problem.details.get("setting"))) != name or pinned:
        raise problem
    return {}


def _address(session: Session, name: str, address: str | None) -> str:
    if address == "-":
        return sys.stdin.readline()
    if address is not None:
        return address
    if not session.at_terminal:
        _refuse_without_address(name)
    typed: str = click.prompt(f"The address of {name}", hide_input=True, err=True)
    return typed


def _refuse_without_address(name: str) -> NoReturn:
    raise WrongUsage(
        "missing_option",
        f"There is no address for {name}.",
        f"`promptyoself notify add {name} ADDRESS` adds it; with - for ADDRESS, that is read from "
        "stdin.",
    )


def _warn_of_environment(session: Session, name: str) -> None:
    """Warn where the environment has a setting of that destination, since it comes first."""
    from promptyoself.core.setting_values import destination_of

    for setting in sorted(os.environ):
        if destination_of(setting) == name:
            session.add_warning(f"{setting} is set in the environment, which comes first.")
