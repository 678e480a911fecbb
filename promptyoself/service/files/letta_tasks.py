"""A task of Letta Code's own scheduler, and the registration that says the same here.

What a task means was found out from the scheduler of letta 0.34.12. Pure functions.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from promptyoself.core.instants import format_utc
from promptyoself.core.text_limits import MAX_REASON
from promptyoself.core.times import parse_zone, shown
from promptyoself.events.target_names import DEFAULT, implied_target, stored_conversation
from promptyoself.service.schedules.request import Request

_OVER = {
    "fired": "It has fired.",
    "missed": "Its time was missed.",
    "cancelled": "It is cancelled.",
}


class Taken(NamedTuple):
    """What a task is here."""

    request: Request
    is_paused: bool
    notes: tuple[str, ...]  # what is different for it, in sentences


class NotTaken(Exception):
    """A task can't be said here. The text says why, in a sentence."""


def taken(task: Mapping[str, Any], now: datetime) -> Taken:
    """The registration of a task, whose values may be of any type.

    Raises:
        NotTaken: it is over, its time has passed, or a value isn't what the scheduler writes.
        PromptyoselfError: ``unknown_zone``, ``ambiguous_zone``.
    """
    status = _text(task, "status")
    if status in _OVER:
        raise NotTaken(_OVER[status])
    if status not in ("active", "paused"):
        raise NotTaken(f"Its status {shown(status)} isn't known.")
    agent_id, name = _text(task, "agent_id"), _text(task, "name")
    asked: dict[str, Any] = {
        "agent_id": agent_id,
        "name": name,
        "prompt": _text(task, "prompt"),
        "conversation_id": _conversation(task, agent_id),
        "timezone": parse_zone(_text(task, "timezone")),
        "envelope": True,
        "reason": _reason(task),
    }
    notes = ["It is paused here too: `resume` lets it run."] if status == "paused" else []
    if task.get("recurring") is True:
        cron = _text(task, "cron")
        asked["cron"] = expression(cron)
        if asked["cron"] != cron:
            notes.append(f"Its {shown(cron)} is written as {shown(asked['cron'])} here.")
    elif task.get("recurring") is False:
        at = _instant(task, "scheduled_for")
        if at is None:
            raise NotTaken("It has no time in scheduled_for.")
        if at <= now:
            raise NotTaken(f"Its time, {format_utc(at)}, has passed.")
        asked["time"] = format_utc(at)
    else:
        raise NotTaken("Its recurring is neither true nor false.")
    expiry = _instant(task, "expires_at")
    if expiry is not None and expiry <= now:
        raise NotTaken(f"It has expired, at {format_utc(expiry)}.")
    if expiry is not None and "cron" in asked:
        asked["until"] = format_utc(expiry)
        notes.append(f"It ends at its expiry, {asked['until']}, which Letta Code 0.34 passes over.")
    if implied_target(agent_id) == "letta":
        notes.append(
            "Its agent isn't one of this machine's. Its prompts go to the Letta server of "
            "LETTA_BASE_URL, without the tools that Letta Code has here."
        )
    notes += [*_jitter(task), *_description(task, name)]
    return Taken(Request(**asked), status == "paused", tuple(notes))


def _text(task: Mapping[str, Any], key: str) -> str:
    value = task.get(key)
    if isinstance(value, str) and value:
        return value
    what = "time zone (timezone)" if key == "timezone" else key
    raise NotTaken(f"It has no {what}." if not value else f"Its {what} is no text.")


def _instant(task: Mapping[str, Any], key: str) -> datetime | None:
    value = task.get(key)
    if value is None:
        return None
    try:
        instant = datetime.fromisoformat(value)
        if instant.tzinfo is None:
            raise ValueError
        return instant.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise NotTaken(f"Its {key} {shown(str(value))} is no time.") from None


def _conversation(task: Mapping[str, Any], agent_id: str) -> str | None:
    """The conversation as `register` takes it; ``None`` where it is the one that the target has
    without asking."""
    asked = task.get("conversation_id") or DEFAULT
    if not isinstance(asked, str):
        raise NotTaken("Its conversation_id is no text.")
    return stored_conversation(implied_target(agent_id), asked)


def _reason(task: Mapping[str, Any]) -> str:
    about = task.get("description")
    told = f": {about}" if isinstance(about, str) and about else ""
    reason = f"import-letta-cron, task {task['id']}{told}"[:MAX_REASON]
    return "".join("?" if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in reason)


def _jitter(task: Mapping[str, Any]) -> Iterator[str]:
    offset = task.get("jitter_offset_ms")
    if type(offset) in (int, float) and offset:
        when = "after" if offset > 0 else "before"
        yield f"Letta Code fires it {abs(offset) / 1000:.1f} s {when} its time; here, at its time."


def _description(task: Mapping[str, Any], name: str) -> Iterator[str]:
    about = task.get("description")
    if isinstance(about, str) and about and about not in (name, task["prompt"]):
        yield f"Its description, {shown(about)}, is kept as the reason, and isn't sent."


_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
_DAY, _MONTH, _WEEKDAY = 2, 3, 4


def expression(cron: str) -> str:
    """A cron expression of Letta Code's in the words of ours, with the same meaning.

    Letta Code counts a step of days of the month and of months from 0, so ``*/5`` is 5, 10, 15;
    here it is 1, 6, 11. Where both the day of the month and the weekday are restricted, it takes
    either, even if one begins with ``*``. A step that is longer than its field is its first value.
    A range of weekdays that ends with 7 has the Sunday in it, whatever its step is.
    """
    fields = cron.split()
    if len(fields) != len(_FIELDS):
        return cron
    takes_either = "*" not in (fields[_DAY], fields[_WEEKDAY])
    written = []
    for index, field in enumerate(fields):
        is_of_either = takes_either and index in (_DAY, _WEEKDAY)
        in_full = is_of_either or index in (_DAY, _MONTH)
        items = [_item(item, *_FIELDS[index], in_full=in_full) for item in field.split(",")]
        if index == _WEEKDAY and re.search(r"-7/", field):
            items.append("0")
        if is_of_either:
            items = ["{}-{}".format(*_FIELDS[index]) if item == "*" else item for item in items]
        written.append(",".join(items))
    return " ".join(written)


def _item(item: str, first: int, last: int, *, in_full: bool) -> str:
    """An item of a field. ``in_full`` says that a step of all values is written as its values."""
    step = re.fullmatch(r"\*/0*([1-9][0-9]{0,8})", item, re.ASCII)
    if step is None or not (in_full or int(step[1]) > last):
        return item
    values = [f"{value}" for value in range(first, last + 1) if value % int(step[1]) == 0]
    return ",".join(values) or item


def differences(requests: Iterable[Request]) -> list[str]:
    """What is different for all that were taken, in sentences."""
    recurring, once = False, False
    for request in requests:
        recurring, once = recurring or bool(request.cron), once or bool(request.time)
    return [
        *(_RECURRING if recurring else ()),
        *(_ONCE if once else ()),
        *(_ALWAYS if recurring or once else ()),
    ]


_RECURRING = (
    "Where clocks change, Letta Code passes over a time that they skip, and fires twice at one "
    "that they show twice. Here a fixed time fires once.",
    "Letta Code passes over times that it missed. Here the latest of them is delivered afterwards, "
    "up to 24 h late; `modify --misfire skip` changes that.",
    "Where a time comes while the prompt before it is still being answered, Letta Code queues it. "
    "Here it is skipped, and recorded.",
)
_ONCE = (
    "Letta Code gives up a one-off that is more than 5 minutes late. Here it is delivered up to "
    "24 h late; `modify --grace 5m` changes that.",
)
_ALWAYS = (
    "The lines that Letta Code puts before a prompt stay: what woke the agent, and when. `modify "
    "--no-envelope` leaves them out. What else it says isn't sent: the description, and that "
    "nobody is watching.",
)
