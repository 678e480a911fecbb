"""The door for Sanctum hosts (SMCP): what a host is told of the commands, and how it finds them.

A host runs ``python <plugins>/promptyoself/cli.py --describe`` with its own interpreter, makes a
tool of each command, and calls ``cli.py <command> --flag value …``; stdin is closed, and stdout has
to be one JSON document. Contract 1.0 of SMCP 3.1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from promptyoself import __version__
from promptyoself.core.disk import Disk
from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors.wording import Wording

__all__ = [
    "AGENT_FACING",
    "Installed",
    "Parameter",
    "argument",
    "describe",
    "install",
    "look",
    "parameters",
    "told",
    "truth",
    "values",
    "worded",
    "wording",
]

AGENT_FACING = (
    "register",
    "list",
    "show",
    "modify",
    "cancel",
    "pause",
    "resume",
    "trigger",
    "next",
    "simulate",
    "idle",
    "desire",
    "desires",
    "reinforce",
    "prune",
    "budgets",
    "history",
    "audit",
    "diff",
    "stats",
    "head",
    "verify",
    "agents",
    "test",
    "execute",
)
"""The commands that agents may call. Set-up, servers, keys, and what rewrites files aren't here."""

_NAME = "promptyoself"
_HOSTS_PATIENCE = 10  # seconds that a host waits for the description
_FOR_PEOPLE = frozenset(
    {"var", "format", "help", "prompt-file", "ndjson", "note", "key", "loop", "interval"}
    | {"metrics-port", "accept-clock"}
)
_UNSET_BY_EMPTY = {
    "modify": frozenset({"name", "conversation-id", "start-at", "until", "jitter", "on-failure"}),
}  # by the command: the options that an empty text unsets; elsewhere it is as good as none
_TYPES: dict[str, str] = {
    "integer": "integer",
    "integer range": "integer",
    "float": "number",
    "float range": "number",
    "boolean": "boolean",
}


class Parameter(NamedTuple):
    """One parameter of a command, as hosts and schemas want it.

    ``name`` is the option's, without its dashes. ``type`` is that of JSON Schema; of an ``array``,
    one value for each time the option is given, ``items`` is that of the values. A ``flag`` takes
    no value on the command line; where it has an ``opposite``, that is the option which turns it
    off, so that both of its values mean something. ``bounds`` are inclusive. An empty text
    ``unsets`` something, or else is as good as none. The ``aliases`` are taken as well.
    """

    name: str
    type: str
    description: str
    required: bool
    default: Any
    flag: bool
    items: str | None = None
    opposite: str | None = None
    choices: tuple[str, ...] = ()
    bounds: tuple[float | None, float | None] = (None, None)
    unsets: bool = False
    aliases: tuple[str, ...] = ()


def parameters(command: click.Command) -> Iterator[Parameter]:
    """What an agent may give to a command. Of several names for the same, the first."""
    for option in command.params:
        if not isinstance(option, click.Option):
            continue
        if option.hidden or option.name is None or _long(option.opts) in _FOR_PEOPLE:
            continue
        name, kind, flag = _long(option.opts), option.type, option.is_flag
        choices = tuple(map(str, kind.choices)) if isinstance(kind, click.Choice) else ()
        bounds: tuple[float | None, float | None] = (None, None)
        if isinstance(kind, click.IntRange | click.FloatRange):
            bounds = kind.min, kind.max
        one = "boolean" if flag else _TYPES.get(kind.name, "string")
        opposite = _long(option.secondary_opts) if option.secondary_opts else None
        yield Parameter(
            name,
            "array" if option.multiple else one,
            option.help or "",
            option.required,
            False if flag and opposite is None else _default_of(option),
            flag,
            items=one if option.multiple else None,
            opposite=opposite,
            choices=choices,
            bounds=bounds,
            unsets=name in _UNSET_BY_EMPTY.get(command.name or "", ()),
            aliases=tuple(
                each[2:] for each in option.opts if each[:2] == "--" and each[2:] != name
            ),
        )


def argument(name: str) -> str:
    """An option's name as agents have it: hosts make ``--agent-id`` of ``agent_id``."""
    return name.replace("-", "_")


def truth(text: str) -> bool | None:
    """What a text says that stands for a boolean, as models and hosts write them."""
    return _TRUTHS.get(text.strip().lower())


def values(text: str) -> list[Any]:
    """The values that a text stands for where there may be several: a list in JSON, or itself."""
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            return [text]
        if isinstance(found, list):
            return found
    return [text]


_TRUTHS = {"true": True, "yes": True, "on": True, "1": True} | {
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip


def describe(group: click.Group, context: click.Context) -> dict[str, Any]:
    """The payload of ``--describe``, from the commands themselves."""
    commands = []
    words = _wording_of_hosts(group)
    for name in AGENT_FACING:
        command = group.get_command(context, name)
        if command is None:
            continue
        found = []
        for parameter in parameters(command):
            text = words.description(parameter.description, name)
            if parameter.choices:
                text += f" One of: {', '.join(parameter.choices)}."
            if parameter.items is not None:
                text += " May be given several times."
            entry: dict[str, Any] = {
                "name": argument(parameter.name),
                "type": parameter.type,
                "description": text,
                "required": parameter.required,
                "default": parameter.default,
            }
            if parameter.flag and parameter.opposite is None:
                entry["action"] = "store_true"  # else a host gives its value, true or false
            found.append(entry)
        commands.append(
            {
                "name": name,
                "description": words.description(told(command), name),
                "parameters": found,
            }
        )
    return {
        "contract_version": "1.0",
        "plugin": {
            "name": _NAME,
            "version": __version__,
            "description": " ".join((group.help or "").split()),
        },
        "commands": commands,
    }


def wording(
    group: click.Group,
    tool: Callable[[str], str],
    named: Callable[[str], str],
    offered: Sequence[str] = AGENT_FACING,
) -> Wording:
    """The words of a door for agents, which makes its names of those of commands and options, and
    has the commands that are ``offered``."""
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in offered}
    options = {
        name: {
            alias: named(each.name)
            for each in parameters(command)
            for alias in (each.name, *each.aliases)
        }
        for name, command in found.items()
        if command is not None
    }
    return Wording({name: tool(name) for name in options}, options, group.list_commands(context))


def worded(group: click.Group, document: Mapping[str, Any], command: str | None) -> dict[str, Any]:
    """An answer as a host's agent can use it. A host shows of an error only ``error``, so the hint
    is in that too."""
    found = _wording_of_hosts(group).document(document, command)
    if "error" in found:
        found["error"] = f"{found['message']} {found['hint']}".rstrip()
    return found


def _wording_of_hosts(group: click.Group) -> Wording:
    return wording(group, lambda name: f"{_NAME}__{name}", argument)


def told(command: click.Command) -> str:
    """A command's help, for a model: what it does, when to use it, what comes back."""
    parts = [command.help or "", command.epilog or ""]
    return " ".join(" ".join(parts).replace("\\b", "").split())


class Installed(NamedTuple):
    """Where a plugin lies, and whether it was written just now."""

    path: Path
    changed: bool


def install(plugins: Path, python: str) -> Installed:
    """Write a plugin into a host's folder of plugins, for hosts whose own interpreter lacks our
    packages: it hands every call to ``python``, which has them.

    Raises:
        PromptyoselfError: ``plugin_exists``: something else has that name there.
        OSError: the folder can't be written.
    """
    folder = plugins / _NAME
    path = folder / "cli.py"
    content = stub(python).encode()
    if folder.is_symlink() or (folder.exists() and not _is_ours(path)):
        raise PromptyoselfError(
            "plugin_exists",
            f"{folder} is there already, and install-plugin didn't write it.",
            "Move it away first. A link to promptyoself's own folder is a plugin as it is.",
        )
    if path.exists() and path.read_bytes() == content:
        return Installed(path, changed=False)
    disk = Disk()
    disk.make_directory(folder)
    disk.replace(path, content)
    # Whoever runs the host may be somebody else; there is nothing secret in it.
    folder.chmod(0o755)
    path.chmod(0o755)
    return Installed(path, changed=True)


def look(plugins: Path) -> tuple[bool, str, str]:
    """Whether a host would find the plugin there, and take it: what was found, and what to do.

    It is called as a host does, by this interpreter; the host's own may lack our packages.
    """
    import subprocess

    path = plugins / _NAME / "cli.py"
    install_it = f"Run `promptyoself install-plugin --plugins-dir {plugins}`."
    if not path.is_file():
        return False, f"{path} isn't there", install_it
    try:
        done = subprocess.run(
            [sys.executable, str(path.absolute()), "--describe"],
            cwd=plugins,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_HOSTS_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{path} doesn't answer within {_HOSTS_PATIENCE} s", install_it
    try:
        answer = json.loads(done.stdout)
        found = answer["plugin"]["version"], len(answer["commands"])
        if answer["contract_version"] != "1.0" or done.returncode:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        said = (done.stdout or done.stderr).decode("utf-8", "replace").strip()[-200:]
        return False, f"{path} --describe answered {done.returncode}: {said}", install_it
    return True, f"{path}, version {found[0]}, with {found[1]} commands", ""


def stub(python: str) -> str:
    """A ``cli.py`` that needs nothing but a Python of any version, and becomes ours."""
    return _STUB.format(mark=_MARK, python=os.path.abspath(python))


def _is_ours(path: Path) -> bool:
    try:
        return _MARK in path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _long(names: Sequence[str]) -> str:
    """An option's name, without its dashes."""
    return next((name for name in names if name.startswith("--")), names[0]).lstrip("-")


def _default_of(option: click.Option) -> Any:
    known = option.default if not (option.multiple or callable(option.default)) else None
    return known if isinstance(known, str | int | float | bool) else None


_MARK = "# Written by `promptyoself install-plugin`; it may be written anew."
_STUB = """#!/usr/bin/env python3
{mark}
import json
import os
import sys

PYTHON = {python!r}
CODE = "from promptyoself.cli import main; main(via='sanctum')"

try:
    os.execv(PYTHON, [PYTHON, "-P", "-c", CODE, *sys.argv[1:]])
except OSError as error:
    message = "promptyoself's interpreter can't be run: %s (%s)." % (PYTHON, error.strerror)
    hint = "Run `promptyoself install-plugin` again."
    print(json.dumps({{
        "status": "error", "code": "plugin_broken", "message": message, "hint": hint,
        "error": "%s %s" % (message, hint),
    }}))
    sys.exit(1)
"""
