"""Many registrations from a file, in TOML or as lines of JSON: all of them, or none."""

import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from promptyoself.core.errors import PromptyoselfError
from promptyoself.core.texts import NotUTF8, text_of
from promptyoself.core.times import shown
from promptyoself.events.draft import Draft
from promptyoself.service.files.tables import key_of, request_of
from promptyoself.service.schedules.register import register
from promptyoself.service.schedules.request import Request, parse
from promptyoself.state.schedules import State
from promptyoself.store.composition import Composition
from promptyoself.store.store import Store

MAX_BYTES = 32 * 1024 * 1024
"""The largest file. What it registers goes into one append."""

_MOST_LISTED = 10
"""The most errors that are told. Of the others, the number is told."""

_MEND = "Nothing was registered. Mend the lines listed as `bad`, and give the file again."


class Entry(NamedTuple):
    """A registration that somebody has written."""

    line: int  # where it begins, from 1
    table: Mapping[str, Any]
    lines: Mapping[str, int]  # of its keys
    request: Request


Tell = Callable[[dict[str, dict[str, Any]]], None]
"""Is handed what people are shown of the schedules that were registered, or would be, by their
ids."""


class _Bad(NamedTuple):
    line: int
    key: str | None
    error: PromptyoselfError


def register_all(
    store: Store,
    content: bytes,
    now: datetime,
    *,
    dry_run: bool = False,
    understood: Callable[[Request], Request] = lambda request: request,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Register everything that a file has. What is there already stays as it is. ``understood``
    puts ids in the place of names of agents. ``tell`` is called as :data:`Tell` says.

    Raises:
        PromptyoselfError: ``bad_entries``, with the first of the errors as ``bad`` and their number
            as ``bad_count``; ``invalid_toml``, ``invalid_file``, ``empty_file``,
            ``file_too_large``. Nothing was registered.
    """
    entries, bad = read_entries(content)
    entries = [entry._replace(request=understood(entry.request)) for entry in entries]
    return register_entries(store, entries, now, bad=bad, dry_run=dry_run, tell=tell)


def register_entries(
    store: Store,
    entries: Sequence[Entry],
    now: datetime,
    *,
    bad: Sequence[_Bad] = (),
    dry_run: bool = False,
    tell: Tell | None = None,
) -> dict[str, Any]:
    """Register what was written, in one append. ``tell`` is called as :data:`Tell` says.

    Raises:
        PromptyoselfError: ``bad_entries``. Nothing was registered.
    """
    wrong, sound = [*bad], []
    for entry in entries:
        try:
            parse(_with_agent(store, entry.request), store.settings, now)
        except PromptyoselfError as error:
            wrong.append(_bad(entry, error))
        else:
            sound.append(entry)

    def decide(state: State) -> tuple[list[Draft], list[dict[str, Any]]]:
        composition = Composition(store, state)
        registered, refused = [], [*wrong]
        for entry in sound:
            try:
                answer = register(composition.store, entry.request, now)
            except PromptyoselfError as error:
                refused.append(_bad(entry, error))
            else:
                registered.append(_told(entry, answer))
        if refused:
            raise _bad_entries(refused)
        if tell is not None:
            tell(shown_beside(composition.read().state, (line["id"] for line in registered)))
        return composition.drafts, registered

    if dry_run or wrong or not entries:
        _, registered = decide(store.read().state)
    else:
        registered = store.transact(now, decide)
    return _answer(registered, dry_run=dry_run)


def shown_beside(state: State, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What people are shown of these schedules beside what an answer has."""
    schedules = ((id_, state.schedules[id_]) for id_ in ids)
    return {
        id_: {
            "agent_id": schedule.agent_id,
            "schedule_type": schedule.schedule_type,
            "schedule_value": schedule.schedule_value,
            "timezone": schedule.timezone,
            "status": schedule.status,
        }
        for id_, schedule in schedules
    }


def read_entries(content: bytes) -> tuple[list[Entry], list[_Bad]]:
    """What a file has, and what is wrong with it.

    Raises:
        PromptyoselfError: ``invalid_toml``, ``invalid_file``, ``empty_file``, ``file_too_large``.
    """
    if len(content) > MAX_BYTES:
        raise PromptyoselfError(
            "file_too_large",
            f"The file has more than {MAX_BYTES // 1024**2} MiB.",
            "Nothing was registered. Split it.",
        )
    try:
        text = text_of(content)
    except NotUTF8 as error:
        raise PromptyoselfError("invalid_file", f"The file {error}.", error.hint) from None
    is_json = text.lstrip().startswith("{")
    tables = list(_json_tables(text) if is_json else _toml_tables(text))
    if not tables:
        raise PromptyoselfError(
            "empty_file",
            "The file has no schedule in it.",
            "Begin each with [[schedule]], or write each as a line of JSON.",
        )
    entries: list[Entry] = []
    bad: list[_Bad] = []
    for line, lines, table in tables:
        if isinstance(table, PromptyoselfError):
            bad.append(_Bad(line, None, table))
            continue
        request, bad_keys = request_of(table)
        bad += [_Bad(lines.get(key or "", line), key, error) for key, error in bad_keys]
        if not bad_keys:
            entries.append(Entry(line, table, lines, request))
    return entries, bad


_Table = tuple[int, Mapping[str, int], "Mapping[str, Any] | PromptyoselfError"]
"""Where a table begins, the lines of its keys, and the table; or what is wrong with it."""


def _json_tables(text: str) -> Iterator[_Table]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            table = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, {}, _invalid_line(f"It isn't JSON: {error}.")
            continue
        if isinstance(table, dict):
            yield number, dict.fromkeys(table, number), table
        else:
            yield number, {}, _invalid_line("It isn't an object.")


def _invalid_line(message: str) -> PromptyoselfError:
    hint = 'Write a schedule as {"agent_id": "…", "prompt": "…", "every": "1h"} in one line.'
    return PromptyoselfError("invalid_line", message, hint)


def _toml_tables(text: str) -> Iterator[_Table]:
    document = parsed_toml(text)
    for key, value in document.items():
        is_list = isinstance(value, list) and all(isinstance(item, dict) for item in value)
        if key != "schedule" or not is_list:
            hint = "Begin each schedule with [[schedule]], and put all keys below that."
            message = f"The file has {shown(key)} outside of a [[schedule]]."
            raise PromptyoselfError("invalid_file", message, hint)
    places = list(_places(text))
    for index, table in enumerate(document.get("schedule", ())):
        line, lines = places[index] if index < len(places) else (1, {})
        yield line, lines, table


def parsed_toml(text: str) -> dict[str, Any]:
    """A document in TOML.

    Raises:
        PromptyoselfError: ``invalid_toml``, with the ``line``.
    """
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error)
        match = re.search(r"at line (\d+)", message)
        where = {"line": int(match[1])} if match else {}
        if "end of document" in message:
            where["line"] = len(text.split("\n"))
        raise PromptyoselfError(
            "invalid_toml",
            f"It isn't TOML: {message}.",
            "Texts are in quotes: name = \"plan\". A text of several lines is in '''…'''.",
            **where,
        ) from None


_HEADER = re.compile(r"\s*\[\[\s*schedule\s*\]\]")
_KEY = re.compile(r"""\s*(?:"([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+))\s*=""")
_ENDS = {'"""': re.compile(r'(?:\\.|[^\\])*?"""'), "'''": re.compile(r".*?'''")}
_QUOTES = re.compile(r"#|\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'[^'\n]*'")


def lines_of_keys(text: str) -> dict[str, int]:
    """The lines of the keys of a document that was read, up to its first ``[[schedule]]``."""
    return next(_all_places(text))[1]


def _places(text: str) -> Iterator[tuple[int, dict[str, int]]]:
    """For each ``[[schedule]]`` of a document that was read, its line and those of its keys."""
    return (place for place in _all_places(text) if place[0])


def _all_places(text: str) -> Iterator[tuple[int, dict[str, int]]]:
    """As :func:`_places`; at first, with line 0, what comes before all of them."""
    start, lines = 0, dict[str, int]()
    within: str | None = None  # the quotes of the text of several lines that a line is in
    for number, line in enumerate(text.split("\n"), 1):
        if within is None:
            if _HEADER.match(line):
                yield start, lines
                start, lines = number, {}
            elif key := _KEY.match(line):
                lines[next(name for name in key.groups() if name is not None)] = number
        within = _quotes_after(line, within)
    yield start, lines


def _quotes_after(line: str, within: str | None) -> str | None:
    """The quotes of the text that goes on after a line, if any does."""
    at = 0
    while True:
        found = _QUOTES.search(line, at) if within is None else _ENDS[within].match(line, at)
        if found is None or found[0] == "#":
            return within
        at = found.end()
        within = found[0] if within is None and found[0] in _ENDS else None


def _with_agent(store: Store, request: Request) -> Request:
    if request.agent_id is not None:
        return request
    agent_id = store.pinned_to or store.settings.default_agent
    return Request(**{**request._asdict(), "agent_id": agent_id})


def _bad(entry: Entry, error: PromptyoselfError) -> _Bad:
    key = key_of(error, entry.table)
    return _Bad(entry.lines.get(key or "", entry.line), key, error)


def _told(entry: Entry, answer: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {"line": entry.line, "id": answer["id"], "created": answer["created"]}
    if entry.request.name:
        line["name"] = entry.request.name
    line["next_run"] = answer["next_run"]
    line |= {key: answer[key] for key in ("understood", "differs", "warning") if key in answer}
    return line


def _answer(registered: list[dict[str, Any]], *, dry_run: bool) -> dict[str, Any]:
    new = sum(line["created"] for line in registered)
    differing = sum("differs" in line for line in registered)
    there = len(registered) - new
    would = "would be registered" if dry_run else "registered"
    message = f"{new} {would}, {there} there already"
    if differing:
        message += f", of which {differing} differ and were left as they are"
    return {
        "schedules": registered,
        "count": new,
        "new": new,
        "existing": there,
        "differing": differing,
        **({"dry_run": True} if dry_run else {}),
        "message": message + ("; this was a dry run." if dry_run else "."),
    }


def _bad_entries(bad: Sequence[_Bad]) -> PromptyoselfError:
    in_order = sorted(bad, key=lambda found: found.line)
    listed = [
        {
            "line": line,
            **({} if key is None else {"key": key}),
            "code": error.code,
            "message": error.message,
            "hint": error.hint,
        }
        for line, key, error in in_order[:_MOST_LISTED]
    ]
    first = in_order[0]
    about = f", {first.key}" if first.key else ""
    more = len(bad) - len(listed)
    rest = f" {more} more aren't listed." if more else ""
    errors = "1 error" if len(bad) == 1 else f"{len(bad)} errors"
    return PromptyoselfError(
        "bad_entries",
        f"The file has {errors}. Line {first.line}{about}: {first.error.message}{rest}",
        _MEND,
        bad=listed,
        bad_count=len(bad),
    )
