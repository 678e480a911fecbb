"""How much of an agent's answers a schedule asks to be kept, and whether its notices can do with
that."""

from __future__ import annotations

from typing import Any

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.settings import Settings
from promptyoself.core.times import shown
from promptyoself.events.kinds import KEEP_REPLY, KeepReply
from promptyoself.events.records import ScheduleRegistered
from promptyoself.rules.notices.replies import kept_of_reply
from promptyoself.state.schedules import Schedule
from promptyoself.store.store import Store

_SETTING = "PROMPTYOSELF_KEEP_REPLY"
_WITH_TEXT: tuple[KeepReply, ...] = ("excerpt", "full")

_KEPT: dict[KeepReply, str] = {
    "none": "nothing is kept of its answers",
    "hash": "only the length and the SHA-256 of its answers are kept",
    "excerpt": "only the first 4 KiB of its answers are kept",
}


def effective(schedule: Schedule | ScheduleRegistered, settings: Settings) -> KeepReply:
    """How much is kept of a schedule's answers."""
    return kept_of_reply(schedule, _ceiling(settings)) or "none"


def shown_retention(schedule: Schedule, settings: Settings) -> dict[str, Any]:
    """What `show` has of a schedule's answers: how much is kept of them, where they go, and where
    failures go; each where there is something to say."""
    keep = effective(schedule, settings)
    said = {
        "keep_reply": keep if keep != "none" or schedule.keep_reply is not None else None,
        "reply_to": schedule.reply_to,
        "failure_to": schedule.failure_to,
    }
    return {name: value for name, value in said.items() if value is not None}


def checked_retention(schedule: Schedule | ScheduleRegistered, settings: Settings) -> list[str]:
    """What to warn somebody of who has said how much is to be kept of answers, or where they are to
    go.

    Raises:
        PromptyoselfError: ``reply_not_kept``: there would be no text for the destination.
    """
    _require_text(schedule, settings)
    warning = _warning_of_less(schedule, settings)
    return [] if warning is None else [warning]


def why_none_is_kept(store: Store, id_: str | None) -> str | None:
    """What keeps answers out of the log, of one schedule or of all; ``None`` where nothing does."""
    if _ceiling(store.settings) == "none":
        return (
            f"No answers are kept, as {_SETTING} says. `promptyoself config set {_SETTING} "
            "excerpt` has those to come kept."
        )
    schedule = store.read().state.schedules.get(id_ or "")
    if schedule is None or effective(schedule, store.settings) != "none":
        return None
    return (
        "No answers to its prompts are kept, as its --keep-reply says. `promptyoself modify "
        f"{schedule.id} --keep-reply excerpt` has those to come kept."
    )


def without_text(schedule: Schedule | ScheduleRegistered, settings: Settings) -> bool:
    """Whether its answers are to go to a destination, and no text is kept of them."""
    return schedule.reply_to is not None and effective(schedule, settings) not in _WITH_TEXT


def _require_text(schedule: Schedule | ScheduleRegistered, settings: Settings) -> None:
    keep = effective(schedule, settings)
    if schedule.reply_to is None or not without_text(schedule, settings):
        return
    own = schedule.keep_reply == keep
    raise PromptyoselfError(
        "reply_not_kept",
        f"--reply-to {shown(schedule.reply_to)} would have nothing to tell: {_KEPT[keep]}, as "
        f"{'--keep-reply' if own else _SETTING} says.",
        f"Give --keep-reply excerpt or full{_AND_SETTING if _ceiling(settings) == keep else ''}."
        if own
        else f"Set {_SETTING} to excerpt or full: `promptyoself config set {_SETTING} excerpt`.",
    )


_AND_SETTING = f", and set {_SETTING} to that"


def _warning_of_less(schedule: Schedule | ScheduleRegistered, settings: Settings) -> str | None:
    keep = effective(schedule, settings)
    if schedule.keep_reply in (None, keep):
        return None
    return (
        f"--keep-reply {schedule.keep_reply} is more than {_SETTING} allows, which is {keep}: "
        f"{_KEPT[keep]}."
    )


def _ceiling(settings: Settings) -> KeepReply:
    """How much the settings allow to be kept."""
    return next(keep for keep in KEEP_REPLY if keep == settings.keep_reply)
