"""Destinations as people define them: adding, listing and removing them in the file of settings.

Addresses and secrets are in that file alone. No answer has an address, and a secret is in one
answer, when it was made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from promptyoself.core.addresses import is_loopback
from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.setting_values import (
    DESTINATION,
    DIGEST,
    WEBHOOK_SECRET,
    Destination,
    check_destination_setting,
    destination_setting,
    digest_time,
    is_destination_name,
    other_destinations,
    shown_name,
    wanted_address,
)
from promptyoself.core.settings import Settings
from promptyoself.core.times import shown
from promptyoself.events.kinds import FINISHED
from promptyoself.service.notices.services import is_installed, is_known, not_installed
from promptyoself.service.setup.settings_file import change_settings
from promptyoself.state.schedules import OwedNotice, Schedule, State
from promptyoself.store.access import forbidden

SECRET_BYTES = 32
"""Of a secret that is made here. The specification asks for 24 to 64."""

_MOST_NAMED = 5

_OWN_FORMS = {
    "hooks.slack.com": "slack",
    "discord.com": "discord",
    "discordapp.com": "discord",
    "api.telegram.org": "tgram",
    "ntfy.sh": "ntfy",
}
"""Hosts that people give as webhooks and that are none in our sense, with Apprise's name of each.
"""


class Added(NamedTuple):
    """What was done to add a destination."""

    destination: Destination
    replaced: bool
    made_secret: bool  # rather than taken from the caller, or kept
    changed: bool  # whether the file had something else before


def require_operator(settings: Settings) -> None:
    """Refuse a caller who is pinned to an agent: where notices go is the operator's choice.

    Raises:
        PromptyoselfError: ``forbidden_agent``.
    """
    if settings.only_agent is not None:
        raise forbidden(
            "Destinations are the operator's, and this caller is pinned to", settings.only_agent
        )


def require_name(name: str) -> str:
    """Refuse what can't be a destination's name.

    Raises:
        PromptyoselfError: ``invalid_destination``.
    """
    if not is_destination_name(name):
        raise PromptyoselfError(
            "invalid_destination",
            f"No destination can have the name {shown_name(name)}.",
            "A name has small letters, digits and -, begins with a letter, and has 40 characters "
            "at most.",
        )
    return name


def require_defined(destinations: Mapping[str, Destination], name: str) -> Destination:
    """The destination of that name.

    Raises:
        PromptyoselfError: ``unknown_destination``, with the names that there are.
    """
    if name in destinations:
        return destinations[name]
    raise PromptyoselfError(
        "unknown_destination",
        f"There is no destination by the name {shown_name(name)}.",
        other_destinations(destinations, name),
        candidates=list(destinations),
    )


def require_free(known: Mapping[str, Destination], name: str) -> None:
    """Refuse the name of a destination that there is.

    Raises:
        PromptyoselfError: ``destination_taken``.
    """
    if name in known:
        raise PromptyoselfError(
            "destination_taken",
            f"There is a destination {name} already: {known[name].shown}.",
            "Choose another name; or add --replace, which keeps its digest, and a webhook's "
            "secret.",
        )


def require_address(address: str) -> str:
    """Refuse what can't be an address. It isn't shown, since it may have a key in it.

    Raises:
        PromptyoselfError: ``invalid_destination``.
    """
    wanted = wanted_address(address)
    if wanted is not None:
        raise PromptyoselfError(
            "invalid_destination",
            f"What was given is not {wanted}.",
            "Give https://… for a webhook, agent:ID for an agent, or an address of one of "
            "Apprise's services: https://github.com/caronc/apprise/wiki has them.",
        )
    return address


def add(
    path: Path,
    known: Mapping[str, Destination],
    name: str,
    address: str,
    secret: str | None,
    *,
    replace: bool,
) -> Added:
    """Write a destination into the file of settings.

    ``secret`` is what a webhook is to be signed with. Without it, one that is replaced keeps its
    own, and else one is made.

    Raises:
        PromptyoselfError: ``invalid_destination``, ``destination_taken``; ``invalid_setting``: the
            file can't be understood.
        OSError: the file can't be written; it is then as it was.
    """
    before = known.get(require_name(name))
    if not replace:
        require_free(known, name)
    destination = Destination(name, require_address(address))
    if destination.kind == "apprise" and is_installed() and not is_known(address):
        raise PromptyoselfError(
            "invalid_destination",
            f"Apprise doesn't understand that address, which begins with {destination.shown}.",
            "Check its parts: https://github.com/caronc/apprise/wiki says how the address of each "
            "service is written.",
        )
    if destination.kind != "webhook":
        if secret is not None:
            raise PromptyoselfError(
                "invalid_destination",
                f"--secret was given, but {destination.shown} is no webhook.",
                "Leave it out: only webhooks are signed.",
            )
        made = False
    else:
        if secret is not None:
            _require_secret(secret)
        kept = secret or (before.secret if before is not None else None)
        made = kept is None
        secret = kept or new_secret()
    digest = before.digest if before is not None else None
    destination = destination._replace(secret=secret, digest=digest)
    changes = {DESTINATION: address, WEBHOOK_SECRET: secret}
    changed = change_settings(
        path, {destination_setting(prefix, name): value for prefix, value in changes.items()}
    )
    return Added(destination, before is not None, made, changed != [])


def _require_secret(secret: str) -> None:
    try:
        check_destination_setting(WEBHOOK_SECRET, secret)
    except PromptyoselfError:
        raise PromptyoselfError(
            "invalid_destination",
            "--secret isn't whsec_ and 24 to 64 bytes in base64.",
            "Leave it out, and one is made.",
        ) from None


def new_secret() -> str:
    """A secret for a webhook, which nobody can guess."""
    import secrets
    from base64 import b64encode

    return f"whsec_{b64encode(secrets.token_bytes(SECRET_BYTES)).decode()}"


def remove(path: Path, name: str) -> bool:
    """Take a destination, its secret and its digest out of the file. Returns whether anything of
    it was there.

    Raises:
        PromptyoselfError: ``invalid_setting``: the file can't be understood.
        OSError: the file can't be written; it is then as it was.
    """
    gone = {destination_setting(prefix, name) for prefix in (DESTINATION, WEBHOOK_SECRET, DIGEST)}
    return change_settings(path, dict.fromkeys(gone)) != []


def set_digest(path: Path, name: str, digest: str | None) -> bool:
    """Write the time of a destination's digest into the file, or take it out. Returns whether that
    changed it.

    Raises:
        PromptyoselfError: ``invalid_setting``: the file can't be understood.
        OSError: the file can't be written; it is then as it was.
    """
    return change_settings(path, {destination_setting(DIGEST, name): digest}) != []


def digest_text(at: str, zone: str | None) -> str:
    """A digest's time as the settings have it.

    Raises:
        PromptyoselfError: ``invalid_destination``; ``unknown_zone`` where there is no such
            zone.
    """
    from promptyoself.core.times import parse_zone

    time = digest_time(at)
    if time is None or time[1] is not None:
        raise PromptyoselfError(
            "invalid_destination",
            f"--at {shown(at)} is no time of day such as 08:00.",
            "Give hours and minutes, and the zone with --tz.",
        )
    spelled = time[0].isoformat("minutes")
    return spelled if zone is None else f"{spelled} {parse_zone(zone)}"


def users(schedules: Iterable[Schedule], name: str) -> list[Schedule]:
    """The schedules that aren't over and tell that destination of something."""
    return [
        schedule
        for schedule in schedules
        if name in (schedule.reply_to, schedule.failure_to) and schedule.status not in FINISHED
    ]


def require_unused(state: State, name: str) -> None:
    """Refuse to remove a destination that schedules use.

    Raises:
        PromptyoselfError: ``destination_in_use``, with the ids of those schedules.
    """
    ids = [schedule.id for schedule in users(state.schedules.values(), name)]
    if not ids:
        return
    more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
    uses = "schedule uses" if len(ids) == 1 else "schedules use"
    raise PromptyoselfError(
        "destination_in_use",
        f"{len(ids)} {uses} the destination {name}: {', '.join(ids[:_MOST_NAMED])}{more}.",
        f"`promptyoself modify --id {ids[0]} --reply-to '' --on-failure ''` has it use none. Or "
        "add --yes: what they would tell is then told to nobody.",
        ids=ids,
    )


def missing(
    destinations: Mapping[str, Destination], state: State, name: str | None = None
) -> Iterator[str]:
    """A sentence on each destination that isn't defined though schedules name it, or notices wait
    for it; with ``name`` on that one alone."""
    uses, owed = _uses(state), Counter(notice.to for notice in state.notices.values())
    for other in sorted({*uses, *owed} - {*destinations}):
        if name in (None, other):
            waiting = [
                f"{count:,} {noun}{'s' * (count > 1)}"
                for count, noun in ((uses[other], "schedule"), (owed[other], "notice"))
                if count
            ]
            verb = "is" if uses[other] + owed[other] == 1 else "are"
            yield (
                f"{' and '.join(waiting)} {verb} for {other}, and no destination has that name. "
                f"`promptyoself notify add {other}` adds it. A notice that isn't taken is given up "
                "after 3 days."
            )


def _uses(state: State) -> Counter[str]:
    """How many schedules that aren't over tell each destination of something."""
    uses: Counter[str] = Counter()
    for schedule in state.schedules.values():
        if schedule.status not in FINISHED:
            named = {schedule.reply_to, schedule.failure_to}
            uses.update(name for name in named if name is not None)
    return uses


def listed(destinations: Mapping[str, Destination], state: State) -> list[dict[str, Any]]:
    """The destinations as `notify list` answers them: without addresses and secrets, with how many
    schedules use each, and with the notices that it has yet to take."""
    uses = _uses(state)
    owed: dict[str, list[OwedNotice]] = {}
    for notice in state.notices.values():
        owed.setdefault(notice.to, []).append(notice)
    return [
        _entry(destination, uses[name], owed.get(name, []))
        for name, destination in destinations.items()
    ]


def _entry(destination: Destination, uses: int, owed: list[OwedNotice]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": destination.name,
        "kind": destination.kind,
        "address": destination.shown,
    }
    if destination.kind == "webhook":
        entry["signed"] = destination.secret is not None
    if destination.digest is not None:
        entry["digest"] = destination.digest
    entry |= {"schedules": uses, "owed": len(owed)}
    failing = [notice for notice in owed if notice.code is not None]
    if failing:
        latest = max(failing, key=lambda notice: notice.tries)
        entry |= {"failing": latest.code, "tries": latest.tries}
        if latest.retry_at is not None:
            entry["retry_at"] = latest.retry_at
    return entry


def warnings(destination: Destination) -> Iterator[str]:
    """What a person who adds a destination should know of it."""
    if destination.kind == "apprise" and not is_installed():
        missing = not_installed()
        yield f"{missing.message} {missing.hint}"
    if destination.kind != "webhook":
        return
    from urllib.parse import urlsplit

    host = urlsplit(destination.address).hostname or ""
    if destination.address.lower().startswith("http://") and not is_loopback(host):
        yield (
            "The address begins with http://, so notices can be read on their way. Use https:// "
            "where the receiver has it."
        )
    if (scheme := _OWN_FORMS.get(host)) is not None:
        yield (
            f"{host} takes messages of its own form only, not those of a webhook. Give an address "
            f"that begins with {scheme}://, and Apprise sends them."
        )
