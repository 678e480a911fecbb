"""The MCP server's tools, resources and prompts, through the SDK's own client in this process; what
takes a process of its own is in test_mcp_server.py."""

from __future__ import annotations

import json
import keyword
import re
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import anyio
import click
import orjson
import pytest
from calling import AGENT, FORBIDDEN, call, lines_of, log_of
from checker import check_chain
from jsonschema import Draft202012Validator
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_types import CallToolResult, TextContent, TextResourceContents
from mcp_types import Tool as Listed

from promptyoself import cli
from promptyoself.core.errors import PromptyoselfError
from promptyoself.doors import session
from promptyoself.doors.agent_parameters import parameters
from promptyoself.doors.commands import mcp
from promptyoself.doors.mcp import schemas, tools
from promptyoself.doors.mcp.tools import Door
from promptyoself.doors.registry import AGENT_FACING, COMMANDS, SETS, TOOLS, Effect, Tool
from promptyoself.doors.session import Caller
from promptyoself.sandbox import Sandbox

if TYPE_CHECKING:
    from conftest import Clock

pytestmark = pytest.mark.anyio
T = TypeVar("T")
READ_ONLY = {
    "list", "show", "next", "simulate", "history", "audit", "diff", "stats", "head", "verify",
    "agents", "test", "desires", "budgets", "replies",
}  # fmt: skip
PROMPT = {"agent_id": AGENT, "prompt": "Hello", "every": "2h"}


def opened(
    agent: str | None = None,
    prefix: str = "",
    group: click.Group | None = None,
    only: Sequence[str] | None = None,
) -> Door:
    """The server as `promptyoself mcp` makes it."""
    group = group or cli.cli
    ask = partial(mcp._answer, group, None)
    agenda = partial(mcp._answer, mcp._agenda_command, None)
    offered = AGENT_FACING if only is None else only
    return Door(group, ask, agenda, agent=agent, prefix=prefix, tools=offered)


def talk(client_side: Callable[[Client], Awaitable[T]], door: Door | None = None) -> T:
    """Connect the SDK's client to a server, and let it say something."""

    async def connected() -> T:
        async with Client((door or opened()).server) as client:
            return await client_side(client)

    return anyio.run(connected)


def document(result: CallToolResult) -> dict[str, Any]:
    """What a tool answered: the same as structured content, as text, and by its flag."""
    answer: dict[str, Any] = result.structured_content
    (content,) = result.content
    assert isinstance(content, TextContent)
    assert orjson.loads(content.text) == answer
    assert result.is_error == (answer["status"] == "error")
    return answer


def ask(tool: str, arguments: dict[str, Any], door: Door | None = None) -> dict[str, Any]:
    """Call one tool."""
    return document(talk(lambda client: client.call_tool(tool, arguments), door))


def listed(door: Door | None = None) -> dict[str, Listed]:
    """The tools by name."""
    tools = talk(lambda client: client.list_tools(), door).tools
    return {tool.name: tool for tool in tools}


def read(uri: str, door: Door | None = None) -> dict[str, Any]:
    """A resource."""

    async def look(client: Client) -> dict[str, Any] | MCPError:
        try:
            (content,) = (await client.read_resource(uri)).contents
        except MCPError as error:  # the client's end would wrap it
            return error
        assert isinstance(content, TextResourceContents)
        assert (content.uri, content.mime_type) == (uri, "application/json")
        answer: dict[str, Any] = orjson.loads(content.text)
        return answer

    answer = talk(look, door)
    if isinstance(answer, MCPError):
        raise answer
    return answer


def test_the_tools_are_the_commands_for_agents(var: Path) -> None:
    """One tool for each command that agents may call, and no other: what is not listed as theirs
    is closed to them, so every new command has to be put on one of the two sides."""
    assert list(listed()) == list(AGENT_FACING)
    assert set(AGENT_FACING) | FORBIDDEN == set(COMMANDS) | FORBIDDEN
    assert not FORBIDDEN & set(listed())
    assert list(listed(opened(prefix="clock_"))) == [f"clock_{name}" for name in listed()]


def test_a_prefix_is_in_what_is_told_too(var: Path) -> None:
    """With a prefix, whatever a model reads names the tools as they are called."""
    door = opened(prefix="clock_")
    assert "`clock_pause` stops it" in str(listed(door)["clock_cancel"].description)
    assert ask("clock_register", PROMPT, door)["created"]

    async def look(client: Client) -> None:
        assert "call `clock_register`" in str(client.instructions)
        got = await client.get_prompt("follow_up", {"about": "`tea` --now"})
        assert "call `clock_register`" in str(got)
        assert "`register`" not in str(got)
        assert "`tea` --now" in str(got)
        with pytest.raises(MCPError, match="no tool"):
            await client.call_tool("register", PROMPT)

    talk(look, door)


def test_a_tool_is_described_for_a_model(var: Path) -> None:
    """What a model reads: a title, what it does, when to use it, what comes back, and arguments by
    the names that they have here; what it reads of what calling does is true."""
    for name, tool in listed().items():
        assert tool.title
        assert tool.description is not None
        assert "nswer" in tool.description, name
        assert "--" not in tool.description, name
        assert "--" not in str(tool.input_schema), name
        for where, word, value in subschemas(tool.input_schema):
            assert isinstance(value, dict), f"{name}: {where} {word} is no schema to all clients"
        assert all(argument["description"] for argument in tool.input_schema["properties"].values())
        assert tool.output_schema is not None, "name the answer's type"
        Draft202012Validator.check_schema(tool.input_schema)
        Draft202012Validator.check_schema(tool.output_schema)
        assert tool.annotations is not None
        assert tool.annotations.read_only_hint == (name in READ_ONLY)
        assert None not in (tool.annotations.idempotent_hint, tool.annotations.open_world_hint)
        assert not (tool.annotations.destructive_hint and tool.annotations.read_only_hint)


def test_arguments_are_those_of_the_command(var: Path) -> None:
    """Each parameter that an agent may give is an argument, with its type, its limits and its
    choices; of a flag with an opposite it is one argument, which may be false."""
    for name, tool in listed().items():
        command = cli.cli.get_command(click.Context(cli.cli), name)
        assert command is not None
        expected = {option.name.replace("-", "_"): option.type for option in parameters(command)}
        properties = tool.input_schema["properties"]
        assert {key: argument["type"] for key, argument in properties.items()} == expected
    register = listed()["register"].input_schema["properties"]
    assert register["misfire"]["enum"] == ["coalesce", "skip", "all"]
    assert "default" not in register["envelope"]
    assert "no_envelope" not in register
    assert listed()["next"].input_schema["properties"]["count"] == {
        "type": "integer", "description": "How many.", "minimum": 1, "maximum": 1000, "default": 5,
    }  # fmt: skip


def test_a_new_command_appears_by_itself(var: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that is put among those of agents is a tool from then on, with its parameters,
    several values of one among them; it needs nothing else, but should say what it answers."""

    @click.command("wish")
    @click.option("--tag", multiple=True, help="A tag.")
    @click.option("--strength", type=float, multiple=True)
    @click.option("--loud", is_flag=True)
    def wish_command(tag: tuple[str, ...], strength: tuple[float, ...], loud: bool) -> Any:
        """Wish for something."""
        return {"status": "success", "tag": tag, "strength": strength, "loud": loud}

    group = click.Group("promptyoself", commands={"wish": wish_command})
    monkeypatch.setattr(tools, "AGENT_FACING", ("wish",))
    monkeypatch.setitem(TOOLS, "wish", Tool("wishes", "Wish", Effect.WRITES))
    door = opened(group=group, only=("wish",))
    tool = listed(door)["wish"]
    assert tool.input_schema["properties"]["tag"] == {
        "type": "array", "items": {"type": "string"},
        "description": "A tag.",
    }  # fmt: skip
    assert tool.output_schema is None
    assert ask("wish", {"tag": ["a", "--b", "c d"], "strength": [1, 0.5]}, door) == {
        "status": "success", "tag": ["a", "--b", "c d"], "strength": [1.0, 0.5], "loud": False,
    }  # fmt: skip
    assert ask("wish", {"tag": [], "loud": True}, door)["loud"] is True
    assert ask("wish", {"tag": ["a", 5]}, door)["code"] == "invalid_value"
    for tag in ("a", ["a"], '["a"]', {"item": "a"}, {"item": ["a"]}, ["a", ""], ["a", None]):
        assert ask("wish", {"tag": tag}, door)["tag"] == ["a"], tag
    assert ask("wish", {"tag": "[a", "strength": "0.5"}, door)["tag"] == ["[a"]
    assert ask("wish", {"tag": "", "strength": ["1", 0.5]}, door)["strength"] == [1.0, 0.5]
    assert ask("wish", {"tag": '[{"a": 1}]'}, door)["code"] == "invalid_value"


async def test_tools_answer_what_they_say(sandbox: Sandbox, var: Path, clock: Clock) -> None:
    """Every tool's answers fit its output schema (the client checks that), and are those of the
    command line."""
    agent = sandbox.agents[0]
    used: set[str] = set()
    async with Client(opened().server) as client:
        names = {tool.name: tool for tool in (await client.list_tools()).tools}

        async def asked(tool: str, **arguments: Any) -> dict[str, Any]:
            used.add(tool)
            answer = document(await client.call_tool(tool, arguments))
            assert answer["status"] == "success", answer
            schema = names[tool].output_schema
            assert schema is not None
            Draft202012Validator(schema).validate(answer)
            return answer

        one = {"agent_id": agent, "prompt": "Stretch.", "cron": "0 13 * * *"}
        assert (await asked("register", **one, dry_run=True))["dry_run"]
        id_ = (await asked("register", **one, name="noon", envelope=True, tier=1))["id"]
        assert (await asked("register", **one, name="noon", tier=0))["differs"] == ["tier"]
        assert (await asked("show", id=id_))["schedule"]["envelope"] is True
        await asked("modify", id=id_, envelope=False, reason="softly")
        assert (await asked("show", id=id_))["schedule"]["envelope"] is False
        await asked("pause", id=id_)
        await asked("resume", id=id_)
        await asked("next", id=id_, count=3.0)
        await asked("next", every="5m")
        await asked("simulate", until="in 3d", latency=1.5)
        await asked("trigger", id=id_)
        clock.advance(minutes=1)
        executed = (await asked("execute", deadline=30))["executed"]
        assert [(line["id"], line["state"]) for line in executed] == [(id_, "delivered")]
        clock.advance(hours=1)
        assert (await asked("execute"))["message"] == "1 prompt executed"
        await asked("cancel", id=id_, reason="enough")
        assert (await asked("register", **one, name="noon"))["life"] == 2
        head = (await asked("head"))["head"]
        await asked("verify", head=head)
        await asked("diff", **{"from": "1"})
        await asked("agents")
        await asked("test")
        await asked("budgets")
        await asked("idle", agent_id=agent, every="1d")
        desire = await asked("desire", agent_id=agent, text="Read more.", tag=["art", "rest"])
        (wish,) = (await asked("desires", agent_id=agent, tag=["art"]))["desires"]
        assert (wish["id"], wish["tags"]) == (desire["id"], ["art", "rest"])
        await asked("reinforce", id=desire["id"], by=0.1)
        faint = await asked("prune", below=0.9, agent_id=agent, dry_run=True)
        assert [wish["id"] for wish in faint["pruned"]] == [desire["id"]]
        await asked("prune", below=0.1, agent_id=agent)
        await asked("verify")
        for tool, arguments in (
            ("list", {"full": True, "status": "all"}), ("history", {}), ("audit", {}),
            ("replies", {}),
            ("stats", {}), ("list", {"limit": 1}),
        ):  # fmt: skip
            words = [
                f"--{key}" if value is True else f"--{key}={value}"
                for key, value in arguments.items()
            ]
            assert await asked(tool, **arguments) == call(tool, *words).success()
    assert used == set(AGENT_FACING)
    events = check_chain(var / "schedules")
    by = {(event["actor"]["via"], event["actor"]["who"]) for event in events}
    login = call("register", "--agent-id", AGENT, "--prompt", "x", "--every", "1d").success()
    assert by == {("ledger", "promptyoself"), ("mcp", "mcp")}, "the SDK's client calls itself so"
    last = orjson.loads(lines_of(var)[-1])["actor"]
    assert (last["who"], last["for_agent"]) == (session._login(), AGENT), login
    assert sandbox.deliveries


def test_no_key_is_a_word_of_python(var: Path) -> None:
    """Clients make classes and functions of schemas, in which a name may be no keyword: no key that
    a schema has, nor an argument, is one. `from` is still answered, and taken."""

    def keys(schema: Any) -> Iterator[str]:
        if isinstance(schema, dict):
            properties = schema.get("properties", {})
            yield from properties
            for part in (*properties.values(), *schema.values()):
                yield from keys(part)

    for tool in listed().values():
        for schema in (tool.input_schema, tool.output_schema):
            names = set(keys(schema))
            assert not {name for name in names if keyword.iskeyword(name)}, tool.name
            assert all(name.isidentifier() for name in names), tool.name
    ask("register", PROMPT)
    for name, arguments in (
        ("diff", {"since": "1"}), ("diff", {"from": "1"}), ("simulate", {"until": "in 1d"}),
    ):  # fmt: skip
        answer = ask(name, arguments)
        assert answer["from"] == answer["since"]
    assert ask("diff", {"since": "1", "from": "1"})["code"] == "repeated_option"
    old, new = (call("diff", option, "1").success() for option in ("--from", "--since"))
    assert (old["from"], old["changes"]) == (new["since"], new["changes"])
    agenda = read("promptyoself://agenda")
    assert agenda["from"] == agenda["since"]


def test_what_is_there_already_fits_the_schema_too(var: Path, clock: Clock) -> None:
    """Clients check an answer against the schema: also where a schedule that is registered again is
    paused, and so has no next run, and where a desire was recorded at the same instant."""
    id_ = ask("register", PROMPT)["id"]
    ask("pause", {"id": id_})
    assert ask("register", PROMPT)["next_run"] is None
    wish = {"agent_id": AGENT, "text": "Tea"}
    assert [ask("desire", wish)["created"] for _ in range(2)] == [True, False]


def test_an_output_schema_can_fail() -> None:
    """The schemas refuse what isn't so: a key that is missing, one of another type, an error that
    has no code; an error as it should be fits every one of them."""
    error = {"status": "error", "code": "c", "message": "m", "hint": "", "error": "m", "value": 1}
    for name in AGENT_FACING:
        schema = Draft202012Validator(schemas.output_schema(name))
        assert schema.is_valid(error), name
        assert not schema.is_valid({key: error[key] for key in error if key != "code"})
        assert not schema.is_valid({"status": "success"}), name
        assert not schema.is_valid({})
    shown = Draft202012Validator(schemas.output_schema("head"))
    right = {"status": "success", "head": "0:", "seq": 0, "hash": "", "ts": None}
    assert shown.is_valid(right)
    assert not shown.is_valid({**right, "seq": "0"})


BAD = [
    ("register", {"prompt": "x", "every": "1h"}, "missing_option", "agent_id"),
    ("register", {**PROMPT, "agent_id": None}, "missing_option", "agent_id"),
    ("register", {"agent_id": AGENT, "every": "1h"}, "missing_option", "prompt"),
    ("show", {}, "missing_option", "id"),
    ("register", {**PROMPT, "colour": "red"}, "unknown_option", "'colour'"),
    ("register", {**PROMPT, "agent-id": "b"}, "unknown_option", "'agent-id'"),
    ("register", {**PROMPT, "var": "/tmp"}, "unknown_option", "'var'"),
    ("register", {**PROMPT, "prompt_file": "/etc/passwd"}, "unknown_option", "prompt_file"),
    ("history", {"ndjson": True}, "unknown_option", "ndjson"),
    ("execute", {"loop": True}, "unknown_option", "loop"),
    ("stats", {"x\ud800": 1}, "unknown_option", "x"),
    ("register", {**PROMPT, "prompt": 5}, "invalid_value", "prompt is '5'"),
    ("register", {**PROMPT, "prompt": ["a"]}, "invalid_value", "a string"),
    ("register", {**PROMPT, "prompt": {"a": 1}}, "invalid_value", "a string"),
    ("register", {**PROMPT, "envelope": "maybe"}, "invalid_value", "a boolean"),
    ("register", {**PROMPT, "envelope": 1}, "invalid_value", "a boolean"),
    ("register", {**PROMPT, "max_repetitions": "five"}, "invalid_value", "an integer"),
    ("register", {**PROMPT, "max_repetitions": "1.5"}, "invalid_value", "'1.5'"),
    ("register", {**PROMPT, "max_repetitions": "\u0665"}, "invalid_value", "an integer"),
    ("register", {**PROMPT, "max_repetitions": "5" * 5000}, "invalid_value", "an integer"),
    ("register", {**PROMPT, "agent_id": ""}, "missing_option", "agent_id"),
    ("show", {"id": ""}, "missing_option", "id"),
    ("register", {**PROMPT, "id": "sch_1"}, "unknown_option", "'id'"),
    ("register", {**PROMPT, "max_repetitions": 1.5}, "invalid_value", "'1.5'"),
    ("register", {**PROMPT, "max_repetitions": True}, "invalid_value", "an integer"),
    ("register", {**PROMPT, "max_repetitions": 10**30}, "invalid_max_repetitions", "10000"),
    ("register", {**PROMPT, "misfire": "never"}, "invalid_value", "'never'"),
    ("register", {**PROMPT, "prompt": " "}, "empty_prompt", "blank"),
    ("register", {**PROMPT, "prompt": "x\0"}, "invalid_prompt", "NUL"),
    ("register", {**PROMPT, "prompt": "x" * (1 << 20) + "x"}, "prompt_too_long", "1048577"),
    ("register", {**PROMPT, "cron": "* * * * *"}, "conflicting_options", "cron and every"),
    ("register", {**PROMPT, "tz": "Mars/Base"}, "unknown_zone", "Mars"),
    ("list", {"limit": 0}, "invalid_value", "0"),
    ("cancel", {"id": "sch_00000000"}, "unknown_id", "sch_00000000"),
]  # fmt: skip


@pytest.mark.parametrize(("tool", "arguments", "code", "told"), BAD)
def test_bad_input_is_one_error(
    tool: str, arguments: dict[str, Any], code: str, told: str, var: Path
) -> None:
    """P7: whatever is wrong with a call's arguments, the answer is an error with the document that
    every door gives, and nothing is written."""
    answer = ask(tool, arguments)
    assert (answer["status"], answer["code"]) == ("error", code), answer
    assert told in answer["message"]
    assert answer["error"] == answer["message"]
    assert len(answer["message"]) < 400
    assert not log_of(var)


def subschemas(schema: Any, where: str = "") -> Iterator[tuple[str, str, Any]]:
    """Every place of a schema at which JSON Schema has another schema. That may be a boolean, which
    google-genai, for one, can't take."""
    for word, value in schema.items():
        if word in ("items", "additionalProperties", "not", "if", "then", "else"):
            yield where, word, value
        elif word == "properties":
            for name, each in value.items():
                yield f"{where}.{name}", word, each
                if isinstance(each, dict):
                    yield from subschemas(each, f"{where}.{name}")


def test_arguments_as_models_write_them(var: Path) -> None:
    """A number or a boolean as a text, an empty text or null for what is left out, a single value
    for a list: each has one meaning, and that is taken."""
    asked = {**PROMPT, "max_repetitions": "5", "tier": " 1 ", "daily_budget": "3.0", "name": "",
             "envelope": "true", "jitter": "", "until": "", "tz": "", "misfire": "",
             "dry_run": "false", "on_failure": "", "template": "", "time": ""}  # fmt: skip
    id_ = ask("register", asked)["id"]
    shown = ask("show", {"id": id_, "at": ""})["schedule"]
    assert (shown["max_repetitions"], shown["tier"], shown["daily_budget"]) == (5, 1, 3)
    assert (shown["envelope"], shown["name"], shown["agent_id"]) == (True, None, AGENT)
    absent = {"name": None, "envelope": None, "max_repetitions": None}
    assert ask("register", {**PROMPT, **absent, "dry_run": "True", "prompt": "x"})["dry_run"]
    assert ask("list", {"limit": "1", "full": "yes", "status": "", "agent_id": ""})["count"] == 1
    for tool in ("list", "history", "audit", "budgets", "desires"):
        whole, answer = ask(tool, {}), ask(tool, {"agent_id": ""})
        for shown in (whole, answer):
            shown.pop("until", None)
            shown.pop("as_of", None)
        assert answer == whole
    wish = {"agent_id": AGENT, "text": "Tea", "tag": "drinks", "strength": "0.5"}
    desire = ask("desire", wish)["id"]
    assert ask("desires", {"tag": "drinks", "min_strength": "0"})["desires"][0]["id"] == desire
    assert ask("prune", {"below": "1e0", "agent_id": AGENT, "dry_run": "1"})["count"] == 1
    # What an empty text unsets, it unsets; the rest is left as it is.
    ask("modify", {"id": id_, "name": "n", "jitter": "1m", "envelope": "false"})
    changes = {"id": id_, "name": "", "jitter": "", "prompt": "", "agent_id": "", "tz": ""}
    assert sorted(ask("modify", changes)["modified"]) == ["jitter", "name"]
    shown = ask("show", {"id": id_})["schedule"]
    assert (shown["envelope"], shown["name"], shown["prompt"]) == (False, None, "Hello")


def test_few_tools_by_default(var: Path) -> None:
    """What an agent is offered by default are ten tools of less than 2,500 tokens, as the function
    definitions that a model reads. A token is taken to have 3.7 characters: of this very text, the
    encodings o200k_base and cl100k_base make tokens of more than 3.9."""
    door = opened(only=mcp.commands_offered("agent"))
    functions = [
        {"type": "function", "function": {
            "name": tool.name, "description": tool.description, "parameters": tool.input_schema,
        }}
        for tool in listed(door).values()
    ]  # fmt: skip
    text = json.dumps(functions, ensure_ascii=False, separators=(",", ":"))
    assert len(text) / 3.7 < 2500, len(text)
    assert list(listed(door)) == [
        "register", "list", "show", "modify", "cancel", "pause", "resume", "trigger", "next",
        "history",
    ]  # fmt: skip


def test_sets_of_tools(var: Path) -> None:
    """Sets, single tools, and both together, in one order; what is no name is refused. The sets
    have all that there is, and each has what the smaller one has."""
    assert set(SETS["agent"]) < set(SETS["operator"]) < set(SETS["all"])
    assert set(SETS["all"]) == set(AGENT_FACING)
    assert mcp.commands_offered("all") == list(AGENT_FACING)
    assert mcp.commands_offered("desire, list,show") == ["list", "show", "desire"]
    assert mcp.commands_offered("agent,audit") == [*SETS["agent"], "audit"]
    for wrong in ("", "agent,", "agents,approve", "export", "Agent"):
        with pytest.raises(PromptyoselfError) as refused:
            mcp.commands_offered(wrong)
        assert refused.value.code == "invalid_value"


@pytest.mark.parametrize("named", ["agent", "operator", "all", "show", "register,list", "history"])
def test_nothing_is_told_of_tools_that_are_not_offered(named: str, var: Path) -> None:
    """What a model reads names no tool that it isn't offered: descriptions, instructions, prompts
    and the hints of errors; and such a tool can't be called."""
    only = mcp.commands_offered(named)
    door = opened(prefix="p_", only=only)
    others = {f"p_{name}" for name in AGENT_FACING if name not in only}
    texts: list[str] = [json.dumps([tool.input_schema, tool.description], ensure_ascii=False)
                        for tool in listed(door).values()]  # fmt: skip

    async def look(client: Client) -> None:
        texts.append(str(client.instructions))
        for prompt in (await client.list_prompts()).prompts:
            texts.append(str(await client.get_prompt(prompt.name, {
                argument.name: "x" for argument in prompt.arguments or []})))  # fmt: skip
        for other in others:
            with pytest.raises(MCPError) as refused:
                await client.call_tool(other, {})
            assert refused.value.data["code"] == "unknown_tool"
            assert refused.value.data["hint"].endswith("The operator of promptyoself can offer it.")
        for name, arguments in (("show", {"id": "sch_00000000"}), ("history", {"since": "x"})):
            if name in only:
                answer = await client.call_tool(f"p_{name}", arguments)
                texts.append(document(answer)["hint"])

    talk(look, door)
    for text in texts:
        words = set(re.findall(r"`([^`]*)`", text))
        assert not words & (others | set(COMMANDS)), text


def test_a_prompt_arrives_verbatim(var: Path) -> None:
    """A text is a text, whatever it looks like: a flag, a boolean, JSON, or a megabyte of it."""
    for prompt in ("--full", "-", "true", '{"a": 1}', "=x", "a\nb\t", "ü" * (1 << 19)):
        id_ = ask("register", {**PROMPT, "prompt": prompt})["id"]
        assert ask("show", {"id": id_})["schedule"]["prompt"] == prompt


async def test_tools_that_do_not_exist(var: Path) -> None:
    """An unknown tool, and every command that isn't for agents, is an error of the protocol that
    names what there is; so are resources and prompts."""
    async with Client(opened().server) as client:
        for name in (*sorted(FORBIDDEN), "no-such", "promptyoself__list"):
            with pytest.raises(MCPError) as refused:
                await client.call_tool(name, {})
            assert refused.value.code == -32602
            assert refused.value.data["code"] == "unknown_tool"
            assert "register, list" in refused.value.data["hint"]
        for uri in ("promptyoself://agendas", "file:///etc/passwd", "promptyoself://schedules/x"):
            with pytest.raises(MCPError) as refused:
                await client.read_resource(uri)
            assert refused.value.data["code"] == "unknown_resource"
        for prompt, arguments, code in (
            ("no-such", {}, "unknown_prompt"), ("follow_up", {}, "missing_option"),
            ("follow_up", {"about": "x", "who": "y"}, "unknown_option"),
        ):  # fmt: skip
            with pytest.raises(MCPError) as refused:
                await client.get_prompt(prompt, arguments)
            assert refused.value.data["code"] == code
    assert not log_of(var)


def test_a_pinned_caller_sees_itself_alone(
    var: Path, clock: Clock, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PROMPTYOSELF_ONLY_AGENT: what names another agent, or another's schedule, is refused; lists
    have its own alone, the agenda too, and what a pass did for others isn't told."""
    mine, other = sandbox.agents
    base = {"prompt": "Hello", "every": "1h"}
    theirs = ask("register", {**base, "agent_id": other})["id"]
    monkeypatch.setenv("PROMPTYOSELF_ONLY_AGENT", mine)
    pinned = opened(agent=mine)
    own = ask("register", base, pinned)["id"]
    for tool, arguments in (
        ("register", {**base, "agent_id": other}), ("list", {"agent_id": other}),
        ("history", {"agent_id": other}), ("audit", {"agent_id": other}),
        ("simulate", {"until": "in 1d", "agent_id": other}),
        ("modify", {"id": own, "agent_id": other}),
        *((tool, {"id": theirs}) for tool in (
            "show", "cancel", "pause", "resume", "trigger", "next", "history")),
        ("modify", {"id": theirs, "every": "2h"}),
    ):  # fmt: skip
        answer = ask(tool, arguments, pinned)
        assert answer.get("code") == "forbidden_agent", (tool, answer)
    clock.advance(hours=1)
    answers = [
        ask("list", {}, pinned), ask("history", {}, pinned), ask("audit", {}, pinned),
        ask("diff", {"from": "1"}, pinned), ask("simulate", {"until": "in 1d"}, pinned),
        ask("agents", {}, pinned), ask("execute", {}, pinned),
        read("promptyoself://agenda", pinned),
    ]  # fmt: skip
    assert all(mine in str(each) or own in str(each) for each in answers)
    assert not [each for each in answers if theirs in str(each) or other in str(each)]
    assert set(sandbox.deliveries.values()) == {1}
    assert len(sandbox.deliveries) == 1  # its own: a pinned caller delivers for no other
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", other)
    assert read("promptyoself://agenda", pinned) == answers[-1]
    with pytest.raises(MCPError, match="is not"):
        read(f"promptyoself://agents/{other}/agenda", pinned)


def test_the_servers_agent_is_meant_where_none_is_named(
    var: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PROMPTYOSELF_DEFAULT_AGENT_ID a caller needn't say who it is; without, it has to, and
    what it says is recorded."""
    without = listed()["register"].input_schema
    assert without["required"] == ["agent_id"]
    assert "agent_id" not in listed()["list"].input_schema["required"]
    assert listed()["modify"].input_schema["required"] == ["id"]
    door = opened(agent="agent-env")
    schema = listed(door)["register"].input_schema
    assert "agent_id" not in schema["required"]
    assert schema["properties"]["agent_id"]["default"] == "agent-env"
    monkeypatch.setenv("PROMPTYOSELF_DEFAULT_AGENT_ID", "agent-env")
    id_ = ask("register", {"prompt": "x", "every": "1h"}, door)["id"]
    assert ask("show", {"id": id_})["schedule"]["agent_id"] == "agent-env"
    actor = orjson.loads(lines_of(var)[-1])["actor"]
    assert (actor["via"], actor["kind"], actor["for_agent"]) == ("mcp", "client", "agent-env")


def test_resources(var: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Today's agenda, up to midnight where we are, and a schedule's history."""
    monkeypatch.setenv("PROMPTYOSELF_TZ", "Asia/Tokyo")  # where it is 21:00
    id_ = ask("register", {**PROMPT, "every": "1h", "name": "hourly"})["id"]
    ask("register", {"agent_id": "b", "prompt": "y" * 200, "time": "in 30m"})
    ask("register", {"agent_id": "b", "prompt": "Tomorrow.", "time": "in 4h"})
    agenda = read("promptyoself://agenda")
    assert (agenda["day"], agenda["timezone"]) == ("2026-11-20", "Asia/Tokyo")
    assert [(slot["local"][11:16], slot["agent_id"]) for slot in agenda["agenda"]] == [
        ("21:30", "b"), ("22:00", AGENT), ("23:00", AGENT),
    ]  # fmt: skip
    assert (agenda["count"], agenda["truncated"]) == (3, False)
    assert agenda["agenda"][0]["prompt"].endswith("…")
    mine = read("promptyoself://agents/b/agenda")
    assert [slot["agent_id"] for slot in mine["agenda"]] == ["b"]
    history = read(f"promptyoself://schedules/{id_}/history")
    assert history == call("history", "--id", id_).success()
    replies = read(f"promptyoself://schedules/{id_}/replies")
    assert replies == call("replies", "--id", id_).success()
    for what in ("history", "replies"):
        with pytest.raises(MCPError, match="There is no schedule 'sch_00000000'") as refused:
            read(f"promptyoself://schedules/sch_00000000/{what}")
        assert refused.value.data["code"] == "unknown_id"

    async def look(client: Client) -> None:
        (agenda,) = (await client.list_resources()).resources
        assert agenda.uri == "promptyoself://agenda"
        templates = (await client.list_resource_templates()).resource_templates
        assert [template.uri_template for template in templates] == [
            "promptyoself://schedules/{id}/history", "promptyoself://schedules/{id}/replies",
            "promptyoself://agents/{agent_id}/agenda",
        ]  # fmt: skip

    talk(look)


def test_an_agenda_ends(var: Path, clock: Clock) -> None:
    """A day of many deliveries isn't told to its end, and says so."""
    ask("register", {**PROMPT, "every": "1m"})
    agenda = read("promptyoself://agenda")
    assert (len(agenda["agenda"]), agenda["count"], agenda["truncated"]) == (200, 200, True)


async def test_prompts() -> None:
    """The templates name tools that exist, and have what they were given in them."""
    async with Client(opened().server) as client:
        prompts = (await client.list_prompts()).prompts
        assert [prompt.name for prompt in prompts] == ["follow_up", "review_schedules"]
        for name, arguments in (
            ("follow_up", {"about": "the invoice", "when": "in 2h"}),
            ("follow_up", {"about": "the invoice"}),
            ("review_schedules", {"agent_id": "agent-7"}),
            ("review_schedules", {}),
        ):
            got = await client.get_prompt(name, arguments)
            (message,) = got.messages
            text = cast(TextContent, message.content).text
            assert all(value in text for value in arguments.values())
            named = {part for number, part in enumerate(text.split("`")) if number % 2}
            assert named <= set(AGENT_FACING)
            assert named


def blocking(began: threading.Event, go_on: threading.Event) -> Door:
    """A server one of whose commands takes as long as the test likes, or until it is asked to end;
    and another that doesn't."""

    def answer(words: Sequence[str], caller: Caller) -> bytes:
        assert caller.stop is not None
        if words[0] == "verify":
            began.set()
            while not go_on.wait(0.01) and caller.stop.why is None:
                pass
        return orjson.dumps({"status": "error", "code": words[0], "stopped": caller.stop.why})

    return Door(cli.cli, answer, answer, agent=None)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_slow_call_does_not_hold_up_others(mode: str) -> None:
    """While one call takes its time, others are answered, on the same connection."""
    began, go_on = threading.Event(), threading.Event()
    answers: list[str] = []
    async with Client(blocking(began, go_on).server, mode=mode) as client:

        async def slow() -> None:
            answers.append((await client.call_tool("verify", {})).structured_content["code"])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(slow)
            await anyio.to_thread.run_sync(began.wait)
            for _ in range(3):
                await client.call_tool("stats", {})
            assert not answers
            go_on.set()
    assert answers == ["verify"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_call_that_nobody_waits_for_is_asked_to_end(mode: str) -> None:
    """A client that gives up, or goes, leaves no call behind that goes on for minutes."""
    began, never = threading.Event(), threading.Event()
    door = blocking(began, never)
    async with Client(door.server, mode=mode) as client:
        with anyio.move_on_after(30) as scope:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(client.call_tool, "verify", {})
                await anyio.to_thread.run_sync(began.wait)
                scope.cancel()
    assert not door._running
    assert not never.is_set()


async def test_calls_at_once_do_not_mix(var: Path) -> None:
    """P5: many calls at once, each in a thread: everybody gets his own answer, and every event has
    its own actor."""
    async with Client(opened().server) as client:
        ids: dict[str, str] = {}

        async def one(number: int) -> None:
            agent = f"agent-{number}"
            arguments = {"agent_id": agent, "prompt": f"Hello {number}", "every": "1h"}
            wrong = await client.call_tool("register", {**arguments, "every": f"{number}x"})
            assert f"{number}x" in document(wrong)["message"]
            id_ = document(await client.call_tool("register", arguments))["id"]
            shown = document(await client.call_tool("show", {"id": id_}))
            assert shown["schedule"]["prompt"] == f"Hello {number}"
            ids[id_] = agent

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(one, number)
        for event in check_chain(var / "schedules")[1:]:
            assert event["actor"]["for_agent"] == ids[event["id"]]
    assert len(lines_of(var)) == 41
