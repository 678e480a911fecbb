"""The file of Letta Code's own scheduler, ``crons.json``, which `letta cron` writes: its tasks
become schedules, and every other one is reported with the reason."""

from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.times import shown
from promptyoself.events.draft import Draft
from promptyoself.service.files.letta_tasks import NotTaken, Taken, differences, taken
from promptyoself.service.files.registrations import Tell, shown_beside
from promptyoself.service.schedules.change import pause
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request
from promptyoself.state.schedules import State
from promptyoself.store.composition import Composition
from promptyoself.store.store import Store

MAX_BYTES = 4 * 1024 * 1024
"""The largest file."""

_VERSION = 1
_NAME_CODES = ("name_taken", "invalid_name")


class _Told(NamedTuple):
    """What became of the tasks of a file, in its order."""

    taken: list[dict[str, Any]]
    left: list[dict[str, Any]]
    requests: list[Request]  # of those that were taken


def import_letta_cron(
    store: Store,
    content: bytes,
    agent_id: str | None,
    now: datetime,
    *,
    dry_run: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Register the tasks of a ``crons.json``, in one append; only an agent's, if one is named.

    The answer has the tasks that were ``taken``, those that were ``left``, each with its reason,
    and the ``differences`` that there are for all that were taken. The same file again changes
    nothing. ``tell`` is called as :data:`Tell` says.

    Raises:
        PromptyoselfError: ``invalid_letta_cron``, ``file_too_large``. Nothing was registered.
    """
    tasks = tasks_of(content)

    def decide(state: State) -> tuple[list[Draft], _Told]:
        composition = Composition(store, state)
        told = _Told([], [], [])
        tasks_by_schedule: dict[str, str] = {}
        for task in tasks:
            try:
                if agent_id is not None and task.get("agent_id") != agent_id:
                    raise NotTaken("It is another agent's.")
                wanted = taken(task, now)
                line = _registered(composition.store, wanted, now)
            except NotTaken as why:
                told.left.append({**_named(task), "why": f"{why}"})
                continue
            except PromptyoselfError as error:
                told.left.append({**_named(task), "why": error.message, "code": error.code})
                continue
            same = tasks_by_schedule.setdefault(line["id"], task["id"])
            if same != task["id"]:
                line["notes"] = [f"It says the same as task {same}; both are one schedule."]
            told.taken.append({"task": task["id"], **line})
            told.requests.append(wanted.request)
        if tell is not None:
            tell(shown_beside(composition.read().state, (line["id"] for line in told.taken)))
        return composition.drafts, told

    if dry_run or not tasks:
        _, told = decide(store.read().state)
    else:
        told = store.transact(now, decide)
    return _answer(told, dry_run=dry_run)


def tasks_of(content: bytes) -> list[dict[str, Any]]:
    """The tasks of a file, each an object with an ``id``. Their other values aren't checked.

    Raises:
        PromptyoselfError: ``invalid_letta_cron``, ``file_too_large``.
    """
    if len(content) > MAX_BYTES:
        message = f"The file has more than {MAX_BYTES // 1024**2} MiB."
        raise PromptyoselfError("file_too_large", message, "Nothing was registered.")
    try:
        document = orjson.loads(content.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise _invalid(f"It isn't JSON: {error}.") from None
    if not isinstance(document, dict) or "version" not in document:
        raise _invalid("It isn't an object with a version.")
    version, tasks = document["version"], document.get("tasks")
    if type(version) is not int or version != _VERSION:
        raise _invalid(f"Its version is {shown(str(version))}; only {_VERSION} is known.")
    if not isinstance(tasks, list):
        raise _invalid("It has no list of tasks.")
    for number, task in enumerate(tasks, 1):
        if not isinstance(task, dict) or not isinstance(task.get("id"), str):
            raise _invalid(f"Task {number} of it isn't an object with an id.")
    return tasks


def _invalid(problem: str) -> PromptyoselfError:
    return PromptyoselfError(
        "invalid_letta_cron",
        f"This is no file of Letta Code's schedules. {problem}",
        "Nothing was registered. `letta cron` keeps them in ~/.letta/crons.json; give that file.",
    )


def _registered(store: Store, wanted: Taken, now: datetime) -> dict[str, Any]:
    """Register a task, and say so. Raises what :func:`register` raises."""
    unnamed, notes = wanted.request._replace(name=None), [*wanted.notes]
    request = unnamed if _is_there(store, unnamed, now) else wanted.request
    try:
        answer = register(store, request, now)
    except PromptyoselfError as error:
        if error.code not in _NAME_CODES:
            raise
        request, answer = unnamed, register(store, unnamed, now)
    if request is unnamed:
        notes.append(f"It is taken without its name, {shown(wanted.request.name)}.")
    if wanted.is_paused and answer["created"]:
        pause(store, answer["id"], request.reason, now)
    when = "time" if request.time else "cron"
    line: dict[str, Any] = {
        "id": answer["id"],
        "created": answer["created"],
        "name": request.name,
        "next_run": None if wanted.is_paused else answer["next_run"],
        "agent_id": request.agent_id,
        when: getattr(request, when),
    }
    line |= {key: value for key, value in answer.items() if key in ("differs", "warning")}
    return {**line, "notes": notes} if notes else line


def _is_there(store: Store, request: Request, now: datetime) -> bool:
    """Whether there is such a schedule, since an earlier import may have left a taken name out."""
    with suppress(PromptyoselfError):
        return not register(store, request, now, dry_run=True)["created"]
    return False


def _named(task: dict[str, Any]) -> dict[str, Any]:
    name = task.get("name")
    return {"task": task["id"], "name": name[:200] if isinstance(name, str) else None}


def _answer(told: _Told, *, dry_run: bool) -> dict[str, Any]:
    new = sum(line["created"] for line in told.taken)
    there = len(told.taken) - new
    would = "would be registered" if dry_run else "registered"
    dry = "; this was a dry run" if dry_run else ""
    left = "1 task wasn't taken" if len(told.left) == 1 else f"{len(told.left)} tasks weren't taken"
    answer: dict[str, Any] = {
        "count": new,
        "new": new,
        "existing": there,
        "differing": sum("differs" in line for line in told.taken),
    }
    if dry_run:
        answer["dry_run"] = True
    answer["message"] = f"{new} {would}, {there} there already{dry}. {left}."
    answer |= {"taken": told.taken, "left": told.left}
    if told.taken:
        answer["differences"] = differences(told.requests)
    if told.taken and not dry_run:
        answer["hint"] = (
            "Delete the tasks that were taken, each with `letta cron delete ID`; as long as they "
            "are there too, each prompt comes twice."
        )
    return answer
