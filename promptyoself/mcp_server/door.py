"""The commands for agents as the tools of an MCP server, on the official SDK.

Names, parameters and descriptions are read off Click's own tree, and a call goes through the
command itself, in a thread, so that this door can't drift from the others. Nothing here knows what
a command does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import unquote

import anyio
import click
import orjson
from anyio import to_thread
from mcp.server import Server, ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
)
from mcp_types import Tool as Listed

from promptyoself import __version__
from promptyoself.errors import PromptyoselfError, WrongUsage
from promptyoself.identity import is_opaque_id
from promptyoself.loop import Stop
from promptyoself.mcp_server.messages import arguments_of
from promptyoself.sanctum import AGENT_FACING, Parameter, argument, parameters, told, wording
from promptyoself.times import shown
from promptyoself.tools import TOOLS, output_schema
from promptyoself.wording import Wording

__all__ = ["Ask", "Door", "Origin"]


class Origin(NamedTuple):
    """Where a call comes from: the ``agent`` that calls, where the door knows it; the name that the
    ``client`` gives itself; and the ``address`` that it came from, if it was over the network."""

    agent: str | None
    client: str | None
    address: str | None


Ask = Callable[[Sequence[str], Stop, Origin], bytes]
"""Calls a command with these arguments, and returns the document that it would print. It ends soon
after the Stop was asked for, where it can."""

_CALLS_AT_ONCE = 32
_HISTORY = 100  # events of a schedule that its resource has
_JSON = "application/json"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int, float),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
}

_INSTRUCTIONS = """\
promptyoself is a clock for agents: it sends a prompt to a Letta agent later, once or again and \
again, and keeps a log of all that was asked and sent.

To be prompted later, call `register` with the prompt and one of time ("in 45m", \
"2027-01-31T09:00"), cron ("0 9 * * MON-FRI") and every ("2h"); times are UTC unless tz names a \
zone. Keep the id of the answer: `show`, `modify`, `pause`, `resume` and `cancel` want it. `list` \
finds it again, and `history` tells whether a prompt was delivered.

Write a prompt for somebody who remembers nothing of this conversation. An error has a code, a \
message that says what was wrong with which value, and a hint what to do; nothing was changed then.\
"""


class _Tool(NamedTuple):
    """A command as a tool: how it is listed, and what its arguments are called on the command."""

    command: str
    listed: Listed
    arguments: dict[str, Parameter]
    required: list[str]


class Door:
    """What MCP clients are offered: ``server`` has it."""

    def __init__(
        self,
        group: click.Group,
        ask: Ask,
        agenda: Ask,
        *,
        agent: str | None,
        prefix: str = "",
        header: str | None = None,
    ) -> None:
        """``agenda`` answers like a command, to ``--agent-id``. ``agent`` is the one that is meant
        where a call names none; ``prefix`` stands before every tool's name. ``header`` is the one
        of HTTP that has to name the agent that calls."""
        self._ask, self._agenda, self._prefix, self._header = ask, agenda, prefix, header
        self._wording = wording(group, lambda name: prefix + argument(name), argument)
        offered = _tools(group, agent, prefix, self._wording, known=header is not None)
        self._tools = {tool.listed.name: tool for tool in offered}
        self._limiter: anyio.CapacityLimiter | None = None
        self._running: set[Stop] = set()
        self.server: Server[Any] = Server(
            "promptyoself",
            version=__version__,
            title="promptyoself",
            description=" ".join((group.help or "").split()),
            instructions=self._wording.text(_INSTRUCTIONS),
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
        )

    def stop(self, why: str) -> None:
        """Ask every call under way to come to an end."""
        for stop in list(self._running):
            stop.ask(why)

    async def _list_tools(
        self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=[tool.listed for tool in self._tools.values()])

    async def _call_tool(
        self, context: ServerRequestContext[Any], params: CallToolRequestParams
    ) -> CallToolResult:
        tool = self._tools.get(params.name)
        if tool is None:
            raise _refused(
                PromptyoselfError(
                    "unknown_tool",
                    f"There is no tool {shown(params.name)}.",
                    f"There are: {', '.join(self._tools)}.",
                )
            )
        try:
            words = _words(tool, arguments_of(params))
            origin = self._origin(context)
        except PromptyoselfError as error:
            found = error.document()
        else:
            line = await self._in_thread(self._ask, [tool.command, *words], origin)
            found = orjson.loads(line)
        document = self._wording.document(found, tool.command)
        return CallToolResult(
            content=[TextContent(text=orjson.dumps(document).decode())],
            structured_content=document,
            is_error=document["status"] == "error",
        )

    def _origin(self, context: ServerRequestContext[Any]) -> Origin:
        """Who calls. Over HTTP there is a request, and an address."""
        params = context.session.client_params
        peer = getattr(context.request, "client", None)
        address = None if context.request is None else peer.host if peer else "unknown"
        return Origin(
            self._caller(context), None if params is None else params.client_info.name, address
        )

    def _caller(self, context: ServerRequestContext[Any]) -> str | None:
        """The agent that calls, where the server was told which header says so. A call without it
        could be anybody's, and is refused: else whoever leaves it out would be free of the pin."""
        if self._header is None:
            return None
        sent = [] if context.request is None else context.request.headers.getlist(self._header)
        if not any(sent):
            raise PromptyoselfError(
                "missing_agent_header",
                f"The call has no header {self._header}, which has to name the agent that calls.",
                "Let the client send it with each call.",
            )
        agent = ", ".join(sent)  # as HTTP has it; more than one is nobody
        if not is_opaque_id(agent):
            raise PromptyoselfError(
                "invalid_agent_id",
                f"The header {self._header} is {shown(agent)}, which is not the id of an agent.",
                "Let the client send the id of the one agent that calls.",
            )
        return agent

    async def _in_thread(self, ask: Ask, words: Sequence[str], origin: Origin) -> bytes:
        """One slow call must not hold up the others. If nobody waits for it any more, it is asked
        to end; what it has begun to write it writes whole."""
        if self._limiter is None:  # it belongs to the event loop that is running
            self._limiter = anyio.CapacityLimiter(_CALLS_AT_ONCE)
        stop = Stop()
        self._running.add(stop)
        try:
            return await to_thread.run_sync(
                ask, words, stop, origin, abandon_on_cancel=True, limiter=self._limiter
            )
        except anyio.get_cancelled_exc_class():
            stop.ask("cancelled")
            raise
        finally:
            self._running.discard(stop)

    async def _list_resources(
        self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        text = "What will be delivered today, the soonest first."
        agenda = Resource(
            uri="promptyoself://agenda",
            name="agenda",
            title="Today's agenda",
            description=text,
            mime_type=_JSON,
        )
        return ListResourcesResult(resources=[agenda])

    async def _list_templates(
        self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        history = ResourceTemplate(
            uri_template="promptyoself://schedules/{id}/history",
            name="history",
            title="A schedule's history",
            description=f"The latest {_HISTORY} events of a schedule, the oldest first.",
            mime_type=_JSON,
        )
        agenda = ResourceTemplate(
            uri_template="promptyoself://agents/{agent_id}/agenda",
            name="agenda-of-agent",
            title="An agent's agenda for today",
            description="What will be delivered to one agent today, the soonest first.",
            mime_type=_JSON,
        )
        return ListResourceTemplatesResult(resource_templates=[history, agenda])

    async def _read_resource(
        self, context: ServerRequestContext[Any], params: ReadResourceRequestParams
    ) -> ReadResourceResult:
        uri = params.uri
        try:
            origin = self._origin(context)
        except PromptyoselfError as error:
            raise _refused(error) from None
        if uri == "promptyoself://agenda":
            line = await self._in_thread(self._agenda, [], origin)
        elif found := re.fullmatch("promptyoself://agents/([^/?#]+)/agenda", uri):
            words = [f"--agent-id={unquote(found[1])}"]
            line = await self._in_thread(self._agenda, words, origin)
        elif found := re.fullmatch("promptyoself://schedules/([^/?#]+)/history", uri):
            words = ["history", f"--id={unquote(found[1])}", f"--limit={_HISTORY}"]
            line = await self._in_thread(self._ask, words, origin)
        else:
            raise _refused(
                PromptyoselfError(
                    "unknown_resource",
                    f"There is no resource {shown(uri)}.",
                    "There are promptyoself://agenda, promptyoself://agents/AGENT/agenda and "
                    "promptyoself://schedules/ID/history.",
                )
            )
        document = orjson.loads(line)
        if document["status"] == "error":
            document = self._wording.document(document, None)
            raise MCPError(INVALID_PARAMS, document["message"], document)
        content = TextResourceContents(uri=uri, mime_type=_JSON, text=line.decode())
        return ReadResourceResult(contents=[content])

    async def _list_prompts(
        self, _: ServerRequestContext[Any], __: PaginatedRequestParams | None
    ) -> ListPromptsResult:
        return ListPromptsResult(prompts=[prompt for prompt, _ in _PROMPTS.values()])

    async def _get_prompt(
        self, _: ServerRequestContext[Any], params: GetPromptRequestParams
    ) -> GetPromptResult:
        if params.name not in _PROMPTS:
            raise _refused(
                PromptyoselfError(
                    "unknown_prompt",
                    f"There is no prompt {shown(params.name)}.",
                    f"There are: {', '.join(_PROMPTS)}.",
                )
            )
        prompt, template = _PROMPTS[params.name]
        given = params.arguments or {}
        known = {each.name for each in prompt.arguments or []}
        for name in given:
            if name not in known:
                raise _refused(_unknown_argument(name, known))
        for each in prompt.arguments or []:
            if each.required and not given.get(each.name, "").strip():
                raise _refused(_missing_argument(each.name))
        text = template(given, self._prefix)
        return GetPromptResult(
            description=prompt.description,
            messages=[PromptMessage(role="user", content=TextContent(text=text))],
        )


def _follow_up(given: Mapping[str, str], prefix: str) -> str:
    return (
        f"Arrange to be prompted later about this: {given['about']}\n\n"
        f"When: {given.get('when') or 'choose a sensible time, and say which'}.\n\n"
        f"Look with `{prefix}list` whether it is scheduled already. If not, call "
        f"`{prefix}register`: write the prompt for somebody who remembers nothing of this "
        "conversation, with what is to be done and why, and give it a short name. Then say when it "
        "will come, in local time."
    )


def _review(given: Mapping[str, str], prefix: str) -> str:
    agent = given.get("agent_id")
    which = f"with agent_id {agent!r}" if agent else "for all that you may see"
    return (
        f"Go through the schedules, {which}: call `{prefix}list`, and `{prefix}audit` with since "
        "'7d ago'.\n\n"
        "Say in a few lines what is coming, what was not delivered and why, and which schedules "
        "look forgotten, doubled or too frequent. Propose what to pause, change or cancel, but "
        "change nothing before it is agreed."
    )


_PROMPTS: dict[str, tuple[Prompt, Callable[[Mapping[str, str], str], str]]] = {
    "follow_up": (
        Prompt(
            name="follow_up",
            title="Follow up later",
            description="Schedule a prompt to come back to something.",
            arguments=[
                PromptArgument(name="about", description="What to come back to.", required=True),
                PromptArgument(name="when", description="When: 'in 2h', 'every weekday at 9'."),
            ],
        ),
        _follow_up,
    ),
    "review_schedules": (
        Prompt(
            name="review_schedules",
            title="Review the schedules",
            description="Look at what is scheduled and what became of it, and propose changes.",
            arguments=[PromptArgument(name="agent_id", description="Only this agent's.")],
        ),
        _review,
    ),
}


def _tools(
    group: click.Group, agent: str | None, prefix: str, words: Wording, *, known: bool
) -> list[_Tool]:
    context = click.Context(group)
    commands = {name: group.get_command(context, name) for name in AGENT_FACING}
    return [
        _tool(name, each, agent, prefix, words, known)
        for name, each in commands.items()
        if each is not None
    ]


def _tool(
    name: str,
    command: click.Command,
    agent: str | None,
    prefix: str,
    words: Wording,
    known: bool,
) -> _Tool:
    arguments = {argument(parameter.name): parameter for parameter in parameters(command)}
    properties = {
        key: _property(each, words.text(each.description)) for key, each in arguments.items()
    }
    required = [key for key, each in arguments.items() if each.required]
    tool = TOOLS.get(name)
    # What is made belongs to an agent: the one that calls, where that is known; the one whose
    # server this is; or the one that is named.
    made = "agent_id" in arguments and "id" not in arguments
    if made and not (tool and tool.read_only) and not known:
        if agent is None:
            required.append("agent_id")
        else:
            properties["agent_id"]["default"] = agent
    listed = Listed(
        name=prefix + argument(name),
        title=tool.title if tool else None,
        description=words.text(told(command)),
        input_schema={
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": False,
        },
        output_schema=output_schema(tool) if tool else None,
        annotations=tool
        and ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.idempotent,
            open_world_hint=tool.open_world,
        ),
    )
    return _Tool(name, listed, arguments, required)


def _property(parameter: Parameter, description: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": parameter.type, "description": description}
    one = schema
    if parameter.items is not None:
        one = schema["items"] = {"type": parameter.items}
    if parameter.choices:
        one["enum"] = list(parameter.choices)
    least, most = parameter.bounds
    if least is not None:
        one["minimum"] = least
    if most is not None:
        one["maximum"] = most
    if parameter.default is not None:
        schema["default"] = parameter.default
    return schema


def _words(tool: _Tool, given: Mapping[str, Any]) -> list[str]:
    """The arguments as the command wants them. What is ``null`` wasn't given.

    Raises:
        WrongUsage: ``unknown_option``, ``missing_option`` or ``invalid_value``.
    """
    words: list[str] = []
    for name, value in given.items():
        parameter = tool.arguments.get(name)
        if parameter is None:
            raise _unknown_argument(name, tool.arguments)
        if value is None:
            continue
        _check(name, value, parameter.type)
        if parameter.flag:
            if value:
                words.append(f"--{parameter.name}")
            elif parameter.opposite is not None:
                words.append(f"--{parameter.opposite}")
            continue
        for item in value if isinstance(value, list) else [value]:
            if parameter.items is not None:
                _check(name, item, parameter.items)
            words.append(f"--{parameter.name}={_written(item)}")
    for name in tool.required:
        if given.get(name) is None:
            raise _missing_argument(name)
    return words


def _check(name: str, value: Any, kind: str) -> None:
    right = isinstance(value, _TYPES[kind]) and isinstance(value, bool) == (kind == "boolean")
    if isinstance(value, float):
        right = right and isfinite(value) and (kind == "number" or value.is_integer())
    if not right:
        article = "an" if kind[0] in "aeiou" else "a"
        raise WrongUsage(
            "invalid_value",
            f"The argument {name} is {shown(_written(value))}, which is not {article} {kind}.",
            f"Give {article} {kind}.",
        )


def _written(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value, ensure_ascii=False)


def _unknown_argument(name: str, known: Any) -> WrongUsage:
    hint = f"There are: {', '.join(known)}." if known else "It takes none."
    return WrongUsage("unknown_option", f"There is no argument {shown(name)}.", hint)


def _missing_argument(name: str) -> WrongUsage:
    return WrongUsage("missing_option", f"The argument {name} is missing.", f"Give {name}.")


def _refused(error: PromptyoselfError) -> MCPError:
    """An error of the protocol, with our own document beside its message."""
    return MCPError(INVALID_PARAMS, error.message, error.document())
