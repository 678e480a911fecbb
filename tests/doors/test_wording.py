"""P7: an error is in the caller's own words at every door: no option, command or shell that the
caller hasn't got."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
from calling import AGENT, call
from mcp import Client

import promptyoself
from promptyoself import cli
from promptyoself.doors import sanctum
from promptyoself.doors.commands import mcp
from promptyoself.doors.mcp.tools import Door
from promptyoself.doors.registry import AGENT_FACING, COMMANDS
from promptyoself.doors.wording import Wording

ROOT = Path(promptyoself.__file__).parent
GROUP = cli.cli


def text_of(node: ast.AST) -> str | None:
    """A text as it stands in the source, with ``x`` for what is put in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = (text_of(part) for part in node.values)
        return "".join("x" if part is None else part for part in parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = text_of(node.left), text_of(node.right)
        return None if left is None and right is None else f"{left or 'x'}{right or 'x'}"
    return None


def written() -> Iterator[tuple[str, str]]:
    """Every text for people in the source that names an option or a command, and where it is;
    docstrings and help of options aside."""
    for path in sorted(ROOT.rglob("*.py")):
        tree = ast.parse(path.read_text())
        aside = {
            id(node)
            for call_ in ast.walk(tree)
            if isinstance(call_, ast.Call) and ast.unparse(call_.func).startswith("click.")
            for node in ast.walk(call_)
        }
        aside |= {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        inner = {
            id(part)
            for node in ast.walk(tree)
            if isinstance(node, ast.JoinedStr | ast.BinOp)
            for part in ast.walk(node)
            if part is not node
        }
        for node in ast.walk(tree):
            text = None if id(node) in aside | inner else text_of(node)
            if (
                text
                and text.strip().endswith((".", "?"))
                and re.search(r"--|`|promptyoself ", text)
            ):
                yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}", text


TEXTS = list(dict(reversed(pair) for pair in written()).items())  # type: ignore[misc]


def doors() -> dict[str, Wording]:
    """The words of each door for agents."""
    door = Door(GROUP, None, None, agent=None, prefix="p_")  # type: ignore[arg-type]
    return {"mcp": door._wording, "sanctum": sanctum.wording_for_hosts(GROUP)}


def wrong(text: str, tool: str) -> list[str]:
    """What in a text is a shell's; tools bear ``tool`` before their names."""
    outside = re.sub(r"(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)", "", text)
    options = re.findall(r"(?<![\w-])--[a-z][a-z-]*", outside)
    named = re.findall(r"`([^`]+)`", text)
    commands = [name for name in named if name in COMMANDS or name.startswith("promptyoself ")]
    ours = {f"{tool}{name}" for name in AGENT_FACING}
    unknown = [name for name in named if name.startswith(tool) and name not in ours]
    return options + commands + unknown


@pytest.mark.parametrize("door", ["mcp", "sanctum"])
def test_every_text_in_the_source(door: str) -> None:
    """Whatever a command may say, told to a caller of any tool, names nothing of a shell."""
    words = doors()[door]
    tool = {"mcp": "p_", "sanctum": "promptyoself__"}[door]
    assert len(TEXTS) > 80
    for text, where in TEXTS:
        for command in (*AGENT_FACING, None):
            said = words.advice(text, command)
            assert not wrong(said, tool), f"{where}, to {command}: {text!r} -> {said!r}"


def test_how_things_are_said() -> None:
    """Some of them, as they are read."""
    words = doors()["mcp"]
    for text, command, said in (
        ("`promptyoself list --status all` shows the ids there are.", "cancel",
         "`p_list` (status: all) shows the ids there are."),
        ("Give --agent-id, or set PROMPTYOSELF_DEFAULT_AGENT_ID.", "register",
         "Give agent_id, or set PROMPTYOSELF_DEFAULT_AGENT_ID."),
        ("See `promptyoself list --help`.", "list",
         "The description of `p_list` says what it takes."),
        ("Choose another --var.", "list", "The operator of promptyoself has to see to that."),
        ("Nothing was changed. Run `promptyoself seal`. Or ask.", "list",
         "Nothing was changed. The operator of promptyoself has to see to that. Or ask."),
        ("Run `promptyoself verify --note FILE`.", "verify",
         "The operator of promptyoself has to see to that."),
        ("Give --prompt. At a shell, --prompt-file reads it.", "register", "Give prompt."),
        ("Invalid value for '--limit': 'x' is not a valid integer.", "list",
         "Invalid value for 'limit': 'x' is not a valid integer."),
        ("There is no schedule '--agent-id'.", "show", "There is no schedule '--agent-id'."),
        ("`bad` isn't a command; `list` is.", "show", "`bad` isn't a command; `p_list` is."),
    ):  # fmt: skip
        assert words.advice(text, command) == said


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("show", {"id": "sch_00000000"}, "unknown_id"),
    ("reinforce", {"id": "des_00000000"}, "unknown_id"),
    ("register", {"agent_id": AGENT, "prompt": "x"}, "missing_option"),
    ("register", {"agent_id": AGENT, "every": "1h"}, "missing_option"),
    ("register", {"agent_id": AGENT, "prompt": "x", "every": "1h", "time": "09:00"},
     "conflicting_options"),
    ("register", {"agent_id": "a b", "prompt": "x", "every": "1h"}, "invalid_agent_id"),
    ("register", {"agent_id": AGENT, "prompt": "x", "every": "1h", "tier": 7}, "invalid_tier"),
    ("register", {"agent_id": AGENT, "prompt": "x", "every": "1h", "misfire": "y"},
     "invalid_value"),
    ("list", {"limit": 0}, "invalid_value"),
    ("list", {"status": "asleep"}, "invalid_value"),
    ("history", {"slot": "2027-01-01T00:00"}, "missing_option"),
    ("next", {}, "missing_option"),
    ("verify", {"head": "x"}, "invalid_head"),
    ("desires", {"min_strength": 7}, "invalid_strength"),
    ("modify", {"id": "sch_00000000"}, "nothing_to_modify"),
    ("agents", {}, "letta_unreachable"),
]  # fmt: skip


def test_through_the_mcp_door(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real calls, answered in the words of the tools: what was wrong, and what to do."""
    monkeypatch.setenv("LETTA_BASE_URL", "http://127.0.0.1:9")
    call("desire", "--agent-id", AGENT, "--text", "x").success()

    ask = partial(mcp._answer, GROUP, None)
    door = Door(GROUP, ask, ask, agent=None, prefix="p_")

    async def talk() -> None:
        async with Client(door.server) as client:
            for tool, arguments, code in WRONG:
                answer = await client.call_tool(f"p_{tool}", arguments)
                document = answer.structured_content
                assert answer.is_error
                assert document is not None
                assert document["code"] == code, document
                assert document["error"] == document["message"]
                for key in ("message", "hint", "error"):
                    assert not wrong(document[key], "p_"), (tool, document)
            registered = await client.call_tool(
                "p_register", {"agent_id": AGENT, "prompt": "x", "every": "1h", "tier": 2}
            )
            document = registered.structured_content
            assert document is not None
            assert "approve" not in document["warning"]
            assert "Slots without one are skipped." in document["warning"]

    anyio.run(talk)


def test_through_a_sanctum_host(var: Path, environ: dict[str, str]) -> None:
    """A host shows only ``error``: it has the hint in it, and both are in the words of a host's
    tools."""

    def ask(*words: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(ROOT / "cli.py"), *words],
            env={**environ, "LETTA_BASE_URL": "http://127.0.0.1:9"},
            stdin=subprocess.DEVNULL, capture_output=True, check=False,
        )  # fmt: skip
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    call("desire", "--agent-id", AGENT, "--text", "x").success()
    for tool, arguments, code in WRONG:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in arguments.items()]
        document = ask(tool, *words)
        assert document["code"] == code, document
        assert document["error"] == f"{document['message']} {document['hint']}".rstrip()
        assert not wrong(document["error"], "promptyoself__"), document
    document = ask("list", "--colour", "red")
    assert document["code"] == "unknown_option"
    assert "`promptyoself__list`" in document["error"]


def test_descriptions_too() -> None:
    """What a host or a client is told of a command is in its own words."""
    described = sanctum.describe(GROUP)
    for command in described["commands"]:
        texts = [
            command["description"],
            *(option["description"] for option in command["parameters"]),
        ]
        assert not [word for text in texts for word in wrong(text, "promptyoself__")], command


def test_a_shell_keeps_its_own(var: Path) -> None:
    """At a shell nothing changes."""
    error = call("show", "--id", "sch_00000000").error("unknown_id")
    assert "`promptyoself list --status all`" in error["hint"]
