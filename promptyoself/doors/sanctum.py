"""The door for Sanctum hosts (SMCP): how the commands are described to a host, and its plugin.

A host runs ``python <plugins>/promptyoself/cli.py --describe`` with its own interpreter, makes a
tool of each command, and calls ``cli.py <command> --flag value …``; stdin is closed, and stdout has
to be one JSON document. Contract 1.0 of SMCP 3.1.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptyoself import __version__
from promptyoself.doors.agent_parameters import argument_name, commands_of, parameters
from promptyoself.doors.registry import AGENT_FACING
from promptyoself.doors.wording import Wording, tool_description
from promptyoself.service.setup.plugin_file import write_plugin

if TYPE_CHECKING:
    import click

_NAME = "promptyoself"
_HOST_TIMEOUT = 10  # seconds that a host waits for the description


def describe(group: click.Group) -> dict[str, Any]:
    """The payload of ``--describe``, from the commands themselves."""
    commands = []
    words = wording_for_hosts(group)
    for name, command in commands_of(group, AGENT_FACING).items():
        described = []
        for parameter in parameters(command):
            text = words.description(parameter.description, name)
            if parameter.choices:
                text += f" One of: {', '.join(parameter.choices)}."
            if parameter.items is not None:
                text += " May be given several times."
            entry: dict[str, Any] = {
                "name": argument_name(parameter.name),
                "type": parameter.type,
                "description": text,
                "required": parameter.required,
                "default": parameter.default,
            }
            if parameter.flag and parameter.opposite is None:
                entry["action"] = "store_true"  # else a host gives its value, true or false
            described.append(entry)
        commands.append(
            {
                "name": name,
                "description": words.description(tool_description(command), name),
                "parameters": described,
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


def in_host_terms(
    group: click.Group, document: Mapping[str, Any], command: str | None
) -> dict[str, Any]:
    """An answer as a host's agent can use it. Of an error, a host shows ``error`` alone, so the
    hint is repeated in that."""
    answer = wording_for_hosts(group).document(document, command)
    if "error" in answer:
        answer["error"] = f"{answer['message']} {answer['hint']}".rstrip()
    return answer


def wording_for_hosts(group: click.Group) -> Wording:
    """The words of this door: a host names the tools ``promptyoself__list``, and so on."""
    return Wording(group, lambda name: f"{_NAME}__{name}", AGENT_FACING)


def install(plugins: Path, python: str) -> tuple[Path, bool]:
    """Write a plugin into a host's folder of plugins, for hosts whose own interpreter lacks our
    packages: it hands every call to ``python``, which has them. Returns where the plugin lies, and
    whether it was written just now.

    Raises:
        PromptyoselfError: ``plugin_exists``: something else has that name there.
        OSError: the folder can't be written.
    """
    path = plugins / _NAME / "cli.py"
    text = _STUB.format(mark=_MARK, python=os.path.abspath(python))
    return path, write_plugin(path, text, _MARK, mode=0o755)


def check_plugin(plugins: Path) -> tuple[bool, str, str]:
    """Whether a host would find a working plugin there; what there is; and what to do about it.

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
            timeout=_HOST_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"{path} doesn't answer within {_HOST_TIMEOUT} s", install_it
    try:
        answer = json.loads(done.stdout)
        version, commands = answer["plugin"]["version"], len(answer["commands"])
        if answer["contract_version"] != "1.0" or done.returncode:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        output = (done.stdout or done.stderr).decode("utf-8", "replace").strip()[-200:]
        return False, f"{path} --describe answered {done.returncode}: {output}", install_it
    return True, f"{path}, version {version}, with {commands} commands", ""


_MARK = "# Written by `promptyoself install-plugin`; it may be written anew."
# It needs nothing but a Python of any version.
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
