"""What a shell offers when somebody presses Tab: ids, names, agents, zones, types, settings.

A shell calls the program for each Tab, and shows all that it prints. So nothing here takes long,
asks Letta, or says what is wrong: where anything is, nothing is offered.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem, get_completion_class, shell_complete

if TYPE_CHECKING:
    from promptyoself.doors.session import Session
    from promptyoself.state.schedules import Schedule

PROGRAM = "promptyoself"
VARIABLE = "_PROMPTYOSELF_COMPLETE"
"""What a shell sets to ask for completion."""

_MOST = 2000
"""The most schedules that are looked at."""

_SIMPLE = re.compile(r"[\w.@+-]+")
"""Names that need no quoting in a shell: others aren't offered."""


def run_completion(cli: click.Group) -> int:
    """Answer a shell, which has said in the environment what it asks; the exit code."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        try:
            return shell_complete(cli, {}, PROGRAM, VARIABLE, os.environ[VARIABLE])
        except Exception:  # also of what is on the command line so far
            return 1


def script(cli: click.Group, shell: str) -> str:
    """What a shell has to read to complete our command. ``shell`` is bash, zsh or fish."""
    kind = get_completion_class(shell)
    assert kind is not None
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
        return kind(cli, {}, PROGRAM, VARIABLE).source()


def offer_values(command: click.Command) -> None:
    """Let the parameters of a command offer what there is, by their names."""
    for parameter in command.params:
        if isinstance(parameter.type, _Offering):
            continue
        for name in (*parameter.opts, f"{command.name} {parameter.name}"):
            source = _SOURCES.get(f"{command.name} {name}") or _SOURCES.get(name)
            if isinstance(parameter, click.Argument) and "SCHEDULE" in (parameter.metavar or ""):
                source = _ids
            if source is not None:
                parameter.type = _Offering(parameter.type, source)
                break


class _Offering(click.ParamType):  # type: ignore[type-arg]  # since Click 8.4
    """A type that offers values, and is otherwise as it was."""

    def __init__(self, plain: click.ParamType[Any], source: _Source) -> None:
        self.name = plain.name
        self._plain = plain
        self._source = source

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See :meth:`click.ParamType.convert`."""
        return self._plain.convert(value, param, ctx)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002
        incomplete: str,
    ) -> list[CompletionItem]:
        """What begins so. Nothing where anything is in the way."""
        with suppress(Exception):
            offered = self._source(ctx)
            return [item for item in offered if str(item.value).startswith(incomplete)]
        return []


_Source = Callable[[click.Context], Iterable[CompletionItem]]


def _session(ctx: click.Context) -> Session:
    from promptyoself.doors.session import Caller, Session

    return Session(ctx.params.get("var"), Caller())


def _schedules(ctx: click.Context) -> Iterator[Schedule]:
    state = _session(ctx).store().read().state
    yield from islice((state.schedules[id_] for id_ in state.schedules), _MOST)


def _ids(ctx: click.Context) -> Iterator[CompletionItem]:
    """The ids of schedules, with their names or prompts, and then their names."""
    schedules = list(_schedules(ctx))
    for schedule in schedules:
        what = schedule.name or " ".join(schedule.prompt.split())[:50]
        yield CompletionItem(schedule.id, help=f"{what} ({schedule.status})")
    yield from _simple(schedule.name for schedule in schedules)


def _names(ctx: click.Context) -> Iterator[CompletionItem]:
    yield from _simple(schedule.name for schedule in _schedules(ctx))


def _agents(ctx: click.Context) -> Iterator[CompletionItem]:
    """The agents that have schedules, with their names as they were last seen."""
    from promptyoself.doors.agent_names import known_names

    names = known_names(_session(ctx).settings.var)
    for agent in dict.fromkeys([*names, *(schedule.agent_id for schedule in _schedules(ctx))]):
        yield CompletionItem(agent, help=names.get(agent))


def _desires(ctx: click.Context) -> Iterator[CompletionItem]:
    state = _session(ctx).store().desires.read().state
    for desire in islice(state.desires.values(), _MOST):
        yield CompletionItem(desire.id, help=" ".join(desire.text.split())[:50])


def _tags(ctx: click.Context) -> Iterator[CompletionItem]:
    yield from _simple(tag for schedule in _schedules(ctx) for tag in schedule.tags or ())


def _tags_of_desires(ctx: click.Context) -> Iterator[CompletionItem]:
    state = _session(ctx).store().desires.read().state
    yield from _simple(tag for one in islice(state.desires.values(), _MOST) for tag in one.tags)


def _zones(_: click.Context) -> Iterator[CompletionItem]:
    """The zones that the time zone data lists, which is quicker than looking for their files."""
    from importlib.resources import files

    yield from map(CompletionItem, files("tzdata").joinpath("zones").read_text().split())


def _types(_: click.Context) -> Iterator[CompletionItem]:
    from promptyoself.events.versions import VERSIONS

    yield from map(CompletionItem, VERSIONS)


def _settings(_: click.Context) -> Iterator[CompletionItem]:
    from promptyoself.core.setting_values import SETTINGS

    for setting in SETTINGS:
        yield CompletionItem(setting.name, help=setting.help)


def _destinations(ctx: click.Context) -> Iterator[CompletionItem]:
    settings = _session(ctx).settings
    if settings.only_agent is None:
        for name, destination in settings.destinations.items():
            yield CompletionItem(name, help=destination.shown)


def _told(ctx: click.Context) -> Iterator[CompletionItem]:
    """Who may be told of failures: destinations, and agents."""
    yield from _destinations(ctx)
    yield from _agents(ctx)


def _values(ctx: click.Context) -> Iterable[CompletionItem]:
    """The values of the setting that was named, where there is a choice."""
    from promptyoself.core.settings import find_setting

    name = find_setting(str(ctx.params.get("name"))).name
    if name == "PROMPTYOSELF_TZ":
        return _zones(ctx)
    if name == "PROMPTYOSELF_DEFAULT_AGENT_ID":
        return _agents(ctx)
    return map(CompletionItem, _CHOICES.get(name, ()))


def _files(_: click.Context) -> Iterator[CompletionItem]:
    yield CompletionItem("", type="file")


def _folders(_: click.Context) -> Iterator[CompletionItem]:
    yield CompletionItem("", type="dir")


def _simple(names: Iterable[str | None]) -> Iterator[CompletionItem]:
    for name in dict.fromkeys(names):
        if name and _SIMPLE.fullmatch(name):
            yield CompletionItem(name)


_CHOICES = {
    "PROMPTYOSELF_FORMAT": ("auto", "table", "json"),
    "PROMPTYOSELF_LOG_FORMAT": ("text", "json"),
    "PROMPTYOSELF_LOG_LEVEL": ("debug", "info", "warning", "error"),
    "PROMPTYOSELF_LOG_PROMPTS": ("0", "1"),
}

_SOURCES: dict[str, _Source] = {
    "--id": _ids,
    "reinforce --id": _desires,
    "prune --id": _desires,
    "--agent-id": _agents,
    "--on-failure": _told,
    "--reply-to": _destinations,
    "--name": _names,
    "--tag": _tags,
    "desire --tag": _tags_of_desires,
    "desires --tag": _tags_of_desires,
    "--tz": _zones,
    "--type": _types,
    "--var": _folders,
    "--plugins-dir": _folders,
    "--prompt-file": _files,
    "--out": _files,
    "--key": _files,
    "--note": _files,
    "import file": _files,
    "import-sqlite file": _files,
    "set name": _settings,
    "unset name": _settings,
    "set value": _values,
    "test name": _destinations,
    "remove name": _destinations,
    "digest name": _destinations,
}
"""What a parameter offers: an option by its name, or with the name of its command before it; an
argument by that of its command and its own."""
