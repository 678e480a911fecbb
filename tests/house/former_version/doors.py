"""How the commands describe themselves: to people, to Sanctum hosts, to MCP clients."""

from __future__ import annotations

import json
import subprocess
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from calling import clean_environ

from promptyoself.doors.registry import COMMANDS

if TYPE_CHECKING:
    from former_version.machine import Machine

PACK_TEXTS = ("README.md", "verify.py")
"""What an audit pack holds beside what is of the log."""

_SETS = ("agent", "operator", "all")
_HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "former", "version": "1"},
}


def help_texts(machine: Machine) -> dict[str, str]:
    """The help of each command in 80 columns, by the names of the files that hold it."""
    asked = {"promptyoself.txt": ["--help"]}
    asked |= {f"{command}.txt": [command, "--help"] for command in COMMANDS}
    return {name: machine.record(*words) for name, words in asked.items()}


def doors(machine: Machine) -> dict[str, str]:
    """What the doors tell of the commands, by the names of the files that hold it."""
    described = json.loads(machine.ask("--describe").out)
    told = {"sanctum.json": _spelled(described)}
    tools = {name: _tools(machine, name) for name in _SETS}
    everything = {tool["name"]: tool for tool in tools["all"]}
    told["mcp-all.json"] = _spelled(tools["all"])
    for name in _SETS[:-1]:  # of which only the names are kept where a tool is the same in all
        kept = [tool["name"] if tool == everything[tool["name"]] else tool for tool in tools[name]]
        told[f"mcp-{name}.json"] = _spelled(kept)
    pack = machine.var.parent / "doors.zip"
    machine.ask("pack", "--out", str(pack)).success()
    with ZipFile(pack) as file:
        hashes = (f"{name} {sha256(file.read(name)).hexdigest()}\n" for name in PACK_TEXTS)
        told["pack.txt"] = "".join(hashes)
    return told


def _spelled(document: object) -> str:
    """JSON on many lines, in the order of its keys, so that a difference can be read."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _tools(machine: Machine, tools: str) -> list[dict[str, Any]]:
    """The tools of that set, as a client over stdio gets them."""
    lines = [
        {"id": 1, "method": "initialize", "params": _HELLO},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/list", "params": {}},
    ]
    served = subprocess.run(
        [sys.executable, "-m", "promptyoself", "mcp", "--tools", tools],
        input=b"".join(json.dumps({"jsonrpc": "2.0", **line}).encode() + b"\n" for line in lines),
        env=clean_environ(machine.var),
        capture_output=True,
        check=True,
        timeout=60,
    )
    answers = [json.loads(line) for line in served.stdout.splitlines()]
    (answer,) = [answer for answer in answers if answer.get("id") == 2]
    tools_of: list[dict[str, Any]] = answer["result"]["tools"]
    return tools_of
